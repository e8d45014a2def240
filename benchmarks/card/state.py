"""What the parts of the measurement share: the device, the sizes, the figures, and the models, made when first asked
for."""

import gc
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import median

import torch

from benchmarks.checkpoint import LLAMA_3_2_3B
from common.errors import UserError
from common.files import read_json, write_json
from data.prompt import EncodedPost
from finetune.loop import Recipe, Trainer
from loading import assemble
from loading.assemble import make_linears
from lora.inject import inject, trainable_parameters
from model.config import LlamaConfig
from model.llama import LlamaForCausalLM
from quant.linear import NF4Linear

TEMPLATES = ("paper", "instruction-first")
FIRST = TEMPLATES[::-1]  # where time may run out: the one with the higher goals
LENGTHS = Path(__file__).with_name("tweet_lengths.json")
LABELS = 4
# Sizes of the rehearsal: every code path of the card's, in seconds on one core.
TINY = LLAMA_3_2_3B | {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4,
                       "num_key_value_heads": 2, "head_dim": 32, "vocab_size": 1024, "bos_token_id": 1,
                       "eos_token_id": [2]}


@dataclass
class Figure:
    """One line of the result: what was measured or checked, and what it was to reach.

    check: whether it has to hold (a wrong number, a wait), as against a goal that a card may miss.
    """

    what: str
    value: float | str | None
    unit: str = ""
    goal: str = ""
    met: bool | None = None
    check: bool = False


@dataclass
class State:
    """Device, sizes and seconds left; what a part finds is written at once, so that a killed part loses nothing."""

    out: Path
    rehearse: bool = False
    seconds: float = 60.0
    figures: list[Figure] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def device(self) -> str:
        return "cpu" if self.rehearse else "cuda"

    @property
    def dtype(self) -> torch.dtype:
        """bfloat16, as on every card since 2020; float32 in the rehearsal, where bfloat16 may be slow."""
        return torch.float32 if self.rehearse else torch.bfloat16

    @property
    def left(self) -> float:
        """Seconds until this part is stopped."""
        return self.seconds - (time.monotonic() - self.began)

    def has(self, seconds: float) -> bool:
        """Whether so many seconds are left; a rehearsal, whose sizes are tiny, leaves nothing out."""
        return self.rehearse or self.left >= seconds

    def begin(self, seconds: float) -> None:
        """A new part, with so many seconds and without what earlier ones left in memory."""
        self.figures, self.seconds, self.began = [], seconds, time.monotonic()
        self.collect()

    def note(self, what: str, value: float | str | bool | None, unit: str = "", goal: str = "",
             met: bool | None = None, check: bool = False) -> None:
        """Keep a figure, on disk as well; a bool is a check that has to hold."""
        if isinstance(value, bool):
            value, goal, met, check = ("yes" if value else "NO"), "yes", value, True
        with self.lock:  # a part may have several threads, and what is written beside the file has one name
            self.figures.append(Figure(what, value, unit, goal, met, check))
            write_json(self.out, [vars(figure) for figure in self.figures])

    def time(self, work: Callable[[], object], rounds: int = 5, warm: int = 2) -> float:
        """Median seconds of `work()`, the card's queue empty before and after each."""
        times = []
        for turn in range(1 if self.rehearse else warm + rounds):
            self.synchronise()
            began = time.perf_counter()
            work()
            self.synchronise()
            if self.rehearse or turn >= warm:
                times.append(time.perf_counter() - began)
        return median(times)

    def on_card(self, work: Callable[[], object], rounds: int = 20) -> float:
        """Seconds that the card itself needs for `work()`: its launches are recorded as a graph, which is replayed."""
        if self.rehearse:
            return self.time(work)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                work()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            work()
        times = []
        for _ in range(rounds):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            graph.replay()
            end.record()
            end.synchronize()
            times.append(begin.elapsed_time(end) / 1e3)
        return median(times[2:])

    def host(self, work: Callable[[], object], rounds: int = 3) -> float:
        """Median seconds until `work()` returns: what Python and the driver need to give the card its work."""
        times = []
        for _ in range(rounds):
            self.synchronise()
            began = time.perf_counter()
            work()
            times.append(time.perf_counter() - began)
        self.synchronise()
        return median(times)

    def synchronise(self) -> None:
        """Wait for the card."""
        if not self.rehearse:
            torch.cuda.synchronize()

    def collect(self) -> None:
        """Free what nobody uses any more; a trainer and what it records know each other, so Python's collector has to
        look for them."""
        gc.collect()
        if not self.rehearse and torch.cuda.is_initialized():
            torch.cuda.synchronize()
            torch.cuda.empty_cache()

    @contextmanager
    def peak(self) -> Iterator[dict]:
        """`with state.peak() as memory: ...` fills memory["bytes"] with the most that tensors took, and "reserved" with
        the most that PyTorch held for them."""
        found: dict = {}
        if self.rehearse:
            yield found
            return
        self.collect()
        torch.cuda.reset_peak_memory_stats()
        yield found
        torch.cuda.synchronize()
        found["bytes"], found["reserved"] = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()

    @cached_property
    def config(self) -> LlamaConfig:
        """Llama 3.2-3B's numbers, or small ones in the rehearsal."""
        return LlamaConfig.from_dict(TINY if self.rehearse else dict(LLAMA_3_2_3B))

    @cached_property
    def large(self) -> LlamaForCausalLM:
        """The model of 3 billion weights with an adapter of rank 16 on every linear, all made on the card."""
        model = random_model(self.config, self.device, self.dtype, "nf4")
        generator = torch.Generator().manual_seed(1)
        inject(model, "all-linear", 16, 32, generator=generator)
        fill_adapter(model, generator)
        return model

    def rows(self, template: str, count: int) -> list[EncodedPost]:
        """Rows of random ids behind the same prefix, as long as the paper's test tweets in Llama 3's tokens."""
        lengths = read_json(LENGTHS)[template]
        most = 24 if self.rehearse else 10_000
        draw = torch.Generator().manual_seed(2)
        vocabulary = self.config.vocab_size
        prefix = torch.randint(10, vocabulary, (min(lengths["prefix"], most),), generator=draw).tolist()
        rows = []
        for own in (lengths["own"] * (1 + count // len(lengths["own"])))[:count]:
            ids = prefix + torch.randint(10, vocabulary, (min(own, most),), generator=draw).tolist()
            rows.append(EncodedPost(ids, len(ids) - 1, False))
        return rows

    def prefix(self, template: str) -> list[int]:
        """The ids that all rows of a template begin with."""
        rows = self.rows(template, 1)
        return rows[0].ids[: min(read_json(LENGTHS)[template]["prefix"], 24 if self.rehearse else 10_000)]


class FixedPrompt:
    """What the labeller needs of a prompt whose rows are encoded already."""

    def __init__(self, prefix: list[int]):
        self.prefix_ids, self.label_ids = prefix, list(range(3, 3 + LABELS))


@torch.no_grad()
def random_model(config: LlamaConfig, device: str, dtype: torch.dtype, quantize: str, seed: int = 0
                 ) -> LlamaForCausalLM:
    """A model of random weights, drawn where it lives: NF4 bytes for the linears, and 16-bit numbers for the rest.

    The sixteen values of NF4 drawn evenly have a standard deviation near a half, so a scale of 2 / sqrt(in) makes
    products of size one.
    """
    model = LlamaForCausalLM.empty(config, choose_attend(config, device, dtype))
    make_linears(model, None, quantize)
    generator = torch.Generator(device).manual_seed(seed)
    for name, module in list(model.named_modules()):
        if isinstance(module, NF4Linear):
            count = module.in_features * module.out_features
            packed = torch.randint(0, 256, (-(-count // 2),), dtype=torch.uint8, device=device, generator=generator)
            scales = torch.rand(-(-count // 64), device=device, generator=generator).add_(0.5)
            module.load_packed(packed, scales.mul_(2 * module.in_features**-0.5))
        elif hasattr(module, "load_dense"):
            shape = module.weight.shape
            if len(shape) == 1:
                module.load_dense("weight", torch.ones(shape, dtype=dtype, device=device))
            else:
                table = torch.randn(shape, dtype=dtype, device=device, generator=generator)
                module.load_dense("weight", table.mul_(shape[1] ** -0.5))
        elif getattr(module, "weight", None) is not None and name:
            raise UserError(f"{name}: nobody fills this module")
    return model.requires_grad_(False)


def choose_attend(config: LlamaConfig, device: str, dtype: torch.dtype):
    """The attention that the programs would choose."""
    return assemble.choose_attend(torch.device(device), dtype, config.head_dim)[0]


def name_of(attend) -> str:
    """A way to attend by its function's name, also where some of its arguments are given already."""
    return getattr(attend, "func", attend).__name__ + (" with repeated keys" if hasattr(attend, "func") else "")


@torch.no_grad()
def fill_adapter(model, generator: torch.Generator) -> None:
    """B at random: at zero, A would have no gradient and a comparison would be half blind."""
    for name, parameter in trainable_parameters(model).items():
        if name.endswith("lora_B"):
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.02)


def make_trainer(model, rows, prefix, batch_size: int, steps: int, micro_tokens: int, *, loss: str = "label",
                 checkpointing: bool = False, rate: float = 2e-4, clip: float = 1.0, graphs: bool = False, order=None
                 ) -> Trainer:
    """A trainer over `rows` in their order, or another, with labels in turn."""
    labels = [index % LABELS for index in range(len(rows))]
    recipe = Recipe(rate, "constant", 0.0, 0.0, clip, batch_size, loss)
    order = order or (lambda epoch: range(len(rows)))
    return Trainer(model, rows, labels, [1.0] * len(rows), list(range(3, 3 + LABELS)), order, prefix, recipe, steps,
                   micro_tokens, checkpointing, graphs)
