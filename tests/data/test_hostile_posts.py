"""Files of posts that were made to hang a reader or to fill memory: one line, and memory that stays bounded.

Deliberate break that turns this red: in data/lines.py, let `read_lines` call `handle.readline()` without a size.
"""

import gzip
import json
import os
import tracemalloc

import pytest

from common.errors import UserError
from data.posts import ColumnOptions, Columns
from data.readers import check_posts, iter_posts, read_posts
from data.rows import open_table
from tools.split import as_number

MB = 2**20
HEADER = b"text,label\n"
ROW = b"a post,neutral\n"
BOMBS = {
    "a line of zeros": ("posts.jsonl.gz", b"", b"\0" * MB),
    "a line of letters": ("posts.jsonl.gz", b'{"text": "', b"a" * MB),
    "white space": ("posts.jsonl.gz", b"", b" " * MB),
    "a cell of letters": ("posts.csv.gz", HEADER + ROW, b"a" * MB),
    "a quote that is never closed": ("posts.csv.gz", HEADER + ROW + b'"', b"line\n" * (MB // 5)),
    "quotes that open anew": ("posts.csv.gz", HEADER + ROW + b'"', b'a\n","' * (MB // 5)),
    "cells by the million": ("posts.csv.gz", HEADER + ROW, b"," * MB),
    "a header without end": ("posts.tsv.gz", b"", b"text\t" * (MB // 5)),
    "not gzipped": ("posts.jsonl", b"[[", b"[" * MB),
}  # fmt: skip
SIZE = 60  # megabytes that each would take


@pytest.mark.parametrize("case", BOMBS)
def test_memory_stays_bounded(case, tmp_path):
    name, start, piece = BOMBS[case]
    path = tmp_path / name
    with (gzip.open(path, "wb", 1) if name.endswith(".gz") else open(path, "wb")) as handle:
        handle.write(start)
        for _ in range(SIZE):
            handle.write(piece)
    tracemalloc.start()
    try:
        with pytest.raises(UserError) as caught:
            list(iter_posts([path], Columns(longest=2)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    line = str(caught.value)
    assert str(path) in line and len(line) < 400 and ("row" in line or "JSON array" in line)
    assert peak < 25 * MB, peak


def test_a_row_may_be_as_long_as_is_said(tmp_path):
    text = "x" * (3 * MB)
    (tmp_path / "posts.jsonl").write_text(json.dumps({"text": text}) + "\n")
    (tmp_path / "posts.csv").write_text(f'text,label\n"{text[: MB]}\n{text[MB:]}",neutral\n"b",neutral\n')
    for name in ("posts.jsonl", "posts.csv"):
        with pytest.raises(UserError, match=r"row .: takes more than 2 MB.*--longest-row"):
            read_posts(tmp_path / name, Columns(longest=2), require_labels=False)
        posts, _ = read_posts(tmp_path / name, Columns(longest=4), require_labels=False)
        assert len(posts[0].text.replace("\n", "")) == 3 * MB
    many = tmp_path / "many.csv"  # the limit is of a row, not of the file
    several = b"".join(b'"a\n%d",neutral\n' % n for n in range(3)) + (b"y" * 999_999 + b",neutral\n") * 5
    many.write_bytes(HEADER + several)
    assert len(read_posts(many, Columns(longest=1))[0]) == 8
    assert ColumnOptions().columns().longest == 16 and ColumnOptions(longest_row=3).columns().longest == 3


def test_what_a_long_line_looks_like_is_said(tmp_path):
    for name, data, words in (("a.jsonl", b"[" + b'{"text": "a"},' * (MB // 10), "jq -c"),
                              ("a.csv", b"text,label\r" + b"a,neutral\r" * (MB // 5), "carriage return"),
                              ("a.xlsx.csv", b"PK\x03\x04" + b"a" * 2 * MB, "zip archive or an Excel")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError, match=words):
            read_posts(tmp_path / name, Columns(longest=1))


HOSTILE = {
    "nested": (b'{"text": ' + b"[" * 10**5, "nested too deep"),
    "a little too deep": (b'{"text": "a", "more": ' + b"[" * 100 + b"]" * 100 + b"}", "nested too deep"),
    "half a pair": (b'{"text": "a \\ud83d b"}', None),
    "numbers of 5,000 digits": (b'{"text": "a", "id": ' + b"9" * 5000 + b"}", None),
    "a number too large": (b'{"text": "a", "id": 1e999, "n": NaN}', None),
    "a text that is a long number": (b'{"text": ' + b"9" * 5000 + b"}", "a number"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_lines_of_json(case, tmp_path):
    line, words = HOSTILE[case]
    (tmp_path / "p.jsonl").write_bytes(line + b"\n")
    if words:
        with pytest.raises(UserError, match=words):
            read_posts(tmp_path / "p.jsonl", require_labels=False)
    else:
        posts, _ = read_posts(tmp_path / "p.jsonl", require_labels=False)
        assert len(posts) == 1 and posts[0].text.encode()


def test_numbers_are_written_as_they_are_or_as_text():
    assert [as_number(word) for word in ("7", "1.50", "9" * 5000, "1e999")] == [7, 1.5, "9" * 5000, "1e999"]


def test_pipes_devices_and_names(tmp_path):
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "link.csv").symlink_to("pipe.jsonl")
    (tmp_path / "zero.csv").symlink_to("/dev/zero")
    (tmp_path / "gone.csv").symlink_to("nowhere")
    for name in ("pipe.jsonl", "link.csv", "zero.csv", "gone.csv", "n" * 300 + ".csv", "a\0b.csv", "\udcff\ud800.csv"):
        with pytest.raises(UserError, match=r"posts|no such file|no file's name"):
            check_posts([tmp_path / name])
        with pytest.raises(UserError):
            open_table(tmp_path / name)
