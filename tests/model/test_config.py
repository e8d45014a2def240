"""config.json: both dialects give one config, and whatever would change the mathematics is refused by name.

Deliberate break: return `raw.get(...)` unchecked from `Reader.integer`, drop the `unknown` check at the end of
`LlamaConfig.from_dict`, or let `Reader.layer_types` return at once; cases below turn red.
"""

import json

import pytest
import torch

from common.errors import UserError
from model.config import LlamaConfig, RopeScaling
from model.rope import inverse_frequencies
from tests.small import random_model

OLD = {"model_type": "llama", "vocab_size": 100, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
       "num_attention_heads": 4, "num_key_value_heads": 2, "rope_theta": 500000.0, "torch_dtype": "bfloat16",
       "rope_scaling": {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                        "original_max_position_embeddings": 8192}}
NEW = {key: value for key, value in OLD.items() if key not in ("rope_theta", "rope_scaling", "torch_dtype")} | {
    "dtype": "bfloat16", "rope_parameters": OLD["rope_scaling"] | {"rope_theta": 500000.0}}


def test_both_dialects_are_the_same_config():
    assert LlamaConfig.from_dict(OLD) == LlamaConfig.from_dict(NEW) == LlamaConfig.from_dict(OLD | NEW)
    assert LlamaConfig.from_dict(OLD).rope_scaling == RopeScaling(32.0, 1.0, 4.0, 8192)


@pytest.mark.parametrize("shape", [{}, {"num_key_value_heads": 1, "head_dim": 6, "intermediate_size": 40}])
def test_linear_weights_are_those_of_the_layers(shape):
    model = random_model(tie_word_embeddings=False, **shape)
    found = sum(module.weight.numel() for name, module in model.named_modules() if name.endswith("_proj"))
    assert model.config.linear_weights == found > 0


def test_to_dict_comes_back():
    config = LlamaConfig.from_dict(OLD | {"eos_token_id": [1, 2], "bos_token_id": 0, "attention_bias": True})
    assert LlamaConfig.from_dict(config.to_dict()) == config


def test_real_configs(shared_data):
    big = LlamaConfig.from_file(shared_data / "llama3/hf_3b_instruct/config.json")
    assert (big.num_hidden_layers, big.num_attention_heads, big.num_key_value_heads, big.head_dim) == (28, 24, 8, 128)
    assert big.rope_scaling == RopeScaling(32.0, 1.0, 4.0, 8192) and big.eos_token_id == (128001, 128008, 128009)
    assert LlamaConfig.from_file(shared_data / "llama3/hf_1b/config.json").eos_token_id == (128001,)
    small = LlamaConfig.from_file(shared_data / "checkpoints/stories260K/config.json")
    assert small.rope_scaling is None and small.dtype == "float32"


@pytest.mark.parametrize("theta, factor", [(500000.0, 32.0), (10000.0, 8.0)])
def test_inverse_frequencies_equal_transformers(theta, factor):
    from transformers import LlamaConfig as Reference
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    scaling = OLD["rope_scaling"] | {"factor": factor}
    reference = Reference(hidden_size=512, num_attention_heads=4, head_dim=128,
                          rope_parameters=scaling | {"rope_theta": theta})
    ours = LlamaConfig.from_dict(OLD | {"head_dim": 128, "rope_theta": theta, "rope_scaling": scaling})
    torch.testing.assert_close(inverse_frequencies(ours), LlamaRotaryEmbedding(reference).inv_freq, atol=0, rtol=0)


def without(*keys):
    return {key: value for key, value in OLD.items() if key not in keys}


ROPE = OLD["rope_scaling"]
BAD = {
    "unknown key 'window'": OLD | {"window": 4096},
    "model_type: 'mistral'": OLD | {"model_type": "mistral"},
    "model_type is missing": without("model_type"),
    "hidden_act: 'gelu'": OLD | {"hidden_act": "gelu"},
    "sliding_window: 4096": OLD | {"sliding_window": 4096},
    "attention_dropout: 0.1": OLD | {"attention_dropout": 0.1},
    "sliding_window: 8192 is not supported": OLD | {"model_type": "mistral", "sliding_window": 8192},
    "hidden_act: 'gelu_pytorch_tanh' is not": OLD | {"model_type": "gemma", "hidden_act": "gelu_pytorch_tanh"},
    "num_local_experts: 8 is not supported": OLD | {"model_type": "mixtral", "num_local_experts": 8},
    "num_experts: 64 is not supported": OLD | {"model_type": "qwen3_moe", "num_experts": 64},
    "model_type: 'qwen3'": OLD | {"model_type": "qwen3"},
    "rope_type 'yarn'": OLD | {"rope_scaling": ROPE | {"rope_type": "yarn"}},
    "unknown key 'beta'": OLD | {"rope_scaling": ROPE | {"beta": 1}},
    "factor: None": OLD | {"rope_scaling": {k: v for k, v in ROPE.items() if k != "factor"}},
    "high_freq_factor must be above": OLD | {"rope_scaling": ROPE | {"high_freq_factor": 0.5}},
    "rope_type and type disagree": OLD | {"rope_scaling": ROPE | {"type": "linear"}},
    "rope_scaling: 8": OLD | {"rope_scaling": 8},
    "original_max_position_embeddings: 8192.5 is not a whole number":
        OLD | {"rope_scaling": ROPE | {"original_max_position_embeddings": 8192.5}},
    "original_max_position_embeddings: 100,000,000,000,000,000,000 is beyond any model's":
        OLD | {"rope_scaling": ROPE | {"original_max_position_embeddings": 10**20}},
    "rope_theta occurs twice": OLD | {"rope_parameters": ROPE | {"rope_theta": 1.0}},
    "rope_scaling and rope_parameters disagree": OLD | {"rope_parameters": ROPE | {"factor": 8.0}},
    "dtype and torch_dtype disagree": OLD | {"dtype": "float32"},
    "dtype: 'int8'": OLD | {"torch_dtype": "int8"},
    "vocab_size is missing": without("vocab_size"),
    "hidden_size: '64'": OLD | {"hidden_size": "64"},
    "num_hidden_layers: 0": OLD | {"num_hidden_layers": 0},
    "num_attention_heads 4 is not a multiple of num_key_value_heads 3": OLD | {"num_key_value_heads": 3},
    "hidden_size 64 is not a multiple": OLD | {"num_attention_heads": 6, "num_key_value_heads": 6},
    "head_dim 15 is odd": OLD | {"head_dim": 15},
    "rms_norm_eps: -1": OLD | {"rms_norm_eps": -1},
    "tie_word_embeddings: 'yes'": OLD | {"tie_word_embeddings": "yes"},
    "eos_token_id: 'end'": OLD | {"eos_token_id": "end"},
    "quantization_config: 4": OLD | {"quantization_config": 4},
    "quantization: its weights are packed as MLX packs them": OLD | {"quantization": {"group_size": 64, "bits": 4}},
    "layer_types: 'sliding_attention' is not": OLD | {"layer_types": ["full_attention", "sliding_attention"]},
    "layer_types: 'full_attention' is not": OLD | {"layer_types": "full_attention"},
    "layer_types has 3 layers, num_hidden_layers 2": OLD | {"layer_types": ["full_attention"] * 3},
    "cross_attention_hidden_size: 64": OLD | {"cross_attention_hidden_size": 64},
}


@pytest.mark.parametrize("message", BAD)
def test_bad_configs_are_named(tmp_path, message):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(BAD[message]))
    with pytest.raises(UserError) as error:
        LlamaConfig.from_file(path)
    assert str(error.value).startswith(f"{path}: ") and message in str(error.value)


HARMLESS = {
    "as transformers 5 may say it": {"layer_types": ["full_attention"] * 2},
    "nothing said": {"layer_types": None, "cross_attention_hidden_size": None, "output_router_logits": False},
    "generation": {"max_length": 4096, "do_sample": True, "temperature": 0.6, "top_p": 0.9, "use_bfloat16": False},
}


@pytest.mark.parametrize("case", HARMLESS)
def test_keys_that_change_no_logit_are_passed_over(case):
    assert LlamaConfig.from_dict(OLD | HARMLESS[case]) == LlamaConfig.from_dict(OLD)


def test_all_keys_that_transformers_4_and_5_write_are_known():
    from transformers import LlamaConfig as Reference

    old = {"max_length": 20, "min_length": 0, "do_sample": False, "early_stopping": False, "num_beams": 1,
           "num_beam_groups": 1, "diversity_penalty": 0.0, "temperature": 1.0, "top_k": 50, "top_p": 1.0,
           "typical_p": 1.0, "repetition_penalty": 1.0, "length_penalty": 1.0, "no_repeat_ngram_size": 0,
           "encoder_no_repeat_ngram_size": 0, "bad_words_ids": None, "num_return_sequences": 1, "output_scores": False,
           "return_dict_in_generate": False, "forced_bos_token_id": None, "forced_eos_token_id": None,
           "remove_invalid_values": False, "exponential_decay_length_penalty": None, "suppress_tokens": None,
           "begin_suppress_tokens": None, "tf_legacy_loss": False, "use_bfloat16": False, "torchscript": False,
           "pruned_heads": {}, "finetuning_task": None, "prefix": None, "task_specific_params": None,
           "cross_attention_hidden_size": None, "add_cross_attention": False, "tie_encoder_decoder": False,
           "is_decoder": False, "is_encoder_decoder": False, "tokenizer_class": None, "sep_token_id": None,
           "decoder_start_token_id": None, "output_attentions": False, "output_hidden_states": False,
           "return_dict": True, "chunk_size_feed_forward": 0, "problem_type": None}
    assert LlamaConfig.from_dict(OLD | old) == LlamaConfig.from_dict(OLD)
    new = json.loads(Reference(layer_types=["full_attention"] * 2, num_hidden_layers=2).to_json_string())
    assert LlamaConfig.from_dict(new).num_hidden_layers == 2


def test_what_a_file_leaves_out_is_what_transformers_takes():
    """Deliberate break: in `LlamaConfig.from_dict` take Llama 3's epsilon, 1e-5, for a file without the key."""
    from transformers import LlamaConfig as Reference

    few = {key: OLD[key] for key in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
                                     "num_attention_heads")}
    ours, theirs = LlamaConfig.from_dict(few | {"model_type": "llama"}), Reference(**few)
    for key in ("num_key_value_heads", "head_dim", "rms_norm_eps", "max_position_embeddings", "tie_word_embeddings",
                "attention_bias", "mlp_bias"):
        assert getattr(ours, key) == getattr(theirs, key), key
    assert ours.rope_theta == theirs.rope_parameters["rope_theta"] and ours.rope_scaling is None


@pytest.mark.parametrize("text, message", [("{", "line 1: is not JSON"), ("[1]", "holds a list"), ("", "not JSON")])
def test_files_that_are_no_config(tmp_path, text, message):
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        LlamaConfig.from_file(path)


def test_rope_scaling_from_the_caller_is_used_only_where_the_file_has_none(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(without("rope_scaling")))
    assert LlamaConfig.from_file(path).rope_scaling is None
    assert LlamaConfig.from_file(path, ROPE | {"factor": 8.0}).rope_scaling.factor == 8.0
    path.write_text(json.dumps(OLD))
    assert LlamaConfig.from_file(path, ROPE | {"factor": 8.0}).rope_scaling.factor == 32.0
