"""For tests that label in 8 bits: skipped by name where no library multiplies them exactly, whether or not it pays."""

import pytest

from quant import int8


def take_int8(monkeypatch) -> None:
    """Let `choose_product` take the first exact product here, however fast this machine is while the tests run."""
    monkeypatch.setattr(int8, "PAYS", 1e-9)
    int8.choose_product.cache_clear()
    if not int8.pays():
        pytest.skip("no library here multiplies 8-bit integers exactly")
