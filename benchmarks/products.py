"""The limit: how long the matrix products of a task take by themselves, and how fast memory can be copied.

`Recorder` notes the shape of every matrix product that PyTorch is asked for while a task runs: the linears of all
layers forward, their products with the gradient backward, the adapters' thin ones. `seconds_of` then times each shape
alone, on dense float32 operands laid out in memory as they were, and sums. That is the time which a perfect program
would need for the same operations if nothing else cost anything: no attention, no norms, no dequantising, no memory.
Attention's own products are inside a fused kernel and are not counted, so the limit is on the low side.
"""

import time
from collections import Counter

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.worker import synchronise

PRODUCTS = ("mm", "addmm", "linear", "bmm", "baddbmm", "matmul")
Shape = tuple[int, int, int, bool, bool]  # rows, inner, columns; whether left and right lie transposed in memory


class Recorder(TorchDispatchMode):
    """`with Recorder(True) as recorder: ...; recorder.counts()`; with False nothing is noted and nothing is slower."""

    def __init__(self, active: bool):
        super().__init__()
        self.active, self.seen = active, Counter()

    def __enter__(self):
        return super().__enter__() if self.active else self

    def __exit__(self, *error):
        return super().__exit__(*error) if self.active else None

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__.rstrip("_")  # in place or not
        if name in PRODUCTS:
            self.note(name, *args[1:3] if name in ("addmm", "baddbmm") else args[:2])
        return function(*args, **(kwargs or {}))

    def note(self, name: str, left: torch.Tensor, right: torch.Tensor) -> None:
        right = right.transpose(-1, -2) if name == "linear" else right
        times = 1
        if left.dim() == 3 and right.dim() == 3:
            times, left, right = left.shape[0], left[0], right[0]
        rows = left.numel() // left.shape[-1]
        transposed = [tensor.dim() == 2 and tensor.stride(0) == 1 and tensor.stride(1) > 1 for tensor in (left, right)]
        self.seen[(rows, left.shape[-1], right.shape[-1], *transposed)] += times

    def counts(self) -> list[list]:
        """`[[rows, inner, columns, left transposed, right transposed, how often], ...]`, the most work first."""
        return [[*shape, count] for shape, count in sorted(self.seen.items(), key=lambda item: -work(*item))]


def work(shape: Shape, count: float = 1) -> float:
    """Floating-point operations of `count` products of one shape: 2 * rows * inner * columns each."""
    return 2.0 * shape[0] * shape[1] * shape[2] * count


def as_counter(lines: list[list]) -> dict[Shape, float]:
    """What `Recorder.counts` gave, as shape -> how often."""
    return {tuple(line[:5]): line[5] for line in lines}


def extrapolate(by_depth: dict[int, dict[Shape, float]], depth: int) -> dict[Shape, float]:
    """How often each shape occurs at `depth`, on the line through the shallowest and the deepest that was recorded."""
    low, high = min(by_depth), max(by_depth)
    shapes = by_depth[low] | by_depth[high]
    if low == high:
        raise ValueError("two depths are needed")
    result = {}
    for shape in shapes:
        first, last = by_depth[low].get(shape, 0), by_depth[high].get(shape, 0)
        result[shape] = first + (last - first) * (depth - low) / (high - low)
    return {shape: count for shape, count in result.items() if count}


def time_shapes(shapes, dtype: torch.dtype, device: str) -> dict[Shape, float]:
    """Seconds of one product of each shape, after one that does not count."""
    return {shape: _time(shape, dtype, device) for shape in shapes}


def _time(shape: Shape, dtype: torch.dtype, device: str, least: float = 0.02) -> float:
    rows, inner, columns, left_lies, right_lies = shape
    left = torch.randn(inner, rows).t() if left_lies else torch.randn(rows, inner)
    right = torch.randn(columns, inner).t() if right_lies else torch.randn(inner, columns)
    left, right = left.to(device, dtype), right.to(device, dtype)
    with torch.inference_mode():
        left @ right
        synchronise(device)
        began, times = time.perf_counter(), 0
        while times == 0 or time.perf_counter() - began < least:  # thin products are too short for the clock
            left @ right
            times += 1
            synchronise(device)
        return (time.perf_counter() - began) / times


def seconds_of(counts: dict[Shape, float], seconds: dict[Shape, float]) -> float:
    """Sum over shapes of how often times how long."""
    return sum(count * seconds[shape] for shape, count in counts.items())


def copy_bandwidth(device: str, size: int = 1 << 28) -> float:
    """Bytes a second read and written together while a tensor of `size` bytes is copied; the median of five."""
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    times = []
    for _ in range(6):
        synchronise(device)
        began = time.perf_counter()
        target.copy_(source)
        synchronise(device)
        times.append(time.perf_counter() - began)
    return 2 * size / sorted(times[1:])[2]


def dequantised_bytes(counts: dict[Shape, float], linears: set[tuple[int, int]]) -> float:
    """Bytes read and written to dequantise W once for each product with it: 4 bits, a scale for 64, float32 out.

    `linears`: (in, out) of the 4-bit linears; a product whose right operand is W or its transpose is one with it.
    """
    total = 0.0
    for (_, inner, columns, *_), count in counts.items():
        if (inner, columns) in linears or (columns, inner) in linears:
            total += count * inner * columns * (0.5 + 4 / 64 + 4)
    return total
