"""What fits on which graphics card: how a fine-tune's steps would be cut, and how much memory it is expected to take.

    python -m tools.memory --model Llama-3.2-3B-Instruct

Only config.json (or params.json) is read; for a name on the Hugging Face Hub, only small files are downloaded. The
estimate is that of `finetune/memory.py`, which train.py prints (and acts on) for the memory that is actually free; here
that is the card's size less what CUDA itself takes.
"""

from dataclasses import dataclass

import torch

from common.errors import run_program
from common.options import option, parse_options
from common.terminal import human_bytes, table
from finetune.memory import MemoryPlan, expected_plan
from loading.sources import find_base
from loading.weights import read_config
from model.config import LlamaConfig
from model.varlen import attend_varlen

CUDA_ITSELF = 0.7e9  # context and libraries of one process, bytes: a round number, not measured on every card
CARDS = (6, 8, 12, 16, 24, 48)  # GiB


@dataclass
class FitsOptions:
    """Options of this program."""

    model: str = option("base", "checkpoint folder, GGUF file, or a name on the Hugging Face Hub", metavar="DIR")
    rank: int = option(16, "rank of the adapters", minimum=1)
    targets: list[str] = option(("all-linear",), "linear layers that get an adapter", metavar="q_proj,v_proj")
    quantize: str = option("nf4", "how the base's weights are stored", choices=("nf4", "nf4-double", "none"))


def on_card(config: LlamaConfig, card: float, quantize: str = "nf4", targets="all-linear", rank: int = 16
            ) -> MemoryPlan:
    """The plan for a card of `card` GiB that has every kernel, in bfloat16; nothing is allocated."""
    return expected_plan(config, torch.bfloat16, quantize, targets, rank, int(card * 2**30 - CUDA_ITSELF), gpu=True,
                         attend=attend_varlen, fused=True)


def row(card: int, plan: MemoryPlan) -> list[str]:
    """One card's line: whether it fits, and how."""
    fits = plan.total + CUDA_ITSELF <= card * 2**30
    how = f"{plan.micro_tokens:,} tokens at once" + (", activations recomputed" if plan.checkpointing else "")
    return [f"{card} GB", human_bytes(plan.total) if fits else "–", how if fits else "does not fit"]


def main(argv: list[str]) -> None:
    """Print the table."""
    options = parse_options(FitsOptions, argv, program="python -m tools.memory", description=__doc__)
    config = read_config(find_base(options.model, weights=False))
    print(table(["card", "expected", "how a step is cut"],
                [row(card, on_card(config, card, options.quantize, options.targets, options.rank))
                 for card in CARDS]))


if __name__ == "__main__":
    run_program(main)
