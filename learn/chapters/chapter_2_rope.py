"""Chapter 2: RoPE and the llama3 scaling

Attention compares words and does not see their order. How does a model know who bites whom?
"""

# %%
import sys
from pathlib import Path

# The project's folder, wherever this file or notebook was opened.
sys.path.insert(0, str(next(folder for folder in Path(globals().get("__file__", "x")).resolve().parents
                            if (folder / "learn").is_dir())))
import math

import torch

from learn.picture import BLUE, GREY, ORANGE, panels, show
from loading import load_model

draw = torch.Generator().manual_seed(2)

# %% [markdown]
# ## The hand of a clock
#
# “Dog bites man” and “man bites dog” have the same words. In the next chapter each token looks at the others by
# comparing vectors: it asks with one vector, the *query*, and the others answer with theirs, the *key*. The comparison
# is a *dot product*: multiply entry by entry, add up. Nothing in it knows who stands where.
#
# The remedy is to turn the vectors. Take two numbers as a point in the plane, and turn the point around the origin by
# an angle that grows with the position, like the hand of a clock.

# %%
def turn(pair: torch.Tensor, angle: float) -> torch.Tensor:
    """A point (x, y) turned around the origin by `angle`, in radians."""
    x, y = pair
    return torch.stack([x * math.cos(angle) - y * math.sin(angle), y * math.cos(angle) + x * math.sin(angle)])


query, key = torch.tensor([1.0, 0.5]), torch.tensor([0.8, -0.3])
for position in (0, 1, 2):
    print(f"position {position}: the query is {[round(v, 3) for v in turn(query, 0.4 * position).tolist()]}")

# %% [markdown]
# Now the point of it. Turn the query by its position and the key by its own. The dot product depends on the angle
# between them, so on the *distance* of the two positions, and not on where in the text they stand.

# %%
for at, other in ((5, 3), (105, 103), (5, 4)):
    product = float(turn(query, 0.4 * at) @ turn(key, 0.4 * other))
    print(f"query at {at:3d}, key at {other:3d}, distance {at - other}: {product:.4f}")

# %% [markdown]
# ## Many hands
#
# One hand comes round and shows the same again. A clock has several, at different speeds. A vector of h numbers has
# h / 2 pairs; pair i turns by f_i = theta^(-2 i / h) at each position, the first fastest. How the numbers are paired
# is a convention: here, number i goes with number i + h / 2.

# %%
config = load_model("base").config
h, theta = config.head_dim, config.rope_theta
frequencies = torch.tensor([theta ** (-2 * i / h) for i in range(h // 2)])  # radians per position
wavelength = 2 * math.pi / frequencies  # positions until a pair has come round
print(f"the base: vectors of {h} numbers, {h // 2} pairs, theta {theta:,.0f}")
print(f"the fastest pair comes round after {wavelength[0]:.1f} positions, the slowest after {wavelength[-1]:,.0f}")


def rotate_vector(x: torch.Tensor, position: int, frequencies: torch.Tensor) -> torch.Tensor:
    """One vector (h,), each pair (x[i], x[i + h/2]) turned by position * f_i."""
    half = len(x) // 2
    result = torch.empty_like(x)
    for i in range(half):
        result[i], result[i + half] = turn(torch.stack([x[i], x[i + half]]), float(position * frequencies[i]))
    return result


x = torch.randn(h, generator=draw)
print(f"turning keeps the length: {x.norm():.4f} before, {rotate_vector(x, 9, frequencies).norm():.4f} after")

# %% [markdown]
# ## Longer texts than before: the llama3 scaling
#
# A model learns with texts up to some length, its *window*. Later one wants longer texts. The fast pairs have come
# round many times within the window and have seen every angle; more positions show them nothing new. A slow pair has
# not come round once; beyond the window it would reach angles at which the model never learned anything.
#
# So the slow pairs are slowed down further, by a factor, the fast ones stay as they are, and in between it goes over
# smoothly. How often a pair comes round in the window decides: more than `high` times, less than `low`, or between.

# %%
scaling = config.rope_scaling
low, high, factor = scaling.low_freq_factor, scaling.high_freq_factor, scaling.factor
window = scaling.original_max_position_embeddings
print(f"window {window:,}, factor {factor:g}, low {low:g}, high {high:g}")


def scaled(f: float) -> float:
    """One frequency after llama3's scaling."""
    turns = window * f / (2 * math.pi)  # how often the pair comes round in the window
    if turns > high:
        return f
    if turns < low:
        return f / factor
    share = (turns - low) / (high - low)  # 1 at the fast end, 0 at the slow end
    return share * f + (1 - share) * f / factor


slower = torch.tensor([scaled(f) for f in frequencies.tolist()])
slowed = slower < frequencies / factor * 1.01
for name, chosen in (("stay", slower == frequencies), ("are slowed by the factor", slowed)):
    print(f"{int(chosen.sum())} of {h // 2} pairs {name}")

# %% [markdown]
# ## The project's own
#
# `model/rope.py` computes all tokens and all heads at once. Its frequencies and its turned vectors are ours, up to the
# last of the seven digits or so that a 32-bit number holds.

# %%
from model.rope import inverse_frequencies, rotate, rotation

theirs = inverse_frequencies(config)
assert torch.allclose(slower, theirs, rtol=1e-6, atol=0)
positions = torch.tensor([0, 1, 7, 300])
vectors = torch.randn(4, 2, h, generator=draw)  # (tokens, heads, h)
turned = rotate(vectors, rotation(positions, theirs, torch.float32))
ours = torch.stack([torch.stack([rotate_vector(head, int(p), theirs) for head in token])
                    for p, token in zip(positions, vectors, strict=True)])
assert torch.allclose(ours, turned, atol=1e-5)
print(f"frequencies differ by at most {((slower - theirs) / theirs).abs().max():.1e} of their size, turned vectors by "
      f"at most {(ours - turned).abs().max():.1e}")

# %% [markdown]
# ## The picture
#
# Left: a vector with itself, turned by its distance. Near ones match best, with ups and downs: where query and key are
# alike, a token sees its neighbours better than far ones. Where they are not, another distance may match best; what is
# asked and offered is learned. Right: what the scaling does to each pair of the base.

# %%
figure, (left, right) = panels(2)
distances = torch.arange(0, 200)
left.plot(distances, torch.cos(distances[:, None] * slower).mean(1).tolist(), color=BLUE)
left.set(title="A vector of equal numbers, compared with itself", xlabel="distance in tokens",
         ylabel="dot product, 1 at distance 0")
right.semilogy(range(1, h // 2 + 1), wavelength.tolist(), "o", color=GREY, label="before")
right.semilogy(range(1, h // 2 + 1), (2 * math.pi / slower).tolist(), "x", color=BLUE, label="after")
for many, name in ((high, "comes round `high` times"), (low, "comes round `low` times")):
    right.axhline(window / many, color=ORANGE, linewidth=0.8)
    right.text(1, window / many * 1.15, name, color=ORANGE, fontsize=8)
right.yaxis.set_major_formatter("{x:,.0f}")
right.set(title="Positions until a pair has come round", xlabel="pair, the fastest first", ylabel="positions")
right.legend(frameon=False, loc="upper left")
show(figure, "chapter_2_rope")

# %% [markdown]
# ## Exercises
#
# Open `learn/exercises/chapter_2.py`. Write `rotate_vector` and `scaled_frequency`, then `python -m learn check 2`.
# Close this chapter while you write; a `rotate_vector` without a loop is shorter.
#
# That is a command for a terminal in the clone's folder. In a cell of this notebook it is `%run -m learn check 2`.
#
# To think about: the next chapter has a third kind of vector beside queries and keys, the values, which are what a
# token hands over. They are not turned. Why not?
