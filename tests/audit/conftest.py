"""Small runs to audit: one in NF4, one dense, made once for all files here."""

import pytest
import torch

from audit.subject import open_subject
from common.files import find_path
from data.annotators import read_labelled
from data.codebook import load_codebook
from data.groups import group_posts
from data.posts import Columns
from finetune.run_folder import RunFolder
from tests.small import here, posts, write_base, write_jsonl

TRAIN = ("--model", "tiny", "--data", "train.jsonl", "--rank", "3", "--batch-size", "8", "--micro-tokens", "500",
         "--learning-rate", "3e-3", "--threads", "1", "--epochs", "2", "--validation", "0")


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    """A folder with a base, posts to train on and posts to ask about; `make` trains runs in it."""
    folder = tmp_path_factory.mktemp("audited")
    write_base(folder / "tiny")
    write_jsonl(folder / "train.jsonl", posts(24, 1))
    write_jsonl(folder / "test.jsonl", posts(20, 2))
    return folder


def make(place, name: str, *words: str):
    """The folder of the run `name`, trained if it is not there yet."""
    if not (place / name).exists():
        here("train.py", *TRAIN, "--out", name, *words, cwd=place)
    return place / name


def subject_of(path, place):
    """The run in `path`, asked about the test posts."""
    labelled = read_labelled([find_path(place / "test.jsonl")], Columns(), load_codebook())[0]
    groups = group_posts(labelled, None, same_text=True)
    return open_subject(RunFolder.open(path), labelled, groups, model=str(place / "tiny"), device=torch.device("cpu"),
                        dtype=torch.float32, micro_tokens=600)[0]


@pytest.fixture
def subject(place):
    """A run whose base is in NF4; a fresh model for each test."""
    return subject_of(make(place, "nf4", "--quantize", "nf4"), place)
