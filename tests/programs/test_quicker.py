"""`--int8` and `--merge` in the programs and in a notebook: the same labels from all three, the price told and kept, no
mixed files.

Deliberate breaks: leave "--int8" or "--merge" out of `arithmetic` in bulk/opened.py (a file begun without goes on with
it); in eval.py do not put the price into the metrics.
"""

import json
from dataclasses import dataclass

import numpy as np
import pytest

import classify
import eval as scoring
from inference import load_run
from tests.int8 import take_int8
from tests.programs.hostile import World, call, refused

CPU = ("--device", "cpu", "--threads", "1")


@dataclass(frozen=True)
class Way:
    """An option, what it is called, and the most that a probability may change, which are written with six digits."""

    option: str
    what: str
    least: float
    most: float

    @property
    def name(self) -> str:
        return self.option.removeprefix("--")


@pytest.fixture(params=[Way("--int8", "8-bit products", 1e-6, 0.1), Way("--merge", "a merged adapter", 0.0, 1e-5)],
                ids=lambda way: way.name)
def way(request, monkeypatch):
    if request.param.name == "int8":
        take_int8(monkeypatch)
    return request.param


def labelled(world: World, output: str, *more) -> tuple[list[dict], str]:
    ended = call(classify.main, "--run", world.run, "--input", world.test, "--output", output, *CPU, *more)
    assert ended.code == 0 and ended.err == "", ended.err
    with open(output, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines], ended.out


def test_all_three_label_alike_and_tell_the_price(way, world: World, tmp_path, capsys):
    plain, said = labelled(world, "plain.jsonl")
    rounded, told = labelled(world, "rounded.jsonl", way.option, "--resident")
    names = [name for name in plain[0] if name.startswith("p_")]
    values = [np.array([[row[name] for name in names] for row in rows]) for rows in (plain, rounded)]
    assert way.least <= np.abs(values[0] - values[1]).max() < way.most
    line, = (line.partition(";")[0] for line in told.splitlines() if f"price of {way.what}" in line)
    assert "price" not in said and f"on the first {len(plain)} posts: label KL" in line

    scored = world.copy(world.run, tmp_path)
    ended = call(scoring.main, "--run", scored, "--data", world.test, "--out", "scored", way.option, *CPU)
    assert ended.code == 0 and line in ended.out
    kept = json.loads((tmp_path / "scored" / "metrics.json").read_text())[way.name]
    assert kept["posts"] == len(plain) and f"label KL {kept['label_kl']:.1e}" in line
    assert f"<h3>Price of {way.what}</h3>" in (tmp_path / "scored" / "report.html").read_text()

    texts = [json.loads(row)["text"] for row in world.test.read_text().splitlines()]
    capsys.readouterr()
    run = load_run(world.run, device="cpu", **{way.name: True})
    assert run.label([" "])[0].label is None and "price" not in capsys.readouterr().out
    found = run.label(texts)
    assert line in capsys.readouterr().out
    assert [round(label.probability, 6) for label in found] == [row["probability"] for row in rounded]
    assert run.label(texts[:1])[0] == found[0] and "price" not in capsys.readouterr().out


def test_one_post_in_the_terminal(way, world: World):
    ended = call(classify.main, "--run", world.run, "--text", "close the border now", way.option, *CPU)
    assert ended.code == 0 and "on the first post: label KL" in ended.out


def test_what_does_not_go_with_it(world: World, monkeypatch):
    take_int8(monkeypatch)
    refused(classify.main, "--run", world.run, "--input", world.test, "--output", "a.csv", *CPU, "--int8", "--dtype",
            "bfloat16", says="--int8: goes with --dtype float32")
    refused(classify.main, "--run", world.run, "--input", world.test, "--output", "a.csv", *CPU, "--int8", "--merge",
            says=("--int8 and --merge", "leave one out"))
    for option in ("--int8", "--merge"):
        refused(classify.main, "--run", world.run, "--input", world.test, "--output", "a.csv", *CPU, option, "--engine",
                "ray", says=(f"{option}: measures its price in one process", "--shard"))


def test_a_file_that_was_begun_without_it_does_not_go_on(way, world: World, tmp_path, monkeypatch):
    from inference import labeller
    from tests.programs.test_classify import many, stop_after, words

    monkeypatch.setattr(labeller, "WINDOW", 16)
    posts = many(tmp_path / "many.jsonl", 40)
    for more, code in ((), 0), ((way.option,), 2):  # files that are whole already are not passed over either
        ended = call(classify.main, *words(world, posts, "all", "--format", "csv", "--resume", *more))
        assert ended.code == code and (code == 0 or f"was made from another {way.option}" in ended.err), ended.err
    with monkeypatch.context() as patch:
        patch.setattr(classify.Labeller, "label", stop_after(1, KeyboardInterrupt()))
        assert call(classify.main, *words(world, posts, "a.csv", "--resume")).code == 130
    refused(classify.main, *words(world, posts, "a.csv", "--resume", way.option),
            says=(f"another {way.option}", "--overwrite"))
