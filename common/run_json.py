"""run.json, the facts of a run: read in one place, since a run is opened both as a base to load and as a run to use."""

import json
from pathlib import Path

from common.errors import UserError
from common.files import read_json

RUN_JSON = "run.json"
SCHEMA = 1
# What its readers cannot do without.
FACTS = {"created": str, "finished": bool, "options": dict, "environment": dict, "hashes": dict, "codebook": dict,
         "prompt": dict, "languages": list, "scored": list}  # fmt: skip
OPTIONS = ("model", "template", "max_tokens", "quantize", "allow_missing_labels", "seed")


def read_run_json(folder: str | Path) -> dict:
    """The facts of the run in `folder`; `UserError` names what is missing, of another kind or of another schema."""
    path = Path(folder) / RUN_JSON
    facts = read_json(path)
    try:
        json.dumps(facts, allow_nan=False)
    except ValueError as error:
        raise UserError(f"{path}: holds a number that is not finite; train anew") from error
    if not isinstance(facts, dict) or facts.get("schema") != SCHEMA:
        raise UserError(f"{path}: is not what train.py writes (schema {SCHEMA}); another version made it, or it was "
                        "changed by hand; train anew")
    for key, kind in FACTS.items():
        if not isinstance(facts.get(key), kind):
            raise UserError(f"{path}: {key} is missing or of another kind; the file was changed by hand, so train anew")
    missing = [key for key in OPTIONS if key not in facts["options"]]
    if missing:
        raise UserError(f"{path}: options: {missing[0]} is missing; the file was changed by hand, so train anew")
    if not isinstance(facts["hashes"].get("weights"), dict):
        raise UserError(f"{path}: hashes: weights is missing; the file was changed by hand, so train anew")
    return facts


def check_finished(folder: str | Path, facts: dict) -> None:
    """Raise `UserError` for a run whose training was stopped early."""
    if not facts["finished"]:
        raise UserError(f"{folder}: its training was stopped early; python train.py --resume --out {folder} finishes "
                        "it")


def check_adapter(folder: str | Path) -> Path:
    """The folder of a run's adapter. Raises `UserError` if it is gone."""
    adapter = Path(folder) / "adapter"
    if not adapter.is_dir():
        raise UserError(f"{folder}: has no adapter/; it was removed after training, so train again")
    return adapter
