"""Patterns of tokenizer.json files: published ones cut as in `tokenizers`, those that could hang are refused.

Deliberate break: in `model/tokenizer/pattern.py` let `_wrong` allow any repetition of a group, or leave `timeout=` out
of `Pattern.spans` (the test then takes hours: stop it).
"""

import random
import re

import pytest

from common.errors import UserError
from model.tokenizer import pattern
from model.tokenizer.pattern import GPT2_PATTERN, LLAMA3_PATTERN, Pattern
from tests.model.tokenizer_cases import TRICKY, random_strings

SUFFIXES = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
LOWER, UPPER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]", r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
SIGN = r"[^\r\n\p{L}\p{N}]"
PUBLISHED = {
    "Llama 3": LLAMA3_PATTERN,
    "GPT-2, SmolLM": GPT2_PATTERN,
    "Qwen 2": LLAMA3_PATTERN.replace(r"\p{N}{1,3}", r"\p{N}"),
    "o200k": rf"{SIGN}?{UPPER}*{LOWER}+{SUFFIXES}?|{SIGN}?{UPPER}+{LOWER}*{SUFFIXES}?"
             r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "Mistral Nemo": rf"{SIGN}?{UPPER}*{LOWER}+|{SIGN}?{UPPER}+{LOWER}*|\p{{N}}"
                    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "DeepSeek, lines": r"[\r\n]",
    "DeepSeek, letters": r"\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-Ֆ]+",
    "DeepSeek, signs": r"\s?[!-/:-~！-／：-～‘-‟　-。]+",
    "DeepSeek, Chinese": "[一-龥ࠀ-一가-퟿]+",
    "DeepSeek V3": r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
                   r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "Falcon": "[0-9][0-9][0-9]",
    "possessive": r"[^\r\n\p{L}\p{N}]?+\p{L}++|\d{2,}|\s*+\S",
    "lazy": r"a+?b|\p{Han}{2,3}|(?:x|y)?z|\P{L}\D",
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_patterns_cut_as_the_reference_does(name):
    from tokenizers import Regex, pre_tokenizers

    ours, theirs = Pattern("t", PUBLISHED[name]), pre_tokenizers.Split(Regex(PUBLISHED[name]), "removed", invert=True)
    texts = [*TRICKY, *random_strings(1_500), "a1b22 x333 aab aaab xz yz 漢字漢字 ÉCOLE École iPhone's DON'T"]
    for text in texts:
        assert [text[start:end] for start, end in ours.spans(text)] == [
            piece for piece, _ in theirs.pre_tokenize_str(text)], text


REFUSED = {
    "may not be repeated": ["(a|a)+[bc]", "(?:a+)+b", "(?:a?){9}", "a**", "*a", "(?!a)?b", SUFFIXES + "*"],
    "repeats more than 1,000 times": ["a{1001}", "a{1,99999999999}"],
    "leaves a group open": ["(a"], "closes a group that is not open": ["a)"],
    "nests more than 20 groups": ["(" * 21 + "a" + ")" * 21], "has 2,001 characters": ["a|" * 1000 + "b"],
    "at character 1, which is not understood here": [
        "[a", "[[a]]", "[]a]", "[a&&b]", r"[a-\s]", r"\w+", r"\bx", "^a", "$", "{", "(?<=a)b", "(?=a)b", "(?i:ss)",
        r"\p{Punct}", r"\p{^L}", "(?P<x>a)", "(?m:a)", "(?R)", "(?#a)"],
    "at character 2, which is not understood here": ["a{3}+", "a{,3}", r"(\1a)"],
    "matches where there is no text": ["x*", "(?!a)", "a|", "()"],
    "is not understood (": ["[z-a]", "a{3,1}"],
}  # fmt: skip


@pytest.mark.parametrize("words, text", [(words, text) for words, texts in REFUSED.items() for text in texts])
def test_other_patterns_are_refused_by_name(words, text):
    with pytest.raises(UserError, match=r"^t\.json: Split: the pattern ") as caught:
        Pattern("t.json: Split", text)
    assert words in str(caught.value) and len(str(caught.value)) < 300


def test_a_pattern_that_takes_too_long_ends_in_one_line(monkeypatch):
    """The fourth power of the text's length: no group is repeated, so it is taken, and stopped."""
    monkeypatch.setattr(pattern, "SECONDS", 0.2)
    slow = Pattern("t.json: Split", r"\p{L}+\p{L}+\p{L}+\p{L}+\d|\s")
    with pytest.raises(UserError, match=r"Split: the pattern .* takes too long \(stopped at a text of 3,000 char"):
        slow.spans("a" * 3_000)


def test_many_texts_that_take_a_little_too_long_are_stopped_too(monkeypatch):
    monkeypatch.setattr(pattern, "SECONDS", 0.2)
    slow = Pattern("t.json: Split", r"\p{L}+\p{L}+\p{L}+\d|\s")
    with pytest.raises(UserError, match="takes too long"):
        for _ in range(1_000):
            slow.spans("a" * 500)


def test_any_pattern_that_is_taken_is_one_for_the_reference_too():
    """Strings of a pattern's parts: what `Pattern` takes, Oniguruma takes, and it cuts the same."""
    from tokenizers import Regex, pre_tokenizers

    parts = [*"ab.()|?*+", r"\s", r"\S", r"\d", r"\p{L}", r"\P{N}", r"\.", r"\n", "[ab]", r"[^a\s]", r"[\p{L}-]",
             "[a-c1-3]", "(?:", "(?!", "?+", "+?", "{2}", "{1,2}", "{2,}", SUFFIXES]  # fmt: skip
    draw, texts, taken = random.Random(0), [*TRICKY, *random_strings(40), "aab abb a1b2 ab.. cab"], 0
    for _ in range(4_000):
        text = "".join(draw.choices(parts, k=draw.randint(1, 6)))
        try:
            ours = Pattern("t", text)
        except UserError:
            continue
        taken += 1
        theirs = pre_tokenizers.Split(Regex(text), "removed", invert=True)
        for post in texts:
            assert [post[start:end] for start, end in ours.spans(post)] == [
                piece for piece, _ in theirs.pre_tokenize_str(post)], (text, post)
    assert taken > 500


def test_a_refusal_quotes_what_a_terminal_can_show():
    with pytest.raises(UserError) as caught:
        Pattern("t", "\x1b[31m" + "x" * 10**6)
    assert not re.search(r"[\x00-\x1f]", str(caught.value)) and len(str(caught.value)) < 300
