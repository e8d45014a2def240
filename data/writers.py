"""Rows to a file: jsonl, csv or tsv, each also gzipped, told by the file's name; whole or not at all.

`write_rows` writes what is at hand. A `GrowingFile` takes its rows window by window and lies beside its place until it
is whole:

    .labels.csv.partial         the rows so far
    .labels.csv.done.partial    one line of JSON that says what they are made from, then one for every whole window:
                                rows, bytes and SHA-256 of all that was written so far, and what the caller counts

An error leaves neither of the two, a kill leaves both; with `resume` the file goes on behind its last whole window.
"""

import csv
import gzip
import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from common.errors import UserError
from common.files import atomic_write
from common.reading import check_plain, json_value, whole_lines

FORMULA = ("=", "+", "-", "@")  # what a cell begins with that a spreadsheet computes
OUTPUT_FORMATS = (".jsonl", ".csv", ".tsv")


def output_format(path: str | Path) -> str:
    """`output_format("a.csv.gz") -> ".csv"`. Raises `UserError` for a name that says no known format."""
    name = Path(path).name.lower().removesuffix(".gz")
    suffix = next((suffix for suffix in OUTPUT_FORMATS if name.endswith(suffix)), None)
    if suffix is None:
        raise UserError(f"{path}: its name says no format; end it in {', '.join(OUTPUT_FORMATS)}, or that and .gz")
    return suffix


def encode_rows(path: str | Path, rows: Sequence[dict], header: bool = True, safe: bool = False) -> bytes:
    """Rows that all have the same keys as the bytes of a file named `path`, or (without `header`) of its continuation.

    `None` is null in jsonl and an empty cell in csv and tsv. These are RFC 4180 (quotes where needed, CRLF), which
    spreadsheets and pandas read as they are. Gzipped pieces may follow one another: each is a whole member of the file.
    safe: in csv and tsv, cells that a spreadsheet would take for a formula get an apostrophe in front.
    """
    kind, text = output_format(path), io.StringIO(newline="")
    if kind == ".jsonl":
        text.writelines(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    else:
        writer = csv.writer(text, delimiter="," if kind == ".csv" else "\t")
        names = list(rows[0]) if rows else []
        cells = [*([names] if header and rows else []), *([row[name] for name in names] for row in rows)]
        writer.writerows([[_safe(cell) for cell in line] for line in cells] if safe else cells)
    content = text.getvalue().encode("utf-8")
    # No name and no time in the gzip header: the same rows give the same bytes.
    return gzip.compress(content, mtime=0) if str(path).lower().endswith(".gz") else content


def _safe(cell):
    """`_safe("=1+1") -> "'=1+1"`: spreadsheets compute what begins so; a tab or line break in front they pass over."""
    return f"'{cell}" if isinstance(cell, str) and cell.lstrip("\t\r\n ")[:1] in FORMULA else cell


def write_rows(path: str | Path, rows: Sequence[dict]) -> None:
    """Write rows as `encode_rows` gives them."""
    with atomic_write(path, "wb") as handle:
        handle.write(encode_rows(path, rows))


class GrowingFile:
    """A file of rows that grows by `add` in a `with` block, and is renamed into its place at the block's end.

    made_from: JSON values that decide the rows. With `resume` a file that was stopped goes on, an error or Ctrl-C
    leaves what is done, and a file that was made from something else is a `UserError`. `counts` is what `add` counted
    from the file's beginning, "rows" among it. safe: as `encode_rows` takes it.
    """

    def __init__(self, path: str | Path, made_from: dict, resume: bool = False, safe: bool = False):
        self.path, self.made_from, self.resume, self.safe = Path(path), made_from, resume, safe
        self.counts, self._bytes, self._hash = Counter(), 0, hashlib.sha256()

    @property
    def is_kept(self) -> bool:
        """Whether an error now leaves something to go on with."""
        return self.resume and self.counts["rows"] > 0

    def __enter__(self) -> "GrowingFile":
        for path in partial_files(self.path):
            if path.exists():
                check_plain(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._rows, self._journal = (open(path, "a+b") for path in partial_files(self.path))  # noqa: SIM115
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written ({error.strerror}); choose another place") from error
        try:
            _lock(self._journal, self.path)
            journal_bytes = self._go_on() if self.resume else 0
            self._rows.truncate(self._bytes)
            self._journal.truncate(journal_bytes)
        except BaseException:
            self._close()
            raise
        return self

    def add(self, rows: Sequence[dict], **counts: int) -> None:
        """Append a window of rows, and `counts` to what is counted. Raises `UserError` where they cannot be written."""
        piece = encode_rows(self.path, rows, header=not self._bytes, safe=self.safe)
        lines = [] if self._bytes else [self.made_from]
        self._hash.update(piece)
        self._bytes += len(piece)
        counts = self.counts + Counter(rows=len(rows), **counts)
        lines.append({"counts": counts, "bytes": self._bytes, "sha256": self._hash.hexdigest()})
        try:
            self._rows.write(piece)
            self._rows.flush()  # before the journal tells of it
            self._journal.write("".join(json.dumps(line) + "\n" for line in lines).encode())
            self._journal.flush()
        except OSError as error:
            raise self._unwritten(error) from error
        self.counts = counts

    def __exit__(self, kind, error, trace) -> None:
        is_whole = False
        try:
            if kind is None:
                os.fsync(self._rows.fileno())
                self._close()
                os.replace(partial_files(self.path)[0], self.path)
                is_whole = True
        except OSError as error:
            raise self._unwritten(error) from error
        finally:
            self._close()
            if is_whole or not self.is_kept:
                for path in partial_files(self.path):
                    path.unlink(missing_ok=True)

    def _go_on(self) -> int:
        """Take up what a stopped program left; returns the bytes of its journal that are whole."""
        self._journal.seek(0)
        first, last, taken = b"", b"", 0
        try:
            for number, line in enumerate(whole_lines(self._journal)):
                first, last, taken = (first if number else line), line, taken + len(line) + 1
            if taken <= len(first) + 1:  # none, or no window behind the first line
                return 0
            made_from, window = json_value(first), json_value(last)
            different = [key for key, value in self.made_from.items() if made_from.get(key) != value]
            counts, size, digest = _counts(window["counts"]), window["bytes"], window["sha256"]
            if type(size) is not int or size < 0:
                raise ValueError("bytes is no size")
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(f"{partial_files(self.path)[1]}: is damaged; start anew with --overwrite") from error
        if different:
            raise UserError(f"--resume: {self.path} was begun with another {', '.join(different)}; go on with the "
                            "same, or start anew with --overwrite")
        self._rows.seek(0)
        while piece := self._rows.read(min(1 << 20, size - self._bytes)):
            self._hash.update(piece)
            self._bytes += len(piece)
        if self._bytes != size or self._hash.hexdigest() != digest:
            raise UserError(f"{partial_files(self.path)[0]}: is not as it was left; start anew with --overwrite")
        self.counts = counts
        return taken

    def _unwritten(self, error: OSError) -> UserError:
        left = "make room, and the same command goes on" if self.is_kept else "nothing was left behind"
        return UserError(f"{self.path}: could not be written whole ({error.strerror}); {left}")

    def _close(self) -> None:
        for handle in (self._rows, self._journal):
            with suppress(OSError):  # what could not be flushed has been reported
                handle.close()


def _counts(value) -> Counter:
    """What a journal counted. Raises `ValueError` for anything but names with whole numbers."""
    if not isinstance(value, dict) or not all(type(count) is int and 0 <= count < 2**63 for count in value.values()):
        raise ValueError("counts are of another kind")
    return Counter(value)


def partial_files(path: str | Path) -> tuple[Path, Path]:
    """Where a `GrowingFile` has its rows and its journal until it is whole."""
    path = Path(path)
    return path.with_name(f".{path.name}.partial"), path.with_name(f".{path.name}.done.partial")


def _lock(handle, path: Path) -> None:
    """Keep a second program away from the same output as long as `handle` is open."""
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UserError(f"{path}: another program is writing it; wait for its end, or choose another name") from error
    except OSError:  # a file system that has no locks
        return
