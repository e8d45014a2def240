#!/usr/bin/env python
"""Label posts with a fine-tuned run: a file out for each file in, in the input's order.

    python classify.py                                                 the sample posts, with the newest run
    python classify.py --run runs/mine --input posts.csv --output labels.csv
    python classify.py --run runs/mine --input archive/ more*.csv.gz --output labels/
    python classify.py --text "I came here as a child."                one post, with a bar per label, and no file

The output has id, language, the label and its probability, and a probability per label; if the codebook has a topic,
also the probability that the post is related, summed over the related labels (they share theirs, so it can be above one
half while the single most probable label is "unrelated"). Behind these stand the input's own columns. It holds no post
text unless --with-texts asks for it.

The input is read twice: first to the end, so that a bad row is reported before hours of work; then in windows, which
are labelled and written one by one, so that millions of posts take no more memory than a thousand. If labelling was
killed, the same command with --resume continues.
"""

import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from itertools import islice
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from common.device import MachineOptions
from common.errors import UserError, closest, run_program
from common.files import check_place, sha256_file, sha256_json
from common.options import option, parse_options
from common.terminal import bars, human_seconds, printable, progress
from data.chat import imitation
from data.codebook import Codebook
from data.inputs import STDIN, expand, outputs_for, spooled
from data.notes import Notes
from data.posts import ColumnOptions, Post
from data.prompt import Prompt
from data.readers import check_posts, iter_posts
from data.visible import is_empty
from data.writers import OUTPUT_FORMATS, GrowingFile, output_format, partial_files, was_stopped
from finetune.run_folder import RunFolder
from inference.decide import Label, as_labels
from inference.int8 import to_int8
from inference.labeller import Labeller
from inference.loaded import LoadedRun
from inference.options import LabelOptions
from inference.run import finished_run, open_model
from stats.calibration import LEAST_ROWS, scaled

READING = {"require_labels": False, "keep_empty": True}  # the output has a row for every row of the input
# What --text does not go with.
FILES = ("input", "output", "overwrite", "resume", "with_texts", "keep_columns", "safe_cells",
         *(field.name for field in fields(ColumnOptions)))


@dataclass
class ClassifyOptions(ColumnOptions, LabelOptions, MachineOptions):
    """Options of one labelling."""

    FIRST: ClassVar = ("run", "input", "output", "text", "text_column", "resume")

    run: str | None = option(None, "folder of the run (default: the newest in runs/)", metavar="DIR")
    input: list[str] = option(("data/samples/test.jsonl",), "posts: .jsonl, .csv, .tsv (also .gz) or .parquet; several "
                              "files, patterns, folders; - is standard input", metavar="FILE")
    output: str | None = option(None, f"where the labels go: {', '.join(OUTPUT_FORMATS)}, also .gz; of several inputs "
                                "a folder, with a file for each (default: in the run, named after the input)",
                                metavar="FILE")
    text: str | None = option(None, "label this one post, in the terminal", metavar="TEXT")
    model: str | None = option(None, "where the base model is, if it has moved since training", metavar="DIR")
    overwrite: bool = option(False, "replace the output file if it exists, or what stopped labelling left of it")
    resume: bool = option(False, "continue labelling that was killed; also keep what is done if it is stopped now")
    with_texts: bool = option(False, "write the posts' texts beside their labels")
    keep_columns: list[str] = option(("all",), "the input's own columns to write as well: all (but the text), none, or "
                                     "their names", metavar="NAME,NAME")
    calibrated: bool = option(False, "probabilities scaled as the run's validation posts call for")
    abstain: float = option(0.0, "leave the label empty where its probability is below this; the probabilities stay",
                            minimum=0, maximum=1)
    safe_cells: bool = option(False, "in csv and tsv, put an apostrophe before cells that a spreadsheet would take for "
                              "a formula: those that begin with =, +, - or @")


def main(argv: list[str]) -> None:
    """Check, label, write; a row without text gets empty fields, so that input and output have the same rows."""
    options = parse_options(ClassifyOptions, argv, program="classify.py", description=__doc__)
    if options.text is not None:
        label_one(options)
        return
    run = finished_run(options.run)
    print(f"run {run.path}")
    options.remember(run.facts["options"])
    files = expand(options.input)
    if STDIN in files and len(files) > 1:
        raise UserError("--input -: standard input goes alone; label the files in a call of their own")
    if files == [STDIN]:
        with spooled(sys.stdin.buffer) as source:
            label_files(run, [(source, named_output(run, options, "stdin.jsonl"))], options)
    elif len(files) == 1:
        label_files(run, [(files[0], named_output(run, options, files[0].name))], options)
    else:
        folder = Path(options.output) if options.output else run.path / "labels"
        if folder.exists() and not folder.is_dir():
            raise UserError(f"--output {folder}: is a file; of several inputs, name a folder")
        label_files(run, list(zip(files, outputs_for(files, folder), strict=True)), options)


def named_output(run: RunFolder, options: ClassifyOptions, name: str) -> Path:
    """Where the labels of one input go: as the option says, or into the run."""
    kind = "" if name.lower().removesuffix(".gz").endswith(OUTPUT_FORMATS) else OUTPUT_FORMATS[0]
    return Path(options.output) if options.output else run.path / f"labels-{name}{kind}"


def label_files(run: RunFolder, jobs: list[tuple[Path, Path]], options: ClassifyOptions) -> None:
    """Check all inputs and outputs, then label one input after the other."""
    todo = []
    for source, output in jobs:
        if len(jobs) > 1 and options.resume and output.exists() and not options.overwrite:
            print(f"  {output}: is there already")
            continue
        check_output(output, source, options)
        todo.append((source, output))
    found = []
    for source, _ in todo:
        with progress(None, "post", "reading") as bar:
            notes = check_posts([source], options.columns(), show=bar.update, **READING)
        print("\n".join(notes.lines()))
        found.append((notes, kept_columns(options, notes, source)))
    if not todo:
        return
    check_calibration(run, options)
    first = (post.text for source, _ in todo for post in iter_posts([source], options.columns(), **READING))
    model, prompt = ready(run, options, first)
    for (source, output), (notes, kept) in zip(todo, found, strict=True):
        file = GrowingFile(output, made_from(run, source, options, kept, model.dtype), options.resume,
                           options.safe_cells)
        try:
            label(model, prompt, source, file, notes, kept, options, run.facts.get("calibration"))
        except KeyboardInterrupt:
            if file.is_kept:
                print(f"{file.counts['rows']:,} rows are kept; the same command continues", file=sys.stderr)
            raise
        print(f"labels: {output}")


def kept_columns(options: ClassifyOptions, notes: Notes, source: Path) -> list[str]:
    """The input's own columns that are written as well. Raises `UserError` for one that is not there."""
    names = [*([options.label_column] if any(label for _, label in notes.cells) else []), *notes.columns]
    if options.keep_columns in (("all",), ["all"]):
        return names
    if list(options.keep_columns) == ["none"]:
        return []
    for name in options.keep_columns:
        if name not in names:
            raise UserError(f"--keep-columns {name}: {source} has no such further column{closest(name, names)}; it has "
                            f"{', '.join(names[:12]) or 'none'}")
    return list(options.keep_columns)


def label_one(options: ClassifyOptions) -> None:
    """The label of `--text`, with a bar for each label of the codebook; no file is read or written."""
    for name in FILES:
        if name in options.given and getattr(options, name) is not False:
            raise UserError(f"--text and --{name.replace('_', '-')}: one post in the terminal, or files; leave one out")
    if is_empty(options.text):
        raise UserError("--text: is empty; give the post in quotes, or leave the option out")
    run = finished_run(options.run)
    print(f"run {run.path}")
    check_calibration(run, options)
    opened = LoadedRun(run, *ready(run, options, [options.text]), options.micro_tokens)
    found, = opened.label([options.text])
    if options.calibrated:
        row = np.array([list(found.probabilities.values())])
        found, = as_labels(scaled(row, run.facts["calibration"]), opened.codebook)
    encoding = sys.stdout.encoding
    print(f"\n{bars(found.probabilities, encoding)}\n\n  {printable(str(found), encoding)}")


def ready(run: RunFolder, options: ClassifyOptions, texts: Iterable[str]):
    """The run's model, set up by the options, and its prompt: (model, prompt); `texts` begins what will be labelled."""
    device, dtype, reason = options.set_up()
    print(f"  {dtype}, since {reason}")
    options.check_int8(device, dtype)
    model, prompt = open_model(run, model=options.model, device=device, dtype=dtype, cache=options.cache)
    options.choose_threads(device, model.config)
    options.make_ready(model)
    if options.int8:
        to_int8(model, prompt, texts, options.micro_tokens)
    return model, prompt


def check_calibration(run: RunFolder, options: ClassifyOptions) -> None:
    """Refuse --calibrated for a run that has no calibration."""
    if options.calibrated and not run.facts.get("calibration"):
        raise UserError(f"--calibrated: {run.path} was trained without validation posts, or with fewer than "
                        f"{LEAST_ROWS}, so it has no calibration; train with --validation 0.1")


def label(model, prompt: Prompt, source: Path, file: GrowingFile, notes: Notes, kept: list[str],
          options: ClassifyOptions, calibration: dict | None = None) -> None:
    """Labels for the posts of `source` that `file` does not have yet, window by window."""
    with file:
        rows, texts, began = file.counts["rows"], file.counts["texts"], time.perf_counter()
        imitating = 0  # of those that are labelled now
        if rows:
            print(f"  {rows:,} rows were labelled before; continuing after them")
        posts = islice(iter_posts([source], options.columns(), check_ids=False, **READING), rows, None)
        with progress(notes.kept - notes.counts["empty_kept"], "post", "labelling", initial=texts) as bar:
            labeller = Labeller(model, prompt, options.micro_tokens, bar.update)
            for window in labeller.label(posts):
                given = window.probabilities
                found = as_labels(scaled(given, calibration) if options.calibrated else given, prompt.codebook)
                lines = [output_row(*pair, prompt.codebook, options, kept)
                         for pair in zip(window.posts, found, strict=True)]
                file.add(lines, texts=sum(one.label is not None for one in found), cut=window.cut)
                imitating += prompt.imitating(post.text for post in window.posts)
        if file.counts["rows"] != notes.kept or notes.have_changed():
            raise UserError(f"{source}: has changed while it was being labelled; label it again")
    counts, seconds = file.counts, time.perf_counter() - began
    print(f"  {counts['texts']:,} of {counts['rows']:,} posts labelled in {human_seconds(seconds)}"
          + (f"; {counts['cut']:,} were too long and cut" if counts["cut"] else ""))
    if imitating:
        print(f"  {imitation(imitating, prompt.imitated)}")
    if labeller.halvings:
        print(f"  {labeller.remark()}")


def made_from(run: RunFolder, source: Path, options: ClassifyOptions, kept: list[str], dtype: torch.dtype) -> dict:
    """What decides the rows of the output: a labelling that was stopped goes on only where all of it is the same."""
    adapter = {path.name: sha256_file(path) for path in sorted((run.path / "adapter").iterdir())}
    return {"run": sha256_json([run.facts["hashes"], run.facts["prompt"], adapter]), "input": sha256_file(source),
            "columns": asdict(options.columns()), "dtype": str(dtype), "--int8": options.int8,
            "--with-texts": options.with_texts, "--keep-columns": kept, "--safe-cells": options.safe_cells,
            "--calibrated": options.calibrated and run.facts["calibration"], "--abstain": options.abstain}


def check_output(output: Path, source: Path, options: ClassifyOptions) -> None:
    """Refuse an unknown format, the input itself, and an output that is already there, complete or in part."""
    if output_format(output) == ".jsonl" and options.safe_cells:
        raise UserError(f"--safe-cells: concerns spreadsheets, and {output} is none; name a .csv or .tsv")
    check_place(output, "--output")
    if output.is_dir():
        raise UserError(f"--output {output}: is a folder; name a file")
    if output.exists() and source.exists() and output.samefile(source):
        raise UserError(f"--output {output}: is the input file; choose another name")
    rows, journal = partial_files(output)
    is_whole = output.exists() and not (options.resume and journal.exists() and not rows.exists())
    if is_whole and not options.overwrite and options.output is not None:
        raise UserError(f"--output {output}: exists; choose another name or give --overwrite")
    if was_stopped(output) and not options.overwrite and not options.resume:
        raise UserError(f"--output {output}: labelling into it was stopped; --resume continues it, --overwrite "
                        "starts again")


def output_row(post: Post, found: Label, codebook: Codebook, options: ClassifyOptions, kept: list[str]) -> dict:
    """One output row; fields are empty if the post had no text. Kept columns that have a name of ours get `input_`."""
    def rounded(value: float | None) -> float | None:
        return None if value is None else round(value, 6)

    unsure = found.label is not None and found.probability < options.abstain
    row = {"id": post.id, "language": post.language, "predicted": None if unsure else found.label,
           "probability": rounded(found.probability)}
    row |= {f"p_{label}": rounded(found.probabilities.get(label)) for label in codebook.labels}
    if codebook.related:
        row["p_related"] = rounded(found.related)
    if options.with_texts:
        row["text"] = post.text
    for name in kept:
        own = name
        while own in row:
            own = f"input_{own}"
        row[own] = post.label if name == options.label_column else post.extra.get(name)
    return row


if __name__ == "__main__":
    run_program(main)
