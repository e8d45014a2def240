"""Rows to files: cells that a spreadsheet would compute, and journals that were damaged or made by hand.

Deliberate break that turns this red: in data/writers.py, let `_safe` look at `cell[0]` only, or take `bytes` of a
journal in data/growing.py as `int(window["bytes"])`.
"""

import csv
import gzip
import io
import json
import os

import pytest

from common.errors import UserError
from data.growing import GrowingFile, partial_files
from data.writers import Sheet, encode_rows, plain_rows, write_rows

SAFE = Sheet(safe=True)
CELLS = ["=1+1", "+49 30", "-1", "@name", "\t=1+1", "\r\n=1", " =cmd|' /C calc'!A0", "a=b", "'=x", "", None, -1.5, 3,
         "ordinary, with a comma", 'a "quote"', "two\nlines"]


def test_semicolons_come_with_decimal_commas_in_csv_alone():
    rows = [{"id": "1,5", "a;b": 0.5, "n": 3}, {"id": "x;y", "a;b": None, "n": -1e-07}]
    assert plain_rows(".csv", rows, sheet=Sheet(semicolons=True, bom=True)).decode() == (
        '\ufeffid;"a;b";n\r\n1,5;0,5;3\r\n"x;y";;-1e-07\r\n')
    for kind in (".tsv", ".jsonl"):
        assert plain_rows(kind, rows, sheet=Sheet(semicolons=True)) == plain_rows(kind, rows)


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.csv.gz"])
def test_cells_are_written_as_they_are_unless_safe_cells_are_asked_for(name):
    rows = [{"id": cell, "=head": cell} for cell in CELLS]

    def read(data: bytes) -> list[list[str]]:
        text = (gzip.decompress(data) if name.endswith(".gz") else data).decode()
        return list(csv.reader(io.StringIO(text, newline=""), delimiter="\t" if ".tsv" in name else ","))

    plain, safe = read(encode_rows(name, rows)), read(encode_rows(name, rows, sheet=SAFE))
    assert plain == [["id", "=head"], *([str(cell if cell is not None else "")] * 2 for cell in CELLS)]
    assert safe[0] == ["id", "'=head"] and [line[0] for line in safe[1:8]] == [f"'{cell}" for cell in CELLS[:7]]
    assert safe[8:] == plain[8:]
    assert read(encode_rows(name, rows, header=False, sheet=SAFE)) == safe[1:]
    assert encode_rows(name, []) == encode_rows(name, [], sheet=SAFE)


def test_a_file_without_rows_and_a_growing_one(tmp_path):
    write_rows(tmp_path / "a.csv", [{"a": "=1"}])
    assert (tmp_path / "a.csv").read_bytes() == b"a\r\n=1\r\n"
    with GrowingFile(tmp_path / "b.csv", {}, sheet=SAFE) as file:
        file.add([{"a": "=1"}])
        file.add([{"a": "@b"}])
    assert (tmp_path / "b.csv").read_bytes() == b"a\r\n'=1\r\n'@b\r\n"


def stopped(path):
    """What a killed program leaves: two windows, and nothing renamed."""
    file = GrowingFile(path, {"input": "x"}, resume=True)
    with pytest.raises(KeyboardInterrupt), file:
        file.add([{"a": 1}], texts=1)
        file.add([{"a": 2}], texts=1)
        raise KeyboardInterrupt
    return partial_files(path)


def window(**changes):
    def damage(lines):
        return [*lines[:-1], json.dumps(json.loads(lines[-1]) | changes).encode()]

    return damage


JOURNALS = {
    "bytes are negative": window(bytes=-1), "bytes are text": window(bytes="12"), "bytes are half": window(bytes=1.5),
    "bytes are beyond the file": window(bytes=10**15), "bytes are true": window(bytes=True),
    "counts are a list": window(counts=["rows"]), "counts are text": window(counts="rows"),
    "a count is text": window(counts={"rows": "2"}), "a count is negative": window(counts={"rows": -2}),
    "a count is large": window(counts={"rows": 10**30}), "a count is a list": window(counts={"rows": [2]}),
    "no counts": window(counts=None), "another hash": window(sha256="0"), "hash is a list": window(sha256=[]),
    "the window is a list": lambda lines: [*lines[:-1], b"[1]"], "no JSON": lambda lines: [*lines[:-1], b"{"],
    "no text": lambda lines: [*lines[:-1], b"\xff"], "nested": lambda lines: [*lines[:-1], b"[" * 10**5],
    "digits": lambda lines: [*lines[:-1], b'{"bytes": ' + b"9" * 5000 + b"}"],
    "made from a list": lambda lines: [b"[]", *lines[1:]], "made from another": lambda lines: [b"{}", *lines[1:]],
    "a line without end": lambda lines: [*lines[:-1], b" " * (2**20 + 1)],
}  # fmt: skip


@pytest.mark.parametrize("case", JOURNALS)
def test_damaged_journals_are_one_line(case, tmp_path):
    rows, journal = stopped(tmp_path / "a.jsonl")
    before = rows.read_bytes()
    journal.write_bytes(b"\n".join(JOURNALS[case](journal.read_bytes().splitlines())) + b"\n")
    with pytest.raises(UserError, match="--overwrite"), GrowingFile(tmp_path / "a.jsonl", {"input": "x"}, resume=True):
        pytest.fail("went on")
    assert rows.read_bytes() == before


def test_a_journal_that_a_kill_tore_goes_on_behind_its_last_whole_window(tmp_path):
    for cut in (1, 200):
        _, journal = stopped(tmp_path / "a.jsonl")
        journal.write_bytes(journal.read_bytes()[:-cut])
        with GrowingFile(tmp_path / "a.jsonl", {"input": "x"}, resume=True) as file:
            assert file.counts["rows"] == (1 if cut == 1 else 0)
            file.add([{"a": 3}])
        assert json.loads((tmp_path / "a.jsonl").read_text().splitlines()[-1]) == {"a": 3}


@pytest.mark.parametrize("number", [0, 1])
def test_a_pipe_in_the_place_of_what_is_left(number, tmp_path):
    os.mkfifo(partial_files(tmp_path / "a.jsonl")[number])
    with pytest.raises(UserError, match="a pipe or a device"), GrowingFile(tmp_path / "a.jsonl", {}, resume=True):
        pytest.fail("went on")
