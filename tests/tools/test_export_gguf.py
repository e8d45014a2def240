"""GGUF files, read back by the gguf package; tests/tools/test_export_llama_cpp.py has them in llama.cpp.

Deliberate break: leave `.transpose(1, 2)` out of `tools.export.gguf_file.interleaved`, multiply in `rope_factors`
instead of dividing, let `stored_as` ignore the length of rows, or write to `path` without `atomic_write`; cases below
turn red.
"""

import math
import sys

import numpy
import pytest
import torch
from safetensors.torch import save_file

from common.errors import UserError
from tests.small import here, random_model, write_base
from tests.tools.exports import WHOLE, export, make_run
from tools.export.tensors import MergedTensors

gguf = pytest.importorskip("gguf")
from tests.tools.gguf_files import KINDS, file_in, make_runs, merged, read, turned  # noqa: E402 - they need gguf
from tools.export.gguf_file import gguf_name, rope_factors, write_gguf  # noqa: E402


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return make_runs(tmp_path_factory.mktemp("runs"))


# ---- what is in the file


@pytest.mark.parametrize("shape", ["odd", "whole"])
@pytest.mark.parametrize("kind", KINDS)
def test_tensors_read_back(runs, tmp_path, shape, kind):
    export(runs[shape], f"gguf-{kind}", tmp_path / "out")
    fields, found = read(file_in(tmp_path / "out"))
    right = merged(runs[shape])
    assert found.keys() == {gguf_name(name) for name in right} | {"rope_freqs.weight"}  # no output.weight: it is tied
    for name, tensor in right.items():
        stored, numbers = found[gguf_name(name)]
        tensor = turned(name, tensor, right.config).float()
        assert numbers.shape == tensor.shape
        if tensor.dim() == 1:
            assert stored == "F32" and torch.equal(numbers, tensor), name
        elif tensor.shape[-1] % 32 or kind == "f16":
            assert stored == "F16" and torch.equal(numbers, tensor.half().float()), name
        else:
            # Half a step and what rounding d to float16 moves the largest whole number by; Q4_0 has -8 .. 7, so the
            # far end may miss by a whole step.
            assert stored == ("Q8_0" if kind == "q8_0" or name == "model.embed_tokens.weight" else "Q4_0")
            largest = tensor.reshape(-1, 32).abs().amax(1, keepdim=True)
            step, half = (largest / 127, 0.5) if stored == "Q8_0" else (largest / 8, 1.0)
            gap = (numbers - tensor).reshape(-1, 32).abs()
            assert (gap <= half * step + largest * 2**-11 + 1e-7).all() and gap.max() > 0, name
    config = right.config
    assert fields["general.architecture"] == "llama" and fields["llama.rope.dimension_count"] == config.head_dim
    assert fields["llama.attention.head_count_kv"] == config.num_key_value_heads
    assert fields["llama.rope.freq_base"] == config.rope_theta and fields["llama.vocab_size"] == config.vocab_size
    assert fields["general.file_type"] == {"f16": 1, "q8_0": 7, "q4_0": 2}[kind]


def test_rotary_factors_as_llama_cpps_converter_computes_them(runs):
    """Its formula, pair by pair, in doubles; ours are quotients of two float32."""
    config = merged(runs["odd"]).config
    scaling, window = config.rope_scaling, config.rope_scaling.original_max_position_embeddings
    right = []
    for pair in range(config.head_dim // 2):
        wavelength = 2 * math.pi * config.rope_theta ** (2 * pair / config.head_dim)
        if wavelength < window / scaling.high_freq_factor:
            right.append(1.0)
        elif wavelength > window / scaling.low_freq_factor:
            right.append(scaling.factor)
        else:
            smooth = window / wavelength - scaling.low_freq_factor
            smooth /= scaling.high_freq_factor - scaling.low_freq_factor
            right.append(1 / ((1 - smooth) / scaling.factor + smooth))
    factors = rope_factors(config)
    numpy.testing.assert_allclose(factors, right, rtol=1e-5)
    assert factors.dtype == numpy.float32 and len(set(right)) > 1


def test_untied_biased_and_unstretched(runs, tmp_path):
    base = write_base(tmp_path / "base", **WHOLE, tie_word_embeddings=False, attention_bias=True, mlp_bias=True,
                      rope_parameters={"rope_type": "default", "rope_theta": 10000.0})
    run = make_run(tmp_path / "run", runs["trained"], base)
    export(run, "gguf-q4_0", tmp_path / "out")
    _, found = read(file_in(tmp_path / "out"))
    assert "rope_freqs.weight" not in found
    assert (found["output.weight"][0], found["token_embd.weight"][0]) == ("Q8_0", "Q4_0")
    tensors = merged(run)
    for part in ("q_proj", "k_proj", "v_proj"):
        name = f"model.layers.1.self_attn.{part}.bias"
        assert torch.equal(found[gguf_name(name)][1], turned(name, tensors[name], tensors.config))


# ---- what can go wrong


def test_without_the_package(runs, tmp_path, monkeypatch):
    for name in ("gguf", "tools.export.gguf_file", "tools.export.vocabulary"):
        monkeypatch.setitem(sys.modules, name, None) if name == "gguf" else monkeypatch.delitem(sys.modules, name)
    said = here("tools.export", "--run", runs["whole"], "--to", "gguf-f16", "--out", tmp_path / "out", cwd=tmp_path,
                code=2)
    assert "--to gguf-f16: needs the package gguf (extra 'gguf'): pip install" in said
    assert list(tmp_path.iterdir()) == []


def test_weights_beyond_float16_leave_nothing_behind(tmp_path):
    base = write_base(tmp_path / "base", **WHOLE)
    state = random_model(**WHOLE).state_dict()
    state["model.layers.1.mlp.up_proj.weight"][3, 4] = 70000.0
    save_file(state, base / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match=r"tensor model\.layers\.1\.mlp\.up_proj\.weight: holds 70000; float16"):
        write_gguf(MergedTensors(base), base, tmp_path / "out" / "a.gguf", "q8_0")
    assert list((tmp_path / "out").iterdir()) == []
