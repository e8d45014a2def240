"""A run as files that other programs load: an adapter, a whole model, in 16 bits, 4 bits or GGUF, with its model card.

    python -m tools.export --run runs/mine --to peft --out exports/mine                    the adapter, for peft
    python -m tools.export --run runs/mine --to merged --out exports/mine                  for transformers
    python -m tools.export --run runs/mine --to merged --base original --shard-size 2GB --out exports/mine
    python -m tools.export --run runs/mine --to bnb-4bit --out exports/mine                transformers + bitsandbytes
    python -m tools.export --run runs/mine --to gguf-q8_0 --out exports/mine               for llama.cpp

A merged weight is W + s B A, computed in float32 and rounded once. With --base nf4, W is what the adapter was trained
beside, the 4-bit weights dequantised; with --base original it is what the base's 16-bit files hold, which the adapter
never saw. Both are in use, and the card says which was taken. Tensors are made, written and forgotten one by one, into
a folder beside --out that is renamed at the end. README.md is the model card; what the base's licence wants passed on
is put beside it. What is made from Llama weights is called Llama-...: that is the model's name, and the folder may be
called anything. No post leaves with a model.
"""

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from common.device import DTYPES
from common.errors import UserError, run_program
from common.files import atomic_folder, atomic_write, check_place, find_path, read_json, write_json
from common.options import option, parse_options
from common.reading import check_path
from common.terminal import human_bytes, progress
from data.prompt import Prompt
from finetune.run_folder import RunFolder
from inference.run import base_folder, finished_run, run_prompt
from loading.hub import is_name
from loading.sources import Source
from lora.adapter import CONFIG, TENSORS
from quant.stored import write_stored
from tools.export.card import TEXT_LOSS, Card, read_evaluations
from tools.export.licence import Base, describe_base
from tools.export.snippet import usage
from tools.export.tensors import MergedTensors, merged_config, write_shards

TOKENIZER = ("tokenizer.model", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
             "added_tokens.json", "chat_template.jinja", "chat_template.json")  # fmt: skip
UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
BASES = {"none": "as it is in its 16-bit files",
         "nf4": "dequantised from NF4, as it was in training",
         "nf4-double": "dequantised from NF4 with quantised scales, as it was in training"}  # fmt: skip


@dataclass(frozen=True)
class Export:
    """What is exported: the run, its base and prompt, the merged tensors, the model's name."""

    options: "ExportOptions"
    run: RunFolder
    base: Base
    prompt: Prompt
    tensors: MergedTensors
    quantize: str  # how the merged tensors have the base: a key of BASES
    name: str

    def usage(self, kind: str, **words) -> str:
        return usage(kind, name=self.name, base=self.base.name, sentencepiece=self.sentencepiece, **words)

    @property
    def sentencepiece(self) -> bool:
        return self.prompt.tokenizer.kind == "sentencepiece"

    @property
    def merged_on(self) -> str:
        dtype = "" if self.tensors.dtype is None else f" and rounded to {_word(self.tensors.dtype)}"
        return f"base and adapter merged, computed in float32{dtype}; the base was taken {BASES[self.quantize]}"

    @property
    def tokenizer(self) -> Path:
        return Source(self.base.folder).tokenizer

    def copy_tokenizer(self, folder: Path) -> None:
        """The tokenizer's files and what transformers needs beside a whole model, as they are beside the base."""
        for name in TOKENIZER:
            if (self.tokenizer / name).is_file():
                shutil.copyfile(self.tokenizer / name, folder / name)
        if (self.base.folder / "generation_config.json").is_file():
            shutil.copyfile(self.base.folder / "generation_config.json", folder / "generation_config.json")


def write_peft(export: Export, folder: Path) -> tuple[list[str], str]:
    """adapter_config.json, naming the base as others know it, and the adapter's tensors, byte for byte."""
    adapter = export.run.path / "adapter"
    write_json(folder / CONFIG, read_json(adapter / CONFIG) | {"base_model_name_or_path": export.base.name})
    shutil.copyfile(adapter / TENSORS, folder / TENSORS)
    trained = export.run.facts["options"]["quantize"]
    four_bits = trained if trained != "none" and not export.tensors.packed else None
    return [f"a LoRA adapter in peft's layout, for `{export.base.name}`",
            f"it was trained beside the base {BASES[trained].removesuffix(', as it was in training')}"
            + ("; on the 16-bit base its answers differ a little" if four_bits else "")
            ], export.usage("peft", four_bits=four_bits)  # fmt: skip


def write_merged(export: Export, folder: Path) -> tuple[list[str], str]:
    """config.json, safetensors in shards, tokenizer, generation config."""
    count = write_shards(folder, export.tensors, shard_bytes(export.options.shard_size))
    write_json(folder / "config.json", merged_config(export.tensors))
    export.copy_tokenizer(folder)
    return [f"the whole model in {count} safetensors file{'s' * (count > 1)}: {export.merged_on}",
            *_about_tokenizer(export)], export.usage("merged")


def write_bnb_4bit(export: Export, folder: Path) -> tuple[list[str], str]:
    """The merged model, its linears quantised to NF4, as transformers and bitsandbytes write it."""
    tensors = export.tensors
    write_stored(folder, merged_config(tensors), tensors.layout, tensors.linears, tensors.items(),
                 double=export.options.double)
    export.copy_tokenizer(folder)
    scales = " with quantised scales" if export.options.double else ""
    return [f"the whole model, its linears in bitsandbytes' NF4{scales}: {export.merged_on}",
            "the merged weights were then quantised to NF4, anew: each moved by up to half a step of its block, which "
            "can be more than the adapter had moved it", *_about_tokenizer(export)], export.usage("merged")


def write_gguf(export: Export, folder: Path) -> tuple[list[str], str]:
    """One file for llama.cpp, and the tokenizer's files, for those who make ids by themselves."""
    try:
        from tools.export.gguf_file import write_gguf as write
    except ModuleNotFoundError as error:
        raise UserError(f"--to {export.options.to}: needs the package gguf (extra 'gguf'): pip install \"gguf>=0.17\""
                        ) from error
    kind = export.options.to.removeprefix("gguf-")
    file = f"{export.name}-{kind.upper()}.gguf"
    notes = write(export.tensors, export.tokenizer, folder / file, kind)
    export.copy_tokenizer(folder)
    return [f"the whole model for llama.cpp, `{file}`: {export.merged_on}",
            f"then written as {kind.upper()}; tensors whose rows it does not fit are 16-bit", *notes
            ], export.usage("gguf", file=file)  # fmt: skip


@dataclass(frozen=True)
class Format:
    """One value of --to. library, relation: the Hub's words. options: those that mean something for it."""

    write: Callable[[Export, Path], tuple[list[str], str]]  # what the folder now holds, and how it is loaded
    library: str | None
    relation: str
    options: tuple[str, ...] = ()


_GGUF = Format(write_gguf, None, "quantized", ("base",))
FORMATS = {
    "peft": Format(write_peft, "peft", "adapter"),
    "merged": Format(write_merged, "transformers", "finetune", ("base", "dtype", "shard_size")),
    "bnb-4bit": Format(write_bnb_4bit, "transformers", "quantized", ("base", "dtype", "double")),
    "gguf-f16": _GGUF, "gguf-q8_0": _GGUF, "gguf-q4_0": _GGUF,
}  # fmt: skip


@dataclass
class ExportOptions:
    """Options of one export."""

    run: str | None = option(None, "folder of a finished run (default: the newest in runs/)", metavar="DIR")
    to: str | None = option(None, "what to write", choices=tuple(FORMATS))
    out: str | None = option(None, "new folder for it", metavar="DIR")
    base: str | None = option(None, "what the adapter is merged with: the base dequantised from NF4, or as in its "
                              "16-bit files (default: as in training)", choices=("nf4", "original"))
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
    report: list[str] = option((), "labelled files: behind the export, write python -m tools.merge_report on them into "
                               "the run's folder", metavar="FILE")


def main(argv: list[str]) -> None:
    """Check everything that can be checked, then write the folder and say what it is."""
    options = parse_options(ExportOptions, argv, program="python -m tools.export", description=__doc__)
    out = check_options(options)
    run = finished_run(options.run)
    export = prepare(options, run, out.absolute().name)
    evaluations = read_evaluations(run, options.metrics)
    form = FORMATS[options.to]
    card = Card(export.name, export.base, run.facts, export.prompt.parts(), evaluations, form.library, form.relation)
    card.text()  # what run.json lacks is found out before gigabytes are written
    with atomic_folder(out) as folder, progress(len(export.tensors), "tensor", "exporting") as bar:
        export.tensors.on_read = bar.update
        holds, code = form.write(export, folder)
        export.base.write(folder)
        with atomic_write(folder / "README.md") as handle:
            handle.write(replace(card, holds=tuple(holds), code=code).text())
    print("\n".join(said(export, out, evaluations)))
    if options.report:
        from tools.merge_report import main as merge_report  # it imports this module's neighbours

        more = [word for name in ("model", "cache") if getattr(options, name) for word in (f"--{name}",
                                                                                           getattr(options, name))]
        merge_report(["--run", str(run.path), "--data", *options.report, *more])


def check_options(options: ExportOptions) -> Path:
    """The folder to write. Raises `UserError` for what is missing, does not go together, or is not free."""
    for name, right in (("to", f"one of {', '.join(FORMATS)}"), ("out", "a new folder")):
        if getattr(options, name) is None:
            raise UserError(f"--{name}: is missing; give {right}")
    for name in ("base", "dtype", "shard_size", "double"):
        if name in options.given and name not in FORMATS[options.to].options:
            where = ", ".join(key for key, form in FORMATS.items() if name in form.options)
            raise UserError(f"--{name.replace('_', '-')}: means nothing for --to {options.to}; it goes with {where}")
    for name in options.report:
        if not find_path(name).is_file():
            raise UserError(f"--report {name}: there is no such file; name labelled posts")
    shard_bytes(options.shard_size)
    out = Path(options.out)
    check_path(out / "README.md")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out {out}: {'is not empty' if out.is_dir() else 'is a file'}; choose a new folder")
    check_place(out, "--out")
    return out


def prepare(options: ExportOptions, run: RunFolder, place: str) -> Export:
    """Open the base and the adapter of a run; nothing is merged yet. Raises `UserError` where they do not fit."""
    folder = base_folder(run, options.model, options.cache)
    prompt, trained = run_prompt(run, folder), run.facts["options"]["quantize"]
    quantize = "none" if options.base == "original" else trained
    dtype = {"stored": "stored", **DTYPES}[options.dtype] if "dtype" in FORMATS[options.to].options else None
    tensors = MergedTensors(folder, adapter=run.path / "adapter", quantize=quantize, dtype=dtype)
    if options.base == "original" and tensors.packed:
        raise UserError(f"--base original: {folder} holds its weights in 4 bits only; leave the option out")
    if options.base == "nf4" and trained == "none" and not tensors.packed:
        raise UserError(f"--base nf4: {run.path} was trained beside the base as in its files; take --base original")
    base = describe_base(folder, tensors.config.vocab_size, options.base_name or known_name(run))
    return Export(options, run, base, prompt, tensors, "nf4" if tensors.packed and quantize == "none" else quantize,
                  base.model_name(options.name, place))


def known_name(run: RunFolder) -> str | None:
    """The base's name on the Hub, where train.py was given one and not a folder."""
    name = run.facts["options"]["model"]
    return name if is_name(name) and not Path(name).exists() else None


def shard_bytes(text: str) -> int:
    """`shard_bytes("5GB") -> 5_000_000_000`: a number and KB, MB, GB or TB, powers of 1000 as in transformers."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMGT]B)", text.strip().upper())
    if not found or float(found[1]) == 0:
        raise UserError(f"--shard-size '{text}': is no size; give a number and its unit, such as 5GB or 200MB")
    return int(float(found[1]) * UNITS[found[2]])


def said(export: Export, out: Path, evaluations: list) -> list[str]:
    """What the terminal shows at the end: what was written, and what should be known before it is passed on."""
    size = sum(path.stat().st_size for path in out.iterdir())
    lines = [f"written: {out} ({human_bytes(size)}), {export.options.to}, called {export.name}"]
    if export.options.to != "peft":
        lines.append(f"  {export.merged_on}")
    if not evaluations:
        lines.append(f"  not scored yet, and the card says so: python eval.py --run {export.run.path} --data FILE")
    if export.run.facts["options"]["loss"] == "text":
        lines.append(f"  warning: {TEXT_LOSS}")
    if export.base.llama:
        lines.append(f"  {export.base.built_with}: its licence asks that the model be called Llama-..., with that line "
                     "and the licence beside it")
        if not export.base.has_licence_text:
            lines.append(f"  warning: {export.base.folder} has no copy of the licence; add it to {out} before you pass "
                         "the model on")
    if not export.base.on_hub:
        lines.append("  --base-name OWNER/MODEL would link the card to the base's page on the Hub")
    return lines


def _about_tokenizer(export: Export) -> list[str]:
    if not export.sentencepiece:
        return []
    return ["`tokenizer.model` is a sentencepiece vocabulary. transformers loads the model, but read the vocabulary "
            "with sentencepiece, as below: transformers leaves out its normaliser and then makes other ids"]


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


if __name__ == "__main__":
    run_program(main)
