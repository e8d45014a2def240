"""The small base with its run, 4-bit weights and adapter included, opened once."""

import shutil

import pytest

from common.files import ROOT
from inference import load_run


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("glass") / "run"
    shutil.copytree(ROOT / "base" / "run", folder)
    return load_run(folder, device="cpu", dtype="float32")
