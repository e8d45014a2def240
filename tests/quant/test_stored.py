"""4-bit folders against the living bitsandbytes and transformers: what they write is read here packed, bit for bit, and
what is written here has their bytes and is read by them.

Deliberate break: swap `nested_absmax` and `absmax` in `quant/stored.py: read_group`, or let it take `.to(torch.uint8)`
instead of the view; let `assemble.place` give a packed group to a 4-bit linear by way of `unpacked` and `load_dense`;
or write `nested_offset` as 0; cases below turn red.
"""

import json
import shutil
import weakref

import pytest
import torch
from safetensors.torch import load_file

from common.files import read_json
from loading import load_model
from quant.convert import inside_layers
from quant.double_quant import dequantize_absmax, quantize_absmax
from quant.nf4 import dequantize_nf4, quantize_nf4
from quant.stored import STATE, check_quantization, make_group, read_group, write_stored
from tests.quant.stored import ODD, WHOLE, edit_tensors, read_by_transformers, write_by_transformers, write_dense
from tests.quant.test_double_quant import reference_quantize

pytest.importorskip("transformers")
pytest.importorskip("bitsandbytes")
TOLERANCE = dict(atol=1e-5, rtol=1e-5)  # float32 logits of size ten; sums in another order
IDS = torch.randint(0, 131, (2, 90), generator=torch.Generator().manual_seed(0))  # beyond the original window


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """(shape, kind) -> folder: kind "dense", or in 4 bits "single" or "double"."""
    root, made = tmp_path_factory.mktemp("stored"), {}
    for name, shape in (("whole", WHOLE), ("odd", ODD)):
        made[name, "dense"] = write_dense(root / f"{name}-dense", shape)
        for kind in ("single", "double"):
            made[name, kind] = write_by_transformers(root / f"{name}-{kind}", made[name, "dense"], kind == "double")
    return made


def packed_layers(model):
    return {f"{name}.weight": module for name, module in model.named_modules() if hasattr(module, "load_packed")}


@torch.no_grad()
def logits(model):
    return getattr(model(IDS), "logits", None) if hasattr(model, "generate") else model(IDS)


@pytest.mark.parametrize("kind", ["single", "double"])
@pytest.mark.parametrize("shape", ["whole", "odd"])
def test_packed_bytes_scales_and_logits(folders, shape, kind):
    folder = folders[shape, kind]
    model, tensors = load_model(folder), load_file(folder / "model.safetensors")
    layers = packed_layers(model)
    assert layers.keys() == {name.removesuffix(".absmax") for name in tensors if name.endswith(".absmax")}
    assert len(layers) == 14 and all(layer.double == (kind == "double") for layer in layers.values())
    for name, layer in layers.items():
        assert torch.equal(layer.packed, tensors[name].view(-1))
        if kind == "single":
            assert torch.equal(layer.absmax, tensors[f"{name}.absmax"])
        else:
            assert torch.equal(layer.absmax_codes, tensors[f"{name}.absmax"])
            assert torch.equal(layer.nested_absmax, tensors[f"{name}.nested_absmax"])
            assert layer.offset.item() == json.loads(bytes(tensors[f"{name}.{STATE}"].tolist()))["nested_offset"]
    theirs = read_by_transformers(folder, pure_torch=shape == "odd")
    torch.testing.assert_close(logits(model), logits(theirs), **TOLERANCE)


@pytest.mark.parametrize("kind", ["single", "double"])
@pytest.mark.parametrize("shape", ["whole", "odd"])
def test_other_ways_of_loading_keep_the_packed_bytes(folders, shape, kind):
    folder = folders[shape, kind]
    stored, dense = packed_layers(load_model(folder)), load_model(folder, quantize="none")
    assert not packed_layers(dense)
    plain, double = (packed_layers(load_model(folder, quantize=how)) for how in ("nf4", "nf4-double"))
    for name, layer in stored.items():
        weight = layer.dense_weight(torch.float32)
        assert torch.equal(dense.get_parameter(name), weight)
        assert torch.equal(plain[name].packed, layer.packed) and torch.equal(double[name].packed, layer.packed)
        assert torch.equal(plain[name].dense_weight(torch.float32), weight)
        if kind == "single":  # asked for double: the scales, and nothing else, are quantised
            codes, nested, offset = quantize_absmax(layer.absmax)
            assert torch.equal(double[name].absmax_codes, codes) and torch.equal(double[name].nested_absmax, nested)
            assert double[name].offset == offset
        else:
            assert torch.equal(double[name].dense_weight(torch.float32), weight)


def test_bytes_are_taken_as_they_are_and_no_file_is_needed_afterwards(folders, tmp_path):
    """Bytes that no quantiser would write (no block reaches its largest place) come through, and are copies."""
    folder = shutil.copytree(folders["odd", "single"], tmp_path / "m")
    name = "model.layers.1.mlp.down_proj.weight"
    odd = torch.full((54 * 77 // 2 + 54 * 77 % 2, 1), 0x67, dtype=torch.uint8)
    edit_tensors(folder, lambda tensors: tensors.__setitem__(name, odd))
    model = load_model(folder)
    path = folder / "model.safetensors"
    path.write_bytes(b"\0" * path.stat().st_size)
    assert torch.equal(packed_layers(model)[name].packed, odd.view(-1))


@pytest.mark.parametrize("kind", ["single", "double"])
@pytest.mark.parametrize("storage", ["bfloat16", "float16", "float32"])
def test_bytes_that_lie_in_a_tensor_of_numbers(folders, tmp_path, storage, kind):
    """bnb_4bit_quant_storage, as FSDP wants it: the same bytes as in a folder of uint8, and the same logits."""
    folder = write_by_transformers(tmp_path / "m", folders["whole", "dense"], kind == "double", storage=storage)
    name = "model.layers.1.mlp.up_proj.weight"
    assert load_file(folder / "model.safetensors")[name].dtype == getattr(torch, storage)
    ours, plain = (load_model(path) for path in (folder, folders["whole", kind]))
    for name, layer in packed_layers(ours).items():
        assert layer.packed.dtype == torch.uint8 and torch.equal(layer.packed, packed_layers(plain)[name].packed)
    assert torch.equal(logits(ours), logits(plain))
    # Any bits come through, those of a NaN too, which no number may be read from.
    odd = torch.full((4096,), 0xFF, dtype=torch.uint8)
    edit_tensors(folder, lambda tensors: tensors.__setitem__(name, odd.view(getattr(torch, storage))[:, None]))
    assert torch.equal(packed_layers(load_model(folder))[name].packed, odd)


def test_skipped_modules_stay_dense(folders, tmp_path):
    skip = ["lm_head", "model.layers.0.mlp", "model.layers.1.self_attn.o_proj"]
    folder = write_by_transformers(tmp_path / "m", folders["whole", "dense"], True, skip)
    model = load_model(folder)
    dense = {name for name, _ in model.named_parameters() if inside_layers(name) and name.endswith("proj.weight")}
    assert dense == {f"model.layers.0.mlp.{leaf}_proj.weight" for leaf in ("gate", "up", "down")} | {
        "model.layers.1.self_attn.o_proj.weight"}
    torch.testing.assert_close(logits(model), logits(read_by_transformers(folder, False)), **TOLERANCE)
    assert len(packed_layers(load_model(folder, quantize="nf4"))) == 14


def test_a_group_in_two_shards(folders, tmp_path):
    """transformers cuts shards by size, which may part a weight from its scales."""
    from safetensors.torch import save_file

    folder = shutil.copytree(folders["whole", "double"], tmp_path / "m")
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, part in parts.items():
        save_file({name: tensors[name] for name in part}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps(
        {"weight_map": {name: file for file, part in parts.items() for name in part}}))
    assert torch.equal(logits(load_model(folder)), logits(load_model(folders["whole", "double"])))


def test_the_public_quantization_config(shared_data, folders):
    block = read_json(shared_data / "llama3" / "bnb4bit_quantization_config.json")["quantization_config"]
    names = {"model.layers.0.mlp.up_proj.weight"}
    check_quantization(block, names, names, "config.json")
    check_quantization(block | {"llm_int8_skip_modules": ["lm_head", "merger"]}, names, names, "config.json")


def write(folder, dense, double):
    """`write_stored` of the 16-bit folder `dense`, each tensor gone before the next is made."""
    tensors, folder = load_file(dense / "model.safetensors"), folder
    layout = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    linears = {name for name in tensors if inside_layers(name) and name.endswith("proj.weight")}
    alive = []

    def state():
        for name, tensor in tensors.items():
            assert not alive or alive[-1]() is None, "an earlier tensor is still held"
            one = tensor.clone()
            alive.append(weakref.ref(one))
            yield name, one
            del one

    write_stored(folder, read_json(dense / "config.json"), layout, linears, state(), double=double)
    return folder


@pytest.mark.parametrize("kind", ["single", "double"])
@pytest.mark.parametrize("shape", ["whole", "odd"])
def test_what_is_written_has_bitsandbytes_bytes(folders, tmp_path, shape, kind):
    ours = load_file(write(tmp_path / "ours", folders[shape, "dense"], kind == "double") / "model.safetensors")
    theirs = load_file(folders[shape, kind] / "model.safetensors")
    singles = load_file(folders[shape, "single"] / "model.safetensors")
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        expected = theirs[name]
        if kind == "double" and name.endswith((".absmax", ".nested_absmax")):
            # In near-ties the compiled library picks other codes; the pure-torch backend is the reference.
            codes, nested, _ = reference_quantize(singles[name.replace(".nested_", ".")])
            expected = nested if "nested" in name else codes
        assert tensor.dtype == expected.dtype and torch.equal(tensor, expected), name
    written, made = (read_json(path / "config.json") for path in (tmp_path / "ours", folders[shape, kind]))
    assert written["quantization_config"] == made["quantization_config"]


@pytest.mark.parametrize("kind", ["single", "double"])
def test_what_is_written_is_read_by_transformers_and_here(folders, tmp_path, kind):
    folder = write(tmp_path / "ours", folders["whole", "dense"], kind == "double")
    model = load_model(folder)
    torch.testing.assert_close(logits(model), logits(read_by_transformers(folder, False)), **TOLERANCE)
    how = "nf4" if kind == "single" else "nf4-double"
    assert torch.equal(logits(model), logits(load_model(folders["whole", "dense"], quantize=how)))


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (7, 9), (40, 192), (65, 64 * 256)])
@pytest.mark.parametrize("double", [False, True])
def test_there_and_back(shape, double):
    packed, absmax = quantize_nf4(torch.randn(shape))
    scales = quantize_absmax(absmax) if double else (absmax,)
    again, read = read_group(make_group(packed, scales, shape, "bfloat16"), shape, "here")
    assert torch.equal(again.view(-1), packed)
    assert all(torch.equal(one, other) for one, other in zip(read, scales, strict=True))


def test_packed_state_is_written_without_being_quantised_again(tmp_path):
    """A state of packed bytes and scales, single or double, becomes what is asked for; the bytes stay."""
    name, shape = "model.layers.0.mlp.up_proj.weight", (30, 50)
    packed, absmax = quantize_nf4(torch.randn(shape))
    triple = quantize_absmax(absmax)
    for double in (False, True):
        for scales in ((absmax,), triple):
            write_stored(tmp_path, {}, {name: (torch.float32, shape)}, {name}, [(name, (packed, scales))],
                         double=double)
            found = load_file(tmp_path / "model.safetensors")
            group = {part: found[name if part == "packed" else f"{name}.{part}"]
                     for part in make_group(packed, triple if double else (absmax,), shape, "float32")}
            bytes_, read = read_group(group, shape, "here")
            assert torch.equal(bytes_.view(-1), packed) and len(read) == (3 if double else 1)
            right = dequantize_absmax(*triple) if double or len(scales) == 3 else absmax
            back = dequantize_absmax(*read) if double else read[0]
            assert torch.equal(dequantize_nf4(packed, back, shape, torch.float32),
                               dequantize_nf4(packed, right, shape, torch.float32))
