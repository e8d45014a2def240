"""The two files of tools.prevalence as arrays: machine labels of all posts, hand codes of a sample of them.

Labels are read row by row and kept as numbers, so that millions of posts take little memory. Codes are joined by id; a
language, where both files have one, must be the same.
"""

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy

from common.errors import UserError, closest
from common.reading import check_path
from data.annotators import Agreement, read_labelled
from data.checks import TrainingTexts
from data.codebook import Codebook
from data.damage import is_missing
from data.dates import DATES, date_column, month_of, months_of
from data.inputs import expand
from data.languages import UNDETERMINED
from data.notes import Notes
from data.posts import Columns, Post
from data.readers import iter_posts
from data.visible import composed
from report.words import counted
from tools.prevalence.probabilities import Probabilities, share_of, spoilt

PROBABILITY, STRATUM, ERROR = "inclusion_probability", "stratum", "error"  # columns of our own files
MOST_GROUPS = 2_000
NONE = -1  # a post that the machine left without a label
NOTHING = "(none)"  # the value of a column in which a post has none
EQUAL = 1e-4  # by which part chances of one stratum may differ, if they were rounded


@dataclass
class Codes:
    """The coded rows in the order of their file, one for each post; `agreement` of annotators, if there were any."""

    posts: list[Post]
    notes: Notes
    agreement: Agreement | None


@dataclass
class Labels:
    """N posts. labels: C names; predicted (N,) int64 in 0..C, C where the machine gave none; group (N,) int64; groups:
    names; probabilities (N, C) or None; place: coded row -> its post; texts: coded row -> its text, where the file has
    one; unread: rows that could not be read, or had no text, which are no posts; trained: posts that the run was
    trained on, left out; columns: of those to keep, the values by number (N,) int64, and these values; values: of each
    group, those of the columns that make it."""

    labels: list[str]
    predicted: numpy.ndarray
    group: numpy.ndarray
    groups: list[str]
    probabilities: numpy.ndarray | None
    place: dict[int, int]
    texts: dict[int, str]
    unread: int
    trained: int = 0
    columns: dict[str, tuple[numpy.ndarray, list[str]]] = field(default_factory=dict)
    values: list[tuple[str, ...]] = field(default_factory=list)

    @property
    def unlabelled(self) -> int:
        """Posts that the machine left without a label."""
        return int((self.predicted == len(self.labels)).sum())


class LostZeros:
    """Looks through ids for one that differs from a wanted one by zeros at its front, which spreadsheets take away."""

    def __init__(self, wanted: Iterable[str]):
        self._wanted = set(wanted)
        self._short, self._found = {one.lstrip("0") for one in self._wanted}, ""

    def look(self, id: str) -> None:
        """Take an id that was read."""
        if id not in self._wanted and id.lstrip("0") in self._short:
            self._found = id

    def hint(self) -> str:
        """The end of a message on an id that is nowhere; "" if nothing looks like it."""
        return f"; there is '{self._found[:40]}', so a spreadsheet may have taken zeros away" if self._found else ""


def read_codes(path: Path, columns: Columns, codebook: Codebook | None, bad_labels: str) -> Codes:
    """The hand codes; several annotators' are settled by majority. Raises `UserError` for rows without an id."""
    posts, notes, agreement = read_labelled([path], columns, codebook, require_text=False, bad_labels=bad_labels)
    if notes.counts["made_id"]:
        raise UserError(f"{notes.places['made_id'][0]}: has no id; codes are joined to the labels by column "
                        f"'{columns.id}'")
    seen: dict[tuple[str, str], Post] = {}
    for post in posts:
        first = seen.setdefault((post.id, post.language), post)
        if first is not post:
            raise UserError(f"{post.place}: id '{post.id[:40]}' was coded before ({first.place}); several coders' rows "
                            f"need a column '{columns.annotator}'")
    return Codes([replace(post, label=composed(post.label)) for post in posts], notes, agreement)


def chances(codes: Codes) -> tuple[numpy.ndarray, list[str] | None] | None:
    """(probability of inclusion (n,) float64, names of strata or None) of the coded rows; None without that column."""
    written = [post.extra.get(PROBABILITY, "").strip() for post in codes.posts]
    if not any(written):
        return None
    values = []
    for post, cell in zip(codes.posts, written, strict=True):
        value = share_of(cell)
        if not (value is not None and 0 < value <= 1):
            raise UserError(f"{post.place}: {PROBABILITY} '{cell[:20]}' is not a number above 0 and up to 1; every "
                            "coded row needs the chance with which it was drawn" + spoilt(cell))
        values.append(value)
    strata = [post.extra.get(STRATUM, "").strip() for post in codes.posts]
    if not all(strata):
        return numpy.array(values), None
    chance: dict[str, float] = {}
    for post, name, value in zip(codes.posts, strata, values, strict=True):
        if abs(chance.setdefault(name, value) - value) > EQUAL * value:
            raise UserError(f"{post.place}: {PROBABILITY} {value:g} in stratum '{name[:20]}', where others have "
                            f"{chance[name]:g}; the posts of a stratum are drawn with one chance (give the "
                            f"strata of two samples other names; leave '{STRATUM}' out if each post was drawn for "
                            "itself)")
    return numpy.array(values), strata


def read_labels(path: Path, columns: Columns, codes: Codes, by: list[str], codebook: Codebook | None,
                joined: dict[tuple[str, str], Post] | None, show: Callable[[int], None],
                keep: Mapping[str, str] | None = None, training: TrainingTexts | None = None) -> Labels:
    """The machine's labels, of all posts; `joined`: posts with further columns, by id and language; `by`: columns that
    make the groups; `keep`: columns whose values are kept, and the options that name them; `training`: posts of it are
    left out, but for coded ones, which are refused later.
    """
    wanted: dict[str, list[int]] = {}
    for row, post in enumerate(codes.posts):
        wanted.setdefault(post.id, []).append(row)
    names: dict[str, int] = {composed(label): n for n, label in enumerate(codebook.labels)} if codebook else {}
    groups: dict[tuple[str, ...], int] = {}
    read: set[int] = set()  # hashes of ids and languages
    predicted, group, place, texts, unread, trained = array("q"), array("q"), {}, {}, 0, 0
    zeros = LostZeros(wanted)
    numbers, kept = Probabilities(codebook), {name: (array("q"), {}) for name in keep or ()}
    for count, post in enumerate(_rows(path, columns)):
        if columns.predicted not in post.extra:
            there = ", ".join(repr(name[:24]) for name in list(post.extra)[:12]) or "none"
            raise UserError(f"{post.place}: has no column '{columns.predicted}'; its further columns: {there}; set "
                            f"--predicted-column to the one that holds the machine's label")
        rows = _coded(post, wanted.get(post.id, ()), codes)
        zeros.look(post.id)
        said, wrong = composed(post.extra[columns.predicted].strip()), post.extra.get(ERROR, "").strip()
        if wrong:
            unread += 1
            if rows:
                raise UserError(f"{codes.posts[rows[0]].place}: id '{post.id[:40]}' was not labelled ({post.place}: "
                                f"{wrong[:60]}); leave it out")
            continue
        if training is not None and not rows and training.hold(text_of(post, joined)):
            trained += 1
            continue
        read.add(hash((post.id, post.language)))
        if len(read) == len(predicted):
            raise UserError(f"{post.place}: id '{post.id[:40]}' came before; a post may be among the labels once, or "
                            "it would count twice: take repeated rows out")
        for row in rows:
            if row in place:
                raise UserError(f"{post.place}: id '{post.id[:40]}' came before; ids must differ to be joined")
            place[row] = len(predicted)
            texts |= {row: post.text} if post.text else {}
        numbers.add(post)
        predicted.append(names.setdefault(said, len(names)) if said else NONE)
        value = tuple(value_of_group(post, name, joined) for name in by)
        group.append(groups.setdefault(value, len(groups)))
        for name, (codes_of, values) in kept.items():
            codes_of.append(values.setdefault(value_of_group(post, name, joined, keep[name]), len(values)))
        if len(groups) > MOST_GROUPS:
            raise UserError(f"--by {','.join(by)}: more than {MOST_GROUPS:,} groups; name columns with few values")
        if count % 1000 == 999:
            show(1000)
    if not any(label != NONE for label in predicted):
        raise UserError(f"{path}: no row has a label by the machine")
    absent = [row for row in range(len(codes.posts)) if row not in place]
    if absent:
        post = codes.posts[absent[0]]
        raise UserError(f"{post.place}: id '{post.id[:40]}' is in no row of {path} ({len(absent):,} such rows); the "
                        f"coded posts must be among the labelled ones{zeros.hint()}")
    found = _sorted(names, predicted, group, groups, numbers, place, texts, unread, codes)
    found.trained = trained
    found.columns = {name: (numpy.array(codes_of, dtype=numpy.int64), list(values))
                     for name, (codes_of, values) in kept.items()}
    return found


def clusters_of(labels: Labels, name: str | None) -> tuple[numpy.ndarray | None, str]:
    """(N,) int64 from 0 on, equal for posts with the same value in a column, and what to say of it; who has none there
    is by itself. (None, "") without a column."""
    if name is None:
        return None, ""
    row, values = labels.columns[name]
    alone = numpy.array(values)[row] == NOTHING
    cluster = numpy.unique(numpy.where(alone, len(values) + numpy.arange(len(row)), row), return_inverse=True)[1]
    said = f"; {cluster.max() + 1:,} clusters by {name}"
    return cluster, said + (f", {counted(int(alone.sum()), 'post')} without one being clusters of their own"
                            if alone.any() else "")


def files_of(path: Path) -> list[Path]:
    """The file of --labels, or those of the folder."""
    check_path(path)
    return expand([str(path)], "--labels") if path.is_dir() else [path]


def _rows(path: Path, columns: Columns) -> Iterator[Post]:
    notes, paths, columns = Notes(), files_of(path), columns.of_predictions()
    for post in iter_posts(paths, columns, require_labels=False, require_text=False, check_ids=False, notes=notes):
        if notes.counts["made_id"]:
            raise UserError(f"{post.place}: has no id; labels and codes are joined by column '{columns.id}'")
        yield post


def _coded(post: Post, rows, codes: Codes) -> list[int]:
    """The coded rows that are this post: by id and, where both have one, by language."""
    return [row for row in rows if UNDETERMINED in (codes.posts[row].language, post.language)
            or codes.posts[row].language == post.language]


def same_post(post: Post, joined: dict[tuple[str, str], Post] | None) -> Post | None:
    """The post of --posts that is this one: by id and language, or by id alone where no other post has it."""
    joined = joined or {}
    return joined.get((post.id, post.language)) or joined.get((post.id, ""))


def value_of_group(post: Post, name: str, joined, option: str = "--by") -> str:
    """What a post has in a column that `option` names: its own, or that of the same post in --posts."""
    other = same_post(post, joined)
    if name == "language":
        return other.language if other and post.language == UNDETERMINED else post.language
    both = list(filter(None, (post, other)))
    for one in both:
        if name in one.extra:
            return one.extra[name].strip() or NOTHING
        column = date_column(one.extra) if name == "month" else None
        if column is not None:
            date = one.extra[column]
            month = month_of(date) if date.strip() and not is_missing(date.strip()) else NOTHING
            if month is None:
                why = "may be either month" if months_of(date) else "is not written as 2024-03-31 or 31.03.2024"
                raise UserError(f"{one.place}: date '{date[:20]}' {why}; add a column 'month'")
            return month
    there = sorted({"language"}.union(*(one.extra for one in both)))
    lacks = f"{post.place} has no such column"
    if joined is not None:
        lacks += f", nor has --posts in {other.place}" if other else (
            f", and --posts has no post with its id '{post.id[:40]}', or has several")
    also = f"; a month is also read from a column that is called {', '.join(DATES)}" if name == "month" else ""
    raise UserError(f"{option} {name}: {lacks}{closest(name, there)}; {'they have' if other else 'it has'} "
                    f"{', '.join(there[:12])}{also}")


def _sorted(names, predicted, group, groups, numbers, place, texts, unread, codes: Codes) -> Labels:
    """Arrays; groups in the order of their names, labels in the codebook's or the frequency's."""
    said = numpy.array(predicted, dtype=numpy.int64)
    given = {*names, *({post.label for post in codes.posts} & set(numbers.names or ()))}
    for post in codes.posts:
        names.setdefault(post.label, len(names))
    labels, probabilities = list(names), None
    if (found := numbers.of(given)) is not None:
        keys, values = found
        labels += [key for key in keys if key not in names]
        probabilities = numpy.zeros((len(said), len(labels)))  # 0: a label that only people gave
        probabilities[:, [labels.index(key) for key in keys]] = values
    said[said == NONE] = len(labels)
    order = sorted(groups)
    number = numpy.array([order.index(value) for value in groups], dtype=numpy.int64)
    return Labels(labels, said, number[numpy.array(group, dtype=numpy.int64)],
                  [", ".join(value) if value else "all" for value in order], probabilities, place, texts, unread,
                  values=order)


def text_of(post: Post, joined: dict[tuple[str, str], Post] | None) -> str:
    """A post's own text, or that of the same post in --posts."""
    other = same_post(post, joined)
    return post.text or (other.text if other else "")


def with_texts(codes: Codes, labels: Labels, joined: dict[tuple[str, str], Post] | None) -> list[Post]:
    """The coded posts that have a text: their own, that of the labels' file, or that of --posts."""
    found = []
    for row, post in enumerate(codes.posts):
        text = post.text or labels.texts.get(row) or text_of(post, joined)
        if text:
            found.append(replace(post, text=text))
    return found
