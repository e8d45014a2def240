"""run.json, the facts of a run: read in one place, since a run is opened both as a base to load and as a run to use."""

from pathlib import Path

from common.errors import UserError
from common.files import read_json
from common.terminal import command

RUN_JSON = "run.json"
SCHEMA = 1
# What its readers cannot do without. `{str: kind}` has any names, `[kind]` any number.
FACTS = {"created": str, "finished": bool, "options": dict, "hashes": {"weights": {str: str}}, "codebook": dict,
         "environment": {"device_name": str, "dtype": str, "threads": int, "packages": dict}, "prompt": dict,
         "languages": [str], "scored": [{"data": str, "data_sha256": str, "n": int}]}  # fmt: skip
MOST_THREADS = 4096
OPTIONS = ("model", "template", "max_tokens", "quantize", "allow_missing_labels", "seed")


def read_run_json(folder: str | Path) -> dict:
    """The facts of the run in `folder`; `UserError` names what is missing, of another kind or of another schema."""
    path = Path(folder) / RUN_JSON
    facts = read_json(path, once=True)
    if not isinstance(facts, dict) or facts.get("schema") != SCHEMA:
        raise UserError(f"{path}: is not what train.py writes (schema {SCHEMA}); another version made it, or it was "
                        "changed by hand; train anew")
    for key, kind in FACTS.items():
        _check(facts.get(key), kind, f"{path}: {key}")
    if not 1 <= facts["environment"]["threads"] <= MOST_THREADS:
        raise UserError(f"{path}: environment: threads: {facts['environment']['threads']:,} cannot be; the file was "
                        "changed by hand, so train anew")
    missing = [key for key in OPTIONS if key not in facts["options"]]
    if missing:
        raise UserError(f"{path}: options: {missing[0]} is missing; the file was changed by hand, so train anew")
    return facts


def _check(value, kind, where: str) -> None:
    outer = kind if isinstance(kind, type) else type(kind)
    if not isinstance(value, outer) or (isinstance(value, bool) and outer is not bool):
        raise UserError(f"{where} is missing or of another kind; the file was changed by hand, so train anew")
    if isinstance(kind, list):
        for number, item in enumerate(value, 1):
            _check(item, kind[0], f"{where}: entry {number}")
    elif isinstance(kind, dict):
        for name in value if str in kind else kind:
            _check(value.get(name), kind.get(str) or kind[name], f"{where}: {name}")


def check_finished(folder: str | Path, facts: dict) -> None:
    """Raise `UserError` for a run whose training was stopped early."""
    if not facts["finished"]:
        raise UserError(f"{folder}: its training was stopped early; "
                        f"{command('train.py', '--resume', '--out', folder)} finishes it")


def check_adapter(folder: str | Path) -> Path:
    """The folder of a run's adapter. Raises `UserError` if it is gone."""
    adapter = Path(folder) / "adapter"
    if not adapter.is_dir():
        raise UserError(f"{folder}: has no adapter/; it was removed after training, so train again")
    return adapter
