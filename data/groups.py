"""Posts that belong together: by one author (or of one value in another column), or copies of one text.

Such posts go to one side of a split, and count together in an interval, since they are right or wrong together.

In an interval, chains go too far: where authors pass each other's posts on, most posts hang together, one text after
the other, and a bootstrap of few such groups covers too seldom (tests/stats/test_passed_on.py). There copies of a text
that several authors have are a group by themselves, and the other posts of an author are another (`texts_first`). An
author's copies of others' texts and her own posts are then taken as independent, which matters less: a copy is right or
wrong by its text.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from common.errors import UserError, closest
from common.files import read_json
from common.options import option
from data.checks import normalise
from data.posts import DATA, Post
from data.rows import HALVES

SPLIT = "split.json"  # what tools.split writes beside the two halves
NONE = "none"  # --group-by none: copies of a text alone


@dataclass
class GroupOptions:
    """The option of programs whose intervals count posts that belong together as what they are worth."""

    group_by: str | None = option(None, "column (such as author): posts with the same value count together in the "
                                  "intervals (default: what tools.split kept together; none: copies of a text alone)",
                                  metavar="NAME", group=DATA)

    texts_first: ClassVar[bool] = False  # of an instance: whether `groups_of` had to take chains apart

    def groups_of(self, posts: Sequence[Post], file: Path) -> list[int]:
        """One number per post of `file`, equal for those that belong together; says which column was taken over, and
        where chains were taken apart, how long the longest was.

        `group_by` is the column's name behind it, or None. Raises `UserError` for a column that the posts do not have.
        """
        if self.group_by is None:
            column = split_options(file).get("group_by")
            if column is not None and any(column in post.extra for post in posts):
                self.group_by = column
                print(f"  posts of one “{column}” count together in the intervals, as {file.parent / SPLIT} kept them")
        elif self.group_by == NONE and not any(NONE in post.extra for post in posts):
            self.group_by = None
        groups, chained = counted_together(posts, self.group_by)
        self.texts_first = chained > 0
        if chained:
            print(f"  {chained:,} of {len(posts):,} posts would be one group, since several “{self.group_by}” share "
                  "texts: in the intervals these texts are groups of their own")
        return groups


def split_options(file: Path) -> dict:
    """What `tools.split` was asked for when it wrote into the folder of `file`; {} where it did not.

    `group_by`, the column whose posts it kept on one side, only of the two files that it wrote.
    """
    path = file.parent / SPLIT
    found = read_json(path) if path.is_file() else {}
    stored = found.get("options") if isinstance(found, dict) else None
    stored = stored if isinstance(stored, dict) else {}
    holds = file.name in HALVES and isinstance(stored.get("group_by"), str)
    return stored if holds else {key: value for key, value in stored.items() if key != "group_by"}


def group_posts(posts: Sequence[Post], group_by: str | None = None, same_text: bool = False) -> list[int]:
    """One number per post, equal for posts that share the column's value or, with `same_text`, the normalised text.

    Chains count: two authors who posted the same text are in one group.
    """
    keys = []
    if group_by is not None:
        check_column(posts, group_by, "--group-by")
        keys.append([value_of(post, group_by) for post in posts])
    if same_text:
        keys.append([normalise(post.text) for post in posts])
    return connected(len(posts), *keys)


def counted_together(posts: Sequence[Post], column: str | None) -> tuple[list[int], int]:
    """One number per post, equal for those that count together in an interval; and, where several values of the column
    share texts, so that these come first, how many posts the longest chain of them would have (else 0). See the
    module."""
    chains = group_posts(posts, column, same_text=True)
    apart = chains if column is None else texts_first(posts, column)
    parts = Counter(chain for chain, _ in set(zip(chains, apart, strict=True)))
    return apart, max((posts for chain, posts in Counter(chains).items() if parts[chain] > 1), default=0)


def texts_first(posts: Sequence[Post], column: str) -> list[int]:
    """One number per post, equal for copies of a text that posts of several values of the column have, and for the
    other posts of one value; see the module."""
    texts, owners = [normalise(post.text) for post in posts], defaultdict(set)
    values = [value_of(post, column) for post in posts]
    for text, value in zip(texts, values, strict=True):
        owners[text].add(value)
    return connected(len(posts), [f"text {text}" if text and (len(owners[text]) > 1 or not value) else
                                  value and f"value {value}" for text, value in zip(texts, values, strict=True)])


def connected(count: int, *keys: Sequence[str]) -> list[int]:
    """One number for each of `count` rows, equal for rows that share a key of one kind, directly or through others.

    keys: of each kind, one per row; an empty one is shared with none. The number is that of a group's first row.
    """
    parent = list(range(count))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    for kind in keys:
        first: dict[str, int] = {}
        for index, key in enumerate(kind):
            if key:
                a, b = root(first.setdefault(key, index)), root(index)
                parent[max(a, b)] = min(a, b)
    return [root(index) for index in range(count)]


def check_column(posts: Sequence[Post], name: str, option: str) -> None:
    if not any(name in post.extra for post in posts):
        names = sorted({key for post in posts for key in post.extra})
        there = ", ".join(repr(key[:24]) for key in names[:12]) or "none"
        raise UserError(
            f"{option} {name}: {posts[0].file} has no such column; its further columns: {there}{closest(name, names)}"
        )


def value_of(post: Post, name: str) -> str:
    return post.extra.get(name, "").strip()
