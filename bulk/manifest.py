"""What is done in a folder of outputs: `manifest.json`, with a line of facts for every file that is whole.

    {"schema": 1, "files": {"tweets.csv.gz": {"input", "made_from", "counts", "reals", "bytes", "sha256"}}}

`made_from` holds the hashes of run, prompt, arithmetic and input and the options that decide the rows: a file whose
input or run has changed since is refused, not passed over. A part of a job (`--shard`) has a manifest of its own, so
that no two processes write the same one; `tools.join` reads them. A run has one beside labels that went there for want
of an `--output`, so that another input of the same name does not take their place.

Facts of further files are added as lines to `.manifest.json.added`: a folder may hold thousands of files, and to write
all facts anew for each would take time by the square of that. `settled` makes one file of the two.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from common.errors import UserError
from common.files import read_json, sha256_file, write_json
from common.lock import hold
from common.reading import LARGE, check_plain, json_value, open_plain, open_to_write, whole_lines
from data.growing import differing

MANIFEST = "manifest.json"
PATIENCE = 60  # seconds that another process may take to write its line
FACTS = {"input": str, "made_from": dict, "counts": dict, "reals": list, "bytes": int, "sha256": str}


def manifest_path(folder: Path, part: tuple[int, int] | None = None) -> Path:
    """`manifest.json`, or that of a part: `manifest.2-of-8.json`."""
    return folder / (MANIFEST if part is None else "manifest.{}-of-{}.json".format(*part))


def read_manifest(path: Path) -> dict[str, dict]:
    """The facts of each whole file by its name; none where there is no manifest yet. Raises `UserError`, also for a
    name that leads out of the manifest's folder."""
    if not path.exists():
        return {}
    added = _added(path)  # first: another program may settle the two meanwhile
    check_plain(path)
    raw = read_json(path, LARGE)
    files = raw.get("files") if isinstance(raw, dict) and raw.get("schema") == 1 else None
    for line in added if isinstance(files, dict) else ():
        with suppress(ValueError, TypeError):  # torn, on a disk that was full
            files |= json_value(line)
    good = isinstance(files, dict) and all(
        isinstance(facts, dict) and all(type(facts.get(key)) is kind for key, kind in FACTS.items())
        and all(one == Path(str(one)).name for one in (name, facts.get("output", name)))
        for name, facts in files.items())
    if not good:
        raise UserError(f"{path}: is no manifest of labels; move it away, and label with --overwrite")
    return files


def added_path(path: Path) -> Path:
    """Where the facts lie that a manifest does not hold yet."""
    return path.with_name(f".{path.name}.added")


def _added(path: Path) -> list[bytes]:
    """The lines of facts that a manifest does not hold yet."""
    try:
        with open_plain(added_path(path)) as lines:
            return list(whole_lines(lines))
    except UserError:
        if added_path(path).exists():
            raise
        return []


def _lock(path: Path) -> str:
    """Of one manifest alone: what a kill on another machine left stands in no other part's way."""
    return f".{path.name}.lock"


def remove_manifest(path: Path) -> None:
    """Remove a manifest and what a kill left beside it."""
    for one in (path, added_path(path), path.with_name(_lock(path))):
        one.unlink(missing_ok=True)


def note_whole(path: Path, name: str, facts: Mapping) -> None:
    """Add the facts of one file to a manifest, or put them in the place of those that are there."""
    line = {name: dict(facts)}
    with hold(path.parent, PATIENCE, _lock(path)):
        if not path.exists():
            added_path(path).unlink(missing_ok=True)
            write_json(path, {"schema": 1, "files": line})
            return
        check_plain(path)
        with open_to_write(added_path(path), "ab") as handle:
            handle.write(b"\n" + json.dumps(line).encode() + b"\n")  # a line before may be torn
            handle.flush()
            os.fsync(handle.fileno())


@contextmanager
def settled(path: Path | None) -> Iterator[None]:
    """At the block's end, also after an error, the manifest holds all facts by itself; None: there is none.

    Where it cannot be written, on a full disk, the lines go on holding them, and the block's own error is what is told.
    """
    try:
        yield
    finally:
        if path is not None and path.exists() and added_path(path).exists():
            with suppress(OSError, UserError), hold(path.parent, PATIENCE, _lock(path)):
                write_json(path, {"schema": 1, "files": read_manifest(path)})
                added_path(path).unlink(missing_ok=True)


def is_done(files: Mapping[str, dict], output: Path, made_from: Mapping) -> bool:
    """Whether `output` is whole and was made from the same. Raises `UserError` where it was made from something else.

    files: a manifest's; made_from: what is known before the model is loaded; the manifest may hold more.
    """
    facts = files.get(output.name)
    if facts is None or not output.exists():
        return False
    same = json.loads(json.dumps(made_from))  # as a manifest gives it back
    different = differing(facts["made_from"], same, same)
    if different:
        raise UserError(f"--resume: {output} was made from another {', '.join(different)}; resume with the same, or "
                        "start anew with --overwrite")
    if output.stat().st_size != facts["bytes"]:
        raise UserError(f"--resume: {output} has changed since it was made; start anew with --overwrite")
    return True


def check_again(path: Path, output: Path, source: Path) -> None:
    """Raise `UserError` unless `output` is as it was made, and from `source` as it is now: labels of the same input,
    which are lost to nobody when they are made anew."""
    facts = read_manifest(path).get(output.name)
    if facts is None:
        found = "exists, and nothing says of which input"
    elif facts["made_from"].get("input") != sha256_file(source):
        found = "holds the labels of another input"
    elif facts["sha256"] != sha256_file(output):
        found = "has changed since it was made"
    else:
        return
    raise UserError(f"{output}: {found}; name another place with --output, or give --overwrite to replace it")
