"""Our logits against golden files made by `tests/model/make_golden` from transformers; no transformers needed here.

Deliberate break: swap `first` and `second` in `model/rope.py: rotate`, and every case turns red.
"""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from loading import load_model
from tests.tiny import GOLDEN_CASES

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("name", GOLDEN_CASES)
def test_logits_equal_the_golden_file(tmp_path, name):
    with safe_open(GOLDEN / f"{name}.safetensors", framework="pt") as file:
        assert {"versions", "seed", "config"} <= set(file.metadata())
        (tmp_path / "config.json").write_text(file.metadata()["config"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - safe_open is no dict
    weights = {key.removeprefix("weights/"): value for key, value in tensors.items() if key.startswith("weights/")}
    save_file(weights, tmp_path / "model.safetensors")
    model = load_model(tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(model(tensors["ids"]), tensors["logits"], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", GOLDEN_CASES)
def test_golden_configs_are_those_of_the_cases(name):
    with safe_open(GOLDEN / f"{name}.safetensors", framework="pt") as file:
        config = json.loads(file.metadata()["config"])
    for key, value in GOLDEN_CASES[name].items():
        assert config[key] == value, key
