"""eval.py --baseline: what a simpler method says stands beside a run, in a file that reads like any predictions.

Deliberate break: let eval.py write the baseline's file with the model's labels, or ask for the encoder under
--baseline none; the first two tests turn red. Leave out `MOST`, and the third does.
"""
# ruff: noqa: F401, F811  (fixtures are imported by name and then named as arguments)

import json
import re

import pytest

import eval as evaluation
from baselines import beside
from tests.baselines.test_sentences import package
from tests.programs.hostile import call, refused


def test_eval_puts_the_encoder_beside_the_run(world, package, tmp_path):
    run, out = world.copy(world.run, tmp_path), tmp_path / "out"
    words = ("--run", run, "--data", world.test, "--draws", "50")
    ended = call(evaluation.main, *words, "--out", out)  # auto: it is installed
    assert ended.code == 0, ended.err
    metrics = json.loads((out / "metrics.json").read_text())
    told, accuracy = metrics["baseline"], metrics["baseline"]["cells"]["all"]["accuracy"]
    assert told["sentence"] in " ".join(ended.out.split()) and told["rows"] == 24
    assert accuracy["tuned"] == metrics["accuracy"]
    assert "Beside a sentence encoder" in (out / "report.html").read_text()
    lines = [json.loads(line) for line in (out / "baseline.jsonl").read_text().splitlines()]
    right = sum(line["label"] == line["predicted"] for line in lines)
    assert accuracy["baseline"] == pytest.approx(right / len(lines), abs=1e-9)
    assert call(evaluation.main, "--predictions", out / "baseline.jsonl", "--out", tmp_path / "again").code == 0
    assert json.loads((tmp_path / "again" / "metrics.json").read_text())["accuracy"] == accuracy["baseline"]
    assert call(evaluation.main, *words, "--out", out, "--baseline", "none").code == 0
    assert "baseline" not in json.loads((out / "metrics.json").read_text()) and not (out / "baseline.jsonl").exists()


def without_encoder(monkeypatch):
    from baselines import sentences

    monkeypatch.setattr(sentences.importlib.util, "find_spec", lambda name: None)


def test_a_regression_on_words_beside_the_run_where_there_is_no_encoder(world, package, tmp_path, monkeypatch):
    run, out = world.copy(world.run, tmp_path), tmp_path / "out"
    words = ("--run", run, "--data", world.test, "--draws", "50", "--out", out)
    with monkeypatch.context() as here:
        without_encoder(here)
        ended = call(evaluation.main, *words)
    told = json.loads((out / "metrics.json").read_text())["baseline"]
    assert "a logistic regression on words (TF-IDF), learnt from the same 24 posts" in told["sentence"]
    assert told["sentence"] in " ".join(ended.out.split()) and "encoder" not in told["sentence"]
    page = (out / "report.html").read_text()
    assert "Beside a regression on words" in page and "Beside a sentence encoder" not in page
    lines = [json.loads(line) for line in (out / "baseline.jsonl").read_text().splitlines()]
    right = sum(line["label"] == line["predicted"] for line in lines)
    assert told["cells"]["all"]["accuracy"]["baseline"] == pytest.approx(right / len(lines), abs=1e-9)
    refused(evaluation.main, *words, "--baseline", "tfidf", "--encoder", tmp_path,
            says="--encoder and --baseline tfidf")
    said = (out / "baseline.jsonl").read_bytes()
    assert call(evaluation.main, *words, "--baseline", "tfidf").code == 0  # also where an encoder is there
    assert (out / "baseline.jsonl").read_bytes() == said


def test_the_words_of_very_long_or_many_posts_are_counted_only_when_asked(world, tmp_path, monkeypatch):
    """A few thousand long posts take as much time and memory as many short ones, and test posts as much as others."""
    without_encoder(monkeypatch)
    asked = [json.loads(line)["text"] for line in world.test.read_text(encoding="utf-8").splitlines()]
    monkeypatch.setattr(beside, "MOST", sum(map(len, asked)))
    words = ("--run", world.copy(world.run, tmp_path), "--data", world.test, "--draws", "0")
    ended = call(evaluation.main, *words, "--out", tmp_path / "out")
    assert ended.code == 0, ended.err
    assert "ask for one with --baseline tfidf" in ended.out and not (tmp_path / "out" / "baseline.jsonl").exists()
    size, = re.findall(r"no baseline stands beside it: the training and test posts have ([\d,]+) char", ended.out)
    assert call(evaluation.main, *words, "--out", tmp_path / "2", "--baseline", "tfidf").code == 0
    monkeypatch.setattr(beside, "MOST", int(size.replace(",", "")))
    assert call(evaluation.main, *words, "--out", tmp_path / "3").code == 0
    assert (tmp_path / "2" / "baseline.jsonl").exists() and (tmp_path / "3" / "baseline.jsonl").exists()


def test_where_the_training_posts_have_changed_the_run_stands_alone_unless_asked(world, package, tmp_path):
    run = world.copy(world.run, tmp_path)
    words = ("--run", run, "--data", world.test, "--draws", "0")
    facts = json.loads((run / "run.json").read_text())
    name, = facts["hashes"]["data"]
    facts["hashes"]["data"][name] = "0" * 64
    (run / "run.json").write_text(json.dumps(facts))
    ended = call(evaluation.main, *words, "--out", tmp_path / "out")
    assert ended.code == 0 and "no baseline stands beside it: " in ended.out, ended.err
    assert "baseline" not in json.loads((tmp_path / "out" / "metrics.json").read_text())
    refused(evaluation.main, *words, "--baseline", "encoder", says="bytes that the run was trained on")


def test_asked_for_and_not_there(world, tmp_path, monkeypatch):
    without_encoder(monkeypatch)
    refused(evaluation.main, "--run", world.copy(world.run, tmp_path), "--data", world.test, "--baseline", "encoder",
            says="the sentence encoder is not installed")


def test_options_that_contradict_each_other(tmp_path):
    refused(evaluation.main, "--encoder", tmp_path, "--baseline", "none", says="--encoder and --baseline none")
    refused(evaluation.main, "--predictions", "x.jsonl", "--baseline", "encoder", says="--baseline: goes with a run")
