"""Splitting posts into two sides: for training and testing, or for training and early stopping.

Every cell (language x label) gives the second side its share, as evenly as whole rows allow: the total is rounded once,
then shared out among the languages by largest remainder, and within each language among its labels in the same way. So
each language and each cell is within one row of its share. A cell's last row always stays on the first side, since a
label that occurs in the test alone cannot be learnt.

A hash of (seed, language, text, id) decides which rows of a cell go, not their order, so the same posts in another
order are split the same way.

Rows that belong together (one author; one text, posted again) move together. Large groups must not decide for
themselves: filled largest first, the second side would always get the same prolific authors, whatever the seed. So each
group of several rows is drawn with the chance of a row, language by language and size by size (`drawn`); then single
rows, and behind them groups in the order of their hashes, change sides as long as that brings cells, languages and the
total nearer to their shares. A group larger than the second side, or than half of it where there are many groups, stays
on the first if the others can fill it.

A split by date puts everything before a given moment on the first side; the later rows of a group that has rows on both
sides are left out, since no author or text of the second side may be known from the first.
"""

from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from hashlib import sha256

from common.errors import UserError
from common.terminal import counted, table
from data.dates import moment_of
from data.groups import check_column, group_posts, value_of
from data.posts import Post

FAR = 0.1  # of the second side's rows, beyond which groups are said to have left it another share
NO_DATE = "is no date such as 2024-03-31, 2024-03-31T18:00:00Z or 31.03.2024 18:00"
MANY = 40  # groups, from which on one that would be more than half of the second side stays on the first


@dataclass
class Split:
    """`first` (training) and `second` (test or validation) posts in their original order, and how they were split.

    `left_out`: rows of the later period whose group is also in the earlier one. `boundary`: in a split by date, the
    first moment of the second side. `groups`: how many groups of two or more rows moved together; `largest`: the rows
    of the largest; `fraction`: what the second side should have, where nobody gave a date.
    """

    first: list[Post]
    second: list[Post]
    names: tuple[str, str]
    left_out: list[Post] = field(default_factory=list)
    boundary: str | None = None
    groups: int = 0
    largest: int = 1
    fraction: float | None = None

    @property
    def is_chained(self) -> bool:
        """Whether one group is more than half of all posts, too large for the second side whatever the seed."""
        every = len(self.first) + len(self.second)
        return self.fraction is not None and self.largest > max(len(self.second), every / 2)

    @property
    def is_far(self) -> bool:
        """Whether groups left the second side a share that is far from what was asked for."""
        wanted = (self.fraction or 0.0) * (len(self.first) + len(self.second))
        return bool(wanted) and abs(len(self.second) - wanted) > max(2, FAR * wanted)

    def lines(self) -> list[str]:
        """A table of languages by labels, with "first + second" in each cell, and what was left out."""
        counts = [Counter((post.language, post.label or "") for post in side) for side in (self.first, self.second)]
        languages = sorted({language for count in counts for language, _ in count})
        labels = sorted({label for count in counts for _, label in count})
        first, second = counts
        rows = [[one, *(f"{first[one, label]} + {second[one, label]}" for label in labels)] for one in languages]
        lines = [f"  {self.names[0]} {len(self.first):,} + {self.names[1]} {len(self.second):,} posts"]
        if self.boundary:
            lines[0] += f"; {self.names[1]} begins at {self.boundary}"
        if self.groups:
            lines.append(f"  {counted(self.groups, 'group')} of posts kept on one side, the largest of "
                         f"{self.largest:,}")
        lines += self.warnings()
        if self.left_out:
            lines.append(f"  {len(self.left_out):,} later posts left out: their group is also in {self.names[0]}")
        return lines + table(["", *(label or "no label" for label in labels)], rows).split("\n")

    def warnings(self) -> list[str]:
        """What groups that are too large left the second side."""
        every, lines = len(self.first) + len(self.second), []
        if self.is_chained:
            lines.append(f"  warning: {self.largest:,} of {every:,} posts are one group, which is in {self.names[0]} "
                         f"whatever the seed: {self.names[1]} can only be of the other {every - self.largest:,}")
        if self.is_far:
            lines.append(f"  warning: {self.names[1]} has {100 * len(self.second) / every:.1f} % of the posts and not "
                         f"{100 * self.fraction:g} %, since groups move whole")
        return lines

    def to_dict(self) -> dict:
        """For run.json; each post as its id and language, so that the same split can be made again."""
        return {
            "names": list(self.names),
            self.names[0]: len(self.first),
            self.names[1]: [[post.id, post.language] for post in self.second],
            "left_out": [[post.id, post.language] for post in self.left_out],
            "boundary": self.boundary,
            "groups": self.groups,
        }

    def as_recorded(self, posts: Sequence[Post], recorded: Mapping) -> "Split":
        """The split of `posts` that `to_dict` gave `recorded`, perhaps in a version that chose other posts; itself,
        where that does not say it: of ids that are not there, or stand on two sides."""
        own = self.to_dict()
        if all(recorded.get(side) == own[side] for side in (self.names[1], "left_out")):
            return self
        try:
            second, left_out = (Counter(map(tuple, recorded[side])) for side in (self.names[1], "left_out"))
        except (KeyError, TypeError):
            return self
        keys = [(post.id, post.language) for post in posts]
        if second + left_out != Counter(key for key in keys if key in second or key in left_out) or second & left_out:
            return self
        parts = [[post for post, key in zip(posts, keys, strict=True) if (key in second, key in left_out) == side]
                 for side in ((False, False), (True, False), (False, True))]
        return replace(self, first=parts[0], second=parts[1], left_out=parts[2])


def split_posts(
    posts: Sequence[Post],
    fraction: float = 0.25,
    *,
    seed: int = 0,
    group_by: str | None = None,
    split_by: str | None = None,
    split_at: str | None = None,
    same_text_together: bool = False,
    names: tuple[str, str] = ("train", "test"),
) -> Split:
    """Split posts into two sides, with `fraction` of the rows on the second.

    `group_by`: a column each of whose values (an author) is kept on one side; a row without a value is a group of its
    own. `split_by`: a column of dates (`moment_of`); the second side is the later one, from `split_at` or, without it,
    from the date that comes nearest to `fraction`. `same_text_together`: texts that are equal after normalising move
    together. Raises `UserError` for an unknown column, an invalid date (with its row), a fraction outside (0, 1), an
    empty side.
    """
    if not 0 < fraction < 1:
        raise UserError(f"--{names[1]} {fraction}: is not between 0 and 1; a quarter is 0.25")
    if len(posts) < 2:
        raise UserError(f"a split needs two posts or more; there are {len(posts)}")
    groups = group_posts(posts, group_by, same_text_together)
    sizes = Counter(groups)
    boundary = None
    if split_by is not None:
        check_column(posts, split_by, "--split-by")
        dates = [_date(post, split_by) for post in posts]
        at = _parse(split_at) if split_at else _nearest_boundary(dates, fraction)
        if at is None:
            raise UserError(f"--split-at {split_at}: {NO_DATE}")
        boundary, later = at.isoformat(), [date >= at for date in dates]
        early = {group for group, late in zip(groups, later, strict=True) if not late}
        sides = [("second" if group not in early else "left out") if late else "first"
                 for group, late in zip(groups, later, strict=True)]  # fmt: skip
    else:
        if split_at:
            raise UserError("--split-at: needs --split-by, the column that holds the dates")
        chosen = _choose_groups(posts, groups, fraction, seed)
        sides = ["second" if group in chosen else "first" for group in groups]
    parts = {side: [post for post, s in zip(posts, sides, strict=True) if s == side] for side in set(sides)}
    split = Split(parts.get("first", []), parts.get("second", []), names, parts.get("left out", []), boundary,
                  sum(size > 1 for size in sizes.values()), max(sizes.values()),
                  None if split_by else fraction)  # fmt: skip
    if not split.first or not split.second:
        side = names[0] if not split.first else names[1]
        option = f"--split-by {split_by}" if split_by else f"--group-by {group_by}" if group_by else "the split"
        raise UserError(
            f"{option}: leaves no post for {side} ({counted(len(posts), 'post')} in {counted(len(sizes), 'group')}, "
            f"the largest of {max(sizes.values()):,}); choose another column, date or fraction"
        )
    return split


def hash_order(post: Post, seed: int) -> tuple[bytes, str]:
    """A sort key that shuffles posts by content and seed; ids (perhaps row numbers) only order equal texts."""
    return sha256(f"{seed}\x1f{post.language}\x1f{post.text}".encode()).digest(), post.id


def largest_remainder(quotas: dict[Hashable, float], total: int) -> dict[Hashable, int]:
    """Whole numbers that sum to `total`: each quota rounded down, or up for those with the largest remainders.

    `total` lies between the sum of the quotas' floors and that of their ceilings. Ties go to the larger quota, then
    by name. Source: Hamilton's method of apportionment.
    """
    counts = {key: int(quota + 1e-9) for key, quota in quotas.items()}  # .29 * 100 is 28.999999999999996
    order = sorted(quotas, key=lambda key: (-round(quotas[key] - counts[key], 9), -quotas[key], str(key)))
    for key in order[: max(0, total - sum(counts.values()))]:
        counts[key] += 1
    return counts


def cell_targets(posts: Sequence[Post], fraction: float) -> dict[tuple[str, str | None], int]:
    """How many rows each (language, label) gives to the second side; its last row is never given."""
    cells = Counter((post.language, post.label) for post in posts)
    languages = Counter(post.language for post in posts)
    total = int(len(posts) * fraction + 0.5 + 1e-9)
    per_language = largest_remainder({key: count * fraction for key, count in languages.items()}, total)
    targets = {}
    for language, count in per_language.items():
        own = {cell: number * fraction for cell, number in cells.items() if cell[0] == language}
        targets |= largest_remainder(own, count)
    return {cell: min(count, cells[cell] - 1) for cell, count in targets.items()}


def drawn(sizes: dict[Hashable, tuple[str, int, bytes]], fraction: float, seed: int) -> set[Hashable]:
    """Some of the groups, each with the chance `fraction`: key -> (language, rows, hash of the seed and its texts).

    A systematic sample: with the groups in order of language, size (by powers of two) and hash, and u in [0, 1)
    of the seed, those are taken at which floor(fraction i + u) rises; so of every language and size their share, to
    within one group.
    """
    order = sorted(sizes, key=lambda key: (sizes[key][0], -sizes[key][1].bit_length(), sizes[key][2]))
    start = int.from_bytes(sha256(f"{seed}\x1fgroups".encode()).digest()[:6]) / 2**48
    counts = [int(fraction * number + start) for number in range(len(order) + 1)]
    return {key for number, key in enumerate(order) if counts[number + 1] > counts[number]}


def _choose_groups(posts: Sequence[Post], groups: list[int], fraction: float, seed: int) -> set[int]:
    members: defaultdict[int, list[Post]] = defaultdict(list)
    for post, group in zip(posts, groups, strict=True):
        members[group].append(post)
    targets = cell_targets(posts, fraction)
    hashes = {group: min(hash_order(post, seed) for post in own) for group, own in members.items()}
    order = sorted(members, key=lambda group: (len(members[group]) > 1, hashes[group]))
    sizes = {group: _marginals(members[group]) for group in order}
    missing = Counter(targets)  # what each cell, each language and the total still owe the second side
    for (language, _), count in targets.items():
        missing[language] += count
        missing[None] += count
    most = sum(targets.values()) / (2 if len(members) >= MANY else 1)
    several = {group: (min(Counter(post.language for post in own).items(), key=lambda one: (-one[1], one[0]))[0],
                       len(own), hashes[group]) for group, own in members.items() if 1 < len(own) <= most}
    chosen = drawn(several, fraction, seed)
    for group in chosen:
        missing.subtract(sizes[group])

    def gain(group: int, sign: int, cells_only: bool) -> int:
        """By how much the sum of squared distances to the targets falls if a group is added (1) or removed (-1)."""
        return sum(
            missing[key] ** 2 - (missing[key] - sign * count) ** 2
            for key, count in sizes[group].items()
            if isinstance(key, tuple) or not cells_only
        )

    # First fill the cells (single rows do that exactly), then move groups while that also improves languages and total.
    for last in (False, True):
        moved = True
        while moved:
            moved = False
            for group in order:
                sign = -1 if group in chosen else 1
                if gain(group, sign, cells_only=not last) > 0:
                    missing.subtract({key: sign * count for key, count in sizes[group].items()})
                    chosen ^= {group}
                    moved = True
    return chosen


def _marginals(posts: Sequence[Post]) -> Counter:
    """Rows per cell (a pair), per language (a string) and in all (None)."""
    counts = Counter((post.language, post.label) for post in posts)
    counts.update(post.language for post in posts)
    counts[None] = len(posts)
    return counts


def _parse(text: str) -> datetime | None:
    moment = moment_of(text)
    # Times with and without a time zone cannot be compared: those without are taken as UTC.
    return moment and (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)


def _date(post: Post, column: str) -> datetime:
    text = value_of(post, column)
    moment = _parse(text)
    if moment is None:
        raise UserError(f"{post.place}: {column} '{text[:40]}' {NO_DATE}")
    return moment


def _nearest_boundary(dates: list[datetime], fraction: float) -> datetime:
    """The date for which the later side is nearest to `fraction` of the rows; of two equally near, the later one."""
    counts, later, best = Counter(dates), 0, (float("inf"), max(dates))
    for date in sorted(counts, reverse=True):
        later += counts[date]
        distance = abs(later - fraction * len(dates))
        if distance < best[0] - 1e-9:
            best = (distance, date)
    return best[1]
