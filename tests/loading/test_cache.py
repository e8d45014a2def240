"""What is kept between starts: the same model from the map of a copy, made anew where it must be; hashes remembered.

Deliberate break: leave the files' times out of `cache._state`, let `cache._whole` always say yes, or `copy=not kept`
out of `assemble.load_model`; cases below turn red.
"""

import json
import os
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from common.errors import UserError
from common.files import sha256_file
from common.lock import Owner
from loading import cache, load_model
from loading.cache import weights_sha256
from tests.quant.stored import edit_tensors
from tests.small import here, posts, write_base, write_jsonl

IDS = torch.arange(40).view(2, 20)
MODES = ["nf4", "nf4-double"]


@pytest.fixture
def base(tmp_path, monkeypatch):
    """A small base whose files are old enough to be remembered, and a folder for what is kept."""
    monkeypatch.setattr(cache, "SETTLED", -1.0)
    return write_base(tmp_path / "base", tie_word_embeddings=False), tmp_path / "kept"


@torch.no_grad()
def logits(folder, quantize="nf4", **words):
    return load_model(folder, quantize=quantize, **words)(IDS)


def copies(kept: Path) -> list[Path]:
    return sorted(path for path in kept.iterdir() if path.is_dir())


def forbid(monkeypatch):
    """From here on nothing is quantised and no file is hashed."""
    def fail(*_):
        raise AssertionError("done once more")

    for where in ("quant.stored.quantize_nf4", "quant.linear.quantize_nf4", "loading.cache.sha256_file"):
        monkeypatch.setattr(where, fail)


@pytest.mark.parametrize("quantize", MODES)
def test_the_second_start_quantises_and_hashes_nothing(base, capsys, monkeypatch, quantize):
    folder, kept = base
    plain = logits(folder, quantize)
    assert torch.equal(logits(folder, quantize, cache=kept), plain)
    assert f"made from {folder}, once" in capsys.readouterr().out
    forbid(monkeypatch)
    assert torch.equal(logits(folder, quantize, cache=kept), plain)
    assert not capsys.readouterr().out
    assert len(copies(kept)) == 1 and copies(kept)[0].name.startswith(f"{quantize}-")


def mapped(tensor: torch.Tensor) -> str:
    """The file whose memory map holds the tensor, or ""."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        place, *_, file = line.split(maxsplit=5) if line.count("/") else (*line.split()[:5], "")
        first, last = (int(end, 16) for end in place.split("-"))
        if first <= tensor.data_ptr() and tensor.data_ptr() + tensor.nbytes <= last:
            return file
    return ""


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="/proc is not there to read maps from")
@pytest.mark.parametrize("quantize", MODES)
def test_tensors_are_views_of_the_map(base, quantize):
    """Packed bytes, scales, embedding and head; norms too where no other dtype is asked for."""
    folder, kept = base
    for _ in range(2):
        model = load_model(folder, quantize=quantize, cache=kept)
        tensors = dict([*model.named_parameters(), *model.named_buffers()])
        offsets = [name for name in tensors if name.endswith(".offset")]  # a number of the JSON, not a tensor
        assert len(offsets) == (14 if quantize == "nf4-double" else 0)
        for name in tensors.keys() - set(offsets):
            assert mapped(tensors[name]) == str(copies(kept)[0] / "model.safetensors"), name
    assert not mapped(load_model(folder, quantize=quantize).model.embed_tokens.weight)
    assert not mapped(load_model(copies(kept)[0]).model.layers[0].mlp.up_proj.packed)  # loaded as any folder is


def test_writing_to_a_mapped_model_leaves_the_copy_alone(base):
    folder, kept = base
    before = logits(folder, cache=kept)
    model = load_model(folder, quantize="nf4", cache=kept)
    model.model.embed_tokens.weight.zero_()
    assert torch.equal(logits(folder, cache=kept), before)


def test_a_changed_source_is_another_copy(base):
    """Same size, and the time of the change set back: the change of the inode still tells."""
    folder, kept = base
    path = folder / "model.safetensors"
    before, times = logits(folder, cache=kept), path.stat()
    data = bytearray(path.read_bytes())
    data[-3] ^= 64
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    after = logits(folder, cache=kept)
    assert torch.equal(after, logits(folder)) and not torch.equal(after, before) and len(copies(kept)) == 2


def test_a_changed_config_is_another_copy_and_a_moved_source_the_same(base, tmp_path):
    folder, kept = base
    load_model(folder, quantize="nf4", cache=kept)
    moved = folder.rename(tmp_path / "elsewhere")
    load_model(moved, quantize="nf4", cache=kept)
    assert len(copies(kept)) == 1
    path = moved / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"rms_norm_eps": 1e-2}))
    assert torch.equal(logits(moved, cache=kept), logits(moved)) and len(copies(kept)) == 2


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGES = {
    "cut": lambda copy: os.truncate(copy / "model.safetensors", 5000),
    "a bit": lambda copy: flip(copy / "model.safetensors"),
    "no weights": lambda copy: (copy / "model.safetensors").unlink(),
    "no config": lambda copy: (copy / "config.json").unlink(),
    "another config": lambda copy: (copy / "config.json").write_text("{}"),
    "no note": lambda copy: (copy / "made.json").unlink(),
    "half a note": lambda copy: (copy / "made.json").write_text('{"files": {"config'),
    "another note": lambda copy: (copy / "made.json").write_text("[1]"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_copy_is_made_anew(base, capsys, damage):
    folder, kept = base
    before = logits(folder, cache=kept)
    (copy,) = copies(kept)
    DAMAGES[damage](copy)
    capsys.readouterr()
    assert torch.equal(logits(folder, cache=kept), before)
    out = capsys.readouterr().out
    assert "was damaged or changed, so it is made" in out and out.count("\n") == 1
    assert copies(kept) == [copy] and not list(kept.glob(".*"))
    assert torch.equal(logits(folder, cache=kept), before) and not capsys.readouterr().out


def test_a_copy_that_could_not_be_finished_leaves_nothing(base, monkeypatch):
    folder, kept = base
    real, left = torch.Tensor.contiguous, [20]

    def full(tensor, *words, **more):
        left[0] -= 1
        if not left[0]:
            raise OSError(28, "No space left on device")
        return real(tensor, *words, **more)

    monkeypatch.setattr(torch.Tensor, "contiguous", full)
    with pytest.raises(UserError, match="could not be written whole"):
        load_model(folder, quantize="nf4", cache=kept)
    monkeypatch.undo()
    assert [path.name for path in kept.iterdir()] == ["hashes.json"]
    assert torch.equal(logits(folder, cache=kept), logits(folder))


def test_a_copy_that_a_killed_program_left_half_made_goes(base, capsys):
    """Also that of another base, which nobody may ever make again."""
    folder, kept = base
    dead, alive = f".nf4-0.{10**9}-1@{Owner.me().host}.partial", f".nf4-1.{Owner.me()}.partial"
    for name in (dead, alive):
        (kept / name).mkdir(parents=True)
    load_model(folder, quantize="nf4", cache=kept)
    assert [path.name for path in kept.glob(".*")] == [alive]
    assert f"{kept / dead}: removed" in capsys.readouterr().out


def test_a_weight_that_is_not_finite_is_named(base):
    folder, kept = base
    name = "model.layers.1.mlp.up_proj.weight"
    edit_tensors(folder, lambda tensors: tensors[name].view(-1).__setitem__(5, torch.inf))
    with pytest.raises(UserError, match=rf"{re.escape(str(folder))}: tensor {name}: element \[0, 5\] is inf"):
        load_model(folder, quantize="nf4", cache=kept)
    assert not copies(kept)


def test_only_what_is_quantised_from_16_bit_is_kept(base):
    folder, kept = base
    for quantize in ("stored", "none"):
        load_model(folder, quantize=quantize, cache=kept)
    assert not kept.exists()
    load_model(folder, quantize="nf4", cache=kept)
    (copy,) = copies(kept)
    other = kept.parent / "other"
    for quantize in (*MODES, "stored"):
        load_model(copy, quantize=quantize, cache=other)
    assert not other.exists()


def test_places_that_cannot_hold_a_cache(base):
    folder, kept = base
    kept.write_text("")
    with pytest.raises(UserError, match="is a file, so nothing can be put into it"):
        load_model(folder, quantize="nf4", cache=kept)
    with pytest.raises(UserError, match="is a file, so nothing can be put into it"):
        weights_sha256(folder, kept)


def test_hashes_are_those_of_the_files_and_remembered(base, monkeypatch):
    folder, kept = base
    right = {name: sha256_file(folder / name) for name in ("config.json", "model.safetensors")}
    assert weights_sha256(folder) == right == weights_sha256(folder, kept)
    forbid(monkeypatch)
    assert weights_sha256(folder, kept) == right
    with pytest.raises(AssertionError):
        weights_sha256(folder)


@pytest.mark.parametrize("content", ["{", "[]", '{"a": 1}', "7"])
def test_damaged_hashes_are_hashed_anew(base, content):
    folder, kept = base
    right = weights_sha256(folder, kept)
    (kept / "hashes.json").write_text(content)
    assert weights_sha256(folder, kept) == right
    entry = str((folder / "config.json").resolve())
    for bad in (None, [], [1, 2], [cache._state(folder / "config.json"), 5]):
        (kept / "hashes.json").write_text(json.dumps({entry: bad}))
        assert weights_sha256(folder, kept) == right


def test_a_file_that_has_just_changed_is_not_remembered(base, monkeypatch):
    folder, kept = base
    monkeypatch.setattr(cache, "SETTLED", 60.0)
    weights_sha256(folder, kept)
    assert not kept.exists()
    monkeypatch.setattr(cache, "SETTLED", -1.0)
    weights_sha256(folder, kept)
    assert len(json.loads((kept / "hashes.json").read_text())) == 2


def test_the_copy_is_a_checkpoint_folder_of_its_own(base):
    folder, kept = base
    found = logits(folder, cache=kept)
    assert torch.equal(logits(copies(kept)[0], "stored"), found)
    source, copy = load_file(folder / "model.safetensors"), load_file(copies(kept)[0] / "model.safetensors")
    for name in source.keys() & copy.keys():
        if copy[name].dtype != torch.uint8:
            assert torch.equal(source[name], copy[name])


def test_programs_with_a_cache_give_what_they_give_without(tmp_path):
    write_base(tmp_path / "base")
    write_jsonl(tmp_path / "train.jsonl", posts(24, 1))
    write_jsonl(tmp_path / "test.jsonl", posts(12, 2))
    common = ("--model", "base", "--data", "train.jsonl", "--rank", "4", "--max-steps", "3", "--threads", "1",
              "--quantize", "nf4")
    here("train.py", *common, "--out", "plain", cwd=tmp_path)
    out = here("train.py", *common, "--out", "kept", "--cache", "copies", cwd=tmp_path)
    assert "copies/nf4-" in out and len(copies(tmp_path / "copies")) == 1
    for name in ("adapter/adapter_model.safetensors",):
        assert (tmp_path / "plain" / name).read_bytes() == (tmp_path / "kept" / name).read_bytes()
    plain, kept = (json.loads((tmp_path / name / "run.json").read_text()) for name in ("plain", "kept"))
    assert plain["hashes"]["weights"] == kept["hashes"]["weights"] and kept["options"]["cache"] == "copies"
    for words in ((), ("--cache", "copies"), ("--cache", "copies")):
        here("classify.py", "--run", "kept", "--input", "test.jsonl", "--output", f"{len(words)}.jsonl", "--overwrite",
             "--threads", "1", *words, cwd=tmp_path)
        here("eval.py", "--run", "kept", "--data", "test.jsonl", "--out", f"scored-{len(words)}", "--draws", "0",
             "--threads", "1", *words, cwd=tmp_path)
    assert (tmp_path / "0.jsonl").read_bytes() == (tmp_path / "2.jsonl").read_bytes()
    one, other = ((tmp_path / f"scored-{n}" / "predictions.jsonl").read_bytes() for n in (0, 2))
    assert one == other and len(copies(tmp_path / "copies")) == 1
    flip(tmp_path / "base" / "model.safetensors")  # the cache knows the old file; the run still refuses the new one
    error = here("classify.py", "--run", "kept", "--input", "test.jsonl", "--output", "no.jsonl", "--cache", "copies",
                 cwd=tmp_path, code=2)
    assert "is not the file that kept was fine-tuned on" in error
    assert "is a file" in here("train.py", *common, "--out", "new", "--cache", "train.jsonl", cwd=tmp_path, code=2)
