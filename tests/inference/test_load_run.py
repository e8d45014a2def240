"""A run in a notebook: five lines from another folder, the bits of classify.py, pandas frames, and what is refused.

Deliberate breaks: in inference/loaded.py do not mend the texts (classify.py's probabilities differ), make `label_frame`
return a frame with an index of its own, or import pandas at the top.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import classify
import train
from common.errors import UserError
from common.files import ROOT
from common.terminal import progress
from data.codebook import Codebook, load_codebook
from inference import Label, load_run, loaded
from inference.decide import as_labels
from inference.run import SHIPPED_RUN, finished_run
from tests.small import posts, write_base, write_jsonl

BOOK = load_codebook()
TEXTS = ["I came here as a child.", "close\r\nthe border", " \u200b\n", "half \ud83d and \0", "", "عبرنا النهر"]
NOTEBOOK = """
import sys
sys.modules["pandas"] = None  # as if it were not installed
sys.path.insert(0, {root!r})
from inference import load_run
heavy = {{"matplotlib", "transformers", "peft", "bitsandbytes", "scipy", "tokenizers"}} & set(sys.modules)
run = load_run()
label, empty = run.label(["I came here as a child.", " "], languages=["en", None])
print(sorted(heavy), label.label in run.codebook.labels, round(sum(label.probabilities.values()), 4), empty.label)
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with a base, some posts, and a run in runs/mine."""
    folder = tmp_path_factory.mktemp("trained")
    base, data = write_base(folder / "base"), write_jsonl(folder / "posts.jsonl", posts(24, 1))
    train.main(["--model", str(base), "--data", str(data), "--out", str(folder / "runs" / "mine"), "--max-steps", "2",
                "--batch-size", "4", "--rank", "2", "--dtype", "float32"])
    return folder


@pytest.fixture
def run(trained, monkeypatch):
    monkeypatch.chdir(trained)
    return load_run("runs/mine", device="cpu")  # where bits do not depend on what else is labelled


def test_five_lines_from_another_folder(tmp_path):
    """In a folder that has no run yet: the shipped one is copied there, and a line says so."""
    code = NOTEBOOK.format(root=str(ROOT))
    child = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
    copied, opened, answer = child.stdout.splitlines()
    assert copied == "runs/shipped is a copy of the run that comes with the project"
    assert opened.startswith("run runs/shipped: ") and answer == "[] True 1.0 None"
    assert (tmp_path / "runs" / "shipped" / "run.json").exists()


def test_a_copy_of_a_former_shipped_run_is_left_alone(tmp_path, monkeypatch, capsys):
    """A new version ships another run: the copy of the old one stays as it is, and nobody is led to it."""
    monkeypatch.chdir(tmp_path)
    former = tmp_path / "runs" / "shipped"
    shutil.copytree(SHIPPED_RUN, former)
    facts = json.loads((former / "run.json").read_text()) | {"run_hash": "0" * 64}
    (former / "run.json").write_text(json.dumps(facts))
    for named in (None, str(SHIPPED_RUN)):
        assert finished_run(named).path == Path("runs/shipped-2")
        assert capsys.readouterr().out == "runs/shipped-2 is a copy of the run that comes with the project\n"
    assert finished_run(None).path == Path("runs/shipped-2") and capsys.readouterr().out == ""
    assert json.loads((former / "run.json").read_text()) == facts
    assert finished_run("runs/shipped").path == Path("runs/shipped")  # by name it can still be had


def test_the_same_bits_as_classify(run, tmp_path, monkeypatch):
    """Before rounding, whatever else is labelled with a text; and after it, in the file."""
    rows = [{"text": text} for text in TEXTS] + posts(30, 2)
    path = tmp_path / "odd.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    kept = []
    monkeypatch.setattr(classify, "as_labels", lambda *args: kept.extend(as_labels(*args)) or kept[-len(args[0]) :])
    output = tmp_path / "labels.jsonl"
    classify.main(["--run", "runs/mine", "--input", str(path), "--output", str(output), "--device", "cpu"])
    found = run.label([row["text"] for row in rows])
    assert found == kept and len(found) == len(rows)
    assert [run.label([row["text"]])[0] for row in rows] == found
    written = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    for label, line in zip(found, written, strict=True):
        assert line["predicted"] == label.label
        if label.label is not None:
            assert line["p_related"] == round(label.related, 6)
            assert [line[f"p_{name}"] for name in BOOK.labels] == [round(p, 6) for p in label.probabilities.values()]


def test_texts_without_anything_to_read_have_no_figures(run):
    first, *empty = run.label(["a child", "", " \t\n", "\u200b\ufeff"])
    assert first.label in BOOK.labels and empty == [Label(None, {}, None)] * 3
    assert run.label([]) == [] and run.label([""]) == [Label(None, {}, None)]


def test_any_list_of_strings_will_do(run):
    expected = run.label(["one", "two words"])
    for texts in (("one", "two words"), np.array(["one", "two words"]), iter(["one", "two words"])):
        assert run.label(texts) == expected


def test_languages_are_reduced_and_change_no_probability(run):
    found = run.label(["one"] * 5, ["pt-BR", "English", "in", None, "xx-none"])
    assert [label.language for label in found] == ["pt", "en", "id", "und", "xx-none"]
    assert all(label.probabilities == found[0].probabilities for label in found)
    assert run.label(["one"])[0].language is None


@pytest.mark.parametrize(("texts", "languages", "says"), [
    ("one text", None, "texts: is of type str; give a list of strings"),
    (b"bytes", None, "texts: is of type bytes"),
    ({"a": "b"}, None, "texts: is of type dict"),
    ({"a", "b"}, None, "texts: is of type set"),
    (7, None, "texts: is of type int"),
    (["one", 12], None, r"texts\[1\]: '12' is of type int, not a string"),
    (["one", None], None, r"texts\[1\]: is missing \(None\), not a string"),
    ([float("nan")], None, r"texts\[0\]: is missing \(nan\), not a string"),
    (["one", ["two"]], None, r"texts\[1\]: .* is of type list"),
    (["one"], "en", "languages: is of type str; give a list of strings"),
    (["one"], ["en", "es"], "languages: has 2 entries for 1 texts; give one for each text"),
    (["one"], [4], r"languages\[0\]: '4' is of type int"),
])  # fmt: skip
def test_arguments_that_are_refused(run, texts, languages, says):
    with pytest.raises(UserError, match=says) as error:
        run.label(texts, languages)
    assert "\n" not in str(error.value)


def test_what_was_changed_is_said(run, capsys):
    run.label(["plain"])
    assert capsys.readouterr().out == ""
    run.label(["half \ud83d", "long " * 2000, "plain"])
    assert capsys.readouterr().out == (
        "1 of 3 texts had NUL or half characters, replaced by U+FFFD\n"
        f"1 of 3 texts were too long and cut: with their prompt, more than {run.prompt.max_tokens} tokens\n")


def test_memory_that_runs_out_is_said_once_and_remembered(run, capsys, monkeypatch):
    texts, whole = [row["text"] for row in posts(60, 3)], run.model.answer_hidden
    expected = run.label(texts)

    def answers(batch):
        if len(batch.tokens) > 600:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(batch)

    monkeypatch.setattr(run.model, "answer_hidden", answers)
    assert run.label(texts) == expected
    assert capsys.readouterr().out.endswith("memory ran out, so labelling went on in smaller batches\n")
    assert run.label(texts) == expected and capsys.readouterr().out == ""


def test_a_bar_counts_the_posts_that_have_text(run, monkeypatch):
    seen = []

    class Bar:
        def __init__(self, total, *args, **kwargs):
            self.total, self.count = total, 0
            seen.append(self)

        def update(self, count):
            self.count += count

        def __enter__(self):
            return self

        def __exit__(self, *error):
            return None

    monkeypatch.setattr(loaded, "progress", Bar)
    run.label(["one", " ", "two"])
    run.label(["three"])
    assert [(bar.total, bar.count) for bar in seen] == [(2, 2), (1, 1)]


def test_a_notebook_sees_the_bar_although_it_is_no_terminal(monkeypatch):
    class Stream:
        def isatty(self):
            return False

        def write(self, text):
            return len(text)

        flush = write

    monkeypatch.setattr(sys, "stderr", Stream())
    assert progress(3, "post").disable
    Stream.__module__, Stream.flush = "ipykernel.iostream", lambda self: None
    with progress(3, "post") as bar:
        assert not bar.disable


def test_which_run_and_how_it_is_opened(run, trained, capsys, monkeypatch):
    expected = run.label(["one"])
    assert repr(run) == f"LoadedRun(runs/mine: {', '.join(BOOK.labels)}; torch.float32, cpu)"
    capsys.readouterr()
    assert load_run(device="cpu", dtype=None).label(["one"]) == expected  # the newest
    assert capsys.readouterr().out.startswith("run runs/mine: ")
    shutil.copytree(trained / "base", trained / "moved", dirs_exist_ok=True)
    other = load_run(Path("runs/mine"), model=trained / "moved", device=torch.device("cpu"), dtype=torch.float64,
                     cache=trained / "cache")
    assert other.model.dtype == torch.float64
    assert other.label(["one"])[0].label == expected[0].label
    assert list(other.label(["one"])[0].probabilities.values()) == pytest.approx(
        list(expected[0].probabilities.values()), abs=1e-5)


def test_runs_that_are_refused(run, trained, tmp_path):
    broken = shutil.copytree(trained / "runs" / "mine", tmp_path / "broken")
    facts = json.loads((broken / "run.json").read_text())
    (broken / "run.json").write_text(json.dumps(facts | {"finished": False}))
    for arguments, says in [
        ({"path": "none"}, "none: there is no such run folder"), ({"path": ""}, "path: '' names no folder"),
        ({"path": 3}, "path: 3 names no folder"), ({"model": ""}, "model: '' names no folder"),
        ({"path": broken}, "stopped early"), ({"model": "none"}, "the base model none is not there"),
        ({"device": "gpu"}, "there is no such device"), ({"dtype": "float8"}, "is not one of auto, fast, float32"),
        ({"model": str(write_base(tmp_path / "other", seed=5))}, "model.safetensors"),
    ]:  # fmt: skip
        with pytest.raises(UserError, match=says):
            load_run(**({"path": "runs/mine"} | arguments))


@pytest.fixture
def pandas():
    return pytest.importorskip("pandas")


def tweets(pandas):
    texts = ["one", " ", "close the border", "two words"]
    return pandas.DataFrame({"n": [1, 2, 3, 4], "tweet": texts}, index=pandas.Index([7, 3, 7, 0], name="row"))


def test_a_frame_keeps_its_index_and_order(run, pandas):
    frame = tweets(pandas)
    before = frame.copy()
    found, labels = run.label_frame(frame, text="tweet"), run.label(frame["tweet"])
    assert list(found.columns) == ["label", "probability", "related", *(f"p_{label}" for label in BOOK.labels)]
    assert found.index.equals(frame.index) and found.index.name == "row" and frame.equals(before)
    assert found.isna().all(axis=1).tolist() == [False, True, False, False]
    for place in (0, 2, 3):
        row, label = found.iloc[place], labels[place]
        assert (row["label"], row["probability"], row["related"]) == (label.label, label.probability, label.related)
        assert [row[f"p_{name}"] for name in BOOK.labels] == list(label.probabilities.values())
    assert {str(kind) for kind in found.dtypes.iloc[1:]} == {"float64"}
    joined = pandas.concat([frame, found], axis=1)
    assert joined["n"].tolist() == [1, 2, 3, 4] and len(joined) == 4


def test_frames_without_rows_or_without_a_topic(run, pandas, monkeypatch):
    frame = tweets(pandas)
    assert run.label_frame(frame[:0], text="tweet").shape == (0, 3 + len(BOOK.labels))
    assert run.label_frame(frame[1:2], text="tweet").isna().all(axis=None)
    plain = Codebook.from_dict({"role": "r", "question": "q", "labels": list(BOOK.labels)})
    monkeypatch.setattr(run, "codebook", plain)
    assert list(run.label_frame(frame, text="tweet").columns) == [
        "label", "probability", *(f"p_{label}" for label in BOOK.labels)]
    assert run.label(["one"])[0].related is None


def test_frames_that_are_refused(run, pandas):
    frame = tweets(pandas)
    for given, text, says in [
        (frame, "twet", r"frame: has no column 'twet'; it has 'n', 'tweet'; .*did you mean 'tweet'"),
        (frame, "n", r"frame.iloc\[0\]\['n'\]: '1' is of type int, not a string"),
        (frame.assign(tweet=["one", None, "two", "x"]), "tweet", r"iloc\[1\]\['tweet'\]: is missing .*dropna"),
        (frame.assign(tweet=pandas.array(["a", "b", pandas.NA, "c"], dtype="string")), "tweet", r"iloc\[2\].* missing"),
        (pandas.concat([frame, frame], axis=1), "tweet", "frame: has 2 columns named 'tweet'; rename all but one"),
        (frame["tweet"], "tweet", "frame: is of type Series; give a pandas DataFrame, or a list of texts to run.label"),
        (["one"], "tweet", "frame: is of type list; give a pandas DataFrame"),
    ]:
        with pytest.raises(UserError, match=says) as error:
            run.label_frame(given, text=text)
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="texts: is a frame"):
        run.label(frame)
