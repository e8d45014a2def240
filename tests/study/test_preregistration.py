"""A frozen plan: what is written, what is refused, and what a later report says has changed.

Deliberate break: in study/preregistration.py let `freeze` overwrite what is there; or compare plans without their
posts. Both turn red.
"""

import json

import pytest

from common.errors import UserError
from study.preregistration import check_frozen, freeze
from tests.study.fake_study import HASHES, PLAN, fake_results


@pytest.fixture
def study(tmp_path):
    return fake_results(tmp_path)


def test_everything_that_decides_the_study_is_written(study, tmp_path):
    said = freeze(study.runner, HASHES, study.fits)
    found = json.loads((tmp_path / "frozen.json").read_text())
    assert found["plan_hash"] == study.plan.hash and found["plan_hash"] in said
    assert found["plan"]["sets"]["en-es"] == {"en": 20, "es": 20} and len(found["plan"]["contrasts"]) == 2
    assert found["hashes"] == HASHES and set(found["posts"]) == {"training posts", "test posts"}
    assert {model["key"] for model in found["models"]} == {fit.key for fit in study.fits}
    assert len(found["models"]) == len({fit.key for fit in study.fits}) < len(study.fits)
    assert found["versions"]["torch"] and found["date"][:2] == "20"
    assert check_frozen(study.runner, HASHES) == ""


def test_freezing_twice_changes_nothing(study, tmp_path):
    freeze(study.runner, HASHES, study.fits)
    before = (tmp_path / "frozen.json").read_bytes()
    assert "nothing has changed since" in freeze(study.runner, HASHES, study.fits)
    assert (tmp_path / "frozen.json").read_bytes() == before


@pytest.mark.parametrize("old, new, words", [
    ("en = { en = 20 }", "en = { en = 21 }", "[sets] en"),
    ("draws = 200", "draws = 300\nseed = 4", "[statistics] draws, seed"),
    ('first = "multi"\nsecond = "en"\nfigure', 'first = "multi"\nsecond = "es"\nfigure', "contrasts"),
])
def test_a_changed_plan_is_refused_and_named(study, tmp_path, old, new, words):
    freeze(study.runner, HASHES, study.fits)
    before = (tmp_path / "frozen.json").read_bytes()
    assert old in PLAN
    other = fake_results(tmp_path, PLAN.replace(old, new, 1))
    with pytest.raises(UserError) as error:
        freeze(other.runner, HASHES, other.fits)
    assert words in str(error.value) and "another plan was frozen" in str(error.value)
    assert (tmp_path / "frozen.json").read_bytes() == before
    said = check_frozen(other.runner, HASHES)
    assert said.startswith("Since the plan was frozen on") and words in said and said.count(".") == 1


def test_changed_posts_and_base_are_named(study):
    freeze(study.runner, HASHES, study.fits)
    study.material.train.pop()
    said = check_frozen(study.runner, {**HASHES, "base": "another"})
    assert "the training posts" in said and "the base" in said and "test posts" not in said


def test_nothing_is_said_where_nothing_was_frozen(study):
    assert check_frozen(study.runner, HASHES) == ""


def test_an_edited_or_foreign_file_is_refused(study, tmp_path):
    freeze(study.runner, HASHES, study.fits)
    path = tmp_path / "frozen.json"
    found = json.loads(path.read_text())
    path.write_text(json.dumps(found | {"plan": found["plan"] | {"title": "another"}}))
    with pytest.raises(UserError, match="edited after freezing"):
        check_frozen(study.runner, HASHES)
    path.write_text("[]")
    with pytest.raises(UserError, match="is no frozen plan"):
        freeze(study.runner, HASHES, study.fits)
