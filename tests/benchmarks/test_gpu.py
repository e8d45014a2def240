"""`benchmarks.gpu --rehearse`: the card's own code paths with tiny shapes on a CPU, and what is left out, by name.

Deliberate break: let `attend_padded` forget the prefix, or a part raise; the rehearsal ends in an error that names it.
"""

import json
from unittest import mock

import pytest
import torch

from benchmarks import gpu
from benchmarks.card import kernels
from benchmarks.card.page import page
from benchmarks.card.parts import PARTS
from benchmarks.card.state import State
from benchmarks.card.suite import outcome
from common.errors import UserError

QUICK = "machine,large,waits,kernels,label,train,attention"


def rehearse(tmp_path, parts: str) -> dict:
    gpu.main(["--rehearse", "--out", str(tmp_path), "--part", parts])
    return json.loads((tmp_path / "gpu.json").read_text())


def test_the_parts_run_on_a_cpu_and_those_that_cannot_are_named(tmp_path, capsys):
    found = rehearse(tmp_path, QUICK)
    assert found["rehearsal"] and list(found["parts"]) == QUICK.split(",")
    for name, part in found["parts"].items():
        assert not part.get("error"), (name, part)
        assert bool(part["figures"]) != bool(part.get("left_out")), name
    assert [name for name, part in found["parts"].items() if "left_out" in part] == ["waits", "kernels"]
    text = (tmp_path / "gpu.html").read_text()
    assert "Left out in a rehearsal: a CPU has no queue to wait for." in text
    assert "Nothing on this page says how fast anything is" in text
    assert "Labelling" in capsys.readouterr().out


def test_the_operations_that_have_kernels_run_at_small_sizes_and_twice_the_same(tmp_path):
    """A rehearsal has no kernels to compare; this walks what would be compared."""
    state = State(tmp_path / "kernels.json", rehearse=True, seconds=60)
    small = {"SHAPES": ((64, 64), (32, 64)), "TOKENS": 96, "INNER": 64, "HEADS": 2, "KEYS": 1, "HEAD": 8, "ROWS": 4}
    with mock.patch.multiple(kernels, HIDDEN=40, **small):
        found = {case.name: (kernels.flat(case.run()), kernels.flat(case.run()), case.size)
                 for case in kernels.cases(state)}
    assert {"RMSNorm of a sum", "keys and values gathered by row"} < set(found)
    assert all(all(map(torch.equal, one, two)) and size > 0 for one, two, size in found.values())


@pytest.mark.slow
def test_everything_that_is_checked_holds_where_device_and_reference_are_the_same_cpu(tmp_path):
    pytest.importorskip("peft")
    found = rehearse(tmp_path, "correct,large,usual")
    checks = [figure for figure in found["parts"]["correct"]["figures"] if figure["met"] is not None]
    assert len(checks) > 40 and all(figure["met"] for figure in checks)


def test_a_part_that_fails_or_takes_too_long_is_kept_and_the_next_one_is_made(tmp_path, monkeypatch):
    make = gpu.Worker.make
    monkeypatch.setattr(gpu.Worker, "make", lambda worker, name, seconds: make(worker, name, 0.01))
    with pytest.raises(UserError, match=r"machine: stopped after its 0\.0 s; large: stopped"):
        gpu.main(["--rehearse", "--out", str(tmp_path), "--part", "machine,large"])
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert list(found["parts"]) == ["machine", "large"]
    assert "Did not end as planned" in (tmp_path / "gpu.html").read_text()


def test_seconds_that_no_part_would_get_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"--seconds: 10\.0 must be above 12\.0"):
        gpu.main(["--rehearse", "--out", str(tmp_path), "--seconds", "10"])


def test_without_a_card_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UserError, match="sees no CUDA device here; --rehearse runs"):
        gpu.main(["--out", str(tmp_path)])
    with pytest.raises(UserError, match="--part labels: there is no such part; did you mean 'label'"):
        gpu.main(["--rehearse", "--out", str(tmp_path), "--part", "labels"])


def test_the_page_shows_text_as_text():
    figure = {"what": "<b>x</b>", "value": 1.0, "unit": "", "goal": "", "met": False}
    text = page({"rehearsal": False, "parts": {"a": {"title": "A", "figures": [figure], "error": "<i>"}}})
    assert "<b>" not in text and "<i>" not in text and "not met" in text


@pytest.mark.parametrize("line, found", [
    ("tests/cuda/test_training.py::test_a[text, checkpointing] FAILED [ 12%]",
     ("tests/cuda/test_training.py::test_a[text, checkpointing]", "FAILED")),
    ("tests/kernels/cases.py::test_b[dtype0-(3, 33)] PASSED   [100%]",
     ("tests/kernels/cases.py::test_b[dtype0-(3, 33)]", "PASSED")),
    ("tests/cuda/test_loading.py::test_c ERROR  [  1%]", ("tests/cuda/test_loading.py::test_c", "ERROR")),
    ("[gw3] [ 45%] FAILED tests/cuda/x.py::test_d[nf4, paper] ", ("tests/cuda/x.py::test_d[nf4, paper]", "FAILED")),
    ("FAILED tests/cuda/test_loading.py::test_c - assert 1 == 2", None), ("collecting ... collected 3 items", None)])
def test_each_test_that_fails_on_the_card_is_named_as_it_comes(line, found):
    assert outcome(line) == found


def test_a_check_that_fails_ends_in_an_error_and_a_goal_that_is_missed_does_not(tmp_path):
    state = State(tmp_path / "x.json")
    state.note("same bits", False)
    state.note("share", 40.0, "%", "60%", False)
    state.note("wait", "inference/labeller.py:1", "", "none", False, check=True)
    assert [(figure["check"], figure["met"]) for figure in json.loads((tmp_path / "x.json").read_text())] == [
        (True, False), (False, False), (True, False)]


def test_the_limits_of_all_parts_together_are_eight_minutes():
    assert sum(part.seconds for part in PARTS.values()) == 480
