"""Is what the card computes right? Each path beside the same on the CPU in float32, or beside itself to the bit."""

import filecmp
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import torch

from benchmarks.card.state import FixedPrompt, State, choose_attend, fill_adapter, make_trainer, name_of, random_model
from common.packed import Layout
from inference.exact import make_exact
from inference.generate import generate
from inference.labeller import Labeller, label_probabilities
from inference.merged import MERGED
from lora.inject import inject, trainable_parameters
from model.attention import attend_padded, attend_sdpa, attend_softmax
from model.config import LlamaConfig
from quant.convert import make_resident
from quant.double_quant import Scales
from quant.linear import NF4Linear
from quant.nf4 import dequantize_nf4_plain, quantize_nf4

ROOT = Path(__file__).resolve().parents[2]
SMALL = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": 256,
         "intermediate_size": 640, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
         "head_dim": 64, "vocab_size": 2048, "tie_word_embeddings": True, "max_position_embeddings": 4096,
         "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "bos_token_id": 1, "eos_token_id": [2]}  # fmt: skip
CLOSE = 1e-4  # of float32 on two devices, relative to the largest number: the sums are in another order
ROUNDED = 3e-2  # of bfloat16, which keeps 8 bits


def difference(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """The largest difference, relative to the largest wanted number; NaN stays NaN."""
    found, wanted = found.detach().double().cpu(), wanted.detach().double().cpu()
    return ((found - wanted).abs().max() / wanted.abs().max().clamp(min=1e-30)).item()


def close(state: State, what: str, value: float, limit: float) -> None:
    """Note a difference that has to stay below a limit."""
    state.note(what, f"{value:.1e}", "", f"at most {limit:.0e}", value <= limit, check=True)


def small(device: str, dtype: torch.dtype, quantize: str = "nf4"):
    """The same small model with the same adapter wherever it is: drawn on the CPU, then moved."""
    config = LlamaConfig.from_dict(SMALL)
    model = random_model(config, "cpu", torch.float32, quantize)
    generator = torch.Generator().manual_seed(3)
    inject(model, "all-linear", 8, 16, generator=generator)
    fill_adapter(model, generator)
    model = model.to(device=device, dtype=dtype)
    model.attend = choose_attend(config, device, dtype)
    return model


def short_rows(state: State, template: str, count: int) -> tuple[list, list[int]]:
    """Rows whose ids fit the small vocabulary, and the prefix that they share."""
    rows = [type(row)([10 + token % 2000 for token in row.ids], row.answer_index, False)
            for row in state.rows(template, count)]
    return rows, rows[0].ids[: len(state.prefix(template))]


def nf4(state: State) -> None:
    """NF4 to the bit: quantised on the card, and dequantised there as a layer does it."""
    for shape in ((3, 64), (257, 191), (1024, 3072), (1, 7)):
        weight = torch.randn(shape, generator=torch.Generator().manual_seed(4))
        packed, absmax = quantize_nf4(weight)
        there = quantize_nf4(weight.to(state.device))
        same = torch.equal(packed, there[0].cpu()) and torch.equal(absmax, there[1].cpu())
        state.note(f"NF4 bytes of {shape[0]} x {shape[1]}, as on the CPU", same)
        for double in (False, True):
            scales = Scales((absmax,)).kept(double)
            layer = NF4Linear(shape[1], shape[0], double=double, device=state.device)
            layer.load_packed(packed.to(state.device), Scales(part.to(state.device) for part in scales))
            same = True
            for dtype in (torch.float32, torch.bfloat16, torch.float16):
                want = dequantize_nf4_plain(packed, scales.absmax(), shape, dtype)
                same &= torch.equal(layer.dense_weight(dtype).cpu(), want)
                if shape[1] <= 256:  # the way that a layer's product takes: times one, exactly the weight
                    one = torch.eye(shape[1], dtype=dtype, device=state.device)
                    same &= torch.equal(layer(one).t().cpu(), want)
            state.note(f"dequantised {shape[0]} x {shape[1]}{', double' * double}, three dtypes, as on the CPU", same)


def attention(state: State) -> None:
    """Every way to attend beside the written-out softmax in float64, values and gradients."""
    generator = torch.Generator().manual_seed(5)
    chosen = choose_attend(LlamaConfig.from_dict(SMALL), state.device, state.dtype)
    for prefix, lengths in ((0, (5, 17, 1)), (12, (9, 30, 4)), (93, (60,) * 12)):
        starts = [prefix]
        for length in lengths:
            starts.append(starts[-1] + length)
        for answers in (None, tuple(end - 1 for end in starts[1:])):
            count = len(answers) if answers else starts[-1]
            q, grad = (torch.randn(count, 4, 64, generator=generator) for _ in range(2))
            k, v = (torch.randn(starts[-1], 2, 64, generator=generator) for _ in range(2))
            layout = Layout(tuple(starts), prefix, query_tokens=answers)
            wanted = run(attend_softmax, [x.double() for x in (q, k, v)], grad.double(), layout)
            for attend, dtype in ((attend_padded, torch.float32), (attend_sdpa, torch.float32), (chosen, state.dtype)):
                inputs = [x.to(state.device, dtype) for x in (q, k, v)]
                layout = Layout(tuple(starts), prefix, query_tokens=answers)
                found = run(attend, inputs, grad.to(state.device, dtype), layout)
                what = f"{name_of(attend)}, {len(lengths)} rows, prefix {prefix}{', answers only' if answers else ''}"
                worst = max(difference(a, b) for a, b in zip(found, wanted, strict=True))
                close(state, what, worst, CLOSE if dtype == torch.float32 else ROUNDED)


def run(attend, inputs, grad, layout) -> list[torch.Tensor]:
    """Output and the gradients of queries, keys and values."""
    inputs = [x.clone().requires_grad_() for x in inputs]
    out = attend(*inputs, layout)
    out.backward(grad)
    return [out, *(x.grad for x in inputs)]


def training(state: State) -> None:
    """Four steps on both devices: losses, gradients' norms and adapters, for every loss and way of keeping weights."""
    label = ("label", {})
    cases = [("nf4", "paper", *label), ("nf4", "instruction-first", *label), ("nf4-double", "paper", *label),
             ("none", "paper", *label), ("nf4", "paper", "vocabulary", {"loss": "vocabulary"}),
             ("nf4", "paper", "text", {"loss": "text"}), ("nf4", "paper", "label, recomputed", {"checkpointing": True})]
    for quantize, template, name, more in cases:
        rows, prefix = short_rows(state, template, 16)
        found = []
        for device in ("cpu", state.device):
            model = small(device, torch.float32, quantize)
            trainer = make_trainer(model, rows, [] if name == "text" else prefix, 4, 4, 600, **more)
            lines = [trainer.step() for _ in range(4)]
            numbers = torch.tensor([[float(line["loss"]), float(line["grad_norm"])] for line in lines])
            found.append([numbers, *trainable_parameters(model).values()])
        close(state, f"four steps, {quantize}, loss {name}, {template}: losses, gradients' norms",
              difference(found[1][0], found[0][0]), 5 * CLOSE)
        # AdamW moves a number whose gradient is next to nothing by as much as any other, in a direction that rounding
        # decides; so adapters are held together, not each number by itself.
        worst = max(((a.cpu() - b).norm() / b.norm()).item() for a, b in zip(found[1][1:], found[0][1:], strict=True))
        close(state, "  adapters after them", worst, 5 * CLOSE)
    rows, prefix = short_rows(state, "paper", 16)
    found = []
    for device, dtype in (("cpu", torch.float32), (state.device, torch.float16)):
        trainer = make_trainer(small(device, dtype), rows, prefix, 4, 4, 600)
        found.append(torch.tensor([[float(line["loss"]), float(line["grad_norm"])] for line in
                                   (trainer.step() for _ in range(4))]))
    close(state, "four steps in float16, their loss scaled, beside float32: losses, gradients' norms",
          difference(found[1], found[0]), ROUNDED)
    rows, _ = short_rows(state, "paper", 8)
    model = small(state.device, state.dtype)
    for module in model.modules():
        if hasattr(module, "lora_A"):
            module.dropout = 0.1
    trainer = make_trainer(model, rows, [], 4, 2, 600)
    losses = [float(trainer.step()["loss"]) for _ in range(2)]
    state.note("dropout in the card's own dtype: losses are finite", all(abs(value) < 1e4 for value in losses))


def labelling(state: State) -> None:
    """Probabilities of both templates: beside the CPU's, in any batch, from resident weights, after memory ran out."""
    for template in ("paper", "instruction-first"):
        rows, prefix = short_rows(state, template, 40)
        prompt = FixedPrompt(prefix)

        def label(model, micro_tokens=0, prompt=prompt, rows=rows):
            return torch.from_numpy(label_probabilities(model, prompt, rows, micro_tokens=micro_tokens))

        here, model = label(small("cpu", torch.float32)), small(state.device, torch.float32)
        wide, narrow = label(model, 16384), label(model, 500)
        close(state, f"probabilities, {template}, float32, beside the CPU", difference(wide, here), CLOSE)
        close(state, f"probabilities, {template}, batches of 500 beside 16,384 tokens", difference(narrow, wide), CLOSE)
        model = small(state.device, state.dtype)
        rounded = label(model)
        close(state, f"probabilities, {template}, the card's dtype beside the CPU", difference(rounded, here),
              3 * ROUNDED)
        make_resident(model, state.dtype)
        state.note(f"resident weights give the same bits, {template}", torch.equal(label(model), rounded))
        summed = small(state.device, state.dtype)
        MERGED.change(summed)
        close(state, f"a merged adapter, {template}, beside the CPU", difference(label(summed), here), 3 * ROUNDED)
        labeller = Labeller(model, prompt, 16384)
        fail_once(model)
        close(state, f"after memory ran out once, {template}", difference(torch.from_numpy(labeller.give(rows)()),
                                                                          rounded), 3 * ROUNDED)


def fail_once(model) -> None:
    """Let the model's next pass end as it does where memory runs out."""
    original = model.answer_hidden

    def failing(batch, *more):
        model.answer_hidden = original
        raise torch.OutOfMemoryError("planned")

    model.answer_hidden = failing


def exact(state: State) -> None:
    """`--exact`: a post's probabilities are the same bits among 1 to 40 posts."""
    for template in ("paper", "instruction-first"):
        rows, prefix = short_rows(state, template, 40)
        model = small(state.device, state.dtype)
        make_exact(model)
        whole = label_probabilities(model, FixedPrompt(prefix), rows)
        counts = range(1, 41, 13) if state.rehearse else range(1, 41)
        same = [count for count in counts
                if (label_probabilities(model, FixedPrompt(prefix), rows[:count]) == whole[:count]).all()]
        state.note(f"--exact, {template}: 1 to 40 posts with the bits of all 40", f"{len(same)} of {len(counts)}", "",
                   "all", len(same) == len(counts), check=True)


def generation(state: State) -> None:
    """Greedy tokens with a cache, beside the CPU's."""
    rows, _ = short_rows(state, "paper", 1)
    here, there = (list(generate(small(device, torch.float32), rows[0].ids[:20], 24)) for device in
                   ("cpu", state.device))
    state.note("24 greedy tokens, as on the CPU", here == there)


def kill_and_resume(state: State) -> None:
    """train.py with --deterministic: killed twice and resumed, it ends in the bits of a run that was not."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as ended:
        def start(name, *more):
            command = [sys.executable, "train.py", "--max-steps", "12" if state.rehearse else "60", "--save-every", "4",
                       "--validation", "0", "--deterministic", "--device", state.device, "--batch-size", "4",
                       "--out", str(Path(folder) / name), *more]
            process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            ended.callback(process.kill)  # it would take the next parts' time
            return process

        whole, begun = start("whole"), start("killed")
        saved, kills, seen = Path(folder) / "killed" / "checkpoint" / "state.pt", 0, 0.0
        while begun.poll() is None and state.left > 5:
            newest = saved.stat().st_mtime if saved.exists() else 0.0
            if kills < 2 and newest > seen:
                seen, kills = newest, kills + 1
                begun.send_signal(signal.SIGKILL)
                begun.communicate()
                begun = start("killed", "--resume")
            time.sleep(0.02)
        said = [process.communicate(timeout=max(2, state.left - 2))[1].decode()[-300:] for process in (whole, begun)]
        places = [Path(folder) / name / "adapter" / "adapter_model.safetensors" for name in ("whole", "killed")]
        same = all(place.exists() for place in places) and filecmp.cmp(*places, shallow=False)
        state.note(f"train.py killed {kills} times and resumed: the same adapter", same)
        if not same:
            state.note("what the two said", " | ".join(said))


CHECKS = (nf4, attention, training, labelling, exact, generation)


def check(state: State) -> None:
    """All of it, killing and resuming beside the others; one that fails does not keep the others from being made."""
    def make(one) -> None:
        try:
            one(state)
        except Exception as error:  # noted with its type, as a failed check
            first = str(error).splitlines()[0][:300] if str(error) else ""
            state.note(f"{one.__name__}: {type(error).__name__}", first, "", "no error", False, check=True)

    beside = threading.Thread(target=make, args=(kill_and_resume,))
    beside.start()
    for one in CHECKS:
        make(one)
    beside.join()


def synchronisations(state: State) -> None:
    """Nothing waits for the card inside a step or a batch: PyTorch warns where something does."""
    for template in ("paper", "instruction-first"):
        rows, prefix = state.rows(template, 32), state.prefix(template)
        trainer, recorded = (make_trainer(state.large, rows, prefix, 16, 1000, 8192, graphs=graphs)
                             for graphs in (False, True))
        labeller = Labeller(state.large, FixedPrompt(prefix), 4096)
        for name, work in {"training step": trainer.step, "recorded training step": recorded.step,
                           "labelling batch": partial(labeller.give, rows)}.items():
            for _ in range(4):  # what is made once is made, and both steps' sizes are computed and recorded
                work()
            state.synchronise()
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                torch.cuda.set_sync_debug_mode("warn")
                try:
                    work()
                finally:
                    torch.cuda.set_sync_debug_mode("default")
            places = sorted({"/".join(Path(one.filename).parts[-2:]) + f":{one.lineno}" for one in caught
                             if "called a synchronizing" in str(one.message)})
            state.note(f"waits in a {name}, {template}", ", ".join(places) or "none", "", "none", not places,
                       check=True)
