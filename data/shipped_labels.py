"""Whose labels these are: a hint for who forgot --codebook, or named another than the data's."""

import re
from collections.abc import Collection, Iterable

from data.codebook import SHIPPED, load_codebook

MOST = 50  # labels of a person's own; more are rather the texts of another column


def hint_of_codebook(labels: Iterable[str], declared: Collection[str]) -> str:
    """Words that end an error line where `labels` are not all among `declared`: they are those of a shipped codebook,
    or have so little in common with `declared` that they are somebody's own.

    Else "". Two different labels at least must be there: one alone may be a slip. Of several such codebooks the paper's
    is named.
    """
    labels = set(labels)
    if len(labels) < 2 or labels <= set(declared):
        return ""
    for path in sorted(SHIPPED.glob("*.toml"), key=lambda path: (path.stem != "paper", path.stem)):
        if labels <= set(load_codebook(path).labels):
            return (f"; these are the labels of data/codebooks/{path.name}: add --codebook {path.stem} (a run keeps "
                    "the one that it was trained with)")
    symbols = [f"{place}" for place in range(1, len(declared) + 1)]
    known = {word.casefold() for word in [*declared, *symbols]}
    own = [label for label in labels if re.sub(r"\.0+$", "", label).casefold() not in known]
    if len(labels) <= MOST and len(own) > max(1, len(labels) / 2):
        return "; labels of your own stand in a codebook: labels = [...] in FILE.toml, and --codebook FILE.toml"
    return ""
