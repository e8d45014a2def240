"""The three sentences under the demonstration's table: counts that add up, a reason that follows the interval.

Deliberate break: in `report/demonstration.py` give the reason by the sign of the difference instead of its interval, or
count the seen posts among the unseen ones; the tests turn red.
"""

import json

import pytest

from report.demonstration import HIGHER, LOWER, PAPER, SAME, explanation
from report.metrics import Scored, score
from report.page import page

LABELS = ("pro-immigration", "anti-immigration", "neutral", "unrelated")


def metrics(right_seen: int, right_unseen: int, size: int = 40) -> dict:
    """`size` posts in each of en and tr, of which so many are right; only en was seen."""
    gold = [LABELS[k % 4] for k in range(size)] * 2
    wrong = [LABELS[(k + 1) % 4] for k in range(size)] * 2
    is_right = [k < right_seen for k in range(size)] + [k < right_unseen for k in range(size)]
    predicted = [g if ok else w for g, w, ok in zip(gold, wrong, is_right, strict=True)]
    languages = ["en"] * size + ["tr"] * size
    return score(Scored([str(k) for k in range(2 * size)], gold, predicted, languages, LABELS, None, LABELS[:3],
                        list(range(2 * size)), {}, None), ("en",), draws=20)


@pytest.mark.parametrize(("seen", "unseen", "why"), [(20, 18, SAME), (20, 24, SAME), (38, 10, LOWER), (10, 38, HIGHER)])
def test_the_reason_follows_the_interval(seen, unseen, why):
    first, second, third = explanation(metrics(seen, unseen))
    assert first == PAPER and third == why
    assert f"of 40 posts in 1 language that this run was not fine-tuned on, {unseen} get" in second
    assert f"of 40 in the 1 that it was, {seen} do." in second and "would get 10 right" in second
    assert "invented: a language model wrote and labelled them" in second and "people gave" not in second


def test_what_is_said_of_the_paper_is_what_its_published_labels_show(shared_data):
    """In the ten languages the model of all twelve finds the right side of more related tweets than any other, and of
    fewer than in English: nothing there ends with more languages."""
    right = {}
    for model in ("en", "es", "en-es", "multi"):
        path = shared_data / "immigration" / "published_predictions" / f"{model}.jsonl"
        for row in map(json.loads, path.open(encoding="utf-8")):
            if row["label"] != "unrelated":
                place = row["language"] if row["language"] in ("en", "es") else "ten others"
                right.setdefault((model, place), []).append(row["label"] == row["predicted"])
    rate = {key: sum(one) / len(one) for key, one in right.items()}
    assert rate["multi", "ten others"] > max(rate[model, "ten others"] for model in ("en", "es", "en-es"))
    assert rate["multi", "ten others"] < min(rate["multi", "en"], rate["en", "en"])
    assert "more often when it is fine-tuned on many languages" in PAPER and "until" not in PAPER


def test_no_share_and_no_interval_is_quoted():
    text = " ".join(explanation(metrics(20, 18)))
    assert "%" not in text and "F1" not in text and "." not in text.replace(". ", " ").removesuffix(".")


def test_nothing_is_explained_where_nothing_can_be_compared():
    one = metrics(20, 18)
    assert explanation(one | {"seen": None, "unseen": None}) == []


def test_the_page_shows_them_below_its_table():
    found = metrics(20, 18)
    text = page(found, below_table=explanation(found))
    places = [text.index(words) for words in ("Every language, accuracy", "What the paper found", "Labels</h2>")]
    assert places == sorted(places)
    assert "What the paper found" not in page(found)
