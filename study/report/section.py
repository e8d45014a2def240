"""What a study says, as plain data: sections with a question, an answer, claims, tables, and figures drawn from tables.

    Study -> sections -> Section -> claims, tables, figures
    dataclasses.asdict(study) -> JSON values

Here a figure is not a picture but a `FigureSpec`: a kind, and for every role (x, y, low, high, ...) the key of a column
of one table of the same section. So a picture cannot show a number that its table lacks, and the table is what is
saved. Everything is checked when it is made; a wrong name is a `ValueError` that gives it, since only programs make
these.

Values: None is missing (NaN becomes None, infinity is refused); numpy's scalars become Python's. Kinds of columns:

    text        any words; ids are text, a number is refused      language   a code, shown by its English name
    rate        a share, 0 to 1                                    difference of two rates, shown with its sign
    count       a whole number      p   a p value                  number     any other number      flag   true or false
"""

import math
import re
from dataclasses import dataclass, field

NUMBERS = ("rate", "difference", "count", "p", "number")
KINDS = ("text", "language", *NUMBERS, "flag")
NEEDED = {  # kind of figure -> the roles it cannot do without; an x or y after the bar must hold numbers
    "matrix": ("x y value", ""),
    "curves": ("x y", "x y"),
    "scatter": ("x y label", "x y"),
    "reliability": ("x y", "x y"),
    "confusion": ("x y value", ""),
    "bars": ("x y", "x"),
    "forest": ("x y low high", "x"),
}
ROLES = ("x", "y", "low", "high", "wider_low", "wider_high", "series", "facet", "value", "label", "outlined", "hatched",
         "second")  # fmt: skip
_NUMBER_ROLES = {"low", "high", "wider_low", "wider_high", "second", "value"}
_FLAG_ROLES = {"outlined", "hatched"}
FAMILY = "contrasts"  # the key of the section with the plan's family
_NAME = re.compile("[a-z0-9][a-z0-9_-]*")


@dataclass
class Column:
    """`key`: in rows and CSV files. `title`: what people read above it. `kind`: one of KINDS."""

    key: str
    title: str
    kind: str = "text"


@dataclass
class Table:
    """Rows of values by column key; `name` is the name of its CSV file, so it is unique within a study."""

    name: str
    title: str
    columns: list[Column]
    rows: list[dict]
    notes: list[str] = field(default_factory=list)

    def __post_init__(self):
        _check_name("table", self.name)
        for column in self.columns:
            if column.kind not in KINDS:
                raise ValueError(f"table {self.name}: column {column.key} has the kind {column.kind!r}; {KINDS}")
            if not re.fullmatch("[A-Za-z][A-Za-z0-9_]*", column.key):
                raise ValueError(f"table {self.name}: the column key {column.key!r} is no name that R could read")
        keys = [column.key for column in self.columns]
        if not keys or len(set(keys)) < len(keys):
            raise ValueError(f"table {self.name}: column keys must be there and differ: {keys}")
        for row in self.rows:
            if unknown := set(row) - set(keys):
                raise ValueError(f"table {self.name}: a row has {sorted(unknown)}, which no column is for")
        self.rows = [{c.key: _value(row.get(c.key), c, self.name) for c in self.columns} for row in self.rows]

    def column(self, key: str) -> Column:
        for column in self.columns:
            if column.key == key:
                return column
        raise ValueError(f"table {self.name} has no column {key!r}; it has {[c.key for c in self.columns]}")


@dataclass
class FigureSpec:
    """What to draw of one table: `kind` one of NEEDED, and column keys of `table` by role ("" leaves a role out).

    matrix       x: columns, y: rows, value; outlined: seen in training, hatched: small cell, label: under the value
    curves       x: rows added (evenly spaced), y, low, high; series, facet; second: the ratio on the upper axis
    scatter      x: share (log; None stands apart, in a strip), y, low, high, label; series: before, after
    reliability  x: stated probability, y: share that is right, low, high; value: posts; series or facet
    confusion    y: human label, x: the model's, value: share of the row, label: posts; facet: one panel each
    bars         y: name, x: number, low, high; series; `log`
    forest       y: name of the contrast, x, low, high; wider_low, wider_high: simultaneous; series: groups of rows

    `hatched` cells are the small ones everywhere: hatched in a matrix, hollow as points. `caption` says what to see,
    `not_to_conclude` what it does not show. `name`: of the files in figures/.
    """

    kind: str
    table: str
    caption: str
    not_to_conclude: str
    name: str = ""
    title: str = ""
    x: str = ""
    y: str = ""
    low: str = ""
    high: str = ""
    wider_low: str = ""
    wider_high: str = ""
    series: str = ""
    facet: str = ""
    value: str = ""
    label: str = ""
    outlined: str = ""
    hatched: str = ""
    second: str = ""
    log: bool = False

    def __post_init__(self):
        if self.kind not in NEEDED:
            raise ValueError(f"a figure of table {self.table} has the kind {self.kind!r}; kinds are {tuple(NEEDED)}")
        self.name = self.name or f"{self.table}-{self.kind}"
        _check_name("figure", self.name)
        if missing := [role for role in NEEDED[self.kind][0].split() if not getattr(self, role)]:
            raise ValueError(f"figure {self.name}: {self.kind} needs a column for {', '.join(missing)}")
        if bool(self.low) != bool(self.high) or bool(self.wider_low) != bool(self.wider_high):
            raise ValueError(f"figure {self.name}: an interval needs both its ends")

    def check(self, table: Table) -> None:
        """Raise `ValueError` if a role names no column of `table`, or one of the wrong kind."""
        for role in ROLES:
            if not (key := getattr(self, role)):
                continue
            try:
                kind = table.column(key).kind
            except ValueError as error:
                raise ValueError(f"figure {self.name}, {role}: {error}") from None
            needs = NUMBERS if role in _NUMBER_ROLES or role in NEEDED[self.kind][1].split() else ()
            needs = ("flag",) if role in _FLAG_ROLES else needs
            if needs and kind not in needs:
                raise ValueError(f"figure {self.name}, {role}: column {key} is of kind {kind}; it takes {needs}")


@dataclass
class Claim:
    """A sentence, the estimate and interval that carry it (None: not estimable), and its limits.

    `text` is one plain sentence with its number in it. `kind`: "rate" is drawn from 0 to 1, "difference" about zero,
    "correlation" from -1 to 1; a "number" (a speed, a ratio of costs) has no scale and is not drawn. `level`: of the
    interval, `holds`: what it allows for. `languages`: the test languages that the claim is about; `notes`: of its cell
    (few posts, few fits); `points`: the fits' own values, drawn beside the estimate; `status`: whether it was declared
    before the first answer, in words; `weaker`: why it weighs less than others of its family, "" if it does not.
    """

    text: str
    value: float | None
    low: float | None
    high: float | None
    may_say: str
    may_not_say: str
    kind: str = "difference"
    level: float = 0.95
    languages: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    points: list[float] = field(default_factory=list)
    holds: str = ""
    status: str = ""
    weaker: str = ""
    exploratory: bool = False

    def __post_init__(self):
        if self.kind not in ("rate", "difference", "correlation", "number"):
            raise ValueError(f"a claim is about a rate, difference, correlation or number, not {self.kind!r}: "
                             f"{self.text}")
        column = Column("claim", "", "difference")
        self.value, self.low, self.high = (_value(v, column, "claim") for v in (self.value, self.low, self.high))
        self.points = [point for value in self.points if (point := _value(value, column, "claim")) is not None]
        if (self.low is None) != (self.high is None) or (self.low is not None and self.low > self.high):
            raise ValueError(f"a claim's interval has two ends in their order, or none: {self.text}")


@dataclass
class Section:
    """One question; `key` is its name in the page's addresses, `exploratory`: outside the plan's declared family."""

    key: str
    title: str
    question: str
    answer: str
    claims: list[Claim] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    figures: list[FigureSpec] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    exploratory: bool = False

    def __post_init__(self):
        _check_name("section", self.key)
        tables = {table.name: table for table in self.tables}
        for spec in self.figures:
            if spec.table not in tables:
                raise ValueError(f"section {self.key}, figure {spec.name}: there is no table {spec.table!r} here; "
                                 f"tables are {list(tables)}")
            spec.check(tables[spec.table])


@dataclass
class Study:
    """A study.

    `first`: keys of up to three sections whose claims open the page (by default the first three that have one).
    `latex`: names of the tables set for LaTeX (by default the one behind the first figure). `note`: a line under the
    title. `cells`: dicts, one per trained and evaluated model. `statement`: Markdown, of the data.
    """

    title: str
    created: str
    plan: dict
    manifest: dict
    sections: list[Section]
    methods: str
    cells: list[dict] = field(default_factory=list)
    first: list[str] = field(default_factory=list)
    latex: list[str] = field(default_factory=list)
    note: str = ""
    statement: str = ""

    def __post_init__(self):
        for what, names in (("section", [section.key for section in self.sections]),
                            ("table", [table.name for table in self.tables]),
                            ("figure", [spec.name for _, spec in self.figures])):
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise ValueError(f"two {what}s are called {twice[0]!r}; their files would be one")
        claimed = [section.key for section in self.sections if section.claims]
        self.first = self.first or claimed[:3]
        if wrong := [key for key in self.first if key not in claimed] or self.first[3:]:
            raise ValueError(f"first: {wrong[0]!r}; up to three sections that have a claim: {claimed}")
        if not self.latex and self.figures:
            self.latex = [self.figures[0][1].table]
        if wrong := set(self.latex) - {table.name for table in self.tables}:
            raise ValueError(f"latex: there is no table {sorted(wrong)[0]!r}")

    @property
    def tables(self) -> list[Table]:
        return [table for section in self.sections for table in section.tables]

    @property
    def figures(self) -> list[tuple[Table, FigureSpec]]:
        """Every figure with the table that it draws."""
        return [(table, spec) for section in self.sections for spec in section.figures
                for table in section.tables if table.name == spec.table]

    @property
    def first_claims(self) -> list[tuple[Section, Claim]]:
        """The claims that open the page, three at most: the plan's family in its order, then one of each section."""
        by_key = {section.key: section for section in self.sections}
        return [(by_key[key], claim) for key in self.first
                for claim in by_key[key].claims[: 3 if key == FAMILY else 1]][:3]


def _check_name(what: str, name: str) -> None:
    # "columns" is the name of the list of columns beside the tables.
    if not _NAME.fullmatch(name) or name == "columns":
        raise ValueError(f"a {what} cannot be called {name!r}: a to z, 0 to 9, _ and - (it names a file)")


def _value(value, column: Column, table: str):
    """The value as JSON has it, or `ValueError` if the column's kind does not allow it."""
    value = value.item() if hasattr(value, "item") else value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    allowed = {"text": str, "language": str, "flag": bool, "count": int}.get(column.kind, int | float)
    if not isinstance(value, allowed) or (isinstance(value, bool) and column.kind != "flag"):
        raise ValueError(f"table {table}, column {column.key} ({column.kind}): {value!r} is not of that kind")
    if isinstance(value, float) and math.isinf(value):
        raise ValueError(f"table {table}, column {column.key}: {value!r} is no finite number")
    return value
