"""The product and its hand-written backward against PyTorch's linear and autograd.

Deliberate break: in `common.product._Linear.backward` leave out a `.t()`, or return the bias's sum over the last axis;
leave out the check in `matmul`; set a cache's capacity to 1,024.
"""

import os
import re
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from common.files import ROOT
from common.product import linear, matmul


def tensors(dtype, shape, asks):
    generator = torch.Generator().manual_seed(3)
    draw = lambda *size: torch.randn(*size, generator=generator).to(dtype)  # noqa: E731
    made = [draw(*shape, 24), draw(40, 24), draw(40)]
    return [part.requires_grad_(ask) for part, ask in zip(made, asks, strict=True)]


# Sums of 24 to 60 products of size one, in another order.
TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-13, torch.bfloat16: 0.13}


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", [(60,), (3, 20), (1,), ()])
@pytest.mark.parametrize("asks", [(True, True, True), (True, False, False), (False, True, False), (False, False, True)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_values_and_gradients_are_those_of_pytorch(dtype, shape, asks, with_bias):
    if not with_bias and asks == (False, False, True):
        asks = (True, True, False)
    results = []
    for function in (linear, F.linear):
        x, weight, bias = tensors(dtype, shape, asks)
        y = function(x, weight, bias if with_bias else None)
        (y.sin()).sum().backward()
        results.append([y.detach(), x.grad, weight.grad, bias.grad])
    for ours, theirs in zip(*results, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            assert ours.dtype == theirs.dtype == dtype
            torch.testing.assert_close(ours, theirs, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", [(60,), (3, 20)])
def test_a_summand_is_added_and_gets_the_gradient(dtype, shape):
    results = []
    for function in (lambda x, w, z: linear(x, w, add=z), lambda x, w, z: F.linear(x, w) + z):
        x, weight, _ = tensors(dtype, shape, (True, True, False))
        z = torch.randn(*shape, 40, generator=torch.Generator().manual_seed(5)).to(dtype).requires_grad_(True)
        y = function(x, weight, z)
        y.sin().sum().backward()
        results.append([y.detach(), x.grad, weight.grad, z.grad])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


def test_a_frozen_weight_keeps_no_input():
    kept = []
    x, weight, _ = tensors(torch.float32, (60,), (True, False, False))
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        linear(x, weight)
    assert [t.data_ptr() for t in kept] == [weight.data_ptr()]


def test_a_weight_of_another_dtype_is_kept_as_it_is():
    kept = []
    x, weight, _ = tensors(torch.float32, (60,), (True, False, False))
    half = weight.bfloat16().requires_grad_(True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        y = linear(x, half)
    assert {t.data_ptr() for t in kept} == {half.data_ptr(), x.data_ptr()} and y.dtype == torch.float32
    y.sin().sum().backward()
    twin, copy = x.detach().clone().requires_grad_(True), half.detach().float().requires_grad_(True)
    F.linear(twin, copy).sin().sum().backward()
    torch.testing.assert_close(x.grad, twin.grad, atol=2e-5, rtol=2e-5)
    assert half.grad.dtype == torch.bfloat16
    torch.testing.assert_close(half.grad.float(), copy.grad, atol=1e-2, rtol=1e-2)  # rounded to bfloat16


def test_strided_weights_are_read_as_they_stand():
    _, weight, _ = tensors(torch.float32, (60,), (False, False, False))
    grad = torch.randn(60, 40, generator=torch.Generator().manual_seed(4))
    torch.testing.assert_close(matmul(grad, weight.t()), grad @ weight, atol=2e-5, rtol=2e-5)


def test_a_bias_that_is_not_contiguous():
    """oneDNN's operation reads a bias's memory from its start on, whatever its stride."""
    x, weight, bias = torch.ones(1, 2), torch.ones(5, 2), torch.arange(10.0)[::2]
    assert linear(x, weight, bias).equal(F.linear(x, weight, bias))
    assert linear(x, weight, torch.ones(1).expand(5)).equal(torch.full((1, 5), 3.0))


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("x, says", [(torch.ones(5, 23), "x is (5, 23) of torch.float32; (..., 24) of floating-point"),
                                     (torch.ones(5, 24, dtype=torch.int64), "x is (5, 24) of torch.int64")])
def test_what_does_not_fit_is_said(x, says, grad):
    """oneDNN would speak of a primitive descriptor, and whole numbers would cut the weight to whole ones."""
    _, weight, _ = tensors(torch.float32, (60,), (False, grad, False))
    with pytest.raises(ValueError, match=re.escape(says)), torch.set_grad_enabled(grad):
        linear(x, weight)


MANY_LENGTHS = """
import torch
from common.product import _ONEDNN, matmul
from tests.finetune.measured import anonymous
weight, x = torch.ones(256, 256), torch.ones(700, 256)
matmul(x, weight)
before = anonymous()
for tokens in range(200, 650):
    matmul(x[:tokens], weight)
print((anonymous() - before) / 1e6 if _ONEDNN else 0.0)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")
def test_products_of_many_lengths_are_not_all_kept():
    """Each length's compiled product was kept, up to a gigabyte in a fine-tune of the small base."""
    bare = {key: value for key, value in os.environ.items() if not key.endswith("_CACHE_CAPACITY")}
    child = subprocess.run([sys.executable, "-c", MANY_LENGTHS], cwd=ROOT, env=bare, capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
    assert float(child.stdout) < 150  # megabytes; 300 without a limit
