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

- what makes the host wait for the card (`.item()`, `bool(tensor)`, `nonzero`, an index of booleans, a blocking copy to
  the host or from it) is a `HostRead` inside a step, with the line of the project that did it; outside it is
  answered: 1 for a number, zeros for a copy;
- copies to the card from memory that is not pinned are listed, since CUDA may wait for those too;
- launches are counted by `kernels`: views, empty tensors and the host's own operations launch nothing.

On a real card the same code counts PyTorch's operations, and `torch.cuda.set_sync_debug_mode` finds reads. Our own
kernels (Triton) are chosen for fake tensors as for real ones; their launch is counted and nothing runs
(`common.kernels`).

What a CPU build cannot do is replaced in tests/cuda/absent.py, and nowhere else, each with its reason.
"""

import contextlib
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path

import torch
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode

from tests.cuda.absent import DEVICE, absent
from tests.cuda.launches import TENSORS, kernels

ROOT = Path(__file__).resolve().parents[2]
HERE = {str(Path(__file__).with_name(name)) for name in ("fake.py", "absent.py", "launches.py", "parts.py")}
aten = torch.ops.aten
# A float or bool that the host wants to know; and results whose size only the card knows.
READS = {aten._local_scalar_dense.default, aten.equal.default, aten.is_nonzero.default}
SIZES = {aten.nonzero.default, aten.masked_select.default, aten.repeat_interleave.Tensor, aten._unique2.default,
         aten.unique_consecutive.default, aten.unique_dim.default}
INDEX = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default}
PRODUCTS = {"mm", "addmm", "addmm_", "bmm", "baddbmm", "baddbmm_"}
SUMS = {"mean", "sum", "_softmax", "_log_softmax", "linalg_vector_norm", "_foreach_norm"}


class HostRead(AssertionError):
    """The host waited for the card inside a step or a window."""


@dataclass
class Seen:
    """What happened between two points: kernels by operation and by part, dtypes, copies from pageable memory."""

    launches: Counter = field(default_factory=Counter)  # operation -> kernels
    parts: Counter = field(default_factory=Counter)  # (part, "forward" or "backward", operation) -> kernels
    many: Counter = field(default_factory=Counter)  # operation on a list of tensors -> how many
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
        self.recording = False  # a CUDA graph

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.ops.prim.device.default:  # C++ asks: there is no such card (see absent.py)
            return torch.device("meta")
        tensors = [a for a in _flat(args, kwargs) if isinstance(a, torch.Tensor)]
        target = kwargs.get("device")
        on_card = [t for t in tensors if t.device.type == "cuda"]
        if target is not None and target.type == "meta" and (
                on_card or torch._C._current_autograd_node() is not None):
            target = kwargs["device"] = DEVICE  # C++ copied the device from a tensor of the card
        if not on_card and (target is None or target.type != "cuda"):
            with unset_fake_temporarily():
                return func(*args, **kwargs)  # the host's own
        if _is_composite(func.name()):  # with gradients, autograd has written it out before it comes here
            with self:
                return func.decompose(*args, **kwargs)
        return self._on_card(func, args, kwargs, tensors, target)

    def _on_card(self, func, args, kwargs, tensors, target):
        if func in (aten._to_copy.default, aten.copy_.default):
            to, source = (args[0].device, args[1]) if func is aten.copy_.default else (target, args[0])
            if to is not None and source.device.type != to.type:
                return self._across(func, args, kwargs, source, to)
        elif any(t.device.type == "cpu" and t.dim() for t in tensors):
            raise AssertionError(f"{line()}: {func} has operands on the CPU and on the card")
        if func in READS or (func in SIZES and kwargs.get("output_size") is None) or _by_booleans(func, args):
            self.read(func.name())
            if self.fake and func is aten._local_scalar_dense.default:
                return True if args[0].dtype == torch.bool else 1.0 if args[0].is_floating_point() else 1
            if self.fake and func is aten.equal.default:
                return True
            if self.fake and func is aten.nonzero.default:
                return torch.zeros(1, args[0].dim(), dtype=torch.int64, device=DEVICE)
        out = func(*args, **kwargs)
        name = func.overloadpacket.__name__
        if name in TENSORS:
            self.seen.many[name] += len(args[0])
        self.count(name, kernels(func, args, kwargs), tensors)
        return out

    def _across(self, func, args, kwargs, source, to):
        """A copy between host and card."""
        if not (kwargs.get("non_blocking") or (func is aten.copy_.default and args[2:] == (True,))):
            self.read(f"a blocking copy from {source.device.type} to {to.type}")
        elif to.type == "cuda" and not self.is_pinned(source):
            self.seen.pageable.append(line())
        self.count("copy", 1)
        if to.type == "cuda" or not self.fake:
            return func(*args, **kwargs)
        with unset_fake_temporarily():  # from here on it is the host's, and real
            if func is aten.copy_.default:
                return args[0].zero_()
            return torch.zeros(source.shape, dtype=kwargs.get("dtype") or source.dtype)

    def is_pinned(self, tensor: torch.Tensor) -> bool:
        """Whether the card can read this tensor of the host by itself."""
        return tensor.untyped_storage().data_ptr() in self.pinned if self.fake else tensor.is_pinned()

    def count(self, name: str, count: int, tensors: list | tuple = ()) -> None:
        """Note an operation with the kernels that it launched, and what it was given."""
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

    def read(self, what: str) -> None:
        """Note that the host waits here; an error inside a step."""
        self.seen.reads.append(f"{line()}: {what}")
        if self.strict:
            raise HostRead(f"{line()}: {what}: the host waits for the card inside a step")


def _by_booleans(func, args) -> bool:
    """Whether an index is a mask: how many entries it chooses, only the card knows."""
    return func in INDEX and any(index is not None and index.dtype == torch.bool for index in args[1])


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


class Card:
    """A card, real or not, and what is seen on it."""

    def __init__(self, watch: Watch):
        self.device, self.is_real, self.watch = DEVICE, not watch.fake, watch

    @contextlib.contextmanager
    def inside(self, strict: bool = True) -> Iterator[Seen]:
        """A step or a window, in which the host may read nothing; if not `strict`, what it reads is listed."""
        before, self.watch.seen, self.watch.strict = self.watch.seen, Seen(), strict
        with contextlib.ExitStack() as stack:
            stack.callback(self._outside, before)
            if self.is_real:
                torch.cuda.synchronize()
                stack.enter_context(warnings.catch_warnings())
                warnings.simplefilter("always")
                warnings.showwarning = self._warned
                torch.cuda.set_sync_debug_mode("error" if strict else "warn")
            yield self.watch.seen

    def _warned(self, message, *place) -> None:
        """A warning of PyTorch's: where it was shown is PyTorch's own line, since this file calls each operation. That
        the check is a prototype is no read."""
        if "called a synchronizing" in str(message):
            self.watch.seen.reads.append(f"{line()}: {message}")

    def _outside(self, seen: Seen) -> None:
        if self.is_real:
            torch.cuda.set_sync_debug_mode("default")
        self.watch.seen, self.watch.strict = seen, False

    @contextlib.contextmanager
    def kept(self, model: torch.nn.Module) -> Iterator[list[int]]:
        """Bytes of the memory that autograd keeps for backward, weights left out; in the list after the block."""
        own = {tensor.untyped_storage()._cdata for tensor in [*model.parameters(), *model.buffers()]}
        found, total = {}, []

        def pack(tensor):
            if tensor.device.type == "cuda" and tensor.untyped_storage()._cdata not in own:
                found[tensor.untyped_storage()._cdata] = tensor
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            yield total
        total.append(sum(tensor.untyped_storage().nbytes() for tensor in found.values()))


@cache
def _mode() -> FakeTensorMode:
    """One for the process: tables that the project keeps for each device are fake tensors of the mode that saw them
    first."""
    return FakeTensorMode(allow_non_fake_inputs=True)


@contextlib.contextmanager
def card() -> Iterator[Card]:
    """The machine's card, or one that is not there."""
    watch = Watch(fake=not torch.cuda.is_available())
    with contextlib.ExitStack() as stack:
        if watch.fake:
            stack.enter_context(_mode())
            stack.enter_context(absent(watch))
        stack.enter_context(watch)
        yield Card(watch)
