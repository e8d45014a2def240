"""4-bit folders that are damaged, contradict themselves or are of a kind that is not read: one line, naming the tensor.

Deliberate break: leave out the comparison of `blocksize` in `quant/stored.py: _read_state`, or of the NF4 table in
`read_group`; cases below turn red, since such a folder would load and compute something else. Or call `check_method`
behind `_check` in `loading/weights.py: read_weights`.
"""

import json
import shutil

import pytest
import torch

from common.errors import UserError
from loading import load_model
from quant.nf4 import quantize_nf4
from quant.stored import STATE, check_quantization, make_group, quantization_config, read_group
from tests.quant.stored import ODD, WHOLE, edit_tensors, write_by_transformers, write_dense

pytest.importorskip("transformers")
pytest.importorskip("bitsandbytes")
NAME = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("bad")
    dense = write_dense(root / "dense", ODD)
    return {kind: write_by_transformers(root / kind, dense, kind == "double") for kind in ("single", "double")}


def state(**changes):
    """Change the JSON beside the weight; a value of None takes the key out."""
    def change(tensors):
        name = f"{NAME}.{STATE}"
        value = json.loads(bytes(tensors[name].tolist())) | changes
        text = json.dumps({key: one for key, one in value.items() if one is not None})
        tensors[name] = torch.tensor(list(text.encode()), dtype=torch.uint8)

    return change


def tensor(part, value):
    name = f"{NAME}.{part}" if part else NAME
    return lambda tensors: tensors.__setitem__(name, value(tensors[name]) if callable(value) else value)


def rename(part, new):
    return lambda tensors: tensors.__setitem__(f"{NAME}.{new}", tensors.pop(f"{NAME}.{part}"))


def drop(*parts):
    return lambda tensors: [tensors.pop(f"{NAME}.{part}") for part in parts]


def spoil(value):
    def change(one):
        one = one.clone()
        one.view(-1)[3] = value
        return one

    return change


FP4 = "quant_state.bitsandbytes__fp4"
BYTES = {
    "is 4-bit without its quant_state": drop(STATE),
    "4-bit without its quant_state": drop(STATE, "absmax", "quant_map"),
    "has quant_state.bitsandbytes__fp4": rename(STATE, FP4),
    "quant_type is 'fp4'": state(quant_type="fp4"),
    "blocksize is 128": state(blocksize=128),
    "dtype is 'int8'": state(dtype="int8"),
    "shape is [54, 77]": state(shape=[54, 77]),
    "has quant_type, blocksize, dtype; quant_type": state(shape=None),
    "has quant_type, blocksize, dtype, shape, zero_point;": state(zero_point=8),
    "is not JSON": tensor(STATE, torch.tensor([123, 34], dtype=torch.uint8)),
    f"{STATE} is not JSON": tensor(STATE, torch.ones(3)),
    f"{STATE} has 10,003 bytes": tensor(STATE, torch.tensor(list(b" " * 10_001 + b"{}"), dtype=torch.uint8)),
    f"{STATE} is nested too deep": tensor(STATE, torch.tensor(list(b"[" * 4000 + b"]" * 4000), dtype=torch.uint8)),
    f"{STATE} has nothing": tensor(STATE, torch.tensor(list(b"[]"), dtype=torch.uint8)),
    ".absmax is missing; its quant_state means single": drop("absmax"),
    ".quant_map is missing": drop("quant_map"),
    ".absmax is torch.float32 (64,)": tensor("absmax", torch.ones(64)),
    ".absmax is torch.float16": tensor("absmax", lambda one: one.half()),
    "packed is torch.uint8 (2000, 1)": tensor("", torch.zeros(2000, 1, dtype=torch.uint8)),
    "packed is torch.float32": tensor("", torch.zeros(54 * 77)),
    ".quant_map is not the NF4 table": tensor("quant_map", spoil(0.5)),
    "its scales hold an infinity or NaN": tensor("absmax", spoil(float("nan"))),
    ".zeros is unknown": lambda tensors: tensors.__setitem__(f"{NAME}.zeros", torch.zeros(3)),
    ".nested_absmax is unknown": lambda tensors: tensors.__setitem__(f"{NAME}.nested_absmax", torch.ones(1)),
}
NESTED = {
    "nested_blocksize is 128": state(nested_blocksize=128),
    "nested_dtype is 'float16'": state(nested_dtype="float16"),
    f"{STATE} holds NaN": state(nested_offset=float("nan")),
    "nested_offset is 1e+39": state(nested_offset=1e39),
    f"{STATE} holds a whole number of 401 digits": state(nested_offset=10**400),
    "nested_offset is True": state(nested_offset=True),
    "has quant_type, blocksize, dtype, shape, nested_blocksize, nested_dtype;": state(nested_offset=None),
    ".nested_absmax is missing; its quant_state means double": drop("nested_absmax"),
    ".nested_quant_map is not": tensor("nested_quant_map", spoil(0.25)),
    "its scales hold an infinity": tensor("nested_absmax", lambda one: one * torch.inf),
    ".absmax is torch.float32": tensor("absmax", lambda one: one.float()),
}


@pytest.mark.parametrize("quantize", ["stored", "none"])
@pytest.mark.parametrize("kind, message", [("single", m) for m in BYTES] + [("double", m) for m in NESTED])
def test_bad_tensors(folders, tmp_path, kind, message, quantize):
    folder = shutil.copytree(folders[kind], tmp_path / "m")
    edit_tensors(folder, (BYTES | NESTED)[message])
    with pytest.raises(UserError) as error:
        load_model(folder, quantize=quantize)
    text = str(error.value)
    assert message in text and f"{folder / 'model.safetensors'}: tensor {NAME}" in text and "\n" not in text
    assert len(text) < 700


def config(**changes):
    def change(folder):
        path = folder / "config.json"
        raw = json.loads(path.read_text())
        value = raw["quantization_config"] | changes
        raw["quantization_config"] = {key: one for key, one in value.items() if one != "out"}
        path.write_text(json.dumps(raw))

    return change


def remove_block(folder):
    path = folder / "config.json"
    raw = json.loads(path.read_text())
    del raw["quantization_config"]
    path.write_text(json.dumps(raw))


CONFIGS = {
    "quant_method is 'gptq'": config(quant_method="gptq"),
    "load_in_4bit is None": config(load_in_4bit="out"),
    "load_in_4bit is False": config(load_in_4bit=False),
    "load_in_8bit is True": config(load_in_8bit=True),
    "bnb_4bit_quant_type is 'fp4'": config(bnb_4bit_quant_type="fp4"),
    "bnb_4bit_quant_type is None": config(bnb_4bit_quant_type="out"),
    "unknown key 'bnb_4bit_use_double_quan'; did you mean": config(bnb_4bit_use_double_quan=True),
    "llm_int8_skip_modules leaves model.layers.1.mlp.up_proj.weight out, but": config(
        llm_int8_skip_modules=["lm_head", "model.layers.1.mlp.up_proj"]),
    "leaves model.layers.0.self_attn.k_proj.weight out": config(llm_int8_skip_modules=["self_attn"]),
    "bnb_4bit_quant_storage is 'int4'; one of uint8, int8": config(bnb_4bit_quant_storage="int4"),
    "bnb_4bit_quant_storage is {'a': []}; one of uint8, int8": config(bnb_4bit_quant_storage={"a": []}),
    "llm_int8_skip_modules: '(' is not a regular expression": config(llm_int8_skip_modules=["("]),
    "llm_int8_skip_modules: '((a{999}){999}){999}' repeats too much": config(
        llm_int8_skip_modules=["((a{999}){999}){999}"]),
    "llm_int8_skip_modules: [7] is not a list": config(llm_int8_skip_modules=[7]),
    "llm_int8_skip_modules: 'lm_head' is not a list": config(llm_int8_skip_modules="lm_head"),
    "llm_int8_skip_modules: 5 is not a list": config(llm_int8_skip_modules=5),
    "config.json has no quantization_config": remove_block,
}


@pytest.mark.parametrize("quantize", ["stored", "nf4-double"])
@pytest.mark.parametrize("message", CONFIGS)
def test_bad_configs(folders, tmp_path, message, quantize):
    folder = shutil.copytree(folders["single"], tmp_path / "m")
    CONFIGS[message](folder)
    with pytest.raises(UserError) as error:
        load_model(folder, quantize=quantize)
    assert message in str(error.value) and str(folder) in str(error.value) and "\n" not in str(error.value)


def test_a_folder_in_8_bits_says_so(folders, tmp_path):
    """As transformers writes it, and the same without its quantization_config."""
    from transformers import BitsAndBytesConfig, LlamaForCausalLM

    how = BitsAndBytesConfig(load_in_8bit=True)
    LlamaForCausalLM.from_pretrained(write_dense(tmp_path / "dense", WHOLE), quantization_config=how, device_map="cpu",
                                     dtype=torch.bfloat16).save_pretrained(tmp_path / "m")
    with pytest.raises(UserError) as error:
        load_model(tmp_path / "m")
    assert str(error.value) == (
        f"{tmp_path / 'm' / 'config.json'}: quantization_config: load_in_8bit is True, and weights in 8 bits "
        "(LLM.int8) are not read; give the 16-bit model, or one in bitsandbytes' 4 bits (NF4)")
    remove_block(tmp_path / "m")
    with pytest.raises(UserError, match=r"tensor \S+\.(SCB|weight_format) belongs to weights in 8 bits \(LLM"):
        load_model(tmp_path / "m")


@pytest.mark.parametrize("method", ["gptq", "awq", "fp8", "compressed-tensors"])
def test_another_method_is_named_before_its_strange_tensors(folders, tmp_path, method):
    folder = shutil.copytree(folders["single"], tmp_path / "m")
    config(quant_method=method, bits=8, load_in_8bit="out")(folder)
    edit_tensors(folder, lambda tensors: tensors.__setitem__("model.layers.0.mlp.up_proj.qweight", torch.ones(3)))
    with pytest.raises(UserError, match=f"quant_method is '{method}'; only 4-bit weights of bitsandbytes are read"):
        load_model(folder)


def dense_up(tensors):
    for part in (STATE, "absmax", "quant_map"):
        del tensors[f"{NAME}.{part}"]
    tensors[NAME] = torch.zeros(77, 54)


def packed_embedding(tensors):
    name = "model.embed_tokens.weight"
    weight = tensors[name]
    packed, absmax = quantize_nf4(weight)
    for part, one in make_group(packed, (absmax,), tuple(weight.shape), "bfloat16").items():
        tensors[name if part == "packed" else f"{name}.{part}"] = one


@pytest.mark.parametrize("message, change", [
    (f"{NAME} is not in 4 bits in the file, and llm_int8_skip_modules does not name it", dense_up),
    ("model.embed_tokens.weight is in 4 bits in the file; only linears", packed_embedding),
    ("unknown tensor model.layers.9.mlp.up_proj.weight.absmax", lambda tensors: tensors.__setitem__(
        "model.layers.9.mlp.up_proj.weight.absmax", torch.ones(3))),
    ("unknown tensor model.layers.0.mlp.up_proj.scale", lambda tensors: tensors.__setitem__(
        "model.layers.0.mlp.up_proj.scale", torch.ones(3))),
])
def test_files_and_config_that_disagree(folders, tmp_path, message, change):
    folder = shutil.copytree(folders["single"], tmp_path / "m")
    edit_tensors(folder, change)
    with pytest.raises(UserError) as error:
        load_model(folder)
    assert message in str(error.value) and str(folder) in str(error.value) and "\n" not in str(error.value)


def test_the_last_bit_of_the_dynamic_map_may_differ():
    """It is computed where a file is written, and linspace may round otherwise there; more than that is refused."""
    packed, absmax = quantize_nf4(torch.randn(70, 70))
    codes, nested, offset = absmax.to(torch.uint8), torch.ones(1), torch.tensor(0.5)
    group = make_group(packed, (codes, nested, offset), (70, 70), "float32")
    group["nested_quant_map"] = group["nested_quant_map"] * (1 + 2**-23)
    read_group(group, (70, 70), "here")
    with pytest.raises(UserError, match=r"^here: \.nested_quant_map"):
        read_group(group | {"nested_quant_map": group["nested_quant_map"] * 1.0001}, (70, 70), "here")


def test_entries_of_the_skip_list_are_whole_words():
    """"layers.1" is not "layers.11": what the entry does not mean is expected in 4 bits."""
    names = {"model.layers.1.mlp.up_proj.weight", "model.layers.11.mlp.up_proj.weight"}
    value = quantization_config(False, "float32") | {"llm_int8_skip_modules": ["model.layers.1"]}
    check_quantization(value, {"model.layers.11.mlp.up_proj.weight"}, names, "here")
    with pytest.raises(UserError, match=r"^here: llm_int8_skip_modules leaves model\.layers\.1\.mlp"):
        check_quantization(value, names, names, "here")
