"""A study as data, as CSV and as LaTeX: what is refused, what comes back, what R and LaTeX would read.

Deliberate breaks: leave `_` out of `study_latex._SPECIAL`, or `FigureSpec.check` out of `Section`, and these turn red.
"""

import json
import math
import re
import shutil
import subprocess
from dataclasses import asdict

import numpy
import pytest

from study.report.latex import escaped, latex_matrix, latex_table, latex_text
from study.report.section import Claim, Column, FigureSpec, Section, Table
from study.report.tables import READ_R, column_list, csv_text, short, shown
from tests.study.made_study import EVIL, SCRIPTS, made_study

COLUMNS = [Column("id", "id"), Column("code", "language", "language"), Column("r", "rate", "rate"),
           Column("d", "difference", "difference"), Column("n", "posts", "count"), Column("p", "p", "p"),
           Column("x", "ratio", "number"), Column("seen", "seen", "flag")]
ROWS = [{"id": "1234567890123456789", "code": "ko", "r": 1 / 3, "d": -0.0317, "n": 12345, "p": 1e-9, "x": 9.615e-11,
         "seen": True}, {"id": f'0123 "{SCRIPTS}"', "r": 0, "seen": False}]


def table(rows=ROWS, name="t"):
    return Table(name, "Title", COLUMNS, rows)


def spec(**more):
    return FigureSpec(**{"kind": "forest", "table": "t", "caption": "c", "not_to_conclude": "n", "x": "d", "y": "id",
                         "low": "r", "high": "r", **more})


def test_a_study_is_made_of_what_json_has():
    study = made_study()
    assert json.loads(json.dumps(asdict(study), allow_nan=False)) == asdict(study)


def test_csv_keeps_ids_digits_and_what_is_missing():
    lines = csv_text(table()).split("\n")
    assert lines[0] == '"id","code","r","d","n","p","x","seen"'
    assert lines[1] == '"1234567890123456789","ko",0.3333333333333333,-0.0317,12345,1e-09,9.615e-11,TRUE'
    assert lines[2] == f'"0123 ""{SCRIPTS}""",NA,0,NA,NA,NA,NA,FALSE' and lines[3:] == [""]
    assert '"t","n","posts","count","numeric"' in column_list([table()])


@pytest.mark.skipif(not shutil.which("Rscript"), reason="needs R (apt-get install r-base-core)")
def test_r_reads_the_tables_as_they_are(tmp_path):
    (tmp_path / "t.csv").write_text(csv_text(table()), encoding="utf-8")
    (tmp_path / "columns.csv").write_text(column_list([table()]), encoding="utf-8")
    (tmp_path / "read.R").write_text(READ_R)
    script = ('source("read.R"); t <- read_study(".")$t; stopifnot(t$id[1] == "1234567890123456789", is.na(t$code[2]),'
              't$seen == c(TRUE, FALSE), t$r[1] == 1/3, is.na(t$d[2])); cat("read")')
    done = subprocess.run(["Rscript", "-e", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == "read", done.stderr


def test_numbers_for_people():
    assert [shown(ROWS[0][c.key], c.kind) for c in COLUMNS[1:]] == [
        "Korean", "0.333", "−0.032", "12,345", "<0.001", "9.615e-11", "yes"]
    assert (shown(-0.0004, "difference"), shown(0.03, "difference"), shown(None, "p")) == ("0.000", "+0.030", "–")
    assert (shown(1043.2, "number"), shown(-12345.6, "number"), shown(0.25, "number")) == ("1,043", "−12,346", "0.25")
    assert (short(0.613, "rate"), short(1.0, "rate"), short(-0.05, "difference"), short(0.0, "difference")) == (
        ".61", "1.00", "−.05", ".00")


def test_values_are_python_s_and_of_their_kind():
    made = table([{"r": numpy.float64(0.5), "n": numpy.int64(3), "seen": numpy.bool_(True), "d": math.nan}])
    assert [type(made.rows[0][key]) for key in ("r", "n", "seen", "d")] == [float, int, bool, type(None)]
    for row in ({"id": 5}, {"r": "0.5"}, {"n": 1.5}, {"seen": 1}, {"n": True}, {"x": math.inf}, {"other": 1}):
        with pytest.raises(ValueError, match="table t"):
            table([row])


def test_wrong_names_are_named():
    with pytest.raises(ValueError, match=r"figure t-forest, low: table t has no column 'lo'"):
        Section("s", "", "", "", [], [table()], [spec(low="lo")])
    with pytest.raises(ValueError, match="there is no table 'u' here"):
        Section("s", "", "", "", [], [table()], [spec(table="u")])
    with pytest.raises(ValueError, match="x: column id is of kind text"):
        Section("s", "", "", "", [], [table()], [spec(x="id")])
    with pytest.raises(ValueError, match="hatched: column n is of kind count"):
        Section("s", "", "", "", [], [table()], [spec(hatched="n")])
    for more, words in (({"kind": "pie"}, "kind 'pie'"), ({"y": ""}, "needs a column for y"),
                        ({"high": ""}, "needs a column for high"), ({"wider_low": "r"}, "both its ends"),
                        ({"name": "../up"}, "cannot be called")):
        with pytest.raises(ValueError, match=words):
            spec(**more)
    with pytest.raises(ValueError, match="cannot be called 'columns'"):
        table(name="columns")
    with pytest.raises(ValueError, match="two ends in their order"):
        Claim("c", 0.5, 0.6, 0.4, "", "")
    one = Section("s", "", "", "", [], [table()])
    for more, words in (({"sections": [one, one]}, "two sections are called 's'"), ({"sections": [one], "first": ["s"]},
                        "first: 's'"), ({"sections": [one], "latex": ["u"]}, "no table 'u'")):
        with pytest.raises(ValueError, match=words):
            made_study(**more)


def sound(latex):
    """Braces in balance, as many ends as begins, and in every row of a tabular as many cells."""
    bare = re.sub(r"\\[\\{}&%$#_]", "", latex)
    assert bare.count("{") == bare.count("}") and "#" not in bare and "~" not in bare
    assert latex.count(r"\begin{") == latex.count(r"\end{")
    for body in re.findall(r"\\toprule(.*?)\\bottomrule", latex, re.S):
        assert len({re.sub(r"\\&", "", row).count("&") for row in body.split("\\\\\n") if row.strip()}) == 1


def test_latex_prints_what_it_is_given():
    assert escaped("5 % of $x_1^2 & #3 ~ {a\\b} <–−>") == (
        r"5 \% of \$x\_1\textasciicircum{}2 \& \#3 \textasciitilde{} \{a\textbackslash{}b\} \textless{}--$-$"
        r"\textgreater{}")
    sound(latex_text(made_study()))
    evil = Table("t", EVIL, [Column("a", EVIL), Column("b", EVIL)], [{"a": EVIL, "b": None}], [EVIL])
    sound(latex_table(evil))
    assert latex_table(evil).replace(r"\allowbreak{}", "").count(escaped(EVIL)) == 5


def test_latex_turns_a_matrix_and_marks_its_cells():
    table, spec = made_study().figures[0]
    text = latex_matrix(table, spec)
    sound(text)
    value = {(row["train"], row["test"]): shown(row["f1"], "rate") for row in table.rows}
    assert rf"English & \textbf{{{value['en', 'en']}}} & {value['es', 'en']} & " in text
    assert rf"Korean & {value['en', 'ko']}$^\circ$ & --$^\circ$ & " in text
    assert r"lora rank & 64 \\" in latex_text(made_study()) and "outside & -- " in latex_text(made_study())


def test_latex_tables_are_no_wider_than_the_text():
    columns = [Column("what", "contrast")]
    columns += [Column(f"c{k}", f"simultaneous high {k}", "difference") for k in range(14)]
    row = {"what": "multi − en, topic.macro_f1, unseen", **{f"c{k}": 0.1 for k in range(14)}}
    wide = Table("t", "Wide", columns, [row])
    study = made_study()
    study.manifest["hash"] = "0123456789abcdef" * 4
    for text in (latex_table(wide), latex_text(study)):
        for align in re.findall(r"\\begin\{tabular\}\{(.*)\}", text):
            widths = [int(width) for width in re.findall(r"p\{(\d+)pt\}", align)]
            assert widths and sum(widths) + 12 * (len(widths) - 1) <= 345 + 10
    assert latex_table(wide).count(r"\begin{tabular}") > 1 and latex_table(wide).count("multi $-$ en,") > 1
    assert r"\allowbreak{}".join("0123456789abcdef") in latex_text(study)  # a hash may be broken anywhere
