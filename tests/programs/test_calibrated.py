"""--validation leaves a calibration in the run, and classify.py --calibrated and --abstain use it.

Deliberate break: write `found.label` in `output_row` whatever --abstain says, or take the calibration of the last step.
"""

import json
from pathlib import Path

import numpy
import pytest

import classify
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
    sure = sorted(row["probability"] for row in plain)[30]
    some = labelled(run, "c.jsonl", "--abstain", sure)
    assert [row["predicted"] is None for row in some] == [row["probability"] < sure for row in plain]
    assert [row["probability"] for row in some] == [row["probability"] for row in plain]
    post = ["--run", run, "--threads", "1", "--text", "the border street"]
    assert call(classify.main, *post).out != call(classify.main, *post, "--calibrated").out


def test_a_run_without_a_calibration_says_so(run):
    path = run / "run.json"
    facts = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(facts | {"calibration": None}), encoding="utf-8")
    words = ["--run", run, "--input", run.parent / "posts.jsonl", "--output", "d.jsonl", "--calibrated"]
    refused(classify.main, *words, says=["--calibrated", "has no calibration", "--validation"])
    path.write_text(json.dumps(facts | {"calibration": {"scale": [1], "shift": [1]}}), encoding="utf-8")
    refused(classify.main, *words, "--threads", "1", says="calibration is not of 4 labels")
    path.write_text(json.dumps(facts), encoding="utf-8")
