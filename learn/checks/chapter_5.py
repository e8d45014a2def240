"""Checks of chapter 5: what PyTorch and the package safetensors read is right."""

import json

import torch
from safetensors.torch import load, save

from learn.check import Task, Wrong


def trials_bfloat16() -> list[tuple]:
    draw = torch.Generator().manual_seed(5)
    numbers = (torch.tensor([1.0, -2.5, 0.1]), torch.randn(40, generator=draw), torch.randn(7, generator=draw) * 1e-9)
    return [(x.bfloat16().view(torch.uint8).numpy().tobytes(),) for x in numbers]


def as_type(dtype):
    return lambda data: torch.frombuffer(bytearray(data), dtype=dtype).float()


def swapped(data):
    turned = torch.frombuffer(bytearray(data), dtype=torch.uint8).view(-1, 2).flip(1).contiguous()
    return turned.view(torch.bfloat16).float().view(-1)


def lower_half(data):
    bits = torch.frombuffer(bytearray(data), dtype=torch.int16).int() & 0xFFFF
    return bits.view(torch.float32)


def in_bytes(data):
    """256 times a byte, in a byte: nothing is left of it."""
    low = torch.frombuffer(bytearray(data), dtype=torch.uint8).view(-1, 2)[:, 0]
    return (low.int() << 16).view(torch.float32)


def shifted(dtype):
    """Sixteen bits moved up by sixteen places where there is room for sixteen or fewer."""
    def answer(data):
        pairs = torch.frombuffer(bytearray(data), dtype=torch.uint8).view(-1, 2)
        bits = pairs[:, 0] if dtype == torch.uint8 else pairs.view(torch.int16).view(-1)
        return (bits << 16).view(torch.float32)
    return answer


def as_values(data):
    return (torch.frombuffer(bytearray(data), dtype=torch.int16).int() << 16).float()


def trials_find() -> list[tuple]:
    draw = torch.Generator().manual_seed(55)
    tensors = {"a.weight": torch.randn(3, 4, generator=draw), "norm": torch.randn(5, generator=draw),
               "b.weight": torch.randn(2, 2, 2, generator=draw)}
    small = [(save(tensors), name) for name in tensors]
    longer = [(save(tensors, metadata={"note": "-" * size}), "norm") for size in (1_000, 70_000)]  # two bytes, three
    return [*small, *longer, (save(tensors | {"größe": torch.randn(3, generator=draw)}), "größe")]


def right_find(data, name):
    """Found by content: the tensor's bytes occur once in the file."""
    tensor = load(data)[name]
    content = tensor.numpy().tobytes()
    start = data.index(content)
    return list(tensor.shape), start, start + len(content)


def places(base, ends=lambda start, end: (start, end), shape=lambda shape: shape, read=8):
    """A reading of the head in which places count from `base(length)`; read: how many bytes of the length are read."""
    def answer(data, name):
        length = int.from_bytes(data[:read], "little")
        entry = json.loads(data[8 : 8 + length])[name]
        first, last = ends(*entry["data_offsets"])
        return shape(entry["shape"]), base(length) + first, base(length) + last
    return answer


def in_characters(data, name):
    text = data[8 : 8 + int.from_bytes(data[:8], "little")].decode()
    entry = json.loads(text)[name]
    return entry["shape"], *(8 + len(text) + place for place in entry["data_offsets"])


def length_for_end(data, name):
    shape, start, end = right_find(data, name)
    return shape, start, end - start


TASKS = (
    Task("from_bfloat16", trials_bfloat16, lambda data: torch.frombuffer(bytearray(data), dtype=torch.bfloat16).float(),
         (
        *(Wrong(answer, "the numbers overflow: a byte (uint8) holds 0 to 255, so 256 times a byte does not fit into "
                        "it, and nothing is left when a byte moves up by eight places or more. Make them 32 bits wide "
                        "first (`int`)") for answer in (in_bytes, shifted(torch.uint8))),
        Wrong(shifted(torch.int16), "the numbers overflow: sixteen bits that move up by sixteen places in a number of "
                                    "sixteen bits are gone. Make them 32 bits wide first (`int`)"),
        Wrong(swapped, "the two bytes are exchanged: the lower one comes first in the file"),
        Wrong(as_type(torch.float16), "the bytes are read as float16, the other kind of 16-bit number, which has a "
                                      "smaller exponent and more digits"),
        Wrong(as_type(torch.int16), "the bytes are read as whole numbers; their bits stand for sign, exponent and "
                                    "digits"),
        Wrong(lower_half, "the sixteen bits are in the lower half of the 32. That is where the cut-off digits were; "
                          "these belong into the upper half"),
        Wrong(as_values, "the bits are in the right place, but then turned into a number as if they were a whole "
                         "number; `view` takes them for what they are, `float` does not"),
    ), typed=True),
    Task("find_tensor", trials_find, right_find, (
        Wrong(places(lambda length: 0), "the places are taken from the start of the file. In the head they count from "
                                        "the head's end"),
        Wrong(places(lambda length: length), "the first eight bytes, which hold the length, are forgotten: everything "
                                             "lies eight bytes further on"),
        Wrong(places(lambda length: 8), "the head's own length is forgotten: the tensors begin behind it"),
        Wrong(places(lambda length: 8 + length, read=1),
              "only the first of the eight bytes is read. That is enough for a head of up to 255 bytes; a longer one "
              "needs the others"),
        Wrong(places(lambda length: 8 + length, read=2),
              "only the first two of the eight bytes are read. That is enough for a head of up to 65,535 bytes; a "
              "longer one needs the others"),
        Wrong(in_characters, "the head is measured in characters; its length is in bytes, and a letter such as ö "
                             "takes two of them"),
        Wrong(length_for_end, "the last result is how many bytes the tensor has; wanted is the place at which they "
                              "end"),
        Wrong(places(lambda length: 8 + length, shape=lambda shape: shape[::-1]),
              "the places are right, but the shape is turned round"),
    )),
)
