"""Files that are either whole or absent, and hashes that say which bytes were used."""

import hashlib
import json
import os
import shutil
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.errors import UserError

ROOT = Path(__file__).resolve().parents[1]  # of the project: where train.py, base/ and the sample posts are


def find_path(path: str | Path) -> Path:
    """A path as the user wrote it, or, for a file that only the project has, relative to the project's root."""
    return Path(path) if Path(path).exists() else ROOT / path if (ROOT / path).exists() else Path(path)


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
    """Fill a folder beside `path`; on success move it to `path`, on any error remove it."""
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
    """Raise `UserError` naming `option` if `path` could not be made: before hours of work, not after them."""
    path = Path(path)
    there = next(parent for parent in path.absolute().parents if parent.exists())
    if not there.is_dir():
        raise UserError(f"{option} {path}: {there} is a file, so nothing can be put into it; choose another place")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"{option} {path}: {there} is not writable; choose another place")


def write_json(path: str | Path, value) -> None:
    """Write `value` as indented UTF-8 JSON, whole or not at all; NaN is refused, since JSON has none."""
    with atomic_write(path) as handle:
        json.dump(value, handle, ensure_ascii=False, indent=2, allow_nan=False)
        handle.write("\n")


def read_json(path: str | Path):
    """Read one JSON document; a missing file, bytes that are not UTF-8 and broken JSON are one-line errors."""
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: there is no such file") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text (byte {error.start}); a JSON file was expected") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: line {error.lineno}: is not JSON ({error.msg})") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; lists in lists in lists
        raise UserError(f"{path}: cannot be read as JSON ({error})") from error


def read_toml(path: str | Path) -> dict:
    """Read one TOML document (a byte order mark is skipped); what `read_json` refuses is refused here too."""
    path = Path(path)
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); a TOML file was expected") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text (byte {error.start}), as TOML must be; save it as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path}: is not TOML ({error})") from error


def sha256_file(path: str | Path) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits; a file that cannot be read is a `UserError`."""
    try:
        with open(path, "rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error


def sha256_json(value) -> str:
    """SHA-256 of a value's canonical JSON (sorted keys, no spaces): equal values have equal hashes."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
