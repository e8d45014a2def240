"""benchmarks.curves: what cannot be compared is refused before anything is trained; the scores are those of eval.py.

Deliberate breaks: take `TrainOptions().columns()` for the run's own; drop no post in `posts_of`; write the JSON file
after scoring alone; take `options.steps` for the number of losses.
"""

import json
import shutil

import pytest

import benchmarks.curves as curves
from common.errors import UserError
from common.files import write_json
from tests.small import here, needs, posts, write_base, write_jsonl

TRAIN = ("train.py", "--model", "tiny", "--data", "train.jsonl", "--rank", "3", "--batch-size", "8", "--micro-tokens",
         "500", "--learning-rate", "3e-3", "--threads", "1", "--epochs", "2", "--validation", "0", "--quantize", "none",
         "--dtype", "float32", "--text-column", "body", "--rslora", "--targets", "q_proj,v_proj")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a run of six steps, its posts' texts in a column of their own; four test posts were trained on."""
    folder = tmp_path_factory.mktemp("curves")
    renamed = lambda rows: [{"body" if key == "text" else key: row[key] for key in row} for row in rows]  # noqa: E731
    write_base(folder / "tiny")
    write_jsonl(folder / "train.jsonl", renamed(posts(24, 1)))
    write_jsonl(folder / "test.jsonl", renamed(posts(20, 2) + posts(4, 1)))
    here(*TRAIN, "--out", "run", cwd=folder)
    return folder


@pytest.fixture
def untrained(monkeypatch):
    """Peers that are there, and whose training is a defect of the test."""
    needs("transformers", "peft")
    monkeypatch.setattr(curves, "train_theirs", lambda *_: pytest.fail("trained before it was refused"))


def changed(place, to, **facts):
    """A copy of the run with other facts."""
    shutil.copytree(place / "run", to / "run")
    write_json(to / "run" / "run.json", json.loads((place / "run" / "run.json").read_text()) | facts)
    return to / "run"


def test_what_is_wrong_is_refused_before_training(place, untrained):
    for words, says in ((("--data", "away.jsonl"), "away.jsonl: there is no such file"),
                        (("--data", "train.jsonl"), "all 24 test posts were trained on"),
                        (("--figure", "a.jpg"), "--figure a.jpg: has no known format"),
                        (("--figure", "tiny/config.json/a.png"), "is a file, so nothing can be put into it"),
                        (("--data", "test.jsonl", "--json", "test.jsonl"), "is the file of --data, too"),
                        (("--device", "tpu"), "--device tpu: ")):
        assert says in here("benchmarks.curves", "--run", "run", *words, cwd=place, code=2), words


def test_a_run_that_is_not_whole_is_refused(place, untrained, tmp_path):
    run = changed(place, tmp_path, finished=False)
    assert "was stopped early" in here("benchmarks.curves", "--run", run, cwd=place, code=2)
    changed(place, tmp_path / "other")
    (tmp_path / "other" / "run" / "log.jsonl").write_text("")
    assert "does not hold each of the run's 6 steps" in here("benchmarks.curves", "--run", tmp_path / "other" / "run",
                                                             cwd=place, code=2)


def test_no_more_steps_than_the_run_has(place):
    run = curves.RunFolder.open(place / "run")
    whole = curves.losses_of(run, 0)
    assert len(whole) == 6 and curves.losses_of(run, 100) == whole and curves.losses_of(run, 2) == whole[:2]


@pytest.mark.slow  # importing the peers takes seconds
def test_curve_and_scores_are_those_of_the_run(place, monkeypatch):
    """In float32 both are the same model to rounding: its losses, and what eval.py reports of kept and of all posts."""
    needs("transformers", "peft")
    here("benchmarks.curves", "--run", "run", "--data", "test.jsonl", "--json", "curves.json", "--figure", "curves.png",
         "--steps", "100", cwd=place)
    found = json.loads((place / "curves.json").read_text())
    assert found["steps"] == 6 and found["theirs"] == pytest.approx(found["ours"], abs=1e-4)
    assert (place / "curves.png").read_bytes()[:4] == b"\x89PNG"
    here("eval.py", "--run", "run", "--data", "test.jsonl", "--out", "scored", "--draws", "0", "--threads", "1",
         cwd=place)
    metrics = json.loads((place / "scored" / "metrics.json").read_text())
    scores = found["scores"]
    assert scores["left_out"] == 4 and scores["kept"]["all"] == pytest.approx(curves.short(metrics))
    assert scores["kept"]["es"] == pytest.approx(curves.short(metrics["by_language"]["es"]))
    assert scores["all"]["all"]["n"] == 24
    assert scores["all"]["all"]["macro_f1"] == pytest.approx(metrics["dropped"]["all_rows"]["macro_f1"])

    def fails(*_):
        raise UserError("no labels")

    monkeypatch.setattr(curves, "score_theirs", fails)  # what was trained is there all the same
    here("benchmarks.curves", "--run", "run", "--data", "test.jsonl", "--json", "early.json", cwd=place, code=2)
    assert json.loads((place / "early.json").read_text())["theirs"] == found["theirs"]
