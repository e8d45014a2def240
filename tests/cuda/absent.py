"""What a CPU build of PyTorch cannot do for fake CUDA tensors, replaced: each call with its reason."""

import contextlib
import importlib.util
from collections.abc import Iterator
from unittest import mock

import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.nn.utils import clip_grad
from torch.overrides import TorchFunctionMode

DEVICE = torch.device("cuda:0")
ROOM = 80 * 2**30  # bytes of the card that is not there
aten = torch.ops.aten


class Calls(TorchFunctionMode):
    """Calls that PyTorch's C++ decides by the device of a tensor, before an operation is dispatched.

    C++ is told "meta": of a CPU build it would ask for the card's streams in backward, and end the process. So what it
    would decide for a card is decided here.
    """

    def __init__(self, watch):
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


def _replacements(watch) -> list:
    """What asks for a driver or a card, neither of which there is."""
    def grouped(tensors, *rest):  # C++ says "meta" (see `Calls`), for which foreach kernels would not be taken
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


class _Launched(list):
    """What `common.kernels` appends the names of launched kernels to."""

    def __init__(self, watch):
        super().__init__()
        self.watch = watch

    def append(self, name: str) -> None:
        """One launch."""
        self.watch.count(name, 1)


@contextlib.contextmanager
def absent(watch) -> Iterator[None]:
    """Inside, the calls below find a card; `watch` is tests.cuda.fake's."""
    with contextlib.ExitStack() as stack:
        stack.callback(_kernels_by_name()._destroy)
        for replacement in _replacements(watch):
            stack.enter_context(replacement)
        if importlib.util.find_spec("common.kernels"):  # a Triton kernel has no memory here to point at
            stack.enter_context(mock.patch("common.kernels._noted", _Launched(watch)))
        stack.enter_context(Calls(watch))
        yield
