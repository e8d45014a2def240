"""LoRA: the wrapper over any linear, where it goes, how much it trains, and the merge.

A deliberate break that turns this red: scale by alpha / r with rsLoRA too (`scaling_factor`), or start B at anything
but zero (`LoRALinear.reset`).
"""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from common.errors import UserError
from inference.merged import merge
from lora.inject import adapters, expected_count, inject, linears, match, resolve, trainable_parameters
from lora.layer import LoRALinear
from model.layers import MLP, Linear
from quant.convert import replace_linears
from quant.linear import NF4Linear

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


class Tiny(nn.Module):
    """Names as in the decoder: attention's four linears and the MLP's three, twice, and a head."""

    def __init__(self, bias=False):
        super().__init__()
        self.model = nn.Module()
        self.model.embed_tokens = nn.Embedding(50, 64)
        self.model.layers = nn.ModuleList()
        for _ in range(2):
            attention = nn.ModuleDict({"q_proj": Linear(64, 64, bias), "k_proj": Linear(64, 32, bias),
                                       "v_proj": Linear(64, 32, bias), "o_proj": Linear(64, 64, bias)})
            self.model.layers.append(nn.ModuleDict({"self_attn": attention, "mlp": MLP(64, 96, bias)}))
        self.lm_head = Linear(64, 50)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.05)

    def forward(self, x):
        for layer in self.model.layers:
            attention = layer["self_attn"]
            mixed = torch.cat([attention["k_proj"](x), attention["v_proj"](x)], -1)
            x = x + attention["o_proj"](torch.tanh(attention["q_proj"](x) + mixed))
            x = x + layer["mlp"](x)
        return self.lm_head(x)


def base(kind, bias=True):
    dense = Linear(64, 48, bias)
    for parameter in dense.parameters():
        nn.init.normal_(parameter)
    if kind == "dense":
        return dense
    layer = NF4Linear(64, 48, bias, double=kind == "nf4-double")
    layer.load_dense("weight", dense.weight.detach())
    if bias:
        layer.load_dense("bias", dense.bias.detach())
    return layer


def randomise(model, std=0.1):
    for layer in adapters(model).values():
        nn.init.normal_(layer.lora_B, std=std)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["dense", "nf4", "nf4-double"])
def test_a_fresh_adapter_gives_the_bits_of_its_base(kind, dtype):
    for dropout in (0.0, 0.5):
        plain = base(kind).to(dtype)
        x = torch.randn(5, 64, dtype=dtype)
        expected = plain(x)
        layer = LoRALinear.from_base(plain, 8, 16, dropout)
        assert torch.equal(layer(x), expected) and layer(x).dtype == dtype
        assert layer.lora_A.shape == (8, 64) and layer.lora_B.shape == (48, 8)
        assert layer.lora_A.dtype == layer.lora_B.dtype == torch.float32


@pytest.mark.parametrize("kind", ["dense", "nf4"])
@pytest.mark.parametrize("rslora", [False, True])
def test_formula_and_gradients(kind, rslora):
    """y = x W^T + b + s x A^T B^T against the formula in float64, with every gradient; 1e-12 for float64 sums."""
    layer = LoRALinear.from_base(base(kind), 4, 12, rslora=rslora)
    nn.init.normal_(layer.lora_B)
    scale = 12 / math.sqrt(4) if rslora else 12 / 4
    assert layer.scaling == scale
    layer.base.to(torch.float64)
    x = torch.randn(7, 64, dtype=torch.float64, requires_grad=True)
    y = layer(x)
    a, b, twin = (t.detach().double().requires_grad_() for t in (layer.lora_A, layer.lora_B, x))
    weight = layer.base.dense_weight(torch.float64)
    expected = F.linear(twin, weight + scale * b @ a, layer.base.bias)
    assert torch.allclose(y, expected, rtol=1e-12, atol=1e-12)
    grad = torch.randn_like(y)
    y.backward(grad)
    expected.backward(grad)
    assert torch.allclose(x.grad, twin.grad, rtol=1e-12, atol=1e-12)
    for ours, theirs in ((layer.lora_A.grad, a.grad), (layer.lora_B.grad, b.grad)):
        assert ours.dtype == torch.float32 and torch.allclose(ours, theirs.float(), rtol=1e-6, atol=1e-6)
    assert all(p.grad is None for p in layer.base.parameters())
    assert torch.allclose(layer.dense_weight(torch.float64), weight + scale * b @ a, rtol=1e-12, atol=1e-12)


def test_masters_stay_float32_when_the_model_is_cast():
    layer = LoRALinear.from_base(base("nf4"), 4, 8)
    nn.init.normal_(layer.lora_B)
    a, b, weight = layer.lora_A.clone(), layer.lora_B.clone(), layer.base.dense_weight(torch.float32)
    layer(torch.randn(2, 64)).sum().backward()
    layer.to(torch.bfloat16)
    assert torch.equal(layer.lora_A, a) and torch.equal(layer.lora_B, b) and layer.lora_B.grad.dtype == torch.float32
    assert layer.bias.dtype == torch.bfloat16 and torch.equal(layer.base.dense_weight(torch.float32), weight)
    assert layer(torch.randn(2, 64, dtype=torch.bfloat16)).dtype == torch.bfloat16
    meta = layer.to("meta")
    assert meta.lora_A.is_meta and meta.base.packed.is_meta


def test_start_as_peft_starts_it():
    """A uniform in +-1/sqrt(in), whatever the rank: the largest of 64,000 draws is within 0.1 % of the bound."""
    layer = LoRALinear.from_base(Linear(640, 16), 100, 16)
    bound = 1 / math.sqrt(640)
    assert bound * 0.999 < layer.lora_A.abs().max() <= bound
    assert layer.lora_A.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)  # 64,000 draws: sigma 0.2 %
    assert (layer.lora_B == 0).all()


def test_generator_decides_the_start():
    states = []
    for seed in (1, 1, 2):
        model = Tiny()
        torch.rand(3)  # the global numbers must not matter
        inject(model, "all-linear", 4, 8, generator=torch.Generator().manual_seed(seed))
        states.append(torch.cat([layer.lora_A.flatten() for layer in adapters(model).values()]))
    assert torch.equal(states[0], states[1]) and not torch.equal(states[0], states[2])


def test_dropout_draws_from_the_global_numbers():
    layer = LoRALinear.from_base(base("dense"), 4, 8, 0.3)
    nn.init.normal_(layer.lora_B)
    x = torch.randn(11, 64)
    torch.manual_seed(5)
    first, second = layer(x), layer(x)
    torch.manual_seed(5)
    assert torch.equal(layer(x), first) and not torch.equal(first, second)
    torch.manual_seed(5)
    mask = F.dropout(torch.ones(11, 64), 0.3)
    expected = layer.base(x) + F.linear(F.linear(x * mask, layer.lora_A), layer.lora_B) * layer.scaling
    assert torch.allclose(first, expected, atol=1e-5)
    layer.eval()
    before = torch.get_rng_state()
    assert torch.equal(layer(x), layer(x)) and torch.equal(torch.get_rng_state(), before)


def test_dropout_as_in_peft():
    """With the same seed, PEFT's layer drops the same entries; 1e-6 for its other order of scaling."""
    peft = pytest.importorskip("peft")
    wrapped = nn.ModuleDict({"q_proj": nn.Linear(64, 48)})
    theirs = peft.get_peft_model(wrapped, peft.LoraConfig(
        r=4, lora_alpha=8, lora_dropout=0.4, target_modules=["q_proj"], init_lora_weights=False))
    inner = theirs.base_model.model["q_proj"]
    dense = Linear(64, 48, True)
    dense.load_state_dict(inner.base_layer.state_dict())
    ours = LoRALinear.from_base(dense, 4, 8, 0.4)
    ours.lora_A.data.copy_(inner.lora_A["default"].weight.data)
    ours.lora_B.data.copy_(inner.lora_B["default"].weight.data)
    x = torch.randn(9, 64)
    torch.manual_seed(3)
    y = ours(x)
    torch.manual_seed(3)
    assert torch.allclose(y, inner(x), atol=1e-6)


ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@pytest.mark.parametrize("targets, count", [
    ("q_proj", 2), (["q_proj"], 2), (["q_proj", "v_proj"], 4), ("all-linear", 14), (["all-linear"], 14),
    ("self_attn.k_proj", 2), ("model.layers.1.self_attn.q_proj", 1), (["model.layers.1.mlp.up_proj", "v_proj"], 3),
    (r".*\.layers\.0\..*proj", 7), ([r".*(q|v)_proj"], 4), ("model.layers.1.self_attn.._proj", 4), (tuple(ALL), 14),
])
@pytest.mark.parametrize("quantised", [False, True])
def test_targets_and_counts(targets, count, quantised):
    model = Tiny()
    if quantised:
        replace_linears(model)
    expected, x = expected_count(model, targets, 6), torch.randn(3, 64)
    before = model(x)
    names = inject(model, targets, 6, 12)
    assert len(names) == count and names == [name for name in linears(model) if name in names] == list(adapters(model))
    assert sum(p.numel() for p in trainable_parameters(model).values()) == expected == expected_count(model, targets, 6)
    assert set(trainable_parameters(model)) == {f"{name}.lora_{letter}" for name in names for letter in "AB"}
    shapes = {"q_proj": 128, "k_proj": 96, "v_proj": 96, "o_proj": 128, "gate_proj": 160, "up_proj": 160,
              "down_proj": 160}
    assert expected == sum(6 * shapes[name.rpartition(".")[2]] for name in names)
    assert torch.equal(model(x), before)
    assert isinstance(model.lm_head, Linear)


def test_paper_count():
    """The paper's recipe: rank 64 on q_proj and v_proj of a 3B model trains 18,350,080 parameters."""
    with torch.device("meta"):
        model = nn.ModuleDict({"layers": nn.ModuleList(nn.ModuleDict({
            "q_proj": Linear(3072, 3072), "v_proj": Linear(3072, 1024)}) for _ in range(28))})
    assert expected_count(model, ["q_proj", "v_proj"], 64) == 18_350_080
    inject(model, ["q_proj", "v_proj"], 64, 32)
    assert sum(p.numel() for p in trainable_parameters(model).values()) == 18_350_080


@pytest.mark.parametrize("targets, message", [
    ("q_pro", "'q_pro': no linear has this name; did you mean 'q_proj'"), (["q_proj", "vproj"], "mean 'v_proj'"),
    ("embed_tokens", "no linear"), ("lm_head", "head"), (["q_proj", "lm_head"], "head"), (".*(q_proj|lm_head)", "head"),
    ("(q_proj", "regular expression"), ([], "no linear"), ("proj", "no linear"), ("", "no linear"),
])
def test_targets_that_mean_nothing(targets, message):
    model = Tiny()
    with pytest.raises(UserError) as caught:
        inject(model, targets, 4, 8)
    assert message in str(caught.value) and not adapters(model)


@pytest.mark.parametrize("r, alpha, dropout", [(0, 8, 0.0), (-1, 8, 0.0), (2.5, 8, 0.0), (True, 8, 0.0), (4, 0, 0.0),
                                               (4, math.nan, 0.0), (4, math.inf, 0.0), (4, 8, 1.0), (4, 8, -0.1)])
def test_numbers_that_cannot_be(r, alpha, dropout):
    with pytest.raises(UserError, match="LoRA"):
        inject(Tiny(), "q_proj", r, alpha, dropout)
    with pytest.raises(UserError, match="LoRA"):
        LoRALinear.from_base(Linear(8, 8), r, alpha, dropout)


def test_patterns_as_peft_reads_them():
    model = Tiny()
    inject(model, ALL, 4, 8, rank_pattern={"layers.0.self_attn.q_proj": 7, "v_proj": 2, r".*\.1\.mlp\..*": 5},
           alpha_pattern={"up_proj": 3.5})
    got = {name: (layer.r, layer.alpha) for name, layer in adapters(model).items()}
    assert got["model.layers.0.self_attn.q_proj"] == (7, 8) and got["model.layers.1.self_attn.q_proj"] == (4, 8)
    assert got["model.layers.1.self_attn.v_proj"] == (2, 8) and got["model.layers.1.mlp.up_proj"] == (5, 3.5)
    assert got["model.layers.0.mlp.up_proj"] == (4, 3.5)


def test_two_adapters_are_refused():
    model = Tiny()
    inject(model, "q_proj", 4, 8)
    with pytest.raises(UserError, match="already"):
        inject(model, "v_proj", 4, 8)


def test_match_and_resolve_keep_the_order():
    assert match(["a.q_proj", "a.k_proj"], ["q_proj", "w"]) == (["a.q_proj"], ["w"])
    assert resolve(Tiny(), ["v_proj", "q_proj"])[0].endswith("0.self_attn.q_proj")


@pytest.mark.parametrize("quantise", [None, False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_merge(quantise, bias):
    """The merged model gives the adapter's logits (float64: 1e-12), and its parameters have the checkpoint's names."""
    model = Tiny(bias)
    names = [name for name, _ in model.named_parameters()]
    if quantise is not None:
        replace_linears(model, double=quantise)
    inject(model, "all-linear", 4, 8, 0.1)
    randomise(model)
    model.eval().to(torch.float64)
    x = torch.randn(3, 64, dtype=torch.float64)
    expected, layers = model(x), adapters(model)
    weights = {name: layer.base.dense_weight(torch.float32) + layer.scaling * layer.lora_B.data @ layer.lora_A.data
               for name, layer in layers.items()}
    assert merge(model, torch.float64) == list(layers) and not adapters(model)
    assert torch.allclose(model(x), expected, rtol=1e-12, atol=1e-12)
    assert sorted(name for name, _ in model.named_parameters()) == sorted(names) and not trainable_parameters(model)
    for name, weight in weights.items():
        merged = model.get_submodule(name)
        assert isinstance(merged, Linear) and not merged.training
        assert torch.allclose(merged.dense_weight(torch.float32), weight, atol=1e-6)


def test_merge_rounds_once():
    """A 16-bit merge is the float32 sum, rounded: never a sum of rounded parts."""
    for kind in ("dense", "nf4"):
        layer = LoRALinear.from_base(base(kind), 4, 8)
        nn.init.normal_(layer.lora_B, std=1e-3)
        model = nn.ModuleDict({"q_proj": layer})
        exact = layer.dense_weight(torch.float32)
        packed = layer.base.packed.clone() if kind == "nf4" else None
        kept = layer.base
        merge(model, torch.bfloat16)
        assert torch.equal(model["q_proj"].weight, exact.bfloat16())
        assert packed is None or torch.equal(kept.packed, packed)
