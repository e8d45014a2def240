"""20,000 different posts in five files under 40 kills: one process, two parts, workers of Ray; out of room on a disk of
its own; asked to end every 20 seconds; and 200,000 posts once. The bytes of a job that nobody disturbed, every id once.

Minutes each, so only with --slow: `pytest --slow tests/programs/test_kills_long.py`; Ray where it is installed, the
disk where this process may mount one.

Deliberate break: as in test_kills_many.py; or in bulk/fleet.py leave out `waiting.appendleft`.
"""

import contextlib
import gzip
import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from common.files import ROOT
from tests.kills import forked
from tests.programs.hostile import jsonl
from tests.programs.test_kills import hold_against, leg
from tests.programs.test_kills_many import FILES, Folder, Parts, every_id_once, texts, through

pytestmark = pytest.mark.slow

POSTS, KILLS, CHUNK = 20_000, 40, 32  # the last: posts of a window


def fleet_leg(folder: str, program: str, words: tuple, number: int = 0) -> None:
    """One process that drives workers of Ray, of which it kills one itself when it looks the `number`-th time."""
    from bulk import fleet

    collect, looks = fleet.Fleet._collect, [0]

    def killing(self, waiting, done):
        looks[0] += 1
        if looks[0] == number and self._busy:
            Path("actor").touch()
            self.ray.kill(random.Random(number).choice([actor for actor, _, _ in self._busy.values()]))
        collect(self, waiting, done)

    fleet.Fleet._collect = killing
    leg(folder, program, words, 0, CHUNK)


class Fleet(Folder):
    """Workers of a cluster of Ray that each process starts for itself."""

    def words(self):
        return (*super().words(), "--engine", "ray", "--workers", "2")


@pytest.fixture(scope="module")
def begin():
    with forked(leg, "classify", "tools.join") as start:
        yield start


@pytest.fixture(scope="module")
def begin_fleet():
    pytest.importorskip("ray", reason="needs ray")
    pytest.importorskip("psutil", reason="needs psutil")
    with pytest.MonkeyPatch.context() as patch, forked(fleet_leg, "classify", "ray") as start:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ["PYTHONPATH"], *patched()]))
        patch.setenv("RAY_worker_niceness", "0")
        patch.setenv("RAY_worker_register_timeout_seconds", "600")  # on a busy machine its own 60 are not enough
        yield start


def patched() -> list[str]:
    """Where Ray lies, for processes that are not forked from this one."""
    import ray

    return [str(Path(ray.__file__).parents[1])]


def inputs(folder: Path, count: int) -> Path:
    folder.mkdir(parents=True)
    rows = [{"id": f"post-{number}", "text": text, "language": "en"} for number, text in enumerate(texts(count))]
    assert len({row["text"] for row in rows}) == count
    for number in range(FILES):
        jsonl(folder / f"f{number}.jsonl", rows[number::FILES])
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The shipped run and the posts."""
    return prepared(tmp_path_factory.mktemp("long"), POSTS)


def prepared(folder: Path, count: int) -> Folder:
    shutil.copytree(ROOT / "base" / "run", folder / "run")
    inputs(folder / "in", count)
    return Folder(folder)


@pytest.fixture(scope="module")
def whole(place, begin) -> dict:
    """What an undisturbed process makes of them."""
    through(place, begin)
    every_id_once(place.folder / "out", POSTS)
    return place.made()


def spread(work: Folder, begin, whole: dict, kills: int, seed: int, count: int = POSTS, window: int = CHUNK
           ) -> list[int]:
    """Kill `work` so many times on its way through `count` posts; returns the rows that were kept at each kill.

    Three of four kills come when a number of posts that was drawn has been added, and a moment later; one while a
    process starts. So they are spread over the posts however busy the machine is.
    """
    work.clear()
    draw, kept, start = random.Random(seed), [], 1.0
    while len(kept) < kills:
        if work.is_done():  # the numbers drawn were large ones: once more
            if not whole:
                break
            hold_against(work.made(), whole)
            work.clear()
        before, began, in_start = rows_so_far(work), time.monotonic(), draw.random() < 0.25
        until = before + draw.randint(1, 2 * count // kills)
        moment = draw.uniform(0, start)
        process = begin(work.folder, work.program, work.words(), 0, window)
        try:
            while process.exitcode is None and not (in_start and time.monotonic() - began > moment):
                time.sleep(0.02)
                now = rows_so_far(work)
                if now > before:
                    start = time.monotonic() - began if now - before <= window else start
                    if now >= until:
                        time.sleep(draw.uniform(0, 0.1))
                        break
        finally:  # also of a test that failed: the next one has the same folder
            if was_killed := process.exitcode is None:
                process.kill()
                process.join()
        if was_killed:
            kept.append(rows_so_far(work))
            print(kept[-1], end=" ", flush=True)
        assert process.exitcode in (0, -signal.SIGKILL), (work.folder / "said.txt").read_text()[-3000:]
    through(work, begin)
    if whole:
        hold_against(work.made(), whole)
    every_id_once(work.folder / "out", count)
    assert not list((work.folder / "out").rglob(".*"))
    return kept


def rows_so_far(work: Folder) -> int:
    """Rows that the journals and manifests of the output have."""
    out, counts = work.folder / "out", {}
    for path in out.glob(".*.done.partial"):
        with contextlib.suppress(FileNotFoundError):  # it has just become whole
            lines = path.read_bytes()[-4096:].split(b"\n")[:-1]
            found = json.loads(lines[-1]) if len(lines) > 1 else {}
            counts[path.name.removeprefix(".").removesuffix(".done.partial")] = found.get("counts", {}).get("rows", 0)
    for path in out.glob("manifest*.json"):
        with contextlib.suppress(FileNotFoundError):  # the parts have just been joined
            counts |= {name: facts["counts"].get("rows", 0)
                       for name, facts in json.loads(path.read_text())["files"].items()}
    return sum(counts.values())


def test_one_process_is_killed_forty_times(place, whole, begin):
    kept = spread(place, begin, whole, KILLS, 1)
    print(kept)
    assert len(set(kept)) > KILLS // 2


def test_two_parts_are_killed_forty_times(place, whole, begin):
    kept = spread(Parts(place.folder), begin, whole, KILLS, 2)
    print(kept)
    assert len(set(kept)) > KILLS // 2


def test_workers_actors_and_drivers_of_ray_are_killed_forty_times(place, whole, begin_fleet):
    kinds = spread_over_ray(Fleet(place.folder), begin_fleet, whole, KILLS, 3)
    print({kind: kinds.count(kind) for kind in kinds})
    assert {*kinds} == {"worker", "actor", "driver"}


def spread_over_ray(work: Fleet, begin, whole: dict, kills: int, seed: int) -> list[str]:
    """By chance: a worker's process is killed, an actor by Ray itself, the process that reads and writes."""
    import psutil

    work.clear()
    draw, kinds = random.Random(seed), []
    while len(kinds) < kills:
        if work.is_done():
            hold_against(work.made(), whole)
            work.clear()
        before = rows_so_far(work)
        marks = sorted(before + draw.randint(1, 6 * POSTS // kills) for _ in range(3))
        process = begin(work.folder, work.program, work.words(), draw.randint(20, 300))
        family = []
        while process.exitcode is None and marks:
            time.sleep(0.1)
            if rows_so_far(work) < marks[0]:
                continue
            marks.pop(0)
            with contextlib.suppress(psutil.Error):
                family = psutil.Process(process.pid).children(recursive=True)
                workers = [one for one in family if "ray::Worker" in " ".join(one.cmdline())]
                if marks and workers:
                    draw.choice(workers).kill()
                    kinds.append("worker")
        if process.exitcode is None:
            process.kill()
            process.join()
            kinds.append("driver")
        said = (work.folder / "said.txt").read_text()[-3000:]
        assert process.exitcode in (0, 2, -signal.SIGKILL), said  # 2: Ray's own 30 seconds for a start were not enough
        assert process.exitcode != 2 or "could be reached or started" in said.splitlines()[-1], said
        kinds += ["actor"] * (work.folder / "actor").exists()
        (work.folder / "actor").unlink(missing_ok=True)
        _, alive = psutil.wait_procs(family, timeout=120)
        assert not alive, alive  # nothing of a killed driver's cluster stays
        print(before, kinds, flush=True)
    through(work, begin)
    hold_against(work.made(), whole)
    every_id_once(work.folder / "out", POSTS)
    return kinds


def test_a_disk_that_is_full_again_and_again(place, whole, begin):
    """A file system of its own that holds less than the labels, and more at each call."""
    work, folder = Folder(place.folder), place.folder / "out"
    work.clear()
    folder.mkdir()
    size = sum(len(content) for content in whole["files"].values() if isinstance(content, bytes))
    mounted, ends, room = False, [], size // 4
    try:
        while not work.is_done():
            more = ("-o", f"remount,size={room}") if mounted else ("-t", "tmpfs", "-o", f"size={room}", "none")
            if subprocess.run(["mount", *more, str(folder)], capture_output=True).returncode:
                pytest.skip("this process may not mount a file system")
            mounted, room = True, room + size // 4
            process = begin(work.folder, work.program, work.words(), 0, CHUNK)
            process.join()
            ends.append(process.exitcode)
            assert ends[-1] in (0, 2) and len(ends) < 60, (work.folder / "said.txt").read_text()[-3000:]
            if ends[-1] == 2:
                assert "No space left on device" in (work.folder / "said.txt").read_text().splitlines()[-1]
        assert ends.count(2) > 3, ends
        hold_against(work.made(), whole)
        every_id_once(folder, POSTS)
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)
        work.clear()


def test_asked_to_end_every_twenty_seconds(place, whole, begin, every: float = 20):
    """And on a machine so busy that nothing is labelled by then, as soon as something is."""
    work, ends = Folder(place.folder), []
    work.clear()
    while not work.is_done():
        before, began = rows_so_far(work), time.monotonic()
        process = begin(work.folder, work.program, work.words(), 0, CHUNK)
        while process.exitcode is None and (time.monotonic() - began < every or rows_so_far(work) == before):
            time.sleep(0.05)
        if process.exitcode is None:
            os.kill(process.pid, signal.SIGTERM)
        process.join()
        ends.append(process.exitcode)
        assert ends[-1] in (0, 75, -signal.SIGTERM) and len(ends) < 500, ends
    print(f"every {every} s: {len(ends)} calls")
    hold_against(work.made(), whole)
    every_id_once(work.folder / "out", POSTS)


def test_two_hundred_thousand_posts_once(place, begin, tmp_path_factory):
    """Each file begins with the posts of the shorter job, which nobody disturbed: so do the labels, byte for byte."""
    first = {path.name: gzip.decompress(path.read_bytes()) for path in made_by(place, begin).glob("*.gz")}
    longest(prepared(tmp_path_factory.mktemp("longest"), 10 * POSTS), begin, first)


def longest(work: Folder, begin, first: dict[str, bytes]) -> None:
    print(spread(work, begin, {}, KILLS // 4, 4, 10 * POSTS, 64))
    assert len(first) == FILES
    for name, content in first.items():
        assert gzip.decompress((work.folder / "out" / name).read_bytes()).startswith(content), name


def made_by(work: Folder, begin) -> Path:
    """The folder of what `work` makes undisturbed."""
    work.clear()
    through(work, begin)
    return work.folder / "out"
