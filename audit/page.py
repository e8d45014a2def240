"""`audit.html`: one self-contained file that opens with what was found and says of each figure what it can bear.

    audit_page(found) -> str      `found`: the dict that audit.json holds

It contains no scripts, fonts or addresses, and a content security policy that would stop one; every string goes through
report/markup.py. Posts of the user are not in it; failing pairs are shown where the project wrote them.
"""

from collections.abc import Mapping
from pathlib import Path

from audit import sections
from audit.words import short, unbroken
from report.markup import Html, escape, join, tag
from report.page import POLICY, STYLE
from report.words import number, percent
from stats.predictions import SMALL_CLASS, SMALL_ROWS

STYLES = (STYLE, Path(__file__).with_name("page.css"))  # the page of one run, and what an audit has beside it


def audit_page(found: Mapping) -> str:
    """The page as text."""
    title = f"Audit of {found['run']}"
    head = join([tag("meta", charset="utf-8"),
                 tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
                 tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
                 tag("meta", name="color-scheme", content="light dark"),
                 tag("title", title),
                 tag("style", Html("\n".join(path.read_text(encoding="utf-8") for path in STYLES)))])
    opening = tag("div", *(tag("p", unbroken(line)) for line in findings(found)), class_="found")
    body = tag("main", tag("h1", title), opening,
               *(tag("section", tag("h2", name), *parts(found[key])) for key, (name, parts) in sections.ALL.items()
                 if found.get(key) is not None), _reading(found))
    return f'<!DOCTYPE html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n{body}\n</body>\n</html>\n'


def findings(found: Mapping) -> list[str]:
    """The page's first lines, one for each part, and what limits them; the terminal prints the same."""
    lines = [line for key, said in sections.SAID.items() if found.get(key) is not None
             for line in said(found[key]).split("\n")]
    labelled = (f"{found['posts']:,} labelled posts that the run was not trained on, of which it labels "
                f"{percent(found['accuracy'])} as people did (macro-F1 {number(found['macro_f1'])})")
    pairs = " or pairs" if "behaviour" in found or "own_pairs" in found else ""
    return [*lines, f"How sure: figures about labels are from {labelled}; intervals (95 %) cover the choice of posts"
            f"{pairs}, not the luck of one training run. No audit finds everything."]


def _reading(found: Mapping) -> Html:
    return tag("section", tag("h2", "How to read this"),
               tag("dl", *(tag("div", tag("dt", escape(k)), tag("dd", v)) for k, v in terms(found).items())))


def terms(found: Mapping) -> dict[str, str]:
    """What stands on this page and is explained at its end: term -> words."""
    four_bits, adapter = found.get("quantisation"), found.get("adapter")
    said = {}
    if part := four_bits or adapter:
        said[short(part["matrices"][0]["name"])] = (
            "a matrix: its layer, counted from 0, and what it is there. On a narrow screen “layers.”, “self_attn.” and "
            "“mlp.” are left out. audit.json has whole names.")
        said["q_proj, k_proj, v_proj, o_proj"] = (
            "the matrices of attention (self_attn): queries, keys, values, and the output that is made of them.")
        said["gate_proj, up_proj, down_proj"] = (
            "the matrices of the feed-forward part (mlp): two that widen, of which the gate says how much of the other "
            "passes, and the one that leads back.")
    said["macro-F1"] = ("F1 of a label: the harmonic mean of its precision and recall. Macro-F1 is its mean over the "
                        "labels, in which each counts the same.")
    if (four_bits and four_bits["changed"]) or adapter:
        said |= {
            "flips": "posts that get another label than the run gives them.",
            "KL": "how far the label probabilities moved (Kullback-Leibler divergence, in nats: with natural "
                  "logarithms), averaged over the posts; 0 is not at all. It is above 0 also where no label changed.",
            "F1 change": "macro-F1 with the change minus the run's, on the same posts: above 0, the change made it "
                         "better. An interval that holds 0 shows no change that these posts could tell from chance; "
                         "that is no proof that there is none.",
        }
    if four_bits:
        said["Codes 0 to 15"] = ("what the four bits of a weight hold: the number of one of NF4's sixteen levels, from "
                                 "−1 (0) over zero (7) to 1 (15); times the scale of its block they give the weight "
                                 "back.")
        said["bits used"] = "entropy of the codes: how many of a weight's four bits are put to use."
        said |= ({"bits stored": "codes and scales, for one weight."} if not four_bits["changed"] else
                 {"bits by error": "bits for one weight with which the best possible code of normal weights would make "
                                   "this error: log2 of one over the error."})
    together, kind = found["groups"] < found["posts"], "the same text"
    kind += f" or “{found['group_by']}”" if found["group_by"] else ""
    said["intervals"] = "95\u00a0%. Rates: Wilson" + (
        f", with posts of {kind} counted as what they are worth as independent ones." if together else ".")
    if found["draws"]:
        said["intervals"] += (f" KL and F1: {found['draws']:,} bootstrap draws (seed {found['seed']}) of groups of "
                              f"posts with {kind}, within languages. F1 has none below {SMALL_ROWS} posts, or "
                              f"where a label's are from fewer than {SMALL_CLASS} groups.")
    return said
