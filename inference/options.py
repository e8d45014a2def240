"""Options of every program that labels posts."""

from dataclasses import dataclass

from common.allocator import keep_memory
from common.device import MACHINE
from common.options import option
from inference.exact import make_exact
from inference.int8 import Int8Options
from inference.labeller import MICRO_TOKENS, beside_bytes
from loading.assemble import choose_attend
from loading.resident import ResidentOptions


@dataclass
class LabelOptions(ResidentOptions, Int8Options):
    """What labelling can do with more memory or more time."""

    exact: bool = option(False, "give a post the same probabilities, to the bit, whatever else is labelled with it; "
                         "always so on a CPU, slower on CUDA", group=MACHINE)

    def make_ready(self, model) -> None:
        """For a program that goes on to label: `apply`, and on a CPU keep the memory that labelling frees."""
        if model.device.type == "cpu":
            keep_memory()
        self.apply(model)

    def apply(self, model) -> None:
        """Apply these options to a loaded model. Raises `UserError` if the dense copy does not fit."""
        if not self.int8:
            self.keep_dense(model, beside_bytes(model, MICRO_TOKENS))
        if self.exact:
            if said := make_exact(model):
                print(f"  attention: {said}")
        elif model.device.type == "cuda":
            print(f"  attention: {choose_attend(model.device, model.dtype, model.config.head_dim)[1]}")
