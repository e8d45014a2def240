"""Where a text may be cut before byte-pair encoding: merges happen inside a piece, never across two.

A tokenizer.json describes this as a chain of steps, each of which cuts the pieces of the one before. Llama-type models
use three kinds of step, which are honoured here: `Split` (a pattern), `Digits`, and `ByteLevel` with its built-in GPT-2
pattern. Steps cannot be joined into one pattern: after `Digits` has cut, the lookahead in `\\s+(?!\\S)` sees the end of
a piece where it would have seen a digit.

The patterns run in the `regex` module (which comes with tiktoken). It reads the same classes \\p{L}, \\p{N} and \\s as
tokenizers' Oniguruma for every character up to Unicode 14; characters added since then may be letters only for the
newer of the two.
"""

import unicodedata
from collections.abc import Iterator

import regex

from common.errors import UserError

LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


class Splitter:
    """A chain of patterns: `Splitter([(LLAMA3_PATTERN, True)])("Ab 12345") -> "Ab", " ", "123", "45"`.

    Each step is (pattern, keep): its matches are pieces, and the text between them is a piece too if `keep`, else
    dropped. `whole` is the pattern if the chain is one published pattern that tiktoken may run by itself, else None.
    """

    def __init__(self, steps: list[tuple[str, bool]], nfc: bool = False):
        self.nfc = nfc
        self.steps = [(regex.compile(pattern), keep) for pattern, keep in steps]
        alone = len(steps) == 1 and not nfc and steps[0][0] in (LLAMA3_PATTERN, GPT2_PATTERN)
        self.whole = steps[0][0] if alone else None

    def __call__(self, text: str) -> Iterator[str]:
        pieces: Iterator[str] = iter([unicodedata.normalize("NFC", text) if self.nfc else text])
        for pattern, keep in self.steps:
            pieces = _cut(pieces, pattern, keep)
        return (piece for piece in pieces if piece)


def _cut(pieces: Iterator[str], pattern: regex.Pattern, keep: bool) -> Iterator[str]:
    for piece in pieces:
        end = 0
        for match in pattern.finditer(piece):
            if keep and match.start() > end:
                yield piece[end : match.start()]
            if match.end() > match.start():
                yield match.group()
            end = match.end()
        if keep and end < len(piece):
            yield piece[end:]


def read_splitter(where: str, normalizer: dict | None, pre_tokenizer: dict | None) -> Splitter:
    """The `normalizer` and `pre_tokenizer` of a tokenizer.json as a `Splitter`; raises `UserError` for unknown ones."""
    normalizers = _flatten(normalizer, "normalizers")
    for step in normalizers:
        if step.get("type") != "NFC":
            raise UserError(f"{where}: normalizer: '{step.get('type')}' is not supported; only NFC, or none, is")
    steps, chain = [], _flatten(pre_tokenizer, "pretokenizers")
    if not chain or chain[-1].get("type") != "ByteLevel":
        found = chain[-1].get("type") if chain else "none"
        raise UserError(f"{where}: pre_tokenizer: ends in '{found}'; a byte-level tokenizer ends in 'ByteLevel'")
    for index, step in enumerate(chain):
        reader = _STEPS.get(step.get("type"))
        if reader is None or (step["type"] == "ByteLevel" and index < len(chain) - 1):
            raise UserError(f"{where}: pre_tokenizer: '{step.get('type')}' is not supported here; Split, Digits and "
                            "a ByteLevel at the end are")
        steps += reader(where, step)
    try:
        return Splitter(steps, nfc=bool(normalizers))
    except regex.error as error:
        raise UserError(f"{where}: pre_tokenizer: Split: the pattern is not understood ({error})") from error


def _flatten(step: dict | None, key: str) -> list[dict]:
    """A step, a `Sequence` of steps (nested or not) or nothing, as a list."""
    if step is None:
        return []
    if not isinstance(step, dict):
        return [{"type": repr(step)}]
    if step.get("type") == "Sequence":
        return [inner for outer in step.get(key) or [] for inner in _flatten(outer, key)]
    return [step]


def _split_step(where: str, step: dict) -> list[tuple[str, bool]]:
    pattern, behavior, invert = step.get("pattern"), step.get("behavior"), bool(step.get("invert"))
    if not isinstance(pattern, dict) or not isinstance(next(iter(pattern.values()), None), str):
        raise UserError(f"{where}: pre_tokenizer: Split: 'pattern' must be {{'Regex': ...}} or {{'String': ...}}")
    kind, value = next(iter(pattern.items()))
    if kind not in ("Regex", "String"):
        raise UserError(f"{where}: pre_tokenizer: Split: a pattern of kind '{kind}' is not supported")
    if behavior != "Isolated" and not (behavior == "Removed" and invert):
        raise UserError(f"{where}: pre_tokenizer: Split: behavior '{behavior}' is not supported; Isolated is")
    return [(value if kind == "Regex" else regex.escape(value), behavior == "Isolated")]


def _digits_step(where: str, step: dict) -> list[tuple[str, bool]]:
    return [(r"\p{N}" if step.get("individual_digits") else r"\p{N}+", True)]


def _byte_level_step(where: str, step: dict) -> list[tuple[str, bool]]:
    if step.get("add_prefix_space", True):
        raise UserError(f"{where}: pre_tokenizer: ByteLevel: add_prefix_space is not supported; a text would not "
                        "come back as it was")
    return [(GPT2_PATTERN, True)] if step.get("use_regex", True) else []


_STEPS = {"Split": _split_step, "Digits": _digits_step, "ByteLevel": _byte_level_step}
