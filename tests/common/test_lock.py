"""Locks: the second is refused and told who is there, the dead are taken over, other hosts are asked about.

Deliberate break: in common/lock.py let `is_gone` say no where another process has the id, leave out `_is_at`, or give
`_Held` up at once although `wait` was asked for.
"""

import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from common import lock
from common.errors import UserError
from common.files import ROOT
from common.lock import LOCK, Owner, hold
from tests import PATIENCE

HOLDING = """
import sys
from common.lock import hold
with hold(sys.argv[1]):
    print("held", flush=True)
    input()
"""


def holder(folder: Path, patch: str = "") -> subprocess.Popen:
    """A process that holds `folder` until it gets a line."""
    child = subprocess.Popen([sys.executable, "-c", patch + HOLDING, str(folder)], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    line = child.stdout.readline()
    assert line == "held\n", line
    return child


NO_LOCKS = "from common import lock\nlock.lock_handle = lambda handle: False\n"


@pytest.fixture(params=["system's locks", "no locks"])
def patch(request, monkeypatch) -> str:
    """A file system with locks, and one without: there the file's words count."""
    if request.param == "no locks":
        monkeypatch.setattr(lock, "lock_handle", lambda handle: False)
        return NO_LOCKS
    return ""


def test_the_second_is_refused_and_the_lock_goes_with_its_holder(tmp_path, patch):
    child = holder(tmp_path, patch)
    words = rf"^{re.escape(str(tmp_path))}: process {child.pid} has been writing here since 20"
    with pytest.raises(UserError, match=words), hold(tmp_path):
        pass
    facts = json.loads((tmp_path / LOCK).read_text())
    assert facts["pid"] == child.pid and facts["host"] == Owner.me().host and facts["born"] == lock.born(child.pid)
    child.communicate("\n")
    assert child.returncode == 0 and os.listdir(tmp_path) == []
    with hold(tmp_path):
        assert os.listdir(tmp_path) == [LOCK]
        with pytest.raises(UserError, match=f"process {os.getpid()} has been"), hold(tmp_path):
            pass
    assert os.listdir(tmp_path) == []


def test_a_dead_owner_is_taken_over_and_said(tmp_path, patch, capsys):
    child = holder(tmp_path, patch)
    child.kill()  # not waited for: it has ended, but its id is still in use
    while lock.born(child.pid) is not None:
        time.sleep(0.01)
    with hold(tmp_path):
        assert capsys.readouterr().out == f"{tmp_path}: taken over from process {child.pid}, which has ended\n"
    assert os.listdir(tmp_path) == []
    child.communicate()


def write_lock(folder: Path, **facts) -> Path:
    me = Owner.me()
    facts = {"pid": me.pid, "born": me.born, "host": me.host, "since": "2026-05-01 10:22:07"} | facts
    (folder / LOCK).write_text(json.dumps(facts) + "\n")
    return folder / LOCK


def test_a_process_that_has_the_dead_ones_id_is_another(tmp_path, patch, capsys):
    if not Owner.me().born:
        pytest.skip("this system does not tell when a process began")
    write_lock(tmp_path, pid=os.getppid(), born="1")
    with hold(tmp_path):
        assert "taken over" in capsys.readouterr().out


def test_another_host_is_never_taken_over(tmp_path, patch):
    path = write_lock(tmp_path, host="node17", pid=4711)
    words = f"process 4711 on node17 has been writing here since 2026-05-01 10:22:07; .* remove {re.escape(str(path))}$"
    with pytest.raises(UserError, match=words), hold(tmp_path):
        pass
    path.unlink()
    with hold(tmp_path):
        pass


@pytest.mark.parametrize("torn", ["", "{", '{"pid": 12', '{"pid": 12, "bo\n', "[]\n", '{"pid": "x"}\n', "\0\n"])
def test_a_torn_line_names_nobody(tmp_path, patch, torn):
    (tmp_path / LOCK).write_text(torn)
    with hold(tmp_path):
        pass
    assert os.listdir(tmp_path) == []


def test_who_waits_gets_it(tmp_path, patch):
    child = holder(tmp_path, patch)
    asked = threading.Event()

    def end():
        asked.wait(PATIENCE)
        child.communicate("\n")

    thread = threading.Thread(target=end)
    thread.start()
    try:
        asked.set()
        with hold(tmp_path, wait=PATIENCE):
            assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
    finally:
        thread.join()


COUNTING = """
import sys
from pathlib import Path
from common.lock import hold
counter = Path(sys.argv[1]) / "count"
for _ in range(100):
    with hold(sys.argv[1], wait=int(sys.argv[2])):
        counter.write_text(str(int(counter.read_text()) + 1))
"""


def test_four_processes_and_never_two_at_a_time(tmp_path):
    (tmp_path / "count").write_text("0")
    command = [sys.executable, "-c", COUNTING, str(tmp_path), str(PATIENCE)]
    children = [subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)}) for _ in range(4)]
    assert [child.wait(PATIENCE) for child in children] == [0] * 4
    assert (tmp_path / "count").read_text() == "400" and os.listdir(tmp_path) == ["count"]


def test_where_nothing_can_be_written(tmp_path):
    with pytest.raises(UserError, match=r"none: cannot be written .No such file"), hold(tmp_path / "none"):
        pass


def test_processes_and_their_names():
    me = Owner.me()
    assert Owner.parse(str(me)) == me and not me.is_gone and not me.is_elsewhere
    assert Owner(1, "", me.host).is_gone is False  # init; without its start nothing is ruled out
    for text in ("", "1", "1-2", "@host", "1-2@", "a-2@host", "1-2@a.b", "1-2@host.partial", "9" * 30 + "-1@host"):
        assert Owner.parse(text) is None
    assert Owner(10**17, "1", me.host).is_gone  # no such id can be
    assert not Owner(10**17, "1", "elsewhere").is_gone


@pytest.mark.skipif(os.name == "nt" or not Path("/bin/ps").exists(), reason="ps tells it where /proc is not there")
def test_when_a_process_began_without_proc():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    told = lock._born_by_ps(child.pid)
    assert told.isalnum() and told == lock._born_by_ps(child.pid)
    child.communicate(b"\n")
    assert lock._born_by_ps(child.pid) == ""
