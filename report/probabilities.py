"""The part of the page that says how far probabilities can be believed, by language, and what --abstain would do.

It reads `calibration` of each cell of metrics.json (report/calibration.py) and, where the run has a scaling from its
validation posts, `scaled`: the same of the scaled probabilities, as classify.py --calibrated gives them.
"""

from collections.abc import Mapping

from report.markup import Html, folded, grid, tag
from report.pictures import two
from report.tables import by_language
from report.words import interval, number, percent

HEADER = ("language", "n", "too sure by, points", "calibration error", "Brier")
CURVE = (tag("code", "--abstain"), "posts with a label", "share", "accuracy of these")


def points(value: float, digits: int = 1) -> str:
    """`0.0412 -> "+4.1"`; never "−0"."""
    return f"{100 * value:+z.{digits}f}".replace("-", "−")


def said(found: Mapping) -> str:
    """One sentence on the gap, one on the other figures."""
    sure, right, pair = found["confidence"], found["accuracy"], found["gap_ci"]
    sign = 1 if found["gap"] > 0 else -1
    words = f"On average the model gives its label {percent(sure)}, and {percent(right)} of these labels are right: " \
            f"{abs(100 * found['gap']):.1f} points too {'sure' if sign > 0 else 'unsure'}"
    if pair is not None:
        low, high = sorted(sign * end for end in pair)
        words += f" ({points(low)} to {points(high)})" + (", so no difference can be shown" if low <= 0 <= high else "")
    figures = [("Calibration error", "ece"), ("Brier score", "brier"), ("log loss", "log_loss")]
    told = ", ".join(f"{name} {number(found[key])}{_pair(found.get(f'{key}_ci'))}" for name, key in figures
                     if found[key] is not None)
    return f"{words}. {told}; of each, smaller is better."


def _pair(pair) -> str:
    return "" if pair is None else f" ({number(pair[0])} to {number(pair[1])})"


def _cells(found: Mapping) -> list:
    ends = found["gap_ci"] and f"[{points(found['gap_ci'][0], 0)}, {points(found['gap_ci'][1], 0)}]"
    return [f"{found['n']:,}", two(points(found["gap"]), ends),
            *(two(number(found[name]), found[f"{name}_ci"] and interval(found[f"{name}_ci"]))
              for name in ("ece", "brier"))]


def probabilities_section(metrics: Mapping, names: Mapping[str, str] | None, picture: Html | None) -> Html | None:
    """The section; None without probabilities."""
    found, scaled = metrics["calibration"], metrics.get("scaled")
    if not found:
        return None

    def rows_of(name: str, cell: Mapping) -> list:
        rows = [[name, *_cells(cell["calibration"])]] if cell["calibration"] else []
        return [*rows, [f"{name}, scaled", *_cells(scaled)]] if cell is metrics and scaled else rows

    parts = [tag("p", said(found), class_="before"), picture,
             grid("How far probabilities can be believed", HEADER, by_language(metrics, names, rows_of),
                  class_="wide")]
    if scaled:
        parts.append(tag("p", f"Scaled: by {scaled['method']} scaling, fitted on the run's {scaled['fitted']:,} "
                              "validation posts; classify.py --calibrated gives these probabilities.", class_="note"))
    curve = [[f"{row['threshold']:g}" if row["threshold"] else "not given", f"{row['n']:,}",
              f"{100 * row['coverage']:.1f} %",
              two(f"{100 * row['accuracy']:.1f} %", f"[{100 * row['low']:.1f}, {100 * row['high']:.1f}]")
              if row["n"] else "–"] for row in found["coverage"]]
    title = "What classify.py --abstain would do"
    parts.append(folded(title, grid(title, CURVE, curve, class_="wide")))
    return tag("section", tag("h2", "Are the probabilities honest?"), *parts)
