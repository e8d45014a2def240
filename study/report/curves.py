"""Lines with bands: learning curves over rows added, and reliability of stated probabilities."""

import math

from matplotlib.figure import Figure

from report.figures import GREY, SOFT
from study.report.looks import DASHES, MARKERS, PALETTE, Data, handle, hollow_handles, legend, panels, plain


def curves(data: Data) -> Figure:
    """A panel per facet: y with its band over the steps of x, which are evenly spaced (0, 5, 10, 25, 75 would crowd).

    If `second` names a column, the upper axis gives its value at the same steps.
    """
    facets, series = data.distinct("facet"), data.distinct("series")
    steps = sorted(value for value in data.distinct("x") if value is not None)
    across = min(len(facets), 1 if data.narrow else 3 if len(facets) != 4 else 2)
    figure, axes = panels(len(facets), across, 2.55, 2.25 if data.spec.second else 1.95, whole=data.width)
    ends = [v for row in data.rows for role in ("y", "low", "high") if (v := data.of(row, role)) is not None]
    low, high = min(ends, default=0.0), max(ends, default=1.0)
    room = 0.06 * ((high - low) or 1)
    for place, (ax, facet) in enumerate(zip(axes, facets, strict=True)):
        mine = data.where("facet", facet)
        for index, one in enumerate(series):
            _curve(ax, data, data.where("series", one, mine), steps, index)
        ax.set(xlim=(-0.35, len(steps) - 0.65), ylim=(low - room, high + room))
        ax.set_xticks(range(len(steps)), [f"{step:,g}" for step in steps])
        if facet is not None:
            ax.set_title(data.name("facet", facet))
        ax.tick_params(labelleft=place % across == 0)
        plain(ax)
        if data.spec.second:
            _second_axis(ax, data, mine, steps)
    figure.supxlabel(data.title("x"), fontsize=9)
    figure.supylabel(data.title("y"), fontsize=9)
    keys = [handle(i, data.name("series", one), line=True) for i, one in enumerate(series) if one is not None]
    legend(figure, keys + hollow_handles(data), 4)
    return figure


def _curve(ax, data: Data, rows: list[dict], steps: list, index: int) -> None:
    rows = sorted((row for row in rows if data.of(row, "y") is not None), key=lambda row: data.of(row, "x"))
    colour, at = PALETTE[index % len(PALETTE)], [steps.index(data.of(row, "x")) for row in rows]
    ends = [(k, data.of(row, "low"), data.of(row, "high")) for k, row in zip(at, rows, strict=True)]
    ends = [(k, low, high) for k, low, high in ends if low is not None and high is not None]
    if ends:
        ax.fill_between(*zip(*ends, strict=True), color=colour, alpha=0.16, lw=0)
    ax.plot(at, [data.of(row, "y") for row in rows], color=colour, lw=1.5, ls=DASHES[index % len(DASHES)], zorder=2)
    for k, row in zip(at, rows, strict=True):
        ax.plot(k, data.of(row, "y"), MARKERS[index % len(MARKERS)], color=colour, ms=4.6, mec=colour, zorder=3,
                mfc="white" if data.of(row, "hatched") else colour, clip_on=False)


def _second_axis(ax, data: Data, rows: list[dict], steps: list) -> None:
    """Values of `second` over the steps, as tenths of one power of ten that the axis names: `×10⁻¹¹`."""
    found = {}
    for row in rows:
        if (value := data.of(row, "second")) is not None:
            found[data.of(row, "x")] = max(value, found.get(data.of(row, "x"), value))
    upper = ax.twiny()
    upper.set_xlim(ax.get_xlim())
    upper.tick_params(length=0, labelsize=7, colors=SOFT, pad=1)
    upper.spines[["left", "bottom", "right", "top"]].set_visible(False)
    largest = max(found.values(), default=0)
    if not largest:
        upper.set_xticks([])
        words = f"{data.title('second')}: not known" if not found else f"{data.title('second')}: 0"
    else:
        power = math.floor(math.log10(largest))
        upper.set_xticks(range(len(steps)), [f"{found[s] / 10**power:.2g}" if s in found else "–" for s in steps])
        exponent = str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
        words = f"{data.title('second')}, ×10{exponent}"
    upper.set_xlabel(words, fontsize=7, color=SOFT, labelpad=2, loc="left")


def reliability(data: Data) -> Figure:
    """A panel per facet: the share that is right over the stated probability, above bars that count the answers."""
    facets, series = data.distinct("facet"), data.distinct("series")
    across = min(len(facets), 1 if data.narrow else 4)
    down = math.ceil(len(facets) / across)
    counts = bool(data.spec.value)
    wide = data.width or 0.7 + (2.3 if len(facets) > 1 else 3.4) * across
    figure = Figure(figsize=(wide, 0.8 + (3.2 if counts else 2.4) * down), layout="constrained")
    heights = [3, 1] * down if counts else [1] * down
    grid = figure.subplots(len(heights), across, squeeze=False, sharex=True, height_ratios=heights)
    rows_each = 2 if counts else 1
    for place in range(down * across):
        top = grid[rows_each * (place // across), place % across]
        low = grid[2 * (place // across) + 1, place % across] if counts else None
        if place >= len(facets):
            for ax in (top, low):
                if ax is not None:
                    ax.set_visible(False)
            continue
        _reliable(top, low, data, data.where("facet", facets[place]), series)
        if facets[place] is not None:
            top.set_title(data.name("facet", facets[place]))
        if place % across == 0:
            top.set_ylabel(data.title("y"))
            if counts:
                low.set_ylabel(data.title("value"))
    figure.supxlabel(data.title("x"), fontsize=9)
    keys = [handle(i, data.name("series", one)) for i, one in enumerate(series) if one is not None]
    legend(figure, keys + hollow_handles(data), 4)
    return figure


def _reliable(top, low, data: Data, rows: list[dict], series: list) -> None:
    top.plot([0, 1], [0, 1], color=GREY, lw=1, ls=(0, (4, 3)), zorder=1)
    for index, one in enumerate(series):
        colour = PALETTE[index % len(PALETTE)]
        shift = 0.022 * (index - (len(series) - 1) / 2)
        for row in data.where("series", one, rows):
            x, y = data.of(row, "x"), data.of(row, "y")
            if x is None or y is None:
                continue
            if data.of(row, "low") is not None and data.of(row, "high") is not None:
                top.plot([x + shift] * 2, [data.of(row, "low"), data.of(row, "high")], color=colour, lw=1.5)
            top.plot(x + shift, y, MARKERS[index % len(MARKERS)], color=colour, ms=5, mec=colour,
                     mfc="white" if data.of(row, "hatched") else colour, clip_on=False, zorder=3)
            if low is not None and data.of(row, "value") is not None:
                width = 0.08 / len(series)
                middle = x + width * (index - (len(series) - 1) / 2)
                low.bar(middle, data.of(row, "value"), width * 0.92, color=colour, alpha=0.75)
    top.set(xlim=(0, 1), ylim=(0, 1), xticks=[0, 0.25, 0.5, 0.75, 1])
    top.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", ".25", ".5", ".75", "1"])
    top.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", ".25", ".5", ".75", "1"])
    for ax in (top, low):
        if ax is not None:
            plain(ax)
