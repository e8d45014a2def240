"""Labels that were predicted elsewhere, beside the labels that people gave: from one file, or joined by id."""

from collections.abc import Sequence
from pathlib import Path

from common.errors import UserError
from data.annotators import Agreement, read_labelled
from data.codebook import Codebook
from data.posts import Columns, Post
from data.readers import by_id, read_predictions


def read_outside(predictions: str | Path, data: Sequence[Path], names: Sequence[str], columns: Columns,
                 codebook: Codebook, bad_labels: str) -> tuple[list[Post], list[str | None], Agreement | None]:
    """Posts with gold labels, what was predicted for each (None for no answer), and the annotators' agreement.

    Gold labels come from `data` by id and language, or, if it is empty, from the file of predictions itself; `names`
    are what the user calls the files of `data`. Raises `UserError` for a post without prediction or gold label.
    """
    if not data and columns.predicted == columns.label:
        raise UserError(f"--predicted-column {columns.predicted}: is the column of the gold labels, too; name the "
                        "labelled file with --data, or another --label-column")
    predicted, notes = read_predictions([predictions], columns, codebook)
    print("\n".join(notes.lines()))
    if not data:
        bare = next((post for post in predicted if post.label is None), None)
        if bare is not None:
            raise UserError(f"{bare.place}: has no gold label; add a column '{columns.label}', or name the labelled "
                            "file with --data")
        return predicted, [post.extra[columns.predicted] or None for post in predicted], None
    posts, notes, agreement = read_labelled(list(data), columns, codebook, bad_labels=bad_labels)
    labels = {key: post.extra[columns.predicted] for key, post in by_id(predicted).items()}
    missing = [post for post in posts if (post.id, post.language) not in labels]
    if missing:
        raise UserError(f"{predictions}: has no prediction for id '{missing[0].id}' ({missing[0].language}), one of "
                        f"{len(missing):,} posts of {names[0]} without one")
    extra = len(labels) - len({(post.id, post.language) for post in posts})
    if extra:
        print(f"  {extra:,} predictions belong to no post of {names[0]} and were left out")
    return posts, [labels[post.id, post.language] or None for post in posts], agreement
