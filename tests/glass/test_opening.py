"""What is said where the live page can, and where it cannot, be opened in a browser.

Deliberate breaks: in glass/__main__.py let `opened` return True for every browser, or leave `webbrowser.Error`
uncaught.
"""

import webbrowser
from types import SimpleNamespace

import pytest

from glass.__main__ import opened, where_to_look


@pytest.mark.parametrize("name, opens, said", [
    (None, False, "ssh -L 8000:127.0.0.1:8000"), ("w3m", True, "ssh -L 8000:"), ("firefox", False, "ssh -L 8000:"),
    ("firefox", True, "It opens in your browser")])
def test_without_a_browser_it_is_said_what_to_open(monkeypatch, name, opens, said):
    def get():
        if name is None:
            raise webbrowser.Error("could not locate runnable browser")
        return SimpleNamespace(name=name, open=lambda address: opens)

    monkeypatch.setattr(webbrowser, "get", get)
    lines = where_to_look("http://127.0.0.1:8000/token/", opened("http://127.0.0.1:8000/token/"))
    assert lines[0] == "http://127.0.0.1:8000/token/" and said in " ".join(lines) and "Ctrl-C" in lines[1]
