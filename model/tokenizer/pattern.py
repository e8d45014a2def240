"""The regular expressions of a tokenizer.json: which are run, and for how long.

A file may come from anyone, and two things can go wrong with its patterns. They may mean something else here than in
the reference, whose engine is Oniguruma: the two agree on what every published pattern of a Llama consists of, and
differ on `^`, `\\w`, `\\b`, nested classes, `{3}+` and more. And they may never end: `(a|a)+[bc]` tries every way of
cutting a run of `a` in two before it gives up. So a pattern is taken if it is made of these parts alone, and refused by
name otherwise:

    literals   . \\r \\n \\t \\s \\S \\d \\D \\p{L} (a general category, or one of SCRIPTS)   escaped punctuation
    [...]      of the same, without sets in sets
    ( ) (?: )  alternatives; no repetition but `?`        (?!...)   `(?i:'s|'t|'re|'ve|'m|'ll|'d)`
    ? * + {m} {m,} {m,n}   of one character, up to MOST_REPETITIONS; `?+`, `*+`, `++`, `??`, `*?`, `+?`

What is left takes a power of the text's length at worst. A pattern that takes longer than SECONDS of processor time,
and SECONDS_PER_CHARACTER for each character of the text, is stopped.
"""

import time

import regex

from common.errors import UserError

LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
DIGIT_PATTERN = r"\p{N}"
PUBLISHED = (LLAMA3_PATTERN, GPT2_PATTERN, DIGIT_PATTERN)
# llama.cpp's names of what cuts a text (`tokenizer.ggml.pre`): patterns that are applied one after the other.
PRE_PATTERNS = {"llama-bpe": (LLAMA3_PATTERN,), "smollm": (DIGIT_PATTERN, GPT2_PATTERN), "gpt-2": (GPT2_PATTERN,)}

SCRIPTS = "Arabic|Cyrillic|Devanagari|Greek|Han|Hangul|Hebrew|Hiragana|Katakana|Latin|Thai"
MOST_CHARACTERS = 2_000  # of one pattern; the longest published one has a few hundred
MOST_REPETITIONS = 1_000
MOST_NESTED = 20
SECONDS, SECONDS_PER_CHARACTER = 5.0, 1e-4

_SIGN = r"\\[rnt]|\\[!-/:-@\[-`{-~]"
_KIND = rf"\\[sSdD]|\\[pP]\{{(?:[CLMNPSZ][a-z]?|{SCRIPTS})\}}"
_IN_CLASS = rf"(?:{_SIGN}|(?:{_KIND})(?!-)|(?!&&|--|\|\||~~|-\\[sSdDpP])[^\\\[\]])"
_PARTS = regex.compile("|".join((
    r"(?P<suffixes>\(\?i:'s\|'t\|'re\|'ve\|'m\|'ll\|'d\))",
    r"(?P<open>\(\?:|\(\?!|\((?!\?))",
    r"(?P<close>\))",
    r"(?P<repeat>[?*+][?+]?|\{\d+(?:,\d*)?\}(?![?+]))",
    r"(?P<or>\|)",
    rf"(?P<one>{_SIGN}|{_KIND}|\[\^?{_IN_CLASS}+\]|[^\\\[\](){{}}?*+|^$])",
)))


class Pattern:
    """One pattern and where it stands: `Pattern("t.json", "Split", r"\\d+").spans("a12b") -> [(1, 3)]`."""

    def __init__(self, where: str, text: str):
        """Raises `UserError`, naming what is not understood, for a pattern that is not made of the parts above."""
        self.where, self.text = where, text
        wrong = _wrong(text)
        if wrong:
            raise UserError(f"{where}: the pattern {short(text)} {wrong}; patterns like those of Llama, GPT-2 and "
                            "DeepSeek are understood")
        try:
            self._regex = regex.compile(text)
        except (regex.error, OverflowError) as error:
            raise UserError(f"{where}: the pattern {short(text)} is not understood ({error})") from error
        if self._regex.match(""):
            raise UserError(f"{where}: the pattern {short(text)} matches where there is no text; it must not")
        self._left = None if text in PUBLISHED else SECONDS

    def spans(self, piece: str) -> list[tuple[int, int]]:
        """Where it matches, in turn. Raises `UserError` if that takes too long."""
        if self._left is None:
            return [match.span() for match in self._regex.finditer(piece)]
        began = time.thread_time()
        self._left += SECONDS_PER_CHARACTER * len(piece)
        try:
            return [match.span() for match in self._regex.finditer(piece, timeout=max(self._left, 0.001))]
        except TimeoutError as error:
            raise UserError(f"{self.where}: the pattern {short(self.text)} takes too long (stopped at a text of "
                            f"{len(piece):,} characters); give a tokenizer with a published pattern") from error
        finally:
            self._left = min(SECONDS, self._left - (time.thread_time() - began))


def _wrong(text: str) -> str | None:
    """What is wrong with a pattern, in words that follow its name."""
    if len(text) > MOST_CHARACTERS:
        return f"has {len(text):,} characters, more than {MOST_CHARACTERS:,}"
    place, groups, before = 0, [], "or"
    while place < len(text):
        part = _PARTS.match(text, place)
        if part is None:
            return f"has {short(text[place : place + 8])} at character {place + 1}, which is not understood here"
        kind, place = part.lastgroup, part.end()
        if kind == "open":
            groups.append(part[0])
            if len(groups) > MOST_NESTED:
                return f"nests more than {MOST_NESTED} groups"
        if kind == "close":
            if not groups:
                return "closes a group that is not open"
            kind = "look" if groups.pop() == "(?!" else "close"
        if kind == "repeat":
            if before != "one" and not (before in ("close", "suffixes") and part[0].startswith("?")):
                return f"repeats at character {part.start() + 1} what may not be repeated ({part[0]})"
            if any(int(count) > MOST_REPETITIONS for count in regex.findall(r"\d{1,9}", part[0])):
                return f"repeats more than {MOST_REPETITIONS:,} times ({short(part[0])})"
        before = kind
    return "leaves a group open" if groups else None


def short(value) -> str:
    """A value of a file as an error may show it: a text in quotes, escaped, at most 40 characters of it."""
    if isinstance(value, int) and abs(value) < 10**40:
        return str(value)
    if not isinstance(value, str):
        return {list: "(a list)", dict: "(an object)", float: "(a fraction)", int: "(a huge number)"}.get(
            type(value), str(value))
    return repr(value if len(value) <= 40 else value[:37] + "...")
