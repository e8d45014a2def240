"""What a path means: every kind loads through `load_model(path)`, and what cannot be meant is one line.

Deliberate break: in `sources._of_run` leave out `hashes`, or let `find_base` take an adapter's folder; tests below turn
red.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from common.errors import UserError
from common.files import ROOT
from finetune.run_folder import RunFolder
from inference.run import open_model
from loading import load_model
from loading.sources import Source, find_base, find_source
from lora.adapter import save_adapter
from lora.inject import adapters, inject
from tests.small import here, posts, write_base, write_jsonl
from tests.tiny import read_reference, reference_model, write_checkpoint

IDS = torch.arange(60).view(2, 30)
QUICK = ("--max-steps", 2, "--batch-size", 4, "--rank", 2, "--micro-tokens", 4096, "--dtype", "float32",
         "--quantize", "nf4")
TOLERANCE = dict(atol=1e-5, rtol=1e-5)


@torch.no_grad()
def logits(path, **words):
    return load_model(path, **{"dtype": torch.float32} | words)(IDS)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with a base, another of the same shapes, posts, and a run on the base."""
    folder = tmp_path_factory.mktemp("world")
    write_base(folder / "base")
    write_base(folder / "other", seed=1)
    write_jsonl(folder / "posts.jsonl", posts(24, seed=1))
    here("train.py", "--model", "base", "--data", "posts.jsonl", "--out", "run", *QUICK, cwd=folder)
    return folder


@pytest.fixture
def cwd(world, tmp_path, monkeypatch):
    """A copy of that folder, to work in and to spoil."""
    folder = Path(shutil.copytree(world, tmp_path / "w"))
    monkeypatch.chdir(folder)
    return folder


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_run_is_its_base_as_it_was_trained_and_its_adapter(cwd):
    model, _ = open_model(RunFolder.open("run"), model=None, device=torch.device("cpu"), dtype=torch.float32)
    with torch.no_grad():
        expected = model(IDS)
    assert find_source("run") == Source(Path("base"), Path("run/adapter"), "nf4",
                                        RunFolder.open("run").facts["hashes"]["weights"])
    assert torch.equal(logits("run"), expected) and torch.equal(logits(cwd / "run", cache="kept"), expected)
    assert torch.equal(logits("base", quantize="nf4", adapter="run"), expected)
    dense = logits("base", adapter=cwd / "run" / "adapter")
    assert torch.equal(logits("run", quantize="none"), dense) and not torch.equal(dense, expected)
    assert torch.equal(logits("run/adapter"), dense)
    assert len(adapters(load_model("run", trainable=True))) == 14


def test_the_shipped_run_and_base_are_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for run in ("base/run", ROOT / "base" / "run"):
        assert find_source(run).base == ROOT / "base" == find_base("base")
    assert torch.equal(logits("base/run"), logits("base", adapter="base/run/adapter", quantize="nf4"))


def test_pefts_adapters_and_merged_models(tmp_path, monkeypatch):
    """As PEFT saves them: rank and alpha patterns, rsLoRA, a regular expression; the base by its path."""
    peft = pytest.importorskip("peft")
    monkeypatch.chdir(tmp_path)
    base = write_checkpoint(tmp_path / "base", reference_model())
    cases = {
        "plain": dict(target_modules=["q_proj", "v_proj"]),
        "patterns": dict(target_modules="all-linear", use_rslora=True, rank_pattern={"q_proj": 3},
                         alpha_pattern={r"layers\.1\.mlp\.up_proj": 2}),
        "expression": dict(target_modules=r".*\.layers\.[12]\.self_attn\.(k|o)_proj"),
    }
    for name, case in cases.items():
        theirs = peft.get_peft_model(read_reference(base, torch.float32),
                                     peft.LoraConfig(r=4, lora_alpha=8, task_type="CAUSAL_LM", **case)).eval()
        for parameter_name, parameter in theirs.named_parameters():
            if "lora_B" in parameter_name:
                torch.nn.init.normal_(parameter, std=0.1)
        theirs.save_pretrained(tmp_path / name)
        with torch.no_grad():
            expected = theirs(input_ids=IDS).logits
        assert json.loads((tmp_path / name / "adapter_config.json").read_text())["base_model_name_or_path"] == str(base)
        torch.testing.assert_close(logits(tmp_path / name), expected, **TOLERANCE)
        torch.testing.assert_close(logits("base", adapter=name), expected, **TOLERANCE)
        theirs.merge_and_unload().save_pretrained(tmp_path / f"{name}-merged")
        torch.testing.assert_close(logits(f"{name}-merged"), expected, **TOLERANCE)


def test_generate_takes_every_kind(cwd):
    told = [here("tools.generate", "--model", model, "--prompt", "we", "--max-new-tokens", 4, *more, cwd=cwd)
            for model, more in (("run", ()), ("run/adapter", ("--quantize", "nf4")),
                                ("base", ("--adapter", "run", "--quantize", "nf4")))]
    assert told[0] == told[1] == told[2] != ""


def test_the_tokenizer_may_lie_in_original_or_beside_the_adapter(cwd):
    assert find_source("run").tokenizer == Path("base")
    (cwd / "base" / "original").mkdir()
    shutil.move("base/tokenizer.model", "base/original")
    assert find_source("run").tokenizer == Path("base/original") == Source(Path("base")).tokenizer
    edit(Path("run/run.json"), finished=True)
    here("classify.py", "--run", "run", "--input", "posts.jsonl", "--output", "labels.csv", cwd=cwd)
    shutil.move("base/original/tokenizer.model", "run/adapter")
    assert find_source("run/adapter").tokenizer == Path("run/adapter")


def test_an_adapter_on_an_adapter_is_refused(cwd):
    for path, adapter in (("run", "run/adapter"), ("run/adapter", "run")):
        with pytest.raises(UserError, match=f"{path}: brings an adapter already"):
            load_model(path, adapter=adapter)
    edit(Path("run/adapter/adapter_config.json"), base_model_name_or_path="run")
    with pytest.raises(UserError, match=r"adapter_config.json: its base cannot be used: run: is a run, not a whole"):
        load_model("run/adapter")


def test_programs_that_want_a_base_refuse_the_rest(cwd):
    for model, kind in (("run", "a run"), ("run/adapter", "an adapter")):
        line = f"{model}: is {kind}, not a whole model; give its base, or merge"
        assert line in here("train.py", "--model", model, "--data", "posts.jsonl", "--out", "x", cwd=cwd, code=2)
        words = ("--run", "run", "--model", model)
        assert line in here("classify.py", *words, "--input", "posts.jsonl", "--output", "x.csv", cwd=cwd, code=2)
        assert line in here("eval.py", *words, "--data", "posts.jsonl", "--drop-known", "none", cwd=cwd, code=2)
        assert line in here("tools.memory", "--model", model, cwd=cwd, code=2)
    assert not Path("x").exists() and not Path("x.csv").exists()


def without_base_name(cwd):
    edit(cwd / "run/adapter/adapter_config.json", base_model_name_or_path=None)


def stopped(cwd):
    edit(cwd / "run/run.json", finished=False)


def no_adapter(cwd):
    shutil.rmtree(cwd / "run/adapter")


def base_gone(cwd):
    shutil.rmtree(cwd / "base")


def base_changed(cwd):
    tensors = load_file(cwd / "base/model.safetensors")
    tensors["model.norm.weight"] += 1
    save_file(tensors, cwd / "base/model.safetensors")


def base_swapped(cwd):
    base_gone(cwd)
    shutil.copytree(cwd / "other", cwd / "base")


def model_beside_the_adapter(cwd):
    shutil.copy(cwd / "base/model.safetensors", cwd / "run/adapter")


BAD = {
    "run/run.json: is not what train.py writes": ("run", lambda cwd: (cwd / "run/run.json").write_text("{}")),
    "run/run.json: line 1: is not JSON": ("run", lambda cwd: (cwd / "run/run.json").write_text("{")),
    "run: its training was stopped early; python train.py --resume --out run": ("run", stopped),
    "run: has no adapter/": ("run", no_adapter),
    "run/run.json: its base cannot be used: base: has no config.json": (
        "run", lambda cwd: (cwd / "base/config.json").unlink()),
    "base/model.safetensors: is not the file that run was fine-tuned on": ("run", base_changed),
    "is not the file that run was fine-tuned": ("run", base_swapped),
    "run/adapter/adapter_config.json: base_model_name_or_path is missing; give the base": (
        "run/adapter", without_base_name),
    "run/adapter: holds a whole model and adapter_config.json": ("run/adapter", model_beside_the_adapter),
    "nowhere: there is no such folder": ("nowhere", lambda cwd: None),
    "posts.jsonl: is a file; give the folder": ("posts.jsonl", lambda cwd: None),
    ".: has no config.json; give a checkpoint folder, Hugging Face's (config.json, safetensors) or Meta's": (
        ".", lambda cwd: None),
}


@pytest.mark.parametrize("line", BAD)
def test_what_cannot_be_meant_is_one_line(cwd, line):
    path, damage = BAD[line]
    damage(cwd)
    with pytest.raises(UserError) as caught:
        load_model(path)
    assert line in str(caught.value)


def test_a_base_that_is_gone_is_told_with_the_way_out(cwd, monkeypatch):
    base_gone(cwd)
    monkeypatch.setattr("common.files.ROOT", cwd / "elsewhere")  # the project has a base of that name
    for path, where in (("run", "run/run.json"), ("run/adapter", "run/adapter/adapter_config.json")):
        with pytest.raises(UserError, match=f"{where}: its base cannot be used: base: there is no such .*; give "):
            load_model(path)


OTHER_BASES = {
    "lora_B.weight has shape (32, 2); adapter_config.json and the model call for (48, 2); it was made for base": dict(
        hidden_size=48),
    "lora_B.weight has shape (16, 2); adapter_config.json and the model call for (32, 2); it was made for base": dict(
        num_key_value_heads=4),
    "unknown tensor base_model.model.model.layers.1": dict(num_hidden_layers=1),
    "and 13 more is not in it, although adapter_config.json includes its module; it was made for base": dict(
        num_hidden_layers=3),
}


@pytest.mark.parametrize("line", OTHER_BASES)
def test_an_adapter_for_another_base(cwd, line):
    write_base(cwd / "third", **OTHER_BASES[line])
    with pytest.raises(UserError) as caught:
        load_model("third", adapter="run/adapter")
    assert line in str(caught.value) and str(caught.value).startswith("run/adapter/adapter_model.safetensors: ")


def test_modules_to_save_is_refused(cwd):
    edit(cwd / "run/adapter/adapter_config.json", modules_to_save=["lm_head", "embed_tokens"])
    with pytest.raises(UserError, match=r"adapter_config.json: modules_to_save = .*which is not read"):
        load_model("run/adapter")


def test_an_adapter_of_ours_names_a_base_that_others_find(tmp_path, monkeypatch):
    """Saved with a path, loaded from another working folder only by an absolute one: said with the way out."""
    base = write_base(tmp_path / "here" / "base")
    model = load_model(base)
    inject(model, "q_proj", 2, 4)
    save_adapter(model, tmp_path / "adapter", str(base))
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "there")
    assert find_source(tmp_path / "adapter").base == base
