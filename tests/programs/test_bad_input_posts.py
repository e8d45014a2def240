"""Posts, labels and codebooks as they should not be, handed to the programs: one line with file and row, exit 2.

Deliberate break that turns this red: in data/rows.py, decode lines with `errors="replace"`; bytes that are not UTF-8
pass as text and the latin-1 cases train.
"""

import gzip
import json

import pytest

import classify
import eval as evaluation
import train
from tests.programs.hostile import (
    QUICK,
    World,
    call,
    jsonl,
    post_rows,
    refused,
    write_base,
)

HEADER = "id,text,label,language\n"
ROW = '1,"a, b",neutral,en\n'


def table(text, name="posts.csv", encoding="utf-8"):
    return name, text if isinstance(text, bytes) else text.encode(encoding)


def lines(*rows):
    return "posts.jsonl", "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows).encode()


GOOD = {"id": "1", "text": "a", "label": "neutral", "language": "en"}
FILES = {
    "broken json": (lines(GOOD, '{"text": "a", '), ("posts.jsonl: row 2", "is not JSON")),
    "json array without an end": (lines("[" + json.dumps(GOOD)), ("posts.jsonl", "ends inside its array")),
    "json number per line": (lines("12"), ("row 1", "a number (12)", "object")),
    "text is a number": (lines(GOOD | {"text": 12}), ("row 1", "a number (12)", "string")),
    "empty jsonl": (("posts.jsonl", b""), ("posts.jsonl", "is empty")),
    "empty csv": (table(""), ("posts.csv", "is empty")),
    "csv without rows": (table(HEADER), ("posts.csv", "a header but no rows")),
    "blank lines only": (table("\n\n\n"), ("posts.csv", "header")),
    "a cell that may be rows": (table(HEADER + '1,"a,neutral,en\n2,b",neutral,en\n'), ("row 2", "--quote none")),
    "latin-1 bytes": (table(HEADER + "1,caf\xe9,neutral,en\n", encoding="latin-1"), ("row 2", "UTF-8", "iconv")),
    "UTF-16 that is cut off": (table((HEADER + ROW).encode("utf-16")[:-1]), ("UTF-16", "cut off")),
    "UTF-16 without a mark": (table(HEADER + ROW, encoding="utf-16-le"), ("UTF-16", "iconv")),
    "NUL": (table(HEADER + "1,a\0b,neutral,en\n"), ("row 2", "NUL")),
    "an Excel workbook": (("posts.csv", b"PK\x03\x04" + bytes(100)), ("Excel workbook", "CSV UTF-8")),
    "unknown suffix": (("posts.xlsx", b"PK\x03\x04"), ("posts.xlsx", ".jsonl, .csv, .tsv")),
    "gz that is none": (("posts.csv.gz", (HEADER + ROW).encode()), ("posts.csv.gz", "not gzipped")),
    "gz cut off": (("posts.csv.gz", gzip.compress((HEADER + ROW * 99).encode())[:-9]), ("posts.csv.gz", "cut off")),
    "missing column": (table("id,tweet,label\n1,a,neutral\n"), ("no column 'text'", "'tweet'", "--text-column")),
    "two text columns": (table("text,text,label\na,b,neutral\n"), ("2 columns named 'text'", "rename")),
    "too few fields": (table(HEADER + ROW + "2,b\n"), ("row 3", "2 fields", "header has 4")),
    "too many fields": (table(HEADER + "1,a,b,neutral,en\n"), ("row 2", "5 fields", "quotes")),
    "open quote": (table(HEADER + '1,"a,neutral,en\n' + ROW), ("row 2", "quote", "--quote none")),
    "unknown label": (table(HEADER + "1,a,neutrall,en\n" + ROW), ("row 2", "'neutrall'", "did you mean 'neutral'?")),
    "label in capitals": (table(HEADER + "1,a,NEUTRAL,en\n"), ("row 2", "'NEUTRAL'", "did you mean 'neutral'?")),
    "a symbol as label": (table(HEADER + "1,a,3,en\n"), ("row 2", "not its symbol: 'neutral'")),
    "no label": (table(HEADER + "1,a,,en\n" + ROW), ("row 2", "no label", "--bad-labels drop")),
    "label without a training post": (table(HEADER + ROW), ("label 'pro-immigration'", "--allow-missing-labels")),
    "only empty texts": (table(HEADER + "1,,neutral,en\n2,  ,neutral,en\n"), ("none of the 2 rows", "text")),
    "annotators without ids": (lines(*({"text": "a", "label": "neutral", "annotator": name} for name in "ab")),
                               ("row 1", "no id", "annotators")),
    "one annotator twice": (lines(*(GOOD | {"annotator": "ana"} for _ in "ab")), ("row 2", "'ana'", "again")),
    "an annotator's unknown label": (lines({"id": "1", "text": "a", "label_ana": "neutrl", "label_ben": "neutral"}),
                                     ("row 1", "label_ana 'neutrl'", "did you mean 'neutral'?")),
}  # fmt: skip


@pytest.mark.parametrize("case", FILES)
def test_posts_that_cannot_be_trained_on(case, world: World, tmp_path):
    (name, data), words = FILES[case]
    (tmp_path / name).write_bytes(data)
    refused(train.main, "--model", world.base, "--data", name, "--out", "run", *QUICK, says=words)


NOT_FOR_LABELLING = [case for case in FILES if case not in (
    "unknown label", "label in capitals", "a symbol as label", "no label", "label without a training post",
    "annotators without ids", "one annotator twice", "an annotator's unknown label", "only empty texts")]  # fmt: skip


@pytest.mark.parametrize("case", NOT_FOR_LABELLING)
def test_posts_that_cannot_be_labelled(case, world: World, tmp_path):
    (name, data), words = FILES[case]
    (tmp_path / name).write_bytes(data)
    refused(classify.main, "--run", world.run, "--input", name, "--output", "labels.jsonl", says=words)


@pytest.mark.parametrize(("case", "options", "words"), [
    ("no such file", ["--data", "none.jsonl"], ("none.jsonl", "no such file")),
    ("a folder", ["--data", "."], ("folder", "*.jsonl")),
    ("the same file twice", ["--data", "{posts}", "{posts}"], ("named twice",)),
    ("misspelt column", ["--text-column", "txt"], ("'txt'", "--text-column", "did you mean 'text'?")),
    ("misspelt id column", ["--id-column", "ids"], ("'ids'", "--id-column")),
    ("one column for two things", ["--text-column", "label"], ("--text-column", "--label-column", "both")),
    ("empty column name", ["--text-column", ""], ("--text-column", "empty")),
    ("delimiter of two characters", ["--data", "{csv}", "--delimiter", ";;"], ("--delimiter", "one character")),
    ("unknown language", ["--languages", "en,klingon"], ("--languages", "'klingon'")),
    ("language without posts", ["--languages", "tr"], ("--languages tr", "Turkish", "en 12")),
    ("language twice", ["--languages", "en,English"], ("--languages", "twice")),
    ("budget above what is there", ["--per-language", "en=75"], ("--per-language en=75", "only 12 posts")),
    ("budget malformed", ["--per-language", "en75"], ("--per-language", "tr=75")),
    ("budget of none", ["--per-language", "en=0"], ("--per-language", "0")),
    ("budget of half a post", ["--per-language", "en=2.5"], ("--per-language", "2.5")),
    ("budget twice", ["--per-language", "en=3,en=5"], ("--per-language", "each name once")),
    ("budget empty", ["--per-language", ""], ("--per-language", "empty")),
    ("group by unknown column", ["--group-by", "author", "--validation", "0.2"], ("--group-by author", "column")),
    ("no date", ["--split-by", "when", "--validation", "0.2"], ("--split-by when", "no such column")),
    ("group without validation", ["--group-by", "author", "--validation", "0"], ("--group-by", "--validation is 0")),
])  # fmt: skip
def test_options_that_do_not_fit_the_posts(case, options, words, world: World, tmp_path):
    (tmp_path / "posts.csv").write_text(HEADER + ROW)
    options = [word.format(posts=world.posts, csv="posts.csv") for word in options]
    data = [] if "--data" in options else ["--data", world.posts]
    refused(train.main, "--model", world.base, "--out", "run", *QUICK, *data, *options, says=words)


BOOK = 'role = "r"\nquestion = "q"\n'
CODEBOOKS = {
    "two equal labels": ('labels = ["yes", "no", "Yes"]', ("labels", "'yes' and 'Yes' are the same")),
    "unknown key": ('labels = ["yes", "no"]\nquestoin = "x"', ("'questoin'", "did you mean 'question'?")),
    "one label": ('labels = ["yes"]', ("too few labels",)),
    "no labels": ("", ("'labels' is missing",)),
    "not toml": ("labels = [", ("is not TOML",)),
    "label with spaces around it": ('labels = [" yes", "no"]', ("spaces around",)),
    "labels are numbers": ("labels = [1, 2]", ("labels[1]", "a number")),
    "answer without the symbol": ('labels = ["yes", "no"]\nanswer = "Answer"', ("'answer'", "{symbol} is missing")),
    "example with an unknown label": ('labels = ["yes", "no"]\n[[examples]]\nlabel = "perhaps"\ntext = "a"',
                                      ("examples[1].label", "'perhaps'")),
    "label in no group": ('labels = ["yes", "no", "other"]\n[groups.topic]\nrelated = ["yes"]\nunrelated = ["no"]',
                          ("groups.topic", "'other' is on no side")),
    "twenty-seven labels": (f"labels = {json.dumps([f'label {n}' for n in range(27)])}", ("27 labels", "26")),
}


@pytest.mark.parametrize("case", CODEBOOKS)
def test_codebooks_that_blur_the_question(case, world: World, tmp_path):
    text, words = CODEBOOKS[case]
    (tmp_path / "book.toml").write_text(BOOK + text)
    refused(train.main, "--model", world.base, "--data", world.posts, "--out", "run", *QUICK, "--codebook",
            "book.toml", says=("book.toml", *words))  # fmt: skip


def test_label_tokens_that_do_not_differ(world: World, tmp_path):
    base = write_base(tmp_path / "base", same={"1": "2"})
    refused(train.main, "--model", base, "--data", world.posts, "--out", "run", *QUICK,
            says=("'pro-immigration' and 'anti-immigration'", "first answer token", "'answer'"))  # fmt: skip


def test_codebook_that_is_not_there(world: World):
    refused(train.main, "--model", world.base, "--data", world.posts, "--out", "run", "--codebook", "mine.toml",
            says=("mine.toml", "no such codebook", "paper"))  # fmt: skip


def test_prompt_longer_than_the_rows_may_be(world: World):
    args = ("--model", world.base, "--data", world.posts, "--out", "run", *QUICK)
    refused(train.main, *args, "--max-tokens", "20", says=("--max-tokens 20", "instruction alone takes"))
    refused(train.main, *args, "--max-tokens", "4096", says=("--max-tokens 4096", "512 positions"))


def test_label_seen_only_in_the_test(world: World, tmp_path):
    (tmp_path / "book.toml").write_text(BOOK + 'labels = ["yes", "no", "other"]')
    rows = post_rows(labels=("yes", "no"))
    args = ("--model", world.base, "--data", jsonl(tmp_path / "two.jsonl", rows), "--codebook", "book.toml", *QUICK)
    refused(train.main, *args, "--out", "run", says=("'other'", "--allow-missing-labels"))
    assert call(train.main, *args, "--out", "run", "--allow-missing-labels").code == 0
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    facts["options"]["allow_missing_labels"] = False
    (tmp_path / "run" / "run.json").write_text(json.dumps(facts))
    test = jsonl(tmp_path / "test.jsonl", post_rows(start=30, labels=("yes", "other")))
    refused(evaluation.main, "--run", "run", "--data", test, "--out", "e",
            says=("test.jsonl: row 2", "label 'other' (12 test rows)", "no training post"))  # fmt: skip


def test_test_posts_that_do_not_fit_the_run(world: World, tmp_path):
    args = ("--run", world.run, "--out", "e")
    refused(evaluation.main, *args, "--data", world.posts, says=("posts.jsonl", "were trained on", "--drop-known none"))
    bad = jsonl(tmp_path / "bad.jsonl", post_rows(start=30, labels=("happy", "sad")))
    refused(evaluation.main, *args, "--data", bad, says=("bad.jsonl: row 1", "'happy'", "(24 such rows in all)"))
    refused(evaluation.main, *args, "--data", world.test, "--by", "gender", says=("--by gender", "no such column"))
    refused(evaluation.main, *args, "--data", world.test, "--group-by", "author", says=("--group-by author",))


def test_predictions_that_cannot_be_scored(world: World, tmp_path):
    rows = post_rows(start=50)
    bare = jsonl(tmp_path / "bare.jsonl", rows)
    refused(evaluation.main, "--predictions", bare, "--out", "e", says=("'predicted'", "--predicted-column"))
    some = jsonl(tmp_path / "some.jsonl", [{"id": row["id"], "language": row["language"], "predicted": "neutral"}
                                           for row in rows[3:]])  # fmt: skip
    refused(evaluation.main, "--predictions", some, "--data", world.test, "--out", "e",
            says=("some.jsonl", "no prediction for id 'en-50'", "3 posts"))  # fmt: skip
    refused(evaluation.main, "--predictions", some, "--out", "e", says=("some.jsonl: row 1", "no gold label", "--data"))
    refused(evaluation.main, "--predictions", some, "--predicted-column", "label", "--out", "e",
            says=("--predicted-column label: is the column of the gold labels, too",))  # or all would be right
    twice = jsonl(tmp_path / "twice.jsonl", [row | {"predicted": "neutral"} for row in rows + rows[:1]])
    refused(evaluation.main, "--predictions", twice, "--data", world.test, "--out", "e", says=("row 25", "came before"))
    refused(evaluation.main, "--predictions", "none.jsonl", "--out", "e", says=("none.jsonl", "no such file"))
    refused(evaluation.main, "--predictions", some, "--run", world.run, says=("--predictions and --run",))


def test_nothing_to_label(world: World, tmp_path):
    empty = jsonl(tmp_path / "empty.jsonl", [])
    refused(classify.main, "--run", world.run, "--input", empty, "--output", "a.csv", says=("empty.jsonl", "is empty"))
    refused(classify.main, "--run", world.run, "--input", "no.jsonl", "--output", "a.csv", says=("no.jsonl", "no such"))
