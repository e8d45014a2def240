"""Posts that are too long are cut at a character and encoded again; the instruction and the answer are never cut.

Deliberate break: drop the last loop of `Prompt.shorten`: Hindi, marks and emoji turn red. Or drop the search over the
next few lengths before it: the test of falling counts does.
"""
# ruff: noqa: F401, F811  (fixtures are imported by name and then named as arguments)

import pytest

from common.errors import UserError
from data.codebook import load_codebook
from data.prompt import TEMPLATES, Prompt
from tests.data.prompts import Letters, llama2, llama3, tiny, tokenizer

LONG = {"words": "abc " * 60, "hindi": "प्रवासी " * 15, "marks": "e\u0301" * 60, "emoji": "👍🏽👩\u200d👩\u200d👧 " * 12,
        "quotes": '"" !! ' * 30, "digits": "1234567" * 20}


def joined(text: str, count: int) -> bool:
    """Whether a cut before `text[count]` would split what a reader sees as one letter or emoji."""
    marks, joiners = "\u0301\u093e\u093f\u0940\u094d\u200d🏽", "\u094d\u200d"
    return 0 < count < len(text) and (text[count] in marks or text[count - 1] in joiners)


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("kind", LONG)
def test_a_long_post_is_cut_at_the_last_character_that_fits(tokenizer, template, kind):
    text = LONG[kind]
    free = Prompt(load_codebook(), tokenizer, template)
    shortest, answer = len(free.encode("").ids), free.encode("").ids[-5:]
    lengths = [len(free.encode(text[:count]).ids) for count in range(len(text) + 1)]
    for room in (0, 1, 2, 7, 30, 10_000):
        prompt = Prompt(load_codebook(), tokenizer, template, max_tokens=shortest + room)
        row = prompt.encode(text)
        kept, cut = prompt.shorten(text)
        assert len(row.ids) <= shortest + room and row.cut == cut == (kept != text) == (room < 10_000)
        assert text.startswith(kept) and row.ids == free.encode(kept).ids and row.ids[-5:] == answer
        fitting = [n for n, length in enumerate(lengths) if length <= shortest + room]
        assert len(kept) == max(n for n in fitting if not joined(text, n))
        whole = prompt.encode_whole(text, "neutral")
        assert whole.cut == cut and whole.ids[: len(row.ids)] == row.ids


def test_counts_that_fall_when_a_character_is_added_do_not_mislead_the_cut():
    # "abcdefgh" is one token, its beginnings are one per letter: the row grows by 7 and falls back to 1 at each eighth.
    tokenizer = Letters("abcdefgh")
    shortest = len(Prompt(load_codebook(), tokenizer).encode("").ids)
    prompt = Prompt(load_codebook(), tokenizer, max_tokens=shortest + 5)
    kept, cut = prompt.shorten("abcdefgh" * 40)
    assert cut and len(prompt.encode(kept).ids) == shortest + 5 and len(kept) >= 5
    assert prompt.shorten("abcdefgh" * 5) == ("abcdefgh" * 5, False)
    # One token of room: "x" fits, "xy" does not, "xyz" does. Bisection alone ends at "x".
    narrow = Prompt(load_codebook(), Letters("xyz"), max_tokens=shortest + 1)
    assert narrow.shorten("xyz" + "q" * 40) == ("xyz", True)


def test_a_post_of_megabytes_is_not_encoded_again_and_again():
    tokenizer = Letters()
    shortest = len(Prompt(load_codebook(), tokenizer).encode("").ids)
    prompt = Prompt(load_codebook(), tokenizer, max_tokens=shortest + 100)
    tokenizer.encoded = 0
    row = prompt.encode("a" * 3_000_000)
    assert row.cut and len(row.ids) == shortest + 100
    assert tokenizer.encoded < 200_000


def test_too_small_a_budget_and_an_unknown_template_are_named(llama3):
    with pytest.raises(UserError, match="--max-tokens 102: the instruction alone takes 103 tokens"):
        Prompt(load_codebook(), llama3, max_tokens=102)
    assert Prompt(load_codebook(), llama3, max_tokens=103).encode("text").cut
    with pytest.raises(UserError, match="--template papper: is unknown; did you mean 'paper'"):
        Prompt(load_codebook(), llama3, "papper")
    with pytest.raises(UserError, match="label 'nutral' is not in the codebook; did you mean 'neutral'"):
        Prompt(load_codebook(), llama3).encode_whole("text", "nutral")
