"""Every kernel, compiled for cards that are not there, with what the assembler says of it.

    python -m tests.kernels.compiled [--json]

The kernels' own host code runs on the CPU with tensors of Llama 3.2-3B's widths; a launch is recorded instead of made,
so what is compiled has the argument types and constants of real launches. Triton brings `ptxas`, which needs no card.
A process in which TRITON_INTERPRET is set cannot compile.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas
from triton.compiler import ASTSource

from common.kernels import DTYPES
from common.terminal import table
from model import gather_triton, rms_norm_triton, rope_triton, swiglu_triton
from quant import nf4_triton
from quant.double_quant import Scales, quantize_absmax

CAPABILITIES = (80, 89, 90, 120)
MODULES = (gather_triton, nf4_triton, rms_norm_triton, rope_triton, swiglu_triton)
TRITON_NAMES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16", torch.uint8: "u8",
                torch.int64: "i64"}


def recorded(dtype: torch.dtype) -> list[tuple]:
    """(kernel, arguments, options) of each launch in `dtype`: every kernel once, NF4's also for an odd count."""
    found = []

    def record(kernel, programs, *arguments, **options):
        found.append((kernel, arguments, options))

    x, gain = torch.randn(2, 3072).to(dtype).requires_grad_(), torch.ones(3072, dtype=dtype)
    gate, up = torch.zeros(2, 8192, dtype=dtype, requires_grad=True), torch.zeros(2, 8192, dtype=dtype)
    q, k = torch.zeros(2, 24, 128, dtype=dtype), torch.zeros(2, 8, 128, dtype=dtype)
    rope = torch.zeros(2, 64, dtype=dtype), torch.zeros(2, 64, dtype=dtype)
    with ExitStack() as stack:
        for module in MODULES:
            stack.enter_context(mock.patch.object(module, "launch", record))
        for n in (16 * 3072, 1023):
            absmax = torch.rand(-(-n // 64))
            packed, out = torch.zeros(-(-n // 2), dtype=torch.uint8), torch.empty(n, dtype=dtype)
            for scales in (Scales((absmax,)), Scales(quantize_absmax(absmax))):
                nf4_triton.dequantize_kernel(packed, scales, out)
        x_k, source = torch.zeros(2, 8, 128, dtype=dtype), torch.zeros(16, dtype=torch.int64)
        gather_triton.gather_kernel(x_k, x_k, source)
        gather_triton.scatter_kernel(x_k, x_k, source[None], source)
        rms_norm_triton.RMSNormKernel.apply(x, None, gain, 1e-5).sum().backward()
        torch.stack(rms_norm_triton.RMSNormKernel.apply(x, x, gain, 1e-5)).sum().backward()
        rope_triton.rotate_kernel(rope, q, k)
        swiglu_triton.SwiGLUKernel.apply(gate, up).sum().backward()
    return found


def compiled(kernel, arguments, options, capability: int) -> dict:
    """One kernel for one kind of card: registers, bytes spilled, widest and narrowest stores in bytes."""
    names, constants = kernel.arg_names, {name: value for name, value in options.items() if name in kernel.arg_names}
    types, aligned = dict.fromkeys(constants, "constexpr"), {}
    for place, (name, value) in enumerate(zip(names, arguments, strict=False)):
        if isinstance(value, torch.Tensor):
            types[name] = f"*{TRITON_NAMES[value.dtype]}"
        else:
            types[name] = "i32" if isinstance(value, int) else "fp32"
        if isinstance(value, torch.Tensor) or (isinstance(value, int) and value % 16 == 0):
            aligned[place,] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, {name: types[name] for name in names}, {(names.index(name),): value for name, value in
                                                                       constants.items()}, aligned)
    binary = triton.compile(source, target=GPUTarget("cuda", capability, 32),
                            options={"num_warps": options["num_warps"], "enable_fp_fusion": False})
    ptx = binary.asm["ptx"]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.ptx"
        file.write_text(ptx)
        command = [get_ptxas(capability).path, "-v", "-arch", re.search(r"\.target (\w+)", ptx)[1], "-o", "/dev/null"]
        done = subprocess.run([*command, file], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = done.stderr
    stores = Counter(int(count or 1) * int(bits) // 8
                     for count, bits in re.findall(r"st\.global(?:\.v(\d))?\.b(\d+)", ptx))
    return {"kernel": kernel.__name__, "capability": capability, "warps": options["num_warps"],
            "registers": int(re.search(r"Used (\d+) registers", said)[1]), "shared": binary.metadata.shared,
            "spilled": sum(map(int, re.findall(r"(\d+) bytes spill", said))), "stores": dict(stores),
            "fused": len(re.findall(r"\bfma\.rn\.f32", ptx)), "whole": constants.get("WHOLE", True)}


def every() -> list[dict]:
    """All kernels in bfloat16 for every kind of card; in the other dtypes, and NF4's for an odd count, for one."""
    found = []
    for dtype in DTYPES:
        for kernel, arguments, options in recorded(dtype):
            usual = dtype == torch.bfloat16 and options.get("WHOLE", True)
            for capability in CAPABILITIES if usual else (90,):
                one = compiled(kernel, arguments, options, capability)
                found.append({"dtype": str(dtype).removeprefix("torch.")} | one)
    return found


def main() -> None:
    """Print the table, or all of it as JSON."""
    found = every()
    if "--json" in sys.argv:
        print(json.dumps(found))
        return
    print(table(["kernel", "dtype", "sm", "whole", "registers", "spilled", "shared", "warps", "stores: width x count"],
                [[one["kernel"], one["dtype"], one["capability"], one["whole"], one["registers"], one["spilled"],
                  one["shared"], one["warps"], ", ".join(f"{width} B x {count}" for width, count in
                                                         sorted(one["stores"].items()))] for one in found]))


if __name__ == "__main__":
    main()
