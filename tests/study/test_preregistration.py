"""A frozen plan: what is written, what is refused, and what a later report says has changed.

Deliberate break: in study/preregistration.py let `freeze` overwrite what is there; compare plans without their posts;
or leave the answers' own hash out of `standing`. All turn red.
"""

import json

import pytest

from common.errors import UserError
from common.files import sha256_json
from study.plan import Outside
from study.preregistration import DECLARED, LATE, NAMED, check_frozen, freeze, frozen_hash, read_frozen, standing
from study.questions.contrasts import contrasts
from study.report.page import study_page
from study.report.section import Study
from tests.study.fake_study import HASHES, PLAN, FakeRunner, fake_results


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


def test_a_plan_frozen_before_a_key_existed_has_not_changed(study, tmp_path):
    freeze(study.runner, HASHES, study.fits)
    found = json.loads((tmp_path / "frozen.json").read_text())
    del found["plan"]["data"]["published"]
    found["plan_hash"] = sha256_json(found["plan"])
    found["hash"] = sha256_json({key: value for key, value in found.items() if key not in ("schema", "hash")})
    (tmp_path / "frozen.json").write_text(json.dumps(found))
    assert check_frozen(study.runner, HASHES) == ""


def test_changed_posts_and_base_are_named(study):
    freeze(study.runner, HASHES, study.fits)
    study.material.train.pop()
    said = check_frozen(study.runner, {**HASHES, "base": "another"})
    assert "the training posts" in said and "the base" in said and "test posts" not in said


def answered(monkeypatch, made, frozen):
    """Answers that carry a time and a frozen plan's hash."""
    plain = FakeRunner.read
    monkeypatch.setattr(FakeRunner, "read", lambda self, fit, asked: {**plain(self, fit, asked), "made": made,
                                                                      "frozen": frozen})


def statuses(study):
    found = standing(study.runner, HASHES, study.fits)
    return [found.of(one, study.plan) for one in study.plan.contrasts], found


def test_declared_means_frozen_before_the_first_answer(study, tmp_path, monkeypatch):
    assert statuses(study)[0] == [NAMED, NAMED] and "no plan was frozen" in statuses(study)[1].notes[0]
    freeze(study.runner, HASHES, study.fits)
    digest, date = frozen_hash(tmp_path), read_frozen(tmp_path / "frozen.json")["date"]
    answered(monkeypatch, date, digest)
    assert statuses(study)[0] == [DECLARED, DECLARED]
    assert "before any model of this study had answered" in statuses(study)[1].notes[0]
    section = contrasts(study, standing(study.runner, HASHES, study.fits))
    assert all(claim.may_say.startswith(DECLARED) for claim in section.claims) and not section.exploratory
    for made, frozen in (("2000-01-01T00:00:00+0000", digest), (date, None), (date, "another"), ("", digest)):
        monkeypatch.undo()
        answered(monkeypatch, made, frozen)
        assert statuses(study)[0] == [NAMED, NAMED] and "not written under it" in statuses(study)[1].notes[0]


def test_what_decides_no_answer_may_be_added_later(study, tmp_path, monkeypatch):
    freeze(study.runner, HASHES, study.fits)
    answered(monkeypatch, read_frozen(tmp_path / "frozen.json")["date"], frozen_hash(tmp_path))
    study.plan.data.published, study.plan.data.date = "rows.csv", "date"
    assert statuses(study)[0] == [DECLARED, DECLARED]
    assert "[data] date, published" in check_frozen(study.runner, HASHES)  # said, though
    study.plan.data.shares = "other.toml"
    assert statuses(study)[0] == [NAMED, NAMED]


def test_a_contrast_that_was_added_later_is_exploratory_also_in_the_same_folder(study, tmp_path, monkeypatch):
    freeze(study.runner, HASHES, study.fits)
    answered(monkeypatch, read_frozen(tmp_path / "frozen.json")["date"], frozen_hash(tmp_path))
    more = fake_results(tmp_path, PLAN + '[[contrast]]\nfirst = "es"\nsecond = "en"\n')
    found = standing(more.runner, HASHES, more.fits)
    assert [found.of(one, more.plan) for one in more.plan.contrasts] == [DECLARED, DECLARED, LATE]
    claims = contrasts(more, found).claims
    assert [claim.exploratory for claim in claims] == [False, False, True] and claims[2].may_say.startswith(LATE)
    assert [claim.weaker.partition(";")[0] for claim in claims] == ["other training runs may differ"] * 2 + [
        "added after the plan was frozen"]
    page = study_page(Study("t", "c", {}, {}, [contrasts(more, found)], "m"))
    assert page.index("Declared: the plan names the comparison") < page.index("Claim 1")  # where the word first stands
    assert page.count(LATE) == 2 * 2 + 1  # the badge and the words, in the opening and the section; and the table
    changed = fake_results(tmp_path, PLAN.replace("seeds = [1, 2]", "seeds = [1, 3]"))
    found = standing(changed.runner, HASHES, changed.fits)
    assert found.of(changed.plan.contrasts[0], changed.plan) == NAMED and "[repeat] seeds changed" in found.notes[0]


def test_labels_from_outside_are_older_than_any_plan(study, tmp_path, monkeypatch):
    freeze(study.runner, HASHES, study.fits)
    answered(monkeypatch, read_frozen(tmp_path / "frozen.json")["date"], frozen_hash(tmp_path))
    found = standing(study.runner, HASHES, study.fits)
    study.plan.outside["en"] = Outside("x.jsonl")
    assert found.of(study.plan.contrasts[0], study.plan) == NAMED


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
    path.write_text(json.dumps({**found, "date": "2000-01-01T00:00:00+0000"}))
    with pytest.raises(UserError, match="edited after freezing"):
        check_frozen(study.runner, HASHES)
