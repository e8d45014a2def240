"""Worker processes that take turns, and what each of them needs: seconds and peak memory, measured from outside.

Only one worker has work at a time. Interleaving A B A B lets slow minutes of the machine fall on all sides alike; a
process each keeps their memory apart. While a worker is busy, /proc shows what its process holds: `peak_anonymous` is
the largest RssAnon seen (what it allocated itself; mapped files are not in it), sampled fifty times a second;
`peak_resident` is VmHWM, the kernel's own peak with mapped files in it, reset before each task.
"""

import json
import os
import select
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from common.errors import UserError
from common.files import write_json

ROOT = Path(__file__).resolve().parents[1]
INTERVAL = 0.02  # seconds between two looks at a worker's memory


class Worker:
    """One side of the comparison in a process of its own; `with Worker(...) as worker: worker.ask("label", ...)`."""

    def __init__(self, name: str, module: str, settings: dict, work: Path):
        self.name = name
        place = work / f"{self.name}-settings.json"
        self.log = work / f"{self.name}.log"
        write_json(place, settings)
        threads = str(settings["threads"])
        environment = os.environ | {"OMP_NUM_THREADS": threads, "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        with open(self.log, "w", encoding="utf-8") as log:
            self.process = subprocess.Popen([sys.executable, "-m", module, str(place)], cwd=ROOT, env=environment,
                                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)

    def ask(self, do: str, **arguments) -> dict:
        """The worker's answer to one task, with `peak_anonymous` and `peak_resident` in bytes; `UserError` if it died.
        """
        folder = Path("/proc") / str(self.process.pid)
        try:
            if folder.exists():
                (folder / "clear_refs").write_text("5")  # resets the peak
            self.process.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
            self.process.stdin.flush()
        except OSError as error:
            raise self._dead() from error
        peak = 0
        while not select.select([self.process.stdout], [], [], INTERVAL)[0]:
            peak = max(peak, memory(folder).get("RssAnon", 0))
        line = self.process.stdout.readline()
        if not line:
            raise self._dead()
        after = memory(folder)
        return json.loads(line) | {"peak_anonymous": max(peak, after.get("RssAnon", 0)),
                                   "peak_resident": after.get("VmHWM", 0)}

    def _dead(self) -> UserError:
        tail = self.log.read_text(encoding="utf-8").strip().splitlines()[-1:]
        return UserError(f"the worker '{self.name}' ended with status {self.process.wait()}: {''.join(tail)} "
                         f"(full log: {self.log})")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.process.stdin.close()
        if error[0] is not None:
            self.process.terminate()
        self.process.wait()
        self.process.stdout.close()


def memory(folder: Path) -> dict[str, int]:
    """Bytes by name (RssAnon, VmHWM, ...) from a process's status; empty if there is none."""
    try:
        lines = (folder / "status").read_text().splitlines()
    except OSError:
        return {}
    return {key: int(rest.split()[0]) * 1024 for key, _, rest in (line.partition(":") for line in lines)
            if rest.endswith("kB")}


@dataclass(frozen=True)
class Job:
    """One task of one side: what is timed, and what a ratio divides."""

    side: str  # ours, usual, llama.cpp
    task: str  # train, label
    template: str
    way: str
    arguments: dict = field(default_factory=dict, compare=False)

    @property
    def name(self) -> str:
        """For tables and as the key in the JSON file."""
        return f"{self.side}, {self.task}, {self.template}, {self.way}"


@dataclass
class Measured:
    """What the turns of one job at one depth gave."""

    seconds: list[float] = field(default_factory=list)
    peak_anonymous: list[int] = field(default_factory=list)
    peak_resident: list[int] = field(default_factory=list)
    peak_device: list[int] = field(default_factory=list)
    posts: int = 0

    def add(self, answer: dict, posts: int) -> None:
        """Note one turn."""
        self.posts = posts
        for name in ("seconds", "peak_anonymous", "peak_resident", "peak_device"):
            if name in answer:
                getattr(self, name).append(answer[name])

    @property
    def median(self) -> float:
        """Median seconds of a turn."""
        return median(self.seconds)

    @property
    def peak(self) -> int:
        """Largest memory of any turn: the GPU's if there is one, else what the process itself allocated."""
        return max(self.peak_device or self.peak_anonymous)

    def to_dict(self) -> dict:
        """For the JSON file."""
        return {"posts": self.posts, "seconds": self.seconds, "median": self.median, "peak": self.peak,
                "peak_anonymous": self.peak_anonymous, "peak_resident": self.peak_resident,
                "peak_device": self.peak_device}
