"""tools.merge_report: its figures from the definitions, and its forms against the exports that they stand for.

Deliberate break: give `change` the two sides' probabilities swapped, give `in_nf4` the base without its adapter, warn
of a single form, or leave `groups` out of `compare`; cases below turn red.
"""

import importlib.util
import json
import math

import numpy as np
import pytest
import torch

from finetune.run_folder import RunFolder
from inference.labeller import label_probabilities
from inference.run import open_model
from loading import load_model
from report.intervals import wilson
from stats.change import divergences
from tests.quant.stored import write_by_transformers
from tests.small import here, posts, write_jsonl
from tests.tools.exports import WHOLE, export, make_run, train_run
from tools.export.options import TAKES
from tools.merge_report import WAYS, compare, warnings_of

HAS_LLAMA = all(importlib.util.find_spec(name) for name in ("gguf", "llama_cpp"))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on a base in NF4 with an adapter that moves labels."""
    root = tmp_path_factory.mktemp("runs")
    trained = train_run(root / "trained", **WHOLE)
    return make_run(root / "run", trained, root / "trained" / "base", "nf4", size=0.3)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_jsonl(tmp_path_factory.mktemp("data") / "test.jsonl", posts(60, seed=9))


def report(run, data, out, *words, code=0):
    """(what it prints, merge_report.json by form)."""
    said = here("tools.merge_report", "--run", run, "--data", data, "--out", out, "--dtype", "float32", "--draws", 200,
                *words, cwd=out.parent, code=code)
    if code:
        return said, None
    found = json.loads((out / "merge_report.json").read_text())
    return said, found | {"forms": {row["form"]: row for row in found["forms"]}}


class Post:
    def __init__(self, label, language="en", text=""):
        self.id, self.label, self.language, self.text, self.extra = text, label, language, text, {}


def compared(found, gold, labels, draws=0, groups=None):
    return compare(found, gold, np.arange(len(gold)) if groups is None else groups, labels, draws, 0)


def divergence(p, q):
    return float(divergences(p, q).mean())


def test_figures_from_their_definitions():
    p = np.array([[0.7, 0.3], [0.2, 0.8], [0.6, 0.4]])
    q = np.array([[0.4, 0.6], [0.2, 0.8], [0.9, 0.1]])
    right = (0.7 * math.log(0.7 / 0.4) + 0.3 * math.log(0.3 / 0.6) + 0.6 * math.log(0.6 / 0.9)
             + 0.4 * math.log(0.4 / 0.1)) / 3
    assert divergence(p, q) == pytest.approx(right) and divergence(p, p) == 0
    assert divergence(np.array([[0.5, 0.5]]), np.array([[1.0, 0.0]])) > 30  # large and not infinite
    gold = [Post("a", text="1"), Post("b", text="2"), Post("b", text="3")]
    first, second = compared({"x": p, "y": q}, gold, ("a", "b"), 500)
    assert first["macro_f1"] == pytest.approx(2 / 3) and "flips" not in first
    assert second["flips"] == 1 and second["macro_f1"] == pytest.approx((0 + 0.5) / 2)
    assert second["f1_gain"] == pytest.approx(0.25 - 2 / 3)


def test_the_interval_is_paired():
    """Two forms that differ in one answer differ by little in every draw, however uncertain each is alone; with the
    same answers they would differ by nothing in any, and there is no interval."""
    draw = np.random.default_rng(0)
    p = draw.dirichlet([1, 1, 1], size=40)
    gold = [Post("abc"[place % 3], "en" if place % 2 else "es", str(place)) for place in range(40)]
    worse = np.where(draw.random((40, 1)) < 0.3, np.roll(p, 1, 1), p)
    nearly = np.concatenate([np.roll(p[:1], 1, 1), p[1:]])
    _, same, one, other = compared({"x": p, "y": p, "n": nearly, "z": worse}, gold, tuple("abc"), 300)
    assert same["f1_gain_ci"] is None and same["kl"] == 0.0
    (low, high), (wide_low, wide_high) = one["f1_gain_ci"], other["f1_gain_ci"]
    assert low <= one["f1_gain"] <= high and high - low < 0.15 < wide_high - wide_low
    assert wide_low < other["f1_gain"] < wide_high


def test_posts_of_one_author_count_as_what_they_are_worth():
    """The same 120 answers, by 120 authors or by 12 who all are wrong or right in one piece."""
    gold = [Post("ab"[place % 2], "en", str(place)) for place in range(120)]
    p = np.where(np.array([[post.label == "a"] for post in gold]), [0.9, 0.1], [0.1, 0.9])
    authors = np.arange(120) // 10
    q = np.where(np.isin(authors, (3, 7))[:, None], 1 - p, p)  # two authors of twelve
    alone, together = (compared({"x": p, "y": q}, gold, ("a", "b"), 400, groups)[1] for groups in (None, authors))
    assert alone["flips"] == together["flips"] == 20 and alone["kl"] == together["kl"]
    for key in ("flip_rate_ci", "f1_gain_ci"):
        widths = [row[key][1] - row[key][0] for row in (alone, together)]
        assert widths[1] > 2.5 * widths[0], key
    assert alone["flip_rate_ci"] == list(wilson(20, 120))


def test_every_form_that_changes_labels_is_warned_of_beside_those_that_do_not():
    def row(form, flips, gain=(-0.1, 0.1), of=400):
        return {"form": form, "flips": flips, "flip_rate_ci": list(wilson(flips, of)), "f1_gain_ci": list(gain)}

    first = {"form": "16-bit base + adapter"}
    said = warnings_of([first, row("merged", 0), row("merged, original", 40, of=40), row("merged, in NF4", 40, of=40),
                        row("GGUF Q8_0", 0)], 40)
    assert "merged, original gives 40 of 40 posts another label, since the adapter learned" in said[0]
    assert len(said) == 2
    assert "merged, in NF4 gives 40 of 40" in said[1]
    assert all(line.endswith("release a form without such a change (tools.export --to peft, merged or gguf-q8_0)")
               for line in said)
    every = warnings_of([first, *(row(form, 40, of=40) for form in WAYS)], 40)
    assert len(every) == len(WAYS) == 6 and all(line.endswith("(tools.export --to peft)") for line in every)
    assert {way.split()[0] for way, _ in WAYS.values()} | {"peft"} == set(TAKES)
    assert not warnings_of([first, row("merged, in NF4", 1), row("GGUF Q4_0", 8)], 400)  # 0.3 %; [1.0, 3.9] %
    assert warnings_of([first, row("GGUF Q4_0", 1, (-0.2, -0.01))], 400)  # few labels, and the wrong ones


def test_forms_are_the_exports(run, data, tmp_path):
    said, found = report(run, data, tmp_path / "report")
    forms, texts = found["forms"], [row["text"] for row in posts(60, seed=9)]
    model, prompt = open_model(RunFolder.open(run), model=None, device=torch.device("cpu"), dtype=torch.float32)
    rows = [prompt.encode(text) for text in texts]
    reference = label_probabilities(model, prompt, rows)
    assert len(set(reference.argmax(1))) > 1
    for name, words in (("merged", ("merged",)), ("merged, original", ("merged", "--base", "original")),
                        ("merged, in NF4", ("bnb-4bit",))):
        out = tmp_path / name.replace(", ", "-")
        export(run, words[0], out, *words[1:])
        right = label_probabilities(load_model(out, dtype=torch.float32), prompt, rows)
        assert forms[name]["kl"] == pytest.approx(divergence(reference, right), rel=1e-3, abs=1e-9), name
        assert forms[name]["flips"] == (reference.argmax(1) != right.argmax(1)).sum()
    assert forms["merged"]["flips"] == 0 and forms["merged"]["kl"] < 1e-8  # a float32 base: nothing was rounded
    assert forms["merged, original"]["kl"] > 1e-4 and forms["merged, in NF4"]["kl"] > 1e-4
    assert found["reference"] == "NF4 + adapter" and found["n"] == 60
    if HAS_LLAMA:
        kls = [forms[f"GGUF {kind}"]["kl"] for kind in ("F16", "Q8_0", "Q4_0")]
        assert kls == sorted(kls) and kls[0] < 1e-4
    table = (tmp_path / "report" / "merge_report.md").read_text()
    for name in forms:
        assert name in said and f"| {name} |" in table
    assert json.loads((run / "run.json").read_text())["scored"][-1]["n"] == 60
    assert not list(run.glob(".*")) and texts[0] not in table + json.dumps(found)
    report(run, data, tmp_path / "report", "--gguf", "off")  # over an earlier report


def test_forms_that_do_not_apply_are_left_out_and_named(run, data, tmp_path):
    base = json.loads((run / "run.json").read_text())["options"]["model"]
    dense = make_run(tmp_path / "dense", run, base, "none", size=0.3)
    said, found = report(dense, data, tmp_path / "a", "--gguf", "off")
    assert list(found["forms"]) == ["16-bit base + adapter", "merged", "merged, in NF4"]
    assert "was not in 4 bits in training" in said
    pytest.importorskip("bitsandbytes")
    packed = write_by_transformers(tmp_path / "packed", base, double=False)
    (packed / "tokenizer.model").write_bytes((type(packed)(base) / "tokenizer.model").read_bytes())
    said, found = report(make_run(tmp_path / "four", run, packed, "nf4"), data, tmp_path / "b", "--gguf", "off")
    assert list(found["forms"]) == ["4-bit base + adapter", "merged", "merged, in NF4"]
    assert "merged, original: the base has no 16-bit files" in said


def test_without_llama_cpp(run, data, tmp_path, monkeypatch):
    find, there = importlib.util.find_spec, {"llama_cpp": None, "gguf": object()}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: there[name] if name in there else find(name))
    said, found = report(run, data, tmp_path / "a")
    assert not any("GGUF" in name for name in found["forms"])
    assert "GGUF: needs llama_cpp, which the extra 'peers' has" in said
    said, _ = report(run, data, tmp_path / "b", "--gguf", "on", code=2)
    assert "--gguf on: needs llama_cpp" in said and not (tmp_path / "b").exists()


def test_a_folder_with_something_else_is_not_written_over(run, data, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    said, _ = report(run, data, tmp_path / "out", code=2)
    assert "holds something that is no merge report" in said


def test_posts_that_were_trained_on(run, tmp_path):
    again = write_jsonl(tmp_path / "again.jsonl", posts(24, seed=1))
    said, _ = report(run, again, tmp_path / "out", code=2)
    assert "all 24 test posts were trained on" in said and not (tmp_path / "out").exists()
    _, found = report(run, again, tmp_path / "out", "--gguf", "off", "--drop-known", "none")
    assert found["n"] == 24


def test_an_export_can_write_it_too(run, data, tmp_path):
    words = ("tools.export", "--run", run, "--to", "peft")
    said = here(*words, "--out", tmp_path / "out", "--report", data, cwd=tmp_path)
    found = run / f"merge-{data.name.removesuffix('.jsonl')}" / "merge_report.json"
    assert found.exists() and "merged, in NF4" in said and (tmp_path / "out" / "adapter_config.json").exists()
    said = here(*words, "--out", tmp_path / "none", "--report", "no.jsonl", cwd=tmp_path, code=2)
    assert "--report no.jsonl: there is no such file" in said and not (tmp_path / "none").exists()
