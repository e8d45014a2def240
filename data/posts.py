"""A post, and the columns it is read from."""

from dataclasses import dataclass

from common.errors import UserError

WORDED_DELIMITERS = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "bar": "|"}


@dataclass(frozen=True, slots=True)
class Post:
    """One post: `label` is None where there is none, `extra` holds the file's other columns as strings."""

    id: str
    text: str
    label: str | None
    language: str
    file: str
    row: int
    extra: dict[str, str]

    @property
    def place(self) -> str:
        """Where it was read: "posts.csv: row 3"."""
        return f"{self.file}: row {self.row}"


@dataclass(frozen=True)
class Columns:
    """Which column holds what, and how csv and tsv are written; each is an option of the programs.

    `delimiter` "" means by the file's name (comma for .csv, tab for .tsv); "tab" and "semicolon" are words for the
    characters. `quote` "none" reads files that do not quote at all.
    """

    text: str = "text"
    label: str = "label"
    language: str = "language"
    id: str = "id"
    predicted: str = "predicted"
    annotator: str = "annotator"
    delimiter: str = ""
    quote: str = '"'

    def __post_init__(self):
        object.__setattr__(self, "delimiter", WORDED_DELIMITERS.get(self.delimiter, self.delimiter))
        names = {"text": self.text, "label": self.label, "language": self.language, "id": self.id}
        for role, name in names.items():
            if not name:
                raise UserError(f"--{role}-column: is empty; name a column")
            other = next((o for o, n in names.items() if n == name and o != role), None)
            if other:
                raise UserError(f"--{role}-column and --{other}-column: both name '{name}'; a column has one meaning")
