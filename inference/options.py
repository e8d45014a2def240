"""Options of every program that labels posts."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch

from common.allocator import keep_memory
from common.device import MACHINE
from common.errors import UserError
from common.options import option
from inference.exact import make_exact
from inference.int8 import INT8, check_int8
from inference.labeller import MICRO_TOKENS, beside_bytes
from inference.merged import MERGED
from inference.quicker import Quicker
from loading.assemble import choose_attend
from loading.resident import ResidentOptions
from quant.convert import resident_bytes


@dataclass
class LabelOptions(ResidentOptions):
    """What labelling can do with more memory or more time, or with weights that are not quite the same."""

    ELSEWHERE: ClassVar = {  # see finetune/elsewhere.py
        "micro_tokens, tokens at once": "batch_size per_device_eval_batch_size", "int8": "load_in_8bit quantize",
        "run": "checkpoint checkpoint_dir adapter peft_model", "input": "data input_file dataset",
        "abstain": "threshold min_confidence", "out": "output_dir", "output": "output_file",
    }  # fmt: skip

    exact: bool = option(False, "give a post the same probabilities, to the bit, whatever else is labelled with it; "
                         "always so on a CPU, slower on CUDA", group=MACHINE)
    int8: bool = option(False, "on a CPU, multiply 8-bit integers: faster, and rounded; says what that changes on the "
                        "first posts (--resident adds nothing to it)", group=MACHINE)
    merge: bool = option(False, "add the adapter to dense weights before labelling: faster, and rounded once more; "
                         "says what that changes on the first posts", group=MACHINE)

    @property
    def quicker(self) -> Quicker | None:
        """The way that was asked for."""
        return INT8 if self.int8 else MERGED if self.merge else None

    def decides(self) -> dict:
        """What of a quicker way decides the labels' bits, for manifests and journals; `--merge`, which older ones do
        not know, is None where it is off."""
        return {"--int8": self.int8, "--merge": self.merge or None}

    def check_quicker(self, device: torch.device, dtype: torch.dtype) -> None:
        """Refuse what cannot be or does not pay before anything is loaded. Raises `UserError`."""
        if self.int8 and self.merge:
            raise UserError("--int8 and --merge: an adapter stays beside weights in 8 bits, whose steps are too coarse "
                            "for it; leave one out")
        if self.int8:
            check_int8(device, dtype)

    def make_ready(self, model) -> None:
        """For a program that goes on to label: `apply`, and on a CPU keep the memory that labelling frees."""
        if model.device.type == "cpu":
            keep_memory()
        self.apply(model)

    def apply(self, model) -> None:
        """Apply these options to a loaded model. Raises `UserError` if the dense copy does not fit."""
        if self.quicker is None:
            self.keep_dense(model, beside_bytes(model, MICRO_TOKENS))
        if self.exact:
            if said := make_exact(model):
                print(f"  attention: {said}")
        elif model.device.type == "cuda":
            print(f"  attention: {choose_attend(model.device, model.dtype, model.config.head_dim)[1]}")

    def make_quicker(self, model, prompt, texts: Iterable[str], micro_tokens: int = 0) -> dict:
        """Change the model as asked for; the price on the first of `texts`, by the option's name, or nothing."""
        way = self.quicker
        if way is None:
            return {}
        price = way.make(model, prompt, texts, micro_tokens)
        if way is MERGED and resident_bytes(model, model.dtype):  # linears without an adapter, still in 4 bits
            self.keep_dense(model, beside_bytes(model, MICRO_TOKENS))
        return way.figures(price)
