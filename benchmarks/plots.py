"""Pictures of what the benchmarks measured, for docs/performance.md.

    python -m benchmarks.plots --compare result.json --scaling scaling.json --beside million.json --out docs

Writes `speed.png` and `memory.png` from the first file (`labelling.png` if nothing was trained), `scaling.png` from
the second and `million.png` from the third. Colours are Okabe and Ito's, distinct in every common colour blindness;
ours is also the darkest, and bars show their numbers.
"""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from common.errors import UserError, run_program
from common.files import atomic_write, read_json
from common.options import option, parse_options

OURS, USUAL, LLAMA, LIMIT, INK = "#0072B2", "#E69F00", "#999999", "#D55E00", "#222222"
COLOURS = {"ours": OURS, "ours in bf16": "#56B4E9", "ours in int8": "#009E73",
           "usual": USUAL, "usual in bf16": "#F0E442", "llama.cpp": LLAMA}
SIDES = {"ours": "Glass Llama", "ours in bf16": "Glass Llama, --dtype bfloat16", "ours in int8": "Glass Llama, --int8",
         "usual": "transformers + peft + bitsandbytes", "usual in bf16": "the same, bf16 kernels (rounded)",
         "llama.cpp": "llama.cpp Q4_K_M, one post a call"}
TITLES = {"train": "Training: seconds a post", "label": "Labelling: seconds a post"}
STYLE = {
    "font.family": ["DejaVu Sans"], "font.size": 9, "text.color": INK, "axes.labelcolor": INK, "xtick.color": INK,
    "ytick.color": INK, "axes.edgecolor": "#bbbbbb", "axes.linewidth": 0.8, "axes.titlesize": 10,
    "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.spines.top": False, "axes.spines.right": False,
    "savefig.dpi": 160,
}  # fmt: skip


@dataclass
class PlotOptions:
    """Options of this program."""

    compare: str | None = option(None, "what benchmarks.compare wrote", metavar="FILE")
    scaling: str | None = option(None, "what benchmarks.scaling wrote", metavar="FILE")
    beside: str | None = option(None, "what benchmarks.beside wrote of a long job", metavar="FILE")
    out: str = option("docs", "folder for the pictures", metavar="DIR")


def main(argv: list[str]) -> None:
    """Draw the pictures whose files are given."""
    options = parse_options(PlotOptions, argv, program="python -m benchmarks.plots", description=__doc__)
    if not (options.compare or options.scaling or options.beside):
        raise UserError("--compare, --scaling, --beside: give at least one file to draw")
    figures = {}
    with matplotlib.rc_context(STYLE):
        if options.compare:
            result = checked(options.compare, "projection")
            both = result["memory"]  # nothing was trained with --task label
            figures |= {"speed.png": speed(result), "memory.png": memory(result)} if both else {
                "labelling.png": speed(result)}
        if options.scaling:
            figures["scaling.png"] = scaling(checked(options.scaling, "series"))
        if options.beside:
            figures["million.png"] = long_job(checked(options.beside, "points"))
        for name, figure in figures.items():
            with atomic_write(Path(options.out) / name, "wb") as handle:
                figure.savefig(handle, format="png")
            print(Path(options.out) / name)


def checked(path: str, key: str) -> dict:
    """The file, which must come from the benchmark that writes `key`."""
    result = read_json(path)
    if not isinstance(result, dict) or result.get("schema") != 1 or key not in result:
        raise UserError(f"{path}: is not what the benchmark wrote with --json")
    return result


def speed(result: dict) -> Figure:
    """Seconds a post at full depth for every task and side; a line across each bar of ours is its limit."""
    limits = {row["job"]: row["products"] for row in result["limits"]}
    panels = {}
    for job, one in result["projection"].items():
        side, task, template, way = job.split(", ")
        panels.setdefault(task, []).append(Bar(template, side, way, one["projected"], limits.get(job)))
    figure, axes = empty(panels)
    for ax, (task, rows) in zip(axes, panels.items(), strict=True):
        bars(ax, rows, ".2f")
        full = result["settings"]["full_depth"]
        measured = str(full) in map(str, next(iter(result["projection"].values()))["medians"])
        ax.set_title(f"{TITLES[task]}, {'' if measured else 'projected to '}{full} layers")
    key(figure, {row.side for rows in panels.values() for row in rows},
        "its matrix products alone" if limits else "")
    return figure


def memory(result: dict) -> Figure:
    """Peak memory of training at full depth: activations kept above, computed twice below if that was measured."""
    panels = {}
    for row in result["memory"]:
        for which in ("ours", "theirs"):
            side, _, template, way = row[which].split(", ")
            bar = Bar(template, side, way, row[f"projected_{which}"] / 1e9)
            found = panels.setdefault(row["checkpointing"], [])
            found += [] if bar in found else [bar]
    figure, axes = empty(panels)
    for ax, (twice, rows) in zip(axes, panels.items(), strict=True):
        bars(ax, rows, ".1f")
        ax.set_title(f"Peak memory of training in GB, {result['settings']['batch_size']} posts a step, "
                     f"{result['settings']['full_depth']} layers, activations {'computed twice' if twice else 'kept'}")
    widest = max(ax.get_xlim() for ax in axes)
    for ax in axes:
        ax.set_xlim(widest)
    key(figure, {row.side for rows in panels.values() for row in rows})
    return figure


@dataclass(frozen=True)
class Bar:
    """One bar: whose it is, how long, and where its limit is."""

    template: str
    side: str
    way: str
    value: float
    limit: float | None = None


def empty(panels: dict) -> tuple[Figure, list]:
    """A figure with one panel under another, as high as their numbers of bars need."""
    heights = [len(rows) + 1.5 for rows in panels.values()]
    figure = Figure(figsize=(9.5, 0.9 + 0.29 * sum(heights)), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.12)
    return figure, list(figure.subplots(len(panels), 1, height_ratios=heights, squeeze=False)[:, 0])


def bars(ax, rows: list[Bar], form: str) -> None:
    """Horizontal bars followed by their numbers, one template below the other, the longest on top."""
    rows = sorted(rows, key=lambda row: (row.template != "paper", -row.value))
    place, places = 0.0, []
    for before, row in pairwise([None, *rows]):
        place += 0 if before is None else 1 if before.template == row.template else 1.6
        places.append(place)
        ax.barh(place, row.value, color=COLOURS[row.side], height=0.74)
        furthest = max(0, row.value, row.limit or 0)
        ax.annotate(format(row.value, form), (furthest, place), (5, 0), textcoords="offset points", va="center",
                    fontsize=8)
        if row.limit is not None:
            ax.plot([row.limit] * 2, [place - 0.42, place + 0.42], color=LIMIT, lw=2.4)
    ax.set_yticks(places, [f"{row.template}: {row.side if row.side.startswith('ours') else row.way}" for row in rows])
    ax.invert_yaxis()
    ax.tick_params(axis="y", length=0)
    ax.set_xlim(0, 1.1 * max(row.value for row in rows))


def key(figure: Figure, sides: set[str], limit: str = "") -> None:
    """What the colours mean, below the panels."""
    handles = [matplotlib.patches.Patch(color=COLOURS[side], label=SIDES[side]) for side in SIDES if side in sides]
    if limit:
        handles.append(matplotlib.lines.Line2D([], [], color=LIMIT, lw=2.4, label=limit))
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False)


def scaling(result: dict) -> Figure:
    """Each series over its x: time with its least-squares line above, peak memory below."""
    settings = result["settings"]
    columns = {"tokens": f"tokens of the posts ({settings['token_depth']} layers)",
               "layers": f"layers ({settings['depth_posts']} posts)", "posts": "posts in the file"}
    kinds = {"train": ("training", OURS, "o"), "label": ("labelling", USUAL, "s"),
             "classify.py": ("classify.py, small base", OURS, "D")}
    figure = Figure(figsize=(10, 5.2), layout="constrained")
    axes = figure.subplots(2, 3)
    for (above, below), (unit, words) in zip(axes.T, columns.items(), strict=True):
        for name, one in result["series"].items():
            if one["unit"] != unit:
                continue
            label, colour, marker = kinds[name.split(" over ")[0]]
            points, line = one["points"], one["seconds"]
            x = [point["x"] for point in points]
            ends = (0, max(x))
            above.plot(ends, [line["fixed"] + line["each"] * end for end in ends], color=colour, lw=1.2, alpha=0.6)
            above.plot(x, [point["median"] for point in points], marker, color=colour, ms=6, mec="white", label=label)
            below.plot(x, [point["peak"] / 1e9 for point in points], f"{marker}-", color=colour, ms=6, mec="white",
                       lw=1.2, label=label)
        for ax, title in ((above, "Seconds"), (below, "Peak memory in GB")):
            ax.set_title(title)
            ax.set_xlabel(words)
            ax.set_xlim(left=0)
            ax.set_ylim(bottom=0, top=1.3 * ax.get_ylim()[1])
            ax.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
            ax.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
            ax.legend(frameon=False, loc="upper left", ncols=2)
    return figure


def long_job(result: dict) -> Figure:
    """Memory and processor time a post on the way through a long job."""
    posts = [point[0] / 1e3 for point in result["points"]]
    spent = [point[1] for point in result["points"]]
    steps = zip(pairwise([0, *spent]), pairwise([0, *posts]), strict=True)
    parts = [1e3 * (after - before) / (to - since) for (before, after), (since, to) in steps]
    figure = Figure(figsize=(7.5, 2.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(posts, [point[3] / 1e6 for point in result["points"]], color=OURS)
    left.set(title="Memory (MB)", xlabel="thousand posts labelled", ylim=(0, None))
    right.plot(posts, parts, color=OURS)
    right.set(title="Processor time a post (microseconds)", xlabel="thousand posts labelled", ylim=(0, None))
    return figure


if __name__ == "__main__":
    run_program(main)
