"""Points with intervals: share against accuracy, contrasts about zero, cost."""

import math

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, NullFormatter

from report.figures import INK, SOFT
from report.words import signed
from study.report.looks import (
    HATCHES,
    LINE,
    MARKERS,
    PALETTE,
    Data,
    handle,
    hollow_handles,
    legend,
    plain,
    whisker,
)
from study.report.tables import shown

NEAR = [(8, 0), (-8, 0), (7, 7), (-7, 7), (7, -7), (-7, -7), (0, 10), (0, -10), (13, 4), (-13, 4), (13, -5),
        (-13, -5), (11, 14), (-11, 14), (11, -14), (-11, -14)]  # where a label may stand: offsets in points


def scatter(data: Data) -> Figure:
    """y over a share on a log axis, a panel per series; rows without a share stand apart, in a strip without a scale.

    A share that is missing or not above 0 cannot be put on the axis, and no value is made up for it.
    """
    series = data.distinct("series")
    placed = [row for row in data.rows if (data.of(row, "x") or 0) > 0]
    apart = [row for row in data.rows if not (data.of(row, "x") or 0) > 0]
    loose = data.distinct("label", apart) if apart else []
    figure = Figure(figsize=(data.width or 7.6, 1.3 + 2.7 * len(series)), layout="constrained")
    widths = [max(0.14, 0.05 * len(loose)), 1]
    grid = figure.subplots(len(series), 2, sharey=True, sharex="col", squeeze=False, width_ratios=widths)
    shares = [data.of(row, "x") for row in placed] or [0.1, 10]

    def beside(row: dict) -> float:
        """Languages with the same share stand side by side, a few per cent apart, so as not to hide one another."""
        same = data.distinct("label", data.where("x", data.of(row, "x"), placed))
        return 1.1 ** (same.index(data.of(row, "label")) - (len(same) - 1) / 2)

    points = []
    for index, (one, (strip, main)) in enumerate(zip(series, grid, strict=True)):
        for row in data.where("series", one):
            if data.of(row, "y") is not None:
                ax, x = (strip, loose.index(data.of(row, "label"))) if row in apart else \
                    (main, data.of(row, "x") * beside(row))
                _point(ax, data, row, x, index)
                points.append((ax, x, row))
        main.set(xscale="log", xlim=(min(shares) / 1.7, max(shares) * 1.7))
        main.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        main.xaxis.set_minor_formatter(NullFormatter())
        strip.set(xlim=(-0.7, max(len(loose), 1) - 0.3), xticks=[], facecolor="#f1f3f5", visible=bool(apart))
        plain(main, "both")
        plain(strip)
        (strip if apart else main).set_ylabel(data.title("y"))
        main.tick_params(which="both", labelleft=not apart, length=0)
        main.set_title("" if one is None else data.name("series", one))
    grid[-1, 0].set_xlabel("not listed\n(not zero)")
    grid[-1, 1].set_xlabel(f"{data.title('x')} (log scale)")
    legend(figure, hollow_handles(data))
    if data.kind("label") == "language":  # codes beside the points: thirteen names would overlap
        figure.supxlabel(_names(data.distinct("label"), data.narrow), fontsize=7.5, color=SOFT, x=0.01, ha="left",
                         linespacing=1.4)
    _label(figure, data, points)
    return figure


def _point(ax, data: Data, row: dict, x: float, index: int) -> None:
    colour, low, high = PALETTE[index % len(PALETTE)], data.of(row, "low"), data.of(row, "high")
    if low is not None and high is not None:
        ax.plot([x, x], [low, high], color=colour, lw=0.9, alpha=0.6, zorder=2)
    ax.plot(x, data.of(row, "y"), MARKERS[index % len(MARKERS)], color=colour, ms=5.5, mec=colour, zorder=3,
            mfc="white" if data.of(row, "hatched") else colour)


def _label(figure: Figure, data: Data, points: list) -> None:
    """Write each label beside its point, where it covers the least of points, intervals and other labels."""
    FigureCanvasAgg(figure)
    figure.draw_without_rendering()
    scale = 72 / figure.dpi
    boxes, wanted = [], []
    for ax, x, row in points:
        def at(y, ax=ax, x=x):
            return ax.transData.transform((x, y)) * scale

        px, py = at(data.of(row, "y"))
        boxes.append((px - 4, py - 4, px + 4, py + 4, 1.0))
        if data.of(row, "low") is not None and data.of(row, "high") is not None:
            boxes.append((px - 1, at(data.of(row, "low"))[1], px + 1, at(data.of(row, "high"))[1], 0.6))
        wanted.append((ax, x, row, px, py))
    for ax, x, row, px, py in wanted:
        text = str(data.of(row, "label"))
        half = 2.6 * len(text) + 1
        edges = [value * scale for value in ax.get_window_extent().extents]

        def hidden(place, half=half, px=px, py=py, edges=edges):
            dx, dy = place[0] + math.copysign(half - 5, place[0]) * (place[0] != 0 and half > 5), place[1]
            box = (px + dx - half, py + dy - 5, px + dx + half, py + dy + 5)
            over = sum(weight * max(0, min(box[2], right) - max(box[0], left))
                       * max(0, min(box[3], top) - max(box[1], low)) for left, low, right, top, weight in boxes)
            outside = box[0] < edges[0] or box[2] > edges[2] or box[1] < edges[1] or box[3] > edges[3]
            return over + 100 * outside + 0.3 * math.hypot(dx, dy), box, (dx, dy)

        _, box, offset = min((hidden(place) for place in NEAR), key=lambda found: found[0])
        boxes.append((*box, 2.0))
        ax.annotate(text, (x, data.of(row, "y")), offset, textcoords="offset points", ha="center", va="center",
                    fontsize=8, color=INK, zorder=5, annotation_clip=False)


def _names(codes: list, narrow: bool) -> str:
    """`ar Arabic · de German · ...`, in two lines if there are many, in more if the figure is narrow."""
    words = [f"{code} {shown(code, 'language')}" for code in sorted(codes) if code != shown(code, "language")]
    each = 4 if narrow else len(words) if len(words) <= 7 else (len(words) + 1) // 2
    return "\n".join(" · ".join(words[k : k + each]) for k in range(0, len(words), each or 1))


def forest(data: Data) -> Figure:
    """Contrasts with intervals about zero, groups under headings, numbers at the right; thin lines: simultaneous."""
    groups = data.distinct("series")
    lines = []
    for group in groups:
        lines += [(group, None)] * (group is not None) + [(group, row) for row in data.where("series", group)]
    names = [data.lines(data.text(row, "y")) for _, row in lines if row]
    left = 0.3 + 0.066 * max(map(len, names), default=1)
    tall = 0.27 if not data.narrow else 0.16 * (1 + max((name.count("\n") + 1 for name in names), default=1))
    figure = Figure(figsize=(data.width or min(left, 4.2) + 5.4, 1.0 + tall * len(lines)), layout="constrained")
    ax = figure.subplots()
    ends = [v for row in data.rows for role in ("x", "low", "high", "wider_low", "wider_high")
            if (v := data.of(row, role)) is not None]
    reach = 1.06 * max((abs(v) for v in ends), default=1) or 1
    ax.axvline(0, color=INK, lw=1, zorder=1)
    y, ticks = 0.0, []
    for group, row in lines:
        if row is None:
            y += 0.35 * (y > 0)
            ticks.append((y, data.lines(data.name("series", group)), True))
        else:
            ticks.append((y, data.lines(data.text(row, "y")), False))
            _contrast(ax, data, row, y, groups.index(group))
        y += 1
    ax.set_yticks([place for place, *_ in ticks], [name for _, name, _ in ticks])
    for label, (_, _, heading) in zip(ax.get_yticklabels(), ticks, strict=True):
        label.set_fontweight("bold" if heading else "normal")
    ax.set(xlim=(-reach, reach), ylim=(y - 0.4, -0.6), xlabel=data.title("x"))
    plain(ax, "x")
    ax.spines["left"].set_visible(False)
    keys = []
    if data.spec.wider_low:
        keys = [Line2D([], [], color=SOFT, lw=3.2, label="one contrast alone"),
                Line2D([], [], color=SOFT, lw=1, label="all comparisons of the plan at once")]
    legend(figure, keys + hollow_handles(data))
    return figure


def _contrast(ax, data: Data, row: dict, y: float, index: int) -> None:
    value, low, high = (data.of(row, role) for role in ("x", "low", "high"))
    colour = PALETTE[index % len(PALETTE)]
    if value is None:
        ax.text(0.01, y, "not estimable", transform=ax.get_yaxis_transform(), va="center", color=SOFT, fontsize=7.5)
        return
    wide = (data.of(row, "wider_low"), data.of(row, "wider_high"))
    if None not in wide:
        ax.plot(wide, [y, y], color=colour, lw=1, zorder=2)
    text = signed(value, 3)
    if low is not None and high is not None:
        ax.plot([low, high], [y, y], color=colour, lw=3.2, solid_capstyle="butt", zorder=2)
        text += ("\n" if data.narrow else " ") + f"[{signed(low, 3)}, {signed(high, 3)}]"
    ax.plot(value, y, MARKERS[index % len(MARKERS)], color=colour, ms=6, mec="white" if not data.of(row, "hatched")
            else colour, mfc="white" if data.of(row, "hatched") else colour, mew=0.9, zorder=3)
    ax.text(1.02, y, text, transform=ax.get_yaxis_transform(), va="center" if data.narrow else
            "center_baseline", fontsize=7.5 if data.narrow else 8, color=INK)


def bars(data: Data) -> Figure:
    """A bar per name, hatched by series; on a log scale, where length means nothing, a point on a line instead."""
    series, log = data.distinct("series"), data.spec.log
    values = [v for row in data.rows if (v := data.of(row, "x")) is not None and (v > 0 or not log)]
    names = [data.lines(data.text(row, "y")) for row in data.rows]
    left = 0.3 + 0.066 * max(map(len, names), default=1)
    tall = 0.29 if not data.narrow else 0.16 * (1 + max((name.count("\n") + 1 for name in names), default=1))
    figure = Figure(figsize=(data.width or min(left, 4.2) + 4.9, 1.0 + tall * len(data.rows)), layout="constrained")
    ax = figure.subplots()
    if log:
        ax.set_xscale("log")
        low = 10 ** math.floor(math.log10(min(values, default=1)) - 0.01)
        high = 10 ** math.ceil(math.log10(max(values, default=1)) + 0.01)
        ax.set_xlim(low, high)
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
        ax.xaxis.set_minor_formatter(NullFormatter())
    whiskers = []  # drawn once the axis has its limits
    for y, row in enumerate(data.rows):
        index, value = series.index(data.of(row, "series")), data.of(row, "x")
        colour = PALETTE[index % len(PALETTE)]
        ends = (data.of(row, "low"), data.of(row, "high"))
        if value is None or (log and value <= 0):
            ax.text(0.01, y, "–", transform=ax.get_yaxis_transform(), va="center", color=SOFT)
            continue
        if log:
            ax.plot([low, value], [y, y], color="#c9ced4", lw=1.2, zorder=1)
            ax.plot(value, y, MARKERS[index % len(MARKERS)], color=colour, ms=7, mec="white", mew=0.8, zorder=3)
        else:
            ax.barh(y, value, 0.66, color=colour, hatch=HATCHES[index % len(HATCHES)], edgecolor="white", lw=0)
        if None not in ends:
            whiskers.append((*ends, y, {"color": colour if log else INK, "lw": 2.2 if log else 1.4, "zorder": 2}))
        ax.text(1.02, y, shown(value, data.kind("x")), transform=ax.get_yaxis_transform(), va="center_baseline",
                fontsize=8)
    if whiskers and not log:
        ax.update_datalim([(end, y) for *ends, y, _ in whiskers for end in ends])
        ax.autoscale_view(scaley=False)
    for low, high, y, style in whiskers:
        whisker(ax, low, high, y, **style)
    ax.set_yticks(range(len(names)), names)
    ax.set(ylim=(len(names) - 0.4, -0.6), xlabel=data.title("x") + " (log scale)" * log)
    plain(ax, "x")
    ax.grid(axis="x", which="minor", color=LINE, lw=0.3)
    ax.spines["left"].set_visible(False)
    keys = [handle(i, data.name("series", one)) for i, one in enumerate(series) if one is not None]
    legend(figure, keys if log else [_bar_handle(i, k) for i, k in enumerate(keys)])
    return figure


def _bar_handle(index: int, key: Line2D):
    return Patch(facecolor=PALETTE[index % len(PALETTE)], hatch=HATCHES[index % len(HATCHES)], edgecolor="white",
                 label=key.get_label())
