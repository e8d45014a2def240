"""Models of Llama 3.2-3B's widths and few layers on a card, the prompts of both templates, and trainers.

Weights come through `load_model` itself, from a checkpoint whose tensors are made on the card: nothing of that size is
written to a disk or held by the host.
"""

import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from unittest import mock

import torch

from common.files import ROOT
from data.batching import plan
from data.codebook import load_codebook
from data.prompt import Prompt
from finetune.loop import Recipe, Trainer
from inference.merged import MERGED
from loading import assemble
from loading.weights import Weights
from lora.inject import inject
from model.config import LlamaConfig
from model.tokenizer import load_tokenizer
from quant.convert import make_resident
from tests.cuda.fake import Card
from tests.small import write_base

LLAMA_3B = dict(
    model_type="llama", vocab_size=128256, hidden_size=3072, intermediate_size=8192, num_attention_heads=24,
    num_key_value_heads=8, head_dim=128, max_position_embeddings=131072, rms_norm_eps=1e-5, tie_word_embeddings=True,
    rope_theta=500000.0, rope_scaling=dict(rope_type="llama3", factor=32.0, high_freq_factor=4.0, low_freq_factor=1.0,
                                           original_max_position_embeddings=8192),
)  # fmt: skip
LAYERS = 28
SHARED = ROOT / ".." / "shared" / "data"


class _OnCard:
    """A checkpoint's file whose tensors are made as they are read."""

    def __init__(self, shapes: dict, device: torch.device):
        self.shapes, self.device = shapes, device

    def keys(self) -> list[str]:
        """Names of the tensors."""
        return list(self.shapes)

    def get_tensor(self, name: str) -> torch.Tensor:
        """Random numbers of the size of a trained model's, and norms of one."""
        if "norm" in name:
            return torch.ones(self.shapes[name], dtype=torch.bfloat16, device=self.device)
        return torch.randn(self.shapes[name], dtype=torch.bfloat16, device=self.device) * 0.02


_loaded: dict = {}


def load(one: Card, *, fresh: bool = False, **kind):
    """`_load(one, **kind)`; a model without memory is made once for all files of tests, unless it must be `fresh`."""
    if fresh or one.is_real:
        return _load(one, **kind)
    key = tuple(sorted(kind.items()))
    if key not in _loaded:
        _loaded[key] = _load(one, **kind)
    return _loaded[key]


def _load(one: Card, *, layers: int, quantize: str = "nf4", resident: bool = False, adapter: bool = False,
         dropout: float = 0.0, merged: bool = False, dtype: torch.dtype | None = None):
    """The model as `load_model` makes it; quantize "none", "nf4" or "nf4-double"; adapters of rank 16 on all linears,
    or merged into them; dtype: the compute dtype, the card's own if None."""
    config, path = LlamaConfig.from_dict(LLAMA_3B | {"num_hidden_layers": layers}), Path("model.safetensors")

    def read(folder, config, expected):
        return Weights(True, {path: _OnCard(expected, one.device)}, dict.fromkeys(expected, path), {})

    source = SimpleNamespace(base=Path("there"), adapter=None, hashes=None, quantize=None)
    with mock.patch.multiple(assemble, find_source=lambda path: source, read_config=lambda *args: config,
                             read_weights=read):
        model = assemble.load_model("there", device=one.device, dtype=dtype, quantize=quantize)
    if adapter:
        inject(model, "all-linear", 16, 32, dropout, generator=torch.Generator().manual_seed(0))
    if resident:
        make_resident(model, model.dtype)
    if merged:
        MERGED.change(model)
    with torch.no_grad():  # tables that are kept for each device are made, and copied to it, at the first product
        model.model.layers[0].self_attn.q_proj(torch.zeros(1, config.hidden_size, dtype=model.dtype, device=one.device))
    return model


@cache
def some_prompt(template: str) -> Prompt:
    """With Llama 3's tokenizer where the public files are, else with a vocabulary of 600 pieces."""
    if SHARED.is_dir():
        return Prompt(load_codebook(), load_tokenizer(SHARED / "llama3" / "tokenizer.model"), template)
    with TemporaryDirectory() as folder:
        return Prompt(load_codebook(), load_tokenizer(write_base(Path(folder) / "base")), template)


@cache
def posts(count: int) -> tuple[str, ...]:
    """Texts of the first real posts where they are, else of the invented ones."""
    real = SHARED / "immigration" / "train.jsonl"
    path = real if real.is_file() else ROOT / "data" / "samples" / "train.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    return tuple(json.loads(lines[number % len(lines)])["text"] for number in range(count))


def batch_rows(prompt: Prompt, tokens: int = 4096) -> list:
    """As many encoded posts as one batch of `tokens` takes."""
    rows = [prompt.encode(text) for text in posts(100)]
    while len(plan(rows, tokens, prefix=prompt.prefix_ids)) > 1:
        rows.pop()
    return rows


def recipe_trainer(model, prompt: Prompt, texts, loss: str = "label", micro_tokens: int = 8192,
                   checkpointing: bool = False, graphs: bool = False) -> Trainer:
    """A trainer whose every step takes all `texts`."""
    labels = [number % len(prompt.label_ids) for number in range(len(texts))]
    names = prompt.codebook.labels
    rows = [prompt.encode_whole(text, names[label]) if loss == "text" else prompt.encode(text)
            for text, label in zip(texts, labels, strict=True)]
    recipe = Recipe(2e-4, "constant", 0.0, 0.01, 1.0, len(texts), loss)
    return Trainer(model, rows, labels, [1.0] * len(texts), prompt.label_ids, lambda epoch: list(range(len(texts))),
                   prompt.prefix_ids, recipe, 1000, micro_tokens, checkpointing, graphs)
