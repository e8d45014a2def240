"""Which files the words behind `--input` mean: files, patterns, folders, and standard input."""

import glob
import gzip
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from common.errors import UserError
from common.files import find_path, matching, place_key
from data.lines import UTF_16
from data.rows import FORMATS, stem
from data.writers import OUTPUT_FORMATS, is_gzipped, output_format

STDIN = "-"
SHOWN = 3  # names of what a folder holds besides


def expand(names: list[str], option: str = "--input") -> list[Path | str]:
    """The files that `names`, given as `option`, mean, in their order; those of a folder or pattern by name. `-` stays.

    Raises `UserError` for a folder or pattern without a file of posts, and for a file that is meant twice.
    """
    found: list[Path | str] = []
    for name in names:
        path = find_path(name)
        if name == STDIN:
            found.append(STDIN)
        elif path.is_dir():
            inside = sorted(file for file in path.iterdir() if file.is_file() and is_known(file.name))
            if not inside:
                raise UserError(f"{option} {name}: the folder holds no {', '.join(sorted(FORMATS))} (also .gz)")
            found += inside
            _say_passed_over(path, inside)
        elif not path.exists() and glob.has_magic(name):
            files = matching(name)
            if not files:
                raise UserError(f"{option} {name}: no file has such a name")
            found += files
        else:
            found.append(path)
    seen: dict = {}
    for file in found:
        key = file if file == STDIN else file.resolve()
        if key in seen:
            raise UserError(f"{option} {file}: is meant twice; name each file once")
        seen[key] = file
    if not found:
        raise UserError(f"{option}: names no file; name one or several .jsonl, .csv or .tsv files, folders, or -")
    return found


def _say_passed_over(folder: Path, inside: list[Path]) -> None:
    """Name what a folder holds besides files of posts: nobody shall think that it was read."""
    known = {one.name for one in inside}
    others = sorted(f"{one.name}/" if one.is_dir() else one.name for one in folder.iterdir()
                    if one.name not in known and not (one.name.startswith(".") or _is_ours(one.name)))
    if others:
        more = f" and {len(others) - SHOWN:,} more" if len(others) > SHOWN else ""
        print(f"  not read in {folder}: {', '.join(others[:SHOWN])}{more}")


def is_known(file: str) -> bool:
    """Whether a file of this name in a folder is one of posts."""
    name = file.lower().removesuffix(".gz")
    return not _is_ours(name) and not name.startswith(".") and any(name.endswith(kind) for kind in FORMATS)


def _is_ours(name: str) -> bool:
    """Whether a file of this name lies in a folder of labels beside them."""
    return (name.startswith("manifest.") and name.endswith(".json")) or name == "report.html"


def outputs_for(files: list[Path], folder: Path, kind: str | None = None) -> list[Path]:
    """One file in `folder` for each input, named after it, of its format (jsonl for what is only read) or of `kind`.

    Raises `UserError` where two inputs would have the same.
    """
    outputs, taken = [], {}
    for file in files:
        try:
            own = output_format(file) + (".gz" if is_gzipped(file) else "")
        except UserError:
            own = OUTPUT_FORMATS[0]
        output = folder / f"{stem(file)}{own if kind is None else f'.{kind}'}"
        key = place_key(output)
        if key in taken:
            raise UserError(f"--output {folder}: {taken[key]} and {file} would both become {output.name}; label "
                            "them one after the other")
        taken[key] = file
        outputs.append(output)
    return outputs


@contextmanager
def spooled(stream: BinaryIO) -> Iterator[Path]:
    """All of a stream as a file for the length of a `with` block: posts are read twice, standard input only once.

    Its format is told by its beginning, gzipped or not: "{" or "[" is JSON, a tab in the first line is tsv, else csv.
    What cannot be removed afterwards, since an error left it open on Windows, is named.
    """
    whole = tempfile.TemporaryDirectory(prefix="posts-", ignore_cleanup_errors=True)
    try:
        with whole as folder:
            path = Path(folder) / "stdin"
            with open(path, "wb") as handle:
                shutil.copyfileobj(stream, handle)
            start = _first_line(path)
            kind = ".jsonl" if start[:1] in (b"{", b"[") else ".tsv" if b"\t" in start else ".csv"
            path = path.rename(path.with_suffix(".parquet" if start.startswith(b"PAR1") else kind))
            try:
                yield path
            except UserError as error:  # of a file that the user never named
                raise UserError(str(error).replace(str(path), "standard input")) from error
    finally:
        if os.path.exists(whole.name):
            print(f"{whole.name}: could not be removed, and holds the posts; remove it")


def _first_line(path: Path) -> bytes:
    with open(path, "rb") as handle:
        is_zipped = handle.read(2) == b"\x1f\x8b"
    with gzip.open(path, "rb") if is_zipped else open(path, "rb") as handle:
        try:
            line = handle.readline(1 << 16)
            text = line.decode("utf-16", "ignore").encode() if line.startswith(UTF_16) else line
            return text.removeprefix(b"\xef\xbb\xbf").lstrip()
        except (OSError, EOFError, zlib.error):  # what is wrong with it, is told when it is read
            return b""
