"""What is said of files in other encodings, and of rows with no label or another, can be done as it is said.

Deliberate break: in data/lines.py name the file without its folder, or read UTF-16 with codecs.EncodedFile, whose lines
end at U+2028 too.
"""

import gzip
import io
import json
import re
import subprocess

import pytest

from common.errors import UserError
from data.codebook import load_codebook
from data.inputs import spooled
from data.posts import Columns
from data.readers import read_posts


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16-le", "utf-32", "utf-32-be with its mark"])
def test_the_command_for_another_encoding_works_from_any_folder(tmp_path, encoding):
    path = tmp_path / "a folder" / "my posts.csv"
    path.parent.mkdir()
    mark, encoding = "\ufeff" * encoding.endswith("mark"), encoding.split()[0]
    path.write_bytes((mark + "id,text,label\r\n1,Müllabfuhr für alle,neutral\r\n2,b,neutral\r\n").encode(encoding))
    with pytest.raises(UserError) as error:
        read_posts([path], Columns(), load_codebook())
    command = re.search(r"or: (iconv .*)", str(error.value))[1]
    subprocess.run(command, shell=True, check=True, cwd=tmp_path.parent)
    posts, _ = read_posts([path.with_name("utf8-my posts.csv")], Columns(), load_codebook())
    assert posts[0].text == "Müllabfuhr für alle"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "gzipped", "jsonl"])
def test_utf_16_with_its_mark_is_read_as_utf_8_is(tmp_path, encoding):
    """Lines end as they do in UTF-8, and are not cut where another byte is a line end's (U+0A0A, U+2028)."""
    texts = ["für 😀", "zwei\nZeilen", "\u0a0a \u2028 \u0d0d", "x" * 5000, *map(str, range(500))]
    name, text = "p.txt", "text\tlabel\r\n" + "".join(f'"{text}"\tneutral\r\n' for text in texts)
    if encoding == "jsonl":
        name, text = "p.jsonl", "".join(json.dumps({"text": one, "label": "neutral"}, ensure_ascii=False) + "\n"
                                        for one in texts)
    data = b"\xfe\xff" + text.encode(encoding) if encoding == "utf-16-be" else text.encode("utf-16")
    path = tmp_path / name
    path.write_bytes(gzip.compress(data) if encoding == "gzipped" else data)
    posts, _ = read_posts([path], Columns(), load_codebook())
    assert [post.text for post in posts] == texts
    with spooled(io.BytesIO(path.read_bytes())) as copy:  # as standard input is taken
        assert [post.text for post in read_posts([copy], Columns(), load_codebook())[0]] == texts


def test_rows_without_a_label_and_rows_with_another_are_counted_apart(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("id,text,label\n1,a,neutral\n2,b,\n3,c,\n4,d,Neutrall\n")
    with pytest.raises(UserError, match=r"row 3: has no label; .*\(2 without a label and 1 with another one in all\)"):
        read_posts([path], Columns(), load_codebook())
