"""Repeated texts, within training or test or in both, and languages and labels that occur in the test alone.

A model that has seen a test post's text in training is tested on its memory. Two posts count as the same text

    exactly      if their strings are equal
    same         if `normalise` makes them equal: reposts differ in case, spacing, the handles that they address and
                 the link that is attached
    near         if the sets of their three-word runs overlap by half or more (Jaccard); such pairs are listed and never
                 dropped, since a person has to judge them

Test posts that are the same as a training post are dropped by default, and both sets are returned, so that a score can
be reported on all rows (as published) and without them. Repeats within the test set stay, as groups: the bootstrap
draws groups, not rows.

A run keeps `TrainingTexts`: hashes of its training texts, not the texts. They are enough to check any later test set.
"""

import html
import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from common.errors import UserError
from common.reading import LARGE, read_json
from data.posts import Post

MASKS = re.compile(r"[<\[{](?:user(?:name)?|handle|mention|url|link|e-?mail|phone|number)[>\]}]|\b(?:EMAIL|PHONE)\b")
EMAIL = re.compile(r"(?<![@\w.+-])[\w.+-]+@[\w-]+\.[\w.-]*\w")
LINK = re.compile(r"(?:https?://|www\.)[!-~]+|\bhttps?\b(?:/url\b)?|\b(?:[a-z0-9-]+\.)+[a-z]{2,}/[!-~]*")
REPOST = re.compile(r"^\s*(?:rt\s+@+\w+:?\s*)+")
HANDLE = re.compile(r"@+\w+(?:@[\w.-]*\w)?")  # @name, and @name@server
NO_WIDTH = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufe00-\ufe0f\ufeff]")
DOTTED_I = str.maketrans({"ı": "i"})


def normalise(text: str) -> str:
    """A key that is equal for two posts with the same text: without case, handles, links, masks or white space.

    HTML entities and NFKC come first (full-width letters, ligatures), then case folding, with the Turkish i and ı made
    the same, since upper case does not tell them apart. All white space is removed, or a handle taken out of the middle
    would leave a trace. A text of nothing but handles and links keeps them: two different links are two texts.
    """
    plain = NO_WIDTH.sub("", unicodedata.normalize("NFKC", html.unescape(text)))
    folded = _fold(plain)
    bare = _fold(MASKS.sub(" ", plain))
    bare = MASKS.sub(" ", LINK.sub(" ", EMAIL.sub(" ", bare)))
    bare = HANDLE.sub(" ", REPOST.sub("", bare))
    return "".join(bare.split()) or "".join(folded.split())


def _fold(text: str) -> str:
    # Case folding turns the Turkish capital İ into i and a combining dot: the dot goes.
    return unicodedata.normalize("NFKC", text.casefold()).replace("i\u0307", "i").translate(DOTTED_I)


@dataclass(frozen=True)
class TrainingTexts:
    """What a run remembers of its training posts: hashes of their texts and counts per label and language, no text."""

    exact: frozenset[str]
    same: frozenset[str]
    labels: Counter
    languages: Counter

    @classmethod
    def of(cls, posts: Sequence[Post]) -> "TrainingTexts":
        """From the posts that were trained on."""
        return cls(
            frozenset(_hash(post.text) for post in posts),
            frozenset(_hash(normalise(post.text)) for post in posts),
            Counter(post.label for post in posts),
            Counter(post.language for post in posts),
        )

    def hold(self, text: str) -> bool:
        """Whether a text was trained on, exactly or after normalising."""
        return _hash(text) in self.exact or _hash(normalise(text)) in self.same

    def to_dict(self) -> dict:
        """For the run folder; the hashes are sorted, so that equal sets give equal files."""
        return {
            "schema": 1,
            "exact": sorted(self.exact),
            "same": sorted(self.same),
            "labels": dict(sorted(self.labels.items())),
            "languages": dict(sorted(self.languages.items())),
        }

    @classmethod
    def from_file(cls, path: str | Path) -> "TrainingTexts":
        """Back from the JSON of `to_dict`. Raises `UserError` for a file that holds another."""
        try:
            return cls.from_dict(read_json(path, LARGE))
        except UserError as error:
            raise error if str(path) in str(error) else UserError(f"{path}: {error}") from error

    @classmethod
    def from_dict(cls, stored: dict) -> "TrainingTexts":
        """Back from `to_dict`."""
        if not isinstance(stored, dict) or stored.get("schema") != 1:
            raise UserError("the run's list of training texts has a schema that is not known here; train the run again")
        good = all(isinstance(stored.get(key), list) and all(isinstance(one, str) for one in stored[key])
                   for key in ("exact", "same"))  # fmt: skip
        if not good or not all(isinstance(stored.get(key), dict) and all(type(n) is int for n in stored[key].values())
                               for key in ("labels", "languages")):
            raise UserError("the run's list of training texts was changed by hand; train the run again")
        sets = (frozenset(stored["exact"]), frozenset(stored["same"]))
        return cls(*sets, Counter(stored["labels"]), Counter(stored["languages"]))


def _hash(text: str) -> str:
    return sha256(text.encode("utf-8")).hexdigest()[:16]


@dataclass
class Repeats:
    """Texts that occur more than once in one set of posts; every row after the first with its text counts as a repeat.

    `exact`, `same`: the number of repeats by either measure. `conflicts`: groups of the same text with several labels.
    """

    name: str
    posts: int
    exact: int
    same: int
    conflicts: list[list[Post]] = field(default_factory=list)
    absent_labels: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Short lines for the terminal; a conflict is named by file and row, its text is never shown."""
        lines = [f"  {self.name}: {self.exact:,} of {self.posts:,} posts repeat an earlier text "
                 f"({self.same:,} after normalising)"]  # fmt: skip
        for group in self.conflicts[:5]:
            labels = Counter(post.label or "none" for post in group)
            shown = ", ".join(f"{label} {count}" for label, count in labels.most_common())
            lines.append(f"  one text, several labels: {shown} ({group[0].place} and {len(group) - 1:,} more)")
        if len(self.conflicts) > 5:
            lines.append(f"  and {len(self.conflicts) - 5:,} more texts with several labels")
        if self.absent_labels:
            lines.append(f"  no {self.name} post has the label {', '.join(self.absent_labels)}")
        return lines

    def to_dict(self) -> dict:
        """For run.json: counts, and each conflict as a list of [file and row, label]."""
        return {
            "posts": self.posts,
            "repeats_exact": self.exact,
            "repeats_same": self.same,
            "conflicts": [[[post.place, post.label] for post in group] for group in self.conflicts],
            "absent_labels": list(self.absent_labels),
        }


def find_repeats(posts: Sequence[Post], labels: Sequence[str] = (), name: str = "training") -> Repeats:
    """Repeats and conflicts within one set, and which of `labels` no post has."""
    groups: defaultdict[str, list[Post]] = defaultdict(list)
    for post in posts:
        groups[normalise(post.text)].append(post)
    conflicts = [group for group in groups.values() if len({post.label for post in group}) > 1]
    present = {post.label for post in posts}
    exact = len(posts) - len({post.text for post in posts})
    absent = tuple(label for label in labels if label not in present)
    return Repeats(name, len(posts), exact, len(posts) - len(groups), conflicts, absent)


@dataclass
class TestCheck:
    """A test set compared with the training posts: `all` its posts, as published, and those `kept`.

    `dropped`: the posts in `all` that are not in `kept`. `exact`, `same`: how many test posts have a text that is in
    training, by either measure (the second includes the first). `unseen_languages`, `labels_only_in_test`: those of the
    test that do not occur in training.
    """

    __test__ = False  # for pytest: this is not a test case

    all: list[Post]
    kept: list[Post]
    dropped: list[Post]
    drop: str
    exact: int
    same: int
    repeats: Repeats
    seen_languages: tuple[str, ...]
    unseen_languages: tuple[str, ...]
    labels_only_in_test: tuple[str, ...]

    def lines(self) -> list[str]:
        """Short lines for the terminal."""
        lines = [f"  {self.exact:,} of {len(self.all):,} test posts have a training post's text ({self.same:,} after "
                 f"normalising); {len(self.dropped):,} dropped, {len(self.kept):,} kept"]  # fmt: skip
        lines += self.repeats.lines()
        if self.unseen_languages:
            lines.append(f"  languages never trained on: {', '.join(self.unseen_languages)}")
        if self.labels_only_in_test:
            lines.append(f"  labels never trained on: {', '.join(self.labels_only_in_test)}")
        return lines

    def to_dict(self) -> dict:
        """For metrics.json ("dropped") and run.json; each dropped post as its id and language."""
        return {
            "rule": self.drop,
            "all": len(self.all),
            "kept": len(self.kept),
            "dropped": [[post.id, post.language] for post in self.dropped],
            "in_training_exact": self.exact,
            "in_training_same": self.same,
            "repeats": self.repeats.to_dict(),
            "seen_languages": list(self.seen_languages),
            "unseen_languages": list(self.unseen_languages),
            "labels_only_in_test": list(self.labels_only_in_test),
        }


def check_test(training: TrainingTexts | Sequence[Post], test: Sequence[Post], drop: str = "same") -> TestCheck:
    """Compare a test set with training; `drop` decides which posts are dropped: "same" (default), "exact" or "none".

    Raises `UserError` if no post is left: the test set is then the training file itself.
    """
    if drop not in ("same", "exact", "none"):
        raise UserError(f"--drop-known {drop}: is not one of same, exact, none")
    if not isinstance(training, TrainingTexts):
        training = TrainingTexts.of(training)
    exact = [_hash(post.text) in training.exact for post in test]
    same = [e or training.hold(post.text) for e, post in zip(exact, test, strict=True)]
    gone = {"same": same, "exact": exact, "none": [False] * len(test)}[drop]
    kept = [post for post, out in zip(test, gone, strict=True) if not out]
    if test and not kept:
        raise UserError(f"{test[0].file}: all {len(test):,} test posts were trained on; name a test file, or set "
                        "--drop-known none")  # fmt: skip
    languages = {post.language for post in test}
    labels = {post.label for post in test if post.label is not None}
    return TestCheck(
        all=list(test),
        kept=kept,
        dropped=[post for post, out in zip(test, gone, strict=True) if out],
        drop=drop,
        exact=sum(exact),
        same=sum(same),
        repeats=find_repeats(test, name="test"),
        seen_languages=tuple(sorted(languages & set(training.languages))),
        unseen_languages=tuple(sorted(languages - set(training.languages))),
        labels_only_in_test=tuple(sorted(labels - set(training.labels))),
    )


def refuse_unlearnt(check: TestCheck) -> None:
    """Raise `UserError` for a test label that no training post has: the model could never get these rows right."""
    for label in check.labels_only_in_test:
        rows = [post for post in check.all if post.label == label]
        raise UserError(f"{rows[0].place}: label '{label}' ({len(rows):,} test rows) occurs in no training post; "
                        "train with posts that have it, or take these rows out of the test")  # fmt: skip


def near_pairs(first: Sequence[Post], second: Sequence[Post], threshold: float = 0.5) -> list[tuple[int, int, float]]:
    """(index in `first`, index in `second`, Jaccard) of each post in `second` with its nearest in `first`, if near.

    Near means `threshold` or more. Jaccard = |A ∩ B| / |A ∪ B| over the sets of three-word runs (in a shorter
    post, all its words are one run); words are runs of letters and digits, case-folded; handles and links are kept.

    A near B shares threshold * |A| of A's runs or more, so one of the |A| - threshold * |A| + 1 rarest; the same holds
    for B. Only these are looked up, so words with which all posts begin do not make all pairs candidates.
    """
    twins: defaultdict[frozenset, list[int]] = defaultdict(list)  # of each set of runs, the posts that have it
    for index, post in enumerate(second):
        twins[frozenset(_runs(post.text))].append(index)
    often = Counter(run for runs in twins for run in runs)

    def rarest(runs: Collection[tuple]) -> list[tuple]:
        least = math.ceil(threshold * len(runs) - 1e-9)
        return sorted(runs, key=lambda run: (often[run], run))[: len(runs) - least + 1]

    where: defaultdict[tuple, list[frozenset]] = defaultdict(list)
    for runs in twins:
        for run in rarest(runs):
            where[run].append(runs)
    nearest: dict[frozenset, tuple[float, int]] = {}
    for index, post in enumerate(first):
        own = _runs(post.text)
        for runs in set().union(*(where[run] for run in rarest(own) if run in where)):
            score = _jaccard(own, runs)
            if score >= threshold and score > nearest.get(runs, (0.0, 0))[0]:
                nearest[runs] = score, index
    return sorted(((index, other, score) for runs, (score, index) in nearest.items() for other in twins[runs]),
                  key=lambda pair: pair[1])


def _jaccard(first: Collection[tuple], second: Collection[tuple]) -> float:
    return len(first & second) / len(first | second)


def _runs(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", _fold(unicodedata.normalize("NFKC", text)))
    return {tuple(words[i : i + 3]) for i in range(max(1, len(words) - 2))} if words else set()
