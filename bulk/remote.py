"""Archives that lie elsewhere: `s3://`, `hf://`, `memory://` and whatever else fsspec knows, as local files.

Inputs are fetched into a local folder, `--spool`, and outputs grow there, since a file that can be gone on with after a
kill needs a disk; what is whole is then put where it belongs. What was fetched stays in the spool as long as its
address says that it is the same. Passwords and keys in an address are in no error's line, which a cluster keeps in
files that others read.
"""

import json
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from common.errors import UserError
from common.files import atomic_write
from data.inputs import is_known

SECRET = re.compile(r"(?<=://)[^/\s:]*:[^/\s]*@|(?<=https://)[^/\s]*@|(?<=\?)[^\s?=]+=[^\s)]+")
STORES = frozenset(("s3", "s3a", "gs", "gcs", "az", "abfs"))
MARK = ".fetched.json"  # beside what was fetched: which state of it that was


def is_remote(name: str | None) -> bool:
    """Whether a name is an address: `s3://bucket/a.csv`."""
    return name is not None and "://" in name


def hidden(text: str) -> str:
    """`hidden("ftp://me:word@host/a.csv?sig=b") -> "ftp://...host/a.csv?..."`."""
    return SECRET.sub("...", text)


@contextmanager
def on_this_machine(options) -> Iterator[None]:
    """Inside the block, `options.input` and `options.output` are local; behind it, what is whole has been put away.

    Raises `UserError` where fsspec or one of its packages is missing, and for what cannot be fetched or put.
    """
    given = options.input, options.output
    if not is_remote(options.output) and not any(map(is_remote, options.input)):
        yield
        return
    if is_remote(options.output) and not options.spool:
        raise UserError(hidden(f"--output {options.output}: needs --spool DIR, a folder on this machine's disk, where "
                               "the labels lie until they are whole"))
    with tempfile.TemporaryDirectory(prefix="spool-") as scratch:
        spool = Path(options.spool or scratch)
        names = []
        for name in options.input:
            found, is_one = fetch(name, spool / "inputs") if is_remote(name) else ([name], True)
            names += found
            options.means_several |= not is_one
        options.input = names
        if is_remote(given[1]):
            check_bucket(given[1])
            options.output = str(spool / "labels" / ("" if _is_folder(given[1]) else PurePosixPath(given[1]).name))
        yield
        if is_remote(given[1]) and not options.dry_run:
            put(Path(options.output), given[1])


def check_bucket(address: str) -> None:
    """Raise `UserError` where a store of objects has no such bucket: none is made, since its name may be mistyped."""
    system, path = _system(address)
    if not _has_buckets(system):
        return
    bucket = path.strip("/").split("/")[0]
    try:
        system.info(bucket)
    except FileNotFoundError as error:
        raise UserError(hidden(f"--output {address}: there is no bucket {bucket}; make it, or name another")) from error
    except (OSError, ValueError):  # whoever may write there need not be allowed to look; `put` will tell
        return


def _has_buckets(system) -> bool:
    return not STORES.isdisjoint([system.protocol] if isinstance(system.protocol, str) else system.protocol)


def _is_folder(address: str) -> bool:
    return not PurePosixPath(address).suffix


def fetch(address: str, folder: Path) -> tuple[list[str], bool]:
    """The files that an address means, fetched, each in a folder of its own; and whether it is that of one file, not a
    pattern or a folder."""
    system, path = _system(address)
    is_one = False
    try:
        if any(sign in path for sign in "*?["):
            found = sorted(system.glob(path))
        elif system.isdir(path):
            found = sorted(one for one in system.ls(path, detail=False) if is_known(Path(one).name))
        else:
            found, is_one = [path] if system.exists(path) else [], True
        if not found:
            raise UserError(hidden(f"--input {address}: no such file is there"))
        return [str(_fetched(system, one, folder / f"{number}")) for number, one in enumerate(found)], is_one
    except (OSError, ValueError) as error:
        raise UserError(hidden(f"--input {address}: cannot be fetched ({error})")) from error


def _fetched(system, path: str, folder: Path) -> Path:
    local, mark = folder / PurePosixPath(path).name, folder / MARK
    state = {"path": path, "state": str(system.ukey(path)), "bytes": system.info(path)["size"]}
    is_there = local.exists() and mark.exists() and json.loads(mark.read_text(encoding="utf-8")) == state
    if not is_there:
        folder.mkdir(parents=True, exist_ok=True)
        mark.unlink(missing_ok=True)
        system.get_file(path, str(local))
        with atomic_write(mark) as handle:
            json.dump(state, handle)
    return local


def put(local: Path, address: str) -> None:
    """Put a whole file, or the whole files of a folder, to an address; said line by line."""
    system, path = _system(address)
    inside = sorted(local.iterdir()) if local.is_dir() else [local]
    files = [one for one in inside if one.is_file() and not one.name.startswith(".")]
    try:
        for one in files:
            target = f"{path.rstrip('/')}/{one.name}" if local.is_dir() else path
            if not _has_buckets(system):  # those have no folders either
                system.makedirs(system._parent(target), exist_ok=True)
            system.put_file(str(one), target)
            print(hidden(f"put: {system.unstrip_protocol(target)}"))
    except (OSError, ValueError) as error:
        raise UserError(hidden(f"--output {address}: could not be put there ({error}); the labels are whole in {local},"
                               " and the same command with --resume puts them again")) from error


def _system(address: str):
    """The file system of an address, and the path in it."""
    try:
        import fsspec
    except ImportError as error:
        raise UserError(hidden(f"{address}: needs fsspec: pip install fsspec (for s3://: s3fs; for hf://: "
                               "huggingface_hub)")) from error
    try:
        return fsspec.core.url_to_fs(address)
    except ImportError as error:  # of the package for this kind of address
        raise UserError(hidden(f"{address}: {error}")) from error
    except ValueError as error:
        raise UserError(hidden(f"{address}: is no address that fsspec knows ({error})")) from error
    except OSError as error:  # ftp:// asks its server at once
        raise UserError(hidden(f"{address}: cannot be reached ({error})")) from error
