"""Baselines beside the sets: what each learns from, what is kept, what is said where one cannot be made.

Deliberate break: in study/questions/learned.py let `trained_on` give every training post instead of the fit's own; let
`answers_of` give all rows to the first fold's model; or leave the training rows out of `kept`'s name. All turn red.
"""
# ruff: noqa: F401, F811  (fixtures are imported by name and then named as arguments)

import functools
import json
from pathlib import Path

import numpy as np
import pytest

from baselines import tfidf as methods
from common.errors import UserError
from stats.families import SEEDS
from stats.paired import difference
from stats.recipes import contrast
from study.questions import learned
from study.questions.baselines import TUNED, baselines
from study.questions.learned import answers_of, first_fits, tfidf, trained_on
from study.report.figures import figure_of
from study.report.section import Study
from tests.baselines.test_encoder import encoder
from tests.baselines.test_sentences import package
from tests.study.fake_study import fake_results, first_posts, table

PLAN = """
[sets]
en = { en = 20 }
multi = { en = 20, es = 20, "*" = 20 }
[statistics]
draws = 200
"""
ALONE = "[baselines]\nregression = []\n"  # whether the package is installed here is then of no account


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return fake_results(tmp_path_factory.mktemp("study"), PLAN + ALONE)


@pytest.fixture(scope="module")
def section(results):
    return baselines(results)


def test_every_method_stands_beside_every_set(results, section):
    rows = {row["name"]: row for row in table(section, "baselines_all").rows}
    assert set(rows) == {"zero-shot", *(f"{method}, {name}" for method in ("majority", "TF-IDF", "en", "multi")
                                        for name in ("en", "multi", "fine-tuned")
                                        if (method in ("en", "multi")) == (name == "fine-tuned"))}
    for name in ("en", "multi"):
        row = rows[f"{name}, fine-tuned"]
        assert row["kind"] == TUNED and row["n"] == len(results.kept.ids)
        assert row["main"] == pytest.approx(results.first(name).figure("topic.macro_f1", None, "languages"))
        assert row["accuracy_low"] < row["accuracy"] < row["accuracy_high"]
    parts = [(row["train"], row["languages"], row["name"]) for row in table(section, "baselines_parts").rows]
    assert ("en", "unseen", "zero-shot") in parts and ("en", "seen", "TF-IDF") in parts
    assert ("multi", "seen", "fine-tuned") in parts and ("multi", "unseen", "fine-tuned") not in parts
    for spec in section.figures:
        figure_of(spec, table(section, spec.table))
    Study("t", "now", {}, {}, [section], "")


def test_baselines_learn_from_the_fits_own_rows(results):
    fits = first_fits(results, "en")
    train = trained_on(results.material)(fits[0])
    assert len(train) == 20 and {post.language for post in train} == {"en"}
    book, posts = results.material.codebook, results.posts(results.kept)
    direct = methods.tfidf([post.text for post in train], [book.index(post.label) for post in train], 4,
                           [post.text for post in posts])
    found = answers_of(results, fits, trained_on(results.material), tfidf(results))
    assert np.array_equal(found.predicted, direct[0]) and np.array_equal(found.probabilities, direct[1])
    label = np.bincount([book.index(post.label) for post in train]).argmax()
    assert set(answers_of(results, fits, trained_on(results.material), learned.majority(results)).predicted) == {label}


def test_differences_are_the_sets_less_the_baseline_on_the_same_posts(results, section):
    rows = {(row["train"], row["baseline"], row["languages"]): row for row in
            table(section, "baselines_differences").rows}
    row = rows["en", "TF-IDF", "unseen"]
    other = answers_of(results, first_fits(results, "en"), trained_on(results.material), tfidf(results))
    unseen = results.unseen("en")
    expected = difference(results.first("en"), other, "topic.macro_f1", unseen, "languages", 200, 0)
    assert row["difference"] == pytest.approx(expected["value"]) and row["count"] == 12
    # The same draws, save that English has a stream of its own in both.
    assert (row["low"], row["high"]) == pytest.approx((expected["low"], expected["high"]))
    assert ("multi", "zero-shot", "all") in rows and ("multi", "zero-shot", "seen") not in rows
    claim, = section.claims
    assert claim.value == rows["multi", "TF-IDF", "all"]["difference"] and "multi" in claim.text


def test_differences_of_three_seeds_have_the_seeds_in_their_interval(tmp_path, section):
    found = fake_results(tmp_path, PLAN + ALONE + "[repeat]\nseeds = [1, 2, 3]\n")
    several = baselines(found)
    row = next(row for row in table(several, "baselines_differences").rows
               if (row["train"], row["baseline"], row["languages"]) == ("multi", "TF-IDF", "all"))
    one = answers_of(found, first_fits(found, "multi"), trained_on(found.material), tfidf(found))
    wanted = contrast(found.recipe("multi"), {("one", "one"): one}, "topic.macro_f1", None, "languages", 200, 0)
    assert (row["low"], row["high"]) == pytest.approx((wanted["low"], wanted["high"]))
    claim, = several.claims
    assert claim.holds == row["holds"] == SEEDS and (claim.low, claim.high) == (row["low"], row["high"])
    assert "in these fits" not in claim.text and "in these fits" in section.claims[0].text


def test_folds_answer_the_posts_that_they_held_out(tmp_path):
    plan = PLAN + '[repeat]\nfolds = 3\nfolded = ["tr", "en"]\n'
    found = fake_results(tmp_path, plan)
    fits, seen = first_fits(found, "multi"), []
    assert [fit.fold for fit in fits] == [(1, 1), (1, 2), (1, 3)]

    def method(fit, train, asked):
        seen.append((fit.fold, {id(post) for post in train}, {id(post) for post in asked}))
        return np.full(len(asked), fit.fold[1]), np.zeros((len(asked), 4))

    answers = answers_of(found, fits, trained_on(found.material), method)
    assert all(not train & asked for _, train, asked in seen)
    assert sum(len(asked) for _, _, asked in seen) == len(found.kept.ids)
    turkish = answers.predicted[found.kept.language == "tr"]
    assert set(turkish) == {1, 2, 3} and set(answers.predicted[found.kept.language == "ko"]) == {1}


def test_what_was_learnt_is_kept_and_named_by_its_rows(tmp_path, monkeypatch):
    found = fake_results(tmp_path, PLAN)
    train = trained_on(found.material)
    first = answers_of(found, first_fits(found, "en"), train, tfidf(found))
    files = list((tmp_path / "baselines").glob("*.json"))
    assert len(files) == 1 and set(json.loads(files[0].read_text())) == {"what", "labels", "rows"}

    def refuse(*args, **more):
        raise AssertionError("learnt again")

    monkeypatch.setattr(methods, "tfidf", refuse)
    again = answers_of(found, first_fits(found, "en"), train, tfidf(found))
    assert np.array_equal(first.predicted, again.predicted)
    assert np.array_equal(first.probabilities, again.probabilities)
    with pytest.raises(AssertionError, match="learnt again"):
        answers_of(found, first_fits(found, "multi"), train, tfidf(found))
    files[0].write_text('{"rows": [[1]]}')
    with pytest.raises(UserError, match="remove it"):
        answers_of(found, first_fits(found, "en"), train, tfidf(found))


def test_what_cannot_be_made_is_left_out_with_the_reason(tmp_path):
    gap = tmp_path / "gap.jsonl"
    rows = [json.loads(line) for line in first_posts("test")]
    full = tmp_path / "full.jsonl"
    for path, kept in ((gap, rows[:-1]), (full, rows)):
        path.write_text("".join(json.dumps(row | {"predicted": row["label"]}) + "\n" for row in kept))
    section = baselines(fake_results(tmp_path, PLAN + f"""
[outside]
perfect = "{full}"
torn = "{gap}"
[baselines]
tfidf = false
regression = []
encoders = ["{tmp_path / 'nowhere'}"]
"""))
    names = {row["name"] for row in table(section, "baselines_all").rows}
    assert "perfect" in names and "torn" not in names
    assert sum("is left out" in note for note in section.notes) == 2
    assert any("nowhere" in note for note in section.notes) and any("has no prediction" in note for note in
                                                                    section.notes)
    perfect = next(row for row in table(section, "baselines_all").rows if row["name"] == "perfect")
    assert perfect["main"] == perfect["accuracy"] == 1
    less = {(row["baseline"], row["languages"]) for row in table(section, "baselines_differences").rows}
    assert {scope for name, scope in less if name == "perfect"} == {"all", "seen", "unseen"}
    assert ("torn", "all") not in less


def test_a_plan_without_baselines_gives_words(tmp_path, monkeypatch):
    found = fake_results(tmp_path, PLAN + ALONE + "majority = false\ntfidf = false\nzero_shot = false\n")
    found.fits = [fit for fit in found.fits if fit.kind != "zero-shot"]
    section = baselines(found)
    assert "names no baseline" in section.answer and not section.claims and len(section.figures) == 1


def test_encoders_in_named_folders_stand_beside(tmp_path, encoder, monkeypatch):
    quick = functools.partial(learned.Settings, epochs=1, pairs=1, longest=16)  # the tiny encoder has 40 positions
    monkeypatch.setattr(learned, "Settings", quick)
    plan = PLAN.replace("multi = { en = 20, es = 20, \"*\" = 20 }\n", "") + f"""
[baselines]
tfidf = false
encoders = ["{encoder}"]
setfit = ["{encoder}"]
regression = ["{encoder}"]
"""
    section = baselines(fake_results(tmp_path, plan))
    names = {row["name"] for row in table(section, "baselines_all").rows}
    assert {f"{encoder} ({how}), en" for how in ("fine-tuned", "SetFit", "regression")} <= names
    kinds = [json.loads(path.read_text())["what"] for path in (tmp_path / "baselines").glob("*.json")]
    assert sorted(what[0] for what in kinds) == ["encoder", "regression", "setfit"]
    assert all(what[2]["seed"] == 123 for what in kinds if what[0] != "regression")  # the fit's own


def test_the_sentence_encoder_stands_beside_wherever_it_is_installed(tmp_path, package, monkeypatch):
    told = []
    encode = package.USE.encode
    monkeypatch.setattr(package.USE, "encode", lambda self, texts: told.extend(texts) or encode(self, texts))
    section = baselines(fake_results(tmp_path, PLAN))
    names = {row["name"] for row in table(section, "baselines_all").rows}
    assert {"sentence encoder, en", "sentence encoder, multi"} <= names
    assert told and len(told) == len(set(told))  # each text once, for all sets
    rows = [row for row in table(section, "baselines_differences").rows
            if row["baseline"] == "sentence encoder" and row["languages"] == "all"]
    for row in rows:
        verdict = "ahead" if row["low"] > 0 else "the encoder wins" if row["high"] < 0 else "no difference can be"
        part = section.answer.split(f"{row['train']} {row['tuned']:.3f} against {row['value']:.3f} (")[1].split(")")[0]
        assert verdict in part
    monkeypatch.setattr("study.questions.baselines.is_installed", lambda: False)
    (tmp_path / "without").mkdir()
    assert any("is not installed" in note for note in baselines(fake_results(tmp_path / "without", PLAN)).notes)
