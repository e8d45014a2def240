"""The questions that a study asks of its answers; each module gives one section of the report."""
