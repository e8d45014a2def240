"""Solutions of chapter 6."""

import torch


def quantize(weight: torch.Tensor, levels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes and scales of a matrix: the nearest level after dividing by the block's largest magnitude."""
    blocks = weight.reshape(-1, 64)
    scales = blocks.abs().amax(dim=1)
    scaled = blocks / scales[:, None]
    codes = (scaled.reshape(-1, 1) - levels).abs().argmin(dim=1)
    return codes, scales


def pack(codes: torch.Tensor) -> torch.Tensor:
    """Two codes in each byte, the first in the upper half."""
    return (16 * codes[0::2] + codes[1::2]).to(torch.uint8)


def dequantize(packed: torch.Tensor, scales: torch.Tensor, levels: torch.Tensor, shape: tuple[int, int]
               ) -> torch.Tensor:
    """Upper and lower halves side by side, each code's level, times the scale of its block."""
    whole = packed.long()  # a byte cannot index, and 16 times a code would not fit
    codes = torch.stack([whole // 16, whole % 16], dim=1).reshape(-1)
    return (levels[codes].reshape(-1, 64) * scales[:, None]).reshape(shape)
