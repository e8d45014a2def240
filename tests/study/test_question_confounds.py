"""Question 5, what else moves the figures, on answers that no model gave.

Deliberate break: in study/questions/confounds.py set NEAR to 0.5 (sets of unequal rows are paired); let `reseeded`
compare fits of different draws; swap first and second of the variants (every sign turns).
"""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from stats.families import THESE
from stats.paired import difference
from stats.predictions import Predictions
from stats.recipes import components, contrast
from study.questions.confounds import ROWS, changes, confounds, reseeded
from study.report.figures import figure_of
from tests.study import fake_study
from tests.study.fake_study import fake_results, table

PLAN = """
[repeat]
seeds = [1, 2]
draws = [1, 2]
templates = ["instruction-first", "paper"]
[sets]
en-es = { en = 34, es = 33 }
equal = { en = 7, es = 5, "*" = 5 }
more = { en = 12, "*" = 5 }
[variants]
sets = ["equal"]
prompts = ["authors"]
quantize = ["none"]
codebooks = ["CODEBOOK"]
[statistics]
draws = 200
[[contrast]]
first = "equal"
second = "more"
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("confounds")
    book = folder / "words.toml"
    book.write_text("", encoding="utf-8")  # only its name matters: nothing is asked by a prompt here
    fake_study.HASHES[f"prompt instruction-first {book}"] = "other words"
    return fake_results(folder, PLAN.replace("CODEBOOK", str(book)))


@pytest.fixture(scope="module")
def section(results):
    return confounds(results)


def rows_of(section, heading):
    return [row for row in table(section, "confounds_contrasts").rows if row["heading"].startswith(heading)]


def test_sets_of_equal_rows_are_found_and_compared_as_recipes(results, section):
    sizes = {row["set"]: row for row in table(section, "confounds_sets").rows}
    assert {name: row["rows"] for name, row in sizes.items()} == {"en-es": 67, "equal": 67, "more": 72}
    assert sizes["equal"]["equal"] == "en-es" and sizes["more"]["equal"] is None
    rows = rows_of(section, ROWS)
    assert {row["name"] for row in rows} == {"equal − en-es"}  # the set of more languages comes first
    assert [row["figure"] for row in rows] == ["topic macro-F1", "accuracy", "stance end to end accuracy"]
    wanted = contrast(results.recipe("equal"), results.recipe("en-es"), "accuracy", None, "rows", 200, 0)
    assert [rows[1][key] for key in ("value", "low", "high")] == pytest.approx(
        [wanted[key] for key in ("value", "posts_low", "posts_high")])  # two seeds, two draws: of these fits
    assert rows[1]["fits"] == 4 and not any(row["named"] for row in rows)  # the declared pair is not an equal one


def test_prompt_and_weights_are_the_first_fits_difference(results, section):
    for heading, name in (("Prompt authors (trained: instruction-first)", "prompt authors"),
                          ("Weights not quantised (trained: nf4)", "weights none")):
        rows = rows_of(section, heading)
        assert {row["name"] for row in rows} == {"equal"}  # the plan asks this of one set
        asked = next(one for one in results.asked("equal") if one.name == name)
        first, second = results.first("equal", asked), results.first("equal")
        wanted = difference(first, second, "accuracy", None, "rows", 200, 0)
        assert [rows[1][key] for key in ("value", "low", "high")] == pytest.approx(
            [wanted[key] for key in ("value", "low", "high")])
        assert rows[1]["value"] == pytest.approx(float(first.correct.mean() - second.correct.mean()))
        assert rows[1]["changed"] == pytest.approx((first.predicted != second.predicted).mean())
        assert rows[1]["holds"] == THESE and rows[1]["fits"] == 1


def test_templates_are_compared_over_all_fits(results, section):
    rows = rows_of(section, "Template paper − instruction-first")
    assert {row["name"] for row in rows} == {"en-es", "equal", "more"} and {row["fits"] for row in rows} == {4}
    first, second = results.recipe("more", "paper"), results.recipe("more")
    wanted = contrast(first, second, "topic.macro_f1", None, "languages", 200, 0)
    row = next(row for row in rows if (row["name"], row["figure"]) == ("more", "topic macro-F1"))
    assert [row[key] for key in ("value", "low", "high")] == pytest.approx(
        [wanted[key] for key in ("value", "posts_low", "posts_high")])
    assert row["changed"] == pytest.approx(np.mean([first[k].predicted != second[k].predicted for k in first]))


def test_codebook_wording_stands_against_the_first_fit(results, section):
    rows = rows_of(section, "Codebook")
    fit, = (fit for fit in results.fits if fit.kind == "codebook")
    assert {row["name"] for row in rows} == {"equal"}
    value = results.answers(fit).figure("accuracy") - results.first("equal").figure("accuracy")
    assert rows[1]["value"] == pytest.approx(value)


def test_labels_that_change_between_seeds_are_within_a_draw(results):
    recipe = results.recipe("more")
    wanted = np.mean([(recipe[(draw,), 1].predicted != recipe[(draw,), 2].predicted).mean() for draw in (1, 2)])
    assert reseeded(recipe) == pytest.approx(wanted)
    one = next(iter(recipe.values()))
    other = Predictions(one.rows, np.where(np.arange(len(one.predicted)) < 10, 4, one.predicted))
    assert changes({("a", 1): one}, {("a", 1): other}) == pytest.approx(10 / len(one.predicted))
    assert changes({("a", 1): one}, {("b", 1): one}) is None and reseeded({("a", 1): one}) is None


def test_components_are_those_of_the_recipe_with_the_test_sample_apart(results, section):
    rows = table(section, "confounds_components").rows
    assert len(rows) == 3 * 2 * 4  # sets, figures, sources
    wanted = components(results.recipe("equal"), "accuracy", None, "rows", 0)
    own = {row["source"]: row for row in rows if (row["set"], row["figure"]) == ("equal", "accuracy")}
    for key, words in (("draw", "draw of rows"), ("seed", "seed"), ("test_sample", "test sample")):
        assert own[words]["variance"] == pytest.approx(wanted[key]["variance"])
        assert own[words]["sd"] ** 2 == pytest.approx(own[words]["variance"]) and own[words]["high"] <= 0.5
        assert own[words]["low"] <= own[words]["sd"] <= own[words]["high"]
    assert own["seed"]["draws"] == own["seed"]["seeds"] == 2


def test_each_heading_has_a_claim_and_figures_draw(section):
    assert section.exploratory
    headings = {row["heading"] for row in table(section, "confounds_contrasts").rows}
    assert len(headings) == 5
    for heading in headings:
        assert sum(claim.may_say.startswith(heading) for claim in section.claims) == 1
        assert heading in section.answer
    assert not any("another seed" in claim.text for claim in section.claims)  # two seeds are too few for that
    assert all(claim.may_say and claim.may_not_say for claim in section.claims)
    for spec in section.figures:
        assert figure_of(spec, table(section, spec.table)).axes
    assert [spec.kind for spec in section.figures] == ["forest", "bars"]
    assert json.loads(json.dumps(asdict(section))) == asdict(section)


def test_a_declared_pair_is_marked(tmp_path):
    plan = '[sets]\nen = { en = 20 }\nes = { es = 20 }\n[statistics]\ndraws = 100\n[[contrast]]\nfirst = "es"\n' \
           'second = "en"\n'
    section = confounds(fake_results(tmp_path, plan))
    assert {row["figure"]: row["named"] for row in rows_of(section, ROWS)} == {
        "topic macro-F1": True, "accuracy": False, "stance end to end accuracy": False}
    assert section.exploratory  # the family's interval is not this one, which is of one contrast alone


def test_no_equal_sets_and_one_fit_are_said_in_words(tmp_path):
    section = confounds(fake_results(tmp_path, "[sets]\nen = { en = 20 }\nboth = { en = 20, es = 20 }\n"))
    assert section.answer.startswith("No two sets have equally many rows (en 20, both 40)")
    assert any("one fit: nothing to compare it with" in note for note in section.notes)
    assert any("two sets of equal total rows" in note and "several fits of a set" in note for note in section.notes)
    rows = table(section, "confounds_components").rows
    assert all((row["sd"] is None) == (row["source"] != "test sample") for row in rows)
    assert all(row["note"] for row in rows if row["sd"] is None)
    for spec in section.figures:
        figure_of(spec, table(section, spec.table))


def test_one_seed_and_several_draws(tmp_path):
    section = confounds(fake_results(tmp_path, "[repeat]\ndraws = [1, 2, 3]\n[sets]\nen = { en = 20 }\n"))
    rows = {row["source"]: row for row in table(section, "confounds_components").rows if row["figure"] == "accuracy"}
    assert rows["draw of rows"]["sd"] is not None and rows["seed"]["sd"] is None and "one seed" in rows["seed"]["note"]
    assert any("one seed" in note for note in section.notes)


def test_nothing_to_compare_is_none(tmp_path):
    assert confounds(fake_results(tmp_path, "[sets]\nen = { en = 20 }\n")) is None


def test_a_draw_without_one_of_the_seeds_is_a_note(tmp_path):
    results = fake_results(tmp_path, "[repeat]\nseeds = [1, 2]\ndraws = [1, 2]\n[sets]\nen = { en = 20 }\n")
    results.fits = [fit for fit in results.fits if (fit.draw, fit.seed) != (2, 2)]
    section = confounds(results)
    assert any("no such fit" in note for note in section.notes)


def test_a_codebook_without_topic_has_macro_f1(tmp_path):
    labels = ("politics", "sports", "travel")
    for name, count in (("train", 8), ("test", 12)):
        with open(tmp_path / f"{name}.jsonl", "w", encoding="utf-8") as handle:
            for code in ("en", "de"):
                for k in range(3 * count):
                    handle.write(json.dumps({"id": f"{name}{code}{k}", "language": code, "label": labels[k % 3],
                                             "text": f"{name} post {code} number {k}"}) + "\n")
    plan = (f'[data]\ntrain = ["{tmp_path}/train.jsonl"]\ntest = ["{tmp_path}/test.jsonl"]\n'
            'codebook = "data/codebooks/sib200.toml"\n[sets]\nen = { en = 12 }\nde = { de = 12 }\n'
            '[statistics]\ndraws = 100\n')
    section = confounds(fake_results(tmp_path, plan))
    assert [row["figure"] for row in rows_of(section, ROWS)] == ["macro-F1", "accuracy"]


def test_answers_that_are_all_alike_have_no_spread(tmp_path):
    results = fake_results(tmp_path, "[repeat]\nseeds = [1, 2]\n[sets]\nen = { en = 20 }\nes = { es = 20 }\n")
    results.fits = [replace(fit, key="0" * 16) for fit in results.fits]
    results.runner.read = lambda fit, asked: {"rows": [[post.language, post.id, [0.4, 0.3, 0.2, 0.1]]
                                                       for post in results.material.rows]}
    section = confounds(results)
    assert {row["value"] for row in rows_of(section, ROWS)} == {0}
    assert {row["changed"] for row in rows_of(section, ROWS)} == {0}
