"""Recompute a trace with numpy alone: python verify.py [FOLDER]

The folder holds trace.safetensors (every tensor, and the weights that made them: 4-bit bytes and scales, adapters,
norms, some rows of the embedding) and trace.json (which step made which tensor from which). Each stage is computed
again in float64 from what the file says went into it, and compared with what it says came out; a line says how far the
two are apart, at most, as a share of the tensor's largest number. At the end the whole way is computed once more from
the token ids alone, with nothing taken from in between. Exit status 0 if all of it agrees, else 1.

Only numpy and safetensors are needed; nothing of the project that wrote the files is used.
"""

import json
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

BLOCK, NESTED_BLOCK = 64, 256
STEP = 1e-4  # of central differences, in float64


class Weights:
    """Dense weights of linears from how they are stored; kept, since the whole way is computed several times."""

    def __init__(self, trace, tensors):
        self.trace, self.linears, self.tensors = trace, trace["linears"], tensors
        self.dense, self.factor = {}, 1.0

    def product(self, x, name):
        """y = x W^T + b + s (x A^T) B^T: (..., in) -> (..., out)."""
        stored = self.linears[name]
        if name not in self.dense:
            self.dense[name] = self.weight(name, stored)
        y = x @ self.dense[name].T
        if stored["bias"]:
            y = y + self.wide(f"{name}.bias")
        if stored["scaling"] is not None:
            thin = self.factor * stored["scaling"] * (x @ self.wide(f"{name}.lora_A").T)
            y = y + thin @ self.wide(f"{name}.lora_B").T
        return y

    def weight(self, name, stored):
        """W (out, in): as it is, or level[code] * scale[block of 64], two codes a byte, the first in the high half."""
        if not stored["nf4"]:
            return self.wide(f"{name}.weight")
        packed, count = self.tensors[f"weights.{name}.packed"].reshape(-1), stored["shape"][0] * stored["shape"][1]
        codes = np.stack([packed >> 4, packed & 15], axis=1).reshape(-1)[:count]
        scales = self.scales(name, stored)
        blocks = np.arange(count) // BLOCK
        return (self.wide("nf4_levels")[codes] * scales[blocks]).reshape(stored["shape"])

    def scales(self, name, stored):
        """One for each block of 64; doubly quantised: map[code] * nested[block of 256] + offset."""
        if not stored["double"]:
            return self.wide(f"{name}.absmax")
        codes = self.tensors[f"weights.{name}.absmax_codes"]
        nested = self.wide(f"{name}.nested_absmax")[np.arange(len(codes)) // NESTED_BLOCK]
        return self.wide("dynamic_map")[codes] * nested + self.wide(f"{name}.offset")

    def wide(self, name):
        return self.tensors[f"weights.{name}"].astype(np.float64)


def rows(weights, table, row_ids, ids):
    """x = E[ids], of a table that holds the rows of `row_ids` (rising) alone."""
    return table[np.searchsorted(row_ids, ids)]


def frequencies(weights, theta, size, scaling):
    """f_i = theta^(-2 i / h); slow ones divided by `factor`, with a passage in between (Llama 3)."""
    plain = theta ** (-np.arange(0, size, 2) / size)
    if scaling is None:
        return plain
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    turns = scaling["original_max_position_embeddings"] * plain / (2 * np.pi)  # within the original window
    share = np.clip((turns - low) / (high - low), 0, 1)
    return (1 - share) * plain / scaling["factor"] + share * plain


def angles(positions, f):
    """p f_i, rounded to float32 as the model does: far into a text that decides the fifth digit of its cosine."""
    return (positions.astype(np.float32)[:, None] * f.astype(np.float32)).astype(np.float64)


def cosine(weights, positions, f):
    return np.cos(angles(positions, f))


def sine(weights, positions, f):
    return np.sin(angles(positions, f))


def rms_norm(weights, x, gain, eps):
    return gain * x / np.sqrt((x * x).mean(-1, keepdims=True) + eps)


def linear(weights, x, linear):
    return weights.product(x.reshape(len(x), -1), linear)


def heads(weights, x, cos=None, sin=None, *, linear, heads):
    """x W^T in heads (T, heads, h), every pair (y[i], y[i + h/2]) turned by its position's angle if there is one."""
    y = weights.product(x, linear).reshape(len(x), heads, -1)
    if cos is None:
        return y
    cos, sin = cos[:, None], sin[:, None]
    a, b = np.split(y, 2, axis=-1)
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def scores(weights, q, k):
    """q k^T / sqrt(h), the last Q tokens of one row; head j reads key head j // (H / K): (H, Q, T)."""
    keys = np.repeat(k, q.shape[1] // k.shape[1], axis=1)
    found = q.transpose(1, 0, 2) @ keys.transpose(1, 2, 0) / np.sqrt(q.shape[-1])
    later = np.arange(len(k)) > np.arange(len(k) - len(q), len(k))[:, None]
    return np.where(later, -np.inf, found)


def softmax(weights, x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def mix(weights, w, v):
    values = np.repeat(v, w.shape[0] // v.shape[1], axis=1).transpose(1, 0, 2)  # (H, T, h)
    return (w @ values).transpose(1, 0, 2)


def swiglu(weights, gate, up):
    return gate / (1 + np.exp(-gate)) * up


def add(weights, a, b):
    return a + b


def length(weights, x):
    return np.sqrt((x * x).sum(-1))


def dot(weights, hidden, label_rows):
    return hidden @ label_rows.T


def without_tokens(weights, ids, places):
    """The labels' probabilities of the row without the token at each place."""
    return np.concatenate([answer(weights, np.delete(ids, place)) for place in places])


def of_rows(weights, ids, lengths):
    """The labels' probabilities of several rows, whose ids stand one after another."""
    return np.concatenate([answer(weights, row) for row in np.split(ids, np.cumsum(lengths)[:-1])])


def slope(weights, ids, places, label):
    """d log p(label) / d f at f = 1, with f times the embedding of one token: by a central difference."""
    found = []
    for place in places:
        factors = np.ones((2, len(ids)))
        factors[:, place] += STEP, -STEP
        more, less = (np.log(answer(weights, ids, one)[0, label]) for one in factors)
        found.append((more - less) / (2 * STEP))
    return np.array(found)


def factors(weights, ids, factors):
    """The labels' probabilities with every adapter f times as strong."""
    found = []
    for weights.factor in factors:
        found.append(answer(weights, ids))
    weights.factor = 1.0
    return np.concatenate(found)


def spectrum(weights, names):
    """Singular values of s B A, a row for each linear, zeros behind a smaller rank."""
    found = [weights.linears[name]["scaling"] * np.linalg.svd(
        weights.wide(f"{name}.lora_B") @ weights.wide(f"{name}.lora_A"), compute_uv=False) for name in names]
    most = max(min(weights.wide(f"{name}.lora_A").shape[0], len(row)) for name, row in zip(names, found, strict=True))
    return np.stack([np.pad(row[:most], (0, most - len(row[:most]))) for row in found])


def block_packed(weights, linear, block):
    """The bytes of one block, two codes in each."""
    return weights.tensors[f"weights.{linear}.packed"].reshape(-1)[block * BLOCK // 2 : (block + 1) * BLOCK // 2]


def block_codes(weights, packed):
    return np.stack([packed >> 4, packed & 15], axis=1).reshape(-1)


def block_scale(weights, linear, block):
    return weights.scales(linear, weights.linears[linear])[block]


def block_values(weights, codes, scale):
    return weights.wide("nf4_levels")[codes] * scale


def nested_scale(weights, code, nested, offset):
    return weights.wide("dynamic_map")[code] * nested + offset


def subtract(weights, a, b):
    return a - b


def largest(weights, x):
    return np.abs(x).max()


OPS = {function.__name__: function for function in
       (rows, frequencies, cosine, sine, rms_norm, linear, heads, scores, softmax, mix, swiglu, add, length, dot)}
BESIDE = {function.__name__: function for function in (
    without_tokens, of_rows, slope, factors, spectrum, block_packed, block_codes, block_scale, block_values,
    nested_scale, subtract, largest)}


def run(step, values, weights):
    """One step on `values` (name -> array); `NAME@answer` is one row of NAME."""
    def value(name):
        whole = values[name.removesuffix("@answer")]
        if name.endswith("@answer"):
            whole = whole[-1:]  # the answer's row is the last
        return whole.astype(np.float64) if whole.dtype == np.float32 else whole

    return (OPS | BESIDE)[step["op"]](weights, *map(value, step["args"]), **step["settings"])


def apart(found, stored):
    """The largest difference as a share of the largest number; infinite where shapes, infinities or NaN differ."""
    found, stored = np.asarray(found), np.asarray(stored)
    if found.shape != stored.shape or not np.array_equal(np.isneginf(found), np.isneginf(stored)):
        return np.inf
    finite = ~np.isneginf(found)
    found, stored = found[finite].astype(np.float64), stored[finite].astype(np.float64)
    if not found.size:
        return 0.0
    most = np.abs(found - stored).max() / max(np.abs(stored).max(), 1e-30)
    return most if np.isfinite(most) else np.inf


def whole_way(weights, ids, factors=1.0):
    """Every tensor from the ids alone: (T,) int64 -> name -> array; the embeddings times `factors` (T,)."""
    tensors = weights.tensors
    values = {name: tensor for name, tensor in tensors.items() if name.startswith("weights.")}
    values |= {"tokens.ids": ids, "tokens.positions": np.arange(len(ids)),
               "rotation.frequencies": tensors["rotation.frequencies"]}
    for stage in weights.trace["stages"]:
        for step in [] if stage["name"].endswith(".lens") else stage["steps"]:  # what nothing else is made of
            if step["op"] in OPS and step["op"] != "frequencies":  # these are float32 in every model
                values[step["out"]] = run(step, values, weights)
        if stage["name"] == "embedding":
            values["embedding.x"] = values["embedding.x"] * np.reshape(factors, (-1, 1))
    return values


def answer(weights, ids, factors=1.0):
    """The labels' probabilities of a row: (1, C)."""
    return whole_way(weights, ids, factors)["probabilities.probabilities"]


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

    def say(name, good, words):
        print(f"{'agrees ' if good else 'DIFFERS'}  {name:28} {words}")
        if not good:
            failed.append(name)

    for stage in trace["stages"]:
        if stage["name"] == "tokens":
            say("tokens", check_tokens(trace, tensors), f"{len(trace['tokens'])} tokens")
            continue
        most = max(apart(run(step, tensors, weights), tensors[step["out"]]) for step in stage["steps"])
        say(stage["name"], most <= trace["tolerance"], f"{most:.1e}")
    values = whole_way(weights, tensors["tokens.ids"])
    off = np.abs(values["logits.logits"] - tensors["logits.logits"]).max()
    largest = max(1.0, np.abs(tensors["logits.logits"]).max())
    say("whole way to the logits", off <= trace["whole_tolerance"] * largest, f"{off:.1e}")
    print("everything agrees" if not failed else f"{len(failed)} differ: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent))
