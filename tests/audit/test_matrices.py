"""The figures of one matrix against direct computation on small ones.

Deliberate break: let `unpack` put the low half of a byte first, or let `weighted_error` use M of E alone.
"""

import math
import random

import pytest
import torch

from audit.matrices import code_figures, error_figures, stored_bits, unpack, weighted_error
from quant.double_quant import Scales, quantize_absmax
from quant.linear import NF4Linear
from quant.nf4 import NF4_CODE, quantize_nf4

SHAPES = [(4, 64), (5, 30), (3, 43)]


def norm(values) -> float:
    return math.sqrt(sum(value * value for value in values))


@pytest.mark.parametrize("shape", SHAPES)
def test_errors_equal_sums_over_the_weights(shape):
    weight = torch.randn(shape)
    weight[0, 3] = 9.0
    packed, absmax = quantize_nf4(weight)
    flat = weight.reshape(-1).tolist()
    codes = [code for byte in packed.tolist() for code in (byte >> 4, byte & 15)][: len(flat)]
    back = [float(NF4_CODE[code] * absmax[index // 64]) for index, code in enumerate(codes)]
    errors = [a - b for a, b in zip(flat, back, strict=True)]
    found = error_figures(weight, packed, Scales.of(absmax))
    assert found["relative_error"] == pytest.approx(norm(errors) / norm(flat), rel=1e-6)
    assert found["bits_by_error"] == pytest.approx(math.log2(norm(flat) / norm(errors)), rel=1e-6)
    pieces = [slice(start, start + 64) for start in range(0, len(flat), 64)]
    relative = [norm(errors[piece]) / norm(flat[piece]) for piece in pieces]
    crest = [max(map(abs, flat[piece])) / (norm(flat[piece]) / math.sqrt(len(flat[piece]))) for piece in pieces]
    shares = [(norm(errors[piece]) / norm(errors)) ** 2 for piece in pieces]
    order = sorted(range(len(pieces)), key=lambda block: -shares[block])
    assert [(block["row"], block["column"]) for block in found["worst_blocks"]] == \
        [divmod(64 * block, shape[1]) for block in order[:5]]
    assert [block["block"] for block in found["worst_blocks"]] == order[:5]
    assert [block["weights"] for block in found["worst_blocks"]] == [len(flat[pieces[block]]) for block in order[:5]]
    assert [block["share"] for block in found["worst_blocks"]] == \
        pytest.approx([shares[block] for block in order[:5]], rel=1e-6)
    assert found["block_error_largest"] == pytest.approx(max(relative), rel=1e-6)
    assert found["crest_largest"] == pytest.approx(max(crest), rel=1e-6)
    middle = (len(pieces) - 1) // 2  # of an even number, the lower one
    assert found["block_error_median"] == pytest.approx(sorted(relative)[middle], rel=1e-6)
    assert found["crest_median"] == pytest.approx(sorted(crest)[middle], rel=1e-6)
    for block, place in zip(found["worst_blocks"], order[:5], strict=True):
        assert block["relative_error"] == pytest.approx(relative[place], rel=1e-6)
        assert block["largest"] == max(map(abs, flat[pieces[place]])) and block["crest"] == pytest.approx(crest[place])
    mean = sum(flat) / len(flat)
    limit = 6 * norm([value - mean for value in flat]) / math.sqrt(len(flat))
    assert found["outliers"] == sum(abs(value) > limit for value in flat)
    assert found["outlier_limit"] == pytest.approx(limit, rel=1e-6)


def test_double_quantised_scales_count_as_they_come_back():
    weight, layer = torch.randn(6, 64), NF4Linear(64, 6, double=True)
    layer.load_dense("weight", weight)
    found = error_figures(weight, layer.packed, layer.scales)["relative_error"]
    error = weight.double() - layer.dense_weight(torch.float32).double()
    assert found == pytest.approx(float(error.norm() / weight.double().norm()), rel=1e-9)
    assert found != error_figures(weight, *_packed(weight))["relative_error"]


def test_one_weight_far_from_the_others_is_the_outlier():
    weight = 0.01 * torch.randn(8, 64)
    weight[2, 5] = 1.0
    found = error_figures(weight, *_packed(weight))
    assert found["outliers"] == 1 and found["worst_blocks"][0]["row"] == 2
    assert found["worst_blocks"][0]["largest"] == 1.0 and found["worst_blocks"][0]["crest"] == found["crest_largest"]


def test_a_block_of_zeros_has_no_error():
    weight = torch.randn(3, 64)
    weight[1] = 0
    found = error_figures(weight, *_packed(weight))
    assert found["worst_blocks"][-1]["share"] == found["worst_blocks"][-1]["relative_error"] == 0
    assert math.isfinite(found["crest_largest"])


@pytest.mark.parametrize("shape", SHAPES)
def test_codes_and_bits_equal_counts_by_hand(shape):
    weight = torch.randn(shape)
    packed, absmax = quantize_nf4(weight)
    codes = [code for byte in packed.tolist() for code in (byte >> 4, byte & 15)][: weight.numel()]
    assert unpack(packed, weight.numel()).tolist() == codes
    found = code_figures(packed, Scales.of(absmax), weight.numel())
    assert found["codes"] == [codes.count(code) for code in range(16)]
    shares = [codes.count(code) / len(codes) for code in set(codes)]
    assert found["bits_used"] == pytest.approx(-sum(share * math.log2(share) for share in shares))
    assert found["largest_scale_over_median"] == pytest.approx(float(absmax.max() / absmax.median()))


@pytest.mark.parametrize("double", [False, True])
def test_stored_bits_are_those_of_the_layer(double):
    layer = NF4Linear(300, 70, double=double)
    bits = sum(8 * buffer.numel() * buffer.element_size() for buffer in layer.buffers())
    assert stored_bits(300 * 70, double) == bits / (300 * 70)
    _, absmax = quantize_nf4(torch.randn(70, 300))
    scales = Scales(quantize_absmax(absmax)) if double else Scales.of(absmax)
    assert code_figures(layer.packed, scales, 300 * 70)["bits_stored"] == bits / (300 * 70)


def test_the_weighted_error_is_that_of_the_outputs():
    draw = random.Random(3)
    weight, quantised, inputs = torch.randn(6, 9), torch.randn(6, 9), torch.randn(40, 9).double()
    inputs[:, draw.randrange(9)] *= 20  # one input much larger than the others
    moment = inputs.T @ inputs / len(inputs)
    error = inputs @ (weight.double() - quantised.double()).T
    expected = math.sqrt(error.square().sum() / (inputs @ weight.double().T).square().sum())
    assert weighted_error(weight, quantised, moment) == pytest.approx(expected, rel=1e-9)
    assert weighted_error(weight, weight, moment) == 0


def _packed(weight):
    packed, absmax = quantize_nf4(weight)
    return packed, Scales.of(absmax)
