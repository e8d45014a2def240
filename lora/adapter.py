"""Adapters in and out, in the public layout of PEFT: `adapter_config.json` and `adapter_model.safetensors`.

Reading is strict. Every tensor must belong to a module that the config selects, every such module must have both of its
tensors in the right shape, and any setting that changes the mathematics and is not supported here (DoRA, trained
biases, fully trained modules, ...) is refused by name. Settings that only record how the adapter was trained are
ignored. An unknown setting is refused unless it is off (null, false, empty).

Supported beyond the plain case: `rank_pattern`, `alpha_pattern`, `use_rslora`, `exclude_modules`,
`layers_to_transform` with `layers_pattern`. Writing uses only settings that PEFT has had since version 0.9.
"""

import math
import re
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from common.errors import UserError, closest
from common.files import atomic_folder, atomic_write, read_json, write_json
from common.patterns import Matcher, check_expression
from common.reading import check_header
from lora.inject import ALL, adapters, by_pattern, linears, match, replace
from lora.layer import LoRALinear

CONFIG, TENSORS, PREFIX = "adapter_config.json", "adapter_model.safetensors", "base_model.model."
MOST = 2**20  # bytes of an adapter_config.json; a rank of its own for every linear of the largest Llama takes a tenth
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_OURS = {CONFIG, TENSORS, "README.md"}  # what an adapter folder may hold and still be overwritten
# Read by `read_config`, or about training and provenance only: no effect on what a loaded adapter computes.
_READ = {"peft_type", "r", "lora_alpha", "lora_dropout", "target_modules", "use_rslora", "rank_pattern",
         "alpha_pattern", "exclude_modules", "layers_to_transform", "layers_pattern", "base_model_name_or_path",
         "revision"}
_NO_EFFECT = {"task_type", "auto_mapping", "peft_version", "inference_mode", "megatron_core",
              "qalora_group_size", "eva_config", "corda_config", "lora_ga_config", "loftq_config", "runtime_config",
              "ensure_weight_tying"}
_WHOLE = {"modules_to_save": "the adapter brings these modules whole, trained beside it",
          "trainable_token_indices": "the adapter brings rows of the embedding, trained beside it"}  # fmt: skip
_MERGE = "let PEFT merge the adapter into its base (merge_and_unload), and give the model that this makes"
_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")  # others also change the base they are used with


@dataclass(frozen=True)
class AdapterConfig:
    """What `adapter_config.json` says, as far as it decides the result."""

    r: int
    alpha: float
    dropout: float
    targets: str | tuple[str, ...]
    rslora: bool = False
    rank_pattern: dict[str, int] = field(default_factory=dict)
    alpha_pattern: dict[str, float] = field(default_factory=dict)
    exclude: str | tuple[str, ...] = ()
    layers: tuple[int, ...] = ()
    layers_pattern: tuple[str, ...] = ()
    base_name: str | None = None
    revision: str | None = None  # of the base, if its name is one on the Hugging Face Hub

    def modules(self, names: list[str], where: str = CONFIG) -> list[str]:
        """Those of `names` that get an adapter, by PEFT's rules; errors begin with `where`."""
        chosen, _ = match(names, self.targets, f"{where}: target_modules")
        named = () if isinstance(self.targets, str) else self.targets  # whole names, which no layer's number narrows
        excluder, matcher = Matcher(f"{where}: exclude_modules"), Matcher(f"{where}: layers_pattern")
        return [name for name in chosen if not self._excluded(name, excluder) and (
            not self.layers or name in named or self._layer(name, matcher) in self.layers)]

    def _excluded(self, name: str, matcher: Matcher) -> bool:
        """A string is a regular expression for the whole name; a list holds names and ends of names."""
        if isinstance(self.exclude, str):
            return bool(matcher.full(self.exclude, name))
        return any(name == part or name.endswith(f".{part}") for part in self.exclude)

    def _layer(self, name: str, matcher: Matcher) -> int | None:
        patterns = [rf"(?:^|.*?\.){part}\.(\d+)\." for part in self.layers_pattern] or [r".*?\.[^.]*\.(\d+)\."]
        found = next((hit for hit in (matcher.start(pattern, name) for pattern in patterns) if hit), None)
        number = found[found.re.groups] if found else None  # the last group: the part may have groups of its own
        return int(number) if number and number.isdecimal() else None


def read_config(folder: str | Path) -> AdapterConfig:
    """Read and check `adapter_config.json`; `UserError` names the file, the key, and what would be right."""
    path = Path(folder) / CONFIG
    if not path.is_file():
        raise UserError(f"{folder}: has no {CONFIG}; give a folder that holds a PEFT adapter")
    raw = read_json(path, MOST, once=True)
    if not isinstance(raw, dict):
        raise UserError(f"{path}: an object was expected")
    if str(raw.get("peft_type")).upper() != "LORA":
        raise UserError(f"{path}: peft_type is {raw.get('peft_type')!r}; only LORA adapters are read")
    if raw.get("init_lora_weights") not in _STARTS:
        raise UserError(f"{path}: init_lora_weights {raw['init_lora_weights']!r} means a base with changed weights, "
                        "which is not supported; convert the adapter to plain LoRA with PEFT first")
    if raw.get("bias", "none") != "none":
        raise UserError(f"{path}: bias {raw['bias']!r} is not supported; adapters here train no bias ('none')")
    for key, value in raw.items():
        if value and key in _WHOLE:
            raise UserError(f"{path}: {key} = {value!r}: {_WHOLE[key]}, which is not read; {_MERGE}")
        if value and key not in _READ | _NO_EFFECT | {"bias", "init_lora_weights"}:
            raise UserError(f"{path}: {key} = {value!r} is not supported, and it could change the result; {_MERGE}")

    def get(key, kinds, right, default=None, good=lambda value: True):
        value = raw.get(key)
        value = default if value is None else value
        if not isinstance(value, kinds) or isinstance(value, bool) != (kinds is bool) or not good(value):
            raise UserError(f"{path}: {key} is {value!r}; {right} was expected")
        return value

    def words(key, default=None):
        good = lambda value: value != [] and all(isinstance(word, str) for word in value)  # noqa: E731
        value = get(key, (str, list, tuple), "a name, a list of names or a regular expression", default, good)
        for word in [value] if isinstance(value, str) else value:
            check_expression(word, f"{path}: {key}")
        return value if isinstance(value, str) else tuple(value)

    def pattern(key, kinds, right):
        value = get(key, dict, "an object of module names and numbers", {})
        for name, number in value.items():
            if isinstance(number, bool) or not isinstance(number, kinds) or not 0 < number < math.inf:
                raise UserError(f"{path}: {key}: {name} is {number!r}; {right} was expected")
            check_expression(name, f"{path}: {key}")
        return value

    layers = get("layers_to_transform", (int, list), "a layer's number or a list of them", default=[],
                 good=lambda value: isinstance(value, int) or all(type(n) is int for n in value))
    return AdapterConfig(
        r=get("r", int, "a whole number from 1 up", good=lambda value: value > 0),
        alpha=get("lora_alpha", (int, float), "a positive number", good=lambda value: 0 < value < math.inf),
        dropout=get("lora_dropout", (int, float), "a number from 0 to below 1", 0.0, lambda value: 0 <= value < 1),
        targets=words("target_modules"),
        rslora=get("use_rslora", bool, "true or false", False),
        rank_pattern=pattern("rank_pattern", int, "a whole number from 1 up"),
        alpha_pattern=pattern("alpha_pattern", (int, float), "a positive number"),
        exclude=words("exclude_modules", ()) if raw.get("exclude_modules") else (),
        layers=(layers,) if isinstance(layers, int) else tuple(layers),
        layers_pattern=_as_tuple(words("layers_pattern")) if raw.get("layers_pattern") else (),
        base_name=get("base_model_name_or_path", str, "text", "") or None,
        revision=get("revision", str, "text", "") or None,
    )


def _as_tuple(value: str | tuple[str, ...]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value


def adapter_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Every A (r, in) and B (out, r), float32 on the CPU, under PEFT's names."""
    tensors = {}
    for name, layer in adapters(model).items():
        tensors[f"{PREFIX}{name}.lora_A.weight"] = layer.lora_A.detach().cpu().contiguous()
        tensors[f"{PREFIX}{name}.lora_B.weight"] = layer.lora_B.detach().cpu().contiguous()
    return tensors


def adapter_config(model: nn.Module, base_name: str | None) -> dict:
    """The `adapter_config.json` of the model's adapters: the commonest rank and alpha, others as patterns."""
    layers = adapters(model)
    if not layers:
        raise ValueError("the model carries no adapter")
    if len({(layer.dropout, layer.rslora) for layer in layers.values()}) > 1:
        raise ValueError("one adapter folder cannot hold two dropouts, or rsLoRA for some modules only")
    some = next(iter(layers.values()))
    r = Counter(layer.r for layer in layers.values()).most_common(1)[0][0]
    alpha = Counter(layer.alpha for layer in layers.values()).most_common(1)[0][0]
    leaves = sorted({name.rpartition(".")[2] for name in layers})
    covered, _ = match(linears(model), leaves)
    return {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base_name, "revision": None,
        "r": r, "lora_alpha": alpha, "lora_dropout": some.dropout, "use_rslora": some.rslora, "use_dora": False,
        "target_modules": leaves if set(covered) == set(layers) else sorted(layers),
        "rank_pattern": {name: layer.r for name, layer in layers.items() if layer.r != r},
        "alpha_pattern": {name: layer.alpha for name, layer in layers.items() if layer.alpha != alpha},
        "bias": "none", "fan_in_fan_out": False, "init_lora_weights": True, "modules_to_save": None,
        "layers_to_transform": None, "layers_pattern": None, "inference_mode": True, "auto_mapping": None,
    }  # fmt: skip


def save_adapter(model: nn.Module, folder: str | Path, base_name: str | None = None) -> None:
    """Write the model's adapters as a PEFT folder, whole or not at all; an older adapter there is replaced.

    Raises `UserError` if `folder` holds anything but an adapter.
    """
    folder = Path(folder)
    strange = [path.name for path in folder.iterdir() if path.name not in _OURS] if folder.is_dir() else []
    if strange or folder.is_file():
        raise UserError(f"{folder}: holds {strange[0]}, so it is not an adapter folder; choose another place"
                        if strange else f"{folder}: is a file; choose another place")
    config, tensors = adapter_config(model, base_name), adapter_tensors(model)
    with atomic_folder(folder) as beside:
        write_json(beside / CONFIG, config)
        with atomic_write(beside / TENSORS, "wb") as handle:
            handle.write(save(tensors, metadata={"format": "pt"}))


def load_adapter(model: nn.Module, folder: str | Path, trainable: bool = False) -> list[str]:
    """Wrap the model's linears with the adapter in `folder`; returns their names in the model's order.

    A and B become float32 masters; they require gradients if `trainable`, and nothing else does. Raises `UserError`,
    naming the file and the tensor or key, for anything that does not fit; the model is then unchanged.
    """
    folder = Path(folder)
    if adapters(model):
        raise UserError(f"{folder}: the model already carries an adapter; take it off with lora.inject.remove")
    config, every = read_config(folder), linears(model)
    names = config.modules(list(every), str(folder / CONFIG))
    if not names:
        leaves = sorted({name.rpartition(".")[2] for name in every})
        raise UserError(f"{folder / CONFIG}: target_modules {config.targets!r} matches no linear of this model; "
                        f"there are {', '.join(leaves)}, or {ALL}")
    wrapped, expected, matcher = {}, {}, Matcher(f"{folder / CONFIG}: rank_pattern, alpha_pattern")
    for name in names:
        base = every[name]
        r = by_pattern(config.rank_pattern, name, config.r, matcher)
        alpha = by_pattern(config.alpha_pattern, name, config.alpha, matcher)
        expected[f"{PREFIX}{name}.lora_A.weight"] = (r, base.in_features)
        expected[f"{PREFIX}{name}.lora_B.weight"] = (base.out_features, r)
        wrapped[name] = (r, alpha)
    tensors = _read_tensors(folder, expected, f"; it was made for {config.base_name}" if config.base_name else "",
                            model.config.vocab_size)
    if not any(tensors[f"{PREFIX}{name}.lora_B.weight"].any() for name in names):
        print(f"  warning: {folder / TENSORS}: every lora_B is zero, so this adapter changes nothing; it was saved "
              "before it was trained, or its training did not reach it", file=sys.stderr)
    model.requires_grad_(False)
    for name, (r, alpha) in wrapped.items():
        layer = LoRALinear(every[name], r, alpha, config.dropout, config.rslora)
        with torch.no_grad():
            layer.lora_A.copy_(tensors[f"{PREFIX}{name}.lora_A.weight"])
            layer.lora_B.copy_(tensors[f"{PREFIX}{name}.lora_B.weight"])
        replace(model, name, layer.requires_grad_(False))
        layer.lora_A.requires_grad_(trainable)
        layer.lora_B.requires_grad_(trainable)
    return names


def _read_tensors(folder: Path, expected: dict[str, tuple[int, ...]], hint: str, vocab_size: int
                  ) -> dict[str, torch.Tensor]:
    """Exactly the expected tensors, finite and in the expected shapes; `hint` says which base they are for."""
    path = folder / TENSORS
    if not path.is_file():
        pickle = (folder / "adapter_model.bin").exists()
        why = " (adapter_model.bin is a pickle, which is not opened)" if pickle else ""
        raise UserError(f"{folder}: has no {TENSORS}{why}; give a folder that holds a PEFT adapter")
    check_header(path)
    try:
        with safe_open(path, framework="pt", device="cpu") as handle:
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path}: is not a whole safetensors file ({error}); save the adapter again") from error
    for name, tensor in tensors.items():
        if name not in expected:
            why = _why_outside(name, tensor.shape, vocab_size)
            if why:
                raise UserError(f"{path}: tensor {name} {why} {_MERGE}")
            raise UserError(f"{path}: unknown tensor {name}{closest(name, expected)}; {CONFIG} and the model mean no "
                            f"such tensor{hint}")
        if tuple(tensor.shape) != expected[name]:
            raise UserError(f"{path}: tensor {name} has shape {tuple(tensor.shape)}; {CONFIG} and the model call for "
                            f"{expected[name]}{hint}")
        if tensor.dtype not in DTYPES:
            raise UserError(f"{path}: tensor {name} is of {tensor.dtype}; float32, float16 or bfloat16 was expected")
        if not bool(torch.isfinite(tensor).all()):
            raise UserError(f"{path}: tensor {name} holds values that are not finite numbers; the file is damaged")
    missing = [name for name in expected if name not in tensors]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UserError(f"{path}: tensor {missing[0]}{more} is not in it, although {CONFIG} includes its module{hint}")
    return tensors


def _why_outside(name: str, shape: torch.Size, vocab_size: int) -> str:
    """What a tensor of the embedding or the output head does in an adapter's file; empty for other tensors."""
    found = re.search(r"\.(embed_tokens|lm_head)\.(.*)", name)
    if found is None:
        return ""
    what = "the output head" if found[1] == "lm_head" else "the embedding"
    if "lora_" in found[2]:
        return f"adapts {what}, which is not read: only linears of the decoder's layers carry adapters here;"
    if shape[:1] != (vocab_size,):
        return (f"is {what} of a changed vocabulary, {tuple(shape)} where the model has {vocab_size:,} tokens, which "
                "is not read;")
    return (f"is {what}, saved whole with the adapter, which is not read; if it was not trained, save the adapter with "
            "save_embedding_layers=False; if it was,")
