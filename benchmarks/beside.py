"""What labelling a post costs beside the model: reading, encoding, looking for repeats, writing; and the whole program.

    python -m benchmarks.beside --count 20000
    python -m benchmarks.beside --count 1000000 --turns 1 --json million.json      memory and rate over a long job

Posts are those of --posts over and over, each with a number behind it, so that none is repeated, in a csv of five
columns. The model answers at once, all labels alike. Printed are microseconds of processor time a post, which other
programs disturb less than the clock, medians over turns of all stages; `--json` also gets the program's memory and its
processor time at every hundredth of the way.
"""

import csv
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import torch

import classify
from benchmarks.card.state import random_model
from benchmarks.checkpoint import LLAMA_3_2_3B
from bulk.check import READING
from bulk.rows import output_row
from bulk.watch import Watch
from common.errors import run_program
from common.files import check_file, find_path, write_json
from common.options import option, parse_options
from common.terminal import human_bytes, table
from data.growing import GrowingFile
from data.readers import check_posts, iter_posts
from inference.decide import as_labels
from inference.labeller import WINDOW, Labeller
from inference.repeats import Repeats
from inference.run import base_folder, finished_run, run_prompt
from model.config import LlamaConfig

# What Llama 3.2-1B has otherwise than its larger sister.
ONE_BILLION = {"hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 32, "head_dim": 64}
FEW = 600  # posts that are encoded again and again meanwhile


@dataclass
class BesideOptions:
    """Options of this program."""

    run: str = option("base/run", "a run: its prompt and its tokenizer are measured", metavar="DIR")
    posts: str = option("data/samples/test.jsonl", "posts, taken over and over", metavar="FILE")
    count: int = option(10_000, "posts of the file that is made", minimum=1000)
    turns: int = option(3, "turns of every stage, of which the median is shown", minimum=1)
    format: str = option("csv", "format of the labels", choices=("csv", "csv.gz", "jsonl"))
    model_posts: int = option(0, "label so many posts with random weights in the shape of Llama 3.2-1B as well (NF4, "
                              "bfloat16: the fastest way here), to compare with", minimum=0)
    json: str | None = option(None, "everything measured, as JSON", metavar="FILE")


def made(posts: Path, count: int, folder: Path) -> Path:
    """A csv of `count` different posts."""
    path = folder / "posts.csv"
    with open(path, "w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["id", "text", "language", "date", "author"])
        for number, post in enumerate(itertools.islice(itertools.cycle(list(iter_posts([posts]))), count)):
            writer.writerow([f"p{number}", f"{post.text} {number}", post.language, f"2024-{1 + number % 12:02}-05",
                             f"user{number % 977}"])
    return path


def spent(work: Callable[[], object]) -> float:
    """Seconds of processor time that `work` takes."""
    began = time.process_time()
    work()
    return time.process_time() - began


def answer_at_once(self, rows) -> Callable[[], np.ndarray]:
    """In the place of `Labeller.give`: all labels alike."""
    self.show(len(rows))
    return lambda: np.full((len(rows), len(self.prompt.label_ids)), 1 / len(self.prompt.label_ids), np.float32)


def stages(path: Path, run, options, folder: Path) -> dict[str, Callable[[], object]]:
    """Each stage of labelling `path` as a call of its own, the program's order."""
    prompt = run_prompt(run, base_folder(run))
    ours = classify.ClassifyOptions()
    columns = ours.columns()
    posts = list(iter_posts([path], columns, check_ids=False, **READING))
    windows = [posts[start : start + WINDOW] for start in range(0, len(posts), WINDOW)]
    encoded = [[prompt.encode(post.text) for post in window] for window in windows]
    given = [np.full((len(window), len(prompt.label_ids)), 1 / len(prompt.label_ids), np.float32) for window in windows]
    kept = list(posts[0].extra)
    lines: list = []

    def look_for_repeats() -> None:
        repeats = Repeats(prefix=prompt.prefix_ids)
        for rows, values in zip(encoded, given, strict=True):
            repeats.keep(repeats.split(rows)[1], values)

    def make_rows() -> None:
        lines.clear()
        for window, values in zip(windows, given, strict=True):
            lines.append([output_row(*pair, prompt.codebook, ours, kept)
                          for pair in zip(window, as_labels(values, prompt.codebook), strict=True)])

    def write_rows() -> None:
        with GrowingFile(folder / f"stage.{options.format}", {}) as file:
            for window in lines:
                file.add(window)

    return {
        "first reading, which checks every row and every id": lambda: check_posts([path], columns, **READING),
        "second reading, of the posts to label": lambda: sum(
            1 for _ in iter_posts([path], columns, check_ids=False, **READING)),
        "encoding": lambda: [prompt.encode(post.text) for post in posts],
        "looking for posts that came before": look_for_repeats,
        "rows of the output": make_rows,
        f"writing {options.format}": write_rows,
    }


def whole(path: Path, options, folder: Path, prompt) -> tuple[float, list[tuple[int, float, float, int]]]:
    """Processor time of classify.py on `path`, beside its start, and (posts, seconds, seconds of the same few posts
    there, bytes in memory) on the way; the few posts' time is in none of the others."""
    points: list[tuple[int, float, float, int]] = []
    show, enter, process = Watch.show, Watch.__enter__, psutil.Process()
    step = max(options.count // 100, 1)
    began: list[float] = []
    few = [post.text for post in itertools.islice(iter_posts([path], **READING), FEW)]

    def entered(self):
        began.append(time.process_time())
        return enter(self)

    def shown(self, count):
        show(self, count)
        if self.done // step > len(points):
            seconds = time.process_time() - began[0]
            start = time.thread_time()  # the thread of the windows ahead goes on meanwhile
            for text in few:
                prompt.encode(text)
            same = time.thread_time() - start
            began[0] += same
            points.append((self.done, seconds, same, process.memory_info().rss))

    give = Labeller.give
    Labeller.give, Watch.show, Watch.__enter__ = answer_at_once, shown, entered
    try:
        words = ["--run", options.run, "--input", str(path), "--output", str(folder / f"whole.{options.format}"),
                 "--overwrite", "--threads", "1"]
        classify.main(words)
        return time.process_time() - began[0], points
    finally:
        Labeller.give, Watch.show, Watch.__enter__ = give, show, enter


def with_a_model(path: Path, count: int, prompt) -> float:
    """Processor time that a post takes in a model of Llama 3.2-1B's shape, adapter left out, in microseconds."""
    model = random_model(LlamaConfig.from_dict(LLAMA_3_2_3B | ONE_BILLION), "cpu", torch.bfloat16, "nf4")
    rows = [prompt.encode(post.text) for post in itertools.islice(iter_posts([path], **READING), count)]
    labeller = Labeller(model, prompt)
    labeller.give(rows[:2])()
    return spent(lambda: labeller.give(rows)()) / count * 1e6


def cost(points: list[tuple[int, float, float, int]]) -> float:
    """What a post took up to the last of `points`, in the time that encoding one of the same few took there."""
    done, seconds, _, _ = points[-1]
    return seconds / done / (statistics.fmean(same for _, _, same, _ in points) / FEW)


def main(argv: list[str]) -> None:
    """Make the posts, measure, print."""
    options = parse_options(BesideOptions, argv, program="python -m benchmarks.beside", description=__doc__)
    check_file(options.json, "--json")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        path = made(find_path(options.posts), options.count, folder)
        run, found, all_of_it, points = finished_run(str(find_path(options.run))), {}, [], []
        prompt = run_prompt(run, base_folder(run))
        if options.turns > 1:
            work = stages(path, run, options, folder)
            for _ in range(options.turns):
                for name, call in work.items():
                    found.setdefault(name, []).append(spent(call) / options.count * 1e6)
        for _ in range(options.turns):
            seconds, points = whole(path, options, folder, prompt)
            all_of_it.append(seconds / options.count * 1e6)
        in_model = with_a_model(path, options.model_posts, prompt) if options.model_posts else None
    medians = {name: statistics.median(values) for name, values in found.items()}
    rows = [[name, f"{value:.1f}"] for name, value in medians.items()]
    rows += [["together", f"{sum(medians.values()):.1f}"]] if rows else []
    rows.append(["the program behind its first reading, model left out", f"{statistics.median(all_of_it):.1f}"])
    rows += [["a model of 1B in bfloat16", f"{in_model:,.0f}"]] if in_model else []
    print(table(["microseconds a post", "median"], rows))
    if len(points) > 2:
        first, rest = cost(points[:1]), cost(points)
        print(f"  a post cost {first:.3f} at the beginning and {rest:.3f} over all, in the time that encoding one of "
              f"the same few posts took meanwhile: {100 * (rest / first - 1):+.1f} %")
    print(f"  memory at the end {human_bytes(points[-1][3])}")
    if options.json:
        write_json(options.json, {"schema": 1, "count": options.count, "stages": found, "whole": all_of_it,
                                  "points": points})
        print(json.dumps(medians), file=sys.stderr)


if __name__ == "__main__":
    run_program(main)
