"""Exercises of chapter 7: LoRA and its gradient. Replace each `raise NotImplementedError`, then check.

`learn/OPERATIONS.md` has PyTorch's operations, each with an example.
"""

import torch


def lora_forward(x: torch.Tensor, W: torch.Tensor, A: torch.Tensor, B: torch.Tensor, alpha: float) -> torch.Tensor:
    """A frozen layer with the learned part beside it.

    x: (n, in), an input in each row; W: (out, in); A: (r, in); B: (out, r). The learned part is scaled by alpha / r.
    Returns (n, out).
    """
    raise NotImplementedError


def lora_gradients(x: torch.Tensor, dy: torch.Tensor, A: torch.Tensor, B: torch.Tensor, s: float
                   ) -> tuple[torch.Tensor, torch.Tensor]:
    """The gradients of A and B, without PyTorch's `backward`.

    x: (n, in); dy: (n, out), the gradient of the layer's output; A: (r, in); B: (out, r); s: the scale, alpha / r.
    Returns dA (r, in) and dB (out, r), summed over the n inputs.
    """
    raise NotImplementedError
