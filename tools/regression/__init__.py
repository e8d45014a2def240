"""Regressions on machine labels: python -m tools.regression."""
