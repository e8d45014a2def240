"""What the stages were computed with, as it is stored: 4-bit bytes and scales, adapters, norms."""

import numpy as np

BLOCK, NESTED_BLOCK = 64, 256


class Weights:
    """Dense weights of linears from how they are stored; kept, since the whole way is computed several times."""

    def __init__(self, trace, tensors):
        self.trace, self.linears, self.tensors = trace, trace["linears"], tensors
        self.dense, self.factor = {}, 1.0
        self.passed = (None, {})  # through every linear, in the step of learning that was asked for last
        self.adapter = None  # (step of learning, "before" or "after") whose A and B stand in for the model's

    def product(self, x, name):
        """y = x W^T + b + s (x A^T) B^T: (..., in) -> (..., out)."""
        stored = self.linears[name]
        if name not in self.dense:
            self.dense[name] = self.weight(name, stored)
        y = x @ self.dense[name].T
        if stored["bias"]:
            y = y + self.wide(f"{name}.bias")
        if stored["scaling"] is not None:
            thin = self.factor * stored["scaling"] * (x @ self.thin(name, "A").T)
            y = y + thin @ self.thin(name, "B").T
        return y

    def back(self, g, name):
        """d loss / d x = g W + s (g B) A, of g = d loss / d y: (N, out) -> (N, in)."""
        stored = self.linears[name]
        found = g @ self.dense[name]
        if stored["scaling"] is not None:
            found = found + self.factor * stored["scaling"] * (g @ self.thin(name, "B")) @ self.thin(name, "A")
        return found

    def thin(self, name, part):
        """A (r, in) or B (out, r): the model's, or those before or after a step of learning."""
        if self.adapter is None:
            return self.wide(f"{name}.lora_{part}")
        step, when = self.adapter
        return self.tensors[f"{step}.update.{name}.{part}_{when}"].astype(np.float64)

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
