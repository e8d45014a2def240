"""`--int8`: labelling on a CPU by products of 8-bit integers; its price is measured on the first posts
(inference/quicker.py).

The adapter, attention and everything else stay in float32; quant/int8.py has the arithmetic.
"""

import torch

from common.device import available_memory
from common.errors import UserError
from common.terminal import human_bytes
from inference.quicker import Quicker
from quant.int8 import choose_product, int8_bytes, make_int8


def check_int8(device: torch.device, dtype: torch.dtype) -> None:
    """Raise `UserError` where labelling in 8 bits cannot be or does not pay; nothing needs to be loaded for that."""
    if device.type != "cpu":
        raise UserError(f"--int8: is for CPUs, and the device is {device}; leave it out, or use --device cpu")
    if dtype != torch.float32:
        raise UserError(f"--int8: goes with --dtype float32, in which all but its products is computed, not with "
                        f"{str(dtype).removeprefix('torch.')}; leave one out")
    choose_product()


def change(model) -> None:
    """Make the products of a model's layers 8-bit. Raises `UserError` if the 8-bit weights do not fit."""
    size, free = int8_bytes(model), available_memory(model.device)
    if size > free:
        raise UserError(f"--int8: the weights in 8 bits take {human_bytes(size)}, and {human_bytes(free)} is free; "
                        "leave it out")
    make_int8(model)


INT8 = Quicker("int8", "8-bit products", change)
