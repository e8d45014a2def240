"""Options of every program that labels posts."""

from dataclasses import dataclass

from common.device import MACHINE
from common.options import option
from inference.exact import make_exact
from inference.labeller import MICRO_TOKENS, beside_bytes
from loading.assemble import choose_attend
from loading.resident import ResidentOptions


@dataclass
class LabelOptions(ResidentOptions):
    """What labelling can do with more memory or more time."""

    exact: bool = option(False, "give a post the same probabilities, to the bit, whatever else is labelled with it; "
                         "always so on a CPU, slower on CUDA", group=MACHINE)

    def make_ready(self, model) -> None:
        """Apply these options to a loaded model. Raises `UserError` if the dense copy does not fit."""
        self.keep_dense(model, beside_bytes(model, MICRO_TOKENS))
        if self.exact:
            make_exact(model)
        elif model.device.type == "cuda":
            print(f"  attention: {choose_attend(model.device, model.dtype, model.config.head_dim)[1]}")
