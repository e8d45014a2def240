"""One row of the labels: the answer of a post, and what its own row had beside the text."""

from data.codebook import Codebook
from data.damage import NULL
from data.posts import Post
from inference.decide import Label


def output_row(post: Post, found: Label, codebook: Codebook, options, kept: list[str]) -> dict:
    """One output row; fields are empty if the post had no text. Kept columns that have a name of ours get `input_`.

    The sum over the related labels is left out where a label is called `related`: the column is then that label's.
    """
    label, probability, has_label = found.label, found.probability, found.label is not None
    row = {"id": post.id, "language": post.language,
           "predicted": label if has_label and probability >= options.abstain else None,
           "probability": round(probability, 6) if has_label else None,
           "error": post.error or (None if has_label else "has no text")}
    for name in codebook.labels:
        row[f"p_{name}"] = round(found.probabilities[name], 6) if has_label else None
    if codebook.related and "related" not in codebook.labels:
        row["p_related"] = round(found.related, 6) if has_label else None
    if options.with_texts:
        row["text"] = post.text
    for name in kept:
        own = name
        while own in row:
            own = f"input_{own}"
        value = post.label if name == options.label_column else post.extra.get(name)
        row[own] = None if value is NULL else value
    return row
