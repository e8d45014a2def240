"""Chapter 5: Loading a public checkpoint

A checkpoint is a file of bytes. How do millions of numbers find their places in a model?
"""

# %%
import sys
from pathlib import Path

# The project's folder, wherever this file or notebook was opened.
sys.path.insert(0, str(next(folder for folder in Path(globals().get("__file__", "x")).resolve().parents
                            if (folder / "learn").is_dir())))
import json
import math
import shutil
import tempfile

import torch

from common.errors import UserError
from common.files import ROOT
from learn.picture import BLUE, GREY, INK, ORANGE, panels, show
from loading import load_model

path = ROOT / "base/model.safetensors"
data = path.read_bytes()
print(f"{path.name}: {len(data):,} bytes; the first sixteen: {list(data[:16])}")

# %% [markdown]
# ## The head of the file
#
# Public models come as *safetensors* files. The format is simple on purpose, so that opening a stranger's file cannot
# do harm. The first eight bytes are one number, the length of the head. It is written *little-endian*: the first byte
# counts ones, the second 256s, the third 256 * 256s. Then comes the head, a JSON text. Behind it, all tensors end to
# end. (A *tensor* is a table of numbers with any number of dimensions.)

# %%
length = sum(byte * 256**place for place, byte in enumerate(data[:8]))
head = json.loads(data[8 : 8 + length])
head.pop("__metadata__", None)  # notes of whoever wrote the file
print(f"the head takes {length:,} bytes and names {len(head)} tensors")
for name in ("model.embed_tokens.weight", "model.layers.0.self_attn.k_proj.weight", "model.norm.weight"):
    print(f"{name}: {head[name]}")

# %% [markdown]
# ## Sixteen bits
#
# `BF16` is *bfloat16*: the upper half of a 32-bit number. It has the sign, the size (the exponent) and the first
# digits. So to read it, put sixteen zero bits behind it, and take the 32 bits for what they are. `view` does that: it
# changes no bit, only what the bits are taken for. To make one, the lower half could simply be cut off; PyTorch rounds
# to the nearest one instead, which may be the next one up.

# %%
def from_bfloat16(data: bytes) -> torch.Tensor:
    """Bytes as 32-bit numbers: two bytes each, the lower one first -> (n,)."""
    pairs = torch.frombuffer(bytearray(data), dtype=torch.uint8).view(-1, 2).int()  # (n, 2)
    bits = pairs[:, 0] + 256 * pairs[:, 1]  # 0 ... 65535
    return (bits << 16).view(torch.float32)


for number in (1.0, 0.1, 3.14159):
    bits = torch.tensor([number]).view(torch.int32)
    rounded = torch.tensor(number).bfloat16().item()
    print(f"{number}: as 32 bits {bits.item() & 0xFFFFFFFF:032b}, cut to 16: "
          f"{((bits >> 16) << 16).view(torch.float32).item():.6f}, rounded to 16: {rounded:.6f}")

# %% [markdown]
# ## A tensor
#
# The head gives each tensor's shape, and where its bytes begin and end. These places count from the end of the head.

# %%
def read(name: str) -> torch.Tensor:
    """One tensor of the file, as 32-bit numbers in its shape."""
    entry = head[name]
    assert entry["dtype"] == "BF16"
    start, end = (8 + length + place for place in entry["data_offsets"])
    return from_bfloat16(data[start:end]).view(entry["shape"])


tensors = {name: read(name) for name in head}
print(f"{sum(tensor.numel() for tensor in tensors.values()):,} numbers in {len(tensors)} tensors")

# %% [markdown]
# ## Names
#
# Every name says where its tensor belongs: `model.layers.0.self_attn.k_proj.weight` is the matrix that makes keys in
# the attention of the first layer. The other file, `config.json`, has the sizes. Together they leave no freedom: from
# the sizes follows which tensors there must be, and the shape of each.

# %%
config = json.loads((ROOT / "base/config.json").read_text(encoding="utf-8"))
D, F, V = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
queries, keys = (config[f"num_{kind}_heads"] * config["head_dim"] for kind in ("attention", "key_value"))
expected = {"model.embed_tokens.weight": [V, D], "model.norm.weight": [D]}
for layer in range(config["num_hidden_layers"]):
    expected |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in {
        "input_layernorm": [D], "self_attn.q_proj": [queries, D], "self_attn.k_proj": [keys, D],
        "self_attn.v_proj": [keys, D], "self_attn.o_proj": [D, queries], "post_attention_layernorm": [D],
        "mlp.gate_proj": [F, D], "mlp.up_proj": [F, D], "mlp.down_proj": [D, F]}.items()}
assert {name: list(tensor.shape) for name, tensor in tensors.items()} == expected
print(f"the file has exactly the {len(expected)} tensors that follow from config.json, in these shapes")

# %% [markdown]
# One tensor that you might expect is not there: the matrix at the end that turns a vector into a score for each
# piece. `"tie_word_embeddings": true` says that the table at the beginning serves for both.
#
# ## The project's own
#
# `load_model` builds the empty model from the sizes and hands each tensor to the module that its name names.

# %%
model = load_model("base")
theirs = dict(model.named_parameters())
assert theirs.keys() == tensors.keys()
assert all(torch.equal(tensor, theirs[name].float()) for name, tensor in tensors.items())
print(f"all {len(tensors)} tensors: the same bits")
assert model.head_weight is theirs["model.embed_tokens.weight"]

# %% [markdown]
# And if a file is not right? A missing tensor would leave a part of the model at random numbers. It would still run
# and give answers. So everything that does not fit is an error that names what it is. Let us break a copy: change one
# letter of a name in the head, and read it.

# %%
with tempfile.TemporaryDirectory() as folder:
    for name in ("config.json", "tokenizer.model"):
        shutil.copyfile(ROOT / "base" / name, Path(folder) / name)
    (Path(folder) / "model.safetensors").write_bytes(data.replace(b"layers.1.mlp.up_proj", b"layers.1.mlp.op_proj", 1))
    try:
        load_model(folder)
    except UserError as error:
        print("refused:", str(error).replace(folder, "the copy"))
    else:
        raise AssertionError("a broken file was loaded")

# %% [markdown]
# ## The picture
#
# Where the numbers are: in a small model most of them are the table of pieces, in a large one the MLPs. The sizes of
# Llama 3.2-3B, beside the base, follow from its published `config.json` in the same way.

# %%
def parts(D: int, F: int, V: int, queries: int, keys: int, layers: int) -> dict[str, int]:
    """How many numbers each part of a model has."""
    return {"table of pieces": V * D, "attention": layers * (2 * D * queries + 2 * D * keys),
            "MLPs": layers * 3 * D * F, "norms": (2 * layers + 1) * D}


small = parts(D, F, V, queries, keys, config["num_hidden_layers"])
assert sum(small.values()) == sum(math.prod(shape) for shape in expected.values())
large = parts(D=3072, F=8192, V=128256, queries=24 * 128, keys=8 * 128, layers=28)
figure, axes = panels(2, height=3.2, sharey=True)
for panel, (name, counts) in zip(axes, (("the base", small), ("Llama 3.2-3B", large)), strict=True):
    total = sum(counts.values())
    print(f"{name}: {total:,} numbers, {2 * total / 1e9:.2f} GB in 16 bits; " +
          ", ".join(f"{part} {count / total:.2%}" for part, count in counts.items()))
    bars = panel.barh(list(counts), [count / total for count in counts.values()], color=[GREY, BLUE, ORANGE, INK])
    panel.bar_label(bars, [f"{count:,}" for count in counts.values()], padding=3, fontsize=8)
    panel.set(title=f"{name}: {total:,} numbers", xlabel="share of all numbers", xlim=(0, 1))
axes[0].invert_yaxis()
show(figure, "chapter_5_loading")

# %% [markdown]
# ## Exercises
#
# Open `learn/exercises/chapter_5.py`. Write `from_bfloat16` and `find_tensor`, then `python -m learn check 5`.
#
# That is a command for a terminal in the clone's folder. In a cell of this notebook it is `%run -m learn check 5`.
#
# To think about: some older model files are Python *pickles*. Reading one can run any program. What in this format
# makes sure that reading it cannot?
