"""One reader in a process of its own, fed with mutated files under limits of time and memory.

Processor time is limited from within (a signal, which any Python code hears) and from without (the parent ends a
process that does not come back); memory by the system's limit of the address space, so that asking for too much is an
error here and no trouble for the machine. A process that dies (a crash in a library) is a finding like any other, and
its reader goes on behind it.

Findings are kept as two files in the folder of findings: the input, and the reason with its traceback.
"""

import multiprocessing
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from dataclasses import dataclass, field
from pathlib import Path

from common.errors import UserError, is_memory

FAST = "/dev/shm" if os.path.isdir("/dev/shm") else None  # a file in memory is written in a tenth of the time
WAIT = 4  # a call may take so many times its processor time before the parent ends it: the machine has other work, too


class Slow(BaseException):
    """A call took more processor time than is allowed; no reader catches it."""


@dataclass
class Limits:
    """What one call may take."""

    seconds: float = 5.0
    megabytes: int = 512


@dataclass
class Tally:
    """What became of a reader's calls. `kinds`: the reasons of findings, each with its number."""

    name: str
    calls: int = 0
    taken: int = 0
    seconds: float = 0.0
    kinds: dict[str, int] = field(default_factory=dict)

    @property
    def findings(self) -> int:
        return sum(self.kinds.values())


def fuzz(tally: Tally, seconds: float, seed: int, limits: Limits, findings: Path, engine: str = "seeded") -> None:
    """Call a reader for so many seconds more, in as many processes as die on the way."""
    # atheris instruments modules while they are imported, so it needs a process that has none of them yet.
    context = multiprocessing.get_context("spawn" if engine == "atheris" else "fork")
    name, began = tally.name, time.monotonic()
    with tempfile.TemporaryDirectory(dir=FAST) as folder:
        while (left := seconds - (time.monotonic() - began)) > 0:
            shared = context.Array("d", [0.0, 0.0, 0.0], lock=False)  # calls, taken, when the present call began
            reads, writes = context.Pipe(duplex=False)
            place = Path(tempfile.mkdtemp(dir=folder))
            child = context.Process(target=_work, args=(name, left, f"{seed}/{tally.calls}", limits, place, shared,
                                                        writes, findings, engine))
            child.start()
            writes.close()
            reason = _wait(child, shared, left, limits, reads, tally.kinds)
            tally.calls, tally.taken = tally.calls + int(shared[0]), tally.taken + int(shared[1])
            if not shared[0] and reason.startswith("ended"):
                raise RuntimeError(f"{name}: the good file was not taken: {(place / 'said').read_text()[-3000:]}")
            if reason:
                tally.kinds[reason] = tally.kinds.get(reason, 0) + 1
                keep(findings, name, Path((place / "path").read_text()).read_bytes(), reason,
                     (place / "said").read_text(encoding="utf-8", errors="replace"))
            shutil.rmtree(place, ignore_errors=True)
    tally.seconds += time.monotonic() - began


def _wait(child, shared, seconds: float, limits: Limits, reads, kinds: dict[str, int]) -> str:
    """Wait for the child's end and count what it finds; returns why it ended where that is a finding itself."""
    end, more = time.monotonic() + seconds + 60, True  # fixtures are made first
    while child.is_alive() or more:
        more = reads.poll(0.2)
        if more:
            try:
                kind = reads.recv()
            except EOFError:
                child.join(5)
                break
            kinds[kind] = kinds.get(kind, 0) + 1
        since = shared[2]  # read once: it is nothing as soon as the call is over
        hangs = since and time.monotonic() - since > WAIT * limits.seconds + 2
        if hangs or time.monotonic() > end:
            child.kill()
            child.join()
            return "hangs" if hangs else "did not end"
    return f"died ({signal.Signals(-child.exitcode).name})" if child.exitcode and child.exitcode < 0 else (
        f"ended with {child.exitcode}" if child.exitcode else "")


def _work(name, seconds, seed, limits, place, shared, writes, findings, engine) -> None:
    """The child: make the reader's files, then mutate, write, call, until the time is over."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    sys.stdout = sys.stderr = open(place / "said", "w", buffering=1)  # noqa: SIM115 - as long as the process lives
    for number in (1, 2):  # what libraries say, too
        os.dup2(sys.stderr.fileno(), number)
    warnings.simplefilter("ignore")
    import torch

    torch.set_num_threads(1)
    if engine == "atheris":
        import atheris

        with atheris.instrument_imports(include=["common", "data", "model", "quant", "lora", "loading", "finetune"]):
            from tests.fuzz import readers
    else:
        from tests.fuzz import readers
    reader = readers.READERS[name]
    folder = place / "files"
    folder.mkdir()
    path = reader.make(folder)
    (place / "path").write_text(str(path))
    good = path.read_bytes()
    reader.read(path)  # what is good is taken, or the reader's calls are wrong
    signal.signal(signal.SIGPROF, _too_slow)
    _limit_memory(limits)
    kept: dict[str, int] = {}

    def call(data: bytes) -> None:
        path.write_bytes(data)
        shared[2] = time.monotonic()
        kind, trace = attempt(reader.read, path, limits, shared)
        shared[2], shared[0] = 0.0, shared[0] + 1
        if kind:
            kept[kind] = kept.get(kind, 0) + 1
            if kept[kind] <= 3:
                keep(findings, name, data, kind, trace)
            writes.send(kind)

    end = time.monotonic() + seconds
    if engine == "atheris":
        _atheris(atheris, reader, good, call, place, seconds, seed)
    number = 0
    while time.monotonic() < end:
        number += 1
        call(reader.mutate(good, random.Random(f"{seed}/{name}/{number}")))


def attempt(read, path: Path, limits: Limits, shared) -> tuple[str, str]:
    """One call; returns the reason and the traceback where its end is a finding, else ""."""
    try:
        signal.setitimer(signal.ITIMER_PROF, limits.seconds)
        try:
            read(path)
            shared[1] += 1
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        return "", ""
    except UserError as error:
        return "" if "\n" not in str(error) and str(error).strip() else "an error of several lines", ""
    except Slow:
        return f"takes more than {limits.seconds:g} s: {_where()}", traceback.format_exc()
    except BaseException as error:
        if isinstance(error, Exception) and is_memory(error):
            return f"takes more than {limits.megabytes} MB: {_where()}", traceback.format_exc()
        return f"{type(error).__name__}: {_where()}", traceback.format_exc()


def _where() -> str:
    """The last line of the project in the traceback: "data/rows.py:120"."""
    frames = traceback.extract_tb(sys.exc_info()[2])
    ours = [frame for frame in frames if ".venv" not in frame.filename and "tests/fuzz" not in frame.filename
            and not frame.filename.startswith(("<", sys.base_prefix))] or frames[-1:]
    return ":".join((*ours[-1].filename.split("/")[-2:], str(ours[-1].lineno))).replace(":", "/", 1)


def keep(findings: Path, name: str, data: bytes, kind: str, trace: str = "") -> None:
    """Write a finding down; at most a few of a kind."""
    findings.mkdir(parents=True, exist_ok=True)
    stem = re.sub(r"[^\w.-]+", "-", f"{name}-{kind}")[:120]
    for number in range(1, 4):
        path = findings / f"{stem}-{number}.input"
        if not path.exists():
            path.write_bytes(data)
            path.with_suffix(".txt").write_text(f"{name}: {kind}\n\n{trace[-5000:]}", encoding="utf-8",
                                                errors="backslashreplace")
            return


def _too_slow(*words) -> None:
    raise Slow


def _limit_memory(limits: Limits) -> None:
    """So many megabytes more than the process has now."""
    with open("/proc/self/statm", encoding="ascii") as handle:
        pages = int(handle.read().split()[0])
    most = pages * resource.getpagesize() + limits.megabytes * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _atheris(atheris, reader, good: bytes, call, place: Path, seconds: float, seed: str) -> None:
    """Let libFuzzer choose: its own mutations and ours in turn, kept where they reach new lines. Does not return."""
    corpus = place / "corpus"
    corpus.mkdir()
    (corpus / "good").write_bytes(good)

    def mutator(data: bytes, most: int, number: int) -> bytes:
        draw = random.Random(number)
        return (reader.mutate(data, draw) if draw.random() < 0.7 else atheris.Mutate(data, most))[:most]

    words = [f"-max_total_time={max(1, int(seconds))}", f"-seed={abs(hash(seed)) % 2**31 or 1}", "-max_len=200000",
             "-rss_limit_mb=0", "-timeout=0", str(corpus)]
    atheris.Setup(["fuzz", *words], call, custom_mutator=mutator)
    atheris.Fuzz()
