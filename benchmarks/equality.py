"""Whether both sides do the same work: a benchmark that compares unequal work is worthless.

Each check raises `UserError` with the largest difference and where it is; then nothing is timed.
"""

import hashlib

import torch
from safetensors.torch import load_file

from common.errors import UserError

IN_FLOAT32, ROUNDED = 1e-4, 5e-2  # largest difference in float32; in 16 bits


def digest(*tensors: torch.Tensor) -> str:
    """SHA-256 over the tensors' bytes, one after the other, whatever their shapes."""
    total = hashlib.sha256()
    for tensor in tensors:
        total.update(tensor.detach().reshape(-1).cpu().numpy().tobytes())
    return total.hexdigest()


def check_weights(ours: dict[str, str], theirs: dict[str, str]) -> None:
    """Raise unless both name the same 4-bit linears and their bytes and scales are equal."""
    if set(ours) != set(theirs) or not ours:
        raise UserError(f"4-bit linears: {len(ours)} of ours and {len(theirs)} of the usual stack's are not the same "
                        f"({', '.join(sorted(set(ours) ^ set(theirs))[:3])})")
    different = sorted(name for name in ours if ours[name] != theirs[name])
    if different:
        raise UserError(f"{different[0]}: packed bytes or scales differ ({len(different)} of {len(ours)} linears); the "
                        "two sides would not compute with the same weights")


def check_close(name: str, ours, theirs, limit: float) -> float:
    """The largest difference between two (lists of) numbers, such as label probabilities; raises if above `limit`."""
    ours, theirs = torch.tensor(ours), torch.tensor(theirs)
    if ours.shape != theirs.shape:
        raise UserError(f"{name}: shape {tuple(theirs.shape)}, not {tuple(ours.shape)} as ours")
    largest = (ours - theirs).abs().max().item()
    if not largest <= limit:  # also if it is not a number
        raise UserError(f"{name}: differ by {largest:.1e}, more than {limit:.0e}; the two sides would not do the same "
                        "work")
    return largest


def check_training(name: str, ours: str, theirs: str, losses: tuple[float, float], limit: float) -> dict[str, float]:
    """Differences of one step: loss, gradient (norm, relative), adapter (largest entry); raises above `limit`.

    `ours`, `theirs`: safetensors files with the tensors "gradient NAME" and "adapter NAME". AdamW's first step moves
    each entry by the rate times about g / |g|; if g is a thousand times smaller than in the rest of the tensor, its
    sign is a matter of rounding, so the adapters are compared at all other entries.
    """
    mine, other = load_file(ours), load_file(theirs)
    if set(mine) != set(other):
        raise UserError(f"{name}: {sorted(set(mine) ^ set(other))[0]} is on one side only")
    names = sorted(mine)
    apart = []
    for key in (key for key in names if key.startswith("adapter ")):
        gradient = other[key.replace("adapter ", "gradient ")]
        counts = gradient.abs() > 1e-3 * gradient.square().mean().sqrt()
        apart.append(((mine[key] - other[key]).abs() * counts).max().item())
    both = [(mine[key], other[key]) for key in names if key.startswith("gradient ")]
    difference = sum((a - b).double().square().sum() for a, b in both) ** 0.5
    size = sum(b.double().square().sum() for _, b in both) ** 0.5
    if not size > 0:
        raise UserError(f"{name}: the usual stack's gradient is zero; nothing can be compared")
    found = {"loss": abs(losses[0] - losses[1]), "gradient": (difference / size).item(), "adapter": max(apart)}
    for what, value in found.items():
        if not value <= limit:
            raise UserError(f"{name}: {what} differs by {value:.1e} after one step, more than {limit:.0e}; the two "
                            "sides would not do the same work")
    return found
