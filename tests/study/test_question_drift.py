"""Drift: which posts train the earlier and the mixed models, and what their difference is made of.

Deliberate break: in study/fits.py take `known` for both kinds in `dated`; in study/questions/drift.py compare on all
test posts instead of the later ones.
"""

import json

import numpy as np
import pytest

from common.errors import UserError
from study.questions.drift import drift
from study.report.figures import figure_of
from tests.study.fake_study import fake_results, first_posts

PLAN = """
[repeat]
seeds = [1, 2, 3]
[sets]
en = { en = 20 }
multi = { en = 12, tr = 12 }
[statistics]
draws = 200
"""
CUT = "2021-01-01"


def dated(folder, more="", cut=CUT, column="when", year=lambda k: 2019 + k % 4):
    """A plan over the English, Turkish and German sample posts, each with a day."""
    for name in ("train", "test"):
        posts = [post for post in map(json.loads, first_posts(name)) if post["language"] in ("en", "tr", "de")]
        with open(folder / f"{name}.jsonl", "w", encoding="utf-8") as handle:
            for k, post in enumerate(posts):
                day = f"{year(k)}-05-{k % 28 + 1:02}T10:00:00Z"
                handle.write(json.dumps({**post, "odd": "soon", "when": day}) + "\n")
    asked = f'[drift]\ncut = "{cut}"\n' if cut else ""
    return f'{PLAN}{asked}{more}[data]\ndate = "{column}"\n' + "".join(
        f'{name} = ["{folder}/{name}.jsonl"]\n' for name in ("train", "test"))


def test_earlier_models_have_earlier_posts_alone_and_mixed_ones_as_many_of_all_days(tmp_path):
    results = fake_results(tmp_path, dated(tmp_path))
    days = {(post.language, post.id): post.extra["when"] for post in results.material.train}
    fits = {(fit.kind, fit.name, fit.seed): fit for fit in results.fits}
    for name in ("en", "multi"):
        earlier, mixed = fits["earlier", name, 2], fits["mixed", name, 2]
        assert max(days[key] for key in earlier.keys) < CUT <= max(days[key] for key in mixed.keys)
        counts = [sorted(language for language, _ in fit.keys) for fit in (earlier, mixed)]
        assert counts[0] == counts[1] and 0 < len(counts[0]) <= len(fits["set", name, 2].keys)
    assert len(results.recipe("en", kind="earlier")) == 3


def test_where_every_earlier_post_is_taken_there_are_no_draws_of_them(tmp_path):
    plan = dated(tmp_path).replace("seeds = [1, 2, 3]", "seeds = [1]\ndraws = [1, 2, 3]").replace("en = 20", "en = 25")
    fits = [fit for fit in fake_results(tmp_path, plan).fits if fit.name == "en"]
    earlier, mixed = ([fit for fit in fits if fit.kind == kind] for kind in ("earlier", "mixed"))
    assert len(earlier) == 1 and earlier[0].whole and len({fit.key for fit in mixed}) == 3
    assert {len(fit.keys) for fit in mixed} == {len(earlier[0].keys)}


def test_the_difference_is_on_later_posts_and_a_planted_one_is_found(tmp_path):
    results = fake_results(tmp_path, dated(tmp_path))
    read = results.runner.read

    def worse(fit, asked):
        """Models of earlier posts give later ones the next label."""
        found = read(fit, asked)
        for post, (*_, p) in zip(results.material.rows, found["rows"], strict=True):
            right = results.material.codebook.labels.index(post.label)
            wrong = fit.kind == "earlier" and post.extra["when"] >= CUT
            p[:] = np.eye(len(p))[(right + wrong) % len(p)].tolist()
        return found

    results.runner.read = worse
    section = drift(results)
    rows = next(table for table in section.tables if table.name == "drift_compared").rows
    assert [row["set"] for row in rows] == ["en", "multi"]
    for row in rows:
        assert row["mixed_later"] == row["mixed_earlier"] == row["earlier_earlier"] == 1
        assert row["earlier_later"] < 0.8 and row["high"] < 0 and row["n"] < len(results.kept.ids)
        assert row["value"] == pytest.approx(row["earlier_later"] - row["mixed_later"])
    claim = section.claims[0]
    assert claim.text.startswith(f"Trained only on posts from before {CUT}") and "lower" in claim.text
    assert len(claim.text.split()) <= 25 and claim.low <= claim.value <= claim.high
    assert "less that of one" in section.answer and "undecided" not in section.answer
    periods = next(table for table in section.tables if table.name == "drift_periods").rows
    assert {row["period"] for row in periods} == {"2019", "2020", "2021", "2022"} and len(periods) == 8
    for spec in section.figures:
        assert figure_of(spec, next(table for table in section.tables if table.name == spec.table)).axes


def test_dates_without_a_cut_give_periods_alone(tmp_path):
    section = drift(fake_results(tmp_path, dated(tmp_path, cut="", year=lambda k: 2020)))
    assert not section.claims and "nothing is said about learning from the past" in section.answer
    assert {row["period"] for row in section.tables[0].rows} == {"2020-05"}
    assert drift(fake_results(tmp_path)) is None


@pytest.mark.parametrize("change, words", [
    ({"cut": "2030-01-01"}, r"\[drift\]: cut: the training posts of en do not lie on both sides"),
    ({"cut": "2021"}, r"\[drift\]: cut: '2021' has to be a day such as 2020-01-31"),
    ({"column": "day"}, r"\[data\]: date: no post has a column 'day'"),
    ({"column": "odd"}, r"has 'soon' in column 'odd', which is no date such as 2020-01-31"),
    ({"more": 'sets = ["enn"]\n'}, r"\[drift\]: sets: 'enn' is no set; did you mean 'en'")])
def test_what_cannot_be_is_one_line(tmp_path, change, words):
    with pytest.raises(UserError, match=words):
        fake_results(tmp_path, dated(tmp_path, **change))
