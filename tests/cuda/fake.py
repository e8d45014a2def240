"""A CUDA card for tests: the real one where there is one, else one that computes nothing and counts everything.

    with card() as one:
        model = ...                        tensors on `one.device`
        with one.inside() as seen:         a step or a window: the host may read nothing
            trainer.step()
        seen.launches                      Counter: operation -> kernels that it launches
        seen.products, seen.sums           dtypes of every matrix product's operands, and of what is summed

Without a card, `torch._subclasses.fake_tensor.FakeTensorMode` gives tensors that have a shape, a dtype and the device
"cuda:0", but no numbers; the code under test is the product's own, line by line. It refuses operands on two devices.
Tensors on the CPU stay real. Over it lies `Watch`, which sees every operation of PyTorch, forward and backward:

- what makes the host wait for the card (`.item()`, `bool(tensor)`, `nonzero`, an index of booleans, a copy to the CPU,
  a blocking copy from it) is a `HostRead` inside a step, with the line of the project that did it; outside it is
  answered: 1 for a number, zeros for a copy;
- copies to the card from memory that is not pinned are listed, since CUDA may wait for those too;
- launches are counted by `kernels`: views, empty tensors and the host's own operations launch nothing.

On a real card the same code counts, and `torch.cuda.set_sync_debug_mode("error")` is what finds a read. A kernel of our
own (Triton) cannot run on fake tensors: `one.kernel(module, "name", like)` puts a function in its place that counts one
launch and gives empty tensors.

What a CPU build cannot do is replaced in `_replacements` and `_Calls`, and nowhere else, each with its reason.
"""

import contextlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from unittest import mock

import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from tests.cuda.launches import kernels

ROOT = Path(__file__).resolve().parents[2]
HERE = {str(Path(__file__)), str(Path(__file__).with_name("launches.py"))}
DEVICE = torch.device("cuda:0")
ROOM = 80 * 2**30  # bytes of the card that is not there
aten = torch.ops.aten
# A float or bool that the host wants to know; and results whose size only the card knows.
READS = {aten._local_scalar_dense.default, aten.equal.default, aten.is_nonzero.default}
SIZES = {aten.nonzero.default, aten.masked_select.default, aten.repeat_interleave.Tensor, aten._unique2.default,
         aten.unique_consecutive.default, aten.unique_dim.default}
PRODUCTS = {"mm", "addmm", "bmm", "baddbmm"}
SUMS = {"mean", "sum", "_softmax", "_log_softmax", "linalg_vector_norm", "_foreach_norm"}


class HostRead(AssertionError):
    """The host waited for the card inside a step or a window."""


@dataclass
class Seen:
    """What happened between two points: kernels by operation and by part, dtypes, copies from pageable memory."""

    launches: Counter = field(default_factory=Counter)  # operation -> kernels
    parts: Counter = field(default_factory=Counter)  # (part, "forward" or "backward", operation) -> kernels
    products: set = field(default_factory=set)  # dtypes of matrix products' operands
    sums: set = field(default_factory=set)  # (operation, dtype of what is summed, part)
    pageable: list[str] = field(default_factory=list)  # lines that copied to the card from memory that is not pinned
    reads: list[str] = field(default_factory=list)  # lines at which the host waited (inside a step: none, or an error)

    @property
    def total(self) -> int:
        """All kernels."""
        return self.launches.total()


class Watch(TorchDispatchMode):
    """Every operation, below autograd: counted, and held to what a step may do."""

    def __init__(self, fake: bool):
        super().__init__()
        self.fake, self.seen, self.strict, self.parts, self.pinned = fake, Seen(), False, [], {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.ops.prim.device.default:  # C++ asks: there is no such card (see `_Calls`)
            return torch.device("meta")
        tensors = [a for a in _flat(args, kwargs) if isinstance(a, torch.Tensor)]
        target = kwargs.get("device")
        on_card = [t for t in tensors if t.device.type == "cuda"]
        if target is not None and target.type == "meta" and on_card + [torch._C._current_autograd_node()] != [None]:
            target = kwargs["device"] = DEVICE  # C++ copied the device from a tensor of the card
        if not on_card and (target is None or target.type != "cuda"):
            with unset_fake_temporarily():
                return func(*args, **kwargs)  # the host's own
        if _is_composite(func.name()):  # with gradients, autograd has written it out before it comes here
            with self:
                return func.decompose(*args, **kwargs)
        return self._on_card(func, args, kwargs, tensors, on_card, target)

    def _on_card(self, func, args, kwargs, tensors, on_card, target):
        if func in (aten._to_copy.default, aten.copy_.default):
            source = args[1] if func is aten.copy_.default else args[0]
            to = args[0].device if func is aten.copy_.default else target or source.device
            waits = not (kwargs.get("non_blocking") or (len(args) > 2 and args[2]))
            if source.device.type != to.type:
                if waits:
                    self._read(f"a blocking copy from {source.device.type} to {to.type}")
                elif to.type == "cuda" and not self.is_pinned(source):
                    self.seen.pageable.append(line())
                self._count("copy", 1, tensors)
                if self.fake and to.type == "cpu":  # from here on it is the host's, and real
                    with unset_fake_temporarily():
                        dtype = kwargs.get("dtype") or source.dtype
                        if func is aten.copy_.default:
                            return args[0].zero_()
                        return torch.zeros(source.shape, dtype=dtype)
                return func(*args, **kwargs)
        elif any(t.device.type == "cpu" and t.dim() for t in tensors):
            raise AssertionError(f"{line()}: {func} has operands on the CPU and on the card")
        if func in READS:
            self._read(func.name())
            if self.fake:
                return args[0].dtype.is_floating_point and 1.0 or (args[0].dtype == torch.bool or 1)
        sized = func in SIZES or (func in (aten.index.Tensor, aten.index_put_.default) and any(
            index is not None and index.dtype == torch.bool for index in args[1]))
        if sized and not (func is aten.repeat_interleave.Tensor and kwargs.get("output_size") is not None):
            self._read(func.name())
            if self.fake and func is aten.nonzero.default:
                return torch.zeros(1, args[0].dim(), dtype=torch.int64, device=DEVICE)
        out = func(*args, **kwargs)
        self._count(func.overloadpacket.__name__, kernels(func, args, kwargs), tensors)
        return out

    def is_pinned(self, tensor: torch.Tensor) -> bool:
        """Whether the card can read this tensor of the host by itself."""
        return tensor.untyped_storage().data_ptr() in self.pinned if self.fake else tensor.is_pinned()

    def _count(self, name: str, count: int, tensors: list) -> None:
        if not count:
            return
        node = torch._C._current_autograd_node()
        # What is computed again in backward runs the modules once more, so they say what it is.
        part = self.parts[-1] if self.parts else "" if node is None else node.metadata.get("part", "")
        self.seen.launches[name] += count
        self.seen.parts[part, "forward" if node is None else "backward", name] += count
        if name in PRODUCTS:
            self.seen.products |= {t.dtype for t in tensors}
        if name in SUMS:
            self.seen.sums |= {(name, t.dtype, part) for t in tensors}

    def _read(self, what: str) -> None:
        self.seen.reads.append(f"{line()}: {what}")
        if self.strict:
            raise HostRead(f"{line()}: {what}: the host waits for the card inside a step")


@cache
def _is_composite(name: str) -> bool:
    """Whether an operation is written out as others, on a card too."""
    has = partial(torch._C._dispatch_has_kernel_for_dispatch_key, name)
    return has("CompositeImplicitAutograd") and not has("CUDA")


def line() -> str:
    """The innermost line of the project, outside this file, that is running: "finetune/loop.py:120"."""
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(str(ROOT)) and name not in HERE and "/.venv/" not in name:
            return f"{Path(name).relative_to(ROOT)}:{frame.f_lineno}"
        frame = frame.f_back
    return "?"


def _flat(*values) -> Iterator:
    for value in values:
        if isinstance(value, list | tuple):
            yield from _flat(*value)
        elif isinstance(value, dict):
            yield from _flat(*value.values())
        else:
            yield value


class _Calls(TorchFunctionMode):
    """Calls that PyTorch's C++ decides by the device of a tensor, before an operation is dispatched.

    C++ is told "meta": of a CPU build it would ask for the card's streams in backward, and end the process. So what it
    would decide for a card is decided here.
    """

    def __init__(self, watch: Watch):
        super().__init__()
        self.watch = watch

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func is torch.Tensor.pin_memory:  # there is no driver that could pin it
            pinned = args[0].clone()
            self.watch.pinned[pinned.untyped_storage().data_ptr()] = pinned
            return pinned
        if func is torch.Tensor.is_pinned:
            return self.watch.is_pinned(args[0])
        if kwargs.get("pin_memory"):
            del kwargs["pin_memory"]
            return func(*args, **kwargs).pin_memory()
        on_card = bool(args) and isinstance(args[0], FakeTensor)
        if func is torch.Tensor.to and on_card:  # to the card that it is on already: no copy
            copy, rest = kwargs.pop("copy", False), args[1:]
            form = kwargs.pop("memory_format", None)
            device, dtype, waits, _ = torch._C._nn._parse_to(*rest, **kwargs)
            if device is not None and device.type == "cuda":
                device = None
            more = {} if form is None else {"memory_format": form}
            more |= {} if device is None else {"device": device, "non_blocking": waits}
            return func(args[0], dtype=dtype or args[0].dtype, copy=copy, **more)
        if func is torch.Tensor.new_tensor and on_card:
            return torch.tensor(*args[1:], device=DEVICE, **{"dtype": args[0].dtype} | kwargs)
        if func is F.scaled_dot_product_attention and on_card:
            return _attention(*args, **kwargs)
        return func(*args, **kwargs)


def _attention(q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
    """The kernel that a card takes: flash attention in 16 bits without a mask, else the memory-efficient one."""
    if attn_mask is None and q.dtype in (torch.bfloat16, torch.float16):
        return aten._scaled_dot_product_flash_attention(q, k, v, dropout_p, is_causal, return_debug_mask=False,
                                                        scale=scale)[0]
    if enable_gqa and q.shape[-3] != k.shape[-3]:
        k, v = (x.repeat_interleave(q.shape[-3] // k.shape[-3], -3) for x in (k, v))
    if attn_mask is not None:  # as sdp_utils does: additive, in memory whose rows are filled up to 16 entries
        attn_mask = torch.zeros_like(attn_mask, dtype=q.dtype).masked_fill_(attn_mask.logical_not(), float("-inf"))
        attn_mask = F.pad(attn_mask, (0, -attn_mask.shape[-1] % 16))[..., : attn_mask.shape[-1]]
        attn_mask = attn_mask.expand(*q.shape[:-1], k.shape[-2])
    return aten._scaled_dot_product_efficient_attention(q, k, v, attn_mask, torch.is_grad_enabled(), dropout_p,
                                                        is_causal, scale=scale)[0]


class _Event:
    """What `torch.cuda.Event` is used for in labelling."""

    def record(self, stream=None) -> None:
        """Marks a place in a stream of work; here nothing runs."""

    def synchronize(self) -> None:
        """Nothing runs, so there is nothing to wait for."""


def _replacements(watch: Watch) -> list:
    """What asks for a driver or a card, neither of which there is."""
    from torch.nn.utils import clip_grad

    def grouped(tensors, *rest):  # C++ says "meta" (see `_Calls`), for which foreach kernels would not be taken
        found = group(tensors, *rest)
        return {(DEVICE if key[0].type == "meta" else key[0], *key[1:]): value for key, value in found.items()}

    group = clip_grad._group_tensors_by_device_and_dtype
    cuda = {"is_available": lambda: True, "device_count": lambda: 1, "current_device": lambda: 0,
            "get_device_capability": lambda device=None: (9, 0), "mem_get_info": lambda device=None: (ROOM, ROOM),
            "Event": lambda *args, **kwargs: _Event(), "empty_cache": lambda: None,
            "synchronize": lambda device=None: watch._read("torch.cuda.synchronize"),
            "is_current_stream_capturing": lambda: False, "get_rng_state_all": list}
    return [mock.patch.object(torch.cuda, name, value) for name, value in cuda.items()] + [
        mock.patch.object(FakeTensorMode, "avoid_device_init", True),  # else is_available would make it start CUDA
        mock.patch.object(clip_grad, "_group_tensors_by_device_and_dtype", grouped),
        mock.patch.object(clip_grad, "_has_foreach_support", lambda tensors, device: device.type == "cuda")]


def _kernels_by_name() -> torch.library.Library:
    """Operations that a CUDA build has a kernel for, and a CPU build writes out as several others instead."""
    def never(*args):
        raise NotImplementedError("a fake tensor got as far as a kernel")

    library = torch.library.Library("aten", "IMPL", "CUDA")
    if not torch._C._dispatch_has_kernel_for_dispatch_key("aten::silu_backward", "CUDA"):
        library.impl("silu_backward", never)
    return library


class Card:
    """A card, real or not, and what was seen on it."""

    def __init__(self, watch: Watch, stack: contextlib.ExitStack):
        self.device, self.is_real, self.watch, self._stack = DEVICE, not watch.fake, watch, stack

    @contextlib.contextmanager
    def inside(self, strict: bool = True) -> Iterator[Seen]:
        """A step or a window, in which the host may read nothing; or anything outside one, if not `strict`."""
        before, self.watch.seen, self.watch.strict = self.watch.seen, Seen(), strict
        if self.is_real and strict:
            torch.cuda.synchronize()
            torch.cuda.set_sync_debug_mode("error")
        try:
            yield self.watch.seen
        finally:
            self.watch.seen, self.watch.strict = before, False
            if self.is_real:
                torch.cuda.set_sync_debug_mode("default")

    def kernel(self, module, name: str, like: Callable) -> None:
        """Replace a kernel's function, until the card goes, by one launch that gives `like(*args)`, empty tensors."""
        if self.is_real:
            return

        def launch(*args, **kwargs):
            with unset_watch(self.watch):
                out = like(*args, **kwargs)
            self.watch._count(name, 1, [])
            return out

        self._stack.enter_context(mock.patch.object(module, name, launch))


@contextlib.contextmanager
def unset_watch(watch: Watch) -> Iterator[None]:
    """Operations that are not counted."""
    counted, watch.seen = watch.seen, Seen()
    try:
        yield
    finally:
        watch.seen = counted


@contextlib.contextmanager
def card() -> Iterator[Card]:
    """The machine's card, or one that is not there."""
    watch = Watch(fake=not torch.cuda.is_available())
    with contextlib.ExitStack() as stack:
        if watch.fake:
            stack.callback(_kernels_by_name()._destroy)
            stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
            for replacement in _replacements(watch):
                stack.enter_context(replacement)
            stack.enter_context(_Calls(watch))
        stack.enter_context(watch)
        yield Card(watch, stack)
