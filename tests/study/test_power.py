"""The reach of the plan's contrasts: at the plan's rows, from a pilot where there is one, and in the frozen plan.

Deliberate break: in study/power.py let `answered` take fits that nobody asked, or leave `is_hopeless` out of `to_dict`.
"""

import json
from dataclasses import replace

import pytest

from stats.corrected import of_sides
from study.power import APART, SPREAD, WORTH, power, power_lines
from study.preregistration import freeze
from tests.study.fake_study import HASHES, PLAN, fake_results


def test_without_a_pilot_the_assumption_is_named(tmp_path):
    found = power(fake_results(tmp_path))
    assert len(found) == 2 and all("assumed" in reach.basis for reach in found)
    topic, stance = found
    assert topic.design.clusters == 12 * 13 and (topic.design.seeds, topic.design.draws) == (2, 2)
    assert topic.design.posts == pytest.approx((APART / 13 / 12) ** 0.5)  # twelve languages of 13 posts, each equal
    assert stance.design.clusters < 169 and stance.design.seed == SPREAD and topic.design.family == 2
    assert topic.smallest > WORTH and not topic.is_hopeless and stance.is_hopeless and topic.for_worth > 156
    words = "\n".join(power_lines(found))
    assert "hopeless" in words and "these fits only" in words and f"{topic.for_worth:,} posts are needed" in words


def test_a_pilots_own_paired_agreement_takes_the_assumptions_place(tmp_path):
    results = fake_results(tmp_path)
    results.runner.answered = True
    topic = power(results)[0]
    sides = [list(results.recipe(name).values()) for name in ("multi", "en")]
    languages = results.unseen("en")
    error = of_sides([*sides[0], *sides[1]], 4, "topic.macro_f1", languages, "languages")[1]
    assert topic.design.posts == pytest.approx(error) and topic.basis == "from 8 fits answered already"
    assert topic.design.seed != SPREAD


def test_a_hopeless_contrast_is_said_so_in_the_frozen_plan(tmp_path):
    results = fake_results(tmp_path)
    reach = power(results)
    freeze(results.runner, HASHES, results.fits, [one.to_dict() for one in reach])
    told = json.loads((tmp_path / "frozen.json").read_text())["power"]
    assert [line["contrast"] for line in told] == [one.name for one in results.plan.contrasts]
    assert [line["hopeless"] for line in told] == [False, True]
    assert [line["chance_of_showing_it"] for line in told] == [round(one.chance, 2) for one in reach]
    assert told[0]["smallest_difference"] == round(reach[0].smallest, 4)
    assert told[0]["posts_for_a_difference_of"] == {str(WORTH): reach[0].for_worth}


def test_what_is_shown_more_often_than_not_is_not_called_hopeless(tmp_path):
    """The smallest difference shown with 80 per cent is a little above `worth`: that one is shown in 78 of 100."""
    reach = power(fake_results(tmp_path))[0]
    near = replace(reach, worth=reach.smallest * 0.97)
    assert 0.7 < near.chance < 0.8 and not near.is_hopeless
    words = "\n".join(power_lines([near]))
    assert f"would be shown with a chance of {near.chance:.0%}; " in words
    assert "hopeless" not in words and "mostly not" not in words
    assert not replace(reach, worth=reach.smallest * 1.01).shortfall()
    far = replace(reach, worth=reach.smallest / 2)
    assert far.chance < 0.5 and far.shortfall().startswith("hopeless: ")


def test_the_plan_says_what_would_matter(tmp_path):
    plan = PLAN.replace("p_error = 0.05", "p_error = 0.05\nworth = 0.3\nhalf_width = 0.2")
    found = power(fake_results(tmp_path, plan))[0]
    assert (found.worth, found.narrow) == (0.3, 0.2) and not found.is_hopeless and found.for_worth < 156
    assert found.to_dict()["posts_for_a_half_width_of"] == {"0.2": found.for_narrow}
    assert "posts for 0.3" in "\n".join(power_lines([found])) and "posts for ±0.2" in "\n".join(power_lines([found]))


def test_a_plan_without_contrasts_has_no_reach(tmp_path):
    assert power(fake_results(tmp_path, PLAN.split("[[contrast]]")[0])) == [] and power_lines([]) == []
