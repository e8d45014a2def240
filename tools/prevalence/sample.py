"""The coded sample among the machine's labels: read, how it was drawn, and whether the run was trained on it."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy

from common.errors import UserError
from common.files import find_path
from common.terminal import progress
from data.checks import TrainingTexts
from data.codebook import Codebook
from data.posts import Columns, Post
from data.readers import by_id, read_posts
from finetune.run_folder import RunFolder
from report.words import counted
from stats.prevalence import Coded, equal_probabilities, strata_of
from tools.prevalence.read import Codes, Labels, chances, read_codes, read_labels, with_texts

SHOWN = 5  # labels of another question that are named


def read_all(options, by: list[str], keep: Mapping[str, str] | None = None
             ) -> tuple[RunFolder | None, Codes, Labels, dict | None]:
    """The run, the codes, the machine's labels and the joined posts that the options name; `by`, `keep`: see
    `read_labels`.
    """
    run = RunFolder.open(find_path(options.run)) if options.run else None
    codebook = Codebook.from_dict(run.facts["codebook"]) if run else None
    columns, posts = options.columns(), None
    codes = read_codes(find_path(options.coded), columns, codebook, options.bad_labels)
    if options.posts:
        posts = joined_posts(find_path(options.posts), options.columns_of(run and run.facts["options"]))
    with progress(None, "post", "reading") as bar:
        labels = read_labels(find_path(options.labels), columns, codes, by, codebook, posts, bar.update, keep,
                             training_of(run))
    return run, codes, labels, posts


def agreement_of(codes: Codes) -> list[str]:
    """How far the coders agree, where there are several."""
    several = codes.agreement is not None and len(codes.agreement.annotators) > 1
    return codes.agreement.lines() if several else []


def counts(labels: Labels, codes: Codes) -> list[str]:
    """How many posts there are, how many of them without a label, and how many rows that are no posts."""
    lines = [f"  {len(labels.predicted):,} posts, {len(codes.posts):,} of them coded"]
    given = {labels.labels[index] for index in numpy.unique(labels.predicted) if index < len(labels.labels)}
    never = Counter(post.label for post in codes.posts if post.label not in given)
    if never:
        told = ", ".join(f"'{label}' ({count:,})" for label, count in never.most_common(SHOWN))
        lines.append(f"  people gave labels that the machine gave to no post: {told}; if these are of another "
                     "question, another spelling, or of a codebook that only some coders had, the shares below mean "
                     "nothing")
    if labels.probabilities is None:
        lines.append("  no probability of each label that the machine gave, so DSL has the labels alone")
    if labels.unlabelled:
        lines.append(f"  {counted(labels.unlabelled, 'post')} without a label by the machine (classify.py --abstain): "
                     "shares are of all posts, and the naive ones count these for no label")
    if labels.trained:
        lines.append(f"  {counted(labels.trained, 'post')} of the run's training or validation left out: shares are of "
                     "the others")
    if labels.unread:
        lines.append(f"  {counted(labels.unread, 'row')} that could not be read, or had no text, left out")
    return lines


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
        words = "taken for drawn with equal chances and coded whole, since there is no column inclusion_probability"
    else:
        probability, names = found
        stratum = numpy.unique(names, return_inverse=True)[1] if names else strata_of(probability, posts)
        least, most = (f"{bound:.3g}" for bound in (probability.min(), probability.max()))
        chance = f"with chances from {least} to {most}" if least != most else f"with a chance of {least} each"
        words = f"drawn {chance}, " + (
            "independently" if stratum is None else f"in {stratum.max() + 1} strata" if stratum.max() else "together")
    return Coded(post, label, probability, stratum), words


def training_of(run: RunFolder | None) -> TrainingTexts | None:
    """The texts of a run's training and validation, as hashes."""
    return None if run is None else TrainingTexts.from_file(run.path / "training_texts.json")


def checked(run: RunFolder | None, codes: Codes, labels: Labels, posts: dict | None) -> list[str]:
    """Refuse codes of posts that the run was trained on; says where that cannot be known."""
    texts = with_texts(codes, labels, posts)
    if run is None or not texts:
        lacking = " and ".join(filter(None, ["--run" if run is None else "", "" if texts else "--posts, or a text in "
                                             "the coded rows"]))  # fmt: skip
        return [f"  not checked against training: that needs {lacking}"]
    training = training_of(run)
    known = [post for post in texts if training.hold(post.text)]
    if known:
        raise UserError(f"{known[0].place}: id '{known[0].id[:40]}' was in the training or validation of {run.path} "
                        f"({len(known):,} such coded rows); take the run's posts out of both files and draw the sample "
                        "from the others (python -m tools.sample --run does so)")
    return [f"  {len(texts):,} of {len(codes.posts):,} coded rows checked: none was in the run's training or validation"
            + ("" if len(texts) == len(codes.posts) else "; the others have no text and are not checked")]
