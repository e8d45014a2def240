"""The device and the compute dtype, chosen by what the machine has, with the reason in words; the options that set
them; and how much memory is free."""

import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

from common.errors import UserError
from common.free_memory import free_memory
from common.options import option

T = TypeVar("T")
DRIVER = Path("/proc/driver/nvidia/version")
SMALL_PRODUCT = 2**19  # weights of a matrix below which one CPU thread is best
MACHINE = "machine"  # the group of these options in --help
_TURNS = threading.RLock()  # the number of threads is the process's: who sets it for a while waits for others who have
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}


def choose_device(name: str | None = None) -> torch.device:
    """`None` or "auto": a GPU if there is one, else the CPU. Raises `UserError` for a device that is not there."""
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
    if device.type == "mps":
        raise UserError(f"--device {name}: nothing here was ever run on Apple's GPUs; use cpu")
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"--device {name}: is not supported; use cpu or cuda")
    return device


def choose_dtype(device: torch.device, name: str | torch.dtype | None = None) -> tuple[torch.dtype, str]:
    """The compute dtype, and why.

    bfloat16 on a GPU that multiplies it natively; float16 on one with tensor cores for that alone (a T4, an RTX 20),
    which the programs' "auto" takes and `None` does not, since gradients in it need a scaled loss; else float32. "fast"
    takes bfloat16 on a CPU that multiplies it, too.
    """
    if isinstance(name, torch.dtype) and name not in DTYPES.values():
        raise UserError(f"--dtype {name}: is none that models compute in; known are {', '.join(DTYPES)}")
    if isinstance(name, torch.dtype):
        return name, "it was requested"
    if name not in (None, "auto", "fast"):
        if name not in DTYPES:
            raise UserError(f"--dtype {name}: is not one of auto, fast, {', '.join(DTYPES)}")
        return DTYPES[name], "it was requested"
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        if capability >= (8, 0):
            return torch.bfloat16, "this GPU multiplies bfloat16 natively"
        if capability >= (7, 0) and name is not None:
            return torch.float16, "this GPU multiplies float16 faster, and bfloat16 not natively"
        return torch.float32, "this GPU has no native bfloat16"
    if device.type == "cpu" and multiplies_bfloat16():
        if name == "fast":
            return torch.bfloat16, "this CPU multiplies bfloat16 faster"
        return torch.float32, "it is more exact; this CPU multiplies bfloat16 faster: --dtype fast"
    return torch.float32, "bfloat16 products are slow on this device"


def unused_card() -> str:
    """A line where this machine has an NVIDIA driver and PyTorch sees no card, with what may be the cause; else "",
    also where somebody hid the card."""
    if torch.cuda.is_available() or os.environ.get("CUDA_VISIBLE_DEVICES", "0") in ("", "-1"):
        return ""
    driver = _nvidia_driver()
    if driver is None:
        return ""
    why = ("this PyTorch was built without CUDA" if torch.version.cuda is None else
           f"this PyTorch was built for CUDA {torch.version.cuda}, for which the driver may be too old, or the card is "
           "not handed to this container")
    return (f"computed on the CPU, though an NVIDIA driver{f' ({driver})' * bool(driver)} is here: {why}; the selector "
            "on pytorch.org gives the command for another build")


def _nvidia_driver() -> str | None:
    """The version of the driver as Linux tells it, "" where there is one of unknown version (Windows), else `None`."""
    if DRIVER.is_file():
        found = re.search(r"\b\d+(\.\d+)+\b", DRIVER.read_text(encoding="utf-8", errors="replace"))
        return found.group() if found else ""
    return "" if os.name == "nt" and shutil.which("nvidia-smi") else None


def multiplies_bfloat16() -> bool:
    """Whether the CPU has instructions for bfloat16 products (AVX512-BF16, AMX), without which they are far slower."""
    found = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))


def make_deterministic() -> None:
    """Restrict PyTorch to algorithms whose result does not vary; to be called before the first CUDA product.

    cuBLAS needs a workspace of fixed size for that, and reads the size from the environment of its process; the
    variable is set here, not read, and changes no number on a CPU.
    """
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    torch.utils.deterministic.fill_uninitialized_memory = False  # a launch for each new tensor; ours are written whole
    torch.use_deterministic_algorithms(True)


def is_recorded(device: torch.device) -> bool:
    """Whether what is launched on this device goes into a CUDA graph now, rather than to the card."""
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def available_memory(device: torch.device) -> int:
    """Bytes that are free now, on the GPU or in the machine."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return free_memory()


def threads_for(hidden_size: int, intermediate_size: int) -> tuple[int, str]:
    """How many CPU threads a model of this width gets, and why: one where its products are small, else PyTorch's own.

    Two threads wait for each other at the end of every operation, spinning. Where operations are short that costs more
    than they bring, and many times more where other programs want the same cores. The measure is the number of weights
    of the MLP's first matrix, D F, against `SMALL_PRODUCT` (measured: LOG.md).
    """
    count = torch.get_num_threads()
    if count > 1 and hidden_size * intermediate_size < SMALL_PRODUCT:
        return 1, f"its matrices are small ({hidden_size} x {intermediate_size}), and more threads would mostly wait"
    return count, "PyTorch's choice"


def _new_turns() -> None:
    """In a forked process no other thread is left that could end its turn."""
    global _TURNS
    _TURNS = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_turns)


@contextmanager
def best_threads(config, count: int = 0) -> Iterator[None]:
    """`count` CPU threads, or for 0 those of `threads_for`, inside a `with` block; those of before behind it. Blocks in
    several threads of Python take turns."""
    with _TURNS:
        before = torch.get_num_threads()
        torch.set_num_threads(count or threads_for(config.hidden_size, config.intermediate_size)[0])
        try:
            yield
        finally:
            torch.set_num_threads(before)


def _cpu_unless_named():
    """Within the block tensors lie on the CPU where nobody names a device, whatever `torch.set_default_device` says. It
    is a mode that sees every call of PyTorch, so it is entered only where it is needed."""
    return nullcontext() if torch.get_default_device().type == "cpu" else torch.device("cpu")


@contextmanager
def on_the_cpu() -> Iterator[None]:
    """Within the block new tensors can be learnt from, and lie on the CPU where nobody names a device, whatever the
    caller has set: `torch.inference_mode`, `torch.set_default_device`."""
    with torch.inference_mode(False), _cpu_unless_named():
        yield


@contextmanager
def as_loaded(model) -> Iterator[None]:
    """Within the block, without gradients, a model computes what it was loaded for, whatever the caller has set: no
    dropout, no autocast, no other default device. Behind it every module is in its own mode again."""
    training = [module for module in model.modules() if module.training]
    try:
        for module in training:
            module.training = False
        with torch.inference_mode(), torch.autocast(model.device.type, enabled=False), _cpu_unless_named():
            yield
    finally:
        for module in training:
            module.training = True


def how_busy(threads: int) -> str:
    """A line where other programs already want more than this machine's cores, for a program of so many threads; else
    "" (also where nobody can say)."""
    if not hasattr(os, "getloadavg"):
        return ""
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load <= cores + 0.5:  # a program that has just ended is still in the load
        return ""
    line = f"this machine is busy: {load:.1f} programs want its {cores} cores, so all will take longer"
    return line if threads == 1 else f"{line}; --threads 1 may take less than more threads that wait for one another"


def or_halve(owner, compute: Callable[[], T], longest: int, failed: str) -> T | None:
    """`compute()`, or `None` if memory ran out: the caller then tries again in pieces of half as many tokens.

    `owner` has `micro_tokens`, which is halved, `halvings`, which counts that, and `model`. Raises `UserError(failed)`
    if halving cannot help, because the `longest` row alone fills a piece.
    """
    try:
        return compute()
    except torch.OutOfMemoryError as error:
        if owner.micro_tokens <= longest:
            raise UserError(failed) from error
    # After the handler: the error, whose traceback holds every tensor of the failed try, is gone by now.
    owner.micro_tokens //= 2
    owner.halvings += 1
    if owner.model.device.type == "cuda":
        torch.cuda.empty_cache()
    return None


@dataclass
class MachineOptions:
    """Where and in which arithmetic the model runs."""

    device: str = option("auto", "cpu, cuda or cuda:N; auto takes a GPU if there is one", metavar="NAME",
                         group=MACHINE)
    dtype: str = option("auto", "compute dtype of the model; auto: 16 bits on a GPU with tensor cores for them, "
                        "else float32; fast: bfloat16 on a CPU that multiplies it, too", group=MACHINE,
                        choices=("auto", "fast", *DTYPES))
    micro_tokens: int = option(0, "tokens that go through the model at once; 0 chooses (train.py: by the memory at "
                               "hand)", minimum=0, group=MACHINE)
    threads: int = option(0, "CPU threads; 0: one for a small model, else PyTorch's choice", minimum=0, maximum=4096,
                          group=MACHINE)
    deterministic: bool = option(False, "on CUDA: only algorithms that give the same bits each time (CPUs always do)",
                                 group=MACHINE)
    cache: str | None = option(None, "folder that keeps a 4-bit copy of the base and the hashes of its files, so that "
                               "the next start only maps the copy; may be deleted at any time", metavar="DIR",
                         group=MACHINE)

    def set_up(self) -> tuple[torch.device, torch.dtype, str]:
        """Apply these options to PyTorch; returns device, dtype and why that dtype. Raises `UserError`."""
        if self.threads:
            torch.set_num_threads(self.threads)
        if self.deterministic:
            make_deterministic()
        device = choose_device(self.device)
        if device.index is not None and device.type == "cuda":
            torch.cuda.set_device(device)  # what asks for "the" card then means this one
        return device, *choose_dtype(device, self.dtype)

    def choose_threads(self, device: torch.device, config) -> None:
        """Set PyTorch's CPU threads for a model of this `config` where `--threads` leaves it open, and say it; and
        whether the machine is busy, or has a card that is not used."""
        if device.type != "cpu":
            return
        if self.device == "auto" and (unused := unused_card()):
            print(f"  {unused}")
        if not self.threads:
            count, why = threads_for(config.hidden_size, config.intermediate_size)
            if count != torch.get_num_threads():
                torch.set_num_threads(count)
                print(f"  {count} CPU thread{'s' * (count > 1)}, since {why}; --threads sets another number")
        if busy := how_busy(torch.get_num_threads()):
            print(f"  {busy}")
