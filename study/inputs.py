"""What a study reads before anything runs: posts, codebook, pre-training shares, and the table that all answers share.

The table of test rows is made once, so that every model answers the same posts and all comparisons are paired. It holds
the test files' posts and, for cross-validated languages, the training files' posts as well: each is answered by the
models of the fold that held it out. A post is *known* if some model may be trained on its text (case, spaces, handles
and links aside) or, with `group_by`, on a post of the same value (an author): it is answered but left out of the
figures, and the report also shows the figures that include it. Who merely shares a text with an author of training
posts is not known: of a corpus of posts that were passed on, chains of such authors would leave nothing to test.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from common.errors import UserError
from common.files import find_path, sha256_json
from common.terminal import command
from data.annotators import read_labelled
from data.checks import normalise
from data.codebook import Codebook, load_codebook
from data.exposure import Shares, load_shares
from data.groups import check_column, connected, counted_together, value_of
from data.posts import Post
from data.rows import open_table
from data.splits import hash_order
from data.visible import is_empty
from report.counts import Grouping
from stats.alpha import alpha
from stats.predictions import Rows
from stats.published import COLUMNS
from study.plan import Plan
from study.plan_names import day_of

PUBLISHED = (*COLUMNS.values(), "correct")  # columns of published rows
FEW = 100  # with folds, languages that have fewer test rows are cross-validated

Key = tuple[str, str]  # (language, id): what identifies a post


@dataclass(eq=False)
class Material:
    """Posts as read, and the table of test rows."""

    codebook: Codebook
    train: list[Post]
    rows: list[Post]  # the table's posts
    is_test: np.ndarray  # (n,) bool: from the test files
    is_known: np.ndarray  # (n,) bool: some model may be trained on the text
    folded: tuple[str, ...]
    shares: Shares
    notes: list[str] = field(default_factory=list)
    votes: dict[Key, dict[str, str]] = field(default_factory=dict)  # test post -> annotator -> label, where there are
    vote_groups: dict[Key, int] = field(default_factory=dict)  # equal for those of them that count together
    same_text: int = 0  # how many of the known rows have the text of a training post
    group_by: str | None = None  # the column whose posts stay together, beside copies of a text

    def why_known(self, unit: str = "row") -> str:
        """`"13 with the text of a training row and 31 that belong to one's group by “author”"`."""
        other = int(self.is_known.sum()) - self.same_text
        return f"{self.same_text:,} with the text of a training {unit}" + (
            f" and {other:,} of a group by “{self.group_by}” that has training {unit}s" if other else "")

    @property
    def together(self) -> str:
        """What stays together in every resampling, in words; see `data.groups.counted_together`."""
        kept = [post for post, known in zip(self.rows, self.is_known, strict=True) if not known]
        other = "the other posts" if self.counted_together(kept)[1] else "posts"
        return "copies of a text" + (f" and {other} of one “{self.group_by}”" if self.group_by else "")

    @property
    def in_one_fold(self) -> str:
        """What a cross-validation keeps together, in words."""
        return "copies of a text in the same fold" if not self.group_by else (
            f"posts of one “{self.group_by}” in the same fold, from whose training copies of its texts were left out")

    def counted_together(self, posts: list[Post]) -> tuple[list[int], int]:
        """`data.groups.counted_together` of some of the posts, by the plan's column if they have it."""
        return counted_together(posts, self.group_by if any(self.group_by in post.extra for post in posts) else None)

    def agreement(self, languages: Sequence[str] | None = None, draws: int = 1000, seed: int = 0) -> dict:
        """`stats.alpha.alpha` of the annotators of the test posts in some languages (None: all)."""
        keys = [key for key in self.votes if languages is None or key[0] in languages]
        return alpha([list(self.votes[key].values()) for key in keys], draws, seed,
                     clusters=[self.vote_groups.get(key, -1 - n) for n, key in enumerate(keys)])

    @cached_property
    def by_language(self) -> dict[str, list[Post]]:
        """The training posts of each language."""
        found: dict[str, list[Post]] = {}
        for post in self.train:
            found.setdefault(post.language, []).append(post)
        return dict(sorted(found.items()))

    def table(self, chosen: np.ndarray) -> Rows:
        """The chosen rows as the arrays from which figures are computed."""
        posts = [post for post, wanted in zip(self.rows, chosen, strict=True) if wanted]
        book = self.codebook
        return Rows.of(posts, self.counted_together(posts)[0],
                       Grouping(book.labels, book.related, book.stance or None))

    def fold_of(self, round: int, folds: int) -> dict[int, int]:
        """id(post) -> fold 1 to `folds`, for every post of a folded language; posts of one value of `group_by`, else
        copies of a text, stay together. What has the text of a fold's post is no training post there
        (`study.fits.Choice`).

        Groups are dealt out in the order of a hash, cell by cell (language and label of their first post), so that the
        folds of a cell differ by at most one group.
        """
        first: dict[int, Post] = {}
        for post in sorted(self._foldable, key=lambda post: hash_order(post, round)):
            first.setdefault(self._group[id(post)], post)
        ordered = sorted(first, key=lambda group: (first[group].language, first[group].label,
                                                   hash_order(first[group], round)))
        index = {group: number % folds + 1 for number, group in enumerate(ordered)}
        return {id(post): index[self._group[id(post)]] for post in self._foldable}

    def texts_of(self, held: dict[int, int], fold: int) -> set[str]:
        """The normalised texts of a fold's posts; held: as `fold_of` gives it."""
        return {normalise(post.text) for post in self._foldable if held[id(post)] == fold} - {""}

    @cached_property
    def _group(self) -> dict[int, int]:
        """id(post) -> its group, of the posts of folded languages."""
        posts = self._foldable
        values = [value_of(post, self.group_by) if self.group_by else "" for post in posts]
        texts = ["" if value else normalise(post.text) for post, value in zip(posts, values, strict=True)]
        return dict(zip(map(id, posts), connected(len(posts), values, texts), strict=True))

    @cached_property
    def _foldable(self) -> list[Post]:
        own = {id(post): post for post in [*self.train, *self.rows] if post.language in self.folded}
        return list(own.values())


def read_material(plan: Plan) -> Material:
    """Read all that `plan` names. Raises `UserError`, naming the plan's table and key, if the posts do not fit it."""
    try:
        return _read(plan)
    except UserError as error:
        where, said = f"{plan.path}: [data]", str(error)
        keys = {f"--{name.replace('_', '-')}": name for name in vars(plan.data)}  # as the other programs call them
        said = re.sub(r"(?<![\w-])--[a-z-]*[a-z]\b",
                      lambda found: f"[data] {keys[found[0]]}" if found[0] in keys else found[0], said)
        raise UserError(said if said.startswith(str(plan.path)) else f"{where}: {said}") from error


def _read(plan: Plan) -> Material:
    data, where = plan.data, f"{plan.path}: [data]"
    book = load_codebook(data.codebook)
    files = {name: [find_path(file) for file in getattr(data, name)] for name in ("train", "test")}
    twice = [file for file in files["test"] if file.resolve() in {other.resolve() for other in files["train"]}]
    if twice:
        raise UserError(f"{where}: test: {twice[0]} is also a file of 'train'; a model is not tested on what it learnt")
    train, notes, train_agreement = read_labelled(files["train"], data.columns(), book, bad_labels=data.bad_labels)
    test, test_notes, agreement = read_labelled(files["test"], data.columns(), book, bad_labels=data.bad_labels)
    keys = Counter((post.language, post.id) for post in [*train, *test])
    if len(keys) < len(train) + len(test):
        language, name = next(key for key, count in keys.items() if count > 1)
        raise UserError(f"{where}: the id '{name}' ({language}) is in both the training and the test files; give each "
                        "post an id of its own")
    if data.translation and not any(post.extra.get(data.translation) for post in test):
        raise UserError(f"{where}: translation: no test post has a column '{data.translation}'")
    if data.date:
        check_days([*train, *test], data.date, where)
    if data.group_by:
        check_column([*train, *test], data.group_by, "--group-by")
    folded = choose_folded(plan, test)
    rows = [*test, *(post for post in train if post.language in folded)]
    trained = [post for post in train if post.language not in folded]
    texts = {normalise(post.text) for post in trained} - {""}
    values = {value_of(post, data.group_by) for post in trained} - {""} if data.group_by else set()
    is_copy = np.array([normalise(post.text) in texts for post in rows])
    known = is_copy | np.array([bool(values) and value_of(post, data.group_by) in values for post in rows])
    if known.all():
        raise UserError(f"{where}: every test post's text is among the training posts; name a test file of other posts"
                        if not data.group_by else f"{where}: every test post has the text of a training post, or "
                        f"belongs to a group by '{data.group_by}' that has training posts; name a test file of others")
    if data.published:
        read_published(find_path(data.published))
    shares = load_shares(data.shares)
    is_test = np.array([index < len(test) for index in range(len(rows))])
    said = [line for found in (notes, train_agreement, test_notes, agreement) if found for line in found.lines()]
    if 2 * known.sum() > len(rows):
        apart = ("--group-by", data.group_by, "--repeats-apart") if data.group_by else ()
        said.append(f"  {known.sum():,} of {len(rows):,} test rows are known from training and count in no figure; "
                    f"{command('-m', 'tools.split', *apart)} makes files with fewer of them")
    material = Material(book, train, rows, is_test, known, folded, shares, said, agreement.votes if agreement else {},
                        {}, int(is_copy.sum()), data.group_by)
    voted = [*test, *(post for post, _ in agreement.ties)] if agreement else []  # also those without a majority
    material.vote_groups = {(post.language, post.id): group
                            for post, group in zip(voted, material.counted_together(voted)[0], strict=True)}
    return material


def choose_folded(plan: Plan, test: list[Post]) -> tuple[str, ...]:
    """Languages to cross-validate: those that the plan names, else those with few test rows; none without folds."""
    if not plan.repeat.folds:
        return ()
    counts = Counter(post.language for post in test)
    for language in plan.repeat.folded:
        if not counts[language]:
            raise UserError(f"{plan.path}: [repeat]: folded: there is no test post in '{language}'")
    return tuple(sorted(plan.repeat.folded or (language for language, count in counts.items() if count < FEW)))


def check_days(posts: list[Post], column: str, where: str) -> None:
    """Raise `UserError` for a date that is none, and where no post has any; posts without one are counted later."""
    there = [(post, str(post.extra.get(column) or "").strip()) for post in posts]
    bad = next(((post, text) for post, text in there if text and day_of(text) is None), None)
    if bad:
        raise UserError(f"{where}: date: post '{bad[0].id}' ({bad[0].language}) has '{bad[1][:40]}' in column "
                        f"'{column}', which is no date such as 2020-01-31 or 2020-01-31T10:00:00Z")
    if not any(text for _, text in there):
        raise UserError(f"{where}: date: no post has a column '{column}' with a date")


def written_on(post: Post, column: str | None) -> str:
    """The day on which a post was written, "2020-01-31"; "" if it is not known."""
    return day_of(str(post.extra.get(column or "") or "").strip()) or ""


def read_published(path: Path) -> list[dict]:
    """Published rows, a model and post each.

    Raises `UserError` for a missing column, an empty cell, and a `correct` that is not 0 or 1.
    """
    table = open_table(path)
    rows = []
    for row in table.rows:
        missing = next((name for name in PUBLISHED if not str(row.get(name) or "").strip()), None)
        if missing:
            raise UserError(f"{table.place}: column '{missing}' is missing or empty; published rows have "
                            f"{', '.join(PUBLISHED)}")
        rows.append({name: str(row[name]) for name in PUBLISHED})
        if rows[-1]["correct"] not in ("0", "1"):
            raise UserError(f"{table.place}: correct: '{rows[-1]['correct'][:40]}' is not 0 or 1")
    if not rows:
        raise UserError(f"{path}: has no rows; published rows have {', '.join(PUBLISHED)}")
    return rows


def posts_hash(posts: list[Post], text: str | None = None) -> str:
    """SHA-256 of what decides a model's answers or its training: language, id, label and text, in order."""
    return sha256_json([[post.language, post.id, post.label, text_of(post, text)] for post in posts])


def text_of(post: Post, column: str | None) -> str:
    """A post's text, or another column of it."""
    return post.text if column is None else post.extra.get(column, "")


def has_text(post: Post, column: str | None) -> bool:
    """Whether there is anything to label."""
    return not is_empty(text_of(post, column))
