"""Ours beside the usual stack: the same weights, posts, LoRA, loss and arithmetic, in turns.

    python -m benchmarks.compare --quick
    python -m benchmarks.compare --tokenizer tokenizer.model --posts posts.jsonl --json result.json

Sides: ours (`loop.Trainer`, `predict.label_probabilities`); transformers + peft + bitsandbytes, batches padded as their
users do; llama.cpp on Q4_K_M, one post per call, where `llama-cpp-python` and `gguf` are installed (extra `peers`).
Weights are random in Llama 3.2-3B's layout, at two depths; what a layer costs and what is fixed are told apart by the
line through both and projected to the full depth. Before anything is timed, the sides are held against each other:
packed bytes, label probabilities, and loss, gradient and adapter after one step.

Beside each time of ours stands its limit: the same matrix products alone, measured on the spot.
"""

import importlib.util
import random
import shlex
import shutil
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from benchmarks.checkpoint import read_config, write_checkpoints
from benchmarks.equality import check_close
from benchmarks.machine import has_bf16_kernels, machine
from benchmarks.measure import PAPER, TEMPLATES, Depth, choose_attention, jobs, measure_depth
from benchmarks.show import report
from benchmarks.summary import limits, memories, project, ratios
from benchmarks.turns import Job, Worker
from common.device import DTYPES, choose_device, choose_dtype
from common.errors import UserError, run_program
from common.files import check_place, write_json
from common.options import option, parse_options
from common.terminal import human_seconds
from data.annotators import read_labelled
from data.codebook import load_codebook
from data.prompt import Prompt
from lora.inject import expected_count
from memory import available_memory, plan_memory
from model.config import LlamaConfig
from model.llama import LlamaForCausalLM
from model.tokenizer import load_tokenizer
from quant.convert import replace_linears
from run_folder import find_path

QUICK = {"depths": ["1", "3"], "turns": 2, "train_posts": 16, "label_posts": 32}
LLAMA_TOLERANCE = 1e-2  # of a label's log-probability, F16 against float32: activations are rounded to F16 there
USUAL = ("transformers", "peft", "bitsandbytes", "accelerate")


@dataclass
class CompareOptions:
    """Options of this program."""

    quick: bool = option(False, "under 15 minutes on two cores: depths 1 and 3, two turns, the usual stack on the "
                         "paper's template only")
    source: str | None = option(None, "folder with a config.json (default: Llama 3.2-3B's numbers)", metavar="DIR")
    tokenizer: str = option("base/tokenizer.model", "tokenizer.model (default: the small base's; posts then have other "
                            "lengths than with Llama 3's)", metavar="FILE")
    posts: str = option("data/samples/train.jsonl", "labelled posts, drawn from at random", metavar="FILE")
    depths: list[str] = option(("2", "6"), "numbers of layers to measure at, two or more", metavar="2,6")
    full_depth: int = option(0, "layers to project to; 0: the config's", minimum=0)
    turns: int = option(5, "turns of each side", minimum=1)
    train_posts: int = option(32, "posts of one turn in training", minimum=1)
    label_posts: int = option(48, "posts of one turn in labelling", minimum=1)
    batch_size: int = option(16, "posts of a step, and of the usual stack's batch in labelling", minimum=1)
    new_tokens: int = option(3, "tokens that the usual stack generates; three as in the paper", minimum=1)
    targets: list[str] = option(("all-linear",), "linears with an adapter", metavar="q_proj,v_proj")
    rank: int = option(16, "rank r of the adapters", minimum=1)
    alpha: float = option(32, "alpha of the adapters", above=0)
    micro_tokens: int = option(0, "ours in training; 0: what train.py would choose at full depth", minimum=0)
    checkpointing: bool = option(False, "compute activations twice, on both sides")
    llama: str = option("auto", "llama.cpp: auto takes part where it is installed", choices=("auto", "on", "off"))
    device: str = option("cpu", "cpu, or cuda (untested)", metavar="NAME")
    dtype: str = option("auto", "arithmetic of both sides; auto as in train.py", choices=("auto", *DTYPES))
    threads: int = option(0, "CPU threads of every side; 0: PyTorch's choice", minimum=0)
    seed: int = option(123, "chooses the posts", minimum=0)
    work: str = option("runs/compare", "folder for checkpoints and logs", metavar="DIR")
    keep: bool = option(False, "keep that folder")
    json: str | None = option(None, "everything measured, as JSON", metavar="FILE")


PRESETS = {"paper": {"targets": ["q_proj", "v_proj"], "rank": 64, "alpha": 32.0}}


def main(argv: list[str]) -> None:
    """Prepare, measure each depth, project, print, write."""
    began = time.perf_counter()
    options = parse_options(CompareOptions, argv, program="python -m benchmarks.compare", description=__doc__,
                            presets=PRESETS)
    depths = settle(options)
    facts_here = machine(options.device, options.threads)
    work = Path(options.work)
    work.mkdir(parents=True, exist_ok=True)
    try:
        config = read_config(options.source)
        tokens = prepare(options, config, work)
        folders = write_checkpoints(config, depths, find_path(options.tokenizer), work)
        target = options.full_depth or config["num_hidden_layers"]
        choose_micro_tokens(options, config, target)
        show(f"posts: {tokens}")
        found, facts = {}, {}
        for depth in depths:
            found[depth] = one_depth(options, depth, folders[depth], work, facts)
            left = len([other for other in depths if other > depth])
            if left:
                show(f"depth {depth} done after {human_seconds(time.perf_counter() - began)}; {left} to go")
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
    finally:
        if not options.keep:
            shutil.rmtree(work, ignore_errors=True)


def show(text: str) -> None:
    """A line for whoever waits."""
    print(text, flush=True)


def settle(options: CompareOptions) -> list[int]:
    """Fill in what follows from other options and check what can be checked at once; returns the depths."""
    for key, value in (QUICK if options.quick else {}).items():
        if key not in options.given:
            setattr(options, key, value)
    if options.json:
        check_place(options.json, "--json")
    if not all(word.isdigit() and int(word) for word in options.depths) or len(set(options.depths)) < 2:
        raise UserError(f"--depths {' '.join(options.depths)}: must be two or more different numbers of layers")
    missing = [package for package in USUAL if importlib.util.find_spec(package) is None]
    if missing:
        raise UserError(f"benchmarks.compare: {missing[0]} is not installed; pip install '.[test]' brings what is "
                        "compared with")
    there = all(importlib.util.find_spec(package) for package in ("llama_cpp", "gguf"))
    if options.llama == "on" and not there:
        raise UserError("--llama on: llama-cpp-python and gguf are not installed; pip install '.[peers]' compiles them")
    options.llama = "on" if there and options.llama != "off" and options.device == "cpu" else "off"
    device = choose_device(options.device)
    options.dtype = str(choose_dtype(device, options.dtype)[0]).removeprefix("torch.")
    if options.threads:
        torch.set_num_threads(options.threads)
    options.threads = torch.get_num_threads()
    return sorted(map(int, set(options.depths)))


def prepare(options: CompareOptions, config: dict, work: Path) -> dict:
    """Choose posts, encode them in both templates and write both for the workers; returns their tokens per post."""
    book, tokenizer = load_codebook(), load_tokenizer(find_path(options.tokenizer))
    posts, _, _ = read_labelled([find_path(options.posts)], None, book)
    wanted = max(options.train_posts, options.label_posts)
    if len(posts) < wanted:
        raise UserError(f"--posts {options.posts}: has {len(posts)} posts, fewer than the {wanted} of one turn")
    whole = Prompt(book, tokenizer, template=PAPER)
    average = sum(len(whole.encode(post.text).ids) for post in posts) / len(posts)
    chosen = random.Random(options.seed).sample(posts, wanted)
    write_json(work / "posts.json", [{"text": post.text, "label": post.label} for post in chosen])
    encoded, tokens = {}, {"all posts, paper": round(average, 1)}
    for template in TEMPLATES:
        prompt = Prompt(book, tokenizer, template=template)
        rows = [prompt.encode(post.text) for post in chosen]
        tokenizer.check_fits(config["vocab_size"], [*prompt.prefix_ids, *prompt.label_ids])
        encoded[template] = {"rows": [row.ids for row in rows], "answers": [row.answer for row in rows],
                             "labels": [book.place(post.label) for post in chosen], "label_ids": prompt.label_ids}
        lengths = [len(row.ids) for row in rows]
        tokens[template] = round(sum(lengths) / len(lengths), 1)
        tokens[f"{template}, shared prefix"] = len(prompt.prefix_ids)
    write_json(work / "encoded.json", encoded)
    return tokens


def choose_micro_tokens(options: CompareOptions, config: dict, depth: int) -> None:
    """What train.py would choose at full depth with the memory at hand, activations kept or not as asked."""
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig.from_dict(config | {"num_hidden_layers": depth}))
    model.to(getattr(torch, options.dtype))
    replace_linears(model)
    targets = options.targets[0] if len(options.targets) == 1 else list(options.targets)
    trainable = expected_count(model, targets, options.rank)
    free = available_memory(choose_device(options.device))
    free_choice = plan_memory(model, trainable, micro_tokens=None, checkpointing=None, available=free)
    plan = plan_memory(model, trainable, micro_tokens=options.micro_tokens or None, checkpointing=options.checkpointing,
                       available=free)
    options.micro_tokens = plan.micro_tokens
    way = {False: "kept", True: "computed twice"}
    show(f"ours: {plan.micro_tokens:,} tokens at once in training, activations {way[plan.checkpointing]} (left alone, "
         f"train.py would choose {free_choice.micro_tokens:,}, {way[free_choice.checkpointing]}, at depth {depth})")


def shapes(config: dict) -> set[tuple[int, int]]:
    """(in, out) of every 4-bit linear."""
    shape = LlamaConfig.from_dict(config)
    d, f = shape.hidden_size, shape.intermediate_size
    queries, keys = shape.num_attention_heads * shape.head_dim, shape.num_key_value_heads * shape.head_dim
    return {(d, queries), (d, keys), (queries, d), (d, f), (f, d)}


def one_depth(options: CompareOptions, depth: int, checkpoint: Path, work: Path, facts: dict) -> Depth:
    """Start the workers for one depth, let them take turns, end them."""
    settings = {
        "checkpoint": str(checkpoint), "adapter": str(work / "adapter"), "posts": str(work / "posts.json"),
        "encoded": str(work / "encoded.json"), "templates": list(TEMPLATES), "device": options.device,
        "dtype": options.dtype, "threads": options.threads, "targets": list(options.targets), "rank": options.rank,
        "alpha": options.alpha, "batch_size": options.batch_size, "new_tokens": options.new_tokens,
        "quantize": "nf4", "bf16_kernels": False,
    }  # fmt: skip
    bf16 = options.device == "cpu" and not options.quick and has_bf16_kernels()
    every = jobs(options, everything=not options.quick, llama=options.llama == "on", bf16=bf16)
    with ExitStack() as stack:
        start = lambda side, module, **more: stack.enter_context(  # noqa: E731
            Worker(side, f"benchmarks.worker_{module}", settings | more, work))
        if options.llama == "on":
            gguf = llama_files(options, settings, checkpoint, work, facts)
        sides = {"ours": start("ours", "ours")}
        sides["ours"].ask("describe")  # it writes the adapter that the next one reads
        sides["usual"] = start("usual", "usual")
        if bf16:
            sides["usual in bf16"] = start("usual in bf16", "usual", bf16_kernels=True)
        if options.llama == "on":
            sides["llama.cpp"] = start("llama.cpp", "llama", gguf=str(gguf))
            facts["llama.cpp system"] = sides["llama.cpp"].ask("describe")["system"].strip()
        if "attention" not in facts:
            kind, seconds = choose_attention(sides["usual"], Job("usual", "label", PAPER, "answer logits",
                                                                 {"posts": options.batch_size}))
            facts |= {"attention": kind, "attention_seconds": seconds}
            show(f"usual stack: attention by {kind}, the faster "
                 f"({', '.join(f'{name} {value:.2f} s' for name, value in seconds.items())})")
        for side in sides:
            if side.startswith("usual"):
                sides[side].ask("attention", kind=facts["attention"])
        return measure_depth(options, depth, sides, every, work, show)


def llama_files(options, settings: dict, checkpoint: Path, work: Path, facts: dict) -> Path:
    """Write the checkpoint as GGUF; its F16 form must agree with our dense weights; returns the Q4_K_M form."""
    from benchmarks.gguf_file import quantise, write_f16

    f16, q4 = work / "f16.gguf", work / "q4_k_m.gguf"
    write_f16(checkpoint, f16)
    if "llama.cpp F16" not in facts:
        found = []
        for module, more in (("ours", {"quantize": "none", "targets": []}), ("llama", {"gguf": str(f16)})):
            with Worker(module, f"benchmarks.worker_{module}", settings | more, work) as worker:
                found.append(worker.ask("label", template=PAPER, posts=4, way="reset")["probabilities"])
        ours, theirs = (torch.tensor(values).log().tolist() for values in found)
        facts["llama.cpp F16"] = check_close("llama.cpp, F16, logarithms", ours, theirs, LLAMA_TOLERANCE)
        show(f"llama.cpp: F16 and our dense weights agree to {facts['llama.cpp F16']:.1e} in log-probabilities")
    quantise(f16, q4, options.threads)
    f16.unlink()
    return q4


if __name__ == "__main__":
    run_program(main)
