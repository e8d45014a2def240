"""Figures about predictions: counts, intervals, tables, pictures and the page. Imports only numpy and matplotlib."""
