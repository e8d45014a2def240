"""Checkpoint folders that were made to hang, crash or fill memory: one line, before anything is built.

Deliberate break that turns this red: in loading/weights.py, leave `check_sizes` out of `read_config`, or let `_natural`
ask `part.isdigit()`; in common/states.py, leave the comparison with the storage out of `is_plain`.
"""

import json
import os
import zipfile

import pytest
import torch
from safetensors.torch import load_file, save_file

from common.errors import UserError
from loading import load_model
from loading.weights import check_sizes, least_bytes
from model.config import LlamaConfig
from model.llama import LlamaForCausalLM
from tests.loading.meta import PARAMS, meta_state, write_meta
from tests.tiny import reference_model, write_checkpoint

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


@pytest.fixture
def folder(tmp_path):
    return write_checkpoint(tmp_path / "m", reference_model())


@pytest.fixture
def meta(tmp_path):
    return write_meta(tmp_path / "meta", PARAMS, meta_state(PARAMS))


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


SIZES = {
    "num_hidden_layers": [10**6, 1000, 10**300], "vocab_size": [10**9, 10**6], "intermediate_size": [10**9, 10**6],
    "head_dim": [10**9, 8000], "hidden_size": [10**9, 6 * 10**5], "num_attention_heads": [10**9, 6000],
    "num_key_value_heads": [10**9], "max_position_embeddings": [10**13],
}  # fmt: skip


@pytest.mark.parametrize("key", SIZES)
def test_sizes_beyond_the_bytes_that_are_there_build_nothing(key, folder, monkeypatch):
    monkeypatch.setattr(LlamaForCausalLM, "empty", lambda *args: pytest.fail("a model was built"))
    for size in SIZES[key]:
        edit(folder / "config.json", **{key: size, "num_key_value_heads": 2} if key == "num_attention_heads" else
             {key: size})
        with pytest.raises(UserError) as caught:
            load_model(folder)
        assert "config.json" in str(caught.value) and len(str(caught.value)) < 600


def test_sizes_of_params_json_build_nothing(meta, monkeypatch):
    monkeypatch.setattr(LlamaForCausalLM, "empty", lambda *args: pytest.fail("a model was built"))
    for changes in ({"n_layers": 10**6}, {"n_layers": 10**300}, {"dim": 10**9}, {"ffn_dim_multiplier": 1e300},
                    {"multiple_of": 10**9}, {"n_heads": 10**9}, {"vocab_size": 10**9}):
        edit(meta / "params.json", **PARAMS | changes)
        with pytest.raises(UserError, match=r"params\.json|consolidated"):
            load_model(meta)


def test_what_is_less_far_apart_is_told_by_the_tensors_name(folder):
    edit(folder / "config.json", num_hidden_layers=4)
    with pytest.raises(UserError, match=r"tensor model\.layers\.3\.\S+ and 8 more is in none"):
        load_model(folder)


def test_the_least_bytes_are_those_of_the_model(folder):
    for changes in ({}, {"tie_word_embeddings": False}):
        edit(folder / "config.json", **changes)
        config = LlamaConfig.from_file(folder / "config.json")
        model = LlamaForCausalLM.empty(config)
        norms = sum(p.numel() for name, p in model.named_parameters() if "norm" in name)
        assert least_bytes(config) == 2 * (sum(p.numel() for p in model.parameters()) - norms)
    check_sizes(config, [], folder / "config.json")  # without files there is nothing to compare


def test_a_cut_file_is_told_as_one_whatever_the_sizes(folder):
    edit(folder / "config.json", vocab_size=10**6)
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:5000])
    with pytest.raises(UserError, match="not a whole safetensors file"):
        load_model(folder)


@pytest.mark.parametrize("name", ["config.json", WEIGHTS, INDEX])
def test_pipes_in_the_place_of_files(name, folder):
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    with pytest.raises(UserError, match=f"{name}.*a pipe or a device"):
        load_model(folder)


@pytest.mark.parametrize("name", ["params.json", "consolidated.00.pth"])
def test_pipes_in_the_place_of_metas_files(name, meta):
    (meta / name).unlink()
    os.mkfifo(meta / name)
    with pytest.raises(UserError, match=f"{name}.*a pipe or a device"):
        load_model(meta)


@pytest.mark.parametrize("name", ["model.layers.²", f"model.layers.{'9' * 5000}", "model.layers.٣.x", "n" * 300])
def test_names_with_strange_digits_and_long_names(name, folder):
    tensors = load_file(folder / WEIGHTS)
    save_file(tensors | {name: torch.ones(2)}, folder / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(UserError, match="unknown tensor"):
        load_model(folder)
    save_file(tensors | {f"{name}.rotary_emb.inv_freq": torch.ones(2)}, folder / WEIGHTS, metadata={"format": "pt"})
    load_model(folder)  # an old exporter's, left out; sorted among the others all the same


@pytest.mark.parametrize("file", ["a" * 300, "a\0b", "\udc80", "..", "/dev/zero"])
def test_names_of_files_that_no_file_can_have(file, folder):
    names = list(load_file(folder / WEIGHTS))
    (folder / WEIGHTS).unlink()
    (folder / INDEX).write_text(json.dumps({"weight_map": dict.fromkeys(names, file)}))
    with pytest.raises(UserError):
        load_model(folder)


Q = "layers.0.attention.wq.weight"
TENSORS = {
    "on the meta device": lambda t: torch.empty(48, 48, device="meta"),
    "sparse": lambda t: t.to_sparse(),
    "sparse rows": lambda t: torch.ones(48, 48).to_sparse_csr(),
    "quantised": lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8),
    "complex": lambda t: torch.zeros(48, 48, dtype=torch.complex64),
    "float8": lambda t: t.to(torch.float8_e4m3fn),
    "bool": lambda t: t > 0,
    "one number for all": lambda t: torch.zeros(1).expand(48, 48),
    "nested": lambda t: torch.nested.nested_tensor([t, t]),
    "a scalar": lambda t: torch.tensor(1.0),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", TENSORS)
@pytest.mark.parametrize("name", [Q, "output.weight", "tok_embeddings.weight", "norm.weight"])
def test_tensors_of_metas_files_that_are_no_plain_numbers(case, name, meta):
    path = meta / "consolidated.00.pth"
    state = torch.load(path, weights_only=True)
    torch.save(state | {name: TENSORS[case](state[name])}, path)
    with pytest.raises(UserError, match=r"consolidated|params"):
        load_model(meta)


def test_a_view_that_repeats_a_number_takes_no_time(meta):
    path = meta / "consolidated.00.pth"
    state = torch.load(path, weights_only=True)
    huge = torch.zeros(48).expand(10**9, 48)
    torch.save(state | {"output.weight": huge, "tok_embeddings.weight": huge}, path)
    with pytest.raises(UserError, match="plain state dict"):
        load_model(meta)
    assert path.stat().st_size < 10**6


def test_tensors_that_share_their_bytes_are_taken(meta):
    path = meta / "consolidated.00.pth"
    state = torch.load(path, weights_only=True)
    both = torch.cat([state["norm.weight"], state["layers.0.ffn_norm.weight"]])
    torch.save(state | {"output.weight": state["tok_embeddings.weight"], "norm.weight": both[:48],
                        "layers.0.ffn_norm.weight": both[48:], Q: state[Q].T.contiguous().T}, path)
    assert load_model(meta).config.tie_word_embeddings


def test_a_compressed_archive_is_not_unpacked(meta):
    path = meta / "consolidated.00.pth"
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(name, data + b"\0" * 10**7 * name.endswith("data.pkl"))
    with pytest.raises(UserError, match="plain state dict"):
        load_model(meta)
