"""True shares from machine labels: how many posts have a label, once the machine's errors are taken out.

    python -m tools.prevalence --labels labels.csv --coded coded.csv
    python -m tools.prevalence --labels labels.csv --coded coded.csv --by month,language
    python -m tools.prevalence --labels labels.csv --coded coded.csv --run runs/mine --posts posts.csv

--labels: all posts with the machine's labels (id, predicted, probabilities where there are any), as classify.py writes
them, in a file or a folder. --coded: a random sample of them with people's labels (id, label), as tools.sample draws it
and tools.code records it; with a column inclusion_probability where not all posts had the same chance of being drawn.

For each label four shares: naive (count the machine's labels), from the codes alone, and corrected in two ways, PPI++
and DSL (stats/prevalence.py has the formulas), each with its 95 % interval. What is estimated is the share among these
very posts, unless --beyond asks for the process behind them. Codes of posts that the machine was trained on would make
it look better than it is, so with --run they are refused: it knows its training texts by hash.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy

from common.errors import UserError, run_program
from common.files import check_place, find_path, write_json
from common.options import option, parse_options
from common.terminal import progress
from data.checks import TrainingTexts
from data.codebook import Codebook
from data.posts import ColumnOptions, Columns, Post
from data.readers import by_id, read_posts
from finetune.run_folder import RunFolder
from stats.prevalence import Coded, Machine, Share, equal_probabilities, prevalence, strata_of
from tools.prevalence.read import Codes, Labels, chances, read_codes, read_labels, with_texts
from tools.prevalence.words import caution, table_of, verdicts


@dataclass
class PrevalenceOptions(ColumnOptions):
    """Options of one estimation."""

    FIRST: ClassVar = ("labels", "coded", "by", "run", "posts", "json")

    labels: str | None = option(None, "all posts with the machine's labels: .jsonl, .csv or .tsv, also .gz, or a "
                                "folder of such files", metavar="FILE")
    coded: str | None = option(None, "a random sample of them with people's labels", metavar="FILE")
    by: list[str] = option((), "columns whose values, taken together, make the groups; month also comes from a date",
                           metavar="month,language")
    run: str | None = option(None, "the run that labelled the posts: its codebook, and codes of its training posts are "
                             "refused", metavar="DIR")
    posts: str | None = option(None, "the posts, joined by id: texts, and columns for --by", metavar="FILE")
    json: str | None = option(None, "write the table there as well", metavar="FILE")
    beyond: bool = option(False, "intervals for the process that made the posts, of which these are a draw, not for "
                          "these posts alone")
    seed: int = option(0, "seed for the folds of cross-fitting", minimum=0)


def main(argv: list[str]) -> None:
    """Read, check, estimate, print, and write the JSON file."""
    options = parse_options(PrevalenceOptions, argv, program="python -m tools.prevalence", description=__doc__)
    for name in ("labels", "coded"):
        if getattr(options, name) is None:
            raise UserError(f"--{name}: is missing; name a file (--help tells what is in it)")
    if options.json:
        check_place(options.json, "--json")
    run = RunFolder.open(find_path(options.run)) if options.run else None
    codebook = Codebook.from_dict(run.facts["codebook"]) if run else None
    columns, posts = options.columns(), None
    codes = read_codes(find_path(options.coded), columns, codebook, options.bad_labels)
    if options.posts:
        posts = joined_posts(find_path(options.posts), options.columns_of(run and run.facts["options"]))
    with progress(None, "post", "reading") as bar:
        labels = read_labels(find_path(options.labels), columns, codes, list(options.by), codebook, posts, bar.update)
    several = codes.agreement is not None and len(codes.agreement.annotators) > 1
    print("\n".join([*codes.notes.lines(), *(codes.agreement.lines() if several else [])]))
    coded, design = sample_of(codes, labels)
    count = f"  {len(labels.predicted):,} posts with a label by the machine, {len(codes.posts):,} of them coded"
    print("\n".join([count,
                     *([f"  {labels.unlabelled:,} more without a label were left out"] if labels.unlabelled else []),
                     f"  {design}", *caution(labels, coded, codes), *checked(run, codes, labels, posts), ""]))
    machine = Machine(len(labels.labels), labels.predicted, labels.group, len(labels.groups), labels.probabilities)
    found = prevalence(machine, coded, seed=options.seed, beyond=options.beyond)
    print("\n".join([table_of(found, labels, list(options.by)), "", *verdicts(found, labels, options.beyond)]))
    if options.json:
        write_json(options.json, [as_dict(share, labels) for share in found])
        print(f"table: {options.json}")


def joined_posts(path: Path, columns: Columns) -> dict[tuple[str, str], Post]:
    """The posts of --posts by id and language, and also by id alone where no other language has it."""
    found, _ = read_posts([path], columns, require_labels=False)
    table = by_id(found)
    alone: dict[str, list[Post]] = {}
    for post in found:
        alone.setdefault(post.id, []).append(post)
    for name, several in alone.items():
        if len(several) == 1:
            table |= {(name, ""): several[0], (name, "und"): several[0]}
    return table


def sample_of(codes: Codes, labels: Labels) -> tuple[Coded, str]:
    """The coded rows for stats.prevalence, and how they were drawn, in words."""
    n, posts = len(codes.posts), len(labels.predicted)
    post = numpy.array([labels.place[row] for row in range(n)], dtype=numpy.int64)
    label = numpy.array([labels.labels.index(one.label) for one in codes.posts], dtype=numpy.int64)
    found = chances(codes)
    if found is None:
        probability, stratum = equal_probabilities(n, posts)
        words = "drawn with equal chances, since there is no column inclusion_probability"
    else:
        probability, names = found
        stratum = numpy.unique(names, return_inverse=True)[1] if names else strata_of(probability, posts)
        words = f"drawn with chances from {probability.min():.3g} to {probability.max():.3g}, " + (
            "independently" if stratum is None else f"in {stratum.max() + 1} strata" if stratum.max() else "together")
    return Coded(post, label, probability, stratum), words


def checked(run: RunFolder | None, codes: Codes, labels: Labels, posts: dict | None) -> list[str]:
    """Refuse codes of posts that the run was trained on; says where that cannot be known."""
    texts = with_texts(codes, labels, posts)
    if run is None or not texts:
        lacking = " and ".join(filter(None, ["--run" if run is None else "", "" if texts else "--posts, or a text in "
                                             "the coded rows"]))  # fmt: skip
        return [f"  not checked against training: that needs {lacking}"]
    training = TrainingTexts.from_file(run.path / "training_texts.json")
    known = [post for post in texts if training.hold(post.text)]
    if known:
        raise UserError(f"{known[0].place}: id '{known[0].id[:40]}' was in the training or validation of {run.path} "
                        f"({len(known):,} such coded rows); take the run's posts out of both files and draw the sample "
                        "from the others (python -m tools.sample --run does so)")
    return [f"  {len(texts):,} of {len(codes.posts):,} coded rows checked: none was in the run's training or validation"
            + ("" if len(texts) == len(codes.posts) else "; the others have no text and are not checked")]


def as_dict(share: Share, labels: Labels) -> dict:
    """A row of the JSON file."""
    row = {"group": labels.groups[share.group], "label": labels.labels[share.label], "n": share.n,
           "n_coded": share.n_coded, "naive": share.naive}
    return row | {name: {"estimate": one.estimate, "low": one.low, "high": one.high}
                  for name, one in (("coded", share.coded), ("ppi", share.ppi), ("dsl", share.dsl))}


if __name__ == "__main__":
    run_program(main)
