#!/usr/bin/env python
"""Label a file of posts with a fine-tuned run: one file in, one out, in the input's order.

    python classify.py                                                 the sample posts, with the newest run
    python classify.py --run runs/mine --input posts.csv --output labels.csv
    python classify.py --text "I came here as a child."                one post, with a bar per label, and no file

The output has id, language, the label and its probability, and a probability per label; where the codebook has a topic,
also the probability that the post is related, summed over the related labels (they share theirs, so it can be above one
half while the single most probable label is "unrelated"). It holds no post text unless --with-texts asks for it.

The input is read twice: first to the end, so that a row that is wrong is told before hours of work; then in windows,
which are labelled and written one by one, so that millions of posts take no more memory than a thousand. If a labelling
was killed, the same command with --resume goes on.
"""

import sys
import time
from dataclasses import asdict, dataclass, fields
from itertools import islice
from pathlib import Path

import torch

from common.device import MachineOptions
from common.errors import UserError, run_program
from common.files import check_place, find_path, sha256_file, sha256_json
from common.options import option, parse_options
from common.terminal import bars, human_seconds, printable, progress
from data.codebook import Codebook
from data.notes import Notes
from data.posts import ColumnOptions, Post
from data.prompt import Prompt
from data.readers import check_posts, is_empty, iter_posts
from data.writers import OUTPUT_FORMATS, GrowingFile, output_format, partial_files
from finetune.run_folder import RunFolder
from inference.decide import Label, as_labels
from inference.labeller import Labeller
from inference.loaded import LoadedRun
from inference.options import LabelOptions
from inference.run import finished_run, open_model

READING = {"require_labels": False, "keep_empty": True}  # the output has a row for every row of the input
# What --text does not go with.
FILES = ("input", "output", "overwrite", "resume", "with_texts", "safe_cells",
         *(field.name for field in fields(ColumnOptions)))


@dataclass
class ClassifyOptions(ColumnOptions, LabelOptions, MachineOptions):
    """Options of one labelling."""

    run: str | None = option(None, "folder of the run (default: the newest in runs/)", metavar="DIR")
    input: str = option("data/samples/test.jsonl", "posts: .jsonl, .csv or .tsv, also .gz", metavar="FILE")
    output: str | None = option(None, f"where the labels go: {', '.join(OUTPUT_FORMATS)}, also .gz (default: in the "
                                "run, named after the input)", metavar="FILE")
    text: str | None = option(None, "label this one post, in the terminal", metavar="TEXT")
    model: str | None = option(None, "where the base model is, if it has moved since training", metavar="DIR")
    overwrite: bool = option(False, "replace the output file if it exists, or what a stopped labelling left of it")
    resume: bool = option(False, "go on with a labelling that was killed; and keep what is done if this one is stopped")
    with_texts: bool = option(False, "write the posts' texts beside their labels")
    safe_cells: bool = option(False, "in csv and tsv, put an apostrophe before cells that a spreadsheet would take for "
                              "a formula: those that begin with =, +, - or @")


def main(argv: list[str]) -> None:
    """Check, label, write; a row without text gets empty fields, so that input and output have the same rows."""
    options = parse_options(ClassifyOptions, argv, program="classify.py", description=__doc__)
    if options.text is not None:
        label_one(options)
        return
    run, source = finished_run(options.run), find_path(options.input)
    output = Path(options.output) if options.output else run.path / f"labels-{Path(options.input).name}"
    check_output(output, source, options)
    with progress(None, "post", "reading") as bar:
        notes = check_posts([source], options.columns(), show=bar.update, **READING)
    print("\n".join([f"run {run.path}", *notes.lines()]))
    model, prompt = ready(run, options)
    file = GrowingFile(output, made_from(run, source, options, model.dtype), options.resume, options.safe_cells)
    try:
        label(model, prompt, source, file, notes, options)
    except KeyboardInterrupt:
        if file.is_kept:
            print(f"{file.counts['rows']:,} rows are kept; the same command goes on", file=sys.stderr)
        raise
    print(f"labels: {output}")


def label_one(options: ClassifyOptions) -> None:
    """The label of `--text`, with a bar for each label of the codebook; no file is read or written."""
    for name in FILES:
        if name in options.given and getattr(options, name) is not False:
            raise UserError(f"--text and --{name.replace('_', '-')}: one post in the terminal, or files; leave one out")
    if is_empty(options.text):
        raise UserError("--text: is empty; give the post in quotes, or leave the option out")
    run = finished_run(options.run)
    print(f"run {run.path}")
    found, = LoadedRun(run, *ready(run, options), options.micro_tokens).label([options.text])
    encoding = sys.stdout.encoding
    print(f"\n{bars(found.probabilities, encoding)}\n\n  {printable(str(found), encoding)}")


def ready(run: RunFolder, options: ClassifyOptions):
    """The run's model, as the options want it, and its prompt: (model, prompt)."""
    device, dtype, reason = options.set_up()
    print(f"  {dtype}, since {reason}")
    model, prompt = open_model(run, model=options.model, device=device, dtype=dtype, cache=options.cache)
    options.make_ready(model)
    return model, prompt


def label(model, prompt: Prompt, source: Path, file: GrowingFile, notes: Notes, options: ClassifyOptions) -> None:
    """Labels for the posts of `source` that `file` does not have yet, window by window."""
    with file:
        rows, texts, began = file.counts["rows"], file.counts["texts"], time.perf_counter()
        if rows:
            print(f"  {rows:,} rows were labelled before; going on behind them")
        posts = islice(iter_posts([source], options.columns(), check_ids=False, **READING), rows, None)
        with progress(notes.kept - notes.counts["empty_kept"], "post", "labelling", initial=texts) as bar:
            labeller = Labeller(model, prompt, options.micro_tokens, bar.update)
            for window in labeller.label(posts):
                found = as_labels(window.probabilities, prompt.codebook)
                lines = [output_row(*pair, prompt.codebook, options.with_texts)
                         for pair in zip(window.posts, found, strict=True)]
                file.add(lines, texts=sum(line["predicted"] is not None for line in lines), cut=window.cut)
        if file.counts["rows"] != notes.kept or notes.have_changed():
            raise UserError(f"{source}: has changed while it was labelled; label it again")
    counts, seconds = file.counts, time.perf_counter() - began
    print(f"  {counts['texts']:,} of {counts['rows']:,} posts labelled in {human_seconds(seconds)}"
          + (f"; {counts['cut']:,} were too long and cut" if counts["cut"] else ""))
    if labeller.halvings:
        print(f"  {labeller.remark()}")


def made_from(run: RunFolder, source: Path, options: ClassifyOptions, dtype: torch.dtype) -> dict:
    """What decides the rows of the output: a labelling that was stopped goes on only where all of it is the same."""
    adapter = {path.name: sha256_file(path) for path in sorted((run.path / "adapter").iterdir())}
    return {"run": sha256_json([run.facts["hashes"], run.facts["prompt"], adapter]), "input": sha256_file(source),
            "columns": asdict(options.columns()), "dtype": str(dtype), "--with-texts": options.with_texts,
            "--safe-cells": options.safe_cells}


def check_output(output: Path, source: Path, options: ClassifyOptions) -> None:
    """Refuse an unknown format, the input itself, and what is already there, whole or as far as it came."""
    if output_format(output) == ".jsonl" and options.safe_cells:
        raise UserError(f"--safe-cells: concerns spreadsheets, and {output} is none; name a .csv or .tsv")
    check_place(output, "--output")
    if output.is_dir():
        raise UserError(f"--output {output}: is a folder; name a file")
    if output.exists() and source.exists() and output.samefile(source):
        raise UserError(f"--output {output}: is the input file; choose another name")
    if output.exists() and not options.overwrite and options.output is not None:
        raise UserError(f"--output {output}: exists; choose another name or say --overwrite")
    if partial_files(output)[1].exists() and not options.overwrite and not options.resume:
        raise UserError(f"--output {output}: a labelling was stopped on its way there; --resume goes on with it, "
                        "--overwrite starts anew")


def output_row(post: Post, found: Label, codebook: Codebook, with_text: bool) -> dict:
    """One output row; fields are empty where the post had no text."""
    def rounded(value: float | None) -> float | None:
        return None if value is None else round(value, 6)

    row = {"id": post.id, "language": post.language, "predicted": found.label,
           "probability": rounded(found.probability)}
    row |= {f"p_{label}": rounded(found.probabilities.get(label)) for label in codebook.labels}
    if codebook.related:
        row["p_related"] = rounded(found.related)
    return row | ({"text": post.text} if with_text else {})


if __name__ == "__main__":
    run_program(main)
