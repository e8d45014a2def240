"""Two programs that write one file of rows by mistake, where nothing locks: each row once, and one of them goes on.

Deliberate break: in data/growing.py leave `_check_alone` out of `add`, or let `__exit__` unlink whatever was found.
"""

import json

import pytest

from common import lock
from common.errors import UserError
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
