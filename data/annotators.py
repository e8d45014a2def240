"""Several people's labels for one post: the majority, who agreed with whom, and how far that goes beyond chance.

Two layouts are read: long (one row per post and annotator, with a column `annotator`) and wide (one row per post, with
a column `label_NAME` per annotator, empty if that annotator did not label the post). A post's label is the one that
most annotators gave; a tie has no majority, so the post is dropped and listed. A label that was settled by discussion
counts instead: in the wide layout a row's own label, in the long one the row whose annotator is called "settled".

Agreement is Krippendorff's alpha for nominal labels, which allows any number of annotators and missing labels:

    alpha = 1 - D_o / D_e = 1 - (n - 1) * sum_{c != k} o_ck / sum_{c != k} n_c n_k

with coincidences o_ck = sum over posts of (pairs of labels c, k on the post) / (its labels - 1), n_c = sum_k o_ck and
n = sum_c n_c; posts with one label take no part. Source: K. Krippendorff, Computing Krippendorff's Alpha-Reliability
(2011), section C. If all labels are the same, agreement by chance is certain and alpha is undefined: None.

Pairwise agreement is the share of pairs of annotators who gave the same post the same label. A model's accuracy should
be compared with it: a model cannot be expected to agree with people more than they agree with each other.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

from common.errors import UserError, closest
from common.terminal import table
from data.posts import Columns, Post
from data.readers import is_annotated, read_posts
from data.shipped_labels import hint_of_codebook
from data.visible import composed

Votes = dict[str, str]  # annotator -> label, of one post
SETTLED = "settled"  # the annotator of a row that holds what several settled on


@dataclass
class Agreement:
    """Who agreed: `by_language[code]` and `overall` are dicts of figures; `pairs[(a, b)]` = (agreed, labelled by both).

    Figures: posts, labelled_twice (by two or more), alpha, pairwise (share of agreeing pairs), ties. `ties`: the posts
    without a majority and their votes; `settled`: how many posts kept their own label instead of the majority's.
    """

    annotators: tuple[str, ...]
    overall: dict
    by_language: dict[str, dict]
    pairs: dict[tuple[str, str], tuple[int, int]]
    ties: list[tuple[Post, Votes]] = field(default_factory=list)
    settled: int = 0
    votes: dict[tuple[str, str], Votes] = field(default_factory=dict)  # by language and id, of every post

    def pairwise(self) -> dict[str, float | None]:
        """The share of agreeing pairs of all posts ("all") and of each language, to stand beside an accuracy."""
        return {"all": self.overall["pairwise"],
                **{code: figures["pairwise"] for code, figures in self.by_language.items()}}

    def lines(self) -> list[str]:
        """A table by language, then the ties, each with its file and row."""
        names = ("posts", "labelled_twice", "alpha", "pairwise", "ties")
        rows = [[code, *(_shown(figures[name]) for name in names)] for code, figures in self.by_language.items()]
        rows.append(["all", *(_shown(self.overall[name]) for name in names)])
        header = ["", "posts", "by two or more", "alpha", "pairwise", "ties"]
        lines = [f"  {len(self.annotators)} annotators: {', '.join(self.annotators[:12])}"]
        lines += table(header, rows).split("\n")
        for post, votes in self.ties[:5]:
            shown = ", ".join(f"{name} {label}" for name, label in votes.items())
            lines.append(f"  no majority, dropped: {post.place} ({shown})")
        if len(self.ties) > 5:
            lines.append(f"  and {len(self.ties) - 5:,} more without a majority")
        if self.settled:
            lines.append(f"  posts whose label was settled, which counts instead of a majority: {self.settled:,}")
        return lines

    def to_dict(self) -> dict:
        """For run.json and metrics.json; each tie as its file and row, and its votes."""
        return {
            "annotators": list(self.annotators),
            "overall": self.overall,
            "by_language": self.by_language,
            "pairs": [[a, b, agreed, both] for (a, b), (agreed, both) in self.pairs.items()],
            "ties": [[post.place, votes] for post, votes in self.ties],
            "settled": self.settled,
        }


def _shown(value) -> str | None:
    return f"{value:.3f}" if isinstance(value, float) else None if value is None else f"{value:,}"


def read_labelled(paths, columns: Columns | None = None, codebook=None, **options):
    """(posts, notes, agreement): `read_posts`, then `combine`; agreement is None for files without annotators."""
    columns = columns or Columns()
    posts, notes = read_posts(paths, columns, codebook, **options)
    if notes.counts["made_id"] and any(columns.annotator in post.extra for post in posts):
        place = notes.places["made_id"][0]
        raise UserError(f"{place}: has no id; with several annotators, the id tells which rows are the same post")
    posts, agreement = combine(posts, codebook, columns)
    if agreement is not None:
        notes.kept = len(posts)
        notes.cells = Counter((post.language, post.label) for post in posts)
    return posts, notes, agreement


def combine(posts: Sequence[Post], codebook=None, columns: Columns | None = None
            ) -> tuple[list[Post], Agreement | None]:
    """One post per text with its majority label, and how the annotators agreed; (posts, None) without annotators.

    A post without a majority is left out. Raises `UserError` for a label outside the codebook, an annotator who
    labelled a post twice, an id with two texts, a row without an annotator, a post that nobody labelled, and files with
    nothing but ties.
    """
    kept, agreement = tally(posts, codebook, columns)
    if not kept and agreement is not None:
        raise UserError(f"{posts[0].file}: none of {len(agreement.ties):,} posts has a majority; settle them in a "
                        "label column")
    return kept, agreement


def tally(posts: Sequence[Post], codebook=None, columns: Columns | None = None
          ) -> tuple[list[Post], Agreement | None]:
    """`combine`, where nothing but ties is no error: coders who have just begun."""
    columns = columns or Columns()
    if any(is_annotated(post.extra) for post in posts):
        voted = [(_without_votes(post), _wide_votes(post)) for post in posts]
        if codebook is not None:
            _check_votes(voted, codebook)
    elif any(columns.annotator in post.extra for post in posts):
        voted = _gather_long(posts, columns.annotator)
    else:
        return list(posts), None
    kept, tied, settled = [], [], 0
    for post, votes in voted:
        label = post.label or majority(votes.values())
        if not votes and label is None:
            raise UserError(f"{post.place}: nobody labelled this post; fill in a label or leave the row out")
        settled += post.label is not None and bool(votes)
        if label is None:
            tied.append((post, votes))
        else:
            kept.append(replace(post, label=label))
    return kept, measure(voted, tied, settled)


def majority(labels: Iterable[str]) -> str | None:
    """The most frequent label; None if two or more are equally frequent, or there are none."""
    first = Counter(labels).most_common(2)
    return None if not first or (len(first) > 1 and first[0][1] == first[1][1]) else first[0][0]


def measure(voted: Sequence[tuple[Post, Votes]], tied: Sequence = (), settled: int = 0) -> Agreement:
    """Alpha and pairwise agreement of posts and their votes, by language and overall."""
    by_language: defaultdict[str, list[Votes]] = defaultdict(list)
    agreed: Counter = Counter()
    both: Counter = Counter()
    for post, votes in voted:
        by_language[post.language].append(votes)
        for a, b in combinations(sorted(votes), 2):
            both[a, b] += 1
            agreed[a, b] += votes[a] == votes[b]
    ties = Counter(post.language for post, _ in tied)
    return Agreement(
        annotators=tuple(sorted({name for _, votes in voted for name in votes})),
        overall=_figures([votes for _, votes in voted], len(tied)),
        by_language={code: _figures(by_language[code], ties[code]) for code in sorted(by_language)},
        pairs={pair: (agreed[pair], both[pair]) for pair in sorted(both)},
        ties=list(tied),
        settled=settled,
        votes={(post.language, post.id): dict(votes) for post, votes in voted},
    )


def _figures(units: list[Votes], ties: int) -> dict:
    labels = [list(votes.values()) for votes in units]
    return {
        "posts": len(units),
        "labelled_twice": sum(len(one) > 1 for one in labels),
        "alpha": krippendorff_alpha(labels),
        "pairwise": pairwise_agreement(labels),
        "ties": ties,
    }


def krippendorff_alpha(units: Iterable[Sequence[str]]) -> float | None:
    """Nominal alpha (float64) of units, each the labels that its annotators gave; None if it is undefined."""
    observed, marginals = 0.0, Counter()
    for labels in units:
        if len(labels) < 2:
            continue
        counts = Counter(labels)
        marginals += counts
        differing = len(labels) ** 2 - sum(count**2 for count in counts.values())  # ordered pairs c != k
        observed += differing / (len(labels) - 1)
    n = sum(marginals.values())
    expected = n**2 - sum(count**2 for count in marginals.values())
    return 1 - (n - 1) * observed / expected if expected else None


def pairwise_agreement(units: Iterable[Sequence[str]]) -> float | None:
    """Agreeing pairs of labels over all pairs of labels on the same post; None if no post has two labels."""
    agreeing, pairs = 0, 0
    for labels in units:
        pairs += len(labels) * (len(labels) - 1) // 2
        agreeing += sum(count * (count - 1) // 2 for count in Counter(labels).values())
    return agreeing / pairs if pairs else None


def _without_votes(post: Post) -> Post:
    return replace(post, extra={key: value for key, value in post.extra.items() if not key.startswith("label_")})


def _wide_votes(post: Post) -> Votes:
    votes = {key.removeprefix("label_"): composed(value.strip()) for key, value in post.extra.items()
             if key.startswith("label_")}
    return {name: label for name, label in votes.items() if label}


def _check_votes(voted: Sequence[tuple[Post, Votes]], codebook) -> None:
    """Every vote is a label of the codebook; if one is not, all of them tell whose labels these are."""
    unknown = ((post, name, label) for post, votes in voted for name, label in votes.items()
               if label not in codebook.labels)
    if first := next(unknown, None):
        post, name, label = first
        hint = hint_of_codebook((label for _, votes in voted for label in votes.values()), codebook.labels)
        raise UserError(
            f"{post.place}: label_{name} '{label[:40]}' is not in the codebook, which has "
            f"{', '.join(list(codebook.labels)[:12])}{'' if hint else closest(label, codebook.labels)} "
            f"(columns label_* are annotators' labels){hint}"
        )


def _gather_long(posts: Sequence[Post], column: str) -> list[tuple[Post, Votes]]:
    gathered: dict[tuple[str, str], tuple[Post, Votes]] = {}
    rows: dict[tuple[str, str, str], int] = {}
    for post in posts:
        name = post.extra.get(column, "").strip()
        if not name:
            raise UserError(f"{post.place}: has no {column}; every row of a file with annotators must name one")
        extra = {key: value for key, value in post.extra.items() if key != column}
        first, votes = gathered.setdefault((post.id, post.language), (replace(post, label=None, extra=extra), {}))
        if first.text != post.text:
            raise UserError(
                f"{post.place}: id '{post.id}' has a different text from {first.place}; an id stands for one post"
            )
        if name in votes or (name == SETTLED and first.label is not None):
            raise UserError(
                f"{post.place}: {column} '{name}' labels id '{post.id}' again (first in row "
                f"{rows[post.id, post.language, name]}); leave one of the rows out"
            )
        rows[post.id, post.language, name] = post.row
        if name == SETTLED:
            gathered[post.id, post.language] = (replace(first, label=post.label), votes)
        elif post.label is not None:
            votes[name] = post.label
    return list(gathered.values())
