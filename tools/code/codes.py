"""One coder's codes: a file that is whole after every post, and that the next start continues.

The file has id, language, label, annotator, and what the sample has for tools.prevalence: stratum and
inclusion_probability; no text and no label by the machine. Two coders' files are two files; `both` joins them.
"""

from pathlib import Path

from common.errors import UserError, closest
from data.annotators import Agreement, Votes, tally
from data.posts import Columns, Post
from data.readers import read_posts
from data.writers import write_rows
from tools.prevalence.read import PROBABILITY, STRATUM


class Codes:
    """The codes of `posts` by one coder: row -> label; each change is on the disk before it is answered.

    Raises `UserError` for a file that is another coder's or that codes other posts.
    """

    def __init__(self, posts: list[Post], labels: tuple[str, ...], coder: str, path: Path):
        self.posts, self.labels, self.coder, self.path = posts, labels, coder, path
        self.of: dict[int, str] = {}
        if path.exists():
            self._continue()

    def _continue(self) -> None:
        places = {(post.id, post.language): row for row, post in enumerate(self.posts)}
        for post in read_codes(self.path):
            coder, row = post.extra.get("annotator", ""), places.get((post.id, post.language))
            if coder != self.coder:
                raise UserError(f"{post.place}: is coded by '{coder[:40]}', and --coder is '{self.coder}'; give each "
                                "coder a file of their own with --out")
            if row is None:
                raise UserError(f"{post.place}: id '{post.id[:40]}' is not in the sample; continue with the sample "
                                "that these codes are of")
            if post.label not in self.labels:
                raise UserError(f"{post.place}: label '{post.label[:40]}' is not in the codebook, which has "
                                f"{', '.join(self.labels)}{closest(post.label, self.labels)}")
            self.of[row] = post.label

    def add(self, row, label) -> None:
        """Code a post, or change its code; raises `UserError` for another row or label."""
        if type(row) is not int or not 0 <= row < len(self.posts) or label not in self.labels:
            raise UserError("code: give the number of a post and one of the labels")
        coded = self.of | {row: label}
        write_rows(self.path, self.rows(coded))
        self.of = coded  # only what is on the disk counts

    def rows(self, coded: dict[int, str] | None = None) -> list[dict]:
        """The file's rows, in the order of the sample, of `coded` or of all codes."""
        found = []
        for row, label in sorted((self.of if coded is None else coded).items()):
            post = self.posts[row]
            more = {name: post.extra[name] for name in (STRATUM, PROBABILITY) if post.extra.get(name)}
            found.append({"id": post.id, "language": post.language, "label": label, "annotator": self.coder} | more)
        return found


def read_codes(path: Path) -> list[Post]:
    """The rows of a file of codes."""
    return read_posts([path], Columns(), require_text=False)[0]


def both(own: Codes, other: Path) -> tuple[list[dict], Agreement]:
    """The rows of two coders in one list, and their agreement on the posts that both coded; `other` may hold several
    coders, such as an earlier --join."""
    theirs = read_codes(other)
    same = next((post for post in theirs if _coder(post, other) == own.coder), None)
    if same:
        raise UserError(f"{same.place}: is coded by '{own.coder}' as well; --other takes a second coder's file, and "
                        "each coder a name of their own (--coder)")
    rows = own.rows() + _rows_of(theirs, other)
    return rows, _agreement(rows, other)


def tied(posts: list[Post], other: Path) -> list[tuple[Post, Votes]]:
    """The posts on which the coders of `other` are tied, and who said what."""
    ties = {(post.id, post.language): votes
            for post, votes in _agreement(_rows_of(read_codes(other), other), other).ties}
    return [(post, ties[post.id, post.language]) for post in posts if (post.id, post.language) in ties]


def _coder(post: Post, file: Path) -> str:
    return post.extra.get("annotator", file.stem)


def _rows_of(posts: list[Post], file: Path) -> list[dict]:
    return [{"id": post.id, "language": post.language, "label": post.label, "annotator": _coder(post, file)}
            | {name: post.extra[name] for name in (STRATUM, PROBABILITY) if post.extra.get(name)} for post in posts]


def _agreement(rows: list[dict], file: Path) -> Agreement:
    return tally([Post(row["id"], "", row["label"], row["language"], str(file), n, {"annotator": row["annotator"]})
                  for n, row in enumerate(rows, 1)])[1]
