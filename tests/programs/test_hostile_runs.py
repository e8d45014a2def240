"""Run folders whose files hold values of another kind: each program ends in one line, and the folder stays as it was.

Deliberate break that turns this red: in finetune/checkpoint.py, leave the comparison of the moments out of
`_check_optimizer`; or in common/run_json.py, let `_check` return at once.
"""

import json
import os

import pytest
import torch

import classify
import eval as evaluation
import train
from tests.programs.hostile import World, call, refused
from tools.export import __main__ as export

LABELS = ("--output", "labels.csv")


@pytest.fixture
def run(world, tmp_path):
    """A copy of the run, as if it had been stopped at its last step."""
    folder = world.copy(world.run, tmp_path)
    edit(folder, finished=False)
    return folder


def edit(run, **changes):
    path = run / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def facts(run, *keys):
    value = json.loads((run / "run.json").read_text())
    for key in keys:
        value = value[key]
    return value


def within(part, **changes):
    return lambda run: edit(run, **{part: facts(run, part) | changes})


RUN_JSON = {
    "environment: threads is": within("environment", threads="many"),
    "environment: threads: -1": within("environment", threads=-1),
    "environment: threads: 1,000,000,000": within("environment", threads=10**9),
    "environment: packages": within("environment", packages=None),
    "environment: dtype": within("environment", dtype=3),
    "environment is missing": lambda run: edit(run, environment=[]),
    "hashes: weights": within("hashes", weights=["a"]),
    "hashes: weights: config.json": within("hashes", weights={"config.json": 7}),
    "languages: entry 2": lambda run: edit(run, languages=["en", 5]),
    "scored: entry 1: n": lambda run: edit(run, scored=[{"data": "a", "data_sha256": "b", "n": True}]),
    "scored: entry 1: data_sha256": lambda run: edit(run, scored=[{"data": "a", "n": 3}]),
    "scored: entry 1 is": lambda run: edit(run, scored=[7]),
    "created": lambda run: edit(run, created=2026),
    "finished": lambda run: edit(run, finished="yes"),
    "options: seed": within("options", seed=10**30),
    "options: micro_tokens": within("options", micro_tokens={"a": 1}),
    "options: model": within("options", model=["base"]),
    "can be no file's name": within("options", model="a\0b"),
    "File name too long": within("options", model="n" * 300),
    "holds NaN": within("options", alpha=float("nan")),
    "nested too deep": lambda run: (run / "run.json").write_text('{"schema": 1, "a": ' + "[" * 10**5 + "]" * 10**5),
    "digits": lambda run: (run / "run.json").write_text('{"schema": ' + "9" * 5000 + "}"),
}


@pytest.mark.parametrize("words", RUN_JSON)
def test_run_json_with_values_of_another_kind(words, run, world: World):
    RUN_JSON[words](run)
    refused(train.main, "--resume", "--out", run, says=words)
    text = (run / "run.json").read_text()
    (run / "run.json").write_text(text.replace('"finished": false', '"finished": true'))
    refused(classify.main, "--run", run, "--input", world.test, *LABELS, says=words)
    refused(evaluation.main, "--run", run, "--data", world.test, "--out", "e", says=words)


def finished(*keys, value):
    """A finished run with one of its facts, by the way to it, of another kind."""
    def damage(run):
        whole = facts(run)
        inner = whole
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value
        edit(run, **whole | {"finished": True})

    return damage


CARD = {
    "step": finished("step", value="a"), "steps": finished("steps", value=None), "rows": finished("rows", value=[]),
    "rows: train": finished("rows", "train", value={"en": 5}), "run_hash": finished("run_hash", value=[[1]]),
    "prompt: label_ids": finished("prompt", "label_ids", value=[1]),
    "hashes: data": finished("hashes", "data", value="x"),
    "rows: validation": finished("rows", "validation", value={"en": {"a": "b"}}),
    "posts_seen": finished("posts_seen", value={}), "ended": finished("ended", value=3.5),
}  # fmt: skip


@pytest.mark.parametrize("case", CARD)
def test_a_card_is_made_of_sane_facts_or_not_at_all(case, run):
    CARD[case](run)
    ended = call(export.main, "--run", run, "--to", "peft", "--out", "out")
    assert ended.code in (0, 2) and "Traceback" not in ended.err and ended.err.count("\n") <= 1


def state(change):
    def damage(run):
        path = run / "checkpoint" / "state.pt"
        found = torch.load(path, weights_only=True)
        torch.save(change(found) or found, path)

    return damage


def trainer(**changes):
    return state(lambda found: found["trainer"].update(changes))


def optimizer(change):
    return state(lambda found: change(found["trainer"]["optimizer"]))


def moment(name, make):
    return optimizer(lambda found: found["state"][0].update({name: make(found["state"][0][name])}))


def parameter(make):
    def change(found):
        name = next(iter(found["trainer"]["parameters"]))
        found["trainer"]["parameters"][name] = make(found["trainer"]["parameters"][name])

    return state(change)


STATES = {
    "a list": state(lambda found: [1]), "a number": state(lambda found: torch.tensor(1)),
    "no trainer": state(lambda found: found.__delitem__("trainer")),
    "trainer is a list": state(lambda found: found.update(trainer=[])),
    "watch is a list": state(lambda found: found.update(watch=[])),
    "watch with more": state(lambda found: found["watch"].update(more=1)),
    "best is text": state(lambda found: found["watch"].update(best="good")),
    "best is infinite": state(lambda found: found["watch"].update(best=float("inf"))),
    "seconds is text": state(lambda found: found.update(seconds="long")),
    "seconds is no number": state(lambda found: found.update(seconds=float("nan"))),
    "step is text": trainer(step="two"), "step is negative": trainer(step=-1), "step is large": trainer(step=10**30),
    "no tokens at once": trainer(micro_tokens=0), "tokens are a list": trainer(micro_tokens=[4096]),
    "checkpointing is text": trainer(checkpointing="on"), "no parameters": trainer(parameters={}),
    "parameters are a list": trainer(parameters=[]), "rng is a list": trainer(rng=[1]),
    "rng is short": trainer(rng=torch.zeros(3, dtype=torch.uint8)), "rng is wrong": trainer(
        rng=torch.full((5056,), 255, dtype=torch.uint8)),
    "cuda_rng is text": trainer(cuda_rng=["a"]),
    "optimizer is a list": trainer(optimizer=[]), "optimizer is empty": trainer(optimizer={}),
    "groups are a number": optimizer(lambda found: found.update(param_groups=3)),
    "another group": optimizer(lambda found: found["param_groups"].append({})),
    "another setting": optimizer(lambda found: found["param_groups"][0].update(betas=(0.9, 2.0))),
    "a setting is a tensor": optimizer(lambda found: found["param_groups"][0].update(eps=torch.ones(3))),
    "a setting holds a tensor": optimizer(lambda found: found["param_groups"][0].update(betas=(torch.ones(2), 1))),
    "a setting of another kind": optimizer(lambda found: found["param_groups"][0].update(fused="yes")),
    "no moments": optimizer(lambda found: found.update(state={})),
    "moments of another": optimizer(lambda found: found["state"].update({99: found["state"][0]})),
    "moments are a list": optimizer(lambda found: found["state"].update({0: []})),
    "a moment is missing": optimizer(lambda found: found["state"][0].__delitem__("exp_avg")),
    "a moment of another shape": moment("exp_avg", lambda t: torch.zeros(3)),
    "a moment on the meta device": moment("exp_avg_sq", lambda t: t.to("meta")),
    "a moment of another dtype": moment("exp_avg", lambda t: t.half()),
    "a sparse moment": moment("exp_avg", lambda t: t.to_sparse()),
    "steps are many": moment("step", lambda t: torch.zeros(4)), "steps are a number": moment("step", lambda t: 3),
    "an adapter of another shape": parameter(lambda t: torch.zeros(3)),
    "an adapter on the meta device": parameter(lambda t: t.to("meta")),
    "a complex adapter": parameter(lambda t: t.to(torch.complex64)),
    "a sparse adapter": parameter(lambda t: t.to_sparse()),
    "an adapter of one number": parameter(lambda t: torch.zeros(1).expand(t.shape)),
    "an adapter that is a list": parameter(lambda t: t.tolist()),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", STATES)
def test_checkpoints_with_values_of_another_kind(case, run):
    STATES[case](run)
    refused(train.main, "--resume", "--out", run, says="state.pt")


def test_the_checkpoint_as_it_was_goes_on(run):
    assert call(train.main, "--resume", "--out", run).code == 0


def log(line: bytes):
    def damage(run):
        path = run / "log.jsonl"
        path.write_bytes(path.read_bytes() + line)

    return damage


LOGS = {
    "no number": log(b'{"step": 3, "posts": null}\n'), "a list": log(b'{"step": 3, "loss": [1]}\n'),
    "a step of text": log(b'{"step": "3"}\n'), "a negative step": log(b'{"step": -3}\n'),
    "validation is a list": log(b'{"step": 3, "validation": []}\n'), "no step": log(b"{}\n"), "empty": log(b"\n"),
    "validation of text": log(b'{"step": 3, "validation": {"macro_f1": "high"}}\n'),
    "validation too deep": log(b'{"step": 3, "validation": {"macro_f1": {"a": 1}}}\n'),
    "a number": log(b"3\n"), "nested": log(b"[" * 10**5 + b"\n"),
    "long number": log(b'{"step": ' + b"9" * 5000 + b"}\n"),
    "infinite": log(b'{"step": 3, "loss": 1e999}\n'), "no text": log(b'{"step": 3, "\xff": 1}\n'),
    "a line without end": log(b" " * (2**20 + 1)),
}  # fmt: skip


@pytest.mark.parametrize("case", LOGS)
def test_logs_with_values_of_another_kind(case, run):
    LOGS[case](run)
    refused(train.main, "--resume", "--out", run, says=("log.jsonl: line 3", "take the line out"))


@pytest.mark.parametrize("name", ["run.json", "log.jsonl", "checkpoint/state.pt", "training_texts.json",
                                  "adapter/adapter_config.json", "adapter/adapter_model.safetensors"])
def test_pipes_in_the_place_of_a_runs_files(name, run, world: World):
    (run / name).unlink()
    os.mkfifo(run / name)
    if name in ("run.json", "log.jsonl", "checkpoint/state.pt"):
        refused(train.main, "--resume", "--out", run, says=(name, "a pipe or a device"), under=world.folder)
    else:
        edit(run, finished=True)
        refused(evaluation.main, "--run", run, "--data", world.test, "--out", "e", says=str(run), under=world.folder)
