"""Smaller programs, run as `python -m tools.NAME`; each answers `--help`."""
