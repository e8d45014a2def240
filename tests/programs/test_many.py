"""classify.py on jobs of many files: wrong rows, posts that come again, parts and their joining, signals, folders.

Deliberate breaks: in bulk/places.py let `Job.rows` begin a row late; in bulk/joined.py leave the headers in; in
inference/repeats.py give every row the place of the first; in classify.py leave out `stop.check`, or let `is_done` of
bulk/manifest.py say yes whatever the hashes are. Cases below turn red.
"""

import csv
import gzip
import json
import os
import signal
from pathlib import Path

import pytest

import classify
from inference import labeller
from inference.repeats import Repeats
from tests.programs.hostile import World, call, jsonl, post_rows, refused, words
from tools import join


@pytest.fixture(autouse=True)
def small_windows(monkeypatch):
    monkeypatch.setattr(labeller, "WINDOW", 8)


def table(path: Path, rows: list[dict], more: bytes = b"", at: int = 0) -> Path:
    """A csv of rows with a column of the user's own, and raw lines ahead of row `at`."""
    path.parent.mkdir(exist_ok=True)
    lines = []
    for number, row in enumerate(rows):
        if number == at and more:
            lines.append(more)
        lines.append(f'{row["id"]},"{row["text"]}",{row["language"]},2024-0{1 + number % 3}-05\r\n'.encode())
    path.write_bytes(b"id,text,language,date\r\n" + b"".join(lines))
    return path


def read(path: Path) -> list[dict]:
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8", newline="") as handle:
        return [json.loads(line) for line in handle] if ".jsonl" in path.name else list(csv.DictReader(handle))


BAD = {"too many fields": (b"x,a,en,2024,more\r\n", "has 5 fields where the header has 4"),
       "too few": (b"x,a\r\n", "has 2 fields"), "not UTF-8": (b"x,caf\xe9,en,2024\r\n", "(0xe9) is not UTF-8"),
       "NUL": (b"x,a\0b,en,2024\r\n", "is NUL"), "a stray quote": (b'x,"a "b" c",en,2024\r\n', "is not doubled"),
       "half of it NUL": (b"x,a\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0b,en,2024\r\n", "is NUL")}  # fmt: skip
BAD_LINES = {"no JSON": ("nope", "is not JSON"), "a list": ("[1]", "is a list"),
             "a number": ('{"id": "n", "text": 5}', "the text is a number (5)"),
             "no text": ('{"id": "n", "txt": "a"}', "has no field 'text'"),
             "a key twice": ('{"text": "a", "text": "b"}', "has the key 'text' twice")}  # fmt: skip


def test_rows_that_are_wrong_get_a_reason_and_stop_nothing(world: World, tmp_path):
    rows = post_rows(count=10)
    table(tmp_path / "in" / "a.csv", rows, b"".join(line for line, _ in BAD.values()), at=5)
    jsonl(tmp_path / "in" / "b.jsonl", [*rows[:3], *(line for line, _ in BAD_LINES.values()), *rows[3:]])
    table(tmp_path / "plain" / "a.csv", rows)
    ended = call(classify.main, *words(world, "--input", "in", "--output", "out", "--max-bad-rows", "0.5"))
    assert ended.code == 0 and f"{len(BAD)} rows could not be read and got none" in ended.out, ended.err
    assert "together 40 posts in " in ended.out and " tokens a second; " in ended.out
    for name, wrong, before in (("a.csv", BAD, 5), ("b.jsonl", BAD_LINES, 3)):
        found = read(tmp_path / "out" / name)
        assert len(found) == len(rows) + len(wrong)
        middle = found[before : before + len(wrong)]
        for row, (_, reason) in zip(middle, wrong.values(), strict=True):
            assert reason in row["error"] and not row["predicted"] and not row["probability"], row
            assert str(tmp_path) not in row["error"]
        good = [*found[:before], *found[before + len(wrong) :]]
        assert [row["id"] for row in good] == [row["id"] for row in rows]
        assert all(row["predicted"] and not row["error"] for row in good)
    assert call(classify.main, *words(world, "--input", "plain/a.csv", "--output", "plain.csv")).code == 0
    assert read(Path("plain.csv")) == [row for row in read(Path("out/a.csv")) if not row["error"]]
    refused(classify.main, *words(world, "--input", "in", "--output", "out2"),
            says=("a.csv: row 7: has 5 fields", f"({len(BAD) + len(BAD_LINES)} of 51 rows are wrong"))
    page = Path("out/report.html").read_text(encoding="utf-8")
    assert "40 of 51 rows got a label" in page
    assert "python -m tools.prevalence --labels out --coded CODED.csv" in page
    assert "has 5 fields where the header has 4, and the like<" in page and "the text is a number<" in page
    assert "2024-02" in page and "counts of the model&#x27;s answers, not estimates" in page and "Spanish" in page
    assert f"{len(BAD) + len(BAD_LINES)} rows could not be read" in page and "tools.prevalence" in page


def test_posts_that_come_again_are_computed_once_and_have_the_same_bits(world: World, tmp_path, monkeypatch):
    rows = post_rows(count=10)
    again = [row | {"id": f"again-{number}"} for number in range(2) for row in rows]
    first = again[: len(rows)]
    jsonl(tmp_path / "a.jsonl", [row for pair in zip(rows, first, strict=True) for row in pair] + again)
    given = []
    give = labeller.Labeller.give
    monkeypatch.setattr(labeller.Labeller, "give", lambda self, posts: given.append(len(posts)) or give(self, posts))
    ended = call(classify.main, *words(world, "--input", "a.jsonl", "--output", "once.csv"))
    assert ended.code == 0 and sum(given) == len(rows) and "; repeats of earlier ones, computed once: 60" in ended.out
    monkeypatch.setattr(Repeats, "split", lambda self, rows: (rows, [], list(range(len(rows))), [None] * len(rows)))
    monkeypatch.setattr(Repeats, "keep", lambda self, keys, computed: None)
    assert call(classify.main, *words(world, "--input", "a.jsonl", "--output", "each.csv")).code == 0
    assert sum(given) == 5 * len(rows) and Path("once.csv").read_bytes() == Path("each.csv").read_bytes()


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "jsonl", "tsv.gz"])
def test_parts_join_to_the_file_of_one_process(world: World, tmp_path, kind):
    table(tmp_path / "in" / "a.csv", post_rows(count=9), b'x,"broken\r\nline, with ""quotes""",en,\r\n', at=4)
    table(tmp_path / "in" / "b.csv", post_rows(start=30, count=1))  # fewer rows than parts: some have none
    more = ("--format", kind, "--input", "in")
    assert call(classify.main, *words(world, *more, "--output", "whole")).code == 0
    for number in (3, 1, 2):
        ended = call(classify.main, *words(world, *more, "--output", "parts", "--shard", f"{number}/3"))
        assert ended.code == 0, ended.err
        if number == 3:
            refused(join.main, "--folder", "parts", says="of 3 parts 2 are not done: 1, 2")
    ended = call(join.main, "--folder", "parts")
    assert ended.code == 0, ended.err
    names = sorted([f"a.{kind}", f"b.{kind}", "manifest.json", "report.html"])
    assert sorted(path.name for path in Path("parts").iterdir()) == names
    for name in (f"a.{kind}", f"b.{kind}"):
        assert Path("parts", name).read_bytes() == Path("whole", name).read_bytes()
    one, two = (json.loads(Path(folder, "manifest.json").read_text())["files"] for folder in ("parts", "whole"))
    assert [one[name]["sha256"] for name in one] == [two[name]["sha256"] for name in one]
    ended = call(classify.main, *words(world, *more, "--output", "whole", "--resume"))
    assert ended.code == 0 and ended.out.count("is there already") == 2, ended.err


def test_what_joining_refuses(world: World, tmp_path):
    table(tmp_path / "in" / "a.csv", post_rows(count=4))
    for number in (1, 2):
        more = ("--input", "in/a.csv", "--output", "parts", "--shard", f"{number}/2")
        assert call(classify.main, *words(world, *more)).code == 0
    second, manifest = Path("parts/a.2-of-2.csv"), Path("parts/manifest.2-of-2.json")
    whole, facts = second.read_bytes(), manifest.read_text()
    second.write_bytes(whole.replace(b"es-", b"xx-"))
    refused(join.main, "--folder", "parts", says=("a.2-of-2.csv", "is not as its manifest says"))
    second.write_bytes(whole)
    for change, says in (({"dtype": "torch.float16"}, "part 2 was made from another dtype than part 1"),
                         ({"rows": "all"}, "which rows it"),
                         ({"--what the other part's version had no word for": True}, "only one notes --what the other"),
                         ({"rows": [5, 8, 8]}, "do not follow"), ({"rows": [4, 9, 8]}, "do not follow")):
        damaged = json.loads(facts)
        damaged["files"]["a.2-of-2.csv"]["made_from"] |= change
        manifest.write_text(json.dumps(damaged))
        refused(join.main, "--folder", "parts", says=says)
    for output, says in (("../a.csv", "is no manifest"), (str(tmp_path / "a.csv"), "is no manifest"),
                         (7, "is no manifest"), (None, "of which file it is")):
        damaged = json.loads(facts)  # its parts would be read, and removed, elsewhere
        damaged["files"]["a.2-of-2.csv"] |= {"output": output}
        if output is None:
            del damaged["files"]["a.2-of-2.csv"]["output"]
        manifest.write_text(json.dumps(damaged))
        refused(join.main, "--folder", "parts", says=says)
    damaged = {"schema": 1, "files": {"../a.csv": json.loads(facts)["files"]["a.2-of-2.csv"]}}
    Path("parts/manifest.json").write_text(json.dumps(damaged))
    manifest.write_text(facts)
    refused(join.main, "--folder", "parts", says="is no manifest")
    Path("parts/manifest.json").unlink()
    manifest.write_text('{"schema": 1, "files": []}')
    refused(join.main, "--folder", "parts", says="is no manifest")
    refused(join.main, "--folder", "in", says="has no manifest of a part")
    refused(join.main, "--folder", "none", says="is no folder")
    for shard in ("0/3", "4/3", "1", "a/b", "1/0"):
        refused(classify.main, *words(world, "--input", "in", "--output", "o", "--shard", shard), says="--shard")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_a_schedulers_warning_ends_behind_the_window_in_hand(world: World, tmp_path, monkeypatch, name):
    table(tmp_path / "in" / "a.csv", post_rows(count=10))
    assert call(classify.main, *words(world, "--input", "in", "--output", "whole")).code == 0
    label = labeller.Labeller.label

    def warned(self, posts):
        for number, window in enumerate(label(self, posts)):
            if number == 1:
                os.kill(os.getpid(), getattr(signal, name))
            yield window

    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        patch.setattr(labeller.Labeller, "label", warned)
        ended = call(classify.main, *words(world, "--input", "in", "--output", "out"))
    assert ended.code == 75 and f"{name}: 16 rows of out/a.csv are kept; to be continued" in ended.err, ended.err
    assert signal.getsignal(signal.SIGTERM) is before and not Path("out/manifest.json").exists()
    ended = call(classify.main, *words(world, "--input", "in", "--output", "out", "--resume"))
    assert ended.code == 0 and "16 rows were labelled before" in ended.out
    assert Path("out/a.csv").read_bytes() == Path("whole/a.csv").read_bytes()


def test_a_whole_file_of_other_labels_is_not_taken_for_the_parts(world: World, tmp_path):
    """Deliberate break: let `bulk.joined.was_joined` look at the name alone, or `_check_replaced` do nothing."""
    table(tmp_path / "in" / "a.csv", post_rows(count=4))
    more = ("--input", "in", "--output", "out")
    ended = call(classify.main, *words(world, *more, "--abstain", "1"))
    assert ended.code == 0 and "0 of 8 posts labelled" in ended.out, ended.err
    assert "8 were below --abstain and got none (coverage 0.0 %)" in ended.out
    page = Path("out/report.html").read_text(encoding="utf-8")
    assert "8 posts got none, with a probability below what was asked for: the labels cover 0.0 % of the posts" in page
    for number in (1, 2):
        assert call(classify.main, *words(world, *more, "--shard", f"{number}/2")).code == 0
    part = Path("out/a.2-of-2.csv")
    whole = part.read_bytes()
    part.unlink()
    refused(join.main, "--folder", "out", says=("a.2-of-2.csv", "is not as its manifest says"))
    part.write_bytes(whole)
    refused(join.main, "--folder", "out", says=("out/a.csv: exists and is not the join of these parts", "--overwrite"))
    assert not read(Path("out/a.csv"))[0]["predicted"] and part.exists()
    assert call(join.main, "--folder", "out", "--overwrite").code == 0
    assert all(row["predicted"] for row in read(Path("out/a.csv")))


def test_two_inputs_that_one_part_would_hold_are_refused(world: World, tmp_path):
    path = table(tmp_path / "in" / "a.csv", post_rows(count=4))
    (tmp_path / "in" / "a.csv.gz").write_bytes(gzip.compress(path.read_bytes()))
    refused(classify.main, *words(world, "--input", "in", "--output", "out", "--shard", "1/2"),
            says=("would both become", "a.1-of-2.csv"))


def test_a_file_that_is_gone_is_left_out_of_the_page(world: World, tmp_path):
    table(tmp_path / "in" / "a.csv", post_rows(count=4))
    table(tmp_path / "in" / "b.csv", post_rows(start=9, count=4))
    go_on = words(world, "--output", "out", "--resume")
    assert call(classify.main, *go_on, "--input", "in").code == 0
    Path("out/b.csv").unlink()
    ended = call(classify.main, *go_on, "--input", "in/a.csv", "--format", "csv")
    assert ended.code == 0 and "since they are gone: b.csv" in ended.out, ended.err


def test_one_unsure_post_in_the_terminal_is_said_to_have_no_label(world: World):
    ended = call(classify.main, *words(world, "--text", "close the border now", "--abstain", "0.999"))
    assert ended.code == 0 and "no label: 0." in ended.out and "below --abstain 0.999" in ended.out


def test_a_folder_is_not_gone_on_with_where_input_or_run_have_changed(world: World, tmp_path):
    path = table(tmp_path / "in" / "a.csv", post_rows(count=4))
    table(tmp_path / "in" / "b.csv", post_rows(start=9, count=4))
    go_on = words(world, "--input", "in", "--output", "out", "--resume")
    assert call(classify.main, *go_on).code == 0 and call(classify.main, *go_on).code == 0
    refused(classify.main, *go_on, "--with-texts", says=("out/a.csv", "another --with-texts"))
    refused(classify.main, *go_on, "--abstain", "0.3", says=("out/a.csv", "another --abstain"))
    refused(classify.main, *go_on, "--dtype", "bfloat16", says=("out/a.csv", "another dtype"))
    refused(classify.main, *go_on, "--language-column", "tongue", "--quote", "none",
            says=("out/a.csv", "another --language-column, --quote; "))
    Path("out/report.html").unlink()
    ended = call(classify.main, *go_on, "--dry-run")
    assert ended.code == 0 and not Path("out/report.html").exists(), ended.err
    whole = path.read_bytes()
    path.write_bytes(whole + b"z,more,en,\r\n")
    refused(classify.main, *go_on, says=("out/a.csv was made from another input", "--overwrite"))
    path.write_bytes(whole)
    Path("out/a.csv").write_bytes(b"")
    refused(classify.main, *go_on, says="has changed since it was made")
    Path("out/manifest.json").write_text("[]")
    refused(classify.main, *go_on, says="is no manifest")
    Path("out/manifest.json").unlink()
    refused(classify.main, *go_on, says="exists")
    refused(classify.main, *go_on, "--overwrite", says="--overwrite and --resume: the one starts anew")
    ended = call(classify.main, *go_on[:-1], "--overwrite")
    assert ended.code == 0 and go_on[-1] == "--resume", ended.err


def test_the_output_of_one_folder_is_no_posts_and_a_dry_run_writes_nothing(world: World, tmp_path):
    table(tmp_path / "in" / "a.csv", post_rows(count=30))
    before = set(tmp_path.rglob("*"))
    ended = call(classify.main, *words(world, "--input", "in", "--output", "out", "--dry-run", "--api-seconds", "2"))
    assert ended.code == 0 and set(tmp_path.rglob("*")) == before, ended.err
    for said in ("60 posts with text", "time here", "GPT-4o", "at 2 s a post", "few enough to label all"):
        assert said in ended.out, said
    ended = call(classify.main, *words(world, "--input", "in/a.csv", "--output", "a.csv", "--progress-json", "p.json",
                                       "--report", "page.html"))
    assert ended.code == 0, ended.err
    said = json.loads(Path("p.json").read_text())
    assert said["done"] == said["total"] == 60 and said["share_of_product_limit"] > 0 and not said["joules"]
    assert sum(said["labels"].values()) == pytest.approx(1) and "What was labelled" in Path("page.html").read_text()
    twice = post_rows(count=3) + [row | {"id": f"again {row['id']}"} for row in post_rows(count=3)]
    jsonl(tmp_path / "twice.jsonl", [*twice, {"id": "long", "text": "word " * 20_000}])
    ended = call(classify.main, *words(world, "--input", "twice.jsonl", "--output", "c.csv", "--report", "one.html"))
    page = Path("one.html").read_text(encoding="utf-8")
    dry = call(classify.main, *words(world, "--input", "twice.jsonl", "--output", "d.csv", "--dry-run")).out
    assert "13 posts with text" in dry and "6 posts come again and are computed once" in dry and "e+0" not in dry
    assert "6 posts had come before and were not computed again" in page and "1 post too long for the prompt" in page
