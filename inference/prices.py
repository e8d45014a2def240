"""What machines and API models cost: an editable table (`inference/prices.toml`), each row with its source and date.

    [[machine]]    name, device, per_hour              rented by the hour
    [[api]]        name, input, output                 per million tokens
    [[published]]  name, kind (speed or cost), ratio, ratio_to      what others report, shown as theirs

`device` says which machines a price is for: "cpu", or a part of the name that a GPU reports ("H100"). `checked` is
false until somebody has compared the row with its source. A wrong table is refused in one line with file, row and key:
a price that is silently ignored is worse than none.
"""

import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path

from common.errors import UserError, closest
from common.files import find_path, read_toml

PRICES = Path(__file__).with_name("prices.toml")
KINDS = ("speed", "cost")
_DATE = re.compile(r"\d{4}-\d{2}(-\d{2})?")


@dataclass(frozen=True)
class Machine:
    """A machine and its price per hour."""

    name: str
    device: str
    per_hour: float
    source: str
    date: str
    checked: bool = False

    def is_for(self, environment: Mapping) -> bool:
        """Whether the machine that `run_folder.environment` describes is of this kind."""
        wanted, name = self.device.lower(), str(environment.get("device_name", "")).lower()
        if wanted == str(environment.get("device", "")).partition(":")[0]:
            return True
        return re.search(rf"(?<![a-z0-9]){re.escape(wanted)}(?![a-z0-9])", name) is not None  # an L4 is not an L40S


@dataclass(frozen=True)
class Api:
    """A model behind an API and its prices per million tokens read and written."""

    name: str
    input: float
    output: float
    source: str
    date: str
    checked: bool = False

    def per_million(self, tokens: float) -> float:
        """The price of a million posts of `tokens` each, answered in one token: tokens * input + output."""
        return tokens * self.input + self.output


@dataclass(frozen=True)
class Published:
    """A ratio that somebody reports: how many times as fast, or how many times cheaper (`ratio` to `ratio_to`)."""

    name: str
    kind: str
    ratio: float
    source: str
    date: str
    ratio_to: float = 0.0
    note: str = ""


@dataclass(frozen=True)
class Prices:
    """The whole table."""

    path: Path
    currency: str
    note: str
    machines: tuple[Machine, ...]
    apis: tuple[Api, ...]
    published: tuple[Published, ...]


TABLES = {"machine": Machine, "api": Api, "published": Published}


def load_prices(path: str | Path | None = None) -> Prices:
    """Read and check a table, the shipped one without a `path`. Raises `UserError` with file, row and key."""
    path = find_path(path) if path else PRICES
    raw = read_toml(path)
    known = ("currency", "note", *TABLES)
    for key, value in raw.items():
        if key not in known:
            raise UserError(f"{path}: unknown key '{key}'{closest(key, known)}; known are {', '.join(known)}")
        if not isinstance(value, list if key in TABLES else str):
            word = f"[[{key}]] tables" if key in TABLES else "text"
            raise UserError(f"{path}: key '{key}' is {value!r}; {word} was expected")
    if "currency" not in raw:
        raise UserError(f"{path}: key 'currency' is missing; name it, such as \"USD\"")
    rows = {name: _rows(cls, raw.get(name, []), f"{path}: {name}") for name, cls in TABLES.items()}
    for number, row in enumerate(rows["published"], 1):
        where = f"{path}: published[{number}]"
        if row.kind not in KINDS:
            raise UserError(f"{where}: key 'kind' is '{row.kind}'; one of {', '.join(KINDS)} was expected")
        if row.ratio_to and row.ratio_to < row.ratio:
            raise UserError(f"{where}: key 'ratio_to' is {row.ratio_to:g}, below 'ratio', {row.ratio:g}")
    return Prices(path, raw["currency"], raw.get("note", ""), rows["machine"], rows["api"], rows["published"])


def _rows(cls, values: list, where: str) -> tuple:
    found = []
    for number, row in enumerate(values, 1):
        found.append(_row(cls, row, f"{where}[{number}]"))
        if found[-1].name in [other.name for other in found[:-1]]:
            raise UserError(f"{where}[{number}]: key 'name': '{found[-1].name}' occurs twice; keep one row")
    return tuple(found)


def _row(cls, row, where: str):
    entries = {entry.name: entry for entry in fields(cls)}
    if not isinstance(row, dict):
        raise UserError(f"{where}: is {row!r}; a table was expected")
    for key, value in row.items():
        if key not in entries:
            raise UserError(f"{where}: unknown key '{key}'{closest(key, entries)}; known are {', '.join(entries)}")
        kind = entries[key].type
        if not isinstance(value, (int, float) if kind is float else kind) or isinstance(value, bool) != (kind is bool):
            word = {str: "text", bool: "true or false", float: "a number"}[kind]
            raise UserError(f"{where}: key '{key}' is {value!r}; {word} was expected")
        if kind is float and not 0 <= value < float("inf"):
            raise UserError(f"{where}: key '{key}' is {value}; a price or ratio is a finite number, 0 or above")
        if kind is str and key != "note" and not value.strip():
            raise UserError(f"{where}: key '{key}' is empty; every row names itself, its source and its date")
    for key, entry in entries.items():
        if entry.default is MISSING and key not in row:
            raise UserError(f"{where}: key '{key}' is missing")
    if not _DATE.fullmatch(row["date"]):
        raise UserError(f"{where}: key 'date' is '{row['date']}'; year and month were expected, such as 2025-03 or "
                        "2025-03-31")
    return cls(**{key: float(value) if entries[key].type is float else value for key, value in row.items()})
