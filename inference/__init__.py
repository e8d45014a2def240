"""Labels for posts from a finished run, and text from any checkpoint.

`load_run` is the entry point for notebooks; see `loaded`.
"""

from inference.decide import Label
from inference.loaded import LoadedRun, load_run

__all__ = ["Label", "LoadedRun", "load_run"]
