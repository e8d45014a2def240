"""--engine ray: the bytes of one process, whoever is lost on the way. Needs Ray; starting it takes longest.

Deliberate break: in bulk/fleet.py yield what is done in the order of its coming, or leave out `waiting.appendleft`.
"""

import time
from pathlib import Path

import pytest

import classify
from bulk import fleet
from inference import labeller
from tests.programs.hostile import World, call, jsonl, post_rows

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
        busy = [actor for actor, number, _ in self._busy.values() if number is not None]
        if busy and not killed:
            killed.append(True)
            self.ray.kill(busy[0])
        collect(self, waiting, done)

    monkeypatch.setattr(fleet.Fleet, "_collect", kill_once)
    ray_words = words(world, "out", "--engine", "ray", "--workers", "2", "--max-bad-rows", "0.1")
    ended = call(classify.main, *ray_words)
    assert ended.code == 0 and killed, ended.err
    assert made("out") == whole and "1 worker was lost" in ended.out and "2 workers, each on 1 core" in ended.out
    assert not list(Path("out").glob(".*"))


def test_two_nodes_of_which_one_is_lost_half_way(world: World, whole, monkeypatch, ray):
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        cluster.add_node(num_cpus=1)
        second, collect, lost = cluster.add_node(num_cpus=1), fleet.Fleet._collect, []
        cluster.wait_for_nodes()

        def lose_once(self, waiting, done):
            starting = [promise for promise, (_, number, _) in self._busy.items() if number is None]
            if starting and not lost:  # or the first one may be through with all posts before the other is there
                self.ray.wait(starting, num_returns=len(starting), timeout=120)
            if not lost and all(number is not None for _, number, _ in self._busy.values()):  # both have started
                lost.append(True)
                cluster.remove_node(second, allow_graceful=False)
                time.sleep(8)  # until its worker has noticed
            collect(self, waiting, done)

        monkeypatch.setattr(fleet.Fleet, "_collect", lose_once)
        ended = call(classify.main, *words(world, "out", "--engine", "ray", "--workers", "2", "--max-bad-rows", "0.1",
                                           "--address", cluster.address))
        assert ended.code == 0 and lost and "worker was lost" in ended.out, ended.err
        assert made("out") == whole
    finally:
        ray.shutdown()
        cluster.shutdown()
