"""A study's `report.html`, and the folder around it: one file that opens with three claims and the limits of each.

    study_page(study) -> str
    write_study(folder, study)      report.html, study.json, methods.md, data-statement.md, table.tex, tables/, figures/

The page loads nothing: it has no script, no font and no address, and a content security policy would block any. Every
string goes through report/markup.py. Figures are drawn from the same tables that are saved, so their numbers are those
of the CSV files, rounded. Other files in the folder are left alone; each file or subfolder is written completely or not
at all, the page last, so that it is never older than what it describes.
"""

import html
from dataclasses import asdict
from pathlib import Path

from common.files import atomic_folder, atomic_write, write_json
from common.terminal import progress
from report.figures import NARROW, WIDE, save
from report.markup import Html, facts, folded, grid, tag
from report.page import document
from report.pictures import both_widths
from report.words import language_name
from study.report.figures import figure_of, in_numbers, interval_picture, reach_of
from study.report.latex import latex_text
from study.report.opening import APART, is_undecided, opening_of, terms_of, verdict
from study.report.section import FAMILY, Claim, FigureSpec, Section, Study, Table
from study.report.tables import READ_R, column_list, csv_text, html_table

STYLE = Path(__file__).with_name("study.css")  # what a study has beside the style of every page
LISTS = {"table.vast": "all", "table:is(.broad, #methods *)": "screen and (max-width: 69.99rem)",
         "table.middling": "screen and (max-width: 49.99rem)"}  # tables that become lists, and where they do


def study_page(study: Study) -> str:
    """The page as text."""
    lists = Path(__file__).with_name("lists.css").read_text(encoding="utf-8")
    style = "\n".join([STYLE.read_text(encoding="utf-8"),
                       *(f"@media {where} {{\n{lists.replace('TABLE', table)}}}" for table, where in LISTS.items())])
    reach = reach_of([claim for section in study.sections for claim in section.claims])
    sections = (_section(number, section, reach) for number, section in enumerate(study.sections, 1))
    return document(study.title, [_opening(study, reach), _contents(study), *sections, _ending(study)], style)


def write_study(folder: str | Path, study: Study) -> None:
    """Write the page and all that belongs to it into `folder`; raises `UserError` if it cannot be written."""
    folder = Path(folder)
    page, latex = study_page(study), latex_text(study)  # before anything is written: an error leaves the old files
    with atomic_folder(folder / "figures") as inner, progress(len(study.figures), "figure", "figures") as bar:
        for table, spec in study.figures:
            figure = figure_of(spec, table)
            for kind in ("svg", "png"):
                save(figure, inner / f"{spec.name}.{kind}")
            bar.update()
    with atomic_folder(folder / "tables") as inner:
        for table in study.tables:
            _write(inner / f"{table.name}.csv", csv_text(table))
        _write(inner / "columns.csv", column_list(study.tables))
        _write(inner / "read.R", READ_R)
    write_json(folder / "study.json", asdict(study))
    _write(folder / "methods.md", html.escape(study.methods.strip(), quote=False) + "\n")  # Markdown lets HTML through
    if study.statement:
        _write(folder / "data-statement.md", html.escape(study.statement, quote=False))
    _write(folder / "table.tex", latex)
    _write(folder / "report.html", page)


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as handle:
        handle.write(text)


def _opening(study: Study, reach: float) -> Html:
    """The title, and the three claims as cards."""
    cards = [_card(claim, reach, number, section) for number, (section, claim) in enumerate(study.first_claims, 1)]
    return tag("header", tag("h1", study.title, dir="auto"), tag("p", f"Made {study.created}", class_="note"),
               tag("p", study.note, class_="note", dir="auto") if study.note else None,
               _found(study),
               tag("div", *cards, class_="cards") if cards else tag("p", "This study makes no claims."),
               *(tag("p", line, class_="note") for line in terms_of([claim for _, claim in study.first_claims])))


def _found(study: Study) -> Html | None:
    """Above the cards: what the plan's family shows, since the cards keep the plan's order and are three at most; and
    what is called declared."""
    opening = opening_of(study)
    if opening is None:
        return None
    notes = next(section.notes for section in study.sections if section.key == FAMILY)
    where = tag("a", "All comparisons of the plan", href=f"#section-{FAMILY}")
    return tag("div", tag("p", opening.head), _list(opening.firm),
               *((tag("p", APART), _list(opening.weaker, "weaker")) if opening.weaker else ()),
               tag("p", opening.caution) if opening.caution else None,
               *(tag("p", note, class_="note", dir="auto") for note in [opening.undecided, *notes] if note),
               tag("p", where), class_="found")


def _list(lines: list[str], class_: str = "firm") -> Html | None:
    return tag("ul", *(tag("li", text, dir="auto") for text in lines), class_=class_) if lines else None


def _card(claim: Claim, reach: float, number: int | None = None, section: Section | None = None) -> Html:
    said = tag("dl",
               tag("div", tag("dt", "✓ One may say"), tag("dd", claim.may_say, dir="auto"), class_="may"),
               tag("div", tag("dt", "✗ One may not say"), tag("dd", claim.may_not_say, dir="auto"), class_="not"))
    more = []
    if claim.exploratory or (section and section.exploratory):
        more.append(tag("span", claim.status or "Exploratory: not in the plan's family", class_="badge"))
    if section:
        more.append(tag("a", f"Behind it: {section.title}", href=f"#section-{section.key}"))
    heading = tag("h2", claim.text, dir="auto") if section else tag("h3", claim.text, dir="auto")
    value, interval = in_numbers(claim)
    seen = verdict(claim)
    found = tag("div", tag("p", f"Claim {number}", class_="claim-number") if number else None, heading,
                tag("p", seen, class_="verdict") if seen else None, interval_picture(claim, reach),
                tag("p", tag("strong", value), " ", interval, class_="numbers"), *_about(claim))
    return tag("article", found, said,
               tag("p", *more, class_="more") if more else None,
               class_="card undecided" if is_undecided(claim) else "card")


def _about(claim: Claim) -> list[Html]:
    """What the interval allows for, the fits' own values, the languages, and the notes of the claim's cell."""
    lines = []
    if claim.holds:
        lines.append(f"The interval allows for {claim.holds}.")
    if len(claim.points) > 1:
        shown = [in_numbers(Claim(claim.text, one, None, None, "", "", claim.kind))[0] for one in claim.points[:12]]
        more = f" and {len(claim.points) - 12} more" if len(claim.points) > 12 else ""
        each = "Each pair of fits" if claim.kind == "difference" else "Each fit"
        lines.append(f"{each}: {', '.join(shown)}{more}. A fit is one training run.")
    if claim.languages:
        lines.append(f"Languages: {', '.join(map(language_name, claim.languages))}.")
    return [tag("p", line, class_="about", dir="auto") for line in [*lines, *claim.notes]]


def _contents(study: Study) -> Html:
    items = [tag("li", tag("a", section.title, href=f"#section-{section.key}"),
                 " (exploratory)" if section.exploratory else "")
             for section in study.sections]
    last = tag("li", tag("a", "Methods, LaTeX, settings, cells", href="#methods"))
    return tag("nav", tag("h2", "The questions"), tag("ol", *items, last), aria_label="Contents")


def _section(number: int, section: Section, reach: float) -> Html:
    badge = tag("span", "Exploratory", class_="badge") if section.exploratory else None
    parts = [tag("h2", f"{number}. {section.title}", " " if badge else "", badge, dir="auto"),
             tag("p", section.question, class_="question", dir="auto"),
             tag("div", tag("p", section.answer, dir="auto"), class_="found")]
    if section.exploratory:
        parts.append(tag("p", "Not among the plan's comparisons: a reason to look further, not a test.", class_="note"))
    if section.claims:
        parts.append(tag("div", *(_card(claim, reach) for claim in section.claims), class_="cards"))
    drawn = set()
    for spec in section.figures:  # each figure with the table behind it
        table = next(table for table in section.tables if table.name == spec.table)
        parts.append(_figure(spec, table))
        if table.name not in drawn:
            parts.append(html_table(table))
            drawn.add(table.name)
    parts += [html_table(table) for table in section.tables if table.name not in drawn]
    if section.notes:
        parts.append(tag("ul", *(tag("li", note, dir="auto") for note in section.notes), class_="notes"))
    return tag("section", *parts, id=f"section-{section.key}")


def _figure(spec: FigureSpec, table: Table) -> Html:
    pictures = both_widths(figure_of(spec, table, WIDE), figure_of(spec, table, NARROW), spec.name,
                           f"Picture: {table.title}; the table below it has the numbers")
    caption = tag("figcaption", tag("p", tag("strong", "See: "), spec.caption, dir="auto"),
                  tag("p", tag("strong", "Do not conclude: "), spec.not_to_conclude, dir="auto"))
    return tag("figure", *pictures, caption, id=f"figure-{spec.name}")


def _ending(study: Study) -> Html:
    """Methods, LaTeX, settings, plan, cells: what a reviewer asks for."""
    paragraphs = [tag("p", part.strip(), dir="auto") for part in study.methods.split("\n\n") if part.strip()]
    parts = [tag("h2", "Methods"), *paragraphs,
             tag("p", "To paste: ", tag("code", "methods.md"), ", ", tag("code", "table.tex"),
                 *((", ", tag("code", "data-statement.md")) if study.statement else ()), ".", class_="note"),
             tag("h3", "LaTeX"), folded("The tables, ready to paste", tag("pre", latex_text(study), class_="latex")),
             tag("h3", "The run"), folded("Settings (the manifest)", facts(study.manifest)),
             folded("The plan", facts(study.plan))]
    if study.cells:
        keys = list(dict.fromkeys(key for cell in study.cells for key in cell))
        numbers = [all(isinstance(cell.get(key), int | float | None) for cell in study.cells) for key in keys]
        rows = [[facts(cell.get(key)) for key in keys] for cell in study.cells]
        parts.append(folded(f"Cells: every model trained and scored ({len(rows):,})",
                             grid("Cells", [key.replace("_", " ") for key in keys], rows, numbers=numbers,
                                  class_="wide")))
    return tag("section", *parts, id="methods")
