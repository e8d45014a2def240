"""How much memory a fine-tune will take, and how to cut its steps so that it fits.

The estimate counts what must be in memory at the same time:

    program      on a CPU: Python, PyTorch, what the first step loads, the kernels' scratch and the allocator's holes
    model        bytes of all parameters and buffers, as they are after loading
    adapter      16 bytes per trainable number: value, gradient, two moments, each float32
    buffer       the largest linear once, dequantised, if linears are in 4 bits
    activations  what backward needs of the fullest piece of a step (`finetune/kept.py`); with checkpointing each
                 layer's input and one layer's activations
    gradients    of one layer in backward: N (4 F + 4 D)
    logits       for the losses over the whole vocabulary: one chunk's logits, their softmax and gradient in float32,
                 and a slice of the head in the compute dtype if it is stored in another

It is within a quarter of the measured peak of anonymous memory on a CPU, in the settings that
tests/finetune/test_measured_memory.py holds it against.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from common.terminal import human_bytes
from data.batching import even_plan, shared_prefix
from finetune.graphs import ROWS, size_of
from finetune.kept import Piece, activation_bytes
from finetune.loop import LOGIT_CHUNK
from loading.choice import SHARE, empty_model
from lora.inject import inject, trainable_parameters
from model.attention import Attend, attend_sdpa
from model.config import LlamaConfig
from model.llama import HEAD_CHUNK
from quant.convert import model_bytes

MICRO_TOKEN_CHOICES = (8192, 4096, 2048, 1024, 512)
LARGEST_ON_GPU = 16384  # there dequantising once for more tokens pays longer; a step of 64 posts is one piece
CLOSEST = 4  # steps whose pieces are looked at
PROGRAM = 400_000_000  # bytes, measured at eight settings as 380 to 460 MB (LOG.md); of it 155 MB before any model


@dataclass(frozen=True)
class MemoryPlan:
    """How steps are cut (`micro_tokens`, `checkpointing`) and the bytes that are expected in all."""

    micro_tokens: int
    checkpointing: bool
    model: int
    adapter: int
    activations: int
    available: int
    program: int = 0
    tokens: int = 0  # in the fullest piece, at most `micro_tokens`
    graphs: bool = False  # whether steps are recorded, which takes more (`recording`)

    @property
    def total(self) -> int:
        return self.program + self.model + self.needed

    @property
    def needed(self) -> int:
        """Bytes beside the model."""
        return self.adapter + self.activations + self.graphs * self.recording

    @property
    def recording(self) -> int:
        """Bytes of recorded steps (`finetune/graphs.py`) beside those of computed ones: gradients twice more, and
        activations once more, both times of a piece that is filled up."""
        filled = size_of(self.tokens + ROWS) / max(1, self.tokens)
        return self.adapter // 2 + int((2 * filled - 1) * self.activations)

    @property
    def fits(self) -> bool:
        """Whether what comes beside the model fills at most `SHARE` of what is free beside it."""
        return self.needed <= SHARE * self.available

    def beside(self, size: int) -> "MemoryPlan":
        """The same plan when `size` bytes of what was free have gone to the model (a dense copy of its weights)."""
        return replace(self, model=self.model + size, available=self.available - size)

    def __str__(self) -> str:
        how = "recomputed in backward" if self.checkpointing else "kept for backward"
        program = f"program {human_bytes(self.program)}, " if self.program else ""
        graphs = f", and for recorded steps {human_bytes(self.recording)}" * self.graphs
        return (f"about {human_bytes(self.total)}: {program}model {human_bytes(self.model)}, adapter and optimiser "
                f"{human_bytes(self.adapter)}, activations of {self.tokens:,} tokens {how} "
                f"{human_bytes(self.activations)}{graphs}; {human_bytes(self.available)} is free")


def logit_bytes(model, loss: str) -> int:
    """Bytes that a loss over the whole vocabulary takes for a moment; 0 for the label loss."""
    if loss == "label":
        return 0
    head, dtype = model.head_weight, model.dtype
    cast = 0 if head.dtype == dtype else min(HEAD_CHUNK, head.shape[0]) * head.shape[1] * dtype.itemsize
    return 3 * 4 * LOGIT_CHUNK * head.shape[0] + cast


def fullest(rows: Sequence, places: Sequence[int], batch_size: int, prefix: Sequence[int]) -> Callable[[int], Piece]:
    """micro_tokens -> the fullest piece of the fullest steps of an epoch, `places` in its order.

    The fullest piece need not be of the step with the most tokens: one that fits into two pieces just so has fuller
    ones. An even share of its tokens tells which steps to look at. Another epoch puts other posts together; its fullest
    piece is about as full.
    """
    steps = [[rows[index] for index in places[start : start + batch_size]]
             for start in range(0, len(places), batch_size)]
    own = [sum(len(row.ids) - len(prefix) for row in step) for step in steps]

    def piece(micro_tokens: int) -> Piece:
        room, found = max(1, micro_tokens - len(prefix)), []
        shares = [tokens / max(1, -(-tokens // room)) for tokens in own]
        for place in {own.index(max(own)), *sorted(range(len(steps)), key=shares.__getitem__)[-CLOSEST:]}:
            step = steps[place]
            for group in even_plan(step, micro_tokens, prefix=prefix):
                shared = shared_prefix(prefix, [step[index] for index in group])
                found.append(Piece.of([len(step[index].ids) - shared for index in group], shared))
        return max(found, key=lambda piece: piece.tokens)

    return piece


def plan_memory(model, trainable: int, *, micro_tokens: int | None, checkpointing: bool | None, available: int,
                loss: str = "label", piece: Callable[[int], Piece] = Piece, gpu: bool | None = None,
                fused: bool | None = None) -> MemoryPlan:
    """Choose what is `None` so that the estimate fills at most `SHARE` of what is free beside the loaded model.

    Plans without checkpointing are tried first, down to micro-batches of 1,024 tokens: cutting steps smaller costs less
    than computing activations twice. Plans with checkpointing follow, again from large micro-batches to small. If
    nothing fits, the smallest plan is returned, and its estimate shows that.
    piece: micro_tokens -> the fullest piece of that size that the posts make (`fullest`); by default a full one without
    a prefix. gpu: `None` takes the model's own device. fused: whether a kernel has the norms (`kept.norms_are_fused`).
    """
    config, dtype = model.config, model.dtype
    gpu = model.device.type == "cuda" if gpu is None else gpu
    packed = any(hasattr(module, "load_packed") for module in model.modules())
    largest = max(config.hidden_size * config.intermediate_size, config.hidden_size**2) * dtype.itemsize
    adapter = 16 * trainable + largest * packed
    ways = [False, True] if checkpointing is None else [checkpointing]
    sizes = ((LARGEST_ON_GPU,) * gpu + MICRO_TOKEN_CHOICES) if micro_tokens is None else (micro_tokens,)
    logits, answers_only = logit_bytes(model, loss), loss != "text"
    backward = (4 * config.intermediate_size + 4 * config.hidden_size) * dtype.itemsize

    def planned(tokens: int, way: bool) -> MemoryPlan:
        full = piece(tokens)
        kept = activation_bytes(model, full, dtype, way, answers_only, gpu, fused) + full.tokens * backward + logits
        return MemoryPlan(tokens, way, model_bytes(model), adapter, kept, available, 0 if gpu else PROGRAM, full.tokens)

    plans = [planned(tokens, way)
             for way in ways for tokens in (sizes if way or len(ways) == 1 or len(sizes) == 1 else sizes[:-1])]
    return next((plan for plan in plans if plan.fits), plans[-1])


def expected_plan(config: LlamaConfig, dtype: torch.dtype, quantize: str, targets, rank: int, free: int, *,
                  dropout: float = 0.0, gpu: bool = False, attend: Attend = attend_sdpa, **more) -> MemoryPlan:
    """The plan for a model that is not loaded, when `free` bytes are free before it is; nothing is allocated.

    attend: how it will compute attention. more: `plan_memory`'s own arguments.
    """
    model = empty_model(config, dtype, quantize)
    model.attend = attend
    inject(model, targets, rank, 2 * rank, dropout, generator=torch.Generator())
    trainable = sum(parameter.numel() for parameter in trainable_parameters(model).values())
    more = {"micro_tokens": None, "checkpointing": None} | more
    return plan_memory(model, trainable, available=max(0, free - model_bytes(model)), gpu=gpu, **more)
