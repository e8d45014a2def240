"""Seen against unseen languages: a constant answer is no transfer, and base rates explain no more than they do.

Deliberate break: let `report.words.constant_like` return ""; the answers that never look at a post turn red. Or set
`shift` to 0 in `_compared`; the difference that the answers' shares explain does.
"""

import pytest

from report.metrics import Scored, score
from report.words import NEAR, constant_like, findings

LABELS = ("pro", "anti", "neutral", "unrelated")
PLAIN = ("a", "b", "c")


def metrics(*sides, labels=LABELS, related=LABELS[:3]):
    """Posts of (language, number, share that is not of the last label, answer(index, gold)); English is seen."""
    ids, gold, given, languages = [], [], [], []
    for code, count, share, answer in sides:
        for index in range(count):
            label = labels[index % (len(labels) - 1)] if index < share * count else labels[-1]
            ids.append(f"{code}-{index}")
            gold.append(label)
            given.append(answer(index, label))
            languages.append(code)
    return score(Scored(ids, gold, given, languages, labels, None, related), ("en",), draws=10)


def always(label):
    return lambda index, gold: label


def good(index, gold):
    return gold if index % 10 else "unrelated"


@pytest.mark.parametrize("label", LABELS)
def test_a_constant_answer_is_no_transfer(label):
    """The case that was once called "higher in the unseen languages": 44 % against 55 %, both the base rate."""
    line = findings(metrics(("en", 260, 0.557, always(label)), ("ko", 615, 0.45, always(label))))[1]
    side = "unrelated" if label == "unrelated" else "related"
    assert "nothing can be said about transfer" in line and line.count(f"answering “{side}”") == 2
    assert "higher" not in line and "lower" not in line and "no difference" not in line
    right = ("44.2 %", "55.0 %") if side == "unrelated" else ("55.8 %", "45.0 %")
    assert all(f"{share} (" in line for share in right) and "for always “related” and “unrelated”" in line
    assert "macro-F1" in line


def test_one_side_is_enough():
    line = findings(metrics(("en", 260, 0.5, good), ("ko", 615, 0.5, always("unrelated"))))[1]
    assert "in the unseen languages the model finds 0.0 % (0.0 to 1.2 %)" in line and "in the seen" not in line
    assert "nothing can be said" in line


def test_a_nearly_constant_answer_is_constant_and_a_good_one_is_not():
    nearly = lambda index, gold: gold if index % 30 == 0 else "unrelated"  # noqa: E731
    assert "finds 3.3 %" in constant_like(metrics(("en", 600, 0.5, nearly))["seen"])
    some = lambda index, gold: gold if index % 4 == 0 else "unrelated"  # noqa: E731
    assert metrics(("en", 600, 0.5, some))["seen"]["topic"]["recall_ci"][0] > NEAR
    assert constant_like(metrics(("en", 600, 0.5, some))["seen"]) == ""
    right = lambda index, gold: gold  # noqa: E731
    for one in (metrics(("en", 600, 0.5, right)), metrics(("en", 30, 0.5, right))):
        assert one["seen"]["topic"]["recall"] == 1 and constant_like(one["seen"]) == ""
    only = metrics(("en", 50, 1.0, always("pro")))["seen"]  # no unrelated post: nothing to be constant about
    assert only["topic"]["specificity"] is None and constant_like(only) == ""
    nothing = metrics(("en", 50, 0.5, always(None)))["seen"]
    assert "finds 0.0 %" in constant_like(nothing)


def test_each_sides_own_most_frequent_answer_stands_beside_it():
    line = findings(metrics(("en", 400, 0.7, good), ("ko", 400, 0.7, good)))[1]
    assert line.count(": 0.0 points (−") == 2  # no "−0.0"
    assert line.count("no difference can be shown, beside") == 2 and "70.0 % and 70.0 % for always “related”" in line
    assert "macro-F1 0.9" in line and "beside 0.412 and 0.412" in line


def test_a_difference_that_the_base_rates_explain_is_called_that():
    answer = lambda index, gold: gold if index % 3 else "c"  # noqa: E731
    line = findings(metrics(("en", 400, 0.3, answer), ("ko", 800, 0.6, answer), labels=PLAIN, related=()))[1]
    assert "no more than the most frequent answers' own difference of −" in line and "lower" not in line
    same = findings(metrics(("en", 600, 0.6, lambda index, gold: gold), ("ko", 600, 0.6, answer), labels=PLAIN,
                            related=()))[1]
    assert "lower in the unseen languages, beside" in same
    back = findings(metrics(("en", 600, 0.6, answer), ("ko", 600, 0.6, lambda index, gold: gold), labels=PLAIN,
                            related=()))[1]
    assert "higher in the unseen languages, beside" in back


def test_without_a_topic_the_label_is_looked_at():
    one = metrics(("en", 260, 0.5, always("c")), ("ko", 615, 0.7, always("c")), labels=PLAIN, related=())
    assert "too near to always answering “c”" in findings(one)[1] and "“c”" in constant_like(one["seen"])
    half = lambda index, gold: gold if index % 2 else "c"  # noqa: E731
    assert constant_like(metrics(("en", 260, 0.5, half), labels=PLAIN, related=())["seen"]) == ""


def test_small_cells_say_no_more_than_their_interval():
    line = findings(metrics(("en", 20, 0.5, always("unrelated")), ("ko", 400, 0.5, good)))[1]
    assert "0.0 % (0.0 to 27.8 %) of the related posts" in line
    few = findings(metrics(("en", 8, 0.5, good), ("ko", 400, 0.5, good)))[1]
    assert few.startswith("Only 8 posts are in languages seen in training, so seen and unseen ones cannot be compared")
    assert "Only 1 post is in languages not seen" in findings(metrics(("en", 40, 0.5, good), ("ko", 1, 0.5, good)))[1]
    assert "cannot be compared" in findings(metrics(("en", 40, 0.5, good)))[1]
