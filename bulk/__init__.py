"""Labelling at length: many files, many workers, what is done and what is left, what it takes."""
