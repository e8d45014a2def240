"""Readers: every format gives back what was written, ids unchanged, and every oddity is counted and shown.

Deliberate break that turns this red: read JSON in data/rows.py without `parse_float`; the id 1e5 becomes 100000.0.
"""

import csv
import gzip
import io
import json
import random
from types import SimpleNamespace

import pytest

from common.errors import UserError
from data.damage import NULL
from data.readers import Columns, Notes, Post, by_id, iter_posts, read_posts, read_predictions

CODEBOOK = SimpleNamespace(labels=("pro", "anti", "neutral"), symbols=("1", "2", "3"))
PIECES = ["a", "Ж", "ن", "हि", "한", "🙂", '"', "'", ",", ";", "\t", "\n", "\r\n", "\\", "|", "{", "  ", "\u2028", "é"]


def write(folder, name, content, zipped=False):
    data = content if isinstance(content, bytes) else content.encode("utf-8")
    path = folder / name
    path.write_bytes(gzip.compress(data) if zipped else data)
    return path


def random_posts(count):
    rng = random.Random(7)
    text = lambda: "x" + "".join(rng.choices(PIECES, k=rng.randrange(12))) + "."  # noqa: E731
    return [{"id": rng.choice(["007", "1e5", "-0", "ü", f"n{i}"]) + f"-{i}", "text": text(), "language": "tr",
             "label": rng.choice(CODEBOOK.labels), "author": text()} for i in range(count)]  # fmt: skip


def as_csv(rows, delimiter):
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
@pytest.mark.parametrize("kind", ["jsonl", "csv", "tsv"])
def test_round_trip(tmp_path, kind, bom, zipped):
    rows = random_posts(300)
    if kind == "jsonl":
        content = "".join(json.dumps(row, ensure_ascii=row["id"] > "1") + "\n" for row in rows)
    else:
        content = as_csv(rows, {"csv": ",", "tsv": "\t"}[kind])
    path = write(tmp_path, f"posts.{kind}" + ".gz" * zipped, bom + content, zipped)
    # Tabs and line breaks in one cell: as another test says, such a file must be insisted on.
    posts, notes = read_posts(path, Columns(quote='"'), codebook=CODEBOOK)
    first = 1 if kind == "jsonl" else 2
    assert posts == [
        Post(row["id"], row["text"], row["label"], "tr", str(path), place, {"author": row["author"]})
        for place, row in enumerate(rows, first)
    ]
    assert notes.to_dict() == {
        "files": [path.name], "rows": 300, "kept": 300, "counts": dict.fromkeys(notes.to_dict()["counts"], 0),
        "details": {}, "places": {}, "languages": {"tr": 300},
        "labels": {label: sum(row["label"] == label for row in rows) for label in sorted(CODEBOOK.labels)},
    }  # fmt: skip


def test_ids_stay_as_written(tmp_path):
    lines = [
        '{"id": "007", "text": "a"}',
        '{"id": 1e5, "text": "a"}',
        '{"id": 12345678901234567890123, "text": "a"}',
        '{"id": 1.50, "text": "a"}',
        '{"id": " x ", "text": "a"}',
        '{"id": null, "text": "a"}',
        '{"text": "a"}',
    ]
    path = write(tmp_path, "p.jsonl", "\n".join(lines))
    posts, notes = read_posts(path, require_labels=False)
    assert [p.id for p in posts] == ["007", "1e5", "12345678901234567890123", "1.50", " x ", "p-6", "p-7"]
    assert all(type(p.id) is str for p in posts)
    assert notes.counts["made_id"] == 2 and notes.places["made_id"] == ["p.jsonl: row 6", "p.jsonl: row 7"]
    path = write(tmp_path, "q.csv.gz", "id,text\n007,a\n1e5,b\n,c\n", zipped=True)
    assert [p.id for p in read_posts(path, require_labels=False)[0]] == ["007", "1e5", "q-4"]


def test_other_columns_become_strings(tmp_path):
    line = '{"text": "a", "n": 3, "x": 2.50, "yes": true, "none": null, "list": [1, "ü"], "s": "t"}'
    post = read_posts(write(tmp_path, "p.jsonl", line), require_labels=False)[0][0]
    assert post.extra == {"n": "3", "x": "2.50", "yes": "true", "none": "", "list": '[1, "ü"]', "s": "t"}
    assert post.extra["none"] is NULL and post.extra["s"] is not NULL


def test_what_no_file_can_hold_is_mended_in_names_and_inner_values_too(tmp_path):
    """Deliberate break: in data/json_rows.py yield every row as it is, or leave `mend` out of `string_of`."""
    lines = ['{"text": "a", "k\\ud83d": "b", "in": {"\\udc00": ["\\ud83d", 1.50, null, true]}}',
             '{"text": "a", "\\ud83d": 1, "\\ud83e": 2}']
    posts = list(iter_posts([write(tmp_path, "p.jsonl", "\n".join(lines))], require_labels=False, keep_bad=True))
    assert posts[0].extra == {"k\ufffd": "b", "in": '{"\ufffd": ["\ufffd", 1.50, null, true]}'}
    assert "has two keys that differ only in characters that no file can hold" in posts[1].error
    with pytest.raises(UserError, match="row 1: has two keys that differ only"):
        read_posts(write(tmp_path, "q.json", f"[{lines[1]}]"), require_labels=False)


def test_columns_can_be_set_and_labels_are_numbers_or_padded(tmp_path):
    path = write(tmp_path, "p.csv", "tweet;stance;lang;key\nhi; 1 ;pt-BR;7\n")
    columns = Columns(text="tweet", label="stance", language="lang", id="key", delimiter="semicolon")
    post = read_posts(path, columns, SimpleNamespace(labels=("1", "2")))[0][0]
    assert (post.text, post.label, post.language, post.id, post.row, post.extra) == ("hi", "1", "pt", "7", 2, {})
    assert read_posts(write(tmp_path, "p.jsonl", '{"text": "a", "label": 2}'))[0][0].label == "2"


def test_rows_are_counted_as_a_spreadsheet_shows_them(tmp_path):
    path = write(tmp_path, "p.csv", 'text,label,,\n"one\n\ntwo",pro,,\n\nthree,anti,,,\n')
    assert [(p.row, p.text) for p in read_posts(path)[0]] == [(2, "one\n\ntwo"), (4, "three")]
    path = write(tmp_path, "p.jsonl", '{"text": "a"}\r\n\r\n{"text": "b"}')
    assert [p.row for p in read_posts(path, require_labels=False)[0]] == [1, 3]


def test_very_long_field(tmp_path):
    path = write(tmp_path, "p.csv", "text\n" + "x" * 1_000_000 + "\n")
    assert len(read_posts(path, require_labels=False)[0][0].text) == 1_000_000


def test_findings_are_counted_and_shown(tmp_path):
    a = write(tmp_path, "a.jsonl", "\n".join([
        '{"id": 1, "text": "x", "language": "in"}', '{"id": 2, "text": " \\u200b\\n", "language": "en"}',
        '{"id": 3, "text": null}', '{"id": 1, "text": "y", "language": "id"}', '{"id": 4, "text": "z"}',
        '{"id": 5, "text": "half \\ud83d, whole \\ud83d\\ude42, nul \\u0000", "language": "tlh"}',
    ]))  # fmt: skip
    b = write(tmp_path, "b.csv", "id,text,language\n1,w,id\n1,v,Turkish\n")
    posts, notes = read_posts([a, b], require_labels=False)
    assert [p.language for p in posts] == ["id", "id", "und", "tlh", "id", "tr"]
    assert posts[3].text == "half \ufffd, whole 🙂, nul \ufffd"
    assert str(notes) == "\n".join([
        "  8  rows read from a.jsonl, b.csv",
        "  6  posts kept",
        "  2  rows without text, dropped: a.jsonl: row 2, a.jsonl: row 3",
        "  2  rows whose id came before: a.jsonl: row 4 (id 1), b.csv: row 2 (id 1)",
        "  1  rows whose id came before in another language (translations?): b.csv: row 3 (id 1)",
        "  1  rows without a language, read as und: a.jsonl: row 5",
        "  2  language tags reduced to ISO 639-1: in -> id (1), Turkish -> tr (1)",
        "  1  language tags that are not ISO 639-1 codes (such as de), kept in lower case: tlh (1)",
        "  1  texts with NUL or half characters, replaced by U+FFFD: a.jsonl: row 6",
    ])  # fmt: skip
    kept, notes = read_posts(a, require_labels=False, keep_empty=True)
    assert [p.text for p in kept][1:3] == [" \u200b\n", ""] and notes.counts["empty_kept"] == 2
    json.dumps(notes.to_dict())


def test_more_findings_than_are_listed(tmp_path):
    path = write(tmp_path, "p.csv", "text,language\n" + "".join(f"a,x{i}\n" for i in range(300)))
    _, notes = read_posts(path, require_labels=False)
    line = notes.lines()[-1]
    begins = "  300  language tags that are not ISO 639-1 codes (such as de), kept in lower case: "
    assert line.startswith(f"{begins}others (100), x0 (1), x1 (1) and")
    assert len(notes.details["unknown_language"]) == 201 and len(notes.places["made_id"]) == 10


def test_posts_are_streamed(tmp_path):
    path = write(tmp_path, "p.jsonl", '{"id": 1, "text": "a"}\n' * 3 + "broken\n")
    notes = Notes()
    stream = iter_posts(path, require_labels=False, notes=notes)
    assert next(stream).text == "a" and notes.rows == 1
    assert next(stream).row == 2 and notes.counts["duplicate_id"] == 1
    next(stream)
    with pytest.raises(UserError, match=r"p\.jsonl: row 4: is not JSON"):
        next(stream)
    assert list(iter_posts(write(tmp_path, "q.jsonl", '{"text": "a"}'), require_labels=False, check_ids=False))


def test_a_gzipped_file_is_known_by_its_content(tmp_path):
    assert read_posts(write(tmp_path, "p.csv", "text\nhi\n", zipped=True), require_labels=False)[0][0].text == "hi"


def test_files_without_quotes(tmp_path):
    path = write(tmp_path, "p.tsv", 'text\tlabel\n"no end\tpro\nsay "x"\tanti\n')
    posts, _ = read_posts(path, Columns(quote="none"))
    assert [p.text for p in posts] == ['"no end', 'say "x"']


def test_bad_labels_can_be_dropped_and_are_counted(tmp_path):
    path = write(tmp_path, "p.csv", "text,label\na,pro\nb,netural\nc,\n")
    posts, notes = read_posts(path, codebook=CODEBOOK, bad_labels="drop")
    assert len(posts) == 1 and (notes.counts["unknown_label"], notes.counts["missing_label"]) == (1, 1)
    assert notes.details["unknown_label"] == {"netural": 1}
    assert len(read_posts(path, require_labels=False)[0]) == 3


def test_predictions(tmp_path):
    lines = ['{"id": "a", "label": "pro", "predicted": "anti"}', '{"id": "b", "predicted": null}']
    path = write(tmp_path, "p.jsonl", "\n".join(lines))
    posts, _ = read_predictions(path, codebook=CODEBOOK)
    found = [(p.id, p.text, p.label, p.extra["predicted"]) for p in posts]
    assert found == [("a", "", "pro", "anti"), ("b", "", None, "")]
    assert list(by_id(posts)) == [("a", "und"), ("b", "und")]
    labels = write(tmp_path, "label.csv", "id,label\na,pro\nb,odd\n")  # another program's, in the gold labels' column
    posts, _ = read_predictions(labels, Columns(predicted="label"), CODEBOOK)
    assert [(p.label, p.extra["label"]) for p in posts] == [(None, "pro"), (None, "odd")]
    with pytest.raises(UserError) as caught:
        read_predictions(path, Columns(predicted="guess"))
    assert str(caught.value) == (
        f"{path}: row 1: has no column 'guess'; its further columns: 'predicted'; set --predicted-column to the one "
        "that holds the predicted label"
    )
    path = write(tmp_path, "q.csv", "id,predicted\n1,pro\n1,pro\n")
    with pytest.raises(UserError) as caught:
        by_id(read_predictions(path)[0])
    assert str(caught.value) == f"{path}: row 3: id '1' came before ({path}: row 2); ids must differ to be joined"


def test_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="needs pyarrow")
    from pyarrow import parquet

    columns = {"id": [7, 8], "text": ["a", "ü"], "label": ["pro", None], "score": [0.5, float("nan")]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "p.parquet")
    posts, _ = read_posts(tmp_path / "p.parquet", require_labels=False)
    assert [(p.id, p.text, p.label, p.row, p.extra) for p in posts] == [
        ("7", "a", "pro", 1, {"score": "0.5"}), ("8", "ü", None, 2, {"score": ""}),
    ]  # fmt: skip
    with pytest.raises(UserError, match=r"is not a complete parquet file; write it again, or save as \.jsonl"):
        read_posts(write(tmp_path, "p.parquet", "PAR1"))


def test_the_real_tweets(shared_data):
    folder = shared_data / "immigration"
    posts, notes = read_posts([folder / "train.jsonl", folder / "test.jsonl"])
    # 21 Indonesian tweets were read as Windows-1252 before they were published.
    assert (notes.rows, notes.kept, notes.counts) == (3500, 3500, {"mojibake": 21})
    assert len(notes.to_dict()["languages"]) == 12 and len({p.id for p in posts}) == 3500
    _, notes = read_posts(shared_data / "topics" / "sib200.jsonl")
    assert notes.counts["duplicate_id"] == 0 and notes.counts["parallel_id"] == 1004 * 12
    predictions, _ = read_predictions(folder / "published_predictions" / "en.jsonl")
    assert set(by_id(predictions)) == {(p.id, p.language) for p in posts if "-test-" in p.id}
