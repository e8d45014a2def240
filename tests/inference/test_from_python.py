"""A run in Python's own terms: what a cell that ends in one of its parts shows, what a call refuses, in which words.

Deliberate breaks: take a `__repr__` away, `@naming_arguments()` from `load_run`, or `_is_missing` from the languages.
"""

import copy
import json
import pickle
import re
import shutil
import sys

import numpy as np
import pytest
import torch

from common.errors import UserError, arguments
from data.batching import make_batch
from inference import load_run
from inference.labeller import label_probabilities
from loading import load_model


def test_every_part_of_a_run_says_what_it_is(run, folder):
    assert repr(run.folder) == f"RunFolder({folder}: finished)"
    assert repr(run.prompt).startswith("Prompt(immigration: topic and stance: pro-immigration, anti-immigration, ")
    assert repr(run.prompt).endswith("; template instruction-first, layout llama-3, at most 512 tokens)")
    assert re.fullmatch(r"Tokenizer\(.*tokenizer.model: sentencepiece, [\d,]+ ids\)", repr(run.prompt.tokenizer))


@pytest.mark.parametrize("made", [lambda: np.array("one"), lambda: bytearray(b"one"), lambda: torch.tensor(1)])
def test_a_single_value_is_no_list(run, made):
    with pytest.raises(UserError, match=f"texts: is of type {type(made()).__name__}; give a list of strings"):
        run.label(made())


def test_a_column_of_languages_may_have_gaps(run):
    pandas = pytest.importorskip("pandas")
    for gap in (None, float("nan"), pandas.NA, pandas.NaT):
        tags = pandas.Series(["en", gap], dtype=object)
        assert [label.language for label in run.label(["one", "two"], languages=tags)] == ["en", "und"]


def test_a_command_in_an_error_can_be_copied(folder, tmp_path, monkeypatch):
    """What a program is told stays an option of it."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folder, tmp_path / "stopped")
    told = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    (tmp_path / "stopped" / "run.json").write_text(json.dumps(told | {"finished": False}), encoding="utf-8")
    with pytest.raises(UserError, match=r"train\.py --resume --out stopped finishes it$"):
        load_run("stopped")
    with pytest.raises(UserError, match=r"no such run folder; train\.py --out makes one$"):
        load_run("nothing")
    assert arguments("x: --model says so; python -m tools.split --test 0.25 makes one; --dtype fast") == (
        "x: model says so; python -m tools.split --test 0.25 makes one; dtype fast")


def test_options_are_named_as_arguments(folder, tmp_path, capsys):
    assert arguments("try --max-tokens 9 (--dtype fast), not a--b or ---") == (
        "try max_tokens 9 (dtype fast), not a--b or ---")
    for keywords, says in [
        ({"device": "gpu"}, "device gpu: there is no such device; use cpu"), ({"device": 0.5}, "device 0.5: there"),
        ({"dtype": "float8"}, "dtype float8: is not one of auto"), ({"dtype": torch.int8}, "dtype torch.int8: is none"),
        ({"model": "none"}, ".*the base model none is not there; model says where it is now"),
    ]:  # fmt: skip
        with pytest.raises(UserError, match=f"^{says}"):
            load_run(folder, **keywords)
        if "model" not in keywords:
            with pytest.raises(UserError, match=f"^{says}"):
                load_model(folder, **keywords)
    load_run(folder)
    assert "--" not in capsys.readouterr().out


def test_no_device_is_the_one_that_is_chosen(folder):
    assert load_model(folder, device=None).device == load_run(folder, device=None).model.device


@pytest.mark.parametrize("wrong", [None, b"x", ["x"], 3])
def test_one_text_at_a_time_is_encoded(run, wrong):
    for encode in (run.prompt.encode, run.prompt.tokenizer.encode):
        with pytest.raises(UserError, match=f"text: is of type {type(wrong).__name__}; give one string"):
            encode(wrong)


def test_a_run_is_pickled_before_and_after_it_labelled(folder, monkeypatch):
    """As `multiprocessing` and PyTorch's DataLoader do; a bar in a terminal must not stay behind."""

    class Stream:
        def isatty(self):
            return True

        def write(self, text):
            return len(text)

        def flush(self):
            pass

        def __reduce__(self):  # as of a terminal
            raise NotImplementedError

    run = load_run(folder, device="cpu")
    fresh = pickle.loads(pickle.dumps(run))
    monkeypatch.setattr(sys, "stderr", Stream())
    expected = run.label(["one"])
    again = pickle.loads(pickle.dumps(run))
    monkeypatch.undo()
    assert fresh.label(["one"]) == again.label(["one"]) == expected == copy.deepcopy(run).label(["one"])


def test_rows_that_were_not_encoded_are_named(run):
    with pytest.raises(UserError, match=r"rows: hold a string; encode each text first: \[prompt.encode\(text\)"):
        label_probabilities(run.model, run.prompt, ["one"])
    rows = (run.prompt.encode(text) for text in ["one", "two"])
    assert label_probabilities(run.model, run.prompt, rows).shape == (2, 4)
    with pytest.raises(ValueError, match="a batch needs at least one row"):
        make_batch([], [])
