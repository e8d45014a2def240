"""Four bits where they serve: whether a base's linears stay dense or become NF4, with the reason and the bytes of both.

Four bits cost accuracy, and a small model the most: of a real one with 135 million parameters, NF4 moved logits by up
to 26 and changed 40 % of the most likely next tokens, to save a third of a gigabyte (LOG.md). So weights are dense

    where they fit into the memory that is free, with what must be beside them, and
    where the model is small and its bytes alone fit: what is beside them can be cut into smaller pieces

and NF4 where memory needs it. Files that are in 4 bits already stay so: no choice brings back what they lost.
"""

from dataclasses import asdict, dataclass

import torch

from common.terminal import human_bytes
from model.config import LlamaConfig
from model.llama import LlamaForCausalLM
from quant.convert import model_bytes, replace_linears

SMALL_BELOW = 500_000_000  # parameters; the smallest Llama 3.2 has 1.2 billion, and is usually fine-tuned in 4 bits
SHARE = 0.7  # of the free memory may be filled by a plan: the allocator, Python and the data need the rest


@dataclass(frozen=True)
class Choice:
    """How the linears are stored ("none": dense; "nf4"; "stored"), why, and the bytes of the model in both ways."""

    quantize: str
    reason: str
    dense: int
    nf4: int
    small: bool

    def __str__(self) -> str:
        words = {"none": "dense", "nf4": "in 4 bits (NF4)", "stored": "as its files have them"}[self.quantize]
        return f"{words}, since {self.reason}; dense {human_bytes(self.dense)}, in 4 bits {human_bytes(self.nf4)}"

    def to_dict(self) -> dict:
        """For run.json."""
        return asdict(self)


def empty_model(config: LlamaConfig, dtype: torch.dtype, quantize: str) -> LlamaForCausalLM:
    """The model as `load_model` makes it, on the meta device: for counting bytes. Tables are taken as 16-bit."""
    model = LlamaForCausalLM.empty(config).to(dtype)
    if quantize.startswith("nf4"):
        replace_linears(model, double=quantize == "nf4-double")
    for table in [model.model.embed_tokens, *([] if config.tie_word_embeddings else [model.lm_head])]:
        table.to(torch.bfloat16)
    return model


def parameters(config: LlamaConfig) -> int:
    """The number of the model's weights."""
    return sum(p.numel() for p in LlamaForCausalLM.empty(config).parameters())


def is_small(config: LlamaConfig) -> bool:
    """Whether four bits would cost the model a lot and save little."""
    return parameters(config) < SMALL_BELOW


def choose_weights(config: LlamaConfig, dtype: torch.dtype, available: int, beside: int = 0) -> Choice:
    """By the rule above, for `available` free bytes, of which `beside` are needed beside the dense model."""
    dense, nf4 = (model_bytes(empty_model(config, dtype, way)) for way in ("none", "nf4"))
    small, limit = is_small(config), int(SHARE * available)
    if config.quantization is not None:
        return Choice("stored", "its files are in 4 bits", dense, nf4, small)
    if dense + beside <= limit:
        reason = "the model is small" if small else f"it fits into the {human_bytes(available)} that is free"
        return Choice("none", reason, dense, nf4, small)
    if small and dense <= limit:
        return Choice("none", "the model is small, though memory is scarce", dense, nf4, small)
    with_it = f" and {human_bytes(beside)} beside it" if beside else ""
    return Choice("nf4", f"the dense model{with_it} would not fit well into the {human_bytes(available)} that is free",
                  dense, nf4, small)
