"""Training in mixed precision (Micikevicius et al. 2018, arXiv 1710.03740): layers compute in bfloat16, weights stay.

    per step:   w_16 <- w_32,   gradient of w_16 -> float32,   the optimizer updates w_32

The embedding table is not copied: it is read in float32 and its few rows are cast, so that rare words' small gradients
are summed in float32. bfloat16 has float32's range, so no loss needs scaling. A CPU with matrix units for bfloat16
trains several times as fast with it.
"""

from contextlib import ExitStack

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from model.llama import LlamaForCausalLM


class Worker:
    """`with worker as computing`: the model to compute with; on leaving, its gradients are the weights' own."""

    def __init__(self, model: LlamaForCausalLM, dtype: torch.dtype):
        self.model = self.computing = model
        if dtype != torch.float32:
            self.computing = LlamaForCausalLM(model.config, model.attend).to(model.device, dtype)
            self.computing.model.embed_tokens.weight = model.model.embed_tokens.weight
        table = model.model.embed_tokens.weight
        pairs = zip(model.parameters(), self.computing.parameters(), strict=True)
        self.pairs = [(kept, used) for kept, used in pairs if used is not kept and kept is not table]
        # PyTorch's fused attention on a CPU has a slow backward in bfloat16: three times the plain products here.
        self.is_plain = dtype != torch.float32 and model.device.type == "cpu"
        self.open = ExitStack()

    def __enter__(self) -> LlamaForCausalLM:
        with torch.no_grad():
            for kept, used in self.pairs:
                used.copy_(kept)
                used.grad = None
        if self.is_plain:
            self.open.enter_context(sdpa_kernel(SDPBackend.MATH))
        return self.computing

    def __exit__(self, *raised) -> None:
        self.open.close()
        for kept, used in self.pairs:
            kept.grad = None if used.grad is None else used.grad.float()
