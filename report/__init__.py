"""Figures about predictions: counts, intervals, tables, pictures and the page. Imports numpy and matplotlib only."""

import logging

# Where no home is, matplotlib says in two lines on stderr that its fonts are found anew: nobody asked.
logging.getLogger("matplotlib").setLevel(logging.ERROR)
