"""The benchmark's checkpoint as a GGUF file for llama.cpp, in F16, and quantised to Q4_K_M by llama.cpp itself.

What differs from the Hugging Face layout: names; the rows of queries and keys, which lie in interleaved rotary pairs
(x[2i], x[2i+1]) instead of halves; Llama 3's stretch of the rotary frequencies, which travels as the tensor
`rope_freqs.weight` of the quotients f_i (plain) / f_i (stretched). There is no vocabulary in the file, only its size:
token ids are fed in directly.
"""

import ctypes
import dataclasses
from pathlib import Path

import gguf
import llama_cpp
import torch
from safetensors.torch import load_file

from common.errors import UserError
from model.config import LlamaConfig
from model.rope import inverse_frequencies

NAMES = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip
OUTSIDE = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
           "lm_head.weight": "output.weight"}


def gguf_name(name: str) -> str:
    """`gguf_name("model.layers.3.mlp.up_proj.weight") -> "blk.3.ffn_up.weight"`."""
    if name in OUTSIDE:
        return OUTSIDE[name]
    _, _, layer, *middle, leaf = name.split(".")
    return f"blk.{layer}.{NAMES['.'.join(middle)]}.{leaf}"


def interleaved(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of W_q or W_k (heads * h, D) from half-split to interleaved pairs: row 2i is the old i, 2i + 1 the old
    i + h/2."""
    rows, columns = weight.shape
    return weight.view(heads, 2, rows // heads // 2, columns).transpose(1, 2).reshape(rows, columns)


def write_f16(checkpoint: Path, path: Path) -> None:
    """Write the checkpoint folder as one GGUF file: matrices in F16, norms and rotary factors in F32."""
    config = LlamaConfig.from_file(checkpoint / "config.json")
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_tokenizer_model("no_vocab")
    if config.rope_scaling is not None:
        plain = inverse_frequencies(dataclasses.replace(config, rope_scaling=None))
        writer.add_tensor("rope_freqs.weight", (plain / inverse_frequencies(config)).numpy())
    for file in sorted(checkpoint.glob("*.safetensors")):
        for name, tensor in load_file(file).items():
            if "q_proj" in name or "k_proj" in name:
                heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
                tensor = interleaved(tensor, heads)
            dtype = torch.float32 if tensor.dim() == 1 else torch.float16
            writer.add_tensor(gguf_name(name), tensor.to(dtype).contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@llama_cpp.llama_log_callback
def _say_nothing(level, text, data):
    """llama.cpp describes every tensor otherwise."""


def quantise(source: Path, target: Path, threads: int) -> None:
    """Q4_K_M of an F16 file, by llama.cpp's own quantiser; raises `UserError` where it says no."""
    llama_cpp.llama_log_set(_say_nothing, None)
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype, parameters.nthread = llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M, threads
    if llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(parameters)):
        raise UserError(f"{source}: llama.cpp could not quantise it to Q4_K_M")
