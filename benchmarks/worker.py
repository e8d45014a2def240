"""What the worker processes of the comparison have in common: the wire, the clock and the padding.

A worker lives as long as one depth is measured. It gets one JSON object a line on its standard input and answers each
with one line: `{"do": NAME, ...}` calls the handler NAME with the rest as keyword arguments. Whatever libraries print
goes to standard error, so that it cannot mix with the answers.
"""

import json
import os
import sys
import time
from collections.abc import Callable

import torch


def serve(handlers: dict[str, Callable[..., dict]]) -> None:
    """Answer until the input ends."""
    wire = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        message = json.loads(line)
        answer = handlers[message.pop("do")](**message)
        print(json.dumps(answer), file=wire, flush=True)


def timed(work: Callable, device: str = "cpu") -> tuple[float, object]:
    """Seconds that `work()` took, a GPU's queue emptied before and after; and what it returned."""
    synchronise(device)
    began = time.perf_counter()
    result = work()
    synchronise(device)
    return time.perf_counter() - began, result


def synchronise(device: str) -> None:
    """Wait until the device has done all it was given; on a CPU nothing is ever queued."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def device_peak(device: str) -> dict:
    """Peak of PyTorch's memory on a GPU since the last call, to be added to an answer; nothing on a CPU."""
    if not device.startswith("cuda"):
        return {}
    peak = torch.cuda.max_memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    return {"peak_device": peak}


def padded(rows: list[list[int]], side: str, device: str = "cpu") -> dict[str, torch.Tensor]:
    """Rows as a rectangle (B, T) with its mask and positions, padded on the "left" or on the "right" with id 0."""
    width = max(map(len, rows))
    shape = (len(rows), width)
    ids, mask, positions = (torch.zeros(shape, dtype=torch.int64) for _ in range(3))
    for place, row in enumerate(rows):
        own = slice(width - len(row), width) if side == "left" else slice(0, len(row))
        ids[place, own] = torch.tensor(row)
        mask[place, own] = 1
        positions[place, own] = torch.arange(len(row))
    return {"input_ids": ids.to(device), "attention_mask": mask.to(device), "position_ids": positions.to(device)}
