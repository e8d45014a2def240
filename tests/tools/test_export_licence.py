"""What travels with an export: licences, the notice, "Built with Llama", the base's card, and the name.

Deliberate break: let `Base.model_name` return what it was given, take `model_type: llama` for a sign, or leave `NOTICE`
unwritten where the base has one; cases below turn red.
"""

import shutil
from pathlib import Path

import pytest

from common.errors import UserError
from common.files import ROOT
from tests.loading.gguf import write_llama
from tests.small import here, random_model
from tests.tools.exports import KINDS, card, export, make_run, matter, train_run
from tools.export.licence import Base, describe_base

LLAMA = "LLAMA 3.2 COMMUNITY LICENSE AGREEMENT\nLlama 3.2 Version Release Date: September 25, 2024"
NOTICE_32 = ("Llama 3.2 is licensed under the Llama 3.2 Community License, Copyright © Meta Platforms, Inc. All Rights "
             "Reserved.")


@pytest.mark.parametrize(("name", "files", "vocabulary", "llama", "licence"), [
    ("base", {}, 600, None, "unknown"),
    ("base", {"README.md": "---\nlicense: cc-by-sa-4.0\n---\nText"}, 600, None, "cc-by-sa-4.0"),
    ("base", {"LICENSE.txt": LLAMA}, 600, "3.2", "llama3.2"),
    ("base", {"LICENSE.txt": LLAMA, "README.md": "---\nlicense: mit\n---\n"}, 600, "3.2", "llama3.2"),
    ("base", {"LICENSE": "META LLAMA 3 COMMUNITY LICENSE AGREEMENT"}, 600, "3", "llama3"),
    ("base", {"LICENSE": "MIT License"}, 600, None, "unknown"),
    ("base", {"README.md": "---\nlanguage: en\nlicense: 'llama3.1'\n---\n"}, 600, "3.1", "llama3.1"),
    ("base", {"README.md": "license: llama3.1"}, 600, None, "unknown"),
    ("base", {}, 128256, "3.2", "llama3.2"),
    ("Meta-Llama-3.1-8B", {}, 128256, "3.1", "llama3.1"),
    ("Llama-3.2-1B-bnb-4bit", {}, 600, "3.2", "llama3.2"),
    ("llama3-tuned", {}, 600, "3", "llama3"),
    ("my_llama", {}, 600, "3.2", "llama3.2"),
    ("TinyLlama", {"README.md": "---\nlicense: apache-2.0\n---\n"}, 600, None, "apache-2.0"),
    ("Llama-2-7b", {"README.md": "---\nlicense: other\n---\n"}, 600, "2", "llama2"),
    ("base", {"config.json": '{"_name_or_path": "meta-llama/Llama-3.2-3B"}'}, 600, "3.2", "llama3.2"),
    ("base", {"config.json": '{"model_type": "llama"}'}, 600, None, "unknown"),
])  # fmt: skip
def test_which_base_is_llama(tmp_path, name, files, vocabulary, llama, licence):
    folder = tmp_path / name
    folder.mkdir()
    for file, text in files.items():
        (folder / file).write_text(text)
    base = describe_base(folder, vocabulary)
    assert (base.llama, base.licence, base.name) == (llama, licence, name)


def test_names():
    base = Base(Path("x"), "x", "llama3.2", "3.2", ())
    other = Base(Path("x"), "x", "mit", None, ())
    assert base.attribution == NOTICE_32 and base.built_with == "Built with Llama"
    assert base.model_name(None, "mine") == "Llama-mine" and base.model_name(None, "Llama-mine") == "Llama-mine"
    assert base.model_name("Llama-mine", "out") == "Llama-mine" and other.model_name("mine", "out") == "mine"
    assert other.model_name(None, "out") == "out" and other.attribution == other.built_with == ""
    assert other.model_name(None, "my model (2)") == "my-model-2-"
    with pytest.raises(UserError, match=r"--name me/mine: .* leave an owner out"):
        other.model_name("me/mine", "out")
    for name in ("mine", "llama-mine", "my-Llama-3"):
        with pytest.raises(UserError, match=f"--name {name}: .* Llama-{name}"):
            base.model_name(name, "out")


def test_a_snapshot_in_the_hubs_cache_has_the_hubs_name(tmp_path):
    folder = tmp_path / "hub" / "models--meta-llama--Llama-3.2-3B-Instruct" / "snapshots" / "0cb88a4"
    folder.mkdir(parents=True)
    base = describe_base(folder, 600)
    assert base.name == "meta-llama/Llama-3.2-3B-Instruct" and base.on_hub and base.llama == "3.2"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    train_run(folder)
    return folder


@pytest.fixture
def llama_run(world, tmp_path):
    """A run on a base that is called Llama-3.2-1B."""
    base = shutil.copytree(world / "base", tmp_path / "Llama-3.2-1B")
    return make_run(tmp_path / "run", world / "run", base), base


@pytest.mark.parametrize("kind", KINDS)
def test_llama_derivatives_carry_licence_notice_and_name(llama_run, tmp_path, kind):
    run, base = llama_run
    (base / "LICENSE.txt").write_text(LLAMA)
    (base / "USE_POLICY.md").write_text("Acceptable use")
    (base / "README.md").write_text("Meta's card")
    said = export(run, kind, tmp_path / "mine")
    out, text = tmp_path / "mine", card(tmp_path / "mine")
    assert (out / "LICENSE.txt").read_text() == LLAMA and (out / "USE_POLICY.md").read_text() == "Acceptable use"
    assert (out / "NOTICE").read_text() == f"{NOTICE_32}\n\nBuilt with Llama\n"
    assert (out / "BASE_README.md").read_text() == "Meta's card"
    assert "\n# Llama-mine\n" in text and "**Built with Llama**" in text and NOTICE_32 in text
    assert matter(out)["license"] == "llama3.2" and matter(out)["model_name"] == "Llama-mine"
    assert "called Llama-mine" in said and "warning" not in said
    line = here("tools.export", "--run", run, "--to", kind, "--out", tmp_path / "x", "--name", "mine", cwd=tmp_path,
                code=2)
    assert "--name Llama-mine" in line and not (tmp_path / "x").exists()


def test_a_missing_licence_is_said(llama_run, tmp_path):
    run, base = llama_run
    (base / "NOTICE").write_text("Earlier words.\n")
    said = export(run, "merged", tmp_path / "mine")
    assert "has no copy of the licence" in said and "is missing here" in card(tmp_path / "mine")
    assert (tmp_path / "mine" / "NOTICE").read_text() == f"Earlier words.\n\n{NOTICE_32}\n\nBuilt with Llama\n"


def test_the_shipped_base_is_not_llama_and_shares_alike(tmp_path):
    export(ROOT / "base" / "run", "merged", tmp_path / "out")
    assert matter(tmp_path / "out")["license"] == "cc-by-sa-4.0" and "Built with" not in card(tmp_path / "out")
    assert not (tmp_path / "out" / "NOTICE").exists()
    assert (tmp_path / "out" / "BASE_README.md").read_bytes() == (ROOT / "base" / "README.md").read_bytes()
    assert "read the vocabulary with sentencepiece" in card(tmp_path / "out")


def test_the_licence_stays_in_an_exported_gguf_file(llama_run, tmp_path):
    """Which is passed on alone, and may become a base itself."""
    pytest.importorskip("gguf")
    for run, word in ((llama_run[0], "llama3.2"), (ROOT / "base" / "run", "cc-by-sa-4.0")):
        export(run, "gguf-q8_0", tmp_path / word)
        file = next((tmp_path / word).glob("*.gguf")).rename(tmp_path / "renamed.gguf")
        base = describe_base(file, 600)
        assert (base.licence, base.name) == (word, "renamed") and bool(base.built_with) == (word == "llama3.2")


def test_a_gguf_file_says_its_licence_itself(tmp_path):
    """What lies beside it may belong to something else."""
    (tmp_path / "LICENSE").write_text("Llama 3.1 Community License")
    (tmp_path / "README.md").write_text("---\nlicense: llama3.1\n---\n")
    cases = {("apache-2.0", "A model"): ("apache-2.0", None), ("llama3.2", "A model"): ("llama3.2", "3.2"),
             (None, "Meta Llama 3.1 8B"): ("llama3.1", "3.1"), (None, "A model"): ("unknown", None)}
    for (licence, name), (word, llama) in cases.items():
        path = write_llama(tmp_path / "mine.gguf", random_model(hidden_size=32), changes={
            "general.license": licence, "general.name": name})
        base = describe_base(path, 600)
        assert (base.licence, base.llama, base.name, base.files, base.copied) == (word, llama, "mine", (), [])
    assert describe_base(path, 128256).llama == "3.2" and describe_base(path, 600, "meta-llama/Llama-2-7b").llama == "2"
