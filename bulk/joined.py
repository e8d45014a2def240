"""The files that parts of a job make together: checked for completeness, put behind one another, byte for byte the file
that one process would have written.

Each part holds plain rows, with a header of its own in csv and tsv, which is taken off all but the first that has rows.
Gzip and parquet are made of the whole, as for a file that was never divided. What is checked, for each file: that all
parts are there and as their manifests say, that all were made from the same, and that each input's rows follow one
another without a gap.
"""

import csv
import io
import re
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

from bulk.manifest import manifest_path, note_whole, read_manifest, remove_manifest
from bulk.places import part_path
from common.errors import UserError
from common.files import atomic_write, scratch_folder, sha256_file
from data.growing import differing, forget
from data.writers import PARQUET, PLAIN, Sheet, check_format, finish, is_gzipped, output_format, plain_format

_PART = re.compile(r"manifest\.(\d+)-of-(\d+)\.json")
BETWEEN_PARTS = ("--shard", "rows")  # what `made_from` has of each part alone


@dataclass(frozen=True)
class Whole:
    """One file to be made, and the facts of its parts in their order."""

    output: Path
    parts: list[dict]

    @property
    def paths(self) -> list[Path]:
        return [part_path(self.output, number, len(self.parts)) for number in range(1, len(self.parts) + 1)]


def parts_in(folder: Path) -> list[Whole]:
    """The files that the parts in `folder` make. Raises `UserError` for whatever is missing or does not fit."""
    found = [(int(match[1]), int(match[2])) for path in folder.glob("manifest.*-of-*.json")
             if (match := _PART.fullmatch(path.name))]
    if not found:
        raise UserError(f"{folder}: has no manifest of a part (manifest.1-of-8.json); classify.py --shard writes them")
    counts = sorted({parts for _, parts in found})
    if len(counts) > 1:
        raise UserError(f"{folder}: holds parts of different jobs: of {' and of '.join(map(str, counts))}; move those "
                        "of one away")
    parts = counts[0]
    missing = sorted(set(range(1, parts + 1)) - {number for number, _ in found})
    if missing:
        shown = ", ".join(map(str, missing[:20])) + (", ..." if len(missing) > 20 else "")
        raise UserError(f"{folder}: of {parts} parts {len(missing)} are not done: {shown}; label them with --shard I/"
                        f"{parts} --resume")
    manifests = [read_manifest(manifest_path(folder, (number, parts))) for number in range(1, parts + 1)]
    names = dict.fromkeys(facts.get("output") for manifest in manifests for facts in manifest.values())
    if None in names:
        raise UserError(f"{folder}: a part's manifest does not say of which file it is; label it again with "
                        "--overwrite")
    return [_whole(folder / name, manifests) for name in names]


def _whole(output: Path, manifests: list[dict]) -> Whole:
    facts = []
    for number, manifest in enumerate(manifests, 1):
        path = part_path(output, number, len(manifests))
        if path.name not in manifest:
            raise UserError(f"{path}: is not done; label it with --shard {number}/{len(manifests)} --resume")
        facts.append(manifest[path.name])
        rows = facts[-1]["made_from"].get("rows")
        if not (isinstance(rows, list) and len(rows) == 3 and all(type(count) is int for count in rows)):
            raise UserError(f"{path}: its manifest does not say which rows it holds; label it again with --overwrite")
    first = facts[0]["made_from"]
    for number, one in enumerate(facts[1:], 2):
        keys = [key for key in {**first, **one["made_from"]}  # an older version's may have fewer
                if key not in BETWEEN_PARTS]
        different = differing(first, one["made_from"], keys)
        if different:
            raise UserError(f"{output}: part {number} was made from another {', '.join(different)} than part 1; label "
                            "those that differ again")
    ranges = [one["made_from"]["rows"] for one in facts]
    if ranges[0][0] != 0 or any(one[1] != two[0] for one, two in pairwise(ranges)) or ranges[-1][1] != ranges[0][2]:
        raise UserError(f"{output}: the rows of its parts do not follow one another; label them again")
    for one, (start, stop, _) in zip(facts, ranges, strict=True):
        if one["counts"].get("rows", 0) != stop - start:
            raise UserError(f"{output}: a part has {one['counts'].get('rows', 0):,} rows instead of {stop - start:,}; "
                            "label it again")
    return Whole(output, facts)


def join(whole: Whole, overwrite: bool = False) -> dict:
    """Make one file of its parts and return its facts for a manifest.

    Raises `UserError` where a part has changed, and unless `overwrite` for another file in the output's place: the one
    that is made is the same where a kill came ahead of the manifest's line.
    """
    check_format(whole.output)
    output, first = whole.output, whole.parts[0]
    for path, facts in zip(whole.paths, whole.parts, strict=True):
        if not path.exists() or sha256_file(path) != facts["sha256"]:
            raise UserError(f"{path}: is not as its manifest says; label it again with --overwrite")
    if output_format(output) == PARQUET or is_gzipped(output):
        with scratch_folder(output.with_name(f"{output.name}.rows")) as scratch:
            plain = scratch / f"rows{plain_format(output)}"
            with open(plain, "wb") as handle:
                _put_behind(whole, handle)
            with atomic_write(output, "wb") as handle:
                finish(plain, handle, output, first["reals"])
                _check_replaced(output, handle, overwrite)
    else:
        with atomic_write(output, "wb") as handle:
            _put_behind(whole, handle)
            _check_replaced(output, handle, overwrite)
    counts = sum((Counter(facts["counts"]) for facts in whole.parts), Counter())
    return first | {"counts": dict(counts), "made_from": made_from(whole), "sha256": sha256_file(output),
                    "bytes": output.stat().st_size}


def _check_replaced(output: Path, handle: BinaryIO, overwrite: bool) -> None:
    handle.flush()
    if not overwrite and output.exists() and sha256_file(output) != sha256_file(handle.name):
        raise UserError(f"{output}: exists and is not the join of these parts; move it away, or give --overwrite")


def made_from(whole: Whole) -> dict:
    """What the joined file is made from: what its parts are, over all rows."""
    total = whole.parts[0]["made_from"]["rows"][2]
    return whole.parts[0]["made_from"] | {"--shard": None, "rows": [0, total, total]}


def was_joined(whole: Whole, facts: dict | None) -> bool:
    """Whether the file stands and is the join of these very parts, by the manifest's facts on it."""
    return (facts is not None and facts["made_from"] == made_from(whole) and whole.output.exists()
            and sha256_file(whole.output) == facts["sha256"])


def _put_behind(whole: Whole, handle) -> None:
    has_header = plain_format(whole.output) != ".jsonl"
    sheet = Sheet(semicolons=bool(whole.parts[0]["made_from"].get("--semicolons")))
    is_first = True
    for path in whole.paths:
        with open(path, "rb") as part:
            if has_header and not is_first:
                part.seek(_header_bytes(path, sheet))
            while piece := part.read(2**20):
                handle.write(piece)
                is_first = False


def _header_bytes(path: Path, sheet: Sheet = PLAIN) -> int:
    """Bytes of the header of a part: its first record, written again as `data.writers` wrote it."""
    delimiter = sheet.delimiter(path.suffix)
    with open(path, encoding="utf-8", newline="") as lines:
        record = next(csv.reader(lines, delimiter=delimiter), None)
    if record is None:
        return 0
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter).writerow(record)
    return len(text.getvalue().encode("utf-8"))


def join_all(folder: Path, keep: bool = False, overwrite: bool = False) -> list[Path]:
    """Make all files of the parts in `folder`, note them in its manifest, and remove the parts unless `keep`.
    overwrite: in the place of whatever files are there.

    After a kill the next call goes on: parts go when every file is whole, their manifests last, and where none is left
    all was joined before.
    """
    manifest = manifest_path(folder)
    if manifest.exists() and not any(folder.glob("manifest.*-of-*.json")):
        return []
    wholes = parts_in(folder)
    done = read_manifest(manifest)
    for whole in wholes:
        if any(not path.exists() for path in whole.paths) and was_joined(whole, done.get(whole.output.name)):
            continue  # a kill came while parts were removed
        note_whole(manifest, whole.output.name, join(whole, overwrite))
    for whole in wholes:
        for path in whole.paths:
            forget(path)
    if not keep:
        count = len(wholes[0].parts) if wholes else 0
        for path in [path for whole in wholes for path in whole.paths]:
            path.unlink(missing_ok=True)
        for number in range(count, 0, -1):  # the first last: without it nothing is complete
            remove_manifest(manifest_path(folder, (number, count)))
    return [whole.output for whole in wholes]

