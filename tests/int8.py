"""For tests that label in 8 bits: skipped by name on processors without instructions for it."""

import os

import pytest
import torch

from quant import int8


def needs_int8() -> None:
    """Skip unless the processor multiplies 8-bit integers (VNNI); there, a product that is not exact is a failure."""
    if any(name.endswith("_MAX_CPU_ISA") for name in os.environ):  # oneDNN's: it leaves out what the processor has
        pytest.skip("a variable limits the instructions of this processor")
    found = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    if not any(found.get(name) for name in ("avx512_vnni", "avx_vnni", "amx_int8")):
        pytest.skip("this processor has no instructions for products of 8-bit integers")


def take_int8(monkeypatch) -> None:
    """Let `choose_product` take the first exact product, however fast this machine is while the tests run."""
    needs_int8()
    monkeypatch.setattr(int8, "PAYS", 1e-9)
    int8.choose_product.cache_clear()
