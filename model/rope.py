"""Rotary position embedding (Su et al. 2021, arXiv 2104.09864), with Llama 3's scaling of the slow frequencies.

A head's vector is read as h / 2 pairs; pair i at position p is rotated by the angle p * f_i with

    f_i = theta ** (-2 i / h),    i = 0 .. h/2 - 1

so that the product of a rotated query and a rotated key depends on their distance alone. Two conventions pair the
coordinates: (x[2i], x[2i+1]) in Meta's files, (x[i], x[i + h/2]) in Hugging Face's. This is the second, because the
weights are loaded under Hugging Face names with their rows in that order.
"""

import math

import torch

from common.kernels import DTYPES, runs_kernel, works
from model.config import LlamaConfig


def inverse_frequencies(config: LlamaConfig, device=None) -> torch.Tensor:
    """f_i for every pair, in radians per position: (h/2,) float32.

    Llama 3 scaling (Llama 3.1 model card and Meta's reference `apply_scaling`), with wavelength w_i = 2 pi / f_i and
    W = original_max_position_embeddings:

        w_i < W / high_freq_factor      f_i                           fast pairs stay
        w_i > W / low_freq_factor       f_i / factor                  slow pairs are stretched
        in between                      (1 - s) f_i / factor + s f_i   with s = (W / w_i - low) / (high - low)

    Always float32, whatever the model computes in: these are the frequencies that the weights were trained with.
    """
    exponent = torch.arange(0, config.head_dim, 2, dtype=torch.int64, device=device).float() / config.head_dim
    frequencies = 1.0 / (config.rope_theta**exponent)  # (h/2,)
    if config.rope_scaling is None:
        return frequencies
    scaling = config.rope_scaling
    low, high, window = scaling.low_freq_factor, scaling.high_freq_factor, scaling.original_max_position_embeddings
    wavelength = 2 * math.pi / frequencies
    share = (window / wavelength - low) / (high - low)
    between = (1 - share) * frequencies / scaling.factor + share * frequencies
    scaled = torch.where(wavelength > window / low, frequencies / scaling.factor, frequencies)
    is_between = (wavelength >= window / high) & (wavelength <= window / low)
    return torch.where(is_between, between, scaled)


def rotation(positions: torch.Tensor, frequencies: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    """cos and sin of every angle p * f_i: two (N, h/2) tensors in `dtype`; angles in at least float32."""
    compute_dtype = torch.promote_types(dtype, torch.float32)
    angles = positions.to(compute_dtype)[:, None] * frequencies.to(compute_dtype)[None, :]  # (N, h/2)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(x: torch.Tensor, rope: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Rotate every pair (x[i], x[i + h/2]) by its angle: (N, heads, h) -> (N, heads, h), in x's dtype.

        y[i]       = x[i] cos - x[i + h/2] sin
        y[i + h/2] = x[i + h/2] cos + x[i] sin
    """
    if _runs_kernel(rope, x):
        from model.rope_triton import rotate_kernel

        return rotate_kernel(rope, x)[0]
    cos, sin = (part[:, None, :] for part in rope)  # (N, 1, h/2), the same for all heads
    first, second = x.chunk(2, dim=-1)  # (N, heads, h/2) each
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def rotate_both(q: torch.Tensor, k: torch.Tensor, rope: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """`rotate(q, rope), rotate(k, rope)`; on a card in one kernel: (N, H, h), (N, K, h) -> the same."""
    if _runs_kernel(rope, q, k):
        from model.rope_triton import rotate_kernel

        return rotate_kernel(rope, q, k)
    return rotate(q, rope), rotate(k, rope)


def _runs_kernel(rope: tuple[torch.Tensor, ...], *tensors: torch.Tensor) -> bool:
    return (runs_kernel(*rope, *tensors) and rope[0].dtype in DTYPES and all(x.dtype == rope[0].dtype for x in tensors)
            and works("model.rope_triton", *rope[:1], rope[0].shape[-1], *(x.shape[1] for x in tensors)))
