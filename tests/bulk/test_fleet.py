"""--engine ray without Ray: a cluster in this process that answers in any order, loses workers and gives no others.

tests/programs/test_ray.py has the same with Ray itself.

Deliberate break: in bulk/fleet.py leave out what a stop does in `label`, or yield what is done in the order of its
coming.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

import classify
from bulk import fleet
from inference import labeller
from tests.programs.hostile import (  # noqa: F401 - fixtures
    World,
    call,
    in_an_empty_folder,
    jsonl,
    post_rows,
    refused,
    shared_world,
    world,
)


class RayError(Exception):
    """What Ray raises where an actor is gone."""


class Cluster(ModuleType):
    """The part of Ray that is used; `losses` are the numbers of the calls that end in a lost actor, `hires` how many
    actors may start, `at` what happens at a call of that number."""

    def __init__(self):
        super().__init__("ray")
        self.exceptions = SimpleNamespace(RayError=RayError, RayTaskError=type("RayTaskError", (RayError,), {}))
        self.losses, self.hires, self.at, self.calls, self.draw = set(), 1000, {}, 0, random.Random(4)
        self.init = lambda **options: None
        self.shutdown = lambda: None
        self.cluster_resources = lambda: {"CPU": 3}

    def remote(self, **resources):
        return lambda kind: SimpleNamespace(remote=lambda *words: Actor(self, kind(*words)))

    def wait(self, promises, num_returns, timeout):
        ready = [promise for promise in promises if promise.is_ready]
        if not ready:
            time.sleep(0.01)
        return self.draw.sample(ready, min(1, len(ready))), []

    def get(self, promise):
        found = promise.make()
        if isinstance(found, Exception):
            raise found
        return found


class Actor:
    def __init__(self, cluster, worker):
        cluster.hires -= 1
        self.cluster, self.worker, self.starts = cluster, worker, cluster.hires >= 0
        self.begin, self.label = (SimpleNamespace(remote=lambda *words, name=name: self._call(name, *words))
                                  for name in ("begin", "label"))

    def _call(self, name, *words):
        cluster = self.cluster
        cluster.calls += name == "label"
        number = cluster.calls if name == "label" else 0
        cluster.at.get(number, lambda: None)()
        lost = number in cluster.losses
        make = (lambda: RayError("the actor died")) if lost else lambda: getattr(self.worker, name)(*words)
        return Promise(make, self.starts)


class Promise:
    def __init__(self, make, is_ready):
        self.make, self.is_ready = make, is_ready


@pytest.fixture
def cluster(monkeypatch):
    monkeypatch.setattr(labeller, "WINDOW", 4)
    found = Cluster()
    monkeypatch.setitem(sys.modules, "ray", found)
    return found


def words(world, output, *more):  # noqa: F811
    return ["--run", world.run, "--threads", "1", "--input", "in.jsonl", "--output", output, *more]


RAY = ("--engine", "ray", "--workers", "3")


@pytest.fixture
def whole(world, cluster, tmp_path):  # noqa: F811
    jsonl(tmp_path / "in.jsonl", post_rows(count=10))
    assert call(classify.main, *words(world, "whole.csv")).code == 0
    return (tmp_path / "whole.csv").read_bytes()


def test_the_order_is_that_of_the_input_whoever_answers_first_and_whoever_is_lost(world, cluster, whole):  # noqa: F811
    cluster.losses = {2, 3, 7}
    ended = call(classify.main, *words(world, "out.csv", *RAY))
    assert ended.code == 0 and "3 workers were lost" in ended.out, ended.err
    assert Path("out.csv").read_bytes() == whole


def test_a_warning_that_comes_while_no_worker_is_left_ends_the_program(world, cluster, whole, monkeypatch):  # noqa: F811
    """All are lost, as where a scheduler ends a whole job, and none starts any more: the driver does not wait for
    them."""
    cluster.losses, cluster.hires = set(range(4, 100)), 3
    cluster.at[6] = lambda: os.kill(os.getpid(), signal.SIGTERM)
    monkeypatch.setattr(fleet, "LAST", 1e9)
    ended = call(classify.main, *words(world, "out.csv", *RAY))
    assert ended.code == 75 and "rows of out.csv are kept; to be continued" in ended.err, ended.err
    cluster.losses, cluster.hires, cluster.at = set(), 1000, {}
    ended = call(classify.main, *words(world, "out.csv", *RAY, "--resume"))
    assert ended.code == 0 and "rows were labelled before" in ended.out
    assert Path("out.csv").read_bytes() == whole


def test_a_block_that_takes_too_long_is_not_waited_for(world, cluster, whole, monkeypatch):  # noqa: F811
    monkeypatch.setattr(fleet, "LAST", 0.05)
    monkeypatch.setattr(Cluster, "wait", lambda self, promises, num_returns, timeout: (
        [one for one in promises if self.calls < 4 and one.is_ready][:1], time.sleep(0.001)))
    cluster.at[4] = lambda: os.kill(os.getpid(), signal.SIGTERM)
    ended = call(classify.main, *words(world, "out.csv", *RAY))
    assert ended.code == 75 and "to be continued" in ended.err, ended.err


@pytest.mark.parametrize(("more", "says"), [((), "--engine ray: no Ray"), (("--address", "a:1"), "--address a:1: no")])
def test_a_cluster_that_does_not_start_is_one_line(world, cluster, whole, more, says):  # noqa: F811
    """Ray's own exception is a bare one. Deliberate break: catch `RuntimeError` alone."""
    def init(**options):
        raise Exception("\nThe current node timed out during startup.\n")

    cluster.init = init
    refused(classify.main, *words(world, "out.csv", *RAY, *more), says=(says, "(The current node timed out"))
