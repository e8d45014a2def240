"""A simple method beside the fine-tuned model, in words and as a table: who is ahead, and whether that can be said.

What is said follows the interval of the difference on the same posts alone: ahead if it excludes zero, else that no
difference can be shown. It is the part `baseline` of metrics.json that is read here (`baselines.beside` makes it).
"""

from collections.abc import Mapping

from common.terminal import table
from report.markup import Html, grid, tag
from report.pictures import two
from report.words import counted, number, signed

FIGURES = {"accuracy": "accuracy", "macro_f1": "macro-F1", "topic.macro_f1": "topic macro-F1"}
PARTS = {"all": "All", "seen": "Seen", "unseen": "Unseen"}


def header(found: Mapping) -> list[str]:
    """Names of the table's columns."""
    return ["", "n", "figure", "fine-tuned", "encoder" if found["name"] else "words", "difference"]


def said(found: Mapping) -> str:
    """One sentence or two for the findings: the macro-F1 of both over all posts, then over the unseen languages."""
    encoder = f"a sentence encoder ({found['name']}) with a logistic regression"
    what = (f"Beside it, {encoder if found['name'] else 'a logistic regression on words (TF-IDF)'}, learnt from the "
            f"same {counted(found['rows'], 'post')}")
    winner = "the encoder wins" if found["name"] else "the regression on words wins"
    parts = [_compared(found["cells"]["all"], "over all posts", winner)]
    if "unseen" in found["cells"]:
        parts.append(_compared(found["cells"]["unseen"], "in the unseen languages", winner))
    return f"{what}: {'; '.join(parts)}."


def _compared(cell: Mapping, where: str, winner: str) -> str:
    key = "macro_f1" if ahead(cell["macro_f1"]) is not None else "accuracy"  # which has an interval for few posts, too
    figure = cell[key]
    told = f"{where} {FIGURES[key]} {number(figure['baseline'])} against the model's {number(figure['tuned'])}"
    verdict = {1: "the model is ahead", -1: winner, 0: "no difference can be shown"}[ahead(figure)]
    return f"{told}: {verdict}{_interval(figure)}"


def ahead(figure: Mapping) -> int | None:
    """1 if the model is ahead, -1 if the baseline is, 0 if the interval holds zero, None without an interval."""
    if figure["low"] is None or figure["high"] is None:
        return None
    return 1 if figure["low"] > 0 else -1 if figure["high"] < 0 else 0


def _interval(figure: Mapping) -> str:
    return " ({}, {} to {})".format(*(signed(figure[key], 3) for key in ("value", "low", "high")))


def lines_of(found: Mapping) -> list[list[str]]:
    """Rows under `header`, and the difference's interval."""
    rows = []
    for part, cell in found["cells"].items():
        for key, name in FIGURES.items():
            if key in cell:
                rows.append([PARTS[part] if key == "accuracy" else "", f"{cell['n']:,}" if key == "accuracy" else "",
                             name, number(cell[key]["tuned"]), number(cell[key]["baseline"]),
                             *_parts(cell[key])])
    return rows


def _parts(figure: Mapping) -> tuple[str, str]:
    """The difference, and its interval where it has one."""
    value = "" if figure["value"] is None else signed(figure["value"], 3)
    ends = "" if figure["low"] is None else f"[{signed(figure['low'], 3)}, {signed(figure['high'], 3)}]"
    return value, ends


def beside_table(found: Mapping) -> str:
    """The table as text."""
    return table([*header(found), "95 % interval"], lines_of(found))


def beside_section(found: Mapping | None) -> Html | None:
    """The table as a part of the page; none without a baseline."""
    if not found:
        return None
    what, title = ((f"by cross-validation) on vectors of {found['name']}", "Beside a sentence encoder") if found["name"]
                   else ("fixed) on words, pairs of words and strings of letters", "Beside a regression on words"))
    words = (f"A logistic regression (C = {found['strength']:g}, {what}, learnt from the run's own "
             f"{counted(found['rows'], 'post')}, any that chose its adapter included. The difference is fine-tuned "
             "less the other, with its interval over the same test posts; how another seed would come out is not part "
             "of it.")
    body: list = []
    for part, posts, *figures, value, ends in lines_of(found):
        body += [f"{part}: {posts} posts"] if part else []
        body.append([*figures, two(value, ends)])
    return tag("section", tag("h2", title),
               grid(title, header(found)[2:], body, class_="wide"),
               tag("p", words, class_="note"))
