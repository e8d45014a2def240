"""The study: what is fitted on what, in which order, and how its questions are answered."""
