"""Figures against pre-training shares: exact p-values against scipy and brute force, and what is left out.

Deliberate break: give unlisted languages a share of 0 in "listed" (`listed = list(values)` with `logs` of 1e-9) and
test_unlisted_is_not_zero turns red; use `>` for `>=` in `permutation_test` and test_exact_p_equals_every_order does.
"""

import re
from itertools import permutations

import numpy
import pytest
from scipy import stats

from common.files import ROOT
from data.exposure import load_shares
from stats.shares import association, order_sums, permutation_test, ranks

SHARES = {"en": 89.7, "de": 0.17, "fr": 0.16, "es": 0.13, "it": 0.11, "pl": 0.09, "pt": 0.09}
VALUES = {"en": 0.7, "de": 0.6, "fr": 0.65, "es": 0.5, "it": 0.61, "pl": 0.55, "pt": 0.52, "ar": 0.4, "hi": 0.72}


def test_exact_p_equals_every_order():
    rng = numpy.random.default_rng(0)
    for n in (3, 4, 6):
        for ties in (False, True):
            x, y = rng.normal(size=n), rng.integers(0, 3, n) if ties else rng.normal(size=n)
            if numpy.ptp(y) == 0:
                continue
            r = numpy.corrcoef(x, y)[0, 1]
            all_r = [numpy.corrcoef(x, order)[0, 1] for order in permutations(y)]
            found = permutation_test(x, y)
            assert found["r"] == pytest.approx(r, abs=1e-12) and found["exact"]
            assert found["p"] == pytest.approx(numpy.mean(numpy.abs(all_r) >= abs(r) - 1e-9), abs=1e-12)
            assert found["orders"] == len(all_r)
            assert found["smallest_p"] == pytest.approx(
                numpy.mean(numpy.abs(all_r) >= max(map(abs, all_r)) - 1e-9), abs=1e-12)


def test_all_orders_are_there_once():
    for n in (1, 2, 3, 5, 7):
        places = 10.0 ** numpy.arange(n)  # each order has a sum of its own: its digits
        assert sorted(order_sums(places, numpy.arange(n))) == sorted(places @ o for o in permutations(range(n)))


def test_equals_scipy():
    rng = numpy.random.default_rng(1)
    x, y = rng.normal(size=6), rng.normal(size=6)
    theirs = stats.permutation_test((y,), lambda y: stats.pearsonr(x, y).statistic, permutation_type="pairings",
                                    n_resamples=numpy.inf, vectorized=False)
    # scipy doubles the smaller tail; ours takes both tails by size, as its own pearsonr does.
    both = numpy.mean(abs(theirs.null_distribution) >= abs(theirs.statistic) - 1e-9)
    assert permutation_test(x, y)["p"] == pytest.approx(both, abs=1e-12)
    assert permutation_test(ranks(x), ranks(y))["r"] == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
    tied = numpy.array([3.0, 1, 3, -numpy.inf, 2])
    assert ranks(tied).tolist() == stats.rankdata(tied).tolist()


def test_many_languages_are_drawn_and_said_so():
    rng = numpy.random.default_rng(2)
    x, y = rng.normal(size=12), rng.normal(size=12)
    found = permutation_test(x, y, draws=20_000, seed=5)
    assert not found["exact"] and found["orders"] == 20_000 and found == permutation_test(x, y, draws=20_000, seed=5)
    # 20,000 draws: a standard error of at most 0.0036; the t approximation is near the truth with twelve values.
    assert found["p"] == pytest.approx(stats.pearsonr(x, y).pvalue, abs=0.015)
    sure = permutation_test(numpy.arange(12.0), numpy.arange(12.0), draws=1000)
    assert sure["p"] == pytest.approx(1 / 1001) == sure["smallest_p"]


def test_p_is_uniform_where_nothing_is_there():
    rng, x = numpy.random.default_rng(3), numpy.arange(6.0)
    p = numpy.array([permutation_test(x, rng.normal(size=6))["p"] for _ in range(600)])
    for level in (0.05, 0.2, 0.5):
        # A standard error of at most 0.02, and p comes in steps of 1/360.
        assert (p <= level).mean() == pytest.approx(level, abs=0.05)


def test_unlisted_is_not_zero():
    table = association(VALUES, SHARES)
    assert [(row["analysis"], row["english"], row["n"]) for row in table] == [
        ("listed", True, 7), ("listed", False, 6), ("listed", True, 7), ("listed", False, 6),
        ("unlisted lowest", True, 9), ("unlisted lowest", False, 8)]
    assert all(row["unlisted"] == ["ar", "hi"] and row["exact"] for row in table)
    listed = [code for code in VALUES if code in SHARES]
    for row, codes in ((table[0], listed), (table[1], [code for code in listed if code != "en"])):
        expected = stats.pearsonr([numpy.log10(SHARES[c]) for c in codes], [VALUES[c] for c in codes]).statistic
        assert row["r"] == pytest.approx(expected, abs=1e-12) and row["languages"] == sorted(codes)
    # Any number below all listed shares gives these ranks.
    for low in (0.0, 1e-9, 0.08):
        expected = stats.spearmanr([SHARES.get(c, low) for c in VALUES], list(VALUES.values())).statistic
        assert table[4]["r"] == pytest.approx(expected, abs=1e-12)


def test_english_can_carry_the_slope_alone():
    values = {"de": 0.5, "fr": 0.52, "es": 0.5, "it": 0.51, "pl": 0.52, "pt": 0.51, "en": 0.9}
    table = association(values, SHARES)
    assert table[0]["r"] > 0.9 and abs(table[1]["r"]) < 0.6


def test_what_has_no_figure():
    table = association({"en": 0.5, "de": numpy.nan, "fr": None, "es": 0.4}, SHARES)
    assert all(row["r"] is None and row["p"] is None and row["n"] <= 2 for row in table)
    assert association(dict.fromkeys(SHARES, 0.5), SHARES)[0]["p"] is None
    assert association({}, SHARES)[0]["n"] == 0


def test_works_on_the_shipped_shares():
    shares = load_shares().percent
    table = association({code: 0.1 * k for k, code in enumerate(["ar", "hi", "tr", *shares])}, shares)
    assert table[0]["n"] == 10 and table[0]["exact"] and table[0]["orders"] == 3_628_800
    assert table[4]["n"] == 13 and not table[4]["exact"]


def test_no_word_says_what_brings_about_what():
    text = (ROOT / "stats" / "shares.py").read_text(encoding="utf-8").lower()
    words = r"\b(caus\w+|effects?|impact\w*|influenc\w+|driv\w+|leads? to|due to|explain\w*|because)\b"
    assert not re.findall(words, text)
