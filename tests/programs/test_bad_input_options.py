"""Options, outputs and run folders as they should not be, and programs that are stopped: one line, nothing left behind.

Deliberate break that turns this red: in common/files.py, let `atomic_write` open `path` itself; an output that cannot
be written whole stays there in part. Or leave `_is_unread` out of common/errors.py.
"""

import json
import os
import re
import shutil
from dataclasses import fields
from pathlib import Path

import pytest
import torch

import classify
import eval as evaluation
import train
from finetune.elsewhere import ELSEWHERE
from finetune.options import TrainOptions
from tests.model import make_golden
from tests.programs.hostile import QUICK, World, call, refused
from tests.small import LABELS
from tools import generate, split

TRAIN = {
    "unknown option": (["--langages", "en"], ("--langages", "did you mean '--languages'?")),
    "another trainer's name": (["--lr", "2e-4"], ("unknown option '--lr'; here it is --learning-rate; --help",)),
    "another trainer's letter": (["-r", "8"], ("here it is --rank;",)),
    "what works by itself": (["--gradient_accumulation_steps=4"], ("--batch-size posts are a step, cut into pieces",)),
    "a word too many": (["--rank", "4", "posts.jsonl"], ("'posts.jsonl'", "--help")),
    "a file of options as a word": (["o.toml"], ("unknown word 'o.toml'; a file of options is --config o.toml;",)),
    "a data set of a hub": (["--data", "org/posts"], ("org/posts: there is no such file; of a data set on a hub",)),
    "option without its value": (["--rank"], ("--rank", "--help")),
    "learning rate 0": (["--learning-rate", "0"], ("--learning-rate", "above 0")),
    "learning rate nan": (["--learning-rate", "nan"], ("--learning-rate", "finite number")),
    "learning rate inf": (["--learning-rate", "inf"], ("--learning-rate", "finite number")),
    "learning rate negative": (["--learning-rate=-1e-4"], ("--learning-rate", "above 0")),
    "learning rate in words": (["--learning-rate", "small"], ("--learning-rate", "'small'")),
    "rank 0": (["--rank", "0"], ("--rank", "smallest value, 1")),
    "rank of a half": (["--rank", "2.5"], ("--rank", "whole number")),
    "rank above every matrix": (["--rank", "1000000000000"], ("--rank",)),
    "alpha 0": (["--alpha", "0"], ("--alpha", "above 0")),
    "dropout 1": (["--dropout", "1"], ("--dropout", "0.95")),
    "epochs 0": (["--epochs", "0"], ("--epochs", "1")),
    "batch size 0": (["--batch-size", "0"], ("--batch-size", "1")),
    "validation of all": (["--validation", "1"], ("--validation", "0.9")),
    "patience with nothing to score": (["--patience", "3"], ("--patience", "no validation posts", "--validation 0.1")),
    "evaluations of nothing": (["--eval-every", "5"], ("--eval-every", "no validation posts")),
    "unknown target": (["--targets", "q_projj"], ("LoRA target 'q_projj'", "did you mean 'q_proj'?")),
    "target is the head": (["--targets", "lm_head"], ("lm_head",)),
    "target is a broken expression": (["--targets", "("], ("LoRA target: '('", "regular expression")),
    "unknown schedule": (["--schedule", "cosin"], ("--schedule", "constant, linear, cosine")),
    "unknown preset": (["--preset", "papre"], ("--preset", "paper")),
    "threads below 0": (["--threads", "-1"], ("--threads", "0")),
    "seed below 0": (["--seed=-1"], ("--seed", "0")),
    "seed beyond 64 bits": (["--seed", "99999999999999999999999"], ("--seed",)),
    "unknown device": (["--device", "gpu"], ("--device gpu", "cpu")),
    "unknown dtype": (["--dtype", "float8"], ("--dtype", "bfloat16")),
    "resume without out": (["--resume"], ("--resume", "--out")),
    "no such config": (["--config", "none.toml"], ("none.toml", "no such file")),
    "empty out": (["--out", ""], ("--out", "empty")),
    "empty codebook": (["--codebook", ""], ("--codebook", "empty")),
    "empty config": (["--config", ""], ("--config: is empty; give FILE",)),
    "two empty variables": (["--languages", ","], ("--languages: is empty",)),
    "an empty list of files": (["--data", ""], ("--data: is empty; give FILE",)),
}
TOML = {
    "unknown key": ("langages = ['en']", ("'langages'", "did you mean 'languages'?")),
    "another trainer's key": ("lora_r = 8", ("unknown key 'lora_r'; here it is rank",)),
    "wrong type": ("rank = 'sixteen'", ("o.toml: rank", "whole number")),
    "no file at all": ("data = []", ("o.toml: data: is empty",)),
    "a list of presets": ("preset = ['paper']", ("o.toml: preset", "is not one of")),
    "a list of numbers": ("languages = [1, 2]", ("o.toml: languages", "list of words")),
    "a flag as text": ("rslora = 'yes'", ("o.toml: rslora", "true or false")),
    "a number as true": ("rank = true", ("o.toml: rank", "whole number")),
    "a table": ("[data]\nfile = 'a'", ("o.toml: data",)),
    "not toml": ("rank: 16", ("o.toml", "is not TOML")),
    "not UTF-8": (b"# caf\xe9\n", ("o.toml", "TOML")),
    "unknown preset": ("preset = 'papre'", ("preset", "paper")),
}


@pytest.mark.parametrize("case", TRAIN)
def test_options_of_train(case, world: World):
    options, words = TRAIN[case]
    out = [] if "--resume" in options or "--out" in options else ["--out", "run"]
    refused(train.main, "--model", world.base, "--data", world.posts, *QUICK, *out, *options, says=words)


@pytest.mark.parametrize("case", TOML)
def test_option_files(case, world: World, tmp_path):
    text, words = TOML[case]
    (tmp_path / "o.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
    refused(train.main, "--model", world.base, "--out", "run", "--config", "o.toml", says=words)


def test_a_file_that_is_not_there_is_no_data_set_of_a_hub(world: World):
    said = refused(train.main, "--model", world.base, "--out", "run", "--data", "posts")
    assert said.endswith("posts: there is no such file")


def test_every_name_of_another_trainer_is_told_once():
    names = [name for others in ELSEWHERE.values() for name in others.split()]
    options = {field.name for field in fields(TrainOptions)}
    assert len(set(names)) == len(names) and not options & set(names)
    for here in ELSEWHERE:
        assert here.partition(",")[0] in options or " " in here, here
        for flag in re.findall(r"--([a-z-]+)", here):
            assert flag.replace("-", "_") in options


def test_a_hint_is_of_a_name_that_is_like_it():
    """All flags begin alike, so `--data` was told `--abstain`; what nothing is like gets no hint."""
    refused(classify.main, "--data", "a.csv", says="here it is --input;")
    refused(classify.main, "--batch_size", "8", says="here it is --micro-tokens, tokens at once;")
    refused(evaluation.main, "--data-file", "a.csv", says="did you mean '--data'?")
    refused(evaluation.main, "--metrics", "f1", says="'--metrics'; --help")
    refused(train.main, "--seeds", "1", says="did you mean '--seed'?")


def test_options_that_stand_in_another_kind_of_file(world: World, tmp_path):
    (tmp_path / "o.yaml").write_text("rank: 16\n")
    (tmp_path / "o.json").write_text('{"rank": 16}')
    for name in ("o.yaml", "o.json"):
        refused(train.main, "--out", "run", "--config", name, says=(name, "TOML", "rank = 16", "run.json"))
    refused(train.main, "--out", "run", "--config", "none.yaml", says="there is no such file")
    refused(evaluation.main, "--config", world.run / "run.json", says=("options of train.py, and not of eval.py",))


def test_a_gpu_that_is_not_there(world: World):
    device = f"cuda:{torch.cuda.device_count()}"
    refused(train.main, "--model", world.base, "--data", world.posts, "--out", "run", "--device", device, says=device)
    refused(classify.main, "--run", world.run, "--input", world.test, "--output", "a.csv", "--device", device,
            says=device)  # fmt: skip


@pytest.mark.parametrize("main", [train.main, evaluation.main, classify.main, generate.main, split.main,
                                  make_golden.main])  # fmt: skip
def test_every_program_knows_its_options(main):
    refused(main, "--no-such-thing", says=("--no-such-thing", "--help"))
    helped = call(main, "--help")
    assert helped.code == 0 and helped.out.startswith("usage: ")


def test_help_fits_its_terminal(monkeypatch):
    """Descriptions are filled and options aligned; a command to copy is the only line that may be longer."""
    for width in (80, 100):
        monkeypatch.setenv("COLUMNS", str(width))
        for main in (train.main, evaluation.main, classify.main, generate.main, split.main, make_golden.main):
            for line in call(main, "--help").out.splitlines():
                assert len(line) < width or line.startswith("    python"), line


def test_options_of_the_other_programs(world: World):
    run = ("--run", world.run)
    refused(evaluation.main, *run, "--data", world.test, "--codebook", "c.toml", says=("--codebook", "--predictions"))
    refused(evaluation.main, *run, "--data", world.test, "--draws", "-3", says=("--draws", "0"))
    refused(evaluation.main, *run, "--data", world.test, "--drop-known", "all", says=("--drop-known", "same, exact"))
    refused(generate.main, says=("--model", "missing"))
    refused(generate.main, "--model", world.base, "--prompt", "a", "--max-new-tokens", "5000", says="512 positions")
    refused(generate.main, "--model", world.base, "--prompt", "a", "--top-p", "0", says=("--top-p", "above 0"))
    refused(generate.main, "--model", world.base, "--prompt", "a", "--stop", "<|x|>", says=("<|x|>", "special"))
    refused(generate.main, "--model", world.base, "--prompt", "a", "--chat", says=("--chat", "has no chat template"))


def outs(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "diary.txt").write_text("mine")
    return {"file": "file", "full": "full", "file/below": "file"}


def test_folders_that_are_taken(world: World, tmp_path):
    for out, word in outs(tmp_path).items():
        refused(train.main, "--model", world.base, "--data", world.posts, *QUICK, "--out", out, says=("--out", word))
        refused(evaluation.main, "--run", world.run, "--data", world.test, "--out", out, says=("--out", word))
        refused(split.main, "--data", world.posts, "--out", out, says=("--out", word))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folders_that_cannot_be_written(world: World, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o555)
    refused(train.main, "--model", world.base, "--data", world.posts, "--out", "locked/run", says=("--out", "locked"))
    refused(classify.main, "--run", world.run, "--input", world.test, "--output", "locked/a.csv", says="locked")


def test_outputs_of_classify(world: World, tmp_path):
    posts = world.copy(world.test, tmp_path)
    (tmp_path / "there.csv").write_text("mine")
    (tmp_path / "folder.csv").mkdir()
    args = ("--run", world.run, "--input", posts)
    refused(classify.main, *args, "--output", posts, "--overwrite", says=("is the input file",))
    refused(classify.main, *args, "--output", "labels.xlsx", says=("labels.xlsx", ".jsonl, .csv, .tsv"))
    refused(classify.main, *args, "--output", "there.csv", says=("there.csv", "--overwrite"))
    refused(classify.main, *args, "--output", "folder.csv", "--overwrite", says=("folder.csv", "folder"))
    refused(classify.main, *args, "--output", "there.csv/a.csv", says=("there.csv",))


def edit(run, **keys):
    facts = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(facts | keys))


RUNS = {
    "run.json is not json": (lambda run: (run / "run.json").write_text("{"), ("run.json", "is not JSON")),
    "run.json is a list": (lambda run: (run / "run.json").write_text("[]"), ("run.json", "schema")),
    "run.json of another version": (lambda run: edit(run, schema=99), ("run.json", "schema")),
    "run.json without its keys": (lambda run: (run / "run.json").write_text('{"schema": 1}'), ("created is missing",)),
    "run.json with options of a wrong kind": (lambda run: edit(run, options=[1]), ("run.json", "options")),
    "run.json with half its options": (lambda run: edit(run, options={"rank": 2}), ("run.json", "options")),
    "run.json with an option of another kind": (lambda run: edit(run, options=json.loads(
        (run / "run.json").read_text())["options"] | {"micro_tokens": [None]}), ("options: micro_tokens", "number")),
    "run.json with a value of another version": (lambda run: edit(run, options=json.loads(
        (run / "run.json").read_text())["options"] | {"graphs": "sometimes"}), (
        "options: graphs: 'sometimes' is not one of", "another version of the project (commit ")),
    "run.json is absent": (lambda run: (run / "run.json").unlink(), ("run.json",)),
    "adapter is absent": (lambda run: shutil.rmtree(run / "adapter"), ("has no adapter/", "train again")),
    "training was stopped": (lambda run: edit(run, finished=False), ("stopped early", "--resume")),
    "codebook changed by hand": (lambda run: edit(run, codebook={"labels": list(LABELS)}), ("another prompt",)),
    "codebook without labels": (lambda run: edit(run, codebook={"role": "You."}), ("labels", "missing",)),
    "prompt is of another run": (lambda run: edit(run, prompt={}), ("prompt",)),
}  # fmt: skip


@pytest.mark.parametrize("case", RUNS)
def test_damaged_runs(case, world: World, tmp_path):
    damage, words = RUNS[case]
    run = world.copy(world.run, tmp_path)
    damage(run)
    refused(classify.main, "--run", run, "--input", world.test, "--output", "a.csv", says=words)
    refused(evaluation.main, "--run", run, "--data", world.test, "--out", "e", says=words)


def test_runs_that_are_none(world: World):
    refused(classify.main, "--run", "none", "--input", world.test, "--output", "a.csv", says=("none", "no such run"))
    refused(evaluation.main, "--run", world.base, "--data", world.test, "--out", "e", says=("no run.json",))
    refused(train.main, "--resume", "--out", "none", says=("none", "no such run folder"))


def stopped(world: World, tmp_path) -> Path:
    """A run that was stopped after two of four steps."""
    run = world.copy(world.run, tmp_path)
    edit(run, finished=False)
    return run


STATES = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:1000]),
    "empty": lambda path: path.write_bytes(b""),
    "something else": lambda path: torch.save({"a": 1}, path),
    "a list": lambda path: torch.save([1, 2], path),
    "of another adapter": lambda path: torch.save(
        {**torch.load(path), "trainer": {**torch.load(path)["trainer"], "parameters": {}}}, path),
    "of another shape": lambda path: torch.save({**torch.load(path), "trainer": {
        **torch.load(path)["trainer"], "parameters": {name: torch.zeros(1, 1) for name in
                                                      torch.load(path)["trainer"]["parameters"]}}}, path),
}  # fmt: skip


@pytest.mark.parametrize("case", STATES)
def test_damaged_checkpoints(case, world: World, tmp_path):
    run = stopped(world, tmp_path)
    STATES[case](run / "checkpoint" / "state.pt")
    refused(train.main, "--resume", "--out", run, says=("state.pt", "train anew"))


def test_resuming_another_run(world: World, tmp_path):
    run = stopped(world, tmp_path)
    refused(train.main, "--resume", "--out", run, "--rank", "8", says=("--rank 8", "began with 2"))
    refused(train.main, "--resume", "--out", run, "--data", world.test, says=("data (", "give what it began with"))
    log = (run / "log.jsonl").read_text()
    (run / "log.jsonl").write_text("{broken\n" + log)
    refused(train.main, "--resume", "--out", run, says=("log.jsonl: line 1", "take the line out"))
