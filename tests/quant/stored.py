"""Tiny 4-bit checkpoints as transformers and bitsandbytes write them, for the tests that read and write such."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from tests.tiny import reference_model, write_checkpoint

# Rows of whole blocks, and shapes in which blocks straddle rows and the last one is partial.
WHOLE = dict(hidden_size=64, intermediate_size=128, num_attention_heads=8, num_key_value_heads=2, head_dim=8,
             num_hidden_layers=2)
ODD = dict(hidden_size=54, intermediate_size=77, num_attention_heads=3, num_key_value_heads=1, head_dim=18,
           num_hidden_layers=2, attention_bias=True, mlp_bias=True)


def write_dense(folder: Path, shape: dict, **overrides) -> Path:
    """A 16-bit checkpoint."""
    return write_checkpoint(folder, reference_model(**shape | overrides).to(torch.bfloat16))


def write_by_transformers(folder: Path, source: Path, double: bool, skip: list[str] | None = None,
                          storage: str = "uint8") -> Path:
    """`source` in 4 bits, quantised and saved by transformers and bitsandbytes themselves."""
    from transformers import BitsAndBytesConfig, LlamaForCausalLM

    how = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=double,
                             bnb_4bit_compute_dtype=torch.bfloat16, bnb_4bit_quant_storage=storage,
                             llm_int8_skip_modules=skip)
    model = LlamaForCausalLM.from_pretrained(source, quantization_config=how, device_map="cpu", dtype=torch.bfloat16)
    model.save_pretrained(folder)
    return folder


def read_by_transformers(folder: Path, pure_torch: bool):
    """The 4-bit folder as transformers reads it, computing in float32.

    pure_torch: dequantised by bitsandbytes' pure-torch backend. Its compiled CPU library is wrong where rows are not
    whole blocks (LOG.md), so it is the reference only where they are.
    """
    from bitsandbytes import functional
    from bitsandbytes.backends.default.ops import _dequantize_4bit_compute, _dequantize_blockwise_compute
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    for parameter in model.parameters():
        if parameter.is_floating_point():  # transformers leaves the file's dtype in a 4-bit model
            parameter.data = parameter.data.float()
    for name, module in list(model.named_modules()):
        state = getattr(getattr(module, "weight", None), "quant_state", None)
        if state is None:
            continue
        module.compute_dtype, module.support_avx512bf16_for_cpu = torch.float32, False  # or it computes in bfloat16
        if not pure_torch:
            continue
        absmax = state.absmax
        if state.nested:
            plain = getattr(_dequantize_blockwise_compute, "__wrapped__", _dequantize_blockwise_compute)
            inner = state.state2
            absmax = plain(absmax, inner.absmax, inner.code, inner.blocksize, torch.float32) + state.offset
        plain = getattr(_dequantize_4bit_compute, "__wrapped__", _dequantize_4bit_compute)  # without torch.compile
        weight = plain(module.weight.data.reshape(-1), absmax, functional.get_4bit_type("nf4", "cpu"), 64, state.shape,
                       torch.float32).view(state.shape)
        dense = torch.nn.Linear(*weight.shape[::-1], bias=module.bias is not None)
        dense.weight.data = weight
        if module.bias is not None:
            dense.bias.data = module.bias.data.float()
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, dense)
    return model


def edit_tensors(folder: Path, change) -> None:
    """Rewrite the weights with `change(tensors)` applied."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
