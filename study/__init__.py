"""The study: what is fitted on what, in which order, and what the answers say to its questions."""
