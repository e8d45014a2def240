"""Posts coded by hand in a local page: python -m tools.code."""
