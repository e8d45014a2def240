"""classify.py on several inputs, patterns, folders and standard input; the user's own columns; columns of the run.

Deliberate break: let `expand` leave a folder as it is, `kept_columns` give nothing, `ColumnOptions.remember` return at
once, `check_again` refuse nothing, or `Labeller` take `WINDOW` posts whatever they cost. Cases below turn red.
"""

import csv
import io
import json
import sys
from pathlib import Path

import pytest
import torch

import classify
import eval as evaluation
import train
from inference import labeller
from tests.programs.hostile import QUICK, TOPICS, World, call, jsonl, post_rows, refused, words
from tests.small import random_model


def table(path: Path, start: int, count: int = 6, **names) -> Path:
    rows = post_rows(start=start, count=count)
    with open(path, "w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow([names.get(key, key) for key in (*rows[0], "author", "p_neutral")])
        writer.writerows([*row.values(), f"a{start}", "mine"] for row in rows)
    return path


def read(path: Path) -> list[dict]:
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    with open(path, encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def test_a_folder_a_pattern_and_a_file(world: World, tmp_path):
    (tmp_path / "archive").mkdir()
    table(tmp_path / "archive" / "b.csv", 0)
    jsonl(tmp_path / "archive" / "a.jsonl", post_rows(start=10, count=5))
    (tmp_path / "archive" / "notes.doc").write_text("not posts")
    table(tmp_path / "more1.csv", 20)
    table(tmp_path / "more2.csv", 30)
    ended = call(classify.main, *words(world, "--input", "archive", "more*.csv", "--output", "labels"))
    assert ended.code == 0, ended.err
    assert sorted(path.name for path in Path("labels").iterdir()) == [
        "a.jsonl", "b.csv", "manifest.json", "more1.csv", "more2.csv", "report.html"]
    assert call(classify.main, *words(world, "--input", "more2.csv", "--output", "alone.csv")).code == 0
    assert Path("labels/more2.csv").read_bytes() == Path("alone.csv").read_bytes()
    refused(classify.main, *words(world, "--input", "more2.csv", "--output", "alone.csv", "--resume"),
            says="--output alone.csv: exists, and nothing was stopped on the way to it")
    Path("labels/b.csv").unlink()
    refused(classify.main, *words(world, "--input", "archive", "more*.csv", "--output", "labels"),
            says=("exists", "or --resume, which leaves what is done"))
    ended = call(classify.main, *words(world, "--input", "archive", "more*.csv", "--output", "labels", "--resume"))
    assert ended.code == 0 and ended.out.count("is there already") == 3 and Path("labels/b.csv").exists()


def test_labels_in_the_run_give_way_to_those_of_the_same_input_alone(world: World, tmp_path, monkeypatch):
    """Deliberate break: in bulk/places.py let `check_output` refuse nothing where --output names no place."""
    run = world.copy(world.run, tmp_path)
    for folder, start in (("a", 0), ("b", 20)):
        (tmp_path / folder).mkdir()
        jsonl(tmp_path / folder / "posts.jsonl", post_rows(start=start, count=2))
    to, labels = ["--run", run, "--threads", "1", "--input"], run / "labels-posts.jsonl"
    for _ in range(2):  # the same line, typed again
        assert call(classify.main, *to, "a/posts.jsonl").code == 0
    first = labels.read_bytes()
    for more in ([], ["--resume"]):
        refused(classify.main, *to, "b/posts.jsonl", *more, says=(
            "labels-posts.jsonl: holds the labels of another input", "--output", "--overwrite"))
    assert call(classify.main, *to, "b/posts.jsonl", "--overwrite").code == 0 and labels.read_bytes() != first
    assert call(classify.main, *to, "b/posts.jsonl", "--abstain", "0.9").code == 0
    labels.write_bytes(labels.read_bytes() + b"\n")  # by hand
    refused(classify.main, *to, "b/posts.jsonl", says=("labels-posts.jsonl: has changed since it was made",))
    (run / "manifest.json").unlink()
    refused(classify.main, *to, "b/posts.jsonl", says=("labels-posts.jsonl: exists, and nothing says of which input",))
    assert call(classify.main, *to, "a").code == 0 and call(classify.main, *to, "a").code == 0  # into run/labels
    refused(classify.main, *to, "b", says="labels/posts.jsonl: holds the labels of another input")
    refused(classify.main, *to, "b", "--resume", says="labels/posts.jsonl was made from another input")
    for count, code in ((2, 0), (2, 0), (1, 2)):
        content = "".join(json.dumps(row) + "\n" for row in post_rows(count=count)).encode()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        ended = call(classify.main, *to, "-")
        assert ended.code == code, ended.err
    assert "labels-stdin.jsonl: holds the labels of another input" in ended.err


def test_what_several_inputs_refuse(world: World, tmp_path):
    table(tmp_path / "a.csv", 0)
    (tmp_path / "sub").mkdir()
    (tmp_path / "empty").mkdir()
    table(tmp_path / "sub" / "a.csv", 1)
    (tmp_path / "file").write_text("")
    for more, says in ((("a.csv", "./a.csv"), "meant twice"), (("a.csv", "sub/a.csv"), "would both become a.csv"),
                       (("empty",), "the folder holds no"), (("none*.csv",), "no file has such a name"),
                       (("-", "a.csv"), "standard input goes alone")):
        refused(classify.main, *words(world, "--input", *more, "--output", "labels"), says=says)
    refused(classify.main, *words(world, "--input", "a.csv", "sub", "--output", "file"), says="is a file")
    for more in ((), ("--format", "csv"), ("--shard", "1/2")):
        refused(classify.main, *words(world, "--input", "a.csv", *["c.csv"] * (not more), "--output", "all.csv.gz",
                                      *more), says="does not end like a file")
    (tmp_path / "sub" / "bad.csv").write_text("text\n\"a\n")
    refused(classify.main, *words(world, "--input", "a.csv", "sub/bad.csv", "--output", "labels"), says="never closed")
    assert not Path("labels").exists()


@pytest.mark.parametrize("kind", ["jsonl", "csv", "tsv"])
def test_standard_input(world: World, tmp_path, monkeypatch, kind):
    rows = post_rows(count=5)
    path = tmp_path / f"posts.{kind}"
    if kind == "jsonl":
        jsonl(path, rows)
    else:
        with open(path, "w", encoding="utf-8", newline="") as handle:
            writer = csv.DictWriter(handle, list(rows[0]), delimiter="\t" if kind == "tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(path.read_bytes())))
    assert call(classify.main, *words(world, "--input", "-", "--output", "piped.csv")).code == 0
    assert call(classify.main, *words(world, "--input", path, "--output", "read.csv")).code == 0
    assert Path("piped.csv").read_bytes() == Path("read.csv").read_bytes()


def test_standard_streams_have_names_of_their_own(world: World, tmp_path, monkeypatch):
    for content, says in ((b"", "error: standard input: is empty"), (b'text\n"a\n', "standard input: row 2: a quote")):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        refused(classify.main, *words(world, "--input", "-", "--output", "out.csv"), says=says)


def test_files_without_rows_among_others(world: World, tmp_path):
    """An archive with a file for every day has such, and they do not keep the others from being labelled."""
    (tmp_path / "in").mkdir()
    table(tmp_path / "in" / "b.csv", 0)
    (tmp_path / "in" / "a.csv").write_text("id,text\n")
    (tmp_path / "in" / "c.csv").write_text("")
    (tmp_path / "in" / "d.jsonl").write_text("[]")
    (tmp_path / "in" / "e.tsv").write_text("\n\n")
    for again in (0, 1):
        ended = call(classify.main, *words(world, "--input", "in", "--output", "out", "--resume"))
        assert ended.code == 0 and ended.out.count("passed over: in/") == 4, ended.err
        assert "passed over: in/a.csv: has a header but no rows\n" in ended.out
        assert sorted(path.name for path in Path("out").iterdir()) == ["b.csv", "manifest.json", "report.html"]
        assert ended.out.count("is there already") == again
    assert call(classify.main, *words(world, "--input", "in", "--output", "x", "--dry-run")).code == 0
    Path("in/b.csv").unlink()
    refused(classify.main, *words(world, "--input", "in", "--output", "none"), says="none of the files has rows")
    refused(classify.main, *words(world, "--input", "in/a.csv", "--output", "none.csv"), says="a header but no rows")


def test_parquet(world: World, tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="needs pyarrow")
    from pyarrow import parquet

    rows = post_rows(count=5)
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "posts.parquet")
    assert call(classify.main, *words(world, "--input", "posts.parquet", "--output", "labels.jsonl")).code == 0
    found = read(Path("labels.jsonl"))
    assert [row["id"] for row in found] == [row["id"] for row in rows]


def test_the_inputs_own_columns_stand_behind_ours(world: World, tmp_path):
    table(tmp_path / "a.csv", 0)
    assert call(classify.main, *words(world, "--input", "a.csv", "--output", "all.csv")).code == 0
    rows = read(Path("all.csv"))
    assert list(rows[0])[-3:] == ["label", "author", "input_p_neutral"] and "text" not in rows[0]
    assert rows[0]["author"] == "a0" and rows[0]["input_p_neutral"] == "mine" and rows[0]["p_neutral"] != "mine"
    assert [row["label"] for row in rows] == [row["label"] for row in post_rows(count=6)]
    assert call(classify.main, *words(world, "--input", "a.csv", "--output", "one.csv", "--keep-columns", "author",
                                      "--with-texts")).code == 0
    assert list(read(Path("one.csv"))[0])[-2:] == ["text", "author"]
    none = words(world, "--input", "a.csv", "--output", "no.csv", "--keep-columns", "none")
    assert call(classify.main, *none).code == 0
    assert list(read(Path("no.csv"))[0])[-1].startswith("p_")
    refused(classify.main, *words(world, "--input", "a.csv", "--output", "x.csv", "--keep-columns", "autor"),
            says=("--keep-columns autor", "did you mean 'author'"))


def test_columns_that_not_every_row_has(world: World, tmp_path):
    rows = post_rows(count=4)[:4]
    rows[2]["late"] = "x"
    jsonl(tmp_path / "a.jsonl", rows)
    assert call(classify.main, *words(world, "--input", "a.jsonl", "--output", "a.csv")).code == 0
    assert [row["late"] for row in read(Path("a.csv"))] == ["", "", "x", ""]


def test_null_stays_null_and_an_empty_string_one(world: World, tmp_path):
    """Deliberate break: in bulk/rows.py write `NULL` as it is."""
    rows = [row | {"mine": mine} for row, mine in zip(post_rows(count=2), (None, "", "null", 0), strict=True)]
    jsonl(tmp_path / "a.jsonl", rows)
    for kind in ("jsonl", "csv"):
        assert call(classify.main, *words(world, "--input", "a.jsonl", "--output", f"o.{kind}")).code == 0
        assert [row["mine"] for row in read(Path(f"o.{kind}"))] == [None if kind == "jsonl" else "", "", "null", "0"]


def test_a_run_remembers_its_columns(world: World, tmp_path):
    own = {"text": "Tweet Text", "label": "Sentiment", "language": "lang", "id": "key"}
    table(tmp_path / "mine.csv", 0, 48, **own)
    named = [word for role, name in own.items() for word in (f"--{role}-column", name)]
    ended = call(train.main, "--model", world.base, "--data", "mine.csv", "--out", "run", *named, *QUICK)
    assert ended.code == 0, ended.err
    table(tmp_path / "test.csv", 48, 24, **own)
    ended = call(evaluation.main, "--run", "run", "--data", "test.csv", "--draws", "10")
    assert ended.code == 0, ended.err
    ended = call(classify.main, "--run", "run", "--input", "test.csv", "--output", "out.csv")
    assert ended.code == 0 and {row["predicted"] for row in read(Path("out.csv"))} <= set(TOPICS), ended.err
    bare = table(tmp_path / "bare.csv", 0, 3, text="Tweet Text", id="nr", language="l")  # remembered ones may lack
    assert call(classify.main, "--run", "run", "--input", bare, "--output", "bare-out.csv").code == 0
    other = table(tmp_path / "other.csv", 0, 3)
    refused(classify.main, "--run", "run", "--input", other, "--output", "o.csv", says="has no column 'Tweet Text'")
    ended = call(classify.main, "--run", "run", "--input", other, "--output", "o.csv", "--text-column", "text")
    assert ended.code == 0, ended.err


def test_a_window_takes_as_many_posts_as_its_seconds_allow(monkeypatch):
    """At the speed of a large model on a CPU a row is written long before 1,024 are labelled."""
    now = [0.0]
    monkeypatch.setattr(labeller.time, "monotonic", lambda: now[0])
    found = labeller.Labeller(random_model(), type("P", (), {"label_ids": [1, 2]})())
    assert found._rate * labeller.AIM > labeller.WINDOW
    found._rate = 0.3  # posts a second
    monkeypatch.setattr(labeller, "is_empty", lambda text: True)
    monkeypatch.setattr(found, "give", lambda rows: lambda: torch.empty(0, 2).numpy())
    labelled = found._labelled

    def slow(posts, rows, probabilities):
        now[0] += len(posts) / 4.0  # four posts a second
        return labelled(posts, rows, probabilities)

    monkeypatch.setattr(found, "_labelled", slow)
    windows = [len(window.posts) for window in found.label(iter([type("Q", (), {"text": ""})()] * 5000))]
    assert windows[0] == labeller.LEAST and set(windows[6:-1]) == {int(labeller.AIM * 4)} and sum(windows) == 5000


@pytest.mark.parametrize("rate", [0.0, 0.01, 0.1, 0.25, 0.3, 1.0, 5.0, 1e3, 1e9])
def test_a_kill_takes_a_minute_of_work_at_most(rate):
    """But one post that takes longer. Deliberate break: let a window have `LEAST` posts however long they take."""
    size = labeller.window_size(rate)
    assert size == 1 or size <= 60 * rate
    assert 1 <= size <= labeller.WINDOW and (size >= labeller.LEAST or rate < 0.3)
