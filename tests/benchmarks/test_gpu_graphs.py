"""`benchmarks.gpu --part graphs`, with a tape in the place of graphs, which a CPU does not have.

Deliberate break: in finetune/graphs.py give the rows that fill up a weight; the losses then differ.
"""

import pytest
import torch

from benchmarks.card import graphs
from benchmarks.card.state import State
from model import varlen
from model.varlen import attend_varlen
from tests.finetune.tape import Tape, kernel, taped


@pytest.mark.slow
def test_both_ways_are_compared_and_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(varlen, "kernel", lambda: kernel)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Tape)
    monkeypatch.setattr(torch.cuda, "graph", taped)
    monkeypatch.setattr(graphs, "TEMPLATES", ("paper",))
    state = State(tmp_path / "graphs.json", rehearse=True, seconds=1e6)
    state.large.attend = attend_varlen
    graphs.compare(state)
    checks = [figure for figure in state.figures if figure.check]
    assert len(checks) == 16 and all(figure.met for figure in checks), [one for one in checks if not one.met]
    assert [figure.what for figure in state.figures if figure.unit == "s"] == [
        f"the first 4 steps of 16 posts, paper, {way}" for way in ("recorded", "not recorded")]
