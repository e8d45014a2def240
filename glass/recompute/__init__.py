"""The parts of the program that recomputes a trace: numpy alone, no torch; `program()` is all of them as one file.

    weights    what the stages were computed with        way      from ids to the labels' probabilities
    beside     what is computed beside it                backward   the way back from a loss
    learning   a step of it                              two        two beside each other
    check      stage by stage, and the lines that say so
"""

from glass.recompute.check import main
from glass.recompute.program import program

__all__ = ["main", "program"]
