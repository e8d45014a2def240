"""Options of programs whose csv and tsv a spreadsheet opens."""

from dataclasses import dataclass
from pathlib import Path

from common.errors import UserError
from common.options import option
from data.writers import Sheet, output_format

SHEETS = "spreadsheets"


@dataclass
class SheetOptions:
    """How csv and tsv are written; none of it concerns other formats."""

    safe_cells: bool = option(False, "in csv and tsv, put an apostrophe before cells that a spreadsheet would take for "
                              "a formula: those that begin with =, +, - or @", group=SHEETS)
    bom: bool = option(False, "begin csv and tsv with a byte order mark, without which Excel takes UTF-8 for something "
                       "else on a double click; R's read.csv then needs fileEncoding = \"UTF-8-BOM\"", group=SHEETS)
    semicolons: bool = option(False, "in csv, semicolons between cells and decimal commas, as Excel wants them where "
                              "numbers are written so (German, French, Spanish ...), and R's read.csv2", group=SHEETS)

    def sheet(self) -> Sheet:
        """What `data.writers` takes."""
        return Sheet(self.safe_cells, self.bom, self.semicolons)

    def check_sheet(self, path: str | Path) -> None:
        """Raise `UserError` for an option that says nothing of a file of this name."""
        for name, kinds in (("safe_cells", (".csv", ".tsv")), ("bom", (".csv", ".tsv")), ("semicolons", (".csv",))):
            if getattr(self, name) and output_format(path) not in kinds:
                raise UserError(f"--{name.replace('_', '-')} says nothing of {path}; name a {' or '.join(kinds)}, or "
                                "leave it out")
