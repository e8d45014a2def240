"""What exports do to tables: quotes that swallow rows, rows that are no posts, missing values, damage, doubled columns.

Deliberate break: in data/csv_rows.py let `_swallowed` return "" at once, `_is_import_ids` say no, or `_with_missing`
give the record back; in data/damage.py let `is_mojibake` say no. Cases below turn red.
"""

import json
from types import SimpleNamespace

import pytest

from common.errors import UserError
from data.damage import is_mojibake, is_spreadsheet_error
from data.posts import ColumnOptions, Columns
from data.readers import read_posts
from data.visible import is_empty, strip_invisible

BOOK = SimpleNamespace(labels=("pro", "anti"), symbols=("1", "2"))
PAPER = SimpleNamespace(labels=("pro-immigration", "anti-immigration", "neutral", "unrelated"), symbols=tuple("1234"))
BARE = {"require_labels": False}


def write(folder, name, content):
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return folder / name


@pytest.fixture
def cases(shared_data):
    folder = shared_data.parent / "cases" / "posts"
    if not folder.is_dir():
        pytest.skip("needs the small files in ../shared/cases/posts beside the checkout")
    return folder


# -- quotes

SWALLOWED = 'id{0}text{0}language\n1{0}"No borders, no nations{0}en\n2{0}between{0}en\n3{0}as my father said"{0}en\n'


@pytest.mark.parametrize(("name", "delimiter"), [("p.tsv", "\t"), ("p.csv", ";"), ("p.csv", "|")])
def test_a_cell_that_may_be_swallowed_rows_is_refused_by_its_row(tmp_path, name, delimiter):
    path = write(tmp_path, name, SWALLOWED.format(delimiter))
    columns = {"delimiter": delimiter} if name == "p.csv" else {}
    with pytest.raises(UserError, match=r"row 2: a quoted cell holds both .* a line break \(3 lines\).*--quote none"):
        read_posts(path, Columns(**columns), **BARE)
    posts, _ = read_posts(path, Columns(quote="none", **columns), **BARE)
    assert [post.text for post in posts] == ['"No borders, no nations', "between", 'as my father said"']
    posts, notes = read_posts(path, Columns(quote='"', **columns), **BARE)
    assert [post.id for post in posts] == ["1"] and (notes.long_rows, notes.lines_read) == (1, 4)


def test_commas_in_swallowed_rows(tmp_path):
    path = write(tmp_path, "p.csv", SWALLOWED.replace("No borders, no", "No borders no").format(","))
    with pytest.raises(UserError, match="row 2: a quoted cell holds both commas and a line break"):
        read_posts(path, **BARE)


def test_posts_of_several_lines_with_commas_are_read_as_pandas_writes_them(tmp_path):
    text = "id,text,language\n1,\"Hello, world\nsecond line, and a third\nwithout\",en\n2,b,en\n"
    posts, notes = read_posts(write(tmp_path, "p.csv", text), **BARE)
    assert posts[0].text == "Hello, world\nsecond line, and a third\nwithout" and len(posts) == 2
    assert "1  of them with line breaks in a cell (5 lines in the file)" in str(notes)


@pytest.mark.parametrize(("name", "content"), [
    ("p.csv", '"text","label"\n"Hello, a\nb","pro"\n"c","anti"\n'),  # R's write.csv quotes all text
    ("p.csv", '"","text","label"\n"1","Hello,a\nb,c",pro\n"2","c","anti"\n'),
    ("p.tsv", '"text"\t"label"\n"Hello\ta\nb"\t"pro"\n"c"\t"anti"\n'),
    ("p.csv", 'text,label\n"Hello, a\nb",pro\nc,anti\n'),  # pandas quotes what it must
    ("p.csv", 'id,text,label\n1,"Hello\nb, and, c\nd",pro\n2,c,anti\n'),
    ("p.csv", 'text;label\n"Hello; a\nb; c";pro\nc;anti\n'),
])
def test_what_r_and_pandas_quote_is_one_cell(tmp_path, name, content):
    posts, notes = read_posts(write(tmp_path, name, content), codebook=BOOK)
    assert len(posts) == 2 and posts[0].text.startswith("Hello") and "\n" in posts[0].text and notes.long_rows == 1


@pytest.mark.parametrize("content", [
    'id,text,language\n1,"No borders,en\n2,between, but long,en\n3,as my father said",en\n',
    'text,language\n"No borders,en\nbetween,en\nas my father said",en\n',
    'text, language\n"No borders, en\nbetween, en\nas my father said", en\n',
    SWALLOWED.format(","),
])
def test_swallowed_rows_whose_posts_have_commas(tmp_path, content):
    with pytest.raises(UserError, match="row 2: a quoted cell holds both commas and a line break"):
        read_posts(write(tmp_path, "p.csv", content), **BARE)


def test_the_real_exports(cases):
    for name, count in (("tsv_quotes.tsv", 4), ("tsv_quotes_labelled.tsv", 35)):
        with pytest.raises(UserError, match="--quote none"):
            read_posts(cases / name, **BARE)
        assert len(read_posts(cases / name, Columns(quote="none"), **BARE)[0]) == count


# -- rows that are no posts

def test_a_header_that_comes_again_is_dropped_and_counted(tmp_path):
    path = write(tmp_path, "p.csv", "id,text\n1,a\nid,text\n2,b\n id , text \n")
    posts, notes = read_posts(path, **BARE)
    assert [post.id for post in posts] == ["1", "2"] and notes.counts["repeated_header"] == 2
    assert notes.places["repeated_header"] == ["p.csv: row 3", "p.csv: row 5"] and posts[1].row == 4


def test_qualtrics_rows(tmp_path, cases):
    posts, notes = read_posts(cases / "qualtrics.csv", **BARE)
    assert len(posts) == 32 and notes.counts["survey_rows"] == 2 and posts[0].row == 4
    for rows, count in (("a\n", 1), ("a\nb\n", 2), ("a\nb\nc\n", 3), ('a\nb\n"{""ImportId"":1}"\n', 3)):
        posts, notes = read_posts(write(tmp_path, "p.csv", "text\n" + rows), **BARE)
        assert [post.row for post in posts] == list(range(2, count + 2)) and not notes.counts["survey_rows"]


# -- missing values

def test_words_for_missing_values_by_kind_of_column(tmp_path):
    path = write(tmp_path, "p.csv", "id,text,label,language,author\nNA,a,pro,NA,NA\nnan,None,None,na,x\n"
                 "3,NULL,anti,en,\n")
    posts, notes = read_posts(path, Columns(others=("author",)), BOOK, bad_labels="drop")
    assert [(post.id, post.text, post.label, post.language, post.extra) for post in posts] == [
        ("p-2", "a", "pro", "und", {"author": ""})]
    assert notes.details["missing_value"] == {"id: NA": 1, "language: NA": 1, "author: NA": 1, "id: nan": 1,
                                              "label: None": 1, "text: NULL": 1}
    assert notes.counts["empty_dropped"] == 1 and notes.counts["missing_label"] == 1


def test_a_quoted_word_and_a_word_of_the_codebook_are_no_missing_values(tmp_path):
    path = write(tmp_path, "p.csv", '"id","text","label"\n"NA","null","None"\n')
    posts, notes = read_posts(path, None, SimpleNamespace(labels=("None", "Some")))
    assert (posts[0].id, posts[0].text, posts[0].label) == ("NA", "null", "None") and not notes.counts["missing_value"]
    path = write(tmp_path, "q.csv", "id,text,label\n1,a,NA\n")
    posts, notes = read_posts(path, None, SimpleNamespace(labels=("NA", "Some")))
    assert posts[0].label == "NA" and type(posts[0].label) is str and not notes.counts["missing_value"]
    posts, _ = read_posts(write(tmp_path, "p.jsonl", '{"text": "NaN", "id": "NA"}\n'), **BARE)
    assert (posts[0].text, posts[0].id) == ("NaN", "NA")


def test_what_r_writes(cases):
    posts, notes = read_posts(cases / "r_write_csv_na.csv", Columns(), PAPER)
    assert {post.language for post in posts} <= {"en", "es", "und"} and notes.counts["missing_value"]
    assert "na" not in {post.language for post in posts} and not notes.counts["duplicate_id"]


# -- columns that come twice

@pytest.mark.parametrize("column", ["text", "label", "language", "id", "author", "date", "predicted", "label_ana"])
def test_a_doubled_column_that_an_option_names_is_refused(tmp_path, column):
    names = ["id", "text", "label", "language", "author", "date", "predicted", "label_ana", column]
    path = write(tmp_path, "p.csv", ",".join(names) + "\n" + ",".join("x" * len(names)) + "\n")

    class Options(ColumnOptions):
        group_by, split_by = "author", "date"

    with pytest.raises(UserError, match=f"has 2 columns named '{column}'; rename all but one"):
        read_posts(path, Options().columns())


def test_a_doubled_column_that_nobody_names_is_harmless(tmp_path):
    path = write(tmp_path, "p.csv", "id,text,note,note\n1,a,x,y\n")
    assert len(read_posts(path, **BARE)[0]) == 1


def test_the_joined_export(cases):
    with pytest.raises(UserError, match="has 2 columns named 'text'"):
        read_posts(cases / "two_text_columns.csv", Columns(), PAPER)


# -- damage

@pytest.mark.parametrize("text", ["café “so” – naïve", "Ελλάδα", "дом", "한국", "👍 ok", "š ž €5", "ąę łódź", "güzel"])
def test_mojibake_is_told_from_writing(text):
    damaged = text.encode("utf-8")
    broken = "".join(bytes([b]).decode("cp1252", "ignore") or chr(b) for b in damaged)
    assert is_mojibake(broken) and not is_mojibake(text)


def test_ordinary_writing_is_no_mojibake(shared_data):
    for line in (shared_data / "parallel" / "ntrex.jsonl").read_text(encoding="utf-8").splitlines():
        assert not is_mojibake(json.loads(line)["text"])


def test_damage_is_counted_and_said(cases, tmp_path):
    posts, notes = read_posts(cases / "mojibake.csv", Columns(), PAPER)
    assert notes.counts["mojibake"] == len(posts) and "iconv" in str(notes)
    posts, notes = read_posts(cases / "excel_name_error.csv", Columns(), PAPER)
    assert notes.counts["spreadsheet_error"] == sum(post.text == "#NAME?" for post in posts) > 1
    assert is_spreadsheet_error(" #REF! ") and not is_spreadsheet_error("#NAME? is what I saw")


def test_invisible_texts_are_empty(cases):
    _, notes = read_posts(cases / "invisible_texts.jsonl", **BARE)
    rows = [json.loads(line) for line in (cases / "invisible_texts.jsonl").read_text(encoding="utf-8").splitlines()]
    gone = [row["id"] for row in rows if not isinstance(row["text"], str) or is_empty(row["text"])]
    assert gone == ["s6", "s7", "o4", "o6", "o7", "o8", "o9"] and notes.counts["empty_dropped"] == len(gone)


@pytest.mark.parametrize("code", [0x00AD, 0x034F, 0x061C, 0x115F, 0x1160, 0x17B4, 0x180E, 0x200B, 0x200F, 0x202E,
                                  0x2060, 0x2066, 0x206F, 0x2800, 0x3000, 0x3164, 0xFE00, 0xFE0F, 0xFEFF, 0xFFA0,
                                  0xE0001, 0xE0100, 0x1D173, 0x85, 0x0, 0x2028])
def test_characters_that_cannot_be_seen(code):
    assert is_empty(chr(code) * 3 + " \n") and not is_empty(chr(code) + "a")


@pytest.mark.parametrize("text", ["a", "।", "👍", "\u0600", "\ue000", "\ufffd", "́", "ㅤa"])
def test_characters_that_can(text):
    assert not is_empty(text)


# -- labels

def test_labels_with_invisible_characters_or_a_point(cases):
    posts, notes = read_posts(cases / "label_zero_width.csv", Columns(), PAPER)
    assert {post.label for post in posts} == set(PAPER.labels) and notes.counts["stripped_label"]
    with pytest.raises(UserError, match=r"label '2\.0' is not in the codebook.*a number with a point.*'anti-imm"):
        read_posts(cases / "label_floats.csv", Columns(), PAPER)
    assert strip_invisible("\ufeff pro \u200b\xa0") == "pro"


# -- other shapes

def test_another_delimiter_is_used_and_said(tmp_path):
    path = write(tmp_path, "p.csv", "text;label\na, b;pro\n")
    posts, notes = read_posts(path, codebook=BOOK)
    assert posts[0].text == "a, b" and "p.csv: semicolons, not commas" in str(notes)
    posts, notes = read_posts(write(tmp_path, "p.tsv", '"text","label"\n"a",pro\n'), codebook=BOOK)
    assert posts[0].text == "a" and "p.tsv: commas, not tabs" in str(notes)
    with pytest.raises(UserError, match="is separated by semicolons, not by tabs; set --delimiter semicolon"):
        read_posts(path, Columns(delimiter="tab"), BOOK)


def test_excels_unicode_text(cases):
    posts, _ = read_posts(cases / "excel_unicode_text.txt", Columns(), PAPER)
    assert [post.label for post in posts[:2]] == ["anti-immigration", "pro-immigration"] and posts[0].language == "en"
    with pytest.raises(UserError, match="orient='records', lines=True"):
        read_posts(cases / "pandas_columns.json", **BARE)


def test_an_array_of_objects(tmp_path):
    rows = [{"id": str(k), "text": "x" * k + '"]},{'} for k in range(1, 50)]
    for text in (json.dumps(rows), json.dumps(rows, indent=2), "[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n"):
        posts, _ = read_posts(write(tmp_path, "p.json", text), **BARE)
        assert [(post.id, post.text) for post in posts] == [(row["id"], row["text"]) for row in rows]
        assert [post.row for post in posts] == list(range(1, 50))


def test_paths_into_nested_objects(tmp_path):
    rows = [{"data": {"text": "a", "lang": "es"}, "user": {"id": 7}}, {"data": {"text": "b"}, "user": {"id": 8}}]
    path = write(tmp_path, "p.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    columns = Columns(text="data.text", id="user.id", language="data.lang", others=("user.id",))
    posts, _ = read_posts(path, columns, **BARE)
    assert [(post.text, post.id, post.language) for post in posts] == [("a", "7", "es"), ("b", "8", "und")]
    with pytest.raises(UserError, match=r"has no column 'data\.tekst'"):
        read_posts(path, Columns(text="data.tekst"), **BARE)


def test_what_else_is_kept_holds_no_text(tmp_path):
    row = {"data": {"text": "a post", "lang": "es", "likes": 3}, "user": {"id": 7}, "a": {"text": "b"}, "n": None}
    posts, _ = read_posts(write(tmp_path, "p.jsonl", json.dumps(row)),
                          Columns(text="data.text", id="user.id", language="data.lang", label="a.b.c"), **BARE)
    assert posts[0].extra == {"data": '{"likes": 3}', "a": '{"text": "b"}', "n": ""} and posts[0].text == "a post"
    row = {"data": [{"text": "a", "id": "1", "x": {"text": "y"}}, {"text": "b"}], "page": 1}
    posts, _ = read_posts(write(tmp_path, "p.jsonl", json.dumps(row)), Columns(text="data.text", id="data.id"), **BARE)
    assert [post.extra for post in posts] == [{"data": '{"x": {"text": "y"}}', "page": "1"}, {"page": "1"}]


def test_lists_on_the_way_are_opened(tmp_path):
    lines = [{"data": [{"text": "a", "id": "1"}, {"text": "b"}], "meta": 1}, {"data": [], "meta": 2},
             {"data": [{"text": "c", "id": "3"}]}]
    path = write(tmp_path, "p.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    posts, notes = read_posts(path, Columns(text="data.text", id="data.id"), **BARE)
    assert [(post.text, post.id, post.row) for post in posts] == [("a", "1", 1), ("b", "p-1.2", 1), ("c", "3", 3)]
    assert notes.rows == 3


@pytest.mark.parametrize("quote", ["", '"'])
def test_files_put_behind_one_another_with_their_byte_order_marks(tmp_path, quote):
    """What `cat *.csv` makes of Excel's "CSV UTF-8": a header with a mark in front of it in the middle."""
    one = "\ufeff" + ",".join(f"{quote}{name}{quote}" for name in ("id", "text")) + "\r\n{n},post {n}\r\n"
    (tmp_path / "p.csv").write_bytes("".join(one.replace("{n}", n) for n in "123").encode())
    posts, notes = read_posts(tmp_path / "p.csv", require_labels=False)
    assert [(post.id, post.text) for post in posts] == [(n, f"post {n}") for n in "123"]
    assert notes.counts["repeated_header"] == 2
    (tmp_path / "p.jsonl").write_bytes("".join(f'\ufeff{{"id": "{n}", "text": "\ufeffa"}}\n' for n in "123").encode())
    assert [(post.id, post.text) for post in read_posts(tmp_path / "p.jsonl", require_labels=False)[0]] == [
        (n, "\ufeffa") for n in "123"]
