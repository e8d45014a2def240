"""One coder's codes: a file that is whole after every post, and that the next start continues.

The file has id, language, label, annotator, and what the sample has for tools.prevalence: stratum and
inclusion_probability; no text and no label by the machine. Two coders' files are two files; `both` joins them.
"""

from pathlib import Path

from common.errors import UserError, closest
from data.annotators import Agreement, combine
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
    same = next((post for post in theirs if post.extra.get("annotator", other.stem) == own.coder), None)
    if same:
        raise UserError(f"{same.place}: is coded by '{own.coder}' as well; --other takes a second coder's file, and "
                        "each coder a name of their own (--coder)")
    rows = [{"id": post.id, "language": post.language, "label": post.label,
             "annotator": post.extra.get("annotator", other.stem)}
            | {name: post.extra[name] for name in (STRATUM, PROBABILITY) if post.extra.get(name)}
            for post in theirs]  # fmt: skip
    rows = own.rows() + rows
    posts = [Post(row["id"], "", row["label"], row["language"], str(other), n, {"annotator": row["annotator"]})
             for n, row in enumerate(rows, 1)]
    return rows, combine(posts)[1]
