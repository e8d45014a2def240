"""Two names that are one on macOS and Windows, by case or by the way an accent is written, are taken for one; and what
is no place for a file.

Deliberate break: in common/files.py let `place_key` leave out `casefold` or `normalize`, or `check_replaceable` do
nothing; compare paths in bulk/places.py or data/inputs.py by `resolve()` again.
"""

import os
import stat
from pathlib import Path, PureWindowsPath
from types import SimpleNamespace

import pytest

from audit.provenance import named
from bulk.places import Job, check_beside
from common.errors import UserError
from common.files import ROOT, atomic_write, check_file, check_place, place_key
from data.inputs import outputs_for
from finetune.options import is_embedded
from inference import run

PAIRS = (("posts.csv", "Posts.CSV"), ("café.csv", "cafe\u0301.csv"), ("a/posts.csv", "b/../a/posts.csv"))


@pytest.mark.parametrize("pair", PAIRS)
def test_one_place_has_one_key(pair):
    assert place_key(pair[0]) == place_key(pair[1]) != place_key("other.csv")


@pytest.mark.parametrize("pair", PAIRS)
def test_an_output_in_the_place_of_an_input_is_refused(pair, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"--out .*is the file of --sample, too"):
        check_file(pair[0], "--out", {"--sample": pair[1]})
    options = SimpleNamespace(report=pair[0], progress_json=None, overwrite=False, part=lambda: None)
    with pytest.raises(UserError, match=r"--report .*is what labels are made into"):
        check_beside(options, [Job(Path("other.csv"), Path(pair[1]))], None)


@pytest.mark.parametrize("names", PAIRS[:2])
def test_the_labels_of_two_inputs_do_not_overwrite_one_another(names):
    files = [Path("a") / names[0], Path("b") / names[1]]
    with pytest.raises(UserError, match=r"a/.* and b/.* would both become"):
        outputs_for(files, Path("labels"))
    assert len(outputs_for([files[0], Path("b/other.csv")], Path("labels"))) == 2


def test_what_the_project_ships_is_known_by_another_spelling(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert is_embedded(SimpleNamespace(model="BASE")) and not is_embedded(SimpleNamespace(model="BASE2"))
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "run.json").write_text("{}", encoding="utf-8")
    monkeypatch.setattr(run, "SHIPPED_RUN", tmp_path / "base")
    monkeypatch.setattr(run, "place_of_copy", lambda: tmp_path / "copy")
    monkeypatch.setattr(run, "copy_shipped", lambda to: 1 / 0)  # asked for: the shipped run itself is never written to
    with pytest.raises(ZeroDivisionError):
        run.finished_run(str(tmp_path / "BASE"))


def test_the_code_has_one_hash_on_every_system():
    root = PureWindowsPath("C:/clone")
    found = named([root / "model" / "a.py", root / "model" / "B.py", root / "common" / "z.py"], root)
    assert [name for name, _ in found] == ["common/z.py", "model/B.py", "model/a.py"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
def test_no_file_takes_the_place_of_a_device(tmp_path):
    """`--report /dev/null` as root, who may do it, took the device from all programs of the machine."""
    os.mkfifo(tmp_path / "null")
    with pytest.raises(UserError, match=r"--report .*null: is a pipe or a device, which a file would replace"):
        check_place(tmp_path / "null", "--report")
    with pytest.raises(UserError, match=r"null: is a pipe or a device"), atomic_write(tmp_path / "null"):
        pass
    assert stat.S_ISFIFO(os.stat(tmp_path / "null").st_mode) and os.listdir(tmp_path) == ["null"]
    with pytest.raises(UserError, match=r"is a pipe or a device"):
        check_place(os.devnull, "--out")
