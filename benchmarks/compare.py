"""Ours against the usual stack: the same weights, posts, LoRA, loss and arithmetic, in turns.

    python -m benchmarks.compare --quick
    python -m benchmarks.compare --tokenizer tokenizer.model --posts posts.jsonl --json result.json

Sides: ours (`Trainer` of finetune/loop.py, `label_probabilities` of inference/labeller.py); transformers + peft +
bitsandbytes, batches padded as their users do; llama.cpp on Q4_K_M, one post per call, if `llama-cpp-python` and `gguf`
are installed (extra `peers`). Weights are random in Llama 3.2-3B's layout, at two depths; the line through both tells
the cost of a layer from the fixed cost and is projected to the full depth. Before anything is timed, the sides are
compared: packed bytes, label probabilities, and loss, gradient and adapter after one step.

Each of our times is shown with its limit: the same matrix products alone, measured on the spot. `--preset paper` takes
the paper's adapter.
"""

import importlib.util
import shlex
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from benchmarks.checkpoint import write_checkpoints
from benchmarks.equality import check_close
from benchmarks.machine import check_system, has_bf16_kernels, machine
from benchmarks.measure import CHECKED, PAPER, Depth, choose_attention, jobs, measure_depth
from benchmarks.settings import PRESETS, BenchmarkOptions, choose_cut, choose_posts, whole_numbers
from benchmarks.show import report
from benchmarks.summary import limits, memories, project, ratios
from benchmarks.turns import Job, Worker
from common.errors import UserError, run_program
from common.files import check_file, find_path, write_json
from common.options import option, parse_options
from model.config import LlamaConfig
from quant.int8 import pays

QUICK = {"depths": ["2", "4"], "turns": 2, "train_posts": 16, "label_posts": 16}
LLAMA_TOLERANCE = 1e-2  # of a label's log-probability, F16 against float32: activations are rounded to F16 there
USUAL = ("transformers", "peft", "bitsandbytes", "accelerate")
LLAMA = ("llama_cpp", "gguf")


@dataclass
class CompareOptions(BenchmarkOptions):
    """Options of this program."""

    quick: bool = option(False, "under 15 minutes on two cores: depths 2 and 4, two turns of 16 posts, the usual stack "
                         "on the paper's template only")
    depths: list[str] = option(("2", "6"), "numbers of layers to measure at, two or more", metavar="2,6")
    full_depth: int = option(0, "layers to project to; 0: the config's", minimum=0)
    turns: int = option(5, "turns per side", minimum=1)
    train_posts: int = option(32, "posts per turn in training", minimum=1)
    label_posts: int = option(48, "posts per turn in labelling", minimum=1)
    new_tokens: int = option(3, "tokens that the usual stack generates; three as in the paper", minimum=1)
    task: str = option("both", "what is measured", choices=("both", "train", "label"))
    llama: str = option("auto", "whether llama.cpp takes part; auto: if installed", choices=("auto", "on", "off"))


def main(argv: list[str]) -> None:
    """Prepare, measure each depth, project, print, write."""
    began = time.perf_counter()
    options = parse_options(CompareOptions, argv, program="python -m benchmarks.compare", description=__doc__,
                            presets=PRESETS)
    check_system("benchmarks.compare", "linux")
    check_file(options.json, "--json")
    depths = settle(options)
    facts_here, config = machine(options.device, options.threads), options.read_config()
    target = options.full_depth or config["num_hidden_layers"]
    with options.work_folder() as work:
        tokens = choose_posts(options, max(options.train_posts, options.label_posts), config, work)
        show(f"tokens: {', '.join(f'{name} {count}' for name, count in tokens.items())}")
        alone, way = choose_cut(options, config, target), {False: "kept", True: "computed twice"}
        show(f"ours: {options.micro_tokens:,} tokens at once in training, activations {way[options.checkpointing]}; "
             f"left alone, train.py would choose {alone.micro_tokens:,}, {way[alone.checkpointing]}, at depth {target}")
        folders = write_checkpoints(config, depths, find_path(options.tokenizer), work)
        found, facts = {}, {}
        for depth in depths:
            found[depth] = one_depth(options, depth, folders[depth], work, facts)
    projected = project(found, target)
    result = {
        "schema": 1, "command": shlex.join(["python", "-m", "benchmarks.compare", *argv]), "machine": facts_here,
        "settings": asdict(options) | facts | {"tokens": tokens, "full_depth": target},
        "depths": {depth: one.to_dict() for depth, one in found.items()}, "projection": projected,
        "ratios": ratios(found, projected, target), "limits": limits(found, projected, target, shapes(config)),
        "memory": memories(found, target, options.checkpointing), "seconds": time.perf_counter() - began,
    }  # fmt: skip
    print(report(result))
    if options.json:
        write_json(options.json, result)


def show(text: str) -> None:
    """Print a line at once, for whoever is waiting."""
    print(text, flush=True)


def settle(options: CompareOptions) -> list[int]:
    """Fill in what follows from other options and check what can be checked at once; returns the depths."""
    for key, value in (QUICK if options.quick else {}).items():
        if key not in options.given:
            setattr(options, key, value)
    if options.llama == "on" and options.device != "cpu":
        raise UserError(f"--llama on: llama.cpp is measured on the CPU, and --device is {options.device}; leave one of "
                        "them out")
    if options.llama == "on" and options.task == "train":
        raise UserError("--llama on: llama.cpp labels and does not train; leave it out, or --task train")
    options.settle()
    missing = [package for package in USUAL if importlib.util.find_spec(package) is None]
    if missing:
        raise UserError(f"benchmarks.compare: {missing[0]} is not installed; the extra 'test' brings the usual stack")
    there = all(importlib.util.find_spec(package) for package in LLAMA)
    if options.llama == "on" and not there:
        raise UserError("--llama on: llama-cpp-python and gguf are not installed; the extra 'peers' compiles them")
    has_job = options.device == "cpu" and options.task != "train"
    options.llama = "on" if there and options.llama != "off" and has_job else "off"
    return whole_numbers(options.depths, "depths", least=2)


def shapes(config: dict) -> set[tuple[int, int]]:
    """(in, out) of every 4-bit linear."""
    shape = LlamaConfig.from_dict(config)
    d, f = shape.hidden_size, shape.intermediate_size
    queries, keys = shape.num_attention_heads * shape.head_dim, shape.num_key_value_heads * shape.head_dim
    return {(d, queries), (d, keys), (queries, d), (d, f), (f, d)}


def one_depth(options: CompareOptions, depth: int, checkpoint: Path, work: Path, facts: dict) -> Depth:
    """Start the workers for one depth, let them take turns, end them; `facts` gets what all depths share."""
    settings = options.for_worker(checkpoint, work) | {"new_tokens": options.new_tokens, "bf16_kernels": False,
                                                       "keep_memory": options.task == "label"}
    bf16 = options.device == "cpu" and has_bf16_kernels()
    int8 = options.device == "cpu" and options.dtype == "float32" and pays()
    every = [job for job in jobs(options, everything=not options.quick, llama=options.llama == "on", bf16=bf16,
                                 int8=int8) if options.task in ("both", job.task)]
    asked = {job.side for job in every}
    with ExitStack() as stack:
        start = lambda side, module, **more: stack.enter_context(  # noqa: E731
            Worker(side, f"benchmarks.worker_{module}", settings | more, work))
        if "llama.cpp" in asked:
            gguf = llama_file(options, settings, checkpoint, work, facts)
        sides = {"ours": start("ours", "ours")}
        sides["ours"].ask("describe")  # by now it has written the adapter that the usual stack reads
        sides["usual"] = start("usual", "usual")
        if "ours in bf16" in asked:
            sides["ours in bf16"] = start("ours in bf16", "ours", dtype="bfloat16")
        if "ours in int8" in asked:
            sides["ours in int8"] = start("ours in int8", "ours", int8=True)
        if "usual in bf16" in asked:
            sides["usual in bf16"] = start("usual in bf16", "usual", bf16_kernels=True)
        if "llama.cpp" in asked:
            sides["llama.cpp"] = start("llama.cpp", "llama", gguf=str(gguf))
            facts["llama.cpp system"] = sides["llama.cpp"].ask("describe")["system"].strip()
        facts |= {"bf16_kernels": bf16, "int8": int8}
        if "attention" not in facts:
            job = Job("usual", "label", PAPER, "answer logits", {"posts": min(CHECKED, options.label_posts)})
            kind, seconds = choose_attention(sides["usual"], job)
            facts |= {"attention": kind, "attention_seconds": seconds}
            show(f"usual stack: attention by {kind}, the faster "
                 f"({', '.join(f'{name} {value:.2f} s' for name, value in seconds.items())})")
        for side in sides:
            if side.startswith("usual"):
                sides[side].ask("attention", kind=facts["attention"])
        return measure_depth(options, depth, sides, every, work, show)


def llama_file(options, settings: dict, checkpoint: Path, work: Path, facts: dict) -> Path:
    """The checkpoint as Q4_K_M; its F16 form must agree with our dense weights. Raises `UserError` if not.
    """
    from benchmarks.gguf_file import quantise, write_f16

    f16, q4 = work / "f16.gguf", work / "q4_k_m.gguf"
    write_f16(checkpoint, f16)
    if "llama.cpp F16" not in facts:
        found = []
        for module, more in (("ours", {"quantize": "none", "targets": []}), ("llama", {"gguf": str(f16)})):
            with Worker(f"{module}, 16 bits", f"benchmarks.worker_{module}", settings | more, work) as worker:
                posts = min(CHECKED, options.label_posts)
                found.append(worker.ask("label", template=PAPER, posts=posts, way="reset")["probabilities"])
        ours, theirs = (torch.tensor(values).log().tolist() for values in found)
        facts["llama.cpp F16"] = check_close("llama.cpp, F16, log-probabilities", ours, theirs, LLAMA_TOLERANCE)
        show(f"llama.cpp: F16 and our dense weights agree to {facts['llama.cpp F16']:.1e} in log-probabilities")
    quantise(f16, q4, options.threads)
    f16.unlink()
    return q4


if __name__ == "__main__":
    run_program(main)
