"""A post, and the columns it is read from."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property

from common.errors import UserError
from common.options import option

DATA = "how posts are read"  # the group of these options in --help
WORDED_DELIMITERS = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "bar": "|"}


@dataclass(frozen=True, slots=True)
class Post:
    """One post: `label` is None if there is none, `extra` holds the file's other columns as strings.

    error: why its row could not be read, where such rows are kept; then the text is empty.
    """

    id: str
    text: str
    label: str | None
    language: str
    file: str
    row: int
    extra: dict[str, str]
    error: str = ""

    @property
    def place(self) -> str:
        """The file and row that it was read from: "posts.csv: row 3"."""
        return f"{self.file}: row {self.row}"


@dataclass(frozen=True)
class Columns:
    """Which column holds what, and how csv and tsv files are written; each field is an option of the programs.

    `delimiter` "" means by the file's name (comma for .csv, tab for .tsv), or what the header plainly has instead;
    "tab" and "semicolon" are words for the characters. `quote`: see `data.csv_rows`. `others`: further columns that
    options name, such as --group-by's; they may not come twice either. A name with points, such as `data.text`, is a
    path into nested JSON where no column is called so.
    `longest`: megabytes that a row may take.
    """

    text: str = "text"
    label: str = "label"
    language: str = "language"
    id: str = "id"
    predicted: str = "predicted"
    annotator: str = "annotator"
    delimiter: str = ""
    quote: str = "auto"
    others: tuple[str, ...] = ()
    remembered: tuple[str, ...] = ()  # roles whose name comes from a run: a file may lack them
    longest: int = 16

    def of_predictions(self) -> "Columns":
        """These for a file of predicted labels, where a column `label` may hold these, and no gold labels."""
        return self if self.predicted != self.label else replace(self, label="\0")  # a name that no column has

    @cached_property
    def own(self) -> frozenset[str]:
        """The names of the columns of text, label, language and id."""
        return frozenset((self.text, self.label, self.language, self.id))

    @cached_property
    def paths(self) -> tuple[str, ...]:
        """Those of them that may lead into an object."""
        return tuple(sorted(name for name in self.own if "." in name))

    def __post_init__(self):
        object.__setattr__(self, "delimiter", WORDED_DELIMITERS.get(self.delimiter, self.delimiter))
        names = {"text": self.text, "label": self.label, "language": self.language, "id": self.id}
        for role, name in names.items():
            if not name:
                raise UserError(f"--{role}-column: is empty; name a column")
            other = next((o for o, n in names.items() if n == name and o != role), None)
            if other:
                raise UserError(f"--{role}-column and --{other}-column: both name '{name}'; name two columns")


@dataclass
class ColumnOptions:
    """The options that tell which columns hold text, label, language and id, and how csv files are written."""

    text_column: str = option("text", "column of the text", metavar="NAME", group=DATA)
    label_column: str = option("label", "column of the label", metavar="NAME", group=DATA)
    language_column: str = option("language", "column of the language (ISO 639-1)", metavar="NAME", group=DATA)
    id_column: str = option("id", "column of the id", metavar="NAME", group=DATA)
    predicted_column: str = option("predicted", "column of a predicted label", metavar="NAME", group=DATA)
    annotator_column: str = option("annotator", "column that names the annotator, if a post has several rows",
                                   metavar="NAME", group=DATA)
    delimiter: str = option("", "what separates csv columns: tab, comma, semicolon, bar (default: by the "
                            "file's name, else its header)", metavar="WORD", group=DATA)

    quote: str = option("auto", "what quotes csv cells: auto takes \" and refuses cells that may be swallowed rows; a "
                        "character insists; none reads quotes as text", metavar="CHARACTER", group=DATA)
    bad_labels: str = option("error", "rows without a label that the codebook has: stop, or drop and count them",
                             choices=("error", "drop"), group=DATA)

    def remember(self, stored: Mapping) -> None:
        """Take over the columns and the delimiter that a run was trained with, where nothing else is said now."""
        given = getattr(self, "given", frozenset())
        for name in ("text_column", "label_column", "language_column", "id_column", "delimiter"):
            if name not in given and isinstance(stored.get(name), str) and stored[name] != getattr(self, name):
                setattr(self, name, stored[name])
                self._remembered = (*self._remembered, name.removesuffix("_column"))

    @contextmanager
    def or_samples(self) -> Iterator[None]:
        """While labelled posts are read: where `--data` was left out, an error says that these are the sample posts."""
        try:
            yield
        except UserError as error:
            if "data" in getattr(self, "given", ("data",)):
                raise
            raise UserError("--data: was left out, and the sample posts are not of the kind that this run was trained "
                            f"on ({error}); give test posts of its own") from error

    def columns_of(self, stored: Mapping | None) -> Columns:
        """The columns of a file like those that a run was trained on; `stored`: the run's options, if there is one."""
        other = copy(self)
        if stored is not None:
            other.remember(stored)
        return other.columns()

    _remembered = ()  # no field: what `remember` took over
    longest_row: int = option(16, "megabytes that a row of a file may take; a longer one is refused while it is read",
                              minimum=1, maximum=10_000, group=DATA)

    def columns(self) -> Columns:
        """The same as `data.posts.Columns`."""
        others = [getattr(self, name, None) for name in ("group_by", "split_by", "clusters")]
        others += [column for name in ("by", "keep", "show") for column in getattr(self, name, ())]
        return Columns(text=self.text_column, label=self.label_column, language=self.language_column,
                       id=self.id_column, predicted=self.predicted_column, annotator=self.annotator_column,
                       delimiter=self.delimiter, quote=self.quote, others=tuple(name for name in others if name),
                       remembered=self._remembered, longest=self.longest_row)
