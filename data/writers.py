"""Rows to a file: jsonl, csv or tsv, each also gzipped, as the file's name tells; complete or not at all.

`write_rows` writes all rows at once. A `GrowingFile` takes its rows window by window and keeps them in two files beside
the final one until it is complete:

    .labels.csv.partial         the rows so far
    .labels.csv.done.partial    one line of JSON that describes what they are made from, then one for every complete
                                window: rows, bytes and SHA-256 of everything written so far, and the caller's counts

After an error neither of the two is left, after a kill both are; with `resume` both stay after an error, too, and the
file is continued after its last complete window.
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
from common.files import atomic_write, sha256_file
from common.lock import open_locked
from common.reading import check_plain, json_value, whole_lines

FORMULA = ("=", "+", "-", "@")  # what a cell begins with that a spreadsheet computes
OUTPUT_FORMATS = (".jsonl", ".csv", ".tsv")


def output_format(path: str | Path) -> str:
    """`output_format("a.csv.gz") -> ".csv"`. Raises `UserError` for a name without a known format."""
    name = Path(path).name.lower().removesuffix(".gz")
    suffix = next((suffix for suffix in OUTPUT_FORMATS if name.endswith(suffix)), None)
    if suffix is None:
        raise UserError(f"{path}: has no known format in its name; end it in {', '.join(OUTPUT_FORMATS)}, or add .gz "
                        "to one of these")
    return suffix


def encode_rows(path: str | Path, rows: Sequence[dict], header: bool = True, safe: bool = False) -> bytes:
    """The bytes of a file named `path` with `rows` (all with the same keys) or, without `header`, of its continuation.

    `None` is null in jsonl and an empty cell in csv and tsv. These follow RFC 4180 (quotes if needed, CRLF), which
    spreadsheets and pandas read as it is. Gzipped pieces may be concatenated: each is a complete member of the file.
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
    # The gzip header has no name and no time, so the same rows give the same bytes.
    return gzip.compress(content, mtime=0) if str(path).lower().endswith(".gz") else content


def _safe(cell):
    """`_safe("=1+1") -> "'=1+1"`: spreadsheets compute what begins so; a tab or line break in front they pass over."""
    return f"'{cell}" if isinstance(cell, str) and cell.lstrip("\t\r\n ")[:1] in FORMULA else cell


def write_rows(path: str | Path, rows: Sequence[dict]) -> None:
    """Write rows, encoded by `encode_rows`, completely or not at all."""
    with atomic_write(path, "wb") as handle:
        handle.write(encode_rows(path, rows))


class GrowingFile:
    """A file of rows that grows by `add` in a `with` block and gets its final name at the end of the block.

    `made_from`: JSON values that decide the rows. With `resume` an interrupted file is continued, an error or Ctrl-C
    leaves the rows so far, and a file that was made from something else is a `UserError`. `counts` holds what `add` has
    counted since the file's beginning, including "rows". safe: as `encode_rows` takes it.
    """

    def __init__(self, path: str | Path, made_from: dict, resume: bool = False, safe: bool = False):
        self.path, self.resume, self.safe = Path(path), resume, safe
        self.made_from = json.loads(json.dumps(made_from))  # as the journal will give it back
        self.counts, self._bytes, self._hash = Counter(), 0, hashlib.sha256()

    @property
    def is_kept(self) -> bool:
        """Whether an error now would leave something to resume from."""
        return self.resume and self.counts["rows"] > 0

    def __enter__(self) -> "GrowingFile":
        for path in partial_files(self.path):
            if path.exists():
                check_plain(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            rows, journal = partial_files(self.path)
            self._journal, _ = open_locked(journal)  # first: the rows of another are not even opened
            is_taken_back = self._take_back(rows)
            try:
                self._rows = open(rows, "a+b")
            except OSError:
                self._journal.close()
                if not journal.stat().st_size:
                    journal.unlink()
                raise
        except BlockingIOError as error:
            raise UserError(f"{self.path}: another program is writing it; wait until it ends, or choose another name"
                            ) from error
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written ({error.strerror}); choose another folder") from error
        try:
            journal_bytes = self._go_on() if self.resume else 0
            self._rows.truncate(self._bytes)
            self._journal.truncate(journal_bytes)
        except BaseException:
            self._close()
            if is_taken_back:
                os.rename(rows, self.path)
            raise
        return self

    def add(self, rows: Sequence[dict], **counts: int) -> None:
        """Append a window of rows and add `counts` to the counts. Raises `UserError` if they cannot be written."""
        piece = encode_rows(self.path, rows, header=not self._bytes, safe=self.safe)
        lines = [] if self._bytes else [self.made_from]
        self._hash.update(piece)
        self._bytes += len(piece)
        counts = self.counts + Counter(rows=len(rows), **counts)
        lines.append({"counts": counts, "bytes": self._bytes, "sha256": self._hash.hexdigest()})
        try:
            self._rows.write(piece)
            self._rows.flush()  # before the journal lists it
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
        """Continue from what an interrupted program left; returns the number of valid bytes in its journal."""
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
            raise UserError(f"--resume: {self.path} was begun with another {', '.join(different)}; resume with "
                            "the same, or start anew with --overwrite")
        self._rows.seek(0)
        while piece := self._rows.read(min(1 << 20, size - self._bytes)):
            self._hash.update(piece)
            self._bytes += len(piece)
        if self._bytes != size or self._hash.hexdigest() != digest:
            raise UserError(f"{partial_files(self.path)[0]}: is not as it was left; start anew with --overwrite")
        self.counts = counts
        return taken

    def _take_back(self, rows: Path) -> bool:
        """After a kill when the file was in its place and its journal not yet gone: go on behind its last row."""
        if not self.resume or rows.exists() or not self.path.exists():
            return False
        self._journal.seek(0)
        try:
            is_whole = json.loads(self._journal.read().splitlines()[-1])["sha256"] == sha256_file(self.path)
        except (ValueError, TypeError, KeyError, IndexError):
            return False
        if is_whole:
            os.rename(self.path, rows)
        return is_whole

    def _unwritten(self, error: OSError) -> UserError:
        left = "make room, and run the same command again to go on" if self.is_kept else "nothing was left behind"
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
    """Where a `GrowingFile` keeps its rows and its journal until it is complete."""
    path = Path(path)
    return path.with_name(f".{path.name}.partial"), path.with_name(f".{path.name}.done.partial")


def was_stopped(path: str | Path) -> bool:
    """Whether a `GrowingFile` was stopped on its way to `path`.

    A kill in its very first or its last moment leaves a journal alone, which is nothing to go on with.
    """
    return all(part.exists() for part in partial_files(path))
