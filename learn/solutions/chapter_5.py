"""Solutions of chapter 5."""

import json

import torch


def from_bfloat16(data: bytes) -> torch.Tensor:
    """The upper half of 32 bits."""
    pairs = torch.frombuffer(bytearray(data), dtype=torch.uint8).view(-1, 2).int()
    return ((pairs[:, 0] + 256 * pairs[:, 1]) << 16).view(torch.float32)


def find_tensor(data: bytes, name: str) -> tuple[list[int], int, int]:
    """The places in the head count from its end."""
    behind = 8 + int.from_bytes(data[:8], "little")
    entry = json.loads(data[8:behind])[name]
    start, end = entry["data_offsets"]
    return entry["shape"], behind + start, behind + end
