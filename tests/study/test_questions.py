"""The questions on topic, stance and exposure, and the whole study, on answers that no model gave.

Deliberate break: in study/questions/stance.py take the first pair of fits alone (`pairs[:1]`); in
study/questions/learning_curves.py let `joined` keep the first language's answers
everywhere.
"""

import itertools
import re

import numpy as np
import pytest

from report.figures import STYLE
from stats.families import RECIPES, THESE
from study.questions.calibration import behaviour
from study.questions.compared import intervals
from study.questions.learning_curves import added, exposure
from study.questions.stance import END, PARTS, stance
from study.questions.transfer import topic
from study.report.section import Study
from study.write_up import methods
from tests.study.fake_study import PLAN, fake_results, few_languages, table


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return fake_results(tmp_path_factory.mktemp("study"))


def test_topic_has_a_cell_for_every_set_and_language(results):
    section = topic(results)
    rows = table(section, "topic_transfer").rows
    assert len(rows) == 4 * 13
    for row in rows:
        fits = list(results.recipe(row["train"]).values())
        value = np.mean([fit.figure("topic.macro_f1", [row["language"]]) for fit in fits])
        assert row["value"] == pytest.approx(value, abs=1e-12) and row["low"] <= row["value"] <= row["high"]
        assert row["seen"] == (row["language"] in results.seen(row["train"])) and row["small"]  # 13 posts each
    sets = {(row["train"], row["languages"]): row for row in table(section, "topic_sets").rows}
    assert sets["multi", "all"]["difference"] is None and ("multi", "unseen") not in sets
    gap = sets["en", "unseen"]
    assert gap["low"] < gap["difference"] < gap["high"] and gap["count"] == 12
    [claim] = section.claims  # of the monolingual set that no contrast of the plan has, by all of its fits
    assert any("multi less en is a comparison of the plan" in note for note in section.notes)
    gap = sets["es", "unseen"]
    assert claim.value == pytest.approx(-gap["difference"]) and claim.may_say and claim.may_not_say
    assert len(claim.points) == 4 and np.mean(claim.points) == pytest.approx(claim.value)
    assert "in these fits (4 of each)" in claim.may_say and "other test posts" in claim.holds  # two seeds, two draws
    assert claim.notes[0] == "Only 2 seeds, 2 draws: no interval for other fits." and claim.languages == \
        results.unseen("es") and "English and" not in claim.text


def test_parts_of_a_stance_gain_add_up(results):
    section = stance(results)
    rows = table(section, "stance_parts").rows
    for k in range(0, len(rows), 4):
        whole, *parts = rows[k : k + 4]
        assert [part["part"] for part in (whole, *parts)] == list(PARTS.values())
        assert sum(part["value"] for part in parts) == pytest.approx(whole["value"], abs=1e-12)
        recipes = [results.recipe(whole[side]) for side in ("first", "second")]
        languages = results.unseen(whole["second"])
        gaps = [recipes[0][key].figure(END, languages) - recipes[1][key].figure(END, languages) for key in recipes[0]]
        assert whole["value"] == pytest.approx(np.mean(gaps)) and len(gaps) == 4  # of all fits, not of the first ones
        assert all(row["low"] <= row["value"] <= row["high"] for row in (whole, *parts))
    for claim in section.claims:
        assert claim.text.startswith("On ") and "that both models found" in claim.text and len(claim.points) == 4
    sets = table(section, "stance_sets").rows
    assert all(row["end"] <= row["given"] and row["end"] <= row["recall"] for row in sets)


def test_intervals_narrow_with_more_fits_and_hold_the_mean(results):
    fits = list(results.recipe("multi").values())
    one = intervals(fits[:1], ["accuracy"], ["en"], 500, 0)["accuracy", "en"]
    all_four = intervals(fits, ["accuracy"], ["en"], 500, 0)["accuracy", "en"]
    assert all_four[0] == pytest.approx(np.mean([fit.figure("accuracy", ["en"]) for fit in fits]))
    assert all_four[2] - all_four[1] < one[2] - one[1]


def test_exposure_pools_each_languages_own_fit(results):
    recipe = added(results, ["tr", "ko"], 8, "exposure")
    for code in ("tr", "ko"):
        own = added(results, [code], 8, "exposure")
        for key, answers in recipe.items():
            assert answers.figure("accuracy", [code]) == own[key].figure("accuracy", [code])
    section = exposure(results)
    rows = table(section, "exposure_curve").rows
    assert {(row["language"], row["rows"], row["arm"]) for row in rows} == {
        (code, count, arm) for code in ("tr", "ko") for count in (0, 4, 8)
        for arm in ("rows of the language", "as many more English rows", "as many more steps")}
    assert all(row["difference"] is None for row in rows if row["rows"] == 0)
    assert len(table(section, "exposure_pooled").rows) == 6 and section.claims[0].low < section.claims[0].high


def test_an_exposure_of_several_seeds_holds_for_others_and_one_of_one_seed_says_that_it_does_not(tmp_path):
    text = PLAN.split("[variants]")[0].replace("draws = [1, 2]\nplacebos", "draws = [1, 2, 3]\nSEEDS\nplacebos")
    text = text.replace(', "steps"]', "]") + "[statistics]\ndraws = 100\n" + few_languages(tmp_path)
    single, several = (exposure(fake_results(tmp_path, text.replace("SEEDS", line)))
                       for line in ("", "seeds = [1, 2, 5]"))
    assert [claim.holds for claim in single.claims] == [THESE] * 2
    assert any("trained with 1 seed, so what it shows holds for these fits" in note for note in single.notes)
    assert [claim.holds for claim in several.claims] == [RECIPES] * 2
    assert all("allowing for other seeds, draws and test posts" in claim.may_say for claim in several.claims)
    assert not any("these fits" in note for note in several.notes)
    assert not any("no interval for other fits" in note for claim in several.claims for note in claim.notes)
    assert {(row["draws"], row["seeds"]) for row in table(several, "exposure_pooled").rows} == {(3, 3)}


def test_the_smallest_exposure_has_a_claim_of_its_own(results):
    """The paper's third claim is about a tiny exposure: what the most rows do does not answer it."""
    section = exposure(results)
    assert [re.search(r"(\d+) rows of", claim.text.replace("of it", "of")).group(1) for claim in section.claims] == [
        "8", "4"]
    assert "with 8 rows of it less that without" in section.answer and "with 4 rows, less that with" in section.answer


def test_equal_labels_say_where_there_are_too_few(tmp_path):
    text = PLAN.replace("rows = [4, 8]", 'rows = [4, 39]\nmix = "equal"').replace('["english", "steps"]', '["steps"]')
    with pytest.raises(Exception, match="equally many"):
        fake_results(tmp_path, text)


def test_a_plan_without_exposure_has_no_such_section(tmp_path):
    assert exposure(fake_results(tmp_path, PLAN.split("[exposure]")[0])) is None


def test_the_methods_have_the_recipe_that_the_runs_had(results, monkeypatch):
    """Epochs and rate of small models depend on base and rows: a plan that does not say has no number for them."""
    facts = type(results.runner).facts
    assert "3 epochs, 16 posts a step, learning rate 0.0002 (linear), loss over the labels" in methods(results)
    monkeypatch.setattr(type(results.runner), "facts", lambda self, fit: facts(self, fit) | {"options": {
        "epochs": 12 if fit.name == "en" else 7, "learning_rate": 0.001, "schedule": "cosine", "loss": "text",
        "batch_size": 4, "rank": 8, "alpha": 32, "dropout": 0.1, "targets": ["q_proj", "v_proj"]}})
    told = methods(results)
    for words in ("rank 8, alpha 32, dropout 0.1, on q_proj, v_proj", "7 to 12 epochs, 4 posts a step, learning rate "
                  "0.001 (cosine), loss over the whole text, prompt instruction-first and paper."):
        assert words in told, told


@pytest.mark.slow
def test_the_whole_study(tmp_path, monkeypatch):
    from study.report.page import write_study
    from study.write_up import make_study, summary

    monkeypatch.setitem(STYLE, "savefig.dpi", 40)
    study = make_study(fake_results(tmp_path, PLAN + few_languages(tmp_path)), {"base": "b"}, "This is a test.")
    assert isinstance(study, Study) and [section.key for section in study.sections][:4] == [
        "contrasts", "topic", "stance", "exposure"]
    assert len(study.first_claims) == 3 and "may not say" in summary(study)
    assert not study.sections[0].exploratory and study.sections[1].exploratory
    write_study(tmp_path / "report", study)
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "This is a test." in page and "multi − en" in page
    assert {path.suffix for path in (tmp_path / "report").rglob("*.*")} >= {".html", ".csv", ".png", ".svg", ".tex"}
    assert "multi (260 rows in 13 languages)" in study.methods
    assert "; the models with rows of an added language with 2 draws and 1 seed." in study.methods


def test_reliability_and_confusion_count_every_row(results):
    section = behaviour(results)
    bins = [row for row in table(section, "behaviour_reliability").rows if row["train"] == "multi"]
    first = results.first("multi")
    assert sum(row["n"] for row in bins) == len(results.kept.ids)
    right = sum(row["right"] * row["n"] for row in bins) / len(results.kept.ids)
    assert right == pytest.approx(first.figure("accuracy"))
    assert all(row["low"] <= row["right"] <= row["high"] for row in bins)
    rows = table(section, "behaviour_confusion").rows
    assert sum(row["n"] for row in rows) == len(results.kept.ids)
    diagonal = sum(row["n"] for row in rows if row["gold"] == row["predicted"] and row["language"] == "tr")
    assert diagonal == first.correct[results.kept.language == "tr"].sum()


def test_calibration_has_a_line_and_intervals_for_every_set_and_language(results):
    section = behaviour(results)
    first, rows = results.first("multi"), table(section, "behaviour_languages").rows
    assert [row["language"] for row in rows] == ["all", *sorted(results.kept.languages)]
    for row in rows:
        inside = results.kept.language == row["language"] if row["language"] != "all" else first.correct | True
        gap = first.probabilities[inside].max(1).mean() - first.correct[inside].mean()
        assert row["gap"] == pytest.approx(gap) and row["gap_low"] <= row["gap"] <= row["gap_high"]
        assert row["brier_low"] <= row["brier"] <= row["brier_high"] and (row["error"] is None) == (row["n"] < 20)
    assert rows[1]["what"] == "Arabic" and "train" not in rows[1]
    others = table(section, "behaviour_others").rows
    assert {row["train"] for row in others} == {"en", "es", "en-es"} and len(others) == 3 * len(rows)
    lines = table(section, "behaviour_coverage").rows
    assert lines[0]["coverage"] == 1 and lines[0]["accuracy"] == pytest.approx(first.figure("accuracy"))
    assert all(a["n"] >= b["n"] for a, b in itertools.pairwise(lines))
    assert "over all languages together (first fits, debiased)" in section.answer
