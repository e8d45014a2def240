"""NF4 against bitsandbytes, bit for bit, and its error against what the table promises.

A deliberate break that turns this red: divide full blocks by absmax instead of multiplying by its reciprocal
(`blocks / largest...` in `quantize_nf4`); only the adversarial weights below see it. Or give `gather` 4096 places a row
whatever their number: counts that 4096 does not divide fail on two threads.
"""

import math

import pytest
import torch

from common.errors import UserError
from quant import nf4
from quant.nf4 import (
    BLOCK,
    NF4_CODE,
    dequantize_nf4,
    dequantize_nf4_plain,
    quantize_nf4,
    quantize_nf4_plain,
)

functional = pytest.importorskip("bitsandbytes.functional")
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
SHAPES = [(1,), (2,), (63,), (64,), (65,), (3, 5), (7, 9), (4, 96), (10, 32), (31, 62), (129, 2), (64, 64), (40, 192),
          (2, 3, 50)]


def reference_quantize(w):
    packed, state = functional.quantize_4bit(w, quant_type="nf4", blocksize=64)
    return packed.view(-1), state.absmax


def reference_dequantize(packed, absmax, shape, dtype):
    # The pure-torch backend. The compiled CPU library reads other scales on AVX-512 machines where a row is not whole
    # blocks, for instance (4, 96), so it serves as a second opinion only where rows are whole blocks.
    from bitsandbytes.backends.default.ops import _dequantize_4bit_compute

    plain = _dequantize_4bit_compute.__wrapped__  # without torch.compile, which needs a C++ compiler
    return plain(packed, absmax, functional.get_4bit_type("nf4", "cpu"), 64, shape, dtype).view(shape)


def same_bits(a, b):
    kind = {8: torch.int64, 4: torch.int32, 2: torch.int16, 1: torch.uint8}[a.element_size()]
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.view(kind), b.view(kind))


def adversarial(blocks: int) -> torch.Tensor:
    """Blocks of random absmax whose weights lie on thresholds times absmax, give or take a few steps of float32."""
    absmax = torch.rand(blocks, 1) * 10.0 ** torch.randint(-6, 7, (blocks, 1))
    middles = (NF4_CODE[:-1] + NF4_CODE[1:]) / 2
    w = middles[torch.randint(0, 15, (blocks, BLOCK))] * absmax
    w = (w.view(torch.int32) + torch.randint(-4, 5, w.shape, dtype=torch.int32)).view(torch.float32)
    w[:, :1] = absmax * torch.randint(0, 2, (blocks, 1)).mul(2).sub(1)
    return w


def distributions():
    normal = torch.randn(96, 128)
    sparse = normal * (torch.rand_like(normal) < 0.02)
    sparse.view(-1, BLOCK)[::5] = 0
    outlier = torch.randn(96, 128) * 0.02
    outlier[3, 7] = 1e4
    signed_zero = torch.zeros(8, 64)
    signed_zero[::2] = -0.0
    return {
        "normal": normal, "small": normal * 0.02, "uniform": torch.rand(96, 128) - 0.5, "sparse": sparse,
        "outlier": outlier, "zero": torch.zeros(8, 64), "signed zero": signed_zero, "constant": -3 * torch.ones(8, 64),
        "tiny": normal * 1e-37, "below 1e-38": normal * 1e-39, "subnormal": normal * 1e-43, "huge": normal * 5e37,
        "table": NF4_CODE.repeat(32, 8), "adversarial": adversarial(2000),
    }


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_shapes(shape, dtype):
    w = torch.randn(shape).to(dtype)
    packed, absmax = quantize_nf4(w)
    theirs, their_absmax = reference_quantize(w)
    assert same_bits(packed, theirs) and same_bits(absmax, their_absmax)
    assert packed.shape == (math.ceil(w.numel() / 2),) and absmax.shape == (math.ceil(w.numel() / 64),)
    for out in DTYPES:
        assert same_bits(dequantize_nf4(packed, absmax, shape, out),
                         reference_dequantize(theirs, their_absmax, shape, out))


@pytest.mark.parametrize("name", list(distributions()))
def test_distributions(name):
    for dtype in DTYPES:
        w = distributions()[name].to(dtype)
        if not torch.isfinite(w).all():
            continue  # too large for float16
        packed, absmax = quantize_nf4(w)
        theirs, their_absmax = reference_quantize(w)
        assert same_bits(packed, theirs) and same_bits(absmax, their_absmax), dtype
        assert all(map(same_bits, quantize_nf4_plain(w), (theirs, their_absmax))), dtype  # the specification as well
        for out in DTYPES:
            assert same_bits(dequantize_nf4(packed, absmax, w.shape, out),
                             reference_dequantize(theirs, their_absmax, w.shape, out)), (dtype, out)


def test_division_would_show():
    """The adversarial weights do tell a division from a product with the reciprocal."""
    w = adversarial(2000)
    divided = w / w.abs().amax(1, keepdim=True)
    places = torch.bucketize(divided.view(-1), nf4._thresholds()).to(torch.uint8)
    assert ((places[::2] << 4 | places[1::2]) != quantize_nf4(w)[0]).sum() > 1000


@pytest.mark.parametrize("count", [1, 2, 31, 63])
def test_partial_block_divides_and_clamps(count):
    w = adversarial(1)[0, :count]
    for last in (w, torch.zeros(count), torch.full((count,), 1e-40)):
        whole = torch.cat([torch.randn(128), last])
        packed, absmax = quantize_nf4(whole)
        theirs, their_absmax = reference_quantize(whole)
        assert same_bits(packed, theirs) and same_bits(absmax, their_absmax)
    assert quantize_nf4(torch.zeros(count))[1].item() == pytest.approx(1e-38)


def test_partial_blocks_of_adversarial_weights():
    for w in adversarial(300):
        for ours, theirs in zip(quantize_nf4(w[:63]), reference_quantize(w[:63]), strict=True):
            assert same_bits(ours, theirs)


def test_zero_block_and_odd_end():
    packed, absmax = quantize_nf4(torch.zeros(2, 64))
    assert (packed == 0x77).all() and (absmax == 0).all()
    assert torch.equal(dequantize_nf4(packed, absmax, (2, 64), torch.float32), torch.zeros(2, 64))
    assert quantize_nf4(torch.tensor([1.0, -1.0, 1.0]))[0].tolist() == [0xF0, 0xF7]


def test_ties_go_down():
    middles = nf4._thresholds()
    for scale in (1.0, 4.0, 2.0**-9):  # powers of two: the product with the reciprocal is exact
        w = torch.cat([torch.tensor([1.0]), middles, torch.zeros(48)]) * scale
        places = torch.stack([quantize_nf4(w)[0] >> 4, quantize_nf4(w)[0] & 15], 1).view(-1)
        assert places[:16].tolist() == [15, *range(15)]


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_value_of_sixteen_bits(dtype):
    """Every finite float16 or bfloat16, and as many float32, in blocks whose largest value varies."""
    if dtype == torch.float32:
        w = torch.randint(-(2**31), 2**31 - 1, (1 << 16,), dtype=torch.int64).to(torch.int32).view(torch.float32)
    else:
        w = torch.arange(-(1 << 15), 1 << 15).to(torch.int16).view(dtype)
    w = w[torch.isfinite(w)]
    for order in (torch.arange(len(w)), torch.randperm(len(w))):
        ours, theirs = quantize_nf4(w[order]), reference_quantize(w[order])
        assert same_bits(ours[0], theirs[0]) and same_bits(ours[1], theirs[1])


@pytest.mark.parametrize("count", [(1 << 19) - 64, 1 << 19, (1 << 19) + 1, (1 << 20) + 65])
def test_slices_equal_the_specification(count):
    """The fast path works in slices; their edges must not show, with any dtype, and with an `out` of odd offset."""
    w = torch.randn(count)
    ours, plain = quantize_nf4(w), quantize_nf4_plain(w)
    assert same_bits(ours[0], plain[0]) and same_bits(ours[1], plain[1])
    for dtype in (*DTYPES, torch.float64):
        spec = dequantize_nf4_plain(*ours, (count,), dtype)
        assert same_bits(dequantize_nf4(*ours, (count,), dtype), spec)
        for offset in (0, 1, 2):
            room = torch.full((count + 3,), 9.0, dtype=dtype)
            out = room[offset : offset + count]
            assert dequantize_nf4(*ours, (count,), dtype, out=out).data_ptr() == out.data_ptr()
            assert same_bits(out, spec) and (room[offset + count :] == 9).all() and (room[:offset] == 9).all()


@pytest.mark.parametrize("threads", [1, 2])
def test_dequantising_any_bytes_and_scales(threads):
    """Every byte, scales that quantising never gives, one slice and several, on one thread and on two (other look-ups).
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for count in (1, 63, 64, 65, 192, 64 * 63, 64 * 4095 + 1, (1 << 19) + 64 * 7 + 5):
            packed = torch.randint(0, 256, (nf4.packed_bytes(count) + 1,), dtype=torch.uint8)[1:]  # no whole word
            absmax = torch.randn(nf4.block_count(count)) * 10.0 ** torch.randint(-40, 38, (nf4.block_count(count),))
            absmax[::3] = torch.tensor([0.0, -0.0, 1e-45, 3e38]).repeat(len(absmax))[: len(absmax[::3])]
            for dtype in (*DTYPES, torch.float64):
                spec = dequantize_nf4_plain(packed, absmax, (count,), dtype)
                assert same_bits(dequantize_nf4(packed, absmax, (count,), dtype), spec), (count, dtype)
                out = torch.empty(count + 1, dtype=dtype)[1:]
                assert same_bits(dequantize_nf4(packed[:, None], absmax, (count,), dtype, out=out), spec)
    finally:
        torch.set_num_threads(before)


def test_second_opinion_of_the_compiled_library():
    w = torch.randn(256, 192)
    packed, state = functional.quantize_4bit(w, quant_type="nf4", blocksize=64)
    for dtype in DTYPES:
        state.dtype = dtype
        theirs = functional.dequantize_4bit(packed, state)
        assert same_bits(dequantize_nf4(packed, state.absmax, w.shape, dtype), theirs)


def test_views_are_read_row_major():
    w = torch.randn(96, 70).t()
    assert torch.equal(quantize_nf4(w)[0], quantize_nf4(w.contiguous())[0])


def test_float64():
    """float64 weights are rounded to float32 first; float64 output is the float32 product, exactly."""
    w = torch.randn(70, 65, dtype=torch.float64)
    assert all(same_bits(a, b) for a, b in zip(quantize_nf4(w), quantize_nf4(w.float()), strict=True))
    packed, absmax = quantize_nf4(w)
    assert torch.equal(dequantize_nf4(packed, absmax, w.shape, torch.float64),
                       dequantize_nf4(packed, absmax, w.shape, torch.float32).double())


def test_error_is_what_the_table_promises():
    """Normal weights: mean |error| per block within 7 sigma of an integral over the table.

    Given a block's absmax, its other 63 weights are normal ones cut at it, so the expected |x - nearest| is an integral
    for each block; the mean difference over 4,000 blocks is held against its own standard error.
    """
    w = torch.randn(4000, BLOCK, dtype=torch.float64).float()
    packed, absmax = quantize_nf4(w)
    error = (dequantize_nf4(packed, absmax, w.shape, torch.float32) - w).abs().double()
    grid = torch.linspace(-1, 1, 8001, dtype=torch.float64)
    nearest = (grid[:, None] - NF4_CODE.double()).abs().amin(1)
    density = torch.exp(-((grid * absmax.double()[:, None]) ** 2) / 2)  # (blocks, grid)
    expected = absmax.double() * (density * nearest).sum(1) / density.sum(1) * 63 / 64  # the largest has no error
    difference = error.mean(1) - expected
    assert abs(difference.mean()) < 7 * difference.std() / math.sqrt(len(difference))
    assert error.amax() <= float((NF4_CODE[1] - NF4_CODE[0]) / 2 * absmax.max()) * (1 + 1e-5)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("place", [(0, 0), (1, 37), (4, 65)])
def test_infinities_and_nan_are_named(value, place):
    for dtype in (*DTYPES, torch.float64):
        w = torch.randn(5, 66).to(dtype)
        w[place] = value
        for quantise in (quantize_nf4, quantize_nf4_plain):
            with pytest.raises(UserError, match=rf"^up_proj.weight: element \[{place[0]}, {place[1]}\] is "):
                quantise(w, "up_proj.weight")


def test_float64_beyond_float32_is_refused():
    with pytest.raises(UserError, match="1e"):
        quantize_nf4(torch.tensor([1e300], dtype=torch.float64))
    with pytest.raises(UserError, match="int64"):
        quantize_nf4(torch.ones(64, dtype=torch.int64))


def test_sizes_that_do_not_fit():
    packed, absmax = quantize_nf4(torch.randn(4, 64))
    for bad in (lambda: dequantize_nf4(packed, absmax, (4, 65), torch.float32),
                lambda: dequantize_nf4(packed, absmax[:3], (4, 64), torch.float32),
                lambda: dequantize_nf4(packed, absmax, (4, 64), torch.float32, out=torch.empty(64, 4)),
                lambda: dequantize_nf4(packed, absmax, (4, 64), torch.float32, out=torch.empty(64, 4).t())):
        with pytest.raises(ValueError):
            bad()


def test_nothing_is_quantised_to_nothing():
    packed, absmax = quantize_nf4(torch.empty(0, 64))
    assert packed.numel() == absmax.numel() == 0
    assert dequantize_nf4(packed, absmax, (0, 64), torch.bfloat16).shape == (0, 64)


@pytest.mark.parametrize("weight, says", [
    ([1.0, 2.0], "weight: is of type list; NF4 quantises a tensor"),
    (torch.ones(3, device="meta"), "weight: has no numbers on the meta device"),
    (torch.ones(3, dtype=torch.int32), "weight: is torch.int32; NF4 quantises floating-point weights"),
])  # fmt: skip
def test_what_is_no_weight_is_said(weight, says):
    with pytest.raises(UserError, match=says):
        quantize_nf4(weight)


def test_columns_are_read_as_lines_and_other_dtypes_refused():
    w = torch.randn(70, 33)
    packed, absmax = quantize_nf4(w)
    for function in (dequantize_nf4, dequantize_nf4_plain):
        expected = function(packed, absmax, w.shape, torch.float32)
        assert torch.equal(function(packed[:, None], absmax[:, None], w.shape, torch.float32), expected)
        with pytest.raises(ValueError, match=r"packed is torch\.int8; bytes of torch\.uint8 were expected"):
            function(packed.view(torch.int8), absmax, w.shape, torch.float32)
    with pytest.raises(ValueError, match=r"dtype is torch\.int64; weights are floating-point numbers"):
        dequantize_nf4(packed, absmax, w.shape, torch.int64)
