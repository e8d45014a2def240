"""A GGUF file in llama.cpp, fed with ids: how the exports are checked and compared.

llama.cpp computes with the weights as they are stored, and also rounds what they are multiplied with: to float16 for
F16 weights, to 8 bits in blocks of 32 for Q8_0 and Q4_0. Its KV cache is float16 unless told otherwise.
"""

from pathlib import Path

import llama_cpp
import numpy

from common.errors import UserError
from data.prompt import common_prefix


class GGUFModel:
    """llama.cpp's logits on the CPU; the prefix that a prompt shares with the previous one is computed once."""

    def __init__(self, path: str | Path, context: int, threads: int = 1):
        try:
            self._llama = llama_cpp.Llama(str(path), n_ctx=context, n_batch=context, n_ubatch=context,
                                          n_threads=threads, n_threads_batch=threads, n_gpu_layers=0, verbose=False)
        except (ValueError, AssertionError) as error:
            raise UserError(f"{path}: llama.cpp does not load it ({error})") from error
        self.vocab_size, self._ids = self._llama.n_vocab(), []

    def logits(self, ids: list[int]) -> numpy.ndarray:
        """Logits after the last of `ids`: (V,) float32."""
        kept = min(common_prefix([self._ids, ids]), len(ids) - 1) if self._ids else 0
        self._llama.n_tokens, self._ids = kept, list(ids)  # eval drops the cache beyond it
        self._llama.eval(ids[kept:])
        found = llama_cpp.llama_get_logits_ith(self._llama.ctx, -1)
        return numpy.ctypeslib.as_array(found, shape=(self.vocab_size,)).copy()

    def encode(self, text: str) -> list[int]:
        """llama.cpp's token ids of a text, without special tokens."""
        return self._llama.tokenize(text.encode(), add_bos=False, special=False)

    def close(self) -> None:
        """Give the memory back."""
        self._llama.close()
