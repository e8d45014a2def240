"""Every mistake in a file of posts ends in one line: which file and row, what is wrong, what would be right.

Deliberate break that turns this red: read csv without `strict=True` in data/rows.py; a quote that is not doubled then
silently swallows text.
"""

import gzip
import random
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from common.errors import UserError
from data.readers import Columns, read_posts

CODEBOOK = SimpleNamespace(labels=("pro", "anti", "neutral"), symbols=("1", "2", "3"))


def write(folder, name, content, zipped=False):
    data = content if isinstance(content, bytes) else content.encode("utf-8")
    path = folder / name
    path.write_bytes(gzip.compress(data) if zipped else data)
    return path


def error(path, columns=None, codebook=None, **options) -> str:
    """The one line in which reading `path` ends, without the folder."""
    with pytest.raises(UserError) as caught:
        read_posts(path, columns, codebook, **options)
    paths = [path] if not isinstance(path, list) else path
    line = str(caught.value)
    for one in paths:
        line = line.replace(str(one.parent) + "/", "")
    assert "\n" not in line
    return line


LABELS = "which has pro, anti, neutral"
FORMATS = "use .jsonl, .csv, .tsv (also .gz) or .parquet"
WRONG = [  # name, content, the line
    ("p.csv", "", "p.csv: is empty; a file of posts was expected"),
    ("p.csv", "\n\n", "p.csv: holds no line of text; a header row with column names was expected"),
    ("p.csv", "text,label\n", "p.csv: has a header but no rows; a file of posts was expected"),
    ("p.jsonl", "\n \n", "p.jsonl: has no rows; a file of posts was expected"),
    ("p.txt", "hi", "p.txt: has no column 'text'; it has 'hi'; set --text-column to the one that holds the text"),
    ("p.doc", "hi", f"p.doc: is not a kind of file that is read; {FORMATS}"),
    ("p.zst", "hi", f"p.zst: is not a kind of file that is read; {FORMATS}; unpack it first: zstd -d p.zst"),
    ("p", "hi", f"p: is not a kind of file that is read; {FORMATS}"),
    ("p.parquet.gz", "hi", f"p.parquet.gz: is not a kind of file that is read; {FORMATS}"),
    ("p.csv.gz", "text,label\n", "p.csv.gz: is named .gz but is not gzipped; take .gz off its name"),
    ("p.csv", b"PK\x03\x04rest", "p.csv: is a zip archive or an Excel workbook; save the sheet as CSV UTF-8, or unpack "
     "the archive"),
    ("p.csv", "text,label\na,pro\nb,pro\n".encode("utf-16")[:-1], "p.csv: holds UTF-16 text that is cut off or damaged "
     "(truncated data); save it again, as UTF-8"),
    ("p.csv", "text,label\na,pro\nb".encode("utf-16") + b"\x00\xd8\x62\x00", "p.csv: holds UTF-16 text that is cut off "
     "or damaged (illegal UTF-16 surrogate); save it again, as UTF-8"),
    ("p.csv", "text,label\na,pro\n".encode("utf-16-le"), "p.csv: is UTF-16 text; save it as UTF-8 "
     '("CSV UTF-8" in Excel), or: iconv -f UTF-16 -t UTF-8 p.csv > utf8-p.csv'),
    ("p.csv", b"text,label\na\0b,pro\n", "p.csv: row 2: byte 12 is NUL, which no text file holds; save the file as "
     "UTF-8 text"),
    ("p.csv", b'text,label\n"a\nb",pro\ncaf\xe9,pro\n', "p.csv: row 3: byte 24 (0xe9) is not UTF-8; save it as UTF-8 "
     '("CSV UTF-8" in Excel), or: iconv -f CP1252 -t UTF-8 p.csv > utf8-p.csv'),
    ("p.jsonl", b'\xef\xbb\xbf{"text": "a", "label": "pro"}\n{"text": "\xfc"}\n', "p.jsonl: row 2: byte 43 (0xfc) is "
     "not UTF-8; save it as UTF-8, or: iconv -f CP1252 -t UTF-8 p.jsonl > utf8-p.jsonl"),
    ("p.csv", "tweet;stance\na;pro\n", "p.csv: has no column 'text'; it has 'tweet', 'stance'; set --text-column to "
     "the one that holds the text; did you mean 'tweet'?"),
    ("p.csv", "tekst,label\na,pro\n", "p.csv: has no column 'text'; it has 'tekst', 'label'; set --text-column to the "
     "one that holds the text; did you mean 'tekst'?"),
    ("p.csv", "text,id\na,1\n", "p.csv: has no column 'label'; it has 'text', 'id'; set --label-column to the one that "
     "holds the label"),
    ("p.jsonl", '{"txt": "a"}', "p.jsonl: row 1: has no column 'text'; it has 'txt'; set --text-column to the one that "
     "holds the text; did you mean 'txt'?"),
    ("p.csv", "text,label,text\na,pro,b\n", "p.csv: has 2 columns named 'text'; rename all but one"),
    ("p.csv", "text,label\na,b,pro\n", "p.csv: row 2: has 3 fields where the header has 2; put quotes around a field "
     "that holds commas or line breaks"),
    ("p.csv", "text,label\na,pro\nb\n", "p.csv: row 3: has 1 fields where the header has 2; put quotes around a field "
     "that holds commas or line breaks"),
    ("p.csv", 'text,label\n"a,pro\nb,anti\n', "p.csv: row 2: a quote that opens here is never closed; double the "
     "quotes inside fields, or set --quote none"),
    ("p.csv", 'text,label\n"say "no" now",pro\n', "p.csv: row 2: a quote inside a quoted field is not doubled; double "
     "it, or set --quote none"),
    ("p.csv", "text,label\ra,pro\r", "p.csv: row 1: lines end in a lone carriage return; save the file with ordinary "
     "line ends"),
    ("p.jsonl", '{"text": "a", "label": "pro"}\n{"text": \n', "p.jsonl: row 2: is not JSON (Expecting value, column "
     '9); each line is one object, {"text": "..."}'),
    ("p.jsonl", '[{"text": "a", "label": "pro"}, 3]', 'p.jsonl: row 2: is a number (3), not an object; each entry is '
     'one object, {"text": "..."}'),
    ("p.json", '[{"text": "a", "label": "pro"}', "p.json: row 1: the file ends inside its array; copy it again"),
    ("p.json", '[{"text": "a", "label": "pro"} {"text": "b"}]', "p.json: row 1: a comma was expected behind this entry "
     "of the array"),
    ("p.json", '[{"text": "a", "label": "pro"}] []', "p.json: has something behind the end of its array; one array was "
     "expected"),
    ("p.jsonl", '{"text": "a", "text": "b", "label": "pro"}', "p.jsonl: row 1: has the key 'text' twice; rename one of "
     "them"),
    ("p.json", '{"text": {"0": "a", "1": "b"}, "label": {"0": "pro", "1": "pro"}}', "p.json: row 1: is a table column "
     "by column, as pandas' to_json() writes it; write it with df.to_json(PATH, orient='records', lines=True)"),
    ("p.jsonl", '"text"', 'p.jsonl: row 1: is a string, not an object; each line is one object, {"text": "..."}'),
    ("p.jsonl", '{"text": "a", "label": "pro"}\n{"label": "pro"}', "p.jsonl: row 2: has no field 'text'; its fields: "
     "'label'; every row needs one"),
    ("p.jsonl", '{"text": 12.5, "label": "pro"}', "p.jsonl: row 1: the text is a number (12.5), not a string; put it "
     "in quotes"),
    ("p.jsonl", '{"text": "a", "label": ["pro", "anti"]}', "p.jsonl: row 1: the label is a list, and a post has one "
     "label here; write it as text, and of several labels a post make a file for each, with its own yes or no"),
    ("p.jsonl", '{"text": ["a"], "label": "pro"}', "p.jsonl: row 1: the text is a list, not a string; put it in "
     "quotes"),
    ("p.jsonl", '{"text": true, "label": "pro"}', "p.jsonl: row 1: the text is true, not a string; put it in quotes"),
    ("p.csv", "text,label\n ,pro\n", "p.csv: none of the 1 rows is a post with text"),
    ("p.csv", "text,label\na,2\nb,0\n", f"p.csv: row 2: label '2' is not in the codebook, {LABELS}; numbers that count "
     "from 0 are not its symbols: write each label's name (2 such rows in all)"),
    ("p.csv", "text,label\na,pro\nb,netural\nc,x\n", f"p.csv: row 3: label 'netural' is not in the codebook, {LABELS}; "
     "did you mean 'neutral'? (2 such rows in all); labels of your own stand in a codebook: labels = [...] in "
     "FILE.toml, and --codebook FILE.toml"),
    ("p.csv", "text,label\na,PRO\n", f"p.csv: row 2: label 'PRO' is not in the codebook, {LABELS}; did you mean "
     "'pro'?"),
    ("p.csv", "text,label\na,2\n", f"p.csv: row 2: label '2' is not in the codebook, {LABELS}; write the label, not "
     "its symbol: 'anti'"),
    ("p.csv", "text,label\na,pro\nb, \n", "p.csv: row 3: has no label; label it, leave the row out, or set "
     "--bad-labels drop"),
    ("p.jsonl", '{"text": "a", "label": "pro"}\n{"text": "b"}', "p.jsonl: row 2: has no label; label it, leave the row "
     "out, or set --bad-labels drop"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "line"), WRONG, ids=[f"{i}-{case[0]}" for i, case in enumerate(WRONG)])
def test_a_wrong_file_is_one_line(tmp_path, monkeypatch, name, content, line):
    monkeypatch.chdir(tmp_path)  # commands in a line quote a path as a shell wants it
    assert error(write(Path(), name, content), codebook=CODEBOOK) == line


def test_deep_json_is_one_line(tmp_path):
    line = error(write(tmp_path, "p.jsonl", '{"text": ' + "[" * 200_000 + "]" * 200_000 + "}"))
    assert line in {
        "p.jsonl: row 1: is nested too deeply to be a post; each line is one flat object",
        "p.jsonl: row 1: the text is a list, not a string; put it in quotes",  # a Python whose parser has no such limit
        "p.jsonl: row 1: has no column 'label'; it has 'text'; set --label-column to the one that holds the label",
    }


def test_a_cut_or_damaged_gzip_is_one_line(tmp_path):
    rng = random.Random(1)
    rows = "".join(f'{{"id": {i}, "text": "{rng.random()}", "label": "pro"}}\n' for i in range(9000))
    whole = gzip.compress(rows.encode())
    line = error(write(tmp_path, "p.jsonl.gz", whole[: len(whole) // 2]))
    start, end = "p.jsonl.gz: row ", " bytes of text; copy the file again"
    assert line.startswith(start) and ": the gzipped data is cut off after " in line and line.endswith(end)
    assert 2000 < int(line[len(start) :].split(":")[0]) < 7000
    line = error(write(tmp_path, "p.jsonl.gz", whole[:-8] + bytes(8)))  # the checksum at the end
    assert line.startswith("p.jsonl.gz: row 9001: the gzipped data is damaged (CRC check failed") and line.endswith(end)


def test_places_that_hold_no_file(tmp_path):
    (tmp_path / "d.csv").mkdir()
    assert error(tmp_path / "d.csv") == "d.csv: is a folder; name the files in it, such as d.csv/*.jsonl"
    assert error(tmp_path / "no.csv") == "no.csv: there is no such file"
    path = write(tmp_path, "p.csv", "text,label\na,pro\n")
    assert error([path, path]) == "p.csv: is named twice; name each file once"
    with pytest.raises(UserError, match=r"--data: names no file; name one or several \.jsonl, \.csv or \.tsv files"):
        read_posts([])


def test_a_column_that_was_asked_for_must_be_there(tmp_path):
    path = write(tmp_path, "p.csv", "text,label,language\na,pro,en\n")
    assert error(path, Columns(language="langage")) == (
        "p.csv: has no column 'langage'; it has 'text', 'label', 'language'; set --language-column to the one that "
        "holds the language; did you mean 'language'?"
    )
    assert error(path, Columns(id="key")) == (
        "p.csv: has no column 'key'; it has 'text', 'label', 'language'; set --id-column to the one that holds the id"
    )
    with pytest.raises(UserError, match="--text-column and --label-column: both name 'text'; name two columns"):
        Columns(label="text")
    with pytest.raises(UserError, match="--id-column: is empty; name a column"):
        Columns(id="")
    line = error(path, Columns(delimiter="::"))
    assert line == "--delimiter '::', --quote 'auto': each is one character, and they differ"


def test_parquet_without_pyarrow_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert error(write(tmp_path, "p.parquet", "PAR1")) == (
        "p.parquet: reading parquet needs pyarrow: pip install pyarrow, or save as .jsonl"
    )
