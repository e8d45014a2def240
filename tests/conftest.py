"""What every test file may use: the shared public files, the `--slow` option, one thread, fixed seeds."""

import os
import random
import signal
from pathlib import Path

import numpy
import pytest
import torch

SHARED = Path(__file__).resolve().parents[1] / ".." / "shared" / "data"


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="run the tests marked slow as well")


def pytest_configure(config):
    # Many small products: more threads than this cost more than they bring, and the sums keep one order.
    if config.getoption("numprocesses", None):  # pytest-xdist: its workers, and what they start, have one thread each
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background job ignores Ctrl-C, and so would
        signal.signal(signal.SIGINT, signal.default_int_handler)  # every process that a test starts and interrupts


def pytest_collection_modifyitems(config, items):
    if config.getoption("--slow"):
        return
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.skip(reason="slow: run with --slow"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of public files beside the checkout (`../shared/data`); tests that need it are skipped without it."""
    folder = SHARED.resolve()
    if not folder.is_dir():
        pytest.skip("needs the public files in ../shared/data beside the checkout")
    return folder


@pytest.fixture(autouse=True)
def fixed_seeds():
    """Every test starts from the same random numbers, whatever ran before it."""
    random.seed(0)
    numpy.random.seed(0)
    torch.manual_seed(0)
