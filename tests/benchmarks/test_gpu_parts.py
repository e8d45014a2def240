"""How `benchmarks.gpu` gives its time to the parts: a process that takes no other part's time, whatever it does, and an
end within the seconds.

Deliberate break: in benchmarks/gpu.py count the process's start as the part's time, leave `process_group=0` out and
kill the process alone, keep the process after an error, or leave `AROUND` out.
"""

import os
import select
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

from benchmarks import gpu
from benchmarks.card import suite, usual
from benchmarks.card.parts import PARTS
from benchmarks.card.state import State
from common.files import ROOT, read_json
from tests import PATIENCE

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs a shell")
BEGUN = "echo '{\"error\": \"\"}'\n"


def shell(folder, script: str) -> str:
    """A program in Python's place: a shell that runs `script` in `folder`, whatever it is given."""
    program = folder / "python"
    program.write_text(f"#!/bin/sh\ncd '{folder}'\n{script}")
    program.chmod(0o755)
    return str(program)


def worker_that(tmp_path, monkeypatch, script: str) -> gpu.Worker:
    """A worker whose process is a shell's script."""
    monkeypatch.setattr(gpu, "sys", SimpleNamespace(executable=shell(tmp_path, script)))
    return gpu.Worker(tmp_path, rehearse=True)


def test_what_a_process_needs_to_begin_is_no_part_s_time(tmp_path, monkeypatch):
    worker = worker_that(tmp_path, monkeypatch, f"sleep 4\n{BEGUN}while read line; do {BEGUN}done\n")
    assert worker.make("machine", 3.0) == worker.make("machine", 3.0) == ""
    worker.stop()


def test_who_is_stopped_takes_along_what_it_started(tmp_path, monkeypatch):
    """A test that hangs, a train.py: they would hold the card's memory, and its time."""
    os.mkfifo(tmp_path / "held")
    reader = os.open(tmp_path / "held", os.O_RDONLY | os.O_NONBLOCK)
    worker = worker_that(tmp_path, monkeypatch, "exec 3>held\nsleep 600 >&3 2>/dev/null &\nexec 3>&-\n"
                                                f"{BEGUN}sleep 600\n")
    assert worker.begin() == "" and not select.select([reader], [], [], 0)[0]
    assert worker.make("tests", 0.1) == "stopped after its 0.1 s"
    assert select.select([reader], [], [], 60)[0] and os.read(reader, 1) == b""  # nobody holds the other end any more
    os.close(reader)


STOPPED = """
import sys
from types import SimpleNamespace
from benchmarks import gpu
gpu.sys, gpu.chosen = SimpleNamespace(executable=sys.argv[1], stdout=sys.stdout), lambda options: ["machine"]
gpu.run_program(gpu.main, sys.argv[2:])
"""


def test_a_time_limit_from_outside_stops_the_parts_too(tmp_path):
    """`timeout 600 python -m benchmarks.gpu` left a process on the card: it is of another group."""
    os.mkfifo(tmp_path / "held")
    reader = os.open(tmp_path / "held", os.O_RDONLY | os.O_NONBLOCK)
    program = shell(tmp_path, f"exec 3>held\necho begun >&3\n{BEGUN}sleep 600\n")
    process = subprocess.Popen([sys.executable, "-c", STOPPED, program, "--out", str(tmp_path / "out")], cwd=ROOT)
    assert select.select([reader], [], [], PATIENCE)[0] and os.read(reader, 99) == b"begun\n"
    process.terminate()
    assert process.wait(PATIENCE) == 143
    assert select.select([reader], [], [], 60)[0] and os.read(reader, 1) == b""
    os.close(reader)


def test_after_an_error_the_next_part_has_a_new_process(tmp_path, monkeypatch):
    """The card may take no more work from the old one, and PyTorch does not come back from a capture that failed."""
    worker = worker_that(tmp_path, monkeypatch, f"echo >>begun\n{BEGUN}read line\necho '{{\"error\": \"CUBLAS\"}}'\n"
                                                "read line\necho '{\"error\": \"the old one\"}'\n")
    assert worker.make("train", 60.0) == worker.make("usual", 60.0) == "CUBLAS"
    assert (tmp_path / "begun").read_text() == "\n\n"
    worker.stop()


def test_a_process_that_dies_is_said_and_begun_again(tmp_path, monkeypatch):
    worker = worker_that(tmp_path, monkeypatch, f"echo >>begun\n{BEGUN}read line\n")
    for count in (1, 2):
        assert worker.make("label", 60.0) == "its process died (see log.txt)"
        assert (tmp_path / "begun").read_text() == "\n" * count


@pytest.mark.parametrize("rehearse, count", [(False, 11), (True, 7)])
def test_parts_that_all_take_too_long_end_within_the_seconds_and_each_has_had_some(tmp_path, monkeypatch, rehearse,
                                                                                   count):
    """Each stopped at its limit, and a new process for each; what a rehearsal leaves out leaves its time to others."""
    now, given = [0.0], {}

    class Slow(gpu.Worker):
        def begin(self, seconds):
            now[0] += min(seconds, 15.0)
            return ""

        def make(self, name, seconds):
            now[0] += seconds
            given[name] = seconds
            return "stopped"

    monkeypatch.setattr(gpu, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(gpu, "Worker", Slow)
    with pytest.raises(gpu.UserError, match=f"{count} of the checks failed"):
        gpu.measure(gpu.GpuOptions(rehearse=rehearse), list(PARTS), tmp_path, 0.0)
    assert 480 - gpu.AROUND - 1e-6 <= now[0] <= 480
    assert list(given) == [name for name, part in PARTS.items() if not (rehearse and part.card_only)]
    assert rehearse or min(seconds / PARTS[name].seconds for name, seconds in given.items()) > 0.15
    assert read_json(tmp_path / "gpu.json")["seconds"] <= 480
    assert "The parts took 7 min " in (tmp_path / "gpu.html").read_text()


def test_processes_that_do_not_begin_end_within_the_seconds_too(tmp_path, monkeypatch):
    """A card's driver that hangs: each part waited for two of them, also when the time was up."""
    now, waited = [0.0], []

    class Hanging(gpu.Worker):
        def _answer(self, seconds):
            self.stop()
            now[0] += seconds
            waited.append(seconds)
            return "stopped"

    program = shell(tmp_path, "exec sleep 600\n")
    monkeypatch.setattr(gpu, "sys", SimpleNamespace(executable=program, stdout=sys.stdout))
    monkeypatch.setattr(gpu, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(gpu, "Worker", Hanging)
    with pytest.raises(gpu.UserError, match="machine: its process did not begin: stopped"):
        gpu.measure(gpu.GpuOptions(), list(PARTS), tmp_path, 0.0)
    assert len(waited) == len(PARTS) and max(waited) == gpu.START and now[0] <= 480 - gpu.AROUND


def test_what_the_page_is_read_for_comes_before_what_only_adds_to_it():
    assert list(PARTS) == ["machine", "correct", "large", "waits", "kernels", "label", "train", "usual", "attention",
                           "graphs", "tests"]


def test_beside_the_usual_stack_labelling_comes_first_and_the_higher_goals_before_the_lower(tmp_path, monkeypatch):
    made, state = [], State(tmp_path / "x.json", rehearse=True)
    state.__dict__["large"] = None
    for name in ("peer", "check_same"):
        monkeypatch.setattr(usual, name, lambda *args: None)
    for name in ("labelling", "training"):
        monkeypatch.setattr(usual, name, lambda state, theirs, template, kind, name=name, generated=True:
                            made.append((name, template, generated)))
    monkeypatch.setattr(usual.importlib.util, "find_spec", lambda name: True)
    usual.in_turns(state)
    assert made == [(name, template, generated)
                    for name, generated in (("labelling", True), ("training", True), ("labelling", False))
                    for template in ("instruction-first", "paper")]


def test_a_test_that_hangs_and_says_nothing_is_ended_with_what_was_found_before(tmp_path, monkeypatch):
    program = shell(tmp_path, "echo 'tests/a.py::test_b PASSED'\nexec sleep 600\n")
    monkeypatch.setattr(suite, "sys", SimpleNamespace(executable=program))
    state = State(tmp_path / "figures.json", seconds=6.0)
    suite.run(state)
    found = {figure.what: figure.value for figure in state.figures}
    assert list(found) == ["stopped before its end", "passed", "failed", "error", "skipped"] and found["passed"] == 1.0


def test_two_threads_note_what_they_find(tmp_path):
    """Killing and resuming runs beside the other checks; what is written beside the file has one name for both."""
    state, failed = State(tmp_path / "figures.json"), []

    def note(start):
        try:
            for number in range(100):
                state.note(f"{start} {number}", float(number))
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=note, args=(start,)) for start in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed and len(read_json(tmp_path / "figures.json")) == 200
