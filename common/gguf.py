"""The GGUF container, as llama.cpp writes it: what a file says of itself, and where in it each tensor's bytes lie.

    magic "GGUF" | version uint32 | tensors uint64 | keys uint64                    little endian throughout
    per key:     name | kind uint32 | value                                         the metadata
    per tensor:  name | dimensions uint32 | each uint64, innermost first | type uint32 | offset uint64
    padding up to a multiple of `general.alignment` (32) | the tensors' bytes, to which the offsets are relative

    a string     length uint64 | UTF-8
    an array     kind uint32 | length uint64 | values, which may be arrays in turn

A file is mapped, and only its metadata are read. Whatever it claims (counts, lengths, dimensions, offsets) is held
against the bytes that are there before anything of that size is made. Versions 2 and 3 are this layout; version 1 had
shorter counts, and version 3 may be big endian: both are refused by name. What the types' blocks mean is defined in
`quant.gguf_blocks`. (The format: github.com/ggml-org/ggml, docs/gguf.md.)
"""

import math
import mmap
import os
import stat
import struct
from dataclasses import dataclass, field
from pathlib import Path

import torch

from common.errors import UserError
from common.reading import DEEPEST, DOCUMENT, open_plain

MAGIC = b"GGUF"
VERSIONS = (2, 3)
# ggml's types by their number: name, weights in a block, bytes of a block. Blocks lie within a row.
TYPES = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 40), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8), 28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36), 41: ("Q1_0", 128, 18),
}  # fmt: skip
_BOOL, _STRING, _ARRAY = 7, 8, 9
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", _BOOL: "B", 10: "Q", 11: "q", 12: "d"}
_LENGTH = struct.Struct("<Q")
_LEAST = {_STRING: 8, _ARRAY: 12}  # bytes of the shortest value; a number's are its own
_MOST_DIMENSIONS = 4
_ALIGNMENT = 32


@dataclass(frozen=True)
class GGUFTensor:
    """Where a tensor lies. shape: as in PyTorch, outermost first; type: ggml's name; offset: from the file's begin."""

    name: str
    shape: tuple[int, ...]
    type: str
    offset: int
    nbytes: int


@dataclass(frozen=True)
class GGUFFile:
    """A mapped file: `metadata`, key -> bool, int, float, str or list of these; `tensors`, name -> where it lies."""

    path: Path
    metadata: dict[str, object]
    tensors: dict[str, GGUFTensor]
    mapped: mmap.mmap = field(repr=False)

    def bytes_of(self, name: str) -> torch.Tensor:
        """A tensor's bytes as they lie in the file, uint8 (nbytes,): a view of the map, which takes no memory."""
        tensor = self.tensors[name]
        return torch.frombuffer(self.mapped, dtype=torch.uint8, count=tensor.nbytes, offset=tensor.offset)


def is_gguf(path: str | Path) -> bool:
    """Whether `path` is a plain file that begins as GGUF does, whatever its name; False for what cannot be read."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return False
        with open(path, "rb") as handle:
            return handle.read(len(MAGIC)) == MAGIC
    except (OSError, ValueError):  # ValueError: a NUL in the path
        return False


def read_gguf(path: str | Path) -> GGUFFile:
    """Map a file and read what it says of itself; its tensors' bytes are not looked at.

    Raises `UserError`, naming file and key or tensor, for what is not a whole GGUF file of version 2 or 3.
    """
    path = Path(path)
    with open_plain(path) as handle:
        if handle.read(len(MAGIC)) != MAGIC:
            raise UserError(f"{path}: is not a GGUF file (it does not begin with {MAGIC.decode()}); download it again")
        # Private, so that the views may be writable, as PyTorch wants them: what is written never reaches the file.
        mapped = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_COPY)
    read = _Cursor(path, mapped)
    version = read.number("I", "the version")
    if version not in VERSIONS:
        swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
        if swapped in VERSIONS:
            raise UserError(f"{path}: is a big-endian GGUF file, which is not read; take the little-endian one")
        raise UserError(f"{path}: is of GGUF's version {version:,}; {' and '.join(map(str, VERSIONS))} are read. "
                        "Download a newer file, or a whole one")
    tensor_count, key_count = read.number("Q", "the counts"), read.number("Q", "the counts")
    read.room(key_count, 13, f"its {key_count:,} keys")
    metadata: dict[str, object] = {}
    for number in range(1, key_count + 1):
        key = read.string(f"key {number}")
        if key in metadata:
            raise UserError(f"{path}: key {key} is there twice; the file is damaged")
        metadata[key] = read.value(read.number("I", f"key {key}"), f"key {key}")
    read.room(tensor_count, 32, f"its {tensor_count:,} tensors")
    found: dict[str, GGUFTensor] = {}
    for number in range(1, tensor_count + 1):
        tensor = _tensor(read, number)
        if tensor.name in found:
            raise UserError(f"{path}: tensor {tensor.name} is there twice; the file is damaged")
        found[tensor.name] = tensor
    return GGUFFile(path, metadata, _placed(path, found, read.at, len(mapped), metadata), mapped)


class _Cursor:
    """Takes values out of the mapped bytes, one after another, none of them beyond the end."""

    def __init__(self, path: Path, data: mmap.mmap):
        self.path, self.data, self.at = path, data, len(MAGIC)
        self.end = min(len(data), DOCUMENT)

    def room(self, count: int, size: int, what: str) -> None:
        """Raise `UserError` unless `count` values of `size` bytes at the least can still follow."""
        if count * size > self.end - self.at:
            if self.end < len(self.data):
                raise UserError(f"{self.path}: {what}: its metadata would be more than {DOCUMENT // 2**20} MB, which "
                                "no model's are; the file is damaged")
            raise UserError(f"{self.path}: ends within {what}; the file is cut or damaged, so download it again")

    def number(self, form: str, what: str):
        return self.numbers(form, 1, what)[0]

    def numbers(self, form: str, count: int, what: str) -> tuple:
        size = struct.calcsize(form)
        self.room(count, size, what)
        found = struct.unpack_from(f"<{count}{form}", self.data, self.at)
        self.at += count * size
        return found

    def string(self, what: str) -> str:
        return self.strings(1, what)[0]

    def strings(self, count: int, what: str) -> list[str]:
        """A vocabulary has hundreds of thousands of them, so that their loop is bare."""
        data, at, end, found = self.data, self.at, self.end, []
        for _ in range(count):
            begin = at + 8
            at = begin + _LENGTH.unpack_from(data, at)[0] if begin <= end else end + 1
            if at > end:
                self.at = min(begin, end)
                self.room(1, max(at - self.at, 1), f"a text of {what}")
            try:
                found.append(data[begin:at].decode("utf-8"))
            except UnicodeDecodeError as error:
                raise UserError(f"{self.path}: {what} holds a text that is not UTF-8; the file is damaged") from error
        self.at = at
        return found

    def value(self, kind: int, what: str, depth: int = 0):
        """A value of any kind; arrays as lists."""
        if kind != _ARRAY:
            return self.values(kind, 1, what)[0]
        inner, count = self.number("I", what), self.number("Q", what)
        if inner != _ARRAY:
            return self.values(inner, count, what)
        if depth == DEEPEST:
            raise UserError(f"{self.path}: {what}: is nested too deep (more than {DEEPEST} arrays inside one another)")
        self.room(count, _LEAST[_ARRAY], what)
        return [self.value(_ARRAY, what, depth + 1) for _ in range(count)]

    def values(self, kind: int, count: int, what: str) -> list:
        """`count` values of one kind that is no array."""
        if kind == _STRING:
            self.room(count, _LEAST[_STRING], what)
            return self.strings(count, what)
        if kind not in _NUMBERS:
            raise UserError(f"{self.path}: {what}: is of kind {kind:,}, which GGUF does not have; the file is damaged")
        found = self.numbers(_NUMBERS[kind], count, what)
        if kind != _BOOL:
            return list(found)
        if not set(found) <= {0, 1}:
            raise UserError(f"{self.path}: {what}: is neither true nor false but {max(found)}; the file is damaged")
        return [bool(value) for value in found]


def _tensor(read: _Cursor, number: int) -> GGUFTensor:
    """What the file says of one tensor; its offset still counts from where the tensors begin."""
    name = read.string(f"the name of tensor {number}")
    where = f"{read.path}: tensor {name}"
    count = read.number("I", f"tensor {name}")
    if not 1 <= count <= _MOST_DIMENSIONS:
        raise UserError(f"{where}: has {count:,} dimensions; 1 to {_MOST_DIMENSIONS} were expected")
    shape = read.numbers("Q", count, f"tensor {name}")[::-1]
    kind, offset = read.number("I", f"tensor {name}"), read.number("Q", f"tensor {name}")
    if kind not in TYPES:
        raise UserError(f"{where}: is of ggml's type {kind:,}, which is not known here; take the file in another "
                        "quantisation")
    kind, block, size = TYPES[kind]
    if shape[-1] % block or not all(shape):
        raise UserError(f"{where}: has shape {shape}; rows of {kind} are whole blocks of {block}, and none is empty")
    return GGUFTensor(name, shape, kind, offset, math.prod(shape) // block * size)


def _placed(path: Path, found: dict[str, GGUFTensor], header: int, size: int, metadata: dict) -> dict[str, GGUFTensor]:
    """The tensors with their places in the file: aligned, within it, none on another's bytes."""
    aligned = metadata.get("general.alignment", _ALIGNMENT)
    if isinstance(aligned, bool) or not isinstance(aligned, int) or not (
            8 <= aligned <= 2**16 and aligned & (aligned - 1) == 0):
        raise UserError(f"{path}: key general.alignment is {str(aligned)[:40]}; a power of two from 8 on was expected")
    begin = -(-header // aligned) * aligned
    before, name_before = begin, None
    for tensor in sorted(found.values(), key=lambda tensor: tensor.offset):
        where, at = f"{path}: tensor {tensor.name}", begin + tensor.offset
        if tensor.offset % aligned:
            raise UserError(f"{where}: begins at {tensor.offset:,}, which is no multiple of {aligned}; the file is "
                            "damaged")
        if at < before:
            raise UserError(f"{where}: lies on the bytes of {name_before}; the file is damaged")
        before, name_before = at + tensor.nbytes, tensor.name
        if before > size:
            raise UserError(f"{where}: would end at byte {before:,}, but the file has {size:,}; it is cut, so download "
                            "it again")
    return {tensor.name: GGUFTensor(tensor.name, tensor.shape, tensor.type, begin + tensor.offset, tensor.nbytes)
            for tensor in found.values()}
