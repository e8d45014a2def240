"""Recompute a trace with numpy alone: python verify.py [FOLDER]

The folder holds trace.safetensors (every tensor, and the weights that made them: 4-bit bytes and scales, adapters,
norms, some rows of the embedding) and trace.json (which step made which tensor from which). Each stage is computed
again in float64 from what the file says went into it, and compared with what it says came out; a line says how far the
two are apart, at most, as a share of the tensor's largest number. At the end the whole way is computed once more from
the token ids alone, with nothing taken from in between; the label and the probabilities that trace.json names must be
those, and its text that of the post's tokens. Where two traces are compared, the folder against/ holds the other one,
which is recomputed first. Exit status 0 if all of it agrees, else 1. How far apart is too far is written here, by the
numbers that the model computed in (float32, bfloat16), and not taken from the files.

Only numpy and safetensors are needed; nothing of the project that wrote the files is used.
"""

import json
import sys
import unicodedata
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from glass.recompute.backward import BACKWARD
from glass.recompute.beside import BESIDE
from glass.recompute.learning import LEARNING
from glass.recompute.two import TWO
from glass.recompute.way import OPS, run, whole_way
from glass.recompute.weights import Weights

SLOPES = BACKWARD | LEARNING  # sums over all tokens of products that were rounded several times before
DEEP = 3
EVERY = OPS | BESIDE | BACKWARD | LEARNING | TWO
# Differences of numbers of about this size, of which little is left where the model is sure.
LEAST = {"loss": 1.0, "loss_slopes": 1.0}
# How far a stage may be from its recomputation, as a share of its largest number, and the label logits from theirs; in
# 16 bits a stage rounds several times.
EXACT, ROUNDED = (1e-5, 1e-5), (2e-2, 1e-1)
FEW = 4  # layers up to which these hold for the whole way
# Computed the whole way, from the ids, and how often through all layers: a slope goes there and back, and what passes
# back to a query or a key is moreover a difference of numbers that are nearly the same.
WHOLE = {"learned": 1, "passed": 3, "slope": 2, "without_tokens": 1, "of_rows": 1, "factors": 1}


def apart(found, stored, least=1e-30):
    """The largest difference as a share of the largest number, or of `least`; infinite where shapes, infinities or NaN
    differ."""
    found, stored = np.asarray(found), np.asarray(stored)
    if found.shape != stored.shape or not np.array_equal(np.isneginf(found), np.isneginf(stored)):
        return np.inf
    finite = ~np.isneginf(found)
    found, stored = found[finite].astype(np.float64), stored[finite].astype(np.float64)
    if not found.size:
        return 0.0
    most = np.abs(found - stored).max() / max(np.abs(stored).max(), least)
    return most if np.isfinite(most) else np.inf


def limits(dtype, layers):
    """Of a stage and of the whole way: each layer's roundings are chance, so what L of them add grows by the root of L.
    """
    stage, whole = EXACT if dtype in ("float32", "float64") else ROUNDED
    return stage, whole * max(1.0, (layers / FEW) ** 0.5)


def signs(text):
    """Letters and digits, small and without accents: a tokenizer may change case, accents, spaces, compound signs. Of a
    text without any, all that is seen of it."""
    plain = unicodedata.normalize("NFKD", text).casefold().replace("ı", "i").replace("ى", "ي")
    return ("".join(char for char in plain if char.isalnum())
            or "".join(char for char in plain if unicodedata.category(char)[0] not in "CMZ"))


def check_text(trace):
    """Whether the text that trace.json names is that of the tokens which it shows as the post's; `check_tokens` holds
    these to what was computed from."""
    post = b"".join(bytes.fromhex(token["bytes"]) for token in trace["tokens"] if token["part"] == "post")
    return signs(trace["text"]) == signs(post.decode("utf-8", "replace"))


def check_answer(trace, found, limit):
    """Whether the named label is the likeliest, and how far the named probabilities are from those found, (C,)."""
    named = trace["probabilities"]
    if len(named) != len(found):
        return False, np.inf
    off = np.abs(np.array(list(named.values())) - found).max()
    near = found >= found.max() - 2 * limit  # two labels that are as likely: either may be named
    return bool(off <= limit) and trace["label"] in [name for name, one in zip(named, near, strict=True) if one], off


def check_tokens(trace, tensors):
    """Whether the bytes of the tokens are those that the page shows, and the answer's row is the last."""
    joined, lengths = tensors["tokens.bytes"].tobytes(), tensors["tokens.lengths"]
    ends = np.cumsum(lengths)
    pieces = [joined[end - length : end].hex() for end, length in zip(ends, lengths, strict=True)]
    same = pieces == [token["bytes"] for token in trace["tokens"]]
    same &= [token["id"] for token in trace["tokens"]] == tensors["tokens.ids"].tolist()
    return same and int(tensors["tokens.answer"]) == len(pieces) - 1


def main(folder):
    """Print a line for each stage; 0 if all agree, else 1."""
    trace = json.loads((folder / "trace.json").read_text(encoding="utf-8"))
    tensors = load_file(folder / "trace.safetensors")
    weights, failed = Weights(trace, tensors), []
    layers = {name.split(".")[2] for name in trace["linears"] if name.startswith("model.layers.")}
    near, far = limits(trace["dtype"], len(layers))
    if trace["compared"]:
        print("the other trace:")
        failed += ["the other trace"] if main(folder / "against") else []
        tensors |= {f"against/{name}": x for name, x in load_file(folder / "against" / "trace.safetensors").items()}
        print("this one:")

    def say(name, good, words):
        print(f"{'agrees ' if good else 'DIFFERS'}  {name:28} {words}")
        if not good:
            failed.append(name)

    for stage in trace["stages"]:
        if stage["name"] == "tokens":
            say("tokens", check_tokens(trace, tensors), f"{len(trace['tokens'])} tokens")
            continue
        try:
            found = [(apart(run(step, tensors, weights, EVERY), tensors[step["out"]], LEAST.get(step["op"], 1e-30)),
                      WHOLE[step["op"]] * far if step["op"] in WHOLE else near * (DEEP if step["op"] in SLOPES else 1))
                     for step in stage["steps"]]
        except KeyError as error:
            say(stage["name"], False, f"{error} is missing")
            continue
        say(stage["name"], all(most <= limit for most, limit in found), f"{max(found, default=(0.0, 0.0))[0]:.1e}")
    try:
        values = whole_way(weights, tensors["tokens.ids"])
        off = np.abs(values["logits.logits"] - tensors["logits.logits"]).max()
        limit = far * max(1.0, np.abs(tensors["logits.logits"]).max())
        say("whole way to the logits", off <= limit, f"{off:.1e} (in {trace['dtype']} at most {limit:.1e})")
        good, off = check_answer(trace, values["probabilities.probabilities"][-1], limit)
        say("label and probabilities", good, f"{off:.1e}, {trace['label']}")
    except KeyError as error:
        say("whole way to the logits", False, f"{error} is missing")
    say("text", check_text(trace), f"{len(trace['text'])} characters")
    print("everything agrees" if not failed else f"{len(failed)} differ: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent))
