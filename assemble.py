"""The one place that knows the order: read the config, build the empty model, choose 4 bits or not, place the weights,
wrap with LoRA, load the adapter.

    files --model.weights--> (name, tensor) --assemble--> the module that owns the name

The model is built on PyTorch's meta device, where a tensor has a shape and no memory. Each tensor then goes from the
memory map straight into its owner: cast to the dtype of the arithmetic, or into 4 bits, so that the peak is the
finished model and one tensor.
"""

from pathlib import Path

import torch

from common.device import choose_device, choose_dtype
from common.errors import UserError
from lora.adapter import load_adapter
from model.config import LlamaConfig
from model.llama import LlamaForCausalLM
from model.weights import expected_shapes, read_weights
from quant.convert import replace_linears

QUANTIZE = ("stored", "none", "nf4", "nf4-double")
# These keep the dtype of the file: rows are cast when they are looked up, and they are most of a small model's bytes.
KEEP_DTYPE = ("model.embed_tokens.weight", "lm_head.weight")


def load_model(path, *, device="cpu", dtype=None, quantize="stored", adapter=None, rope_scaling=None,
               trainable=False) -> LlamaForCausalLM:
    """A ready model from a Hugging Face checkpoint folder.

    quantize: "stored" (as the files are), "none" (dense), "nf4" or "nf4-double" (linears of the blocks in 4 bits).
    dtype: of the arithmetic; `None` takes bfloat16 where the device multiplies it natively and float32 elsewhere.
    adapter: a PEFT adapter folder. rope_scaling: a `rope_scaling` object, used only where config.json has none.
    trainable=True: the adapter's parameters require gradients and the model is in training mode; else neither.
    Raises `UserError` naming file and tensor, key or argument.
    """
    if quantize not in QUANTIZE:
        raise UserError(f"quantize: '{quantize}' is not one of {', '.join(QUANTIZE)}")
    folder = checkpoint_folder(path)
    device = choose_device(str(device))
    dtype, _ = choose_dtype(device, dtype)
    config = LlamaConfig.from_file(folder / "config.json", rope_scaling)
    if config.quantization is not None:
        method = config.quantization.get("quant_method", "unknown")
        raise UserError(f"{folder / 'config.json'}: quantization_config: weights quantised by '{method}' are not read; "
                        "give the 16-bit checkpoint and quantize='nf4'")
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    expected = expected_shapes(model)
    if quantize.startswith("nf4"):
        replace_linears(model, double=quantize == "nf4-double")
    for name, tensor in read_weights(folder, config, expected):
        place(model, name, tensor, device, dtype)
    model.requires_grad_(False)
    if adapter is not None:
        load_adapter(model, adapter, trainable=trainable)
    return model.train(trainable)  # an adapter's dropout acts in training only


def checkpoint_folder(path) -> Path:
    """`path` as a folder with a config.json, or a `UserError` that says what is there instead."""
    folder = Path(path)
    if not folder.exists():
        raise UserError(f"{folder}: there is no such folder; give a checkpoint folder with config.json and safetensors")
    if not folder.is_dir():
        raise UserError(f"{folder}: is a file; give the folder that holds config.json and the weights")
    if not (folder / "config.json").exists():
        raise UserError(f"{folder}: has no config.json; give a Hugging Face checkpoint folder")
    return folder


def place(model: torch.nn.Module, name: str, tensor: torch.Tensor, device: torch.device, dtype: torch.dtype) -> None:
    """Hand one tensor of the checkpoint to the module that owns it; the copy leaves the memory map behind."""
    owner, leaf = name.rsplit(".", 1)
    module = model.get_submodule(owner)
    quantises = hasattr(module, "load_packed") and leaf == "weight"  # a 4-bit owner takes what the file holds
    target = tensor.dtype if quantises or name in KEEP_DTYPE else dtype
    try:
        module.load_dense(leaf, tensor.to(device=device, dtype=target, copy=not quantises))
    except UserError as error:
        raise UserError(f"{owner}.{error}") from error
