"""What the study's figures share: colours, markers, hatches, a table's columns by role, panels.

Nothing is shown by colour alone. Series differ by marker and dash as well, cells by the number in them; the order of
the colours (Okabe and Ito 2008) keeps neighbours distinct in greyscale. Ink on a shade is black or white, whichever has
the higher contrast (WCAG 2.2, 1.4.3): at least 4.5 to 1 on any shade.
"""

import math
import re
import textwrap
from collections.abc import Sequence

from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from report.figures import GREY, INK, SEEN, SHADES, UNSEEN, WIDE
from study.report.section import FigureSpec, Table
from study.report.tables import shown

PALETTE = (SEEN, UNSEEN, "#009E73", "#AA4499", "#B98900", "#56B4E9", INK)
MARKERS = ("o", "s", "D", "^", "v", "P", "X")
DASHES = ("-", (0, (5, 1.6)), (0, (1.5, 1.3)), (0, (6, 1.5, 1.5, 1.5)), (0, (3, 1, 1, 1, 1, 1)), (0, (9, 3)), "-")
HATCHES = ("", "////", "....", "xxxx", "\\\\\\\\", "++++", "oooo")
# Orange below zero, blue above: distinct in every common colour blindness; in greyscale the printed sign tells.
BOTH_WAYS = LinearSegmentedColormap.from_list("below to above", ["#a34700", "#ee9b5c", "#fbf6f1", "#74b3dc", "#0b4f82"])
LINE = "#e4e4e4"


class Data:
    """The rows of a table, read by the roles of a figure."""

    def __init__(self, spec: FigureSpec, table: Table, width: float = 0.0):
        """`width`: inches to draw for; 0 lets the figure be as wide as its rows and columns need."""
        spec.check(table)
        self.spec, self.table, self.rows, self.width = spec, table, table.rows, width

    @property
    def narrow(self) -> bool:
        return 0 < self.width < WIDE

    def lines(self, words: str) -> str:
        """A name beside a row: on lines of its own where there is little room, broken behind a dot or underscore rather
        than within a word; else as it is."""
        if not self.narrow:
            return words
        parted = textwrap.wrap(re.sub(r"([._])(?=\w)", "\\1\u200b ", words), 20)
        return "\n".join(line.replace("\u200b ", "").removesuffix("\u200b") for line in parted)

    def of(self, row: dict, role: str):
        """The value under a role; None if it is missing or the figure has no such role."""
        key = getattr(self.spec, role)
        return row[key] if key else None

    def kind(self, role: str) -> str:
        return self.table.column(getattr(self.spec, role)).kind

    def title(self, role: str) -> str:
        return self.table.column(getattr(self.spec, role)).title

    def text(self, row: dict, role: str) -> str:
        return shown(self.of(row, role), self.kind(role))

    def distinct(self, role: str, rows: Sequence[dict] | None = None) -> list:
        """The values under a role, each once, in their order; [None] if the figure has no such role."""
        if not getattr(self.spec, role):
            return [None]
        return list(dict.fromkeys(self.of(row, role) for row in (self.rows if rows is None else rows)))

    def where(self, role: str, value, rows: Sequence[dict] | None = None) -> list[dict]:
        """The rows with that value under a role; all of them if the figure has no such role."""
        rows = self.rows if rows is None else rows
        return [row for row in rows if not getattr(self.spec, role) or self.of(row, role) == value]

    def name(self, role: str, value) -> str:
        return shown(value, self.kind(role))


def shading(values: Sequence[float], kind: str):
    """(function of a value -> colour, lowest, highest) over the values; differences are symmetric about zero."""
    if kind == "difference":
        reach = max(0.05, math.ceil(max((abs(v) for v in values), default=0) * 20) / 20)
        return (lambda v: BOTH_WAYS(0.5 + v / (2 * reach))), -reach, reach
    low, high = min(values, default=0.0), max(values, default=1.0)
    if kind == "rate":
        low, high = math.floor(low * 10 + 1e-9) / 10, math.ceil(high * 10 - 1e-9) / 10
    span = (high - low) or 1.0
    return (lambda v: SHADES(float(v - low) / span)), low, high


def panels(count: int, across: int, width: float, height: float, extra: tuple[float, float] = (0.9, 0.8),
           whole: float = 0.0):
    """A figure with `count` panels in rows of at most `across`; spare places stay empty. -> (figure, axes by panel).

    `whole`: the figure's own width in inches, by default what its panels need.
    """
    across = min(across, count)
    down = math.ceil(count / across)
    size = (whole or extra[0] + width * across, extra[1] + height * down)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(down, across, squeeze=False)
    for ax in axes.flat[count:]:
        ax.set_visible(False)
    return figure, list(axes.flat[:count])


def plain(ax, grid: str = "y") -> None:
    """Pale lines behind the data, no ticks."""
    ax.grid(axis=grid, color=LINE, lw=0.7)
    ax.set_axisbelow(True)
    ax.tick_params(length=0)


def bare(ax) -> None:
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)


def whisker(ax, low: float, high: float, y: float, **style) -> None:
    """An interval as a horizontal line within the axis' limits, which are set; an arrow where it goes beyond them."""
    left, right = ax.get_xlim()
    ax.plot([min(max(v, left), right) for v in (low, high)], [y, y], **style)
    for edge, beyond, marker in ((left, low < left, "<"), (right, high > right, ">")):
        if beyond:
            ax.plot(edge, y, marker, color=style["color"], ms=6, mec="none", clip_on=False, zorder=style["zorder"])


def handle(index: int, label: str, *, line: bool = False) -> Line2D:
    """A line of the legend for series `index`."""
    return Line2D([], [], color=PALETTE[index % len(PALETTE)], marker=MARKERS[index % len(MARKERS)], ms=5,
                  lw=1.4 if line else 0, ls=DASHES[index % len(DASHES)] if line else "none", label=label)


def hollow_handles(data: Data) -> list[Line2D]:
    """The legend's line for small cells, where there are any."""
    if not any(data.of(row, "hatched") for row in data.rows):
        return []
    return [Line2D([], [], color=GREY, marker="o", ms=5, mfc="white", mec=GREY, lw=0, label="small cell")]


def legend(figure: Figure, handles: Sequence, columns: int = 6) -> None:
    """One legend above all panels, in as many columns as there is room for."""
    if handles:
        room, long = figure.get_size_inches()[0], [0.6 + 0.062 * len(one.get_label()) for one in handles]
        columns = columns if sum(long) <= room else min(columns, max(1, int(room / max(long))))
        figure.legend(handles=handles, loc="outside upper left", alignment="left",
                      ncols=min(columns, len(handles)), frameon=False, fontsize=8.5, handletextpad=0.5,
                      columnspacing=1.4, borderaxespad=0.2, handlelength=2.4)
