"""Files that are either whole or absent, and hashes that say which bytes were used."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.errors import UserError
from common.reading import check_path, open_plain
from common.reading import read_json as read_json
from common.reading import read_toml as read_toml

ROOT = Path(__file__).resolve().parents[1]  # of the project: where train.py, base/ and the sample posts are


def find_path(path: str | Path) -> Path:
    """A path as the user wrote it, or, for what the project ships, seen from the project's root.

    Raises `UserError` for a path that no file can have.
    """
    for place in (Path(path), ROOT / path):
        check_path(place)
        if place.exists():
            return place
    return Path(path)


@contextmanager
def atomic_write(path: str | Path, mode: str = "w") -> Iterator:
    """Open a file beside `path`; on success sync and rename it over `path`, on any error remove it."""
    path = Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
        handle = open(beside, mode, **text)  # noqa: SIM115 - closed below, in a block of its own
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); choose another place") from error
    try:
        with handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(beside, path)
    except OSError as error:
        raise UserError(f"{path}: could not be written whole ({error.strerror}); nothing was left behind") from error
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Fill a folder beside `path`; on success put it in the place of `path`, on any error remove it."""
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); choose another place") from error
    try:
        beside.chmod(0o755)
        yield beside
        if path.exists():
            old = beside.with_suffix(".old")
            os.replace(path, old)
            os.replace(beside, path)
            shutil.rmtree(old)
        else:
            os.replace(beside, path)
    except OSError as error:
        raise UserError(f"{path}: could not be written whole ({error.strerror}); nothing was left behind") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def check_place(path: str | Path, option: str) -> None:
    """Raise `UserError` naming `option` where `path` could not be made: before hours of work, not after them."""
    path = Path(path)
    check_path(path)
    there = next(parent for parent in path.absolute().parents if parent.exists())
    if not there.is_dir():
        raise UserError(f"{option} {path}: {there} is a file, so nothing can lie in it; choose another place")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"{option} {path}: {there} may not be written to; choose another place")


def write_json(path: str | Path, value) -> None:
    """Write `value` as indented UTF-8 JSON, whole or not at all; NaN is refused, since JSON has none."""
    with atomic_write(path) as handle:
        json.dump(value, handle, ensure_ascii=False, indent=2, allow_nan=False)
        handle.write("\n")


def sha256_file(path: str | Path) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits; a file that cannot be read is a `UserError`."""
    try:
        with open_plain(path) as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error


def sha256_json(value) -> str:
    """SHA-256 of a value's canonical JSON (sorted keys, no spaces): equal values have equal hashes."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
