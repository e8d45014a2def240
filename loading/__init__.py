"""From a path or a name to a ready model: what is there, its tensors, 4 bits or not, the adapter.

Reading order: `sources`, `weights` (`meta` for Meta's own files, `gguf` for llama.cpp's), `assemble`; then `hub` and
`cache`.
"""

from loading.assemble import load_model

__all__ = ["load_model"]
