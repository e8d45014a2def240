"""Options whose numbers and paths are beyond any sense: one line from every program, at once.

Deliberate break that turns this red: in common/options.py, leave `check_name`, or the check of 64 bits, out of
`_checked`.
"""

import dataclasses
import os
import tempfile
import typing
from pathlib import Path

import pytest

import classify
import eval as evaluation
import train
from common.errors import UserError
from common.options import check_value, option, parse_options
from finetune.options import TrainOptions
from study import __main__ as study
from study.plan import Exposure, Repeat, Statistics
from tests.programs.hostile import QUICK, World, call, refused
from tools import generate, memory, merge_report, split
from tools.export import __main__ as export

PROGRAMS = {"train": (train.main, TrainOptions), "eval": (evaluation.main, evaluation.EvalOptions),
            "classify": (classify.main, classify.ClassifyOptions), "study": (study.main, study.StudyOptions),
            "generate": (generate.main, generate.Options), "memory": (memory.main, memory.FitsOptions),
            "split": (split.main, split.SplitOptions), "merge_report": (merge_report.main, merge_report.ReportOptions),
            "export": (export.main, export.ExportOptions)}  # fmt: skip
NAMES = ["n" * 300, "a\0b", "a/" * 4000 + "b", "half \udce9 \ud83d"]


def flags(cls, wanted):
    """The options of a program whose annotation or metavar is wanted, as words of the command line."""
    hints = typing.get_type_hints(cls)
    return ["--" + field.name.replace("_", "-") for field in dataclasses.fields(cls)
            if wanted(field, str(hints[field.name]))]


@pytest.mark.parametrize("name", PROGRAMS)
def test_whole_numbers_of_more_than_64_bits(name):
    main, cls = PROGRAMS[name]
    for flag in flags(cls, lambda field, kind: "int" in kind and "dict" not in kind):
        refused(main, flag, "9" * 30, says=flag)
        refused(main, flag, "9" * 5000, says=flag)


def test_an_option_of_several_values_that_comes_again_adds_to_them():
    """Deliberate break: in common/options.py let `again` be "store": the file that was named first would be lost."""
    read = lambda *words: parse_options(TrainOptions, list(words), program="train.py", description="")  # noqa: E731
    found = read("--data", "a.csv", "--data", "b.csv", "c.csv", "--languages", "en", "--per-language", "tr=5",
                 "--languages", "es,tr", "--per-language", "pl=6")
    assert (found.data, found.languages) == (["a.csv", "b.csv", "c.csv"], ["en", "es", "tr"])
    assert found.per_language == {"tr": 5, "pl": 6} and found.given == {"data", "languages", "per_language"}
    with pytest.raises(UserError, match="--per-language: 'tr=5,tr=6' is not NAME=NUMBER pairs, each name once"):
        read("--per-language", "tr=5", "--per-language", "tr=6")
    asked = parse_options(evaluation.EvalOptions, ["--by", "a", "--by", "b"], program="eval.py", description="")
    assert asked.by == ["a", "b"]


def test_a_pattern_that_no_shell_has_looked_for(tmp_path, monkeypatch):
    """PowerShell and cmd hand it on. Deliberate break: leave `matching` out of common/options.py."""
    monkeypatch.chdir(tmp_path)
    for name in ("b.csv", "a.csv", "c[1].csv", "c1.csv", "d.tsv"):
        Path(name).touch()
    read = lambda *words: parse_options(TrainOptions, list(words), program="train.py", description="").data  # noqa: E731
    assert read("--data", "[ab].csv", "d.tsv", "c[1].csv") == ["a.csv", "b.csv", "d.tsv", "c[1].csv"]
    refused(train.main, "--data", "e*.csv", says="e*.csv: there is no such file")


@pytest.mark.parametrize("name", PROGRAMS)
def test_paths_that_no_file_can_have(name):
    main, cls = PROGRAMS[name]
    found = flags(cls, lambda field, kind: field.metadata["metavar"] in ("FILE", "DIR", "PATH"))
    assert found
    for flag in found:
        for path in NAMES:
            refused(main, flag, path, says=(flag, "can be no file's name"))
    for path in NAMES:
        refused(main, "--config", path, says="can be no file's name")


def test_numbers_of_plans_and_of_files():
    for cls, key, value in ((Repeat, "seeds", [2**63]), (Repeat, "folds", 10**6), (Exposure, "rows", [10**30]),
                            (Statistics, "draws", 10**9), (TrainOptions, "batch_size", 2**63)):
        with pytest.raises(UserError, match=key):
            check_value(cls, key, value, "plan.toml")
    assert check_value(TrainOptions, "batch_size", 2**63 - 1, "plan.toml") == 2**63 - 1


@pytest.mark.parametrize("threads", ["1000000000", "5000"])
def test_more_threads_than_any_machine_has(threads, world: World):
    refused(train.main, "--model", world.base, "--data", world.posts, "--out", "run", *QUICK, "--threads", threads,
            says=("--threads", "4096"))


def test_a_temperature_that_float32_cannot_divide_by_is_zero(world: World):
    words = ("--model", world.base, "--prompt", "hello", "--max-new-tokens", "3", "--temperature")
    assert call(generate.main, *words, "1e-320").out == call(generate.main, *words, "0").out != ""


@dataclasses.dataclass
class Files:
    """What a program would declare."""

    several: list[str] = option((), "files", metavar="FILE")
    one: str | None = option(None, "a folder", metavar="DIR")


def test_every_path_of_a_list_is_looked_at():
    assert check_value(Files, "several", ["a,b", "c"], "o.toml") == ["a,b", "c"]
    assert check_value(Files, "one", None, "o.toml") is None
    with pytest.raises(UserError, match=r"o\.toml: several: .*can be no file's name"):
        check_value(Files, "several", ["a", "b\0"], "o.toml")


@pytest.fixture
def open_world(world: World, monkeypatch):
    """A copy of the world that every user may look into, but for `secret/`; pytest's own folders are its user's."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o777)
        for path in (world.base, world.posts, world.run):
            world.copy(path, folder)
        for path in folder.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        (folder / "secret").mkdir(mode=0o700)
        monkeypatch.chdir(folder)
        yield


@pytest.mark.skipif(not hasattr(os, "fork") or os.geteuid() != 0, reason="needs root, to become somebody else")
def test_folders_that_may_not_be_looked_into(open_world):
    """As another user, who may not look into the folder: a line, where `Path.exists` would raise."""
    based = ("--model", "base", "--data", "posts.jsonl")
    os.chmod("run", 0o777)  # eval.py writes into its run, and is to get as far as --out
    calls = [
        (train.main, "--model", "secret/base", "--data", "posts.jsonl", "--out", "r"),
        (train.main, *based, "--out", "secret/r"), (train.main, "--config", "secret/o.toml"),
        (train.main, "--model", "base", "--data", "secret/posts.csv", "--out", "r"),
        (train.main, *based, "--codebook", "secret/c.toml"), (train.main, "--resume", "--out", "secret"),
        (train.main, *based, "--rows", "secret/rows"), (train.main, "--model", "secret", "--out", "r"),
        (train.main, *based, *QUICK, "--out", "r", "--cache", "secret"),
        (classify.main, "--run", "secret/run"), (classify.main, "--run", "secret"),
        (classify.main, "--run", "run", "--input", "secret/posts.csv"),
        (classify.main, "--run", "run", "--input", "posts.jsonl", "--output", "secret/l.csv"),
        (classify.main, "--run", "run", "--input", "posts.jsonl", "--output", "l.csv", "--model", "secret/base"),
        (evaluation.main, "--predictions", "secret/p.csv", "--out", "e"), (evaluation.main, "--run", "secret"),
        (evaluation.main, "--run", "run", "--data", "posts.jsonl", "--out", "secret/e"),
        (generate.main, "--model", "secret"), (generate.main, "--model", "base", "--tokenizer", "secret/t"),
        (generate.main, "--model", "base", "--adapter", "secret/a", "--prompt", "a"),
        (study.main, "--plan", "secret/p.toml"), (study.main, "--out", "secret"), (memory.main, "--model", "secret"),
        (split.main, "--data", "secret/d.csv", "--out", "o"),
        (split.main, "--data", "posts.jsonl", "--out", "secret/o"),
        (export.main, "--run", "secret", "--to", "peft", "--out", "o"),
        (export.main, "--run", "run", "--to", "peft", "--out", "secret/o"),
        (merge_report.main, "--run", "run", "--data", "posts.jsonl", "--out", "secret/o"),
    ]  # fmt: skip
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgid(65534)
            os.setuid(65534)
            for words in calls:
                try:
                    ended = call(*words)
                    line = f"{ended.code} {ended.err}"
                except BaseException as error:
                    line = repr(error)
                os.write(writes, line.encode()[:300] + b"\0")
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writes)
    with os.fdopen(reads, "rb") as handle:
        ends = handle.read().decode().split("\0")[:-1]
    bad = [(words[1:], end) for words, end in zip(calls, ends, strict=True)
           if not end.startswith("2 error: ") or "secret" not in end or end.count("\n") > 1]
    print(*bad, sep="\n")
    assert not bad
