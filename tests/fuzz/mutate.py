"""Bytes to other bytes: what breaks readers, put at random into files that are good.

What a file is, its bytes say: gzipped, a zip archive of PyTorch's, safetensors, GGUF, JSON, lines of JSON, or any text.
Where it has an inner form, the damage is done inside of it as often as to the bytes, so that it gets past the first
check.
"""

import gzip
import io
import json
import random
import re
import struct
import zipfile
import zlib
from collections.abc import Callable

Mutate = Callable[[bytes, random.Random], bytes]
LARGEST = 200_000  # bytes of a mutated file: small inputs, many of them
NUMBERS = ["0", "-1", "1", "2", "0.5", "-0.0", "7e-324", "1e308", "1e999", "-1e999", "2147483648", "4294967296",
           "9223372036854775807", "9223372036854775808", "1" + "0" * 18, "1" + "0" * 30, "9" * 310, "9" * 5000, "NaN",
           "Infinity", "0x" + "f" * 500, "1_000", "1e5", "007"]  # fmt: skip
VALUES = [
    None, True, False, 0, -1, 1, 3, 0.5, 10**9, 10**18, 10**30, 10**305, "", "x", " ", "\0", "\x1b[31m", "²", "٣",
    "a/b", "../x", "/dev/zero", "n" * 300, "n" * 5000, "a\nb\rc\u2028d", "<script>", "=1+1", "\ud83d", "(", "(a|a)*b",
    "((a{999}){999}){999}", "float32", "nf4", "en", [], [None], [[]], [1, 2], ["x"], {}, {"a": 1}, {"": None},
    [[[[[[[[]]]]]]]], {"x" * 300: 1}, list(range(300)), {str(n): n for n in range(300)},
]
PIECES = [
    b"null", b"[]", b"{}", b"-1", b"1e999", b'"', b"'", b"\0", b"\xff", b"\xed\xa0\x80", b"NaN", b"9" * 30,
    b"9" * 5000, b"true", b"\\ud800", b"\\u0000", b"\x1b]0;x\x07", b"\xef\xbb\xbf", b"\r", b"\r\n", b"\n", b"\x85",
    b"\t", b",", b";", b"[" * 3000, b'{"a":' * 3000, b"a." * 3000, b"[[" * 50, b"n" * 300, b'"""', b"\'\'\'", b"=",
    b"#", b"{post}", b"{", "²٣①".encode(), "\u202e\u200b\ufffd".encode(), b"}", b"1.7976931348623157e309", b"\x80\x04",
    b"\x1f\x8b", b"PK\x03\x04",
]
_VALUE = re.compile(rb'(?<=[:=]) ?("(?:[^"\\]|\\.)*"|-?[\d.]+(?:e-?\d+)?|true|false|null)')
_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?")


def mutate(data: bytes, rng: random.Random) -> bytes:
    """One to four changes, most often one."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        data = _inside(data, rng)[: max(LARGEST, len(data))]
    return data


def _inside(data: bytes, rng: random.Random) -> bytes:
    """A change inside the form that the bytes have, or to the bytes."""
    if rng.random() < 0.25:
        return damage(data, rng)
    for form in (_gzipped, _archive, _safetensors, _gguf, _json, _json_lines):
        changed = form(data, rng)
        if changed is not None:
            return changed
    return damage(data, rng)


def damage(data: bytes, rng: random.Random) -> bytes:
    """A change to bytes of any kind, more often near the start, where headers are."""
    if not data:
        return rng.choice(PIECES)
    end = len(data) if rng.random() < 0.5 else min(len(data), 400)
    place = rng.randrange(end)
    length = min(rng.choice((1, 1, 2, 8, 30, 400)), len(data) - place)
    kind = rng.randrange(9)
    if kind == 0:
        return data[:place] + bytes([rng.randrange(256)]) + data[place + 1 :]
    if kind == 1:
        return data[:place] + data[place + length :]
    if kind == 2:
        return data[:place]
    if kind == 3:
        return data[:place] + rng.choice(PIECES) + data[place:]
    if kind == 4:
        return data[:place] + data[place : place + length] * rng.choice((2, 3, 50, 500)) + data[place + length :]
    if kind == 5:
        other = rng.randrange(len(data))
        return data[:place] + data[other : other + length] + data[place + length :]
    if kind == 6:
        return data[:place] + bytes(rng.randrange(256) for _ in range(length)) + data[place + length :]
    found = list((_VALUE if kind == 7 else _NUMBER).finditer(data))
    if not found:
        return damage(data, rng)
    hit = rng.choice(found)
    start, end = hit.span(hit.lastindex or 0)
    new = rng.choice(NUMBERS) if rng.random() < 0.5 or kind == 8 else json.dumps(rng.choice(VALUES))
    return data[:start] + new.encode() + data[end:]


def change_value(value, rng: random.Random, values=VALUES):
    """A plain value with one of its parts changed: replaced by one of `values`, removed, doubled or renamed."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        kind = rng.random()
        if kind < 0.7:
            return {**value, key: change_value(value[key], rng, values)}
        if kind < 0.8:
            return {name: item for name, item in value.items() if name != key}
        new = rng.choice([v for v in VALUES if isinstance(v, str)])
        return {new if name == key else name: item for name, item in value.items()} if kind < 0.9 else {
            **value, new: rng.choice(values)}
    if isinstance(value, list | tuple) and value and rng.random() < 0.9:
        place, kind, items = rng.randrange(len(value)), rng.random(), list(value)
        if kind < 0.7:
            items[place] = change_value(items[place], rng, values)
        elif kind < 0.8:
            del items[place]
        else:
            items.insert(place, items[place] if kind < 0.9 else rng.choice(values))
        return type(value)(items) if type(value) in (list, tuple) else items
    return rng.choice(values)


def _dumped(value, rng: random.Random) -> bytes:
    text = json.dumps(value, indent=rng.choice((None, 2)), ensure_ascii=rng.random() < 0.5)
    return text.encode("utf-8", "surrogatepass")


def _json(data: bytes, rng: random.Random) -> bytes | None:
    if data[:1] not in (b"{", b"["):
        return None
    try:
        return _dumped(change_value(json.loads(data), rng), rng)
    except (ValueError, RecursionError):
        return None


def _json_lines(data: bytes, rng: random.Random) -> bytes | None:
    lines = data.split(b"\n")
    if len(lines) < 2 or data[:1] != b"{":
        return None
    place = rng.randrange(len(lines))
    if rng.random() < 0.2:
        lines[place:place] = [rng.choice(lines)]
    try:
        lines[place] = json.dumps(change_value(json.loads(lines[place]), rng), ensure_ascii=rng.random() < 0.5).encode(
            "utf-8", "surrogatepass")
    except (ValueError, RecursionError):
        return None
    return b"\n".join(lines)


def _gzipped(data: bytes, rng: random.Random) -> bytes | None:
    if data[:2] != b"\x1f\x8b":
        return None
    try:
        inner = gzip.decompress(data)
    except (OSError, EOFError, zlib.error):
        return None
    return gzip.compress(_inside(inner, rng), 1, mtime=0)


def _safetensors(data: bytes, rng: random.Random) -> bytes | None:
    size = int.from_bytes(data[:8], "little")
    if len(data) < 10 or data[8:9] != b"{" or size > len(data) - 8:
        return None
    kind, header, body = rng.random(), data[8 : 8 + size], data[8 + size :]
    if kind < 0.1:
        changed = rng.choice((0, 1, size - 1, size + 1, 10**8, 10**18, 2**63, 2**64 - 1))
        return struct.pack("<Q", changed % 2**64) + data[8:]
    if kind < 0.8:
        header = _json(header.rstrip(), rng) or damage(header, rng)
    else:
        body = damage(body, rng)
    return struct.pack("<Q", len(header)) + header + body


def _gguf(data: bytes, rng: random.Random) -> bytes | None:
    """A number of the header (a count, a length, a kind, an offset) that is another one, mostly one that hurts."""
    if data[:4] != b"GGUF" or len(data) < 40 or rng.random() < 0.3:
        return None
    place = rng.randrange(4, min(len(data), 4000))
    form = rng.choice("BIIQQ")
    most = 2 ** (8 * struct.calcsize(form)) - 1
    number = rng.choice((0, 1, 2, 8, 9, 12, 31, 255, 2**16, 2**31, 2**32 - 1, 2**40, 2**61, 2**63, 2**64 - 1,
                         rng.randrange(64)))
    packed = struct.pack(f"<{form}", min(number, most))
    return data[:place] + packed + data[place + len(packed) :]


def _archive(data: bytes, rng: random.Random) -> bytes | None:
    """A zip archive: one of its entries changed, cut, renamed, compressed, or left out."""
    if data[:4] != b"PK\x03\x04":
        return None
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
    except (zipfile.BadZipFile, OSError, ValueError, EOFError, NotImplementedError, zlib.error, RuntimeError):
        return None
    names = list(parts)
    pickled = next((name for name in names if name.endswith("data.pkl")), None)
    name = pickled if rng.random() < 0.7 else rng.choice(names or [None])
    if name is None:
        return None
    how, kind = zipfile.ZIP_STORED, rng.random()
    if kind < 0.8:
        parts[name] = damage(parts[name], rng)
    elif kind < 0.9:
        how = zipfile.ZIP_DEFLATED
        parts[name] += bytes(rng.choice((0, 10**6)))
    else:
        del parts[name]
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", how) as archive:
        for name, inner in parts.items():
            archive.writestr(name, inner)
    return written.getvalue()
