"""HTML safe from injection: every string is escaped unless it is `Html`, which only the page's own code makes.

    tag("td", "<script>", class_="n") -> Html('<td class="n">&lt;script&gt;</td>')

Post texts, file names, labels and languages can contain anything; here they are never more than text. Control
characters, which HTML forbids, become U+FFFD.
"""

import html
import re
from collections.abc import Iterable, Mapping, Sequence

_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
_EMPTY = {"meta", "br"}  # elements without an end tag
LONG = 20  # characters of a row's name, from which on its column gets room
SHOWN, SHOWN_PARTS = 20, 5  # entries of a list of words, and of one of lists


class Html(str):
    """A piece of finished HTML."""


def escape(value) -> Html:
    """Any value as escaped text; `Html` is returned as it is, None becomes a dash."""
    if isinstance(value, Html):
        return value
    text = "–" if value is None else str(value)
    return Html(html.escape(_FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text), quote=True))


def join(parts: Iterable, between: str = "\n") -> Html:
    return Html(between.join(escape(part) for part in parts if part is not None and part != ""))


def tag(name: str, /, *children, **attributes) -> Html:
    """An element. A final `_` in an attribute's name is dropped (`class_`), any other becomes a hyphen; None: left out.
    """
    pairs = [f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"' for key, value in attributes.items()
             if value is not None]
    start = f"<{name}{''.join(pairs)}>"
    return Html(start) if name in _EMPTY else Html(f"{start}{join(children, '')}</{name}>")


def grid(name: str, header: Sequence, rows: Iterable[Sequence | str], *, numbers: Sequence[bool] | None = None,
         class_: str = "") -> Html:
    """A table that scrolls within its own frame; a row that is a plain string is a heading for the rows below it.

    `name`: what a screen reader calls the table and its frame. `numbers[i]`: whether column i holds numbers (aligned
    right); by default all but the first do. Each cell knows its column's title (`data-title`), for a page that sets a
    wide table's rows as lists where there is little room.
    """
    numbers = numbers or [i > 0 for i in range(len(header))]
    kind = ["n" if right else None for right in numbers]
    head = tag("tr", *(tag("th", cell, class_=k, scope="col") for cell, k in zip(header, kind, strict=True)))
    parts: list[list[Html]] = [[]]
    long = False  # a name in the first column that needs room
    for row in rows:
        if isinstance(row, str):
            parts.append([tag("tr", tag("th", row, class_="group", colspan=len(header), scope="rowgroup"))])
        else:
            first = tag("th", row[0], scope="row", class_=kind[0], dir="auto") if row[0] != "" else tag("td")
            rest = (tag("td", cell, class_=k, dir=None if k else "auto", data_title=title)
                    for cell, k, title in zip(row[1:], kind[1:], header[1:], strict=True))
            parts[-1].append(tag("tr", first, *rest))
            long |= not isinstance(row[0], Html) and len(str(row[0])) > LONG
    inner = tag("table", tag("thead", head), *(tag("tbody", *part) for part in parts if part),
                class_=f"{class_}{' named' * long}".strip() or None, aria_label=name)
    return tag("div", inner, class_="scroll", tabindex="0", role="group", aria_label=name)


def folded(summary: str, *inner) -> Html:
    """What a reader opens with a click; a print shows it open (report/page.css)."""
    return tag("details", tag("summary", summary), *inner)


def facts(value, name: str = "facts") -> Html:
    """Any JSON value as lists and tables: dicts as names and values, lists of dicts as a table, the rest as text; of a
    long list its first entries.

    `name`: what a table is called."""
    if isinstance(value, Mapping):
        if not value:
            return escape("none")
        rows = (tag("div", tag("dt", _words(key)), tag("dd", facts(item, _words(key)))) for key, item in value.items())
        return tag("dl", *rows)
    if isinstance(value, list | tuple):
        if value and all(isinstance(item, Mapping) for item in value):
            columns = list(dict.fromkeys(key for item in value for key in item))
            if not columns:
                return escape("none")
            right = [all(isinstance(item.get(c), int | float | None) for item in value) for c in columns]
            body = [[facts(item.get(c), _words(c)) for c in columns] for item in value]
            return grid(name, [_words(c) for c in columns], body, numbers=right)
        plain = all(not isinstance(item, Mapping | list | tuple) for item in value)
        most = SHOWN if plain else SHOWN_PARTS
        rest = [f"and {len(value) - most:,} more"] if len(value) > most else []
        if plain:
            return escape(", ".join([*map(_plain, value[:most]), *rest]) or "none")
        return tag("ul", *(tag("li", facts(item, name)) for item in value[:most]), *(tag("li", one) for one in rest))
    text = _plain(value)
    if "\n" in text:
        return tag("pre", text, dir="auto")
    return tag("code", text) if re.fullmatch("[0-9a-f]{16,}", text) else escape(text)


def _words(key) -> str:
    return str(key).replace("_", " ")


def _plain(value) -> str:
    """A scalar as people write it: `True -> yes`, `1500 -> 1,500`, `9.615e-11` as it is."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)
