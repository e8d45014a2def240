"""Base and adapter as one model's tensors, W + s B A, each computed when it is read.

    tensors = MergedTensors(base, adapter=run / "adapter", quantize="nf4", dtype=torch.bfloat16)
    tensors["model.layers.0.mlp.up_proj.weight"]        read, dequantised, added to, rounded; then released
    for name, tensor in tensors.items(): ...            the whole model, with the memory of its largest tensor

The merging itself is done by `LoRALinear.dense_weight`, the one place that knows the formula. The model is built on the
meta device, as in `assemble`, but each linear is a `FileLinear`, which holds no weight and reads it from the file on
demand. The adapter is then loaded around these linears as around any others.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

import torch
from torch import nn

from common.errors import UserError
from common.files import read_json, write_json
from common.safetensors_writer import Form, safetensors_writer
from loading.assemble import place
from loading.weights import INDEX, SINGLE, expected_shapes, find_checkpoint, read_config, read_weights
from lora.adapter import load_adapter
from lora.inject import replace
from model.config import LlamaConfig
from model.llama import LlamaForCausalLM
from quant.convert import dense_linears
from quant.double_quant import Scales
from quant.nf4 import dequantize_nf4, quantize_nf4
from quant.stored import check_quantization, read_group

EMBEDDING = "model.embed_tokens.weight"


class FileLinear(nn.Module):
    """A linear of the contract whose weight (out, in) stays in its file; `read(dtype)` reads it anew each time."""

    def __init__(self, shape: tuple[int, int], read: Callable[[torch.dtype], torch.Tensor]):
        super().__init__()
        (self.out_features, self.in_features), self.bias, self._read = shape, None, read
        self.register_buffer("nothing", torch.empty(0))  # an adapter goes to the device of its base's tensors

    def dense_weight(self, dtype: torch.dtype) -> torch.Tensor:
        """W as a plain tensor (out, in) of `dtype`."""
        return self._read(dtype)


class MergedTensors(Mapping[str, torch.Tensor]):
    """Every tensor of the merged model under its Hugging Face name, in the model's order.

    path: the base's folder. adapter: a PEFT folder, or `None` for the base alone. quantize: "nf4" or "nf4-double" takes
    the linears of the layers as such a base has them (quantised, then dequantised); "none" as the files have them,
    dequantised if in 4 bits. dtype: of every tensor, rounded from the float32 in which it is computed; "stored" is the
    embedding's in the file; `None` rounds nothing: linears of the layers are float32, all else is as in the file.

    Attributes: `config`; `dtype`; `layout`, name -> dtype and shape; `linears`, the weights of the layers' linears;
    `packed`, whether the files hold any in 4 bits. `on_read` is called with no argument after each tensor.
    Raises `UserError`, naming file and tensor, for what `load_model` refuses and for values that `dtype` cannot hold.
    """

    def __init__(self, path, *, adapter=None, quantize: str = "none", dtype: torch.dtype | str | None = None):
        self.folder = folder = find_checkpoint(path)
        self.config = read_config(folder)
        self._model = LlamaForCausalLM.empty(self.config)
        self._shapes = expected_shapes(self._model)
        self._weights = read_weights(folder, self.config, self._shapes)
        self.linears = frozenset(f"{name}.weight" for name in dense_linears(self._model))
        self.packed = self.config.quantization is not None
        if self.packed:
            check_quantization(self.config.quantization, self._weights.groups, self.linears,
                               f"{folder / 'config.json'}: quantization_config")
        self.dtype = self._weights.form(EMBEDDING)[0] if dtype == "stored" else dtype
        self._quantize, self.on_read = quantize, lambda: None
        for name in self.linears:
            linear = FileLinear(self._shapes[name], partial(self._read, name))
            replace(self._model, name.removesuffix(".weight"), linear)
        if adapter is not None:
            load_adapter(self._model, adapter)

    @property
    def layout(self) -> dict[str, Form]:
        """dtype and shape of each tensor; only the files' headers are read for it."""
        return {name: (self.dtype or (torch.float32 if name in self.linears else self._weights.form(name)[0]), shape)
                for name, shape in self._shapes.items()}

    def __len__(self) -> int:
        return len(self._shapes)

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __getitem__(self, name: str) -> torch.Tensor:
        if name in self.linears:
            tensor = self._model.get_submodule(name.removesuffix(".weight")).dense_weight(self.dtype or torch.float32)
        else:
            tensor = self._weights.tensor(name)  # a KeyError for a name that the model does not have
            tensor = tensor.to(self.dtype or tensor.dtype)
        if tensor.numel() and not bool(torch.isfinite(torch.stack(tensor.aminmax())).all()):
            raise UserError(f"{self._weights.owner[name]}: tensor {name} has values that are not finite in "
                            f"{tensor.dtype}; with float16 take bfloat16, else the file is damaged")
        self.on_read()
        return tensor

    def _read(self, name: str, dtype: torch.dtype) -> torch.Tensor:
        """The base's weight (out, in) as the model was given it, in `dtype`."""
        shape, where = self._shapes[name], f"{self._weights.owner[name]}: tensor {name}"
        group = self._weights.groups.get(name)
        if group is not None:
            packed, scales = read_group({part: self._weights.tensor(whole) for part, whole in group.items()}, shape,
                                        where)
        elif self._quantize == "none":
            return self._weights.tensor(name).to(dtype)
        else:
            packed, absmax = quantize_nf4(self._weights.tensor(name), where)
            scales = Scales.of(absmax)
        scales = scales.kept(double=scales.is_double or self._quantize == "nf4-double")
        return dequantize_nf4(packed, scales.absmax(), shape, dtype)


def build_model(config: LlamaConfig, tensors: Iterable[tuple[str, torch.Tensor]], dtype: torch.dtype = torch.float32
                ) -> LlamaForCausalLM:
    """A model in memory from such tensors, in any order; computes in `dtype`, embedding and head stay as they come."""
    model = LlamaForCausalLM.empty(config)
    for name, tensor in tensors:
        place(model, name, tensor, Path(name), torch.device("cpu"), dtype)
    return model.requires_grad_(False).eval()


def plan_shards(layout: Mapping[str, Form], largest: int) -> list[list[str]]:
    """Names, file by file, of `largest` bytes at most, as transformers (huggingface_hub) parts them.

    In the layout's order; a tensor that is larger by itself gets a file of its own, in front of the one being filled.
    """
    shards, filling, size = [], [], 0
    for name, (dtype, shape) in layout.items():
        count = math.prod(shape) * dtype.itemsize
        if count > largest:
            shards.append([name])
            continue
        if size + count > largest:
            shards.append(filling)
            filling, size = [], 0
        filling.append(name)
        size += count
    return [*shards, filling] if filling else shards


def write_shards(folder: str | Path, tensors: MergedTensors, largest: int) -> int:
    """Write the tensors as `model.safetensors`, or as shards with an index; returns how many files these are.

    Each file is whole or absent. Raises `UserError` if one cannot be written.
    """
    folder, layout = Path(folder), tensors.layout
    shards = plan_shards(layout, largest)
    files = [f"model-{number:05d}-of-{len(shards):05d}.safetensors" for number in range(1, len(shards) + 1)]
    for file, names in zip([SINGLE] if len(shards) == 1 else files, shards, strict=True):
        with safetensors_writer(folder / file, {name: layout[name] for name in names}) as put:
            for name in names:
                put(name, tensors[name])
    if len(shards) > 1:
        counts = {name: math.prod(shape) for name, (_, shape) in layout.items()}
        size = sum(layout[name][0].itemsize * count for name, count in counts.items())
        places = {name: file for file, names in zip(files, shards, strict=True) for name in names}
        write_json(folder / INDEX, {
            "metadata": {"total_parameters": sum(counts.values()), "total_size": size},
            "weight_map": dict(sorted(places.items())),
        })  # fmt: skip
    return len(shards)


def merged_config(tensors: MergedTensors) -> dict:
    """The merged model's config.json: the base's, dense, with its dtype and without the base's path."""
    path = tensors.folder / "config.json"
    config = read_json(path) if path.exists() else tensors.config.to_dict()  # Meta's folders have none
    written = [key for key in ("dtype", "torch_dtype") if key in config] or ["torch_dtype"]
    config |= dict.fromkeys(written, str(tensors.dtype).removeprefix("torch."))
    return {key: value for key, value in config.items() if key not in ("quantization_config", "_name_or_path")}
