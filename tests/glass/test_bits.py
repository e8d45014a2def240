"""One block of 64 weights: against quantising its original values, and against the whole matrix.

Deliberate breaks: in glass/bits.py take the low half of a byte first, or the block behind.
"""

from types import SimpleNamespace

import pytest
import torch

from audit.matrices import error_figures
from common.errors import UserError
from common.files import ROOT
from glass import recompute, trace
from glass.bits import bits, blocks_of, four_bit_linears, original_of, worst_block
from glass.verify import write_verification
from quant.convert import replace_linears
from quant.nf4 import BLOCK, quantize_nf4
from tests.small import random_model

NAME = "model.layers.1.mlp.down_proj"


@pytest.mark.parametrize("block", [0, 7, 2559])
def test_a_block_of_the_shipped_base(run, block):
    original = original_of(ROOT / "base", NAME)
    found = bits(run.model, NAME, block, original)
    place = slice(block * BLOCK, (block + 1) * BLOCK)
    packed, absmax = quantize_nf4(original)
    assert torch.equal(found.packed, packed.view(-1)[place.start // 2 : place.stop // 2])
    assert found.scale == absmax[block] == original.float().view(-1)[place].abs().max()
    layer = four_bit_linears(run.model)[NAME]
    assert torch.equal(found.values, layer.dense_weight(torch.float32).view(-1)[place])
    assert torch.equal(found.levels[found.codes.long()] * found.scale, found.values)
    assert torch.equal(found.original + found.error, found.values) or found.error.abs().max() < found.scale / 4
    assert blocks_of(layer) == 2560


@pytest.mark.parametrize("width", [96, 100])  # whole blocks, and a partial last one
def test_the_worst_block_is_the_one_that_the_audit_names(width):
    model = random_model(6, vocab_size=300, hidden_size=64, intermediate_size=width).eval()
    original = model.get_submodule(NAME).weight.detach().clone()
    replace_linears(model)
    layer = four_bit_linears(model)[NAME]
    found = error_figures(original, layer.packed, layer.scales)["worst_blocks"][0]
    assert worst_block(layer, original) == found["block"] != 0


def test_what_is_not_there_is_said(run):
    with pytest.raises(UserError, match="did you mean"):
        bits(run.model, "layers.1.mlp.down_proj", 0)
    with pytest.raises(UserError, match="has blocks 0 to 2559"):
        bits(run.model, NAME, 2560)
    assert original_of("/there/is/no/such/base", NAME) is None


@pytest.mark.parametrize("double", [False, True])
def test_numpy_alone_agrees(run, tmp_path, capsys, double):
    model = random_model(6, vocab_size=44_000, hidden_size=64, intermediate_size=96).eval()
    original = model.get_submodule(NAME).weight.detach().clone()
    replace_linears(model, double=double)
    stage = bits(model, NAME, 5, original)
    found = trace(SimpleNamespace(model=model, prompt=run.prompt), "They").extended([stage])
    write_verification(found, tmp_path / "check")
    assert recompute.main(tmp_path / "check") == 0, capsys.readouterr().out
    stage.tensors["error"][3] += 0.01
    write_verification(found, tmp_path / "wrong")
    assert recompute.main(tmp_path / "wrong") == 1
