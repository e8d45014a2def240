"""Files damaged at random: whatever a byte or a value becomes, a program works or ends in one line, with no traceback.

Each trial damages one file (a byte, a piece cut out or put in, a JSON value of another kind, the end cut off) and runs
a program that reads it. The seeds are fixed, so that a trial that fails is the same tomorrow; `--slow` tries many more.

Deliberate break that turns this red: in finetune/run_folder.py, let `read_log` take figures of any kind.
"""

import random
import re
import shutil

import pytest

import classify
import eval as evaluation
import train
from data.codebook import SHIPPED
from tests.programs.hostile import QUICK, World, call
from tools import generate, split

BASE = ("config.json", "tokenizer.model", "model.safetensors", "generation_config.json")
RUN = ("run.json", "training_texts.json", "adapter/adapter_config.json", "adapter/adapter_model.safetensors")
PIECES = (b"null", b"[]", b"{}", b"-1", b"1e999", b'"', b"\0", b"\xff", b"NaN", b"9" * 30, b"true")
VALUES = (b"null", b"[]", b"{}", b"-1", b"1e999", b'"x"', b"0", b"NaN", b"9" * 30, b"true", b"[null]", b'{"a": 1}')


def damage(data: bytes, rng: random.Random) -> bytes:
    """One small thing changed, more often near the start, where headers are."""
    data = bytearray(data)
    place = rng.randrange(len(data) if rng.random() < 0.5 else min(len(data), 400))
    kind = rng.randrange(5)
    if kind == 0:
        data[place] = rng.randrange(256)
    elif kind == 1:
        del data[place : place + rng.randrange(1, 20)]
    elif kind == 2:
        data[place:place] = rng.choice(PIECES)
    elif kind == 3:
        del data[place:]
    else:
        values = list(re.finditer(rb'(?<=: )("[^"]*"|[\d.]+|true|false|null|\[[^\]]*\])', bytes(data)))
        if values:
            value = rng.choice(values)
            data[value.start() : value.end()] = rng.choice(VALUES)
    return bytes(data)


def program(folder, name: str, rng: random.Random) -> tuple:
    """A program that reads the damaged file, and its words."""
    base, run, posts, test = (folder / part for part in ("base", "run", "posts.jsonl", "test.jsonl"))
    teach = (train.main, "--model", base, "--data", posts, "--out", folder / "new", *QUICK)
    label = (classify.main, "--run", run, "--model", base, "--input", test, "--output", folder / "labels.csv")
    if name in ("log.jsonl", "checkpoint/state.pt") or (name == "run.json" and rng.random() < 0.4):
        facts = run / "run.json"
        facts.write_bytes(facts.read_bytes().replace(b'"finished": true', b'"finished": false'))
        return train.main, "--resume", "--out", run
    if name in BASE:
        say = (generate.main, "--model", base, "--prompt", "hello", "--max-new-tokens", "2")
        return rng.choice([teach, label, say])
    if name in RUN:
        score = (evaluation.main, "--run", run, "--data", test, "--out", folder / "e", "--draws", "5")
        return rng.choice([label, score])
    if name == "book.toml":
        return (*teach, "--codebook", folder / name)
    part = (split.main, "--data", posts, "--out", folder / "parts")
    return rng.choice([teach, part, (*label[:6], posts, *label[7:])])


def trial(world: World, folder, seed: int) -> int:
    """Damage one file and run a program on it; returns its exit status, which is 0 or 2."""
    rng = random.Random(seed)
    for path in (world.base, world.run, world.posts, world.test):
        world.copy(path, folder)
    shutil.copy(SHIPPED / "filled_example.toml", folder / "book.toml")
    name = rng.choice([*BASE, *RUN, "log.jsonl", "checkpoint/state.pt", "posts.jsonl", "book.toml"])
    path = next(path for part in ("base", "run", ".") if (path := folder / part / name).exists())
    path.write_bytes(damage(path.read_bytes(), rng))
    words = program(folder, name, rng)
    ended = call(*words)
    assert ended.code in (0, 2), (seed, name, ended)
    if ended.code:
        assert ended.err.startswith("error: ") and ended.err.count("\n") == 1, (seed, name, ended.err)
        assert not list(folder.rglob("*.partial")) and not (folder / "new").exists(), (seed, name)
    return ended.code


def tried(world: World, folder, seeds) -> list[int]:
    codes = []
    for seed in seeds:
        here = folder / str(seed)
        here.mkdir()
        codes.append(trial(world, here, seed))
        shutil.rmtree(here)
    return codes


def test_damaged_files_end_in_one_line_or_do_no_harm(world: World, tmp_path):
    codes = tried(world, tmp_path, range(60))
    assert codes.count(2) > 20  # most damage is found


@pytest.mark.slow
def test_many_more_damaged_files(world: World, tmp_path):
    assert tried(world, tmp_path, range(60, 700)).count(2) > 200
