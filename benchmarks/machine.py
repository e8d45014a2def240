"""What a measurement was made on: processor, memory, versions."""

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from common.errors import UserError
from finetune.run_folder import commit

PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "accelerate", "llama-cpp-python", "gguf")


def machine(device: str, threads: int) -> dict:
    """Facts for the JSON file; what cannot be found out is null."""
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else processor()
    return {"processor": processor(), "device": name, "cores": os.cpu_count(), "threads": threads,
            "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), "capability":
            torch.backends.cpu.get_cpu_capability(), "system": f"{platform.system()} {platform.machine()}",
            "python": platform.python_version(), "packages": {name: installed(name) for name in PACKAGES},
            "commit": commit(), "load_before": os.getloadavg()[0]}


def check_system(program: str, *systems: str) -> None:
    """Raise `UserError` where `program` cannot measure: on any other of Python's `sys.platform` than `systems`."""
    if sys.platform not in systems:
        raise UserError(f"{program}: watches its processes by what {sys.platform} lacks (/proc, or waiting for "
                        "pipes); run it on Linux")


def processor() -> str | None:
    """The processor's name as the kernel has it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)


def installed(name: str) -> str | None:
    """A package's version, or None."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def has_bf16_kernels() -> bool:
    """Whether bitsandbytes has kernels of its own here that round to bf16 (CPUs with AVX512-BF16)."""
    from bitsandbytes.functional import has_avx512bf16

    return bool(has_avx512bf16())
