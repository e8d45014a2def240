"""How long until a model is ready: from 16-bit files to NF4 in memory, and from a copy kept on disk.

    python -m benchmarks.startup --source FOLDER --layers 4 [--json FILE]

FOLDER holds the public `config.json` and `model.safetensors.index.json`; random bfloat16 weights are made in their
layout, with `--layers` layers. Then, in one process, in turns, each on files that the system already has in memory:

    read               every byte of the files, into one buffer that is reused
    read, quantise     each tensor by a read; what stays 16-bit into memory of its own, each linear of the layers into
                       one buffer and from there into 4 bits: the least that any loader must do
    load               load_model(quantize="nf4")
    load, cached       load_model(quantize="nf4", cache=DIR), with the copy in place

Printed are medians by the clock and of the processor's time (on a busy machine, with one thread, the steadier of the
two), each with its ratio to "read, quantise"; the peak of anonymous memory, measured in a process of its own for each
(benchmarks.real_size says what is counted); and once, how long making the copy took.
"""

import json
import shutil
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.real_size import make_checkpoint, measure
from common.errors import UserError, run_program
from common.files import check_file, read_json, write_json
from common.options import option, parse_options
from common.safetensors_writer import DTYPES
from common.terminal import human_bytes, table
from loading import load_model
from quant.convert import inside_layers
from quant.nf4 import quantize_nf4

TO_BEAT = "read, quantise"
BUFFER = 1 << 24  # bytes of one read


@dataclass
class StartupOptions:
    """Options of this program."""

    source: str | None = option(None, "folder with config.json and model.safetensors.index.json", metavar="DIR")
    layers: int = option(4, "layers of the model that is made", minimum=1)
    rounds: int = option(7, "how often each is timed", minimum=1)
    threads: int = option(0, "CPU threads; 0 leaves PyTorch's choice", minimum=0)
    work: str = option("runs/startup", "folder for the checkpoint and its copy; removed afterwards", metavar="DIR")
    json: str | None = option(None, "file for all figures", metavar="FILE")


def shorten(source: Path, layers: int, out: Path) -> Path:
    """A config.json and an index like those in `source`, for the first layers only."""
    config, index = read_json(source / "config.json"), read_json(source / "model.safetensors.index.json")
    if layers > config["num_hidden_layers"]:
        raise UserError(f"--layers {layers}: {source / 'config.json'} has {config['num_hidden_layers']}")
    index["weight_map"] = {name: file for name, file in index["weight_map"].items()
                           if not inside_layers(name) or int(name.split(".")[2]) < layers}
    write_json(out / "config.json", config | {"num_hidden_layers": layers})
    write_json(out / "model.safetensors.index.json", index)
    return out


def read_files(folder: Path) -> None:
    """Every byte of the weights' files, kept nowhere."""
    buffer = bytearray(BUFFER)
    for path in sorted(folder.glob("*.safetensors")):
        with open(path, "rb", buffering=0) as handle:
            while handle.readinto(buffer):
                pass


def read_quantise(folder: Path) -> list:
    """Every tensor by plain reads: the linears of the layers in 4 bits, all others as they are."""
    buffer, kept = torch.empty(0, dtype=torch.uint8), []
    dtypes = {text: dtype for dtype, text in DTYPES.items()}
    for path in sorted(folder.glob("*.safetensors")):
        with open(path, "rb", buffering=0) as handle:
            size = int.from_bytes(handle.read(8), "little")
            header = json.loads(handle.read(size))
            header.pop("__metadata__", None)
            for name, entry in header.items():
                begin, end = entry["data_offsets"]
                linear = inside_layers(name) and len(entry["shape"]) == 2
                if linear and len(buffer) < end - begin:
                    buffer = torch.empty(end - begin, dtype=torch.uint8)
                place = buffer[: end - begin] if linear else torch.empty(end - begin, dtype=torch.uint8)
                handle.seek(8 + size + begin)
                if handle.readinto(place.numpy().data) != end - begin:
                    raise UserError(f"{path}: ended early")
                tensor = place.view(dtypes[entry["dtype"]]).view(entry["shape"])
                kept.append(quantize_nf4(tensor) if linear else tensor)
    return kept


def time_in_turns(jobs: dict[str, Callable], rounds: int) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Seconds of each job by the clock and of the processor, round by round, after one round that does not count.

    A job's result is dropped before the next begins.
    """
    clock, processor = {name: [] for name in jobs}, {name: [] for name in jobs}
    for number in range(rounds + 1):
        for name, job in jobs.items():
            began, before = time.perf_counter(), time.process_time()
            result = job()
            if number:
                clock[name].append(time.perf_counter() - began)
                processor[name].append(time.process_time() - before)
            del result
    return clock, processor


def main(argv: list[str]) -> None:
    """Make the checkpoint, time, measure memory, print the table, write the figures."""
    options = parse_options(StartupOptions, argv, program="python -m benchmarks.startup", description=__doc__)
    check_file(options.json, "--json")
    if options.source is None:
        raise UserError("--source: is needed")
    if options.threads:
        torch.set_num_threads(options.threads)
    work = Path(options.work)
    folder, cache = work / "checkpoint", work / "cache"
    shutil.rmtree(work, ignore_errors=True)
    make_checkpoint(shorten(Path(options.source), options.layers, work / "source"), None, folder)
    began = time.perf_counter()
    load_model(folder, quantize="nf4", cache=cache)
    first = time.perf_counter() - began
    jobs = {
        "read": lambda: read_files(folder),
        TO_BEAT: lambda: read_quantise(folder),
        "load": lambda: load_model(folder, quantize="nf4"),
        "load, cached": lambda: load_model(folder, quantize="nf4", cache=cache),
    }
    clock, processor = time_in_turns(jobs, options.rounds)
    wall, cpu = ({name: statistics.median(times) for name, times in each.items()} for each in (clock, processor))
    say = f"import torch; torch.set_num_threads({torch.get_num_threads()}); from pathlib import Path; "
    words = {
        "read": f"from benchmarks.startup import *; read_files(Path({str(folder)!r}))",
        TO_BEAT: f"from benchmarks.startup import *; kept = read_quantise(Path({str(folder)!r}))",
        "load": f"from benchmarks.startup import *; model = load_model({str(folder)!r}, quantize='nf4')",
        "load, cached": f"from benchmarks.startup import *; model = load_model({str(folder)!r}, quantize='nf4', "
                        f"cache={str(cache)!r})",
    }
    before = measure(["-c", say + "from benchmarks.startup import *"])[1]  # the interpreter and PyTorch themselves
    peaks = {name: max(0, measure(["-c", say + text])[1] - before) for name, text in words.items()}
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    print(f"{options.layers} layers, {human_bytes(size)}, {torch.get_num_threads()} threads, {options.rounds} rounds; "
          f"the copy was made in {first:.2f} s, with hashing")
    print(table(["what", "seconds", "ratio", "CPU seconds", "ratio", "anonymous memory"],
                [[name, f"{wall[name]:.3f}", f"{wall[name] / wall[TO_BEAT]:.2f}", f"{cpu[name]:.3f}",
                  f"{cpu[name] / cpu[TO_BEAT]:.2f}", human_bytes(peaks[name])] for name in jobs]))
    if options.json:
        write_json(options.json, {"layers": options.layers, "bytes": size, "threads": torch.get_num_threads(),
                                  "seconds": clock, "cpu_seconds": processor, "medians": wall, "cpu_medians": cpu,
                                  "anonymous_bytes": peaks,
                                  "making_the_copy": first})
    shutil.rmtree(work)


if __name__ == "__main__":
    run_program(main)
