"""Meta's folders: the logits of Meta's own computation and of transformers; a scaled rope is known or asked for.

Tolerance: as in test_model, the same operations in float32 in another order, on logits of size one to four.

Deliberate break: in `loading/meta.py` leave `half_split` out for k_proj, join w2 by rows in `_axis`, or take 8 as the
factor of Llama 3.2 in `FACTORS`; tests below turn red.
"""

import json
import os
import pickle
import shutil
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from common.errors import UserError
from common.files import sha256_file
from loading import load_model
from loading.cache import weights_sha256
from loading.meta import half_split, to_config
from loading.weights import read_config
from model.config import LlamaConfig, RopeScaling
from tests.loading.meta import PARAMS, meta_from_reference, meta_logits, meta_state, width, write_meta
from tests.small import here, posts, write_base, write_jsonl
from tests.tiny import LLAMA3_ROPE, read_reference, reference_model, write_checkpoint

TOLERANCE = dict(atol=1e-5, rtol=1e-5)
SCALING = {key: value for key, value in LLAMA3_ROPE.items() if key != "rope_theta"}
SCALED = PARAMS | {"use_scaled_rope": True}
IDS = torch.randint(0, 128, (150,), generator=torch.Generator().manual_seed(3))  # past the 64 of the scaling


@torch.no_grad()
def logits(folder, **words):
    return load_model(folder, **words)(IDS[None])[0]


@pytest.mark.parametrize("files, embedding_axis", [(1, 0), (2, 0), (2, 1), (4, 0), (4, 1)])
@pytest.mark.parametrize("scaled", [False, True])
def test_logits_equal_metas_computation(tmp_path, files, embedding_axis, scaled):
    params, state, scaling = SCALED if scaled else PARAMS, meta_state(PARAMS), SCALING if scaled else None
    folder = write_meta(tmp_path / "m", params, state, files, embedding_axis)
    torch.testing.assert_close(logits(folder, rope_scaling=scaling), meta_logits(params, state, IDS, scaling),
                               **TOLERANCE)


@pytest.mark.parametrize("case", [{}, {"n_kv_heads": 4}, {"n_kv_heads": 1, "n_heads": 2}, {"rope_theta": 500000.0},
                                  {"norm_eps": 0.5, "ffn_dim_multiplier": 1.0}])  # fmt: skip
def test_sizes_equal_metas_computation(tmp_path, case):
    params = PARAMS | case
    state = meta_state(params, tied=True)
    folder = write_meta(tmp_path / "m", {key: value for key, value in params.items() if key != "vocab_size"}, state)
    torch.testing.assert_close(logits(folder), meta_logits(params, state, IDS), **TOLERANCE)
    config = read_config(folder)
    assert (config.vocab_size, config.intermediate_size, config.tie_word_embeddings) == (128, width(params), True)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_logits_equal_transformers(tmp_path, tied, dtype):
    theirs = write_checkpoint(tmp_path / "theirs", reference_model(tie_word_embeddings=tied, vocab_size=128).to(dtype))
    params, state = meta_from_reference(read_reference(theirs, dtype))
    folder = write_meta(tmp_path / "m", params | {"use_scaled_rope": True}, state, files=2)
    assert read_config(folder, SCALING).tie_word_embeddings == tied
    assert load_model(folder, rope_scaling=SCALING).model.embed_tokens.weight.dtype == dtype
    with torch.no_grad():
        expected = read_reference(theirs, torch.float32)(IDS[None]).logits[0]
    torch.testing.assert_close(logits(folder, rope_scaling=SCALING), expected, **TOLERANCE)


@pytest.mark.parametrize("quantize", ["none", "nf4", "nf4-double"])
def test_the_same_bits_as_from_hugging_faces_folder(tmp_path, quantize):
    theirs = write_checkpoint(tmp_path / "theirs", reference_model(vocab_size=128).to(torch.bfloat16))
    params, state = meta_from_reference(read_reference(theirs, torch.bfloat16))
    folder = write_meta(tmp_path / "m", params | {"rope_scaling": SCALING}, state, files=2)
    first, second = (load_model(path, quantize=quantize).state_dict() for path in (theirs, folder))
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_a_kept_copy_belongs_to_its_rope_scaling(tmp_path):
    state = meta_state(PARAMS)
    folder = write_meta(tmp_path / "m", SCALED, state)
    (folder / "config.json").write_text("{}")  # beside consolidated files it is not what is read
    for factor in (8.0, 32.0):
        words = {"rope_scaling": SCALING | {"factor": factor}, "quantize": "nf4"}
        plain = logits(folder, **words)
        assert torch.equal(logits(folder, cache=tmp_path / "kept", **words), plain)
        assert torch.equal(logits(folder, cache=tmp_path / "kept", **words), plain)
    copies = [path for path in (tmp_path / "kept").iterdir() if path.is_dir()]
    assert sorted(read_config(copy).rope_scaling.factor for copy in copies) == [8.0, 32.0]


def test_half_split():
    rows = torch.arange(12.0)[:, None] * torch.ones(12, 2)
    assert half_split(rows, 6)[:, 1].tolist() == [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]


LLAMA = {"vocab_size": 128256, "multiple_of": 256, "norm_eps": 1e-5, "rope_theta": 500000.0, "use_scaled_rope": True}
PUBLISHED = {
    "Llama 3.1 8B": (dict(dim=4096, n_layers=32, n_heads=32, n_kv_heads=8, ffn_dim_multiplier=1.3, multiple_of=1024),
                     8.0, 14336),
    "Llama 3.3 70B": (dict(dim=8192, n_layers=80, n_heads=64, n_kv_heads=8, ffn_dim_multiplier=1.3, multiple_of=4096),
                      8.0, 28672),
    "Llama 3.1 405B": (dict(dim=16384, n_layers=126, n_heads=128, n_kv_heads=8, ffn_dim_multiplier=1.2,
                            multiple_of=4096), 8.0, 53248),
    "Llama 3.2 1B": (dict(dim=2048, n_layers=16, n_heads=32, n_kv_heads=8, ffn_dim_multiplier=1.5), 32.0, 8192),
    "Llama 3.2 3B": (dict(dim=3072, n_layers=28, n_heads=24, n_kv_heads=8, ffn_dim_multiplier=1.0), 32.0, 8192),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_models_are_known(name):
    params, factor, mlp = PUBLISHED[name]
    config = to_config(LLAMA | params, name, vocab_size=128256, tied="3.2" in name)
    assert config.rope_scaling == RopeScaling(factor, 1.0, 4.0, 8192) and config.intermediate_size == mlp
    assert config.max_position_embeddings == 131072
    given = to_config(LLAMA | params, name, SCALING | {"factor": 2.5}, vocab_size=128256, tied=False)
    assert given.rope_scaling == RopeScaling(2.5, 1.0, 4.0, 64)
    with pytest.raises(UserError, match=f"{name}: use_scaled_rope does not say by which factor"):
        to_config(LLAMA | params | {"n_layers": 5}, name, vocab_size=128256, tied=False)


def test_the_real_params_mean_the_real_config(shared_data):
    folder = shared_data / "llama3/hf_3b_instruct"
    ours = to_config(json.loads((folder / "params.json").read_text()), "p", vocab_size=128256, tied=True,
                     dtype="bfloat16").to_dict()
    theirs = LlamaConfig.from_file(folder / "config.json").to_dict()
    assert {key for key in ours if ours[key] != theirs[key]} == {"bos_token_id", "eos_token_id"}


OLDER = {"Llama 1": ({"norm_eps": 1e-6}, 2048), "Llama 2": ({}, 4096), "Llama 3": ({"rope_theta": 500000.0}, 8192)}


@pytest.mark.parametrize("name", OLDER)
def test_older_models(tmp_path, name):
    own, positions = OLDER[name]
    params = {"dim": 48, "multiple_of": 16, "n_heads": 4, "n_layers": 2, "norm_eps": 1e-5, "vocab_size": -1} | own
    state = meta_state(params | {"vocab_size": 128})
    extra = {"rope.freqs": torch.zeros(6), "layers.1.attention.inner_attention.rope.freqs": torch.zeros(6)}
    folder = write_meta(tmp_path / "m", params, state)
    torch.save(state | extra, folder / "consolidated.00.pth")
    torch.testing.assert_close(logits(folder), meta_logits(params, state, IDS), **TOLERANCE)
    assert read_config(folder).max_position_embeddings == positions and read_config(folder).rope_scaling is None


def test_programs_take_a_meta_folder_and_remember_its_files(tmp_path):
    base = write_base(tmp_path / "hf", vocab_size=640, num_hidden_layers=1)
    params, state = meta_from_reference(read_reference(base, torch.float32))
    folder = write_meta(tmp_path / "meta", params | {"rope_scaling": SCALING}, state, files=2)
    shutil.copy(base / "tokenizer.model", folder)
    write_jsonl(tmp_path / "posts.jsonl", posts(24, seed=1))
    quick = ("--max-steps", 2, "--batch-size", 4, "--rank", 2, "--micro-tokens", 4096, "--dtype", "float32")
    for name in ("hf", "meta"):
        here("train.py", "--model", name, "--data", "posts.jsonl", "--out", f"run-{name}", *quick, cwd=tmp_path)
        here("classify.py", "--run", f"run-{name}", "--input", "posts.jsonl", "--output", f"{name}.csv", cwd=tmp_path)
    assert (tmp_path / "hf.csv").read_text() == (tmp_path / "meta.csv").read_text()
    files = {"params.json", "consolidated.00.pth", "consolidated.01.pth"}
    stored = json.loads((tmp_path / "run-meta/run.json").read_text())["hashes"]["weights"]
    assert stored == {name: sha256_file(folder / name) for name in files} == weights_sha256(folder)
    text = here("tools.generate", "--model", "meta", "--prompt", "we", "--max-new-tokens", 3,
                cwd=tmp_path)
    assert text == here("tools.generate", "--model", "hf", "--prompt", "we", "--max-new-tokens", 3, cwd=tmp_path)
    part = torch.load(folder / "consolidated.01.pth", weights_only=True)
    part["norm.weight"][0] += 1
    torch.save(part, folder / "consolidated.01.pth")
    words = ("classify.py", "--run", "run-meta", "--input", "posts.jsonl", "--output", "l.csv")
    assert "consolidated.01.pth: is not the file that run-meta" in here(*words, cwd=tmp_path, code=2)


# ---- what is wrong is one line


class Dangerous:
    def __reduce__(self):
        return os.mkdir, ("made-by-a-pickle",)


def change(**values):
    def damage(folder):
        path = folder / "params.json"
        path.write_text(json.dumps({key: value for key, value in (json.loads(path.read_text()) | values).items()
                                    if value != "gone"}))

    return damage


def state(edit, number=0):
    def damage(folder):
        path = folder / f"consolidated.{number:02d}.pth"
        tensors = torch.load(path, weights_only=True)
        torch.save(edit(tensors), path)

    return damage


def lose(name, number=0):
    return state(lambda tensors: {key: value for key, value in tensors.items() if key != name}, number)


def content(name, data):
    return lambda folder: (folder / name).write_bytes(data(folder) if callable(data) else data)


def remove(name):
    return lambda folder: (folder / name).unlink()


Q, W2 = "layers.0.attention.wq.weight", "layers.1.feed_forward.w2.weight"
BAD = {
    "params.json: there is no such file": remove("params.json"),
    "params.json: line 1: is not JSON": content("params.json", b"{"),
    "params.json: holds a list": content("params.json", b"[]"),
    "params.json: dim is missing": change(dim="gone"),
    "params.json: n_layers: 0 is not a whole number": change(n_layers=0),
    "params.json: norm_eps is missing": change(norm_eps="gone"),
    "params.json: dim 48 is not a multiple of n_heads 5": change(n_heads=5),
    "params.json: use_scaled_rope: 'yes' is not true or false": change(use_scaled_rope="yes"),
    "params.json: use_scaled_rope does not say by which factor": change(use_scaled_rope=True),
    "params.json: unknown key 'quantization_args'": change(quantization_args={"scheme": "int4"}),
    "params.json: unknown key 'lora_args'": change(lora_args={"rank": 16, "scale": 2.0}),
    "params.json: unknown key 'vision_chunk_size'": change(vision_chunk_size=448),
    "params.json: unknown key 'moe_args'": change(moe_args={"num_experts": 16}),
    "params.json: unknown key 'rope_thea'; did you mean 'rope_theta'?": change(rope_thea=5e5),
    "params.json: vocab_size is 127, but the embedding has 128 rows": change(vocab_size=127),
    "rope_scaling: factor: None is not a number": change(rope_scaling={"rope_type": "llama3"}),
    "mlp.gate_proj.weight has shape (176, 48); params.json calls for (144, 48)": change(ffn_dim_multiplier=1.1),
    "k_proj.weight has shape (24, 48); params.json calls for (48, 48)": change(n_kv_heads=4),
    "layers.2.attention.wk.weight and 8 more is not in it": change(n_layers=3),
    "unknown tensor layers.1.attention.wk.weight": change(n_layers=1),
    "has no consolidated.00.pth": remove("consolidated.00.pth"),
    "holds 1 consolidated files; by their shapes it should be 2": remove("consolidated.01.pth"),
    "has no consolidated.01.pth": lambda folder: (folder / "consolidated.01.pth").rename(
        folder / "consolidated.02.pth"),
    "consolidated.00.pth: is a git-lfs pointer": content("consolidated.00.pth", b"version https://git-lfs.github.com/"),
    "consolidated.00.pth: is not a file of PyTorch 1.6": content("consolidated.00.pth", pickle.dumps({"a": 1})),
    "consolidated.01.pth: is not a file of PyTorch": content("consolidated.01.pth", b""),
    "is not a plain state dict, whole and": content(
        "consolidated.00.pth", lambda folder: (folder / "consolidated.00.pth").read_bytes()[:-3000]),
    "and of nothing but tensors (UnpicklingError)": state(lambda t: t | {"norm.weight": Dangerous()}),
    "consolidated.01.pth: is not a plain state dict, whole and of nothing": state(lambda t: [Dangerous()], 1),
    "is not a plain state dict but a list": state(lambda t: [1, 2]),
    "is not a plain state dict but a Tensor": state(lambda t: torch.ones(3)),
    "is not a plain state dict: under 'model' it holds a OrderedDict": state(
        lambda t: {"model": OrderedDict(t)}),
    "under 'step' it holds a int": state(lambda t: t | {"step": 3}),
    "under '7' it holds a Tensor": state(lambda t: t | {7: torch.ones(3)}),
    f"unknown tensor {Q.replace('wq', 'wqkv')}": state(lambda t: t | {Q.replace("wq", "wqkv"): t[Q]}),
    "unknown tensor layers.0.attention.wq.bias": state(lambda t: t | {Q.replace("weight", "bias"): torch.ones(24)}),
    f"tensor {Q} is not in it": lose(Q),
    f"consolidated.01.pth: tensor {W2} is not in it": lose(W2, 1),
    "consolidated.01.pth: unknown tensor output.weight": lose("output.weight"),
    "consolidated.01.pth: tensor output.weight is not in it": lose("output.weight", 1),
    f"consolidated.01.pth: tensor {W2} has shape (48, 70)": state(lambda t: t | {W2: torch.ones(48, 70)}, 1),
    f"tensor {W2} has shape (3456,); 2 dimensions": state(lambda t: t | {W2: torch.ones(3456)}),
    "tensor norm.weight has shape (1, 48); 1 dimensions": state(lambda t: t | {"norm.weight": torch.ones(1, 48)}),
    "consolidated.01.pth: tensor layers.1.ffn_norm.weight differs from that in": state(
        lambda t: t | {"layers.1.ffn_norm.weight": torch.ones(48)}, 1),
    "q_proj.weight has dtype torch.int8; F32": state(lambda t: t | {Q: torch.ones(24, 48, dtype=torch.int8)}),
    "tensor model.layers.1.mlp.down_proj.weight holds values that are infinite": state(
        lambda t: t | {W2: torch.full((48, 88), torch.inf)}, 1),
}


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return write_meta(tmp_path_factory.mktemp("good") / "m", PARAMS, meta_state(PARAMS), files=2)


@pytest.mark.parametrize("line", BAD)
def test_bad_folders_are_one_line(good, tmp_path, monkeypatch, line):
    monkeypatch.chdir(tmp_path)
    folder = Path(shutil.copytree(good, tmp_path / "m"))
    BAD[line](folder)
    with pytest.raises(UserError) as caught:
        load_model(folder)
    assert line in str(caught.value) and str(folder) in str(caught.value)
    assert not Path("made-by-a-pickle").exists()


def test_a_tensor_that_reaches_beyond_its_file_is_refused(good, tmp_path):
    """Sizes in the pickle that the storage does not hold: the file lies about itself."""
    folder = Path(shutil.copytree(good, tmp_path / "m"))
    path = folder / "consolidated.00.pth"
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    pickled = next(name for name in parts if name.endswith("data.pkl"))
    assert parts[pickled].count(b"K\x30") > 20  # pickle's small integer 48, in every shape and stride
    parts[pickled] = parts[pickled].replace(b"K\x30", b"K\xff")
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    with pytest.raises(UserError, match=r"consolidated.00.pth: is not a plain state dict, whole .*\(RuntimeError\)"):
        load_model(folder)
