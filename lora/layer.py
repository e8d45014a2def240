"""LoRA (Hu et al. 2021, arXiv 2106.09685): a frozen linear plus a trainable product of two thin matrices.

    y = base(x) + s * dropout(x) A^T B^T,    A (r, in), B (out, r),    s = alpha / r, or alpha / sqrt(r) with rsLoRA

A starts as in PEFT (uniform within 1 / sqrt(in)) and B at zero, so a fresh adapter adds exact zeros and the layer gives
the bits of its base. rsLoRA's scale (Kalajdzievski 2023, arXiv 2312.03732) keeps the update's size as r grows.

A and B are float32 masters whatever the base computes in: AdamW's small steps would vanish in 16 bits. They are cast to
x's dtype for each product. The wrapper needs from its base only what every linear here offers, so the same class wraps
dense and 4-bit linears, and the model does not know about it.

On a card, where each operation costs a launch, scaling and adding are part of the products (`addmm`): `_OnCard` below.
Its sums are rounded once instead of twice, so its last bits differ from those of the same steps one by one, which is
what a CPU computes. The 16-bit A and B are kept from forward to backward, 2 bytes a parameter beside the 16 of master,
gradient and AdamW's two averages; so are, as elsewhere, x and the thin product. `lora.inject.cast_once` has them cast
for a whole step.
"""

import math
from numbers import Integral, Real

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable

from common.errors import UserError
from common.product import linear


def scaling_factor(r: int, alpha: float, rslora: bool = False) -> float:
    """s = alpha / r, or alpha / sqrt(r) with rsLoRA."""
    return alpha / math.sqrt(r) if rslora else alpha / r


class LoRALinear(nn.Module):
    """y = base(x) + s * dropout(x) A^T B^T: (..., in) -> (..., out), in x's dtype; make one with `from_base`.

    Attributes: `base` (frozen), `lora_A` (r, in) and `lora_B` (out, r) float32 parameters, `r`, `alpha`, `dropout`,
    `rslora`, `scaling`. Itself a linear: `dense_weight` is the merged weight, `bias` the base's.
    """

    def __init__(self, base: nn.Module, r: int, alpha: float, dropout: float = 0.0, rslora: bool = False):
        super().__init__()
        check_numbers(r, alpha, dropout)
        if not hasattr(base, "dense_weight"):
            raise UserError(f"LoRA: the base is of type {type(base).__module__}.{type(base).__name__}; it must offer "
                            "what model.layers.Linear does (dense_weight, input_gradient)")
        r, alpha = int(r), int(alpha) if isinstance(alpha, Integral) else float(alpha)  # numpy's become Python's
        self.in_features, self.out_features = base.in_features, base.out_features
        self.r, self.alpha, self.dropout, self.rslora = r, alpha, float(dropout), rslora
        self.scaling = scaling_factor(r, alpha, rslora)
        self.at_hand: tuple[torch.Tensor, torch.Tensor] | None = None  # A and B in x's dtype (`lora.inject.cast_once`)
        self.base = base.requires_grad_(False)
        device = next(tensor for tensors in (base.parameters(), base.buffers()) for tensor in tensors).device
        self.lora_A = nn.Parameter(torch.empty(r, self.in_features, dtype=torch.float32, device=device))
        self.lora_B = nn.Parameter(torch.empty(self.out_features, r, dtype=torch.float32, device=device))
        self.train(base.training)

    @classmethod
    def from_base(cls, base: nn.Module, r: int, alpha: float, dropout: float = 0.0, rslora: bool = False,
                  generator: torch.Generator | None = None) -> "LoRALinear":
        """A fresh adapter over `base`; A is drawn from `generator` (a CPU one), or by torch's global random generator.

        Raises `UserError` for a rank below 1, an alpha that is not positive, a dropout outside [0, 1).
        """
        layer = cls(base, r, alpha, dropout, rslora)
        layer.reset(generator)
        return layer

    @torch.no_grad()
    def reset(self, generator: torch.Generator | None = None) -> None:
        """A uniform in +-1/sqrt(in), as `kaiming_uniform_(a=sqrt(5))` makes it; B zero. Drawn on the CPU, so that a
        seed gives the same adapter on any device."""
        start = torch.empty(self.r, self.in_features)
        nn.init.kaiming_uniform_(start, a=math.sqrt(5), generator=generator)
        self.lora_A.copy_(start)
        self.lora_B.zero_()

    @property
    def bias(self) -> torch.Tensor | None:
        """The base's bias."""
        return self.base.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # The mask comes from torch's global random numbers, whose state a training checkpoint stores.
        dropped = F.dropout(x, self.dropout, self.training) if self.dropout else x
        if x.device.type == "cuda":
            other = None if dropped is x else dropped
            return _OnCard.apply(x, other, self.lora_A, self.lora_B, self.scaling, self.base, self.at_hand)
        thin = linear(dropped, self.lora_A) * self.scaling  # (..., in) -> (..., r)
        return linear(thin, self.lora_B, add=self.base(x))  # (..., r) -> (..., out)

    def jointly(self, x: torch.Tensor, linears: tuple[nn.Module, ...]) -> tuple[torch.Tensor, ...] | None:
        """`linear(x)` of each as on a card (`_Together`), x (N, in); None if they are no adapters of one scale without
        dropout, or somebody watches one of them."""
        if x.dim() != 2 or not all(
                type(one) is LoRALinear and one.scaling == self.scaling and not (one.dropout and one.training)
                and not (one._forward_hooks or one._forward_pre_hooks) for one in linears):
            return None
        a, b = zip(*(one.at_hand or (one.lora_A, one.lora_B) for one in linears), strict=True)
        a = torch.cat([part.detach() for part in a]).to(x.dtype)  # (the sum of r, in)
        b = [part.detach().to(x.dtype) for part in b]
        masters = [part for one in linears for part in (one.lora_A, one.lora_B)]
        return _Together.apply(x, a, b, self.scaling, [one.base for one in linears], *masters)

    @torch.no_grad()
    def dense_weight(self, dtype: torch.dtype) -> torch.Tensor:
        """The merged weight W + s B A (out, in), a new tensor of `dtype`; computed in at least float32."""
        compute_dtype = torch.promote_types(dtype, torch.float32)
        update = (self.lora_B.to(compute_dtype) @ self.lora_A.to(compute_dtype)).mul_(self.scaling)
        return update.add_(self.base.dense_weight(compute_dtype)).to(dtype)

    def _apply(self, fn, recurse: bool = True):
        # `model.to(torch.bfloat16)` sets the compute dtype; A and B, and their gradients, stay float32 masters.
        def move(tensor):
            moved = fn(tensor)
            return tensor.to(moved.device) if moved.dtype != tensor.dtype else moved

        if recurse:
            self.base._apply(fn)
        return super()._apply(move, recurse=False)

    def extra_repr(self) -> str:
        return f"r={self.r}, alpha={self.alpha:g}, dropout={self.dropout:g}, rslora={self.rslora}"


class _OnCard(torch.autograd.Function):
    """`LoRALinear.forward` in few launches: x and `dropped` (..., in) -> (..., out); `dropped` is None if it is x.

        t = s dropped A^T        y = base(x) + t B^T
        dt = s dy B      dB = dy^T t      dA = dt^T dropped      dx = dy W + dt A  (dt A is `dropped`'s if there is one)

    Gradients of A and B are summed in float32 and never rounded to 16 bits. Without gradients nothing is kept.
    """

    @staticmethod
    def forward(ctx, x, dropped, lora_a, lora_b, scaling, base, at_hand=None):
        y = base(x)  # (..., out), new memory: the product is added in place
        thick = (x if dropped is None else dropped).reshape(-1, base.in_features)  # (N, in)
        a, b = (part.to(x.dtype) for part in at_hand or (lora_a, lora_b))
        thin = _scaled(thick, a.t(), scaling)  # (N, r)
        y.view(-1, base.out_features).addmm_(thin, b.t())
        ctx.base, ctx.scaling, ctx.shape = base, scaling, x.shape
        ctx.save_for_backward(thick if ctx.needs_input_grad[2] else None, thin, a, b)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        (thick, thin, a, b), (of_x, of_dropped, of_a, of_b, *_) = ctx.saved_tensors, ctx.needs_input_grad
        tokens = grad.reshape(-1, grad.shape[-1])  # (N, out)
        d_thin = _scaled(tokens, b, ctx.scaling)  # (N, r)
        d_x = ctx.base.input_gradient(tokens) if of_x else None  # (N, in), new memory
        d_dropped = d_thin @ a if of_dropped else None
        if of_x and not of_dropped:
            d_x.addmm_(d_thin, a)
        d_x, d_dropped = (None if part is None else part.view(ctx.shape) for part in (d_x, d_dropped))
        return (d_x, d_dropped, _float32_product(d_thin.t(), thick) if of_a else None,
                _float32_product(tokens.t(), thin) if of_b else None, None, None, None)


class _Together(torch.autograd.Function):
    """Several adapters of one x: (N, in) -> (N, out) each, in fewer launches than one after the other.

        t = s x A^T      y_i = base_i(x) + t_i B_i^T      for all A one below the other, t = (t_1, t_2, ...)
        dt_i = s dy_i B_i      dB_i = dy_i^T t_i      dA = dt^T x      dx = sum of dy_i W_i + dt A

    The products of dx are added up while they are written. Else as `_OnCard`.
    """

    @staticmethod
    def forward(ctx, x, a, b, scaling, bases, *masters):
        thin = _scaled(x, a.t(), scaling)  # (N, the sum of r)
        parts = thin.split([part.shape[1] for part in b], dim=1)
        out = tuple(base(x).addmm_(t, part.t()) for base, t, part in zip(bases, parts, b, strict=True))
        ctx.bases, ctx.scaling = bases, scaling
        ctx.save_for_backward(x if any(ctx.needs_input_grad[5::2]) else None, thin, a, *b)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads):
        x, thin, a, *b = ctx.saved_tensors
        of_x, (of_a, of_b) = ctx.needs_input_grad[0], (ctx.needs_input_grad[start::2] for start in (5, 6))
        ranks, d_thin, d_x = [part.shape[1] for part in b], torch.empty_like(thin), None
        for grad, part, out in zip(grads, b, d_thin.split(ranks, dim=1), strict=True):
            out.addmm_(grad, part, beta=0, alpha=ctx.scaling)
        if of_x:
            for base, grad in zip(ctx.bases, grads, strict=True):
                d_x = base.input_gradient(grad, d_x)
            d_x.addmm_(d_thin, a)
        d_a = _float32_product(d_thin.t(), x).split(ranks) if any(of_a) else [None] * len(b)
        d_b = [_float32_product(grad.t(), t) if wanted else None
               for grad, t, wanted in zip(grads, thin.split(ranks, dim=1), of_b, strict=True)]
        masters = [part for a_i, b_i, wanted in zip(d_a, d_b, of_a, strict=True) for part in (a_i if wanted else None,
                                                                                              b_i)]
        return d_x, None, None, None, None, *masters


def _scaled(left: torch.Tensor, right: torch.Tensor, factor: float) -> torch.Tensor:
    """factor * left @ right in one launch; with beta 0 the first argument of `addmm` only lends its shape."""
    return torch.addmm(left.new_empty(1, 1), left, right, beta=0, alpha=factor)


def _float32_product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """left @ right as float32, without a rounding to 16 bits in between where the library offers that."""
    if left.device.type == "cuda" and left.dtype in (torch.bfloat16, torch.float16):
        return torch.mm(left, right, out_dtype=torch.float32)
    return torch.mm(left, right).float()


def check_numbers(r: int, alpha: float, dropout: float) -> None:
    """Raise `UserError` for a rank, alpha or dropout that no adapter can have."""
    if not isinstance(r, Integral) or isinstance(r, bool) or r < 1:
        raise UserError(f"LoRA rank r = {r}: must be a whole number from 1 up")
    if not isinstance(alpha, Real) or not 0 < alpha < math.inf:
        raise UserError(f"LoRA alpha = {alpha}: must be a positive number; 2 * r and r are usual")
    if not isinstance(dropout, Real) or not 0 <= dropout < 1:
        raise UserError(f"LoRA dropout = {dropout}: must be at least 0 and below 1")
