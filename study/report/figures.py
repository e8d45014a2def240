"""A figure of a study from its description and its table, and an interval as a small picture within the page.

    figure_of(spec, table)  -> matplotlib Figure       save it with report.figures.save, or svg() for the page
    interval_picture(claim) -> Html                    an SVG in the page's own colours
"""

import textwrap

from matplotlib.figure import Figure

from report.figures import WIDE, styled
from report.markup import Html, join, tag
from study.report.curves import curves, reliability
from study.report.heat import confusion, matrix
from study.report.looks import Data
from study.report.points import bars, forest, scatter
from study.report.section import Claim, FigureSpec, Table
from study.report.tables import shown

DRAW = {"matrix": matrix, "curves": curves, "scatter": scatter, "reliability": reliability, "confusion": confusion,
        "bars": bars, "forest": forest}
WIDTH, EDGE = 320, 14  # of the small picture, in its own units


def figure_of(spec: FigureSpec, table: Table, width: float = 0.0) -> Figure:
    """The figure that `spec` describes, from the rows of `table`, drawn for a width in inches (0: its own choice).

    Raises `ValueError` if the two do not fit.
    """
    with styled():
        figure = DRAW[spec.kind](Data(spec, table, width))
        title = "\n".join(textwrap.wrap(spec.title, int(11 * (width or WIDE))))
        above = [legend for legend in figure.legends if legend.get_alignment() == "left"]
        if spec.title and above:  # a title of its own would be drawn over the legend
            above[0].set_title(title, prop={"weight": "bold", "size": 10.5})
        elif spec.title:
            figure.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=10.5)
    return figure


def reach_of(claims: list[Claim]) -> float:
    """The end of the scale on which differences are drawn: the same for all, so that lengths can be compared."""
    ends = [abs(v) for c in claims if c.kind == "difference" for v in (c.value, c.low, c.high, *c.points)
            if v is not None]
    return next((r for r in (0.05, 0.1, 0.2, 0.3, 0.5) if r >= max(ends, default=0)), 1.0)


def interval_picture(claim: Claim, reach: float) -> Html | None:
    """The estimate as a point on its interval, on a scale from -reach to reach, or 0 to 1 for a rate; None without
    one, and for a number, which has no scale."""
    if claim.value is None or claim.kind == "number":
        return None
    low, high = {"rate": (0.0, 1.0), "correlation": (-1.0, 1.0)}.get(claim.kind, (-reach, reach))

    def at(value: float) -> str:
        share = (min(max(value, low), high) - low) / (high - low)
        return f"{EDGE + (WIDTH - 2 * EDGE) * share:.1f}"

    marks = [(low, "start"), ((low + high) / 2, "middle"), (high, "end")]
    parts = [_line(at(low), at(high), 26, "axis")]
    parts += [tag("line", x1=at(v), x2=at(v), y1=21, y2=31, class_="axis") for v, _ in marks]
    if claim.kind != "rate":
        parts.append(tag("line", x1=at(0), x2=at(0), y1=6, y2=34, class_="zero"))
    if claim.low is not None:
        parts.append(_line(at(claim.low), at(claim.high), 26, "span"))
        parts += [tag("line", x1=at(v), x2=at(v), y1=19, y2=33, class_="cap") for v in (claim.low, claim.high)
                  if low <= v <= high]
    if len(claim.points) > 1:
        parts += [tag("circle", cx=at(v), cy=13, r=2.6, class_="fit") for v in claim.points if low <= v <= high]
    ends = [v for v in (claim.value, claim.low, claim.high) if v is not None]
    for edge, outward, beyond in ((EDGE, -1, min(ends) < low), (WIDTH - EDGE, 1, max(ends) > high)):
        if beyond:  # the interval goes on beyond the scale
            tip, back = edge + 9 * outward, edge - 3 * outward
            parts.append(tag("polygon", points=f"{tip},26 {back},18 {back},34", class_="beyond"))
    if low <= claim.value <= high:
        parts.append(tag("circle", cx=at(claim.value), cy=26, r=6.5, class_="point"))
    words = [_shown(v, claim).rstrip("0").rstrip(".") if v else "0" for v, _ in marks]
    x = {"start": EDGE - 10, "middle": WIDTH / 2, "end": WIDTH - EDGE + 10}
    parts += [tag("text", w, x=x[a], y=49, text_anchor=a) for w, (_, a) in zip(words, marks, strict=True)]
    return tag("svg", join(parts, ""), viewBox=f"0 0 {WIDTH} 54", role="img", aria_label=" ".join(in_numbers(claim)),
               class_="interval")


def in_numbers(claim: Claim) -> tuple[str, str]:
    """`("−0.045", "95 % interval −0.090 to +0.001")`; in words if it cannot be estimated."""
    if claim.value is None:
        return "not estimable", ""
    if claim.low is None:
        return _shown(claim.value, claim), "no interval"
    return _shown(claim.value, claim), \
        f"{claim.level * 100:g} % interval {_shown(claim.low, claim)} to {_shown(claim.high, claim)}"


def _shown(value: float, claim: Claim) -> str:
    return shown(value, claim.kind if claim.kind in ("rate", "number") else "difference")


def _line(x1: str, x2: str, y: int, class_: str) -> Html:
    return tag("line", x1=x1, x2=x2, y1=y, y2=y, class_=class_)
