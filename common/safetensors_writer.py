"""A safetensors file written one tensor at a time, in any order: memory holds one tensor and never the whole file.

    8 bytes: length of the header | header: JSON, name -> dtype, shape, offsets | the tensors' bytes, without gaps

The offsets follow from dtypes and shapes, so each tensor can be written where it belongs as it comes. Readers map the
file and view its bytes as numbers, so each tensor must begin at a multiple of its item size: wide dtypes come first. A
tensor whose length is known only when it is made (`None` as shape) goes to the end. The header is written last, into
space that was reserved for it, and padded with blanks, as the format allows.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

from common.files import atomic_write

DTYPES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.uint8: "U8"}
ALIGNED = 64  # the data begin at a multiple of this, a cache line
_LONGEST = 10**15  # placeholder in the header for a length that is not known yet
Form = tuple[torch.dtype, tuple[int, ...] | None]


@contextmanager
def safetensors_writer(path: str | Path, layout: Mapping[str, Form]) -> Iterator[Callable[[str, torch.Tensor], None]]:
    """Give `put(name, tensor)`, to be called once for each name of `layout` (name -> dtype and shape), in any order.

    The file appears whole when the block ends, or not at all. A shape of `None` is one dimension of any length, of
    uint8. Raises `ValueError` for a tensor that is not in the layout, of another dtype or shape, put twice or missing,
    and `UserError` if the file cannot be written.
    """
    places, end = {}, 0  # name -> shape, begin, end
    for name in sorted(layout, key=lambda name: (layout[name][1] is None, -layout[name][0].itemsize, name)):
        dtype, shape = layout[name]
        if shape is not None:
            size = torch.Size(shape).numel() * dtype.itemsize
            places[name], end = (tuple(shape), end, end + size), end + size
    late = {name: ((_LONGEST,), _LONGEST, _LONGEST) for name in layout.keys() - places.keys()}
    room = -(-(8 + len(_header(layout, places | late))) // ALIGNED) * ALIGNED
    missing = set(layout)

    with atomic_write(path, "wb") as handle:

        def put(name: str, tensor: torch.Tensor) -> None:
            nonlocal end
            dtype, shape = layout[name] if name in missing else (None, None)
            if dtype != tensor.dtype or shape not in (None, tuple(tensor.shape)):
                raise ValueError(f"{name}: {tensor.dtype} {tuple(tensor.shape)} has no place left in this file")
            if shape is None:
                places[name], end = ((tensor.numel(),), end, end + tensor.numel()), end + tensor.numel()
            missing.remove(name)
            handle.seek(room + places[name][1])
            handle.write(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)

        yield put
        if missing:
            raise ValueError(f"{min(missing)} was not put into the file")
        handle.seek(0)
        handle.write((room - 8).to_bytes(8, "little") + _header(layout, places).ljust(room - 8))


def _header(layout: Mapping[str, Form], places: Mapping[str, tuple]) -> bytes:
    """The JSON of a file whose tensors lie at `places`; "format" is what transformers looks for."""
    entries = {name: {"dtype": DTYPES[layout[name][0]], "shape": list(shape), "data_offsets": [begin, end]}
               for name, (shape, begin, end) in places.items()}
    return json.dumps({"__metadata__": {"format": "pt"}, **entries}, separators=(",", ":")).encode()
