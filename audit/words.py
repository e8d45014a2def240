"""Figures and names as the audit's page and its first lines have them; "%" is never parted from its number."""

import re
from collections.abc import Mapping, Sequence

from report import words
from report.markup import Html, escape, join, tag
from report.words import counted, interval, signed, unbroken

_NAME = re.compile(r"(layers\.)(\d+\.)(self_attn\.|mlp\.)(\w+)")


def short(name: str) -> str:
    """As the glass names it: `short("model.layers.0.self_attn.v_proj") -> "layers.0.self_attn.v_proj"`."""
    return name.removeprefix("model.")


def brief(name: str) -> str:
    """What a narrow screen has room for: `brief("model.layers.0.self_attn.v_proj") -> "0.v_proj"`."""
    found = _NAME.fullmatch(short(name))
    return f"{found[2]}{found[4]}" if found else short(name)


def named(name: str) -> Html:
    """`short(name)`, of which audit/page.css hides on a narrow screen what `brief` leaves out."""
    found = _NAME.fullmatch(short(name))
    if not found:
        return escape(short(name))
    return join([tag("span", found[1], class_="far"), found[2], tag("span", found[3], class_="far"), found[4]], "")


def in_one_line(label: str) -> str:
    """A label with hyphens at which no line ends."""
    return label.replace("-", "\N{NON-BREAKING HYPHEN}")


def percent(value: float | None) -> str:
    """`percent(0.135) -> "13.5 %"`, with a no-break space."""
    return unbroken(words.percent(value))


def percents(pair: Sequence[float] | None) -> str:
    """An interval of a column in per cent: `percents([0.09, 0.15]) -> "[9.0, 15.0]"`; nothing for None."""
    return interval(None if pair is None else [100 * end for end in pair], 1)


def whole(pair: Sequence[float]) -> str:
    """`whole([0.512, 0.73]) -> "51 to 73 %"`, with a no-break space."""
    return unbroken(f"{100 * pair[0]:.0f} to {100 * pair[1]:.0f} %")


def changed(row: Mapping) -> str:
    """`changed({...}) -> "+0.500 [0.400, 0.600]"`, without brackets where there is no interval."""
    return f"{signed(row['f1_change'], 3)} {interval(row['f1_change_ci'], 3)}".rstrip()


def flips(row: Mapping) -> str:
    """`flips({...}) -> "12 posts (7.1 %) get another label"`."""
    verb = "gets" if row["flips"] == 1 else "get"
    return f"{counted(row['flips'], 'post')} ({percent(row['flip_rate'])}) {verb} another label"
