"""From the files of a checkpoint to `(name, tensor)` pairs, strictly: whatever is missing, unknown or wrong is named.

A weight that the file holds in 4 bits comes as a packed group: its tensor and those whose names begin with its own
(`X.weight`, `X.weight.absmax`, ...), as a dict by the suffix. What they mean is defined in `quant/`.

A Hugging Face folder holds `model.safetensors`, or shards with `model.safetensors.index.json`, whose `weight_map` says
which file holds which tensor. Meta's folders are read through `loading.meta` and GGUF files through `loading.gguf`,
under the same names. All kinds of file are mapped: a tensor takes memory only when it is read, and they are read one at
a time. Pickles can run code when they are opened: only Meta's are opened, and only as plain data.
"""

import re
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from common.errors import UserError, closest
from common.files import read_json
from common.gguf import is_gguf
from common.reading import check_header, check_path, open_plain
from common.safetensors_writer import DTYPES, Form
from common.terminal import human_bytes
from loading.gguf import GGUFFiles, one_model, split_files
from loading.meta import PARAMS, MetaFiles, consolidated, is_meta
from model.config import LlamaConfig
from quant.stored import check_method

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
HEAD = "lm_head.weight"
_PICKLES = ("*.bin", "*.pth", "*.pt", "*.pkl", "*.ckpt")


def find_checkpoint(path) -> Path:
    """`path` as a folder with a config.json, or Meta's, or the GGUF file that it is or holds; else a `UserError`."""
    folder = Path(path)
    check_path(folder / "config.json")  # a folder that may not be looked into, too
    if is_gguf(folder):
        return folder
    if not folder.exists():
        raise UserError(f"{folder}: there is no such folder; give a checkpoint folder with config.json and safetensors")
    if not folder.is_dir():
        raise UserError(f"{folder}: is a file; give the folder that holds config.json and the weights, or a GGUF file")
    others = is_meta(folder) or any(folder.glob("model*.safetensors*"))
    file = None if others else one_model(folder.glob("*.gguf"), folder)
    if file is None and not (folder / "config.json").exists() and not is_meta(folder):
        raise UserError(f"{folder}: has no config.json; give a checkpoint folder, Hugging Face's (config.json, "
                        f"safetensors) or Meta's ({PARAMS}, consolidated.00.pth), or a GGUF file")
    return file or folder


def read_config(folder: str | Path, rope_scaling: dict | None = None) -> LlamaConfig:
    """The model's config, from a checkpoint; `rope_scaling` is used if the files lack it."""
    folder = find_checkpoint(folder)
    if folder.is_file():
        return GGUFFiles(folder).config(rope_scaling)
    if is_meta(folder):
        files = MetaFiles(folder)
        config, paths, described = files.config(rope_scaling), files.paths, folder / PARAMS
    else:
        described, paths = folder / "config.json", sorted(folder.glob("*.safetensors"))
        config = LlamaConfig.from_file(described, rope_scaling)
    check_sizes(config, paths, described)
    return config


def check_sizes(config: LlamaConfig, paths: list[Path], described: Path) -> None:
    """Raise `UserError` where a description means many times the bytes of its tensor files: before a model is built.

    What is less far apart is for `read_weights` to say, tensor by tensor. Without files there is nothing to compare.
    """
    there = sum(path.stat().st_size for path in paths if path.is_file())
    least = least_bytes(config)
    if there and least > 4 * there + 2**16:
        for path in paths:
            if path.suffix == ".safetensors":
                _open(path)  # says so where it is cut
        raise UserError(f"{described}: means a model of {human_bytes(least)} at the least, but the tensor files beside "
                        f"it have {human_bytes(there)}; the two are not of one model")


def least_bytes(config: LlamaConfig) -> int:
    """What the weights take at the least: two bytes each, or half a byte where the linears may be in 4 bits."""
    tables = config.vocab_size * config.hidden_size * (1 if config.tie_word_embeddings else 2)
    return int(config.linear_weights * (2 if config.quantization is None else 0.5) + 2 * tables)


def checkpoint_files(folder: str | Path) -> list[Path]:
    """Every file that decides what the model of a checkpoint computes."""
    folder = find_checkpoint(folder)
    if folder.is_file():
        return split_files(folder)
    if is_meta(folder):
        return [*consolidated(folder), folder / PARAMS]
    index = [folder / INDEX] if (folder / INDEX).exists() else []
    return sorted([*find_shards(folder), *index, folder / "config.json"])


def find_shards(folder: str | Path) -> dict[Path, list[str] | None]:
    """The files that hold a checkpoint's tensors and the names that the index places in each (`None`: all in it)."""
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
        check_path(file)
        if not file.exists():
            raise UserError(f"{file}: is missing, although {INDEX} places {len(shards[file])} tensors in it")
    return shards


def expected_shapes(model: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    """Every tensor that the dense model needs, by its checkpoint name."""
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def read_weights(folder: str | Path, config: LlamaConfig, expected: dict[str, tuple[int, ...]]) -> "Weights":
    """Open a checkpoint's files and check them, before any value is read, against the shapes that the model needs.

    Raises `UserError` for files that are not safetensors and tensors that are missing, unknown, not where the index
    says, of another shape or not floating point; for packed ones only the names are checked.
    """
    folder = Path(folder)
    if config.quantization is not None:  # first: of another method, all names of tensors are strange
        check_method(config.quantization, f"{folder / 'config.json'}: quantization_config")
    if folder.is_file():
        files, described = GGUFFiles(folder), "its metadata"
        handles, owner = dict.fromkeys(files.paths, files), {name: files.path_of(name) for name in files.names}
    elif is_meta(folder):
        files = MetaFiles(folder)
        handles, described = {files.paths[0]: files}, PARAMS
        owner = dict.fromkeys(files.keys(), files.paths[0])
    else:
        shards, described = find_shards(folder), "config.json"
        handles = {path: _open(path) for path in shards}
        owner = _owners(shards, handles)
    groups = _groups(owner, handles, expected)
    if groups and config.quantization is None:
        name = min(groups)
        raise UserError(f"{owner[name]}: tensor {name} is packed in 4 bits, but config.json has no quantization_config")
    _check(folder, handles, owner, groups, config, expected, described)
    return Weights(config.tie_word_embeddings, handles, owner, groups)


@dataclass(frozen=True)
class Weights:
    """A checkpoint's open files: `owner` maps a tensor to its file, `groups` a packed weight to its parts."""

    tied: bool
    handles: dict[Path, safe_open | MetaFiles | GGUFFiles]
    owner: dict[str, Path]
    groups: dict[str, dict[str, str]]  # packed weight -> suffix ("packed": itself) -> full name

    def tensor(self, name: str) -> torch.Tensor:
        """One tensor: a view of the memory map, or made of what is there."""
        return self.handles[self.owner[name]].get_tensor(name)

    def is_view(self, name: str) -> bool:
        """Whether `tensor(name)` lies on the memory map: true of all that is not made of a GGUF file's blocks."""
        handle = self.handles[self.owner[name]]
        return not isinstance(handle, GGUFFiles) or handle.is_view(name)

    def form(self, name: str) -> Form:
        """dtype and shape of a dense tensor, from the file's header."""
        view = self.handles[self.owner[name]].get_slice(name)
        return next(dtype for dtype, text in DTYPES.items() if text == view.get_dtype()), tuple(view.get_shape())

    def read(self, unchecked: Container[str] = ()) -> Iterator[tuple[str, torch.Tensor | dict[str, torch.Tensor]]]:
        """Yield each expected tensor or group once, file by file, layer 2 before layer 10: views of the memory map.

        Raises `UserError`, as they come, for a dense tensor with a value that is infinite or not a number, except for
        those in `unchecked`, whose values the caller checks itself.
        """
        parts = {name for group in self.groups.values() for name in group.values()}
        for path, handle in self.handles.items():
            for name in sorted(handle.keys(), key=_natural):
                if name in self.groups:
                    yield name, {part: self.tensor(whole) for part, whole in self.groups[name].items()}
                elif self.owner.get(name) == path and name not in parts:  # else derived, or part of a group
                    tensor = handle.get_tensor(name)
                    if name not in unchecked:
                        _check_values(path, name, tensor)
                    if self.tied and name == "lm_head.weight":
                        self._check_tied(tensor)
                    else:
                        yield name, tensor

    def _check_tied(self, head: torch.Tensor) -> None:
        name = "model.embed_tokens.weight"
        if not torch.equal(head, self.tensor(name)):
            raise UserError(f"{self.owner[HEAD]}: {HEAD} differs from {name}, although config.json "
                            "ties them; set tie_word_embeddings to false if both are meant")


def _natural(name: str) -> tuple:
    """Layer 2 before layer 10."""
    return tuple((int(part), "") if re.fullmatch("[0-9]{1,9}", part) else (-1, part) for part in name.split("."))


def _open(path: Path):
    with open_plain(path) as handle:
        head = handle.read(64)
    # A safetensors header begins with { at byte 8; its length, in front, may begin with any bytes, even a pickle's.
    if head[8:9] != b"{" and (head[:4] == b"PK\x03\x04" or head[:1] == b"\x80"):
        raise UserError(f"{path}: is a pickle under the name of a safetensors file; it is not opened")
    if head.startswith(b"version https://git-lfs"):
        raise UserError(f"{path}: is a git-lfs pointer, not the weights; run `git lfs pull` in that folder")
    check_header(path)
    try:
        return safe_open(path, framework="pt", device="cpu")
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path}: is not a whole safetensors file ({error}); download it again") from error


def _owners(shards, handles) -> dict[str, Path]:
    """Which file each tensor is read from; the index and the files must agree."""
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
    # derived from config.json; old exporters wrote it
    return {name: path for name, path in owner.items() if not name.endswith("rotary_emb.inv_freq")}


def _groups(owner, handles, expected) -> dict[str, dict[str, str]]:
    """The weights that are bytes, or have further tensors under longer names, each with all of its parts."""
    groups: dict[str, dict[str, str]] = {}
    for name, path in owner.items():
        head, middle, part = name.partition(".weight.")
        weight = head + middle.removesuffix(".")
        if weight in expected and weight in owner and (
                part or handles[path].get_slice(name).get_dtype() == "U8"):
            groups.setdefault(weight, {"packed": weight})
            if part:
                groups[weight][part] = name
    return groups


def _check(folder, handles, owner, groups, config, expected, described) -> None:
    """Compare all names, and shapes and dtypes of dense tensors, with `expected`."""
    parts = {name for group in groups.values() for name in group.values()}
    for name in owner:
        if name.endswith((".SCB", ".weight_format")):
            raise UserError(f"{owner[name]}: tensor {name} belongs to weights in 8 bits (LLM.int8), which are not "
                            "read; give the 16-bit model, or one in bitsandbytes' 4 bits (NF4)")
    for name, path in owner.items():
        if name in parts or (name == HEAD and config.tie_word_embeddings):
            continue  # the head is compared with the embedding when it is read
        if name not in expected:
            raise UserError(f"{path}: unknown tensor {name}{closest(name, expected)}; {described} describes no such "
                            "weight")
        view = handles[path].get_slice(name)
        if tuple(view.get_shape()) != expected[name]:
            raise UserError(f"{path}: tensor {name} has shape {tuple(view.get_shape())}; {described} calls for "
                            f"{expected[name]}")
        if view.get_dtype() not in ("F32", "F16", "BF16", "F64"):
            raise UserError(f"{path}: tensor {name} has dtype {view.get_dtype()}; F32, F16 or BF16 was expected")
    missing = [name for name in expected if name not in owner]
    if missing == [HEAD] and described != PARAMS:
        raise UserError(f"{folder}: tensor {HEAD} is in none of its files; it must be, unless {described} has "
                        "\"tie_word_embeddings\": true (a file without the key means false). Download the model again, "
                        "or add the key if its embedding is its head")
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UserError(f"{folder}: tensor {missing[0]}{more} is in none of its files; {described} calls for it")


def _check_values(path: Path, name: str, tensor: torch.Tensor) -> None:
    if tensor.numel() and not all(torch.isfinite(bound) for bound in tensor.aminmax()):
        raise UserError(f"{path}: tensor {name} holds values that are infinite or not a number; the file is damaged")
