"""Figures about predictions: counts, intervals, tables, pictures and the page. Imports numpy and matplotlib only."""
