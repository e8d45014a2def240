#!/usr/bin/env python
"""Label posts with a fine-tuned run: a file out for each file in, in the input's order.

    python classify.py                                                 the sample posts, with the newest run
    python classify.py --run runs/mine --input posts.csv --output labels.csv
    python classify.py --run runs/mine --input archive/ more*.csv.gz --output labels/
    head -99 posts.jsonl | python classify.py --input - --output -     in a pipe, the labels on standard output
    python classify.py --text "I came here as a child."                one post, with a bar per label, and no file

The output has id, language, the label and its probability, and a probability per label; if the codebook has a topic,
also the probability that the post is related, summed over the related labels (they share theirs, so it can be above one
half while the single most probable label is "unrelated"). That column is left out if a label is itself called
"related". The input's own columns follow. The output holds no post text unless --with-texts asks for it.

The input is read twice: first to the end, so that what is wrong is reported before hours of work; then in windows,
which are labelled and written one by one, so that millions of posts take no more memory than a thousand. A row that is
wrong by itself gets an empty label and a reason. If labelling was killed, stopped by Ctrl-C, or ended with status 75
after SIGTERM or SIGUSR1, the same command with --resume, and without --overwrite, continues.
"""

import sys
import time
from collections import Counter
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, fields
from itertools import islice
from pathlib import Path
from typing import ClassVar

import numpy as np

from bulk.check import READING, check_date_column, check_inputs, kept_columns
from bulk.dry_run import dry_run
from bulk.fleet import Fleet
from bulk.manifest import is_done, manifest_path, note_whole, read_manifest, settled
from bulk.opened import arithmetic, ready
from bulk.options import BulkOptions
from bulk.page import write_page
from bulk.piped import piped
from bulk.places import Job, check_beside, check_output, jobs
from bulk.remote import on_this_machine
from bulk.rows import output_row
from bulk.stop import Stop
from bulk.watch import Watch
from common.device import MachineOptions
from common.errors import UserError, run_program
from common.files import sha256_file, sha256_json
from common.options import option, parse_options
from common.run_json import check_adapter
from common.terminal import bars, human_seconds, printable
from data.chat import imitation
from data.growing import GrowingFile, forget
from data.notes import Notes
from data.posts import ColumnOptions
from data.prompt import Prompt
from data.readers import iter_posts
from data.sheets import SheetOptions
from data.visible import is_empty
from data.writers import OUTPUT_FORMATS
from finetune.run_folder import RunFolder
from inference.decide import as_labels
from inference.labeller import Labeller
from inference.loaded import LoadedRun
from inference.options import LabelOptions
from inference.repeats import Repeats
from inference.run import finished_run
from report.words import counted, percent
from stats.calibration import LEAST_ROWS, scaled

# What --text does not go with.
FILES = ("input", "output", "overwrite", "resume", "with_texts", "keep_columns",
         *(field.name for field in (*fields(ColumnOptions), *fields(SheetOptions), *fields(BulkOptions))))


@dataclass
class ClassifyOptions(ColumnOptions, SheetOptions, BulkOptions, LabelOptions, MachineOptions):
    """Options of one labelling."""

    FIRST: ClassVar = ("run", "input", "output", "text", "text_column", "resume")

    run: str | None = option(None, "folder of the run (default: the newest in runs/)", metavar="DIR")
    input: list[str] = option(("data/samples/test.jsonl",), "posts: .jsonl, .csv, .tsv (also .gz) or .parquet; several "
                              "files, patterns, folders; - is standard input", metavar="PATH")
    output: str | None = option(None, f"where the labels go: {', '.join(OUTPUT_FORMATS)}, also .gz; of several inputs "
                                "a folder, with a file for each; - is standard output (default: in the run, named "
                                "after the input)", metavar="FILE")
    text: str | None = option(None, "label this one post, in the terminal", metavar="TEXT")
    model: str | None = option(None, "where the base model is, if it has moved since training", metavar="DIR")
    overwrite: bool = option(False, "replace the output file if it exists, or what labelling that was stopped left "
                            "of it; labels in the run's folder are replaced without it if the input is the same")
    resume: bool = option(False, "continue labelling that was stopped; also keep what is done if an error ends it")
    with_texts: bool = option(False, "write the posts' texts beside their labels")
    keep_columns: list[str] = option(("all",), "the input's own columns to write as well: all (but the text), none, or "
                                     "their names", metavar="NAME,NAME")
    calibrated: bool = option(False, "probabilities scaled as the run's validation posts call for")
    abstain: float = option(0.0, "leave the label empty where its probability is below this; the probabilities stay",
                            minimum=0, maximum=1)


def main(argv: list[str]) -> None:
    """Check, label, write; a row without text gets empty fields, so that input and output have the same rows."""
    options = parse_options(ClassifyOptions, argv, program="classify.py", description=__doc__)
    if options.text is not None:
        label_one(options)
        return
    with piped(options):
        run = finished_run(options.run)
        print(f"run {run.path}")
        options.remember(run.facts["options"])
        check_together(options)
        with on_this_machine(options), jobs(options, run.path, sys.stdin.buffer) as (todo, folder):
            label_files(run, todo, folder, options)


def label_files(run: RunFolder, todo: list[Job], folder: Path | None, options: ClassifyOptions) -> None:
    """Check all inputs and outputs, then label one input after the other; `folder` is that of several outputs."""
    noted = folder if folder is not None or options.output else run.path
    manifest = None if noted is None else manifest_path(noted, options.part())
    check_calibration(run, options)
    if not options.dry_run:
        check_beside(options, todo, folder)
    known = {} if manifest is None else read_manifest(manifest)  # what is wrong with it is told before hours of work
    scaling = run.facts["calibration"] if options.calibrated else None
    hashes = run_hashes(run) | {"--calibrated": scaling} if options.resume or not options.dry_run else {}
    done = []
    if folder is not None and options.resume:
        same = hashes | {"dtype": str(options.set_up()[1])} | options.decides()
        done = dict.fromkeys(job for job in todo if is_done(known, job.path, same | input_hashes(job, options)))
        for job in done:
            if not options.dry_run:
                forget(job.path)
            print(f"  {job.path}: is there already")
        todo = [job for job in todo if job not in done]
    for job in todo if not options.dry_run else ():
        check_output(job, options)
    with settled(None if options.dry_run else manifest), Stop() as stop:
        checked = check_inputs([job.source for job in todo], options, stop.check, many=folder is not None)
        todo, found = [job for job, notes in zip(todo, checked, strict=True) if notes], [*filter(None, checked)]
        if checked and not (todo or done):
            raise UserError("--input: none of the files has rows, so there is nothing to label")
        kept = [kept_columns(options, notes, job.source) for notes, job in zip(found, todo, strict=True)]
        check_date_column(options.date_column, kept)
        if todo:
            watch = Watch(sum(with_text(notes, job) for notes, job in zip(found, todo, strict=True)),
                          options.progress_json)
            if options.engine == "ray" and not options.dry_run:
                labeller = Fleet(run, options, watch.show, stop)
                exact = labeller.arithmetic
            else:
                first = (post.text for job in todo for post in iter_posts([job.source], options.columns(), **READING))
                model, prompt = ready(run, options, first)
                if options.dry_run:
                    dry_run(model, prompt, [job.source for job in todo], options)
                    return
                labeller = Labeller(model, prompt, options.micro_tokens, watch.show, Repeats(prefix=prompt.prefix_ids))
                exact = arithmetic(model, options)
                watch.measure(model)
            counts = Counter()
            with closing(labeller) if options.engine == "ray" else nullcontext(), watch:
                for job, notes, own in zip(todo, found, kept, strict=True):
                    rows = job.rows(notes.kept)
                    made_from = hashes | input_hashes(job, options) | {
                        "own columns": own, "rows": [rows.start, rows.stop, notes.kept]} | exact
                    file = growing(job, made_from, labeller.prompt, options, manifest)
                    counts += label(labeller, file, job, notes, own, options, watch, stop, scaling)
            if folder is not None:
                print(f"together {watch.summary()}")
            if folder is None and options.report:
                write_page(options.report, todo[0].path, options.date_column, counts, "LABELS" * options.pipes)
    if folder is not None and not (options.part() or options.dry_run):  # parts that are not joined yet have none
        write_page(options.report or folder / "report.html", folder, options.date_column)


def with_text(notes: Notes, job: Job) -> int:
    """About how many posts of a job have text: exactly, where it is all of its input."""
    count = notes.kept - notes.counts["empty_kept"] - notes.counts["bad_row"]
    return round(count * len(job.rows(notes.kept)) / max(notes.kept, 1))


def growing(job: Job, made_from: dict, prompt: Prompt, options: ClassifyOptions, manifest: Path | None) -> GrowingFile:
    """The file that a job writes; when it is whole, the manifest of its folder says so."""
    reals = ["probability", *(f"p_{label}" for label in prompt.codebook.labels), "p_related"]

    def whole(facts: dict) -> None:
        if manifest is not None:
            note_whole(manifest, job.path.name, facts | {
                "input": job.source.name, "output": job.output.name, "made_from": made_from, "reals": reals,
                "bytes": job.path.stat().st_size})

    return GrowingFile(job.path, made_from, options.resume, options.sheet(), reals, whole)


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
    if found.probability < options.abstain:
        print(f"  no label: {found.probability:.3f} is below --abstain {options.abstain:g}")


def check_together(options: ClassifyOptions) -> None:
    """Refuse options that contradict one another, and those that say nothing without another."""
    if options.overwrite and options.resume:
        raise UserError("--overwrite and --resume: the one starts anew, the other goes on, and a job that is started "
                        "again and again with both would never end; give --overwrite once, then --resume")
    for names, is_there, needs in ((("workers", "address"), options.engine == "ray", "--engine ray"),
                                   (("prices", "api_seconds"), options.dry_run, "--dry-run")):
        for name in options.given.intersection(names if not is_there else ()):
            raise UserError(f"--{name.replace('_', '-')}: says nothing without {needs}; give that as well, or leave it "
                            "out")


def check_calibration(run: RunFolder, options: ClassifyOptions) -> None:
    """Refuse --calibrated for a run that has no calibration."""
    if options.calibrated and not run.facts.get("calibration"):
        raise UserError(f"--calibrated: {run.path} was trained without validation posts, or with fewer than "
                        f"{LEAST_ROWS}, so it has no calibration; train with --validation 0.1")


def label(labeller: Labeller, file: GrowingFile, job: Job, notes: Notes, kept: list[str], options: ClassifyOptions,
          watch: Watch, stop: Stop, scaling: dict | None) -> Counter:
    """Labels for the job's posts that `file` does not have yet, window by window; returns the counts of all of it."""
    rows, prompt, halvings = job.rows(notes.kept), labeller.prompt, labeller.halvings
    imitating = 0  # of those that are labelled now
    try:
        with file:
            before, began = file.counts["rows"], time.perf_counter()
            if before:
                print(f"  {before:,} rows were labelled before; continuing after them")
                watch.before(file.counts)
            posts = iter_posts([job.source], options.columns(), check_ids=False, **READING)
            watch.file = options.called(job.path)
            for window in labeller.label(islice(posts, rows.start + before, rows.stop)):
                given = window.probabilities
                found = as_labels(given if scaling is None else scaled(given, scaling), prompt.codebook)
                lines = [output_row(*pair, prompt.codebook, options, kept)
                         for pair in zip(window.posts, found, strict=True)]
                labels = Counter(line["predicted"] for line in lines if line["predicted"] is not None)
                counts = watch.window(window, labels, sum(bool(post.error) for post in window.posts))
                texts = sum(one.label is not None for one in found)
                file.add(lines, texts=texts, unsure=texts - labels.total(), **counts)
                imitating += prompt.imitating(post.text for post in window.posts)
                if stop.is_asked:
                    break
            if stop.is_asked:  # also where the workers were ended ahead of it
                file.resume = True
                stop.check(f"{file.counts['rows']:,} rows of {job.path} are kept")
            if file.counts["rows"] != len(rows) or notes.have_changed():
                raise UserError(f"{job.source}: has changed while it was being labelled; label it again")
    except KeyboardInterrupt:
        if file.is_kept and not options.pipes:
            again = "" if options.resume else f" with --resume{', without --overwrite,' * options.overwrite}"
            print(f"{file.counts['rows']:,} rows are kept; the same command{again} continues", file=sys.stderr)
        raise
    counts, seconds = file.counts, time.perf_counter() - began
    print(f"  {counts['texts'] - counts['unsure']:,} of {counted(counts['rows'], 'post')} labelled in "
          f"{human_seconds(seconds)}" + (f"; {counts['unsure']:,} were below --abstain and got none (coverage "
             f"{percent(1 - counts['unsure'] / counts['texts'])})" if counts["unsure"] else "")
          + (f"; {counts['cut']:,} were too long and cut" if counts["cut"] else "")
          + (f"; {counted(counts['wrong'], 'row')} could not be read and got none" if counts["wrong"] else "")
          + (f"; repeats of earlier ones, computed once: {counts['repeats']:,}" if counts["repeats"] else ""))
    if imitating:
        print(f"  {imitation(imitating, prompt.imitated)}")
    if labeller.halvings > halvings or (labeller.remark() and not labeller.halvings):
        print(f"  {labeller.remark()}")
    print(f"labels: {options.called(job.path)}")
    return counts


def run_hashes(run: RunFolder) -> dict:
    """What of a run decides the labels: its weights, its prompt, its adapter."""
    adapter = {path.name: sha256_file(path) for path in sorted(check_adapter(run.path).iterdir())}
    return {"run": sha256_json([run.facts["hashes"], run.facts["prompt"], adapter])}


def input_hashes(job: Job, options: ClassifyOptions) -> dict:
    """What of an input and of the options decides the rows of an output; known before any row is read."""
    return {"input": sha256_file(job.source), "columns": asdict(options.columns()), "--shard": options.shard,
            "--with-texts": options.with_texts, "--keep-columns": list(options.keep_columns),
            "--safe-cells": options.safe_cells, "--abstain": options.abstain or None, "--bom": options.bom or None,
            "--semicolons": options.semicolons or None}


if __name__ == "__main__":
    run_program(main)
