"""What the tests of bad input share: a tiny base, posts, a trained run, and a way to run a program and see how it ends.

A refusal is: exit status 2, nothing but one line on stderr that begins "error: ", no file made, changed or left over.
"""

import contextlib
import io
import json
import re
import shutil
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest
import sentencepiece

import train
from common.errors import run_program
from data.codebook import load_codebook
from tests.tiny import reference_model, write_checkpoint

TOPICS = {"pro-immigration": "welcome our new neighbours", "anti-immigration": "close the border now",
          "neutral": "the office opens on day", "unrelated": "my cat sleeps on shelf"}  # fmt: skip
QUICK = ["--max-steps", "2", "--batch-size", "4", "--micro-tokens", "4096", "--rank", "2", "--dtype", "float32"]


@dataclass
class Ended:
    """How a program ended, and what it wrote."""

    code: int
    out: str
    err: str


@dataclass
class World:
    """A folder with a tiny base, labelled posts, and a run that was trained on them."""

    folder: Path
    base: Path
    posts: Path
    test: Path
    run: Path

    def copy(self, path: Path, to: Path) -> Path:
        """A copy that a test may damage."""
        target = to / path.name
        shutil.copytree(path, target) if path.is_dir() else shutil.copy(path, target)
        return target


def words(world: World, *more) -> list[str]:
    """What classify.py is called with: the run, one thread, and more."""
    return ["--run", str(world.run), "--threads", "1", *map(str, more)]


def call(main, *argv) -> Ended:
    """Run a program in this process, as `run_program` runs it."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            run_program(main, [str(word) for word in argv])
        except SystemExit as error:
            code = error.code
    return Ended(code, out.getvalue(), err.getvalue())


def refused(main, *argv, says=(), under: Path | None = None) -> str:
    """Run a program that must refuse its input; returns its line, which holds every word of `says`.

    under: a folder whose files must be the same before and after (default: the working folder).
    """
    before = listing(under or Path.cwd())
    ended = call(main, *argv)
    assert ended.code == 2, (ended.code, ended.err, ended.out[-500:])
    line = ended.err.removesuffix("\n")
    assert line.startswith("error: ") and "\n" not in line and "Traceback" not in line, ended.err
    assert len(line) > 20
    for word in [says] if isinstance(says, str) else says:
        assert word in line, (word, line)
    changed = {path for path, _ in set(before.items()) ^ set(listing(under or Path.cwd()).items())}
    assert not changed, changed
    return line


def listing(folder: Path) -> dict[str, str]:
    """Every path below `folder` and the hash of what it holds."""
    return {str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
            for path in sorted(folder.rglob("*"))}  # fmt: skip


def jsonl(path: Path, rows) -> Path:
    """Write rows as they stand: dicts as JSON, strings as lines."""
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def post_rows(start: int = 0, count: int = 12, languages=("en", "es"), labels=tuple(TOPICS)) -> list[dict]:
    """Invented posts, `count` of each language, labels in turn."""
    return [{"id": f"{language}-{number}", "text": f"{TOPICS.get(label, 'text')} {language} {number}",
             "label": label, "language": language}
            for language in languages for number in range(start, start + count)
            for label in [labels[number % len(labels)]]]  # fmt: skip


def write_base(folder: Path, vocab_size: int = 700, same: dict[str, str] | None = None) -> Path:
    """A tiny random checkpoint and a sentencepiece vocabulary of 600 pieces; `same`: characters read as others."""
    write_checkpoint(folder, reference_model(vocab_size=vocab_size))
    rules = folder / "rules.tsv"
    rules.write_text("".join(f"{ord(char):x}\t{ord(other):x}\n" for char, other in (same or {"\u0001": " "}).items()))
    words = re.findall(r"\S+", load_codebook().instruction() + " " + load_codebook().role)
    sentences = [" ".join(words[start : start + 7]) for start in range(len(words))]
    sentences += [row["text"] for row in post_rows()]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences * 3), model_prefix=str(folder / "tokenizer"), vocab_size=600,
        model_type="bpe", byte_fallback=True, normalization_rule_tsv=str(rules), remove_extra_whitespaces=False,
        minloglevel=2, hard_vocab_limit=False,
    )  # fmt: skip
    (folder / "tokenizer.vocab").unlink()
    rules.unlink()
    return folder


@pytest.fixture(scope="session")
def shared_world(tmp_path_factory) -> World:
    """Made once."""
    folder = tmp_path_factory.mktemp("world")
    posts = jsonl(folder / "posts.jsonl", post_rows())
    test = jsonl(folder / "test.jsonl", post_rows(start=50))
    base = write_base(folder / "base")
    ended = call(train.main, "--model", base, "--data", posts, "--out", folder / "run", *QUICK)
    assert ended.code == 0, ended.err
    return World(folder, base, posts, test, folder / "run")


@pytest.fixture
def world(shared_world) -> World:
    """The shared world, which a test leaves as it was: what it damages, scores or writes beside is its own copy."""
    before = listing(shared_world.folder)
    yield shared_world
    changed = set(before.items()) ^ set(listing(shared_world.folder).items())
    assert not changed, f"the test changed the shared world, use world.copy: {sorted(changed)}"


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    """Programs write into `runs/` below the working folder: it is one of the test's own."""
    monkeypatch.chdir(tmp_path)
