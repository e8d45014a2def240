"""The benchmark's checkpoint as a GGUF file for llama.cpp, in F16, and quantised to Q4_K_M by llama.cpp itself.

There is no vocabulary in the file, only its size: token ids are fed in directly.
"""

import ctypes
from pathlib import Path

import llama_cpp

from common.errors import UserError
from tools.export.gguf_file import write_gguf
from tools.export.tensors import MergedTensors


def write_f16(checkpoint: Path, path: Path) -> None:
    """Write the checkpoint folder as one GGUF file: matrices in F16, norms and rotary factors in F32."""
    write_gguf(MergedTensors(checkpoint, dtype="stored"), None, path, "f16")


@llama_cpp.llama_log_callback
def _say_nothing(level, text, data):
    """Without this, llama.cpp describes every tensor."""


def quantise(source: Path, target: Path, threads: int) -> None:
    """Q4_K_M of an F16 file, by llama.cpp's own quantiser; raises `UserError` if it fails."""
    llama_cpp.llama_log_set(_say_nothing, None)
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype, parameters.nthread = llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M, threads
    if llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(parameters)):
        raise UserError(f"{source}: llama.cpp could not quantise it to Q4_K_M")
