"""The Llama family: a tiny model in each member's layout and with the keys of its config.json, against transformers.

Sizes are divided, the ratios of heads, head sizes, angles and ties are the member's own. What another family does
otherwise is refused by name: see also test_config.

Tolerance: as in test_model.

Deliberate break: in `model/config.py` let theta be 500000, or the epsilon 1e-2, where the file says otherwise or
nothing; members below turn red.
"""

import json

import pytest
import torch

from common.errors import UserError
from loading import load_model
from model.config import LlamaConfig
from tests.tiny import reference_model, write_checkpoint

TOLERANCE = dict(atol=1e-5, rtol=1e-5)
COMMON = {"architectures": ["LlamaForCausalLM"], "hidden_act": "silu", "initializer_range": 0.02,
          "model_type": "llama", "use_cache": True, "torch_dtype": "float32"}
LLAMA3 = {"attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 128000, "mlp_bias": False,
          "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_theta": 500000.0, "tie_word_embeddings": False}
SCALING = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
           "rope_type": "llama3"}
MEMBERS = {
    "Llama 2 7B": {"_name_or_path": "meta-llama/Llama-2-7b-hf", "bos_token_id": 1, "eos_token_id": 2,
                   "hidden_size": 64, "intermediate_size": 172, "max_position_embeddings": 4096,
                   "num_attention_heads": 8, "num_hidden_layers": 2, "num_key_value_heads": 8, "pretraining_tp": 1,
                   "rms_norm_eps": 1e-05, "rope_scaling": None, "tie_word_embeddings": False,
                   "transformers_version": "4.31.0.dev0", "vocab_size": 320},
    "Llama 2 70B": {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "hidden_size": 64,
                    "intermediate_size": 224, "max_position_embeddings": 4096, "num_attention_heads": 16,
                    "num_hidden_layers": 2, "num_key_value_heads": 2, "pretraining_tp": 2, "rms_norm_eps": 1e-05,
                    "rope_scaling": None, "tie_word_embeddings": False, "vocab_size": 320},
    "Llama 1": {"bos_token_id": 1, "eos_token_id": 2, "hidden_size": 64, "intermediate_size": 172,
                "max_position_embeddings": 2048, "max_sequence_length": 2048, "num_attention_heads": 8,
                "num_hidden_layers": 2, "pad_token_id": 0, "rms_norm_eps": 1e-06,
                "tie_word_embeddings": False, "vocab_size": 320},
    "Llama 3 8B": LLAMA3 | {"eos_token_id": 128001, "hidden_size": 64, "intermediate_size": 224,
                            "max_position_embeddings": 8192, "num_attention_heads": 8, "num_hidden_layers": 2,
                            "num_key_value_heads": 2, "rope_scaling": None, "vocab_size": 320},
    "Llama 3.1 8B Instruct": LLAMA3 | {"eos_token_id": [128001, 128008, 128009], "hidden_size": 64,
                                       "intermediate_size": 224, "max_position_embeddings": 131072,
                                       "num_attention_heads": 8, "num_hidden_layers": 2, "num_key_value_heads": 2,
                                       "rope_scaling": SCALING | {"factor": 8.0}, "vocab_size": 320},
    "Llama 3.2 1B": LLAMA3 | {"eos_token_id": 128001, "head_dim": 8, "hidden_size": 64, "intermediate_size": 256,
                              "max_position_embeddings": 131072, "num_attention_heads": 8, "num_hidden_layers": 2,
                              "num_key_value_heads": 2, "rope_scaling": SCALING | {"factor": 32.0},
                              "tie_word_embeddings": True, "vocab_size": 320},
    "Llama 3.2 3B Instruct": LLAMA3 | {"eos_token_id": [128001, 128008, 128009], "head_dim": 16, "hidden_size": 96,
                                       "intermediate_size": 256, "max_position_embeddings": 131072,
                                       "num_attention_heads": 6, "num_hidden_layers": 3, "num_key_value_heads": 2,
                                       "rope_scaling": SCALING | {"factor": 32.0}, "tie_word_embeddings": True,
                                       "vocab_size": 320},
    "TinyLlama 1.1B": {"attention_bias": False, "bos_token_id": 1, "eos_token_id": 2, "hidden_size": 64,
                       "intermediate_size": 176, "max_position_embeddings": 2048, "num_attention_heads": 16,
                       "num_hidden_layers": 3, "num_key_value_heads": 2, "pretraining_tp": 1, "rms_norm_eps": 1e-05,
                       "rope_scaling": None, "rope_theta": 10000.0, "tie_word_embeddings": False, "vocab_size": 320},
    "SmolLM2 135M": {"attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 0, "eos_token_id": 0,
                     "hidden_size": 72, "intermediate_size": 192, "is_llama_config": True,
                     "max_position_embeddings": 8192, "mlp_bias": False, "num_attention_heads": 9,
                     "num_hidden_layers": 3, "num_key_value_heads": 3, "pretraining_tp": 1, "rms_norm_eps": 1e-05,
                     "rope_interleaved": False, "rope_scaling": None, "rope_theta": 100000,
                     "tie_word_embeddings": True, "vocab_size": 384},
    "SmolLM2 360M Instruct": {"attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2,
                              "hidden_size": 60, "intermediate_size": 160, "is_llama_config": True,
                              "max_position_embeddings": 8192, "mlp_bias": False, "num_attention_heads": 15,
                              "num_hidden_layers": 2, "num_key_value_heads": 5, "pad_token_id": 2,
                              "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_interleaved": False,
                              "rope_scaling": None, "rope_theta": 100000, "tie_word_embeddings": True,
                              "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16"}}, "vocab_size": 384},
}


def sizes(config: dict) -> dict:
    """The keys of a config that transformers' class takes as they are, for the model that makes the weights."""
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
             "tie_word_embeddings", "rms_norm_eps", "max_position_embeddings")
    rope = {"rope_type": "default", "rope_theta": float(config.get("rope_theta", 10000.0))}
    return {name: config[name] for name in names} | {
        "num_key_value_heads": config.get("num_key_value_heads", config["num_attention_heads"]),
        "head_dim": config["hidden_size"] // config["num_attention_heads"],
        "rope_parameters": rope | (config.get("rope_scaling") or {})}  # fmt: skip


@pytest.mark.parametrize("shard", ["50GB", "60KB"])
@pytest.mark.parametrize("member", MEMBERS)
def test_logits_equal_transformers(tmp_path, member, shard):
    from transformers import LlamaForCausalLM

    config = COMMON | MEMBERS[member]
    folder = write_checkpoint(tmp_path / "m", reference_model(**sizes(config)), max_shard_size=shard)
    (folder / "config.json").write_text(json.dumps(config))  # the published keys, which both sides now read
    ours, theirs = load_model(folder), LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = torch.randint(0, config["vocab_size"], (2, 120))  # past the 64 positions of the scaling
    with torch.no_grad():
        torch.testing.assert_close(ours(ids), theirs(ids).logits, **TOLERANCE)
    assert ours.config.head_dim == config["hidden_size"] // config["num_attention_heads"]


BASE = COMMON | MEMBERS["Llama 3 8B"]
OTHERS = {
    "sliding_window: 4096 is not supported": {"model_type": "mistral", "sliding_window": 4096},
    "num_local_experts: 8 is not supported": {"model_type": "mixtral", "num_local_experts": 8,
                                              "num_experts_per_tok": 2, "sliding_window": None},
    "num_experts: 128 is not supported": {"model_type": "qwen3_moe", "num_experts": 128},
    "hidden_act: 'gelu' is not supported": {"model_type": "gemma", "hidden_act": "gelu"},
    "hidden_act: 'relu2' is not supported": {"hidden_act": "relu2"},
    "model_type: 'mllama' is not supported": {"model_type": "mllama", "text_config": {}, "vision_config": {}},
    "model_type: 'llama4' is not supported": {"model_type": "llama4"},
    "model_type: 'qwen2' is not supported": {"model_type": "qwen2", "use_sliding_window": False},
    "unknown key 'qk_norm'": {"qk_norm": True},
    "rope_type 'linear' is not supported": {"rope_scaling": {"type": "linear", "factor": 2.0}},
    "rope_type 'dynamic' is not supported": {"rope_scaling": {"type": "dynamic", "factor": 2.0}},
    "partial_rotary_factor: 0.5 is not supported": {"partial_rotary_factor": 0.5},
}


@pytest.mark.parametrize("line", OTHERS)
def test_what_differs_is_refused_by_name(line):
    LlamaConfig.from_dict(BASE)
    with pytest.raises(UserError) as caught:
        LlamaConfig.from_dict(BASE | OTHERS[line], "m/config.json")
    assert str(caught.value).removeprefix("m/config.json: ").removeprefix("rope_scaling: ").startswith(line)


def test_the_keys_are_the_published_ones(shared_data):
    for member, path in (("Llama 3.2 1B", "hf_1b"), ("Llama 3.2 3B Instruct", "hf_3b_instruct")):
        real = json.loads((shared_data / "llama3" / path / "config.json").read_text())
        assert (COMMON | MEMBERS[member]).keys() == real.keys() - {"transformers_version"}
