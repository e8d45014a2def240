"""Random weights in Llama 3.2-3B's public layout, at several depths that share their files.

Every side of the comparison reads the same bfloat16 checkpoint: one file for embedding and last norm, one for each
layer. A checkpoint of depth d is a folder of hard links to the first d layers' files, so that a second depth costs no
disk space and has the same first layers. Each tensor's values are drawn anew, with standard deviation 1 / sqrt(D):
queries and keys are then of size one and attention tells positions apart, so a wrong mask or rotation would show.
"""

import os
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

from common.errors import UserError
from common.files import read_json, write_json
from loading.weights import INDEX, expected_shapes
from model.config import LlamaConfig
from model.llama import LlamaForCausalLM

LLAMA_3_2_3B = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "torch_dtype": "bfloat16",
    "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28, "num_attention_heads": 24,
    "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 128256, "tie_word_embeddings": True,
    "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "attention_bias": False, "mlp_bias": False,
    "rope_theta": 500000.0, "bos_token_id": 128000, "eos_token_id": [128001, 128008, 128009],
    "rope_scaling": {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                     "original_max_position_embeddings": 8192},
}  # fmt: skip


def read_config(source: str | None) -> dict:
    """The config.json in folder `source`, or Llama 3.2-3B's numbers; raises `UserError` for one that is not Llama's."""
    raw = dict(LLAMA_3_2_3B) if source is None else read_json(Path(source) / "config.json")
    LlamaConfig.from_dict(raw, str(source))
    return raw


def write_checkpoints(config: dict, depths: list[int], tokenizer: Path, work: Path) -> dict[int, Path]:
    """Folders `work/depth-D` for each depth D, with config.json, index and tokenizer.model; depth -> folder."""
    if not tokenizer.is_file():
        raise UserError(f"--tokenizer {tokenizer}: there is no such file; give a tokenizer.model")
    deepest = LlamaConfig.from_dict(config | {"num_hidden_layers": max(depths)})
    shapes = expected_shapes(LlamaForCausalLM.empty(deepest))
    parts = work / "parts"
    shutil.rmtree(parts, ignore_errors=True)
    parts.mkdir(parents=True)
    by_file: dict[str, list[str]] = {}
    for name in shapes:
        by_file.setdefault(file_of(name), []).append(name)
    generator = torch.Generator().manual_seed(0)
    for file, names in by_file.items():
        tensors = {name: draw(shapes[name], config["hidden_size"], generator) for name in names}
        save_file(tensors, parts / file, metadata={"format": "pt"})
    folders = {}
    for depth in depths:
        folder = folders[depth] = work / f"depth-{depth}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        chosen = {file_of(f"model.layers.{i}.") for i in range(depth)} | {file_of("model.norm.weight")}
        for file in chosen:
            os.link(parts / file, folder / file)
        weight_map = {name: file for file in sorted(chosen) for name in by_file[file]}
        size = sum(2 * torch.Size(shapes[name]).numel() for name in weight_map)
        write_json(folder / INDEX, {"metadata": {"total_size": size}, "weight_map": weight_map})
        write_json(folder / "config.json", config | {"num_hidden_layers": depth})
        shutil.copy(tokenizer, folder / "tokenizer.model")
    shutil.rmtree(parts)
    return folders


def file_of(name: str) -> str:
    """`file_of("model.layers.3.mlp.up_proj.weight") -> "layer-3.safetensors"`; outside the layers: "rest..."."""
    return f"layer-{name.split('.')[2]}.safetensors" if ".layers." in name else "rest.safetensors"


def draw(shape: tuple[int, ...], hidden_size: int, generator: torch.Generator) -> torch.Tensor:
    """A bfloat16 tensor: norms near one, all else normal with standard deviation 1 / sqrt(D)."""
    values = torch.empty(shape, dtype=torch.bfloat16)
    return values.normal_(1.0, 0.1, generator=generator) if len(shape) == 1 else values.normal_(
        0.0, hidden_size**-0.5, generator=generator)
