"""Minimal pairs: what is a failure, how files are read, and what the shipped files promise.

Deliberate break: swap `==` and `!=` in `behaviour`; fill a shipped check from a template; leave a word of a first post
out of its second one.
"""

import re
import unicodedata
from itertools import combinations

import numpy as np
import pytest

from audit import sections
from audit.behaviour import behaviour, figures, spread
from audit.minimal import CHECKS, DIFFER, ENOUGH, SAME, SHIPPED, Pair, own_pairs, read_pairs, shipped_pairs
from common.errors import UserError
from common.files import ROOT
from report.intervals import wilson
from report.words import language_name

LANGUAGES = ("ar", "de", "en", "es", "fr", "hi", "hu", "id", "it", "ko", "pl", "pt", "tr")
WITHOUT_CAPITALS = ("ar", "hi", "ko")  # their scripts have none
DRAWN = set("\u110b\u1162\u3160\u314b\u0640ईओ")  # what draws a sound out, beside its own letters


class Answers:
    """A subject whose label is told by a digit in the text."""

    labels = ("a", "b", "c")

    class prompt:
        encode = staticmethod(lambda text: text)

    def probabilities(self, rows):
        return np.eye(3)[[int(re.search(r"\d", text)[0]) for text in rows]]


def test_a_pair_fails_where_its_labels_are_not_as_expected():
    pairs = [Pair("emoji", "en", SAME, "0 x", "0 y"), Pair("emoji", "en", SAME, "0 x", "1 y"),
             Pair("emoji", "es", SAME, "2 x", "2 y"), Pair("negation", "en", DIFFER, "0 x", "1 x"),
             Pair("negation", "en", DIFFER, "1 x", "1 z"), Pair("mine", "en", DIFFER, "1 x", "1 w")]
    found = behaviour(Answers(), pairs)
    rows = {row["check"]: row for row in found["checks"]}
    assert [row["check"] for row in found["checks"]] == ["negation", "emoji", "mine"]
    assert {check: (row["failures"], row["pairs"]) for check, row in rows.items()} == \
        {"negation": (1, 2), "emoji": (1, 3), "mine": (1, 1)}
    assert rows["negation"]["rate_ci"] == list(wilson(1, 2)) and "by_language" not in rows["negation"]
    assert rows["emoji"]["rate_ci"] is None and rows["emoji"]["by_language"] == [0, 0.5]  # in two languages
    assert rows["emoji"]["commonest"] == "a"
    said = sections.said_of_behaviour(found)
    assert "of the 2 checks that should give two labels, mine fails most often, in 1 of 1" in said
    assert "for one label, emoji fails, in 1 of 3 (33.3 %; by language 0 to 50 %)" in said.replace("\u00a0", " ")
    assert "picked as the worst" in said
    shown = "".join(map(str, sections.behaviour(found | {"written": ""})))
    assert "lowest and highest of a language" in shown and "0.0 to 50.0" in shown
    assert "interval of failures" not in shown
    assert rows["emoji"]["commonest_share"] == 3 / 6
    cells = {(cell["check"], cell["language"]): cell for cell in found["cells"]}
    assert cells["emoji", "es"]["failures"] == 0 and cells["emoji", "en"]["few"] and len(cells) == 4
    assert found["languages"] == {"en": 5, "es": 1}
    examples = {row["check"]: row for row in found["examples"]}
    assert examples["emoji"]["posts"] == ["0 x", "1 y"] and examples["emoji"]["labels"] == ["a", "b"]
    assert examples["emoji"]["number"] == 2
    assert all(row["posts"] is None for row in behaviour(Answers(), pairs, shipped=False)["examples"])


def test_examples_are_of_many_languages():
    pairs = [Pair("emoji", language, SAME, "x", "y") for language in ("ar", "ar", "de", "de", "en")]
    assert spread([0, 1, 3, 4], pairs, 0) == [0, 3, 4, 1] and spread([0, 1, 3, 4], pairs, 4) == [3, 4, 0, 1]
    assert spread([], pairs, 2) == []


def test_figures_count_answers_of_both_posts():
    found = figures(np.array([True, False]), np.array([[0, 1], [1, 1]]), [True, True], ("a", "b"))
    assert found["commonest"] == "b" and found["commonest_share"] == 0.75 and found["rate"] == 0.5


@pytest.mark.parametrize("text, words", [
    ("[emoji]\npairs = [['a', 'b']]", "language: is missing"),
    ("language = 'en'", "holds no pair"),
    ("language = 'en'\n[emoji]\npairs = 3", r"\[emoji\]: has no list 'pairs'"),
    ("language = 'en'\n[emoji]\npairs = [['a', 'b']]\nexpct = 'same'", "unknown key 'expct'"),
    ("language = 'en'\n[emoij]\npairs = [['a', 'b']]", "did you mean 'emoji'"),
    ("language = 'en'\n[emoji]\nexpect = 'differ'\npairs = [['a', 'b']]", 'must be "same" for this check'),
    ("language = 'en'\n[emoji]\npairs = [['a', 'b'], ['a']]", "pair 2: must be two posts"),
    ("language = 'en'\n[emoji]\npairs = [['a', 'a']]", "pair 1: its posts must differ"),
    ("language = 'en'\n[emoji]\npairs = [['a', ' ']]", "neither may be empty"),
    ("language = 'en'\n[emoji]\npairs = [['a', 'b'], ['a', 'b']]", "pair 2: is there twice"),
    ("language = ", "is not TOML"),
])
def test_a_file_that_is_wrong_says_where(tmp_path, text, words):
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(UserError, match=words):
        read_pairs(tmp_path / "mine.toml")


def test_a_check_of_the_users_own_is_taken(tmp_path):
    (tmp_path / "mine.toml").write_text("language = 'pt-BR'\n[irony]\nexpect = 'differ'\npairs = [['a', 'b']]")
    assert read_pairs(tmp_path / "mine.toml") == [Pair("irony", "pt", DIFFER, "a", "b")]


def test_own_pairs_count_once_and_expect_one_thing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, expect, pairs in (("a", "same", "[['x', 'y'], ['v', 'w']]"), ("b", "same", "[['x', 'y'], ['p', 'q']]"),
                                ("c", "differ", "[['m', 'n']]")):
        (tmp_path / f"{name}.toml").write_text(f"language = 'en'\n[mine]\nexpect = '{expect}'\npairs = {pairs}")
    assert [pair.first for pair in own_pairs(["a.toml", "a.toml", "b.toml"])] == ["x", "v", "p"]
    with pytest.raises(UserError, match=r'c.toml: \[mine\]: expect = "differ", and in a.toml "same"'):
        own_pairs(["a.toml", "c.toml"])


def lower(text: str, language: str) -> str:
    """Small letters as the language has them: I and İ are two letters in Turkish."""
    return text.replace("İ", "i").replace("I", "ı").lower() if language == "tr" else text.lower()


def words(text: str, language: str) -> list[str]:
    """Words in small letters, with their vowel signs, which `\\w` leaves out."""
    return re.findall(r"[\w\u064b-\u0652\u0900-\u0963]+", lower(text, language))


def letters(text: str, language: str) -> str:
    """All that stands for a sound, in small letters: neither space nor sign; a Korean syllable as its two or three."""
    apart = unicodedata.normalize("NFD" if language == "ko" else "NFC", lower(text, language))
    return "".join(sign for sign in apart if unicodedata.category(sign)[0] in "LMN" and sign != "\ufe0f")


def is_inside(short: str, long: str) -> bool:
    """Whether `short` is what is left of `long` when some of its letters are taken out."""
    rest = iter(long)
    return all(letter in rest for letter in short)


PAIRS = shipped_pairs()
FILES = pytest.mark.parametrize("language", LANGUAGES)


def test_every_language_has_enough_pairs_of_every_check():
    counts = {(language, check): 0 for language in LANGUAGES for check in CHECKS
              if check != "capitals" or language not in WITHOUT_CAPITALS}
    for pair in PAIRS:
        counts[pair.language, pair.check] += 1
    assert not {key: count for key, count in counts.items() if count < ENOUGH}


def test_the_readme_counts_the_languages():
    assert {path.stem for path in SHIPPED.glob("*.toml")} == set(LANGUAGES)
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert len(LANGUAGES) == 13 and "minimal pairs in thirteen languages" in readme


def test_the_card_counts_the_pairs_and_names_every_check():
    card = " ".join((SHIPPED / "README.md").read_text(encoding="utf-8").split())
    assert f"{len(PAIRS):,} pairs of short posts in {len(LANGUAGES)} languages" in card
    for check, (expect, about) in CHECKS.items():
        assert f"| `{check}` | {about} | {'one' if expect == SAME else 'two'} |" in card
    assert all(language_name(code) in card for code in LANGUAGES) and "No native speaker has checked them" in card
    low, high = wilson(6, 20)
    assert 0.35 < high - low < 0.45


@FILES
def test_shipped_files_say_how_they_were_written_and_hold_the_language_of_their_name(language):
    path = SHIPPED / f"{language}.toml"
    head = " ".join(path.read_text(encoding="utf-8").split("language =")[0].replace("# ", "").split())
    assert "written for this project by a language model" in head and "No native speaker has checked them" in head
    assert {pair.language for pair in read_pairs(path)} == {language}


@FILES
def test_no_check_is_filled_from_a_template(language):
    """No two first posts of a check share more than half of their words, and no first post is used in two checks."""
    by_check: dict[str, list[set]] = {}
    for pair in PAIRS:
        if pair.language == language:
            by_check.setdefault(pair.check, []).append(set(words(pair.first, language)))
    for check, posts in by_check.items():
        for one, two in combinations(posts, 2):
            assert len(one & two) / len(one | two) <= 0.5, (check, one & two)
    whole = [pair.first for pair in PAIRS if pair.language == language]
    assert len(set(whole)) == len(whole)


@FILES
def test_second_posts_hold_the_first_and_what_the_check_adds(language):
    """Words or letters of a first post stay, in their order, but for the group that is swapped."""
    for pair in PAIRS:
        if pair.language != language:
            continue
        first, second = (letters(text, language) for text in (pair.first, pair.second))
        if pair.check in ("capitals", "emoji"):
            assert first == second and pair.first != pair.second, pair
        elif pair.check in ("elongation", "hashtags", "injection", "control_tokens"):
            assert is_inside(first, second), pair
            if pair.check == "elongation":
                assert set(second) <= set(first) | DRAWN, pair
            assert pair.check != "hashtags" or "#" in pair.second, pair
        elif pair.check == "groups":
            assert len(set(words(pair.first, language)) - set(words(pair.second, language))) <= 2, pair
