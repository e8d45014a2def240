"""Tiny random checkpoints in the exact public layouts, written by transformers itself."""

import json
from pathlib import Path

import torch

LLAMA3_ROPE = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
               "high_freq_factor": 4.0, "original_max_position_embeddings": 64}

SHAPE = dict(vocab_size=131, hidden_size=48, intermediate_size=80, num_hidden_layers=3, num_attention_heads=6,
             num_key_value_heads=2, head_dim=8, max_position_embeddings=512, rms_norm_eps=1e-5)

GOLDEN_SHAPE = dict(vocab_size=67, hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
                    head_dim=10)
PLAIN_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
GOLDEN_CASES = {
    "llama3-tied-gqa": GOLDEN_SHAPE | {"num_key_value_heads": 2, "rope_parameters": LLAMA3_ROPE},
    "plain-untied-biases": GOLDEN_SHAPE | {"num_key_value_heads": 4, "rope_parameters": PLAIN_ROPE,
                                           "tie_word_embeddings": False, "attention_bias": True, "mlp_bias": True},
}


def reference_model(seed: int = 0, **overrides):
    """A random transformers LlamaForCausalLM in float32 whose norms and biases are not at their trivial start."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    settings = SHAPE | {"rope_parameters": LLAMA3_ROPE, "tie_word_embeddings": True} | overrides
    model = LlamaForCausalLM(LlamaConfig(**settings)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.copy_(1 + 0.3 * torch.randn_like(parameter))
            elif name.endswith("bias"):
                parameter.copy_(0.3 * torch.randn_like(parameter))
            else:
                parameter.mul_(6)  # 0.02 is so small that a wrong attention mask would hide below the tolerance
    return model


def write_checkpoint(folder: Path, model, dialect: str = "new", max_shard_size: str = "50GB") -> Path:
    """Save `model` as a checkpoint folder; dialect "old" writes config.json as transformers 4 did."""
    model.save_pretrained(folder, max_shard_size=max_shard_size)
    path = Path(folder) / "config.json"
    config = json.loads(path.read_text())
    if dialect == "old":
        rope = config.pop("rope_parameters")
        config["rope_theta"] = rope.pop("rope_theta")
        config["rope_scaling"] = None if rope["rope_type"] == "default" else rope
        config["torch_dtype"] = config.pop("dtype")
        path.write_text(json.dumps(config))
    return Path(folder)


def read_reference(folder: Path, dtype):
    """The folder as transformers reads it (a model cast with `.to(dtype)` would have rounded its rotary angles too)."""
    from transformers import LlamaForCausalLM

    return LlamaForCausalLM.from_pretrained(folder, dtype=dtype).eval()
