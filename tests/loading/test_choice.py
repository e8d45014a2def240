"""Four bits where they serve: the rule, the bytes it counts, and `load_model(quantize="auto")`.

Deliberate break: in `loading/choice.py` let `is_small` return False; the small model that memory is scarce for turns
red. Or count the tables in the compute dtype in `empty_model`; the bytes do.
"""

import torch

from loading import assemble, load_model
from loading.choice import SHARE, choose_weights, empty_model, is_small
from model.config import LlamaConfig
from quant.convert import model_bytes
from tests.small import here, posts, random_model, write_base, write_jsonl

LLAMA_3B = dict(model_type="llama", vocab_size=128256, hidden_size=3072, intermediate_size=8192, num_hidden_layers=28,
                num_attention_heads=24, num_key_value_heads=8, head_dim=128, tie_word_embeddings=True)


def in_four_bits(model) -> int:
    return sum(hasattr(module, "load_packed") for module in model.modules())


def test_the_rule():
    small, large = random_model().config, LlamaConfig.from_dict(LLAMA_3B)
    assert is_small(small) and not is_small(large)
    dense = model_bytes(empty_model(large, torch.bfloat16, "none"))
    enough = int((dense + 10**9) / SHARE) + 2
    found = choose_weights(large, torch.bfloat16, enough, beside=10**9)
    assert (found.quantize, found.dense, found.small) == ("none", dense, False) and "it fits into" in str(found)
    scarce = choose_weights(large, torch.bfloat16, enough - 10**7, beside=10**9)
    assert scarce.quantize == "nf4" and "would not fit" in str(scarce) and scarce.nf4 < dense / 2.5
    own = model_bytes(empty_model(small, torch.float32, "none"))
    tight = choose_weights(small, torch.float32, 2 * own, beside=10 * own)
    assert tight.quantize == "none" and "scarce" in tight.reason
    assert choose_weights(small, torch.float32, own).quantize == "nf4"  # its bytes alone would not fit
    assert set(found.to_dict()) == {"quantize", "reason", "dense", "nf4", "small"}


def test_bytes_are_those_of_a_loaded_model(tmp_path):
    folder = write_base(tmp_path / "base")
    for quantize in ("none", "nf4", "nf4-double"):
        model = load_model(folder, quantize=quantize, dtype=torch.float32)
        model.model.embed_tokens.to(torch.bfloat16)  # as nearly all files have it
        assert model_bytes(empty_model(model.config, torch.float32, quantize)) == model_bytes(model)


def test_auto_is_dense_where_that_fits_and_a_runs_own_weights_for_a_run(tmp_path, monkeypatch):
    write_base(tmp_path / "base")
    write_jsonl(tmp_path / "posts.jsonl", posts(24, 1))
    monkeypatch.chdir(tmp_path)
    here("train.py", "--model", "base", "--data", "posts.jsonl", "--out", "run", "--max-steps", 1, "--quantize", "nf4",
         "--rank", 2, "--dtype", "float32", cwd=tmp_path)
    assert in_four_bits(load_model("base", quantize="auto")) == 0
    assert in_four_bits(load_model("run", quantize="auto")) == 14
    monkeypatch.setattr(assemble, "available_memory", lambda device: 1000)
    assert in_four_bits(load_model("base", quantize="auto")) == 14
    here("tools.export", "--run", "run", "--to", "bnb-4bit", "--out", "packed", cwd=tmp_path)
    assert choose_weights(load_model("packed").config, torch.float32, 10**12).quantize == "stored"
    assert in_four_bits(load_model("packed", quantize="auto")) == 14
