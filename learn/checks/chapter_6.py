"""Checks of chapter 6: what `quant/nf4.py` gives is right."""

import torch

from learn.check import Task, Wrong
from quant.nf4 import NF4_CODE, dequantize_nf4, quantize_nf4


def trials_quantize() -> list[tuple]:
    draw = torch.Generator().manual_seed(6)
    return [(torch.randn(rows, columns, generator=draw), NF4_CODE) for rows, columns in ((2, 128), (4, 192), (8, 32))]


def right_quantize(weight, levels):
    packed, scales = quantize_nf4(weight)
    return torch.stack([packed >> 4, packed & 15], dim=1).view(-1).long(), scales


def nearest(blocks, scales, levels):
    scaled = (blocks / scales).reshape(-1, 1)
    return (scaled - levels).abs().argmin(dim=1)


def by_mean(weight, levels):
    blocks = weight.reshape(-1, 64)
    scales = blocks.abs().mean(dim=1)
    return nearest(blocks, scales[:, None], levels), scales


def by_row(weight, levels):
    scales = weight.abs().amax(dim=1)
    return nearest(weight, scales[:, None], levels), scales


def by_matrix(weight, levels):
    scale = weight.abs().max()
    return nearest(weight, scale, levels), scale.repeat(weight.numel() // 64)


def without_sign(weight, levels):
    blocks = weight.reshape(-1, 64)
    scales = blocks.amax(dim=1)
    return nearest(blocks, scales[:, None], levels), scales


def rounded_down(weight, levels):
    blocks = weight.reshape(-1, 64)
    scales = blocks.abs().amax(dim=1)
    below = (blocks / scales[:, None]).reshape(-1, 1) >= levels
    return below.sum(dim=1) - 1, scales


def rounded_up(weight, levels):
    blocks = weight.reshape(-1, 64)
    scales = blocks.abs().amax(dim=1)
    return ((blocks / scales[:, None]).reshape(-1, 1) > levels).sum(dim=1), scales


def not_scaled(weight, levels):
    blocks = weight.reshape(-1, 64)
    return nearest(blocks, 1.0, levels), blocks.abs().amax(dim=1)


def signed(weight, levels):
    blocks = weight.reshape(-1, 64)
    scales = blocks.abs().amax(dim=1)
    return ((blocks / scales[:, None]).reshape(-1, 1) - levels).argmin(dim=1), scales


def by_spread(weight, levels):
    blocks = weight.reshape(-1, 64)
    scales = blocks.std(dim=1)
    return nearest(blocks, scales[:, None], levels), scales


def by_column(weight, levels):
    blocks = weight.T.reshape(-1, 64)
    scales = blocks.abs().amax(dim=1)
    return nearest(blocks, scales[:, None], levels), scales


def evenly(weight, levels):
    blocks = weight.reshape(-1, 64)
    scales = blocks.abs().amax(dim=1)
    return nearest(blocks, scales[:, None], torch.linspace(-1, 1, 16)), scales


def of_halves(codes):
    half = len(codes) // 2
    return (16 * codes[:half] + codes[half:]).to(torch.uint8)


def trials_dequantize() -> list[tuple]:
    return [(*quantize_nf4(weight), levels, tuple(weight.shape)) for weight, levels in trials_quantize()]


def right_dequantize(packed, scales, levels, shape):
    return dequantize_nf4(packed, scales, shape, torch.float32)


def restored(order=lambda high, low: torch.stack([high, low], 1), level=lambda levels, codes: levels[codes],
             scale=lambda scales, n: scales.repeat_interleave(64)):
    """The weights with another order of codes, other levels or other scales."""
    def answer(packed, scales, levels, shape):
        codes = order(packed.long() // 16, packed.long() % 16).reshape(-1)
        return (level(levels, codes) * scale(scales, len(codes))).reshape(shape)
    return answer


TASKS = (
    Task("quantize", trials_quantize, right_quantize, (
        Wrong(by_mean, "each block is divided by the mean of its magnitudes. Then the large weights end up beyond -1 "
                       "and 1 and are cut off there; divide by the largest magnitude"),
        Wrong(by_row, "there is one scale for each row. A block is 64 weights, however long a row is; reshape first"),
        Wrong(by_matrix, "one scale serves the whole matrix. Then most blocks use few of the sixteen levels; give each "
                         "block of 64 its own"),
        Wrong(without_sign, "the scale is the largest number of the block, not the largest magnitude. A block whose "
                            "farthest weight is negative then leaves the range from -1 to 1"),
        Wrong(rounded_down, "each weight goes to the next level below it, not to the nearest. That doubles the error, "
                            "and makes every weight smaller on average"),
        Wrong(rounded_up, "each weight goes to the next level above it, not to the nearest. That doubles the error, "
                          "and makes every weight larger on average"),
        Wrong(signed, "the level is taken whose distance is the smallest number. A distance of -2 is smaller than one "
                      "of 0, and farther: leave out the sign first"),
        Wrong(by_spread, "each block is divided by its standard deviation. Then the large weights end up beyond -1 and "
                         "1 and are cut off there; divide by the largest magnitude"),
        Wrong(by_column, "the blocks are cut column by column; they are 64 neighbours in a row, row after row"),
        Wrong(evenly, "the codes are those of evenly spaced levels; use the levels that are given"),
        Wrong(not_scaled, "the scales are right, but the weights are compared with the levels before they are divided "
                          "by them"),
    )),
    Task("pack", lambda: [(torch.tensor([1, 2, 15, 0]),), (torch.arange(16),), (torch.tensor([3, 3, 9, 4, 0, 12]),)],
         lambda codes: (codes[0::2] << 4 | codes[1::2]).to(torch.uint8), typed=True, wrong=(
        Wrong(lambda codes: (codes[0::2] + 16 * codes[1::2]).to(torch.uint8),
              "the two codes of a byte are the wrong way round: the first belongs into the upper half"),
        Wrong(lambda codes: (codes[0::2] + codes[1::2]).to(torch.uint8),
              "the two codes are added as they are, so nobody can take them apart again; the first has to move into "
              "the upper four bits"),
        Wrong(lambda codes: (10 * codes[0::2] + codes[1::2]).to(torch.uint8),
              "the first code is multiplied by 10. Half a byte counts to 16, so it moves up by a factor of 16"),
        Wrong(of_halves, "the codes of the first half of the list are paired with those of the second half; "
                         "neighbours share a byte"),
    )),
    Task("dequantize", trials_dequantize, right_dequantize, (
        Wrong(restored(order=lambda high, low: torch.stack([low, high], 1)),
              "the two codes of a byte come out the wrong way round: the first is in the upper half"),
        Wrong(restored(order=lambda high, low: torch.stack([high, high], 1)),
              "the upper half of each byte is read twice; the second code is in the lower half"),
        Wrong(restored(order=lambda high, low: torch.stack([high, low])),
              "all upper halves come first, then all lower ones; the two codes of a byte are neighbours"),
        Wrong(restored(scale=lambda scales, n: torch.ones(n)), "the weights are not multiplied by the scales of their "
                                                              "blocks, so all lie between -1 and 1"),
        Wrong(restored(scale=lambda scales, n: 1 / scales.repeat_interleave(64)),
              "the levels are divided by the scales; quantising divided, so now multiply"),
        Wrong(restored(scale=lambda scales, n: scales.repeat(64)),
              "the scales come in turn, one for each weight; each scale serves 64 neighbours"),
        Wrong(restored(level=lambda levels, codes: codes / 7.5 - 1),
              "the codes are taken as evenly spaced levels; look each of them up in `levels`"),
    ), tolerance=1e-6),
)
