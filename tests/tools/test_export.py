"""Exports against the living transformers, peft and bitsandbytes: each loads there, and gives what the run gives here.

Deliberate break: leave `.mul_(self.scaling)` out of `LoRALinear.dense_weight`, let `MergedTensors._read` skip
`quantize_absmax`, or copy the adapter's config in `tools/export/__main__.py` with another `lora_alpha`; cases below
turn red.
"""

import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file

from benchmarks.exports import merge
from common.files import ROOT
from finetune.run_folder import RunFolder
from inference.generate import generate
from inference.run import open_model
from loading import load_model
from model.tokenizer import load_tokenizer
from tests.loading.meta import PARAMS, meta_state, write_meta
from tests.quant.stored import read_by_transformers, write_by_transformers
from tests.quant.test_double_quant import reference_quantize
from tests.small import posts, write_base
from tests.tools.exports import ODD, PARITY, WHOLE, card, export, logits, make_run, train_run
from tools.export.snippet import usage
from tools.export.tensors import MergedTensors, write_shards

transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")
pytest.importorskip("bitsandbytes")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """how the base was in training -> run, all on one base of odd shape; "trained" is a run that really was."""
    root = tmp_path_factory.mktemp("runs")
    trained = train_run(root / "trained", **ODD)
    base = root / "trained" / "base"
    made = {how: make_run(root / how, trained, base, how) for how in ("none", "nf4", "nf4-double")}
    return made | {"trained": trained, "base": base}


def as_trained(run, **words):
    """The run's model as `load_model` gives it: base as in training, adapter beside it."""
    facts = json.loads((run / "run.json").read_text())["options"]
    return load_model(facts["model"], quantize=facts["quantize"], adapter=run / "adapter", dtype=torch.float32, **words)


def theirs(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


# ---- peft


def test_peft_on_the_16_bit_base(runs, tmp_path):
    export(runs["none"], "peft", tmp_path / "out")
    model = peft.PeftModel.from_pretrained(theirs(runs["base"]), tmp_path / "out").eval()
    torch.testing.assert_close(logits(model), logits(as_trained(runs["none"])), **PARITY)
    assert (logits(model) - logits(theirs(runs["base"]))).abs().max() > 0.1  # the adapter says something


@pytest.mark.parametrize("how", ["nf4", "nf4-double"])
def test_peft_on_the_base_as_it_was_in_training(runs, tmp_path, how):
    export(runs[how], "peft", tmp_path / "out")
    assert "answers differ (`python -m tools.merge_report`" in card(tmp_path / "out")  # by how much, no card can know
    write_shards(tmp_path, MergedTensors(runs["base"], quantize=how, dtype=torch.float32), 10**9)
    shutil.copy(runs["base"] / "config.json", tmp_path)
    model = peft.PeftModel.from_pretrained(theirs(tmp_path), tmp_path / "out").eval()
    torch.testing.assert_close(logits(model), logits(as_trained(runs[how])), **PARITY)


def test_peft_on_the_base_that_bitsandbytes_quantises(runs, tmp_path):
    base = write_base(tmp_path / "base", **WHOLE)
    run = make_run(tmp_path / "run", runs["trained"], base, "nf4")
    export(run, "peft", tmp_path / "out")
    how = transformers.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4",
                                          bnb_4bit_compute_dtype=torch.float32)
    model = transformers.AutoModelForCausalLM.from_pretrained(base, quantization_config=how, device_map="cpu",
                                                              dtype=torch.float32)
    model = peft.PeftModel.from_pretrained(model, tmp_path / "out")
    model.train()  # there is no dropout; in inference bitsandbytes computes in bfloat16 on some CPUs
    torch.testing.assert_close(logits(model), logits(as_trained(run)), **PARITY)


def test_a_trained_adapter_goes_out_byte_for_byte(runs, tmp_path):
    export(runs["trained"], "peft", tmp_path / "out", "--base-name", "somebody/something")
    name = "adapter_model.safetensors"
    assert (tmp_path / "out" / name).read_bytes() == (runs["trained"] / "adapter" / name).read_bytes()
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    before = json.loads((runs["trained"] / "adapter" / "adapter_config.json").read_text())
    assert config == before | {"base_model_name_or_path": "somebody/something"}


# ---- merged


@pytest.mark.parametrize("how", ["none", "nf4", "nf4-double"])
@pytest.mark.parametrize("shard", ["5GB", "60KB"])
def test_merged_as_trained(runs, tmp_path, how, shard):
    export(runs[how], "merged", tmp_path / "out", "--shard-size", shard)
    right = logits(as_trained(runs[how]))
    torch.testing.assert_close(logits(theirs(tmp_path / "out")), right, **PARITY)
    torch.testing.assert_close(logits(load_model(tmp_path / "out")), right, **PARITY)
    files = sorted(path.name for path in (tmp_path / "out").glob("*.safetensors"))
    assert (files == ["model.safetensors"]) == (shard == "5GB") and (len(files) > 5) == (shard == "60KB")


def test_merged_on_the_original_base_is_another_model_and_the_card_says_so(runs, tmp_path):
    said = export(runs["nf4"], "merged", tmp_path / "original", "--base", "original")
    export(runs["nf4"], "merged", tmp_path / "nf4", "--base", "nf4")
    right = load_model(runs["base"], quantize="none", adapter=runs["nf4"] / "adapter")
    torch.testing.assert_close(logits(theirs(tmp_path / "original")), logits(right), **PARITY)
    assert (logits(right) - logits(theirs(tmp_path / "nf4"))).abs().max() > 0.1
    cards = {name: card(tmp_path / name) for name in ("original", "nf4")}
    assert "as it is in its files" in cards["original"] and "as it is in its files" in said
    assert "dequantised from NF4" in cards["nf4"] and "dequantised from NF4" not in cards["original"]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_dtypes_are_rounded_once_from_float32(runs, tmp_path, dtype):
    export(runs["nf4"], "merged", tmp_path / "out", "--dtype", dtype)
    model = as_trained(runs["nf4"])
    merge(model, torch.float32)
    tensors, exact = load_file(tmp_path / "out" / "model.safetensors"), dict(model.named_parameters())
    assert tensors.keys() == exact.keys()
    for name, tensor in tensors.items():
        assert torch.equal(tensor, exact[name].to(getattr(torch, dtype))), name
    assert json.loads((tmp_path / "out" / "config.json").read_text())["torch_dtype"] == dtype


def test_untied_biased_16_bit_base(runs, tmp_path):
    shape = ODD | dict(tie_word_embeddings=False, attention_bias=True, mlp_bias=True, torch_dtype="bfloat16")
    base = write_base(tmp_path / "base", **shape)
    run = make_run(tmp_path / "run", runs["trained"], base, "nf4")
    for kind in ("merged", "bnb-4bit"):
        export(run, kind, tmp_path / kind, "--dtype", "float32")
        assert load_file(tmp_path / kind / "model.safetensors")["lm_head.weight"].shape == (600, 90)
    torch.testing.assert_close(logits(theirs(tmp_path / "merged")), logits(as_trained(run)), **PARITY)
    torch.testing.assert_close(logits(read_by_transformers(tmp_path / "bnb-4bit", pure_torch=True)),
                               logits(load_model(tmp_path / "bnb-4bit")), **PARITY)


def test_base_in_4_bits(runs, tmp_path):
    """A base whose files are packed: merged on its dequantised weights, whatever the run calls them."""
    base = write_by_transformers(tmp_path / "base", runs["base"], double=True)
    shutil.copy(runs["base"] / "tokenizer.model", base)
    for how in ("none", "nf4", "nf4-double"):
        run = make_run(tmp_path / how, runs["trained"], base, how)
        export(run, "merged", tmp_path / f"{how}-out", "--dtype", "float32")
        torch.testing.assert_close(logits(theirs(tmp_path / f"{how}-out")), logits(as_trained(run)), **PARITY)
        assert "dequantised from NF4" in card(tmp_path / f"{how}-out")
        assert "quantization_config" not in (tmp_path / f"{how}-out" / "config.json").read_text()


def test_base_in_metas_layout(runs, tmp_path):
    """Two consolidated files, rotary pairs side by side: exported in Hugging Face's layout, with a config.json."""
    params = PARAMS | {"vocab_size": 600}
    base = write_meta(tmp_path / "base", params, meta_state(params, tied=True), files=2)
    shutil.copy(runs["base"] / "tokenizer.model", base)
    run = make_run(tmp_path / "run", runs["trained"], base, "nf4")
    export(run, "merged", tmp_path / "merged")
    torch.testing.assert_close(logits(theirs(tmp_path / "merged")), logits(as_trained(run)), **PARITY)
    export(run, "bnb-4bit", tmp_path / "bnb")
    torch.testing.assert_close(logits(read_by_transformers(tmp_path / "bnb", pure_torch=True)),
                               logits(load_model(tmp_path / "bnb")), **PARITY)


# ---- bnb-4bit


@pytest.mark.parametrize("double", [False, True])
def test_bnb_4bit_has_the_bytes_that_bitsandbytes_writes(runs, tmp_path, double):
    export(runs["nf4"], "merged", tmp_path / "merged", "--dtype", "bfloat16")
    export(runs["nf4"], "bnb-4bit", tmp_path / "ours", "--dtype", "bfloat16", *["--double"] * double)
    write_by_transformers(tmp_path / "theirs", tmp_path / "merged", double)
    write_by_transformers(tmp_path / "single", tmp_path / "merged", False)
    ours, right, singles = (load_file(tmp_path / name / "model.safetensors") for name in ("ours", "theirs", "single"))
    assert ours.keys() == right.keys() and sum(name.endswith(".absmax") for name in ours) == 14
    for name, tensor in ours.items():
        expected = right[name]
        if double and name.endswith((".absmax", ".nested_absmax")):
            # In near-ties the compiled library picks other codes; the pure-torch backend is the reference.
            codes, nested, _ = reference_quantize(singles[name.replace(".nested_", ".")])
            expected = nested if "nested" in name else codes
        assert tensor.dtype == expected.dtype and torch.equal(tensor, expected), name
    configs = [json.loads((tmp_path / name / "config.json").read_text()) for name in ("ours", "theirs")]
    assert configs[0]["quantization_config"] == configs[1]["quantization_config"]


@pytest.mark.parametrize("double", [False, True])
def test_bnb_4bit_is_read_by_transformers_and_here(runs, tmp_path, double):
    export(runs["nf4"], "bnb-4bit", tmp_path / "out", *["--double"] * double)
    model = load_model(tmp_path / "out")
    right = load_model(runs["base"], quantize="none", adapter=runs["nf4"] / "adapter")
    torch.testing.assert_close(logits(read_by_transformers(tmp_path / "out", pure_torch=True)), logits(model), **PARITY)
    gap = (logits(model) - logits(right)).norm() / logits(right).norm()
    assert 0.01 < gap < 0.5  # four bits: another model, and not noise


# ---- a real trained checkpoint


@pytest.fixture(scope="module")
def stories(shared_data, runs, tmp_path_factory):
    """stories260K as a base with some vocabulary beside it (it comes without one), and what it writes."""
    folder = tmp_path_factory.mktemp("stories") / "base"
    source = shared_data / "checkpoints/stories260K"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(source / name, folder)
    shutil.copy(runs["base"] / "tokenizer.model", folder)
    return folder, list(generate(load_model(source), [1], 200))


def test_stories260k_comes_back_from_a_lossless_export(stories, runs, tmp_path):
    """An adapter of zeros, on the dense base: the very tensors, and the 200 greedy tokens, here and in transformers."""
    base, right = stories
    run = make_run(tmp_path / "run", runs["trained"], base, size=0.0)
    export(run, "merged", tmp_path / "out", "--shard-size", "300KB")
    model = theirs(tmp_path / "out")
    for name, tensor in load_file(base / "model.safetensors").items():
        assert torch.equal(model.get_parameter(name), tensor)
    assert list(generate(load_model(tmp_path / "out"), [1], 200)) == right
    written = model.generate(torch.tensor([[1]]), max_new_tokens=200, do_sample=False, eos_token_id=None)
    assert written[0, 1:].tolist() == right


def test_stories260k_in_4_bits(stories, runs, tmp_path):
    """Dequantised NF4 is on the table's values, so quantising it again finds the same places: nothing is lost twice."""
    base, right = stories
    run = make_run(tmp_path / "run", runs["trained"], base, "nf4", size=0.0)
    export(run, "bnb-4bit", tmp_path / "out")
    first, again = load_model(base, quantize="nf4"), load_model(tmp_path / "out")
    for name, buffer in first.named_buffers():
        assert torch.equal(again.get_buffer(name), buffer), name
    tokens = list(generate(again, [1], 200))
    assert tokens == list(generate(first, [1], 200)) and tokens != right  # four bits change the story
    model = read_by_transformers(tmp_path / "out", pure_torch=True)
    assert model.generate(torch.tensor([[1]]), max_new_tokens=200, do_sample=False, eos_token_id=None
                          )[0, 1:].tolist() == tokens


# ---- what the card tells others to run


def snippet(code, **places):
    """The function `label` of a card's Python, run with its places set."""
    for name, path in places.items():
        code, count = re.subn(rf'^{name} = "[^"]*"', f"{name} = {str(path)!r}", code, flags=re.MULTILINE)
        assert count == 1
    space = {}
    exec(code, space)
    return space["label"]


def code_of(folder):
    return re.search(r"```python\n(.*?)\n```", card(folder), re.DOTALL)[1]


def labels_here(run, texts):
    model, prompt = open_model(RunFolder.open(run), model=None, device=torch.device("cpu"), dtype=torch.float32)
    with torch.no_grad():
        rows = [prompt.encode(text).ids for text in texts]
        places = [int(model(torch.tensor([row]))[0, -1][prompt.label_ids].argmax()) for row in rows]
    return [prompt.codebook.labels[place] for place in places]


@pytest.mark.parametrize("kind", ["peft", "merged"])
def test_the_cards_own_program_gives_the_runs_labels(runs, tmp_path, capsys, kind):
    run = make_run(tmp_path / "run", runs["trained"], runs["base"], "none", size=0.3)
    export(run, kind, tmp_path / "out")
    places = {"BASE": runs["base"]} if kind == "peft" else {}
    label = snippet(code_of(tmp_path / "out"), FOLDER=tmp_path / "out", **places)
    texts = [row["text"] for row in posts(20, seed=5)] + ["", "1 2 3 4 [1]. "]
    right = labels_here(run, texts)
    assert [label(text) for text in texts] == right and len(set(right)) > 1


def test_the_cards_program_for_llama_cpp(tmp_path):
    """On a file made of the merged export of the shipped run; 16 bits, so labels, not logits."""
    pytest.importorskip("llama_cpp")
    pytest.importorskip("gguf")
    from benchmarks.gguf_file import write_f16

    export(ROOT / "base" / "run", "merged", tmp_path / "out")
    write_f16(tmp_path / "out", tmp_path / "out" / "model.gguf")
    merged = code_of(tmp_path / "out")
    constants = [line for line in merged.splitlines() if line.startswith(("PROMPT = ", "LABELS = "))]
    code = usage("gguf", name="out", base="base", tokenizer=load_tokenizer(tmp_path / "out"), longest=512,
                 file="model.gguf")
    texts = [json.loads(line)["text"] for line in (ROOT / "data/samples/test.jsonl").read_text().splitlines()[:12]]
    label = snippet("\n".join([*constants, code]), FOLDER=tmp_path / "out")
    other = snippet(merged, FOLDER=tmp_path / "out")
    assert [label(text) for text in texts] == [other(text) for text in texts]
