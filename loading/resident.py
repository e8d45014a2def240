"""A dense copy of the 4-bit weights, kept where there is room for it: products then need no dequantising.

Dequantising is a quarter of the work of labelling on a GPU, and up to half of a training step of few posts. The copy is
the same numbers, so no bit of a result depends on it.
"""

from dataclasses import dataclass

from common.device import MACHINE, available_memory
from common.errors import UserError
from common.options import option
from common.terminal import human_bytes
from loading.choice import SHARE
from quant.convert import make_resident, resident_bytes

WAYS = ("auto", "on", "off")


@dataclass
class ResidentOptions:
    """Of programs that multiply by the same weights many times."""

    resident: str = option("auto", "keep a dense copy of the 4-bit weights in memory: the same results, faster; auto: "
                           "on a GPU with room for it", choices=WAYS, switch=("on", "off"), group=MACHINE)

    def keep_dense(self, model, beside: int = 0) -> int:
        """Make the copy, or do not, and say so; returns its bytes, 0 without one.

        "auto" makes it on a GPU if it and what is needed `beside` it fill at most `SHARE` of the free memory; "on"
        makes it wherever it fits. Raises `UserError` if "on" does not fit.
        """
        size = resident_bytes(model, model.dtype)
        if self.resident == "off" or (self.resident == "auto" and not (size and model.device.type == "cuda")):
            return 0
        free = available_memory(model.device)
        with_it = f" with {human_bytes(beside)} needed beside it" if beside else ""
        if self.resident == "auto" and size + beside > SHARE * free:
            print(f"  no dense copy of the 4-bit weights: it would take {human_bytes(size)}{with_it}, and "
                  f"{human_bytes(free)} is free")
            return 0
        if size > free:
            raise UserError(f"--resident: the dense copy takes {human_bytes(size)}, and {human_bytes(free)} is free; "
                            "leave it out, or use --dtype bfloat16")
        print(f"  {human_bytes(size)} for a dense copy of the 4-bit weights; {human_bytes(free)} is free")
        make_resident(model, model.dtype)
        return size
