"""Where a run is from: the bytes of weights, data, question, adapter and code beside what run.json recorded.

SHA-256 of a file is the same for the same bytes, and nobody can make other bytes that have it. But whoever changes a
file of a run can write its new hash into run.json as well, so equal hashes show that nothing changed by accident; that
nobody changed it on purpose is shown only by a run.json that was kept where they could not write.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path, PurePath

from audit.subject import TEXTS, Subject
from audit.trained import Trained
from common.errors import UserError
from common.files import ROOT, find_path, sha256_file, sha256_json
from finetune.recorded import recorded_data
from finetune.run_folder import MADE, commit
from loading.cache import weights_sha256

CODE = ("common", "data", "finetune", "inference", "loading", "lora", "model", "quant", "train.py")
KEPT = ("Whoever changes a run's files can write their new hashes into run.json, too: equal hashes show that nothing "
        "changed by accident, and a change on purpose shows only beside a copy of run.json that was kept elsewhere.")


def code_sha256() -> str:
    """One SHA-256 over names and bytes of every .py file that training and labelling may run."""
    whole = hashlib.sha256()
    for name in CODE:
        place = ROOT / name
        for inner, path in named(place.rglob("*.py") if place.is_dir() else [place], ROOT):
            whole.update(f"{inner}\0{sha256_file(path)}\n".encode())
    return whole.hexdigest()


def named(paths: Iterable[PurePath], root: PurePath) -> list[tuple[str, PurePath]]:
    """Each path under its name below `root`, in one order on every system: Windows has other slashes, and sorts `B`
    behind `a`."""
    return [(path.relative_to(root).as_posix(), path) for path in sorted(paths, key=lambda path: path.parts)]


def hashes(subject: Subject, trained: Trained, cache: str | None = None) -> list[dict]:
    """One dict for each thing: `what`, `name`, `recorded`, `found` (None: it is not there), `same` (None: unknown)."""
    facts, rows = subject.run.facts, []

    def add(what: str, name: str, recorded, found) -> None:
        recorded = None if recorded is None else str(recorded)  # a file changed by hand may hold anything
        rows.append({"what": what, "name": name, "recorded": recorded, "found": found,
                     "same": None if recorded is None or found is None else recorded == found})

    recorded, there = facts["hashes"], weights_sha256(subject.base, cache)
    for name, digest in there.items():
        known = recorded["weights"].get(name) or (digest if digest in recorded["weights"].values() else None)
        add("weights", name, known, digest)
    for name, digest in recorded["weights"].items():
        if name not in there and digest not in there.values():
            add("weights", name, digest, None)
    for name, digest in recorded_data(subject.run).items():
        add("data", name, digest, digest_of(find_path(name)))
    add("question", "codebook", recorded.get("codebook"), subject.prompt.codebook.hash)
    add("question", "prompt", recorded.get("prompt"), sha256_json(subject.prompt.fingerprint()))
    made = facts.get("files")
    made = made if isinstance(made, dict) else {}  # an earlier version recorded none
    for name in MADE:
        add("run", name, made.get(name), digest_of(subject.run.path / name))
    if trained.prepared is not None:
        stored = trained.stored
        add("run", f"{TEXTS}, made again from the data", "cannot be read" if stored is None else sha256_json(
            stored.to_dict()), sha256_json(trained.texts.to_dict()))
    add("run", "options and hashes", facts.get("run_hash"), sha256_json([facts["options"], recorded]))
    add("code", "commit of the code", facts["environment"].get("commit"), commit())
    add("code", "training and labelling", None, code_sha256())
    return rows


def digest_of(path: Path) -> str | None:
    """SHA-256 of a file; None where it is not there, or is none that can be read."""
    try:
        return sha256_file(path)
    except UserError:
        return None
