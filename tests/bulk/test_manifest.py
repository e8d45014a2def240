"""What is noted of thousands of files: no work by the square of their number, nothing lost by a kill.

Deliberate break: in bulk/manifest.py let `note_whole` write the whole manifest each time, let `_lock` give one name, or
leave the line break ahead of an added line out.
"""

import errno
import json
from pathlib import Path

import pytest

from bulk import manifest
from bulk.manifest import added_path, manifest_path, note_whole, read_manifest, remove_manifest, settled
from common.errors import UserError
from common.files import write_json
from common.lock import Owner
from data import inputs
from data.inputs import expand

FACTS = {"input": "a.csv", "made_from": {"input": "ab"}, "counts": {"rows": 3}, "reals": [], "bytes": 9, "sha256": "cd"}


@pytest.fixture
def written(monkeypatch) -> list[Path]:
    """The manifests that were written whole."""
    paths: list[Path] = []
    monkeypatch.setattr(manifest, "write_json", lambda path, value: paths.append(path) or write_json(path, value))
    return paths


def test_a_file_more_costs_a_line(tmp_path, written):
    path = manifest_path(tmp_path)
    with pytest.raises(ZeroDivisionError), settled(path):
        for number in range(50):
            note_whole(path, f"f{number}.csv", FACTS | {"bytes": number})
        note_whole(path, "f7.csv", FACTS | {"bytes": 700})  # made anew
        found = read_manifest(path)
        assert len(found) == 50 and found["f49.csv"]["bytes"] == 49 and found["f7.csv"]["bytes"] == 700
        assert len(written) == 1
        raise ZeroDivisionError
    assert [one.name for one in tmp_path.iterdir()] == ["manifest.json"] and len(written) == 2
    assert json.loads(path.read_text())["files"] == found == read_manifest(path)


def test_what_a_kill_left_is_read_and_goes_into_the_manifest(tmp_path):
    path = manifest_path(tmp_path, (2, 8))
    note_whole(path, "a.csv", FACTS)
    with open(added_path(path), "ab") as handle:
        handle.write(b'{"b.csv": {"made_fr')  # a disk was full
    note_whole(path, "c.csv", FACTS)
    assert list(read_manifest(path)) == ["a.csv", "c.csv"]
    with settled(path):
        pass
    assert list(json.loads(path.read_text())["files"]) == ["a.csv", "c.csv"] and not added_path(path).exists()
    added_path(path).write_text('{"../thesis.csv": {}}\n')
    with pytest.raises(UserError, match="is no manifest of labels"):
        read_manifest(path)
    path.unlink()  # whoever removes the manifest removes what was added to it
    note_whole(path, "d.csv", FACTS)
    assert list(read_manifest(path)) == ["d.csv"] and not added_path(path).exists()


def test_a_disk_that_is_full_in_the_end_hides_no_error_and_loses_nothing(tmp_path, monkeypatch):
    def full(path, value):
        raise OSError(errno.ENOSPC, "No space left on device")

    path = manifest_path(tmp_path)
    for name in ("a.csv", "b.csv"):
        note_whole(path, name, FACTS)
    monkeypatch.setattr(manifest, "write_json", full)
    with pytest.raises(UserError, match="could not be written whole"), settled(path):
        raise UserError("c.csv: could not be written whole (No space left on device)")
    assert list(read_manifest(path)) == ["a.csv", "b.csv"]


def test_who_reads_while_another_settles_misses_nothing(tmp_path, monkeypatch):
    """Two programs label into one folder; a file that was missed would be labelled anew, or refused."""
    path = manifest_path(tmp_path)
    for name in ("a.csv", "b.csv", "c.csv"):
        note_whole(path, name, FACTS)

    def settling(read):
        def late(*args):
            found = read(*args)
            monkeypatch.undo()
            with settled(path):
                pass
            return found
        return late

    for name in ("read_json", "check_plain"):
        monkeypatch.setattr(manifest, name, settling(getattr(manifest, name)))
        assert list(read_manifest(path)) == ["a.csv", "b.csv", "c.csv"]
        note_whole(path, "c.csv", FACTS)  # lines are there again


def test_a_manifest_that_was_taken_away_does_not_come_back_empty(tmp_path):
    path = manifest_path(tmp_path)
    for name in ("a.csv", "b.csv"):
        note_whole(path, name, FACTS)
    path.unlink()
    with settled(path):
        pass
    assert not path.exists()


def test_a_part_that_was_killed_on_another_machine_stands_in_no_others_way(tmp_path, monkeypatch):
    """Its lock was that of the folder: after a minute every part of the job ended with an error."""
    monkeypatch.setattr(manifest, "PATIENCE", 0)
    monkeypatch.setattr(Owner, "is_elsewhere", property(lambda self: self.pid == 77))
    first, second = (manifest_path(tmp_path, (number, 2)) for number in (1, 2))
    lock = tmp_path / manifest._lock(first)
    lock.write_text(json.dumps({"pid": 77, "born": "1", "host": "node17", "since": "2026-05-01 10:22:07"}) + "\n")
    note_whole(second, "a.csv", FACTS)
    with pytest.raises(UserError, match="process 77 on node17 has been writing here"):
        note_whole(first, "a.csv", FACTS)
    remove_manifest(first)
    assert [one.name for one in tmp_path.iterdir()] == [second.name]


def test_what_a_folder_holds_besides_is_looked_for_by_name(tmp_path, monkeypatch, capsys):
    """Each file was compared with each: five thousand took seconds. Deliberate break: in data/inputs.py compare paths.
    """
    asked = []

    class Counted(type(tmp_path)):
        def __eq__(self, other):
            asked.append(other)
            return str(self) == str(other)

        __hash__ = type(tmp_path).__hash__

    for number in range(30):
        (tmp_path / f"f{number:02}.jsonl").write_text("{}")
    (tmp_path / "notes.docx").write_text("")
    monkeypatch.setattr(inputs, "find_path", lambda name: Counted(name))
    assert len(expand([str(tmp_path)])) == 30
    assert len(asked) < 100 and "not read in" in capsys.readouterr().out
