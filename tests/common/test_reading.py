"""The door for JSON, TOML and plain files: what is hostile ends in one line at once, what is sane comes through.

Deliberate break that turns this red: in common/reading.py, let `check_plain` return before it asks what kind of file
it is, or leave `except RecursionError` out of `json_value`.
"""

import json
import math
import os
import socket

import pytest

from common.errors import UserError
from common.files import find_path, sha256_file
from common.reading import DEEPEST, DIGITS, Unreadable, check_path, json_value, read_bytes, read_json, read_toml

DEEP = 100_000
JSON = {
    "lists in lists": ("[" * DEEP + "]" * DEEP, "nested too deep"),
    "objects in objects": ('{"a":' * DEEP + "1" + "}" * DEEP, "nested too deep"),
    "a little too deep": ("[" * (DEEPEST + 1) + "]" * (DEEPEST + 1), "nested too deep"),
    "unclosed and deep": ("[" * DEEP, "nested too deep"),
    "5,000 digits": ("[" + "9" * 5000 + "]", "5,000 digits"),
    "minus and 5,000 digits": ('{"a": -' + "9" * 5000 + "}", "digits"),
    "too large for a float": ('{"a": 1e999}', "1e999"),
    "a thousand digits and a point": ("[" + "9" * 1000 + ".5]", "finite"),
    "NaN": ("[NaN]", "NaN"),
    "infinity": ('{"a": -Infinity}', "-Infinity"),
    "half a pair": ('{"a": ["\\ud83d"]}', "surrogate"),
    "half a pair as a key": ('{"\\uDE00": 1}', "surrogate"),
    "no JSON": ('{\n"a": }', "line 2"),
    "empty": ("", "line 1"),
    "control character": ('["\x01"]', "is not JSON"),
}
TOML = {
    "arrays in arrays": ("a = " + "[" * DEEP + "]" * DEEP, "nested too deep"),
    "a little too deep": ("a = " + "[" * DEEPEST + "]" * DEEPEST, "nested too deep"),
    "tables in tables": ("a = " + "{a = " * DEEP + "1" + "}" * DEEP, "nested too deep"),
    "a key of many parts": ("a." * DEEP + "a = 1", "parts"),
    "a key of many quoted parts": ('"a" . \'b\' . ' * DEEP + "a = 1", "parts"),
    "a header of many parts": ("[" + "a." * DEEP + "a]", "parts"),
    "5,000 digits": ("a = " + "9" * 5000, "digits"),
    "5,000 hexadecimal digits": ("a = [1, 0x" + "f" * 5000 + "]", "64 bits"),
    "65 bits": ("a = {b = 9223372036854775808}", "64 bits"),
    "too large for a float": ("a = 1e999", "1e999"),
    "no TOML": ("a = ", "is not TOML"),
    "NUL": ("a = '\0'", "is not TOML"),
}


@pytest.mark.parametrize("case", JSON)
def test_hostile_json_is_one_line(case, tmp_path):
    text, words = JSON[case]
    (tmp_path / "f.json").write_text(text)
    with pytest.raises(UserError, match=words) as caught:
        read_json(tmp_path / "f.json")
    assert str(caught.value).startswith(f"{tmp_path / 'f.json'}: ") and len(str(caught.value)) < 400
    with pytest.raises(ValueError):
        json_value(text.encode())


@pytest.mark.parametrize("case", TOML)
def test_hostile_toml_is_one_line(case, tmp_path):
    text, words = TOML[case]
    (tmp_path / "f.toml").write_text(text)
    with pytest.raises(UserError, match=words) as caught:
        read_toml(tmp_path / "f.toml")
    assert str(caught.value).startswith(f"{tmp_path / 'f.toml'}: ") and len(str(caught.value)) < 400


def test_what_is_sane_comes_through(tmp_path):
    deep = json.loads("[" * (DEEPEST - 1) + "]" * (DEEPEST - 1))
    value = {"deep": deep, "most": 10**DIGITS - 1, "least": 1e-320, "pair": "😀", "large": 1e308, "id": 10**30}
    (tmp_path / "f.json").write_text(json.dumps(value))
    assert read_json(tmp_path / "f.json") == value
    assert json_value("[1.50, 007e1]".replace("007", "7"), str) == ["1.50", "7e1"]
    assert json_value("[1e999, NaN]", str) == ["1e999", None]
    words = "word." * DEEP
    text = f"\ufeffa = '{words}' # {words}\nb = \"\"\"{words}\n{words}\"\"\"\nc.d = 1.5\ne = -inf\n"
    (tmp_path / "f.toml").write_text(text)
    assert read_toml(tmp_path / "f.toml") == {"a": words, "b": f"{words}\n{words}", "c": {"d": 1.5}, "e": -math.inf}


@pytest.fixture
def strange(tmp_path):
    """Paths that are no plain files, each of which would hang a reader or end it."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "to a pipe").symlink_to("pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        yield [tmp_path / name for name in ("pipe", "folder", "dangling", "loop", "to a pipe", "socket", "absent")] + [
            "/dev/zero", "/dev/stdin", tmp_path / ("n" * 300), tmp_path / "a\0b", tmp_path / "\ud83d", "d/" * 3000]


@pytest.mark.parametrize("reader", [read_json, read_toml, sha256_file, lambda path: read_bytes(path, 10)])
def test_what_is_no_plain_file_is_one_line(reader, strange):
    for path in strange:
        with pytest.raises(UserError) as caught:
            reader(path)
        assert str(path)[:20] in str(caught.value) or repr(str(path))[1:-1] in str(caught.value)


def test_a_path_that_no_file_can_have_is_found_out_when_it_is_looked_for(strange):
    for path in [*strange[-4:], strange[3]]:
        with pytest.raises(UserError):
            check_path(path)
        with pytest.raises(UserError):
            find_path(path)
    for path in strange[:3]:
        check_path(path)
    assert find_path("base/config.json").is_file() and find_path("no/such").name == "such"


def test_a_byte_order_mark_and_ends_of_windows_come_through(tmp_path):
    """As where a run.json or a codebook was edited with an editor that writes them."""
    for reader, text in ((read_json, '{\r\n"a": "\u00fc"}\r\n'), (read_toml, '\r\na = "\u00fc"\r\n')):
        path = tmp_path / "edited"
        path.write_bytes(text.encode("utf-8-sig"))
        assert reader(path) == {"a": "\u00fc"}


def test_size_has_a_limit(tmp_path):
    (tmp_path / "f").write_bytes(b"0123456789")
    assert read_bytes(tmp_path / "f", 10) == b"0123456789"
    with pytest.raises(UserError, match="larger"):
        read_bytes(tmp_path / "f", 9)


def test_a_missing_document_and_a_wrong_one_are_told_apart():
    assert issubclass(Unreadable, ValueError) and not issubclass(json.JSONDecodeError, Unreadable)
