"""A linear layer that keeps its weight in NF4 and computes with it at full precision, forward and backward.

    y = x W^T + b,    W = dequantise(packed, absmax)

The weight is frozen: only x gets a gradient, dx = dy W. For backward, autograd keeps only the packed bytes, which the
module holds anyway; W is dequantised again (QLoRA, arXiv 2305.14314, does the same). It is always written into one
buffer per dtype and device, shared by all layers. The product is done with W before the call returns and nothing keeps
a view of it, so the next layer may overwrite it. A lock guards the buffer, since backward may run in a thread of its
own.

If memory allows, a layer may also hold W in one dtype beside the bytes (`resident`; see `convert.make_resident`), so
that many products with the same weights need no dequantising. The bytes remain the layer's state: they are what is
saved, moved and cast. Loading new bytes drops the copy.

Left out: products that read the four bits directly. With the many tokens of a training or labelling batch the product
is limited by arithmetic, and the platform library's dense product is the fast one.
"""

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from common.errors import UserError
from common.product import matmul
from quant.double_quant import NESTED_BLOCK, Scales, dequantize
from quant.nf4 import block_count, packed_bytes, quantize_nf4

_buffers: dict[tuple[torch.dtype, torch.device], torch.Tensor] = {}
_buffer_lock = threading.Lock()


@contextmanager
def _dense(stored, shape, dtype: torch.dtype) -> Iterator[torch.Tensor]:
    """W (out, in) of `dtype` for the length of a `with` block: `stored` if that is W itself, else the shared buffer."""
    if len(stored) == 1:
        yield stored[0]
        return
    packed, *scales = stored
    count, key = shape[0] * shape[1], (dtype, packed.device)
    with _buffer_lock:
        if key not in _buffers or _buffers[key].numel() < count:
            _buffers.pop(key, None)  # free the old one before making the larger one
            with torch.inference_mode(False):  # else training after a first inference could not write to it
                _buffers[key] = torch.empty(count, dtype=dtype, device=packed.device)
        yield dequantize(packed, Scales(scales), shape, dtype, out=_buffers[key][:count].view(shape))


class _NF4Product(torch.autograd.Function):
    """y = x W^T + b with a gradient for x alone; backward of backward is not defined."""

    @staticmethod
    def forward(ctx, x, bias, shape, *stored):
        ctx.shape, ctx.inputs = shape, 3 + len(stored)
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(*stored)
        return _product(x, bias, shape, stored)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        if not ctx.needs_input_grad[0]:
            return (None,) * ctx.inputs
        return _input_gradient(grad, ctx.saved_tensors, ctx.shape), *(None,) * (ctx.inputs - 1)


def _product(x, bias, shape, stored) -> torch.Tensor:
    with _dense(stored, shape, x.dtype) as weight:
        return matmul(x, weight, bias)  # (..., in) -> (..., out)


def _input_gradient(grad: torch.Tensor, stored, shape, onto: torch.Tensor | None = None) -> torch.Tensor:
    with _dense(stored, shape, grad.dtype) as weight:
        return matmul(grad, weight.t()) if onto is None else onto.addmm_(grad, weight)  # (..., out) -> (..., in)


class NF4Linear(nn.Module):
    """y = x W^T + b with W (out, in) in NF4: (..., in) -> (..., out), in x's dtype; W and b are frozen.

    Buffers: `packed` uint8 (ceil(n/2),) with n = out * in, and `absmax` float32 (ceil(n/64),); with `double`, in place
    of `absmax`, `absmax_codes` uint8, `nested_absmax` float32 (one for 256 codes) and `offset` float32 (). `dtype` is
    the bias's; the weight has none of its own. `resident`, never saved, is None or W (out, in) as `dense_weight` gives
    it, for products in its dtype.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = False, *, double: bool = False, device=None,
                 dtype=None):
        super().__init__()
        self.in_features, self.out_features, self.double = in_features, out_features, double
        n = in_features * out_features
        empty = lambda size, kind: torch.empty(size, dtype=kind, device=device)  # noqa: E731
        self.register_buffer("packed", empty(packed_bytes(n), torch.uint8))
        if double:
            self.register_buffer("absmax_codes", empty(block_count(n), torch.uint8))
            self.register_buffer("nested_absmax", empty(-(-block_count(n) // NESTED_BLOCK), torch.float32))
            self.register_buffer("offset", empty((), torch.float32))
        else:
            self.register_buffer("absmax", empty(block_count(n), torch.float32))
        self.register_buffer("resident", None, persistent=False)
        self.bias = nn.Parameter(torch.empty(out_features, dtype=dtype, device=device), False) if bias else None

    @property
    def scales(self) -> Scales:
        """The scales as they are stored."""
        return Scales((self.absmax_codes, self.nested_absmax, self.offset) if self.double else (self.absmax,))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bias = None if self.bias is None else self.bias.to(x.dtype)
        shape, stored = (self.out_features, self.in_features), self._stored(x.dtype)
        if not torch.is_grad_enabled():  # the same, without autograd's share of the host's time
            return _product(x, bias, shape, stored)
        return _NF4Product.apply(x, bias, shape, *stored)

    def input_gradient(self, grad: torch.Tensor, onto: torch.Tensor | None = None) -> torch.Tensor:
        """dx = dy W, in new memory, or added to `onto`, a matrix: (..., out) -> (..., in), in dy's dtype; without a
        graph."""
        return _input_gradient(grad, self._stored(grad.dtype), (self.out_features, self.in_features), onto)

    def _stored(self, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
        at_hand = self.resident is not None and self.resident.dtype == dtype
        return (self.resident,) if at_hand else (self.packed, *self.scales)

    def dense_weight(self, dtype: torch.dtype) -> torch.Tensor:
        """W as a plain tensor (out, in) of `dtype`, with memory of its own."""
        return dequantize(self.packed, self.scales, (self.out_features, self.in_features), dtype)

    @torch.no_grad()
    def load_dense(self, leaf: str, tensor: torch.Tensor) -> None:
        """Take the checkpoint's dense "weight" (out, in), quantising it, or "bias" (out,), as it is.

        Raises `UserError` for a weight that is not finite; the message begins with "weight: ", so that a loader only
        has to put the module's name and a dot before it.
        """
        declared = (self.out_features, self.in_features) if leaf == "weight" else (self.out_features,)
        if leaf not in ("weight", "bias") or (leaf == "bias" and self.bias is None):
            raise ValueError(f"{leaf} is not a tensor of this layer")
        if tensor.shape != declared:
            raise ValueError(f"{leaf} has shape {tuple(tensor.shape)}, not {declared}")
        if leaf == "bias":
            self.bias = nn.Parameter(tensor, requires_grad=False)
        else:
            self.load_packed(*quantize_nf4(tensor))

    @torch.no_grad()
    def load_packed(self, packed: torch.Tensor, scales: torch.Tensor | Iterable[torch.Tensor]) -> None:
        """Take NF4 bytes (n/2,) or (n/2, 1), and scales: `absmax` or the parts of a `Scales`.

        A layer made with `double` quantises plain scales once more; one without expands a triple to float32, which
        changes no weight. Empty layers on the meta device move to the tensors' device. Raises `ValueError` for sizes
        that do not fit and `UserError` for scales that are not finite.
        """
        scales = Scales.of(scales)
        bounds = [torch.stack(part.aminmax()) for part in scales if part.is_floating_point() and part.numel()]
        if not all(bool(torch.isfinite(bound).all()) for bound in bounds):
            raise UserError("weight: its scales hold an infinity or NaN; they must be finite float32 numbers")
        names = ("absmax_codes", "nested_absmax", "offset") if self.double else ("absmax",)
        for name, tensor in zip(("packed", *names), (packed, *scales.kept(self.double)), strict=True):
            declared = getattr(self, name)
            if tensor.numel() != declared.numel() or tensor.dtype != declared.dtype:
                raise ValueError(f"{name} has {tensor.numel()} entries of {tensor.dtype}; {declared.numel()} of "
                                 f"{declared.dtype} were expected")
            device = tensor.device if declared.is_meta else declared.device
            setattr(self, name, tensor.reshape(declared.shape).to(device))
        self.resident = None

    def _load_from_state_dict(self, *args, **kwargs):
        self.resident = None
        super()._load_from_state_dict(*args, **kwargs)

    def _apply(self, fn, recurse: bool = True):
        # `model.to(torch.bfloat16)` sets the compute dtype. The scales are part of the format and stay float32; a
        # resident copy that was rounded and widened again would no longer be the same weights.
        kept = {id(buffer) for buffer in self._buffers.values()}

        def move(tensor):
            moved = fn(tensor)
            return tensor.to(moved.device) if id(tensor) in kept and moved.dtype != tensor.dtype else moved

        return super()._apply(move, recurse)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}, double={self.double}"
