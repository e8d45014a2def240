"""The kernels against their plain versions, in a process that can run them: on the machine's card, or on the CPU with
TRITON_INTERPRET=1. tests/kernels/test_kernels.py starts that process; by hand:

    TRITON_INTERPRET=1 python -m pytest tests/kernels/cases.py          or, with a card, without the variable
"""

import pytest
import torch

from common.kernels import DTYPES, counted_launches, kernels_on, plain_kernels
from common.packed import Layout, pack
from lora.inject import inject
from model.attention import attend_sdpa
from model.layers import RMSNorm, swiglu
from model.rope import rotate, rotate_both, rotation
from model.varlen import _Gather, sequences
from quant.convert import replace_linears
from quant.double_quant import Scales, dequantize, quantize_absmax
from quant.linear import NF4Linear
from quant.nf4 import dequantize_nf4_plain, quantize_nf4
from tests.small import random_model

# A kernel that cannot be launched leaves its work to the plain version, which would be compared with itself.
pytestmark = pytest.mark.filterwarnings("error:the kernels in")
DEVICE = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
SHAPES = [(1, 1), (1, 64), (3, 33), (7, 576), (2, 2, 100), (0, 64)]  # one token, many; D a power of two, and odd


def draw(*shape: int, dtype: torch.dtype, grad: bool = True) -> torch.Tensor:
    return torch.randn(shape).to(DEVICE, dtype).requires_grad_(grad)


def both(function, inputs: tuple, upstream=None) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Results and the inputs' gradients, plain and by kernels; checks that values without gradients are the same."""
    found = []
    for way in (plain_kernels(), kernels_on(DEVICE.type)):
        with way:
            out = function(*inputs)
            outputs = out if isinstance(out, tuple) else (out,)
            upstream = upstream or [torch.randn_like(y) for y in outputs]
            found.append([*outputs, *torch.autograd.grad(outputs, inputs, upstream)])
            with torch.no_grad():
                again = function(*inputs)
            if not found[:-1]:  # the CPU's silu without gradients is another formula (see `model.layers.silu`)
                continue
            assert all(map(torch.equal, outputs, again if isinstance(again, tuple) else (again,)))
    return tuple(found)


def assert_near(found: torch.Tensor, expected: torch.Tensor, units: float | torch.Tensor, size: torch.Tensor) -> None:
    """Within `units` times the dtype's precision times `size`; in 16 bits, few entries differ at all."""
    assert found.dtype == expected.dtype and found.shape == expected.shape
    limits = torch.finfo(found.dtype)
    off = (found.double() - expected.double()).abs()
    assert bool((off <= units * limits.eps * size.double().abs() + limits.smallest_normal * limits.eps).all())
    assert found.dtype == torch.float32 or few(off > 0)


def few(differs: torch.Tensor) -> bool:
    """Whether hardly any entry differs: measured, one in 4,000 at most.

    A card's own exp and rsqrt are approximations of some units of float32, so that more roundings turn out the other
    way than where both sides are computed by the host.
    """
    most, share = (1, 1000) if DEVICE.type == "cpu" else (3, 100)
    return int(differs.sum()) <= max(most, differs.numel() // share)


def neighbours(x: torch.Tensor) -> list[torch.Tensor]:
    """Of 16-bit numbers: themselves, and the next ones away from zero and towards it."""
    return [(x.detach().view(torch.int16) + step).view(x.dtype) for step in (0, 1, -1)]


def assert_one_unit(found: torch.Tensor, chosen: list[torch.Tensor], parts: torch.Tensor | None = None) -> None:
    """Each entry is one of the `chosen` at its place, to the bit, and nearly all are the first.

    parts: where the entry is a difference, what it is a difference of, in size. It then may also be one unit in the
    last place off, beside float32's own error of the parts, which is all that is left where they cancel.
    """
    exact = torch.stack([found == one for one in chosen]).any(0)
    if parts is not None:
        first, further, _ = neighbours(chosen[0])
        off = (found.double() - first.double()).abs()
        exact |= off <= (further.double() - first.double()).abs() + 2.0**-20 * parts.double()
    assert bool(exact.all()) and few(found != chosen[0])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("double", [False, True])
def test_nf4_gives_the_bits_of_its_specification(dtype, double):
    """Whole and partial words, blocks, programs and nested blocks; nothing beyond the end is written."""
    for n in (1, 2, 7, 8, 9, 63, 65, 4095, 4096, 4097, 16400):
        packed, absmax = quantize_nf4(torch.randn(n) * 0.02)
        scales = Scales(part.to(DEVICE) for part in (quantize_absmax(absmax) if double else (absmax,)))
        packed, memory = packed.to(DEVICE), torch.full((n + 16,), 7.0, dtype=dtype, device=DEVICE)
        with kernels_on(DEVICE.type):
            out = dequantize(packed, scales, (n,), dtype, out=memory[:n])
        expected = dequantize_nf4_plain(packed.cpu(), Scales(part.cpu() for part in scales).absmax(), (n,), dtype)
        assert torch.equal(out.cpu(), expected) and bool((memory[n:] == 7).all()), n


def test_nf4_of_every_byte_and_scales_of_all_sizes():
    """Subnormal results, infinities of float16 and signed zeros, bit for bit."""
    packed = torch.arange(256, dtype=torch.uint8).repeat(2).to(DEVICE)
    sizes = [0.0, 1e-40, 1e-38, 1e-9, 1.0, 3e4, 7e4, 1e20, 3e38, 0.02, 0.3, 1e-5, 6e-8, 65504.0, 2.0, 9.0]
    absmax = torch.tensor(sizes, device=DEVICE)
    for dtype in DTYPES:
        with kernels_on(DEVICE.type):
            out = dequantize(packed, Scales((absmax,)), (1024,), dtype)
        expected = dequantize_nf4_plain(packed, absmax, (1024,), dtype)
        same = torch.int32 if dtype == torch.float32 else torch.int16
        assert torch.equal(out.view(same), expected.view(same)), dtype


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("double", [False, True])
def test_a_4_bit_linear_computes_the_same(dtype, double):
    layer = NF4Linear(100, 37, double=double)
    layer.load_dense("weight", torch.randn(37, 100))
    y, expected = both(layer.to(DEVICE), (draw(5, 100, dtype=dtype),))
    assert all(map(torch.equal, y, expected))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tokens, heads, groups, size", [(1, 1, 1, 2), (5, 3, 1, 6), (2, 24, 8, 128), (5, 9, 3, 64),
                                                         (0, 4, 2, 8)])
def test_rotation_gives_the_bits_of_its_specification(dtype, tokens, heads, groups, size):
    rope = rotation(torch.arange(tokens, device=DEVICE) * 7, torch.rand(size // 2, device=DEVICE), dtype)
    q, k = draw(tokens, heads, size, dtype=dtype), draw(tokens, groups, size, dtype=dtype)
    for function, inputs in ((lambda q, k: rotate_both(q, k, rope), (q, k)), (lambda q: rotate(q, rope), (q,))):
        expected, found = both(function, inputs)
        assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [*SHAPES, (2, 3072)])
@pytest.mark.parametrize("sums", [False, True])
def test_rms_norm(dtype, shape, sums):
    """Only the sum over D runs in another order, so r differs by some units of float32.

    In 16 bits that makes a difference where s r is rounded, of one unit in the last place; the gain then is multiplied
    to the bit. One unit at the upper end of its binade is two at the lower, so y itself may be two units off.
    In float32 either way is some units off the true value, to which the kernel is held too.
    """
    norm = RMSNorm(shape[-1], 1e-5)
    norm.load_dense("weight", (1 + 0.3 * torch.randn(shape[-1])).to(DEVICE, dtype))
    inputs = tuple(draw(*shape, dtype=dtype) for _ in range(1 + sums))
    grads = [draw(*shape, dtype=dtype, grad=False) for _ in range(1 + sums)]
    expected, found = both(norm, inputs, grads)
    if sums:
        assert torch.equal(found[0], expected[0]) and torch.equal(expected[0], inputs[1] + inputs[0])
        assert found[2] is found[3]  # one gradient for both parts of the sum
    s, grad = (expected[0] if sums else inputs[0]).detach(), grads[-1]
    y, d_s, ours, ours_d_s = expected[sums], expected[-1], found[sums], found[-1]
    # ds is a difference: its parts, r |g dy| and r |s r| mean|g dy s r|, set the size of an error
    r = torch.rsqrt(s.double().square().mean(-1, keepdim=True) + 1e-5)
    slope = (norm.weight.double() * grad).abs()
    parts = r * (slope + (s * r).abs() * (slope * (s * r).abs()).mean(-1, keepdim=True))
    if dtype == torch.float32:
        assert_near(ours, y, 6, y)
        assert_near(ours, (norm.weight.double() * s * r).float(), 4, y)
        assert_near(ours_d_s, d_s, 6, parts + grads[0].double().abs())
        return
    bare = RMSNorm(shape[-1], 1e-5).to(DEVICE, dtype)
    assert_one_unit(ours, [norm.weight * one for one in neighbours(bare.plain(s))])
    through = s.clone().requires_grad_()
    with plain_kernels():
        d_norm, = torch.autograd.grad(norm(through), through, grad)
    assert_one_unit(ours_d_s, [grads[0] + one if sums else one for one in neighbours(d_norm)], parts)


@pytest.mark.parametrize("used", [[0], [1]])
def test_a_norm_of_a_sum_of_which_one_result_is_used(used):
    norm = RMSNorm(33, 1e-5).requires_grad_(False).to(DEVICE)
    inputs = tuple(draw(3, 33, dtype=torch.float32) for _ in range(2))
    expected, found = both(lambda *parts: tuple(norm(*parts)[place] for place in used), inputs)
    torch.testing.assert_close(found, expected)


def assert_swiglu(gate, up, grad) -> None:
    """`exp` is another library's. In 16 bits that makes a difference where silu(g) is rounded, of one unit in the last
    place; the product with u or dy then is the same to the bit, and may double that unit (see `test_rms_norm`). In
    float32 the argument of `exp` is rounded too, so its error grows with |g|."""
    (y, d_gate, d_up), (found, found_d_gate, found_d_up) = both(swiglu, (gate, up), [grad])
    g, s = gate.detach().double(), gate.detach().double().sigmoid()
    parts = grad.double().abs() * up.double().abs() * s * (1 + g.abs() * (1 - s))
    if gate.dtype == torch.float32:
        units = 6 + 2 * g.abs()
        assert_near(found, y, units, y)
        assert_near(found_d_up, d_up, units, d_up)
        assert_near(found_d_gate, d_gate, units, parts)
        return
    silu = neighbours(torch.nn.functional.silu(gate.detach()))
    assert_one_unit(found, [one * up for one in silu])
    assert_one_unit(found_d_up, [one * grad for one in silu])
    assert_one_unit(found_d_gate, neighbours(d_gate), parts)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [*SHAPES, (3, 1024), (5, 700)])
def test_swiglu(dtype, shape):
    gate, up = (4 * draw(*shape, dtype=dtype, grad=False)).requires_grad_(), draw(*shape, dtype=dtype)
    assert_swiglu(gate, up, draw(*shape, dtype=dtype, grad=False))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_swiglu_of_every_gate_that_16_bits_have(dtype):
    """Where silu(g), u and dy are no subnormal numbers: the interpreter reads such bfloat16 as others."""
    gate = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    gate = gate[gate.isfinite() & (torch.nn.functional.silu(gate).abs() >= torch.finfo(dtype).smallest_normal)]
    assert len(gate) > 30_000
    up, grad = (0.5 + torch.rand(len(gate)) for _ in range(2))
    assert_swiglu(gate.to(DEVICE).requires_grad_(), up.to(DEVICE, dtype).requires_grad_(), grad.to(DEVICE, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", [Layout((5, 9, 10, 31), 5), Layout((5, 9, 10, 31), 5, query_tokens=(6, 9, 12)),
                                    Layout((0, 4, 9), query_tokens=(2, 8)), Layout((1, *range(2, 62)), 1)])
@pytest.mark.parametrize("heads, size", [(2, 8), (3, 10), (8, 128)])
def test_keys_and_values_are_gathered_to_the_bit_and_their_gradients_added_in_float32(dtype, layout, heads, size):
    found = sequences(layout, DEVICE)
    inputs = tuple(draw(layout.tokens, heads, size, dtype=dtype) for _ in range(2))
    grads = [draw(len(found.source), heads, size, dtype=dtype, grad=False) for _ in range(2)]
    plain, ours = both(lambda k, v: _Gather.apply(k, v, found), inputs, grads)
    prefix = layout.prefix_len
    for one, two, grad in zip(ours, plain, [*grads, *grads], strict=True):
        if one.shape[0] == len(found.source):
            assert torch.equal(one, two)
            continue
        assert torch.equal(one[prefix:], two[prefix:])
        # a sum in another order: a unit of float32 for each row, of the sum of sizes, before the one rounding
        size_of = grad.double()[found.shared].abs().sum(0)
        units = layout.rows if dtype == torch.float32 else 1
        size_of = size_of if dtype == torch.float32 else two[:prefix].double().abs() + size_of * 2.0**-16
        assert_near(one[:prefix], two[:prefix], units, size_of)


def test_extreme_gates_stay_finite():
    gate = torch.tensor([-1e4, -104.0, -89.0, -88.0, 0.0, 88.0, 104.0, 1e4], device=DEVICE, requires_grad=True)
    up = torch.ones(8, device=DEVICE, requires_grad=True)
    for expected, found in zip(*both(swiglu, (gate, up)), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-30, rtol=1e-4)


def test_what_no_kernel_takes_goes_the_plain_way():
    """float64, rows that are not contiguous, a gain that learns, bytes that begin between two words."""
    x, norm = draw(4, 6, dtype=torch.float32), RMSNorm(6, 1e-5).to(DEVICE)
    rope = tuple(torch.rand(4, 3, device=DEVICE) for _ in range(2))
    packed, absmax = (part.to(DEVICE) for part in quantize_nf4(torch.randn(512)))
    with kernels_on(DEVICE.type), counted_launches() as noted:
        norm(x)
        norm(x, residual=x)
        norm.requires_grad_(False)(x, residual=x[:1])
        norm(x, residual=x.to(torch.float16))
        norm(x, residual=torch.zeros(6, 4, device=DEVICE).t())
        norm.double()(x.double())
        swiglu(x.t(), x.t())
        swiglu(x.double(), x.double())
        rotate(x.view(4, 1, 6).double(), tuple(part.double() for part in rope))
        rotate(x.view(4, 1, 6).transpose(0, 1)[:, :, :].expand(4, 4, 6), rope)
        dequantize(packed[1:129], Scales((absmax[:4],)), (256,), torch.float32)
        dequantize(packed, Scales((absmax,)), (512,), torch.float64)
        assert not noted
        dequantize(packed, Scales((absmax,)), (512,), torch.float32)
        assert noted == ["_nf4_single"]


@pytest.mark.parametrize("double", [False, True])
def test_a_model_trains_and_labels_through_the_kernels(double):
    """Loss, gradients of every A and B, and logits, against the plain way; each kernel is launched where it belongs."""
    model = random_model()
    replace_linears(model, double=double)
    inject(model, "all-linear", 4, 8)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    model.to(DEVICE)
    batch = pack([[1, 2, 3, 4], [1, 2, 9]], [3, 2], [0, 1]).to(DEVICE)
    wanted = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def step():
        logits = model.label_logits(model.answer_hidden(batch), torch.tensor([5, 6, 7], device=DEVICE))
        return [logits, *torch.autograd.grad(logits.square().sum(), wanted)]

    found = []
    for way in (plain_kernels(), kernels_on(DEVICE.type)):
        with way:
            found.append(step())
    for expected, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-5 * expected.detach().abs().max().item(), rtol=1e-4)
    layers, nf4 = len(model.model.layers), "_nf4_double" if double else "_nf4_single"
    with kernels_on(DEVICE.type), counted_launches() as noted, torch.no_grad():
        layout = Layout.rectangle(2, 5)
        model.model(torch.arange(10, device=DEVICE), torch.arange(5, device=DEVICE).repeat(2), layout, attend_sdpa)
    layer = ["_rms_norm_forward", *[nf4] * 3, "_rotate", nf4, "_add_rms_norm_forward", *[nf4] * 2, "_swiglu_forward",
             nf4]
    assert noted == [*layer * layers, "_rms_norm_forward"]
