"""PyTorch's own files (.pt, .pth): an archive of tensors and a pickle, opened as far as it is plain data.

A pickle can run code, so `weights_only=True` takes tensors and plain values alone. What that leaves open is stopped
here: a pipe, a compressed archive that is a thousand times its size, tensors that claim more numbers than the file has
bytes (a stride of zero) or lie where there are no bytes at all (PyTorch's meta device), and PyTorch's warnings, which
nobody asked for.
"""

import warnings
import zipfile
from pathlib import Path

import torch

from common.reading import check_plain


def read_state(path: str | Path, mmap: bool = False):
    """What `torch.save` wrote into `path`, its tensors on the CPU, or with `mmap` on the file.

    Raises `UserError` for what is no plain file, and any exception for what is no such archive, or a hostile one.
    """
    check_plain(path)
    with zipfile.ZipFile(path) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise ValueError("its archive is compressed, which PyTorch's never is")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.load(path, map_location="cpu", mmap=mmap, weights_only=True)


def is_plain(tensor) -> bool:
    """Whether this is a tensor in the CPU's memory, strided, not quantised, with a number for each of its elements."""
    return (isinstance(tensor, torch.Tensor) and tensor.layout == torch.strided and tensor.device.type == "cpu"
            and not tensor.is_quantized and not tensor.is_nested
            and tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes())
