"""The options of tools.regression."""

from dataclasses import dataclass, replace
from typing import ClassVar

from common.errors import UserError
from common.options import option
from data.posts import ColumnOptions, Columns
from stats.regression import MODELS

LABEL = "label"


@dataclass
class RegressionOptions(ColumnOptions):
    """Options of one regression."""

    FIRST: ClassVar = ("labels", "coded", "outcome", "on", "model", "clusters")

    labels: str | None = option(None, "all posts with the machine's labels: .jsonl, .csv or .tsv, also .gz, or a "
                                "folder of such files", metavar="FILE")
    coded: str | None = option(None, "a random sample of them with people's labels", metavar="FILE")
    outcome: str | None = option(None, "what is explained: label=NAME, COLUMN=VALUE, or a column of numbers",
                                 metavar="label=NAME")
    on: list[str] = option((), "what explains it: columns, COLUMN=VALUE, and label=NAME if the outcome is none",
                           metavar="month,language")
    model: str = option("auto", "auto: logistic for an outcome of 0 and 1, else linear", choices=("auto", *MODELS))
    clusters: str | None = option(None, "column whose equal values belong together, such as author", metavar="COLUMN")
    words: list[str] = option((), "columns of --on whose numbers are categories, such as year", metavar="NAME,NAME")
    reference: list[str] = option((), "values to compare with, instead of the most frequent",
                                  metavar="language=en,month=2024-01")
    run: str | None = option(None, "the run that labelled the posts: its codebook, and codes of its training posts are "
                             "refused", metavar="DIR")
    posts: str | None = option(None, "the posts, joined by id: texts, and columns for the regression", metavar="FILE")
    json: str | None = option(None, "write the coefficients there as well", metavar="FILE")
    seed: int = option(0, "seed for the folds of cross-fitting", minimum=0)

    def columns(self) -> Columns:
        """With the regression's own, whose cells may say that there is nothing."""
        found = super().columns()
        return replace(found, others=tuple(dict.fromkeys([*found.others, *self.columns_kept()])))

    def columns_kept(self) -> dict[str, str]:
        """The columns to keep, and the option that names each."""
        terms = [(self.outcome, "--outcome"), *((term, "--on") for term in self.on)]
        found = {term_of(term)[0]: where for term, where in terms if term}
        found |= {self.clusters: "--clusters"} if self.clusters else {}
        return {name: where for name, where in found.items() if name != LABEL}


def term_of(term: str) -> tuple[str, str | None]:
    """`"label=pro" -> ("label", "pro")`, `"month" -> ("month", None)`."""
    name, sign, value = (part.strip() for part in term.partition("="))
    if not name or (sign and not value):
        raise UserError(f"'{term[:40]}': write COLUMN, COLUMN=VALUE or label=NAME")
    return name, value if sign else None
