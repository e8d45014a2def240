"""What git makes of the committed files where it is set to change the ends of lines, as it is on Windows.

Deliberate break: take the last line out of .gitattributes.
"""

import os
import shutil
import subprocess

import pytest

from common.files import ROOT

HASHED = ("base/config.json", "base/run/run.json", "base/run/adapter/adapter_config.json", "data/codebooks/paper.toml",
          "data/samples/train.jsonl", "docs/example/posts.csv")  # fmt: skip


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
@pytest.mark.parametrize("setting", ["true", "input"])
def test_files_that_are_hashed_keep_their_bytes(tmp_path, setting):
    def git(*words):
        own = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
        done = subprocess.run(["git", "-C", str(tmp_path), "-c", f"core.autocrlf={setting}", "-c", "user.name=a", "-c",
                               "user.email=a", *words], capture_output=True, text=True, env=os.environ | own)
        assert done.returncode == 0, done.stderr

    git("init")
    for name in (".gitattributes", *HASHED):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).exists():
            shutil.copyfile(ROOT / name, tmp_path / name)
    git("add", ".")
    git("commit", "-m", "all")
    for name in HASHED:
        (tmp_path / name).unlink()
    git("checkout", "--", ".")
    for name in HASHED:
        assert (tmp_path / name).read_bytes() == (ROOT / name).read_bytes(), name
