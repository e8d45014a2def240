"""Two programs that write one file of rows by mistake, where nothing locks: each row once, and one of them goes on.

Deliberate break: in data/growing.py leave `_check_alone` out of `add`, or let `__exit__` unlink whatever was found.
"""

import json

import pytest

from common import lock
from common.errors import UserError
from data import growing
from data.growing import GrowingFile, partial_files

ROWS = [[{"id": number}] for number in range(4)]
TAKEN = "another program is writing it"


@pytest.fixture(autouse=True)
def no_locks(monkeypatch):
    """As on a Lustre that was mounted without them; two machines of an NFS with local locks see the same."""
    monkeypatch.setattr(lock, "lock_handle", lambda handle: False)


def ids(path) -> list[int]:
    return [json.loads(line)["id"] for line in path.read_text().splitlines()]


@pytest.mark.parametrize("resume", [True, False])
def test_the_second_ends_and_leaves_the_files_to_the_first(tmp_path, resume):
    path = tmp_path / "a.jsonl"
    with GrowingFile(path, {}, resume=resume) as first:
        with pytest.raises(UserError, match=TAKEN):  # noqa: SIM117
            with GrowingFile(path, {}, resume=resume) as second:
                first.add(ROWS[0])
                second.add(ROWS[0])
        assert all(one.exists() for one in partial_files(path))
        for rows in ROWS[1:]:
            first.add(rows)
    assert ids(path) == [0, 1, 2, 3] and list(tmp_path.iterdir()) == [path]


def test_one_that_was_begun_anew_beside_it_goes_on_alone(tmp_path):
    path = tmp_path / "a.jsonl"
    first = GrowingFile(path, {}, resume=True).__enter__()
    first.add(ROWS[0])
    with GrowingFile(path, {}, resume=True) as second:  # behind the first one's window
        second.add(ROWS[1])
        with pytest.raises(UserError, match=TAKEN):
            first.add(ROWS[1])
        first.__exit__(UserError, None, None)
        for rows in ROWS[2:]:
            second.add(rows)
    assert ids(path) == [0, 1, 2, 3] and list(tmp_path.iterdir()) == [path]


def test_a_file_that_is_in_its_place_is_not_added_to(tmp_path):
    """It had every row twice, and its manifest said nothing."""
    path, told = tmp_path / "a.jsonl", []
    second = None
    with GrowingFile(path, {}, resume=True, whole=told.append) as first:
        first.add(ROWS[0])
        second = GrowingFile(path, {}, resume=True).__enter__()
    with pytest.raises(UserError, match=TAKEN):
        second.add(ROWS[1])
    second.__exit__(UserError, None, None)
    assert ids(path) == [0] and list(tmp_path.iterdir()) == [path] and told[0]["counts"] == {"rows": 1}


def test_rows_that_another_takes_back_meanwhile_are_not_removed(tmp_path):
    """Noting a file that is in its place takes a while; the second goes on with it then. Deliberate break: let
    `__exit__` unlink both files."""
    path, second = tmp_path / "a.jsonl", []
    with GrowingFile(path, {}, resume=True,
                     whole=lambda facts: second.append(GrowingFile(path, {}, resume=True).__enter__())) as first:
        first.add(ROWS[0])
    second[0].__exit__(None, None, None)
    assert ids(path) == [0] and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_one_that_begins_while_the_first_ends_leaves_no_empty_file_that_is_called_whole(tmp_path, monkeypatch, name):
    """Deliberate break: leave what `_put` requires out."""
    path, told, done = tmp_path / name, [], "finish" if name.endswith("gz") else "patiently"
    last = getattr(growing, done)

    def late(*given):
        with open(partial_files(path)[0], "rb+") as second:
            second.truncate(0)  # as one without --resume begins
        last(*given)

    monkeypatch.setattr(growing, done, late)
    with pytest.raises(UserError, match=TAKEN), GrowingFile(path, {}, whole=told.append) as first:
        first.add(ROWS[0])
    assert not told


def test_what_an_earlier_version_began_is_told_as_such(tmp_path):
    """Its file notes less; options that nobody had given otherwise were named ("another --int8, device")."""
    path, now = tmp_path / "a.jsonl", {"run": "a", "--int8": False, "--bom": None, "own columns": ["x"]}
    older = {"run": "a", "own columns": []}
    for before, says in ((older, r"another version of the project \(only one notes --int8\);"),
                         ({**now, "run": "b"}, "another run;")):
        with pytest.raises(KeyboardInterrupt), GrowingFile(path, before) as file:
            file.add(ROWS[0])
            raise KeyboardInterrupt
        with pytest.raises(UserError, match=says), GrowingFile(path, now, resume=True):
            pass
    del now["--bom"]  # says nothing where it is not given
    with GrowingFile(path, {**now, "run": "b", "--abstain": None}, resume=True) as file:
        assert file.counts["rows"] == 1
