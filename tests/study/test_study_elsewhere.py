"""What a study's folder gives to R and LaTeX, asked of R and pdflatex themselves where they are installed.

Deliberate breaks: write every number in csv_text with six digits (`f"{value:.6g}"`), and R finds other sums; set
`LETTER` to 2 in study/report/latex.py, and LaTeX reports boxes that are too wide.
"""

import re
import shutil
import subprocess

import pytest

from study.report.latex import latex_text
from study.report.page import write_study
from study.report.section import NUMBERS
from study.write_up import make_study
from tests.study.fake_study import PLAN, fake_results, few_languages
from tests.study.made_study import EVIL, SCRIPTS, made_study

needs_r = pytest.mark.skipif(not shutil.which("Rscript"), reason="needs R (apt-get install r-base-core)")
needs_latex = pytest.mark.skipif(not shutil.which("pdflatex"), reason="needs pdflatex (apt-get install "
                                 "texlive-latex-recommended)")
WIDEST = 10.0  # points over the edge of the text that nobody sees
# Of each column its table, key, class, rows, missing values and sum, by nothing but the study's own reader.
ASKED = """
source("read.R")
study <- read_study(".")
for (table in names(study)) for (key in names(study[[table]])) {
  column <- study[[table]][[key]]
  total <- if (is.character(column)) sum(nchar(column, "chars"), na.rm = TRUE) else sum(column, na.rm = TRUE)
  cat(table, key, class(column), length(column), sum(is.na(column)), format(total, digits = 17), "\\n")
}
"""


def check_r(study, folder):
    """R's own reading of every column of every table, beside the table."""
    tables = folder / "tables"
    done = subprocess.run(["Rscript", "-e", ASKED], cwd=tables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = {tuple(line.split()[:2]): line.split()[2:] for line in done.stdout.splitlines()}
    assert len(found) == sum(len(table.columns) for table in study.tables) and len(found) > 20
    for table in study.tables:
        for column in table.columns:
            values = [row[column.key] for row in table.rows]
            there = [value for value in values if value is not None]
            number = column.kind in NUMBERS
            kind = "numeric" if number else "logical" if column.kind == "flag" else "character"
            total = sum(there) if number or kind == "logical" else sum(map(len, there))
            told = found[table.name, column.key]
            assert told[:3] == [kind, str(len(values)), str(len(values) - len(there))], (table.name, column.key)
            assert float(told[3]) == pytest.approx(total, rel=1e-12, abs=1e-12), (table.name, column.key)


def overfull(latex, folder):
    """Compile a document of the study's tables as they say; the points by which each box is too wide."""
    preamble = latex.partition("\n")[0]
    packages = re.findall(r"\\usepackage(?:\[[^]]*\])?\{[^}]*\}", preamble)
    assert len(packages) == 2
    (folder / "t.tex").write_text("\n".join([r"\documentclass{article}", *packages, r"\begin{document}", latex,
                                             r"\end{document}"]), encoding="utf-8")
    done = subprocess.run(["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-draftmode", "t.tex"],
                          cwd=folder, capture_output=True, check=False)
    log = (folder / "t.log").read_text(encoding="utf-8", errors="replace")
    assert done.returncode == 0, log[-2000:]
    return [float(points) for points in re.findall(r"Overfull \\hbox \(([0-9.]+)pt too wide", log)]


@needs_r
def test_the_studys_own_reader_runs_unchanged_in_r(tmp_path):
    study = made_study()
    for section in study.sections:
        section.figures.clear()  # what takes long and R does not read
    write_study(tmp_path / "out", study)
    check_r(study, tmp_path / "out")


@needs_latex
def test_latex_compiles_without_a_box_that_is_too_wide(tmp_path):
    study = made_study()
    text = latex_text(study).replace(SCRIPTS, "")  # pdflatex has Latin letters only, as study/report/latex.py says
    study.manifest["outside"] = EVIL
    study.manifest["hash"] = "0123456789abcdef" * 4
    assert max(overfull(text, tmp_path), default=0) <= WIDEST


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return make_study(fake_results(folder, PLAN + few_languages(folder)), {"base": "b" * 64}), folder


@pytest.mark.slow
@needs_r
def test_r_reads_a_whole_study(whole):
    write_study(whole[1] / "out", whole[0])
    check_r(whole[0], whole[1] / "out")


@pytest.mark.slow
@needs_latex
def test_latex_compiles_a_whole_study_with_all_of_its_tables(whole):
    study, folder = whole
    study.latex = [table.name for table in study.tables]
    assert max(overfull(latex_text(study), folder), default=0) <= WIDEST
