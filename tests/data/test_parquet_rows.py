"""Parquet of any types as rows: what is no text is no post, what cannot be read is one line or one wrong row.

Deliberate break: in data/parquet_rows.py let `_plain` give `str(value)` for bytes, or `_rows` take whole batches only.
"""

import datetime
import decimal
import json

import pytest

from common.errors import UserError
from data.readers import iter_posts, read_posts

pyarrow = pytest.importorskip("pyarrow", reason="needs pyarrow")
from pyarrow import parquet  # noqa: E402

KEPT = {"require_labels": False, "keep_empty": True, "keep_bad": True}


def write(path, columns: dict, types: dict | None = None, **options):
    arrays = {name: pyarrow.array(values, (types or {}).get(name)) for name, values in columns.items()}
    parquet.write_table(pyarrow.table(arrays), path, **options)
    return path


def test_values_of_every_type_become_cells(tmp_path):
    day = datetime.datetime(2024, 5, 1, 10, 0, 3)
    path = write(tmp_path / "a.parquet", {
        "text": [b"caf\xc3\xa9", b"\xff\xfe", None], "n": [1, None, 3], "x": [1.5, float("nan"), float("inf")],
        "d": [decimal.Decimal("1.50"), None, None], "when": [day, None, None], "day": [day.date(), None, None],
        "raw": [b"\x00\xff", b"ok", None], "list": [[1, 2], [], None], "inside": [{"a": [day]}, None, {"a": None}],
        "map": [[("k", 1)], None, None], "gone": [None, None, None]},
        {"map": pyarrow.map_(pyarrow.string(), pyarrow.int64())})
    first, second, third = iter_posts([path], **KEPT)
    assert first.text == "café" and first.extra == {
        "n": "1", "x": "1.5", "d": "1.50", "when": "2024-05-01T10:00:03", "day": "2024-05-01", "raw": "00ff",
        "list": "[1, 2]", "inside": '{"a": ["2024-05-01T10:00:03"]}', "map": '[["k", 1]]', "gone": ""}
    assert second.text == "" and second.error.startswith("the text is bytes that are not UTF-8; ")
    assert second.extra["raw"] == "ok"
    assert third.text == "" and not third.error and third.extra["x"] == "inf" and third.extra["inside"] == '{"a": null}'
    with pytest.raises(UserError, match=r"a.parquet: row 2: the text is bytes that are not UTF-8"):
        read_posts(path, require_labels=False)
    for column, kind in (("d", "a number \\(1.50\\)"), ("list", "a list"), ("inside", "an object")):
        with pytest.raises(UserError, match=f"row 1: the text is {kind}"):
            read_posts(write(tmp_path / "b.parquet", {"text": parquet.read_table(path)[column].to_pylist()}),
                       require_labels=False)


def test_one_value_that_cannot_be_read_is_one_wrong_row(tmp_path):
    """A year beyond Python's, and a string column whose bytes are no UTF-8, among rows of one batch."""
    far = pyarrow.array([0, 2**62, 1], pyarrow.timestamp("ms"))
    texts = pyarrow.Array.from_buffers(pyarrow.string(), 3, pyarrow.array([b"a", b"\xff", b"c"]).buffers())
    for name, columns in (("far", {"text": ["a", "b", "c"], "at": far}), ("torn", {"text": texts})):
        parquet.write_table(pyarrow.table(columns), tmp_path / f"{name}.parquet")
        posts = list(iter_posts([tmp_path / f"{name}.parquet"], **KEPT))
        assert [(post.text, post.row) for post in posts] == [("a", 1), ("", 2), ("c", 3)]
        assert [bool(post.error) for post in posts] == [False, True, False]
        assert posts[1].error.startswith("holds a value that cannot be read (")
        with pytest.raises(UserError, match=f"{name}.parquet: row 2: holds a value that cannot be read"):
            read_posts(tmp_path / f"{name}.parquet", require_labels=False)


def test_a_damaged_file_is_one_line_wherever_it_is_damaged(tmp_path):
    path = write(tmp_path / "a.parquet", {"text": [f"post {n} " * 20 for n in range(200)]}, compression="snappy",
                 use_dictionary=False)
    whole, refused = path.read_bytes(), 0
    for place in range(0, len(whole), max(1, len(whole) // 60)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x5A]) + whole[place + 1 :])
        try:
            list(iter_posts([path], **KEPT))
        except UserError as error:
            refused += 1
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
    assert refused > 2
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="is not a complete parquet file"):
        list(iter_posts([path], **KEPT))


def test_a_string_of_more_than_a_row_may_take_is_refused(tmp_path):
    path = write(tmp_path / "a.parquet", {"text": ["a", "x" * (2**24 + 1)]})
    with pytest.raises(UserError, match=r"row 2: takes more than 16 MB"):
        list(iter_posts([path], **KEPT))


def test_numbers_of_hugging_faces_classes_are_read_as_their_names(tmp_path):
    """As `datasets` writes them: the names stand beside the schema, and -1 is a row without a label."""
    features = {"label": {"names": ["neg", "pos"], "_type": "ClassLabel"}, "text": {"_type": "Value"},
                "tokens": [{"_type": "Value"}]}
    table = pyarrow.table({"text": ["a", "b", "c", "d"], "label": [1, 0, -1, 7]})
    path = tmp_path / "a.parquet"
    as_written = ["1", "0", "-1", "7"]
    others = [{"info": {"features": {"label": {"_type": "ClassLabel", "names": names}}}}
              for names in ([1], None, "np", {"0": "neg", "1": "pos"})]
    for told, labels in (({"info": {"features": features}}, ["pos", "neg", None, "7"]),
                         *((other, as_written) for other in ([1], {"info": {"features": [1]}}, *others))):
        parquet.write_table(table.replace_schema_metadata({"huggingface": json.dumps(told)}), path)
        posts, notes = read_posts(path, require_labels=False)
        assert [post.label for post in posts] == labels
        assert ("label: neg, pos" in str(notes)) == (labels[0] == "pos")
