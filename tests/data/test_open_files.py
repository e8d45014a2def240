"""Files of posts are given back as soon as nobody reads on: Windows removes and replaces no file that is open.

Deliberate break: in data/readers.py leave out `closing`; in data/rows.py or data/columns.py leave out a `close`.
"""

import gc
import tempfile
from io import BytesIO
from itertools import islice

import pytest

from common.errors import UserError
from data import inputs, lines
from data.inputs import spooled
from data.readers import iter_posts


@pytest.fixture
def opened(monkeypatch):
    """The handles of all files that were read. No search for cycles helps: Python makes one when it likes."""
    handles, real = [], lines._open
    monkeypatch.setattr(lines, "_open", lambda path: handles.append(real(path)) or handles[-1])
    gc.disable()
    yield handles
    gc.enable()


@pytest.mark.parametrize(("name", "content"), [
    ("a.csv", "id,text\n1,one\n2,two\n3,three\n"), ("a.jsonl", '{"text": "one"}\n{"text": "two"}\n{"text": "three"}\n'),
    ("a.csv", "id;text\n1;one\n2;two\n3;three\n")])
def test_posts_that_are_not_read_to_the_end(tmp_path, opened, name, content):
    (tmp_path / name).write_text(content, encoding="utf-8")
    posts = iter_posts(tmp_path / name, require_labels=False)
    assert [post.text for post in islice(posts, 2)] == ["one", "two"]
    del posts
    assert opened and all(handle.closed for handle in opened)


@pytest.mark.parametrize("content", ["id,words\n1,one\n", 'id,"text\n1,one\n', "text,text\none,two\n", "text\n"])
def test_files_that_are_refused_while_the_error_is_on_its_way(tmp_path, opened, content):
    (tmp_path / "a.csv").write_text(content, encoding="utf-8")
    with pytest.raises(UserError) as raised:
        list(iter_posts(tmp_path / "a.csv", require_labels=False))
    assert opened and all(handle.closed for handle in opened) and raised.value


def test_standard_input_that_cannot_be_removed_is_named(monkeypatch, capsys):
    with spooled(BytesIO(b"text\none\n")) as path:
        assert path.read_bytes() == b"text\none\n"
    assert not path.parent.exists() and capsys.readouterr().out == ""

    def refuse(cls, name, **words):
        assert words.get("ignore_errors")

    monkeypatch.setattr(inputs.tempfile.TemporaryDirectory, "_rmtree", classmethod(refuse))
    with spooled(BytesIO(b"text\none\n")) as path:
        pass
    assert f"{path.parent}: could not be removed, and holds the posts" in capsys.readouterr().out
    path.unlink()
    path.parent.rmdir()
    assert str(path).startswith(tempfile.gettempdir())
