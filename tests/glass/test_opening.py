"""What is said where the live page can, and where it cannot, be opened in a browser.

Deliberate breaks: in glass/__main__.py leave out `check_label`, take "auto" as a dtype, or open the other run behind
`trace`; let `opened` return True for every browser, or leave `webbrowser.Error` uncaught.
"""

import socket
import webbrowser
from types import SimpleNamespace

import pytest
import torch

from common import device
from common.errors import UserError
from common.files import ROOT
from glass import __main__ as program
from glass.__main__ import main, opened, where_to_look
from inference.loaded import open_run


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


def test_a_port_in_use_is_said_before_the_model_is_loaded(monkeypatch):
    monkeypatch.setattr(program, "open_run", None)
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(UserError, match="cannot be used"):
        main(["--port", str(taken.getsockname()[1])])


@pytest.mark.parametrize("more, said", [
    (["--learn", "neutrall"], "--learn 'neutrall': is not in the codebook; did you mean 'neutral'"),
    (["--against-text", " "], "--against-text: nothing of it can be seen"),
    (["--text", "\u200b"], "--text: nothing of it can be seen"), (["--against", "nf4"], "have four bits already"),
    (["--verify", "page.html"], "is the file of --save, too")])
def test_what_is_wrong_is_said_before_anything_is_computed(run, tmp_path, monkeypatch, more, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(program, "open_run", lambda *given, **options: run)
    monkeypatch.setattr(program, "trace", None)
    with pytest.raises(UserError, match=said):
        main(["--text", "They", "--save", "page.html", *more])
    assert list(tmp_path.iterdir()) == []


def test_no_step_of_learning_is_left_out_unsaid(tmp_path, monkeypatch):
    """Where a card has tensor cores for float16 alone, "auto" is float32 here; who asks for float16 learns what it
    costs."""
    monkeypatch.chdir(tmp_path)
    asked = ["--run", str(ROOT / "base" / "run"), "--device", "cpu", "--text", "They", "--save", "page.html"]
    monkeypatch.setattr(program, "trace", None)
    with pytest.raises(UserError, match=r"--learn neutral: no step .* float16.* --dtype float32"):
        main([*asked, "--dtype", "float16", "--learn", "neutral"])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    seen = []

    def opened_with(*given, dtype, **options):
        seen.append(device.choose_dtype(torch.device("cuda"), dtype)[0])
        raise UserError("enough")

    monkeypatch.setattr(program, "open_run", opened_with)
    for words in ([], ["--dtype", "float16"]):
        with pytest.raises(UserError, match="enough"):
            main([*asked, *words])
    assert seen == [torch.float32, torch.float16]


def test_the_program_names_its_options(tmp_path, monkeypatch, capsys):
    """In a notebook the same are arguments (tests/inference/test_from_python.py)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(device, "multiplies_bfloat16", lambda: True)
    with pytest.raises(UserError, match=r"^--device gpu: there is no such device"):
        main(["--run", str(ROOT / "base" / "run"), "--device", "gpu"])
    open_run(ROOT / "base" / "run", device="cpu")
    assert "--dtype fast" in capsys.readouterr().out
