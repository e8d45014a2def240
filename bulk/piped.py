"""Labels on standard output, for the next program of a pipe: `--output -`."""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

from common.errors import Shown, ToBeContinued, UserError
from data.inputs import STDIN
from data.writers import OUTPUT_FORMATS, PARQUET

JSONL = OUTPUT_FORMATS[0].removeprefix(".")


@contextmanager
def piped(options) -> Iterator[None]:
    """With `--output -`, what the block says goes to standard error, and the labels to standard output behind it.

    They grow in a file of `--format` (jsonl if none is given), and are passed on when that is whole, so that the next
    program gets all of them or none. A terminal or a notebook is shown them as text. Raises `UserError` for options
    that need a file that stays, where the block is asked to end and go on later, and for parquet or gzip to be shown.
    """
    if options.output != STDIN:
        yield
        return
    for name in ("resume", "overwrite", "shard"):
        if getattr(options, name):
            raise UserError(f"--output - and --{name}: a pipe has no file that could stay; leave one out")
    kind, options.format, options.pipes = options.format or JSONL, None, True
    is_shown = sys.stdout.isatty() or not hasattr(sys.stdout, "buffer")  # a notebook's takes no bytes
    if is_shown and kind.endswith((".gz", PARQUET.removeprefix("."))):
        raise UserError(f"--output -: {kind} is nothing to read in a terminal; send it on, or name a file")
    with tempfile.TemporaryDirectory(prefix="labels-", ignore_cleanup_errors=True) as folder:
        path = Path(folder) / f"labels.{kind}"
        options.output = str(path)
        try:
            with redirect_stdout(Shown(sys.stderr)):
                yield
        except ToBeContinued as error:
            raise UserError("--output -: was asked to end, and what goes into a pipe cannot be gone on with; with a "
                            "file as --output, --resume does") from error
        except UserError as error:  # of a file that the user never named
            raise UserError(str(error).replace(str(path), STDIN)) from error
        if path.exists():  # not after a dry run
            with open(path, encoding="utf-8-sig") if is_shown else open(path, "rb") as labels:
                shutil.copyfileobj(labels, sys.stdout if is_shown else sys.stdout.buffer)
