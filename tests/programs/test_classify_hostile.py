"""Inputs that change while they are labelled, cells that a spreadsheet would compute, places that are taken.

Deliberate break that turns this red: in classify.py, leave `notes.have_changed()` out of `label`.
"""

import csv
import gzip
import io
import os
import shutil
import sys
from pathlib import Path

import pytest

import classify
from bulk.page import count
from data.readers import MOST_COLUMNS
from inference import labeller
from tests.programs.hostile import World, call, jsonl, post_rows, refused, words
from tools import join

CHANGES = {
    "written to": lambda path: path.write_bytes(path.read_bytes().replace(b"cat", b"dog")),
    "replaced by the same": lambda path: (shutil.copy(path, "copy"), os.replace("copy", path)),
    "removed": lambda path: path.unlink(),
    "cut": lambda path: os.truncate(path, path.stat().st_size - 1),
    "grown": lambda path: path.open("ab").write(b"\n"),
    "touched": lambda path: os.utime(path, (1, 1)),
}


@pytest.mark.parametrize("case", CHANGES)
def test_an_input_that_changes_while_it_is_labelled(case, world: World, monkeypatch):
    path = Path(shutil.copy(world.test, "posts.jsonl"))
    label, changed = classify.Labeller.label, []

    def label_and_change(*words):
        for window in label(*words):
            if not changed:
                changed.append(CHANGES[case](path))
            yield window

    monkeypatch.setattr(classify.Labeller, "label", label_and_change)
    ended = call(classify.main, "--run", world.run, "--input", path, "--output", "labels.csv")
    assert ended.code == 2 and ended.err.startswith("error: posts.jsonl: has changed"), ended.err
    assert changed and not Path("labels.csv").exists() and not list(Path().glob(".*partial"))
    monkeypatch.undo()


def test_an_input_that_stays_is_labelled(world: World):
    assert call(classify.main, "--run", world.run, "--input", world.test, "--output", "labels.csv").code == 0


def test_safe_cells(world: World):
    rows = [row | {"id": start + row["id"]} for row in post_rows(count=4) for start in "=+-@a"]
    posts = jsonl(Path("posts.jsonl"), rows)
    for more, mark in (([], ""), (["--safe-cells"], "'")):
        ended = call(classify.main, "--run", world.run, "--input", posts, "--output", "l.tsv", "--overwrite", *more)
        assert ended.code == 0, ended.err
        ids = [line.partition("\t")[0] for line in Path("l.tsv").read_text().splitlines()[1:]]
        assert ids == [("" if row["id"][0] == "a" else mark) + row["id"] for row in rows]
    words = ("--run", world.run, "--input", posts, "--output", "l.jsonl", "--safe-cells")
    refused(classify.main, *words, says=("--safe-cells", "l.jsonl"))
    refused(classify.main, "--run", world.run, "--text", "a", "--safe-cells", says=("--text", "--safe-cells"))
    assert "--[no-]safe-cells" in call(classify.main, "--help").out


def test_a_byte_order_mark_begins_a_table_once(world: World):
    """Deliberate break: in data/writers.py put it before every window, or in bulk/joined.py leave it in every part."""
    posts = jsonl(Path("posts.jsonl"), post_rows(count=4))
    to = ("--run", world.run, "--threads", "1", "--input", posts, "--output")
    assert call(classify.main, *to, "plain.csv").code == call(classify.main, *to, "bom.csv", "--bom").code == 0
    assert Path("bom.csv").read_bytes() == b"\xef\xbb\xbf" + Path("plain.csv").read_bytes()
    for number in (1, 2, 3):
        assert call(classify.main, *to, "out", "--bom", "--shard", f"{number}/3", "--format", "csv").code == 0
    assert call(join.main, "--folder", "out").code == 0
    assert Path("out/posts.csv").read_bytes() == Path("bom.csv").read_bytes()
    refused(classify.main, *to, "a.jsonl", "--bom", says=("--bom", "a.jsonl"))


def test_semicolons_and_decimal_commas(world: World):
    """Deliberate break: in bulk/joined.py take the header off as if commas stood in it."""
    rows = [row | {"Konto; Ort": f"{row['id']};x", "Preis": "1,50"} for row in post_rows(count=5)]
    posts = jsonl(Path("posts.jsonl"), rows)
    to = ("--run", world.run, "--threads", "1", "--input", posts, "--output")
    assert call(classify.main, *to, "plain.csv").code == 0
    assert call(classify.main, *to, "semicolons.csv", "--semicolons", "--bom").code == 0
    with open("plain.csv", newline="") as plain, open("semicolons.csv", newline="", encoding="utf-8-sig") as other:
        expected, found = list(csv.reader(plain)), list(csv.reader(other, delimiter=";"))
    real = [number for number, name in enumerate(expected[0]) if name.startswith(("p_", "prob"))]
    assert len(real) > 3 and all("." in line[number] for line in expected[1:] for number in real)
    for line in expected[1:]:
        line[:] = [cell.replace(".", ",") if number in real else cell for number, cell in enumerate(line)]
    assert found == expected
    for number in (1, 2):
        assert call(classify.main, *to, "out", "--semicolons", "--bom", "--shard", f"{number}/2", "--format", "csv",
                    ).code == 0
    assert call(join.main, "--folder", "out").code == 0
    assert Path("out/posts.csv").read_bytes() == Path("semicolons.csv").read_bytes()
    assert f"{len(rows)} of {len(rows)} rows got a label" in Path("out/report.html").read_text()
    refused(classify.main, *to, "a.tsv", "--semicolons", says=("--semicolons says nothing of a.tsv", "a .csv"))
    refused(classify.main, *to, "semicolons.csv", "--resume", says="semicolons.csv")


@pytest.mark.parametrize("option", ["--progress-json", "--report"])
def test_what_stands_beside_the_labels_takes_no_other_files_place(world: World, option):
    """Deliberate break: in bulk/places.py leave the inputs out of `taken`, or let `check_kind` return at once."""
    posts = jsonl(Path("posts.jsonl"), post_rows(count=2))
    Path("mine.txt").write_text("mine")
    to = words(world, "--input", posts, "--output", "labels.csv", option)
    for name, says in (("posts.jsonl", "is what labels are made of"), ("./labels.csv", "is what labels are made into"),
                       ("mine.txt", "exists and was not written as such")):
        refused(classify.main, *to, name, says=(f"{option} {name}", says))
    refused(classify.main, *words(world, "--input", posts, "--output", "labels.csv", "--progress-json", "a", "--report",
                                  "./a"), says=("--report ./a: is that of --progress-json",))
    for more in ([], ["--overwrite"]):  # its own is written anew
        ended = call(classify.main, *to, "beside", *more)
        assert ended.code == 0, ended.err
    assert call(classify.main, *to, "mine.txt", "--overwrite").code == 0 and Path("mine.txt").read_text() != "mine"


def test_a_folder_that_holds_something_else_keeps_it(world: World):
    """Deliberate break: in classify.py leave out `read_manifest`; the first file is then labelled and replaced."""
    Path("in").mkdir()
    jsonl(Path("in/a.jsonl"), post_rows(count=2))
    Path("out").mkdir()
    to = words(world, "--input", "in", "--output", "out")
    for name, says in (("report.html", "exists and was not written as such"), ("a.jsonl", "exists")):
        (Path("out") / name).write_text("mine")
        refused(classify.main, *to, says=f"out/{name}: {says}")
        (Path("out") / name).unlink()
    Path("out/manifest.json").write_text("{}")
    Path("out/a.jsonl").write_text("mine")
    refused(classify.main, *to, "--overwrite", says="out/manifest.json: is no manifest of labels")
    Path("out/manifest.json").unlink()
    Path("out/notes.txt").write_text("mine")
    assert call(classify.main, *to, "--overwrite").code == 0 and Path("out/notes.txt").read_text() == "mine"
    refused(classify.main, *words(world, "--input", "in", "--output", "in", "--format", "csv"),
            says="--output in: is the folder of the inputs")


def test_a_place_that_cannot_be_written_is_one_line(world: World, monkeypatch):
    posts = jsonl(Path("posts.jsonl"), post_rows(count=2))
    refused(classify.main, *words(world, "--input", posts, "--output", "/proc/labels/a.csv"), says="/proc/labels/a.csv")
    Path("locked").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode, **more: Path(path).name != "locked")
    for to in ("locked/a.csv", "locked/deep/a.csv"):
        refused(classify.main, *words(world, "--input", posts, "--output", to), says=(to, "is not writable"))


def test_columns_that_are_called_the_same(world: World):
    """Deliberate break: in bulk/check.py leave `notes.twice` out: the last of ten columns would stand for all."""
    head = ",".join(["id", "text", *["x"] * 10])
    Path("a.csv").write_text(f"{head}\n{','.join(['1', 'hello', *map(str, range(10))])}\n")
    refused(classify.main, *words(world, "--input", "a.csv", "--output", "o.csv"),
            says=("a.csv: has 10 columns named 'x'", "--keep-columns"))
    refused(classify.main, *words(world, "--input", "a.csv", "--output", "o.csv", "--keep-columns", "x"),
            says="has 10 columns named 'x'")
    none = words(world, "--input", "a.csv", "--output", "o.csv", "--keep-columns", "none")
    assert call(classify.main, *none).code == 0
    Path("a.csv").write_text(head.replace("x", "text").replace("tetextt", "text") + "\n")
    refused(classify.main, *words(world, "--input", "a.csv", "--output", "p.csv"), says="has 11 columns named 'text'")


def test_a_column_of_the_date_that_no_output_has(world: World):
    """Deliberate break: in bulk/check.py let `check_date_column` return at once: all months would be "unknown"."""
    Path("a.csv").write_text("id,text,sent\n1,hello,2024-05-01\n2,there,2024-06-01\n")
    beside = words(world, "--input", "a.csv", "--output", "o.csv", "--report", "r.html", "--date-column")
    refused(classify.main, *beside, "snet", says=("--date-column snet", "did you mean 'sent'"))
    refused(classify.main, *beside, "sent", "--keep-columns", "none", says=("--date-column sent", "they keep none"))
    ended = call(classify.main, *beside, "sent")
    assert ended.code == 0 and "2024-06" in Path("r.html").read_text() and "no months" not in ended.out, ended.err
    assert count([Path("o.csv")], "date").date is None


def test_what_is_left_out_is_said(world: World):
    """Columns without a name, columns beyond so many, and what a folder holds besides files of posts."""
    Path("in/sub").mkdir(parents=True)
    Path("in/a.csv").write_text(",text\n0,hello\n1,there\n")
    for name in ("b.csv.zst", "c.xlsx", "d.txt.zip", ".hidden.csv"):
        (Path("in") / name).write_text("")
    ended = call(classify.main, *words(world, "--input", "in", "--output", "out"))
    assert ended.code == 0 and "not read in in: b.csv.zst, c.xlsx, d.txt.zip and 1 more\n" in ended.out, ended.err
    assert "2  cells in a column without a name (as of the row names that R writes), left out: a.csv: " in ended.out
    rows = [{"text": f"hello {number}", f"key {number}": "x"} for number in range(MOST_COLUMNS + 2)]
    posts = jsonl(Path("keys.jsonl"), rows)
    ended = call(classify.main, *words(world, "--input", posts, "--output", "keys.csv", "--dry-run"))
    assert ended.code == 0 and f"2  rows with columns beyond the first {MOST_COLUMNS:,} names" in ended.out, ended.err


@pytest.mark.parametrize("kind", ["jsonl", "csv", "tsv"])
def test_standard_input_may_be_gzipped(world: World, monkeypatch, kind):
    row = "\t" if kind == "tsv" else ","
    text = '{"text": "a\\tb"}\n' if kind == "jsonl" else f"id{row}text\n1{row}hello\n"
    for content, code in ((gzip.compress(text.encode()), 0), (gzip.compress(text.encode())[:-9], 2), (b"PAR1", 2)):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        ended = call(classify.main, *words(world, "--input", "-", "--output", "o.jsonl", "--overwrite"))
        assert ended.code == code and ended.err.count("\n") == (code > 0), ended.err
    assert "parquet" in ended.err


@pytest.mark.parametrize(("option", "needs"), [("--workers", "--engine ray"), ("--address", "--engine ray"),
                                               ("--api-seconds", "--dry-run"), ("--prices", "--dry-run")])
def test_an_option_that_says_nothing_without_another(world: World, option, needs):
    """Deliberate break: leave the loop out of `check_together`."""
    refused(classify.main, *words(world, "--input", world.test, "--output", "o.csv", option, "1"),
            says=f"{option}: says nothing without {needs}")


def test_a_table_of_prices_is_looked_for_before_posts_are_labelled(world: World, monkeypatch):
    monkeypatch.setattr(labeller.Labeller, "give", None)  # would be a TypeError
    refused(classify.main, *words(world, "--input", world.test, "--dry-run", "--prices", "none.toml"),
            says="none.toml: there is no such file")
