"""Meta's checkpoint folders (`params.json`, `consolidated.00.pth`, `.01`, ...), read as if they were Hugging Face's.

    tok_embeddings, norm, output           model.embed_tokens, model.norm, lm_head
    layers.N.attention.wq, wk, wv, wo      model.layers.N.self_attn.q_proj, k_proj, v_proj, o_proj
    layers.N.feed_forward.w1, w2, w3       model.layers.N.mlp.gate_proj, down_proj, up_proj
    layers.N.attention_norm, ffn_norm      model.layers.N.input_layernorm, post_attention_layernorm

Besides the names, four things differ. Rotary pairs lie side by side, (x[2i], x[2i+1]), so the rows of wq and wk are put
into the order that `rope` uses. Each file holds a slice of every matrix, one file per GPU (model parallelism); the
slices are joined here tensor by tensor: wo and w2 by columns, the rest by rows (in Llama 1 and 2 the embedding by
columns), while norms are complete in each file. `use_scaled_rope` does not say by how much. And the files are pickles,
which can run code: they are opened with `weights_only=True`, which accepts only tensors and plain values, and mapped,
so that a tensor takes memory only when it is read. (Layout: Meta's `llama-models`, `models/llama3/model.py` and
`models/checkpoint.py`.)
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from common.errors import UserError, closest
from common.files import read_json
from common.reading import open_plain
from common.safetensors_writer import DTYPES
from common.states import is_plain, read_state
from model.config import LARGEST, LlamaConfig, Reader

PARAMS = "params.json"
_OF_MODEL = {"model.embed_tokens": "tok_embeddings", "model.norm": "norm", "lm_head": "output"}
_OF_LAYER = {"self_attn.q_proj": "attention.wq", "self_attn.k_proj": "attention.wk", "self_attn.v_proj": "attention.wv",
             "self_attn.o_proj": "attention.wo", "mlp.gate_proj": "feed_forward.w1", "mlp.down_proj": "feed_forward.w2",
             "mlp.up_proj": "feed_forward.w3", "input_layernorm": "attention_norm",
             "post_attention_layernorm": "ffn_norm"}  # fmt: skip
_HARMLESS = {"max_batch_size", "max_seq_len", "model_parallel_size"}  # of Meta's own programs
# The published models with a scaled rope, by dim, n_layers, n_heads, n_kv_heads and vocab_size, and their factor.
FACTORS = {
    (4096, 32, 32, 8, 128256): 8.0,  # Llama 3.1 8B
    (8192, 80, 64, 8, 128256): 8.0,  # Llama 3.1 and 3.3 70B
    (16384, 126, 128, 8, 128256): 8.0,  # Llama 3.1 405B
    (2048, 16, 32, 8, 128256): 32.0,  # Llama 3.2 1B
    (3072, 28, 24, 8, 128256): 32.0,  # Llama 3.2 3B
}
_SCALING = {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192}  # fmt: skip


def is_meta(folder: Path) -> bool:
    """Whether a folder holds Meta's files and no safetensors (Hugging Face's folders may have a params.json too)."""
    if any(folder.glob("model*.safetensors*")):
        return False
    return any(folder.glob("consolidated.*.pth")) or (
        (folder / PARAMS).exists() and not (folder / "config.json").exists())


def consolidated(folder: Path) -> list[Path]:
    """consolidated.00.pth and those that follow it. Raises `UserError` if one is missing."""
    there = sorted(folder.glob("consolidated.*.pth"))
    for number, path in enumerate(there or [folder / "none"]):
        if path.name != f"consolidated.{number:02d}.pth":
            raise UserError(f"{folder}: has no consolidated.{number:02d}.pth; {PARAMS} and consolidated.00.pth, .01, "
                            "... were expected")
    return there


def to_config(params: dict, where: str, rope_scaling: dict | None = None, *, vocab_size: int, tied: bool,
              dtype: str | None = None) -> LlamaConfig:
    """The model that `params` (from a params.json) describes; the caller gives what only the weights show.

    With `use_scaled_rope` the scaling is `rope_scaling`, else the one that somebody wrote into the file, else that of
    the published model with these sizes. Raises `UserError`, beginning with `where`, for an unknown key, an impossible
    value, and a scaling that none of these gives.
    """
    read = Reader(params, where)
    dim, heads = read.integer("dim"), read.integer("n_heads")
    sizes = (dim, read.integer("n_layers"), heads, read.integer("n_kv_heads", heads), vocab_size)
    if dim % heads:
        raise UserError(f"{where}: dim {dim} is not a multiple of n_heads {heads}")
    width = int(min(read.number("ffn_dim_multiplier", 1.0), LARGEST) * int(8 * dim / 3))
    multiple, theta = read.integer("multiple_of", 256), read.number("rope_theta", 10000.0)
    scaled, eps = read.boolean("use_scaled_rope", False), read.number("norm_eps", None)
    unknown = sorted(params.keys() - read.used - _HARMLESS - {"vocab_size", "rope_scaling"})
    if unknown:
        raise UserError(f"{where}: unknown key '{unknown[0]}'{closest(unknown[0], read.used)}: it might change the "
                        "mathematics, so it is not ignored")
    scaling = rope_scaling or params.get("rope_scaling")
    if scaled and scaling is None:
        if sizes not in FACTORS:
            raise UserError(f"{where}: use_scaled_rope does not say by which factor, and no published model has these "
                            "sizes; give rope_scaling (as in Hugging Face's config.json), or write it into this file")
        scaling = _SCALING | {"factor": FACTORS[sizes]}
    # params.json does not give the longest text either: these are the lengths of Llama 3.1, 3, 2 and 1 as published.
    positions = 131072 if scaled else 8192 if theta > 10000 else 4096 if eps > 1e-6 else 2048
    return LlamaConfig.from_dict({
        "model_type": "llama", "hidden_size": dim, "intermediate_size": -(-width // multiple) * multiple,
        "num_hidden_layers": sizes[1], "num_attention_heads": heads, "num_key_value_heads": sizes[3],
        "vocab_size": vocab_size, "rms_norm_eps": eps, "rope_theta": theta, "rope_scaling": scaling,
        "max_position_embeddings": positions, "tie_word_embeddings": tied, "dtype": dtype,
    }, where)  # fmt: skip


@dataclass(frozen=True)
class Header:
    """dtype and shape of a tensor, with the methods of safetensors' slices."""

    dtype: str
    shape: tuple[int, ...]

    def get_dtype(self) -> str:
        return self.dtype

    def get_shape(self) -> tuple[int, ...]:
        return self.shape


class MetaFiles:
    """The open consolidated files of a folder, as one Hugging Face file: `keys`, `get_tensor`, `get_slice`.

    Raises `UserError` for files that are not plain state dicts, and for tensors that are missing, unknown, or not
    slices of the same shape in each.
    """

    def __init__(self, folder: Path):
        self.where, self.paths = folder / PARAMS, consolidated(folder)
        self.params = read_json(self.where)
        if not isinstance(self.params, dict):
            raise UserError(f"{self.where}: holds a {type(self.params).__name__}; an object with keys was expected")
        layers, self.dim = (Reader(self.params, str(self.where)).integer(key) for key in ("n_layers", "dim"))
        self.parts = [_open(path) for path in self.paths]
        self.names = {f"{name}.weight": f"{own}.weight" for name, own in _OF_MODEL.items()} | {
            f"model.layers.{layer}.{name}.weight": f"layers.{layer}.{own}.weight"
            for layer in range(layers) for name, own in _OF_LAYER.items()}  # fmt: skip
        if "output.weight" not in self.parts[0]:
            del self.names["lm_head.weight"]
        self._check(folder)

    def _check(self, folder: Path) -> None:
        """Compare names and shapes in all files with what the layers need, and with one another."""
        expected, first = set(self.names.values()), self.parts[0]
        for path, part in zip(self.paths, self.parts, strict=True):
            unknown, missing = sorted(part.keys() - expected), sorted(expected - part.keys())
            if unknown:
                raise UserError(f"{path}: unknown tensor {unknown[0]}{closest(unknown[0], expected)}; {PARAMS} "
                                f"{'and the files before it describe' if part is not first else 'describes'} no such "
                                "weight")
            if missing:
                more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
                raise UserError(f"{path}: tensor {missing[0]}{more} is not in it; {PARAMS} calls for it")
            for name, tensor in part.items():
                wanted = 1 if name.endswith("norm.weight") else 2
                if tensor.ndim != wanted or tensor.shape != first[name].shape:
                    raise UserError(f"{path}: tensor {name} has shape {tuple(tensor.shape)}; {wanted} dimensions, the "
                                    f"same as in {self.paths[0].name}, were expected")
        count = self.dim / max(first["layers.0.attention.wq.weight"].shape[0], 1)
        if count != len(self.parts) and count in (1, 2, 4, 8, 16, 32):
            raise UserError(f"{folder}: holds {len(self.parts)} consolidated files; by their shapes it should be "
                            f"{count:.0f}")

    def config(self, rope_scaling: dict | None = None) -> LlamaConfig:
        """What params.json and the tensors' shapes say; see `to_config`."""
        given, found = self.params.get("vocab_size"), self.get_slice("model.embed_tokens.weight").get_shape()[0]
        if given not in (None, -1, found):
            raise UserError(f"{self.where}: vocab_size is {given!r}, but the embedding has {found} rows")
        dtype = str(self.parts[0]["norm.weight"].dtype).removeprefix("torch.")
        return to_config(self.params, str(self.where), rope_scaling, vocab_size=found, tied=self._tied(), dtype=dtype)

    def _tied(self) -> bool:
        """Whether the head is the embedding: absent, or present with the same numbers."""
        pairs = [(part.get("output.weight"), part["tok_embeddings.weight"]) for part in self.parts]
        return all(head is None or ((head.shape, head.dtype) == (table.shape, table.dtype) and all(
            map(torch.equal, head.split(4096), table.split(4096)))) for head, table in pairs)

    def keys(self) -> list[str]:
        return list(self.names)

    def get_slice(self, name: str) -> Header:
        part, axis = self.parts[0][self.names[name]], self._axis(name)
        shape = [size * (len(self.parts) if index == axis else 1) for index, size in enumerate(part.shape)]
        return Header(DTYPES.get(part.dtype, str(part.dtype)), tuple(shape))

    def get_tensor(self, name: str) -> torch.Tensor:
        """The whole tensor in Hugging Face's order of rows: a view of the memory map if nothing is joined or moved.

        Raises `UserError` if a norm, which every file has in full, is not the same in all of them.
        """
        parts, axis = [part[self.names[name]] for part in self.parts], self._axis(name)
        if axis is None:
            for path, part in zip(self.paths, parts, strict=True):
                if not torch.equal(part, parts[0]):
                    raise UserError(f"{path}: tensor {self.names[name]} differs from that in {self.paths[0].name}; the "
                                    "files are not of one model")
        tensor = parts[0] if axis is None or len(parts) == 1 else torch.cat(parts, axis)
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            return half_split(tensor, self.dim // self.params["n_heads"])
        return tensor

    def _axis(self, name: str) -> int | None:
        """Along which axis the files' slices are joined; `None` if each has the whole."""
        part = self.parts[0][self.names[name]]
        if part.ndim == 1:
            return None
        by_columns = name.endswith(("o_proj.weight", "down_proj.weight")) or (
            name == "model.embed_tokens.weight" and part.shape[1] != self.dim)
        return int(by_columns)


def half_split(weight: torch.Tensor, head_dim: int) -> torch.Tensor:
    """Rows of a query or key projection (heads * h, D) from pairs side by side to pairs h/2 apart, head by head.

    Row 2i goes to i and row 2i + 1 to i + h/2: `[0, 1, 2, 3, 4, 5] -> [0, 2, 4, 1, 3, 5]` for h = 6.
    """
    return weight.view(-1, head_dim // 2, 2, weight.shape[-1]).transpose(1, 2).reshape(weight.shape)


def _open(path: Path) -> dict[str, torch.Tensor]:
    """A file's tensors by name, mapped and not yet read; old copies of the rotary frequencies are left out."""
    with open_plain(path) as handle:
        head = handle.read(64)
    if head.startswith(b"version https://git-lfs"):
        raise UserError(f"{path}: is a git-lfs pointer, not the weights; run `git lfs pull` in that folder")
    if not head.startswith(b"PK\x03\x04"):
        raise UserError(f"{path}: is not a file of PyTorch 1.6 or later; download it again, or save it anew")
    try:
        state = read_state(path, mmap=True)
    except Exception as error:  # a damaged or hostile pickle can fail in any way
        raise UserError(f"{path}: is not a plain state dict, whole and of nothing but tensors "
                        f"({type(error).__name__}); anything else is not opened, because it can run code") from error
    if not isinstance(state, dict):
        raise UserError(f"{path}: is not a plain state dict but a {type(state).__name__}; names and tensors were "
                        "expected")
    for name, value in state.items():
        if not isinstance(name, str) or not is_plain(value):
            raise UserError(f"{path}: is not a plain state dict: under {str(name)[:60]!r} it holds a "
                            f"{type(value).__name__}; names and tensors were expected")
    return {name: value.detach() for name, value in state.items() if not name.endswith("rope.freqs")}
