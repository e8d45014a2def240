"""A GGUF file of the Llama family, read as if it were a checkpoint of Hugging Face's.

    token_embd, output_norm, output            model.embed_tokens, model.norm, lm_head
    blk.N.attn_q, attn_k, attn_v, attn_output  model.layers.N.self_attn.q_proj, k_proj, v_proj, o_proj
    blk.N.ffn_gate, ffn_up, ffn_down           model.layers.N.mlp.gate_proj, up_proj, down_proj
    blk.N.attn_norm, ffn_norm                  model.layers.N.input_layernorm, post_attention_layernorm

Besides the names, four things differ. The config lies in keys (`llama.block_count`, ...), each of which is understood,
harmless, or an error. Rotary pairs lie side by side, so the rows of attn_q and attn_k are put into the order that
`rope` uses; blocks lie within rows, so whole rows of bytes are moved. A head that is the embedding is not there. And of
Llama 3's scaled rope only its effect is stored: `rope_freqs.weight`, by which each frequency is divided; the numbers
that made it are found again and must reproduce it.

What the blocks give (see `quant.gguf_blocks`) is computed in float32, tensor by tensor as they are asked for. The
linears' weights stay float32, to be rounded once, into the compute dtype or into NF4. The tables (embedding, head),
which a model keeps in its file's dtype, become float16: its numbers have the 11 bits of a block's scales, bfloat16's
have 8, so that rounding loses far less; a value beyond float16 is refused. F32, F16 and BF16 stay what they are, as
views of the file's map. (Names and order of rows: llama.cpp, `convert_hf_to_gguf.py`.)
"""

import dataclasses
import math
import re
from collections.abc import Iterable
from pathlib import Path

import numpy
import torch

from common.errors import UserError, closest
from common.gguf import GGUFTensor, is_gguf, read_gguf
from common.safetensors_writer import DTYPES
from loading.meta import Header, half_split
from model.config import LlamaConfig, Reader, RopeScaling
from model.rope import inverse_frequencies
from quant.gguf_blocks import check_kind, dequantize_blocks

OF_MODEL = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
OF_LAYER = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
            "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
            "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
ROPE = "rope_freqs.weight"
_PLAIN = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_TABLES = ("model.embed_tokens.weight", "lm_head.weight")
# Keys that would change the mathematics, with the only values that this block implements; and those that do not.
_FIXED = {"expert_count": (0,), "expert_used_count": (0,), "use_parallel_residual": (False,),
          "attention.causal": (True,), "rope.scaling.type": ("none",), "rope.scaling.factor": (0.0, 1.0),
          "rope.scale_linear": (0.0, 1.0), "rope.scaling.attn_factor": (1.0,),
          "tensor_data_layout": ("Meta AI original pth",)}  # fmt: skip
_HARMLESS = {"pooling_type", "rope.scaling.finetuned"}
_SPLIT = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf", re.DOTALL)
_CLOSE = 1e-4  # between factors of the rope that were computed in float32 and in float64


def gguf_name(name: str) -> str:
    """`gguf_name("model.layers.3.mlp.up_proj.weight") -> "blk.3.ffn_up.weight"`."""
    module, _, leaf = name.rpartition(".")
    if module in OF_MODEL:
        return f"{OF_MODEL[module]}.{leaf}"
    _, _, layer, part = module.split(".", 3)
    return f"blk.{layer}.{OF_LAYER[part]}.{leaf}"


def one_model(paths: Iterable[Path], where: str | Path) -> Path | None:
    """The GGUF model among `paths`, of a split one its first file; None without any, `UserError` with several."""
    there = sorted(path for path in paths if is_gguf(path))
    models = [path for path in there if not (part := _SPLIT.fullmatch(path.name)) or int(part[2]) == 1] or there[:1]
    if len(models) > 1:
        raise UserError(f"{where}: holds {len(models)} GGUF files; give one of them: "
                        f"{', '.join(path.name for path in models[:12])}{', ...' if len(models) > 12 else ''}")
    return models[0] if models else None


def in_blocks(path: Path) -> bool:
    """Whether `path` is a GGUF file whose linears have been rounded already: NF4 would round them a second time."""
    return is_gguf(path) and any(tensor.type not in _PLAIN for name, tensor in read_gguf(path).tensors.items()
                                 if name.startswith("blk."))


def split_files(path: Path) -> list[Path]:
    """The files of a model that was split (NAME-00001-of-00003.gguf, ...), else `path`; `UserError` if one is away."""
    part = _SPLIT.fullmatch(path.name)
    if part is None:
        return [path]
    paths = [path.with_name(f"{part[1]}-{number:05d}-of-{part[3]}.gguf") for number in range(1, int(part[3]) + 1)]
    missing = next((other for other in [*paths, path] if not other.is_file()), None)
    if missing is not None or path not in paths:
        raise UserError(f"{missing or path}: is missing or no part of the model; {path.name} is one of {int(part[3])} "
                        "files, and all of them are needed in one folder")
    return paths


class GGUFFiles:
    """An open GGUF file, or all files of a split one, as one file of Hugging Face's: `keys`, `get_tensor`, `get_slice`.

    Raises `UserError` for another architecture, for tensors that are missing or unknown, and for types that are not
    read.
    """

    def __init__(self, path: Path):
        self.paths = split_files(path)
        self.where, parts = self.paths[0], [read_gguf(part) for part in self.paths]
        self.metadata = parts[0].metadata
        for number, part in enumerate(parts):
            self._check_part(part.path, number, part.metadata)
        self.files = {name: part for part in parts for name in part.tensors}
        if len(self.files) < sum(len(part.tensors) for part in parts):
            raise UserError(f"{self.where}: two of its files hold the same tensor; they are not of one model")
        read = Reader(self.metadata, str(self.where))
        layers, hidden, heads = (read.integer(f"llama.{key}") for key in ("block_count", "embedding_length",
                                                                         "attention.head_count"))
        self.head_dim = read.integer("llama.attention.key_length", max(hidden // heads, 1))
        if layers > len(self.files):
            raise UserError(f"{self.where}: llama.block_count is {layers:,}, but it has only {len(self.files):,} "
                            "tensors; the file is damaged")
        self.tied = "output.weight" not in self.files
        modules = [name for name in OF_MODEL if not (self.tied and name == "lm_head")]
        biases = [f"self_attn.{part}_proj" for part in "qkvo"] if "blk.0.attn_q.bias" in self.files else []
        biases += [f"mlp.{part}_proj" for part in ("gate", "up", "down")] if "blk.0.ffn_up.bias" in self.files else []
        names = [f"{module}.weight" for module in modules] + [
            f"model.layers.{layer}.{part}" for layer in range(layers)
            for part in [*(f"{part}.weight" for part in OF_LAYER), *(f"{part}.bias" for part in biases)]]
        self.names = {name: gguf_name(name) for name in names}
        self._check()

    def _check_part(self, path: Path, number: int, metadata: dict) -> None:
        """Whether this file is what its name says, and the first one of a kind that is read."""
        count, own = metadata.get("split.count") or 1, metadata.get("split.no", 0)
        if (count, own) != (len(self.paths), number):
            raise UserError(f"{path}: says that it is file {str(own)[:20]} (from 0) of {str(count)[:20]}; the files of "
                            "a split model keep their names (NAME-00001-of-00003.gguf) and lie in one folder")
        if number:
            return
        kind, family = metadata.get("general.type", "model"), metadata.get("general.architecture")
        if kind != "model":
            raise UserError(f"{path}: holds a GGUF {kind}, not a model (general.type); give a whole model")
        if family != "llama":
            raise UserError(f"{path}: its architecture is {family or 'not given'} (general.architecture); llama is the "
                            "only one that is read")
        if metadata.get("llama.expert_count"):
            raise UserError(f"{path}: is a mixture of {str(metadata['llama.expert_count'])[:20]} experts "
                            "(llama.expert_count); this is the Llama block, with one MLP")

    def _check(self) -> None:
        """Compare names and types with what is needed."""
        expected = set(self.names.values())
        unknown = sorted(self.files.keys() - expected - {ROPE})
        if unknown:
            raise UserError(f"{self.files[unknown[0]].path}: unknown tensor {unknown[0]}"
                            f"{closest(unknown[0], expected)}; the Llama block has no such weight")
        missing = sorted(expected - self.files.keys())
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise UserError(f"{self.where}: tensor {missing[0]}{more} is not in it; llama.block_count calls for it")
        for name, file in self.files.items():
            check_kind(file.tensors[name].type, f"{file.path}: tensor {name}")

    def config(self, rope_scaling: dict | None = None) -> LlamaConfig:
        """What the keys and the tensors' shapes say; `rope_scaling` is used if the file has no scaling.

        Raises `UserError` for an unknown key, an impossible value, and a scaling that is not Llama 3's.
        """
        where, read = str(self.where), Reader(self.metadata, str(self.where))
        for key, allowed in _FIXED.items():
            value = self.metadata.get(f"llama.{key}", allowed[0])
            if value not in allowed:
                raise UserError(f"{where}: llama.{key} is {value!r}; this is the Llama block, where it is "
                                f"{allowed[-1]!r}")
        hidden, heads = read.integer("llama.embedding_length"), read.integer("llama.attention.head_count")
        vocabulary = self._tensor("model.embed_tokens.weight").shape[0]
        head_dim = read.integer("llama.attention.key_length", self.head_dim)
        for key, value in (("attention.value_length", head_dim), ("rope.dimension_count", head_dim),
                           ("vocab_size", vocabulary)):  # fmt: skip
            if read.integer(f"llama.{key}", value) != value:
                raise UserError(f"{where}: llama.{key} is {self.metadata[f'llama.{key}']}; by its other sizes it would "
                                f"be {value}")
        described = {
            "model_type": "llama", "hidden_size": hidden, "num_attention_heads": heads, "head_dim": head_dim,
            "intermediate_size": read.integer("llama.feed_forward_length"), "vocab_size": vocabulary,
            "num_hidden_layers": read.integer("llama.block_count"),
            "num_key_value_heads": read.integer("llama.attention.head_count_kv", heads),
            "rms_norm_eps": _shortest(read.number("llama.attention.layer_norm_rms_epsilon", None)),
            "rope_theta": _shortest(read.number("llama.rope.freq_base", 10000.0)),
            "max_position_embeddings": read.integer("llama.context_length"), "tie_word_embeddings": self.tied,
            "attention_bias": "model.layers.0.self_attn.q_proj.bias" in self.names,
            "mlp_bias": "model.layers.0.mlp.up_proj.bias" in self.names,
            "dtype": str(self._dtype("model.embed_tokens.weight")).removeprefix("torch."),
        } | {f"{role}_token_id": self.metadata.get(f"tokenizer.ggml.{role}_token_id") for role in ("bos", "eos")}
        read.used.add("llama.rope.scaling.original_context_length")
        known = read.used | {f"llama.{key}" for key in [*_FIXED, *_HARMLESS]}
        unknown = sorted(key for key in self.metadata.keys() - known if key.startswith("llama."))
        if unknown:
            raise UserError(f"{where}: unknown key '{unknown[0]}'{closest(unknown[0], known)}: it might change the "
                            "mathematics, so it is not ignored")
        plain = LlamaConfig.from_dict(described, where, None if ROPE in self.files else rope_scaling)
        return plain if ROPE not in self.files else LlamaConfig.from_dict(
            described | {"rope_scaling": self._scaling(plain)}, where)

    def _scaling(self, plain: LlamaConfig) -> dict | None:
        file = self.files[ROPE]
        tensor, where = file.tensors[ROPE], f"{file.path}: tensor {ROPE}"
        if (tensor.type, tensor.shape) != ("F32", (plain.head_dim // 2,)):
            raise UserError(f"{where}: is {tensor.type} {tensor.shape}; F32 {(plain.head_dim // 2,)} was expected")
        factors = file.bytes_of(ROPE).view(torch.float32)
        if bool((factors == 1).all()):
            return None
        found = find_scaling(factors, plain, self.metadata.get("llama.rope.scaling.original_context_length"))
        if found is None:
            raise UserError(f"{where}: does not divide the rotary frequencies as Llama 3 does; another scaling is not "
                            "read")
        return found

    def keys(self) -> list[str]:
        return list(self.names)

    def path_of(self, name: str) -> Path:
        """The file that holds a tensor."""
        return self.files[self.names[name]].path

    def is_view(self, name: str) -> bool:
        """Whether `get_tensor(name)` may lie on the map, so that who keeps it must copy it."""
        return self._tensor(name).type in _PLAIN

    def get_slice(self, name: str) -> Header:
        return Header(DTYPES[self._dtype(name)], self._tensor(name).shape)

    def get_tensor(self, name: str) -> torch.Tensor:
        """The whole tensor, rows in Hugging Face's order: computed from blocks, or a view of the map if it can be."""
        tensor, path = self._tensor(name), self.path_of(name)
        data = self.files[tensor.name].bytes_of(tensor.name)
        if name.split(".")[-2] in ("q_proj", "k_proj"):
            data = half_split(data.view(tensor.shape[0], -1), self.head_dim).view(-1)
        if tensor.type in _PLAIN:
            return data.view(_PLAIN[tensor.type]).view(tensor.shape)
        return dequantize_blocks(data, tensor.type, tensor.shape, self._dtype(name), f"{path}: tensor {tensor.name}")

    def _tensor(self, name: str) -> GGUFTensor:
        return self.files[self.names[name]].tensors[self.names[name]]

    def _dtype(self, name: str) -> torch.dtype:
        return _PLAIN.get(self._tensor(name).type, torch.float16 if name in _TABLES else torch.float32)


def _shortest(value: float) -> float:
    """The shortest number with this float32: `9.999999747378752e-06 -> 1e-05`, as it was before it was stored."""
    with numpy.errstate(over="ignore"):  # an infinite one is for the config to refuse
        return float(str(numpy.float32(value)))


def find_scaling(factors: torch.Tensor, plain: LlamaConfig, window: int | None = None) -> dict | None:
    """Llama 3's `rope_scaling` with f_i / f'_i = `factors` (h/2,), f_i the frequencies of `plain`; None if none has.

    factor is the largest quotient. With 1/c = (1 - s)/factor + s, s is linear in f_i between the two wavelengths:
    s = (W f_i / 2 pi - low) / (high - low). That gives high/low and W/low, and low is 1, as published, unless `window`
    says W. The published numbers come first, since few pairs may lie between. Each is held against all of `factors`.
    """
    factor = _shortest(float(factors.max()))
    if not bool(torch.isfinite(factors).all()) or float(factors.min()) < 1 - _CLOSE or factor == 1:
        return None
    windows = [window] if isinstance(window, int) and 0 < window < 2**40 else [8192, *(2**n for n in range(4, 21))]
    numbers = [(1.0, 4.0, W) for W in windows]
    frequencies = inverse_frequencies(plain)
    c, f = factors.double(), frequencies.double()
    between = (c > 1 + _CLOSE) & (c < factor * (1 - _CLOSE))
    if len(f[between].unique()) > 1:
        share = (1 / c[between] - 1 / factor) / (1 - 1 / factor)
        slope, start = numpy.polyfit(f[between].numpy(), share.numpy(), 1).tolist()
        if slope > 0 > start > -1e6:
            high = 1 - 1 / start  # over low
            W = 2 * math.pi * slope * (high - 1)  # over low
            low = windows[0] / W if len(windows) == 1 else 1.0
            numbers.append((float(f"{low:.4g}"), float(f"{low * high:.4g}"), max(round(low * W), 1)))
    for low, high, W in numbers:
        if high <= low:
            continue
        scaling = RopeScaling(factor, low, high, W)
        scaled = inverse_frequencies(dataclasses.replace(plain, rope_scaling=scaling))
        if torch.allclose(frequencies / scaled, factors, rtol=_CLOSE, atol=0):
            return {"rope_type": "llama3", **vars(scaling)}
    return None
