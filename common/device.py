"""Which device and which arithmetic, chosen from what is at hand, with the reason in words; the options that ask for
others; and the memory that is free."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch

from common.errors import UserError
from common.options import option

T = TypeVar("T")
MACHINE = "machine"  # the group of these options in --help
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}


def choose_device(name: str | None = None) -> torch.device:
    """`None` or "auto": CUDA where there is one, else the CPU. Raises `UserError` for a device that is not there."""
    if name in (None, "auto"):
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"--device {name}: there is no such device; use cpu, cuda or cuda:0") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"--device {name}: PyTorch sees no CUDA device here; use cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"--device {name}: there are {torch.cuda.device_count()} CUDA devices, counted from 0")
    if device.type not in ("cpu", "cuda", "mps"):
        raise UserError(f"--device {name}: is not supported; use cpu or cuda")
    return device


def choose_dtype(device: torch.device, name: str | torch.dtype | None = None) -> tuple[torch.dtype, str]:
    """The dtype of the matrix products, and why: bf16 where the device multiplies it natively, else float32."""
    if isinstance(name, torch.dtype):
        return name, "asked for"
    if name not in (None, "auto"):
        if name not in DTYPES:
            raise UserError(f"--dtype {name}: is not one of {', '.join(DTYPES)}")
        return DTYPES[name], "asked for"
    if device.type == "cuda":
        if torch.cuda.get_device_capability(device) >= (8, 0):
            return torch.bfloat16, "this GPU multiplies bfloat16 natively"
        # float16's range is too small for gradients without loss scaling; who only labels may ask for it.
        return torch.float32, "this GPU has no native bfloat16"
    if device.type == "cpu" and multiplies_bfloat16():
        return torch.float32, "it is exact everywhere; this CPU multiplies bfloat16 faster: --dtype bfloat16"
    return torch.float32, "bfloat16 products are slow on this device"


def multiplies_bfloat16() -> bool:
    """Whether the CPU has instructions for bfloat16 products (AVX512-BF16, AMX), without which they are far slower."""
    found = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))


def make_deterministic() -> None:
    """Let PyTorch use only algorithms whose result does not depend on chance; must come before the first CUDA product.

    cuBLAS wants a workspace of fixed size for that, which it takes from the environment of its process; it is set here,
    not read, and changes no number on a CPU.
    """
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    torch.use_deterministic_algorithms(True)


def available_memory(device: torch.device) -> int:
    """Bytes that are free now, on the GPU or in the machine."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        with open("/proc/meminfo", encoding="ascii") as handle:
            for line in handle:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pages = "SC_AVPHYS_PAGES" if "SC_AVPHYS_PAGES" in os.sysconf_names else "SC_PHYS_PAGES"  # macOS has the latter
        return os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE")
    raise RuntimeError("/proc/meminfo has no line MemAvailable")


def or_halve(owner, compute: Callable[[], T], longest: int, failed: str) -> T | None:
    """`compute()`, or `None` where memory ran out: the caller then tries again in pieces of half as many tokens.

    `owner` has `micro_tokens`, which is halved, `halvings`, which counts that, and `model`. Raises `UserError(failed)`
    where halves cannot help, since the `longest` row alone fills the pieces.
    """
    try:
        return compute()
    except torch.OutOfMemoryError as error:
        if owner.micro_tokens <= longest:
            raise UserError(failed) from error
    # Behind the handler: the error, whose traceback holds every tensor of the failed try, is gone by now.
    owner.micro_tokens //= 2
    owner.halvings += 1
    if owner.model.device.type == "cuda":
        torch.cuda.empty_cache()
    return None


@dataclass
class MachineOptions:
    """Where and in which arithmetic the model runs."""

    device: str = option("auto", "cpu, cuda or cuda:N; auto takes a GPU where there is one", metavar="NAME",
                         group=MACHINE)
    dtype: str = option("auto", "arithmetic of the model", group=MACHINE,
                        choices=("auto", *DTYPES))
    micro_tokens: int = option(0, "tokens that go through the model at once; 0 chooses (train.py: by the memory at "
                               "hand)", minimum=0, group=MACHINE)
    threads: int = option(0, "CPU threads; 0 leaves PyTorch's choice", minimum=0, maximum=4096,
                         group=MACHINE)
    deterministic: bool = option(False, "on CUDA: only algorithms that give the same bits each time (a CPU does)",
                                 group=MACHINE)
    cache: str | None = option(None, "folder that keeps a 4-bit copy of the base and the hashes of its files, so that "
                               "the next start maps the copy; may be deleted at any time", metavar="DIR", group=MACHINE)

    def set_up(self) -> tuple[torch.device, torch.dtype, str]:
        """Apply these options to PyTorch; returns device, dtype and why that dtype. Raises `UserError`."""
        if self.threads:
            torch.set_num_threads(self.threads)
        if self.deterministic:
            make_deterministic()
        device = choose_device(self.device)
        return device, *choose_dtype(device, self.dtype)
