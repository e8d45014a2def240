"""Added words of a tokenizer.json: which of them control the model, and how the others are cut out of a text.

An added word is one id, whatever the merges say. Most mark something that only a program may write: the beginning of a
text, the end of a turn. `special` in the file should say so, but files of derived models often say `special: false` of
such words ("<|im_start|>"), and a post that holds one would then be able to end its own turn. So a word is a **control
word**, which no text ever becomes, where any of these holds:

- the file marks it special;
- a file beside it does: as special in `added_tokens_decoder`, under a key like `eos_token`, or by its id;
- it is a whole literal of the chat template and not just letters or white space ("### Response:", not "user");
- it has a marker's form: `<...>` or `[...]`, with a letter or digit and no white space in it ("<think>", "[INST]").

All others are ordinary added words ("haha", a run of spaces): a text that holds one gets its id, as in the reference.
The last rule may take an ordinary word for a control word, say "<user>" for a handle. That costs a few ids more for a
post which holds it; the other mistake would hand the conversation to whoever wrote the post. There is one exception: a
token that the merges make of a text anyway is an ordinary one, whatever is said of it, and no prompt is built with it.

How words are cut is `tokenizers`' way (`AddedVocabulary`, with `encode_special_tokens`): words that are not
`normalized` first, in the text as it is; then what lies between is normalised, and the others are looked for in that,
normalised themselves. The leftmost match wins, then the longest. A control word's match is passed over whole, so that
no ordinary word is found inside it.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import regex

from common.errors import UserError
from model.tokenizer.bpe import LONGEST_TOKEN, MOST_IDS
from model.tokenizer.neighbours import Neighbours, is_text
from model.tokenizer.pattern import short

MARKER = regex.compile(r"<\S*[\p{L}\p{N}]\S*>|\[\S*[\p{L}\p{N}]\S*\]")
# As Rust's \w and \s have them.
WORD_CHARACTER = regex.compile(r"[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]")
SPACES_BEFORE, SPACES_AFTER = regex.compile(r"(?r)\s*"), regex.compile(r"\s*")
FLAGS = ("special", "normalized", "lstrip", "rstrip", "single_word")


@dataclass(frozen=True)
class AddedWord:
    """One entry of `added_tokens`. control: no text becomes it. special: as the file says; such a word is not cut out
    of a text even where it is an ordinary token, which the merges make."""

    content: str
    id: int
    special: bool
    normalized: bool
    lstrip: bool
    rstrip: bool
    single_word: bool
    control: bool = False


def read_added_words(file: Path, entries, beside: Neighbours) -> list[AddedWord]:
    """The `added_tokens` of a tokenizer.json, control words marked; raises `UserError` naming the entry."""
    if not isinstance(entries, list | None):
        raise UserError(f"{file}: added_tokens: a list was expected")
    words, contents, ids = [], set(), set()
    for row, entry in enumerate(entries or []):
        entry = entry if isinstance(entry, dict) else {}
        content, id = entry.get("content"), entry.get("id")
        if not is_text(content) or isinstance(id, bool) or not isinstance(id, int):
            raise UserError(f"{file}: added_tokens: entry {row} has no 'id' and 'content'")
        wrong = [flag for flag in FLAGS if not isinstance(entry.get(flag), bool)]
        if wrong:
            raise UserError(f"{file}: added_tokens: {short(content)}: {wrong[0]} must be true or false")
        if not content or not 0 <= id < MOST_IDS:
            raise UserError(f"{file}: added_tokens: entry {row} "
                            + ("is an empty word" if not content else "has an id that no vocabulary has"))
        if len(content) > LONGEST_TOKEN:
            raise UserError(f"{file}: added_tokens: {short(content)} has {len(content):,} characters, more than a word")
        if content in contents or id in ids:
            raise UserError(f"{file}: added_tokens: {short(content)} (id {id}) is there twice")
        contents.add(content)
        ids.add(id)
        word = AddedWord(content, id, **{flag: entry[flag] for flag in FLAGS})
        words.append(replace(word, control=word.special or beside.marks(content, id) or has_form(content)))
    return words


def has_form(content: str) -> bool:
    """Whether a word looks like a marker: `has_form("<|im_start|>") -> True`, `has_form("[...]") -> False`."""
    return MARKER.fullmatch(content.strip()) is not None


class Cutter:
    """Words that are looked for together: `cut(text)` gives (start, text, None) and (start, "", id) in turn.

    texts: what each word looks like in the text that is searched.
    """

    def __init__(self, words: list[AddedWord], texts: list[str]):
        self._words = dict(zip(texts, words, strict=True))
        lengths = defaultdict(set)
        for text in texts:
            lengths[text[0]].add(len(text))
        self._lengths = {char: sorted(found, reverse=True) for char, found in lengths.items()}
        self._cuts = not all(map(_passed_over, words))

    def cut(self, text: str) -> Iterator[tuple[int, str, int | None]]:
        """Each added word as its id, and what lies between them as text, which is never empty."""
        done = 0
        for start, stop, word in self._matches(text) if self._cuts else ():
            if _passed_over(word) or (word.single_word and not _is_alone(text, start, stop)):
                continue
            if word.lstrip:
                start = max(SPACES_BEFORE.match(text, 0, start).start(), done)
            if word.rstrip:
                stop = SPACES_AFTER.match(text, stop).end()
            if done < start:
                yield done, text[done:start], None
            if start < stop:  # else all of it was white space that the word before took
                yield start, "", word.id
            done = stop
        if done < len(text):
            yield done, text[done:], None

    def _matches(self, text: str) -> Iterator[tuple[int, int, AddedWord]]:
        end = 0
        for start, char in enumerate(text):
            if char not in self._lengths or start < end:
                continue
            for length in self._lengths[char]:
                word = self._words.get(text[start : start + length])
                if word is not None and start + length <= len(text):
                    end = start + length
                    yield start, end, word
                    break


class AddedWords:
    """A text, cut at its added words: those found in it as it is, then those found in it normalised."""

    def __init__(self, file: Path, words: list[AddedWord], normalise: Callable[[str], str]):
        self._normalise = normalise
        raw = [word for word in words if not word.normalized]
        normalised = [word for word in words if word.normalized]
        texts = [normalise(word.content) for word in normalised]
        seen: dict[str, str] = {}
        for word, text in zip(normalised, texts, strict=True):
            if text in seen:
                raise UserError(f"{file}: added_tokens: {short(seen[text])} and {short(word.content)} are one word "
                                "once they are normalised; only one of them may stand there")
            seen[text] = word.content
        self._raw = Cutter(raw, [word.content for word in raw])
        self._normalised = Cutter(normalised, texts)

    def __call__(self, text: str) -> Iterator[tuple[str, bool, int | None]]:
        """(normalised text, whether it begins the whole text, None) and ("", False, id of a word) in turn."""
        for start, part, id in self._raw.cut(text):
            if id is not None:
                yield "", False, id
                continue
            for inner, piece, id in self._normalised.cut(self._normalise(part)):
                yield piece, start + inner == 0, id


def _passed_over(word: AddedWord) -> bool:
    return word.control or word.special


def _is_alone(text: str, start: int, stop: int) -> bool:
    """Whether no letter or digit touches text[start:stop]."""
    around = text[max(start - 1, 0) : start], text[stop : stop + 1]
    return not any(WORD_CHARACTER.match(char) for char in around if char)
