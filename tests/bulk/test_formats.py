"""Outputs as other programs read them, a row for every row that goes in, whatever the rows hold.

Deliberate break: in data/writers.py give `_write_parquet` no schema, or let `finish` copy rows without gzip; in
bulk/joined.py let `_header_bytes` take the first line.
"""

import os
import random
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from bulk.joined import _header_bytes
from bulk.page import count, page
from common.errors import UserError
from data.growing import GrowingFile
from data.readers import iter_posts
from data.writers import Sheet, check_format, plain_rows

ROWS = [{"id": "007", "predicted": "neutral", "probability": 0.5, "error": None, "text": 'two\nlines, "quoted"\ttab'},
        {"id": "1e5", "predicted": None, "probability": None, "error": "has no text", "text": ""},
        {"id": "ü", "predicted": "pro", "probability": 1.0, "error": None, "text": "=1+1 \u2028 \U0001f600"}]


def written(path: Path, rows=ROWS) -> Path:
    sheet = Sheet(bom=path.name.startswith("bom"), semicolons=path.name.startswith("semicolons"))
    with GrowingFile(path, {}, reals=["probability"], sheet=sheet) as file:
        for row in rows:
            file.add([row])
    return path


def test_pandas_reads_csv_and_gzip_as_they_are(tmp_path):
    pandas = pytest.importorskip("pandas", reason="needs pandas")
    for name, more in (("a.csv", {}), ("a.csv.gz", {}), ("a.tsv", {"sep": "\t"}), ("bom.csv", {}),
                       ("semicolons.csv.gz", {"sep": ";", "decimal": ","})):
        frame = pandas.read_csv(written(tmp_path / name), dtype={"id": str}, keep_default_na=False,
                                na_values={"probability": ""}, **more)
        assert frame["probability"].fillna(-1).tolist() == [0.5, -1, 1.0], name
        assert list(frame["id"]) == [row["id"] for row in ROWS]
        assert list(frame["text"]) == [row["text"] for row in ROWS]


def test_parquet_is_read_by_pyarrow_and_has_the_same_bytes_however_its_rows_came(tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="needs pyarrow")
    from pyarrow import parquet

    table = parquet.read_table(written(tmp_path / "a.parquet"))
    assert table.to_pylist() == ROWS
    assert table.schema.field("probability").type == pyarrow.float64()
    assert table.schema.field("error").type == pyarrow.string()
    with GrowingFile(tmp_path / "b.parquet", {}, reals=["probability"]) as file:
        file.add(ROWS)
    assert (tmp_path / "b.parquet").read_bytes() == (tmp_path / "a.parquet").read_bytes()
    assert not list(tmp_path.glob(".*"))


def test_duckdb_reads_both(tmp_path):
    duckdb = pytest.importorskip("duckdb", reason="needs duckdb")
    pytest.importorskip("pyarrow", reason="needs pyarrow")
    for name in ("a.csv", "a.csv.gz", "bom.csv", "a.parquet"):
        found = duckdb.sql(f"select id, text from '{written(tmp_path / name)}'").fetchall()
        assert [row[0] for row in found] == [row["id"] for row in ROWS], name
        assert [row[1] or "" for row in found] == [row["text"] for row in ROWS], name


READ_BY_R = """
names <- commandArgs(TRUE)
for (name in names) {
  frame <- if (endsWith(name, "tsv")) read.delim(name, colClasses = c(id = "character"), na.strings = "")
           else if (startsWith(basename(name), "semicolons"))
             read.csv2(name, colClasses = c(id = "character"), na.strings = "")
           else read.csv(name, colClasses = c(id = "character"), na.strings = "",
                         fileEncoding = if (startsWith(basename(name), "bom")) "UTF-8-BOM" else "")
  stopifnot(is.numeric(frame$probability), identical(sapply(frame$id, nchar, USE.NAMES = FALSE), c(3L, 3L, 1L)))
  cat(nrow(frame), ncol(frame), frame$id, is.na(frame$predicted), nchar(frame$text, allowNA = FALSE), sep = " ")
  cat("\\n")
}
"""


def test_r_reads_csv_tsv_and_gzip_as_they_are(tmp_path):
    if shutil.which("Rscript") is None:
        pytest.skip("needs R")
    names = [str(written(tmp_path / name)) for name in ("a.csv", "a.csv.gz", "b.tsv", "bom.csv", "semicolons.csv")]
    script = tmp_path / "read.R"
    script.write_text(READ_BY_R, encoding="utf-8")
    ended = subprocess.run(["Rscript", "--vanilla", str(script), *names], capture_output=True, text=True,
                           encoding="utf-8", env=os.environ | {"LC_ALL": "C.UTF-8"})
    assert ended.returncode == 0, ended.stderr
    lengths = [str(len(row["text"])) if row["text"] else "NA" for row in ROWS]
    expected = " ".join(["3 5 007 1e5 ü FALSE TRUE FALSE", *lengths])
    assert ended.stdout.splitlines() == [expected] * len(names)


def test_parquet_without_pyarrow_is_one_line(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(UserError, match="needs pyarrow"):
        check_format("a.parquet")
    with pytest.raises(UserError, match="no known format"):
        check_format("a.parquet.gz")


CELLS = ["", "=1", '"', "a\r\nb", "a\nb", "a\rb", "\ufeff", "\0", "NA", "'", ",", "\t", "\u2028",
         "\x1a", "plain", "x" * 70_000]


def cell(draw: random.Random) -> str:
    """One of the cells above, two of them, or any characters."""
    kind = draw.randrange(3)
    if kind < 2:
        return "".join(draw.choices(CELLS, k=kind + 1))
    return "".join(chr(draw.choice((draw.randrange(1, 0xD800), draw.randrange(0xE000, 0x110000))))
                   for _ in range(draw.randrange(8)))


@pytest.mark.parametrize("kind", [".csv", ".tsv", ".jsonl"])
def test_every_row_comes_back_as_a_post_or_with_a_reason(tmp_path, kind):
    """A file of any cells: texts are whole or have a reason, and in jsonl there are as many posts as rows."""
    draw = random.Random(11)
    for _ in range(60):
        check_cells(tmp_path, kind, [(cell(draw), cell(draw)) for _ in range(draw.randint(1, 5))])


def check_cells(tmp_path, kind: str, rows: list[tuple[str, str]]) -> None:
    path = tmp_path / f"a{kind}"
    lines = [{"id": f"i{number}", "text": text, "more": more} for number, (text, more) in enumerate(rows)]
    path.write_bytes(plain_rows(kind, lines))
    posts = list(iter_posts([path], require_labels=False, keep_empty=True, keep_bad=True))
    good = {post.id: post for post in posts if not post.error}
    assert all(post.text == "" for post in posts if post.error)
    for line in lines:
        damaged = kind != ".jsonl" and "\0" in line["text"] + line["more"]
        if line["id"] in good and not damaged:
            expected = line["text"].replace("\0", "\ufffd")
            assert good[line["id"]].text in (expected, "" if expected == "NA" else expected), line
    if kind == ".jsonl":
        assert len(posts) == len(rows) and len(good) == len(rows)


@pytest.mark.parametrize("header", [["id", "text"], ["a\r\nb", 'quo"ted', ","], ["ä", "=1"]])
def test_the_header_of_a_part_is_as_long_as_it_was_written(tmp_path, header):
    path = tmp_path / "a.1-of-2.csv"
    rows = [dict.fromkeys(header, "x\r\ny")]
    path.write_bytes(plain_rows(".csv", rows))
    assert path.read_bytes()[_header_bytes(path) :] == plain_rows(".csv", rows, header=False)
    path.write_bytes(b"")
    assert _header_bytes(path) == 0


@pytest.mark.parametrize("name, cell, month", [("month", "2024-05", "2024-05"), ("input_Date", "01.05.2024", "2024-05"),
                                               ("created", "2024", "unknown")])
def test_the_months_of_the_page_come_from_the_column_that_is_named_so(tmp_path, name, cell, month):
    path = tmp_path / "labels.csv"
    path.write_bytes(plain_rows(".csv", [{"id": "1", "language": "en", "predicted": "a", name: cell}]))
    counts = count([path])
    assert counts.date == name and counts.by(1) == {month: 1}


@pytest.mark.parametrize("dates, months", [
    (["04/05/2024", "25/05/2024", "01/06/2024"], {"2024-05": 2, "2024-06": 1}),  # 25 can only be a day
    (["04/05/2024", "05/25/2024", "01/06/2024"], {"2024-04": 1, "2024-05": 1, "2024-01": 1}),
    (["04/05/2024", "05/05/2024"], {"unknown": 1, "2024-05": 1}),  # nothing tells
    (["04/05/2024", "25/05/2024", "05/25/2024"], {"unknown": 1, "2024-05": 2})])  # both ways in one file
def test_dates_with_slashes_are_read_as_the_others_of_the_file_are(tmp_path, dates, months):
    rows = [{"id": str(n), "language": "pt", "predicted": "a", "data": date} for n, date in enumerate(dates)]
    (tmp_path / "labels.csv").write_bytes(plain_rows(".csv", rows))
    counts = count([tmp_path / "labels.csv"])
    assert counts.by(1) == months and counts.unclear == months.get("unknown", 0)
    text = page(counts, {}, tmp_path, Counter())
    assert ("whether the day or the month comes first" in text) is bool(counts.unclear)
    assert ("others tell both" in text) is (len(dates) == 3 and bool(counts.unclear))
