"""What is kept between starts: 4-bit copies of 16-bit checkpoints, and hashes of files.

    DIR/nf4-KEY/       a checkpoint folder as bitsandbytes and transformers write it (`quant.stored`), and made.json,
    DIR/nf4-double-KEY/    which records what it was made from, and size and time of its files
    DIR/hashes.json    file -> size, times and inode at the time, SHA-256

KEY is a hash over the SHA-256 of every file that the copy was made from, so a changed source gets another key, and a
moved one keeps its key. Hashing gigabytes takes seconds, so hashes are remembered, and trusted as long as the file's
size, inode and times (to the nanosecond) are unchanged; the time of the last change (ctime) cannot be set back.

A copy is written under another name and renamed at the end, so it is complete or absent. If its files are missing, or
differ in size or time from when they were written, it has been damaged or changed; it is then made again, and a line
says so. Nothing is lost, because a copy only repeats its source. DIR may be deleted at any time.
"""

import time
from pathlib import Path

from common.errors import UserError
from common.files import atomic_folder, check_place, read_json, sha256_file, sha256_json, write_json
from common.leftovers import clear
from common.terminal import progress
from loading.meta import is_meta
from loading.weights import checkpoint_files, expected_shapes, read_weights
from model.config import LlamaConfig
from model.llama import LlamaForCausalLM
from quant.convert import dense_linears
from quant.stored import write_stored

FORMAT = 1  # of the copies; another number makes all of them again
FILES = ("config.json", "model.safetensors")
SETTLED = 2.0  # seconds; some file systems have clocks this coarse, so a second change may carry the same time


def weights_sha256(folder: str | Path, cache: str | Path | None = None) -> dict[str, str]:
    """SHA-256 of every file that decides what the base computes; with `cache` those of unchanged files are remembered.

    Raises `UserError` if there is no checkpoint or the cache cannot be written.
    """
    paths = checkpoint_files(folder)
    known = {} if cache is None else _known(Path(cache))
    before, digests = dict(known), {}
    with progress(len(paths), "file", "hashing", delay=2) as bar:
        for path in paths:
            digests[path.name] = sha256_file(path) if cache is None else _remembered(path, known)
            bar.update()
    if known != before:
        check_place(Path(cache) / "hashes.json", "--cache")
        write_json(Path(cache) / "hashes.json", known)
    return digests


def _known(cache: Path) -> dict[str, list]:
    try:
        known = read_json(cache / "hashes.json")
    except UserError:
        return {}  # not there yet, or damaged: everything is hashed once more
    return known if isinstance(known, dict) else {}


def _remembered(path: Path, known: dict[str, list]) -> str:
    """The file's SHA-256, from `known` if it is the same file in the same state; else computed, and recorded there."""
    now, state, key = time.time(), _state(path), str(path.resolve())
    entry = known.get(key)
    if isinstance(entry, list) and len(entry) == 2 and entry[0] == state and isinstance(entry[1], str):
        return entry[1]
    digest = sha256_file(path)
    known.pop(key, None)
    if _state(path) == state and now - max(state[1:3]) / 1e9 > SETTLED:
        known[key] = [state, digest]
    return digest


def _state(path: Path) -> list[int]:
    try:
        found = path.stat()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def quantised_copy(folder: Path, config: LlamaConfig, cache: str | Path, *, double: bool) -> Path:
    """The folder that holds the 16-bit checkpoint `folder` in 4 bits; made now unless it is there and complete.

    Raises `UserError` for weights that cannot be quantised, and if `cache` cannot be written.
    """
    cache, mode = Path(cache), "nf4-double" if double else "nf4"
    check_place(cache / "hashes.json", "--cache")
    described = config.to_dict() if is_meta(folder) or folder.is_file() else read_json(folder / "config.json")
    key = sha256_json([FORMAT, mode, weights_sha256(folder, cache), described])[:24]
    copy = cache / f"{mode}-{key}"
    if not _whole(copy):
        clear(cache)  # copies that a killed program left half-made, of this base or another
        print(f"  {copy}: {'was damaged or changed, so it is' if copy.exists() else 'is'} made from {folder}, once")
        with atomic_folder(copy) as beside:
            _write(folder, config, described, beside, double)
            files = {name: _state(beside / name)[:2] for name in FILES}
            write_json(beside / "made.json", {"format": FORMAT, "from": str(folder.resolve()), "files": files})
    return copy


def _whole(copy: Path) -> bool:
    """Whether the copy is as it was when it was written."""
    try:
        return read_json(copy / "made.json")["files"] == {name: _state(copy / name)[:2] for name in FILES}
    except (UserError, TypeError, KeyError):
        return False


def _write(folder: Path, config: LlamaConfig, described: dict, beside: Path, double: bool) -> None:
    model = LlamaForCausalLM.empty(config)
    expected = expected_shapes(model)
    weights = read_weights(folder, config, expected)
    linears = {f"{name}.weight" for name in dense_linears(model)}
    layout = {name: weights.form(name) for name in expected}
    try:
        write_stored(beside, described, layout, linears, weights.read(unchecked=linears), double=double)
    except UserError as error:
        raise UserError(f"{folder}: tensor {error}") from error
