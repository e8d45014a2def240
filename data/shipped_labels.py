"""Whose labels these are: a hint for who forgot --codebook, or named another than the data's."""

from collections.abc import Collection, Iterable

from data.codebook import SHIPPED, load_codebook


def hint_of_codebook(labels: Iterable[str], declared: Collection[str]) -> str:
    """Words that end an error line where `labels` are not all among `declared`, but are those of a shipped codebook.

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
    return ""
