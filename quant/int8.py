"""A linear layer for labelling on a CPU that multiplies 8-bit integers: several times as fast as float32, and rounded.

    y = b + sum over parts p of K:  a_p (U_p - 128) Q_p^T w_p

    w_p (out,) = max |W_p| of an output row / 127          Q_p (out, k) int8     = round(W_p / w_p)
    a_p (N, 1) = max |x_p| of a token / 127                U_p (N, k) uint8      = round(x_p / a_p) + 128

The weight is rounded once, when the model is loaded; activations, token by token, at every product. Both have a scale
for each of `PARTS` parts of K: with a single one, a few large numbers in a token would leave the others few steps. Sums
of products are whole numbers, exact in int32: whatever library adds them in whatever order, a token's bits are the same
and depend on no other token. `int8_product_plain` is the specification, and the fast path gives its bits (oneDNN as
long as a part's sum of products stays below 2^24, which only made-up weights exceed).

Two libraries can multiply, oneDNN through PyTorch's `qlinear_pointwise` and PyTorch's `_int_mm`. Which of them does it
right and pays is measured on the spot (`choose_product`): a CPU without instructions for it (VNNI, AMX) is slower than
in float32, and older ones even saturate sums of two products in 16 bits. Activations are unsigned because these
instructions multiply unsigned by signed numbers; with signed ones some take a path many times slower.

Only for labelling: there is no backward.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import torch
from torch import nn

from common.errors import UserError
from common.product import matmul
from quant.convert import inside_layers

PARTS = 3  # of K, each with its own scale of activations
MULTIPLE = 64  # a part's length is a multiple of it, as the instructions want
SLICE = 256  # tokens on which a product is tried
TILE = 1 << 21  # numbers of y made at a time: what lies between the steps stays in the processor's cache
ZERO = 128  # what an unsigned activation of zero is
TINY = 1e-30  # a token's scale if all its numbers are zero, or nearly
PAYS = 1.1  # times as fast as float32 must a product be


def parts_of(size: int) -> list[slice]:
    """The parts of K: `parts_of(3072) -> [slice(0, 1024), slice(1024, 2048), slice(2048, 3072)]`; a small K has fewer.
    """
    ends = sorted({min(size, -(-size * (part + 1) // (PARTS * MULTIPLE)) * MULTIPLE) for part in range(PARTS)})
    return [slice(*pair) for pair in pairwise([0, *ends])]


def quantize_weight(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """W (out, in) float32 to Q int8 of the same shape, within +-127, and w (out,) float32."""
    scale = weight.abs().amax(1).clamp_(min=TINY) / 127
    return (weight / scale[:, None]).round_().to(torch.int8), scale


def quantize_tokens(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """x (tokens, in) float32 to U uint8 of the same shape, within 1..255, and a (tokens, 1) float32."""
    largest = torch.maximum(x.amax(1, keepdim=True), -x.amin(1, keepdim=True)).clamp_(min=TINY)
    # Signed first, then the highest bit turned round: PyTorch converts to int8 twice as fast as to uint8.
    signed = (x * (127 / largest)).round_().to(torch.int8)
    return signed.view(torch.uint8).bitwise_xor_(ZERO), largest / 127


def int8_product_plain(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """The specification: x (N, in), W (out, in), b (out,), all float32 -> y (N, out), with both factors rounded."""
    y = torch.zeros(len(x), len(weight))
    for part in parts_of(x.shape[1]):
        codes, w = quantize_weight(weight[:, part])
        unsigned, a = quantize_tokens(x[:, part])
        y += ((unsigned.long() - ZERO) @ codes.long().t()).float() * w * a  # the sums are exact
    return y if bias is None else y + bias


@dataclass(frozen=True)
class Product:
    """A library that multiplies: pack(Q (out, k) int8, w (out,)) makes `held` once, and
    multiply(U (tokens, k) uint8, held) gives (U - 128) Q^T w (tokens, out) float32."""

    name: str
    pack: Callable[[torch.Tensor, torch.Tensor], tuple]
    multiply: Callable[[torch.Tensor, tuple], torch.Tensor]


def _pack_onednn(codes: torch.Tensor, scale: torch.Tensor) -> tuple:
    packed = torch.ops.onednn.qlinear_prepack(codes.contiguous(), None)
    return packed, scale, torch.zeros(len(codes), dtype=torch.int8)


def _multiply_onednn(unsigned: torch.Tensor, held: tuple) -> torch.Tensor:
    packed, scale, zeros = held
    return torch.ops.onednn.qlinear_pointwise(unsigned, 1.0, ZERO, packed, scale, zeros, None, 1.0, 0, torch.float32,
                                              "none", [], "")


def _pack_int_mm(codes: torch.Tensor, scale: torch.Tensor) -> tuple:
    return codes.contiguous().t(), scale, codes.sum(1, dtype=torch.int32) * ZERO


def _multiply_int_mm(unsigned: torch.Tensor, held: tuple) -> torch.Tensor:
    codes, scale, offset = held
    return (torch._int_mm(unsigned, codes) - offset).float().mul_(scale)


PRODUCTS = (Product("onednn.qlinear_pointwise", _pack_onednn, _multiply_onednn),
            Product("torch._int_mm", _pack_int_mm, _multiply_int_mm))


def gain(product: Product, size: int = 1024, rounds: int = 5) -> float:
    """How many times as fast as in float32 `product` multiplies `SLICE` tokens by a weight (size, size), quantising
    included; 0 where it is not there or not exact. Both take turns, and the best time of each counts."""
    generator = torch.Generator().manual_seed(0)
    weight, x = (torch.randn(rows, size, generator=generator) for rows in (size, SLICE))
    codes, scale = quantize_weight(weight)
    codes[0], codes[0, :256], x[:, :256] = 0, 127, 9.0  # the largest products there are: a sum in 16 bits saturates
    ways = {"float32": lambda: matmul(x, weight)}
    try:
        held = product.pack(codes, scale)
        ways["int8"] = lambda: product.multiply(quantize_tokens(x)[0], held)
        unsigned = quantize_tokens(x)[0][:16]
        right = ((unsigned.double() - ZERO) @ codes.double().t()).float() * scale
        if not product.multiply(unsigned, held).equal(right):
            return 0.0
    except (AttributeError, NotImplementedError, RuntimeError):
        return 0.0
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(rounds):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            best[name] = min(best[name], time.perf_counter() - began)
    return best["float32"] / best["int8"]


@cache
def choose_product() -> Product:
    """The first of `PRODUCTS` that is exact and pays on this machine. Raises `UserError` if none does."""
    gains = {}
    for product in PRODUCTS:
        gains[product.name] = gain(product)
        if gains[product.name] >= PAYS:
            return product
    found = ", ".join(f"{name} {'is missing or not exact' if not value else f'{value:.1f} times float32'}"
                      for name, value in gains.items())
    raise UserError(f"--int8: does not pay on this machine ({found}); leave it out")


def pays() -> bool:
    """Whether `choose_product` finds one here."""
    try:
        choose_product()
    except UserError:
        return False
    return True


class Int8Linear(nn.Module):
    """y = x W^T + b in 8-bit integers: (..., in) -> (..., out), float32; without gradients. Make one with `from_base`.

    Attributes: `held`, one entry for each part of K, as `product` packs it; `bias` (out,) float32 or None.
    """

    def __init__(self, in_features: int, out_features: int, product: Product):
        super().__init__()
        self.in_features, self.out_features, self.product = in_features, out_features, product
        self.held: list[tuple] = []
        self.bias = None

    @classmethod
    @torch.no_grad()
    def from_base(cls, base: nn.Module, product: Product | None = None) -> "Int8Linear":
        """The weight of any linear, rounded to 8 bits; without `product`, the one that pays here."""
        layer = cls(base.in_features, base.out_features, product or choose_product())
        weight = base.dense_weight(torch.float32)
        layer.held = [layer.product.pack(*quantize_weight(weight[:, part])) for part in parts_of(base.in_features)]
        layer.bias = None if base.bias is None else nn.Parameter(base.bias.detach().float(), False)
        return layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = x.reshape(-1, self.in_features)
        out = tokens.new_empty(len(tokens), self.out_features)
        count = max(1, TILE // self.out_features)  # tokens at a time; their bits do not depend on it
        for first in range(0, len(tokens), count):
            some, y = tokens[first : first + count], out[first : first + count]
            for part, held in zip(parts_of(self.in_features), self.held, strict=True):
                unsigned, a = quantize_tokens(some[:, part])
                # Product and sum apart: fused, their bits would depend on a token's place.
                if part.start:
                    y += self.product.multiply(unsigned, held).mul_(a)
                else:
                    torch.mul(self.product.multiply(unsigned, held), a, out=y)
            if self.bias is not None:
                y += self.bias
        return out.view(*x.shape[:-1], self.out_features)

    def dense_weight(self, dtype: torch.dtype) -> torch.Tensor:
        """The weight as it was rounded, (out, in) of `dtype`: the product with the unit matrix."""
        rows = [self.product.multiply(torch.eye(part.stop - part.start, dtype=torch.uint8) + ZERO, held)
                for part, held in zip(parts_of(self.in_features), self.held, strict=True)]
        return torch.cat(rows).t().to(dtype).contiguous()

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}, by {self.product.name}"


def int8_bytes(model: nn.Module) -> int:
    """Bytes of the weights of the decoder's layers in 8 bits."""
    return sum(module.in_features * module.out_features for module in _bases(model).values())


def make_int8(model: nn.Module) -> None:
    """Replace every linear of the decoder's layers by an `Int8Linear`, an adapter's base inside its adapter; one weight
    at a time, so that memory never holds two models. Raises `UserError` if that does not pay here."""
    product, bases = choose_product(), _bases(model)
    for name in list(bases):
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, Int8Linear.from_base(bases.pop(name), product))


def _bases(model: nn.Module) -> dict[str, nn.Module]:
    """The linears of the decoder's layers that hold a weight themselves, by name."""
    return {name: module for name, module in model.named_modules()
            if inside_layers(name) and hasattr(module, "dense_weight")
            and not any(hasattr(child, "dense_weight") for child in module.children())}
