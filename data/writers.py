"""Rows to a file: jsonl, csv or tsv, each also gzipped, told by the file's name; whole or not at all."""

import csv
import gzip
import io
import json
from collections.abc import Sequence
from pathlib import Path

from common.errors import UserError
from common.files import atomic_write

OUTPUT_FORMATS = (".jsonl", ".csv", ".tsv")


def output_format(path: str | Path) -> str:
    """`output_format("a.csv.gz") -> ".csv"`. Raises `UserError` for a name that says no known format."""
    name = Path(path).name.lower().removesuffix(".gz")
    suffix = next((suffix for suffix in OUTPUT_FORMATS if name.endswith(suffix)), None)
    if suffix is None:
        raise UserError(f"{path}: its name says no format; end it in {', '.join(OUTPUT_FORMATS)}, or that and .gz")
    return suffix


def write_rows(path: str | Path, rows: Sequence[dict]) -> None:
    """Write rows that all have the same keys; `None` is null in jsonl and an empty cell in csv and tsv.

    csv and tsv are RFC 4180 (quotes where needed, CRLF), which spreadsheets and pandas read as they are.
    """
    kind, text = output_format(path), io.StringIO(newline="")
    if kind == ".jsonl":
        text.writelines(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    else:
        writer = csv.DictWriter(text, list(rows[0]) if rows else [], delimiter="," if kind == ".csv" else "\t")
        writer.writeheader()
        writer.writerows(rows)
    content = text.getvalue().encode("utf-8")
    with atomic_write(path, "wb") as handle:
        # No name and no time in the gzip header: the same rows give the same bytes.
        handle.write(gzip.compress(content, mtime=0) if str(path).lower().endswith(".gz") else content)
