"""The streaming writer: what safetensors itself reads back, whatever the order of writing; whole, or not there.

Deliberate break: sort the places by name alone in `common/safetensors_writer.py` (numbers then begin at odd bytes and
reading fails), or leave `if missing` out; cases below turn red.
"""

import json
import random

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from common.errors import UserError
from common.safetensors_writer import ALIGNED, safetensors_writer

TENSORS = {
    "b.odd": torch.arange(7, dtype=torch.uint8),
    "a.half": torch.randn(3, 5).half(),
    "c.brain": torch.randn(2, 3, 1).bfloat16(),
    "d.scalar": torch.tensor(2.5),
    "e.wide": torch.randn(3, dtype=torch.float64),
    "f.empty": torch.empty(0, 4),
    "g.late é\"": torch.arange(13, dtype=torch.uint8),
    "h.late": torch.empty(0, dtype=torch.uint8),
    "i.transposed": torch.randn(4, 6).t(),
}
LAYOUT = {name: (tensor.dtype, None if "late" in name else tuple(tensor.shape)) for name, tensor in TENSORS.items()}


@pytest.mark.parametrize("seed", range(5))
def test_what_is_put_in_any_order_is_read_back(tmp_path, seed):
    names = random.Random(seed).sample(list(TENSORS), len(TENSORS))
    with safetensors_writer(tmp_path / "m", LAYOUT) as put:
        for name in names:
            put(name, TENSORS[name])
    found = load_file(tmp_path / "m")
    assert found.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert found[name].dtype == tensor.dtype and found[name].shape == tensor.shape
        assert torch.equal(found[name], tensor)
    with safe_open(tmp_path / "m", "pt") as handle:
        assert handle.metadata() == {"format": "pt"}


def test_data_begin_at_a_cache_line_and_wide_dtypes_lie_in_front(tmp_path):
    with safetensors_writer(tmp_path / "m", LAYOUT) as put:
        for name, tensor in TENSORS.items():
            put(name, tensor)
    data = (tmp_path / "m").read_bytes()
    size = int.from_bytes(data[:8], "little")
    assert (8 + size) % ALIGNED == 0
    header = json.loads(data[8 : 8 + size])
    places = {name: header[name]["data_offsets"][0] for name in TENSORS}
    assert all(begin % TENSORS[name].element_size() == 0 for name, begin in places.items())
    assert max(places, key=places.get).split(".")[0] in ("g", "h")


@pytest.mark.parametrize("name, tensor", [
    ("x", torch.zeros(2)), ("a", torch.zeros(3)), ("a", torch.zeros(2, dtype=torch.float16)), ("a", torch.zeros(1, 2)),
])
def test_what_has_no_place_is_an_error_and_no_file_is_left(tmp_path, name, tensor):
    with pytest.raises(ValueError, match="no place"), safetensors_writer(
            tmp_path / "m", {"a": (torch.float32, (2,))}) as put:
        put(name, tensor)
    assert not list(tmp_path.iterdir())


def test_twice_and_never(tmp_path):
    layout = {"a": (torch.float32, (2,)), "b": (torch.float32, (1,))}
    with pytest.raises(ValueError, match="no place"), safetensors_writer(tmp_path / "m", layout) as put:
        put("a", torch.zeros(2))
        put("a", torch.zeros(2))
    with pytest.raises(ValueError, match="b was not put"), safetensors_writer(tmp_path / "m", layout) as put:
        put("a", torch.zeros(2))
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"), safetensors_writer(tmp_path / "file" / "m", {}):
        pass
