"""Whole tiny models against transformers, in float32 and in float64.

Tolerance: both sides do the same operations in float32 in a different order, and the logits are of size one: 1e-5 is a
little above rounding and far below any real error.

Deliberate break: in `model.attention.pieces` let a token that asks see only what is before it (drop the `+ 1`); in
`model.attention.attend_padded` compare with `last` by `<`; in `model/rope.py` compute `share` with `low` and `high`
swapped; or drop `.tril(...)`'s offset in `common.packed.causal_mask`; the parity tests below turn red.
"""

import pytest
import torch

from common.packed import ROWS, Layout, pack
from loading import load_model
from model import llama
from model.attention import attend_padded, attend_sdpa, attend_softmax
from model.kv_cache import KVCache
from model.rope import inverse_frequencies
from tests.small import random_model
from tests.tiny import LLAMA3_ROPE, read_reference, reference_model, write_checkpoint

TOLERANCE = dict(atol=1e-5, rtol=1e-5)
DEFAULT_ROPE = {"rope_type": "default", "rope_theta": 500000.0}
CASES = {
    "tied-llama3": {},
    "untied-llama3": {"tie_word_embeddings": False},
    "default-rope": {"rope_parameters": DEFAULT_ROPE},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "one-group": {"num_attention_heads": 4, "num_key_value_heads": 4},
    "two-to-one": {"num_attention_heads": 4, "num_key_value_heads": 2},
    "one-kv-head": {"num_key_value_heads": 1},
    "wide-head": {"head_dim": 20},
    "steep-rope": {"rope_parameters": LLAMA3_ROPE | {"factor": 32.0, "original_max_position_embeddings": 16}},
}

ATTENDS = [attend_softmax, attend_sdpa, attend_padded]


def ids_for(model, rows=2, length=150):
    """Random ids; 150 positions are past the 64 (and 16) that the scaled cases were 'trained' with."""
    generator = torch.Generator().manual_seed(7)
    return torch.randint(0, model.config.vocab_size, (rows, length), generator=generator)


@pytest.mark.parametrize("attend", ATTENDS)
@pytest.mark.parametrize("case", CASES)
def test_logits_equal_transformers(tmp_path, case, attend):
    theirs = reference_model(**CASES[case])
    ours = load_model(write_checkpoint(tmp_path / case, theirs))
    ours.attend = attend
    ids = ids_for(theirs)
    with torch.no_grad():
        torch.testing.assert_close(ours(ids), theirs(ids).logits, **TOLERANCE)


@pytest.mark.parametrize("dialect", ["old", "new"])
@pytest.mark.parametrize("size", ["50GB", "20KB"])
def test_layouts_on_disk(tmp_path, dialect, size):
    theirs = reference_model(tie_word_embeddings=False)
    folder = write_checkpoint(tmp_path / "m", theirs, dialect, size)
    assert (len(list(folder.glob("*.safetensors"))) > 1) == (size == "20KB")
    ids = ids_for(theirs)
    with torch.no_grad():
        torch.testing.assert_close(load_model(folder)(ids), theirs(ids).logits, **TOLERANCE)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bit_files_keep_embeddings_and_compute_in_float32(tmp_path, dtype):
    folder = write_checkpoint(tmp_path / "m", reference_model().to(dtype))
    ours, theirs = load_model(folder), read_reference(folder, torch.float32)
    assert ours.model.embed_tokens.weight.dtype == dtype and ours.dtype == torch.float32
    ids = ids_for(theirs)
    with torch.no_grad():
        torch.testing.assert_close(ours(ids), theirs(ids).logits, **TOLERANCE)


def test_bfloat16_arithmetic_is_as_close_as_the_reference_is(tmp_path):
    """bf16 rounds at every step; ours may stray from the float32 truth no further than transformers' bf16 does."""
    folder = write_checkpoint(tmp_path / "m", reference_model().to(torch.bfloat16))
    ours = load_model(folder, dtype=torch.bfloat16)
    ids = ids_for(ours, length=40)
    with torch.no_grad():
        mine = ours(ids).float()
        theirs = read_reference(folder, torch.bfloat16)(ids).logits.float()
        truth = read_reference(folder, torch.float32)(ids).logits
    assert ours.dtype == torch.bfloat16
    assert (mine - truth).abs().mean() <= 1.1 * (theirs - truth).abs().mean()


def test_float64_stays_float64(tmp_path):
    theirs = reference_model().double()
    ours = load_model(write_checkpoint(tmp_path / "m", theirs), dtype=torch.float64)
    ids = ids_for(theirs, length=60)
    with torch.no_grad():
        logits, reference = ours(ids), theirs(ids).logits
    assert logits.dtype == torch.float64
    # transformers keeps its norms, angles and softmax in float32 even here, so this agrees to float32 rounding only.
    torch.testing.assert_close(logits, reference.double(), **TOLERANCE)
    ours.attend = attend_softmax
    with torch.no_grad():
        torch.testing.assert_close(ours(ids), logits, atol=1e-11, rtol=1e-11)


@pytest.mark.parametrize("steps", [[150], [1] * 12, [5, 1, 1, 7, 30, 1]])
@pytest.mark.parametrize("attend", ATTENDS)
def test_cached_equals_uncached(tmp_path, steps, attend):
    ours = load_model(write_checkpoint(tmp_path / "m", reference_model()))
    ours.attend = attend
    ids = ids_for(ours)[:, : sum(steps)]
    cache = KVCache(ours.config, rows=2, capacity=sum(steps))
    with torch.no_grad():
        parts = [ours(part, kv_cache=cache) for part in ids.split(steps, dim=1)]
        torch.testing.assert_close(torch.cat(parts, dim=1), ours(ids), **TOLERANCE)
    assert cache.length == sum(steps)
    with pytest.raises(ValueError, match="holds"), torch.no_grad():
        ours(ids[:, :1], kv_cache=cache)


@pytest.mark.parametrize("wanted", ["all", "answers"])
@pytest.mark.parametrize("prefix", [0, 1, 9])
@pytest.mark.parametrize("attend", ATTENDS)
def test_packed_rows_equal_rows_alone(tmp_path, prefix, attend, wanted):
    """Hidden states and the gradient of the embedding table, in float64: packing and sharing change nothing."""
    ours = load_model(write_checkpoint(tmp_path / "m", reference_model()), dtype=torch.float64)
    ours.attend = attend
    ours.model.embed_tokens.weight.data = ours.model.embed_tokens.weight.data.double()
    table = ours.model.embed_tokens.weight.requires_grad_(True)
    ids = ids_for(ours, 1, 200)[0].tolist()
    rows = [ids[:prefix] + ids[a:b] for a, b in ((10, 17), (20, 21), (30, 61), (70, 88))]
    answers = [len(rows[0]) - 3, *(len(row) - 1 for row in rows[1:])]  # one of them before its row's end
    batch = pack(rows, answers, [0, 1, 2, 3], prefix, multiple=16)
    packed = ours.answer_hidden(batch) if wanted == "answers" else ours.hidden(batch)[batch.answer_index]
    (packed.sin().sum()).backward()
    shared_gradient, table.grad = table.grad.clone(), None
    alone = torch.stack([ours.model(torch.tensor(row), torch.arange(len(row)), Layout((0, len(row))), attend)[answer]
                         for row, answer in zip(rows, answers, strict=True)])
    alone.sin().sum().backward()
    torch.testing.assert_close(packed, alone, atol=1e-11, rtol=1e-9)
    torch.testing.assert_close(shared_gradient, table.grad, atol=1e-11, rtol=1e-9)


def test_frequencies_are_computed_once_for_a_device_and_serve_training_after_inference(monkeypatch):
    ours, asked = random_model(), []
    monkeypatch.setattr(llama, "inverse_frequencies", lambda *words: asked.append(words) or inverse_frequencies(*words))
    ids = torch.arange(8)[None]
    with torch.inference_mode():
        first = ours(ids)
    ours.model.norm.weight.requires_grad_(True)
    again = ours(ids)
    again.sum().backward()
    torch.testing.assert_close(again.detach(), first.clone(), **TOLERANCE)
    assert asked == [(ours.config, torch.device("cpu"))]


def test_the_last_layer_computes_answers_only(tmp_path):
    ours = load_model(write_checkpoint(tmp_path / "m", reference_model()))
    seen = {}
    for name, module in ours.named_modules():
        if name.endswith(("k_proj", "q_proj", "down_proj")):
            module.register_forward_hook(lambda _, inputs, out, name=name: seen.update({name: len(inputs[0])}))
    batch = pack([[1, 2, 3] * 9, [1, 5, 6, 7] * 9], [26, 35], [0, 1], 1)
    ours.answer_hidden(batch)
    names = ("self_attn.k_proj", "self_attn.q_proj", "mlp.down_proj")
    layers = [[seen[f"model.layers.{layer}.{name}"] for name in names] for layer in range(3)]
    assert layers == [[62, 62, 62], [62, 62, 62], [62, ROWS, ROWS]]


def test_tokens_that_ask_alone_must_be_where_rows_are():
    layout = Layout((2, 5, 9), prefix_len=2)
    assert [layout.row_of(token) for token in (2, 4, 5, 8)] == [0, 0, 1, 1]
    for wrong in ((1,), (9,)):
        with pytest.raises(ValueError, match="must lie in the rows"):
            layout.with_queries(wrong)


def test_checkpointing_changes_no_gradient(tmp_path):
    ours = load_model(write_checkpoint(tmp_path / "m", reference_model()))
    table = ours.model.embed_tokens.weight.requires_grad_(True)
    batch = pack([[1, 2, 3], [1, 5, 6, 7]], [2, 3], [0, 1], 1)
    gradients = []
    for checkpointing in (False, True):
        table.grad = None
        ours.answer_hidden(batch, checkpointing).sin().sum().backward()
        gradients.append(table.grad)
    torch.testing.assert_close(*gradients, atol=0, rtol=0)


def test_label_logits_are_the_same_rows_of_the_full_logits(tmp_path):
    ours = load_model(write_checkpoint(tmp_path / "m", reference_model(tie_word_embeddings=False).to(torch.bfloat16)))
    hidden = torch.randn(5, ours.config.hidden_size)
    labels = torch.tensor([3, 130, 7])
    torch.testing.assert_close(ours.label_logits(hidden, labels), ours.logits(hidden)[:, labels], **TOLERANCE)


def test_a_recording_attention_can_be_given(tmp_path):
    ours = load_model(write_checkpoint(tmp_path / "m", reference_model()))
    seen = []

    def recording(q, k, v, layout):
        seen.append((tuple(q.shape), tuple(k.shape)))
        return attend_softmax(q, k, v, layout)

    ours.attend = recording
    with torch.no_grad():
        ours(ids_for(ours, 2, 5))
    assert seen == [((10, 6, 8), (10, 2, 8))] * 3
