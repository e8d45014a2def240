"""train.py in two processes that torchrun starts (gloo, on a CPU): the adapter of one process, and the bits of two that
were never killed. Slow: each of the processes imports everything.

Deliberate break: in finetune/team.py let `share` give all posts, take the sum's order from `self.rank`, or leave the
seed of a step's dropout out.
"""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from torch import distributed

from common.errors import UserError
from common.files import ROOT
from finetune import weights
from finetune.loop import Trainer
from finetune.memory import Piece
from finetune.options import TrainOptions
from finetune.team import Team, TeamTrainer
from model.config import LlamaConfig
from tests.programs.hostile import shared_world  # noqa: F401
from tests.small import SHAPE

KILLED = """
import os, runpy, sys
from finetune.loop import Trainer
step = Trainer.step
Trainer.step = lambda self: os._exit(9) if self.step_count == 3 else step(self)
sys.path.insert(0, {root!r})
runpy.run_path({program!r}, run_name="__main__")
"""


def train(world, out: Path, *more, processes: int = 1, program: Path = ROOT / "train.py", code: bool = True) -> str:
    launcher = [] if processes == 1 else ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node",
                                          str(processes)]
    words = ["--model", world.base, "--data", world.posts, "--max-steps", "6", "--batch-size", "5", "--epochs", "3",
             "--rank", "2", "--threads", "1", "--learning-rate", "3e-4", "--validation", "0.25", "--eval-every", "3",
             "--save-every", "1", "--dtype", "float32"]
    words = ["--resume"] if "--resume" in more else [*words, *more]
    ended = subprocess.run([sys.executable, *launcher, str(program), *map(str, words), "--out", str(out)],
                           capture_output=True, text=True, cwd=out.parent,
                           env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)})
    assert (ended.returncode == 0) is code, ended.stderr[-3000:]
    return ended.stdout


def adapters(run: Path) -> list[dict[str, torch.Tensor]]:
    return [load_file(run / name / "adapter_model.safetensors") for name in ("adapter", "adapter-last")]


@pytest.mark.slow
def test_two_processes_give_the_adapter_of_one(shared_world, tmp_path):  # noqa: F811
    train(shared_world, tmp_path / "one", "--dropout", "0")
    said = train(shared_world, tmp_path / "two", "--dropout", "0", processes=2)
    assert said.count("trained 6 steps") == 1
    for one, two in zip(adapters(tmp_path / "one"), adapters(tmp_path / "two"), strict=True):
        assert one.keys() == two.keys() and any(tensor.any() for tensor in one.values())
        for name in one:
            torch.testing.assert_close(two[name], one[name], rtol=0, atol=1e-6)


@pytest.mark.slow
def test_two_processes_that_were_killed_end_in_the_same_bits(shared_world, tmp_path):  # noqa: F811
    program = tmp_path / "killed.py"
    program.write_text(KILLED.format(root=str(ROOT), program=str(ROOT / "train.py")), encoding="utf-8")
    train(shared_world, tmp_path / "whole", "--dropout", "0.1", processes=2)
    train(shared_world, tmp_path / "killed", "--dropout", "0.1", processes=2, program=program, code=False)
    said = train(shared_world, tmp_path / "killed", "--resume", processes=2)
    assert "continuing after step 3 of 6" in said
    for one, two in zip(adapters(tmp_path / "whole"), adapters(tmp_path / "killed"), strict=True):
        assert all(torch.equal(one[name], two[name]) for name in one)


def test_shares_hold_every_post_once():
    for count in (1, 3, 8):
        found = [Team(rank, 3).share(list(range(count))) for rank in range(3)]
        assert sorted(index for share in found for index in share) == list(range(count))


@pytest.mark.parametrize("seed", [123, 2**63 - 1])
def test_every_step_and_process_draws_dropout_of_its_own(monkeypatch, seed):
    """The largest seed of `--seed` ended in a ValueError. Deliberate break: leave the rank, or the step, out."""
    monkeypatch.setattr(Trainer, "step", lambda self: torch.rand(4).tolist())
    drawn = []
    for rank in range(2):
        trainer = object.__new__(TeamTrainer)
        trainer.team, trainer.seed = Team(rank, 2), seed
        trainer.team.tell = lambda word: word
        for trainer.step_count in range(3):
            drawn.append(tuple(trainer.step()))
    assert len(set(drawn)) == 6


@pytest.fixture
def two_cards(monkeypatch):
    """Three processes on a machine with two GPUs, as torchrun tells the last of them; what the group was made with."""
    made = []
    for name, value in {"WORLD_SIZE": "3", "LOCAL_WORLD_SIZE": "3", "RANK": "2", "LOCAL_RANK": "2",
                        "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda number: made.append(number))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: made[0])
    monkeypatch.setattr(distributed, "init_process_group", lambda backend, **more: made.append(backend))
    monkeypatch.setattr(distributed, "get_backend", lambda: made[-1])
    monkeypatch.setattr(distributed, "get_rank", lambda: 2)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 3)
    return made


def test_more_processes_than_cards_are_refused_and_on_a_cpu_cards_do_not_matter(two_cards, monkeypatch):
    """Deliberate break: in `Team.joined` leave out `here > cards`, or take "nccl" whatever the device is."""
    for name in ("auto", "cuda"):
        with pytest.raises(UserError, match=r"--nproc-per-node 3: .* this machine has 2; start 2, or"):
            Team.joined(name)
    with pytest.raises(UserError, match="--device cuda:1: each of several processes"):
        Team.joined("cuda:1")
    assert two_cards == []
    team = Team.joined("cpu")
    assert two_cards == ["gloo"] and team.device("cpu") == "cpu" and (team.rank, team.size) == (2, 3)
    two_cards.clear()
    for name, value in {"LOCAL_WORLD_SIZE": "2", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    assert Team.joined("auto").device("auto") == "cuda:1" and two_cards == [1, "nccl"]


@pytest.mark.parametrize("changes, says", [
    ({"RANK": None}, "RANK is not set"),  # what a job script sets that never calls torchrun
    ({"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two', no number"),
    ({"MASTER_PORT": "-1"}, "MASTER_PORT is '-1', no number"),
    ({"MASTER_ADDR": None}, "MASTER_ADDR"),
    ({"RANK": "3"}, "RANK 3"),  # PyTorch would wait for the others for hours
    ({"LOCAL_RANK": "3"}, "LOCAL_RANK 3 of LOCAL_WORLD_SIZE 3"),
])  # fmt: skip
def test_an_environment_that_torchrun_did_not_make_is_one_line(two_cards, monkeypatch, changes, says):
    """Deliberate break: in `Team.joined` leave out a condition, or take "0" for a number that is missing."""
    for name, value in changes.items():
        monkeypatch.delenv(name) if value is None else monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=f"^WORLD_SIZE is set to .*{says}.*unset WORLD_SIZE to train in one$"):
        Team.joined("cpu")
    assert two_cards == []


@pytest.mark.parametrize("rank", [0, 1])
def test_the_first_process_decides_how_weights_are_stored(monkeypatch, rank):
    """Deliberate break: in finetune/weights.py leave `team` out of `resolve`."""
    said = []

    def broadcast(objects, src):
        said.append(objects[0])
        objects[0] = said[0] if rank == 0 else ("the first one's choice", "nf4")

    monkeypatch.setattr(distributed, "broadcast_object_list", broadcast)
    monkeypatch.setattr(weights, "available_memory", lambda device: 10**12)
    options = SimpleNamespace(quantize="auto", lora_targets="all-linear", rank=2, dropout=0.0, micro_tokens=0,
                              recompute=False, loss="label")
    config = LlamaConfig.from_dict(SHAPE)
    choice = weights.resolve(options, config, torch.device("cpu"), torch.float32, lambda tokens: Piece(8, 8, 1),
                             Team(rank, 2))
    assert said == ([(choice, "none")] if rank == 0 else [None])
    assert (choice, options.quantize) == (said[0] if rank == 0 else ("the first one's choice", "nf4"))


def given(monkeypatch, change) -> Team:
    """The second of two processes, where `change` is done to what the second was given."""
    def gather(every, mine):
        every[:] = [mine, change(dict(mine))]

    monkeypatch.setattr(distributed, "all_gather_object", gather)
    return Team(1, 2)


@pytest.mark.parametrize("key, name", [("--seed", "--seed"), ("data", "data"), ("commit", "commit"),
                                       ("packages", "packages"), ("rows", "rows")])
def test_processes_that_were_given_something_else_end_in_one_line(monkeypatch, key, name):
    """Each learned from its own posts before, and run.json had those of the first alone. Deliberate break: in
    `Team.agree` leave out the hashes, the options or the environment."""
    hashes, here = {"data": {"posts.csv": "abc"}}, {"dtype": "float32", "packages": {"torch": "2"}, "commit": "1f"}
    options = TrainOptions(data=("posts.csv",), device="cuda:0", out="runs/mine")
    given(monkeypatch, lambda mine: mine).agree(options, hashes, here)
    with pytest.raises(UserError, match=f"^process 2 of 2 has another {name} than the first; start all with the same"):
        given(monkeypatch, lambda mine: mine | {key: "other"}).agree(options, hashes, here)
    asked = []
    given(monkeypatch, lambda mine: asked.append(mine) or mine).agree(options, hashes, here)
    assert not {"--device", "--out", "--threads"} & asked[0].keys()


@pytest.mark.parametrize("call", [lambda team: team.tell(1), lambda team: team.first_says(int),
                                  lambda team: team.agree(TrainOptions(), {}, dict.fromkeys(("dtype", "packages",
                                                                                             "commit"))),
                                  lambda team: team.add_up([torch.zeros(2)], torch.zeros(()))])
def test_a_process_that_is_lost_is_one_line_for_the_others(monkeypatch, call):
    """gloo's words ended in a traceback. Deliberate break: leave `_together` out around one of them."""
    def lost(*given, **more):
        raise RuntimeError("[../gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:46212")

    for name in ("broadcast", "broadcast_object_list", "all_gather", "all_gather_object"):
        monkeypatch.setattr(distributed, name, lost)
    monkeypatch.setattr(distributed, "get_backend", lambda: "gloo")
    with pytest.raises(UserError, match=r"^another of the processes has ended.* Connection closed by peer"):
        call(Team(0, 2))
