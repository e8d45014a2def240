"""The stance difference post by post: the identity, the published figures, and intervals that hold.

Deliberate break: in stats/stance_split.py count a right answer of the second model among the newly found posts (cell 4
without `right1`), or let `split` test all related posts instead of those that both found.
"""

import numpy
import pytest

from stats.paired import mcnemar
from stats.predictions import Predictions
from stats.stance_split import PARTS, split, splits
from tests.stats.answered import made_answers, made_rows
from tests.stats.published import published

END = "stance.end_to_end.accuracy"


def test_the_published_models_in_the_ten_other_languages():
    multi, both = published("multi", "en-es")
    languages = [code for code in multi.rows.languages if code not in ("en", "es")]
    found = split(multi, both, languages)
    assert (found["rows"], found["both_rows"]) == (119, 63)
    shares = (round(found[key] / 63, 3) for key in ("both_first", "both_second"))
    assert tuple(shares) == (0.683, 0.571) and round(found["p"], 3) == 0.039
    rates = splits([(multi, both)], languages, draws=2000)
    assert rates["end_to_end"]["value"] == pytest.approx(0.529 - 0.303, abs=1e-3)
    assert rates["on_both"]["low"] > 0 and rates["on_both"]["value"] == pytest.approx(7 / 63)


def slow_split(first, second, languages):
    """The three sums, one post at a time."""
    rows, sums = first.rows, dict.fromkeys((*PARTS, "rows", "both_rows"), 0)
    for gold, language, one, two in zip(rows.gold, rows.language, first.predicted, second.predicted, strict=True):
        if language in languages and gold < 3:
            sums["rows"] += 1
            sums["both_rows"] += one < 3 and two < 3
            sums["both"] += (int(one == gold) - int(two == gold)) * (one < 3 and two < 3)
            sums["newly_found"] += int(one == gold and two >= 3)
            sums["newly_lost"] += int(two == gold and one >= 3)
    return sums


def test_the_terms_add_up_and_are_those_of_a_loop():
    rows = made_rows(200, 1)
    models = [made_answers(rows, seed, 0.5) for seed in range(4)]
    for first, second in ((models[0], models[1]), (models[2], models[3])):
        found, by_hand = split(first, second, ["de", "en"]), slow_split(first, second, ["de", "en"])
        assert {key: found[key] for key in by_hand} == by_hand
        assert found["both"] + found["newly_found"] - found["newly_lost"] == found["difference"]
        assert found["difference"] / found["rows"] == pytest.approx(
            first.figure(END, ["de", "en"]) - second.figure(END, ["de", "en"]))
    rates = splits([(models[0], models[1]), (models[2], models[3])], ["de", "en"], draws=500)
    assert rates["end_to_end"]["value"] == pytest.approx(sum(rates[part]["value"] for part in PARTS))
    assert rates["newly_lost"]["value"] < 0 < rates["newly_found"]["value"]
    assert [len(rates[key]["points"]) for key in rates] == [2] * 5
    assert rates["both"]["points"][0] == pytest.approx(split(*models[:2], ["de", "en"])["both"] / found["rows"])
    assert all(rate["low"] <= rate["value"] <= rate["high"] for rate in rates.values())


def test_the_p_is_mcnemars_on_the_shared_posts_and_respects_clusters():
    rows = made_rows(120, 2, languages=("en",))
    first, second = made_answers(rows, 3, 0.7), made_answers(rows, 4, 0.4)
    shared = (rows.gold < 3) & (first.predicted < 3) & (second.predicted < 3)
    part = type(rows)(rows.ids[shared], rows.language[shared], rows.gold[shared], rows.clusters[shared], rows.grouping)
    pair = [Predictions(part, model.predicted[shared]) for model in (first, second)]
    assert split(first, second)["p"] == mcnemar(*pair)["p"]
    copied = made_rows(120, 2, languages=("en",), clusters=numpy.arange(120) // 4)
    again = split(Predictions(copied, first.predicted), Predictions(copied, second.predicted))
    assert again["p"] != split(first, second)["p"] and again["both"] == split(first, second)["both"]


def test_nothing_found_by_both_is_no_number():
    rows = made_rows(40, 5)
    silent, other = Predictions(rows, numpy.full(40, 3)), made_answers(rows, 6, 0.9)
    found = splits([(other, silent)], draws=100)
    assert numpy.isnan(found["on_both"]["value"]) and found["both"]["value"] == 0
    assert split(other, silent)["p"] == 1.0
