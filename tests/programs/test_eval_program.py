"""eval.py and classify.py as programs on one small run: files, figures, order, and a base or prompt that is another.

Deliberate break: in classify.py fill `probabilities[: len(filled)]` instead of `probabilities[filled]` (an empty post
shifts all labels behind it), or in inference/run.py return from `open_model` before the hashes are compared.
"""

import csv
import gzip
import json
import re
import shutil

import pytest
import torch

from baselines.beside import FILE
from data.codebook import load_codebook
from data.prompt import Prompt
from inference.evaluation import OURS
from loading import load_model
from model.tokenizer import load_tokenizer
from tests.small import LABELS, here, posts, run, write_base, write_jsonl

KEYS = {"schema", "n", "accuracy", "accuracy_ci", "balanced_accuracy", "balanced_accuracy_ci", "macro_f1",
        "macro_f1_ci", "weighted_f1", "weighted_f1_ci", "topic", "stance", "by_language", "seen", "unseen", "by",
        "confusion", "dropped"}
KNOWN = 4  # test posts whose text was trained on
SECRET = "zyxwordthatonlypostshold"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A base, a run on English and Spanish, and a test file in three languages."""
    folder = tmp_path_factory.mktemp("eval")
    write_base(folder / "tiny")
    train = posts(48, 1, ("en", "es"))
    write_jsonl(folder / "train.jsonl", train)
    test = posts(60, 2, author=lambda number: f"a{number % 7}", year=lambda number: str(2020 + number % 2))
    for number in range(KNOWN):  # the second half of them only after normalising
        text = train[number]["text"]
        test[3 * number] |= {"text": text if number < 2 else f"@someone {text.upper()}", "language": "en"}
    test[11]["text"] += f" {SECRET}"
    write_jsonl(folder / "test.jsonl", test)
    here("train.py", "--model", "tiny", "--data", "train.jsonl", "--out", "run", "--rank", "4", "--batch-size", "8",
         "--epochs", "3", "--learning-rate", "1e-2", "--validation", "0.2", "--threads", "1", cwd=folder)
    return folder


@pytest.fixture
def fresh(place, tmp_path):
    """A copy of it all, for tests that change something."""
    return shutil.copytree(place, tmp_path / "all")


@pytest.fixture(scope="module")
def scored(place):
    words = ("--run", "run", "--data", "test.jsonl", "--out", "out", "--draws", "50")
    return place / "out", here("eval.py", *words, cwd=place)


def read(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def metrics(folder) -> dict:
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))


def evaluate(folder, *words, code=0) -> str:
    return here("eval.py", "--draws", "20", *words, cwd=folder, code=code)


def check_page(path) -> str:
    """A page that asks nobody for anything."""
    page = path.read_text(encoding="utf-8")
    assert not re.search(r"<(script|link|img|iframe|object)|@import|url\(\s*['\"]?(?!#)", page)
    tags = " ".join(re.findall(r"<[a-zA-Z][^>]*>", page))  # an address between tags is words to read
    assert set(re.findall(r"https?://[^\s\"']+", tags)) <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    return page


def test_the_folder_and_the_documented_keys(scored):
    assert {path.name for path in scored[0].iterdir()} == {"metrics.json", "predictions.jsonl", "baseline.jsonl",
                                                           "report.html"}
    found = metrics(scored[0])
    assert set(found) >= KEYS and found["schema"] == 1
    assert set(found["by_language"]) == {"en", "es", "pl"}
    for cell in found["by_language"].values():
        assert {"n", "accuracy", "macro_f1", "topic", "stance", "confusion"} <= set(cell)
    assert found["seen"]["languages"] == ["en", "es"] and found["unseen"]["languages"] == ["pl"]
    assert found["n"] == 60 - KNOWN == found["seen"]["n"] + found["unseen"]["n"]
    assert found["topic"].keys() >= {"accuracy", "recall", "specificity", "balanced_accuracy", "macro_f1"}
    assert found["stance"].keys() >= {"end_to_end", "given_detection", "conditional"}


def test_posts_that_were_trained_on_are_dropped_and_both_figures_are_there(scored, place):
    found = metrics(scored[0])
    assert found["dropped"]["rows"] == KNOWN and found["dropped"]["reasons"] == {"text_was_trained_on": KNOWN}
    assert found["dropped"]["all_rows"]["n"] == 60 and 0 <= found["dropped"]["all_rows"]["accuracy"] <= 1
    assert (found["checks"]["in_training_exact"], found["checks"]["in_training_same"]) == (2, KNOWN)
    gone = {id for id, _ in found["checks"]["dropped"]}
    lines = read(scored[0] / "predictions.jsonl")
    assert len(lines) == 60 and len(gone) == KNOWN  # every row is predicted; the figures leave those out
    right = [line["label"] == line["predicted"] for line in lines if line["id"] not in gone]
    assert found["accuracy"] == pytest.approx(sum(right) / len(right))
    every = [line["label"] == line["predicted"] for line in lines]
    assert found["dropped"]["all_rows"]["accuracy"] == pytest.approx(sum(every) / 60)


@pytest.mark.parametrize("rule, rows", [("none", 60), ("exact", 58)])
def test_drop_known(fresh, rule, rows):
    evaluate(fresh, "--run", "run", "--data", "test.jsonl", "--out", rule, "--drop-known", rule)
    found = metrics(fresh / rule)
    assert found["n"] == rows and found["dropped"]["rows"] == 60 - rows and found["checks"]["in_training_same"] == KNOWN


def test_predictions_are_those_of_the_model_row_by_row(scored, place):
    model = load_model(place / "tiny", quantize="none", dtype=torch.float32, adapter=place / "run" / "adapter")
    prompt = Prompt(load_codebook(), load_tokenizer(place / "tiny"), "instruction-first", 512)
    lines, given = read(scored[0] / "predictions.jsonl"), read(place / "test.jsonl")
    assert [(line["id"], line["label"], line["language"]) for line in lines] == [
        (row["id"], row["label"], row["language"]) for row in given]
    for line, row in list(zip(lines, given, strict=True))[::6]:
        with torch.no_grad():
            logits = model(torch.tensor([prompt.encode(row["text"]).ids]))[0, -1, prompt.label_ids]
        expected = dict(zip(LABELS, logits.softmax(-1).tolist(), strict=True))
        assert line["probabilities"] == pytest.approx(expected, abs=1e-5)
        assert line["predicted"] == max(expected, key=expected.get)


def test_no_text_unless_asked_and_no_request_to_anywhere(scored, fresh):
    assert SECRET not in check_page(scored[0] / "report.html")
    check_page(fresh / "run" / "report.html")
    for path in [*scored[0].iterdir(), *(path for path in (fresh / "run").rglob("*") if path.is_file())]:
        assert SECRET.encode() not in path.read_bytes() and b"frontera puerta" not in path.read_bytes(), path
    evaluate(fresh, "--run", "run", "--data", "test.jsonl", "--with-texts")
    asked = fresh / "run" / "eval-test"  # where it goes without --out
    assert SECRET in check_page(asked / "report.html") and SECRET in (asked / "predictions.jsonl").read_text()


def test_scoring_twice_is_counted_and_said(fresh):
    words = ("--run", "run", "--out", "out")
    before = len(json.loads((fresh / "run" / "run.json").read_text())["scored"])
    evaluate(fresh, *words, "--data", "train.jsonl", "--drop-known", "none")
    evaluate(fresh, *words, "--data", "test.jsonl", "train.jsonl", "--drop-known", "none")
    scored = json.loads((fresh / "run" / "run.json").read_text())["scored"][before:]
    assert [entry["data"] for entry in scored] == ["train.jsonl", "test.jsonl", "train.jsonl"]
    assert scored[0]["data_sha256"] == scored[2]["data_sha256"] != scored[1]["data_sha256"]
    assert [entry["n"] for entry in scored] == [48, 108, 108]
    metrics = json.loads((fresh / "out" / "metrics.json").read_text())
    assert scored[2]["interval"] == metrics["accuracy_ci"]  # which the glass shows
    page = (fresh / "out" / "report.html").read_text()
    assert "this file was scored 2 times with this run" in page


def test_a_base_that_moved_and_one_that_is_another(fresh):
    shutil.move(fresh / "tiny", fresh / "elsewhere")
    words = ("--run", "run", "--data", "test.jsonl", "--out", "moved")
    assert "tiny is not there; --model says where it is now" in evaluate(fresh, *words, code=2)
    evaluate(fresh, *words, "--model", "elsewhere")
    assert (fresh / "moved" / "metrics.json").exists()
    for name in ("model.safetensors", "config.json"):
        path = fresh / "elsewhere" / name
        old = path.read_bytes()
        path.write_bytes(old[:-1] + bytes([old[-1] ^ 1]) if name.startswith("model") else old + b" ")
        for program in (("eval.py", *words), ("classify.py", "--run", "run", "--input", "test.jsonl")):
            message = here(*program, "--model", "elsewhere", cwd=fresh, code=2)
            assert f"{name}: is not the file that run was fine-tuned on" in message
        path.write_bytes(old)


def test_another_prompt_is_refused(fresh):
    path = fresh / "tiny" / "tokenizer.model"
    path.write_bytes(path.read_bytes() + b"\x1a\x00")  # one empty field more: the same pieces, other bytes
    message = evaluate(fresh, "--run", "run", "--data", "test.jsonl", code=2)
    assert "the run was made with another prompt" in message and "tokenizer" in message
    path.write_bytes(path.read_bytes()[:-2])
    told = json.loads((fresh / "run" / "run.json").read_text())
    for key, value in (("probe", "0" * 64), ("label_ids", [1, 2, 3, 4])):
        changed = told | {"prompt": told["prompt"] | {key: value}}
        (fresh / "run" / "run.json").write_text(json.dumps(changed))
        assert f"another prompt: {key}" in evaluate(fresh, "--run", "run", "--data", "test.jsonl", code=2)
    assert not (fresh / "run" / "eval-test").exists()


def test_languages_of_a_run_do_not_move_the_cursor(fresh):
    told = json.loads((fresh / "run" / "run.json").read_text())
    (fresh / "run" / "run.json").write_text(json.dumps(told | {"languages": ["en", "x\x1b[2J\u202e"]}))
    said = evaluate(fresh, "--run", "run", "--data", "test.jsonl")
    assert not {"\x1b", "\u202e"} & set(said) and "fine-tuned on en, x\\x1b[2J\\u202e" in said


@pytest.mark.parametrize("joined", [False, True])
def test_labels_made_elsewhere(fresh, joined):
    rows = posts(24, 9)
    given = [row | {"predicted": LABELS[number % 4] if number % 5 else "nonsense"} for number, row in enumerate(rows)]
    words = ["--predictions", "given.jsonl", "--out", "given", "--seen-languages", "en"]
    if joined:
        write_jsonl(fresh / "gold.jsonl", rows)
        given = [{key: row[key] for key in ("id", "language", "predicted")} for row in reversed(given)]
        given.append({"id": "more", "language": "en", "predicted": LABELS[0]})
        words += ["--data", "gold.jsonl"]
    write_jsonl(fresh / "given.jsonl", given)
    said = evaluate(fresh, *words)
    assert ("1 predictions belong to no post" in said) == joined
    found = metrics(fresh / "given")
    right = [number % 5 != 0 and LABELS[number % 4] == row["label"] for number, row in enumerate(rows)]
    assert found["n"] == 24 and found["accuracy"] == pytest.approx(sum(right) / 24)
    assert found["seen"]["languages"] == ["en"] and found["stance"]["conditional"] is None
    assert set(found["checks"]) == {"repeats"} and found["dropped"]["rows"] == 0
    lines = read(fresh / "given" / "predictions.jsonl")
    assert [line["id"] for line in lines] == [row["id"] for row in rows] and "probabilities" not in lines[0]
    check_page(fresh / "given" / "report.html")


def labels_of(path) -> list[dict]:
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8", newline="") as handle:
        if ".jsonl" in path.name:
            return [json.loads(line) for line in handle]
        return list(csv.DictReader(handle, delimiter="\t" if ".tsv" in path.name else ","))


def test_classify_keeps_order_and_empty_rows_in_every_format(place, scored):
    """The same posts as csv, tsv, jsonl and gzipped, some of them empty, give the probabilities that eval.py gave."""
    rows = read(place / "test.jsonl")[:20]
    expected = {line["id"]: line for line in read(scored[0] / "predictions.jsonl")}
    for number in (0, 7, 8, 19):
        rows.insert(number, {"id": f"empty{number}", "text": " " if number else "", "language": "es"})
    fields = ["id", "text", "language"]
    ways = {"in.jsonl": "a.csv", "in.csv": "b.jsonl.gz", "in.tsv.gz": "c.tsv", "in.jsonl.gz": "d.jsonl"}
    for name, out in ways.items():
        opened = gzip.open if name.endswith(".gz") else open
        with opened(place / name, "wt", encoding="utf-8", newline="") as handle:
            if ".jsonl" in name:
                handle.writelines(json.dumps({key: row[key] for key in fields}) + "\n" for row in rows)
            else:
                writer = csv.DictWriter(handle, fields, delimiter="\t" if ".tsv" in name else ",",
                                        extrasaction="ignore")
                writer.writeheader()
                writer.writerows(rows)
        said = here("classify.py", "--run", "run", "--input", name, "--output", out, cwd=place)
        assert "20 of 24 posts labelled" in said
        found = labels_of(place / out)
        assert [line["id"] for line in found] == [row["id"] for row in rows]
        for line in found:
            assert list(line) == ["id", "language", "predicted", "probability", "error",
                                  *(f"p_{label}" for label in LABELS), "p_related"]
            if line["id"].startswith("empty"):
                assert line["error"] == "has no text"
                assert all(value in (None, "") for key, value in line.items() if key not in ("id", "language", "error"))
                continue
            truth = expected[line["id"]]
            assert line["predicted"] == truth["predicted"]
            for label in LABELS:
                assert float(line[f"p_{label}"]) == pytest.approx(truth["probabilities"][label], abs=1e-5)
            related = sum(truth["probabilities"][label] for label in load_codebook().related)
            assert float(line["p_related"]) == pytest.approx(related, abs=1e-5)
            assert float(line["probability"]) == max(float(line[f"p_{label}"]) for label in LABELS)


def test_classify_refuses_to_write_over_things(fresh):
    words = ("classify.py", "--run", "run", "--input", "test.jsonl")
    assert "is the input file" in here(*words, "--output", "test.jsonl", cwd=fresh, code=2)
    assert "exists; choose another name" in here(*words, "--output", "train.jsonl", cwd=fresh, code=2)
    assert "has no known format" in here(*words, "--output", "labels.xlsx", cwd=fresh, code=2)
    here(*words, "--output", "train.jsonl", "--overwrite", "--with-texts", cwd=fresh)
    assert [line["text"] for line in read(fresh / "train.jsonl")] == [row["text"] for row in read(fresh / "test.jsonl")]
    run("classify.py", "--run", "run", "--input", "test.jsonl", cwd=fresh)
    assert len(read(fresh / "run" / "labels-test.jsonl")) == 60


def test_a_folder_that_holds_something_else_is_left_alone(fresh):
    (fresh / "mine").mkdir()
    (fresh / "mine" / "notes.txt").write_text("dear diary")
    words = ("--run", "run", "--data", "test.jsonl", "--out", "mine")
    assert "holds something that is not an evaluation" in evaluate(fresh, *words, code=2)
    assert [path.name for path in (fresh / "mine").iterdir()] == ["notes.txt"]
    assert FILE in OURS
    (fresh / "mine" / "notes.txt").unlink()
    (fresh / "mine" / "metrics.json").write_text('{"loss": 1}')  # as other programs call theirs
    assert "holds something that is not an evaluation" in evaluate(fresh, *words, code=2)
    assert (fresh / "mine" / "metrics.json").read_text() == '{"loss": 1}'
    here("eval.py", "--run", "run", "--data", "test.jsonl", "--draws", "0", cwd=fresh)
    there = fresh / "run" / "eval-test"
    (there / "chapter.tex").write_text("words")  # a note beside our own files
    assert "not an evaluation (chapter.tex)" in evaluate(fresh, *words[:4], code=2)
    (there / "chapter.tex").unlink()
    (fresh / "b").mkdir()
    shutil.copy(fresh / "test.jsonl", fresh / "b" / "test.jsonl")
    assert "holds the evaluation of test.jsonl" in evaluate(fresh, "--run", "run", "--data", "b/test.jsonl", code=2)
    shutil.rmtree(fresh / "run" / "adapter")
    assert "has no adapter/" in evaluate(fresh, *words[:4], code=2)
