"""Statistics that more than one program needs: paired tests, families, recipes, regressions, shares."""
