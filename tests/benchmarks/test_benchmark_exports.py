"""benchmarks.exports at a tiny size: every export is the run that it was made of, and one that is not is told.

Deliberate breaks: leave `.mul_(self.scaling)` out of `LoRALinear.dense_weight` ("merged float32" differs); let
`interleaved` in tools/export/gguf_file.py return its tensor as it came (the GGUF files differ); let
`gguf_check.steps_apart` return 0 (the last test turns red).
"""

import json

import pytest
import torch

from benchmarks import exports
from common.files import ROOT
from tests.benchmarks.test_compare import write_source
from tests.small import here, needs


def whole(tmp_path, *words, code=0):
    out = tmp_path / "exports.json"
    printed = here("benchmarks.exports", "--source", write_source(tmp_path / "source"), "--tokenizer",
                   ROOT / "base" / "tokenizer.model", "--layers", "2", "--work", tmp_path / "work", "--json", out,
                   *words, cwd=ROOT, code=code)
    assert not (tmp_path / "work").exists()
    return printed, json.loads(out.read_text())


@pytest.mark.slow
def test_two_formats(tmp_path):
    pytest.importorskip("gguf")
    printed, result = whole(tmp_path, "--formats", "merged float32,gguf-q4_0")
    merged, gguf = result["exports"].values()
    assert merged["equal"] and merged["in_memory"] and merged["seconds"] > 0
    assert set(gguf["apart"]) == {"F32, steps", "Q8_0, steps", "Q4_0, steps"} and gguf["equal"]
    assert gguf["written"] < merged["written"] and gguf["apart"]["Q4_0, steps"][0] > 0.4  # rounding is in it
    assert result["adapter_moves"] > 1e3 * exports.LOGITS and "peak anonymous memory" in printed


def test_an_export_that_differs_is_told(tmp_path, monkeypatch):
    """With the logits of another model to compare with, the program ends in one line, after the figures."""
    right_logits = exports.right_logits

    def wrong(run, texts):
        right, prompt = right_logits(run, texts)
        return {job: logits + 1e-4 for job, logits in right.items()}, prompt

    monkeypatch.setattr(exports, "right_logits", wrong)
    said, result = whole(tmp_path, "--formats", "peft", code=2)
    assert "peft: differs from the run" in said and not result["exports"]["peft"]["equal"]


@pytest.mark.slow
def test_every_format_and_the_usual_stack(tmp_path):
    needs("gguf", "transformers", "peft", "bitsandbytes")
    _, result = whole(tmp_path, "--usual")
    assert list(result["exports"]) == list(exports.JOBS)
    assert all(one["equal"] and one["in_memory"] for one in result["exports"].values())
    assert sum("logits, usual stack" in one["apart"] for one in result["exports"].values()) == 4


@pytest.mark.parametrize("words, message", [
    ([], "--source: is needed"), (["--source", "x"], "--tokenizer: is needed"),
    (["--source", "x", "--tokenizer", "y", "--formats", "gguf"], "--formats gguf: is none of peft, merged float32"),
])
def test_what_a_user_can_get_wrong(words, message):
    assert message in here("benchmarks.exports", *words, cwd=ROOT, code=2)


def test_steps():
    """By hand: d = 1 in all blocks; two thirds of a step are found, what Q4_0 cannot hold is passed over."""
    pytest.importorskip("gguf")
    from benchmarks.gguf_check import LIMITS, steps_apart

    block = torch.arange(32.0) % 8
    eight, four = block.clone(), block.clone()
    eight[3], four[3], four[4] = -127, -8, 8  # Q4_0: d = w / -8 = 1 of the first; 8 is held as 7
    held = four.clamp(max=7)
    for kind, right, found in (("Q8_0", eight, eight), ("Q4_0", four, held)):
        assert steps_apart(found, right, kind) == pytest.approx(0, abs=1e-5)
        moved = found.clone()
        moved[9] += 2 / 3
        assert steps_apart(moved, right, kind) == pytest.approx(2 / 3, abs=1e-5) and LIMITS[kind] < 2 / 3
    third = torch.full((32,), 1 / 3)
    assert steps_apart(third.half().float(), third, "F16") == 0 and steps_apart(third, third, "F16") == float("inf")
