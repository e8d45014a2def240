"""The picture at the end of a chapter: shown, or saved where `python -m learn run` was told to.

Colours and letters are those of the project's reports (`report.figures`), so that a grey print and any kind of colour
vision lose nothing.
"""

from pathlib import Path

import matplotlib
from matplotlib import pyplot

from common.terminal import this_python
from report.figures import GREY, INK, SEEN, SHADES, STYLE, UNSEEN

BLUE, ORANGE = SEEN, UNSEEN
__all__ = ["BLUE", "GREY", "INK", "ORANGE", "SHADES", "panels", "show"]
folder: Path | None = None  # where pictures go; None shows them


def panels(columns: int = 2, width: float = 10.0, height: float = 4.0, **options):
    """A new figure with its panels side by side: (figure, axes)."""
    matplotlib.rcParams.update(STYLE)
    return pyplot.subplots(1, columns, figsize=(width, height), layout="constrained", **options)


def show(figure, name: str) -> None:
    """Save `figure` as `name`.png in `folder`, or else show it; says what to do where there is no screen."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(folder / f"{name}.png", dpi=120)
        print(f"picture: {folder / name}.png")
    elif matplotlib.get_backend().lower() == "agg":
        number = name.split("_")[1]
        print(f"no screen to show a picture on; `{this_python()} -m learn run {number} --out pictures` saves it")
    else:
        pyplot.show()
    pyplot.close(figure)
