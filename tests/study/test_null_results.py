"""A result that shows nothing opens with that, and numbers follow; nothing is claimed with more certainty than before.

Deliberate break: in `study.report.opening.is_shown` write `>=` for `>` (an interval that ends at zero then lies "above"
it), or put `one_association(row)` back into the text of a claim in study/questions/pretraining_share.py.
"""

import re

import pytest

from study.questions.contrasts import contrasts, disagreement
from study.questions.pretraining_share import share_answer, share_claims
from study.questions.sentences import p_words
from study.report.opening import verdict
from study.report.page import study_page
from study.report.section import Claim, Section
from tests.report.test_page import Reader
from tests.study.fake_study import PLAN, fake_results, few_languages
from tests.study.made_study import made_study

ROW = {"model": "multi", "figure": "accuracy", "over": "all", "measure": "pearson, log10 share", "r": 0.32, "n": 9,
       "exact": True, "orders": 362_880, "smallest_p": 1 / 362_880, "rise": 0.03, "least": "de", "largest": "en",
       "low": -0.02, "high": 0.09, "languages": "ar de en"}
NEITHER = "The interval contains zero: this shows neither a difference nor that there is none."
NUMBERS = re.compile(r"\bp [=<]|\br =|\d\.\d|p-value")  # of the kind that asks for statistics


@pytest.mark.parametrize("p, words", [(0.41, "no association of accuracy with the share of pre-training is shown"),
                                      (0.004, "accuracy and the share of pre-training are associated")])
def test_a_claim_on_share_says_what_was_found_before_any_p(p, words):
    related = [{**ROW, "p": p, "english": True}, {**ROW, "p": 0.6, "english": False, "n": 8}]
    claim, without = share_claims("multi", related)
    none = "Undecided: +.03 (−.02 to +.09) in multi's accuracy, over {}, from the smallest"
    assert "over nine languages" in claim.text.lower() and not NUMBERS.search(claim.text)
    assert ("rises by .03 from the smallest" in claim.text) == (p <= 0.05)
    assert claim.text.startswith(none.format("nine languages")) == (p > 0.05)
    assert without.text.startswith(none.format("eight languages without English"))
    assert "r = " in claim.may_say and "p = " in claim.may_say and "362,880 orders" in claim.may_say
    assert "no p below" in without.may_say  # how little the test could have found stays there
    answer = share_answer("multi", related, list("abcdefghi"))
    assert answer.index(words) < NUMBERS.search(answer).start()
    assert "no association" in answer and "no more than an association" in answer


def test_a_difference_is_said_in_words_before_its_numbers():
    def said(low, high, kind="difference"):
        return verdict(Claim("a", 0.0, low, high, "", "", kind))

    assert said(-0.1, 0.2) == said(0.0, 0.1) == NEITHER
    assert said(-0.4, 0.5, "correlation") == NEITHER.replace("a difference", "an association")
    assert "above zero" in said(0.01, 0.1) and "below zero" in said(-0.2, -0.1)
    assert said(None, None) == said(0.2, 0.4, "rate") == said(1.0, 2.0, "number") == ""
    null = Section("s", "One", "What?", "Nothing.", [Claim("a against b.", -0.01, -0.09, 0.07, "may", "may not")])
    shown = " ".join(Reader(study_page(made_study(sections=[null], latex=[]))).text)
    assert shown.index(NEITHER) < shown.index("−0.010")


def test_an_interval_and_a_p_that_disagree_are_said_to():
    line = {"low": 0.01, "high": 0.09, "simultaneous_low": -0.001, "simultaneous_high": 0.1, "p_holm": 0.04}
    assert "Holm's p is not above 0.05; the simultaneous interval, which is stricter" in disagreement(line)
    assert "Holm's p, of another test, is above 0.05" in disagreement(
        line | {"simultaneous_low": 0.001, "p_holm": 0.06})
    assert disagreement(line | dict.fromkeys(("simultaneous_low", "simultaneous_high"), float("nan"))) == (
        " Holm's p is not above 0.05, but there is no simultaneous interval.")
    for other in ({"p_holm": 0.06}, {"simultaneous_low": 0.001}, {"p_holm": float("nan")}):
        assert disagreement(line | other) == ""
    assert (p_words(1.0), p_words(0.999), p_words(0.0001)) == ("p = 1", "p = 0.999", "p < 0.001")


def test_contrasts_that_show_nothing_say_so_first(tmp_path):
    plan = re.sub(r"\[\[contrast\]\].*", "", PLAN, flags=re.S)
    plan += '[[contrast]]\nfirst = "en"\nsecond = "es"\nlanguages = ["tr", "ko"]\n' + few_languages(tmp_path)
    section = contrasts(fake_results(tmp_path, plan))
    (row,) = section.tables[0].rows
    assert row["simultaneous_low"] <= 0 <= row["simultaneous_high"]
    assert section.answer.startswith("Undecided. Of 1 comparison, none has")
    assert section.claims[0].text.startswith("Undecided: ")
