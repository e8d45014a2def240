"""What must not leave with a model: the examples of its codebook, which may be posts, and the texts it was trained on.

    Private.of(run, codebook)     what is looked for
    .public(codebook)             the codebook as it may be shown: made first, so that a card is made from nothing else
    .check(folder, ...)           the finished files, searched; a find is an error, and the export is not written

A passage is private where it is one of the following and more than a word. Case, spaces, and the escapes of JSON, HTML
and Markdown make no difference.

    an example        whole, or `RUN` words in a row of a longer one, whatever signs stand between them
    a training text   by its hash. Of its training texts a run keeps hashes of what `normalise` makes of them; so every
                      passage of up to `WORDS` words is normalised, hashed and compared, and every passage within a line
                      that begins with the line or at a sign, however long it is

So the search proves, of each text file, that no example and no training text stands in it. It cannot prove that no part
of a training text does, nor one with other words or signs, since a hash tells whole texts only; and it says nothing of
what the weights can repeat. Passed over are files that are the base's, or made of the base's alone, since nothing of
the run is in them, and words that stand there anyhow: in a card without codebook and names, in labels, in the
questions that this project ships. A post that says "How to use it" does not forbid that heading.
"""

import codecs
import html
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from hashlib import sha256
from pathlib import Path

import regex

from common.errors import UserError
from common.files import read_json, sha256_file
from data.checks import EMAIL, HANDLE, LINK, MASKS, TrainingTexts, normalise
from data.codebook import DEFAULTS, PLACEHOLDERS, SHIPPED, Codebook, load_codebook
from finetune.run_folder import RunFolder

EXAMPLE, PASSAGE = "[example left out]", "[passage left out]"
RUN, RUN_UNSPACED = 5, 12  # words in a row; characters in scripts that put no spaces between words
WORD_UNSPACED = 4  # so many characters of these may be one word
WORDS = 60  # a passage of so many words may begin anywhere; 280 characters hold fewer
# A word; in scripts without spaces a character, as a symbol is.
UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{So}]"
WORD = regex.compile(rf"{UNSPACED}\p{{M}}*|(?:(?!{UNSPACED})[\p{{L}}\p{{M}}\p{{N}}])+")
PIECE = regex.compile(rf"{WORD.pattern}|\S")
ESCAPES = re.compile(r"""\\(?:u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([nrt])|(["'\\|/<>*_`#]))""")
HEAD = 4096  # bytes, by which a file is known not to be text

Words = tuple[str, ...]
Span = tuple[int, int]


@dataclass(frozen=True)
class Private:
    """Runs of words from the examples by their length, and hashes of training texts."""

    runs: dict[int, frozenset[Words]]
    hashes: frozenset[str]

    @classmethod
    def of(cls, run: RunFolder, codebook: Codebook) -> "Private":
        """Of a run. Raises `UserError` where its folder lacks the hashes of its training texts."""
        texts = TrainingTexts.from_dict(read_json(run.path / "training_texts.json"))
        return cls(runs_of(text for _, text in codebook.examples), texts.same)

    def public(self, codebook: Codebook) -> Codebook:
        """The codebook with `EXAMPLE` in each example's place and `PASSAGE` in that of each private passage.

        Labels stay, and passages that stand in a label: they are what the model answers.
        """
        labels = as_words(" | ".join(codebook.labels))

        def shown(text: str, mark: str | None = None) -> str:
            parts = text.split(mark) if mark else [text]
            for place, part in enumerate(parts):
                for start, end in reversed(self.passages(part, labels)):
                    part = part[:start] + PASSAGE + part[end:]
                parts[place] = part
            return (mark or "").join(parts)

        texts = {key: shown(getattr(codebook, key), mark) for key, mark in PLACEHOLDERS.items()}
        return replace(codebook, name=shown(codebook.name), **texts,
                       definitions={label: shown(text) for label, text in codebook.definitions.items()},
                       examples=tuple((label, EXAMPLE) for label, _ in codebook.examples))

    def check(self, folder: Path, copied: Collection[Path], known: str) -> None:
        """Raise `UserError` where a text file in `folder` holds a private passage that is not in the text `known`.

        copied: files whose copies are passed over.
        """
        originals, known = {sha256_file(path) for path in copied}, as_words(known)
        for path in sorted(folder.iterdir()):
            if not is_text(path) or sha256_file(path) in originals:
                continue
            found = self.lines(path.read_text(encoding="utf-8"), known)
            if found:
                raise UserError(f"{path.name}: line {found[0]} would publish words of an example or of a training "
                                "post, so nothing was written; let no name be one (--name, --base-name, data files)")

    def lines(self, text: str, known: str = "") -> list[int]:
        """The lines of a file's text, from 1 up, in which private passages begin, with or without its escapes."""
        plain = unescaped(text)
        found = {plain.count("\n", 0, start) + 1 for start, _ in self.passages(plain, known)}
        pairs = zip(text.split("\n"), plain.split("\n"), strict=True)
        escaped = {number: line for number, (line, other) in enumerate(pairs, 1) if line != other}
        return sorted(found | {number for number, line in escaped.items() if self.passages(line, known)})

    def passages(self, text: str, known: str = "") -> list[Span]:
        """Where private passages begin and end, from left to right, none overlapping; none that is in `known`."""
        found = sorted(span for span in [*self._of_examples(text), *self._of_training(text)]
                       if as_words(text[slice(*span)]) not in known + own_words())
        merged: list[Span] = []
        for start, end in found:
            if merged and start <= merged[-1][1]:
                merged[-1] = merged[-1][0], max(end, merged[-1][1])
            else:
                merged.append((start, end))
        return merged

    def _of_examples(self, text: str) -> Iterator[Span]:
        places = [match.span() for match in WORD.finditer(text)]
        words = tuple(folded(text[start:end]) for start, end in places)
        for length, runs in self.runs.items():
            for first in range(len(words) - length + 1):
                if words[first : first + length] in runs:
                    yield places[first][0], places[first + length - 1][1]

    def _of_training(self, text: str) -> Iterator[Span]:
        if not self.hashes:
            return
        text = without_handles(text)
        places = [match.span() for match in PIECE.finditer(text)]
        pieces = [folded(text[start:end]) for start, end in places]
        # 0 for a sign, 1 for a character of a script without spaces, as much as a word may have of these for a word
        weights = [0 if not WORD.match(piece) else 1 if is_unspaced(piece) else WORD_UNSPACED for piece in pieces]
        for first, (start, _) in enumerate(places):
            opens = not first or not weights[first - 1] * weights[first] or "\n" in text[places[first - 1][1] : start]
            line_ends = text.find("\n", start) % (len(text) + 1) if opens else start
            digest, weight, count = sha256(), 0, 0
            for last in range(first, len(places)):
                count += weights[last] > 0
                if count > WORDS and places[last][0] >= line_ends:
                    break
                digest.update(pieces[last].encode())
                weight += weights[last]
                if weight > WORD_UNSPACED and digest.hexdigest()[:16] in self.hashes:  # as TrainingTexts keeps them
                    yield start, places[last][1]


def without_handles(text: str) -> str:
    """Spaces where `normalise` takes masks, addresses, links and handles out; in lower case, and as long as before."""
    def spaces(found: re.Match) -> str:
        return " " * len(found[0])

    lower = "".join(char.lower() if len(char.lower()) == 1 else char for char in MASKS.sub(spaces, text))
    for pattern in (MASKS, EMAIL, LINK, HANDLE):
        lower = pattern.sub(spaces, lower)
    return lower


def runs_of(texts: Iterable[str]) -> dict[int, frozenset[Words]]:
    """Of each text longer than a word all its words in a row, or all runs of `RUN` of them, by their length."""
    runs = defaultdict(set)
    for words in map(words_of, texts):
        if is_longer_than_a_word(words):
            length = min(len(words), RUN_UNSPACED if any(map(is_unspaced, words)) else RUN)
            runs[length] |= {words[start : start + length] for start in range(len(words) - length + 1)}
    return {length: frozenset(found) for length, found in runs.items()}


@cache
def own_words() -> str:
    """The words that the shipped codebooks, and defaults, ask with: nobody's posts."""
    books = [load_codebook(path) for path in sorted(SHIPPED.glob("*.toml"))]
    return as_words("\n".join([*DEFAULTS.values(), *(getattr(book, key) for book in books for key in PLACEHOLDERS)]))


@cache
def folded(word: str) -> str:
    """A word or sign as `normalise` leaves it within a text."""
    return normalise(word)


def words_of(text: str) -> Words:
    """The words of a text, folded: `words_of("A b-C!") -> ("a", "b", "c")`."""
    return tuple(folded(match[0]) for match in WORD.finditer(text))


def as_words(text: str) -> str:
    """The same as one string in which words can be searched: `as_words("A b-C!") -> " a b c "`."""
    return f" {' '.join(words_of(text))} "


def is_unspaced(word: str) -> bool:
    """Whether it is one character of a script without spaces, or a symbol."""
    return regex.match(UNSPACED, word) is not None


def is_longer_than_a_word(words: Words) -> bool:
    """Whether these are more than one word; up to `WORD_UNSPACED` characters of a script without spaces are one."""
    return len(words) > (WORD_UNSPACED if all(map(is_unspaced, words)) else 1)


def unescaped(text: str) -> str:
    """A file's text without the escapes of JSON, Markdown and HTML; it has as many lines as before."""
    def char(found: re.Match) -> str:
        return chr(int(found[1] or found[2], 16)) if found[1] or found[2] else " " if found[3] else found[4]

    lines = [html.unescape(ESCAPES.sub(char, line)).replace("\n", " ") for line in text.split("\n")]
    return "\n".join(lines).encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def is_text(path: Path) -> bool:
    """Whether a file is UTF-8 text, by its beginning."""
    with open(path, "rb") as handle:
        head = handle.read(HEAD)
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return b"\0" not in head
