"""Files that are either whole or absent, and hashes that say which bytes were used."""

import glob
import hashlib
import json
import os
import sys
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from common.errors import UserError, behind
from common.leftovers import beside, clear, meant, patiently, put_folder, remove
from common.reading import check_path, open_plain, open_to_write
from common.reading import read_json as read_json
from common.reading import read_toml as read_toml

ROOT = Path(__file__).resolve().parents[1]  # of the project: where train.py, base/ and the sample posts are
PICTURES = (".png", ".svg", ".pdf")  # what report.figures.save writes


def find_path(path: str | Path) -> Path:
    """A path as the user wrote it, or, for what the project ships, seen from the project's root.

    Raises `UserError` for a path that no file can have.
    """
    for place in (Path(path), ROOT / path):
        check_path(place)
        if place.exists():
            return place
    return Path(path)


def matching(name: str) -> list[Path]:
    """The files that a pattern means, in order: a shell of Windows leaves that to the program. None where `name` is no
    pattern, or there is something of that very name."""
    if not glob.has_magic(name) or find_path(name).exists():
        return []
    return sorted(Path(file) for file in glob.glob(name, recursive=True) if os.path.isfile(file))


def place_key(path: str | Path) -> str:
    """The same text for two paths that may mean one place: macOS and Windows take `Posts.csv` and `posts.csv` for one
    name, and macOS both ways to write an accent. Paths are compared so on every system: what they name may move."""
    return unicodedata.normalize("NFC", str(Path(path).resolve()).casefold())


@contextmanager
def atomic_write(path: str | Path, mode: str = "w") -> Iterator:
    """Open a file beside `path`; on success sync and rename it over `path`, on any error remove it."""
    path = Path(path)
    new = beside(path)
    try:
        with _opened(new, path, mode) as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        patiently(os.replace, new, path)
    except (OSError, RuntimeError) as error:  # PyTorch's writer of checkpoints hides both kinds in a RuntimeError
        if stop := behind(error, KeyboardInterrupt):
            raise stop from None
        said = behind(error, OSError)
        if said is None:
            raise
        raise UserError(f"{meant(path)}: could not be written whole ({said.strerror or said}); nothing was left behind"
                        ) from error
    finally:
        with suppress(OSError):  # no such file, as a rule
            new.unlink()


def _opened(new: Path, path: Path, mode: str):
    """The file that is to become `path`, open."""
    check_replaceable(path, meant(path))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        clear(path.parent, path.name)
        return open_to_write(new, mode)
    except OSError as error:
        raise UserError(f"{meant(path)}: cannot be written ({error.strerror}); choose another place") from error


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Fill a folder beside `path`; on success put it in the place of `path`, on any error remove it.

    Whenever the process is killed, `path` is the old or the new folder; or, where the system cannot swap two names, it
    is away, and the next call, or the next `check_place`, puts the old one back.
    """
    path = Path(path)
    new = beside(path)
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            clear(path.parent, path.name)
            remove(new)  # what this very process could not remove before
            new.mkdir()
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error.strerror}); choose another place") from error
        yield new
        put_folder(new, path)
    except OSError as error:
        raise UserError(f"{path}: could not be written whole ({error.strerror}); nothing was left behind") from error
    finally:
        with suppress(OSError):
            remove(new)


@contextmanager
def making(folder: str | Path) -> Iterator[None]:
    """Make a folder; at the block's end, those that were made for it and hold nothing go again."""
    folder = Path(folder)
    made = [one for one in (folder, *folder.parents) if not one.exists()]
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{folder}: cannot be written ({error.strerror}); choose another place") from error
        yield
    finally:
        with suppress(OSError):  # the first that is not empty ends it
            for one in made:
                if one.exists():
                    one.rmdir()


@contextmanager
def scratch_folder(path: str | Path) -> Iterator[Path]:
    """A folder beside `path` for the block alone; one that a killed program left there goes first."""
    path = Path(path)
    new = beside(path)
    clear(path.parent, path.name)
    with suppress(OSError):
        remove(new)  # what has this very name is not this process's: perhaps a link to somewhere else
    with making(new):
        try:
            yield new
        finally:
            with suppress(OSError):
                remove(new)


def check_place(path: str | Path, option: str) -> None:
    """Raise `UserError` naming `option` where `path` could not be made: before hours of work, not after them.

    What a program that was killed on its way there has left is cleared up first.
    """
    path = Path(path)
    check_path(path)
    check_replaceable(path, f"{option} {path}")
    check_closed(path, f"{option} {path}")
    if path.exists() and path.samefile(Path.cwd()):  # and nothing is renamed into its place
        raise UserError(f"{option} {path}: is the working folder itself; name a place in it")
    clear(path.parent, path.name)
    there = next((parent for parent in path.absolute().parents if parent.exists()), path.absolute())  # "/" has none
    if not there.is_dir():
        raise UserError(f"{option} {path}: {there} is a file, so nothing can be put into it; choose another place")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"{option} {path}: {there} is not writable; choose another place")


def check_replaceable(path: Path, named: str) -> None:
    """Raise `UserError` where `path` is a pipe or a device, such as /dev/null: a file that is renamed over it takes it
    from all programs of the machine."""
    if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
        raise UserError(f"{named}: is a pipe or a device, which a file would replace; name a plain file")


def check_closed(path: Path, named: str) -> None:
    """Raise `UserError` where another program, such as a spreadsheet, has a file open that is to be replaced, or one of
    a folder's. Windows refuses to rename such a file, even to the name that it has; no other system does."""
    if sys.platform != "win32":
        return
    files = [path]
    with suppress(OSError):  # a folder that may not be listed
        files = [one for one in (path.iterdir() if path.is_dir() else files) if one.is_file()]
    for one in files:
        try:
            patiently(os.rename, one, one)
        except PermissionError as error:
            raise UserError(f"{named}: another program has {one.name} open; close it there, or choose another place"
                            ) from error
        except OSError:  # none is there
            pass


def check_file(path: str | Path | None, option: str, others: Mapping[str, str | Path | None] | None = None) -> None:
    """`check_place` for a file, if one was given: a folder in its place is refused, and the file of another option.

    `others`: the files that are read or written besides, by option; None is one that was not given.
    """
    if not path:
        return
    check_place(path, option)
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{option} {path}: is a folder; name a file")
    for name, other in (others or {}).items():
        if other is not None and place_key(other) == place_key(path):
            raise UserError(f"{option} {path}: is the file of {name}, too; choose another name")


def check_picture(path: str | Path | None, others: Mapping[str, str | Path | None] | None = None) -> None:
    """`check_file` for `--figure`; a name that ends in none of `PICTURES` is refused as well."""
    if path and Path(path).suffix not in PICTURES:
        raise UserError(f"--figure {path}: has no known format; give it a name with {', '.join(PICTURES)}")
    check_file(path, "--figure", others)


def write_json(path: str | Path, value) -> None:
    """Write `value` as indented UTF-8 JSON, whole or not at all; NaN is refused, since JSON has none."""
    with atomic_write(path) as handle:
        json.dump(value, handle, ensure_ascii=False, indent=2, allow_nan=False)
        handle.write("\n")


def sync_folder(folder: Path) -> None:
    """Put the names in a folder on the disk, where the system lets a folder be opened."""
    with suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


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
