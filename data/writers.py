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
from common.files import atomic_write, sha256_file
from common.lock import open_locked

OUTPUT_FORMATS = (".jsonl", ".csv", ".tsv")


def output_format(path: str | Path) -> str:
    """`output_format("a.csv.gz") -> ".csv"`. Raises `UserError` for a name that says no known format."""
    name = Path(path).name.lower().removesuffix(".gz")
    suffix = next((suffix for suffix in OUTPUT_FORMATS if name.endswith(suffix)), None)
    if suffix is None:
        raise UserError(f"{path}: its name says no format; end it in {', '.join(OUTPUT_FORMATS)}, or that and .gz")
    return suffix


def encode_rows(path: str | Path, rows: Sequence[dict], header: bool = True) -> bytes:
    """Rows that all have the same keys as the bytes of a file named `path`, or (without `header`) of its continuation.

    `None` is null in jsonl and an empty cell in csv and tsv. These are RFC 4180 (quotes where needed, CRLF), which
    spreadsheets and pandas read as they are. Gzipped pieces may follow one another: each is a whole member of the file.
    """
    kind, text = output_format(path), io.StringIO(newline="")
    if kind == ".jsonl":
        text.writelines(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    else:
        writer = csv.DictWriter(text, list(rows[0]) if rows else [], delimiter="," if kind == ".csv" else "\t")
        if header:
            writer.writeheader()
        writer.writerows(rows)
    content = text.getvalue().encode("utf-8")
    # No name and no time in the gzip header: the same rows give the same bytes.
    return gzip.compress(content, mtime=0) if str(path).lower().endswith(".gz") else content


def write_rows(path: str | Path, rows: Sequence[dict]) -> None:
    """Write rows as `encode_rows` gives them."""
    with atomic_write(path, "wb") as handle:
        handle.write(encode_rows(path, rows))


class GrowingFile:
    """A file of rows that grows by `add` in a `with` block, and is renamed into its place at the block's end.

    made_from: JSON values that decide the rows. With `resume` a file that was stopped goes on, an error or Ctrl-C
    leaves what is done, and a file that was made from something else is a `UserError`. `counts` is what `add` counted
    from the file's beginning, "rows" among it.
    """

    def __init__(self, path: str | Path, made_from: dict, resume: bool = False):
        self.path, self.made_from, self.resume = Path(path), made_from, resume
        self.counts, self._bytes, self._hash = Counter(), 0, hashlib.sha256()

    @property
    def is_kept(self) -> bool:
        """Whether an error now leaves something to go on with."""
        return self.resume and self.counts["rows"] > 0

    def __enter__(self) -> "GrowingFile":
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
            raise UserError(f"{self.path}: another program is writing it; wait for its end, or choose another name"
                            ) from error
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written ({error.strerror}); choose another place") from error
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
        """Append a window of rows, and `counts` to what is counted. Raises `UserError` where they cannot be written."""
        piece = encode_rows(self.path, rows, header=not self._bytes)
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
        lines = self._journal.read().split(b"\n")[:-1]  # what follows the last newline is torn
        if len(lines) < 2:
            return 0
        try:
            made_from, last = json.loads(lines[0]), json.loads(lines[-1])
            different = [key for key, value in self.made_from.items() if made_from[key] != value]
            counts, size, digest = Counter(last["counts"]), int(last["bytes"]), last["sha256"]
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(f"{partial_files(self.path)[1]}: is damaged; start anew with --overwrite") from error
        if different:
            raise UserError(f"--resume: {self.path} was begun with another {', '.join(different)}; go on with the "
                            "same, or start anew with --overwrite")
        self._rows.seek(0)
        while piece := self._rows.read(min(1 << 20, size - self._bytes)):
            self._hash.update(piece)
            self._bytes += len(piece)
        if self._hash.hexdigest() != digest:
            raise UserError(f"{partial_files(self.path)[0]}: is not as it was left; start anew with --overwrite")
        self.counts = counts
        return sum(len(line) + 1 for line in lines)

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
        left = "make room, and the same command goes on" if self.is_kept else "nothing was left behind"
        return UserError(f"{self.path}: could not be written whole ({error.strerror}); {left}")

    def _close(self) -> None:
        for handle in (self._rows, self._journal):
            with suppress(OSError):  # what could not be flushed has been reported
                handle.close()


def partial_files(path: str | Path) -> tuple[Path, Path]:
    """Where a `GrowingFile` has its rows and its journal until it is whole."""
    path = Path(path)
    return path.with_name(f".{path.name}.partial"), path.with_name(f".{path.name}.done.partial")


def was_stopped(path: str | Path) -> bool:
    """Whether a `GrowingFile` was stopped on its way to `path`.

    A kill in its very first or its last moment leaves a journal alone, which is nothing to go on with.
    """
    return all(part.exists() for part in partial_files(path))
