"""What a person sees where nobody watches a terminal: a line now and then, and how it is worded.

Deliberate break: let `LogLines.update` print each time, or forget `initial` in the rate; leave `escaped` out of `table`
or out of report/words.py's `filled`.
"""

import io
import sys
from pathlib import Path

import pytest

from common import terminal
from common.terminal import LogLines, progress, table, this_python, three_digits
from report.words import filled


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    return now


def test_a_line_at_most_every_thirty_seconds(clock, capsys):
    bar = progress(1000, "post", "training", initial=200)  # pytest's stderr is no terminal
    assert isinstance(bar, LogLines) and bar.disable
    with bar:
        for _ in range(400):
            clock[0] += 1
            bar.update(2)
            bar.set_postfix_str("loss 1")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 13
    assert lines[0] == "training: 260 of 1,000 posts, 2 a second, 6 min 10 s left"
    assert lines[-1] == "training: 980 of 1,000 posts, 2 a second, 10.0 s left"


def test_what_is_short_says_nothing(clock, capsys):
    with progress(None, "post", "reading") as bar:
        clock[0] += 29
        bar.update(5)
    assert capsys.readouterr().err == ""


def test_lines_without_a_total_and_with_slow_steps():
    bar = LogLines(None, "post", "reading")
    bar.n = 90_000
    assert bar.line(30.0) == "reading: 90,000 posts, 3,000 a second"
    bar = LogLines(4, "model", "study", initial=1)
    bar.n = 2
    assert bar.line(90.0) == "study: 2 of 4 models, 1 min 30 s each, 3 min 0 s left"
    assert LogLines(4, "model").line(60.0) == "done: 0 of 4 models, 0 a second"
    assert LogLines(1, "model").line(60.0) == "done: 0 of 1 model, 0 a second"


def test_a_terminal_gets_a_bar(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr("sys.stderr", Terminal())
    with progress(3, "post", "labelling") as bar:
        assert not isinstance(bar, LogLines)


@pytest.mark.parametrize("place, called", [
    ("{here}/.venv/bin/python", ".venv/bin/python"),  # a link, which is not followed
    ("/usr/bin/python3", "python"),
    ("", "python"),  # where Python is embedded
])  # fmt: skip
def test_a_command_to_be_copied_calls_the_python_that_runs(place, called, tmp_path, monkeypatch):
    """Deliberate break: let `this_python` give "python" always; a clone's environment is not on the path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", place.format(here=tmp_path))
    assert this_python() == str(Path(called))


def test_names_in_tables_and_sentences_move_no_cursor():
    """Languages, labels and files are named by whoever made the data or the run."""
    name = "a\x1b[2J\x9b31m\u202eb"
    for text in (table([name, "n"], [[name, "1"]]), "".join(filled(f"Seen in training: {name}, 5 %."))):
        assert not {"\x1b", "\x9b", "\u202e"} & set(text) and "a\\x1b[2J\\x9b31m\\u202eb" in text
    assert table(["n"], [["1\u00a0000"]]).endswith("1\u00a0000") and filled("5 %\n6 %") == ["5 % 6 %"]


def test_joiners_of_a_name_stay():
    """Persian and Hindi words and joined emoji have them; they show nothing and move nothing."""
    name = "می\u200cخواهم 👩\u200d🔬 a\u00a0b"
    assert name in table(["", "n"], [[name, 1]]) and "\\x1b" in table([""], [["a\x1b[2J"]])


def test_three_digits():
    numbers = {22_345.6: "22,300", 999.6: "1,000", 99.96: "100", 99.94: "99.9", 0.01234: "0.0123", 0: "0",
               -4e7: "-40,000,000"}
    assert {number: three_digits(number) for number in numbers} == numbers
