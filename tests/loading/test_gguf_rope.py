"""Llama 3's scaled rope, of which a GGUF file has the effect alone: its numbers are found again, others are refused.

Deliberate break: in `loading/gguf.py`, let `find_scaling` return its first numbers without a look at `factors`, or fit
without `window`; tests below turn red.
"""

import dataclasses

import pytest
import torch

from common.errors import UserError
from loading import load_model
from loading.gguf import find_scaling
from loading.weights import read_config
from model.config import LlamaConfig, RopeScaling
from model.rope import inverse_frequencies
from tests.loading.gguf import LLAMA3, ROPE, SIZES, factors, model_of, write_llama

SCALINGS = [(32.0, 1.0, 4.0, 8192, 500000.0, 64), (8.0, 1.0, 4.0, 8192, 500000.0, 128), (8.0, 1.0, 4.0, 64, 10000.0, 8),
            (4.0, 1.0, 8.0, 3000, 10000.0, 128), (16.0, 2.0, 5.0, 10000, 500000.0, 128),
            (2.5, 1.0, 2.0, 1024, 100000.0, 96)]  # fmt: skip


@pytest.mark.parametrize("case", SCALINGS)
def test_llama_3s_scaling_is_found_again(case):
    *numbers, theta, head_dim = case
    plain = LlamaConfig.from_dict({"model_type": "llama", **SIZES, "head_dim": head_dim, "rope_theta": theta})
    scaled = dataclasses.replace(plain, rope_scaling=RopeScaling(*numbers))
    for window in (None, numbers[3]):
        found = find_scaling(factors(scaled), plain, window)
        assert found.pop("rope_type") == "llama3"
        again = RopeScaling(**found)
        torch.testing.assert_close(inverse_frequencies(dataclasses.replace(plain, rope_scaling=again)),
                                   inverse_frequencies(scaled), rtol=1e-4, atol=0)
        if numbers[1] == 1.0 or window:  # else only the quotients to it are in the file
            assert tuple(vars(again).values()) == tuple(numbers)
        elif len(factors(scaled)[(factors(scaled) > 1) & (factors(scaled) < numbers[0])]) > 1:
            assert again.high_freq_factor == pytest.approx(numbers[2] / numbers[1], rel=1e-3)


def test_another_scaling_is_refused(tmp_path):
    model, plain = model_of(rope_parameters=LLAMA3), model_of().config
    right = factors(model.config)
    for wrong in (right.flip(0), right * 2, torch.linspace(1, 32, 32), right.sqrt(), torch.full((32,), torch.nan),
                  torch.full((32,), 4.0), torch.full((32,), torch.inf), torch.zeros(32), -right):  # fmt: skip
        assert find_scaling(wrong, plain) is None
        path = write_llama(tmp_path / "m", model, more={ROPE: wrong})
        with pytest.raises(UserError, match="does not divide the rotary frequencies as Llama 3 does"):
            read_config(path)
    path = write_llama(tmp_path / "m", model, more={ROPE: right[:16]})
    with pytest.raises(UserError, match=r"rope_freqs.weight: is F32 \(16,\); F32 \(32,\) was expected"):
        load_model(path)
    assert read_config(write_llama(tmp_path / "m", model, more={ROPE: torch.ones(32)})).rope_scaling is None
    bare = write_llama(tmp_path / "m", model, leave_out=(ROPE,))
    assert read_config(bare).rope_scaling is None
    assert read_config(bare, LLAMA3 | {"rope_theta": 10000.0}).rope_scaling.factor == 32
