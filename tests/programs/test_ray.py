"""--engine ray: the bytes of one process, whoever is lost on the way. Needs Ray; starting it takes longest.

Deliberate break: in bulk/fleet.py yield what is done in the order of its coming, or leave out `waiting.appendleft`.
"""

import os
import shutil
import signal
from pathlib import Path

import pytest

import classify
from bulk import fleet
from inference import labeller
from tests.programs.hostile import World, call, jsonl, post_rows, refused

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def ray(monkeypatch):
    ray = pytest.importorskip("ray", reason="needs ray")
    monkeypatch.setenv("RAY_worker_niceness", "0")
    monkeypatch.setattr(labeller, "WINDOW", 4)
    yield ray
    ray.shutdown()


def words(world: World, output: str, *more) -> list[str]:
    return ["--run", str(world.run), "--threads", "1", "--input", "in", "--output", output, "--format", "csv.gz", *more]


def made(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).glob("*.gz")}


@pytest.fixture
def whole(world: World, tmp_path) -> dict[str, bytes]:
    (tmp_path / "in").mkdir()
    for number in range(2):
        jsonl(tmp_path / "in" / f"f{number}.jsonl", [*post_rows(start=50 * number, count=20), "broken"])
    assert call(classify.main, *words(world, "whole", "--max-bad-rows", "0.1")).code == 0
    return made("whole")


def test_workers_give_the_bytes_of_one_process_and_one_that_is_killed_is_replaced(world: World, whole, monkeypatch):
    collect, killed = fleet.Fleet._collect, []

    def kill_once(self, waiting, done):
        if not killed and done:
            pid = self.ray.get(self._idle[-1].pid.remote()) if self._idle else None
            if pid:
                killed.append(pid)
                os.kill(pid, signal.SIGKILL)
        collect(self, waiting, done)

    monkeypatch.setattr(fleet.Worker, "pid", lambda self: os.getpid(), raising=False)
    monkeypatch.setattr(fleet.Fleet, "_collect", kill_once)
    ray_words = words(world, "out", "--engine", "ray", "--workers", "2", "--max-bad-rows", "0.1")
    ended = call(classify.main, *ray_words)
    assert ended.code == 0, ended.err
    assert made("out") == whole and "2 workers, each on 1 core" in ended.out


def test_what_cannot_start_is_one_line(world: World, whole, tmp_path, monkeypatch):
    shutil.copytree(world.run, tmp_path / "run")
    refused(classify.main, *words(world, "o", "--engine", "ray", "--address", "127.0.0.1:1", "--max-bad-rows", "0.1"),
            says="no Ray cluster could be reached")
