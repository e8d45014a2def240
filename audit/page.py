"""`audit.html`: one self-contained file that opens with what was found and says of each figure what it can bear.

    audit_page(found) -> str      `found`: the dict that audit.json holds

It contains no scripts, fonts or addresses, and a content security policy that would stop one; every string goes through
report/markup.py. Posts of the user are not in it; failing pairs are shown where the project wrote them.
"""

from collections.abc import Mapping
from pathlib import Path

from audit import identity, sections
from audit.glossary import terms
from audit.words import whole
from report.markup import Html, escape, tag
from report.page import document
from report.words import counted, number, percent, unbroken
from stats.predictions import SMALL_ROWS

STYLE = Path(__file__).with_name("page.css")  # what an audit has beside the style of every page


def audit_page(found: Mapping) -> str:
    """The page as text."""
    title = f"Audit of {found['run']}"
    opening = tag("div", *(tag("p", unbroken(line)) for line in findings(found)), class_="found")
    parts = [tag("section", tag("h2", name), *parts(found[key])) for key, (name, parts) in sections.ALL.items()
             if found.get(key) is not None]
    return document(title, [tag("h1", title), opening, identity.section(found), *parts, _reading(found)],
                    STYLE.read_text(encoding="utf-8"))


def findings(found: Mapping) -> list[str]:
    """The page's first lines, one for each part, and what limits them; the terminal prints the same."""
    lines = [line for key, said in sections.SAID.items() if found.get(key) is not None
             for line in said(found[key]).split("\n")]
    labelled = (f"{asked(found)}; it labels {percent(found['accuracy'])} of all {found['posts']:,} as people did "
                f"({whole(found['accuracy_ci'])}; always answering the commonest label: "
                f"{percent(found['constant']['accuracy'])}), macro-F1 {number(found['macro_f1'])}")
    pairs = " or pairs" if "behaviour" in found or "own_pairs" in found else ""
    few = " Rates of so few posts say little." if found["posts"] < SMALL_ROWS else ""
    return [*lines, f"How sure: figures about labels are from {labelled}.{few} Intervals (95 %) cover the choice of "
            f"posts{pairs}, not the luck of one training run. {by_chance(found)}No audit finds everything."]


def asked(found: Mapping) -> str:
    """The posts of the audit, by what is known of them and of training."""
    known, posts = found["known"], counted(found["posts"], "labelled post")
    if known["rule"] == "none":
        have = "has" if known["same"] == 1 else "have"
        words = f"{posts}, of which {known['same']:,} {have} a training post's text (--drop-known none)"
    else:
        how = "very text is" if known["rule"] == "exact" else "text is"
        also = "" if known["rule"] == "exact" else ", also apart from case, spacing, handles and links"
        words = f"{posts} whose {how} in no training post{also} ({known['dropped']:,} left out)"
    if known["near"]:
        words += f", {known['near']:,} of them {'a near copy' if known['near'] == 1 else 'near copies'} of one"
    return words


def intervals_in(found) -> int:
    """How many intervals audit.json holds: lists of two numbers under a key that ends in "ci"."""
    if isinstance(found, Mapping):
        return sum(1 if key.endswith("ci") and isinstance(part, list | tuple) else
                   len(part) if key.endswith("_ci") and isinstance(part, Mapping) else intervals_in(part)
                   for key, part in found.items())
    return sum(map(intervals_in, found)) if isinstance(found, list | tuple) else 0


def by_chance(found: Mapping) -> str:
    """How many of the intervals leave out the true value by chance alone."""
    count = intervals_in(found)
    return (f"There are {count:,} of them, and about one in twenty, here {count / 20:.0f}, leaves out the true value "
            "by chance alone. ") if count >= 20 else ""


def _reading(found: Mapping) -> Html:
    return tag("section", tag("h2", "How to read this"),
               tag("dl", *(tag("div", tag("dt", escape(k)), tag("dd", v)) for k, v in terms(found).items())))
