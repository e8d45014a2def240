"""The server of a page where Windows differs: Ctrl-C reaches a thread that sleeps alone, and a port is one program's;
and where Linux does: it says whose a connection is.

Deliberate break: in common/page_server.py let `until_stopped` wait for an event, or leave out `allow_reuse_address` or
`verify_request`.
"""

import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from common import page_server
from common.page_server import _Server, serving
from glass import __main__ as glass
from tests import PATIENCE
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
    code.serve(codes, None, code.CodeOptions(browser=False), [], [])
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


ASKING = """
import os, socket, sys
user, host, port, request = sys.argv[1:]
kind, *_, place = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0]
if int(user):
    os.setuid(int(user))
with socket.socket(kind) as one:
    one.connect(place)
    try:
        one.sendall(request.encode())
        print(one.recv(12).decode())
    except ConnectionError:
        print("")
"""


@pytest.fixture
def other(monkeypatch):
    """other() -> who asks from now on: as root somebody else, otherwise this user (0), for whom the server is not."""
    who = 65534 if os.geteuid() == 0 else 0
    if subprocess.run([sys.executable, "-c", f"import os; {who} and os.setuid({who})"], capture_output=True).returncode:
        pytest.skip("root may become nobody else in this container")

    def become() -> int:
        server = os.getuid() + 4711
        monkeypatch.setattr(os, "getuid", lambda: server)
        return who

    return become


def asked_by(user: int, address: str, host: str) -> str:
    """How the answer begins that another process gets, which knows the token; user: who it becomes, 0: this one."""
    _, _, own, token, _ = address.split("/")
    request = f"GET /{token}/ HTTP/1.1\r\nHost: {own}\r\n\r\n"
    words = [sys.executable, "-c", ASKING, str(user), host, own.partition(":")[2], request]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.skipif(not os.path.exists("/proc/net/tcp"), reason="this system does not say whose a connection is")
@pytest.mark.parametrize("host", ["127.0.0.1", "::ffff:127.0.0.1"])
def test_another_user_of_the_machine_gets_nothing_even_with_the_token(host, other):
    if ":" in host:
        try:
            socket.socket(socket.AF_INET6).close()
        except OSError:
            pytest.skip("this system has no IPv6")
    with serving(lambda: "page", "", lambda what, content: {}) as address:
        assert asked_by(0, address, host) == "HTTP/1.1 200"
        assert asked_by(other(), address, host) == ""


SENDING = """
import os, socket, struct, sys
user, port, request = sys.argv[1:]
if int(user):
    os.setuid(int(user))
with socket.socket() as one:
    one.connect(("127.0.0.1", int(port)))
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closing it breaks it off
    one.sendall(request.encode())
"""


@pytest.mark.skipif(not os.path.exists("/proc/net/tcp"), reason="this system does not say whose a connection is")
def test_another_user_who_breaks_off_has_changed_nothing(monkeypatch, other):
    asked, is_own, is_over = [], page_server.is_own, threading.Event()
    monkeypatch.setattr(page_server, "is_own", lambda *ends: is_over.wait(PATIENCE) and is_own(*ends))
    with serving(lambda: "page", "", lambda what, content: asked.append(what) or {}) as address:
        _, _, own, token, _ = address.split("/")
        request = (f"POST /{token}/save HTTP/1.1\r\nHost: {own}\r\nOrigin: http://{own}\r\nContent-Length: 2\r\n"
                   "Content-Type: application/json\r\n\r\n{}")
        user = other()
        subprocess.run([sys.executable, "-c", SENDING, str(user), own.partition(":")[2], request], check=True)
        is_over.set()
        assert asked_by(user, address, "127.0.0.1") == ""  # the one before has been looked at
    assert asked == []


@pytest.mark.parametrize(("release", "state", "may"), [
    ("6.6.87-microsoft-standard-WSL2", "01", True), ("6.6.87-microsoft-standard-WSL2", "08", False),
    ("6.8.0-generic", "01", False)])
def test_a_browser_of_the_windows_around_linux_is_in_no_list(monkeypatch, release, state, may):
    def line(remote, state):
        return f"0: 0100007F:1F90 {remote} {state} 0:0 00:0 0 4711 0 99".split()

    monkeypatch.setattr(page_server, "ends", lambda: [line("00000000:0000", "0A"), line("0100007F:C000", state)])
    monkeypatch.setattr(page_server.platform, "release", lambda: release)
    monkeypatch.setattr(os, "getuid", lambda: 4711, raising=False)
    assert page_server.is_own(("127.0.0.1", 0xC000), ("127.0.0.1", 8080)) is may
