"""The Triton kernels: right on the machine's card or else interpreted, compiled for four kinds of cards, and only there
where they belong.

Whether Triton interprets is settled when a process starts, so the kernels run in processes of their own, and what they
must fulfil is in tests/kernels/cases.py.

Deliberate break: in quant/nf4_triton.py write `eighth * 4` for the shift; in model/rope_triton.py give backward +1.0;
in model/swiglu_triton.py and model/rms_norm_triton.py leave out a `rounded`; in model/gather_triton.py write
`range(rows)`, which the interpreter refuses; in quant/nf4_triton.py let `shift` have four entries, so that a thread
writes 8 bytes at once; in common/kernels.py let `works` return True at once.
"""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from common import kernels
from common.files import ROOT
from common.kernels import DTYPES, counted_launches, kernels_on, plain_kernels, runs_kernel, why_not
from model.layers import RMSNorm, swiglu
from model.rope import rotate, rotate_both
from quant.double_quant import Scales, dequantize
from quant.nf4 import quantize_nf4

CASES = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/kernels/cases.py"]
KERNELS = {"_gather", "_gather_backward", "_nf4_single", "_nf4_double", "_rms_norm_forward", "_rms_norm_backward",
           "_add_rms_norm_forward", "_add_rms_norm_backward", "_rotate", "_swiglu_forward", "_swiglu_backward"}


def test_more_weights_than_32_bits_count_go_without_the_kernel(monkeypatch):
    """Here with a limit of 100; n and the places of the last program's weights are 32-bit numbers in the kernel."""
    pytest.importorskip("triton")
    weight = torch.randn(2, 64)
    packed, absmax = quantize_nf4(weight)
    for most, launches in ((128, ["_nf4_single"]), (127, [])):
        monkeypatch.setattr("quant.double_quant.MOST_IN_KERNEL", most)
        with kernels_on("cpu"), counted_launches() as noted:
            dequantize(packed, Scales((absmax,)), (2, 64), torch.float32)
        assert noted == launches


def run(command: list[str], **variables: str) -> subprocess.CompletedProcess:
    kept = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    return subprocess.run(command, cwd=ROOT, env=kept | {"OMP_NUM_THREADS": "1"} | variables, capture_output=True,
                          text=True)


def test_interpreted_they_give_what_the_plain_versions_give():
    pytest.importorskip("triton")
    done = run(CASES, TRITON_INTERPRET="1", CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA card")
def test_on_this_card_they_give_what_the_plain_versions_give():
    pytest.importorskip("triton")
    assert why_not(torch.device("cuda:0")) is None
    done = run(CASES)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """What tests/kernels/compiled.py finds, kernel by kernel."""
    pytest.importorskip("triton")
    done = run([sys.executable, "-m", "tests.kernels.compiled", "--json"],
               TRITON_CACHE_DIR=str(tmp_path_factory.mktemp("triton")))
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


def test_they_compile_for_every_kind_of_card_and_spill_nothing(compiled):
    """In bfloat16 with at most 64 registers, so that a multiprocessor has room for 1,024 threads; products
    and sums of float32 unfused, as in the operations that they replace."""
    bfloat16 = {(one["kernel"], one["capability"]) for one in compiled if one["dtype"] == "bfloat16"}
    assert bfloat16 == {(kernel, capability) for kernel in KERNELS for capability in (80, 89, 90, 120)}
    assert {one["dtype"] for one in compiled} == {str(dtype).removeprefix("torch.") for dtype in DTYPES}
    for one in compiled:
        assert one["spilled"] == 0 and one["fused"] == 0, one
        assert one["registers"] <= (64 if one["dtype"] == "bfloat16" else 96), one


def test_they_write_16_bytes_at_a_time(compiled):
    """All but r, of which a token has one, and NF4 weights in an odd number, which no model has."""
    for one in compiled:
        if one["whole"]:
            narrow = {int(width): count for width, count in one["stores"].items() if int(width) < 16}
            assert narrow == ({4: 1} if one["kernel"].endswith("rms_norm_forward") else {}), one


def test_what_cannot_be_launched_is_said_once_and_the_plain_version_takes_over(monkeypatch):
    """This process does not interpret, so that each launch on a CPU fails as on a card whose driver refuses it."""
    pytest.importorskip("triton")
    monkeypatch.setattr(kernels, "_tried", {})
    norm, rope = RMSNorm(8, 1e-5).requires_grad_(False), tuple(torch.rand(3, 2) for _ in range(2))
    packed, absmax = quantize_nf4(torch.randn(64))
    x, up = torch.randn(3, 8, requires_grad=True), torch.randn(3, 8, requires_grad=True)

    def results():
        out = [norm(x), *norm(x, residual=up), swiglu(x, up), rotate(x.view(3, 2, 4), rope)]
        out += rotate_both(*[x.view(3, 2, 4)] * 2, rope)
        return [*out, *torch.autograd.grad([y.sum() for y in out], (x, up)),
                dequantize(packed, Scales((absmax,)), (64,), torch.float32)]

    expected = results()
    with kernels_on("cpu"), pytest.warns(UserWarning, match="cannot be used here, PyTorch's slower") as said:
        for _ in range(2):
            assert all(map(torch.equal, results(), expected))
    assert sorted(str(one.message).split()[3] for one in said) == [
        "model.rms_norm_triton", "model.rope_triton", "model.rope_triton", "model.swiglu_triton", "quant.nf4_triton"]
    assert all("\n" not in str(one.message) and len(str(one.message)) < 400 for one in said)


def test_a_kernel_that_is_tried_within_checkpointing_keeps_nothing_there(monkeypatch):
    """Checkpointing counts what a layer keeps; at the first question, what the attempt kept was among it."""
    def attempt(*key):
        torch.ones(3, requires_grad=True).pow(2).sum().backward()

    def layer(x):
        assert kernels.works("some.file", x)
        return x * x

    monkeypatch.setattr(kernels, "import_module", lambda file: SimpleNamespace(attempt=attempt))
    monkeypatch.setattr(kernels, "_tried", {})
    x = torch.ones(2, requires_grad=True)
    checkpoint(layer, x, use_reentrant=False).sum().backward()
    assert x.grad.tolist() == [2.0, 2.0]


def test_memory_that_runs_out_says_nothing_about_a_kernel(monkeypatch):
    pytest.importorskip("triton")

    def attempt(*key):
        raise torch.OutOfMemoryError("planned")

    monkeypatch.setattr(kernels, "_tried", {})
    monkeypatch.setattr("model.rms_norm_triton.attempt", attempt)
    with kernels_on("cpu"), pytest.raises(torch.OutOfMemoryError):
        RMSNorm(8, 1e-5).requires_grad_(False)(torch.ones(2, 8))
    assert not kernels._tried


def test_a_cpu_never_asks_for_triton():
    """Nor do tensors without memory; and importing every part of the model imports no Triton."""
    x = torch.ones(2, 4)
    assert not runs_kernel(x) and not runs_kernel(x.to("meta"))
    program = ("import sys, torch, train, classify, quant.linear, model.llama, lora.layer; from model.layers import *;"
               "RMSNorm(8, 1e-5)(torch.ones(2, 8)); swiglu(torch.ones(8), torch.ones(8));"
               "sys.exit('triton' in sys.modules)")
    done = run([sys.executable, "-c", program])
    assert done.returncode == 0, done.stderr


def test_where_kernels_run_is_put_back():
    pytest.importorskip("triton")
    x, norm = torch.ones(2, 4), RMSNorm(4, 1e-5).requires_grad_(False)
    with kernels_on("cpu"), counted_launches() as noted:
        assert runs_kernel(x) and not runs_kernel(x, x.t()) and not runs_kernel(x, x.to("meta"))
        norm(x)
        with plain_kernels():
            assert not runs_kernel(x)
            norm(x)
        with pytest.raises(KeyError), plain_kernels():
            raise KeyError
        assert runs_kernel(x)
    assert noted == ["_rms_norm_forward"] and not runs_kernel(x)
