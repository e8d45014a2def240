"""A checkpoint's files onto a card: every tensor there, in its dtype, and a fine-tune's own files back again.

Deliberate break: in loading/assemble.py leave `device` out where a dense tensor is placed.
"""

import pytest
import torch

from finetune.loop import Recipe, Trainer
from loading import load_model
from lora.inject import inject, trainable_parameters
from model.attention import attend_sdpa
from quant.convert import make_resident, resident_bytes
from tests.small import write_base


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Made before there is a card: the numbers are real."""
    return write_base(tmp_path_factory.mktemp("cuda") / "base")


@pytest.fixture(scope="module")
def loaded(folder, one):
    """The folder on the card, in 4 bits or not; read once."""
    made = {}

    def load(quantize: str):
        if quantize not in made:
            made[quantize] = load_model(folder, device=one.device, quantize=quantize)
        return made[quantize]

    return load


@pytest.mark.parametrize("quantize", ["none", "nf4", "nf4-double"])
def test_everything_is_on_the_card_in_its_dtype(one, loaded, quantize):
    model = loaded(quantize)
    tensors = dict([*model.named_parameters(), *model.named_buffers()])
    assert {tensor.device for tensor in tensors.values()} == {one.device} == {model.device}
    assert model.dtype == torch.bfloat16 and model.attend is not attend_sdpa
    for name, tensor in tensors.items():
        packed = name.endswith(("packed", "absmax_codes"))
        wide = name.endswith(("absmax", "offset", "embed_tokens.weight"))  # the table stays as its file has it
        assert tensor.dtype == (torch.uint8 if packed else torch.float32 if wide else torch.bfloat16), name
    assert any(name.endswith("packed") for name in tensors) == (quantize != "none")


def test_resident_weights_are_on_the_card(one, loaded):
    model = loaded("nf4")
    make_resident(model, model.dtype)
    copies = [module.resident for module in model.modules() if hasattr(module, "resident")]
    assert {(copy.device, copy.dtype) for copy in copies} == {(one.device, torch.bfloat16)}
    assert sum(copy.nbytes for copy in copies) == resident_bytes(model, model.dtype)


def test_a_checkpoint_of_a_fine_tune_goes_to_the_host_and_comes_back(one, folder):
    model = load_model(folder, device=one.device, quantize="nf4")
    inject(model, "all-linear", 4, 8, generator=torch.Generator().manual_seed(0))
    recipe = Recipe(1e-3, "constant", 0.0, 0.0, 1.0, 1, "label")
    trainer = Trainer(model, [], [0], [1.0], [3, 4], lambda epoch: [0], [], recipe, 3, 512)
    state = trainer.state()
    assert all(tensor.device.type == "cpu" for tensor in state["parameters"].values())
    trainer.load_state(state)
    assert {parameter.device for parameter in trainable_parameters(model).values()} == {one.device}
