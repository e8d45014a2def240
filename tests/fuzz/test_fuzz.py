"""The fuzzer finds what it is there for, tells it by its kind, keeps its file, and finds nothing in the readers.

A few seconds of it run with every test, three minutes over all readers with `--slow`.

Deliberate break that turns this red: in tests/fuzz/worker.py, let `attempt` take every `Exception` for success; or, in
common/reading.py, leave `except RecursionError` out of `json_value`.
"""

import faulthandler
import json
import os
import random
import subprocess
import sys
import time

import pytest

from common.errors import UserError
from common.files import ROOT
from tests.fuzz import readers
from tests.fuzz.mutate import mutate
from tests.fuzz.worker import Limits, Tally, fuzz

QUICK = ("posts.csv", "run.json", "config.json", "adapter_config.json", "state.pt", "plan.toml", "journal")


def run_fuzzer(folder, *words) -> subprocess.CompletedProcess:
    """As a person runs it, with findings in `folder`."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-m", "tests.fuzz", "--out", folder, "--engine", "seeded", *map(str, words)],
                          cwd=ROOT, env=environment, capture_output=True, text=True)


def check(child: subprocess.CompletedProcess, names, at_least: int) -> None:
    """It found nothing, and called each reader often enough."""
    assert child.returncode == 0, child.stdout + child.stderr
    lines = {line.split()[0]: line.split() for line in child.stdout.splitlines() if line.strip()}
    for name in names:
        _, calls, taken, findings, _ = lines[name]
        assert int(calls.replace(",", "")) >= at_least and findings == "0" and int(taken.replace(",", "")) >= 0, name


def test_a_few_seconds_find_nothing(tmp_path):
    check(run_fuzzer(tmp_path, "--minutes", 5 / 60, "--reader", ",".join(QUICK), "--seed", 1), QUICK, 5)


@pytest.mark.slow
def test_three_minutes_over_every_reader_find_nothing(tmp_path):
    check(run_fuzzer(tmp_path, "--minutes", 3, "--seed", os.getpid()), readers.READERS, 50)


def crash(path):
    faulthandler.disable()
    os.abort()


def spin(path):
    while True:
        pass


def sleep(path):
    time.sleep(1000)


def swallow(path):
    bytearray(2**30)[-1] = 1


def confuse(path):
    return {}["missing"]


def refuse(path):
    raise UserError("f: is no good")


FAILING = {
    "KeyError": confuse, "takes more than 1 s": spin, "takes more than 100 MB": swallow, "died": crash, "hangs": sleep,
}  # fmt: skip


@pytest.mark.parametrize("kind", FAILING)
def test_every_kind_of_failure_is_found_and_kept(kind, tmp_path, monkeypatch):
    def read(path):
        if path.read_bytes() != b"{}":
            FAILING[kind](path)

    monkeypatch.setitem(readers.READERS, "made", readers.Reader("made", readers.file_of("made", b"{}"), read,
                                                                lambda data, rng: b"changed"))  # fmt: skip
    # On a busy machine a second of processor time may take many, and what computes must not pass for what hangs.
    monkeypatch.setattr("tests.fuzz.worker.WAIT", 1 if kind == "hangs" else 50)
    tally = Tally("made")
    fuzz(tally, 1.5 if kind != "hangs" else 0.5, 0, Limits(1.0, 100), tmp_path)
    assert tally.findings and all(reason.startswith(kind) for reason in tally.kinds), tally.kinds
    kept = sorted(tmp_path.glob("*.input"))
    assert kept and all(path.read_bytes() == b"changed" for path in kept)
    told = [path.with_suffix(".txt").read_text() for path in kept]
    assert all(text.startswith(f"made: {kind}") for text in told)
    assert kind in ("died", "hangs") or FAILING[kind].__name__ in told[0]  # the traceback


def test_success_and_refusals_are_no_findings(tmp_path, monkeypatch):
    def read(path):
        if path.read_bytes() == b"changed":
            refuse(path)

    monkeypatch.setitem(readers.READERS, "made", readers.Reader("made", readers.file_of("made", b"{}"), read,
                        lambda data, rng: rng.choice((b"changed", b"{}"))))  # fmt: skip
    tally = Tally("made")
    fuzz(tally, 0.5, 0, Limits(), tmp_path)
    assert 0 < tally.taken < tally.calls and not tally.findings and not list(tmp_path.iterdir())


def test_a_reader_that_does_not_take_its_good_file_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setitem(readers.READERS, "made", readers.Reader("made", readers.file_of("made", b"{}"), refuse))
    with pytest.raises(RuntimeError, match="is no good"):
        fuzz(Tally("made"), 0.5, 0, Limits(), tmp_path)


def test_the_same_seed_makes_the_same_files():
    good = json.dumps({"a": [1, 2, {"b": "c"}], "d": 1.5}).encode()
    first, second = ([mutate(good, random.Random(f"{seed}/{number}")) for number in range(3000)] for seed in (1, 1))
    assert first == second and len(set(first)) > 1000
    assert any(b"[" * 1000 in data for data in first) and any(b"9" * 1000 in data for data in first)
    assert any(b"\0" in data for data in first) and any(b"n" * 300 in data for data in first)


@pytest.mark.parametrize("name", readers.READERS)
def test_good_files_are_taken_and_small(name, tmp_path):
    reader = readers.READERS[name]
    path = reader.make(tmp_path)
    assert path.stat().st_size < 60_000
    reader.read(path)


def test_names_and_a_kept_file_from_the_command_line(tmp_path):
    child = run_fuzzer(tmp_path, "--reader", "confg.json")
    assert child.returncode == 2 and "did you mean 'config.json'?" in child.stderr
    (tmp_path / "a.input").write_bytes(b"id,text\n1,a\n")
    child = run_fuzzer(tmp_path, "--reader", "posts.csv", "--replay", tmp_path / "a.input")
    assert child.returncode in (0, 2) and "Traceback" not in child.stderr
    assert run_fuzzer(tmp_path, "--replay", tmp_path / "a.input").returncode == 2
