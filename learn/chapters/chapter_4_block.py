"""Chapter 4: The block

What does one layer do with a token's vector, and why does nothing blow up on the way?
"""

# %%
import sys
from pathlib import Path

# The project's folder, wherever this file or notebook was opened.
sys.path.insert(0, str(next(folder for folder in Path(globals().get("__file__", "x")).resolve().parents
                            if (folder / "learn").is_dir())))
import torch

from learn.picture import BLUE, GREY, ORANGE, panels, show
from loading import load_model
from model.rope import rotate, rotation
from model.tokenizer import load_tokenizer

tokenizer = load_tokenizer("base")
model = load_model("base")
config = model.config
ids = torch.tensor([tokenizer.bos_id, *tokenizer.encode("Our village lives again, since families came to stay.")])
weights = {name: tensor.detach().float() for name, tensor in model.named_parameters()}
print(f"{len(ids)} tokens; {config.num_hidden_layers} layers; every token is a vector of {config.hidden_size} numbers")

# %% [markdown]
# ## A river with many sources
#
# Each id picks a row of a table, the *embedding*: that is the token's vector at the start. Then it goes through the
# layers. A layer does not replace the vector. It computes something and *adds* it:
#
#     h   = x + attention(norm(x))      look at the other tokens, add what was found
#     out = h + mlp(norm(h))            think about it alone, add the result
#
# So the vector flows through the model like a river, the *residual stream*, and each part pours something in. Two
# things in this are new: the norm and the MLP.
#
# ## The norm
#
# What is added at each layer makes the stream longer. So each part reads a copy that is brought back to one size:
# divide by the *root mean square*, the root of the mean of the squared numbers. Then each of the numbers is multiplied
# by a learned *gain*. A tiny number under the root keeps a zero vector from being divided by zero.

# %%
def rms_norm(x: torch.Tensor, gain: torch.Tensor, eps: float = config.rms_norm_eps) -> torch.Tensor:
    """Each row of x (tokens, D) with root mean square one, times the gain (D,)."""
    return gain * x / torch.sqrt((x**2).mean(dim=-1, keepdim=True) + eps)


start = weights["model.embed_tokens.weight"][ids]  # (tokens, D)
first = rms_norm(start, torch.ones(config.hidden_size))
before = (start**2).mean(-1).sqrt()
print("root mean square of three tokens before:", [f"{size:.4f}" for size in before[:3].tolist()])
print("and after:", [f"{size:.4f}" for size in (first**2).mean(-1).sqrt()[:3].tolist()])

# %% [markdown]
# ## The MLP
#
# The second part looks at each token alone. It spreads the vector out to more numbers, lets some through and stops
# others, and brings them back to the old width. Two matrices spread it: `up` makes the numbers, `gate` says how far
# each is let through. The gate's curve is called *silu*: x / (1 + e^-x), nearly zero for very negative x, nearly x
# itself for large x. The whole is known as *SwiGLU*.

# %%
def silu(x: torch.Tensor) -> torch.Tensor:
    """The gate's curve."""
    return x / (1 + torch.exp(-x))


def mlp(x: torch.Tensor, name: str) -> torch.Tensor:
    """One layer's MLP: (tokens, D) -> (tokens, D)."""
    gate, up, down = (weights[f"{name}.{part}_proj.weight"] for part in ("gate", "up", "down"))
    return (silu(x @ gate.T) * (x @ up.T)) @ down.T


print("silu of -4, -1, 0, 1, 4:", [round(v, 3) for v in silu(torch.tensor([-4.0, -1, 0, 1, 4])).tolist()])

# %% [markdown]
# ## Attention, from chapter 3

# %%
rope = rotation(torch.arange(len(ids)), model.model.frequencies(ids.device), torch.float32)
later = torch.ones(len(ids), len(ids)).triu(1).bool()


def attention(x: torch.Tensor, name: str) -> torch.Tensor:
    """One layer's attention: (tokens, D) -> (tokens, D)."""
    q, k, v = ((x @ weights[f"{name}.{part}_proj.weight"].T).view(len(x), -1, config.head_dim) for part in "qkv")
    q, k = rotate(q, rope), rotate(k, rope)
    group = q.shape[1] // k.shape[1]
    heads = []
    for j in range(q.shape[1]):
        scores = (q[:, j] @ k[:, j // group].T / config.head_dim**0.5).masked_fill(later, float("-inf"))
        heads.append(scores.softmax(-1) @ v[:, j // group])
    return torch.cat(heads, dim=1) @ weights[f"{name}.o_proj.weight"].T


# %% [markdown]
# ## The whole model
#
# Now the two lines, once for each layer, and a last norm. While we are at it, we note what each part pours in.

# %%
x = start
sizes, poured = [x.norm(dim=-1).mean().item()], {"attention": [], "mlp": []}
for number in range(config.num_hidden_layers):
    name = f"model.layers.{number}"
    added = attention(rms_norm(x, weights[f"{name}.input_layernorm.weight"]), f"{name}.self_attn")
    poured["attention"].append(added.norm(dim=-1).mean().item())
    x = x + added
    added = mlp(rms_norm(x, weights[f"{name}.post_attention_layernorm.weight"]), f"{name}.mlp")
    poured["mlp"].append(added.norm(dim=-1).mean().item())
    x = x + added
    sizes.append(x.norm(dim=-1).mean().item())
    print(f"layer {number}: attention pours in {poured['attention'][-1]:.2f}, the MLP {poured['mlp'][-1]:.2f}; "
          f"the stream is now {sizes[-1]:.2f} long")
final = rms_norm(x, weights["model.norm.weight"])

# %% [markdown]
# ## The project's own
#
# `model/llama.py` has these two lines as `Block.forward`, where the second norm also makes the sum before it. Ours,
# with plain loops, must end in the same vectors.

# %%
from common.packed import Layout

with torch.no_grad():
    theirs = model.model(ids, torch.arange(len(ids)), Layout.rectangle(1, len(ids)), model.attend)
apart = (final - theirs).abs().max() / theirs.abs().max()
assert apart < 1e-5
print(f"after {config.num_hidden_layers} layers the largest difference is {apart:.1e} of the largest number")

# %% [markdown]
# ## What would happen without the norms?
#
# The same model, with every norm and with none, on vectors that are 1, 16, 64 and 256 times as long as the table's.
#
# With norms, each part reads a copy of one size, so what it pours in does not grow with the stream. Without them it
# does. Short vectors, such as the table's own, leave the layers almost without effect: the MLP multiplies two numbers
# that both come from the vector, and two small numbers have a small product. For the same reason long vectors make what
# is poured in grow much faster than the stream, in the next layer again, and so on: three layers are enough to blow it
# up, and large models have dozens.

# %%
def lengths(x: torch.Tensor, norm) -> list[float]:
    """The mean length of the tokens' vectors (tokens, D) at the start and after each layer."""
    found = [x.norm(dim=-1).mean().item()]
    for number in range(config.num_hidden_layers):
        name = f"model.layers.{number}"
        x = x + attention(norm(x, weights[f"{name}.input_layernorm.weight"]), f"{name}.self_attn")
        x = x + mlp(norm(x, weights[f"{name}.post_attention_layernorm.weight"]), f"{name}.mlp")
        found.append(x.norm(dim=-1).mean().item())
    return found


with_norms, without = ({times: lengths(times * start, norm) for times in (1, 16, 64, 256)}
                       for norm in (rms_norm, lambda x, gain: x))
for times in with_norms:
    for name, found in (("with norms:   ", with_norms[times]), ("without norms:", without[times])):
        print(f"{times:3d} times as long, {name} {' -> '.join(f'{size:,.1f}' for size in found)}")

# %% [markdown]
# ## The picture
#
# Left: how long the stream is after each layer, and how much each part pours in. Middle: the four starts with norms
# (lines) and without (dashed). Right: the gate's curve.

# %%
figure, (left, middle, right) = panels(3, width=13)
layers = range(config.num_hidden_layers)
left.plot(range(len(sizes)), sizes, "-o", color=GREY, label="the stream")
left.bar([n + 0.4 for n in layers], poured["attention"], 0.18, color=BLUE, label="poured in by attention")
left.bar([n + 0.6 for n in layers], poured["mlp"], 0.18, color=ORANGE, label="poured in by the MLP")
left.set(title="Mean length of the tokens' vectors", xlabel="layers passed", ylabel="length", xticks=range(len(sizes)))
left.legend(frameon=False)
for found, colour, style, name in ((with_norms, BLUE, "-", "with norms"), (without, ORANGE, "--", "without norms")):
    for times, grown in found.items():
        middle.semilogy(range(len(grown)), grown, style, color=colour, label=name if times == 1 else None)
middle.set(title="Starts of four lengths", xlabel="layers passed", ylabel="length", xticks=range(len(sizes)))
middle.yaxis.set_major_formatter("{x:,.0f}")
middle.legend(frameon=False)
curve = torch.linspace(-6, 6, 200)
right.plot(curve.tolist(), silu(curve).tolist(), color=BLUE, label="silu")
right.plot(curve.tolist(), curve.clamp(min=0).tolist(), "--", color=GREY, label="a plain gate: 0 or x")
right.set(title="What the gate lets through", xlabel="x", ylabel="silu(x)")
right.legend(frameon=False)
show(figure, "chapter_4_block")

# %% [markdown]
# ## Exercises
#
# Open `learn/exercises/chapter_4.py`. Write `rms_norm` and `block`, then `python -m learn check 4`.
#
# That is a command for a terminal in the clone's folder. In a cell of this notebook it is `%run -m learn check 4`.
#
# To think about: if every number of the stream were doubled, what would attention and the MLP see of it?
