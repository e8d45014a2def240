"""True shares from machine labels: python -m tools.prevalence."""
