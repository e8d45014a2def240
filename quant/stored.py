"""NF4 weights on disk, as bitsandbytes and transformers write them: what each tensor means, read and written.

A linear's weight X (out, in) of n numbers, in blocks of 64, is these tensors:

    X                 uint8 (ceil(n/2), 1)      two codes a byte; or the same bytes as numbers of another dtype, which
                                                `bnb_4bit_quant_storage` names
    X.absmax          float32 (ceil(n/64),)     scales; with double quantisation uint8, their codes
    X.quant_map       float32 (16,)             the NF4 table
    X.quant_state.bitsandbytes__nf4   uint8     JSON: quant_type, blocksize, dtype, shape
    X.nested_absmax, X.nested_quant_map         with double quantisation: float32 (ceil(blocks/256),) and (256,); then
                                                the JSON has nested_blocksize, nested_dtype and nested_offset as well

and config.json has a `quantization_config`. The JSON's dtype is the weight's before quantisation. Reading does not need
it: weights go straight into the compute dtype. Everything is checked: a weight read with another table or block size
would be finite, of the right shape, and wrong.
"""

import json
import math
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import torch

from common.errors import UserError, closest
from common.files import write_json
from common.patterns import Matcher, check_expression
from common.reading import Unreadable, json_value
from common.safetensors_writer import Form, safetensors_writer
from quant.double_quant import NESTED_BLOCK, Scales, dynamic_map
from quant.nf4 import BLOCK, NF4_CODE, block_count, dequantize_nf4, packed_bytes, quantize_nf4

STATE = "quant_state.bitsandbytes__nf4"
PACKED = "packed"  # a group's key for the weight's own tensor; the other keys are the suffixes of its name
DTYPES = ("float32", "float16", "bfloat16")
MOST = 10_000  # bytes of a weight's JSON; it takes some two hundred
_LARGEST = torch.finfo(torch.float32).max
_ULP = 2.0**-23  # the dynamic map is computed by the file's writer, whose last bit may differ from ours
# quantization_config: keys that are read here, with the values that they may have, and keys of other computations.
_NEEDED = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
_FIXED = {"quant_method": "bitsandbytes", "_load_in_4bit": True}
_STORAGE = "bnb_4bit_quant_storage"
_STORAGES = {name: getattr(torch, name) for name in ("uint8", "int8", *DTYPES, "float64")}
_EIGHT_BITS = ("load_in_8bit", "_load_in_8bit")
_HARMLESS = {"bnb_4bit_compute_dtype", "bnb_4bit_use_double_quant", "llm_int8_enable_fp32_cpu_offload",
             "llm_int8_has_fp16_weight", "llm_int8_threshold", "llm_int8_skip_modules"}


def group_layout(shape: tuple[int, ...], double: bool) -> dict[str, Form]:
    """dtype and shape of each tensor that a weight of `shape` becomes; the JSON's length (`None`) varies."""
    n = math.prod(shape)
    forms = {PACKED: (torch.uint8, (packed_bytes(n), 1)), "quant_map": (torch.float32, (16,)),
             "absmax": (torch.uint8 if double else torch.float32, (block_count(n),)), STATE: (torch.uint8, None)}
    if double:
        nested = -(-block_count(n) // NESTED_BLOCK)
        forms |= {"nested_absmax": (torch.float32, (nested,)), "nested_quant_map": (torch.float32, (256,))}
    return forms


def read_group(group: Mapping[str, torch.Tensor], shape: tuple[int, ...], where: str) -> tuple[torch.Tensor, Scales]:
    """Turn the tensors of one weight into what `NF4Linear.load_packed` takes: packed bytes and scales.

    The result shares the tensors' memory. Raises `UserError`, beginning with `where`, for whatever differs from the
    table above.
    """
    state = _read_state(group, shape, where)
    double = "nested_offset" in state
    layout = group_layout(shape, double)
    packed = group[PACKED]
    if packed.dtype in _STORAGES.values() and packed.nbytes == math.prod(layout[PACKED][1]):
        group = {**group, PACKED: packed.reshape(-1).view(torch.uint8)}  # the very bytes: no number is read
    for part in sorted(group.keys() | layout.keys()):
        name = part if part == PACKED else f".{part}"
        if part not in group or part not in layout:
            raise UserError(f"{where}: {name} is {'missing' if part in layout else 'unknown'}; its quant_state means "
                            f"{'double' if double else 'single'} quantisation")
        (dtype, size), tensor = layout[part], group[part]
        if tensor.dtype != dtype or (size is not None and tensor.numel() != math.prod(size)):
            raise UserError(f"{where}: {name} is {tensor.dtype} {tuple(tensor.shape)}; a weight of {tuple(shape)} has "
                            f"{dtype} {size}")
    if not torch.equal(group["quant_map"], NF4_CODE):
        raise UserError(f"{where}: .quant_map is not the NF4 table; weights with another table are not read")
    if not double:
        return group[PACKED], Scales((group["absmax"],))
    if not bool(((group["nested_quant_map"] - dynamic_map()).abs() <= _ULP).all()):
        raise UserError(f"{where}: .nested_quant_map is not bitsandbytes' signed dynamic map; another is not read")
    offset = torch.tensor(float(state["nested_offset"]))
    return group[PACKED], Scales((group["absmax"], group["nested_absmax"], offset))


def _read_state(group: Mapping[str, torch.Tensor], shape: tuple[int, ...], where: str) -> dict:
    """The JSON beside a packed weight, each value checked."""
    kinds = sorted(part for part in group if part.startswith("quant_state."))
    if kinds != [STATE]:
        found = f"has {kinds[0]}" if kinds else "is 4-bit without its quant_state"
        raise UserError(f"{where}: {found}; {STATE} beside it was expected")
    try:
        if group[STATE].numel() > MOST:
            raise Unreadable(f"has {group[STATE].numel():,} bytes; at most {MOST:,} are read")
        state = json_value(bytes(group[STATE].tolist()))
    except Unreadable as error:
        raise UserError(f"{where}: .{STATE} {error}") from error
    except (ValueError, TypeError) as error:
        raise UserError(f"{where}: .{STATE} is not JSON") from error
    fixed = {"quant_type": ("nf4",), "blocksize": (BLOCK,), "dtype": DTYPES, "shape": (list(shape),)}
    if isinstance(state, dict) and any(key.startswith("nested") for key in state):
        fixed |= {"nested_blocksize": (NESTED_BLOCK,), "nested_dtype": ("float32",), "nested_offset": None}
    if not isinstance(state, dict) or state.keys() != fixed.keys():
        found = ", ".join(state) if isinstance(state, dict) else ""
        raise UserError(f"{where}: .{STATE} has {found or 'nothing'}; {', '.join(fixed)} were expected")
    for key, allowed in fixed.items():
        value = state[key]
        if allowed is not None and value not in allowed:
            raise UserError(f"{where}: .{STATE}: {key} is {value!r}; only {' or '.join(map(repr, allowed))} is read")
    offset = state.get("nested_offset", 0.0)
    if isinstance(offset, bool) or not isinstance(offset, int | float) or not abs(offset) <= _LARGEST:
        raise UserError(f"{where}: .{STATE}: nested_offset is {offset!r}; a finite float32 was expected")
    return state


def unpacked(packed: torch.Tensor, scales: Scales, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """The result of `read_group` as a dense weight of `dtype`, multiplied in float32.

    Raises `UserError`, beginning with "weight: ", if it is not finite.
    """
    weight = dequantize_nf4(packed, scales.absmax(), shape, dtype)
    if weight.numel() and not bool(torch.isfinite(torch.stack(weight.aminmax())).all()):
        raise UserError("weight: its scales hold an infinity or NaN; they must be finite float32 numbers")
    return weight


def make_group(packed: torch.Tensor, scales: Iterable[torch.Tensor], shape: tuple[int, ...], dtype: str
               ) -> dict[str, torch.Tensor]:
    """The inverse of `read_group`: the tensors of one weight, which had `dtype` before quantisation."""
    scales = Scales.of(scales)
    state = {"quant_type": "nf4", "blocksize": BLOCK, "dtype": dtype, "shape": list(shape)}
    group = {PACKED: packed.reshape(-1, 1), "quant_map": NF4_CODE, "absmax": scales[0]}
    if scales.is_double:
        state |= {"nested_blocksize": NESTED_BLOCK, "nested_dtype": "float32", "nested_offset": scales[2].item()}
        group |= {"nested_absmax": scales[1], "nested_quant_map": dynamic_map()}
    return group | {STATE: torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8)}


def quantization_config(double: bool, compute_dtype: str) -> dict:
    """What transformers writes into config.json for such weights, computing in `compute_dtype`."""
    return {"_load_in_4bit": True, "_load_in_8bit": False, "bnb_4bit_compute_dtype": compute_dtype,
            "bnb_4bit_quant_storage": "uint8", "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": double,
            "llm_int8_enable_fp32_cpu_offload": False, "llm_int8_has_fp16_weight": False,
            "llm_int8_skip_modules": None, "llm_int8_threshold": 6.0, "load_in_4bit": True, "load_in_8bit": False,
            "quant_method": "bitsandbytes"}  # fmt: skip


def check_method(value: dict, where: str) -> None:
    """Raise `UserError`, beginning with `where`, unless `quantization_config` means bitsandbytes' NF4 and all its keys
    are known.

    Where single or double quantisation was used, the tensors say; `bnb_4bit_use_double_quant` is for what is quantised
    anew.
    """
    eight = [key for key in _EIGHT_BITS if value.get(key)]
    if eight and value.get("quant_method", "bitsandbytes") == "bitsandbytes":
        raise UserError(f"{where}: {eight[0]} is {value[eight[0]]!r}, and weights in 8 bits (LLM.int8) are not read; "
                        "give the 16-bit model, or one in bitsandbytes' 4 bits (NF4)")
    for key, right in (_FIXED | _NEEDED).items():
        if (key in value or key in _NEEDED) and value.get(key) != right:
            raise UserError(f"{where}: {key} is {value.get(key)!r}; only 4-bit weights of bitsandbytes are read, which "
                            f"have {right!r}")
    if value.get(_STORAGE, "uint8") not in [*_STORAGES]:  # in a dict, a list or an object would be an error of its own
        raise UserError(f"{where}: {_STORAGE} is {value[_STORAGE]!r}; one of {', '.join(_STORAGES)} was expected")
    unknown = sorted(value.keys() - {*_NEEDED, *_FIXED, *_EIGHT_BITS, _STORAGE} - _HARMLESS)
    if unknown:
        raise UserError(f"{where}: unknown key '{unknown[0]}'{closest(unknown[0], _HARMLESS)}; it might change the "
                        "mathematics")


def check_quantization(value: dict, packed: Collection[str], linears: Collection[str], where: str) -> None:
    """Hold `quantization_config` against the file: `packed` are its 4-bit weights, `linears` the weights that may be.

    Raises `UserError`, beginning with `where`, for a weight that `llm_int8_skip_modules` says is 16-bit and the file
    has packed, or the other way round.
    """
    skips = value.get("llm_int8_skip_modules") or []
    try:
        if not isinstance(skips, list):
            raise TypeError
        for entry in skips:
            check_expression(entry, f"{where}: llm_int8_skip_modules")
        matcher = Matcher(f"{where}: llm_int8_skip_modules")
        skipped = {name for name in linears
                   if any(_skips(entry, name.removesuffix(".weight"), matcher) for entry in skips)}
    except TypeError as error:
        raise UserError(f"{where}: llm_int8_skip_modules: {skips!r} is not a list of module names") from error
    for name in sorted(packed):
        if name not in linears:
            raise UserError(f"{where}: {name} is in 4 bits in the file; only linears of the decoder's layers may be")
        if name in skipped:
            raise UserError(f"{where}: llm_int8_skip_modules leaves {name} out, but the file holds it in 4 bits")
    dense = sorted(set(linears) - set(packed) - skipped)
    if dense:
        raise UserError(f"{where}: {dense[0]} is not in 4 bits in the file, and llm_int8_skip_modules does not name it")


def _skips(entry: str, module: str, matcher: Matcher) -> bool:
    """Whether this entry makes transformers leave `module` alone: it matches whole words of the name, as a regular
    expression, or the name's end. Versions differ in where the words may be; here they may be anywhere."""
    return module.endswith(entry) or matcher.full(rf"(.*\.)?(?:{entry})(\..*)?", module)


def write_stored(folder: str | Path, config: dict, layout: Mapping[str, Form], linears: Collection[str],
                 state: Iterable[tuple[str, torch.Tensor | tuple[torch.Tensor, Scales]]], *, double: bool) -> None:
    """Write a checkpoint folder with 4-bit linears, one tensor at a time: config.json and model.safetensors.

    config: the dense checkpoint's config.json. layout: name -> dtype and shape of every dense tensor. linears: those
    among its names that go into 4 bits, which must be the weights of all linears of the decoder's layers. state: name
    and dense tensor (quantised here), or the packed bytes and scales that a linear has already, in any order. Each file
    is whole or absent. Raises `UserError` for a weight that is not finite.
    """
    dtypes = {name: _name_of(layout[name][0]) for name in linears}
    forms = {name: form for name, form in layout.items() if name not in dtypes}
    for name in linears:
        forms |= {joined(name, part): form for part, form in group_layout(layout[name][1], double).items()}
    with safetensors_writer(Path(folder) / "model.safetensors", forms) as put:
        for name, value in state:
            if name in dtypes:
                group = make_group(*_in_four_bits(name, value, double), layout[name][1], dtypes[name])
                for part, tensor in group.items():
                    put(joined(name, part), tensor)
            else:
                put(name, value)
            del value  # else it would be held while the next one is made
    compute = next(iter(dtypes.values()), "float32")
    write_json(Path(folder) / "config.json", config | {"quantization_config": quantization_config(double, compute)})


def _in_four_bits(name: str, value: torch.Tensor | tuple[torch.Tensor, Scales], double: bool
                  ) -> tuple[torch.Tensor, Scales]:
    """Packed bytes, and scales that are single or `double`, from a dense weight or from bytes with any scales."""
    packed, scales = quantize_nf4(value, name) if isinstance(value, torch.Tensor) else value
    return packed, Scales.of(scales).kept(double)


def joined(name: str, part: str) -> str:
    """The tensor's name for a part of the weight `name`: `joined(X, "absmax") -> "X.absmax"`, and X for its bytes."""
    return name if part == PACKED else f"{name}.{part}"


def _name_of(dtype: torch.dtype) -> str:
    """A name such as "bfloat16"; float64, which bitsandbytes lacks, becomes float32, as its scales are anyway."""
    return "float32" if dtype == torch.float64 else str(dtype).removeprefix("torch.")
