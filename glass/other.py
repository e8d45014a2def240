"""What a run can be held against: the same run with other weights, or another run on a base of the same shape.

    other_run(run, "16-bit")      the base as its file has it, with the same adapter
    other_run(run, "nf4")         the base in four bits, with the same adapter
    other_run(run, "runs/de")     another run, whatever its weights
"""

from pathlib import Path

from common.errors import UserError, closest
from common.reading import check_path
from finetune.run_folder import RunFolder
from glass.bits import four_bit_linears
from inference import LoadedRun
from inference.run import base_folder, finished_run, open_model
from loading import load_model
from loading.weights import read_config
from lora.inject import adapters

WEIGHTS = {"nf4": "nf4", "16-bit": "none"}  # as `load_model` calls them
SHAPE = ("num_hidden_layers", "hidden_size", "num_attention_heads", "vocab_size")
MOST = 50  # runs that a page offers


def other_run(run: LoadedRun, what: str, *, model: str | None = None, cache: str | None = None) -> LoadedRun:
    """What `what` names, on the device and in the dtype of `run`; `model` and `cache` as in `load_run`.

    Raises `UserError` for weights that the run has already, and for a run that cannot be compared: with other labels, a
    base of another shape, or another tokenizer.
    """
    if what in WEIGHTS:
        return _other_weights(run, what, model, cache)
    check_path(Path(what))
    if not Path(what).is_dir():
        raise UserError(f"--against {what}: is no folder of a run, and not nf4 or 16-bit{closest(what, WEIGHTS)}")
    try:
        folder = finished_run(what)
        same_base = folder.facts["options"]["model"] == run.folder.facts["options"]["model"]
        opened, prompt = open_model(folder, model=model if same_base else None, device=run.model.device,
                                    dtype=run.model.dtype, cache=cache)
    except UserError as error:
        raise UserError(f"--against: {error}") from error
    other = LoadedRun(folder, opened, prompt)
    _check_comparable(run, other, what)
    return other


def _other_weights(run: LoadedRun, what: str, model: str | None, cache: str | None) -> LoadedRun:
    is_nf4 = bool(four_bit_linears(run.model))
    if is_nf4 == (what == "nf4"):
        has, can = ("four bits", "16-bit") if is_nf4 else ("16 bits or more", "nf4")
        raise UserError(f"--against {what}: the run's weights have {has} already; compare it with {can}")
    folder = base_folder(run.folder, model, cache)
    if what == "16-bit" and read_config(folder).quantization is not None:
        raise UserError(f"--against 16-bit: the base's own files are in four bits ({folder}); compare with another run")
    opened = load_model(folder, device=run.model.device, dtype=run.model.dtype, quantize=WEIGHTS[what],
                        adapter=run.folder.path / "adapter", cache=cache if what == "nf4" else None)
    ours = adapters(run.model)
    for name, layer in adapters(opened).items():  # the very same numbers: a step of learning changes both
        layer.lora_A, layer.lora_B = ours[name].lora_A, ours[name].lora_B
    return LoadedRun(run.folder, opened, run.prompt)


def _check_comparable(run: LoadedRun, other: LoadedRun, what: str) -> None:
    labels, theirs = run.codebook.labels, other.codebook.labels
    if labels != theirs:
        raise UserError(f"--against {what}: its labels are {', '.join(theirs)}, not {', '.join(labels)}; give a run "
                        "with the same labels")
    for name in SHAPE:
        size, its = getattr(run.model.config, name), getattr(other.model.config, name)
        if size != its:
            raise UserError(f"--against {what}: its base has {name} {its}, not {size}; give a run on the same base")
    if run.prompt.tokenizer.hash != other.prompt.tokenizer.hash:
        raise UserError(f"--against {what}: its tokenizer is another one; give a run on the same base")


def words_for(what: str | None) -> str:
    """What `other_run` takes, in words for people."""
    words = {"16-bit": "the base in 16 bits", "nf4": "the base in four bits"}
    return words.get(what) or (f"the run {Path(what).resolve().name}" if what else "the same model")


def offered(run: LoadedRun, named: str | None = None) -> dict[str, str]:
    """What a page may hold `run` against: what `other_run` takes, `named` first, and words for people.

    Runs are those on the same base in the folder of this one; others can be named by hand.
    """
    own, names = run.folder.path.resolve(), [named, "16-bit" if four_bit_linears(run.model) else "nf4"]
    known = {own, Path(named or own).resolve()}
    names += [str(path.parent) for path in sorted(own.parent.glob("[!.]*/run.json"))[:MOST]
              if path.parent not in known and _is_alike(run, path.parent)]
    return {name: words_for(name) for name in names if name}


def _is_alike(run: LoadedRun, folder: Path) -> bool:
    """Whether the folder holds a finished run on the same base."""
    try:
        facts = RunFolder.open(folder).facts
        return bool(facts["finished"]) and facts["hashes"]["weights"] == run.folder.facts["hashes"]["weights"]
    except UserError:
        return False  # what cannot be opened is not offered; named by hand, it is an error that says why
