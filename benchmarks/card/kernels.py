"""The Triton kernels beside the plain operations that specify them: equal results, and the share of memory's speed.

The bytes are the fewest that the operation must move: each input read once, each output written once.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

import torch

from benchmarks.card.state import State
from common.kernels import plain_kernels
from common.packed import Layout
from model.layers import RMSNorm, swiglu
from model.rope import rotate_both
from model.varlen import _Gather, gathered, sequences
from quant.double_quant import Scales, dequantize
from quant.nf4 import quantize_nf4

SHAPES = ((8192, 3072), (3072, 3072), (1024, 3072))  # up and gate; query and output; key and value
TOKENS = 4096
HIDDEN, INNER, HEADS, KEYS, HEAD = 3072, 8192, 24, 8, 128
PREFIX, ROWS = 32, 32


@dataclass
class Case:
    """One operation: its name, what runs it, the bytes it must move, and how far results may be apart (0: no bit)."""

    name: str
    run: Callable[[], object]
    size: int
    limit: float = 0.0


def compare(state: State) -> None:
    """Each case by its kernel and by plain operations: difference, times, and share of a copy's bandwidth."""
    bandwidth = copy(state)
    state.note("copy of 1 GB", bandwidth / 1e12, "TB/s")
    for case in cases(state):
        mine = flat(case.run())
        with plain_kernels():
            plain = flat(case.run())
        worst = max(((a.double() - b.double()).abs().max() / b.double().abs().max()).item()
                    for a, b in zip(mine, plain, strict=True))
        same = all(torch.equal(a, b) for a, b in zip(mine, plain, strict=True))
        state.note(f"{case.name}: difference from plain", "none" if same else f"{worst:.1e}", "",
                   "none" if not case.limit else f"at most {case.limit:.0e}", same or worst <= case.limit, check=True)
        seconds, launching = state.on_card(case.run), state.host(case.run, 9)
        with plain_kernels():
            slow, slow_launching = state.on_card(case.run), state.host(case.run, 9)
        state.note("  kernel, on the card", 1e6 * seconds, "µs")
        state.note("  plain operations, on the card", 1e6 * slow, "µs")
        state.note("  share of a copy's bandwidth", 100 * case.size / seconds / bandwidth, "%")
        state.note("  host: kernel, plain", f"{1e6 * launching:.0f}, {1e6 * slow_launching:.0f}", "µs")
    if importlib.util.find_spec("bitsandbytes") is not None:
        theirs(state)
    else:
        state.note("bitsandbytes", "not installed")


def copy(state: State) -> float:
    """Bytes a second of a copy, read and written."""
    source = torch.empty(1 << 30, dtype=torch.uint8, device=state.device)
    target = torch.empty_like(source)
    return 2 * source.numel() / state.time(lambda: target.copy_(source), 9, 3)


def cases(state: State):
    """All operations at the sizes of Llama 3.2-3B."""
    draw = lambda *shape: torch.randn(*shape, device=state.device, dtype=state.dtype)  # noqa: E731
    for shape in SHAPES:
        count = shape[0] * shape[1]
        packed, absmax = quantize_nf4(draw(*shape) * 0.02)
        for double in (False, True):
            scales = Scales((absmax,)).kept(double)
            stored = packed.numel() + sum(part.numel() * part.element_size() for part in scales)
            for dtype in (state.dtype, torch.float32) if shape == SHAPES[0] and not double else (state.dtype,):
                out = torch.empty(shape, dtype=dtype, device=state.device)
                name = f"NF4 {'double ' * double}to {str(dtype).removeprefix('torch.')}, {shape[0]} x {shape[1]}"
                yield Case(name, lambda p=packed, s=scales, t=shape, d=dtype, o=out: dequantize(p, s, t, d, out=o),
                           stored + count * dtype.itemsize)
    x, one = draw(TOKENS, HIDDEN), state.dtype.itemsize
    norm = RMSNorm(HIDDEN, 1e-5).to(state.device, state.dtype).requires_grad_(False)
    near = 2.0**-8  # one unit in the last place of bfloat16
    yield Case("RMSNorm", torch.no_grad()(lambda: norm(x)), 2 * x.numel() * one, near)
    yield Case("RMSNorm, forward and backward", lambda: through(norm, x), 5 * x.numel() * one, 4 * near)
    residual = draw(TOKENS, HIDDEN)
    yield Case("RMSNorm of a sum", torch.no_grad()(lambda: norm(x, residual)), 4 * x.numel() * one, near)
    yield Case("RMSNorm of a sum, forward and backward", lambda: through(norm, x, residual), 8 * x.numel() * one,
               4 * near)
    gate, up = draw(TOKENS, INNER), draw(TOKENS, INNER)
    yield Case("SwiGLU", torch.no_grad()(lambda: swiglu(gate, up)), 3 * gate.numel() * one, near)
    yield Case("SwiGLU, forward and backward", lambda: through(swiglu, gate, up), 8 * gate.numel() * one, 4 * near)
    q, k, angles = draw(TOKENS, HEADS, HEAD), draw(TOKENS, KEYS, HEAD), torch.rand(TOKENS, HEAD // 2) * 6
    rope = tuple(part.to(state.device, state.dtype) for part in (angles.cos(), angles.sin()))
    size = 2 * (q.numel() + k.numel()) * one + 2 * rope[0].numel() * one
    yield Case("rotation of queries and keys", lambda: rotate_both(q, k, rope), size, near)
    yield Case("the same, with backward", lambda: through(lambda q, k: rotate_both(q, k, rope), q, k), 2 * size, near)
    layout = Layout(tuple(range(PREFIX, TOKENS + 1, (TOKENS - PREFIX) // ROWS)), PREFIX)
    found = sequences(layout, state.device)
    back = [draw(len(found.source), KEYS, HEAD) for _ in range(2)]
    k, v = draw(layout.tokens, KEYS, HEAD), draw(layout.tokens, KEYS, HEAD)
    size = 2 * (k.numel() + back[0].numel()) * one + found.source.numel() * 8
    yield Case("keys and values gathered by row", lambda: gathered(k, v, found), size)
    yield Case("the same, with backward, of keys and values",
               lambda: through(lambda k, v: _Gather.apply(k, v, found), k, v, back=back), 2 * size, near)


def through(function, *inputs, back=None) -> list[torch.Tensor]:
    """Outputs and the gradients of all inputs.

    What comes back is `back`, or the inputs rolled by one, not the outputs: the gradient of a norm along its own output
    is zero but for rounding.
    """
    inputs = [x.detach().requires_grad_() for x in inputs]
    outputs = flat(function(*inputs))
    back = [x.detach().roll(1, -1) for x in inputs[: len(outputs)]] if back is None else back
    return [*outputs, *torch.autograd.grad(outputs, inputs, back)]


def flat(result) -> list[torch.Tensor]:
    """A tensor, or several, as a list of copies: some operations write into the same memory each time."""
    return [result.clone()] if isinstance(result, torch.Tensor) else [part.clone() for part in result]


def theirs(state: State) -> None:
    """bitsandbytes' dequantising of the same bytes."""
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    for shape in SHAPES:
        weight = torch.randn(*shape, device=state.device, dtype=state.dtype) * 0.02
        packed, quant_state = quantize_4bit(weight, quant_type="nf4", blocksize=64)
        ours, absmax = quantize_nf4(weight)
        same = torch.equal(ours, packed.view(-1)) and torch.equal(absmax, quant_state.absmax)
        state.note(f"bitsandbytes: the same bytes and scales, {shape[0]} x {shape[1]}", same)
        out = torch.empty(shape, dtype=state.dtype, device=state.device)
        dequantize(ours, Scales((absmax,)), shape, state.dtype, out=out)
        state.note("  and the same weights", torch.equal(dequantize_4bit(packed, quant_state), out))
        seconds = state.on_card(lambda p=packed, q=quant_state, o=out: dequantize_4bit(p, q, out=o))
        state.note("  its dequantising, on the card", 1e6 * seconds, "µs")
