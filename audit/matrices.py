"""What four bits did to one matrix: its error, its worst blocks, its outliers, its codes, its bits.

With W (out, in) as the 16-bit file has it, Q what comes back from NF4, E = W - Q, and x the inputs that arrive:

    relative error     ||E|| / ||W||, Frobenius norms
    weighted error     sqrt(mean ||E x||^2 / mean ||W x||^2) = sqrt(tr(E M E^T) / tr(W M W^T)),   M = mean x x^T
    block's error      the same quotient within a block of 64 weights (row-major over W, as `quant.nf4` has them); the
                       worst blocks are those with the largest shares of ||E||^2
    crest              largest magnitude of a block over its root mean square: what one large weight costs the others
    outliers           weights beyond six standard deviations of their matrix
    bits               stored: codes and scales; used: the entropy of the codes' histogram; by error: the rate at which
                       an ideal code of normal weights makes this error, log2(||W|| / ||E||)

Arithmetic in float64.
"""

import math

import torch

from quant.double_quant import NESTED_BLOCK, Scales, dequantize
from quant.nf4 import BLOCK, block_count, in_blocks

OUTLIER = 6.0  # standard deviations
WORST = 5  # blocks that are listed


def unpack(packed: torch.Tensor, count: int) -> torch.Tensor:
    """The codes of `count` weights, (count,) int64 in 0..15: the first of a byte is in its high half."""
    packed = packed.reshape(-1)
    return torch.stack([packed >> 4, packed & 15], 1).view(-1)[:count].long()


def stored_bits(count: int, double: bool) -> float:
    """Bits a weight that `count` weights in NF4 take, with their scales."""
    blocks = block_count(count)
    scales = 8 * blocks + 32 * (-(-blocks // NESTED_BLOCK) + 1) if double else 32 * blocks
    return (8 * -(-count // 2) + scales) / count


def code_figures(packed: torch.Tensor, scales: Scales, count: int) -> dict:
    """What the four bits tell without the 16-bit weights: codes, bits, and how the scales spread."""
    histogram = torch.bincount(unpack(packed, count), minlength=16)
    shares = histogram.double() / count
    absmax = scales.absmax().double()
    return {"codes": histogram.tolist(), "bits_used": -float(torch.special.xlogy(shares, shares).sum()) / math.log(2),
            "bits_stored": stored_bits(count, scales.is_double),
            "largest_scale_over_median": _quotient(absmax.max(), absmax.median())}


def error_figures(weight: torch.Tensor, packed: torch.Tensor, scales: Scales) -> dict:
    """What four bits did to `weight` (out, in): figures of the module but the weighted one."""
    wide = weight.double()
    error = wide - dequantize(packed, scales, weight.shape, torch.float32).double()
    of_error, of_weight = (in_blocks(part).square().sum(1) for part in (error, wide))  # (blocks,)
    relative = (of_error / of_weight.clamp(min=1e-300)).sqrt() * (of_weight > 0)
    largest = in_blocks(wide).abs().amax(1)
    sizes = torch.full_like(largest, BLOCK)
    sizes[-1] = weight.numel() - BLOCK * (len(sizes) - 1)
    crest = largest / (of_weight / sizes).sqrt().clamp(min=1e-300)
    worst = of_error.argsort(descending=True, stable=True)[:WORST].tolist()
    limit = OUTLIER * wide.std(correction=0)
    whole = _quotient(error.norm(), wide.norm())
    return {"relative_error": whole, "bits_by_error": -math.log2(whole) if whole else None,
            "block_error_median": float(relative.median()), "block_error_largest": float(relative.max()),
            "crest_median": float(crest.median()), "crest_largest": float(crest.max()),
            "outliers": int((wide.abs() > limit).sum()), "outlier_limit": float(limit),
            "worst_blocks": [{"block": block, "row": BLOCK * block // weight.shape[1],
                              "column": BLOCK * block % weight.shape[1], "weights": int(sizes[block]),
                              "share": _quotient(of_error[block], of_error.sum()),
                              "relative_error": float(relative[block]), "largest": float(largest[block]),
                              "crest": float(crest[block])} for block in worst]}


def weighted_error(weight: torch.Tensor, quantised: torch.Tensor, moment: torch.Tensor) -> float:
    """sqrt(tr(E M E^T) / tr(W M W^T)) for W, Q (out, in) and M (in, in)."""
    moment = moment.double()
    wide = weight.double()
    error = wide - quantised.double()
    return _quotient(_power(error, moment), _power(wide, moment)) ** 0.5


def _power(matrix: torch.Tensor, moment: torch.Tensor) -> torch.Tensor:
    """tr(A M A^T): the mean squared length of A x; rounding leaves nothing below 0."""
    return ((matrix @ moment) * matrix).sum().clamp(min=0)


def _quotient(above: torch.Tensor, below: torch.Tensor) -> float:
    return float(above / below) if float(below) else 0.0
