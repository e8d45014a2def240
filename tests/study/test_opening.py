"""What stands above the first claims: how many comparisons show something, the weaker apart, and what was not tested.

Deliberate break: in study/report/opening.py let `firm` be all that is shown, leave `caution` out, or count an interval
that ends at zero as shown (`>=` in `is_shown`).
"""

import html
import re
from types import SimpleNamespace

import pytest

from stats.families import SEEDS, THESE
from study.preregistration import DECLARED, NAMED
from study.questions.contrasts import contrasts
from study.questions.sentences import capped, weights_words
from study.report.opening import APART, UNDECIDED, opening_of, terms_of
from study.report.page import study_page
from study.report.section import FAMILY, Claim, Section, Study
from study.write_up import summary
from tests.study.fake_study import PLAN, fake_results, few_languages

SHOWN, OPEN = (0.02, 0.12), (-0.01, 0.12)


def claim(text, ends=SHOWN, weaker="", status=DECLARED) -> Claim:
    return Claim(text, sum(ends) / 2, *ends, "may", "may not", status=status, weaker=weaker)


def made(*claims) -> Study:
    return Study("t", "c", {}, {}, [Section(FAMILY, "One", "What?", "This.", list(claims), notes=["Declared: so."])],
                 "m")


@pytest.mark.parametrize("ends, head", [
    ([SHOWN], "The plan's comparison shows a difference."), ([OPEN], "The plan's comparison is undecided."),
    ([(0.0, 0.1)], "The plan's comparison is undecided."),
    ([SHOWN] * 2, "All 2 of the plan's comparisons show a difference."),
    ([OPEN] * 3, "All 3 of the plan's comparisons are undecided."),
    ([OPEN, SHOWN], "Of the plan's 2 comparisons, 1 shows a difference and 1 is undecided."),
    ([OPEN, SHOWN, OPEN, (-0.2, -0.1)], "Of the plan's 4 comparisons, 2 show a difference and 2 are undecided.")])
def test_the_first_line_counts_what_is_shown_and_what_is_undecided(ends, head):
    found = opening_of(made(*(claim(f"Claim {k}.", one) for k, one in enumerate(ends))))
    shown = sum(low > 0 or high < 0 for low, high in ends)
    assert found.head == head and len(found.firm) == shown and found.weaker == []
    assert found.undecided == (UNDECIDED if shown < len(ends) else "")
    assert ("No comparison was tested against another" in found.caution) == (len(ends) > 1)
    assert ("larger than one undecided" in found.caution) == (0 < shown < len(ends))


def test_terms_that_stand_in_the_first_claims_are_explained_below_them():
    study = made(claim("A is higher."))
    assert terms_of(study.sections[0].claims) == [] and "rare label" not in study_page(study)
    study.sections[0].claims[0].may_say = "Whether stance end to end accuracy and topic macro-F1 differ is undecided."
    first, second = terms_of(study.sections[0].claims)
    assert first.startswith("Macro-F1: each label") and second.startswith("End to end: a post is right if")
    page = html.unescape(study_page(study))
    assert page.index("may not") < page.index(first) < page.index(second) < page.index("The questions")


def test_what_is_shown_on_weaker_grounds_stands_apart_with_the_reason():
    study = made(claim("A is higher.", weaker="other fits may differ", status=NAMED), claim("B is higher."))
    found = opening_of(study)
    assert found.firm == [f"B is higher. {DECLARED}."] and found.weaker == ["A is higher. Other fits may differ."]
    page = html.unescape(study_page(study))
    places = [page.index(words) for words in ("B is higher.", APART, "A is higher. Other fits", "Claim 1")]
    assert places == sorted(places)
    assert summary(study).splitlines()[:4] == [found.head, *found.firm, APART, *found.weaker]
    both = made(*(claim(f"{name} is higher.", weaker="other fits may differ") for name in "AB"))
    assert len(opening_of(both).firm) == 2 and opening_of(both).weaker == [] and APART not in study_page(both)
    assert opening_of(Study("t", "c", {}, {}, [], "m")) is None


def test_an_undecided_card_looks_unlike_one_that_shows_something():
    page = study_page(made(claim("A.", OPEN), claim("B.")))
    assert page.count('class="card undecided"') == page.count('class="card"') == 2  # in the opening and its section
    assert UNDECIDED in page


def test_a_contrast_says_why_it_is_weaker_and_what_else_the_data_are_compatible_with(tmp_path):
    results = fake_results(tmp_path, PLAN + few_languages(tmp_path))  # two seeds and two draws, no frozen plan
    for one in contrasts(results).claims:
        assert one.weaker == "not declared before the first answer; other training runs may differ"
        assert one.holds == f"{THESE}, and for all comparisons of the plan at once"
        if one.low <= 0 <= one.high:
            assert re.search(r"differs, \.\d+ beside \.\d+, is undecided \(", one.may_say)
            assert one.may_not_say.startswith("That the two are alike: anything from −.")
            assert one.may_not_say.endswith(" is compatible with the data; that it is smaller than another.")
        else:
            assert "that it is larger than another comparison" in one.may_not_say
    results.plan.contrasts = results.plan.contrasts[:1]
    assert "than another" not in contrasts(results).claims[0].may_not_say
    assert "with these fits" not in SEEDS


def test_a_headline_gives_long_names_numbers_and_says_whose():
    long, longer = "small but many languages", "small but many languages, twice as many rows"
    plan = SimpleNamespace(sets={"en": {}, long: {}, longer: {}}, outside={"a model from the year before": None})
    words = "{0} scores .08 higher than {1} on stance once found in ten languages that only {0} saw, in these fits."
    found = capped(plan, claim(words.format(longer, long)))
    assert found.text == words.format("Set 3", long).replace("only Set", "only set") and len(found.text.split()) == 25
    assert found.notes == [f"Set 3: {longer}."]  # the other one fits in
    theirs = capped(plan, claim(words.format("The outside model a model from the year before", "en").replace(
        "only The", "only the")))
    assert theirs.text == words.format("The outside model 1", "en").replace("only The", "only the")
    assert theirs.notes == ["Model 1: a model from the year before."]
    assert capped(plan, claim(f"{long} is higher.")) == claim(f"{long} is higher.")  # short enough as it is
    assert weights_words("none") == "weights that are not quantised" and "as nf4" in weights_words("nf4")
