"""`audit.html`: one self-contained file that opens with what was found and says of each figure what it can bear.

    audit_page(found) -> str      `found`: the dict that audit.json holds

It contains no scripts, fonts or addresses, and a content security policy that would stop one; every string goes through
report/markup.py. Posts of the user are not in it; failing pairs are shown where the project wrote them.
"""

from collections.abc import Mapping

from audit import sections
from report.markup import Html, escape, join, tag
from report.page import POLICY, STYLE
from report.words import number, percent


def audit_page(found: Mapping) -> str:
    """The page as text."""
    title = f"Audit of {found['run']}"
    head = join([tag("meta", charset="utf-8"),
                 tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
                 tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
                 tag("meta", name="color-scheme", content="light dark"),
                 tag("title", title), tag("style", Html(STYLE.read_text(encoding="utf-8")))])
    body = tag("main", tag("h1", title), tag("div", *(tag("p", line) for line in findings(found)), class_="found"),
               *(tag("section", tag("h2", name), *parts(found[key])) for key, (name, parts) in sections.ALL.items()
                 if found.get(key) is not None), _reading(found))
    return f'<!DOCTYPE html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n{body}\n</body>\n</html>\n'


def findings(found: Mapping) -> list[str]:
    """The page's first lines, one for each part, and what limits them; the terminal prints the same."""
    lines = [sections.SAID[key](found[key]) for key in sections.SAID if found.get(key) is not None]
    labelled = (f"{found['posts']:,} labelled posts that the run was not trained on, of which it labels "
                f"{percent(found['accuracy'])} as people did (macro-F1 {number(found['macro_f1'])})")
    return [*lines, f"How sure: figures about labels are from {labelled}; intervals (95 %) cover the choice of posts "
            "or pairs, not the luck of one training run. No audit finds everything."]


def _reading(found: Mapping) -> Html:
    terms = {
        "0 v_proj": "the matrix model.layers.0.self_attn.v_proj: the layer, counted from 0, and the matrix. audit.json "
                    "has whole names.",
        "flips": "posts that get another label than the run gives them.",
        "KL": "how far the label probabilities moved, in nats, averaged over the posts; 0 is not at all. It is above 0 "
              "also where no label changed.",
        "F1 change": "macro-F1 with the change minus the run's, on the same posts. An interval that holds 0 shows no "
                     "change that these posts could tell from chance; that is no proof that there is none.",
        "intervals": f"95 %. Rates: Wilson. KL and F1: {found['draws']:,} bootstrap draws (seed {found['seed']}) of "
                     "groups of posts with the same text, within languages.",
    }
    return tag("section", tag("h2", "How to read this"),
               tag("dl", *(tag("div", tag("dt", escape(k)), tag("dd", v)) for k, v in terms.items())))
