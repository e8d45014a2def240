"""How much memory a fine-tune will take, and how to cut its steps so that it fits.

The estimate counts what must be in memory at the same time:

    model        bytes of all parameters and buffers, as they are after loading
    adapter      16 bytes per trainable number: value, gradient, two moments, each float32
    buffer       the largest linear once, dequantised
    activations  per packed token and layer: 7 D + 4 H h + 3 F numbers that backward needs (two norms; queries, keys,
                 values and output of attention; gate, up and their product), and with dropout each adapter's masked
                 input and the mask; with checkpointing only the layer's input D, and one layer's activations at a time.
                 If only answers are read, the last layer keeps 3 D + 4 K h numbers instead: the norm's, keys, values
                 and the inputs of the adapters on these
    logits       for the losses over the whole vocabulary: one chunk's logits, their softmax and gradient in float32,
                 and a slice of the head in the compute dtype if it is stored in another

Left out: the copy of a shared prefix that attention keeps for each row, and the rank-r outputs that adapters keep. The
share of the memory that a plan leaves free has room for both.
"""

from dataclasses import dataclass

import torch

from common.terminal import human_bytes
from finetune.loop import LOGIT_CHUNK
from lora.inject import adapters
from model.config import LlamaConfig
from model.llama import HEAD_CHUNK
from quant.convert import model_bytes

MICRO_TOKEN_CHOICES = (8192, 4096, 2048, 1024, 512)
SHARE = 0.7  # of the free memory may be filled by a plan: the allocator, Python and the data need the rest


@dataclass(frozen=True)
class MemoryPlan:
    """How steps are cut (`micro_tokens`, `checkpointing`) and the bytes that are expected in all."""

    micro_tokens: int
    checkpointing: bool
    model: int
    adapter: int
    activations: int
    available: int

    @property
    def total(self) -> int:
        return self.model + self.adapter + self.activations

    def __str__(self) -> str:
        how = "recomputed in backward" if self.checkpointing else "kept for backward"
        return (f"about {human_bytes(self.total)}: model {human_bytes(self.model)}, adapter and optimiser "
                f"{human_bytes(self.adapter)}, activations of {self.micro_tokens:,} tokens {how} "
                f"{human_bytes(self.activations)}; {human_bytes(self.available)} is free")


def activation_bytes(config: LlamaConfig, tokens: int, dtype: torch.dtype, checkpointing: bool, dropped: int = 0,
                     answers_only: bool = True) -> int:
    """Bytes that `tokens` packed tokens keep for backward, by the formula above.

    `dropped`: how many numbers per token go through dropout, over all layers.
    """
    heads, depth = config.num_attention_heads * config.head_dim, config.num_hidden_layers
    layer = (7 * config.hidden_size + 4 * heads + 3 * config.intermediate_size) * dtype.itemsize
    layer += -(-dropped // depth) * (dtype.itemsize + 1)
    if checkpointing:
        return tokens * (depth * config.hidden_size * dtype.itemsize + layer)
    if not answers_only:
        return tokens * depth * layer
    last = (3 * config.hidden_size + 4 * config.num_key_value_heads * config.head_dim) * dtype.itemsize
    return tokens * ((depth - 1) * layer + last)


def logit_bytes(model, loss: str) -> int:
    """Bytes that a loss over the whole vocabulary takes for a moment; 0 for the label loss."""
    if loss == "label":
        return 0
    head, dtype = model.head_weight, model.dtype
    cast = 0 if head.dtype == dtype else min(HEAD_CHUNK, head.shape[0]) * head.shape[1] * dtype.itemsize
    return 3 * 4 * LOGIT_CHUNK * head.shape[0] + cast


def plan_memory(model, trainable: int, *, micro_tokens: int | None, checkpointing: bool | None, available: int,
                loss: str = "label") -> MemoryPlan:
    """Choose what is `None` so that the estimate fills at most `SHARE` of what is free beside the loaded model.

    Plans without checkpointing are tried first, down to micro-batches of 1,024 tokens: cutting steps smaller costs less
    than computing activations twice. Plans with checkpointing follow, again from large micro-batches to small. If
    nothing fits, the smallest plan is returned, and its estimate shows that.
    """
    config, dtype = model.config, model.dtype
    size = model_bytes(model)
    largest = max(config.hidden_size * config.intermediate_size, config.hidden_size**2) * dtype.itemsize
    adapter = 16 * trainable + largest
    ways = [False, True] if checkpointing is None else [checkpointing]
    sizes = MICRO_TOKEN_CHOICES if micro_tokens is None else (micro_tokens,)
    dropped = sum(layer.in_features for layer in adapters(model).values() if layer.dropout)
    logits = logit_bytes(model, loss)
    kept = lambda tokens, way: activation_bytes(config, tokens, dtype, way, dropped, loss != "text")  # noqa: E731
    plans = [MemoryPlan(tokens, way, size, adapter, kept(tokens, way) + logits, available)
             for way in ways for tokens in (sizes if way or len(ways) == 1 or len(sizes) == 1 else sizes[:4])]
    fitting = (plan for plan in plans if plan.adapter + plan.activations <= SHARE * plan.available)
    return next(fitting, plans[-1])
