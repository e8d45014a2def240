"""What a program that was killed leaves beside the files that it was writing, and how the next one clears it up.

    .metrics.json.4711-88345@node17.partial     being written, or on its way out
    .eval-test.4711-88345@node17.old            a folder that was moved aside and whose new version is not there yet

Both names end with the process that they belong to (`common.lock.Owner`). While it lives, and where it ran on another
host, they are left alone, unless whoever asks has locked the folder, so that nobody else can be writing in it.
"""

import ctypes
import hashlib
import os
import re
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

from common.lock import LOCK, Owner

PARTIAL, OLD = ".partial", ".old"
LONGEST = 140  # bytes of a name that are kept in the name beside it; file systems take 255 in all
PATIENCE = 2.0  # seconds that another program may have open what is renamed, on Windows
HASHED = "~"  # stands ahead of the hash that longer ones are replaced by
NAME = re.compile(r"\.(?P<name>.+)\.(?P<token>\d+-\w*@[\w-]+)(?P<kind>\.partial|\.old)", re.DOTALL)


def beside(path: Path, kind: str = PARTIAL) -> Path:
    """Where this process writes what is to become `path`."""
    return path.with_name(f".{_short(path.name)}.{Owner.me()}{kind}")


def _short(name: str) -> str:
    in_bytes = os.fsencode(name)
    return name if len(in_bytes) <= LONGEST else HASHED + hashlib.sha256(in_bytes).hexdigest()[:32]


def meant(path: Path) -> Path:
    """A path as it is called once all is in its place: `runs/mine/a` for `runs/.mine.4711-88345@node17.partial/a`."""
    found = [(NAME.fullmatch(part), part) for part in path.parts]
    return Path(*(match["name"] if match else part for match, part in found))


def holds_nothing(folder: Path) -> bool:
    """Whether a folder is empty but for a lock and what was left half-written."""
    return all(child.name == LOCK or (child.name.startswith(".") and child.name.endswith((PARTIAL, OLD)))
               for child in folder.iterdir())  # fmt: skip


def clear(folder: Path, target: str | None = None, locked: bool = False) -> None:
    """Clear up what dead programs left in `folder`, or only what they left of writing `target` in it; each is said.

    A folder that had been moved aside is put back where its successor never came; everything else is removed. locked:
    the caller holds the folder's lock, so that what any other process left is as good as dead.
    """
    try:
        names = sorted(os.listdir(folder))  # OLD before PARTIAL: what can be put back comes first
    except OSError:
        return  # not there yet; or not to be read, which whoever writes next finds out
    for name in names:
        found = NAME.fullmatch(name)
        if not found or (target is not None and found["name"] != _short(target)):
            continue
        owner = Owner.parse(found["token"])
        if owner == Owner.me() or not (owner.is_gone or locked):
            continue
        path, of = folder / name, folder / (target or found["name"])
        if found["kind"] == OLD and target is None and found["name"].startswith(HASHED):
            continue  # of which folder it is will be known when that is written again
        with suppress(OSError):  # another process clears up, too
            if found["kind"] == OLD and not os.path.lexists(of):
                os.rename(path, of)
                print(f"{of}: put back as it was, since a program was stopped while it replaced it")
            elif os.path.lexists(path):
                remove(path)
                print(f"{path}: removed; a program that was stopped had left it")


def clear_below(folder: Path, locked: bool = False) -> None:
    """`clear` in `folder` and in every folder below it; with `locked` everything there is the caller's."""
    for inner, folders, _ in os.walk(folder):
        clear(Path(inner), locked=locked)
        folders[:] = [name for name in folders if not name.startswith(".")]


def remove(path: Path) -> None:
    """Remove a file, a link or a folder with all that is in it; nothing where it is gone already."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def patiently(rename: Callable[[Path, Path], None], one: Path, other: Path) -> None:
    """`rename(one, other)`: os.rename or os.replace. Windows refuses it while any program has one of the two open, as
    what looks for viruses or fills an index has for a moment: there it is tried again for `PATIENCE` seconds."""
    give_up = time.monotonic() + PATIENCE
    while True:
        try:
            return rename(one, other)
        except PermissionError:
            if sys.platform != "win32" or time.monotonic() >= give_up:
                raise
        time.sleep(0.02)


def put_folder(new: Path, path: Path) -> None:
    """Put the folder `new` in the place of `path`, where another may be; that one is removed.

    Where the system swaps two names in one step, `path` is the old or the new folder at every moment. Elsewhere it is
    away for an instant: a kill there leaves a `.old` that `clear` puts back, and an error puts it back at once.
    """
    if not os.path.lexists(path):
        patiently(os.rename, new, path)
    elif exchange(new, path):
        remove(new)
    else:
        old = beside(path, OLD)
        patiently(os.rename, path, old)
        try:
            patiently(os.rename, new, path)
        except BaseException:
            patiently(os.rename, old, path)
            raise
        patiently(os.rename, old, new)  # a `.old` that is there is always whole
        remove(new)


def exchange(one: Path, other: Path) -> bool:
    """Let two names of one folder change places in one step; False where the system cannot, and nothing has changed."""
    swap = _swap()
    return swap is not None and swap(os.fsencode(one), os.fsencode(other)) == 0


@cache
def _swap():
    """Linux's renameat2 with RENAME_EXCHANGE, macOS' renamex_np with RENAME_SWAP, as a function of two names."""
    if sys.platform == "win32":  # it has no such call, and no library without a name
        return None
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None, use_errno=True)
        if sys.platform == "darwin":
            swap = library.renamex_np
            return lambda one, other: swap(one, other, ctypes.c_uint(2))
        if sys.platform == "linux":
            swap, here = library.renameat2, -100  # AT_FDCWD: names are seen from the working folder
            return lambda one, other: swap(here, one, here, other, ctypes.c_uint(2))
    return None
