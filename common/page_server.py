"""A page for one person, served on this machine alone by Python's own server.

    with serving(page, policy, answer) as address: ...        http://127.0.0.1:PORT/TOKEN/

Whoever asks must know the random token in the address, speak to this very host and port (else a foreign name that
resolves to this machine could be used to read answers), and, to have anything answered, come from this page (Origin)
and send JSON. Answers are never stored by the browser. What the page may load or run is said by its policy.

The token stands in the browser's command line, which every user of a shared machine can read. So where the system says
whose a connection is (Linux does), another user's is closed before anything is read from it.
"""

import base64
import hashlib
import hmac
import json
import os
import platform
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from common.errors import UserError, one_line
from common.reading import json_value

MOST_BYTES = 200_000  # of a request
PATIENCE = 30  # seconds that a connection may stay silent
ESTABLISHED = "01"  # as Linux lists it

Answer = Callable[[str, dict], dict]


def joined(page: str, style: str, script: str, data: dict) -> tuple[str, str]:
    """(page, policy): `{style}`, `{script}`, `{data}` and `{policy}` filled in; nothing else may run or load.

    The policy names the SHA-256 of the style and of the script. The data become JSON in an element that no browser
    runs, with every `<` written as an escape.
    """
    hashes = ["sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
              for text in (style, script)]
    policy = (f"default-src 'none'; style-src '{hashes[0]}'; script-src '{hashes[1]}'; img-src data:; "
              "connect-src 'self'; base-uri 'none'; form-action 'none'")
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    text = text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    for name, value in {"policy": policy, "style": style, "script": script, "data": text}.items():
        page = page.replace("{" + name + "}", value, 1)  # the data last: what stands in it is not looked at again
    return page, policy


def ends() -> list[list[str]]:
    """Each end of the connections that the system lists, in words; none where it lists none."""
    found = []
    for name in ("tcp", "tcp6"):
        with suppress(OSError):
            found += [line.split() for line in Path("/proc/net", name).read_text(encoding="ascii").splitlines()[1:]]
    return found


def is_own(client: tuple[str, int], server: tuple[str, int]) -> bool:
    """Whether a connection within this machine is of this user (or root), or the system does not tell. To root, which
    is who a program in a container often is, whoever looks at its page is another: there the token alone decides.

    Linux lists each end of a connection with its owner, (local, remote, state, ..., user at 7, ..., inode at 9); a
    program with IPv6 sockets stands in the second list. An end that its program has closed has no inode, or has gone
    with the other one: nobody waits there for an answer, but what it sent could still change something. Windows' ends
    of connections to the Linux in it (WSL) may be in no list.
    """
    one, other = (f"{int.from_bytes(socket.inet_aton(host), sys.byteorder):08X}:{port:04X}" for host, port in
                  (client, server))
    listed = ends()
    here = [end for end in listed if end[1].endswith(other)]
    if not here or os.getuid() == 0:  # not even the server is listed
        return True
    theirs = [end for end in listed if end[1].endswith(one) and end[2].endswith(other)]
    if not theirs and "microsoft" in platform.release().lower():
        return any(end[2].endswith(one) and end[3] == ESTABLISHED for end in here)
    owners = {int(end[7]) for end in theirs if end[9] != "0"}
    return bool(owners) and owners <= {0, os.getuid()}


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, port: int, page: Callable[[], str], policy: str, answer: Answer):
        self.allow_reuse_address = sys.platform != "win32"  # where it would let two programs have one port
        super().__init__(("127.0.0.1", port), _Handler)
        self.page, self.policy, self.answer = page, policy, answer
        self.token = secrets.token_urlsafe(24)
        self.hosts = tuple(f"{name}:{self.server_port}" for name in ("127.0.0.1", "localhost"))

    def verify_request(self, request, client_address) -> bool:
        return is_own(client_address, self.server_address)

    def handle_error(self, request, client_address):
        if not isinstance(sys.exception(), ConnectionError):  # a page that was closed is no defect
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server_version, sys_version, protocol_version, timeout = "page", "", "HTTP/1.1", PATIENCE

    def do_GET(self):
        if self.asked() == "":
            self.give(200, self.server.page().encode("utf-8"), "text/html; charset=utf-8")
        else:
            self.refuse(404)

    def do_POST(self):
        what, length = self.asked(), self.headers.get("Content-Length", "")
        own = self.headers.get("Origin") in [f"http://{host}" for host in self.server.hosts]
        kind = self.headers.get("Content-Type", "").split(";")[0].strip()
        if what is None or not own or kind != "application/json":
            return self.refuse(404 if what is None else 403)
        if not (length.isascii() and length.isdigit() and len(length) < 9 and int(length) <= MOST_BYTES):
            return self.refuse(413)
        try:
            content = json_value(self.rfile.read(int(length)))
            if not isinstance(content, dict):
                raise UserError("the request is no JSON object")
            found, status = self.server.answer(what, content), 200
        except UserError as error:
            found, status = {"error": str(error)}, 400
        except ValueError as error:
            found, status = {"error": one_line(f"the request cannot be read: {error}", 200)}, 400
        body = json.dumps(found, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8")
        return self.give(status, body, "application/json")

    def asked(self) -> str | None:
        """What stands behind the token in the address; None for a wrong token or another host."""
        _, token, *rest = [*self.path.split("/", 2), "", ""]
        known = hmac.compare_digest(token.encode("utf-8", "replace"), self.server.token.encode("ascii"))
        return rest[0] if known and self.headers.get("Host") in self.server.hosts else None

    def refuse(self, status: int):
        self.close_connection = True  # what it sent is not read
        self.give(status, b"", "text/plain")

    def give(self, status: int, body: bytes, kind: str):
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), "Cache-Control": "no-store",
                            "Content-Security-Policy": self.server.policy + "; frame-ancestors 'none'",
                            "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
                            "Cross-Origin-Resource-Policy": "same-origin"}.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *words):
        """Nothing: what is read and typed belongs on no terminal."""


def _server(port: int, page: Callable[[], str], policy: str, answer: Answer) -> _Server:
    try:
        return _Server(port, page, policy, answer)
    except OSError as error:
        raise UserError(f"--port {port}: cannot be used ({error.strerror}); 0 takes a free one") from error


def check_port(port: int) -> None:
    """Raises `UserError` if the port cannot be had: for programs that load a model before they serve."""
    _server(port, str, "", lambda what, content: {}).server_close()


@contextmanager
def serving(page: Callable[[], str], policy: str, answer: Answer, port: int = 0) -> Iterator[str]:
    """A server in a thread of its own for the length of the block; gives the page's address.

    page: makes the page at each visit; answer(what, content): the answer to a request, or a `UserError`, which becomes
    status 400; requests may come at the same time, each in a thread of its own.
    port: 0 takes a free one. Raises `UserError` if the port cannot be had.
    """
    server = _server(port, page, policy, answer)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/{server.token}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def until_stopped() -> None:
    """Wait for Ctrl-C. Before Python 3.14 Windows brings it to a thread that sleeps, but not to one that waits for an
    event or a lock."""
    while True:
        time.sleep(3600)
