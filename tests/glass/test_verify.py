"""The folder that recomputes a trace: numpy and safetensors alone agree, and a planted error is found and named.

Deliberate breaks: in glass/recompute/ take the low half of a byte first, leave out `later`, let `apart` return 0, or
leave a part out of `PARTS`.
"""

import ast
import json
import re
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy
import pytest
import safetensors
import torch
from safetensors.numpy import load_file, save_file

from common.errors import UserError
from common.files import ROOT
from glass import recompute, trace
from glass.against import compared
from glass.learning import with_steps
from glass.other import other_run
from glass.recompute.check import WHOLE, check_text
from glass.recompute.program import PARTS
from glass.verify import tolerances, write_verification
from glass.whole import whole_trace
from inference import load_run
from lora.inject import inject
from quant.convert import replace_linears
from tests.small import random_model

BARE = """
import sys, runpy
sys.path.append({path!r})
for name in ("torch", "glass", "pytest"):
    try:
        __import__(name)
    except ImportError:
        continue
    sys.exit(name + " can be imported")
runpy.run_path({program!r}, run_name="__main__")
"""


@pytest.fixture(scope="module")
def folder(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("verify") / "check"
    write_verification(trace(run, "They open the border. عبرنا"), folder)
    return folder


def bare(folder: Path, packages: Path) -> subprocess.CompletedProcess:
    """verify.py in a Python that has the standard library, numpy and safetensors, and nothing else."""
    packages.mkdir(exist_ok=True)
    for module in (numpy, safetensors):
        home = Path(module.__file__).parent
        for source in (home, home.with_name(home.name + ".libs")):
            if source.exists() and not (packages / source.name).exists():
                (packages / source.name).symlink_to(source)
    code = BARE.format(path=str(packages), program=str(folder / "verify.py"))
    return subprocess.run([sys.executable, "-I", "-S", "-c", code], cwd=packages, capture_output=True, text=True)


def test_numpy_alone_agrees(folder, tmp_path):
    done = bare(folder, tmp_path / "packages")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == "everything agrees" and all(line.startswith("agrees ") for line in lines[:-1])
    assert float(re.search(r"whole way to the logits +(\S+)", done.stdout)[1]) <= 1e-5


def test_numpy_alone_agrees_on_everything_in_bfloat16(run, tmp_path):
    """Another model and post beside it, deletions, slopes, strengths, a block, steps: each stage rounded, and within
    that."""
    half = load_run(run.folder.path, device="cpu", dtype="bfloat16")
    found = whole_trace(trace(half, "They open the border."), ROOT / "base")
    found = compared(found, trace(other_run(half, "16-bit"), "Wir öffnen die Grenze."))
    write_verification(with_steps(half, found, "neutral"), tmp_path / "check")
    done = bare(tmp_path / "check", tmp_path / "packages")
    assert done.returncode == 0, done.stdout + done.stderr
    kinds = {line.split()[1].split(".")[0] for line in done.stdout.splitlines() if line.startswith("agrees ")}
    assert {"without_tokens", "gradient", "factors", "spectrum", "bits", "tax", "against", "learning"} <= kinds


def test_a_line_for_each_stage_in_their_order(folder, run, capsys):
    assert recompute.main(folder) == 0
    said = [line.split()[1] for line in capsys.readouterr().out.splitlines()[:-4]]
    assert said == [stage.name for stage in trace(run, "They open the border. عبرنا").stages]


def test_the_parts_fit_into_one_file(tmp_path, monkeypatch):
    """No name is defined twice, and a docstring of several lines is a comment of several."""
    tree = ast.parse(recompute.program())
    names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    names += [target.id for node in tree.body if isinstance(node, ast.Assign) for target in node.targets
              if isinstance(target, ast.Name)]
    assert len(names) == len(set(names)) > 60
    for part in PARTS:
        (tmp_path / f"{part}.py").write_text(f'"""First line,\nsecond line."""\n\nimport sys\n\n{part.upper()} = 1\n')
    monkeypatch.setattr(import_module("glass.recompute.program"), "__file__", str(tmp_path / "program.py"))
    exec(compile(recompute.program(), "verify.py", "exec"), {})


@pytest.mark.parametrize("name, stage", [
    ("layers.0.attention.weights", "layers.0.attention"), ("probabilities.probabilities", "probabilities"),
    ("tokens.bytes", "tokens"), ("weights.model.layers.2.self_attn.k_proj.packed", "layers.2.keys")])
def test_a_planted_error_is_found_and_named(folder, tmp_path, capsys, name, stage):
    wrong = shutil.copytree(folder, tmp_path / "wrong")
    tensors = load_file(wrong / "trace.safetensors")
    flat = tensors[name].reshape(-1)
    if flat.dtype == numpy.uint8:
        flat[: len(flat) // 2] ^= 0x11
    else:
        flat[numpy.abs(flat).argmax()] *= 1.001
    save_file(tensors, wrong / "trace.safetensors")
    assert recompute.main(wrong) == 1
    differ = [line.split()[1] for line in capsys.readouterr().out.splitlines() if line.startswith("DIFFERS")]
    assert differ[0] == stage


@pytest.mark.parametrize("name, change", [
    ("label", lambda told: {"label": min(told["probabilities"], key=told["probabilities"].get)}),
    ("label", lambda told: {"probabilities": {**told["probabilities"], next(iter(told["probabilities"])): 0.99}}),
    ("label", lambda told: {"probabilities": {}}), ("text", lambda told: {"text": "They close the border."}),
    ("whole", lambda told: {"stages": []})])
def test_what_trace_json_names_is_compared_with_what_is_recomputed(folder, tmp_path, capsys, name, change):
    wrong = shutil.copytree(folder, tmp_path / "wrong")
    told = json.loads((wrong / "trace.json").read_text())
    (wrong / "trace.json").write_text(json.dumps(told | change(told)))
    assert recompute.main(wrong) == 1
    said = capsys.readouterr().out
    assert [line.split()[1] for line in said.splitlines() if line.startswith("DIFFERS")] == [name]


def test_the_text_is_that_of_the_post_s_tokens():
    """A tokenizer may drop case and accents, and nothing else; a text without a letter is compared by its signs."""
    def trace(text, post):
        parts = [("prompt", 'post:"'), *(("post", piece) for piece in post), ("prompt", '" answer')]
        return {"text": text, "tokens": [{"part": part, "bytes": piece.encode().hex()} for part, piece in parts]}

    for text, post in (("Ünlü İSTANBUL", ["unlu", " istanbul"]), ("Isınma ﬁ ①", ["ısınma", " fi 1"]),
                       ("हिन्दी", ["हिन्दी"]), ("🙂 !", ["🙂!"]), ("ﷺ قال", ["صلي الله عليه وسلم", " قال"]), ("", [])):
        assert check_text(trace(text, post)), text
    for text, post in (("istanbul ankara", ["istanbul"]), ("istanbul", ["not", " istanbul"]), ("🤮", ["🙂"]),
                       ("", ["a"]), ("answer", ["istanbul"])):
        assert not check_text(trace(text, post)), text


def test_a_file_does_not_say_how_wrong_it_may_be(folder, tmp_path, capsys):
    wrong = shutil.copytree(folder, tmp_path / "wrong")
    told = json.loads((wrong / "trace.json").read_text())
    (wrong / "trace.json").write_text(json.dumps(told | {"tolerance": 1e30, "whole_tolerance": 1e30}))
    tensors = load_file(wrong / "trace.safetensors")
    tensors["layers.0.attention.weights"] *= 3
    save_file(tensors, wrong / "trace.safetensors")
    assert recompute.main(wrong) == 1
    assert "DIFFERS  layers.0.attention " in capsys.readouterr().out
    del tensors["layers.0.attention.weights"]
    save_file(tensors, wrong / "trace.safetensors")
    assert recompute.main(wrong) == 1
    assert "'layers.0.attention.weights' is missing" in capsys.readouterr().out


def made(kind: str):
    """Runs over other kinds of model, with the embedded tokenizer's prompt: biases, a head of its own, 16 bits, ..."""
    shape = dict(vocab_size=44_000, num_hidden_layers=2)
    if kind == "biases":
        model = random_model(1, **shape, attention_bias=True, mlp_bias=True, tie_word_embeddings=False)
    elif kind == "bfloat16":
        model = random_model(2, torch.bfloat16, **shape)
    elif kind == "one layer":
        model = random_model(3, **shape | {"num_hidden_layers": 1})
    else:
        model = random_model(4, **shape, hidden_size=64, intermediate_size=70)
        replace_linears(model, double=True)
        inject(model, ["q_proj", "down_proj"], r=3, alpha=5, rslora=True)
        with torch.no_grad():
            for layer in model.model.layers:
                layer.mlp.down_proj.lora_B.normal_(std=0.1)
    return model.eval()


@pytest.mark.parametrize("kind", ["biases", "bfloat16", "one layer", "double"])
def test_other_kinds_of_model_agree_too(run, tmp_path, capsys, kind):
    found = trace(SimpleNamespace(model=made(kind), prompt=run.prompt), "They open the border.")
    write_verification(found, tmp_path / "check")
    assert recompute.main(tmp_path / "check") == 0, capsys.readouterr().out


def test_the_whole_way_may_be_farther_off_through_many_layers():
    """Not through the small base's three: its label logits agree to 1e-5; a model of 1B's depth to 1e-3."""
    assert tolerances(torch.float32, 3) == (1e-5, 1e-5)
    assert 1e-5 < tolerances(torch.float32, 16)[1] < tolerances(torch.float32, 30)[1] < 1e-3
    # what passes back to SmolLM2's queries and keys, of 30 layers in float32: the farthest was 4.1e-5 off
    assert 1.5 * 4.1e-5 < WHOLE["passed"] * tolerances(torch.float32, 30)[1] < 1e-4
    assert tolerances(torch.bfloat16, 16)[0] == tolerances(torch.bfloat16, 1)[0] < tolerances(torch.bfloat16, 16)[1]


@pytest.mark.slow
def test_a_model_of_1bs_widths_agrees_to_a_thousandth(run, tmp_path, capsys):
    """Llama 3.2-1B's widths, in NF4 with an adapter, in float32; three layers of sixteen, since numpy holds each weight
    in eight bytes."""
    model = random_model(5, vocab_size=44_000, num_hidden_layers=3, hidden_size=2048, intermediate_size=8192,
                         num_attention_heads=32, num_key_value_heads=8, head_dim=64)
    replace_linears(model)
    inject(model, ["q_proj", "v_proj", "down_proj"], r=16, alpha=32)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.mlp.down_proj.lora_B.normal_(std=0.02)
    found = trace(SimpleNamespace(model=model.eval(), prompt=run.prompt), "They open the border.")
    write_verification(found, tmp_path / "check")
    assert recompute.main(tmp_path / "check") == 0
    off = float(re.search(r"whole way to the logits +(\S+)", capsys.readouterr().out)[1])
    assert off <= 1e-3 * float(found.by_name["logits"].logits.abs().max())


def test_a_place_that_cannot_be_written_is_said(run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--verify"):
        write_verification(trace(run, "They"), tmp_path / "file" / "check")
