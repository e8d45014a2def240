"""The one place that knows the order: read the config, build the empty model, choose 4 bits or not, place the weights,
wrap with LoRA, load the adapter.

    files --loading.weights--> (name, tensor or packed group) --assemble--> the module that owns the name

The model is built on PyTorch's meta device, where a tensor has a shape and no memory. Each tensor then goes from the
memory map straight into its owner: cast to the compute dtype, or quantised to 4 bits, so that peak memory is the
finished model and one tensor. Weights that a file already holds in 4 bits stay packed all the way.
"""

from functools import partial
from math import prod
from pathlib import Path

import torch

from common.device import available_memory, choose_device, choose_dtype, on_the_cpu
from common.errors import UserError, naming_arguments
from common.terminal import progress
from loading.cache import quantised_copy
from loading.choice import choose_weights
from loading.sources import check_base, find_adapter, find_source
from loading.weights import Weights, expected_shapes, read_config, read_weights
from lora.adapter import load_adapter
from model import varlen
from model.attention import Attend, attend_padded, attend_sdpa
from model.attention_gradient import attend_by_hand
from model.llama import LlamaForCausalLM
from quant.convert import dense_linears, replace_linears
from quant.double_quant import Scales
from quant.stored import check_quantization, read_group, unpacked

MILLION = 10**6  # weights: what progress is counted in
QUANTIZE = ("stored", "auto", "none", "nf4", "nf4-double")
# These keep the file's dtype: rows are cast when they are looked up, and the tables are most of a small model's bytes.
KEEP_DTYPE = ("model.embed_tokens.weight", "lm_head.weight")


@on_the_cpu()
def load_model(path, *, device="cpu", dtype=None, quantize="stored", adapter=None, rope_scaling=None,
               trainable=False, cache=None) -> LlamaForCausalLM:
    """A ready model from whatever `path` stands for: a checkpoint folder, Hugging Face's (16-bit, or in bitsandbytes'
    NF4) or Meta's, a GGUF file, a PEFT adapter, a run, a merged model, or the name of one of these on the Hub; see
    `sources`.

    quantize: "stored" (as the files are, or as the run had them; a GGUF file's blocks are dequantised), "auto" (as a
    run had them; else dense or "nf4", by the rule of `choice`), "none" (dense), "nf4" or "nf4-double" (linears of the
    layers in 4 bits). If the folder is already in bitsandbytes' 4 bits, "none" dequantises the weights, and "nf4" and
    "nf4-double" keep the packed bytes; only the scales are converted, to float32 or to their quantised form, if they
    are not in it yet.
    device: "cpu", "cuda:0", ...; `None` takes a GPU if there is one. dtype: the compute dtype, PyTorch's or its name;
    `None` takes bfloat16 on a GPU that multiplies it natively and float32 elsewhere.
    adapter: a PEFT adapter, if `path` brings none. rope_scaling: a `rope_scaling` object as in Hugging Face's
    config.json, used if the files lack one (as Meta's folders of unpublished sizes do).
    trainable=True: the adapter's parameters require gradients and the model is in training mode; else neither.
    cache: a folder that keeps 4-bit copies of 16-bit checkpoints (see `cache`); on a CPU the model's tensors are then
    views of the copy's memory map.
    Raises `UserError` naming file and tensor, key or argument.
    """
    if quantize not in QUANTIZE:
        raise UserError(f"quantize: '{quantize}' is not one of {', '.join(QUANTIZE)}")
    source = find_source(path)
    if adapter is not None and source.adapter is not None:
        raise UserError(f"{path}: brings an adapter already; give its base with the other adapter, or leave that out")
    folder, adapter = source.base, source.adapter if adapter is None else find_adapter(adapter)
    if source.hashes is not None:
        check_base(folder, source.hashes, path, cache)
    if source.quantize is not None and quantize in ("stored", "auto"):
        quantize = source.quantize
    with naming_arguments():
        device = choose_device(None if device is None else str(device))
        dtype, _ = choose_dtype(device, dtype)
    config = read_config(folder, rope_scaling)
    if quantize == "auto":
        quantize = choose_weights(config, dtype, available_memory(device)).quantize
    kept = cache is not None and quantize.startswith("nf4") and config.quantization is None
    if kept:
        folder = quantised_copy(folder, config, cache, double=quantize == "nf4-double")
        config = read_config(folder, rope_scaling)
    model = LlamaForCausalLM.empty(config, choose_attend(device, dtype, config.head_dim)[0])
    shapes = expected_shapes(model)
    weights = read_weights(folder, config, shapes)
    if config.quantization is not None:
        linears = {f"{name}.weight" for name in dense_linears(model)}
        check_quantization(config.quantization, weights.groups, linears,
                           f"{folder / 'config.json'}: quantization_config")
    make_linears(model, weights, quantize)
    in_four_bits = {f"{name}.weight" for name, module in model.named_modules() if hasattr(module, "load_packed")}
    # Quantising looks at every value anyway, and a kept copy was made from values that had been looked at.
    # Counted in weights, not in tensors: the first of a small model, its embeddings, is a fifth of it.
    done, whole = 0, sum(map(prod, shapes.values()))
    with progress(whole // MILLION, "million weight", "loading", delay=2) as bar:
        for name, found in weights.read(unchecked=weights.owner if kept else in_four_bits):
            place(model, name, found, weights.owner[name], device, dtype, copy=not kept and weights.is_view(name))
            before, done = done, done + prod(shapes[name])
            bar.update(done // MILLION - before // MILLION)
    model.requires_grad_(False)
    if adapter is not None:
        load_adapter(model, adapter, trainable=trainable)
    return model.train(trainable)  # an adapter's dropout acts in training only


def choose_attend(device: torch.device, dtype: torch.dtype, head_dim: int) -> tuple[Attend, str]:
    """How attention is computed, in words too: a CPU is fastest row by row, and a GPU with one call for all rows.

    That is a kernel for rows of any length where the card has one that takes this dtype and head size (which is tried,
    once), and else one for rows that are padded to the longest. In 16 bits, a CPU takes the gradient by hand, which is
    faster there than PyTorch's.
    """
    if device.type != "cuda":
        return attend_sdpa if dtype.itemsize > 2 else attend_by_hand, "row by row"
    why, repeated = varlen.tried(device, dtype, head_dim)
    if why:
        return attend_padded, f"rows padded to the longest, since {why}"
    attend = partial(varlen.attend_varlen, repeated=True) if repeated else varlen.attend_varlen
    return attend, "one call for all rows, without padding"


def make_linears(model: torch.nn.Module, weights: Weights, quantize: str) -> None:
    """Put empty 4-bit linears where the model needs them: everywhere in the layers, or where the file has them."""
    if quantize.startswith("nf4"):
        replace_linears(model, double=quantize == "nf4-double")
    elif quantize == "stored":
        for double in (False, True):
            names = {name for name, group in weights.groups.items() if ("nested_absmax" in group) == double}
            replace_linears(model, double=double, targets=lambda name, names=names: f"{name}.weight" in names)


def place(model: torch.nn.Module, name: str, found: torch.Tensor | dict, path: Path, device: torch.device,
          dtype: torch.dtype, copy: bool = True) -> None:
    """Hand a tensor or packed group of the file `path` to the module that owns it.

    With `copy`, nothing stays on the memory map; without it, tensors that need no other device or dtype are kept.
    """
    owner, leaf = name.rsplit(".", 1)
    module = model.get_submodule(owner)
    takes_packed = hasattr(module, "load_packed") and leaf == "weight"
    if isinstance(found, dict):
        shape = (module.out_features, module.in_features)
        packed, scales = read_group(found, shape, f"{path}: tensor {name}")
    try:
        if isinstance(found, dict) and takes_packed:
            module.load_packed(packed.to(device, copy=copy), Scales(part.to(device, copy=copy) for part in scales))
        elif isinstance(found, dict):
            module.load_dense(leaf, unpacked(packed, scales, shape, dtype).to(device))
        else:
            target = found.dtype if takes_packed or name in KEEP_DTYPE else dtype
            module.load_dense(leaf, found.to(device, target, copy=copy and not takes_packed))
    except UserError as error:
        raise UserError(f"{path}: tensor {owner}.{error}") from error
