"""Two runs on the same posts: the counts by hand, the exact test against scipy, and what is refused.

Deliberate break: swap first and second in `lines_of` (`only` columns), join by id alone, or leave `connected` out of
`compare`; each turns red.
"""

import json
import re
from pathlib import Path

import pytest

from tests.programs.hostile import call
from tools import compare

LABELS = ["pro", "anti", "neutral"]
BOOK = {"name": "b", "role": "r", "question": "q", "introduction": '"{post}"', "listing": "{labels}",
        "answer": "Answer = [{symbol}]", "labels": [{"name": label} for label in LABELS], "examples": [], "groups": {}}


def scored(folder: Path, rows: list[tuple], evaluation: str = "eval-test", labels=LABELS) -> Path:
    """A run that was scored: rows of (id, language, gold, predicted, probability)."""
    facts = {"schema": 1, "created": "", "finished": True, "prompt": {},
             "environment": {"device_name": "cpu", "dtype": "float32", "threads": 1, "packages": {}},
             "hashes": {"weights": {}},
             "languages": [], "scored": [], "codebook": BOOK | {"labels": [{"name": label} for label in labels]},
             "options": {"model": "m", "template": "paper", "max_tokens": 9, "quantize": "nf4", "seed": 1,
                         "allow_missing_labels": False}}  # fmt: skip
    (folder / evaluation).mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(facts))
    lines = [{"id": id, "language": language, "label": gold, "predicted": said, "probabilities": {said: p}}
             | dict(zip(("group", "left_out"), more, strict=False)) for id, language, gold, said, p, *more in rows]
    (folder / evaluation / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def rows(said: str, ids=None) -> list[tuple]:
    """Posts whose gold label is "pro", in two languages in turn; "+" is right, "-" says "anti"."""
    return [(str(n), "en" if n % 2 else "es", "pro", "pro" if sign == "+" else "anti", 0.5 + n / 100)
            for n, sign in enumerate(said)]


def test_who_is_right_where(tmp_path):
    stats = pytest.importorskip("scipy.stats")
    one, two = "++++------++++", "++--++++++++++"
    scored(tmp_path / "a", rows(one))
    scored(tmp_path / "b", rows(two))
    ended = call(compare.main, "a", "b")
    assert ended.code == 0, ended.err
    line = next(line for line in ended.out.splitlines() if line.strip().startswith("all"))
    only1 = sum(x == "+" and y == "-" for x, y in zip(one, two, strict=True))
    only2 = sum(x == "-" and y == "+" for x, y in zip(one, two, strict=True))
    p = stats.binomtest(only1, only1 + only2).pvalue
    assert line.split() == ["all", "14", "0.571", "0.857", "6", str(only1), str(only2), "0", "+28.6",
                            "[-11.7,", "+61.7]", f"{p:.3f}"]  # Bonett and Price: 4 / 16 and 1.96 sqrt(10 - 1) / 16
    assert "2 less 1, points" in ended.out  # beside shares of 0 to 1
    assert "English" in ended.out and "Spanish" in ended.out and "“pro”" in ended.out and "“anti”" not in ended.out
    assert f"No difference is shown (57.1 % and 85.7 %): of the {only1 + only2} posts" in ended.out
    assert "b less a may be anything from -11.7 to +61.7 points (95 % interval)" in ended.out
    assert "they differ on 8 posts" in ended.out
    assert re.search(r"^ +9 +en +pro +anti +0\.590 +pro", ended.out, re.MULTILINE)


def test_a_shown_difference_names_the_better_one(tmp_path):
    scored(tmp_path / "a", rows("-" * 12 + "+"))
    scored(tmp_path / "b", rows("+" * 13))
    for pair in (("a", "b"), ("b", "a")):  # each share stands in the place of its run's name
        said = call(compare.main, *pair).out
        assert "b is right more often than a (100.0 % and 7.7 %)" in said
        assert "It is ahead by 52.6 to 100.0 points (95 % interval)" in said
    same = call(compare.main, "--runs", "b", "b/../b", "--examples", "3").out
    assert "they agree on every post" in same and "both are right on the same posts. That is not to say" in same
    assert "may be anything from -18.5 to +18.5 points" in same  # 1.96 sqrt(2) / 15: no post differs, of thirteen


def test_an_interval_that_says_otherwise_than_the_test_is_no_contradiction(tmp_path):
    """Five of twenty posts go to one alone: p = 0.0625, and the interval is above 0."""
    scored(tmp_path / "a", rows("-" * 5 + "+" * 15))
    scored(tmp_path / "b", rows("+" * 20))
    said = call(compare.main, "a", "b").out
    assert "No difference is shown" in said and "from +1.2 to +44.3 points" in said
    assert "where it and the test differ on 0, as here, the test, which is exact, counts" in said
    scored(tmp_path / "c", rows("-" * 4 + "+" * 16))
    assert "as here" not in call(compare.main, "c", "b").out


def test_posts_of_one_alone_are_counted(tmp_path):
    scored(tmp_path / "a", rows("++++"))
    scored(tmp_path / "b", [*rows("+++"), ("9", "de", "pro", "pro", 0.9)])
    said = call(compare.main, "a", "b").out
    assert "3 posts in both" in said and "1 more of a are left out" in said and "1 more of b are left out" in said


def test_posts_that_belong_together_count_once(tmp_path):
    """Ten posts, of which the second run alone has nine right: by ten authors, or nine of them by two."""
    signs, authors = "---------+", [1, 1, 1, 1, 1, 2, 2, 2, 2, 3]
    for name, said in (("a", signs), ("b", "+" * 10)):
        scored(tmp_path / name, [(*row, group, False) for row, group in zip(rows(said), authors, strict=True)])
        scored(tmp_path / f"{name}-apart", rows(said))
    alone, together = (call(compare.main, *words).out for words in (("a-apart", "b-apart"), ("a", "b")))
    assert f"p = {2 / 2**9:.3g}" in alone and "group" not in alone
    assert "in 3 groups of posts that belong together" in together
    assert "p = 0.5" in together and "No difference is shown" in together  # |5 + 4| in two of four signs
    scored(tmp_path / "c", [(*row, "same", False) for row in rows("+" * 10)])  # the coarser of the two
    assert "in 1 group of posts" in call(compare.main, "a", "c").out


def test_posts_that_a_run_was_trained_on_are_left_out(tmp_path):
    scored(tmp_path / "a", [(*row, n, n == 0) for n, row in enumerate(rows("++++"))])
    scored(tmp_path / "b", [(*row, n, n < 2) for n, row in enumerate(rows("+++-"))])
    said = call(compare.main, "a", "b").out
    assert said.startswith("2 posts in both") and "1 that a was trained on are left out" in said
    assert "2 that b was trained on are left out" in said
    scored(tmp_path / "c", [(*row, n, True) for n, row in enumerate(rows("++++"))])
    assert "was in the training of one" in call(compare.main, "a", "c").err


def test_the_order_of_the_labels_plays_no_part(tmp_path):
    scored(tmp_path / "a", rows("++-"))
    scored(tmp_path / "b", rows("+--"))
    scored(tmp_path / "turned" / "b", rows("+--"), labels=LABELS[::-1])
    said = call(compare.main, "a", "b").out
    assert said.startswith("3 posts in both") and call(compare.main, "a", "turned/b").out == said


def test_what_cannot_be_compared(tmp_path):
    scored(tmp_path / "a", rows("++"))
    scored(tmp_path / "b", rows("++"), "eval-other")
    scored(tmp_path / "c", [(id, code, "neutral", said, p) for id, code, _, said, p in rows("++")])
    scored(tmp_path / "d", rows("++"), labels=["pro", "anti"])
    scored(tmp_path / "e", [("x", "en", "pro", "pro", 0.5)])
    (tmp_path / "bare").mkdir()
    for words, says in ((["a"], "names 1 run; two"), (["a", "none"], "none: there is no such folder"),
                        (["a", "bare"], "bare: has no evaluation; score it first"), (["a", "b"], "--evaluation"),
                        (["a", "c"], "id '0' (es) is 'neutral', and 'pro'"), (["a", "d"], "have other labels"),
                        (["a", "e"], "have no post in common"), (["a", "c", "--evaluation", "x"], "has no x")):
        ended = call(compare.main, *words)
        assert ended.code == 2 and says in ended.err and ended.err.count("\n") == 1, (words, ended.err)
    assert call(compare.main, "a/eval-test", "b/eval-other").code == 0
