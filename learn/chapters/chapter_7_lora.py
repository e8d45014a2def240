"""Chapter 7: LoRA and its gradient

How can a model learn if its weights may not change? And how few numbers are enough?
"""

# %%
import sys
from pathlib import Path

# The project's folder, wherever this file or notebook was opened.
sys.path.insert(0, str(next(folder for folder in Path(globals().get("__file__", "x")).resolve().parents
                            if (folder / "learn").is_dir())))
import torch

from learn.picture import BLUE, GREY, INK, ORANGE, panels, show
from loading import load_model

draw = torch.Generator().manual_seed(7)  # all random numbers below come from here

# %% [markdown]
# ## A layer that stays as it is
#
# A *linear layer* multiplies a vector by a matrix W. For each output number it goes along one row of W, multiplies
# entry by entry with the input, and adds up. Written for many inputs at once, one in each row of x: y = x W^T. The T
# ("transposed") means that rows and columns of W change places.
#
# W was learned once, at great cost, and in 4 bits it cannot be changed in small steps at all: between two neighbouring
# levels there is nothing. So W stays *frozen*, and what is learned goes beside it.

# %%
base = load_model("base", quantize="nf4").model.layers[0].self_attn.q_proj  # in four bits, as in chapter 6
W = base.dense_weight(torch.float32)  # (out, in): what the four bits stand for
x = torch.randn(5, W.shape[1], generator=draw)  # five input vectors
y = x @ W.T  # (5, out)
print(f"W has {W.shape[0]} x {W.shape[1]} = {W.numel():,} numbers; y has shape {tuple(y.shape)}")

# %% [markdown]
# ## Two thin matrices
#
# What is learned is a second matrix, to be added to W. A whole one would be as large as W. LoRA ("low-rank
# adaptation") makes it a product B A of two thin ones: A squeezes the input to r numbers, and B spreads these out
# again. r is the *rank*. Its output is multiplied by s = alpha / r, where alpha is a number that one chooses.

# %%
r, alpha = 4, 8
s = alpha / r
A = (torch.rand(r, W.shape[1], generator=draw) * 2 - 1) / W.shape[1] ** 0.5  # small random numbers
B = torch.zeros(W.shape[0], r)
print(f"A and B together have {A.numel() + B.numel():,} numbers, {(A.numel() + B.numel()) / W.numel():.1%} of W's")


def lora(x: torch.Tensor, A: torch.Tensor, B: torch.Tensor) -> torch.Tensor:
    """The frozen layer and the learned part beside it: (n, in) -> (n, out)."""
    thin = x @ A.T  # (n, r)
    return x @ W.T + s * (thin @ B.T)


assert torch.equal(lora(x, A, B), y)
print("B is zero at the start, so nothing changes yet: the same bits")

# %% [markdown]
# ## Which way to change?
#
# Training needs a *loss*: one number that is small if the output is as wanted. Here it is half the sum of the squared
# distances to a target. The *gradient* of B says, for each number in B, how fast the loss rises if that number is
# raised a little. Go against it, and the loss falls.
#
# One could find a gradient by trying: raise one number a little, compute again, compare. That takes one run for every
# number. The chain rule of school mathematics gives all of them at once. Let dy be the gradient of the output (here y
# minus target). Each y is a sum of products, and the derivative of a product by one factor is the other factor:
#
#     dB = s dy^T (x A^T)          for each number of B: what flowed in there, times what was wanted behind it
#     dA = s (dy B)^T x            the same one step earlier: dy has first to come back through B

# %%
target = y + torch.randn(y.shape, generator=draw)
B = torch.randn(B.shape, generator=draw) * 0.1  # not zero any more, or dA would be


def loss_of(A: torch.Tensor, B: torch.Tensor) -> torch.Tensor:
    """Half the sum of squares between the output and the target."""
    return ((lora(x, A, B) - target) ** 2).sum() / 2


dy = lora(x, A, B) - target  # (5, out)
dB = s * dy.T @ (x @ A.T)  # (out, r)
dA = s * (dy @ B).T @ x  # (r, in)

step = 0.1  # the loss is quadratic in one number of B, so no step is too large, and a small one drowns in rounding
up, down = B.clone(), B.clone()
up[3, 2] += step
down[3, 2] -= step
tried = (loss_of(A, up) - loss_of(A, down)) / (2 * step)
print(f"one number of dB by trying: {tried:.3f}; by the formula: {dB[3, 2]:.3f}")
assert abs(tried - dB[3, 2]) < 0.02 * abs(dB[3, 2])

# %% [markdown]
# PyTorch applies the chain rule by itself, once it is told which numbers want a gradient. It finds the same.

# %%
A_auto, B_auto = A.clone().requires_grad_(), B.clone().requires_grad_()
loss_of(A_auto, B_auto).backward()
print(f"largest difference: dA {(A_auto.grad - dA).abs().max():.1e}, dB {(B_auto.grad - dB).abs().max():.1e}")
assert torch.allclose(A_auto.grad, dA, atol=1e-4) and torch.allclose(B_auto.grad, dB, atol=1e-4)

# %% [markdown]
# At the very start B is zero. Then dA is zero as well: whatever A does, B lets nothing through. So the first step
# changes B alone, and A follows from the second step on. If both were zero, neither would ever move.

# %%
zero = torch.zeros_like(B)
dy_first = lora(x, A, zero) - target
print(f"with B = 0: size of dB {(s * dy_first.T @ (x @ A.T)).norm():.2f}, of dA {(s * (dy_first @ zero).T @ x).norm()}")

# %% [markdown]
# ## The project's own
#
# `lora/layer.py` wraps a layer in the same way, also one in 4 bits: the gradient that goes on to the layers below is
# dx = dy W + s dy B A. It needs W, but no gradient *of* W. That is why the weights may stay in four bits.

# %%
from lora.layer import LoRALinear

layer = LoRALinear.from_base(base, r=r, alpha=alpha)
with torch.no_grad():
    layer.lora_A.copy_(A)
    layer.lora_B.copy_(B)
x_in = x.clone().requires_grad_()
theirs = layer(x_in)
(((theirs - target) ** 2).sum() / 2).backward()
assert torch.allclose(theirs, lora(x, A, B), atol=1e-5)
assert torch.allclose(layer.lora_A.grad, dA, atol=1e-4) and torch.allclose(layer.lora_B.grad, dB, atol=1e-4)
assert torch.allclose(x_in.grad, dy @ W + s * dy @ B @ A, atol=1e-4)
learned = [name for name, _ in layer.named_parameters()]
print(f"output, dA, dB and dx agree; what can be learned: {', '.join(learned)}")

# %% [markdown]
# After training the two can be made one again: W + s B A is an ordinary matrix.

# %%
merged = W + s * B @ A
assert torch.allclose(layer.dense_weight(torch.float32), merged, atol=1e-6)
print(f"merged and beside each other differ by at most {(x @ merged.T - lora(x, A, B)).abs().max():.1e}")

# %% [markdown]
# ## How large a rank?
#
# A test that knows the answer. Let the change that is wanted be a matrix D of rank 4, and learn it with ranks 1, 2, 4
# and 8, by going against the gradient again and again. An update is `B -= rate * dB`, nothing more.

# %%
D = torch.randn(W.shape[0], 4, generator=draw) @ torch.randn(4, W.shape[1], generator=draw) / 40
inputs = torch.randn(512, W.shape[1], generator=draw)
wanted = inputs @ D.T  # what the learned part should give
losses, learned = {}, {}
for rank in (1, 2, 4, 8):
    A = (torch.rand(rank, W.shape[1], generator=draw) * 2 - 1) / W.shape[1] ** 0.5
    B = torch.zeros(W.shape[0], rank)
    losses[rank] = []
    for _ in range(200):
        dy = ((inputs @ A.T) @ B.T - wanted) / len(inputs)  # s = 1 here; the loss is the mean over the inputs
        losses[rank].append(float((dy**2).sum() * len(inputs) / 2))
        dA, dB = (dy @ B).T @ inputs, dy.T @ (inputs @ A.T)
        A -= 0.05 * dA
        B -= 0.05 * dB
    learned[rank] = B @ A
    print(f"rank {rank}: {A.numel() + B.numel():>6,} numbers, loss {losses[rank][0]:.2f} -> {losses[rank][-1]:.4f}")

# %% [markdown]
# ## The picture
#
# Left: ranks 1 and 2 are too poor for this change; rank 4 is enough, and rank 8 gets there too. Right: the *singular
# values* of a matrix say how much it does in its strongest direction, its second, and so on. D has four; each rank
# finds as many as it has room for, the strongest first.

# %%
figure, (left, right) = panels(2)
for (rank, curve), colour, style in zip(losses.items(), (GREY, ORANGE, BLUE, INK), (":", "-.", "-", "--"), strict=True):
    left.plot(curve, color=colour, linestyle=style, label=f"rank {rank}")
left.set(title="Learning a change of rank 4", xlabel="step", ylabel="loss", yscale="log")
left.yaxis.set_major_formatter("{x:g}")
left.legend(frameon=False)
right.bar(range(1, 9), torch.linalg.svdvals(D)[:8].tolist(), color=GREY, alpha=0.5, label="the change that is wanted")
for rank, colour, mark in ((2, ORANGE, "s"), (4, BLUE, "o"), (8, INK, "x")):
    right.plot(range(1, rank + 1), torch.linalg.svdvals(learned[rank])[:rank], mark, color=colour,
               label=f"learned, rank {rank}")
right.set(title="Its strength, direction by direction", xlabel="direction", ylabel="singular value")
right.legend(frameon=False)
show(figure, "chapter_7_lora")

# %% [markdown]
# ## Exercises
#
# Open `learn/exercises/chapter_7.py`. Write `lora_forward` and `lora_gradients`, then `python -m learn check 7`.
#
# That is a command for a terminal in the clone's folder. In a cell of this notebook it is `%run -m learn check 7`.
#
# To think about: why is s alpha / r and not just alpha? (What happens to the size of B A when r is doubled?)
