"""Export a run for other programs: as an adapter, or as a model in 16 bits, 4 bits or GGUF, each with a model card.

    python -m tools.export --run runs/mine --to peft --out exports/mine                    the adapter, for peft
    python -m tools.export --run runs/mine --to merged --out exports/mine                  for transformers
    python -m tools.export --run runs/mine --to merged --base original --shard-size 2GB --out exports/mine
    python -m tools.export --run runs/mine --to bnb-4bit --out exports/mine                transformers + bitsandbytes
    python -m tools.export --run runs/mine --to gguf-q8_0 --out exports/mine               for llama.cpp

A merged weight is W + s B A, computed in float32 and rounded once. With --base nf4, W is the dequantised 4-bit weight
beside which the adapter was trained; with --base original it is the weight as the base's files have it, which the
adapter never saw. Both are common, and the card says which was used. Tensors are made, written and released one by one,
into a folder beside --out that is renamed at the end. README.md is the model card; the files that the base's licence
requires are put beside it. A model made from Llama weights must be named Llama-...; its folder may have any name. No
post is exported with a model.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from common.device import DTYPES
from common.errors import UserError, run_program
from common.files import atomic_folder, atomic_write, read_json, write_json
from common.options import parse_options
from common.terminal import command, human_bytes, progress
from data.codebook import Codebook
from data.prompt import Prompt
from finetune.run_folder import RunFolder
from inference.run import base_folder, finished_run, run_prompt
from loading.hub import is_name
from lora.adapter import CONFIG, TENSORS
from quant.stored import write_stored
from tools.export.card import TEXT_LOSS, Card, read_evaluations
from tools.export.licence import Base, describe_base
from tools.export.ollama import LIMITS, modelfile, why_not
from tools.export.options import TAKES, ExportOptions, check_options, shard_bytes
from tools.export.private import Private
from tools.export.snippet import usage
from tools.export.tensors import MergedTensors, merged_config, write_shards
from tools.export.tokenizer_files import GENERATION, TOKENIZER, write_generation, write_tokenizer

BASES = {"none": "as it is in its files",
         "nf4": "dequantised from NF4, as it was in training",
         "nf4-double": "dequantised from NF4 with quantised scales, as it was in training"}  # fmt: skip


@dataclass(frozen=True)
class Export:
    """What is exported: the run, its base and prompt, the merged tensors, the model's name.

    private, codebook: what must not leave, and the codebook without it.
    """

    options: ExportOptions
    run: RunFolder
    base: Base
    prompt: Prompt
    private: Private
    codebook: Codebook
    tensors: MergedTensors
    quantize: str  # how the base enters the merged tensors: a key of BASES
    name: str

    def usage(self, kind: str, **words) -> str:
        return usage(kind, name=self.name, base=self.base.name, tokenizer=self.prompt.tokenizer,
                     longest=self.prompt.max_tokens, **words)

    @property
    def merged_on(self) -> str:
        dtype = "" if self.tensors.dtype is None else f" and rounded to {_word(self.tensors.dtype)}"
        return f"base and adapter merged, computed in float32{dtype}; the base was taken {BASES[self.quantize]}"

    def write_beside(self, folder: Path) -> None:
        """The tokenizer's files and what transformers needs beside a whole model."""
        write_tokenizer(self.prompt.tokenizer, folder)
        write_generation(self.prompt.tokenizer, self.base.folder, folder)

    @property
    def shown(self) -> Prompt:
        """The prompt as it may be shown."""
        return Prompt(self.codebook, self.prompt.tokenizer, self.prompt.template, layout=self.prompt.layout)

    def check_posts(self, folder: Path, card: Card) -> None:
        """Raise `UserError` where the finished folder would publish a post."""
        of_base = [folder / name for name in (*TOKENIZER, GENERATION) if (folder / name).is_file()]
        self.private.check(folder, [*of_base, *self.base.copied], card.own_words())


def write_peft(export: Export, folder: Path) -> tuple[list[str], str]:
    """adapter_config.json, naming the base as others know it, the adapter's tensors byte for byte, the tokenizer."""
    adapter = export.run.path / "adapter"
    write_json(folder / CONFIG, read_json(adapter / CONFIG) | {"base_model_name_or_path": export.base.name})
    shutil.copyfile(adapter / TENSORS, folder / TENSORS)
    write_tokenizer(export.prompt.tokenizer, folder)
    trained = export.run.facts["options"]["quantize"]
    four_bits = trained if trained != "none" and not export.tensors.packed else None
    return [f"a LoRA adapter in peft's layout, for `{export.base.name}`",
            f"it was trained beside the base {BASES[trained].removesuffix(', as it was in training')}"
            + ("; beside the base as its files have it, answers differ (`python -m tools.merge_report` shows by how "
               "much)" if four_bits else "")
            ], export.usage("peft", four_bits=four_bits)  # fmt: skip


def write_merged(export: Export, folder: Path) -> tuple[list[str], str]:
    """config.json, safetensors in shards, tokenizer, generation config."""
    count = write_shards(folder, export.tensors, shard_bytes(export.options.shard_size))
    write_json(folder / "config.json", merged_config(export.tensors))
    export.write_beside(folder)
    return [f"the whole model in {count} safetensors file{'s' * (count > 1)}: {export.merged_on}",
            *_about_tokenizer(export)], export.usage("merged")


def write_bnb_4bit(export: Export, folder: Path) -> tuple[list[str], str]:
    """The merged model, its linears quantised to NF4, as transformers and bitsandbytes write it."""
    tensors = export.tensors
    write_stored(folder, merged_config(tensors), tensors.layout, tensors.linears, tensors.items(),
                 double=export.options.double)
    export.write_beside(folder)
    scales = " with quantised scales" if export.options.double else ""
    return [f"the whole model, its linears in bitsandbytes' NF4{scales}: {export.merged_on}",
            "the merged weights were then quantised to NF4 again: each moved by up to half a step of its block, which "
            "can be more than the adapter had moved it", *_about_tokenizer(export)], export.usage("merged")


def write_gguf(export: Export, folder: Path) -> tuple[list[str], str]:
    """One file for llama.cpp, a Modelfile, and the tokenizer's files, for those who make ids by themselves."""
    try:
        from tools.export.gguf_file import write_gguf as write
    except ModuleNotFoundError as error:
        raise UserError(f"--to {export.options.to}: needs the package gguf (extra 'gguf'): pip install \"gguf>=0.17\""
                        ) from error
    kind = export.options.to.removeprefix("gguf-")
    file = f"{export.name}-{kind.upper()}.gguf"
    notes = write(export.tensors, export.prompt.tokenizer.source, folder / file, kind, export.base.licence)
    export.write_beside(folder)
    return [f"the whole model for llama.cpp, `{file}`: {export.merged_on}",
            f"then written as {kind.upper()}; tensors whose rows it does not fit are 16-bit", *notes,
            write_modelfile(export, folder, file, exact=not notes)], export.usage("gguf", file=file)


def write_modelfile(export: Export, folder: Path, file: str, exact: bool) -> str:
    """The file with which Ollama takes the GGUF `file`, and what is to be known of it; or why there is none.

    exact: whether llama.cpp makes the tokenizer's ids of any text.
    """
    if not exact:
        reason = "it takes text, of which llama.cpp makes other ids here"
    elif export.codebook != export.prompt.codebook:
        reason = "the prompt holds examples or posts"
    else:
        reason = why_not(export.prompt)
    if reason:
        return f"no `Modelfile` for Ollama: {reason}"
    with atomic_write(folder / "Modelfile") as handle:
        handle.write(modelfile(export.prompt, file, export.tensors.config.max_position_embeddings))
    return (f"`Modelfile`, for Ollama: `ollama create {export.name.lower()} -f Modelfile`; a request is then one post, "
            f"and {LIMITS}")


@dataclass(frozen=True)
class Format:
    """One value of --to. library, relation: the Hub's words."""

    write: Callable[[Export, Path], tuple[list[str], str]]  # returns what the folder now holds, and how it is loaded
    library: str | None
    relation: str


_GGUF = Format(write_gguf, None, "quantized")
FORMATS = {
    "peft": Format(write_peft, "peft", "adapter"), "merged": Format(write_merged, "transformers", "finetune"),
    "bnb-4bit": Format(write_bnb_4bit, "transformers", "quantized"),
    "gguf-f16": _GGUF, "gguf-q8_0": _GGUF, "gguf-q4_0": _GGUF,
}  # fmt: skip


def main(argv: list[str]) -> None:
    """Check everything that can be checked, then write the folder and say what it is."""
    options = parse_options(ExportOptions, argv, program="python -m tools.export", description=__doc__)
    out = check_options(options)
    run = finished_run(options.run)
    export = prepare(options, run, out.absolute().name)
    evaluations = read_evaluations(run, options.metrics)
    form = FORMATS[options.to]
    card = Card(export.name, export.base, run.facts, export.codebook, export.shown.parts(), evaluations, form.library,
                form.relation)
    card.text()  # what run.json lacks is found out before gigabytes are written
    with atomic_folder(out) as folder, progress(len(export.tensors), "tensor", "exporting") as bar:
        export.tensors.on_read = bar.update
        holds, code = form.write(export, folder)
        export.base.write(folder)
        card = replace(card, holds=tuple(holds), code=code)
        with atomic_write(folder / "README.md") as handle:
            handle.write(card.text())
        export.check_posts(folder, card)
    print("\n".join(said(export, out, evaluations)))
    if options.report:
        from tools.merge_report import main as merge_report  # it imports this module's neighbours

        more = [word for name in ("model", "cache") if getattr(options, name) for word in (f"--{name}",
                                                                                           getattr(options, name))]
        merge_report(["--run", str(run.path), "--data", *options.report, *more])


def prepare(options: ExportOptions, run: RunFolder, place: str) -> Export:
    """Open the base and the adapter of a run; nothing is merged yet. Raises `UserError` if they do not fit."""
    folder = base_folder(run, options.model, options.cache)
    prompt, trained = run_prompt(run, folder), run.facts["options"]["quantize"]
    quantize = "none" if options.base == "original" else trained
    dtype = {"stored": "stored", **DTYPES}[options.dtype] if "dtype" in TAKES[options.to] else None
    tensors = MergedTensors(folder, adapter=run.path / "adapter", quantize=quantize, dtype=dtype)
    if options.base == "original" and tensors.packed:
        raise UserError(f"--base original: {folder} holds its weights in 4 bits only; leave the option out")
    if options.base == "nf4" and trained == "none" and not tensors.packed:
        raise UserError(f"--base nf4: {run.path} was trained beside the base as in its files; take --base original")
    base = describe_base(folder, tensors.config.vocab_size, options.base_name or known_name(run))
    private = Private.of(run, prompt.codebook)
    return Export(options, run, base, prompt, private, private.public(prompt.codebook), tensors,
                  "nf4" if tensors.packed and quantize == "none" else quantize, base.model_name(options.name, place))


def known_name(run: RunFolder) -> str | None:
    """The base's name on the Hub, if train.py was given one and not a folder."""
    name = run.facts["options"]["model"]
    return name.partition(":")[0] if is_name(name) and not Path(name).exists() else None  # org/name:Q4_K_M, too


def said(export: Export, out: Path, evaluations: list) -> list[str]:
    """What the terminal shows at the end: what was written, and what users should know before they pass it on."""
    size = sum(path.stat().st_size for path in out.iterdir())
    lines = [f"written: {out} ({human_bytes(size)}), {export.options.to}, called {export.name}"]
    if export.options.to != "peft":
        lines.append(f"  {export.merged_on}")
    if export.codebook != export.prompt.codebook:
        lines.append("  left out of the card, since they may be posts: the codebook's examples, and passages that are "
                     "training posts or parts of examples; so the prompt that it shows is not whole")
    if not evaluations:
        lines.append(f"  not scored yet, and the card says so: "
                     f"{command('eval.py', '--run', export.run.path)} --data FILE")
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
    tokenizer = export.prompt.tokenizer
    notes = [f"`{tokenizer.source.name}` does not mark `{word.strip()}` as a control word; in a post it must stay "
             "text, as in the program below" for word in tokenizer.unmarked]
    if tokenizer.kind != "sentencepiece":
        return notes
    return [*notes, "`tokenizer.model` is a sentencepiece vocabulary. transformers loads the model, but read the "
            "vocabulary with sentencepiece, as below: transformers leaves out its normaliser and then makes other ids"]


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


if __name__ == "__main__":
    run_program(main)
