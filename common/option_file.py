"""Options from a file, and what an option is called here that a user knows by another name."""

from collections.abc import Iterable
from pathlib import Path

from common.errors import UserError, nearest
from common.files import read_toml
from common.run_json import RUN_JSON, read_run_json

PLACES = ("out", "resume")  # of the earlier run, not of one that is like it


def read_option_file(path: str, cls, program: str, known: Iterable[str]) -> dict:
    """The options in a TOML file, or in the run.json of an earlier run of the program: `known` names -> values.

    Raises `UserError` for a file of another kind and for a key that is not known.
    """
    name = Path(path)
    if name.suffix.lower() in (".yaml", ".yml", ".json") and name.name != RUN_JSON and name.is_file():
        raise UserError(f"{path}: is not read; options stand in TOML, such as rank = 16, or in a run's {RUN_JSON}")
    if name.name != RUN_JSON:
        values = read_toml(path)
    else:
        facts = read_run_json(name.parent)
        if facts.get("program") != program:
            raise UserError(f"{path}: holds the options of {facts.get('program')}, and not of {program}")
        values = {key: value for key, value in facts["options"].items() if value is not None and key not in PLACES}
    result, known = {}, list(known)
    for key, value in values.items():
        if key.replace("-", "_") not in known:
            raise UserError(f"{path}: unknown key '{key}'{called_here(cls, key, known)}")
        result[key.replace("-", "_")] = value
    return result


def called_here(cls, word: str, names: Iterable[str], prefix: str = "") -> str:
    """A hint for a name that is not known: `called_here(TrainOptions, "--lr", names, "--")` -> "; here it is
    --learning-rate", by `cls.ELSEWHERE`; else what is spelt alike, or ""."""
    bare = word.split("=")[0].removeprefix("--").removeprefix("-").replace("-", "_")
    shown = {name: prefix + (name.replace("_", "-") if prefix else name) for name in names}
    for here, others in getattr(cls, "ELSEWHERE", {}).items():
        option, comma, more = here.partition(",")
        if bare.lower() in others.split() and (option in shown or " " in option):
            return f"; here it is {shown[option]}{comma}{more}" if option in shown else f"; {here}"
    alike = nearest(bare, shown)  # without the prefix, which all flags share
    return f"; did you mean '{shown[alike]}'?" if alike else ""
