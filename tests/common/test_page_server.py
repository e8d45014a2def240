"""The server of a page where Windows differs: Ctrl-C reaches a thread that sleeps alone, and a port is one program's.

Deliberate break: in common/page_server.py let `until_stopped` wait for an event, or leave out `allow_reuse_address`.
"""

import socket
import sys
import threading
import time
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from common.page_server import _Server, serving
from glass import __main__ as glass
from tools.code import __main__ as code


@pytest.fixture
def ctrl_c_while_asleep(monkeypatch):
    """The keys are pressed as soon as the program sleeps; whoever waits for an event in the main thread never ends."""
    def sleeping(seconds):
        raise KeyboardInterrupt

    def waiting(event, timeout=None):
        assert timeout is not None or not sys._getframe(1).f_globals["__name__"].endswith("__main__"), "waits for ever"
        return wait(event, timeout)

    wait = threading.Event.wait
    monkeypatch.setattr(threading.Event, "wait", waiting)
    monkeypatch.setattr(time, "sleep", sleeping)


def test_the_pages_of_both_programs_are_left_by_ctrl_c(ctrl_c_while_asleep, monkeypatch, capsys):
    monkeypatch.setattr(glass, "serving", lambda *given, **options: nullcontext("http://127.0.0.1:8000/token/"))
    with pytest.raises(KeyboardInterrupt):
        glass.serve(None, glass.GlassOptions(browser=False))
    monkeypatch.setattr(code, "page_of", lambda *given: ("page", "policy"))
    codes = SimpleNamespace(of={}, posts=[], path="codes.csv")
    code.serve(codes, None, code.CodeOptions(browser=False), [])
    assert capsys.readouterr().out.count("0 of 0 posts coded") == 2


@pytest.mark.parametrize(("platform", "may"), [("win32", False), ("linux", True)])
def test_two_programs_do_not_get_one_port(platform, may, monkeypatch):
    monkeypatch.setattr(sys, "platform", platform)
    server = _Server(0, lambda: "", "", lambda what, content: {})
    try:
        assert bool(server.socket.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)) == may
    finally:
        server.server_close()
    with serving(lambda: "", "", lambda what, content: {}) as address:
        assert address.startswith("http://127.0.0.1:")
