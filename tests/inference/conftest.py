"""The run that the project ships, opened as a user of Python opens it."""

import shutil

import pytest

from common.files import ROOT
from inference import load_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A copy, since opening a run may write beside it."""
    return shutil.copytree(ROOT / "base" / "run", tmp_path_factory.mktemp("run") / "run")


@pytest.fixture(scope="module")
def run(folder):
    return load_run(folder, device="cpu", dtype="float32")
