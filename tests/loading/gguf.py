"""GGUF files for tests, packed by hand, so that each claim in them can be a lie."""

import math
import struct
from pathlib import Path

import gguf
import numpy
import torch

from tests.small import random_model
from tests.tools.gguf_files import turned

ROPE = "rope_freqs.weight"
SIZES = dict(vocab_size=96, hidden_size=256, intermediate_size=512, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, head_dim=64, max_position_embeddings=512, rope_parameters=None)
LLAMA3 = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0, "low_freq_factor": 1.0,
          "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
KINDS = {"uint8": 0, "int8": 1, "uint16": 2, "int16": 3, "uint32": 4, "int32": 5, "float32": 6, "bool": 7, "string": 8,
         "array": 9, "uint64": 10, "int64": 11, "float64": 12}  # fmt: skip
FORMS = dict(zip(KINDS, ["B", "b", "H", "h", "I", "i", "f", "?", "", "", "Q", "q", "d"], strict=True))


def text(value: str | bytes) -> bytes:
    """A string as it lies in the file."""
    data = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(data)) + data


def plain(kind: str, value) -> bytes:
    """A value without its kind; an array is (kind of its values, list)."""
    if kind == "string":
        return text(value)
    if kind == "array":
        inner, values = value
        return struct.pack("<IQ", KINDS[inner], len(values)) + b"".join(plain(inner, one) for one in values)
    return struct.pack(f"<{FORMS[kind]}", value)


def pair(key: str, kind: str, value) -> bytes:
    """A key with its value."""
    return text(key) + struct.pack("<I", KINDS[kind]) + plain(kind, value)


def info(name: str, shape: tuple[int, ...], kind: int, offset: int) -> bytes:
    """What the file says of a tensor; shape as in PyTorch."""
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape[::-1], kind, offset)


def packed(pairs=(), infos=(), body: bytes = b"", *, magic: bytes = b"GGUF", version: int = 3,
           tensors: int | None = None, keys: int | None = None, aligned: int = 32) -> bytes:
    """A whole file; `tensors` and `keys` are the counts that it claims."""
    head = magic + struct.pack("<IQQ", version, len(infos) if tensors is None else tensors,
                               len(pairs) if keys is None else keys) + b"".join([*pairs, *infos])
    return head + bytes(-len(head) % aligned) + body


def model_of(**changes):
    """A random model whose rows are whole blocks of every kind."""
    return random_model(**SIZES | changes)


def blocks_of(tensor: torch.Tensor, kind: str) -> numpy.ndarray:
    """The tensor in blocks; of the kinds that `gguf` cannot make, random blocks of about its size instead."""
    if kind in ("Q4_K", "Q5_K", "Q6_K"):
        weights, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
        data = numpy.random.default_rng(tensor.numel()).integers(0, 256, (tensor.numel() // weights, size), "u1")
        scales = numpy.full((len(data), 1), float(tensor.abs().max()) / 2000, "f2").view("u1")
        for at in (208,) if kind == "Q6_K" else (0, 2):
            data[:, at : at + 2] = scales
        return data.reshape(len(tensor), -1)
    return gguf.quantize(tensor.float().numpy(), gguf.GGMLQuantizationType[kind])


def write_llama(path: Path, model, kind: str = "F32", table: str | None = None, changes: dict | None = None,
                leave_out: tuple[str, ...] = (), more: dict[str, torch.Tensor] | None = None, **split) -> Path:
    """`model` (ours) as llama.cpp's converter writes it, matrices in `kind`, the embedding in `table`.

    changes: keys of the metadata, `None` removes one; leave_out: tensors, by GGUF's names; more: further ones. split:
    for `GGUFWriter`, such as split_max_tensors=7.
    """
    config = model.config
    keys = {"block_count": config.num_hidden_layers, "context_length": config.max_position_embeddings,
            "embedding_length": config.hidden_size, "feed_forward_length": config.intermediate_size,
            "attention.head_count": config.num_attention_heads, "attention.head_count_kv": config.num_key_value_heads,
            "attention.key_length": config.head_dim, "attention.value_length": config.head_dim,
            "rope.dimension_count": config.head_dim, "vocab_size": config.vocab_size,
            "rope.freq_base": config.rope_theta, "attention.layer_norm_rms_epsilon": config.rms_norm_eps}
    keys = {"general.architecture": "llama"} | {f"llama.{key}": value for key, value in keys.items()} | (changes or {})
    writer = gguf.GGUFWriter(path, "llama", **split)
    writer.kv_data[0].clear()
    for key, value in keys.items():
        if isinstance(value, list):
            writer.add_array(key, value)
        elif value is not None:
            add = {str: writer.add_string, bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32}
            add[type(value)](key, value)
    tensors = {written(name): turned(name, tensor.detach(), config) for name, tensor in model.named_parameters()}
    if config.rope_scaling is not None:
        tensors[ROPE] = factors(config)
    for name, tensor in (tensors | (more or {})).items():
        if name not in leave_out:
            form = "F32" if tensor.ndim == 1 else table or kind if name == "token_embd.weight" else kind
            writer.add_tensor(name, blocks_of(tensor, form), raw_dtype=gguf.GGMLQuantizationType[form])
    writer.write_header_to_file(), writer.write_kv_data_to_file(), writer.write_tensors_to_file(), writer.close()
    return path


def written(name: str) -> str:
    """llama.cpp's name of a tensor."""
    for theirs, ours in {"model.layers.": "blk.", "model.embed_tokens": "token_embd", "model.norm": "output_norm",
                         "lm_head": "output", "self_attn.o_proj": "attn_output", "self_attn": "attn", "attn.": "attn_",
                         "mlp.": "ffn_", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
                         "_proj": ""}.items():
        name = name.replace(theirs, ours)
    return name


def factors(config) -> torch.Tensor:
    """What the converter writes of Llama 3's scaling: (h/2,), after its `generate_extra_tensors`."""
    scaling, found = config.rope_scaling, []
    low, high = (scaling.original_max_position_embeddings / getattr(scaling, f"{word}_freq_factor")
                 for word in ("low", "high"))
    for frequency in 1.0 / config.rope_theta ** (torch.arange(0, config.head_dim, 2).float() / config.head_dim):
        wavelength = 2 * math.pi / float(frequency)
        smooth = (scaling.original_max_position_embeddings / wavelength - scaling.low_freq_factor) / (
            scaling.high_freq_factor - scaling.low_freq_factor)
        found.append(1.0 if wavelength < high else scaling.factor if wavelength > low else
                     1 / ((1 - smooth) / scaling.factor + smooth))
    return torch.tensor(found)
