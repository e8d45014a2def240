"""How fast: the card itself, labelling and training at the size of Llama 3.2-3B, and attention's ways side by side."""

import platform
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial

import torch
import torch.nn.functional as F

from benchmarks.card.state import FIRST, TEMPLATES, FixedPrompt, State, choose_attend, make_trainer, name_of
from benchmarks.machine import PACKAGES, installed
from benchmarks.products import Recorder, as_counter, copy_bandwidth, work
from common.kernels import plain_kernels, why_not
from common.packed import Layout
from common.terminal import human_bytes
from finetune.memory import MemoryPlan, expected_plan, fullest
from inference.labeller import Labeller
from inference.merged import MERGED
from lora.inject import adapters, replace
from model import attention
from quant.convert import make_resident
from quant.linear import NF4Linear

POSTS = 875  # the paper's test tweets
PRODUCTS = ((8192, 8192, 8192), (4096, 3072, 8192), (4096, 8192, 3072), (4096, 3072, 3072), (1024, 3072, 8192))
LABELLING_GOAL, TRAINING_GOAL = 0.60, 0.50  # share of the product limit
MEMORY_GOAL = 4e9  # bytes, of a step of 16 posts without resident weights


def machine(state: State) -> None:
    """Versions, the bandwidth of a copy, and the rate of products."""
    state.note("PyTorch, Python", f"{torch.__version__}, {platform.python_version()}")
    for name in ("triton", *PACKAGES[1:]):
        state.note(name, installed(name) or "not installed")
    if state.rehearse:
        state.note("device", "this CPU, in a rehearsal")
    else:
        facts = torch.cuda.get_device_properties(0)
        state.note("card", f"{facts.name}, {human_bytes(facts.total_memory)}, compute {facts.major}.{facts.minor}, "
                           f"CUDA {torch.version.cuda}")
    size = 1 << (20 if state.rehearse else 31)
    state.note("copy, read and written", copy_bandwidth(state.device, size) / 1e12, "TB/s")
    for rows, inner, columns in PRODUCTS:
        scale = 64 if state.rehearse else 1
        left = torch.randn(rows // scale, inner // scale, device=state.device, dtype=state.dtype)
        weight = torch.randn(columns // scale, inner // scale, device=state.device, dtype=state.dtype)
        seconds = state.time(lambda left=left, weight=weight: F.linear(left, weight), 20, 5)
        state.note(f"product {rows} x {inner} x {columns}", 2 * rows * inner * columns / scale**3 / seconds / 1e12,
                   "TFLOP/s")


def make_large(state: State) -> None:
    """The model of 3 billion weights, from random bytes drawn on the card."""
    with state.peak() as memory:
        seconds = state.time(lambda: state.large, 1, 0)
    state.note("made in", seconds, "s")
    weights = sum(m.in_features * m.out_features for m in state.large.modules() if isinstance(m, NF4Linear))
    state.note("weights in NF4", weights / 1e9, "billion")
    state.note("attention", name_of(state.large.attend))
    if not state.rehearse:
        state.note("kernels", why_not(torch.device(state.device)) or "Triton's")
    if memory:
        state.note("allocated at most", memory["bytes"] / 1e9, "GB")


@contextmanager
def held(state: State, kind: str) -> Iterator[None]:
    """The large model's weights as they are ("NF4"), with a dense copy ("resident") or with the adapter in dense ones
    ("merged") inside a `with` block."""
    layers = adapters(state.large) if kind == "merged" else {}
    if kind == "resident":
        make_resident(state.large, state.dtype)
    if kind == "merged":
        MERGED.change(state.large)
    try:
        yield
    finally:
        for name, layer in layers.items():
            replace(state.large, name, layer)
        for module in state.large.modules():
            if isinstance(module, NF4Linear):
                module.resident = None


def ways(state: State) -> Iterator[tuple[str, str, bool]]:
    """How weights come: name, how they are held, whether without kernels, which run on a card alone."""
    if not state.rehearse:
        yield "NF4", "NF4", False
    yield "NF4, plain PyTorch", "NF4", True
    yield "resident", "resident", False
    yield "merged", "merged", False


def limit_of(state: State, task) -> float:
    """Seconds of the matrix products alone in `task()`: the shapes that make up 99 % of the work, each measured by
    itself."""
    with Recorder(True) as recorder:
        task()
    counts = as_counter(recorder.counts())
    whole, done, seconds = sum(work(shape, count) for shape, count in counts.items()), 0.0, 0.0
    for shape, count in counts.items():  # the most work first
        rows, inner, columns, left_lies, right_lies = shape
        left = torch.randn((inner, rows) if left_lies else (rows, inner), device=state.device, dtype=state.dtype)
        weight = torch.randn((columns, inner) if right_lies else (inner, columns), device=state.device,
                             dtype=state.dtype)
        product = partial(torch.mm, left.t() if left_lies else left, weight.t() if right_lies else weight)
        seconds += count / 4 * state.time(partial(repeat, product, 4), 3, 1)
        done += work(shape, count)
        if done > 0.99 * whole:
            break
    return seconds * whole / done


def repeat(task, times: int) -> None:
    """Call it so often."""
    for _ in range(times):
        task()


def label(labeller: Labeller, rows) -> object:
    """Probabilities of all rows as one window."""
    return labeller.give(rows)()


def epoch(trainer) -> None:
    """The steps of one epoch, one after the other without a pause, as train.py makes them."""
    for _ in range(trainer.steps_per_epoch):
        trainer.step()


def labelling(state: State) -> None:
    """Posts a second of 875 posts, and the share of what their products alone would take."""
    count, limits = 24 if state.rehearse else POSTS, {}
    for tokens in (16384, 4096):
        for template in TEMPLATES:
            rows, prompt = state.rows(template, count), FixedPrompt(state.prefix(template))
            for name, kind, plain in ways(state):
                if not state.has(8):
                    return
                if plain and tokens == 4096 and not state.rehearse:
                    continue
                labeller = Labeller(state.large, prompt, tokens)
                with held(state, kind), plain_kernels() if plain else nullcontext():
                    task = partial(label, labeller, rows)
                    mine = (template, kind == "merged")  # which has no products of adapters
                    if mine not in limits:
                        limits[mine] = limit_of(state, task)
                        state.note(f"label, {template}{', merged' * mine[1]}: products alone", count / limits[mine],
                                   "posts/s")
                    with state.peak() as memory:
                        seconds = state.time(task, 2, 1)
                share = limits[mine] / seconds
                best = tokens == 16384 and name == "resident"
                state.note(f"label, {template}, {tokens:,} tokens, {name}", count / seconds, "posts/s")
                state.note("  host time of all", state.host(partial(labeller.give, rows), 1), f"s of {seconds:.2f}")
                state.note("  share of the products' limit", 100 * share, "%",
                           f"{LABELLING_GOAL:.0%}" if best else "", share >= LABELLING_GOAL if best else None)
                if memory:
                    state.note("  allocated at most", memory["bytes"] / 1e9, "GB")


def training(state: State) -> None:
    """Posts a second in steps of 16 and 64 posts, and the memory that they take: within 4 GB, recorded, and last not
    recorded, which takes longest and says least."""
    limits = {}
    for template in FIRST:
        small_card(state, template)
    for graphs in (False,) if state.rehearse else (True, False):
        for template in FIRST:
            for size in (4, 8) if state.rehearse else (64, 16):
                rows, prefix = state.rows(template, 4 * size), state.prefix(template)
                for kind in ("resident", "NF4"):
                    if not state.has(12):
                        return
                    if (template, size) not in limits:
                        trainer = make_trainer(state.large, rows, prefix, size, 1000, 16384)
                        limits[template, size] = limit_of(state, partial(epoch, trainer)) / trainer.steps_per_epoch
                        state.note(f"train, {template}, {size} posts a step: products alone",
                                   size / limits[template, size], "posts/s")
                        del trainer  # with its moments
                    with held(state, kind):
                        measure(state, template, size, rows, prefix, kind, graphs, limits[template, size])


def measure(state: State, template: str, size: int, rows, prefix, kind: str, graphs: bool, limit: float) -> None:
    """Epochs of four steps in a row; memory from the first step on, when graphs are recorded."""
    with state.peak() as memory:
        trainer = make_trainer(state.large, rows, prefix, size, 1000, 16384, graphs=graphs)
        for _ in range(3 if graphs else 1):  # each size is computed, recorded, replayed
            epoch(trainer)
    seconds = state.time(partial(epoch, trainer), 3, 0) / trainer.steps_per_epoch
    share, best = limit / seconds, size == 64 and kind == "resident" and graphs
    name = f"train, {template}, {size} posts a step, {kind}" + ("" if graphs else ", launch after launch")
    state.note(name, size / seconds, "posts/s")
    state.note("  host time of a step", 1e3 * state.host(trainer.step), f"ms of {1e3 * seconds:.0f}")
    state.note("  share of the products' limit", 100 * share, "%", f"{TRAINING_GOAL:.0%}" if best else "",
               share >= TRAINING_GOAL if best else None)
    if graphs:
        state.note("  sizes recorded", float(len(trainer.graphs.pieces)))
    if memory:
        state.note("  allocated at most", memory["bytes"] / 1e9, "GB")
        state.note("  reserved at most", memory["reserved"] / 1e9, "GB")


def small_card(state: State, template: str) -> None:
    """Steps of 16 posts as train.py would make them with 4 GB free: by its plan, beside what is allocated."""
    size = 4 if state.rehearse else 16
    rows, prefix = state.rows(template, 4 * size), state.prefix(template)
    plan = plan_for(state, MEMORY_GOAL, rows, size, prefix)
    with state.peak() as memory:
        trainer = make_trainer(state.large, rows, prefix, size, 1000, plan.micro_tokens,
                               checkpointing=plan.checkpointing)
        epoch(trainer)
        seconds = state.time(partial(epoch, trainer), 1, 0) / trainer.steps_per_epoch
    how = ", recomputed" if plan.checkpointing else ""
    state.note(f"train, {template}, {size} posts a step within 4 GB, NF4", size / seconds, "posts/s")
    state.note("  in pieces of at most", f"{plan.micro_tokens:,} tokens{how}")
    state.note("  planned", plan.total / 1e9, "GB")
    if memory:
        state.note("  allocated at most", memory["bytes"] / 1e9, "GB", "4 GB", memory["bytes"] <= MEMORY_GOAL)


def plan_for(state: State, free: float, rows, size: int, prefix) -> MemoryPlan:
    """What train.py plans for steps of `size` of these rows on a card with so many bytes free."""
    return expected_plan(state.config, state.dtype, "nf4", "all-linear", 16, int(free), gpu=True,
                         attend=state.large.attend, piece=fullest(rows, range(len(rows)), size, prefix))


def attentions(state: State) -> None:
    """One layer's attention, forward and with backward, by every way that takes these tensors."""
    heads, keys, size = (state.config.num_attention_heads, state.config.num_key_value_heads, state.config.head_dim)
    chosen = choose_attend(state.config, state.device, state.dtype)
    for template in TEMPLATES:
        prefix = len(state.prefix(template))
        for tokens in (256,) if state.rehearse else (4096, 16384):
            starts = [prefix]
            for row in state.rows(template, 400):
                if starts[-1] + len(row.ids) - prefix > tokens:
                    break
                starts.append(starts[-1] + len(row.ids) - prefix)
            layout = Layout(tuple(starts), prefix)
            q = torch.randn(starts[-1], heads, size, device=state.device, dtype=state.dtype, requires_grad=True)
            k, v = (torch.randn(starts[-1], keys, size, device=state.device, dtype=state.dtype, requires_grad=True)
                    for _ in range(2))
            grad = torch.randn_like(q)
            for attend in dict.fromkeys((chosen, attention.attend_padded, attention.attend_sdpa)):
                if attend is attention.attend_sdpa and tokens > 4096:
                    continue
                if not state.has(2):
                    return

                def forward(attend=attend, q=q, k=k, v=v, layout=layout):
                    with torch.no_grad():
                        return attend(q, k, v, layout)

                def both(attend=attend, q=q, k=k, v=v, layout=layout, grad=grad):
                    attend(q, k, v, layout).backward(grad)

                name = f"{name_of(attend)}, {template}, {len(starts) - 1} rows, {starts[-1]:,} tokens"
                state.note(f"{name}: forward", 1e3 * state.time(forward, 5), "ms a layer")
                state.note(f"{name}: with backward", 1e3 * state.time(both, 5), "ms a layer")
