"""What a study claims: one plain sentence with its number, at most 25 words, whose direction is that of its sign.

Deliberate break: in study/questions/sentences.py let `higher` always say "higher", raise `MOST_WORDS`, or let `finding`
say what is shown whatever the interval; or take a claim of the first fits (`results.first`) in
study/questions/transfer.py.
"""

import html
import json
import re
from pathlib import Path

import numpy as np
import pytest

from common.files import ROOT
from stats.families import THESE
from study.plan import load_plan
from study.preregistration import DECLARED, NAMED, Standing
from study.questions.agreement import agreement
from study.questions.confound_claims import MODEL, SEED, variance_claims, widest
from study.questions.contrasts import OLDER, OTHERS, contrasts
from study.questions.sentences import NONE, amount, compared, finding, many, scored, shortest, unshown
from study.questions.stance import stance
from study.report.opening import opening_of, terms_of
from study.report.page import study_page
from study.report.section import Study
from study.write_up import make_study
from tests.small import write_jsonl
from tests.study.fake_study import PLAN, fake_results, few_languages

DIRECTION = r"\b(higher|lower|rises|falls|better|worse|ahead|gains?|loses?)\b"
LABELS = ("pro-immigration", "anti-immigration", "neutral", "unrelated")


def outside(folder: Path, results_rows, right=0.9) -> Path:
    """Labels that an outside model gave: mostly right ones."""
    rng = np.random.default_rng(5)
    return write_jsonl(folder / "outside.jsonl", [
        {"id": post.id, "language": post.language, "label": post.label,
         "predicted": post.label if rng.random() < right else LABELS[rng.integers(4)]} for post in results_rows])


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A whole study of four languages with an outside model and annotators."""
    folder = tmp_path_factory.mktemp("claims")
    plan = PLAN.replace(', "paper"', "").replace('["english", "steps"]', '["english"]') + few_languages(folder)
    file = outside(folder, fake_results(folder, plan).material.rows)
    plan += f'[outside.theirs]\nfile = "{file}"\nseen = ["en", "es"]\nrows = 40\n'
    plan = plan.replace("[[contrast]]", '[[contrast]]\nfirst = "theirs"\nsecond = "en"\n[[contrast]]', 1)
    results = fake_results(folder, plan)
    results.runner.jobs = 1
    rng = np.random.default_rng(6)
    results.material.votes = {(post.language, post.id): {name: post.label if rng.random() < 0.8 else LABELS[0]
                                                         for name in "abc"} for post in results.material.rows}
    return results, make_study(results, {"base": "b"})


def test_every_headline_is_a_short_sentence_with_its_number(study):
    claims = [claim for section in study[1].sections for claim in section.claims]
    assert len(claims) > 12
    for claim in claims:
        assert len(claim.text.split()) <= 25 and re.search(r"\d.*[\w)]\.$", claim.text), claim.text
        words = " ".join((claim.text, claim.may_say, claim.may_not_say))
        assert "within the interval" not in words and not re.search(r"\b1 \w+s\b|-\.?\d", words), words
        assert claim.languages and (claim.holds or claim.low is None), claim.text
        if claim.kind != "difference":
            continue
        shown = claim.low is not None and (claim.low > 0 or claim.high < 0)
        assert "cannot" in claim.text or bool(re.match(r"Undecided: [+−]?\S+ \(", claim.text)) != shown, claim.text
        assert shown or not re.search(DIRECTION, claim.text), claim.text  # what is not shown has no direction
        if shown and re.search(r"\b(higher|lower)\b", claim.text):
            assert ("higher" if claim.value > 0 else "lower") in claim.text, claim.text
            assert ("these fits" in claim.text) == claim.holds.startswith(THESE), claim.text


def test_every_contrast_is_a_claim_in_the_plans_order_with_the_familys_interval(study):
    section = study[1].sections[0]
    rows = section.tables[0].rows
    assert [claim.value for claim in section.claims] == [row["value"] for row in rows] and len(rows) == 3
    for claim, row in zip(section.claims, rows, strict=True):
        assert (claim.low, claim.high) == (row["simultaneous_low"], row["simultaneous_high"])
        assert "Holm" in claim.may_say and "all comparisons of the plan at once" in claim.holds
    assert [claim for _, claim in study[1].first_claims] == section.claims
    assert section.claims[0].text.startswith("The outside model theirs scores")


def test_above_the_cards_stands_what_is_shown_with_its_status_and_what_declared_means(study):
    results, whole = study
    page, family = study_page(whole), whole.sections[0]
    top = page[:page.index("Claim 1")]
    shown = [claim for claim in family.claims if claim.low > 0 or claim.high < 0]
    assert shown and all(f"{claim.text} {NAMED}." in top for claim in shown) and family.notes[0] in top
    assert f"{NONE}: +" not in top and opening_of(whole).head in html.unescape(top)
    assert opening_of(whole).weaker == [] and html.escape(opening_of(whole).caution) in top
    frozen = Standing(True, [json.loads(json.dumps(vars(one))) for one in results.plan.contrasts], "2026-03-01")
    found = contrasts(results, frozen)
    assert [claim.status for claim in found.claims] == [NAMED, DECLARED, DECLARED] and found.notes == [
        *frozen.notes, OLDER]  # labels from outside are older than any plan


def test_an_outside_model_takes_part_in_every_question(study):
    tables = {table.name: table for table in study[1].tables}
    for name, key in (("topic_transfer", "train"), ("topic_sets", "train"), ("topic_pooled", "train"),
                      ("stance_sets", "train"), ("bias_languages", "model"), ("agreement_accuracy", "model")):
        assert "theirs" in {row[key] for row in tables[name].rows}, name
    assert {row["model"] for row in tables["exposure_outside"].rows} == {"theirs"}
    [own] = [row for row in tables["confounds_sets"].rows if row["set"] == "theirs"]
    assert (own["languages"], own["rows"], own["fits"]) == (2, 40, 1)
    beside = [row for row in tables["confounds_contrasts"].rows if row["heading"] == MODEL]
    assert beside and {row["name"] for row in beside} == {"theirs − en-es"}
    assert any("ith the same languages and as many rows," in claim.text and "theirs" in claim.text
               for section in study[1].sections for claim in section.claims)
    assert {row["second"] for row in tables["stance_parts"].rows} >= {"theirs"}
    seen = {row["language"]: row["seen"] for row in tables["topic_transfer"].rows if row["train"] == "theirs"}
    assert seen == {"en": True, "es": True, "ko": False, "tr": False}
    assert {row["languages"] for row in tables["topic_sets"].rows if row["train"] == "theirs"} == {
        "all", "seen", "unseen"}


def test_what_else_differs_from_an_outside_model_is_named(study):
    claims = study[1].sections[0].claims  # theirs (40 rows) and multi (80) less en (20)
    shown = [claim for claim in claims if claim.low > 0 or claim.high < 0]
    assert any(claim.text.startswith("The outside model theirs") for claim in shown)
    for claim in shown:
        told = claim.may_not_say
        assert ("another base or recipe or the 20 more training posts" in told) == ("theirs" in claim.text), told
        assert told.startswith("That the languages are the reason, and not ")


def test_stance_given_detection_is_said_to_be_of_other_posts_for_each_model(study, tmp_path):
    """A model that only finds more posts scores lower on those that it found, if what it adds is harder."""
    contrast = '[[contrast]]\nfirst = "multi"\nsecond = "en"\nfigure = "{}"\nweight = "rows"\n'
    text = PLAN.split("[exposure]")[0] + "[statistics]\ndraws = 100\n" + few_languages(tmp_path)
    given, alike = (contrasts(fake_results(tmp_path, text + contrast.format(f"stance.{name}.accuracy"))).claims[0]
                    for name in ("given_detection", "conditional"))
    assert OTHERS in given.may_not_say and OTHERS not in alike.may_not_say
    assert any("other posts for each model" in line for line in terms_of([given]))
    assert "stance of related posts" in alike.text and any("the same for all models" in line for line in
                                                           terms_of([alike]))
    paper = load_plan(ROOT / "study" / "plans" / "paper.toml")
    assert not [one.figure for one in paper.contrasts if "given_detection" in one.figure]


def test_the_annotators_stand_beside_each_accuracy(study):
    results, _ = study
    section = agreement(results)
    people, lines = section.tables
    assert [row["languages"] for row in people.rows] == ["all", "en", "es", "ko", "tr"]
    assert all(row["low"] <= row["alpha"] <= row["high"] for row in people.rows)
    assert {row["model"] for row in lines.rows} == {"en", "es", "en-es", "multi", "theirs"}
    for row in lines.rows:
        assert row["less"] == pytest.approx(row["accuracy"] - row["ceiling"])
    assert "not comparable" in section.answer and "ceiling or above" not in section.answer
    assert "reaches that" not in section.answer and "which is harder" in section.figures[0].not_to_conclude
    before = people.rows[0]
    results.material.votes |= {("en", f"tied-{n}"): {"a": "neutral", "b": "unrelated"} for n in range(20)}
    after = agreement(results).tables[0].rows[0]  # no row of the study, since they have no label
    assert after["posts"] == before["posts"] + 20 and after["alpha"] < before["alpha"]
    results.material.votes = {}
    assert agreement(results) is None


def test_a_spread_that_is_cut_at_zero_is_no_claim_of_none(study):
    parts = [{"main": True, "set": widest(study[0]), "sd": 0.0, "low": 0.0, "high": 0.062, "source": SEED, "seeds": 3,
              "figure": "accuracy"}]
    claim, = variance_claims(study[0], parts)
    assert claim.text.startswith("Between 3 seeds of") and "no spread on accuracy is shown" in claim.text
    assert "standard deviation of .06 would fit as well." in claim.text
    assert "about .03 higher or lower" in variance_claims(study[0], [parts[0] | {"sd": 0.03}])[0].text


def test_a_sentence_follows_its_sign_and_has_none_where_nothing_is_shown(study):
    results, _ = study
    down = {"value": -0.083, "low": -0.1, "high": -0.02}
    words = compared(results, "multi", "en", "topic.macro_f1", ["ko"], down)
    assert words == ("Fine-tuned on 13 languages instead of English alone, the model scores .08 lower on topic in "
                     "Korean, which this adds.")
    words = compared(results, "en-es", "en", "topic.macro_f1", ["ko", "tr"], down | {"high": 0.02})
    assert words == ("Undecided: −.08 (−.10 to +.02) on topic, fine-tuned on English and Spanish instead of "
                     "English alone, in two languages that neither saw.")
    words = compared(results, "multi", "en", "topic.macro_f1", ["ko"], down | {"holds": THESE})
    assert words == ("Fine-tuned on 13 languages instead of English alone, these fits score .08 lower on topic in "
                     "Korean, which this adds.")
    words = compared(results, "theirs", "en", "accuracy", ["ko"], down | {"holds": THESE})
    assert words.endswith("lower than en on labels in Korean, in these fits.")
    none = compared(results, "multi", "en", "topic.macro_f1", ["ko"], {"value": float("nan"), "low": None})
    assert "cannot be compared" in none
    assert (amount(-0.083), amount(0.0021), amount(1.204), amount(0.0)) == (".08", ".002", "1.20", ".00")
    assert scored(-0.0006, "en") == ".001 lower than en"
    words = compared(results, "theirs", "en", "accuracy", ["ko"], {"value": 0.0, "low": -0.1, "high": 0.1})
    assert words == "Undecided: .00 (−.10 to +.10) on labels, the outside model theirs less en, in Korean."
    for low, high in ((-0.1, 0.0), (0.0, 0.1), (float("nan"), float("nan")), (None, None)):
        assert finding({"value": 0.1, "low": low, "high": high}, ["a is .10 higher"], ["a less b"]).startswith(NONE)
    none = {"value": 0.1, "low": 0.0, "high": 0.2}
    assert finding(none, ["b"], ["a less b,"], [" or" * 30, ""]).endswith(" a less b.")
    assert unshown(0.1, None, None) == unshown(0.1, float("nan"), float("nan")) == f"{NONE}: +.10 (no interval)"
    assert (many(1, "language"), many(10, "post"), many(13, "post")) == ("one language", "ten posts", "13 posts")
    assert shortest(["a " * 20], ["b " * 9, "b"]) == "a " * 20 + "b"


def test_a_headline_never_hides_that_only_one_side_saw_the_languages(study):
    results, _ = study
    found = {"value": 0.083, "low": -0.1, "high": 0.3}
    for figure in ("topic.macro_f1", "stance.given_detection.accuracy"):
        for first, second, turn in (("multi", "en", "adds"), ("en", "multi", "leaves out"), ("en-es", "multi",
                                                                                             "leaves out")):
            words = compared(results, first, second, figure, ["ko", "tr"], found)
            assert f" this {turn}" in words or "that only multi saw" in words, words
            assert words.startswith("Undecided: +.08 (−.10 to +.30) on ")
            assert len(words.split()) <= 25, words
        words = compared(results, "theirs", "multi", figure, ["ko", "tr"], found)
        assert "less multi" in words and "in two languages that only multi saw" in words and len(words.split()) <= 25
    words = compared(results, "multi", "en", "topic.macro_f1", ["ko", "tr"], found | {"low": 0.01})
    assert words.endswith("on topic in the two languages that this adds.")
    assert "two languages, 1 of which this adds" in compared(results, "en-es", "en", "topic.macro_f1", ["es", "ko"],
                                                             found | {"low": 0.01})
    words = compared(results, "theirs", "en", "topic.macro_f1", ["es", "ko"], found)
    assert "in two languages, 1 of them seen by theirs alone" in words
    assert " saw" not in compared(results, "multi", "en-es", "topic.macro_f1", ["en", "ko"], found)


def test_stance_on_other_posts_in_each_pair_is_said_to_be_a_mean_over_pairs(study):
    claims = stance(study[0]).claims
    assert claims
    assert all(re.search(r"\b[Oo][nf] about [\d,]+ posts( that)? both models found, ", one.text) for one in claims)


def test_no_question_says_that_something_lies_within_an_interval():
    for path in (ROOT / "study").rglob("*.py"):
        assert "within the interval" not in path.read_text(encoding="utf-8"), path


def test_a_card_shows_what_its_interval_holds_for_and_the_points_of_all_fits(study):
    section = study[1].sections[1]
    page = study_page(Study("t", "c", {}, {}, [section], "m"))
    claim = section.claims[0]
    assert f"The interval allows for {claim.holds}." in page and "A fit is one training run." in page
    assert page.count('class="fit"') >= 4 and "Languages: " in page and claim.notes[0] in page
