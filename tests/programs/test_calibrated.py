"""--validation leaves a calibration in the run, and classify.py --calibrated and --abstain use it.

Deliberate break: write `found.label` in `output_row` whatever --abstain says, or take the calibration of the last step.
"""

import json
from itertools import pairwise
from pathlib import Path

import numpy
import pytest

import classify
import eval as evaluate
from finetune.run_folder import RunFolder
from stats.calibration import scaled
from tests.programs.hostile import call, in_an_empty_folder, refused  # noqa: F401
from tests.small import here, posts, write_base, write_jsonl


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("calibrated")
    write_base(folder / "base")
    data = write_jsonl(folder / "posts.jsonl", posts(60, 1))
    here("train.py", "--model", folder / "base", "--data", data, "--out", folder / "run", "--rank", "2", "--batch-size",
         "8", "--epochs", "2", "--learning-rate", "1e-2", "--validation", "0.4", "--threads", "1", cwd=folder)
    return folder / "run"


def labelled(run, name, *more) -> list[dict]:
    ended = call(classify.main, "--run", run, "--input", run.parent / "posts.jsonl", "--output", name, "--threads", "1",
                 "--keep-columns", "none", *more)
    assert ended.code == 0, ended.err
    return [json.loads(line) for line in Path(name).read_text(encoding="utf-8").splitlines()]


def test_validation_posts_calibrate_the_run_and_its_labels(run):
    facts = RunFolder.open(run).facts
    found = facts["calibration"]
    assert found["method"] == "temperature" and found["n"] >= 20 and len(found["scale"]) == 4
    best = [line for line in RunFolder.open(run).read_log() if line["step"] == facts["best"]["step"]][-1]
    assert best["validation"]["calibration"] == found
    plain, mended = labelled(run, "a.jsonl"), labelled(run, "b.jsonl", "--calibrated")
    columns = [key for key in plain[0] if key.startswith("p_") and key != "p_related"]
    p = numpy.array([[row[key] for key in columns] for row in plain])
    q = numpy.array([[row[key] for key in columns] for row in mended])
    assert abs(scaled(p, found) - q).max() < 1e-4 < abs(p - q).max()
    assert [row["predicted"] for row in plain] == [row["predicted"] for row in mended]
    found = sorted(row["probability"] for row in plain)
    low, high = max(pairwise(found), key=lambda pair: pair[1] - pair[0])  # what is written is rounded
    sure = (low + high) / 2
    some = labelled(run, "c.jsonl", "--abstain", sure)
    assert [row["predicted"] is None for row in some] == [row["probability"] < sure for row in plain]
    assert [row["probability"] for row in some] == [row["probability"] for row in plain]
    post = ["--run", run, "--threads", "1", "--text", "the border street"]
    assert call(classify.main, *post).out != call(classify.main, *post, "--calibrated").out


def test_the_report_says_what_the_scaling_makes_of_the_test_posts(run):
    words = ["--run", run, "--data", run.parent / "posts.jsonl", "--drop-known", "none", "--out", "e", "--baseline",
             "none", "--threads", "1", "--draws", "50"]
    ended = call(evaluate.main, *words)
    assert ended.code == 0, ended.err
    metrics = json.loads(Path("e/metrics.json").read_text(encoding="utf-8"))
    calibration, found = RunFolder.open(run).facts["calibration"], metrics["scaled"]
    assert (found["method"], found["fitted"]) == ("temperature", calibration["n"])
    lines = [json.loads(line) for line in Path("e/predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    p = scaled(numpy.array([list(line["probabilities"].values()) for line in lines]), calibration)
    truth = numpy.array([[label == line["label"] for label in line["probabilities"]] for line in lines])
    assert found["brier"] == pytest.approx(((p - truth) ** 2).sum(1).mean(), abs=1e-4)
    assert found["accuracy"] == metrics["calibration"]["accuracy"]  # a temperature changes no label
    page = Path("e/report.html").read_text(encoding="utf-8")
    assert "All, scaled" in page and f"by temperature scaling, fitted on the run&#x27;s {calibration['n']}" in page


def test_a_run_without_a_calibration_says_so(run):
    path = run / "run.json"
    facts = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(facts | {"calibration": None}), encoding="utf-8")
    words = ["--run", run, "--input", run.parent / "posts.jsonl", "--output", "d.jsonl", "--calibrated"]
    refused(classify.main, *words, says=["--calibrated", "has no calibration", "--validation"])
    path.write_text(json.dumps(facts | {"calibration": {"scale": [1], "shift": [1]}}), encoding="utf-8")
    refused(classify.main, *words, "--threads", "1", says="calibration is not of 4 labels")
    refused(evaluate.main, "--run", run, "--data", run.parent / "posts.jsonl", "--drop-known", "none", "--out", "f",
            "--baseline", "none", "--threads", "1", says="calibration was changed by hand")
    assert not Path("f").exists()
    path.write_text(json.dumps(facts), encoding="utf-8")
