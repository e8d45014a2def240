"""Models by their name on the Hugging Face Hub ("org/name"), through `huggingface_hub` (the extra `hub`).

The local cache comes first: a complete copy in it is used without touching the network. Otherwise the files that are
read here, and no others, are downloaded into that cache, where every program that uses `huggingface_hub` finds them. If
the Hub sends no files, its answer becomes one line that says what to do.
"""

import re
from pathlib import Path

from common.errors import UserError
from loading.meta import PARAMS
from loading.weights import checkpoint_files
from lora.adapter import CONFIG, TENSORS
from model.tokenizer import FILE_NAMES

_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_DESCRIPTIONS = ("config.json", PARAMS, CONFIG)  # one of them is in every model's and adapter's folder
_SMALL = [*_DESCRIPTIONS, "generation_config.json", "tokenizer*", "special_tokens_map.json",
          "model.safetensors.index.json"]  # fmt: skip


def is_name(text: str) -> bool:
    """Whether `text` can be a name on the Hub and is not a path into an existing folder."""
    return _NAME.fullmatch(text) is not None and not Path(text).parent.exists()


def snapshot(name: str, revision: str | None = None, weights: bool = True) -> Path:
    """The folder of a model or adapter in the local cache; downloaded now unless it is there and complete.

    weights=False: without the weights, when only the small files will be read.
    Raises `UserError` if `huggingface_hub` is missing, the Hub cannot be reached, has no such model, or requires a
    login or the acceptance of a licence.
    """
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError
    except ImportError as error:
        raise UserError(f"{name}: there is no such folder; to take it from the Hugging Face Hub by this name, install "
                        "huggingface_hub: pip install huggingface_hub") from error

    def get(patterns: list[str], **words) -> Path:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns, **words))

    def complete(folder: Path) -> bool:
        return is_whole(folder) if weights else any((folder / file).exists() for file in _DESCRIPTIONS)

    def cached() -> Path | None:
        try:
            folder = get(_SMALL, local_files_only=True)
        except LocalEntryNotFoundError:
            return None
        # Another program may have fetched only the weights; then the tokenizer is requested, and done without if there
        # is none.
        found = any((folder / file).exists() for file in (CONFIG, *FILE_NAMES))
        return folder if complete(folder) and (found or not weights) else None

    def downloaded() -> Path:
        folder = get(_SMALL)
        if not weights:
            return folder
        if (folder / CONFIG).exists():
            return get([TENSORS])
        return get(["model*.safetensors"] if (folder / "config.json").exists() else ["consolidated.*.pth"])

    try:
        folder = cached() or downloaded()
    except Exception as error:  # also from the libraries below, which differ from version to version
        raise UserError(f"{name}: {explain(error, name)}") from error
    if not complete(folder):
        raise UserError(f"{name}: {folder} is not complete: the Hugging Face Hub has no safetensors of it, or cannot "
                        f"be reached; with a network, `hf download {name}` fetches all there is")
    return folder


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
