"""The one door for files that others wrote: JSON, TOML, and the plain files that they lie in.

What a hostile or broken file can do to a reader is stopped here, once: a pipe or a device that never ends, a file that
is larger than its kind can be, nesting that takes Python's stack, a whole number of more digits than Python converts, a
number that is too large for a float, NaN and infinity, half a surrogate pair, which no file and no terminal takes.

    open_plain, read_bytes      a plain file, or a `UserError` that says what is there instead
    open_to_write               a file that is written where it lies, and never through a link
    read_json, read_toml        a whole document out of one
    json_value                  a document that is at hand already: a line of a log, the bytes of a tensor
    whole_lines                 the lines of a log that is written to
"""

import errno
import json
import os
import re
import stat
import tomllib
from codecs import BOM_UTF8
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from common.errors import UserError

DOCUMENT, LARGE, TOML = 64 * 2**20, 2**30, 4 * 2**20  # bytes of a JSON file, of one with an entry per post, of TOML
LINE = 2**20  # bytes of a line of a log
HEADER = 100 * 10**6  # bytes of a safetensors header, as its library allows
DEEPEST = 100  # lists and tables inside one another
DIGITS = 300  # of a whole number: any such number is a finite float too
_HALF = re.compile(r"\\u[dD][89a-fA-F]")  # the escape of a surrogate, half a pair or not
_TOML_STRING = re.compile(r'"""(?:[^"\\]|\\.|"(?!""))*+"""|' + r"'''(?:[^']|'(?!''))*+'''|"
                          r'"(?:[^"\\\n]|\\.)*+"|' + r"'[^'\n]*+'|#[^\n]*+", re.DOTALL)
# tomllib takes the square of a key's parts in time: a kilobyte of dots is nothing, a megabyte is an hour.
_LONG_KEY = re.compile(rf"(?<![\w-])(?:[\w-]++[ \t]*+\.[ \t]*+){{{DEEPEST}}}")


class Unreadable(ValueError):
    """A text that is no JSON or TOML, or none that is taken in; `str(error)` says why: "is not JSON (...)"."""


class Doubled(Unreadable):
    """An object that has a key twice."""


def open_plain(path: str | Path) -> BinaryIO:
    """Open a plain file to read its bytes. Raises `UserError` for what is absent, a folder, a pipe or a device."""
    check_plain(path)
    try:
        return open(path, "rb")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error


def open_to_write(path: str | Path, mode: str, buffering: int = -1):
    """`open` for a file that is written where it lies, and not beside it; text is UTF-8, with the same line ends on
    every system.

    A link in its place is not followed: in a folder that others made or may write to, it could lead to any file of
    whoever runs the program. Raises `OSError` for one, and for a pipe or a device.
    """
    def opener(name, flags: int) -> int:
        if os.path.islink(name):
            raise OSError(errno.ELOOP, f"{os.path.basename(name)} is a link, which is not written through", str(name))
        number = os.open(name, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0), 0o666)
        if stat.S_ISREG(os.fstat(number).st_mode):
            return number
        os.close(number)
        raise OSError(errno.EINVAL, f"{os.path.basename(name)} is a pipe or a device", str(name))

    words = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    return open(path, mode, buffering, opener=opener, **words)


def check_plain(path: str | Path) -> None:
    """Raise `UserError` unless `path` is a plain file, before anything opens it: a pipe would wait for its writer."""
    check_path(path)
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise UserError(f"{path}: there is no such file") from error
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
        raise UserError(f"{path}: cannot be read, since it is {kind}; a plain file was expected")


def check_path(path: str | Path) -> None:
    """Raise `UserError` for a path that no file can have, or that may not be looked at.

    Behind it `Path.exists` says yes or no, and raises nothing.
    """
    check_name(path)
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise UserError(f"{path}: cannot be looked at ({error.strerror}); give another path") from error


def check_name(path: str | Path) -> None:
    """Raise `UserError` for a path that no file can have, whoever looks; whether one is there does not matter."""
    try:
        os.stat(path)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise UserError(f"{str(path)[:60]}...: can be no file's name ({error.strerror}); give another path"
                            ) from error
    except ValueError as error:  # NUL, or half a surrogate pair
        raise UserError(f"{str(path)[:60]!r}: can be no file's name ({error}); give another path") from error


def file_state(path: str | Path) -> tuple[int, ...] | None:
    """What tells a file from another and from itself after a change (device, inode, size, time); None where it is gone.
    """
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def read_bytes(path: str | Path, limit: int) -> bytes:
    """The bytes of a plain file of at most `limit` bytes; else a `UserError`."""
    pieces, size = [], 0
    with open_plain(path) as handle:
        try:
            while piece := handle.read(2**20):  # asked for more, Python would set that much memory aside
                pieces.append(piece)
                size += len(piece)
                if size > limit:
                    raise UserError(f"{path}: is larger than such a file can be (more than {limit // 2**20} MB)")
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    return b"".join(pieces)


def read_json(path: str | Path, limit: int = DOCUMENT, once: bool = False):
    """Read one JSON document of at most `limit` bytes; whatever is wrong with it is a one-line `UserError`.

    once: also an object that has a key twice, of which two readers may take another one each.
    """
    try:
        return json_value(read_bytes(path, limit).removeprefix(BOM_UTF8), once=once)  # as some editors begin a file
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text (byte {error.start}); a JSON file was expected") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: line {error.lineno}: is not JSON ({error.msg})") from error
    except Unreadable as error:
        raise UserError(f"{path}: {error}") from error


def check_header(path: str | Path) -> None:
    """Raise `UserError` for a safetensors file whose header has a tensor twice: a reader may take one or the other."""
    with open_plain(path) as handle:
        length = int.from_bytes(handle.read(8), "little")
        whole = length <= min(HEADER, os.fstat(handle.fileno()).st_size)
        head = handle.read(length) if whole else b""
    try:
        json_value(head.strip(), once=True)
    except Doubled as error:
        raise UserError(f"{path}: its header {error}; save the file again") from error
    except ValueError:
        return  # what else is wrong with it, its reader says


def json_value(text: str | bytes, number=None, once: bool = False):
    """The value of a JSON document; `number`, where given, makes one of each number's spelling; once: as `read_json`.

    Raises `ValueError`: `json.JSONDecodeError`, `UnicodeDecodeError`, or `Unreadable` for what could not be worked on.
    """
    text = text if isinstance(text, str) else text.decode("utf-8")
    try:
        value = json.loads(text, parse_int=number or _whole, parse_float=number or _real,
                           parse_constant=_constant if number is None else lambda name: None,
                           object_pairs_hook=_once if once else None)
    except RecursionError as error:
        raise Unreadable(f"is nested too deep (more than {DEEPEST} lists and objects inside one another)") from error
    check_depth(value)
    if number is None and _HALF.search(text):
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError as error:
            raise Unreadable("holds half a surrogate pair (\\ud800 to \\udfff alone), which is no character") from error
    return value


def whole_lines(handle: BinaryIO) -> Iterator[bytes]:
    """The lines of a log, without their ends; a last one that a kill tore is left out.

    Raises `Unreadable` for a line without end.
    """
    while line := handle.readline(LINE + 1):
        if len(line) > LINE:
            raise Unreadable(f"has a line of more than {LINE:,} bytes")
        if line.endswith(b"\n"):
            yield line[:-1]


def read_toml(path: str | Path) -> dict:
    """Read one TOML document (a byte order mark is passed over); whatever is wrong with it is a `UserError`."""
    try:
        text = read_bytes(path, TOML).decode("utf-8-sig")
        return _toml_value(text)
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text (byte {error.start}), as TOML must be; save it so") from error
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path}: is not TOML ({error})") from error
    except Unreadable as error:
        raise UserError(f"{path}: {error}") from error


def _toml_value(text: str) -> dict:
    if _LONG_KEY.search(_TOML_STRING.sub("s", text)):
        raise Unreadable(f"has a key of more than {DEEPEST} parts")
    try:
        value = tomllib.loads(text, parse_float=_toml_real)
    except RecursionError as error:
        raise Unreadable(f"is nested too deep (more than {DEEPEST} lists and tables inside one another)") from error
    except tomllib.TOMLDecodeError:
        raise
    except Unreadable:
        raise
    except ValueError as error:  # Python's own, of `int`
        raise Unreadable("holds a whole number of thousands of digits; TOML's have 64 bits") from error
    for inner in check_depth(value):
        for item in inner.values() if isinstance(inner, dict) else inner:
            if isinstance(item, int) and not -(2**63) <= item < 2**63:
                raise Unreadable("holds a whole number of more than 64 bits, which TOML has not")
    return value


def _once(pairs: list[tuple[str, object]]) -> dict:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise Doubled(f"has the key '{next(key for key in found if keys.count(key) > 1)[:80]}' twice")
    return found


def check_depth(value) -> list:
    """Every list and dict in `value`, itself included; `Unreadable` where they lie too deep in one another."""
    found, level, depth = [], [value] if isinstance(value, list | dict) else [], 0
    while level:
        depth += 1
        if depth > DEEPEST:
            raise Unreadable(f"is nested too deep (more than {DEEPEST} levels)")
        found += level
        level = [item for outer in level for item in (outer.values() if isinstance(outer, dict) else outer)
                 if isinstance(item, list | dict)]
    return found


def _whole(text: str) -> int:
    if len(text) > DIGITS:
        raise Unreadable(f"holds a whole number of {len(text):,} digits; no more than {DIGITS} are read")
    return int(text)


def _real(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")) or value != value:
        raise Unreadable(f"holds the number {text[:20]}{'...' if len(text) > 20 else ''}, which is not finite as a "
                         "float")
    return value


def _toml_real(text: str) -> float:
    return float(text) if text.lstrip("+-") in ("inf", "nan") else _real(text)  # TOML has words for these


def _constant(name: str):
    raise Unreadable(f"holds {name}, which is no finite number and no JSON")
