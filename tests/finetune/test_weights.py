"""train.py's choice of weights: resolved before it is stored, the same on resume, its price measured where it is small.

Deliberate break: in `finetune/weights.py: resolve` leave `options.quantize` as it is, so that "auto" stands in
run.json; or let `read_both` read the labels one token too early; the figures by hand turn red.
"""

import json

import pytest
import torch

from data.codebook import load_codebook
from data.prompt import Prompt
from finetune import weights
from finetune.weights import POSTS, read_both
from loading import load_model
from model.tokenizer import load_tokenizer
from tests.small import here, posts, write_base, write_jsonl

QUICK = ("--model", "tiny", "--data", "train.jsonl", "--rank", 2, "--batch-size", 8, "--dtype", "float32", "--threads",
         1, "--max-steps", 4)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    write_base(folder / "tiny")
    write_jsonl(folder / "train.jsonl", posts(80, 1))
    return folder


def facts(folder) -> dict:
    return json.loads((folder / "run.json").read_text(encoding="utf-8"))


def test_what_auto_became_is_stored_and_stays_on_resume(place):
    said = here("train.py", *QUICK, "--out", "auto", cwd=place)
    told = facts(place / "auto")
    assert told["options"]["quantize"] == "none" == told["weights"]["quantize"]
    assert "weights dense, since the model is small; dense " in said and ", in 4 bits " in said
    price = told["weights"]["price"]
    assert f"price of 4 bits on the first {POSTS} posts: label KL {price['label_kl']:.3f} nats" in said
    assert price["posts"] == POSTS and price["label_kl"] > 0
    again = here("train.py", "--resume", "--out", "auto", "--quantize", "auto", cwd=place)
    assert "is finished" in again
    assert "began with none" in here("train.py", "--resume", "--out", "auto", "--quantize", "nf4", cwd=place, code=2)


def test_memory_decides_for_four_bits_and_the_price_is_not_measured(place, monkeypatch):
    monkeypatch.setattr(weights, "available_memory", lambda device: 1000)
    said = here("train.py", *QUICK, "--out", "scarce", cwd=place)
    assert "weights in 4 bits (NF4), since the dense model" in said
    assert "price of 4 bits: not measured, since the dense weights do not fit" in said
    told = facts(place / "scarce")
    assert told["options"]["quantize"] == "nf4" and told["weights"]["price"] is None


def test_who_chooses_gets_no_choice(place):
    said = here("train.py", *QUICK, "--out", "chosen", "--quantize", "nf4", cwd=place)
    assert "; weights nf4\n" in said and "price" not in said and facts(place / "chosen")["weights"] is None


def test_the_figures_by_hand(place):
    """Row by row, without packing, with the logits of the whole vocabulary."""
    model = load_model(place / "tiny", quantize="nf4", dtype=torch.float32)
    prompt = Prompt(load_codebook(), load_tokenizer(place / "tiny"))
    rows = [prompt.encode(row["text"]) for row in posts(9, 3)]

    class Prepared:
        pass

    Prepared.rows, Prepared.prompt = rows, prompt
    found, loss = read_both(model, Prepared)
    labels, losses, start = [], [], len(prompt.prefix_ids)
    for row in rows:
        with torch.no_grad():
            logits = model(torch.tensor([row.ids]))[0].log_softmax(-1)
        labels.append(logits[row.answer_index, prompt.label_ids].log_softmax(-1))
        losses += [-logits[at, row.ids[at + 1]] for at in range(start, len(row.ids) - 1)]
    assert torch.allclose(found, torch.stack(labels), atol=1e-5)
    assert loss == pytest.approx(torch.stack(losses).mean().item(), abs=1e-5)
