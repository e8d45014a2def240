"""One row of the labels: whose column is whose.

Deliberate break: in `output_row` write the sum over the related labels in any case; it takes the label's own column.
"""

from types import SimpleNamespace

import pytest

from bulk.rows import output_row
from data.codebook import Codebook
from data.posts import Post
from inference.decide import Label

OPTIONS = SimpleNamespace(abstain=0.0, with_texts=False, label_column="label")


@pytest.mark.parametrize(("labels", "related"), [
    (["related", "unrelated"], ["related"]), (["off", "related", "far off"], ["far off", "off"]), (["yes", "no"], [])])
def test_a_label_called_related_keeps_its_column(labels, related):
    topic = {"related": related, "unrelated": [label for label in labels if label not in related]}
    book = Codebook.from_dict({"labels": labels, "groups": {"topic": topic} if related else {}})
    given = dict(zip(labels, (0.6, 0.3, 0.1), strict=False))
    found = Label(labels[0], given, 0.625 if related else None)
    row = output_row(Post("1", "text", None, "en", "a.csv", 1, {"p_related": "mine"}), found, book, OPTIONS,
                     ["p_related"])
    assert {name: row[f"p_{name}"] for name in labels} == given
    if "related" in labels:
        assert row["input_p_related"] == "mine" and 0.625 not in row.values()
    else:
        assert row["p_related"] == "mine"  # there is no topic
    other = Codebook.from_dict({"labels": ["on", "off"], "groups": {"topic": {"related": ["on"],
                                                                              "unrelated": ["off"]}}})
    found = Label("on", {"on": 0.6, "off": 0.4}, 0.6)
    assert output_row(Post("1", "text", None, "en", "a.csv", 1, {}), found, other, OPTIONS, [])["p_related"] == 0.6
