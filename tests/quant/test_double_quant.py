"""Double quantisation of the scales, bit for bit as bitsandbytes' pure-torch backend.

A deliberate break that turns this red: take the midpoints of `bucketize` from a linear map, subtract the median instead
of the mean in `quantize_absmax`, divide its full blocks instead of multiplying by the reciprocal, give a tie the upper
code (`bucketize(..., right=True)`), or write another share of codes into the docstring of `quant/double_quant.py`.
"""

import re

import pytest
import torch
from safetensors.torch import load_file

from common.files import ROOT
from quant import double_quant
from quant.double_quant import dequantize_absmax, dynamic_map, quantize_absmax
from quant.nf4 import quantize_nf4

functional = pytest.importorskip("bitsandbytes.functional")
SIZES = [1, 2, 255, 256, 257, 960, 1024, 5000]
# A mean of zero, each number with its negative, on midpoints of the map times a block's maximum: exactly, and rounded.
NEAR = {"ties": 1.0, "near ties": 0.3}


def reference_quantize(absmax):
    """bitsandbytes' pure-torch `quantize_blockwise`; its compiled CPU library differs from it in near-ties."""
    default = torch._C.DispatchKeySet(torch._C.DispatchKey.CompositeExplicitAutograd)
    offset = absmax.mean()
    codes, nested = torch.ops.bitsandbytes.quantize_blockwise.default.redispatch(
        default, absmax - offset, functional.create_dynamic_map(), 256)
    return codes, nested, offset


def scales(size, kind):
    if kind == "weights":
        return quantize_nf4(torch.randn(size, 64) * 0.02)[1]
    if kind in NEAR:
        middles = (dynamic_map()[:-1] + dynamic_map()[1:]) / 2
        blocks = [torch.cat([torch.ones(1), part, torch.zeros(127 - len(part))]) for part in middles.split(127)]
        values = NEAR[kind] * torch.cat(blocks)
        return torch.stack([values, -values], dim=1).view(-1).repeat(-(-size // 768))[:size]
    made = {"equal": torch.full((size,), 0.3), "zero": torch.zeros(size), "wide": torch.exp(4 * torch.randn(size))}
    return made[kind]


def test_map():
    ours, theirs = dynamic_map(), functional.create_dynamic_map()
    assert torch.equal(ours, theirs) and ours.dtype == torch.float32
    assert len(ours) == len(set(ours.tolist())) == 256
    assert ours[-1] == 1 and 0 in ours and ours[0] == pytest.approx(-0.99297, abs=1e-5)


@pytest.mark.parametrize("kind", ["weights", *NEAR, "equal", "zero", "wide"])
@pytest.mark.parametrize("size", SIZES)
def test_codes(size, kind):
    absmax = scales(size, kind)
    assert absmax.mean() == 0 or kind not in NEAR or size % 2
    codes, nested, offset = quantize_absmax(absmax)
    theirs = reference_quantize(absmax)
    assert torch.equal(codes, theirs[0]) and codes.dtype == torch.uint8 and codes.shape == (size,)
    assert torch.equal(nested, theirs[1]) and nested.shape == (-(-size // 256),)
    assert torch.equal(offset, theirs[2]) and offset.shape == ()


def test_how_many_codes_the_compiled_library_picks_otherwise():
    """The figures of the docstring, on weights of three kinds; the library's own table is made of 16-bit steps."""
    if "Mock" in type(pytest.importorskip("bitsandbytes.cextension").lib).__name__:
        pytest.skip("bitsandbytes was installed without its compiled library")
    words = " ".join(double_quant.__doc__.split())
    low, high = map(float, re.search(r"([\d.]+) to ([\d.]+) % of the scales get another code", words).groups())
    furthest = 2.0 ** int(re.search(r"at most 2\^(-\d+) of the block", words)[1])
    base = [tensor.float() for name, tensor in load_file(ROOT / "base" / "model.safetensors").items() if "proj" in name]
    long_tailed = torch.distributions.StudentT(4.0).sample((5, 4096, 64))
    for weights in (base, torch.randn(5, 4096, 64) * 0.02, long_tailed):
        other = count = 0
        for weight in weights:
            absmax = quantize_nf4(weight)[1]
            codes, nested, offset = quantize_absmax(absmax)
            theirs, state = functional.quantize_blockwise(absmax - offset, blocksize=256)
            assert torch.equal(nested, state.absmax)
            value = ((absmax - offset) / nested.repeat_interleave(256)[: len(absmax)]).double()
            gaps = [(dynamic_map()[one.int()] - value).abs() for one in (codes, theirs)]
            assert (gaps[1] - gaps[0]).max() <= furthest
            other, count = other + int((codes != theirs).sum()), count + len(codes)
        assert low <= 100 * other / count <= high and count > 18_000


@pytest.mark.parametrize("size", SIZES)
def test_round_trip_as_bitsandbytes(size):
    absmax = scales(size, "weights")
    codes, nested, offset = quantize_absmax(absmax)
    state = functional.QuantState(absmax=nested, code=functional.create_dynamic_map(), blocksize=256,
                                  dtype=torch.float32)
    theirs = functional.dequantize_blockwise(codes, state) + offset
    ours = dequantize_absmax(codes, nested, offset)
    assert torch.equal(ours, theirs) and ours.dtype == torch.float32
    # Half of the widest gap of the map (one part in 64 of the last decade, 0.9 / 64, at most) times the block's scale.
    assert (ours - absmax).abs().max() <= nested.max() * (0.9 / 64) * (1 + 1e-5)


def test_bits_per_weight():
    absmax = scales(4096, "weights")
    codes, nested, offset = quantize_absmax(absmax)
    size = sum(part.numel() * part.element_size() for part in (codes, nested, offset))
    assert size * 8 / (4096 * 64) == pytest.approx(0.127, abs=5e-4)
    assert absmax.numel() * 4 * 8 / (4096 * 64) == 0.5
