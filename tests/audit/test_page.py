"""The audit's page as a newcomer reads it: its sentences, its headings, its glossary, its tables on a phone and a desk.

Deliberate break: leave the factor out of `worst_rounded`; swap the verdicts in `cost`; call a column "interval" again;
or take `table-layout` or `.far` out of audit/page.css.
"""

import re

import pytest

from audit.__main__ import UNITS, shown
from audit.four_bits import cost, said_of_quantisation, worst_rounded
from audit.page import audit_page, findings, terms
from audit.words import brief, changed, named, percents, short, signed
from quant.nf4 import NF4_CODE
from tests.browser import PROGRAM, Browser
from tests.report.test_page import EVIL, Reader
from tests.report.test_page_folds import Folds

KINDS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj",
         "mlp.down_proj")
NAMES = [f"model.layers.{layer}.{kind}" for layer in range(3) for kind in KINDS]


def change(name: str, kl: float, f1: float = -0.0001, pair=(-0.02, 0.0001)) -> dict:
    return {"name": name, "matrices": 1, "flips": 12, "flip_rate": 0.12, "flip_rate_ci": [0.07, 0.198], "kl": kl,
            "kl_ci": [kl / 2, 2 * kl], "macro_f1": 0.5, "f1_change": f1, "f1_change_ci": pair and list(pair)}


def matrix(name: str, error: float) -> dict:
    block = {"block": 162, "row": 40, "column": 128, "weights": 64, "share": 0.0138, "relative_error": 0.17,
             "largest": 0.9, "crest": 7.9}
    return {"name": name, "shape": [128, 256], "relative_error": error, "weighted_error": error / 2,
            "block_error_largest": 0.2, "crest_largest": 8.0, "outliers": 1000, "bits_used": 3.5, "bits_by_error": 2.9,
            "codes": [1] * 16, "worst_blocks": [block]}


@pytest.fixture
def found() -> dict:
    """An audit of two parts, made up."""
    changed = [change(name, 0.06 / (place + 1)) for place, name in enumerate(NAMES)]
    whole = change("all", 0.14, -0.023, (-0.049, 0.003))
    updates = [{"name": name, "update_norm": 0.5, "weight_norm": 8.0, "ratio": 0.0625, "rank": 16,
                "effective_rank": 9.5} for name in NAMES]
    return {"run": "runs/mine", "posts": 100, "groups": 90, "group_by": "author", "draws": 2000, "seed": 0,
            "accuracy": 0.56, "macro_f1": 0.5,
            "quantisation": {"state": "nf4", "level": "matrix", "changed": changed, "all": whole,
                             "matrices": [matrix(name, 0.135 - 0.001 * k) for k, name in enumerate(NAMES)]},
            "adapter": {"level": "matrix", "off": changed, "all": whole, "matrices": updates}}


def test_the_worst_block_is_not_said_to_hold_most_of_the_error():
    rows = [matrix(NAMES[0], 0.09), matrix(NAMES[2], 0.135)]
    # 128 x 256 weights are 512 blocks, and 0.0138 x 512 is 7.07.
    assert worst_rounded(rows).replace("\u00a0", " ") == (
        "layers.0.self_attn.v_proj, off by 13.5 % (root mean square of its errors beside that of its weights); its "
        "worst block, 162, holds 1.4 % of the squared error, 7.1 times an even share")
    rows[1]["worst_blocks"][0]["share"] = 0.0
    assert worst_rounded(rows).endswith("that of its weights)")


@pytest.mark.parametrize("state, pair, words", [
    ("nf4", [-0.049, 0.003], "these posts show no cost of four bits"),
    ("nf4", [0.0, 0.0], "these posts show no cost of four bits"),
    ("nf4", [0.01, 0.03], "all above 0: four bits cost so much"),
    ("nf4", [-0.03, -0.01], "all below 0: on these posts the run is better in the four bits that it was trained in"),
    ("dense", [-0.049, 0.003], "these posts show no cost of four bits"),
    ("dense", [-0.03, -0.01], "all below 0: four bits would cost so much"),
    ("dense", [0.01, 0.03], "all above 0: on these posts the run is better in four bits than dense"),
])
def test_what_the_sign_means_is_said(found, state, pair, words):
    assert words in cost(state, pair)
    part = found["quantisation"] | {"state": state, "all": change("all", 0.1, 0.5, pair)}
    assert words in said_of_quantisation(part).split("\n")[0]


def test_without_an_interval_nothing_is_concluded(found):
    assert cost("nf4", None) == cost("dense", None) == ""
    part = found["quantisation"] | {"all": change("all", 0.1, -0.023, None)}
    assert said_of_quantisation(part).split("\n")[0].endswith("macro-F1 changes by −0.023.")
    assert "need not be the one that matters most" in said_of_quantisation(part).split("\n")[1]


def test_figures_have_no_sign_of_nothing_and_intervals_their_column_s_unit(found):
    assert [signed(value) for value in (0.5, -0.5, 0.0001, -0.0001, 0.0)] == \
        ["+0.500", "−0.500", "0.000", "0.000", "0.000"]
    assert changed({"f1_change": -0.0001, "f1_change_ci": [-0.0001, 0.02]}) == "0.000 [0.000, 0.020]"
    assert percents([0.07, 0.198]) == "[7.0, 19.8]" and percents(None) == ""
    text = "".join(Reader(audit_page(found)).text)
    assert "[7.0, 19.8]" in text and "[0.07," not in text and not re.search("[-−+]0[.]000", text)
    assert "13.5\u00a0%" in text and not re.search(r"\d %", text)


def test_every_column_has_a_heading_of_its_own(found):
    found["adapter"] |= {"other": "runs/two", "angles": [
        {"name": NAMES[0], **dict.fromkeys(("cosine", "writes", "writes_by_chance", "reads", "reads_by_chance"), 0.1)}]}
    headers = Folds(audit_page(found)).headers
    assert len(headers) == 9
    for header in headers:
        assert all(header) and len(set(header)) == len(header)
    assert ["matrix", "KL", "interval of KL"] == headers[0][:3] == headers[1][:3]
    assert "largest error of a block" in headers[2] and "largest crest" in headers[2] and "crest" in headers[3]


def test_the_glossary_explains_what_stands_on_the_page(found):
    packed = {"state": "packed", "level": None, "changed": [], "all": None, "matrices": [
        {"name": NAMES[3], "codes": [1] * 16, "bits_used": 4.0, "bits_stored": 4.5, "largest_scale_over_median": 2.0}]}
    small = {key: value for key, value in found.items() if key not in ("quantisation", "adapter")}
    for case in (found, small, small | {"adapter": found["adapter"]}, small | {"quantisation": packed}):
        text = "".join(Reader(audit_page(case)).text)
        before, after = text.split("How to read this")
        for term in terms(case):
            assert term in after
            for word in term.split(", "):
                assert word in before or (word.endswith("_proj") and "_proj" in before), word
    assert {"macro-F1", "KL", "bits used", "bits by error", "Codes 0 to 15", "q_proj, k_proj, v_proj, o_proj",
            "gate_proj, up_proj, down_proj"} < set(terms(found))
    assert "bits stored" in terms(small | {"quantisation": packed}) and "flips" not in terms(small)
    said = terms(found)["intervals"]
    assert "F1 has none below 30 posts, or where a label's are from fewer than 10 groups." in said
    assert "posts of the same text or “author” counted as what they are worth" in said
    assert "worth" not in terms(found | {"groups": 100, "group_by": None})["intervals"]
    assert [float(NF4_CODE[code]) for code in (0, 7, 15)] == [-1, 0, 1]
    assert "from −1 (0) over zero (7) to 1 (15)" in terms(found)["Codes 0 to 15"]


def test_pairs_are_named_where_there_are_some(found):
    assert "choice of posts, not" in findings(found)[-1]
    pairs = {"pairs": 0, "languages": {}, "checks": [], "cells": [], "examples": [], "written": ""}
    assert "choice of posts or pairs, not" in findings(found | {"behaviour": pairs})[-1]


def test_the_way_to_the_glass_is_the_readme_s_command(found):
    text = " ".join(Reader(audit_page(found)).text)
    assert ".venv/bin/python -m glass" in text and text.count("python -m") == text.count(".venv/bin/python -m")
    found["quantisation"]["state"] = "dense"  # whose glass has no four bits
    assert "-m glass" not in audit_page(found)


def test_names_are_short_where_there_is_little_room():
    assert short(NAMES[2]) == "layers.0.self_attn.v_proj" and brief(NAMES[2]) == "0.v_proj"
    assert "".join(Reader(named(NAMES[2])).text) == short(NAMES[2])
    assert brief("model.layers.1") == named("model.layers.1") == "layers.1" and named(EVIL) != EVIL


def test_a_bar_says_what_it_counts(capsys):
    shown("four bits", "layer")(23)
    said = capsys.readouterr().out
    assert said.startswith("  four bits: 23 rounds. A round goes over all posts, with one layer changed")
    for part in UNITS:
        shown(part, "matrix")(1)
    assert "{" not in capsys.readouterr().out


@pytest.mark.skipif(not PROGRAM, reason="needs chromium")
def test_tables_end_alike_and_a_phone_s_names_are_short(found, tmp_path):
    path = tmp_path / "audit.html"
    path.write_text(audit_page(found).replace("<details>", "<details open>"), encoding="utf-8")
    edges = "[...document.querySelectorAll('table')].map(one => one.getBoundingClientRect().right)"
    columns = ("[...document.querySelectorAll('.changes')].slice(0, 2).map(one => [...one.querySelectorAll('th.n')]"
               ".map(head => head.getBoundingClientRect().right))")
    names = "[...document.querySelectorAll('tbody th')].map(one => [one.innerText, one.getBoundingClientRect().width])"
    cut = "[...document.querySelectorAll('th, td')].filter(one => one.scrollWidth > one.clientWidth + 1).length"
    with Browser() as browser:
        for width in (1200, 1600):
            browser.read(path, width)
            found_edges, (one, two) = browser.value(edges), browser.value(columns)
            assert max(found_edges) - min(found_edges) < 1 and one == pytest.approx(two, abs=0.5)
            assert browser.value(cut) == 0 and browser.value(names)[1][0] == short(NAMES[0])
        assert browser.read(path, 390)["scroll_width"] <= 390
        one, two = browser.value(columns)
        assert one == pytest.approx(two, abs=0.5) and browser.value(cut) == 0
        assert browser.value("[...document.querySelectorAll('tr')].every("
                             "one => Number.isInteger(one.getBoundingClientRect().height))")
        shown_names = browser.value(names)
        assert shown_names[1][0] == brief(NAMES[0]) and max(width for _, width in shown_names) < 390 / 3
