"""How cost grows as the work grows: time over tokens and over depth, memory over the number of posts.

    python -m benchmarks.scaling --tokenizer tokenizer.model --posts posts.jsonl --json scaling.json

Tokens: at one depth, more and more posts are trained on and labelled. Depth: the same posts, more and more layers.
Posts: `classify.py` labels files of more and more posts with a finished run (the shipped one, unless another is named),
each file in a process of its own. The points of a series are measured in turns, so that a slow minute does not bend it.
Printed with each are the least-squares line, how far the farthest median is from it, and the exponent p of cost ~ x^p
between both ends: at most 1 if cost grows no faster than the work, and 0 if it does not grow.
"""

import json
import shlex
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from math import log
from pathlib import Path
from statistics import median

from benchmarks.checkpoint import write_checkpoints
from benchmarks.machine import check_system, machine
from benchmarks.measure import FIRST
from benchmarks.real_size import measure
from benchmarks.settings import PRESETS, BenchmarkOptions, choose_cut, choose_posts, whole_numbers
from benchmarks.summary import line
from benchmarks.turns import Measured, Worker
from common.errors import run_program
from common.files import check_file, find_path, read_json, write_json
from common.options import option, parse_options
from common.terminal import human_bytes, human_seconds, table
from data.annotators import read_labelled
from data.codebook import load_codebook

TASKS = {"train": "training", "label": "labelling"}


@dataclass
class ScalingOptions(BenchmarkOptions):
    """Options of this program."""

    token_posts: list[str] = option(("16", "32", "64", "128"), "posts of each point of the series over tokens",
                                    metavar="16,32")
    token_depth: int = option(2, "layers in that series", minimum=1)
    depths: list[str] = option(("1", "2", "4", "8"), "layers of each point of the series over depth", metavar="1,2")
    depth_posts: int = option(16, "posts in that series", minimum=1)
    file_posts: list[str] = option(("1000", "4000", "16000"), "posts of each file that classify.py labels",
                                   metavar="1000,4000")
    run: str = option("base/run", "the finished run that labels them", metavar="DIR")
    turns: int = option(3, "turns of each point of the first two series", minimum=1)


def main(argv: list[str]) -> None:
    """Measure the three series, print their lines, write all of it."""
    began = time.perf_counter()
    options = parse_options(ScalingOptions, argv, program="python -m benchmarks.scaling", description=__doc__,
                            presets=PRESETS)
    check_system("benchmarks.scaling", "linux")
    check_file(options.json, "--json")
    options.settle()
    counts, depths, files = (whole_numbers(getattr(options, name), name.replace("_", "-"), least=2)
                             for name in ("token_posts", "depths", "file_posts"))
    facts, config = machine(options.device, options.threads), options.read_config()
    with options.work_folder() as work:
        choose_posts(options, max(*counts, options.depth_posts), config, work)
        choose_cut(options, config, config["num_hidden_layers"])
        series = over_posts(options, files, work)  # first, since the user's run may be one that cannot be opened
        folders = write_checkpoints(config, sorted({*depths, options.token_depth}), find_path(options.tokenizer), work)
        series |= over_tokens(options, counts, folders[options.token_depth], work)
        series |= over_depth(options, depths, folders, work)
    result = {"schema": 1, "command": shlex.join(["python", "-m", "benchmarks.scaling", *argv]), "machine": facts,
              "settings": asdict(options), "series": series, "seconds": time.perf_counter() - began}
    print(report(series))
    print(f"  took {human_seconds(result['seconds'])}")
    if options.json:
        write_json(options.json, result)


def over_tokens(options: ScalingOptions, counts: list[int], checkpoint: Path, work: Path) -> dict:
    """Seconds and peak memory of training and labelling; x: tokens of the posts, the shared prefix not counted."""
    points = {(task, count): Measured() for task in TASKS for count in counts}
    with Worker("ours", "benchmarks.worker_ours", options.for_worker(checkpoint, work), work) as worker:
        known = read_json(work / "encoded.json")[FIRST]
        for turn in range(options.turns + 1):  # the first one does not count
            for task, count in points if turn else [(task, counts[0]) for task in TASKS]:
                answer = worker.ask(task, template=FIRST, posts=count, micro_tokens=cut(options, task),
                                    checkpointing=options.checkpointing)
                if turn:
                    points[task, count].add(answer, count)
            show(f"tokens: turn {turn} of {options.turns}")
    tokens = {count: sum(len(row) - known["prefix"] for row in known["rows"][:count]) for count in counts}
    return {f"{task} over tokens": one_series("tokens", {tokens[count]: points[task, count] for count in counts})
            for task in TASKS}


def over_depth(options: ScalingOptions, depths: list[int], folders: dict[int, Path], work: Path) -> dict:
    """The same for the same posts at each depth; x: layers. All depths are loaded at once and take turns."""
    points = {(task, depth): Measured() for task in TASKS for depth in depths}
    with ExitStack() as stack:
        workers = {depth: stack.enter_context(Worker(f"depth {depth}", "benchmarks.worker_ours",
                                                     options.for_worker(folders[depth], work), work))
                   for depth in depths}
        for turn in range(options.turns + 1):
            for task, depth in points:
                answer = workers[depth].ask(task, template=FIRST, posts=options.depth_posts, checkpointing=
                                            options.checkpointing, micro_tokens=cut(options, task))
                if turn:
                    points[task, depth].add(answer, options.depth_posts)
            show(f"depth: turn {turn} of {options.turns}")
    return {f"{task} over depth": one_series("layers", {depth: points[task, depth] for depth in depths})
            for task in TASKS}


def over_posts(options: ScalingOptions, counts: list[int], work: Path) -> dict:
    """Seconds and peak memory of the program classify.py; x: posts in its file."""
    posts, _, _ = read_labelled([find_path(options.posts)], None, load_codebook())
    points = {}
    for count in counts:
        path = work / f"posts-{count}.jsonl"
        write_posts(path, [f"{posts[place % len(posts)].text} {place}" for place in range(count)])  # none comes again
        seconds, peak, _ = measure(["classify.py", "--run", options.run, "--input", str(path), "--output",
                                    str(work / f"labels-{count}.jsonl"), "--threads", str(options.threads)])
        points[count] = Measured()
        points[count].add({"seconds": seconds, "peak_anonymous": peak}, count)
        show(f"posts: {count:,} labelled")
    return {"classify.py over posts": one_series("posts", points)}


def write_posts(path: Path, texts: Sequence[str]) -> None:
    """One post a line, numbered."""
    lines = (json.dumps({"id": str(place), "text": text}, ensure_ascii=False) for place, text in enumerate(texts))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def cut(options: ScalingOptions, task: str) -> int:
    """Tokens at once: as the options say in training, as inference/labeller.py chooses in labelling."""
    return options.micro_tokens if task == "train" else 0


def show(text: str) -> None:
    """Print a line at once, for whoever is waiting."""
    print(text, flush=True)


def one_series(unit: str, points: dict[int, Measured]) -> dict:
    """The points of a series and what they say about its growth."""
    seconds = {x: one.median for x, one in points.items()}
    peaks = {x: float(one.peak) for x, one in points.items()}
    return {"unit": unit, "points": [{"x": x, **one.to_dict()} for x, one in points.items()],
            "seconds": growth(seconds), "peak": growth(peaks)}


def growth(points: dict[int, float]) -> dict:
    """Line, largest distance from it (relative), and the exponent between both ends.

    `growth({1: 3.0, 2: 5.0, 4: 9.0})` has fixed 1, each 2, farthest 0 and exponent log(3) / log(4).
    """
    fixed, each = line(points)
    farthest = max(abs(value / (fixed + each * x) - 1) for x, value in points.items())
    low, high = min(points), max(points)
    return {"fixed": fixed, "each": each, "farthest": farthest,
            "exponent": log(points[high] / points[low]) / log(high / low)}


def report(series: dict) -> str:
    """Two rows per series: time and memory."""
    rows = []
    for name, one in series.items():
        ends = [f"{point['x']:,}" for point in (one["points"][0], one["points"][-1])]
        for what, shown in (("seconds", human_seconds), ("peak", human_bytes)):
            grown = one[what]
            values = [shown(median(point["seconds"]) if what == "seconds" else point["peak"])
                      for point in (one["points"][0], one["points"][-1])]
            rows.append([name, "time" if what == "seconds" else "peak memory", f"{' to '.join(ends)} {one['unit']}",
                         " to ".join(values), f"{grown['farthest']:.1%}", f"{grown['exponent']:.2f}"])
    return table(["series", "cost", "from, to", "measured", "off the line", "exponent"], rows)


if __name__ == "__main__":
    run_program(main)
