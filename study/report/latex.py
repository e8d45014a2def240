r"""A study's tables for LaTeX (booktabs), ready to paste, and the table of the run's settings made from the manifest.

    latex_text(study) -> str      escaped("5 % of $x_1") -> r"5 \% of \$x\_1"

A table that is drawn as a matrix is also set as one, languages down and train sets across, since thirteen columns do
not fit on a page; seen cells are bold, small ones carry a ring. A table wider than the text is set in parts, one after
another, each beginning with the first column; headings and texts are set in columns of a width, and a word that no line
could hold may be broken after its points and dashes, or anywhere where it has none (a hash). Widths are estimated, in
points of LaTeX's article class at \footnotesize. Scripts other than Latin need XeLaTeX or LuaLaTeX and a font.
"""

import re
from collections.abc import Iterable, Mapping

from study.report.section import NUMBERS, FigureSpec, Study, Table
from study.report.tables import shown

TEXT_WIDTH = 345.0  # points: \textwidth of the article class
LETTER, GAP, MOST = 4.7, 12.0, 110.0  # a character's width, the space between columns, the widest column of text
LONGEST = 12  # characters that are never broken

_SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}", "–": "--", "—": "---", "−": "$-$", "×": r"$\times$", "°": r"$^\circ$",
    "\n": " ", "\t": " ",
}  # fmt: skip


def escaped(value) -> str:
    """Any text as LaTeX that prints it."""
    return "".join(_SPECIAL.get(letter, letter) for letter in str(value))


def latex_text(study: Study) -> str:
    """Every table named in `study.latex`, then the settings."""
    matrices = {spec.table: spec for _, spec in reversed(study.figures) if spec.kind == "matrix"}
    parts = ["% In the preamble: \\usepackage{array,booktabs,textcomp} and \\usepackage[T1]{fontenc}"]
    for table in study.tables:
        if table.name in study.latex:
            spec = matrices.get(table.name)
            parts.append(latex_matrix(table, spec) if spec else latex_table(table))
    parts.append(_floats(["setting", "value"], [False, False], list(map(list, settings(study.manifest))),
                         "Settings of the study.", "settings", most=150.0))
    return "\n\n".join(parts) + "\n"


def latex_table(table: Table) -> str:
    """The table as it stands: a column per column, numbers aligned right."""
    rows = [[shown(row[c.key], c.kind) for c in table.columns] for row in table.rows]
    numbers = [c.kind in NUMBERS for c in table.columns]
    return _floats([c.title for c in table.columns], numbers, rows, escaped(_sentence(table)), table.name)


def latex_matrix(table: Table, spec: FigureSpec) -> str:
    """The table as the matrix that `spec` draws, turned: its columns down, its rows across."""
    x, y, value = (table.column(getattr(spec, role)) for role in ("x", "y", "value"))
    down, across = (list(dict.fromkeys(row[c.key] for row in table.rows)) for c in (x, y))
    cells = {}
    for row in table.rows:
        text = Set(escaped(shown(row[value.key], value.kind)))
        text = rf"\textbf{{{text}}}" if spec.outlined and row[spec.outlined] else text
        text += r"$^\circ$" if spec.hatched and row[spec.hatched] else ""
        cells[row[x.key], row[y.key]] = Set(text)
    rows = [[shown(a, x.kind), *(cells.get((a, b), "–") for b in across)] for a in down]
    words = [escaped(_sentence(table))]
    words += ["Bold: seen in training."] * bool(spec.outlined) + [r"$^\circ$: small cell."] * bool(spec.hatched)
    header = [x.title, *(shown(b, y.kind) for b in across)]
    return _floats(header, [False, *[True] * len(across)], rows, " ".join(words), table.name)


def settings(manifest: Mapping, within: str = "") -> Iterable[tuple[str, str]]:
    """(name, value) of every single value in the manifest, with the names that lead there: `("lora rank", "64")`."""
    for key, value in manifest.items():
        name = f"{within} {key}".strip().replace("_", " ")
        if isinstance(value, Mapping):
            yield from settings(value, name)
        elif isinstance(value, list | tuple):
            if value and all(isinstance(item, str | int | float) for item in value):
                yield name, ", ".join(map(str, value))
        else:
            words = {True: "yes", False: "no", None: "–"} if value is None or isinstance(value, bool) else {}
            yield name, words.get(value, str(value))


def _sentence(table: Table) -> str:
    return " ".join([table.title.rstrip(".") + ".", *table.notes])


class Set(str):
    """A cell that is LaTeX already."""


def _floats(header: list[str], numbers: list[bool], rows: list[list[str]], caption: str, label: str,
            most: float = MOST) -> str:
    """One float, with the columns in as many tabulars as the width of the text asks for."""
    widths = [_width(header[k], [row[k] for row in rows], numbers[k], most) for k in range(len(header))]
    parts, room = [[0]], TEXT_WIDTH - widths[0]
    for k in range(1, len(header)):
        if room < widths[k] + GAP and len(parts[-1]) > 1:
            parts.append([0])
            room = TEXT_WIDTH - widths[0]
        parts[-1].append(k)
        room -= widths[k] + GAP
    tabulars = []
    for part in parts:
        align = "".join(rf">{{\raggedleft\arraybackslash}}p{{{widths[k]:.0f}pt}}" if numbers[k] else
                        rf">{{\raggedright\arraybackslash}}p{{{widths[k]:.0f}pt}}" for k in part)
        lines = [" & ".join(_cell(row[k]) for k in part) + r" \\" for row in rows]
        tabulars.append("\n".join([
            rf"  \begin{{tabular}}{{@{{}}{align}@{{}}}}", r"    \toprule",
            f"    {' & '.join(_cell(header[k]) for k in part)} \\\\", r"    \midrule",
            *(f"    {line}" for line in lines), r"    \bottomrule", r"  \end{tabular}"]))
    between = "\n\n  \\medskip\n\n"
    return "\n".join([r"\begin{table}[tb]", r"  \centering\footnotesize",
                      rf"  \caption{{{caption}}}\label{{tab:{label}}}",
                      between.join(tabulars), r"\end{table}"])


def _width(title: str, cells: list[str], number: bool, most: float) -> float:
    """Points that a column takes: its longest cell, for text up to `most`, and the longest word of its title."""
    longest = max((len(_plain(cell)) for cell in cells), default=1)
    texts = [title] if number else [title, *cells]
    word = max((min(len(word), LONGEST) for text in texts for word in text.split()), default=1)
    return max(LETTER * word, LETTER * longest if number else min(LETTER * longest, most), 18.0) + 2


def _plain(cell: str) -> str:
    """A finished cell's letters, without its commands."""
    return cell.replace(r"\textbf{", "").replace(r"$^\circ$", "o").replace("}", "") if isinstance(cell, Set) else cell


def _cell(text: str) -> str:
    """A cell as LaTeX; a long word may be broken after its marks, a part of it that is too long for a line anywhere."""
    if isinstance(text, Set):
        return text
    return " ".join(escaped(word) if len(word) <= LONGEST else _breakable(word) for word in text.split(" "))


def _breakable(word: str) -> str:
    parts = [[part] if len(part) <= LONGEST else part for part in re.findall(r"[^._/−-]*[._/−-]?", word) if part]
    return r"\allowbreak{}".join(escaped(piece) for part in parts for piece in part)
