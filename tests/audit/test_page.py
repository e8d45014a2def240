"""The audit's page as a newcomer reads it: its sentences, its headings, its glossary, its tables on a phone and a desk.

Deliberate break: leave the factor out of `worst_rounded`; swap the verdicts in `cost`; call a column "interval" again;
or take `table-layout` or `.far` out of audit/page.css.
"""

import re

import pytest

from audit.__main__ import UNITS, shown
from audit.four_bits import cost, said_of_quantisation, worst_rounded
from audit.glossary import terms
from audit.page import asked, audit_page, findings, intervals_in
from audit.tables import changes, decimals
from audit.words import brief, changed, named, percents, short
from quant.nf4 import NF4_CODE
from report.words import signed
from tests.browser import PROGRAM, Browser
from tests.page_rules import faults
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
    about = {"date": "2026-11-27T12:00:00+00:00", "data": [{"name": "far/test.jsonl", "sha256": "a" * 64}], "pairs": [],
             "base": "base", "quantize": "nf4", "loss": "label", "dtype": "float32", "threads": 1, "device_name": "x86",
             "trained": {"posts": 160, "languages": ["en"], "created": "2026-11-26"}, "platform": "Linux x86",
             "python": "3.11", "packages": {"torch": "2.9"}, "commit": "c" * 40, "code_sha256": "d" * 64}
    known = {"rule": "same", "all": 101, "kept": 100, "dropped": 1, "exact": 0, "same": 1, "near": 2, "from_data": True}
    return {"run": "mine", "identity": about, "known": known, "posts": 100, "groups": 90, "group_by": "author",
            "draws": 2000, "seed": 0, "accuracy": 0.56, "accuracy_ci": [0.46, 0.65], "macro_f1": 0.5,
            "constant": {"accuracy": 0.3, "macro_f1": 0.1},
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
    ("nf4", [-0.049, 0.003], "whether four bits cost macro-F1, or gain it, cannot be told from these posts"),
    ("nf4", [0.0, 0.0], "cannot be told from these posts"),
    ("nf4", [0.01, 0.03], "all above 0: four bits cost so much"),
    ("nf4", [-0.03, -0.01], "all below 0: on these posts the run is better in the four bits that it was trained in"),
    ("dense", [-0.049, 0.003], "cannot be told from these posts"),
    ("dense", [-0.03, -0.01], "all below 0: four bits would cost so much"),
    ("dense", [0.01, 0.03], "all above 0: on these posts the run is better in four bits than dense"),
])
def test_what_the_sign_means_is_said(found, state, pair, words):
    assert words in cost(state, pair)
    part = found["quantisation"] | {"state": state, "all": change("all", 0.1, 0.5, pair)}
    line = said_of_quantisation(part).split("\n")[0]
    assert words in line and line.index("12 posts") < line.index("macro-F1")


def test_without_an_interval_nothing_is_concluded(found):
    assert cost("nf4", None) == cost("dense", None) == ""
    part = found["quantisation"] | {"all": change("all", 0.1, -0.023, None)}
    assert said_of_quantisation(part).split("\n")[0].endswith("macro-F1 changes by −0.023.")
    assert "need not be the one that matters most" in said_of_quantisation(part).split("\n")[1]


def test_figures_have_no_sign_of_nothing_and_intervals_their_column_s_unit(found):
    assert [signed(value, 3) for value in (0.5, -0.5, 0.0001, -0.0001, 0.0)] == \
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
    said = terms(found)["Intervals"]
    assert "F1 has none below 30 posts, or where a label's are from fewer than 10 groups, or where" in said
    assert "posts of the same text or “author” counted as what they are worth" in said
    assert "worth" not in terms(found | {"groups": 100, "group_by": None})["Intervals"]
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


def test_posts_are_called_what_is_known_of_them(found):
    known = found["known"]
    assert asked(found) == ("100 labelled posts whose text is in no training post, also apart from case, spacing, "
                            "handles and links (1 left out), 2 of them near copies of one")
    said = asked(found | {"known": known | {"rule": "exact", "near": 0}})
    assert said == "100 labelled posts whose very text is in no training post (1 left out)"
    said = asked(found | {"known": known | {"rule": "none", "near": None, "same": 3}, "posts": 1})
    assert said == "1 labelled post, of which 3 have a training post's text (--drop-known none)"
    page = "".join(Reader(audit_page(found)).text)
    assert ("1 of 101. By the recorded training posts, 0 of all have a training post's very text, and 1 have it apart "
            "from case") in page
    assert "2 of the 100 that stayed share half or more of their runs of three words" in page
    gone = found | {"known": known | {"near": None, "from_data": False}}
    page = "".join(Reader(audit_page(gone)).text)
    assert "Near copies could not be looked for" in page and "the list of hashes in the run's folder" in page


def test_the_page_keeps_the_rules_for_every_reader(found):
    """Deliberate break: in audit/sections.py give a table the name ""."""
    assert faults(audit_page(found)) == []


def test_the_last_line_says_how_much_chance_there_is(found):
    said = findings(found)[-1].replace("\u00a0", " ")
    assert "near copies of one; it labels 56.0 % of all 100 as people did" in said
    assert "as people did (46 to 65 %; always answering the commonest label: 30.0 %)" in said
    assert "say little" not in said and "say little" in findings(found | {"posts": 29})[-1]
    count = intervals_in(found)
    parts = [found["quantisation"]["changed"], found["adapter"]["off"]]
    by_hand = 1 + sum(3 for part in parts for _ in part) + 2 * 3  # of accuracy; flips, KL and F1 of each change
    assert count == by_hand and f"There are {count} of them" in said and f"here {count / 20:.0f}," in said
    assert intervals_in({"a_ci": {"x": [0, 1], "y": [0, 1]}, "b": {"ci": [0, 1]}, "c_ci": None}) == 3


def test_what_was_audited_stands_first_and_names_no_place(found):
    page = audit_page(found)
    text = "".join(Reader(page).text)
    assert "<title>Audit of mine</title>" in page and "far/" not in text
    for part in ("posts, test.jsonl", "a" * 64, "d" * 64, "c" * 40, "float32, 1 thread", "torch 2.9",
                 "160 posts, in en"):
        assert part in text
    assert page.index("What was audited") < page.index("What four bits cost")


def test_the_glossary_has_what_a_lawyer_asks(found):
    again = {"steps": 2, "recorded": 4, "equal": 2, "difference": None, "adapter": None, "chosen": 4, "why": None,
             "posts": {"done": 8, "all": 9}, "elsewhere": []}
    figures = {"above": 0.6, "above_ci": [0.5, 0.7], "loss": {"training": 0.1, "unseen": 0.2}}
    more = {"continued": {side: {"posts": 0, "rate": 0.0, "rate_ci": [0, 0.1]} for side in ("training", "unseen")},
            "exposure": {"training": 1.0, "unseen": 1.0, "largest_possible": 5.0},
            "continued_difference": [0, -0.1, 0.1]}
    memory = {"measured": True, "why": None, "loss": "text", "words": 10, "verdict": "told apart",
              "posts": {"training": 30, "unseen": 30}, "groups": {"training": 30, "unseen": 30}, "relative": figures,
              "with_adapter": figures | more, "without": figures | more, "gained": more,
              "difference": {"value": 0.1, "ci": [0.05, 0.15]}}
    f1 = dict.fromkeys(("probe", "run", "base"), 0.5)
    probe = {"why": None, "posts": 100, "features": 32, "macro_f1": f1, "accuracy": f1, "learned": 0,
             "accuracy_ci": {name: [0.4, 0.6] for name in f1}, "constant": {"accuracy": 0.3, "macro_f1": 0.1}}
    found |= {"provenance": {"hashes": [], "replay": again}, "memorisation": memory,
              "adapter": found["adapter"] | {"probe": probe}}
    before, after = "".join(Reader(audit_page(found)).text).split("How to read this")
    for term in ("loss", "exposure", "continued", "linear probe", "answer state", "effective rank", "recorded step",
                 "equal to the bit", "hash", "told apart", "commonest label", "Intervals"):
        assert term in terms(found) and term in before and term in after, term
    order = [before.index(words) for words in ("Where it is from", "What it remembers", "What four bits cost")]
    assert order == sorted(order)
    assert "There is no probe: few." in audit_page(found | {"adapter": found["adapter"] | {"probe": {"why": "few"}}})


def test_a_small_kl_is_shown_as_a_number(found):
    """Where no matrix moves the probabilities much, every row said 0.0000, beside a picture with bars."""
    rows = [change(name, 3.14e-5 / (place + 1)) for place, name in enumerate(NAMES)]
    assert [decimals(one) for one in (rows, rows[3:4], [change("a", 0.3)], [change("a", 0.0)], [])] == [6, 7, 4, 4, 4]
    assert "0.000031" in str(changes(rows, change("all", 0.0), "matrix"))
    found["quantisation"] |= {"changed": rows}
    said = said_of_quantisation(found["quantisation"])
    assert f"moves the probabilities most is {short(NAMES[0])} (KL 0.000031)" in said
