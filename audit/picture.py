"""One picture in two uses: figures as points with their intervals, a line each, as an SVG element of the page.

It is drawn twice, for a phone's width and for a desk's, so that its text can be read on both; the style shows one.
"""

import math
from collections.abc import Sequence

from report.markup import Html, join, tag

WIDTH, WIDE, LINE, TOP = 360, 1024, 24, 22
NAMES, WIDE_NAMES, RIGHT = 118, 200, 26  # of the width: left of the axis, and behind it
STEPS = (1, 1.2, 1.6, 2, 3, 4, 5, 6, 8, 10)  # of which a half is short as well
INK, SOFT, MARK, RULE = "#1f2328", "#59636e", "#0072B2", "#d8dde3"


def rounded(value: float) -> float:
    """The end of an axis: `value` or the next larger of `STEPS` times a power of ten: `rounded(0.116) -> 0.12`."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in STEPS if step * power >= value * (1 - 1e-9))


def both_widths(rows: Sequence[tuple[str, str, float, Sequence[float] | None]], unit: str, words: str,
                most: float | None = None) -> Html:
    """`points` for a desk, with the first name of each row, and for a phone, with the second, shorter one."""
    return join([tag("div", points([(name, *rest) for name, _, *rest in rows], unit, words, most, WIDE, WIDE_NAMES),
                     class_="desk"),
                 tag("div", points([(name, *rest) for _, name, *rest in rows], unit, words, most), class_="phone")])


def points(rows: Sequence[tuple[str, float, Sequence[float] | None]], unit: str, words: str, most: float | None = None,
           width: int = WIDTH, names: int = NAMES) -> Html:
    """`rows`: name, value and interval, none below 0. `words`: said in place of the picture. `most`: end of the axis.

    width: of the picture, in its own units, of which `names` are left of the axis.
    """
    largest = max([most or 0.0, *(value for _, value, _ in rows), *(pair[1] for *_, pair in rows if pair)])
    largest = rounded(largest) if largest else 1.0
    at = lambda value: round(names + (width - names - RIGHT) * value / largest, 1)  # noqa: E731
    height = TOP + LINE * len(rows) + 30
    parts = [tag("title", words)]
    for share in (0, 0.5, 1):
        x = at(share * largest)
        parts += [tag("line", x1=x, x2=x, y1=TOP - 6, y2=height - 24, stroke=RULE),
                  tag("text", f"{share * largest:.3g}", x=x, y=height - 10, font_size=11, fill=SOFT,
                      text_anchor="middle")]
    parts.append(tag("text", unit, x=width - RIGHT, y=11, font_size=11, fill=SOFT, text_anchor="end"))
    for number, (name, value, pair) in enumerate(rows):
        y = TOP + LINE * number + LINE / 2
        parts.append(tag("text", name, x=names - 8, y=y + 4, font_size=12, fill=INK, text_anchor="end"))
        if pair:
            parts.append(tag("line", x1=at(max(0.0, pair[0])), x2=at(pair[1]), y1=y, y2=y, stroke=MARK,
                             stroke_width=2))
        parts.append(tag("circle", cx=at(value), cy=y, r=4, fill=MARK))
    return tag("svg", *parts, viewBox=f"0 0 {width} {height}", role="img")
