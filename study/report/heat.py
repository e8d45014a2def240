"""Shaded cells with a number in each: the transfer matrix, and confusion by language in small multiples."""

import textwrap

from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from report.colours import contrast, ink_on
from report.figures import INK, SHADES, SOFT
from study.report.looks import Data, bare, legend, panels, shading
from study.report.tables import short

HATCH = "//////"


def matrix(data: Data) -> Figure:
    """Rows y, columns x, the value in each cell; seen cells outlined, small cells hatched, absent ones a dash."""
    xs, ys, kind = data.distinct("x"), data.distinct("y"), data.kind("value")
    cells = {(data.of(row, "x"), data.of(row, "y")): row for row in data.rows}
    if len(cells) < len(data.rows):
        raise ValueError(f"figure {data.spec.name}: table {data.table.name} has two rows for one cell of the matrix")
    shade, low, high = shading([v for row in data.rows if (v := data.of(row, "value")) is not None], kind)
    tall = 0.5 if data.spec.label else 0.4
    names = [data.lines(data.name("y", y)) for y in ys]
    left = 0.45 + 0.068 * max(map(len, names))
    figure = Figure(figsize=(data.width or left + 0.56 * len(xs), (1.8 if data.narrow else 1.35) + tall * len(ys)),
                    layout="constrained")
    ax = figure.subplots()
    for i, y in enumerate(ys):
        for k, x in enumerate(xs):
            row = cells.get((x, y))
            _cell(ax, k, i, data, row, None if row is None else data.of(row, "value"), shade, kind)
    ax.set(xlim=(-0.55, len(xs) - 0.45), ylim=(len(ys) - 0.45, -0.55))
    ax.set_xticks(range(len(xs)), [data.name("x", x) for x in xs], rotation=40, ha="left", rotation_mode="anchor")
    ax.set_yticks(range(len(ys)), names)
    ax.xaxis.tick_top()
    ax.set_ylabel(data.title("y"), fontweight="bold")
    bare(ax)
    middle = (low + high) / 2
    keys = [Patch(facecolor=shade(v), edgecolor="#cccccc", lw=0.5, label=short(v, kind)) for v in (low, middle, high)]
    if any(data.of(row, "outlined") for row in cells.values()):
        keys.append(Patch(facecolor="white", edgecolor="black", lw=1.8, label="seen in training"))
    if any(data.of(row, "hatched") and data.of(row, "value") is not None for row in cells.values()):
        keys.append(Patch(facecolor="#e8eef4", edgecolor="#7a8794", hatch=HATCH, lw=0, label="small cell"))
    if any(data.of(row, "value") is None for row in cells.values()) or len(cells) < len(xs) * len(ys):
        keys.append(Patch(facecolor="white", edgecolor="#d5d5d5", lw=0.6, label="– not estimable"))
    figure.legend(handles=keys, loc="outside lower left", ncols=3 if data.narrow else len(keys), frameon=False,
                  fontsize=8, handlelength=1.6, handleheight=1.1, columnspacing=1.3)
    return figure


def _cell(ax, k: int, i: int, data: Data, row, value, shade, kind: str) -> None:
    face = "#ffffff" if value is None else shade(value)
    ink = INK if value is None else ink_on(face)
    small = row is not None and data.of(row, "hatched")
    ax.add_patch(Rectangle((k - 0.48, i - 0.47), 0.96, 0.94, facecolor=face, lw=0.6,
                           edgecolor="#d5d5d5" if value is None else "none"))
    if small and value is not None:
        stripe = "#ffffff" if contrast(face, "#ffffff") > 2 else "#5c6b7a"  # visible on the middle shades, too
        ax.add_patch(Rectangle((k - 0.48, i - 0.47), 0.96, 0.94, facecolor="none", edgecolor=stripe, lw=0,
                               hatch=HATCH, alpha=0.7))
    if row is not None and data.of(row, "outlined"):
        ax.add_patch(Rectangle((k - 0.48, i - 0.47), 0.96, 0.94, facecolor="none", edgecolor="black", lw=1.9,
                               joinstyle="miter", zorder=3))
    # The number stands on the cell's own shade, so that stripes never run through it.
    behind = {"facecolor": face, "edgecolor": "none", "pad": 0.9} if small else None
    under = row is not None and data.spec.label and data.of(row, "label") is not None
    ax.text(k, i - (0.13 if under else 0), short(value, kind), ha="center", va="center", color=ink,
            fontsize=7.5 if data.narrow else 9, bbox=behind, zorder=4)
    if under:
        ax.text(k, i + 0.24, data.text(row, "label"), ha="center", va="center", color=ink, fontsize=6.5, bbox=behind,
                zorder=4)


def confusion(data: Data) -> Figure:
    """A panel per facet; rows: human labels, columns: the model's, in each cell the share of its row in per cent."""
    facets, xs, ys = data.distinct("facet"), data.distinct("x"), data.distinct("y")
    side = 0.37 if len(xs) <= 5 and not data.narrow else 0.31
    across = min(len(facets), max(1, int(((data.width or 9.9) - 1.3) / (side * len(xs) + 0.2))))
    names = {role: ["\n".join(textwrap.wrap(data.name(role, v), 14)[:2]) for v in values]
             for role, values in (("x", xs), ("y", ys))}
    figure, axes = panels(len(facets), across, side * len(xs) + 0.22, side * len(ys) + 0.45, (1.3, 1.35),
                          data.width)
    for place, (ax, facet) in enumerate(zip(axes, facets, strict=True)):
        rows = data.where("facet", facet)
        for row in rows:
            k, i = xs.index(data.of(row, "x")), ys.index(data.of(row, "y"))
            value = data.of(row, "value")
            face = "#ffffff" if value is None else SHADES(float(value))  # an int would be an index
            right = data.of(row, "x") == data.of(row, "y")
            ax.add_patch(Rectangle((k - 0.47, i - 0.47), 0.94, 0.94, facecolor=face, lw=1.1 if right else 0.5,
                                   edgecolor=INK if right else "#d5d5d5"))
            text = "–" if value is None else f"{100 * value:.0f}"
            ax.text(k, i, text, ha="center", va="center", color=INK if value is None else ink_on(face), fontsize=7.5)
        ax.set(xlim=(-0.55, len(xs) - 0.45), ylim=(len(ys) - 0.45, -0.55), aspect="equal")
        ax.set_title(_panel_title(data, facet, rows), fontsize=8.5)
        first, top = place % across == 0, place < across
        ax.set_yticks(range(len(ys)), names["y"] if first else [""] * len(ys), fontsize=7)
        ax.set_xticks(range(len(xs)), names["x"] if top else [""] * len(xs), fontsize=7, rotation=45, ha="left",
                      rotation_mode="anchor")
        ax.xaxis.tick_top()
        ax.tick_params(pad=1)
        bare(ax)
    figure.supylabel(f"{data.title('y')} (rows)", fontsize=8.5, color=SOFT)
    keys = [Patch(facecolor="white", edgecolor=INK, lw=1.1, label="right")]
    keys += [Patch(facecolor=SHADES(v), edgecolor="#d5d5d5", lw=0.5, label=f"{100 * v:.0f} %") for v in (0.0, 0.5, 1.0)]
    small = any(data.of(row, "hatched") for row in data.rows)
    words = data.lines(f"per cent of the row; columns: {data.title('x')}" + "; ° small cell" * small)
    keys.append(Patch(facecolor="none", edgecolor="none", label=words))
    legend(figure, keys)
    return figure


def _panel_title(data: Data, facet, rows: list[dict]) -> str:
    if facet is None:
        return ""
    small = "°" if any(data.of(row, "hatched") for row in rows) else ""
    if not data.spec.label:
        return data.name("facet", facet) + small
    posts = sum(data.of(row, "label") or 0 for row in rows)
    return f"{data.name('facet', facet)} ({posts:,}){small}"
