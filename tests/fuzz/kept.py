"""What the programs keep for their next run, made and read as they do: journals, frozen plans, answers, caches."""

import json
from collections.abc import Callable
from pathlib import Path

from common.files import sha256_json, write_json
from data.growing import GrowingFile, partial_files
from loading.cache import _whole, quantised_copy, weights_sha256
from loading.weights import read_config
from study.preregistration import differences, read_frozen
from tests.fuzz import fixtures

MADE_FROM = {"run": "a", "input": "b", "columns": {"text": "text"}}


def journal(folder: Path) -> Path:
    file = GrowingFile(folder / "labels.csv", MADE_FROM, resume=True)
    try:
        with file:
            file.add([{"id": "a", "predicted": "neutral"}], texts=1, cut=0)
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        return partial_files(folder / "labels.csv")[1]


def go_on(path: Path) -> None:
    rows = path.with_name(".labels.csv.partial")
    whole = b"id,predicted\r\na,neutral\r\n"
    rows.write_bytes(whole)
    try:
        with GrowingFile(path.parent / "labels.csv", MADE_FROM, resume=True) as file:
            file.add([{"id": "b", "predicted": "neutral"}], texts=1)
    finally:
        (path.parent / "labels.csv").unlink(missing_ok=True)


def frozen(folder: Path) -> Path:
    facts = {"plan": {"title": "a", "data": {"train": ["x"]}}, "hashes": {"base": "x"}, "posts": {"test posts": "y"},
             "date": "2026-03-01T12:00:00+0100"}
    facts |= {"plan_hash": sha256_json(facts["plan"])}
    write_json(folder / "frozen.json", facts | {"schema": 2, "hash": sha256_json(facts)})
    return folder / "frozen.json"


def froze(path: Path) -> None:
    found = read_frozen(path)
    differences(found, {"plan": {"data": {}}, "hashes": {}, "posts": {}}), f"{found['date']}"


def answers() -> bytes:
    return json.dumps({"rows": [["en", "a", fixtures.PROBABILITIES]] * 2, "seconds": 1.5, "posts": 2, "tokens": 40,
                       "dtype": "float32", "machine": {"device": "cpu", "threads": 2}}).encode()


def kept(name: str) -> Callable[[Path], Path]:
    """A folder with a base and what the cache keeps of it."""
    def make(folder: Path) -> Path:
        source = fixtures.dense(folder / "base")
        weights_sha256(source, folder / "cache")
        quantised_copy(source, read_config(source), folder / "cache", double=False)
        known = {str((source / "config.json").resolve()): [[1, 2, 3, 4], "0" * 64]}
        write_json(folder / "cache" / "hashes.json", known)
        return next((folder / "cache").rglob(name))

    return make


def cache_of(path: Path) -> None:
    folder = next(parent for parent in path.parents if (parent / "base").is_dir())
    weights_sha256(folder / "base", folder / "cache")
    _whole(next((folder / "cache").glob("nf4*")))
