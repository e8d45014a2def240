"""Pictures of `metrics.json`: intervals by language, a heat map, the confusion matrix, calibration, and the loss.

Each function returns a matplotlib `Figure` (no pyplot, no global state, no display); `svg` turns it into a piece of
HTML and `save` writes a file (.svg, .png, .pdf). Choices:

- Colours are Okabe and Ito's blue and vermilion (jfly.uni-koeln.de, 2008), which people with any common kind of colour
  blindness can tell apart; seen and unseen also differ by marker, and every heat map cell holds its number, so a grey
  print loses nothing.
- Languages have English names. Labels may be in any script: in SVG, text stays text and is shown in the reader's own
  fonts, so no glyph is missing and every script is shaped correctly. Dollar signs do not start formulas
  (`text.parse_math` is off).
- Pooled rows are set apart from single languages, and seen languages from unseen ones.
- A figure is drawn for a width in inches: WIDE fills the page's text, NARROW fits a phone; letters keep their size.
"""

import io
import re
import textwrap
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path

import matplotlib
import numpy
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from common.files import atomic_write
from report.colours import ink_on
from report.intervals import wilson
from report.tables import groups_of_rows, marked

WIDE, NARROW = 10.6, 4.2  # a hundredth of the pixels that a page has on a desk and on a phone
SEEN, UNSEEN, GREY, SOFT, INK = "#0072B2", "#D55E00", "#8a8a8a", "#59636e", "#222222"
PALE = "#5f95bb"  # beside SEEN, and still seen on white
SHADES = LinearSegmentedColormap.from_list("paper to ink", ["#f5f8fb", "#a9cbe2", "#3f86b8", "#0b3c66"])
STYLE = {
    "font.family": ["DejaVu Sans"], "font.size": 9, "text.parse_math": False, "text.color": INK, "axes.labelcolor": INK,
    "xtick.color": INK, "ytick.color": INK, "axes.edgecolor": "#bbbbbb", "axes.linewidth": 0.8, "axes.titlesize": 9.5,
    "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.spines.top": False, "axes.spines.right": False,
    "svg.fonttype": "none", "hatch.linewidth": 0.6, "figure.dpi": 100, "savefig.dpi": 200,
}  # fmt: skip


@contextmanager
def styled():
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        # This font is used only to compute widths; the reader's fonts draw the text.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def _rows(metrics: Mapping, names, width: float) -> list[tuple[float, str, dict, str]]:
    """(y, name, cell, group) from top to bottom, with a gap between groups; a long name is cut to fit the width."""
    rows, y = [], 0.0
    for heading, lines in groups_of_rows(metrics, names):
        for name, cell in lines:
            group = name if heading == "Together" else heading
            name = name if len(name) <= 5 * width else name[: int(5 * width) - 1] + "…"
            rows.append((y, f"{name} ({cell['n']:,}){marked(cell)[0]}", cell, group))
            y += 1.0
        y += 0.45
    return rows


def _colour(group: str) -> tuple[str, str]:
    """The colour and marker of a row."""
    return {"Seen": (SEEN, "s"), "Seen in training": (SEEN, "s"), "Unseen": (UNSEEN, "o"),
            "Not seen in training": (UNSEEN, "o")}.get(group, (INK, "D"))


def panels_of(metrics: Mapping) -> list[tuple[str, Callable]]:
    """(title, function of a cell -> its part with the accuracy) of each panel that this codebook has."""
    panels: list[tuple[str, Callable]] = [("Label", lambda cell: cell)]
    if metrics["topic"]:
        panels.append(("Topic: related or not", lambda cell: cell["topic"]))
    if metrics["stance"]:
        panels.append(("Stance, where found related", lambda cell: cell["stance"]["given_detection"]))
    return panels


def intervals_by_language(metrics: Mapping, names: Mapping[str, str] | None = None, width: float = WIDE) -> Figure:
    """Accuracy of label, topic and stance per language with intervals; grey bars mark the best constant answer."""
    rows, panels = _rows(metrics, names, width), panels_of(metrics)
    with styled():
        down, across = (len(panels), 1) if width < WIDE else (1, len(panels))
        figure = Figure(figsize=(width, down * (0.75 + 0.235 * (rows[-1][0] + 1))), layout="constrained")
        axes = figure.subplots(down, across, sharey=True, squeeze=False).ravel()
        for ax, (title, of) in zip(axes, panels, strict=True):
            for y, _, cell, group in rows:
                part, (colour, marker) = of(cell), _colour(group)
                if not part["n"]:
                    ax.text(0.02, y, "no posts", va="center", color=SOFT, fontsize=7.5)
                    continue
                strong = group in ("All", "Seen", "Unseen")
                ax.plot([part["majority"]["accuracy"]] * 2, [y - 0.36, y + 0.36], color=GREY, lw=2.2, zorder=1,
                        clip_on=False)
                ax.plot(part["accuracy_ci"], [y, y], color=colour, lw=2.6 if strong else 1.4, solid_capstyle="butt",
                        clip_on=False)
                ax.plot(part["accuracy"], y, marker, color=colour, ms=5.5 if strong else 4.5, mec="white",
                        mew=0.6, zorder=3, clip_on=False)
            ax.set(xlim=(0, 1), title=title, xticks=[0, 0.25, 0.5, 0.75, 1])
            first, *_, last = ax.set_xticklabels(["0", ".25", ".5", ".75", "1"])
            first.set_ha("left")  # else one panel's 1 and the next one's 0 read as 10
            last.set_ha("right")
            ax.grid(axis="x", color="#e4e4e4", lw=0.7)
            ax.set_axisbelow(True)
            ax.tick_params(length=0)
        axes[0].set_yticks([y for y, *_ in rows], [name for _, name, *_ in rows])
        axes[0].set_ylim(rows[-1][0] + 0.7, -0.7)
    return figure


def heat_map(metrics: Mapping, names: Mapping[str, str] | None = None, width: float = WIDE) -> Figure:
    """Rows: pooled, then languages; columns: the figures; each cell shows its number (a dash: not estimable)."""
    columns = [("accuracy", lambda c: c["accuracy"]), ("best\nconstant", lambda c: c["majority"]["accuracy"]),
               ("macro-F1", lambda c: c["macro_f1"])]
    if metrics["topic"]:
        columns += [(f"topic\n{words}", lambda c, key=key: c["topic"][key])
                    for words, key in (("macro-F1", "macro_f1"), ("recall", "recall"), ("specificity", "specificity"))]
    if metrics["stance"]:
        columns += [(f"stance\n{words}", lambda c, key=key: c["stance"][key]["accuracy"])
                    for words, key in (("end to end", "end_to_end"), ("if detected", "given_detection"))]
    rows = _rows(metrics, names, width)
    with styled():
        upright = width >= WIDE
        figure = Figure(figsize=(width, (0.6 if upright else 1.2) + 0.27 * (rows[-1][0] + 1)), layout="constrained")
        ax = figure.subplots()
        for y, _, cell, _ in rows:
            for x, (title, of) in enumerate(columns):
                value = of(cell)
                constant = title == "best\nconstant"
                face = "#ffffff" if value is None or constant else SHADES(value)
                ax.add_patch(Rectangle((x - 0.48, y - 0.47), 0.96, 0.94, facecolor=face, lw=0.6,
                                       edgecolor="#d5d5d5" if value is None or constant else "none"))
                few = marked(cell)[1] if title == "macro-F1" else ""
                text = "–" if value is None else f"{value:.2f}{few}".replace("0.", ".", 1)
                ax.text(x, y, text, ha="center", va="center", color=ink_on(face), fontsize=8.5)
        ax.set(xlim=(-0.55, len(columns) - 0.45), ylim=(rows[-1][0] + 0.55, -0.55))
        turned = {} if upright else {"rotation": 60, "ha": "left", "rotation_mode": "anchor"}
        ax.set_xticks(range(len(columns)), [title if upright else title.replace("\n", " ") for title, _ in columns],
                      fontsize=8, **turned)
        ax.set_yticks([y for y, *_ in rows], [name for _, name, *_ in rows])
        ax.xaxis.tick_top()
        ax.tick_params(length=0)
        for spine in ax.spines.values():
            spine.set_visible(False)
    return figure


def confusion_matrix(cell: Mapping, width: float = WIDE) -> Figure:
    """Row: human label, column: the model's; shade and percentage give the share of the row, with the count below.

    Many labels leave no room for the counts, nor for names above the columns, which then have the rows' numbers; very
    many leave none for percentages. In a row without posts no share can be told: a dash.
    """
    labels, counts = cell["confusion"]["labels"], numpy.array(cell["confusion"]["counts"])
    columns = [*labels, "other answer"]
    if not counts[:, -1].any():
        columns, counts = columns[:-1], counts[:, :-1]
    share = counts / numpy.maximum(counts.sum(1, keepdims=True), 1)
    dense, room = len(labels) > 8, 72 * (width - 1.6) / len(columns)  # points across a cell
    words = ["\n".join(textwrap.wrap(name, 18 if width >= WIDE else 14)[:3]) for name in columns]
    if dense:
        most = 40 if width >= WIDE else 18
        words = [f"{name if len(name) <= most else name[: most - 1] + '…'}  {number}"
                 for number, name in enumerate(columns, 1)]
    with styled():
        side = 0.76 if not dense else 0.4 if width >= WIDE else 0.28
        figure = Figure(figsize=(width, 1.3 + side * len(labels)), layout="constrained")
        ax = figure.subplots()
        for i in range(len(labels)):
            for k in range(len(columns)):
                ax.add_patch(Rectangle((k - 0.48, i - 0.48), 0.96, 0.96, facecolor=SHADES(share[i, k]),
                                       edgecolor=INK if i == k else "none", lw=1.1))
                colour = ink_on(SHADES(share[i, k]))
                if room < 14:
                    continue
                told = f"{100 * share[i, k]:.0f}{'' if dense else ' %'}" if counts[i].any() else "–"
                ax.text(k, i - (0 if dense else 0.12), told, ha="center", va="center", color=colour,
                        fontsize=7 if dense else 9.5)
                if not dense:
                    ax.text(k, i + 0.23, f"{counts[i, k]:,}", ha="center", va="center", color=colour, fontsize=7.5)
        ax.set(xlim=(-0.55, len(columns) - 0.45), ylim=(len(labels) - 0.45, -0.55))
        turned = {} if dense or width >= WIDE else {"rotation": 60, "ha": "left", "rotation_mode": "anchor"}
        ax.set_xticks(range(len(columns)), range(1, len(columns) + 1) if dense else words,
                      fontsize=min(9, 0.8 * room), **turned)
        ax.set_yticks(range(len(labels)), [f"{word}\n({int(n):,})" if not dense else word
                                           for word, n in zip(words[: len(labels)], counts.sum(1), strict=True)])
        ax.xaxis.tick_top()
        ax.xaxis.set_label_position("top")
        ax.set_xlabel("the model's label", fontweight="bold")
        ax.set_ylabel("the human label", fontweight="bold")
        ax.tick_params(length=0)
        for spine in ax.spines.values():
            spine.set_visible(False)
    return figure


def reliability(cell: Mapping, width: float = WIDE) -> Figure | None:
    """How often answers with a given probability are right, in bins of as many posts each, and how accurate the surest
    part of the posts is; None without bins."""
    found = cell["calibration"] or {}
    if not found.get("bins"):
        return None
    with styled():
        figure = Figure(figsize=(width, 4.2 if width >= WIDE else 7.4), layout="constrained")
        left, other = figure.subplots(1, 2) if width >= WIDE else figure.subplots(2, 1)
        left.plot([0, 1], [0, 1], color=GREY, lw=1, ls=(0, (4, 3)))
        for b in found["bins"]:
            part = b.get("worth", 1.0)  # of an evaluation before there was one
            left.plot([b["confidence"]] * 2, wilson(part * b["right"], part * b["n"]), color=SEEN, lw=1.5)
            left.plot(b["confidence"], b["right"] / b["n"], "o", color=SEEN, ms=5, mec="white", clip_on=False)
        left.set(xlim=(0, 1), ylim=(0, 1), xlabel="probability of the answer", ylabel="share of right answers",
                 title="Dashed line: right as often as stated")
        points = [row for row in found["coverage"] if row["n"]]
        covered = [row["coverage"] for row in points]
        ends = [[row[key] for row in points] for key in ("low", "high")]
        other.fill_between(covered, *ends, color="#a9cbe2", alpha=0.5, lw=0)
        for end in ends:
            other.plot(covered, end, color=PALE, lw=0.8)
        other.plot(covered, [row["accuracy"] for row in points], "o-", color=SEEN, ms=5, mec="white", clip_on=False)
        last = 2.0
        for row in points:  # from the right; a number that would lie on its neighbour is left out
            if last - row["coverage"] > 0.09 and row["threshold"]:
                other.annotate(f"{row['threshold']:g}", (row["coverage"], row["accuracy"]),
                               (0, 7 if row["accuracy"] < 0.9 else -14), textcoords="offset points", ha="center",
                               fontsize=8)
                last = row["coverage"]
        other.set(xlim=(0, 1), ylim=(0, 1.05), xlabel="share of the posts that keep their label",
                  ylabel="accuracy among them", title="With --abstain at the number at each point")
    return figure


def loss_curve(steps: Iterable[Mapping], width: float = WIDE) -> Figure | None:
    """Training loss (raw, smoothed) and validation macro-F1 over steps, from the lines of log.jsonl; None without any.
    """
    steps = list(steps)
    loss = [(line["step"], line["loss"]) for line in steps if isinstance(line.get("loss"), int | float)]
    validation = [(line["step"], line["validation"]["macro_f1"]) for line in steps
                  if isinstance(line.get("validation"), Mapping) and line["validation"].get("macro_f1") is not None]
    if not loss:
        return None
    x, y = numpy.array(loss, dtype=float).T
    with styled():
        figure = Figure(figsize=(width, 4.0 if validation else 2.7), layout="constrained")
        heights = [3, 2] if validation else [1]
        parts = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)
        top = parts[0, 0]
        top.plot(x, y, color=PALE, lw=0.9)
        top.plot(x, smoothed(y), color=SEEN, lw=2)
        top.set(title="Training loss", ylim=(0, None))
        if validation:
            at, score = zip(*validation, strict=True)
            low, best = parts[1, 0], int(numpy.argmax(score))
            low.plot(at, score, "o-", color=UNSEEN, lw=1.5, ms=4)
            low.plot(at[best], score[best], "o", ms=10, mfc="none", mec=INK, mew=1.2)
            low.set(title=f"Validation macro-F1 (ring: best, {score[best]:.3f} at step {at[best]:,})", ylim=(0, 1))
        parts[-1, 0].set_xlabel("step")
        for ax in parts[:, 0]:
            ax.grid(axis="y", color="#e4e4e4", lw=0.7)
            ax.set_axisbelow(True)
    return figure


def smoothed(values: numpy.ndarray) -> numpy.ndarray:
    """Exponential mean over about a thirtieth of the steps: s_t = sum_i w^(t-i) y_i / sum_i w^(t-i), i = 1..t."""
    keep = 1 - 1 / max(5, len(values) / 30)
    result, above, below = numpy.empty(len(values)), 0.0, 0.0
    for i, value in enumerate(values):
        above, below = keep * above + value, keep * below + 1
        result[i] = above / below
    return result


def svg(figure: Figure, name: str) -> str:
    """The figure as an `<svg>` element as wide as what is around it; `name` keeps the ids of several figures apart."""
    with styled(), matplotlib.rc_context({"svg.hashsalt": name}):
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    # An HTML parser knows these namespaces itself; without them the page contains no address at all.
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text)
    text = re.sub(r' width="[\d.]+pt"| height="[\d.]+pt"', "", text, count=2)
    used = set(re.findall(r'#([\w-]+)["\)]', text))  # matplotlib names every group; twice on a page would be wrong
    text = re.sub(r' id="([^"]+)"', lambda found: found.group(0) if found.group(1) in used else "", text)
    return text.replace("<svg", '<svg role="img"', 1).strip()


def save(figure: Figure, path: str | Path) -> None:
    """Write the figure as .svg, .png or .pdf, completely or not at all; the same figure gives the same bytes."""
    path = Path(path)
    kind = path.suffix[1:]
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {"Software": None}}[kind]
    with styled(), matplotlib.rc_context({"svg.hashsalt": path.stem}), atomic_write(path, "wb") as handle:
        figure.savefig(handle, format=kind, metadata=metadata)
