"""Adapter folders that were made to hang, crash or fill memory: one line, and the model as it was.

Deliberate break that turns this red: in lora/adapter.py, leave `check_plain` out of `_read_tensors`, or take the first
group of a match in `_layer`.
"""

import json
import os

import pytest
import torch
from safetensors.torch import save_file

from common.errors import UserError
from loading import load_model
from lora.adapter import CONFIG, TENSORS, load_adapter, read_config, save_adapter
from lora.inject import adapters, inject
from tests.tiny import reference_model, write_checkpoint

A = "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight"
EXPONENTIAL = r"(?:.|.)*(?<=!)"
CONFIGS = {
    "targets that take for ever": ({"target_modules": EXPONENTIAL}, "target_modules"),
    "excluded that take for ever": ({"exclude_modules": EXPONENTIAL}, "exclude_modules"),
    "ranks that take for ever": ({"rank_pattern": {EXPONENTIAL: 4}}, "rank_pattern"),
    "alphas that take for ever": ({"alpha_pattern": {EXPONENTIAL: 4}}, "alpha_pattern"),
    "layers that take for ever": ({"layers_to_transform": [0], "layers_pattern": ["(?:.|.)*(?<=!)"]}, "layers_pattern"),
    "counts that fill memory": ({"target_modules": "((a{999}){999}){999}"}, "repeats too much"),
    "a rank of 400 digits": ({"r": 10**400}, "digits"),
    "an alpha too large": ({"lora_alpha": float("inf")}, "Infinity"),
    "a rank of 300 digits": ({"r": 10**299}, "shape"),
    "names by the hundred thousand": ({"target_modules": [f"m{n}" for n in range(300_000)]}, "larger"),
    "half a character": ({"base_model_name_or_path": "\ud83d"}, "surrogate"),
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("base"), reference_model())


@pytest.fixture
def model(checkpoint):
    return load_model(checkpoint, dtype=torch.float32)


@pytest.fixture
def folder(model, tmp_path, checkpoint):
    made = load_model(checkpoint, dtype=torch.float32)
    inject(made, ["q_proj", "v_proj"], 4, 8)
    save_adapter(made, tmp_path / "adapter", "b")
    return tmp_path / "adapter"


def edit(folder, **changes):
    path = folder / CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("case", CONFIGS)
def test_a_hostile_config_is_one_line(case, model, folder, monkeypatch):
    monkeypatch.setattr("common.patterns.SECONDS", 0.05)
    changes, words = CONFIGS[case]
    edit(folder, **changes)
    with pytest.raises(UserError) as caught:
        load_adapter(model, folder)
    assert words in str(caught.value) and str(folder) in str(caught.value)
    assert not adapters(model)


def test_a_group_in_layers_pattern_is_not_taken_for_the_layer(model, folder):
    edit(folder, layers_to_transform=[1], layers_pattern=["(lay)ers"])
    names = list(dict(model.named_modules()))
    assert read_config(folder).modules([name for name in names if name.endswith("q_proj")]) == [
        "model.layers.1.self_attn.q_proj"]
    edit(folder, layers_to_transform=[1], layers_pattern=["self_attn|(lay)"])
    assert read_config(folder).modules([name for name in names if name.endswith("q_proj")]) == []


@pytest.mark.parametrize("dtype", [torch.complex64, torch.float8_e4m3fn, torch.float8_e8m0fnu, torch.bool])
def test_dtypes_that_are_no_adapters_are_named(model, folder, dtype):
    from safetensors.torch import load_file

    tensors = load_file(folder / TENSORS)
    save_file(tensors | {A: torch.zeros(tensors[A].shape).to(dtype)}, folder / TENSORS)
    with pytest.raises(UserError, match=str(dtype)):
        load_adapter(model, folder)


@pytest.mark.parametrize("name", [CONFIG, TENSORS])
def test_pipes_and_folders_in_the_place_of_files(model, folder, name):
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(UserError, match=str(folder)):
        load_adapter(model, folder)
    (folder / name).unlink()
    (folder / name).mkdir()
    with pytest.raises(UserError, match=str(folder)):
        load_adapter(model, folder)


def test_an_adapter_of_few_bytes_that_claims_many(model, folder):
    head = json.dumps({A: {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 8]}}).encode()
    for size, tail in ((10**18, b""), (len(head), b"\0" * 8)):
        (folder / TENSORS).write_bytes(size.to_bytes(8, "little") + head + tail)
        with pytest.raises(UserError, match="safetensors"):
            load_adapter(model, folder)


def test_what_is_there_twice_is_refused(model, folder):
    """Of two values under one key, another reader may take the other one."""
    text, whole = (folder / CONFIG).read_text(), (folder / TENSORS).read_bytes()
    (folder / CONFIG).write_text(text.replace("{", '{"r": 8,', 1))
    with pytest.raises(UserError, match=r"adapter_config\.json: has the key 'r' twice"):
        load_adapter(model, folder)
    (folder / CONFIG).write_text(text)
    length = int.from_bytes(whole[:8], "little")
    head = whole[8 : 8 + length].decode().rstrip()
    names = json.loads(head)
    doubled = f'{head[:-1]},"{A}":{json.dumps(names[A])}}}'.encode()
    doubled += b" " * (-len(doubled) % 8)
    (folder / TENSORS).write_bytes(len(doubled).to_bytes(8, "little") + doubled + whole[8 + length :])
    with pytest.raises(UserError, match=f"its header has the key '{A}' twice"):
        load_adapter(model, folder)
    (folder / TENSORS).write_bytes(whole)
    assert load_adapter(model, folder)
