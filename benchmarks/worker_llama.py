"""llama.cpp's side of the comparison: one post per call, as the paper labelled its tweets.

Started by benchmarks/turns.py. Each call decodes a prompt's ids and reads the label tokens out of the last position's
logits (of the whole vocabulary: llama.cpp makes no others). "prefix kept" keeps the cache cells of the prefix that this
prompt shares with the previous one and decodes the rest; "reset" empties the cache each time.
"""

import ctypes
import json
import sys
from pathlib import Path

import llama_cpp
import numpy as np

from benchmarks.worker import serve, timed
from common.files import read_json
from data.prompt import common_prefix

CONTEXT = 1024


class Llama:
    """A GGUF file in a llama.cpp context of its own, fed through the low-level functions."""

    def __init__(self, settings: dict):
        self.settings = settings
        self.encoded = read_json(settings["encoded"])
        llama_cpp.llama_backend_init()
        parameters = llama_cpp.llama_model_default_params()
        parameters.n_gpu_layers = 0
        self.model = llama_cpp.llama_model_load_from_file(settings["gguf"].encode(), parameters)
        context = llama_cpp.llama_context_default_params()
        context.n_ctx = context.n_batch = context.n_ubatch = CONTEXT  # a prompt in one piece
        context.n_threads = context.n_threads_batch = settings["threads"]
        self.context = llama_cpp.llama_init_from_model(self.model, context)
        if not self.context:
            raise RuntimeError(f"{settings['gguf']}: llama.cpp made no context of it")
        self.memory = llama_cpp.llama_get_memory(self.context)
        self.vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        self.cached: list[int] = []

    def describe(self) -> dict:
        """Which CPU features this build of llama.cpp uses."""
        return {"system": llama_cpp.llama_print_system_info().decode()}

    def label(self, template: str, posts: int, way: str, **_) -> dict:
        """Probabilities of the labels for `posts` posts, one after the other."""
        known = self.encoded[template]
        self.forget(0)

        def everything() -> list[np.ndarray]:
            return [self.logits(row, keep=way == "prefix kept")[known["label_ids"]] for row in known["rows"][:posts]]

        seconds, found = timed(everything)
        logits = np.stack(found).astype(np.float64)
        weights = np.exp(logits - logits.max(1, keepdims=True))
        return {"seconds": seconds, "probabilities": (weights / weights.sum(1, keepdims=True)).tolist()}

    def logits(self, ids: list[int], keep: bool) -> np.ndarray:
        """Logits (V,) after the last of `ids`."""
        # The last token is decoded in any case: its logits are wanted.
        shared = min(common_prefix([self.cached, ids]), len(ids) - 1) if keep and self.cached else 0
        self.forget(shared)
        new = (ctypes.c_int * (len(ids) - shared))(*ids[shared:])
        if llama_cpp.llama_decode(self.context, llama_cpp.llama_batch_get_one(new, len(new))):
            raise RuntimeError(f"llama_decode failed on a prompt of {len(ids)} tokens")
        self.cached = ids
        values = llama_cpp.llama_get_logits_ith(self.context, -1)
        return np.ctypeslib.as_array(values, shape=(self.vocabulary,)).copy()

    def forget(self, kept: int) -> None:
        """Drop all but the first `kept` cells of the cache."""
        llama_cpp.llama_memory_seq_rm(self.memory, 0, kept, -1)
        self.cached = self.cached[:kept]


if __name__ == "__main__":
    llama = Llama(json.loads(Path(sys.argv[1]).read_text()))
    serve({"describe": llama.describe, "label": llama.label})
