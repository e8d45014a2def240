"""Chapter 6: NF4 by hand

A weight takes 16 bits. What is lost if it is stored in four?
"""

# %%
import sys
from pathlib import Path

# The project's folder, wherever this file or notebook was opened.
sys.path.insert(0, str(next(folder for folder in Path(globals().get("__file__", "x")).resolve().parents
                            if (folder / "learn").is_dir())))
from statistics import NormalDist

import torch

from learn.picture import BLUE, GREY, ORANGE, panels, show
from loading import load_model

# %% [markdown]
# ## The weights
#
# A model is mostly matrices: tables of numbers that were learned, its *weights*. Here is one of them, from the small
# base that comes with this project. `float` makes ordinary 32-bit numbers of its 16-bit ones.

# %%
weight = load_model("base").model.layers[0].mlp.up_proj.weight.float()
print(f"{weight.shape[0]} rows, {weight.shape[1]} columns, {weight.numel():,} numbers")
print(f"smallest {weight.min():.3f}, largest {weight.max():.3f}, standard deviation {weight.std():.3f}")
print("the first five:", [round(x, 4) for x in weight[0, :5].tolist()])

# %% [markdown]
# Four bits can tell sixteen things apart: 0000, 0001, ... 1111. So each weight has to be replaced by one of sixteen
# *levels*, and only the level's number, its *code*, is stored. Which sixteen? If they are the same for all weights,
# they must fit the largest and the smallest. That wastes them, as most weights are small.
#
# ## Blocks
#
# The remedy: cut the weights into blocks of 64 neighbours, and divide each block by its largest magnitude. (The
# *magnitude* of a number is the number without its sign.) Then every block reaches -1 or 1 and goes no further, and
# one set of levels fits all. The divisor, the block's *scale*, has to be stored as well, once for 64 weights.

# %%
blocks = weight.reshape(-1, 64)  # (blocks, 64): row by row, 64 at a time
scales = blocks.abs().amax(dim=1)  # (blocks,): the largest magnitude of each
scaled = blocks / scales[:, None]  # now within -1 and 1
print(f"{len(blocks):,} blocks; the first has scale {scales[0]:.4f}")
print(f"after dividing: from {scaled.min():.1f} to {scaled.max():.1f}")

# %% [markdown]
# ## Sixteen levels
#
# Evenly spaced levels would be the simplest choice. But trained weights look like draws from a bell curve, the normal
# distribution: many near zero, few far out. Levels should lie where the weights are.
#
# NF4 ("normal float, 4 bits") takes *quantiles* of the bell curve. The 30 % quantile, say, is the point that has 30 %
# of all draws below it. `inv_cdf` gives it. NF4 takes eight quantiles on the positive side, seven on the negative,
# and an exact zero. All are then divided by the largest. `edge` is the outermost quantile that its authors chose.

# %%
edge = 0.9677083
quantile = NormalDist().inv_cdf
positive = [quantile(edge + (0.5 - edge) * i / 8) for i in range(8)]
negative = [-quantile(edge + (0.5 - edge) * i / 7) for i in range(7)]
levels = torch.tensor(sorted([*positive, 0.0, *negative])) / max(positive)
for code, level in enumerate(levels.tolist()):
    print(f"code {code:2d} = {code:04b}   level {level:+.4f}")

# %% [markdown]
# ## Codes and bytes
#
# Each scaled weight gets the code of the nearest level. A computer's smallest piece of memory is a byte, eight bits, so
# two codes share one: the first in the upper half, the second in the lower. Moving a code into the upper half means to
# multiply it by 16.

# %%
distance = (scaled.reshape(-1, 1) - levels).abs()  # (weights, 16)
codes = distance.argmin(dim=1)  # (weights,), each 0 ... 15
packed = (16 * codes[0::2] + codes[1::2]).to(torch.uint8)  # (weights / 2,)
print("codes", codes[:4].tolist(), "become bytes", packed[:2].tolist())
bits = 8 * (packed.numel() + 4 * scales.numel()) / weight.numel()  # a scale takes four bytes
print(f"{bits} bits a weight, scales included")

# %% [markdown]
# ## And back
#
# To compute with the weights again, look up each code's level and multiply it by its block's scale.

# %%
back = (levels[codes].reshape(-1, 64) * scales[:, None]).reshape(weight.shape)
error = (back - weight).abs()
print(f"largest error {error.max():.4f}, mean error {error.mean():.5f}")
print(f"size of the error beside the size of the weights: {(back - weight).norm() / weight.norm():.1%}")

# %% [markdown]
# ## The project's own
#
# `quant/nf4.py` does the same for real models, and gives the bits that the library bitsandbytes gives. In one detail it
# goes another way: it multiplies by 1 / scale instead of dividing. The two could differ in a last digit, and for a
# weight in the middle between two levels that decides the code. In the whole base there is no such weight; here is one
# that was made up. To be sure of the same bytes for every model, we do as the project does from here on.

# %%
from quant.nf4 import NF4_CODE, dequantize_nf4, quantize_nf4

print(f"our levels differ from its by at most {(levels - NF4_CODE).abs().max():.1e}")
middles = (NF4_CODE[:-1] + NF4_CODE[1:]) / 2
scale, made_up = torch.tensor(0.101), torch.tensor(-0.034307621)
for name, small in (("divided by 0.101", made_up / scale), ("multiplied by 1 / 0.101", made_up * (1 / scale))):
    print(f"the weight {made_up:.9f} {name} gets code {int(torch.bucketize(small, middles))}")
their_packed, their_scales = quantize_nf4(weight)
codes = torch.bucketize((blocks * (1 / scales)[:, None]).reshape(-1), middles)  # how many middles lie below
packed = (16 * codes[0::2] + codes[1::2]).to(torch.uint8)
back = (NF4_CODE[codes].reshape(-1, 64) * scales[:, None]).reshape(weight.shape)
assert torch.equal(packed, their_packed) and torch.equal(scales, their_scales)
assert torch.equal(back, dequantize_nf4(their_packed, their_scales, weight.shape, torch.float32))
print("every byte, every scale and every weight that comes back: the same bits")

# %% [markdown]
# ## Was it worth it?
#
# The same weights with other levels and other blocks. Smaller blocks cost more bits for scales; one scale for all
# costs next to none and loses most. And the smaller the block, the less far its largest weight stands out: in blocks
# of 16, even levels do as well as NF4's.

# %%
def relative_error(levels: torch.Tensor, size: int) -> float:
    """How large the error is beside the weights, with these levels and blocks of this size."""
    blocks = weight.reshape(-1, size)
    scales = blocks.abs().amax(dim=1, keepdim=True)
    codes = torch.bucketize(blocks / scales, (levels[:-1] + levels[1:]) / 2)
    return float((levels[codes] * scales - blocks).norm() / weight.norm())


even = torch.linspace(-1, 1, 16)
sizes = [16, 64, 256, weight.numel()]
found = {name: [relative_error(chosen, size) for size in sizes] for name, chosen in
         (("NF4's levels", NF4_CODE), ("even levels", even))}
for size, *pair in zip(sizes, *found.values(), strict=True):
    print(f"blocks of {size:>6,}: {4 + 32 / size:6.3f} bits a weight, error {pair[0]:6.1%} with NF4's levels, "
          f"{pair[1]:6.1%} with even ones")

# %% [markdown]
# ## The picture
#
# Left: all scaled weights and the sixteen levels. The levels crowd where the weights are. Right: one block before and
# after. Each point has moved to the nearest level of its block.

# %%
figure, (left, right) = panels(2)
left.hist(scaled.reshape(-1).numpy(), bins=120, color=GREY, alpha=0.6)
for level in NF4_CODE.tolist():
    left.axvline(level, color=ORANGE, linewidth=1)
left.set(title="Scaled weights, and NF4's sixteen levels", xlabel="weight / largest magnitude of its block",
         ylabel="weights", xlim=(-1.02, 1.02))
for level in (NF4_CODE * scales[0]).tolist():
    right.axhline(level, color=ORANGE, linewidth=0.5, alpha=0.6)
right.plot(blocks[0].numpy(), "o", color=GREY, markersize=4, label="before: 16 bits")
right.plot(back.reshape(-1, 64)[0].numpy(), "x", color=BLUE, markersize=4, label="after: 4 bits")
right.set(title="One block of 64 weights", xlabel="place in the block", ylabel="weight")
right.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
show(figure, "chapter_6_nf4")

# %% [markdown]
# ## Exercises
#
# Open `learn/exercises/chapter_6.py`. Write `quantize`, `pack` and `dequantize`, then `python -m learn check 6`. Close
# this chapter while you write the first; how a byte gives its two codes back is for you to find.
#
# That is a command for a terminal in the clone's folder. In a cell of this notebook it is `%run -m learn check 6`.
#
# To think about: a block holds 63 small weights and one that is a hundred times larger. What happens to the small ones?
