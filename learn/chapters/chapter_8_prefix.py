"""Chapter 8: The shared prefix and the label head

All posts come with the same instruction. Why compute it more than once? And why score 44,000 pieces to choose a label?
"""

# %%
import sys
from pathlib import Path

# The project's folder, wherever this file or notebook was opened.
sys.path.insert(0, str(next(folder for folder in Path(globals().get("__file__", "x")).resolve().parents
                            if (folder / "learn").is_dir())))
from itertools import accumulate

import torch

from common.files import ROOT
from data.batching import make_batch
from data.codebook import load_codebook
from data.prompt import Prompt
from data.readers import read_posts
from inference.labeller import label_probabilities
from learn.picture import BLUE, GREY, ORANGE, panels, show
from loading import load_model
from model.tokenizer import load_tokenizer

tokenizer, book = load_tokenizer("base"), load_codebook()
model = load_model("base", adapter=ROOT / "base/run/adapter", quantize="nf4")  # fine-tuned; chapter 9 says how
posts, _ = read_posts([ROOT / "data/samples/test.jsonl"], codebook=book)
posts = posts[:: len(posts) // 15][:16]

# %% [markdown]
# ## The prompt
#
# The model is asked a question, the *prompt*. It has an instruction, which is always the same, and the post. (What is
# asked, and which labels there are, stands in a text file, the *codebook*.) Marks such as <|eot_id|> say who speaks. At
# the very end the answer begins: `Answer = [`. What comes next is the label's number. So to label a post is to ask, at
# one position, which piece comes next.

# %%
prompt = Prompt(book, tokenizer, template="instruction-first")
print(prompt.text)
print()
print("labels and the ids of their numbers:", dict(zip(book.labels, prompt.label_ids, strict=True)))

# %% [markdown]
# ## What is the same for all
#
# This prompt has the instruction first, so all rows of ids begin alike: they share a *prefix*. A token sees only what
# stands before it (chapter 3). So whatever the model computes for the prefix cannot depend on the post. It is enough
# to do it once for all rows.

# %%
rows = [prompt.encode(post.text) for post in posts]


def common_prefix(rows: list[list[int]]) -> int:
    """How many ids all rows begin with."""
    for place, ids in enumerate(zip(*rows, strict=False)):
        if len(set(ids)) > 1:
            return place
    return min(len(row) for row in rows)


shared = common_prefix([row.ids for row in rows])
assert shared >= len(prompt.prefix_ids)
shared = len(prompt.prefix_ids)  # these rows may share more by chance; this is what every post shares
lengths = [len(row.ids) for row in rows]
longest, alone, packed = max(lengths), sum(lengths), shared + sum(length - shared for length in lengths)
print(f"{len(rows)} rows of {min(lengths)} to {longest} tokens; the first {shared} are the same")
print(f"in a rectangle, filled up to the longest row: {len(rows) * longest:,} tokens")
print(f"row by row: {alone:,} tokens; with the prefix once: {packed:,} tokens")

# %% [markdown]
# A trap: it looks natural to turn the instruction and the post into ids apart, and to put the ids together. But that
# gives other ids, for two reasons. Each call of `encode` takes its text for the beginning of one and puts a *word mark*
# in front, the ▁ of chapter 1: so here a mark stands in front of every post and of every quotation mark behind it. And
# where two parts meet, a piece may have letters or signs of both: a full stop and a quotation mark, say, are one piece.

# %%
before, behind = next(part for part in prompt.parts() if "{post}" in str(part)).split("{post}")


def spelled(ids: list[int]) -> list[bytes]:
    """What each piece stands for; a word mark is a space."""
    return [tokenizer.token_bytes(i) for i in ids]


others, marks, front, back = 0, 0, 0, 0
for post in posts:
    together = tokenizer.encode(before + post.text + behind)
    apart = [tokenizer.encode(part) for part in (before, post.text, behind)]
    others += [i for ids in apart for i in ids] != together
    ahead, own, last = (b"".join(spelled(ids)) for ids in apart)
    marks += own.startswith(b" ") and last.startswith(b" ")
    ends = list(accumulate(map(len, spelled(together))))  # the places at which a piece ends
    front += len(ahead) not in ends
    back += ends[-1] - len(last.removeprefix(b" ")) not in ends
print(f"encoding the parts apart gives other ids for {others} of {len(posts)} posts")
print(f"a word mark too many in front of the post and behind it: {marks} of {len(posts)}")
print(f"a piece of both sides where the post begins: {front} of {len(posts)}; where it ends: {back} of {len(posts)}")

# %% [markdown]
# ## Who may see whom
#
# So the prefix and all rows' own parts are laid end to end, in one line of tokens. In this line a token must see the
# prefix, the tokens of its own row before it, and itself; never another row. Each token's position is that in its own
# row, so several tokens have the same.

# %%
batch = make_batch(rows, range(len(rows)), shared)
starts = batch.layout.row_start  # where each row's own part begins; the last entry is the end


def may_see(starts: tuple[int, ...], prefix: int) -> torch.Tensor:
    """Whether the token of a row (first index) may see the token of a column (second): (N, N) bool."""
    place = torch.arange(starts[-1])
    row = torch.bucketize(place, torch.tensor(starts[:-1]), right=True)  # 0 for the prefix, then 1, 2, ...
    return (place[None, :] <= place[:, None]) & ((row[None, :] == row[:, None]) | (place[None, :] < prefix))


mask = may_see(starts, shared)
print(f"{len(batch.tokens)} tokens in a line; {mask.float().mean():.1%} of all pairs may see each other")

# %% [markdown]
# ## The label head
#
# At the last token of each row the model has a vector of D numbers. The score of a piece is the dot product with the
# piece's row of the table. A model that writes needs the score of every piece. We want four: those of the labels'
# numbers. The softmax of these four are the labels' probabilities.

# %%
label_ids = torch.tensor(prompt.label_ids)
with torch.no_grad():
    hidden = model.answer_hidden(batch)  # (rows, D)
    scores = hidden @ model.head_weight[label_ids].float().T  # (rows, labels)
    probabilities = scores.softmax(dim=-1)
D, V = hidden.shape[1], len(model.head_weight)
print(f"all pieces: {V:,} x {D} = {V * D:,} products a post; the labels alone: {len(label_ids) * D:,}")

# %% [markdown]
# ## Does it change anything?
#
# The test: each post alone, the whole prompt from the beginning, scores for all pieces, and only then the four.

# %%
whole = []
for row in rows:
    with torch.no_grad():
        every = model(torch.tensor([row.ids]))[0, -1]  # (V,)
    whole.append(every[label_ids].softmax(dim=-1))
whole = torch.stack(whole)
print(f"largest difference in a probability: {(whole - probabilities).abs().max():.1e}")
assert (whole - probabilities).abs().max() < 1e-4
theirs = torch.from_numpy(label_probabilities(model, prompt, rows))
print(f"and beside the project's own `label_probabilities`: {(theirs - probabilities).abs().max():.1e}")
assert (theirs - probabilities).abs().max() < 1e-4

# %% [markdown]
# The mask as well must be the one that the project's attention works by.

# %%
from model.attention import pieces

by_pieces = torch.zeros_like(mask)
for queries, own in pieces(batch.layout):
    by_pieces[queries, own] = torch.ones(own.stop - own.start, own.stop - own.start).tril().bool()
    by_pieces[queries, : shared if own.start >= shared else 0] = True
assert torch.equal(mask, by_pieces)
print("the mask agrees in every pair")

# %% [markdown]
# ## The picture
#
# Left: who may see whom, for the prefix and the first five rows. Middle: how many tokens go through the model. Right:
# the probabilities of eight posts, a ring around the label that came with each. (A language model invented these posts
# and labelled them; with real posts, people do.) The ring is often elsewhere: how often is chapter 9's question.

# %%
figure, (left, middle, right) = panels(3, width=12.5, height=4.2)
end = starts[5]
left.imshow(mask[:end, :end].numpy(), cmap="Greys", vmin=0, vmax=1.6, interpolation="nearest")
left.set(title="Who may see whom (dark: may)", xlabel="token that is seen", ylabel="token that looks")
bars = middle.bar(["rectangle", "row by row", "prefix once"], [len(rows) * longest, alone, packed],
                  color=[GREY, BLUE, ORANGE])
middle.bar_label(bars, [f"{n:,}" for n in (len(rows) * longest, alone, packed)])
middle.set(title=f"Tokens for {len(rows)} posts", ylabel="tokens through the model")
right.imshow(probabilities[:8].numpy(), cmap="Blues", vmin=0, vmax=1, aspect="auto")
for place, (post, shown) in enumerate(zip(posts[:8], probabilities[:8].tolist(), strict=True)):
    for column, share in enumerate(shown):
        right.text(column, place, f"{share:.2f}", ha="center", va="center", color="white" if share > 0.6 else "black")
    right.plot(book.index(post.label), place, "o", markersize=26, markerfacecolor="none", color=ORANGE)
right.set_xticks(range(len(book.labels)), [label.replace("-", "-\n") for label in book.labels], fontsize=8)
right.set_yticks(range(8), [post.language for post in posts[:8]])
right.set_title("Probabilities; ring: the post's label")
show(figure, "chapter_8_prefix")

# %% [markdown]
# ## Exercises
#
# Open `learn/exercises/chapter_8.py`. Write `common_prefix`, `may_see` and `label_shares`, then
# `python -m learn check 8`.
#
# That is a command for a terminal in the clone's folder. In a cell of this notebook it is `%run -m learn check 8`.
#
# To think about: could the part *behind* the post, which is also the same for all, be computed once?
