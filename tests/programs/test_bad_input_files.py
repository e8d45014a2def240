"""Damaged or lying model files, handed to the programs: one line that names the file and the tensor or key, exit 2.

Deliberate break that turns this red: in train.py, create the run folder before the model is loaded; every case that
fails while loading leaves a folder behind. Or drop `check_fits` in finetune/prepare.py: ids beyond the embedding crash.
"""

import json
import pickle
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file

import classify
import eval as evaluation
import train
from tests.programs.hostile import QUICK, World, call, refused, write_base
from tests.tiny import reference_model, write_checkpoint
from tools import generate

WEIGHTS = "model.safetensors"


def config_with(**keys):
    def damage(base):
        path = base / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | keys))

    return damage


def tensors_with(change):
    def damage(base):
        tensors = load_file(base / WEIGHTS)
        change(tensors)
        save_file(tensors, base / WEIGHTS, metadata={"format": "pt"})

    return damage


def content(name, data):
    return lambda base: (base / name).write_bytes(data)


def cut(name, keep):
    return lambda base: (base / name).write_bytes((base / name).read_bytes()[:keep])


def lying_header(base):
    """A header that promises a tensor beyond the end of the file."""
    header = json.dumps({"model.norm.weight": {"dtype": "F32", "shape": [48], "data_offsets": [0, 192]}}).encode()
    (base / WEIGHTS).write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 64)


def sharded(base):
    for path in base.glob("model*"):
        path.unlink()
    write_checkpoint(base, reference_model(vocab_size=700), max_shard_size="100KB")
    index = base / "model.safetensors.index.json"
    return index, json.loads(index.read_text())


def missing_shard(base):
    _, index = sharded(base)
    (base / sorted(set(index["weight_map"].values()))[-1]).unlink()


def index_outside(base):
    path, index = sharded(base)
    index["weight_map"]["model.norm.weight"] = "../elsewhere.safetensors"
    path.write_text(json.dumps(index))


def index_lies(base):
    path, index = sharded(base)
    files = sorted(set(index["weight_map"].values()))
    index["weight_map"]["model.norm.weight"] = next(f for f in files if f != index["weight_map"]["model.norm.weight"])
    path.write_text(json.dumps(index))


def only_a_pickle(base):
    torch.save({}, base / "pytorch_model.bin")
    (base / WEIGHTS).unlink()


def set_nan(tensors):
    tensors["model.layers.1.mlp.up_proj.weight"][3, 4] = float("nan")


def set_shape(tensors):
    tensors["model.layers.0.self_attn.q_proj.weight"] = torch.zeros(48, 47)


def set_strange(tensors):
    tensors["model.layers.0.self_attn.q_norm.weight"] = torch.ones(8)


def set_integers(tensors):
    tensors["model.norm.weight"] = torch.ones(48, dtype=torch.int32)


def remove(name):
    return lambda base: (base / name).unlink()


def other_tokenizer(base):
    """A vocabulary that is larger than the model's embedding."""
    for path in base.glob("*"):
        path.unlink()
    write_base(base, vocab_size=131)


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n"
BASES = {
    "config is not json": (content("config.json", b'{"hidden_size": 4,'), ("config.json", "line 1", "is not JSON")),
    "config is a json array": (content("config.json", b"[1, 2]"), ("config.json", "object")),
    "config is latin-1": (content("config.json", b'{"a": "\xe9"}'), ("config.json", "UTF-8")),
    "config missing": (remove("config.json"), ("base", "config.json")),
    "config without hidden_size": (config_with(hidden_size=None), ("config.json", "hidden_size is missing")),
    "negative layers": (config_with(num_hidden_layers=-1), ("config.json", "num_hidden_layers", "-1")),
    "unknown key": (config_with(clever_trick=3), ("config.json", "unknown key 'clever_trick'")),
    "unknown rope type": (config_with(rope_parameters={"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0}),
                          ("config.json", "rope_type 'yarn'", "llama3")),
    "rope factor not a number": (config_with(rope_parameters={"rope_type": "llama3", "rope_theta": 1e4}),
                                 ("config.json", "factor")),
    "rope theta is text": (config_with(rope_parameters={"rope_type": "default", "rope_theta": "big"}),
                           ("config.json", "rope_theta")),
    "rope type is a list": (config_with(rope_parameters={"rope_type": ["llama3"]}), ("config.json", "rope_type")),
    "another model": (config_with(model_type="mistral"), ("config.json", "model_type", "'mistral'")),
    "layer types is a list": (config_with(layer_types=["sliding"]), ("config.json", "layer_types")),
    "quantised elsewhere": (config_with(quantization_config={"quant_method": "gptq"}), ("gptq", "bitsandbytes")),
    "truncated weights": (cut(WEIGHTS, 50_000), (WEIGHTS, "whole safetensors file")),
    "weights of 5 bytes": (cut(WEIGHTS, 5), (WEIGHTS, "whole safetensors file")),
    "empty weights": (cut(WEIGHTS, 0), (WEIGHTS, "whole safetensors file")),
    "lying header": (lying_header, (WEIGHTS, "whole safetensors file")),
    "header longer than the file": (content(WEIGHTS, struct.pack("<Q", 2**62) + b"{}"), (WEIGHTS, "safetensors")),
    "header is not json": (content(WEIGHTS, struct.pack("<Q", 8) + b"not json"), (WEIGHTS, "safetensors")),
    "pickle as safetensors": (content(WEIGHTS, pickle.dumps({"a": 1})), (WEIGHTS, "is a pickle")),
    "only a pickle": (only_a_pickle, ("pytorch_model.bin", "pickle", "safetensors")),
    "git-lfs pointer": (content(WEIGHTS, LFS), (WEIGHTS, "git-lfs", "git lfs pull")),
    "no weights": (remove(WEIGHTS), ("base", WEIGHTS)),
    "weights are a folder": (lambda base: ((base / WEIGHTS).unlink(), (base / WEIGHTS).mkdir()), (WEIGHTS,)),
    "missing shard": (missing_shard, ("safetensors", "is missing", "index")),
    "index points outside": (index_outside, ("index.json", "model.norm.weight", "inside the folder")),
    "index places a tensor wrongly": (index_lies, ("model.norm.weight", "is not in it")),
    "NaN weights": (tensors_with(set_nan), (WEIGHTS, "model.layers.1.mlp.up_proj.weight")),
    "wrong shape": (tensors_with(set_shape), (WEIGHTS, "q_proj.weight", "(48, 47)", "(48, 48)")),
    "unknown tensor": (tensors_with(set_strange), (WEIGHTS, "unknown tensor", "q_norm")),
    "missing tensor": (tensors_with(lambda tensors: tensors.pop("model.norm.weight")), ("model.norm.weight", "none")),
    "integer tensor": (tensors_with(set_integers), (WEIGHTS, "model.norm.weight", "I32")),
    "tokenizer missing": (remove("tokenizer.model"), ("base", "tokenizer.model", "tokenizer.json")),
    "tokenizer truncated": (cut("tokenizer.model", 900), ("tokenizer.model", "damaged")),
    "tokenizer empty": (cut("tokenizer.model", 0), ("tokenizer.model", "is empty")),
    "tokenizer is a web page": (content("tokenizer.model", b"<!DOCTYPE html><html>"), ("tokenizer.model", "web page")),
    "tokenizer of another model": (other_tokenizer, ("tokenizer.model", "599", "vocabulary ends at 130")),
}


@pytest.mark.parametrize("case", BASES)
def test_a_damaged_base_is_refused_by_name_and_leaves_nothing(case, world: World, tmp_path):
    damage, words = BASES[case]
    base = world.copy(world.base, tmp_path)
    damage(base)
    refused(train.main, "--model", base, "--data", world.posts, "--out", "run", *QUICK, says=words)


@pytest.mark.parametrize("case", ["truncated weights", "NaN weights", "tokenizer truncated", "tokenizer missing",
                                  "config is not json"])  # fmt: skip
def test_a_base_that_changed_since_training_is_refused(case, world: World, tmp_path):
    damage, _ = BASES[case]
    base = world.copy(world.base, tmp_path)
    damage(base)
    args = ("--run", world.run, "--model", base)
    refused(evaluation.main, *args, "--data", world.test, "--out", "e", says=str(base))
    refused(classify.main, *args, "--input", world.test, "--output", "labels.csv", says=str(base))


@pytest.mark.parametrize("case", ["truncated weights", "unknown rope type", "NaN weights", "tokenizer missing",
                                  "tokenizer of another model", "missing shard"])  # fmt: skip
def test_generate_refuses_damaged_bases(case, world: World, tmp_path):
    damage, words = BASES[case]
    base = world.copy(world.base, tmp_path)
    damage(base)
    refused(generate.main, "--model", base, "--prompt", "hello neighbour", "--max-new-tokens", "3", says=words)


def adapter_config(**keys):
    def damage(folder):
        path = folder / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | keys))

    return damage


def adapter_tensors(change):
    def damage(folder):
        tensors = load_file(folder / "adapter_model.safetensors")
        change(tensors, sorted(tensors)[0])
        save_file(tensors, folder / "adapter_model.safetensors")

    return damage


ADAPTERS = {
    "NaN": (adapter_tensors(lambda t, name: t[name].fill_(float("nan"))), ("adapter_model", "lora_A", "finite")),
    "wrong shape": (adapter_tensors(lambda t, name: t.update({name: torch.zeros(3, 3)})), ("lora_A", "(3, 3)")),
    "unknown tensor": (adapter_tensors(lambda t, name: t.update({"more": torch.zeros(1)})), ("unknown tensor more",)),
    "missing tensor": (adapter_tensors(lambda t, name: t.pop(name)), ("lora_A", "is not in it")),
    "truncated": (cut("adapter_model.safetensors", 700), ("adapter_model.safetensors", "whole")),
    "pickle": (content("adapter_model.safetensors", pickle.dumps([1])), ("adapter_model.safetensors",)),
    "config not json": (content("adapter_config.json", b"{"), ("adapter_config.json", "is not JSON")),
    "config missing": (remove("adapter_config.json"), ("adapter_config.json",)),
    "dora": (adapter_config(use_dora=True), ("adapter_config.json", "use_dora")),
    "rank is text": (adapter_config(r="sixteen"), ("adapter_config.json", "r is 'sixteen'")),
    "bad expression": (adapter_config(target_modules="("), ("adapter_config.json", "target_modules")),
}


@pytest.mark.parametrize("case", ADAPTERS)
def test_a_damaged_adapter_is_refused(case, world: World, tmp_path):
    damage, words = ADAPTERS[case]
    run = world.copy(world.run, tmp_path)
    damage(run / "adapter")
    refused(classify.main, "--run", run, "--input", world.test, "--output", "labels.csv", says=words)


def test_a_base_that_moved_is_named_and_found_again_by_its_option(world: World, tmp_path):
    base, run = world.copy(world.base, tmp_path), world.copy(world.run, tmp_path)
    facts = json.loads((run / "run.json").read_text())
    facts["options"]["model"] = str(tmp_path / "gone")
    (run / "run.json").write_text(json.dumps(facts))
    args = ("--run", run, "--input", world.test, "--output", "labels.jsonl", "--dtype", "float32")
    refused(classify.main, *args, says=("run.json", str(tmp_path / "gone"), "--model"))
    assert call(classify.main, *args, "--model", base).code == 0


def test_checkpoints_that_are_no_folder(world: World, tmp_path):
    for model, words in ((world.base / WEIGHTS, "is a file"), (tmp_path / "none", "no such folder")):
        refused(train.main, "--model", model, "--data", world.posts, "--out", "run", says=(str(model), words))
    


def test_ids_beyond_the_embedding_are_an_error_and_no_crash(world: World, tmp_path):
    """The base's bytes are the run's, so only the sizes tell: here both sides are the wrong ones together."""
    base = write_base(tmp_path / "small", vocab_size=300)
    refused(train.main, "--model", base, "--data", world.posts, "--out", "run", *QUICK,
            says=("tokenizer.model", "599", "299"))
