"""Options of every program that labels posts."""

from dataclasses import dataclass

from common.allocator import keep_memory
from common.device import MACHINE, available_memory
from common.errors import UserError
from common.options import option
from common.terminal import human_bytes
from inference.exact import make_exact
from inference.int8 import Int8Options


@dataclass
class LabelOptions(Int8Options):
    """What labelling can do with more memory or more time."""

    resident: bool = option(False, "keep a dense copy of the 4-bit weights in memory: the same labels, sooner",
                            group=MACHINE)
    exact: bool = option(False, "give a post the same probabilities, to the bit, whatever else is labelled with it; "
                         "always so on a CPU, slower on CUDA", group=MACHINE)

    def make_ready(self, model) -> None:
        """Apply these options to a loaded model. Raises `UserError` if the dense copy does not fit."""
        if model.device.type == "cpu":
            keep_memory()
        if self.resident and not self.int8:
            from quant.convert import make_resident, resident_bytes

            size, free = resident_bytes(model, model.dtype), available_memory(model.device)
            if size > free:
                raise UserError(f"--resident: the dense copy takes {human_bytes(size)}, and {human_bytes(free)} is "
                                "free; leave it out, or use --dtype bfloat16")
            print(f"  {human_bytes(size)} for a dense copy of the 4-bit weights; {human_bytes(free)} is free")
            make_resident(model, model.dtype)
        if self.exact:
            make_exact(model)
