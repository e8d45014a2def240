"""The options of an export, and what can be known to be wrong with them before anything is read."""

import re
from dataclasses import dataclass
from pathlib import Path

from common.errors import UserError
from common.files import check_place, find_path
from common.options import option
from common.reading import check_path

UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
TAKES = {  # what --to may be, and which of the options below mean something for it
    "peft": (), "merged": ("base", "dtype", "shard_size"), "bnb-4bit": ("base", "dtype", "double"),
    "gguf-f16": ("base",), "gguf-q8_0": ("base",), "gguf-q4_0": ("base",),
}  # fmt: skip


@dataclass
class ExportOptions:
    """Options of one export."""

    run: str | None = option(None, "folder of a finished run (default: the newest in runs/)", metavar="DIR")
    to: str | None = option(None, "what to write", choices=tuple(TAKES))
    out: str | None = option(None, "new folder for it", metavar="DIR")
    base: str | None = option(None, "what the adapter is merged with: the base dequantised from NF4, or as in its "
                              "files (default: as in training)", choices=("nf4", "original"))
    dtype: str = option("stored", "of the tensors; stored is that of the base's files",
                        choices=("stored", "float32", "bfloat16", "float16"))
    shard_size: str = option("5GB", "merged: largest file, in KB, MB, GB or TB", metavar="SIZE")
    double: bool = option(False, "bnb-4bit: quantise the scales as well (double quantisation)")
    name: str | None = option(None, "the model's name in its card (default: the folder's, with Llama- in front where "
                              "the licence asks for it)", metavar="NAME")
    base_name: str | None = option(None, "what the base is called on the Hub, such as meta-llama/Llama-3.2-3B-Instruct "
                                   "(default: as train.py was told, or its folder's name)", metavar="NAME")
    metrics: list[str] = option((), "evaluations of this run that lie outside its folder, for the card", metavar="FILE")
    model: str | None = option(None, "where the base model is, if it has moved since training", metavar="DIR")
    cache: str | None = option(None, "folder that keeps the hashes of unchanged files", metavar="DIR")
    report: list[str] = option((), "labelled files: after the export, write python -m tools.merge_report on them into "
                               "the run's folder", metavar="FILE")


def check_options(options: ExportOptions) -> Path:
    """The folder to write. Raises `UserError` for what is missing, does not go together, or is not free."""
    for name, right in (("to", f"one of {', '.join(TAKES)}"), ("out", "a new folder")):
        if getattr(options, name) is None:
            raise UserError(f"--{name}: is missing; give {right}")
    for name in ("base", "dtype", "shard_size", "double"):
        if name in options.given and name not in TAKES[options.to]:
            where = ", ".join(kind for kind, taken in TAKES.items() if name in taken)
            raise UserError(f"--{name.replace('_', '-')}: means nothing for --to {options.to}; it goes with {where}")
    for name in options.report:
        if not find_path(name).is_file():
            raise UserError(f"--report {name}: there is no such file; name labelled posts")
    shard_bytes(options.shard_size)
    out = Path(options.out)
    check_path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out {out}: {'is not empty' if out.is_dir() else 'is a file'}; choose a new folder")
    check_place(out, "--out")
    return out


def shard_bytes(text: str) -> int:
    """`shard_bytes("5GB") -> 5_000_000_000`: a number and KB, MB, GB or TB, powers of 1000 as in transformers."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMGT]B)", text.strip().upper())
    if not found or float(found[1]) == 0:
        raise UserError(f"--shard-size '{text}': is no size; give a number and its unit, such as 5GB or 200MB")
    return int(float(found[1]) * UNITS[found[2]])
