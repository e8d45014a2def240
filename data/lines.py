"""A file's decoded lines, gzipped or not, one at a time and never more of them than a row may take.

UTF-16 that begins with its byte order mark, as Excel's "Unicode Text", is read too. Any other byte that is not UTF-8 is
named by its row and its place in the file; what is often taken for a text table (a workbook, an archive) is told by its
first bytes.
"""

import gzip
import io
import shlex
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from common.errors import UserError
from data.table import NoRows, Place

UTF_16 = (b"\xff\xfe", b"\xfe\xff")  # byte order marks
UTF_32 = (b"\xff\xfe\0\0", b"\0\0\xfe\xff")
FOREIGN = {  # first bytes of files that are often taken for text tables
    b"PK\x03\x04": "is a zip archive or an Excel workbook; save the sheet as CSV UTF-8, or unpack the archive",
    b"\xd0\xcf\x11\xe0": "is an old Excel workbook; save the sheet as CSV UTF-8",
    b"PAR1": "is a parquet file; name it .parquet",
}


def _open(path: Path):
    try:
        with open(path, "rb") as handle:
            start = handle.read(2)
        if not start:
            raise NoRows(f"{path}: is empty; a file of posts was expected")
        # By content: a gzipped file is read under any name.
        zipped = start == b"\x1f\x8b"
        if path.suffix.lower() == ".gz" and not zipped:
            raise UserError(f"{path}: is named .gz but is not gzipped; take .gz off its name")
        return gzip.open(path, "rb") if zipped else open(path, "rb")  # closed by `_lines`
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error


class _AsUtf8(io.RawIOBase):
    """The bytes of a UTF-16 file that begins with its byte order mark, as UTF-8 and without the mark."""

    def __init__(self, handle):
        self.text = io.TextIOWrapper(handle, "utf-16", newline="")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        data = self.text.read(len(buffer) // 4).encode("utf-8")  # a character takes four bytes or fewer
        buffer[: len(data)] = data
        return len(data)


def read_lines(path: Path, place: Place, longest: int) -> Iterator[str]:
    """Decoded lines with their line ends; a byte order mark is left out; errors name the row being read.

    longest: megabytes that the lines of one row may take together; `place.row`, which the caller moves on, says which
    belong to one. Where bad rows are kept, a line with NUL or bytes that are not UTF-8 comes with U+FFFD for these, and
    `place.damage` says so.
    """
    offset, row, taken, most = 0, -1, 0, longest * 2**20
    with closing(_open(path)) as handle:
        while True:
            try:
                line = handle.readline(most + 1)
            except UnicodeDecodeError as error:
                raise UserError(f"{path}: holds UTF-16 text that is cut off or damaged ({error.reason}); save it "
                                "again, as UTF-8") from error
            except (EOFError, zlib.error, OSError) as error:
                why = "is cut off" if isinstance(error, EOFError) else f"is damaged ({error})"
                raise UserError(
                    f"{path}: row {place.row + 1}: the gzipped data {why} after {offset:,} bytes of text; "
                    "copy the file again"
                ) from error
            if not line:
                return
            if offset == 0:
                if foreign := next((words for magic, words in FOREIGN.items() if line.startswith(magic)), None):
                    raise UserError(f"{path}: {foreign}")
                if line.startswith(UTF_32):
                    raise UserError(f"{path}: is UTF-32 text; {_mended(path, 'UTF-32')}")
                if line.startswith(UTF_16):
                    handle.seek(0)
                    handle = io.BufferedReader(_AsUtf8(handle))
                    continue
            if row != place.row:  # else the row goes on in a further line
                row, taken = place.row, 0
            taken += len(line)
            if taken > most:
                raise too_long(place, longest, line[:1000])
            if offset == 0 and line.startswith(b"\xef\xbb\xbf"):
                line, offset = line[3:], 3
            if b"\0" in line:
                if line.count(0) * 3 > len(line) and (offset == 0 or not place.keep_bad):
                    raise UserError(f"{path}: is UTF-16 text; {_mended(path, 'UTF-16')}")
                _damaged(place, f"byte {offset + line.index(0):,} is NUL, which no text file holds; save the file as "
                         "UTF-8 text")
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError as error:
                _damaged(place, f"byte {offset + error.start:,} (0x{line[error.start]:02x}) is not UTF-8; "
                         f"{_mended(path, 'CP1252')}")
                text = line.decode("utf-8", "replace")
            offset += len(line)
            yield text.replace("\0", "\ufffd") if place.damage else text


def _damaged(place: Place, words: str) -> None:
    """Note what is wrong with a line of the next row, or raise it where such rows are not kept, or it is the header."""
    words = f"{place.path}: row {place.row + 1}: {words}"
    if not place.keep_bad:
        raise UserError(words)
    place.damage = place.damage or words


def _mended(path: Path, encoding: str) -> str:
    """What makes UTF-8 of a file: in the program that saved it, or by a command that Windows lacks."""
    excel = "" if "json" in path.name.lower() else ' ("CSV UTF-8" in Excel)'
    name, other = (shlex.quote(str(one)) for one in (path, path.with_name(f"utf8-{path.name}")))
    return f"save it as UTF-8{excel}, or: iconv -f {encoding} -t UTF-8 {name} > {other}"


def too_long(place: Place, longest: int, begins: bytes = b"") -> UserError:
    """The error of a row that takes more than `longest` megabytes, with what its beginning looks like."""
    if place.row == 0 and begins.lstrip(b"\xef\xbb\xbf \t").startswith(b"["):
        return is_array(place.path)
    hint = "in csv, perhaps a quote opens here and is never closed"
    if b"\r" in begins:
        hint = "its lines end in a lone carriage return; save it with ordinary line ends"
    return UserError(f"{place.path}: row {place.row + 1}: takes more than {longest} MB; mend the file ({hint}), or say "
                     "--longest-row")


def is_array(path: Path) -> UserError:
    """The error of a file that is one JSON array."""
    return UserError(f"{path}: is one JSON array; write one object per line: jq -c '.[]' {path.name} > lines.jsonl")
