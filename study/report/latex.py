r"""A study's tables for LaTeX (booktabs), ready to paste, and the table of the run's settings made from the manifest.

    latex_text(study) -> str      escaped("5 % of $x_1") -> r"5 \% of \$x\_1"

A table that is drawn as a matrix is also set as one, languages down and train sets across, since thirteen columns do
not fit on a page; seen cells are bold, small ones carry a ring. Scripts other than Latin need XeLaTeX or LuaLaTeX and a
font.
"""

from collections.abc import Iterable, Mapping

from study.report.section import NUMBERS, FigureSpec, Study, Table
from study.report.tables import shown

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
    parts = ["% In the preamble: \\usepackage{booktabs,textcomp} and \\usepackage[T1]{fontenc}"]
    for table in study.tables:
        if table.name in study.latex:
            spec = matrices.get(table.name)
            parts.append(latex_matrix(table, spec) if spec else latex_table(table))
    parts.append(_float("ll", ["setting", "value"], [[escaped(k), escaped(v)] for k, v in settings(study.manifest)],
                        "Settings of the study.", "settings", last=r"p{.55\linewidth}"))
    return "\n\n".join(parts) + "\n"


def latex_table(table: Table) -> str:
    """The table as it stands: a column per column, numbers aligned right."""
    rows = [[escaped(shown(row[c.key], c.kind)) for c in table.columns] for row in table.rows]
    align = "".join("r" if c.kind in NUMBERS else "l" for c in table.columns)
    return _float(align, [escaped(c.title) for c in table.columns], rows, escaped(_sentence(table)), table.name)


def latex_matrix(table: Table, spec: FigureSpec) -> str:
    """The table as the matrix that `spec` draws, turned: its columns down, its rows across."""
    x, y, value = (table.column(getattr(spec, role)) for role in ("x", "y", "value"))
    down, across = (list(dict.fromkeys(row[c.key] for row in table.rows)) for c in (x, y))
    cells = {}
    for row in table.rows:
        text = escaped(shown(row[value.key], value.kind))
        text = rf"\textbf{{{text}}}" if spec.outlined and row[spec.outlined] else text
        text += r"$^\circ$" if spec.hatched and row[spec.hatched] else ""
        cells[row[x.key], row[y.key]] = text
    rows = [[escaped(shown(a, x.kind)), *(cells.get((a, b), "--") for b in across)] for a in down]
    words = [escaped(_sentence(table))]
    words += ["Bold: seen in training."] * bool(spec.outlined) + [r"$^\circ$: small cell."] * bool(spec.hatched)
    header = [escaped(x.title), *(escaped(shown(b, y.kind)) for b in across)]
    return _float("l" + "r" * len(across), header, rows, " ".join(words), table.name)


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


def _float(align: str, header: list[str], rows: list[list[str]], caption: str, label: str, last: str = "") -> str:
    align = align[:-1] + last if last else align
    lines = [" & ".join(cells) + r" \\" for cells in rows]
    return "\n".join([
        r"\begin{table}[tb]", r"  \centering\small", rf"  \caption{{{caption}}}\label{{tab:{label}}}",
        rf"  \begin{{tabular}}{{@{{}}{align}@{{}}}}", r"    \toprule", f"    {' & '.join(header)} \\\\",
        r"    \midrule", *(f"    {line}" for line in lines), r"    \bottomrule", r"  \end{tabular}", r"\end{table}"])
