"""A merged model as one GGUF file for llama.cpp (the format: github.com/ggml-org/ggml, docs/gguf.md).

    kind    a block of 32 weights is stored as                         bits per weight
    F16     32 float16                                                 16
    Q8_0    d in float16, 32 whole numbers q of 8 bits: w = d q        8.5
    Q4_0    d in float16, 32 whole numbers q of 4 bits: w = d (q - 8)  4.5

What differs from the Hugging Face layout:

- Names: `blk.0.attn_q.weight` for `model.layers.0.self_attn.q_proj.weight`. A tied output matrix is not written twice.
- Rows of W_q and W_k (and their biases), which lie in interleaved rotary pairs (x[2i], x[2i+1]) instead of halves.
- Llama 3's stretch of the rotary frequencies, which is stored as the tensor `rope_freqs.weight` (h/2,) of the quotients
  f_i (plain) / f_i (stretched).
- Vectors (norms, biases) are F32. Blocks lie within a row, so matrices whose rows are not multiples of 32 stay
  F16. In a Q4_0 file the matrix that makes the logits (the tied embedding, or the output's) is Q8_0: labels are read
  there. llama.cpp's own quantiser keeps it finer too.

The finer 4-bit kinds, such as Q4_K_M, are made by llama.cpp itself, from the F16 file:

    llama-quantize Llama-mine-F16.gguf Llama-mine-Q4_K_M.gguf Q4_K_M
"""

import dataclasses
import math
from pathlib import Path

import gguf
import numpy
import torch
from gguf import GGMLQuantizationType as Kind

from common.errors import UserError
from common.files import atomic_write
from loading.gguf import gguf_name
from model.config import LlamaConfig
from model.rope import inverse_frequencies
from tools.export.tensors import EMBEDDING, MergedTensors
from tools.export.vocabulary import read_vocabulary

HEAD = "lm_head.weight"
KINDS = {"f16": (Kind.F16, gguf.LlamaFileType.MOSTLY_F16), "q8_0": (Kind.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
         "q4_0": (Kind.Q4_0, gguf.LlamaFileType.MOSTLY_Q4_0)}  # fmt: skip
LARGEST = torch.finfo(torch.float16).max


def write_gguf(tensors: MergedTensors, tokenizer: str | Path | None, path: str | Path, kind: str,
               licence: str = "unknown") -> tuple[str, ...]:
    """Write the model as "f16", "q8_0" or "q4_0", tensor by tensor; returns notes on its vocabulary.

    tokenizer: its file or folder; `None` leaves the vocabulary out, for users who feed in token ids. licence: the
    Hub's word for it, which stays in the file wherever it goes; "unknown" says nothing. Quantised in float32. The file
    appears complete or not at all. Raises `UserError` for a tokenizer that llama.cpp could not reproduce and for
    weights beyond float16.
    """
    path, config = Path(path), tensors.config
    vocabulary = None if tokenizer is None else read_vocabulary(tokenizer, config.vocab_size)
    layout = {name: (stored_as(name, shape, KINDS[kind][0], config), shape)
              for name, (_, shape) in tensors.layout.items()}
    with atomic_write(path, "wb") as handle:
        writer = gguf.GGUFWriter(handle.name, "llama")  # opens the file beside `path` once more
        try:
            writer.add_name(path.stem)
            if licence != "unknown":
                writer.add_license(licence)
            _add_config(writer, config)
            writer.add_file_type(KINDS[kind][1])
            writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
            if vocabulary is None:
                writer.add_tokenizer_model("no_vocab")
            else:
                vocabulary.write(writer, config.vocab_size)
            stretch = rope_factors(config)
            if stretch is not None:
                writer.add_tensor_info("rope_freqs.weight", stretch.shape, stretch.dtype, stretch.nbytes)
            for name, (form, shape) in layout.items():
                block, size = gguf.GGML_QUANT_SIZES[form]
                writer.add_tensor_info(gguf_name(name), shape, numpy.dtype(numpy.float32),
                                       math.prod(shape) // block * size, raw_dtype=form)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            if stretch is not None:
                writer.write_tensor_data(stretch)
            for name, (form, _) in layout.items():
                writer.write_tensor_data(stored(name, tensors[name], form, config))
        finally:
            writer.close()
    return () if vocabulary is None else vocabulary.notes


def _add_config(writer: gguf.GGUFWriter, config: LlamaConfig) -> None:
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)


def stored_as(name: str, shape: tuple[int, ...], kind: Kind, config: LlamaConfig) -> Kind:
    """The type of one tensor in a file of `kind`."""
    if len(shape) == 1:
        return Kind.F32
    if shape[-1] % gguf.GGML_QUANT_SIZES[kind][0]:
        return Kind.F16
    makes_logits = name == (EMBEDDING if config.tie_word_embeddings else HEAD)
    return Kind.Q8_0 if makes_logits and kind == Kind.Q4_0 else kind


def stored(name: str, tensor: torch.Tensor, kind: Kind, config: LlamaConfig) -> numpy.ndarray:
    """One tensor's numbers as they lie in the file, rows in llama.cpp's order."""
    part = name.split(".")[-2]
    if part in ("q_proj", "k_proj"):
        tensor = interleaved(tensor, config.num_attention_heads if part == "q_proj" else config.num_key_value_heads)
    largest = max(abs(float(end)) for end in tensor.aminmax())
    if largest > LARGEST and kind != Kind.F32:
        raise UserError(f"tensor {name}: holds {largest:g}; float16, in which GGUF keeps weights and scales, ends at "
                        f"{LARGEST:g}")
    return gguf.quantize(tensor.to(torch.float32).contiguous().numpy(), kind)


def interleaved(tensor: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows (heads * h, ...) of W_q, W_k or a bias from halves to pairs: row 2i is the old i, 2i + 1 the old i + h/2."""
    return tensor.view(heads, 2, len(tensor) // heads // 2, -1).transpose(1, 2).reshape(tensor.shape)


def rope_factors(config: LlamaConfig) -> numpy.ndarray | None:
    """What llama.cpp divides each rotary frequency by: (h/2,) float32, or `None` if nothing is stretched."""
    if config.rope_scaling is None:
        return None
    plain = inverse_frequencies(dataclasses.replace(config, rope_scaling=None))
    return (plain / inverse_frequencies(config)).numpy()
