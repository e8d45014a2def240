"""From the files of a checkpoint to `(name, tensor)` pairs, strictly: what is missing, strange or lying has a name.

A Hugging Face folder holds `model.safetensors`, or shards with `model.safetensors.index.json`, whose `weight_map` says
which file holds which tensor. safetensors files are memory maps: a tensor costs memory when it is read, and the reader
asks for one at a time. Pickles can run code when they are opened, so none is opened here.
"""

from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from common.errors import UserError, closest
from common.files import read_json
from model.config import LlamaConfig

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_PICKLES = ("*.bin", "*.pth", "*.pt", "*.pkl", "*.ckpt")


def find_shards(folder: str | Path) -> dict[Path, list[str] | None]:
    """The files that hold a checkpoint's tensors and the names that the index places in each (`None`: all it has)."""
    folder = Path(folder)
    if (folder / INDEX).exists():
        return _from_index(folder)
    if (folder / SINGLE).exists():
        return {folder / SINGLE: None}
    pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if pickles:
        raise UserError(f"{folder}: holds {pickles[0]}, a pickle, which is not opened because it can run code; "
                        "convert it to safetensors first")
    raise UserError(f"{folder}: holds neither {SINGLE} nor {INDEX}; a Hugging Face checkpoint folder was expected")


def _from_index(folder: Path) -> dict[Path, list[str] | None]:
    path = folder / INDEX
    index = read_json(path)
    mapping = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(mapping, dict) or not mapping:
        raise UserError(f"{path}: weight_map is missing or empty; it maps each tensor's name to a file")
    shards: dict[Path, list[str] | None] = {}
    for name, file in mapping.items():
        if not isinstance(file, str) or Path(file).name != file or file in (".", ".."):
            raise UserError(f"{path}: {name}: file {file!r} is not a plain name inside the folder; an index may not "
                            "point elsewhere")
        shards.setdefault(folder / file, []).append(name)
    for file in shards:
        if not file.exists():
            raise UserError(f"{file}: is missing, although {INDEX} places {len(shards[file])} tensors in it")
    return shards


def expected_shapes(model: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    """Every tensor that the dense model needs, by its checkpoint name."""
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def read_weights(folder: str | Path, config: LlamaConfig, expected: dict[str, tuple[int, ...]]
                 ) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield every expected tensor once, file by file, layer 2 before layer 10, each a view of the memory map.

    Raises `UserError` before the first for files that are not safetensors and tensors that are missing, unknown, not
    where the index says, of another shape or not floating point; and, as they come, for tensors with a value that is
    infinite or not a number.
    """
    shards = find_shards(folder)
    handles = {path: _open(path) for path in shards}
    owner = _check(folder, shards, handles, config, expected)
    tied = config.tie_word_embeddings
    for path, handle in handles.items():
        for name in sorted(handle.keys(), key=_natural):
            if owner.get(name) != path:
                continue  # derived (checked above)
            tensor = handle.get_tensor(name)
            _check_values(path, name, tensor)
            if tied and name == "lm_head.weight":
                _check_tied(path, tensor, handles, owner)
                continue
            yield name, tensor


def _natural(name: str) -> tuple:
    """Layer 2 before layer 10."""
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in name.split("."))


def _open(path: Path):
    try:
        with open(path, "rb") as handle:
            head = handle.read(64)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    # A safetensors header begins with { at byte 8; its length, in front, may begin with any bytes, also a pickle's.
    if head[8:9] != b"{" and (head[:4] == b"PK\x03\x04" or head[:1] == b"\x80"):
        raise UserError(f"{path}: is a pickle under the name of a safetensors file; it is not opened")
    if head.startswith(b"version https://git-lfs"):
        raise UserError(f"{path}: is a git-lfs pointer, not the weights; run `git lfs pull` in that folder")
    try:
        return safe_open(path, framework="pt", device="cpu")
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path}: is not a whole safetensors file ({error}); download it again") from error


def _check(folder, shards, handles, config, expected) -> dict[str, Path]:
    """Which file each tensor is read from, after holding all names, shapes and dtypes against `expected`."""
    owner: dict[str, Path] = {}
    for path, names in shards.items():
        there = set(handles[path].keys())
        for name in there if names is None else names:
            if name not in there:
                raise UserError(f"{path}: tensor {name} is not in it, although {INDEX} says so")
            owner[name] = path
        if names is not None and there - set(names):
            extra = min(there - set(names))
            raise UserError(f"{path}: tensor {extra} is in it, but {INDEX} does not place it there")
    for name, path in list(owner.items()):
        if name.endswith("rotary_emb.inv_freq"):  # derived from config.json; old exporters wrote it
            del owner[name]
            continue
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue  # compared with the embedding when it is read
        if name not in expected:
            raise UserError(f"{path}: unknown tensor {name}{closest(name, expected)}; config.json describes no such "
                            "weight")
        view = handles[path].get_slice(name)
        if tuple(view.get_shape()) != expected[name]:
            raise UserError(f"{path}: tensor {name} has shape {tuple(view.get_shape())}; config.json means "
                            f"{expected[name]}")
        if view.get_dtype() not in ("F32", "F16", "BF16", "F64"):
            raise UserError(f"{path}: tensor {name} has dtype {view.get_dtype()}; F32, F16 or BF16 was expected")
    missing = [name for name in expected if name not in owner]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UserError(f"{folder}: tensor {missing[0]}{more} is in none of its files; config.json asks for it")
    return owner


def _check_values(path: Path, name: str, tensor: torch.Tensor) -> None:
    if tensor.numel() and not all(torch.isfinite(bound) for bound in tensor.aminmax()):
        raise UserError(f"{path}: tensor {name} holds values that are infinite or not a number; the file is damaged")


def _check_tied(path: Path, head: torch.Tensor, handles, owner) -> None:
    name = "model.embed_tokens.weight"
    if not torch.equal(head, handles[owner[name]].get_tensor(name)):
        raise UserError(f"{path}: lm_head.weight differs from {name}, although config.json ties them; set "
                        "tie_word_embeddings to false if both are meant")
