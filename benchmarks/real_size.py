"""The programs at the size of Llama 3.2-3B, on random weights in the exact public layout.

    python -m benchmarks.real_size --source FOLDER --tokenizer FILE --posts posts.jsonl --work DIR

FOLDER holds the public `config.json` and `model.safetensors.index.json`: every tensor gets the public name,
shape, dtype (bfloat16) and shard. Then, each in a process of its own: load as NF4; load and train three steps of one
post; label ten posts. Printed: seconds, and the peak of anonymous memory (what the process itself allocates; the mapped
files, which the system can drop at any time, are not in it), sampled twenty times a second from /proc.
"""

import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from benchmarks.machine import check_system
from common.errors import UserError, run_program
from common.files import read_json, write_json
from common.options import option, parse_options
from common.terminal import human_bytes, human_seconds, table
from loading.weights import expected_shapes
from model.config import LlamaConfig
from model.llama import LlamaForCausalLM


@dataclass
class RealSizeOptions:
    """Options of this program."""

    source: str | None = option(None, "folder with config.json and model.safetensors.index.json", metavar="DIR")
    tokenizer: str | None = option(None, "the tokenizer.model that belongs to it", metavar="FILE")
    posts: str | None = option(None, "labelled posts; the first ones are used", metavar="FILE")
    work: str = option("runs/real-size", "folder for the checkpoint (as large as the model) and the run", metavar="DIR")
    keep: bool = option(False, "keep the checkpoint afterwards")


def make_checkpoint(source: Path, tokenizer: Path | None, out: Path) -> None:
    """Random bfloat16 weights under the names and in the shards of the public index.

    Standard deviation 0.02 as at initialisation; norms are one. A block of random numbers is repeated: what is measured
    here does not depend on the values, and drawing billions of them would take longer than the measurement.
    """
    out.mkdir(parents=True, exist_ok=True)
    index = read_json(source / "model.safetensors.index.json")
    shapes = expected_shapes(LlamaForCausalLM.empty(LlamaConfig.from_file(source / "config.json")))
    if set(shapes) != set(index["weight_map"]):
        raise UserError(f"{source}: index and config.json name different tensors")
    block = torch.randn(1 << 22, generator=torch.Generator().manual_seed(0)).mul_(0.02).bfloat16()
    for file in sorted(set(index["weight_map"].values())):
        names = [name for name, place in index["weight_map"].items() if place == file]
        tensors = {}
        for name in names:
            count = int(torch.Size(shapes[name]).numel())
            values = block.repeat(-(-count // len(block)))[:count] if "norm" not in name else torch.ones(count)
            tensors[name] = values.bfloat16().view(shapes[name]).clone()
        save_file(tensors, out / file, metadata={"format": "pt"})
    write_json(out / "model.safetensors.index.json", index)
    shutil.copy(source / "config.json", out)
    if tokenizer is not None:
        shutil.copy(tokenizer, out / "tokenizer.model")


def measure(words: list[str]) -> tuple[float, int, str]:
    """Run a program; seconds, peak of its anonymous memory in bytes, what it printed."""
    began, peak = time.perf_counter(), 0
    command = [sys.executable, *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as child:
        status = Path(f"/proc/{child.pid}/status")
        while child.poll() is None:
            try:
                lines = status.read_text().splitlines()
            except OSError:
                break
            peak = max([peak, *(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))])
            time.sleep(0.05)
        printed = child.stdout.read()
    if child.returncode:
        raise UserError(f"{' '.join(words)}: ended with status {child.returncode}: {printed[-2000:]}")
    return time.perf_counter() - began, peak, printed


def main(argv: list[str]) -> None:
    """Make the checkpoint, run the three programs, print the table."""
    options = parse_options(RealSizeOptions, argv, program="python -m benchmarks.real_size", description=__doc__)
    check_system("benchmarks.real_size", "linux")
    for name in ("source", "tokenizer", "posts"):
        if getattr(options, name) is None:
            raise UserError(f"--{name}: is needed")
    work = Path(options.work)
    checkpoint, run = work / "checkpoint", work / "run"
    if not (checkpoint / "tokenizer.model").exists():
        began = time.perf_counter()
        make_checkpoint(Path(options.source), Path(options.tokenizer), checkpoint)
        print(f"checkpoint written in {human_seconds(time.perf_counter() - began)}", flush=True)
    lines = Path(options.posts).read_text(encoding="utf-8").splitlines()
    ten, four = work / "ten.jsonl", work / "train.jsonl"
    ten.write_text("\n".join(lines[:10]) + "\n", encoding="utf-8")
    by_label = {json.loads(line)["label"]: line for line in lines}
    four.write_text("\n".join(by_label.values()) + "\n", encoding="utf-8")
    shutil.rmtree(run, ignore_errors=True)
    load = f"from loading import load_model; load_model({str(checkpoint)!r}, quantize='nf4')"
    jobs = {
        "load as NF4": ["-c", load],
        "load, train 3 steps of one post": ["train.py", "--model", str(checkpoint), "--data", str(four), "--out",
                                            str(run), "--quantize", "nf4", "--batch-size", "1", "--max-steps", "3",
                                            "--validation", "0"],
        "load, label ten posts": ["classify.py", "--run", str(run), "--input", str(ten)],
    }
    rows = []
    for name, words in jobs.items():
        seconds, peak, printed = measure(words)
        print(printed, flush=True)
        rows.append([name, f"{seconds:.1f}", human_bytes(peak)])
    print(table(["what", "seconds", "peak anonymous memory"], rows))
    if not options.keep:
        shutil.rmtree(checkpoint)


if __name__ == "__main__":
    run_program(main)
