"""Runs for the tests of exports: real facts of a tiny training, an adapter large enough to show, any base."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from loading import load_model
from loading.cache import weights_sha256
from lora.adapter import save_adapter
from lora.inject import adapters, inject
from tests.small import here, posts, write_base, write_jsonl

# Head size 80, three key/value heads, and weights whose blocks straddle rows: 6,930 weights of the MLP end in a block
# of 18, and their 109 scales, like the 675 of q_proj, end in a partial nested block.
ODD = dict(hidden_size=90, intermediate_size=77, num_attention_heads=6, num_key_value_heads=3, head_dim=80)
# Rows of whole blocks: bitsandbytes' compiled CPU library dequantises others wrongly (LOG.md), and wants 32 of them.
WHOLE = dict(hidden_size=64, intermediate_size=128, num_attention_heads=4, num_key_value_heads=2, head_dim=16)
KINDS = ("peft", "merged", "bnb-4bit")
PARITY = dict(atol=1e-5, rtol=1e-5)  # the contract's tolerance, float32
IDS = torch.randint(6, 600, (2, 90), generator=torch.Generator().manual_seed(0))  # beyond the original window of 64


def train_run(folder: Path, **shape) -> Path:
    """A base and a run that was trained on it for two steps: `folder / "base"`, `folder / "run"`."""
    write_base(folder / "base", **shape)
    data = write_jsonl(folder / "posts.jsonl", posts(24, seed=1))
    here("train.py", "--model", folder / "base", "--data", data, "--out", folder / "run", "--max-steps", 2,
         "--batch-size", 4, "--rank", 2, "--dtype", "float32", cwd=folder)
    return folder / "run"


def make_run(folder: Path, like: Path, base: Path, quantize: str = "none", size: float = 0.05, **options) -> Path:
    """A finished run in `folder` with the facts of `like`, but for `base`, with an adapter of its own.

    size: standard deviation of its B; 0 makes an adapter that changes nothing.
    """
    folder.mkdir(parents=True)
    facts = json.loads((like / "run.json").read_text())
    facts["options"] |= {"model": str(base), "quantize": quantize, **options}
    facts["hashes"]["weights"] = weights_sha256(base)
    (folder / "run.json").write_text(json.dumps(facts))
    shutil.copy(like / "training_texts.json", folder)
    model = load_model(base, quantize="none", dtype=torch.float32)
    generator = torch.Generator().manual_seed(3)
    inject(model, "all-linear", 3, 6.0, generator=generator)
    with torch.no_grad():
        for layer in adapters(model).values():
            layer.lora_B.copy_(size * torch.randn(layer.lora_B.shape, generator=generator))
    save_adapter(model, folder / "adapter", base_name=str(base))
    return folder


def export(run: Path, kind: str, out: Path, *words) -> str:
    """What `python -m tools.export` prints."""
    return here("tools.export", "--run", run, "--to", kind, "--out", out, *words, cwd=out.parent)


def card(folder: Path) -> str:
    """The model card's text."""
    return (folder / "README.md").read_text(encoding="utf-8")


def matter(folder: Path) -> dict:
    """The card's front matter as the Hub's own library reads it."""
    hub = pytest.importorskip("huggingface_hub")
    return hub.ModelCard(card(folder)).data.to_dict()


@torch.no_grad()
def logits(model, ids=IDS) -> torch.Tensor:
    """Of our model or of transformers'."""
    found = model(ids)
    return found if isinstance(found, torch.Tensor) else found.logits
