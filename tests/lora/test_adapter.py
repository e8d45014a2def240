"""PEFT folders in and out: each side reads what the other writes with the same result; the rest is refused by name.

A deliberate break that turns this red: drop the check of unknown keys in `read_config`, or read `alpha_pattern` in
`load_adapter` with the rank's default.
"""

import copy
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from common.errors import UserError
from loading import load_model
from lora.adapter import CONFIG, TENSORS, adapter_tensors, load_adapter, read_config, save_adapter
from lora.inject import adapters, inject, trainable_parameters
from tests.tiny import reference_model, write_checkpoint

peft = pytest.importorskip("peft")
IDS = torch.arange(3, 123).view(2, 60)
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("base"), reference_model())


@pytest.fixture
def model(checkpoint):
    return load_model(checkpoint, dtype=torch.float32)


def adapted(model, targets="q_proj", r=4, alpha=8, **options):
    inject(model, targets, r, alpha, **options)
    for layer in adapters(model).values():
        torch.nn.init.normal_(layer.lora_B, std=0.1)
    return model.eval()


@pytest.fixture
def folder(checkpoint, tmp_path):
    """A good adapter folder that a test may then spoil."""
    save_adapter(adapted(load_model(checkpoint, dtype=torch.float32), ["q_proj", "v_proj"]), tmp_path / "adapter", "b")
    return tmp_path / "adapter"


def edit(folder, **changes):
    path = folder / CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


OURS = {
    "plain": dict(targets=["q_proj", "v_proj"]), "all": dict(targets="all-linear", dropout=0.1),
    "rslora": dict(targets=ALL, rslora=True), "one module": dict(targets="model.layers.1.self_attn.o_proj"),
    "some layers": dict(targets=r".*layers\.[02]\..*(up|down)_proj"), "half": dict(targets="k_proj", alpha=0.5),
    "patterns": dict(targets=ALL, rank_pattern={"q_proj": 7, "layers.1.mlp.up_proj": 2}, alpha_pattern={"v_proj": 3}),
}


def logits(model, *words, **given) -> torch.Tensor:
    """In float64: an adapter's scale would multiply what float32 rounds, differently on every kind of processor; the
    angles of the positions are float32's on both sides, which is what 1e-5 is for."""
    found = copy.deepcopy(model).double()(*words, **given)
    return getattr(found, "logits", found)


@pytest.mark.parametrize("case", OURS)
def test_peft_reads_what_we_write(checkpoint, model, tmp_path, case):
    """Equal logits, equal tensors, nothing missing, nothing unexpected."""
    adapted(model, **OURS[case])
    save_adapter(model, tmp_path / "a", str(checkpoint))
    theirs = peft.PeftModel.from_pretrained(reference_model(), tmp_path / "a").eval()
    with torch.no_grad():
        assert (logits(theirs, input_ids=IDS) - logits(model, IDS)).abs().max() < 1e-5
    state = peft.get_peft_model_state_dict(theirs)
    mine = adapter_tensors(model)
    assert state.keys() == mine.keys() and all(torch.equal(state[name], mine[name]) for name in mine)
    assert theirs.peft_config["default"].base_model_name_or_path == str(checkpoint)
    assert theirs.peft_config["default"].lora_dropout == OURS[case].get("dropout", 0.0)


THEIRS = {
    "list": dict(target_modules=["q_proj", "v_proj"]), "all-linear": dict(target_modules="all-linear"),
    "expression": dict(target_modules=r".*\.layers\.[12]\.self_attn\.(k|o)_proj"),
    "rslora": dict(target_modules=["down_proj"], use_rslora=True),
    "patterns": dict(target_modules=ALL, rank_pattern={"q_proj": 3, r".*\.1\.mlp\.up_proj": 5},
                     alpha_pattern={"layers.2.self_attn.v_proj": 2, "o_proj": 32}),
    "patterns and rslora": dict(target_modules=ALL, use_rslora=True, rank_pattern={"gate_proj": 2}),
    "layers": dict(target_modules=["q_proj", "up_proj"], layers_to_transform=[0, 2]),
    "one layer": dict(target_modules=["q_proj"], layers_to_transform=1, layers_pattern="layers"),
    "excluded": dict(target_modules=ALL, exclude_modules=["k_proj", "model.layers.0.mlp.up_proj"]),
    "excluded by expression": dict(target_modules=ALL, exclude_modules=r".*layers\.1.*"),
    "excluded by a name that is no whole one": dict(target_modules=ALL, exclude_modules="k_proj"),
    "excluded by an end that is none": dict(target_modules=ALL, exclude_modules=["_proj", r".*k_proj", "0.mlp.up_proj"]
                                            ),
    "a whole name beside layers": dict(target_modules=["q_proj", "model.layers.1.mlp.up_proj"],
                                       layers_to_transform=[0]),
    "gaussian": dict(target_modules=["o_proj"], init_lora_weights="gaussian"),
}


@pytest.mark.parametrize("case", THEIRS)
def test_we_read_what_peft_writes(checkpoint, model, tmp_path, case):
    """Equal logits, equal tensors; saved again by us, peft still agrees."""
    config = peft.LoraConfig(**({"r": 6, "lora_alpha": 12, "task_type": "CAUSAL_LM"} | THEIRS[case]))
    theirs = peft.get_peft_model(reference_model(), config).eval()
    for name, parameter in theirs.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    theirs.save_pretrained(tmp_path / "a")
    names = load_adapter(model, tmp_path / "a")
    state = peft.get_peft_model_state_dict(theirs)
    mine = adapter_tensors(model)
    assert len(names) * 2 == len(state) and state.keys() == mine.keys()
    assert all(torch.equal(state[name], mine[name]) for name in mine) and not trainable_parameters(model)
    with torch.no_grad():
        expected = logits(theirs, input_ids=IDS)
        assert (logits(model, IDS) - expected).abs().max() < 1e-5
        save_adapter(model, tmp_path / "b", str(checkpoint))
        again = peft.PeftModel.from_pretrained(reference_model(), tmp_path / "b").eval()
        assert (logits(again, input_ids=IDS) - expected).abs().max() < 1e-5


def test_an_adapter_that_changes_nothing_is_said(checkpoint, folder, capsys):
    load_model(checkpoint, adapter=folder)
    assert capsys.readouterr().err == ""
    spoil_tensors(folder, lambda tensors: [one.zero_() for name, one in tensors.items() if "lora_B" in name and
                                           "layers.2.self_attn.v" not in name])
    load_model(checkpoint, adapter=folder)
    assert capsys.readouterr().err == ""  # one module is enough
    spoil_tensors(folder, lambda tensors: [one.zero_() for name, one in tensors.items() if "lora_B" in name])
    load_model(checkpoint, adapter=folder)
    said = capsys.readouterr().err
    assert said.startswith(f"  warning: {folder / TENSORS}: every lora_B is zero, so this adapter changes nothing;")
    assert said.count("\n") == 1


def test_round_trip_is_exact_and_deterministic(checkpoint, model, tmp_path):
    adapted(model, ALL, dropout=0.05)
    save_adapter(model, tmp_path / "a", "base")
    save_adapter(model, tmp_path / "b", "base")
    for name in (CONFIG, TENSORS):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    other = load_model(checkpoint, dtype=torch.float32, adapter=tmp_path / "a", trainable=True)
    assert torch.equal(other.eval()(IDS), model(IDS))
    assert set(trainable_parameters(other)) == set(trainable_parameters(model))
    assert {(layer.r, layer.alpha, layer.dropout) for layer in adapters(other).values()} == {(4, 8, 0.05)}


def test_trainable_and_dtypes(checkpoint, folder):
    path = folder / TENSORS
    tensors = load_file(path)
    save_file({name: tensor.bfloat16() for name, tensor in tensors.items()}, path)
    model = load_model(checkpoint, dtype=torch.float64, quantize="nf4", adapter=folder, trainable=True)
    for name, layer in adapters(model).items():
        assert layer.lora_A.dtype == torch.float32
        assert torch.equal(layer.lora_A, tensors[f"base_model.model.{name}.lora_A.weight"].bfloat16().float())
    assert len(trainable_parameters(model)) == len(tensors)
    frozen = load_model(checkpoint, dtype=torch.float32, adapter=folder)
    assert not trainable_parameters(frozen)


def test_an_older_adapter_is_replaced_and_nothing_else_is(model, folder, tmp_path):
    before = (folder / TENSORS).read_bytes()
    save_adapter(adapted(model, "k_proj"), folder, "b")
    assert sorted(path.name for path in folder.iterdir()) == [CONFIG, TENSORS]
    assert (folder / TENSORS).read_bytes() != before and not list(tmp_path.glob(".*"))
    (folder / "thesis.docx").write_text("years of work")
    with pytest.raises(UserError, match=r"thesis.docx"):
        save_adapter(model, folder, "b")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        save_adapter(model, tmp_path / "file", "b")


REFUSED = {
    "use_dora": True, "bias": "all", "modules_to_save": ["lm_head"], "fan_in_fan_out": True, "lora_bias": True,
    "layer_replication": [[0, 2]], "trainable_token_indices": [1], "target_parameters": ["w"], "use_qalora": True,
    "alora_invocation_tokens": [5], "megatron_config": {"a": 1}, "something_new": "on", "peft_type": "IA3",
    "init_lora_weights": "pissa", "r": 0, "lora_alpha": "16", "lora_dropout": 1.5, "target_modules": None,
    "rank_pattern": {"q_proj": 2.5}, "alpha_pattern": {"(": 2}, "use_rslora": "yes", "layers_to_transform": "0",
    "layers_pattern": ["("],
}


@pytest.mark.parametrize("key", REFUSED)
def test_settings_that_are_refused_by_name(model, folder, key):
    edit(folder, **{key: REFUSED[key]})
    before = {name: id(module) for name, module in model.named_modules()}
    with pytest.raises(UserError) as caught:
        load_adapter(model, folder)
    assert key in str(caught.value) and CONFIG in str(caught.value) and "\n" not in str(caught.value)
    assert {name: id(module) for name, module in model.named_modules()} == before


def test_settings_without_effect_are_passed_over(model, folder):
    edit(folder, peft_version="9.9", revision="main", megatron_core="megatron.core", something_new=None, other=False,
         eva_config={"rho": 2}, corda_config=None, exclude_modules=None, qalora_group_size=16, inference_mode=False)
    assert len(load_adapter(model, folder)) == 6
    config = read_config(folder)
    assert config.r == 4 and config.alpha == 8 and config.base_name == "b" and config.targets == ("q_proj", "v_proj")


def spoil_tensors(folder, change):
    tensors = load_file(folder / TENSORS)
    change(tensors)
    save_file(tensors, folder / TENSORS)


A = "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight"
BROKEN = {
    "missing tensor": (lambda d: spoil_tensors(d, lambda t: t.pop(A)), A),
    "unknown tensor": (lambda d: spoil_tensors(d, lambda t: t.update({A.replace("q_", "x_"): t[A].clone()})), "x_proj"),
    "wrong shape": (lambda d: spoil_tensors(d, lambda t: t.update({A: t[A][:3].clone()})), "(3, 48)"),
    "nan": (lambda d: spoil_tensors(d, lambda t: t[A].fill_(torch.nan)), A),
    "integers": (lambda d: spoil_tensors(d, lambda t: t.update({A: t[A].int()})), A),
    "module that the config does not mean": (lambda d: edit(d, target_modules=["q_proj"]), "v_proj"),
    "module without tensors": (lambda d: edit(d, target_modules=["q_proj", "v_proj", "k_proj"]), "k_proj"),
    "another rank": (lambda d: edit(d, r=5), "(5, 48)"),
    "targets that mean nothing": (lambda d: edit(d, target_modules=["c_attn"]), "c_attn"),
    "an expression that is none": (lambda d: edit(d, target_modules="(q_proj"), "(q_proj"),
    "cut file": (lambda d: (d / TENSORS).write_bytes((d / TENSORS).read_bytes()[:-7]), TENSORS),
    "no tensors": (lambda d: (d / TENSORS).rename(d / "adapter_model.bin"), "pickle"),
    "no config": (lambda d: (d / CONFIG).unlink(), CONFIG),
    "broken json": (lambda d: (d / CONFIG).write_text("{"), CONFIG),
    "a list": (lambda d: (d / CONFIG).write_text("[]"), CONFIG),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_folders_are_told_in_one_line(model, folder, case):
    spoil, word = BROKEN[case]
    spoil(folder)
    with pytest.raises(UserError) as caught:
        load_adapter(model, folder)
    assert word in str(caught.value) and str(folder) in str(caught.value) and not adapters(model)


def test_a_second_adapter_is_refused(model, folder):
    load_adapter(model, folder)
    with pytest.raises(UserError, match="already"):
        load_adapter(model, folder)


def test_a_loaded_adapter_with_dropout_is_ready_for_inference(checkpoint, tmp_path):
    """`load_model(adapter=...)` gives the same logits twice, and those of the adapter without dropout."""
    logits = []
    for dropout in (0.0, 0.5):
        model = load_model(checkpoint)
        inject(model, "all-linear", 4, 8, dropout, generator=torch.Generator().manual_seed(0))
        for layer in adapters(model).values():
            torch.nn.init.ones_(layer.lora_B)
        save_adapter(model, tmp_path / f"a{dropout}")
        loaded = load_model(checkpoint, adapter=tmp_path / f"a{dropout}")
        assert not loaded.training
        assert load_model(checkpoint, adapter=tmp_path / f"a{dropout}", trainable=True).training
        with torch.no_grad():
            logits += [loaded(IDS), loaded(IDS)]
    assert all(torch.equal(logits[0], other) for other in logits[1:])
