"""The limit: how long the matrix products of a task take by themselves, and how fast memory can be copied.

`Recorder` notes the shape of every matrix product that PyTorch is asked for while a task runs: the linears of all
layers forward, their products with the gradient backward, the adapters' thin ones. `time_shapes` then times each shape
alone, on dense operands laid out in memory as they were, by `F.linear` and by `common.product` (other libraries), and
keeps the faster; `seconds_of` sums. That is the time that a perfect program would need for the same operations if
nothing else cost anything: no attention, no norms, no dequantising, no memory. Attention's own products are inside a
fused kernel and are not counted, so the limit is on the low side.
"""

import time
from collections import Counter

import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.worker import synchronise
from common.product import matmul

# Which arguments of PyTorch's operations are multiplied; the weight of a linear lies transposed.
PRODUCTS = {"mm": (0, 1), "bmm": (0, 1), "matmul": (0, 1), "addmm": (1, 2), "baddbmm": (1, 2)}
LINEARS = {"linear": (0, 1), "_linear_pointwise": (0, 1), "_linear_pointwise.binary": (0, 2)}
Shape = tuple[int, int, int, bool, bool]  # rows, inner, columns; whether left and right lie transposed in memory


class Recorder(TorchDispatchMode):
    """`with Recorder(True) as recorder: ...; recorder.counts()`; with False it notes and costs nothing."""

    def __init__(self, active: bool):
        super().__init__()
        self.active, self.seen = active, Counter()

    def __enter__(self):
        return super().__enter__() if self.active else self

    def __exit__(self, *error):
        return super().__exit__(*error) if self.active else None

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__.rstrip("_")  # in place or not
        name += ".binary" if function._overloadname == "binary" else ""
        if name in PRODUCTS:
            self.note(*(args[place] for place in PRODUCTS[name]))
        elif name in LINEARS:
            left, weight = (args[place] for place in LINEARS[name])
            self.note(left, weight.t())
        return function(*args, **(kwargs or {}))

    def note(self, left: torch.Tensor, right: torch.Tensor) -> None:
        """Count a product (rows, inner) x (inner, columns); in a batch, each one."""
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
    """Seconds of one product of each shape by the faster of two ways."""
    seconds = {}
    with torch.inference_mode():
        for shape in shapes:
            rows, inner, columns, left_lies, right_lies = shape
            left = torch.randn(inner, rows).t() if left_lies else torch.randn(rows, inner)
            weight = torch.randn(columns, inner) if right_lies else torch.randn(inner, columns).t()
            left, weight = left.to(device, dtype), weight.to(device, dtype)
            seconds[shape] = min(_time(way, left, weight, device) for way in (F.linear, matmul))
    return seconds


def _time(way, left: torch.Tensor, weight: torch.Tensor, device: str, least: float = 0.05) -> float:
    """Seconds of one call: the first if it is long, else the mean of the following ones, which fill `least` seconds."""
    times: list[float] = []
    while len(times) < 2 or sum(times[1:]) < least:
        synchronise(device)
        began = time.perf_counter()
        way(left, weight)
        synchronise(device)
        times.append(time.perf_counter() - began)
        if times[0] > 4 * least:  # what a first call costs more is negligible then
            return times[0]
    return sum(times[1:]) / (len(times) - 1)


def seconds_of(counts: dict[Shape, float], seconds: dict[Shape, float]) -> float:
    """Sum over shapes of how often times how long."""
    return sum(count * seconds[shape] for shape, count in counts.items())


def copy_bandwidth(device: str, size: int = 1 << 28) -> float:
    """Bytes per second, read and written together, while a tensor of `size` bytes is copied; the median of five."""
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

    `linears`: (in, out) of the 4-bit linears; a product whose right operand is W or its transpose counts.
    """
    total = 0.0
    for (_, inner, columns, *_), count in counts.items():
        if (inner, columns) in linears or (columns, inner) in linears:
            total += count * inner * columns * (0.5 + 4 / 64 + 4)
    return total
