"""What happens to a text before byte-pair encoding: it is normalised, and cut; merges never cross a cut.

A tokenizer.json says both as chains of steps. Of normalisers, NFC is honoured, and the pair by which a Llama 2 puts
U+2581 before a text and in the place of spaces. Of steps that cut, those in use for Llama-type models are: `Split` (a
pattern), `Digits`, `ByteLevel` with its built-in GPT-2 pattern, and `Metaspace`, which writes U+2581 by itself. Each
step cuts the pieces of the one before. Steps cannot be joined into one pattern: after `Digits` has cut, the lookahead
in `\\s+(?!\\S)` sees the end of a piece where it would have seen a digit.

Patterns run in the `regex` module (which comes with tiktoken). It reads the same classes \\p{L}, \\p{N} and \\s as
tokenizers' Oniguruma for every character up to Unicode 14; characters added since may be letters for the newer of the
two only. NFC is Python's; tokenizers' tables are older, and do not put the marks of the newest scripts (Yezidi,
Sogdian) in order.
"""

import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import regex

from common.errors import UserError
from model.tokenizer.pattern import DIGIT_PATTERN, GPT2_PATTERN, PRE_PATTERNS, Pattern, short

SPACE = "▁"  # U+2581, which stands for a space in the vocabulary of a Llama 2
MOST_STEPS = 20
Normaliser = Callable[[str], str]


@dataclass(frozen=True)
class Spaces:
    """How `Metaspace` writes spaces: as U+2581, with one before a text ("always", "first" or "never")."""

    before: str
    cut: bool  # before each U+2581

    def __call__(self, text: str, first: bool) -> str:
        text = text.replace(" ", SPACE)
        wanted = self.before == "always" or (self.before == "first" and first)
        return SPACE + text if wanted and text and not text.startswith(SPACE) else text


class Splitter:
    """A chain of patterns: `Splitter([(Pattern("", LLAMA3_PATTERN), True)])("Ab 12345") -> "Ab", " ", "123", "45"`.

    Each step is (pattern, keep): its matches are pieces, and what lies between them is a piece too if `keep`, else
    dropped. spaces: what is done to the text before. byte_level: whether bytes are merged, or characters. `pre` is
    llama.cpp's name for the chain, where it has one that is known here; `whole` is the pattern, where the chain is one
    published pattern that tiktoken may run by itself.
    """

    def __init__(self, steps: list[tuple[Pattern, bool]], spaces: Spaces | None = None, byte_level: bool = True):
        self.steps, self.spaces, self.byte_level = steps, spaces, byte_level
        patterns = tuple(pattern.text for pattern, keep in steps if keep)
        same = spaces is None and byte_level and len(patterns) == len(steps)
        self.pre = next((name for name, known in PRE_PATTERNS.items() if same and patterns == known), None)
        self.whole = patterns[0] if self.pre is not None and len(patterns) == 1 else None

    def __call__(self, text: str, first: bool = True) -> Iterator[str]:
        """The pieces of a text; `first`: it stands at the beginning, not behind an added word."""
        pieces: Iterator[str] = iter([self.spaces(text, first) if self.spaces else text])
        for pattern, keep in self.steps:
            pieces = _cut(pieces, pattern, keep)
        return (piece for piece in pieces if piece)


def _cut(pieces: Iterator[str], pattern: Pattern, keep: bool) -> Iterator[str]:
    for piece in pieces:
        end = 0
        for start, stop in pattern.spans(piece):
            if keep and start > end:
                yield piece[end:start]
            if stop > start:
                yield piece[start:stop]
            end = stop
        if keep and end < len(piece):
            yield piece[end:]


def read_normalisers(where: str, normalizer) -> list[Normaliser]:
    """The `normalizer` of a tokenizer.json as functions, to be called in turn; raises `UserError` for unknown ones."""
    found: list[Normaliser] = []
    for step in flatten(where, "normalizer", normalizer, "normalizers"):
        if step["type"] == "NFC":
            found.append(lambda text: unicodedata.normalize("NFC", text))
        elif step["type"] == "Prepend" and step.get("prepend") == SPACE:
            found.append(lambda text: SPACE + text if text else text)
        elif (step["type"], step.get("pattern"), step.get("content")) == ("Replace", {"String": " "}, SPACE):
            found.append(lambda text: text.replace(" ", SPACE))
        else:
            raise UserError(f"{where}: normalizer: {short(step['type'])} is not supported; only NFC, or none, is, and "
                            "U+2581 by Prepend or Replace as in Llama 2")
    return found


def read_splitter(where: str, pre_tokenizer, writes_spaces: bool = False) -> Splitter:
    """The `pre_tokenizer` of a tokenizer.json as a `Splitter`; raises `UserError` for unknown steps.

    writes_spaces: the normaliser has put U+2581 in the place of spaces.
    """
    steps, chain = [], flatten(where, "pre_tokenizer", pre_tokenizer, "pretokenizers")
    last = chain[-1]["type"] if chain else "none"
    spaces = _spaces(where, chain.pop(0)) if chain and chain[0]["type"] == "Metaspace" else None
    if [last == "ByteLevel", writes_spaces, spaces is not None].count(True) != 1:
        raise UserError(f"{where}: pre_tokenizer: ends in {short(last)}; a byte-level tokenizer ends in 'ByteLevel', "
                        "and one of Llama 2 has U+2581 for spaces, by 'Metaspace' or by its normalizer")
    if spaces is not None and spaces.cut:
        steps.append((Pattern(where, f"{SPACE}?[^{SPACE}]+|{SPACE}"), True))
    for index, step in enumerate(chain):
        reader = _STEPS.get(step["type"])
        if reader is None or (step["type"] == "ByteLevel" and index < len(chain) - 1):
            raise UserError(f"{where}: pre_tokenizer: {short(step['type'])} is not supported here; Split, Digits, "
                            "Metaspace at the beginning and ByteLevel at the end are")
        steps += reader(f"{where}: pre_tokenizer: {step['type']}", step)
    return Splitter(steps, spaces, last == "ByteLevel")


def flatten(where: str, name: str, step, key: str) -> list[dict]:
    """A step, a `Sequence` of steps (nested or not) or nothing, as a list of objects with a 'type'."""
    found, todo = [], [] if step is None else [step]
    while todo:
        step = todo.pop(0)
        kind = step.get("type") if isinstance(step, dict) else None
        inner = step.get(key) if kind == "Sequence" else []
        if not isinstance(kind, str) or not isinstance(inner, list):
            raise UserError(f"{where}: {name}: holds something that is no step; an object with a 'type' was expected")
        if kind != "Sequence":
            found.append(step)
        todo = [*inner, *todo]
        if len(found) + len(todo) > MOST_STEPS:
            raise UserError(f"{where}: {name}: has more than {MOST_STEPS} steps; a tokenizer of a Llama has a few")
    return found


def _spaces(where: str, step: dict) -> Spaces:
    before = step.get("prepend_scheme", "always")
    before = "never" if step.get("add_prefix_space") is False else before
    cut = step.get("split", True)
    if before not in ("always", "first", "never") or not isinstance(cut, bool) or step.get("replacement") != SPACE:
        raise UserError(f"{where}: pre_tokenizer: Metaspace: must have U+2581 as its replacement, true or false as "
                        "split, and always, first or never as prepend_scheme")
    return Spaces(before, cut)


def _split_step(where: str, step: dict) -> list[tuple[Pattern, bool]]:
    pattern, behavior, invert = step.get("pattern"), step.get("behavior"), step.get("invert", False)
    kind, value = next(iter(pattern.items()), (None, None)) if isinstance(pattern, dict) else (None, None)
    if kind not in ("Regex", "String") or not isinstance(value, str) or not value:
        raise UserError(f"{where}: 'pattern' must be {{'Regex': ...}} or {{'String': ...}}")
    if behavior != "Isolated" and not (behavior == "Removed" and invert is True):
        raise UserError(f"{where}: behavior {short(behavior)} is not supported; Isolated is")
    text = value if kind == "Regex" else regex.sub(r"([!-/:-@\[-`{-~])", r"\\\1", value)
    return [(Pattern(where, text), behavior == "Isolated")]


def _digits_step(where: str, step: dict) -> list[tuple[Pattern, bool]]:
    return [(Pattern(where, DIGIT_PATTERN if step.get("individual_digits") else r"\p{N}+"), True)]


def _byte_level_step(where: str, step: dict) -> list[tuple[Pattern, bool]]:
    if step.get("add_prefix_space", True):
        raise UserError(f"{where}: add_prefix_space is not supported; a text would not come back as it was")
    return [(Pattern(where, GPT2_PATTERN), True)] if step.get("use_regex", True) else []


_STEPS = {"Split": _split_step, "Digits": _digits_step, "ByteLevel": _byte_level_step}
