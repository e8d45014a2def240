"""Chapter 3: Attention with shared key/value heads

How does a word look at the others, and why do several heads share one memory?
"""

# %%
import sys
from pathlib import Path

# The project's folder, wherever this file or notebook was opened.
sys.path.insert(0, str(next(folder for folder in Path(globals().get("__file__", "x")).resolve().parents
                            if (folder / "learn").is_dir())))
import math

import torch

from learn.picture import GREY, SHADES, panels, show
from loading import load_model
from model.rope import rotation
from model.tokenizer import load_tokenizer

tokenizer = load_tokenizer("base")
model = load_model("base")
text = "our new neighbours are welcome"
ids = [tokenizer.bos_id, *tokenizer.encode(text)]
names = ["start", *(tokenizer.decode([i]).strip() for i in ids[1:])]
print(names)

# %% [markdown]
# ## Asking and answering
#
# So far each token knows only itself. Attention lets it take something over from the tokens before it. From its vector
# each token makes three others, with three learned matrices:
#
# - a *query*: what am I looking for?
# - a *key*: what do I have to offer?
# - a *value*: what do I give to one who looks at me?
#
# Queries and keys are turned by their position, as in chapter 2. Then a token compares its query with every key by a
# dot product. Let us take the first layer of the base, and look at one of its *heads*: it has several, which look for
# different things.

# %%
layer = model.model.layers[0]
tokens, positions = torch.tensor(ids), torch.arange(len(ids))
x = layer.input_layernorm(model.model.embed_tokens(tokens).float())  # (tokens, D); chapter 4 says what the norm is
rope = rotation(positions, model.model.frequencies(tokens.device), torch.float32)
with torch.no_grad():
    q = layer.self_attn.queries(x, rope)  # (tokens, H, h)
    k, v = layer.self_attn.keys_values(x, rope)  # (tokens, K, h) each
H, K, h = q.shape[1], k.shape[1], q.shape[2]
print(f"{len(ids)} tokens; {H} query heads; {K} key/value heads; {h} numbers in each vector")
scores = q[:, 0] @ k[:, 0].T / math.sqrt(h)  # (tokens, tokens): row asks, column answers
print("what the last token's query gives with each key:", [round(s, 2) for s in scores[-1].tolist()])

# %% [markdown]
# The division by the root of h keeps the scores at a size that does not depend on the length of the vectors: a dot
# product of h random numbers grows like that root.
#
# ## From scores to shares
#
# Scores are turned into shares of one: raise e to each score, divide by the sum. That is the *softmax*. A token gets
# a mixture of the values, in these shares.
#
# One rule more: nobody looks ahead. A model that reads from left to right must not see what comes later. So before the
# softmax, the scores of later tokens are set to minus infinity; e to that is zero. This is the *causal mask*.

# %%
def softmax(scores: torch.Tensor) -> torch.Tensor:
    """Shares of one along the last dimension. The largest is subtracted first, or e to it might be too large."""
    raised = torch.exp(scores - scores.amax(dim=-1, keepdim=True))
    return raised / raised.sum(dim=-1, keepdim=True)


def shares_of(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """How much each token takes from each: queries (T, h) and keys (T, h) -> (T, T), each row a sum of one."""
    scores = q @ k.T / math.sqrt(q.shape[-1])
    later = torch.ones_like(scores).triu(1).bool()  # True above the diagonal
    return softmax(scores.masked_fill(later, -math.inf))


shares = shares_of(q[:, 0], k[:, 0])
for name, row in zip(names, shares.tolist(), strict=True):
    print(f"{name:>12} takes  " + "  ".join(f"{share:4.0%}" for share in row))

# %% [markdown]
# ## Sharing
#
# When a model writes or labels, keys and values of earlier tokens are kept, so that they need not be computed again.
# With long texts this memory becomes larger than anything else. But what one asks can be finer than what is stored:
# so several query heads share one head of keys and values. Query head j reads key/value head j // (H / K): the first
# H / K share the first, the next the second, and so on.

# %%
def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Every head's mixture of values: (T, H, h), (T, K, h), (T, K, h) -> (T, H, h)."""
    group = q.shape[1] // k.shape[1]
    heads = [shares_of(q[:, j], k[:, j // group]) @ v[:, j // group] for j in range(q.shape[1])]
    return torch.stack(heads, dim=1)


mixed = attention(q, k, v)
for name, kept in (("if each query head had its own", H), ("as it is, shared", K)):
    print(f"keys and values of one token, {name}: {2 * kept * h * model.config.num_hidden_layers:,} numbers")

# %% [markdown]
# ## The project's own
#
# `model/attention.py` has this once spelled out, `attend_softmax`, and two faster ways; `model/varlen.py` has a third.
# Sums in another order differ in the last digits, so the comparison allows for that.

# %%
from common.packed import Layout
from model.attention import attend_sdpa, attend_softmax

layout = Layout.rectangle(rows=1, length=len(ids))
for theirs in (attend_softmax, attend_sdpa):
    apart = (theirs(q, k, v, layout) - mixed).abs().max()
    print(f"{theirs.__name__}: differs by at most {apart:.1e}")
    assert apart < 1e-5

# %% [markdown]
# A last matrix, `o_proj`, mixes the heads' results and brings them back to the width of the model.

# %%
with torch.no_grad():
    ours = mixed.reshape(len(ids), -1) @ layer.self_attn.o_proj.weight.float().T
    theirs = layer.self_attn(x, rope, layout, attend_sdpa)
assert torch.allclose(ours, theirs, atol=1e-5)
print(f"the whole of attention: {tuple(ours.shape)}, as it came in")

# %% [markdown]
# ## The picture
#
# Who looks at whom, in the first layer: one square for each query head. A row is the token that looks, a column the
# one that it looks at; dark means a large share. The upper right is empty: nobody looks ahead. The heads that share a
# memory stand side by side; they ask the same keys and still look at different tokens.

# %%
figure, axes = panels(H, width=2.1 * H, height=3.0, sharey=True)
for j, panel in enumerate(axes):
    shown = shares_of(q[:, j], k[:, j // (H // K)])
    panel.imshow(shown.numpy(), cmap=SHADES, vmin=0, vmax=1)
    panel.set_xticks(range(len(names)), names, rotation=90)
    panel.set_yticks(range(len(names)), names)
    panel.set_title(f"query head {j}\nmemory {j // (H // K)}")
    panel.tick_params(color=GREY)
show(figure, "chapter_3_attention")

# %% [markdown]
# ## Exercises
#
# Open `learn/exercises/chapter_3.py`. Write `attention_shares`, `repeat_heads` and `newest_token`, then
# `python -m learn check 3`. Close this chapter while you write the first; the third is not in it: a model that writes
# has the keys and values of all tokens so far, and only the newest token asks.
#
# That is a command for a terminal in the clone's folder. In a cell of this notebook it is `%run -m learn check 3`.
#
# To think about: the first token can only look at itself. What does its row look like, in every head of every model?
