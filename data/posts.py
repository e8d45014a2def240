"""A post, and the columns it is read from."""

from dataclasses import dataclass

from common.errors import UserError
from common.options import option

DATA = "how posts are read"  # the group of these options in --help
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
    characters. `quote` "none" reads files that do not quote at all. `longest`: megabytes that a row may take.
    """

    text: str = "text"
    label: str = "label"
    language: str = "language"
    id: str = "id"
    predicted: str = "predicted"
    annotator: str = "annotator"
    delimiter: str = ""
    quote: str = '"'
    longest: int = 16

    def __post_init__(self):
        object.__setattr__(self, "delimiter", WORDED_DELIMITERS.get(self.delimiter, self.delimiter))
        names = {"text": self.text, "label": self.label, "language": self.language, "id": self.id}
        for role, name in names.items():
            if not name:
                raise UserError(f"--{role}-column: is empty; name a column")
            other = next((o for o, n in names.items() if n == name and o != role), None)
            if other:
                raise UserError(f"--{role}-column and --{other}-column: both name '{name}'; a column has one meaning")


@dataclass
class ColumnOptions:
    """Where text, label, language and id stand in the input files."""

    text_column: str = option("text", "column of the text", metavar="NAME", group=DATA)
    label_column: str = option("label", "column of the label", metavar="NAME", group=DATA)
    language_column: str = option("language", "column of the language (ISO 639-1)", metavar="NAME", group=DATA)
    id_column: str = option("id", "column of the id", metavar="NAME", group=DATA)
    predicted_column: str = option("predicted", "column of a predicted label", metavar="NAME", group=DATA)
    annotator_column: str = option("annotator", "column that names the annotator, where a post has several rows",
                                   metavar="NAME", group=DATA)
    delimiter: str = option("", "what separates csv columns: tab, comma, semicolon, bar (default: by the file's name)",
                            metavar="WORD", group=DATA)

    quote: str = option('"', "what quotes csv cells; none for files that do not quote", metavar="CHARACTER", group=DATA)
    bad_labels: str = option("error", "rows without a label that the codebook has: stop, or drop and count them",
                             choices=("error", "drop"), group=DATA)

    longest_row: int = option(16, "megabytes that a row of a file may take; a longer one is refused while it is read",
                              minimum=1, maximum=10_000, group=DATA)

    def columns(self) -> Columns:
        """The same as `data.posts.Columns`."""
        return Columns(text=self.text_column, label=self.label_column, language=self.language_column,
                       id=self.id_column, predicted=self.predicted_column, annotator=self.annotator_column,
                       delimiter=self.delimiter, quote=self.quote, longest=self.longest_row)
