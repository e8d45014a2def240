"""inference.run.open_model: what it says before it reads any weights.

Deliberate break: choose the threads behind `load_model`.
"""

import pytest
import torch

from common import device
from common.device import MachineOptions
from finetune.run_folder import RunFolder
from inference import run as runs


def test_a_busy_machine_is_said_before_the_weights_are_read(monkeypatch, capsys):
    """Reading them takes minutes there, and whoever is told in time can begin again with one thread."""
    def not_yet(*_, **__):
        raise RuntimeError(capsys.readouterr().out)

    monkeypatch.setattr(device.os, "getloadavg", lambda: (99.0, 0.0, 0.0), raising=False)
    monkeypatch.setattr(runs, "load_model", not_yet)
    with pytest.raises(RuntimeError, match="this machine is busy"):
        runs.open_model(RunFolder.open(runs.SHIPPED_RUN), model=None, device=torch.device("cpu"), dtype=torch.float32,
                        machine=MachineOptions(threads=1))
