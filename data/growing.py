"""A file of rows that grows window by window, and goes on behind its last whole window after a kill.

Until it is complete its rows lie in two files beside the final one:

    .labels.csv.gz.partial         the rows so far, plain
    .labels.csv.gz.done.partial    one line of JSON that describes what they are made from, then one for every complete
                                   window: rows, bytes and SHA-256 of everything written so far, and the caller's counts

A window's rows are on the disk (fsync) before the journal lists them, and the list is before `add` returns: a kill, a
full disk or a power cut takes no more than the window in hand. At the end the rows are renamed, or made into gzip or
parquet beside and renamed. After an error neither of the two files is left, after a kill, Ctrl-C or a refused rename
both are; with `resume` both stay after an error, too.

The journal is locked. Some file systems of clusters have no locks, or those of one machine alone: a second program that
writes the same file is told there by the size that the rows have, ahead of each window, and the files are left to it.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path

from common.errors import UserError
from common.files import sha256_file, sync_folder
from common.leftovers import patiently
from common.lock import is_at, open_locked
from common.reading import check_plain, json_value, open_to_write, whole_lines
from data.writers import PARQUET, PLAIN, Sheet, finish, is_gzipped, output_format, plain_format, plain_rows

OTHER_OPTIONS = {"delimiter": "--delimiter", "quote": "--quote", "longest": "--longest-row", "others": "columns",
                 "remembered": "columns of the run"}  # of `data.posts.Columns`; the rest are columns by their role


class GrowingFile:
    """A file of rows that grows by `add` in a `with` block and gets its final name at the end of the block.

    `made_from`: JSON values that decide the rows. With `resume` an interrupted file is continued, an error leaves the
    rows so far (Ctrl-C does anyway), and a file that was made from something else is a `UserError`. `counts` holds what
    `add` has counted since the file's beginning, including "rows". sheet, reals: as `plain_rows` and `finish` do.
    whole(facts) is called when the file has its name, with its counts and hash, and again if a kill came just then.
    """

    def __init__(self, path: str | Path, made_from: dict, resume: bool = False, sheet: Sheet = PLAIN,
                 reals: Sequence[str] = (), whole: Callable[[dict], object] = lambda facts: None):
        self.path, self.resume, self.reals, self.whole = Path(path), resume, reals, whole
        self._sheet = sheet
        self.made_from = json.loads(json.dumps(made_from))  # as the journal will give it back
        self.counts, self._bytes, self._hash = Counter(), 0, hashlib.sha256()
        self._kind, self._is_plain = plain_format(path), not is_gzipped(path) and output_format(path) != PARQUET
        self._is_ours = True  # until another is seen to write here
        self._was_whole = ""  # the hash of a file that was in its place before a kill

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
            if self._was_whole:
                self._rows = self._journal
                return self
            try:
                self._rows = open_to_write(rows, "a+b")
            except OSError:
                self._journal.close()
                if not journal.stat().st_size:
                    journal.unlink()
                raise
        except BlockingIOError as error:
            raise self._taken() from error
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written ({error.strerror}); choose another folder") from error
        try:
            journal_bytes = self._go_on() if self.resume else 0
            self._require(is_at(self._rows, rows))  # and not put in its place meanwhile
            self._rows.truncate(self._bytes)
            self._journal.truncate(journal_bytes)
        except BaseException:
            self._close()
            if is_taken_back:
                with suppress(FileNotFoundError):  # another has taken them
                    os.rename(rows, self.path)
            raise
        return self

    def add(self, rows: Sequence[dict], **counts: int) -> None:
        """Append a window of rows and add `counts` to the counts. Raises `UserError` if they cannot be written."""
        self._check_alone()
        piece = plain_rows(self._kind, rows, header=not self._bytes, sheet=self._sheet)
        lines = [] if self._bytes else [self.made_from]
        self._hash.update(piece)
        self._bytes += len(piece)
        before, self.counts = self.counts, self.counts + Counter(rows=len(rows), **counts)
        lines.append(self._line())
        try:
            self._rows.write(piece)
            self._rows.flush()
            os.fsync(self._rows.fileno())  # before the journal lists it
            self._list(lines)
        except OSError as error:
            self.counts = before
            raise self._unwritten(error) from error

    def __exit__(self, kind, error, trace) -> None:
        is_whole = False
        self.resume = self.resume or kind is KeyboardInterrupt  # hours of work are not thrown away by two keys
        try:
            if kind is None:
                if not self._was_whole:
                    self._check_alone()
                digest = self._was_whole or self._put()
                if self.resume:  # else nothing that a power cut takes is gone on with
                    sync_folder(self.path.parent)
                self.whole({"counts": dict(self.counts), "sha256": digest})
                is_whole = True
        except OSError as error:
            self.resume = self.resume or isinstance(error, PermissionError)  # no fault of the rows
            raise self._unwritten(error) from error
        finally:
            self._close()
            if self._is_ours and (is_whole or not self.is_kept):
                # Rows that were renamed are not there; if they are, another has taken them back, to go on with.
                for path in partial_files(self.path)[is_whole and self._is_plain :]:
                    path.unlink(missing_ok=True)

    def _put(self) -> str:
        """Put the file in its place; returns the SHA-256 of its bytes."""
        rows = partial_files(self.path)[0]
        if self._is_plain:
            self._rows.close()
            patiently(os.replace, rows, self.path)
            with suppress(FileNotFoundError):  # taken back already
                self._require(self.path.stat().st_size == self._bytes)
            return self._hash.hexdigest()
        beside = self.path.with_name(f".{self.path.name}.whole.partial")
        try:
            with open_to_write(beside, "wb") as handle:
                finish(rows, handle, self.path, self.reals)
                self._check_alone()
                handle.flush()
                os.fsync(handle.fileno())
            digest = sha256_file(beside)
            self._list([self._line() | {"whole": digest}])
            patiently(os.replace, beside, self.path)
        except (OSError, UserError):
            with suppress(OSError):
                beside.unlink(missing_ok=True)
            raise
        return digest

    def _line(self) -> dict:
        return {"counts": self.counts, "bytes": self._bytes, "sha256": self._hash.hexdigest()}

    def _list(self, lines: list[dict]) -> None:
        self._journal.write("".join(json.dumps(line) + "\n" for line in lines).encode())
        self._journal.flush()
        os.fsync(self._journal.fileno())

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
            different = differing(made_from, self.made_from, self.made_from)
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
        """After a kill when the file was in its place and its journal not yet gone: go on behind its last row.

        One that was made out of its rows stays where it is, and nothing is left to do.
        """
        if not self.resume or rows.exists() or not self.path.exists():
            return False
        self._journal.seek(0)
        try:
            lines = [json_value(line) for line in whole_lines(self._journal)]
            digest, counts = lines[-1]["sha256" if self._is_plain else "whole"], _counts(lines[-1]["counts"])
            is_whole = digest == sha256_file(self.path)
        except (ValueError, TypeError, KeyError, IndexError):
            return False
        if is_whole and not self._is_plain:
            if lines[0] != self.made_from:
                self._journal.close()
                raise UserError(f"--resume: {self.path} was made from something else; give --overwrite")
            self._was_whole, self.counts = digest, counts
            return False
        if is_whole:
            os.rename(self.path, rows)
        return is_whole

    def _check_alone(self) -> None:
        """Raise `UserError` where another program has written here or put the file in its place."""
        self._require(is_at(self._rows, partial_files(self.path)[0])
                      and os.fstat(self._rows.fileno()).st_size == self._bytes)

    def _require(self, is_alone: bool) -> None:
        if not is_alone:
            self._is_ours = False
            raise self._taken()

    def _taken(self) -> UserError:
        return UserError(f"{self.path}: another program is writing it; wait until it ends, or choose another name")

    def _unwritten(self, error: OSError) -> UserError:
        left = "make room, and run the same command again to go on" if self.is_kept else "nothing was left behind"
        if self.is_kept and isinstance(error, PermissionError):  # on Windows, a spreadsheet may have it open
            left = "close it where it is open, or let it be replaced, and run this again with --resume, not --overwrite"
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


def differing(one: dict, other: dict, keys: Collection[str]) -> list[str]:
    """Of the `keys` of two files' `made_from` those that differ; columns by their options. What follows from others,
    the columns that are kept, is named where nothing else is, and nothing beside another version, which noted less."""
    if unnoted := [key for key in keys if (key in one) != (key in other) and one.get(key) != other.get(key)]:
        return [f"version of the project (only one notes {', '.join(unnoted)})"]
    found = []
    for key in keys:
        before, now = one.get(key), other.get(key)
        if before != now and key == "columns" and isinstance(before, dict) and isinstance(now, dict):
            found += [OTHER_OPTIONS.get(role, f"--{role}-column") for role in {**before, **now}
                      if before.get(role) != now.get(role)]
        elif before != now:
            found.append(key)
    return [key for key in found if key != "own columns"] or found


def partial_files(path: str | Path) -> tuple[Path, Path]:
    """Where a `GrowingFile` keeps its rows and its journal until it is complete."""
    path = Path(path)
    return path.with_name(f".{path.name}.partial"), path.with_name(f".{path.name}.done.partial")


def was_stopped(path: str | Path) -> bool:
    """Whether a `GrowingFile` was stopped on its way to `path`.

    A kill in its very first or its last moment leaves a journal alone, which is nothing to go on with.
    """
    return all(part.exists() for part in partial_files(path))


def forget(path: str | Path) -> None:
    """Remove what a `GrowingFile` keeps beside a file that is known to be whole: a kill may have left it."""
    for part in partial_files(path):
        part.unlink(missing_ok=True)


def is_ending(path: str | Path) -> bool:
    """Whether a kill came when a `GrowingFile` was in its place already, and its journal not yet gone."""
    rows, journal = partial_files(path)
    if not Path(path).exists() or not journal.exists():
        return False
    if not rows.exists():
        return True
    check_plain(journal)
    with open(journal, "rb") as handle:
        last = handle.read()[-4096:].splitlines()[-1:]
    return bool(last) and b'"whole": ' in last[0]
