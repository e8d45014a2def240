"""The NF4 kernels against those of bitsandbytes, shape by shape, and their share of a linear layer's time.

    python -m benchmarks.kernels [--json FILE] [--threads N] [--quick]

First both are checked to give equal bytes, scales and weights. Then they take turns, A B A B, and medians are reported.

Dequantising as in a layer: bitsandbytes' `dequantize_4bit` makes a new output at each call, as its `Linear4bit` does;
ours reuses one buffer. How long a new output takes depends on the C library: memory that it still holds costs nothing,
fresh memory from the system several times as much as the kernel. Given memory: both write into an existing output (on a
CPU bitsandbytes offers that only in its compiled function, which is called here). Quantising: both make new outputs.

"copy": how long PyTorch takes to copy as many bytes as the operation must read and write (a copy of half as many), in
turn with the others. No kernel of any kind can be much faster than that.

Ratios are bitsandbytes' times over ours, by the clock; "CPU time" is the first ratio in processor time of the process,
which is steadier on a busy machine with one thread. bitsandbytes' own product, which computes in bfloat16 on CPUs with
instructions for it whatever was asked for, is not among them (see `worker_usual`). Last, for several numbers of tokens:
the time of `NF4Linear`'s forward, that of its dequantising, and the latter's share.
"""

import ctypes
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from benchmarks.machine import check_system, machine
from benchmarks.worker import synchronise
from common.device import choose_device
from common.errors import UserError, run_program
from common.files import check_file, write_json
from common.options import option, parse_options
from common.terminal import table
from quant.double_quant import Scales, dequantize
from quant.linear import NF4Linear
from quant.nf4 import quantize_nf4

# The linears of Llama 3.2-1B and 3B: key and value, query and output, up and gate, down.
SHAPES = [(512, 2048), (1024, 3072), (2048, 2048), (3072, 3072), (8192, 2048), (8192, 3072), (3072, 8192)]
TOKENS = (512, 2048, 4096)
DTYPES = (torch.float32, torch.bfloat16)


@dataclass
class KernelsOptions:
    """Options of this program."""

    json: str | None = option(None, "file for all figures", metavar="FILE")
    threads: int = option(0, "CPU threads; 0 leaves PyTorch's choice", minimum=0)
    device: str = option("cpu", "cpu, cuda or cuda:N", metavar="NAME")
    rounds: int = option(15, "how often each is timed", minimum=1)
    quick: bool = option(False, "two shapes and 512 tokens only")


def in_turns(ways: dict[str, Callable], rounds: int, device: str) -> dict[str, dict[str, float]]:
    """Median seconds of each way by the clock ("wall") and of the processor ("cpu"), after one uncounted round."""
    taken = {name: ([], []) for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            synchronise(device)
            wall, cpu = time.perf_counter(), time.process_time()
            way()
            synchronise(device)
            if turn:
                taken[name][0].append(time.perf_counter() - wall)
                taken[name][1].append(time.process_time() - cpu)
    return {name: {"wall": statistics.median(wall), "cpu": statistics.median(cpu)} for name, (wall, cpu) in
            taken.items()}


def copying(count: int, device: str) -> Callable:
    """A copy that reads and writes `count` bytes in total."""
    source = torch.ones(count // 2, dtype=torch.uint8, device=device)
    return partial(torch.empty_like(source).copy_, source)


def given_memory(packed, state, out: torch.Tensor) -> Callable:
    """bitsandbytes' dequantising into `out`: its compiled function on a CPU, `out=` elsewhere."""
    from bitsandbytes.cextension import lib
    from bitsandbytes.functional import dequantize_4bit, get_ptr

    if out.device.type != "cpu":
        return partial(dequantize_4bit, packed, state, out=out)
    function = getattr(lib, {torch.float32: "cdequantize_blockwise_cpu_nf4_fp32",
                             torch.bfloat16: "cdequantize_blockwise_cpu_nf4_bf16"}[out.dtype])
    pointers = [get_ptr(tensor) for tensor in (packed, state.absmax, out)]
    sizes = [ctypes.c_longlong(size) for size in (64, *out.shape)]
    return lambda: function(*pointers, *sizes)


def kernels(shape: tuple[int, int], dtype: torch.dtype, rounds: int, device: str) -> list[dict]:
    """Both operations on one weight: seconds of each way, by name. Raises `UserError` if the results differ."""
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    weight = (torch.randn(shape) * 0.02).to(device, dtype)
    n = weight.numel()
    theirs, state = quantize_4bit(weight, quant_type="nf4", blocksize=64)
    packed, absmax = quantize_nf4(weight)
    scales = Scales((absmax,))
    ours_out, their_out = torch.empty_like(weight), torch.empty_like(weight)
    into_theirs = given_memory(theirs, state, their_out)
    into_theirs()
    dequantize(packed, scales, shape, dtype, out=ours_out)
    equal = [torch.equal(packed, theirs.view(-1)), torch.equal(absmax, state.absmax), torch.equal(ours_out, their_out),
             torch.equal(ours_out, dequantize_4bit(theirs, state))]
    if not all(equal):
        raise UserError(f"{shape} {dtype}: bytes, scales, weights and weights in a new output equal: {equal}")
    size = n // 2 + n // 64 * 4 + n * dtype.itemsize
    copy = copying(size, device)
    both = {
        "dequantise": {"bitsandbytes": partial(dequantize_4bit, theirs, state),
                       "ours": partial(dequantize, packed, scales, shape, dtype, out=ours_out),
                       "bitsandbytes, given memory": into_theirs, "copy": copy},
        "quantise": {"bitsandbytes": partial(quantize_4bit, weight, quant_type="nf4", blocksize=64),
                     "ours": partial(quantize_nf4, weight), "copy": copy},
    }
    return [{"operation": name, "shape": list(shape), "dtype": str(dtype).removeprefix("torch."), "bytes": size,
             "seconds": in_turns(ways, rounds, device)} for name, ways in both.items()]


@torch.inference_mode()
def layers(shape: tuple[int, int], tokens: int, rounds: int, device: str) -> dict:
    """`NF4Linear`'s forward of `tokens` tokens and the dequantising in it; float32 on a CPU, bfloat16 elsewhere."""
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    layer = NF4Linear(shape[1], shape[0], device=device)
    layer.load_dense("weight", (torch.randn(shape) * 0.02).to(device))
    x = torch.randn(tokens, shape[1], dtype=dtype, device=device)
    out = torch.empty(shape, dtype=dtype, device=device)
    ways = {"forward": partial(layer, x),
            "dequantise": partial(dequantize, layer.packed, layer.scales, shape, dtype, out=out)}
    return {"shape": list(shape), "tokens": tokens, "seconds": in_turns(ways, rounds, device)}


def row(result: dict) -> list:
    """One line of the first table."""
    seconds = result["seconds"]
    wall = {name: both["wall"] for name, both in seconds.items()}
    given = wall.get("bitsandbytes, given memory")
    cpu = seconds["bitsandbytes"]["cpu"] / seconds["ours"]["cpu"]
    return [result["operation"], "{} x {}".format(*result["shape"]), result["dtype"],
            *(None if value is None else f"{value * 1e3:.2f}" for value in
              (wall["bitsandbytes"], given, wall["ours"], wall["copy"])),
            f"{wall['bitsandbytes'] / wall['ours']:.2f}", f"{cpu:.2f}",
            None if given is None else f"{given / wall['ours']:.2f}"]


def main(argv: list[str]) -> None:
    """Measure, print the tables, write the JSON file."""
    options = parse_options(KernelsOptions, argv, program="python -m benchmarks.kernels", description=__doc__)
    check_file(options.json, "--json")
    check_system("benchmarks.kernels", "linux")
    device = str(choose_device(options.device))
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    facts = machine(device, torch.get_num_threads())
    shapes = SHAPES[1:6:4] if options.quick else SHAPES
    results = [result for dtype in DTYPES for shape in shapes
               for result in kernels(shape, dtype, options.rounds, device)]
    results.sort(key=lambda result: result["operation"])
    print(f"threads: {facts['threads']}; load before: {facts['load_before']:.2f}; milliseconds, medians of "
          f"{options.rounds}\n")
    print(table(["what", "shape", "dtype", "theirs", "given", "ours", "copy", "ratio", "CPU time", "given memory"],
                map(row, results)))
    shares = [layers(shape, tokens, min(options.rounds, 5), device) for shape in (SHAPES[1], SHAPES[5])
              for tokens in (TOKENS[:1] if options.quick else TOKENS)]
    lines = []
    for share in shares:
        forward, dequantise = (share["seconds"][name]["wall"] for name in ("forward", "dequantise"))
        lines.append(["{} x {}".format(*share["shape"]), share["tokens"], f"{forward * 1e3:.1f}",
                      f"{dequantise * 1e3:.2f}", f"{100 * dequantise / forward:.1f} %"])
    print()
    print(table(["layer", "tokens", "forward", "dequantise", "share"], lines))
    if options.json:
        write_json(options.json, {"machine": facts, "kernels": results, "layers": shares})


if __name__ == "__main__":
    run_program(main)
