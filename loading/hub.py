"""Models by their name on the Hugging Face Hub ("org/name"), through `huggingface_hub` (the extra `hub`).

"org/name:Q4_K_M" is the repository's GGUF file of that quantisation: the one whose name ends with it, whatever the
case, perhaps in several parts. Nothing else is downloaded for it.

The local cache comes first: a complete copy in it is used without touching the network. Otherwise the files that are
read here, and no others, are downloaded into that cache, where every program that uses `huggingface_hub` finds them. If
the Hub sends no files, its answer becomes one line that says what to do.
"""

import re
from fnmatch import fnmatch
from pathlib import Path

from common.errors import UserError
from loading.gguf import one_model, split_files
from loading.meta import PARAMS
from loading.weights import checkpoint_files
from lora.adapter import CONFIG, TENSORS
from model.tokenizer import FILE_NAMES

_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*(:\w[\w.-]*)?")
_DESCRIPTIONS = ("config.json", PARAMS, CONFIG)  # one of them is in every model's and adapter's folder
_SMALL = [*_DESCRIPTIONS, "generation_config.json", "tokenizer*", "special_tokens_map.json",
          "model.safetensors.index.json"]  # fmt: skip


def is_name(text: str) -> bool:
    """Whether `text` can be a name on the Hub and is not a path into an existing folder."""
    return _NAME.fullmatch(text) is not None and not Path(text).parent.exists()


def snapshot(name: str, revision: str | None = None, weights: bool = True, fetch: bool = True) -> Path:
    """The folder of a model or adapter in the local cache, or a GGUF file; downloaded now unless it is there and whole.

    weights=False: without the weights, when only the small files will be read. fetch=False: what is not there is a
    `UserError`, and no network is used.
    Raises `UserError` if `huggingface_hub` is missing, the Hub cannot be reached, has no such model, or requires a
    login or the acceptance of a licence.
    """
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.constants import HF_HUB_CACHE
        from huggingface_hub.errors import LocalEntryNotFoundError
    except ImportError as error:
        raise UserError(f"{name}: there is no such folder; to take it from the Hugging Face Hub by this name, install "
                        "huggingface_hub: pip install huggingface_hub") from error

    repository, _, kind = name.partition(":")
    small = gguf_patterns(kind) if kind else _SMALL

    def get(patterns: list[str], **words) -> Path:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=patterns, **words))

    def complete(folder: Path) -> bool:
        if kind:
            return find_gguf(folder, kind) is not None
        return is_whole(folder) if weights else any((folder / file).exists() for file in _DESCRIPTIONS)

    def cached() -> Path | None:
        try:
            folder = get(small, local_files_only=True)
        except LocalEntryNotFoundError:
            return None
        # Another program may have fetched only the weights; then the tokenizer is requested, and done without if there
        # is none.
        found = any((folder / file).exists() for file in (CONFIG, *FILE_NAMES))
        return folder if complete(folder) and (found or kind or not weights) else None

    def downloaded() -> Path:
        folder = get(small)
        if kind or not weights:
            return folder
        if (folder / CONFIG).exists():
            return get([TENSORS])
        return get(["model*.safetensors"] if (folder / "config.json").exists() else ["consolidated.*.pth"])

    def kept() -> Path:
        raise UserError(f"{name}: is not in {HF_HUB_CACHE}, and nothing is fetched here")

    try:
        folder = cached() or (downloaded if fetch else kept)()
    except UserError:
        raise
    except Exception as error:  # also from the libraries below, which differ from version to version
        raise UserError(f"{name}: {explain(error, repository)}") from error
    if kind:
        file = find_gguf(folder, kind)
        if file is None:
            raise UserError(f"{name}: the Hugging Face Hub has no whole GGUF file of it whose name ends with {kind}; "
                            f"https://huggingface.co/{repository}/tree/main lists what there is")
        return file
    if not complete(folder):
        raise UserError(f"{name}: {folder} is not complete: the Hugging Face Hub has no safetensors of it, or cannot "
                        f"be reached; with a network, `hf download {name}` fetches all there is. A GGUF file has a "
                        f"name of its own: {name}:Q4_K_M")
    return folder


def gguf_patterns(kind: str) -> list[str]:
    """What the names of the GGUF files of a quantisation look like; `Q4_0` is not the end of `IQ4_0`."""
    either = "".join(f"[{char.lower()}{char.upper()}]" if char.isalpha() else char for char in kind)
    return [f"{before}{either}{part}.gguf" for before in ("", "*[-./]") for part in ("", "-[0-9]*-of-[0-9]*")]


def find_gguf(folder: Path, kind: str) -> Path | None:
    """The GGUF file of a quantisation in a snapshot, if all of its parts are there; `UserError` where two are meant."""
    names = gguf_patterns(kind)
    found = one_model((path for path in folder.rglob("*.gguf")
                       if any(fnmatch(path.relative_to(folder).as_posix(), name) for name in names)), folder)
    try:
        return found if found is None or split_files(found) else None
    except UserError:
        return None


def is_whole(folder: Path) -> bool:
    """Whether a snapshot has the weights that its small files describe: others may have fetched only a part."""
    if (folder / CONFIG).exists():
        return (folder / TENSORS).exists()
    try:
        return all(path.exists() for path in checkpoint_files(folder))
    except UserError:
        return False


def explain(error: Exception, name: str) -> str:
    """What an error of `huggingface_hub` means, and what to do."""
    from huggingface_hub import constants, errors

    page, login = f"https://huggingface.co/{name}", "log in with `hf auth login` (or set HF_TOKEN)"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.GatedRepoError):
        if status == 403:
            return f"your account may not read it yet; accept its licence at {page} and wait until access is granted"
        return f"is gated: accept its licence at {page}, then {login}"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"has no such revision on the Hugging Face Hub; {page} lists those that exist"
    if isinstance(error, errors.RepositoryNotFoundError):
        return ("there is no such folder here, and no such model on the Hugging Face Hub; check the spelling, or, if "
                f"it is private, {login}")
    if isinstance(error, errors.DisabledRepoError):
        return f"was disabled on the Hugging Face Hub; {page} says why"
    if isinstance(error, (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, ConnectionError)):
        return (f"there is no such folder, it is not complete in {constants.HF_HUB_CACHE}, and the Hugging Face Hub "
                f"cannot be reached; with a network, `hf download {name}` fetches it")
    if isinstance(error, errors.HFValidationError):
        return "there is no such folder, and this cannot be a name on the Hugging Face Hub"
    what = (str(error).strip().splitlines() or [""])[0]
    return f"could not be fetched from the Hugging Face Hub ({type(error).__name__}: {what[:150]}); try again"
