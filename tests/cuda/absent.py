"""What a CPU build of PyTorch cannot do for fake CUDA tensors, replaced: each call with its reason."""

import contextlib
from collections.abc import Iterator
from typing import ClassVar
from unittest import mock

import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.nn.utils import clip_grad

DEVICE = torch.device("cuda:0")
ROOM = 80 * 2**30  # bytes of the card that is not there
aten = torch.ops.aten


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


def _dropout(x, p=0.5, training=True):
    """A card draws the mask, of one byte an entry, and multiplies in one kernel."""
    return torch.native_dropout(x, p, True)[0] if training else x


class Graph:
    """`torch.cuda.CUDAGraph`: keeps what was seen while it was recorded; a replay is one launch."""

    def __init__(self, watch):
        self.watch, self.seen = watch, None

    def replay(self) -> None:
        """Give the card what was recorded."""
        assert self.seen is not None
        self.watch.count("replay", 1)

    def pool(self) -> tuple[int, int]:
        """The memory that it was recorded with."""
        return (0, 1)


def _recording(watch):
    """`torch.cuda.graph`: inside, nothing may be read, and launches are the graph's."""
    @contextlib.contextmanager
    def recording(graph, pool=None):
        before, strict, watch.seen, watch.strict = watch.seen, watch.strict, type(watch.seen)(), True
        watch.recording = True
        try:
            yield
        finally:
            graph.seen, watch.seen, watch.strict, watch.recording = watch.seen, before, strict, False

    return recording


class _Event:
    """What `torch.cuda.Event` is used for in labelling."""

    recorded: ClassVar[list] = []  # the streams, newest last

    def record(self, stream=None) -> None:
        """Marks a place in a stream of work; here nothing runs."""
        self.recorded.append(stream)

    def synchronize(self) -> None:
        """Nothing runs, so there is nothing to wait for."""


def _to_where_it_is(to):
    """`Tensor.to`: a tensor of the card that is sent to the card is not copied, which C++ does not know."""
    def moved(self, *args, **kwargs):
        if isinstance(self, FakeTensor):
            copy, form = kwargs.pop("copy", False), kwargs.pop("memory_format", torch.preserve_format)
            device, dtype, waits, _ = torch._C._nn._parse_to(*args, **kwargs)
            more = {} if device is None or device.type == "cuda" else {"device": device, "non_blocking": waits}
            args, kwargs = (), {"dtype": dtype or self.dtype, "copy": copy, "memory_format": form, **more}
        return to(self, *args, **kwargs)

    return moved


def _foreach(group):
    """Tensors by device, for which `clip_grad_norm_` then asks whether it has kernels for many at once."""
    def grouped(tensors, *rest):
        return {(DEVICE if key[0].type == "meta" else key[0], *key[1:]): value
                for key, value in group(tensors, *rest).items()}

    return grouped


def _pinned(watch):
    """`Tensor.pin_memory`: there is no driver that could pin it."""
    def pin(self, device=None):
        pinned = self.clone()
        watch.pinned[pinned.untyped_storage().data_ptr()] = pinned
        return pinned

    return pin


def _replacements(watch) -> list:
    """(owner, name, replacement) of everything that would ask for a driver or a card, neither of which there is; or
    that C++ decides by a tensor's device before an operation is dispatched.

    C++ is told that the device is "meta": of "cuda" it would ask for streams in backward, and end the process.
    """
    def on_card(real, function):
        return lambda tensor, *args, **kwargs: (function if isinstance(tensor, FakeTensor) else real)(
            tensor, *args, **kwargs)

    def new_tensor(self, data, dtype=None):
        return torch.tensor(data, dtype=dtype or self.dtype, device=self.device)

    cuda = {"is_available": lambda: True, "device_count": lambda: 1, "current_device": lambda: 0,
            "get_device_capability": lambda device=None: (9, 0), "mem_get_info": lambda device=None: (ROOM, ROOM),
            "Event": lambda *args, **kwargs: _Event(), "current_stream": lambda device=None: ("stream of", device),
            "empty_cache": lambda: None,
            "synchronize": lambda device=None: watch.read("torch.cuda.synchronize"),
            "is_current_stream_capturing": lambda: watch.recording, "get_rng_state_all": list,
            "CUDAGraph": lambda: Graph(watch), "graph": _recording(watch)}
    return [
        *((torch.cuda, name, value) for name, value in cuda.items()),
        (torch.Tensor, "pin_memory", _pinned(watch)),
        (torch.Tensor, "is_pinned", lambda self, device=None: watch.is_pinned(self)),
        (torch.Tensor, "to", _to_where_it_is(torch.Tensor.to)),
        (torch.Tensor, "new_tensor", on_card(torch.Tensor.new_tensor, new_tensor)),
        (F, "dropout", on_card(F.dropout, _dropout)),
        (F, "scaled_dot_product_attention", on_card(F.scaled_dot_product_attention, _attention)),
        (clip_grad, "_group_tensors_by_device_and_dtype", _foreach(clip_grad._group_tensors_by_device_and_dtype)),
        (clip_grad, "_has_foreach_support", lambda tensors, device: device.type == "cuda"),
        (FakeTensorMode, "avoid_device_init", True),  # else `is_available` would make it start CUDA
    ]


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
        for owner, name, replacement in _replacements(watch):
            stack.enter_context(mock.patch.object(owner, name, replacement))
        stack.enter_context(mock.patch("common.kernels._noted", _Launched(watch)))  # there is no memory to point at
        yield
