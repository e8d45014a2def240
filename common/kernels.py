"""The one place that decides whether a tensor goes to a Triton kernel or through PyTorch's own operations.

A kernel is a file `..._triton.py` beside the plain version, which is its specification; it fuses what PyTorch runs as
several operations, so that memory is read and written once and the host launches once. It is never required. It runs
where all of this holds: Triton can be imported; the tensors are contiguous and lie on an NVIDIA card of compute
capability 8.0 or later; their dtype is one of `DTYPES`; they are real (fake and meta tensors have no memory to point
at). Triton is imported when the first tensor on such a card asks, so a CPU never pays for it.

    if runs_kernel(x) and works("model.rope_triton", x, *sizes):
        from model.rope_triton import rotate_kernel     # here, not at the top of the file
        return rotate_kernel(x, cos, sin)

A file's kernels are tried once for each card, dtype and size, forward and backward on one token (`works`): what the
card's compiler or driver refuses is said in one line, and from then on PyTorch's operations do that work.

`plain_kernels` turns all of them off for a comparison. `kernels_on("cpu")` is for tests in a process that was started
with TRITON_INTERPRET=1, in which Triton executes the kernels with NumPy. `counted_launches` is for tests that walk the
code with fake CUDA tensors: each kernel is chosen as on a card, and a launch only notes the kernel's name.
"""

import subprocess
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module

import torch

from common.errors import one_line

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
OLDEST = (8, 0)  # the compute capability from which on a card has bfloat16, and for which the tests compile
_REAL = (torch.Tensor, torch.nn.Parameter)
_device_types: tuple[str, ...] = ("cuda",)
_noted: list[str] | None = None  # within `counted_launches`
_tried: dict[tuple, bool] = {}  # (file, device, dtype, sizes) -> whether its kernels were launched without an error


def runs_kernel(*tensors: torch.Tensor) -> bool:
    """Whether a kernel may take these tensors; asked for each call, so the usual "no" on a CPU comes first."""
    first = tensors[0]
    device = first.device
    if device.type not in _device_types or not (_has_triton() if _noted is not None else why_not(device) is None):
        return False
    return all(tensor.device == device and tensor.is_contiguous() and (type(tensor) in _REAL or _noted is not None)
               for tensor in tensors)


def works(file: str, x: torch.Tensor, *sizes) -> bool:
    """Whether the kernels in `file` can be compiled and launched for tensors like `x` of these sizes.

    At the first question the file's `attempt(device, dtype, *sizes)` launches them on as little as there is; an error
    is a warning of one line, and the answer is no from then on. Nothing waits for the card. Memory that runs out is no
    answer: it is raised.
    """
    key = (file, x.device, x.dtype, *sizes)
    if key not in _tried:
        if _noted is not None:
            return True
        _tried[key] = _launches(*key)
    return _tried[key]


@torch.inference_mode(False)
@torch.enable_grad()
def _launches(file: str, *key) -> bool:
    try:
        # Not through the hooks of whatever is computed here: checkpointing counts what is kept, and would count this.
        with torch.autograd.graph.saved_tensors_hooks(_same, _same):
            import_module(file).attempt(*key)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever Triton, its compiler, the assembler or the driver raises
        said = one_line((str(error).strip().splitlines() or [""])[-1], 200)
        warnings.warn(f"the kernels in {file} cannot be used here, PyTorch's slower operations are: "
                      f"{type(error).__name__}: {said}", stacklevel=4)
        return False
    return True


def _same(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


def launch(kernel, programs: int, *arguments, **options) -> None:
    """Start `programs` programs of a kernel on the card that holds its first argument; `options` are its constants.

    Products and sums are rounded one by one (no fused multiply-add), as in the operations that the kernel replaces.
    """
    if _noted is not None:
        _noted.append(kernel.__name__)
        return
    device = arguments[0].device
    if device.type == "cuda" and device.index != torch.cuda.current_device():
        with torch.cuda.device(device):
            kernel[(programs,)](*arguments, enable_fp_fusion=False, **options)
    else:
        kernel[(programs,)](*arguments, enable_fp_fusion=False, **options)


@contextmanager
def kernels_on(*device_types: str) -> Iterator[None]:
    """Within the block, kernels run on devices of these types and no others; in all threads, since backward has its
    own."""
    global _device_types
    before, _device_types = _device_types, device_types
    try:
        yield
    finally:
        _device_types = before


def plain_kernels():
    """Within the block, no kernel runs: everything goes through PyTorch's operations, as on a CPU."""
    return kernels_on()


@contextmanager
def counted_launches() -> Iterator[list[str]]:
    """Within the block, kernels are chosen for fake CUDA tensors as for real ones, and their names are noted in the
    list, in the order of the launches; nothing is computed."""
    global _noted
    before, _noted = _noted, []
    try:
        yield _noted
    finally:
        _noted = before


@cache
def why_not(device: torch.device) -> str | None:
    """Why no kernel runs on a device, in words; None where they run."""
    if not _has_triton():
        return "Triton is not installed"
    if device.type == "cpu":  # `kernels_on("cpu")`, interpreted
        return None
    if torch.version.cuda is None:
        return "they were never run on a card that is not NVIDIA's"
    if torch.cuda.get_device_capability(device) < OLDEST:
        return "they need a card of compute capability {}.{} or later".format(*OLDEST)
    from triton.runtime import driver

    try:  # Triton compiles its link to the driver: it needs a C compiler, Python's headers, and a folder to write to
        driver.active.get_current_target()
    except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
        warnings.warn(f"Triton's kernels cannot be used here, PyTorch's slower operations are: {error}", stacklevel=2)
        return f"Triton cannot be used here: {one_line(str(error))}"
    return None


@cache
def _has_triton() -> bool:
    try:
        import triton  # noqa: F401
    except ImportError:
        return False
    return True
