"""What is said of files in other encodings, and of rows with no label or another, can be done as it is said.

Deliberate break: in data/lines.py name the file without its folder.
"""

import re
import subprocess

import pytest

from common.errors import UserError
from data.codebook import load_codebook
from data.posts import Columns
from data.readers import read_posts


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16"])
def test_the_command_for_another_encoding_works_from_any_folder(tmp_path, encoding):
    path = tmp_path / "a folder" / "my posts.csv"
    path.parent.mkdir()
    path.write_bytes("id,text,label\r\n1,Müllabfuhr für alle,neutral\r\n".encode(encoding))
    with pytest.raises(UserError) as error:
        read_posts([path], Columns(), load_codebook())
    command = re.search(r"or: (iconv .*)", str(error.value))[1]
    subprocess.run(command, shell=True, check=True, cwd=tmp_path.parent)
    posts, _ = read_posts([path.with_name("utf8-my posts.csv")], Columns(), load_codebook())
    assert posts[0].text == "Müllabfuhr für alle"


def test_rows_without_a_label_and_rows_with_another_are_counted_apart(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("id,text,label\n1,a,neutral\n2,b,\n3,c,\n4,d,Neutrall\n")
    with pytest.raises(UserError, match=r"row 3: has no label; .*\(2 without a label and 1 with another one in all\)"):
        read_posts([path], Columns(), load_codebook())
