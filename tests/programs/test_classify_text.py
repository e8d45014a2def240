"""One post in the terminal: `classify.py --text`, its bars, and the options that it does not go with.

Deliberate breaks: in common/terminal.py let `bars` count characters in place of columns, or print blocks in any
encoding; in classify.py leave "resume" out of `FILES`.
"""

import io
import json
import subprocess
import sys
from contextlib import redirect_stdout

import pytest

import classify
from common.files import ROOT
from common.terminal import bars, display_width, printable
from tests.programs.hostile import World, call, jsonl, listing, refused

TEXT = "close the border now"
CPU = ("--device", "cpu")


def test_one_post_one_bar_a_label_and_no_file(world: World, tmp_path):
    ended = call(classify.main, "--run", world.run, "--text", TEXT, *CPU)
    assert ended.code == 0 and ended.err == "" and listing(tmp_path) == {}
    _, shown, answer = ended.out.split("\n\n")
    shown = [line.split() for line in shown.splitlines()]
    posts = jsonl(tmp_path / "one.jsonl", [{"text": TEXT}])
    assert call(classify.main, "--run", world.run, "--input", posts, "--output", "out.jsonl", *CPU).code == 0
    row = json.loads((tmp_path / "out.jsonl").read_text())
    assert [line[:2] for line in shown] == [[key[2:], f"{value:.3f}"] for key, value in row.items()
                                            if key.startswith("p_") and key != "p_related"]
    assert answer == f"  {row['predicted']} ({row['probability']:.3f}; related {row['p_related']:.3f})\n"


def test_it_takes_the_options_of_the_model(world: World, tmp_path):
    base = world.copy(world.base, tmp_path)
    plain = call(classify.main, "--run", world.run, "--text", TEXT, *CPU).out.split("\n\n")[1]
    before = listing(tmp_path)
    ended = call(classify.main, "--run", world.run, "--text", TEXT, "--model", base, *CPU, "--dtype", "float64",
                 "--threads", "1", "--micro-tokens", "64", "--resident", "--exact", "--no-resume")
    assert ended.code == 0 and "torch.float64" in ended.out and plain in ended.out and listing(tmp_path) == before
    (tmp_path / "one.toml").write_text(f'text = "{TEXT}"\n')
    assert plain in call(classify.main, "--run", world.run, "--config", "one.toml", *CPU).out


@pytest.mark.parametrize("more", [
    ["--input", "posts.csv"], ["--output", "labels.csv"], ["--resume"], ["--overwrite"], ["--with-texts"],
    ["--text-column", "tweet"], ["--bad-labels", "drop"],
])  # fmt: skip
def test_options_about_files_do_not_go_with_it(world: World, more):
    refused(classify.main, "--run", world.run, "--text", TEXT, *more, says=f"--text and {more[0]}:")


@pytest.mark.parametrize("text", ["", "  ", "\u200b\n"])
def test_a_post_without_text(world: World, text):
    refused(classify.main, "--run", world.run, "--text", text, says="--text: is empty; give")


def test_runs_and_bases_that_are_not_there(world: World):
    refused(classify.main, "--run", "none", "--text", TEXT, says="no such run")
    refused(classify.main, "--run", world.run, "--model", "none", "--text", TEXT, says="none")


@pytest.mark.parametrize("width", ["80", "120"])
def test_the_first_page_of_help_shows_it(monkeypatch, width):
    monkeypatch.setenv("COLUMNS", width)
    page = call(classify.main, "--help").out.splitlines()[:24]
    assert any(line.startswith("    python classify.py --text ") for line in page)


def test_a_terminal_without_blocks(world: World):
    command = [sys.executable, ROOT / "classify.py", "--run", world.run, "--text", "naïve", "--threads", "1"]
    for encoding in ("ascii", "cp1252"):
        child = subprocess.run(command, capture_output=True, env={"PYTHONIOENCODING": encoding})
        assert child.returncode == 0 and child.stderr == b"" and b"#" in child.stdout, child.stderr
    child = subprocess.run(command, capture_output=True, env={"PYTHONIOENCODING": "utf-8"})
    assert "█" in child.stdout.decode()


def test_bars_are_aligned_in_every_script(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    shares = {"移民に賛成": 0.5, "반대": 0.25, "เป็นกลาง": 0.125, "तटस्थ": 0.12, "cafe\u0301": 0.005, "👍": 0.0}
    lines = bars(shares).splitlines()
    assert {display_width(line[: line.index("0.")]) for line in lines} == {2 + 10 + 2}
    assert [line.split("  ")[-1].strip() for line in lines] == ["█" * 20, "█" * 10, "█" * 5, "████▊", "▎", "0.000"]
    assert all(line in bars.__doc__ for line in bars({"pro-immigration": 0.812, "unrelated": 0.188}).splitlines())


def test_bars_fit_their_terminal(monkeypatch):
    for columns, longest in (("200", 40), ("40", 40 - 2 - 1 - 2 - 5 - 2 - 1), ("10", 8)):
        monkeypatch.setenv("COLUMNS", columns)
        assert bars({"a": 1.0, "b": 0.0}).splitlines() == ["  a  1.000  " + "█" * longest, "  b  0.000"]
        assert bars({"é": 1.0}, "ascii") == "  ?  1.000  " + "#" * longest


def test_characters_that_an_encoding_lacks():
    assert printable("naïf", "ascii") == "na?f" and printable("naïf", "latin-1") == printable("naïf", None) == "naïf"
    with redirect_stdout(io.TextIOWrapper(io.BytesIO(), "cp437")) as out:
        print(bars({"ça": 0.5}, out.encoding))  # it has whole blocks and halves, not eighths
        out.flush()
        assert out.buffer.getvalue().decode("cp437").strip() == "ça  0.500  " + "#" * 20


def test_display_width():
    assert [display_width(text) for text in ("abc", "移民", "한국", "e\u0301", "เป็น", "ไทย", "👍")] == [
        3, 4, 4, 1, 3, 3, 2]
