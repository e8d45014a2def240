"""Errors that a user can correct, each told in one line.

Every program's `main` runs inside `run_program`. A `UserError` says where (file, row, key or option), what is wrong and
what would be right; it reaches the terminal as one line on stderr and exit status 2. Any other exception is a defect of
this project and keeps its traceback.
"""

import os
import sys
from collections.abc import Callable


class UserError(Exception):
    """Something that the user can put right; `str(error)` is one line: where, what, and what would be right."""

    def __init__(self, message: str):
        super().__init__(" ".join(str(message).split()))


def run_program(main: Callable[[list[str]], None], argv: list[str] | None = None) -> None:
    """Run `main(argv)` as a program: exit 0; 2 after a `UserError` or out of memory; 130 after Ctrl-C; 141 if
    nobody reads its output any more."""
    try:
        main(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except (MemoryError, RuntimeError) as error:
        if not is_memory(error):
            raise
        what = str(error).strip().splitlines()[0][:100] if str(error) else "Python's"
        print(f"error: not enough memory ({what}); try --quantize nf4, --checkpointing on, fewer "
              "--micro-tokens or a smaller model", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        # The reader (say, `head`) has gone. Point stdout elsewhere, or Python complains again while closing it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)


def is_memory(error: Exception) -> bool:
    """Whether an exception means that memory ran out: Python's, numpy's, PyTorch's on a GPU, or its CPU allocator's."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"MemoryError", "OutOfMemoryError"}) or "DefaultCPUAllocator" in str(error)


def closest(word: str, candidates) -> str:
    """A hint for a misspelt name: `closest("langages", ["languages"]) -> "; did you mean 'languages'?"`, or ""."""
    import difflib

    match = difflib.get_close_matches(str(word), [str(c) for c in candidates], n=1)
    return f"; did you mean '{match[0]}'?" if match else ""
