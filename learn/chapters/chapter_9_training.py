"""Chapter 9: Training, evaluation and what an interval is

Has the model learned anything? And how sure can one be?
"""

# %%
import sys
from pathlib import Path

# The project's folder, wherever this file or notebook was opened.
sys.path.insert(0, str(next(folder for folder in Path(globals().get("__file__", "x")).resolve().parents
                            if (folder / "learn").is_dir())))
import json
import math
from collections import Counter

import torch

from common.files import ROOT
from data.batching import make_batch
from data.codebook import load_codebook
from data.languages import language_name
from data.prompt import Prompt
from data.readers import read_posts
from data.sampling import order_by_epoch
from learn.picture import BLUE, GREY, INK, ORANGE, panels, show
from loading import load_model
from model.tokenizer import load_tokenizer
from quant.nf4 import NF4_CODE
from report.intervals import wilson as project

# %% [markdown]
# ## The parts
#
# This is the chapter in which everything comes together: a fine-tune of the base, in four bits, and every line of the
# mathematics is ours. From the project come the files' contents, the prompts and the packing of chapter 8. To begin
# with, frozen weights in four bits (chapter 6):

# %%
class FourBits:
    """A frozen matrix in NF4: two codes in a byte, a scale for each block of 64."""

    def __init__(self, weight: torch.Tensor):
        self.shape, blocks = weight.shape, weight.reshape(-1, 64)
        self.scales = blocks.abs().amax(dim=1, keepdim=True)
        codes = torch.bucketize((blocks / self.scales).reshape(-1), (NF4_CODE[:-1] + NF4_CODE[1:]) / 2)
        self.packed = (16 * codes[0::2] + codes[1::2]).to(torch.uint8)

    def dense(self) -> torch.Tensor:
        """The matrix, made anew each time that it is needed."""
        codes = torch.stack([self.packed >> 4, self.packed & 15], dim=1).reshape(-1, 64).int()
        return (NF4_CODE[codes] * self.scales).reshape(self.shape)


weights = {name: tensor.detach().float() for name, tensor in load_model("base").named_parameters()}
config = json.loads((ROOT / "base/config.json").read_text(encoding="utf-8"))
frozen = {name: FourBits(weight) for name, weight in weights.items() if "_proj" in name}
table = weights["model.embed_tokens.weight"]
print(f"{len(frozen)} matrices in four bits: {sum(w.packed.numel() + 4 * w.scales.numel() for w in frozen.values()):,} "
      f"bytes instead of {sum(2 * weights[name].numel() for name in frozen):,}")

# %% [markdown]
# Two thin matrices beside each (chapter 7). A copy of them, `learned`, is all that will change.

# %%
r, alpha, draw, thin = 16, 32, torch.Generator().manual_seed(123), {}
for name, w in frozen.items():
    edge = 1 / math.sqrt(w.shape[1])
    thin[name] = (torch.empty(r, w.shape[1]).uniform_(-edge, edge, generator=draw), torch.zeros(w.shape[0], r))
print(f"{sum(part.numel() for pair in thin.values() for part in pair):,} numbers to learn")


def linear(name: str, x: torch.Tensor) -> torch.Tensor:
    """One layer of the model: frozen, and learned beside it."""
    A, B = learned[name]
    return x @ frozen[name].dense().T + alpha / r * (x @ A.T) @ B.T


# %% [markdown]
# The model (chapters 2, 3, 4), for a line of packed tokens with its mask (chapter 8):

# %%
D, H, K, h = (config[key] for key in ("hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim"))
frequencies = load_model("base").model.frequencies(torch.device("cpu"))


def norm(name: str, x: torch.Tensor) -> torch.Tensor:
    return weights[f"{name}.weight"] * x / torch.sqrt((x**2).mean(-1, keepdim=True) + config["rms_norm_eps"])


def turned(x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    angle = (positions[:, None] * frequencies)[:, None]
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin()], dim=-1)


def label_scores(batch) -> torch.Tensor:
    """The scores of the labels for a packed batch: (rows, labels)."""
    x, place = table[batch.tokens], torch.arange(len(batch.tokens))
    row = torch.bucketize(place, torch.tensor(batch.layout.row_start[:-1]), right=True)
    seen = (place <= place[:, None]) & ((row == row[:, None]) | (place < batch.layout.prefix_len))
    for number in range(config["num_hidden_layers"]):
        name = f"model.layers.{number}"
        a = norm(f"{name}.input_layernorm", x)
        q, k, v = (linear(f"{name}.self_attn.{part}_proj.weight", a).view(len(x), -1, h) for part in "qkv")
        q, k = turned(q, batch.positions), turned(k, batch.positions)
        k, v = (part.repeat_interleave(H // K, dim=1) for part in (k, v))
        scores = torch.einsum("ihd,jhd->hij", q, k) / math.sqrt(h)
        shares = scores.masked_fill(~seen, -math.inf).softmax(dim=-1)
        mixed = torch.einsum("hij,jhd->ihd", shares, v).reshape(len(x), -1)
        x = x + linear(f"{name}.self_attn.o_proj.weight", mixed)
        b = norm(f"{name}.post_attention_layernorm", x)
        gate, up = (linear(f"{name}.mlp.{part}_proj.weight", b) for part in ("gate", "up"))
        x = x + linear(f"{name}.mlp.down_proj.weight", gate * torch.sigmoid(gate) * up)
    return norm("model.norm", x[batch.answer_index]) @ table[prompt.label_ids].T


# %% [markdown]
# ## The posts
#
# The model learns from posts in English and Spanish only. It will be tested on other posts, in thirteen languages.

# %%
book, tokenizer = load_codebook(), load_tokenizer("base")
prompt = Prompt(book, tokenizer, template="instruction-first")
train, test = (read_posts([ROOT / f"data/samples/{part}.jsonl"], codebook=book)[0] for part in ("train", "test"))
train = [post for post in train if post.language in ("en", "es")]
rows, gold = [prompt.encode(post.text) for post in train], torch.tensor([book.index(post.label) for post in train])
shared = len(prompt.prefix_ids)
print(f"{len(train)} posts to learn from, {len(test)} to test on; labels: {', '.join(book.labels)}")

# %% [markdown]
# ## Learning
#
# The loss of a post is minus the logarithm of the probability that its right label got: 0 if the model was sure and
# right, large if it was sure and wrong. A constant answer, each label as often as it occurs, has a known loss. A model
# that stays there has learned nothing from the posts.
#
# A gradient says which way to go, not how far. *AdamW* keeps two running means for each number: of its gradient, and
# of the gradient's square. It goes by the first divided by the root of the second: numbers whose gradient always
# points the same way go fast, those whose gradient swings go slowly. Both means begin at zero and would be too small
# at first; dividing by 1 - beta^step mends that. (The W is *weight decay*, none here; the exercise has some.)

# %%
def adamw(rate: float, step: int, beta_1: float = 0.9, beta_2: float = 0.999, eps: float = 1e-8) -> None:
    """Change every learned number a little, against its gradient."""
    for part, (m, v) in zip(numbers, means, strict=True):
        m.mul_(beta_1).add_((1 - beta_1) * part.grad)
        v.mul_(beta_2).add_((1 - beta_2) * part.grad**2)
        part -= rate * (m / (1 - beta_1**step)) / ((v / (1 - beta_2**step)).sqrt() + eps)
        part.grad = None  # the next step begins anew


epochs, size, top = 3, 8, 2e-3  # rounds through all posts, posts in a step, the first step's rate
order, per_epoch = order_by_epoch(train, seed=123), math.ceil(len(train) / size)
learned = {name: [part.clone().requires_grad_() for part in pair] for name, pair in thin.items()}
numbers = [part for pair in learned.values() for part in pair]
means = [(torch.zeros_like(part), torch.zeros_like(part)) for part in numbers]
losses, total = [], epochs * per_epoch
for step in range(total):
    epoch, place = divmod(step, per_epoch)
    chosen = list(order(epoch))[place * size : (place + 1) * size]
    right = label_scores(make_batch(rows, chosen, shared)).log_softmax(dim=-1)[range(len(chosen)), gold[chosen]]
    loss = -right.mean()
    loss.backward()
    with torch.no_grad():
        length = math.sqrt(sum(float((part.grad**2).sum()) for part in numbers))
        for part in numbers:
            part.grad *= min(1.0, 1.0 / (length + 1e-6))  # a gradient longer than 1 is shortened
        adamw(top * (1 - step / total), step + 1)  # the steps become smaller towards the end
    losses.append(loss.item())
times = Counter(post.label for post in train)
constant = -sum(n / len(train) * math.log(n / len(train)) for n in times.values())
print(f"loss of the first step {losses[0]:.3f}, of the last five {sum(losses[-5:]) / 5:.3f}; of a constant answer "
      f"{constant:.3f}")

# %% [markdown]
# ## The project's own
#
# `finetune/loop.py` with the same settings must take the same steps. Rounding errors grow with each step, so the first
# three are compared.

# %%
from finetune.loop import Recipe, Trainer
from lora.inject import inject

theirs = load_model("base", quantize="nf4")
inject(theirs, ["all-linear"], r, alpha, generator=torch.Generator().manual_seed(123))
recipe = Recipe(top, "linear", 0.0, 0.0, 1.0, size, "label")
trainer = Trainer(theirs, rows, gold.tolist(), [1.0] * len(rows), prompt.label_ids, order, prompt.prefix_ids, recipe,
                  total, micro_tokens=8192)
beside = [float(trainer.step()["loss"]) for _ in range(3)]
print("our first losses:  ", [f"{loss:.5f}" for loss in losses[:3]])
print("the project's own: ", [f"{loss:.5f}" for loss in beside])
assert all(abs(a - b) < 1e-3 for a, b in zip(losses[:3], beside, strict=True))

# %% [markdown]
# ## Evaluation
#
# Now posts that it has never seen. *Accuracy*: the share that got the post's label, which here a language model gave.

# %%
answers = []
with torch.no_grad():
    encoded = [prompt.encode(post.text) for post in test]
    for start in range(0, len(test), size):
        part = range(start, min(start + size, len(test)))
        answers += [book.labels[i] for i in label_scores(make_batch(encoded, part, shared)).argmax(dim=-1).tolist()]
hits = [answer == post.label for answer, post in zip(answers, test, strict=True)]
common, often = Counter(post.label for post in test).most_common(1)[0]
print(f"right: {sum(hits)} of {len(hits)}, {sum(hits) / len(hits):.1%}; always “{common}”: {often / len(test):.1%}")

# %% [markdown]
# Accuracy hides a label that is never found, if it is rare. *F1* of a label balances two shares: of the posts that got
# the label, how many rightly; of those that should have, how many did. *Macro-F1* is the mean over the labels, rare
# ones like frequent ones.

# %%
def f1(label: str) -> float:
    """2 * right / (2 * right + wrongly given + missed)."""
    given, wanted = answers.count(label), sum(post.label == label for post in test)
    right = sum(hit and post.label == label for hit, post in zip(hits, test, strict=True))
    return 2 * right / (given + wanted)


print("; ".join(f"{label} {f1(label):.2f}" for label in book.labels))
print(f"macro-F1 {sum(map(f1, book.labels)) / len(book.labels):.3f}")

# %% [markdown]
# ## What an interval is
#
# Another sample of posts would have given another figure. An *interval* says which true accuracies are compatible with
# the sample that we have. A 95 % interval is a rule that, used again and again on new samples, should cover the truth
# in 95 of 100 cases. *Wilson's* rule takes all truths for which our sample would not be surprising. It keeps to the 95
# on average over truths, but not for each. The textbook rule, p plus or minus 1.96 * sqrt(p (1 - p) / n), is as good
# near the middle; near 0 and 1 it fails.

# %%
def wilson(k: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """The 95 % interval for k right of n."""
    half = z * math.sqrt(k * (n - k) / n + z * z / 4)
    return (k + z * z / 2 - half) / (n + z * z), (k + z * z / 2 + half) / (n + z * z)


def textbook(k: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """The rule that most books print."""
    p = k / n
    return p - z * math.sqrt(p * (1 - p) / n), p + z * math.sqrt(p * (1 - p) / n)


def covers(rule, truth: float, n: int) -> float:
    """How often the rule covers the truth, over all samples of n that there can be, each as likely as it is."""
    return sum(math.comb(n, k) * truth**k * (1 - truth) ** (n - k) for k in range(n + 1)
               if rule(k, n)[0] <= truth <= rule(k, n)[1])


for name, rule in (("Wilson's", wilson), ("the textbook's", textbook)):
    shares = {place / 1000: covers(rule, place / 1000, 25) for place in range(1, 1000)}
    worst, mean = min(shares, key=shares.get), sum(shares.values()) / len(shares)
    print(f"25 posts, {name} rule covers truth", ", ".join(f"{p:.0%} in {shares[p]:.1%}" for p in (0.6, 0.8, 0.95)),
          f"of samples; on average {mean:.1%}; at worst {shares[worst]:.1%}, for {worst:.1%}")
assert all(abs(a - b) < 1e-6 for k in range(26) for a, b in zip(wilson(k, 25), project(k, 25), strict=True))
low, high = wilson(sum(hits), len(hits))
print(f"all languages: {sum(hits) / len(hits):.1%}, 95 % interval {low:.1%} to {high:.1%}")

# %% [markdown]
# ## The picture
#
# Left: the loss of each step, and a constant answer's. Right: accuracy by language. With 25 posts in most of them, the
# intervals are wide: hardly two languages can be told apart. All together show clearly that something was learned.

# %%
figure, (left, right) = panels(2, width=11, height=4.4)
left.plot(range(1, total + 1), losses, color=BLUE, label="our fine-tune")
left.axhline(constant, color=ORANGE, linestyle="--", label="a constant answer")
left.set(title="Learning from posts in two languages", xlabel="step", ylabel="loss", ylim=(0, None))
left.legend(frameon=False)
found = {"all": hits}
for post, hit in zip(test, hits, strict=True):
    found.setdefault(post.language, []).append(hit)
shown = ["all", "en", "es", *sorted(set(found) - {"all", "en", "es"}, key=language_name)]
for place, name in enumerate(shown):
    k, n = sum(found[name]), len(found[name])
    colour = INK if name == "all" else BLUE if name in ("en", "es") else ORANGE
    right.plot(wilson(k, n), [place, place], color=colour)
    right.plot(k / n, place, "s" if name in ("en", "es") else "o", color=colour)
right.axvline(often / len(test), color=GREY, linestyle=":", label="always the most frequent label")
right.set_yticks(range(len(shown)), ["all" if name == "all" else language_name(name) for name in shown])
right.invert_yaxis()
right.set(title="Accuracy, 95 % interval (squares: learned from)", xlabel="accuracy", xlim=(0, 1))
right.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.13))
show(figure, "chapter_9_training")

# %% [markdown]
# ## Exercises
#
# Open `learn/exercises/chapter_9.py`. Write `adamw_step`, `macro_f1` and `wilson`, then `python -m learn check 9`.
# That is a command for a terminal in the clone's folder. In a cell of this notebook it is `%run -m learn check 9`.
#
# To think about: the intervals cover the choice of test posts. What else could have come out differently?
