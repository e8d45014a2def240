"""How a result differs from the one that is wanted, in words."""

from numbers import Real

import numpy
import torch

from common.terminal import counted

FEW = 8  # numbers of a tensor that is shown
LONGEST = 200  # characters of the arguments that are shown


def difference(mine, right, tolerance: float, relative: float = 0.0, typed: bool = False) -> str:
    """How `mine` differs from `right`, in words; "" if it does not.

    tolerance: how far a number may be from the right one; relative: the same as a share of the right one. typed: the
    numbers of a tensor have to be of the same type as the right one's, not only of the same kind.
    """
    if mine is None and right is not None:
        return "it gives nothing back; is there a `return`?"
    if isinstance(right, tuple | list):
        if not isinstance(mine, tuple | list):
            return f"it gives one {type(mine).__name__} where {counted(len(right), 'result')} are wanted"
        if len(mine) != len(right):
            return f"it gives {counted(len(mine), 'result')} where {len(right)} are wanted"
        parts = (difference(a, b, tolerance, relative, typed) for a, b in zip(mine, right, strict=True))
        return next((f"result {number}: {words}" for number, words in enumerate(parts, 1) if words), "")
    if isinstance(right, torch.Tensor):
        return _tensors_differ(mine, right, tolerance, relative, typed)
    if isinstance(mine, torch.Tensor | numpy.ndarray):
        if mine.size != 1 if isinstance(mine, numpy.ndarray) else mine.numel() != 1:
            return f"it gives a table of shape {tuple(mine.shape)} where one {type(right).__name__} is wanted"
        mine = mine.item()
    if isinstance(right, float) and isinstance(mine, Real):
        mine = float(mine)
        is_near = mine == right or abs(mine - right) <= tolerance + relative * abs(right)
        return "" if is_near else f"it gives {mine:.6g} where {right:.6g} is wanted"
    return "" if mine == right else f"it gives {_short(mine)} where {_short(right)} is wanted"


def _tensors_differ(mine, right: torch.Tensor, tolerance: float, relative: float, typed: bool) -> str:
    if not isinstance(mine, torch.Tensor):
        return f"it gives one {type(mine).__name__}, not a tensor"
    if mine.shape != right.shape:
        turned = "; rows and columns have changed places" if mine.dim() == 2 and mine.T.shape == right.shape else ""
        return f"it gives shape {tuple(mine.shape)}; {tuple(right.shape)} is wanted{turned}"
    other_kind = mine.is_floating_point() != right.is_floating_point() or mine.is_complex()
    if other_kind or (typed and mine.dtype != right.dtype):
        sizes = mine.dtype.itemsize, right.dtype.itemsize
        each = f", which take {sizes[0]} bytes each" if sizes[0] > sizes[1] and not other_kind else ""
        return f"it gives numbers of type {mine.dtype}{each}; {right.dtype} is wanted"
    if mine.isnan().any() and not right.isnan().any():
        return ("it gives NaN, which is no number: somewhere 0 is divided by 0, infinity is multiplied by 0, or "
                "infinities are subtracted")
    apart = ~torch.isclose(mine.double(), right.double(), rtol=relative, atol=tolerance, equal_nan=True)
    if not apart.any():
        return ""
    place = tuple(apart.nonzero()[0].tolist())
    where = f"at {list(place)} " if place else ""
    is_coarse = mine.is_floating_point() and mine.dtype.itemsize < right.dtype.itemsize
    coarse = f"; numbers of type {mine.dtype} hold only a few digits" if is_coarse else ""
    times = factor(mine.double(), right.double(), 2 if is_coarse else 4)
    return (f"{where}it gives {mine[place].item():.6g} where {right[place].item():.6g} is wanted; "
            f"{int(apart.sum())} of {apart.numel()} numbers differ{times or coarse}")


def factor(mine: torch.Tensor, right: torch.Tensor, digits: int = 4) -> str:
    """Words for a result that is the right one times one number; "" for any other, for a single number, and where the
    number is so close to 1 that it would be printed as 1."""
    ratio = mine[right != 0] / right[right != 0]
    if len(ratio) < 2 or mine[right == 0].any() or not torch.allclose(ratio, ratio.mean().expand_as(ratio), rtol=1e-3):
        return ""
    words = f"{float(ratio.mean()):.{digits}g}"
    return "" if words in ("0", "1") else f"; every number is {words} times the one that is wanted"


def factor_of_all(mine: list, right: list) -> str:
    """The same for results that are single numbers, over all trials together; "" where they are anything else."""
    pairs = [pair for a, b in zip(mine, right, strict=True) for pair in zip(_numbers(a), _numbers(b), strict=False)]
    if len(pairs) < len(right):
        return ""
    return factor(*torch.tensor(pairs, dtype=torch.float64).T)


def _numbers(value) -> list[float]:
    """A number, or several of them, as a list; an empty one for anything else."""
    values = value if isinstance(value, tuple | list) else [value]
    return [float(part) for part in values] if all(isinstance(part, Real) for part in values) else []


def call_of(name: str, arguments: tuple) -> str:
    """A call as one would write it: `merge(['a', 'b'], ('a', 'b'))`; "" if the arguments are too long to be read."""
    parts = [_written(argument) for argument in arguments]
    whole = f"{name}({', '.join(part for part in parts if part)})"
    return whole if all(parts) and len(whole) <= LONGEST else ""


def _written(value) -> str:
    """A value as one would write it; "" for a function or a large tensor."""
    if isinstance(value, torch.Tensor):
        return f"tensor({_rounded(value.tolist())})" if value.numel() <= FEW else ""
    return "" if callable(value) else f"{value:.6g}" if isinstance(value, float) else repr(value)


def _rounded(values):
    if isinstance(values, list):
        return [_rounded(part) for part in values]
    return float(f"{values:.4g}") if isinstance(values, float) else values


def _short(value) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
