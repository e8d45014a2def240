"""One module a chapter: the functions to fill in."""
