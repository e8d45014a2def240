"""GGUF files for tests, packed by hand, so that each claim in them can be a lie."""

import struct

KINDS = {"uint8": 0, "int8": 1, "uint16": 2, "int16": 3, "uint32": 4, "int32": 5, "float32": 6, "bool": 7, "string": 8,
         "array": 9, "uint64": 10, "int64": 11, "float64": 12}  # fmt: skip
FORMS = dict(zip(KINDS, ["B", "b", "H", "h", "I", "i", "f", "?", "", "", "Q", "q", "d"], strict=True))


def text(value: str | bytes) -> bytes:
    """A string as it lies in the file."""
    data = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(data)) + data


def plain(kind: str, value) -> bytes:
    """A value without its kind; an array is (kind of its values, list)."""
    if kind == "string":
        return text(value)
    if kind == "array":
        inner, values = value
        return struct.pack("<IQ", KINDS[inner], len(values)) + b"".join(plain(inner, one) for one in values)
    return struct.pack(f"<{FORMS[kind]}", value)


def pair(key: str, kind: str, value) -> bytes:
    """A key with its value."""
    return text(key) + struct.pack("<I", KINDS[kind]) + plain(kind, value)


def info(name: str, shape: tuple[int, ...], kind: int, offset: int) -> bytes:
    """What the file says of a tensor; shape as in PyTorch."""
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape[::-1], kind, offset)


def packed(pairs=(), infos=(), body: bytes = b"", *, magic: bytes = b"GGUF", version: int = 3,
           tensors: int | None = None, keys: int | None = None, aligned: int = 32) -> bytes:
    """A whole file; `tensors` and `keys` are the counts that it claims."""
    head = magic + struct.pack("<IQQ", version, len(infos) if tensors is None else tensors,
                               len(pairs) if keys is None else keys) + b"".join([*pairs, *infos])
    return head + bytes(-len(head) % aligned) + body
