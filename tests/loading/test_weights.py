"""Checkpoint files: what is missing, strange or lying is one line that names it, and nothing is read past a check.

Deliberate break: delete the `Path(file).name != file` test in `loading/weights.py: _from_index`, the shape
comparison in `_check`, or its lines about 8 bits or a missing head; cases below turn red.
"""

import json
import pickle
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file

from common.errors import UserError
from loading import assemble, load_model
from tests.tiny import reference_model, write_checkpoint


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """One checkpoint in a single file and the same in shards."""
    folder = tmp_path_factory.mktemp("sources")
    model = reference_model(num_hidden_layers=2)
    return write_checkpoint(folder / "one", model), write_checkpoint(folder / "many", model, max_shard_size="20KB")


def copy(source, target):
    import shutil

    shutil.copytree(source, target)
    return target


def edit(folder, change):
    """Rewrite the single weights file with `change(tensors)` applied."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def edit_index(folder, change):
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    change(index["weight_map"])
    path.write_text(json.dumps(index))


def lie(folder, text_change):
    """Change the header's text and leave the data as it is."""
    path = folder / "model.safetensors"
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header = text_change(data[8 : 8 + size].decode()).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + data[8 + size :])


def put(name, value):
    return lambda folder: edit(folder, lambda tensors: tensors.__setitem__(name, value))


def write(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def truncate(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def spoil(value):
    def change(tensors):
        tensors["model.layers.1.mlp.up_proj.weight"][3, 4] = value

    return lambda folder: edit(folder, change)


Q = "model.layers.0.self_attn.q_proj.weight"
SINGLE = {
    "neither model.safetensors nor": lambda folder: (folder / "model.safetensors").unlink(),
    "holds pytorch_model.bin, a pickle": lambda folder: (folder / "model.safetensors").rename(
        folder / "pytorch_model.bin"),
    "is a pickle under the name": write("model.safetensors", pickle.dumps({"a": 1})),
    "is not a whole safetensors file": truncate,
    "is not a whole safetensors": write("model.safetensors", b""),
    "is not a whole": write("model.safetensors", b"<html>not found</html>" * 20),
    "git-lfs pointer": write("model.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
    "not a whole safetensors file": lambda folder: lie(
        folder, lambda text: text.replace('"data_offsets":[0,', '"data_offsets":[4,')),
    "is not a whole safetensors file (": lambda folder: lie(folder, lambda text: "{" + text[5:]),
    "unknown tensor model.layers.0.self_attn.q_norm.weight": put("model.layers.0.self_attn.q_norm.weight",
                                                                torch.ones(8)),
    f"{Q} has shape (48, 47)": put(Q, torch.zeros(48, 47)),
    f"{Q} has dtype I32": put(Q, torch.zeros(48, 48, dtype=torch.int32)),
    "model.norm.weight is in none of its files": lambda folder: edit(folder, lambda t: t.pop("model.norm.weight")),
    "model.layers.1.mlp.up_proj.weight": spoil(float("inf")),  # who quantises it finds it, in words of its own
    "tensor model.layers.1.mlp.up_proj.weight": spoil(float("nan")),
    "model.embed_tokens.weight holds values that are infinite": put("model.embed_tokens.weight",
                                                                    torch.full((131, 48), torch.inf)),
    "lm_head.weight differs from model": put("lm_head.weight", torch.zeros(131, 48, dtype=torch.uint8)),
    f"{Q} is packed in 4 bits, but config.json has no": put(Q, torch.zeros(48 * 24, 1, dtype=torch.uint8)),
    "lm_head.weight differs from": put("lm_head.weight", torch.zeros(131, 48)),
    "layers.1.mlp.up_proj.SCB belongs to weights in 8 bits (LLM.int8), which are not read; give the 16-bit": put(
        "model.layers.1.mlp.up_proj.SCB", torch.ones(80)),
    "has no config.json": lambda folder: (folder / "config.json").unlink(),
}


@pytest.mark.parametrize("quantize", ["none", "nf4"])
@pytest.mark.parametrize("message", SINGLE)
def test_bad_single_files(sources, tmp_path, message, quantize):
    folder = copy(sources[0], tmp_path / "m")
    SINGLE[message](folder)
    with pytest.raises(UserError) as error:
        load_model(folder, quantize=quantize)
    assert message in str(error.value) and str(folder) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("said", [None, False])
def test_a_missing_head_that_nothing_ties(tmp_path, said):
    """A config.json without `tie_word_embeddings` means false, as in transformers; the line says what to do."""
    folder = write_checkpoint(tmp_path / "m", reference_model(tie_word_embeddings=False))
    edit(folder, lambda tensors: tensors.pop("lm_head.weight"))
    path = folder / "config.json"
    config = json.loads(path.read_text())
    del config["tie_word_embeddings"]
    path.write_text(json.dumps(config if said is None else config | {"tie_word_embeddings": said}))
    with pytest.raises(UserError) as error:
        load_model(folder)
    assert str(error.value) == (
        f"{folder}: tensor lm_head.weight is in none of its files; it must be, unless config.json has "
        '"tie_word_embeddings": true (a file without the key means false). Download the model again, or add the key if '
        "its embedding is its head")
    path.write_text(json.dumps(config | {"tie_word_embeddings": True}))
    load_model(folder)
    edit(folder, lambda tensors: tensors.pop("model.norm.weight"))
    path.write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"tensor model\.norm\.weight and 1 more is in none of its files"):
        load_model(folder)


SHARDED = {
    "is not a plain name inside": lambda folder: edit_index(
        folder, lambda m: m.__setitem__(Q, "../one/model.safetensors")),
    "is not a plain name inside the folder": lambda folder: edit_index(folder, lambda m: m.__setitem__(Q, 7)),
    "is missing, although": lambda folder: next(folder.glob("model-00002*")).unlink(),
    "is not in it, although": lambda folder: edit_index(folder, lambda m: m.__setitem__("model.extra.weight", m[Q])),
    "does not place it there": lambda folder: edit_index(folder, lambda m: m.pop(Q)),
    "weight_map is missing": write("model.safetensors.index.json", b"{}"),
    "is not JSON": write("model.safetensors.index.json", b"{"),
}


@pytest.mark.parametrize("message", SHARDED)
def test_bad_shards(sources, tmp_path, message):
    folder = copy(sources[1], tmp_path / "m")
    SHARDED[message](folder)
    with pytest.raises(UserError) as error:
        load_model(folder)
    assert message in str(error.value) and str(folder) in str(error.value)


@pytest.mark.parametrize("argument, message", [
    ({"quantize": "int8"}, "'int8' is not one of"), ({"dtype": "bf16"}, "'bf16'|bf16: is not one of"),
    ({"device": "gpu"}, "there is no such device"),
])
def test_bad_arguments(sources, argument, message):
    with pytest.raises(UserError, match=message):
        load_model(sources[0], **argument)


def test_paths_that_are_no_folder(sources, tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        load_model(tmp_path / "absent")
    with pytest.raises(UserError, match="is a file"):
        load_model(sources[0] / "config.json")


def test_a_header_length_that_begins_like_a_pickle_is_no_pickle(sources, tmp_path):
    """640 is 0x280, so such a file begins with the bytes 80 02; the header is padded with spaces to get there."""
    folder = copy(sources[0], tmp_path / "m")
    path = folder / "model.safetensors"
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    padded = (size // 0x10000 + 1) * 0x10000 + 0x280
    path.write_bytes(struct.pack("<Q", padded) + data[8 : 8 + size].ljust(padded) + data[8 + size :])
    assert path.read_bytes()[:2] == b"\x80\x02"
    load_model(folder)


def test_derived_and_tied_tensors_in_the_file_are_accepted(sources, tmp_path):
    folder = copy(sources[0], tmp_path / "m")
    plain = load_model(folder)

    def change(tensors):
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
        tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)

    edit(folder, change)
    ids = torch.arange(10)[None]
    with torch.no_grad():
        torch.testing.assert_close(load_model(folder)(ids), plain(ids), atol=0, rtol=0)


def test_nothing_requires_gradients_and_no_tensor_stays_on_the_map(sources):
    for quantize in ("none", "nf4", "nf4-double"):
        model = load_model(sources[0], quantize=quantize)
        assert not any(p.requires_grad for p in model.parameters())
        assert not any(x.is_meta for x in [*model.parameters(), *model.buffers()])


def test_a_loaded_model_does_not_change_with_its_file(sources, tmp_path):
    folder = copy(sources[0], tmp_path / "m")
    model, ids = load_model(folder), torch.arange(12)[None]
    with torch.no_grad():
        before = model(ids)
        path = folder / "model.safetensors"
        path.write_bytes(b"\0" * path.stat().st_size)
        torch.testing.assert_close(model(ids), before, atol=0, rtol=0)


def test_progress_counts_weights(sources, monkeypatch):
    """Of tensors the first, the embeddings, would stand for too little: hours left where it is minutes."""
    seen = []

    class Bar:
        def __init__(self, total, unit, *_, **__):
            seen.append((total, unit))

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def update(self, count):
            seen.append(count)

    monkeypatch.setattr(assemble, "progress", Bar)
    monkeypatch.setattr(assemble, "MILLION", 1000)
    model = load_model(sources[0])
    (total, unit), *counts = seen
    assert unit == "million weight" and total == sum(map(torch.numel, model.parameters())) // 1000 == sum(counts)
