#!/usr/bin/env python
"""Label a file of posts with a fine-tuned run: one file in, one out, in the input's order.

    python classify.py                                                 the sample posts, with the newest run
    python classify.py --run runs/mine --input posts.csv --output labels.csv

The output has id, language, the label and its probability, and a probability per label; where the codebook has a topic,
also the probability that the post is related, summed over the related labels (they share theirs, so it can be above one
half while the single most probable label is "unrelated"). It holds no post text unless --with-texts asks for it.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.errors import UserError, run_program
from common.files import check_place
from common.options import option, parse_options
from common.terminal import human_seconds, progress
from data.codebook import Codebook
from data.posts import Post
from data.readers import is_empty, read_posts
from data.writers import OUTPUT_FORMATS, output_format, write_rows
from predict import label_probabilities
from program_options import ColumnOptions, MachineOptions
from run_folder import find_path, finished_run, open_model


@dataclass
class ClassifyOptions(ColumnOptions, MachineOptions):
    """Options of one labelling."""

    run: str | None = option(None, "folder of the run (default: the newest in runs/)", metavar="DIR")
    input: str = option("data/samples/test.jsonl", "posts: .jsonl, .csv or .tsv, also .gz", metavar="FILE")
    output: str | None = option(None, f"where the labels go: {', '.join(OUTPUT_FORMATS)}, also .gz (default: in the "
                                "run, named after the input)", metavar="FILE")
    model: str | None = option(None, "where the base model is, if it has moved since training", metavar="DIR")
    overwrite: bool = option(False, "replace the output file if it exists")
    with_texts: bool = option(False, "write the posts' texts beside their labels")


def main(argv: list[str]) -> None:
    """Read, label, write; a row without text gets empty fields, so that input and output have the same rows."""
    options = parse_options(ClassifyOptions, argv, program="classify.py", description=__doc__)
    run = finished_run(options.run)
    output = Path(options.output) if options.output else run.path / f"labels-{Path(options.input).name}"
    check_output(output, find_path(options.input), options.overwrite or options.output is None)
    codebook = Codebook.from_dict(run.facts["codebook"])
    posts, notes = read_posts([find_path(options.input)], options.columns(), None, require_labels=False,
                              keep_empty=True)
    print("\n".join([f"run {run.path}", *notes.lines()]))
    device, dtype, reason = options.set_up()
    print(f"  {dtype}, since {reason}")
    model, prompt = open_model(run, model=options.model, device=device, dtype=dtype, cache=options.cache)
    filled = [place for place, post in enumerate(posts) if not is_empty(post.text)]
    rows = [prompt.encode(posts[place].text) for place in filled]
    began = time.perf_counter()
    with progress(len(rows), "post", "labelling") as bar:
        found = label_probabilities(model, prompt, rows, micro_tokens=options.micro_tokens, show=bar.update)
    seconds = time.perf_counter() - began
    probabilities = np.full((len(posts), len(codebook.labels)), np.nan, dtype=np.float32)
    probabilities[filled] = found
    lines = [answer(post, row, codebook, options.with_texts)
             for post, row in zip(posts, probabilities, strict=True)]
    write_rows(output, lines)
    cut = sum(row.cut for row in rows)
    print(f"  {len(filled):,} of {len(posts):,} posts labelled in {human_seconds(seconds)}"
          + (f"; {cut:,} were too long and cut" if cut else ""))
    print(f"labels: {output}")


def check_output(output: Path, source: Path, overwrite: bool) -> None:
    """Refuse an unknown format, the input itself, and a file that is already there."""
    output_format(output)
    check_place(output, "--output")
    if output.is_dir():
        raise UserError(f"--output {output}: is a folder; name a file")
    if output.exists() and source.exists() and output.samefile(source):
        raise UserError(f"--output {output}: is the input file; choose another name")
    if output.exists() and not overwrite:
        raise UserError(f"--output {output}: exists; choose another name or say --overwrite")


def answer(post: Post, probabilities: np.ndarray, codebook: Codebook, with_text: bool) -> dict:
    """One output row; fields are empty where the post had no text."""
    empty = bool(np.isnan(probabilities).any())
    rounded = [None if empty else round(float(p), 6) for p in probabilities]
    best = None if empty else int(probabilities.argmax())
    row = {"id": post.id, "language": post.language, "predicted": None if empty else codebook.labels[best],
           "probability": None if empty else rounded[best]}
    row |= {f"p_{label}": p for label, p in zip(codebook.labels, rounded, strict=True)}
    if codebook.related:
        related = sum(float(probabilities[codebook.place(label)]) for label in codebook.related)
        row["p_related"] = None if empty else round(related, 6)
    return row | ({"text": post.text} if with_text else {})


if __name__ == "__main__":
    run_program(main)
