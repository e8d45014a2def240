"""`gpu.html`: the figures of one measurement on a card as one page, rewritten after each part."""

from pathlib import Path

from common.files import atomic_write
from common.terminal import human_seconds
from report.markup import Html, grid, tag
from report.page import document


def write_page(path: Path, result: dict) -> None:
    """Write the page, whole or not at all."""
    with atomic_write(path) as handle:
        handle.write(page(result))


def page(result: dict) -> str:
    """The page as text: what was found first, then each part's table."""
    title = "Glass Llama on a card" + (": a rehearsal on a CPU" if result["rehearsal"] else "")
    return document(title, [tag("h1", title), tag("div", *(tag("p", line) for line in found(result)), class_="found"),
                            *(section(part) for part in result["parts"].values())])


def found(result: dict) -> list[str]:
    """The lines at the top: the card, how many checks held, how many goals were reached, what is missing."""
    figures = [figure for part in result["parts"].values() for figure in part["figures"]]
    judged = [figure for figure in figures if figure["met"] is not None]
    card = next((figure["value"] for figure in figures if figure["what"] in ("card", "device")), "no card named yet")
    lines = [f"{card}.", f"{sum(bool(figure['met']) for figure in judged)} of {len(judged)} checks and goals were met."]
    if "seconds" in result:
        lines.append(f"The parts took {human_seconds(result['seconds'])}.")
    if result["rehearsal"]:
        lines.append("Nothing on this page says how fast anything is: the shapes are tiny, and no card took part.")
    wrong = [f"{part['title']}: {part['error']}" for part in result["parts"].values() if part.get("error")]
    return lines + [f"Did not end as planned: {line}." for line in wrong]


def section(part: dict) -> Html:
    """One part: its table, or why there is none."""
    words = [figure for figure in part["figures"] if isinstance(figure["value"], str) and not figure["goal"]
             and len(figure["value"]) > 12]  # too long for a column of numbers on a phone
    rows = [[figure["what"], shown(figure["value"]), figure["unit"], figure["goal"],
             {None: "", True: "met", False: "not met"}[figure["met"]]] for figure in part["figures"]
            if figure not in words]
    left_out = part.get("left_out")
    if left_out:
        inner = tag("p", f"Left out in a rehearsal: {left_out}.")
    elif rows:
        inner = grid(part["title"], ["what", "value", "unit", "goal", "met?"], rows,
                     numbers=[False, True, False, False, False])
    else:
        inner = tag("p", "Nothing was measured.")
    said = [tag("p", f"{figure['what']}: {figure['value']}") for figure in words]
    return tag("section", tag("h2", part["title"]), *said, inner)


def shown(value) -> str:
    """A number with three digits that count; anything else as it is."""
    if not isinstance(value, float):
        return "" if value is None else str(value)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
