"""Audit a run: what four bits cost, what its adapter does, how it behaves, what it remembers, where it is from.

    python -m audit                                                    the newest run, on the sample test posts
    python -m audit --run runs/mine --data test.csv --out audits/mine
    python -m audit --run runs/en --other runs/thirteen                the angles between two adapters as well
    python -m audit --run runs/mine --pairs mine.toml                  with minimal pairs of your own

Writes audit.html, which opens with what was found, and audit.json with every figure. Posts whose text was trained on
are left out. The run's run.json gets a note that the file was scored (--no-note: it does not). Nothing is fetched from
a network but what --model names.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from audit.adapter import adapter, compare
from audit.behaviour import behaviour
from audit.change import macro_f1
from audit.four_bits import worst_rounded
from audit.identity import identity
from audit.memorisation import memorisation
from audit.minimal import own_pairs, shipped_pairs
from audit.page import audit_page, findings
from audit.probe import constant, probe
from audit.provenance import hashes
from audit.quantisation import quantisation
from audit.replay import replay
from audit.subject import Subject, level_of, open_subject
from audit.trained import Trained, base_of
from common.device import MachineOptions
from common.errors import UserError, run_program
from common.files import atomic_folder, atomic_write, check_place, find_path, sha256_file, write_json
from common.options import option, parse_options
from common.reading import check_path
from common.terminal import human_seconds
from common.terminal import progress as bar
from data.annotators import read_labelled
from data.checks import near_pairs
from data.codebook import Codebook, load_codebook
from data.groups import GroupOptions
from data.posts import DATA, ColumnOptions
from data.rows import stem
from finetune.recorded import recorded_data
from finetune.run_folder import RunFolder
from inference.run import finished_run, open_model
from report.clusters import rate_interval
from report.words import counted, filled

PARTS = ("quantisation", "adapter", "provenance", "behaviour", "memorisation")
WRITTEN = ("The pairs were written for this project by a language model and not checked by native speakers; every post "
           "is invented (audit/pairs/README.md). Situations recur from language to language, so rates over several "
           "languages have no interval.")

# Part -> what its bar counts, and what one of them is.
UNITS = {
    "four bits": ("round", "A round goes over all posts, with one {level} changed; the first only looks at what "
                           "arrives at the matrices, the last changes all of them."),
    "adapter": ("round", "A round goes over all posts, with one {level}'s update left out; the last leaves out all."),
    "pairs": ("round", "It goes over the posts of all pairs."),
    "memory": ("round", "A round scores training posts or unseen ones, with the adapter or without it."),
    "steps": ("recorded step", "Each is done again and compared to the bit."),
}  # fmt: skip


@dataclass
class AuditOptions(GroupOptions, ColumnOptions, MachineOptions):
    """Options of one audit."""

    FIRST: ClassVar = ("run", "data", "out", "pairs", "other", "parts")

    run: str | None = option(None, "folder of a finished run (default: the newest in runs/)", metavar="DIR")
    data: list[str] = option(("data/samples/test.jsonl",), "labelled posts that took no part in training",
                             metavar="FILE")
    out: str | None = option(None, "folder for audit.html and audit.json (default: in the run)", metavar="DIR")
    pairs: list[str] = option((), "minimal pairs of your own (TOML; audit/minimal.py says how)", metavar="FILE")
    other: str | None = option(None, "another run on the same base: the angles between the two adapters",
                               metavar="DIR")
    parts: list[str] = option(PARTS, "parts of the audit", choices=PARTS)
    model: str | None = option(None, "where the base model is, if it has moved since training", metavar="DIR")
    level: str = option("auto", "what is changed alone: each matrix, or each layer; auto: by their number",
                        choices=("auto", "matrix", "layer"))
    steps: int = option(5, "recorded training steps to do again; 0 for none", minimum=0)
    drop_known: str = option("same", "leave out posts whose text was trained on, as eval.py does",
                             choices=("same", "exact", "none"), group=DATA)
    note: bool = option(True, "write into the run's run.json that the file was scored: a file that guided a choice is "
                        "no test any more")
    draws: int = option(2000, "bootstrap draws behind the intervals", minimum=0, maximum=10**6)
    seed: int = option(0, "seed of the bootstrap", minimum=0)


def main(argv: list[str]) -> None:
    """Read everything that can be wrong, then measure part by part, then write."""
    options = parse_options(AuditOptions, argv, program="python -m audit", description=__doc__)
    began = time.monotonic()
    run = finished_run(options.run)
    out = Path(options.out) if options.out else run.path / f"audit-{stem(Path(options.data[0]))}"
    check_out(out)
    options.remember(run.facts["options"])
    recorded_data(run)
    own = own_pairs(options.pairs)
    other = RunFolder.open(options.other) if options.other else None
    options.model = base_of(run, options.model)
    trained = Trained.of(run, options.model)
    subject = open_one(options, run, trained)
    found = audit(options, subject, trained, own, other)
    with atomic_folder(out) as beside:
        write_json(beside / "audit.json", found)
        with atomic_write(beside / "audit.html") as handle:
            handle.write(audit_page(found))
    for name in options.data if options.note else ():
        run.note_scored({"data": str(name), "data_sha256": sha256_file(find_path(name)), "n": len(subject.posts),
                         "accuracy": found["accuracy"], "macro_f1": found["macro_f1"]})
    print("\n" + "\n\n".join("\n".join(filled(line)) for line in findings(found)))
    print(f"\nreport: {out / 'audit.html'} ({human_seconds(time.monotonic() - began)})")


def check_out(out: Path) -> None:
    """An audit may be written over an earlier one, never over anything else."""
    check_path(out / "audit.json")
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / "audit.json").exists())):
        raise UserError(f"--out {out}: holds something that is no audit; choose another folder")
    check_place(out, "--out")


def open_one(options: AuditOptions, run: RunFolder, trained: Trained) -> Subject:
    """The run in memory, with the posts to ask it about."""
    device, dtype, reason = options.set_up()
    print(f"  {dtype}, since {reason}")
    files = [find_path(name) for name in options.data]
    with options.or_samples():
        posts, notes, _ = read_labelled(files, options.columns(), Codebook.from_dict(run.facts["codebook"]),
                                        bad_labels=options.bad_labels)
    groups = options.groups_of(posts, files[0])
    subject, lines = open_subject(run, posts, groups, model=options.model, device=device, dtype=dtype,
                                  micro_tokens=options.micro_tokens, cache=options.cache, drop=options.drop_known,
                                  group_by=options.group_by, machine=options, texts=trained.texts)
    print("\n".join([*notes.lines(), *lines]))
    return subject


def audit(options: AuditOptions, subject: Subject, trained: Trained, own: list, other: RunFolder | None) -> dict:
    """Everything that audit.json holds. What can fail by a file of the run comes before what takes long."""
    angles = beside(options, subject, other)  # which may refuse: before what takes long
    reference = subject.probabilities()
    level = level_of(subject.model) if options.level == "auto" else options.level
    how = {"draws": options.draws, "seed": options.seed}
    right = reference.argmax(1) == subject.table.gold
    found = {"schema": 2, "run": subject.run.path.resolve().name,
             "identity": identity(subject, trained, options.data, options.pairs), "known": known(subject, trained),
             "posts": len(subject.posts), "groups": len(np.unique(subject.table.clusters)),
             "group_by": subject.group_by, "texts_first": options.texts_first, "labels": list(subject.labels), **how,
             "macro_f1": macro_f1(subject.table, reference), "accuracy": float(right.mean()),
             "accuracy_ci": list(rate_interval(right, subject.table.clusters)), "constant": constant(subject.table)}
    if "provenance" in options.parts:
        found["provenance"] = {"hashes": hashes(subject, trained, options.cache), "replay": None}
        if options.steps:
            found["provenance"]["replay"] = replay(subject.run, subject.model, trained, options.steps,
                                                   progress=shown("steps"))
    if "quantisation" in options.parts:
        found["quantisation"] = quantisation(subject, reference, level=level, progress=shown("four bits", level),
                                             rounded=early, **how)
    if "adapter" in options.parts:
        found["adapter"] = adapter(subject, reference, level=level, progress=shown("adapter", level), **how)
        found["adapter"]["probe"] = probe(subject, reference, options.seed)
        found["adapter"] |= angles
    if "behaviour" in options.parts:
        if subject.labels == load_codebook().labels:
            found["behaviour"] = behaviour(subject, shipped_pairs(), progress=shown("pairs")) | {"written": WRITTEN}
        else:
            print("  the pairs that ship are about immigration, and this run's question is not: only --pairs is asked")
        if own:
            found["own_pairs"] = behaviour(subject, own, shipped=False) | {"written": "These are the user's own."}
    if "memorisation" in options.parts:
        found["memorisation"] = remembered(options, subject, trained)
    return found


def known(subject: Subject, trained: Trained) -> dict:
    """How posts of the audit were compared with those of training, and what was left out."""
    check = subject.check
    near = None if trained.posts is None else len(near_pairs(trained.posts, check.kept))
    return {"rule": check.drop, "all": len(check.all), "kept": len(check.kept), "dropped": len(check.dropped),
            "exact": check.exact, "same": check.same, "near": near, "from_data": trained.prepared is not None}


def beside(options: AuditOptions, subject: Subject, other: RunFolder | None) -> dict:
    """The angles to the adapter of another run, if one was named."""
    if other is None:
        return {}
    model, _ = open_model(other, model=options.model, device=torch.device("cpu"), dtype=torch.float32,
                          cache=options.cache)
    return {"other": other.path.resolve().name, "angles": compare(subject.model, model, f"--other {other.path}")}


def remembered(options: AuditOptions, subject: Subject, trained: Trained) -> dict:
    """The section about memory, or why there is none."""
    if trained.prepared is None:
        return {"measured": False, "why": f"its training posts cannot be asked about: {trained.why}."}
    return {"measured": True} | memorisation(subject, trained.prepared.train, trained.options.loss,
                                             draws=options.draws, seed=options.seed, progress=shown("memory"))


def early(matrices: list) -> None:
    """Say what is known of the rounding before any post is labelled."""
    print(told(f"rounded worst: {worst_rounded(matrices)}. Which one costs the answers most is measured now."))


def told(line: str) -> str:
    """A line for the terminal, indented and cut where it is too long."""
    return "\n".join(f"  {part}" for part in filled(line))


def shown(part: str, level: str = "") -> Callable[[int], Callable[[], None]]:
    """progress(total) -> a function that moves the part's bar by one; what one is, is said before."""
    unit, words = UNITS[part]

    def start(total: int) -> Callable[[], None]:
        print(told(f"{part}: {counted(total, unit)}. {words.format(level=level)}"))
        moving = bar(total, unit, part)

        def done() -> None:
            moving.update()
            if moving.n >= total:
                moving.close()

        return done

    return start


if __name__ == "__main__":
    run_program(main)
