#!/usr/bin/env python
"""Score a fine-tuned run on labelled posts, language by language; or score labels that were predicted elsewhere.

    python eval.py                                                     the newest run on the sample test posts
    python eval.py --run runs/mine --data test.csv --out runs/mine/test
    python eval.py --predictions labels.jsonl --data test.jsonl        labels made elsewhere, joined by id
    python eval.py --run runs/mine --baseline encoder                  beside an encoder's regression, not one on words
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

from baselines.beside import FILE, Answers, BaselineOptions, beside, label_with
from common.device import MachineOptions
from common.errors import UserError, one_line, run_program
from common.files import atomic_folder, check_place, find_path, sha256_file, write_json
from common.options import option, parse_options
from common.run_json import RUN_JSON
from common.terminal import progress
from data.annotators import Agreement, read_labelled
from data.chat import imitation
from data.checks import TestCheck, TrainingTexts, check_test, near_pairs, refuse_unlearnt
from data.codebook import Codebook, load_codebook
from data.groups import GroupOptions
from data.languages import language_name, reduce_language
from data.outside import read_outside
from data.posts import DATA, ColumnOptions, Post
from data.rows import stem
from data.writers import write_rows
from finetune.recorded import is_demonstration, posts_if_there
from finetune.run_folder import RunFolder
from inference.decide import decide
from inference.evaluation import check_out, check_same_data
from inference.labeller import Labeller
from inference.options import LabelOptions
from inference.run import finished_run, open_model
from report.beside import beside_table
from report.demonstration import explanation
from report.errors import surest_errors
from report.metrics import Scored, brief, check_by, dropped_section, score
from report.page import write_page
from report.tables import group_tables, label_table, language_table
from report.words import filled, findings
from stats.calibration import scaled_figures

SCORING = "scoring"


@dataclass
class EvalOptions(BaselineOptions, GroupOptions, ColumnOptions, LabelOptions, MachineOptions):
    """Options of one evaluation."""

    FIRST: ClassVar = ("run", "data", "out", "by", "errors", "predictions")

    run: str | None = option(None, "folder of the run (default: the newest in runs/)", metavar="DIR")
    data: list[str] = option(("data/samples/test.jsonl",), "labelled posts that were not used in training",
                             metavar="FILE")
    out: str | None = option(None, "folder for metrics.json, predictions.jsonl and report.html (default: in the run)",
                             metavar="DIR")
    model: str | None = option(None, "where the base model is, if it has moved since training", metavar="DIR")
    predictions: str | None = option(None, "score the labels in this file instead of a run's", metavar="FILE")
    codebook: str | None = option(None, "with --predictions: the codebook of its labels (default: the paper's)",
                                  metavar="FILE")
    seen_languages: list[str] = option((), "with --predictions: languages seen in training", metavar="en,es")

    drop_known: str = option("same", "leave out posts whose text was in training: the same after normalising case, "
                             "space, handles and links; exactly the same; or leave out none",
                             choices=("same", "exact", "none"), group=DATA)
    by: list[str] = option((), "also score each value of these columns", metavar="COLUMN", group=SCORING)
    draws: int = option(2000, "bootstrap draws behind the intervals", minimum=0, maximum=10**6, group=SCORING)
    seed: int = option(0, "seed of the bootstrap", minimum=0, group=SCORING)
    errors: bool = option(False, "print the texts that the model got wrong most surely, by human and predicted label",
                          group=SCORING)
    with_texts: bool = option(False, "write the posts' texts into report.html and predictions.jsonl", group=SCORING)


@dataclass
class Predictions:
    """Posts with their gold and predicted labels, and what is known about where they come from."""

    posts: list[Post]
    groups: list[int]  # equal for posts that the bootstrap draws together
    predicted: list[str | None]
    probabilities: np.ndarray | None
    codebook: Codebook
    seen: tuple[str, ...] | None
    left_out: frozenset[int] = frozenset()  # indices of posts that the run was trained on
    near: frozenset[int] = frozenset()  # of those that nearly repeat one of them, where these are at hand
    cut: int = 0
    price: dict = field(default_factory=dict)  # of a quicker way, by its option


def main(argv: list[str]) -> None:
    """Predict (or read) labels, score them, and write the folder; the run remembers that this file was scored."""
    options = parse_options(EvalOptions, argv, program="eval.py", description=__doc__)
    check_together(options)
    run = None if options.predictions else finished_run(options.run)
    if run is not None:
        check_place(run.path / RUN_JSON, "--run")  # it will be written down there that this file was scored
    name = stem(Path(options.predictions or options.data[0]))
    out = Path(options.out or (run.path / f"eval-{name}" if run else f"runs/scored-{name}"))
    check_out(out, explicit=options.out is not None)
    if run is not None and options.out is None:
        check_same_data(run, out, options.data[0], is_given="data" in options.given)
    learnt = unread = None
    if run is None:
        predictions, agreement = read_labels(options)
        check, facts = check_test([], predictions.posts), {"predictions": options.predictions}
        print("\n".join(check.repeats.lines()))
    else:
        learnt, unread = posts_if_there(run)
        if unread and options.asks_for_baseline():  # refused before the model labels
            raise unread
        predictions, agreement, check = label_posts(options, run, learnt)
        facts = run.facts
    metrics = figures(options, predictions, check, facts.get("calibration"))
    if run is None:  # nothing is known about the training behind these labels
        metrics["checks"] = {"repeats": check.repeats.to_dict()}
    metrics |= predictions.price
    answers = baseline_of(options, learnt, unread, predictions) if run and options.wants_baseline() else None
    if answers is not None:
        metrics["baseline"] = beside(answers, predictions, check.dropped, options.draws, options.seed)
    if agreement is not None:
        metrics["annotators"] = agreement.to_dict()
    files = {str(name): sha256_file(find_path(name)) for name in options.data} if run is not None else {}
    metrics |= {"files": files} if files else {}
    times = 1 + max((run.times_scored(digest) for digest in files.values()), default=0)
    caution = (f"this file was scored {times} times with this run; a score that guided a choice is too optimistic"
               if times > 1 else "")
    names = {code: language_name(code) for code in metrics["by_language"]}
    people = agreement and agreement.pairwise()
    told = explanation(metrics) if "data" not in options.given and run and is_demonstration(run) else []
    shown = {"caution": caution, "names": names, "agreement": people, "below_table": told}
    write(options, out, predictions, metrics, facts, shown, run, answers)
    for name, digest in files.items():  # only now: what failed on the way to its report was never seen
        run.note_scored({"data": name, "data_sha256": digest, "n": metrics["n"], "accuracy": metrics["accuracy"],
                         "macro_f1": metrics["macro_f1"], "interval": metrics["accuracy_ci"]})
    lines = [line for found in findings(metrics, caution=caution, names=names) for line in [*filled(found), ""]]
    below = [line for found in told for line in [*filled(found), ""]]
    print("\n".join(["", *lines, language_table(metrics, names=names, agreement=people), "", *below,
                     label_table(metrics), *([group_tables(metrics)] if metrics["by"] else []),
                     *(["", beside_table(metrics["baseline"])] if answers is not None else [])]))
    if options.errors:
        print("\n" + errors_of(predictions))
    print(f"\nreport: {out / 'report.html'}")


def errors_of(predictions: Predictions) -> str:
    """The surest errors as lines; of outside predictions, which have no probabilities, the first ones."""
    labels, posts = predictions.codebook.labels, predictions.posts
    sure = [0.0] * len(posts) if predictions.probabilities is None else [
        float(row[labels.index(label)]) for row, label in
        zip(predictions.probabilities, predictions.predicted, strict=True)]
    return surest_errors([post.label for post in posts], [label or "nothing" for label in predictions.predicted], sure,
                         [post.text for post in posts], [f"{post.place} (id {post.id})" for post in posts])


def check_together(options: EvalOptions) -> None:
    """Options that make no sense together."""
    if options.predictions and options.run:
        raise UserError("--predictions and --run: score one or the other")
    options.check_baseline(has_run=not options.predictions)
    for name in ("codebook", "seen_languages"):
        if name in options.given and not options.predictions:
            raise UserError(f"--{name.replace('_', '-')}: goes with --predictions; a run has its own")


def label_posts(options: EvalOptions, run: RunFolder, learnt: list[Post] | None
                ) -> tuple[Predictions, Agreement | None, TestCheck]:
    """Check the posts against what the run was trained on, then let its model label them; learnt: its posts."""
    codebook = Codebook.from_dict(run.facts["codebook"])
    options.remember(run.facts["options"])
    files = [find_path(name) for name in options.data]
    with options.or_samples():
        posts, notes, agreement = read_labelled(files, options.columns(), codebook, bad_labels=options.bad_labels)
    groups = grouped(options, posts)
    print("\n".join([one_line(f"run {run.path}: fine-tuned on {', '.join(run.facts['languages'])}"), *notes.lines(),
                     *(agreement.lines() if agreement else [])]))
    check = check_test(TrainingTexts.from_file(run.path / "training_texts.json"), posts, options.drop_known)
    if not run.facts["options"]["allow_missing_labels"]:
        refuse_unlearnt(check)
    print("\n".join(check.lines()))
    device, dtype, reason = options.set_up()
    print(f"  {dtype}, since {reason}")
    options.check_quicker(device, dtype)
    model, prompt = open_model(run, model=options.model, device=device, dtype=dtype, cache=options.cache,
                               machine=options)
    options.make_ready(model)
    price = options.make_quicker(model, prompt, (post.text for post in posts), options.micro_tokens)
    with progress(len(posts), "post", "labelling") as bar:
        labeller = Labeller(model, prompt, options.micro_tokens, bar.update)
        windows = list(labeller.label(posts))
    probabilities = np.concatenate([window.probabilities for window in windows])
    cut = sum(window.cut for window in windows)
    if cut:
        print(f"  posts cut, since with their prompt they were longer than {prompt.max_tokens} tokens: {cut:,}")
    if imitating := prompt.imitating(post.text for post in posts):
        print(f"  {imitation(imitating, prompt.imitated)}")
    if labeller.halvings:
        print(f"  {labeller.remark()}")
    predicted = [codebook.labels[index] for index in decide(probabilities)]
    gone = {id(post) for post in check.dropped}
    left_out = frozenset(index for index, post in enumerate(posts) if id(post) in gone)
    near = frozenset(index for _, index, _ in near_pairs(learnt or [], posts)) - left_out
    found = Predictions(posts, groups, predicted, probabilities, codebook, tuple(run.facts["languages"]), left_out,
                        near, cut, price)
    return found, agreement, check


def read_labels(options: EvalOptions) -> tuple[Predictions, Agreement | None]:
    """Labels from a file; gold labels from the same file, or from --data by id if that is given."""
    codebook = load_codebook(options.codebook)
    names = options.data if "data" in options.given else []
    posts, predicted, agreement = read_outside(find_path(options.predictions), [find_path(name) for name in names],
                                               names, options.columns(), codebook, options.bad_labels)
    seen = tuple(reduce_language(tag)[0] for tag in options.seen_languages) or None
    return Predictions(posts, grouped(options, posts), predicted, None, codebook, seen), agreement


def baseline_of(options: EvalOptions, learnt: list[Post] | None, unread: UserError | None, predictions: Predictions
                ) -> Answers | None:
    """A baseline's answers to the same posts; where nobody asked for them and they cannot be had, the reason.

    learnt, unread: the posts that the run was trained on, or why they cannot be read.
    """
    try:
        if unread:
            raise unread
        return label_with(options, learnt, predictions.posts, predictions.codebook)
    except UserError as error:
        if options.asks_for_baseline():
            raise
        print(f"  no baseline stands beside it: {error}")
        return None


def grouped(options: EvalOptions, posts: list[Post]) -> list[int]:
    """Numbers of the groups that the bootstrap draws; a missing column is reported before any labelling."""
    check_by(options.by, [post.extra for post in posts])
    return options.groups_of(posts, find_path(options.data[0]))


def figures(options: EvalOptions, predictions: Predictions, check: TestCheck, scaling: dict | None) -> dict:
    """metrics.json: the figures of the posts kept, if posts were dropped also those of all posts, and of the scaled
    probabilities if the run has a scaling."""
    def scored(indices: list[int]) -> Scored:
        posts = [predictions.posts[index] for index in indices]
        columns = {name: [post.extra.get(name, "") for post in posts] for name in options.by}
        return Scored(
            [post.id for post in posts], [post.label for post in posts], [predictions.predicted[p] for p in indices],
            [post.language for post in posts], predictions.codebook.labels,
            None if predictions.probabilities is None else predictions.probabilities[indices],
            predictions.codebook.related, [predictions.groups[index] for index in indices], columns,
            predictions.codebook.stance or None, options.group_by, options.texts_first)

    dropped, every = None, list(range(len(predictions.posts)))
    kept = [index for index in every if index not in predictions.left_out]
    if check.dropped:
        all_rows = score(scored(every), predictions.seen, draws=options.draws, seed=options.seed)
        dropped = dropped_section({"text_was_trained_on": len(check.dropped)}, all_rows)
    metrics = score(scored(kept), predictions.seen, options.by, draws=options.draws, seed=options.seed, dropped=dropped)
    if scaling and kept:
        metrics["scaled"] = scaled_figures(scored(kept), scaling, options.draws, options.seed)
    if predictions.near:
        rest = score(scored([i for i in kept if i not in predictions.near]), draws=options.draws, seed=options.seed)
        metrics["near"] = {"rows": len(predictions.near), "rest": brief(rest)}
    return metrics | {"checks": check.to_dict(), "cut": predictions.cut}


def write(options, out: Path, predictions: Predictions, metrics: dict, facts: dict, shown: dict, run, answers) -> None:
    """metrics.json, predictions.jsonl, the baseline's and report.html, all or none."""
    labels = predictions.codebook.labels
    lines, numbers = [], {group: number for number, group in enumerate(dict.fromkeys(predictions.groups), 1)}
    for index, post in enumerate(predictions.posts):
        line = {"id": post.id, "language": post.language, "group": numbers[predictions.groups[index]],
                "left_out": index in predictions.left_out, "label": post.label,
                "predicted": predictions.predicted[index]}
        if predictions.probabilities is not None:
            line["probabilities"] = {label: round(float(p), 6) for label, p in
                                     zip(labels, predictions.probabilities[index], strict=True)}
        lines.append(line | ({"text": post.text} if options.with_texts else {}))
    told = {key: facts[key] for key in facts if key not in ("codebook", "scored")}
    told |= {f"price of {options.quicker.what}": figures for figures in predictions.price.values()}
    title = (f"{run.path.name} on {stem(Path(options.data[0]))}" if run
             else f"Labels of {stem(Path(options.predictions))}")
    with atomic_folder(out) as folder:
        write_json(folder / "metrics.json", metrics)
        write_rows(folder / "predictions.jsonl", lines)
        if answers is not None:
            write_rows(folder / FILE, answers.lines(predictions.posts, labels))
        write_page(folder / "report.html", metrics, told, steps=run.read_log() if run else (), title=title,
                   agreement_name="pairwise agreement of annotators", posts=lines if options.with_texts else None,
                   **shown)


if __name__ == "__main__":
    run_program(main)
