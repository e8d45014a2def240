"""The codebook: the shipped ones, the paper's words to the character, and one line for every mistake.

Deliberate break: in `data/codebook.py`, make `_table` accept unknown keys (return before the loop); let `_labels`
compare names without `casefold`; or take "role" out of `DEFAULTS`. Each turns a case below red.
"""

import json

import pytest

from common.errors import UserError
from data.codebook import LETTERS, SHIPPED, Codebook, load_codebook

PAPER_INSTRUCTION = (
    "Analyze carefully the tweet and assign it to the most relevant category among those listed below. "
    "Do not explain your answer and return only a number.\n"
    "Category numbers: 1 = 'pro-immigration'; 2 = 'anti-immigration'; 3 = 'neutral'; 4 = 'unrelated'."
)


def small(**changes) -> dict:
    book = {
        "role": "You read posts.", "question": "Choose.", "labels": ["good", "bad", "other"],
        "groups": {"topic": {"related": ["good", "bad"], "unrelated": ["other"]},
                   "stance": {"pro": ["good"], "anti": ["bad"]}},
    }
    return {key: value for key, value in {**book, **changes}.items() if value is not None}


def test_the_default_is_the_paper_to_the_character():
    book = load_codebook()
    assert book.role == "You are an expert on migration. Answer the question truthfully."
    assert book.introduction == 'The next text is a tweet probably about migration:"{post}"'
    assert book.instruction() == PAPER_INSTRUCTION
    assert [book.answer_text(label) for label in book.labels] == [f"Answer = [{n}]. " for n in "1234"]
    assert book.labels == ("pro-immigration", "anti-immigration", "neutral", "unrelated")
    assert book.related == book.labels[:3]
    assert book.groups["topic"] == {"related": book.labels[:3], "unrelated": ("unrelated",)}
    assert book.stance == {"pro": ("pro-immigration",), "anti": ("anti-immigration",), "neutral": ("neutral",)}


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.toml")), ids=lambda path: path.stem)
def test_every_shipped_codebook_loads_and_survives_run_json(path):
    book = load_codebook(path)
    again = Codebook.from_dict(json.loads(json.dumps(book.to_dict())), "run.json")
    assert again == book and again.hash == book.hash
    assert load_codebook(path.stem) == book


def test_labels_without_groups_have_no_topic_and_no_stance():
    book = load_codebook("sib200")
    assert len(book.labels) == 7 and book.groups == {} and book.related == () and book.stance == {}


def test_definitions_and_examples_go_into_the_instruction_in_order():
    book = Codebook.from_dict(small(
        labels=[{"name": "good", "definition": "Likes {it}."}, "bad", {"name": "other", "definition": "Else."}],
        examples=[{"label": "bad", "text": "No } thanks"}, {"label": "good", "text": "Yes"}],
    ))
    assert book.instruction() == (
        "Choose.\nCategory numbers: 1 = 'good'; 2 = 'bad'; 3 = 'other'.\n"
        "Definitions:\n1 = 'good': Likes {it}.\n3 = 'other': Else.\n"
        "Examples:\n\"No } thanks\": 2 = 'bad'\n\"Yes\": 1 = 'good'"
    )


@pytest.mark.parametrize(("count", "symbols"), [(2, "12"), (9, "123456789"), (10, LETTERS[:10]), (26, LETTERS)])
def test_symbols_are_digits_up_to_nine_labels_and_letters_past_them(count, symbols):
    book = Codebook.from_dict(small(labels=[f"label {n}" for n in range(count)], groups=None))
    assert "".join(book.symbols) == symbols
    assert book.listing == ("Category numbers: {labels}." if count <= 9 else "Category letters: {labels}.")


def two_lines(count=3):
    labels = ", ".join(f'"label {number}"' for number in range(count))
    return f'name = "ferries"\nlabels = [{labels}]\n'


def test_a_name_and_labels_are_a_codebook(tmp_path):
    path = tmp_path / "book.toml"
    path.write_text(two_lines())
    book = load_codebook(path)
    assert book.name == "ferries" and book.introduction == 'The next text is a post:"{post}"'
    assert book.role == "You are an expert in reading posts. Answer the question truthfully."
    assert book.instruction() == (
        "Analyze carefully the post and assign it to the most relevant category among those listed below. Do not "
        "explain your answer and return only a number.\n"
        "Category numbers: 1 = 'label 0'; 2 = 'label 1'; 3 = 'label 2'.")
    path.write_text(two_lines(10))
    assert "return only a letter.\nCategory letters: A = 'label 0';" in load_codebook(path).instruction()
    whole = Codebook.from_dict(book.to_dict(), "run.json")
    assert whole == book and whole.hash == book.hash  # a run keeps the words that the defaults were then
    shown = "".join(line.removeprefix("#     ") for line in (SHIPPED / "filled_example.toml").read_text()
                    .splitlines(keepends=True) if line.startswith("#     "))
    path.write_text(shown)
    assert load_codebook(path).labels == ("about ferries", "about other boats", "something else")


def test_every_default_suits_and_any_may_be_given():
    for key in ("role", "introduction", "question", "listing", "answer"):
        words = {"introduction": "{post}!", "listing": "{labels}!", "answer": "{symbol}"}.get(key, "Other words.")
        book = Codebook.from_dict({"labels": ["good", "bad"], key: words})
        assert getattr(book, key) == words and book.name == "codebook"


def test_the_hash_follows_what_is_asked_and_nothing_else():
    base = Codebook.from_dict(small(name="one"))
    assert base.hash == Codebook.from_dict(small(name="two")).hash
    shuffled = {"stance": {"anti": ["bad"], "pro": ["good"]},
                "topic": {"unrelated": ["other"], "related": ["bad", "good"]}}
    assert base.hash == Codebook.from_dict(small(groups=shuffled)).hash
    for change in ({"role": "You."}, {"labels": ["bad", "good", "other"]}, {"answer": "{symbol}"}, {"groups": None},
                   {"examples": [{"label": "bad", "text": "x"}]}):
        assert base.hash != Codebook.from_dict(small(**change)).hash, change


def test_the_papers_hash_is_the_one_that_runs_were_made_with():
    # A change here means that adapters trained before are refused: raise it on purpose only.
    assert load_codebook().hash == "b01603b5593baaae8cb5311831fa28c0d7671f4ed65fd40c913f6aa3186cd52f"


def test_an_unknown_label_gets_a_hint():
    with pytest.raises(UserError, match="'pro-imigration' is not in the codebook; did you mean 'pro-immigration'"):
        load_codebook().index("pro-imigration")


TOPIC = {"related": ["good", "bad"], "unrelated": ["other"]}
WRONG = {
    "unknown key": ({"qestion": "?"}, "key 'qestion' is unknown; did you mean 'question'"),
    "unknown key in a label": ({"labels": [{"name": "a", "definiton": "x"}, "b"]}, "labels[1].definiton' is unknown;"),
    "unknown key in an example": ({"examples": [{"label": "bad", "txt": "x"}]}, "examples[1].txt' is unknown; did you"),
    "unknown group": ({"groups": {"topics": TOPIC}}, "groups.topics' is unknown; did you mean 'topic'"),
    "unknown side": ({"groups": {"topic": {**TOPIC, "relatd": ["bad"]}}}, "'groups.topic.relatd' is unknown; did you"),
    "no labels": ({"labels": None}, "key 'labels' is missing; a codebook needs its labels: labels ="),
    "two equal labels": ({"labels": ["good", "good"]}, "'good' and 'good' are the same"),
    "equal but for case": ({"labels": ["Straße", "STRASSE"]}, "'Straße' and 'STRASSE' are the same"),
    "equal but for spaces inside": ({"labels": ["so so", "so  So"]}, "'so so' and 'so  So' are the same"),
    "space around a label": ({"labels": ["good ", "bad"]}, "labels[1].name 'good ' has spaces around it"),
    "line break in a label": ({"labels": ["go\nod", "bad"]}, "write 'go od'"),
    "a line break of another kind": ({"labels": ["go\u2028od", "bad"]}, "or a line break in it; write 'go od'"),
    "a label that turns the writing": ({"labels": ["\u202egnp.exe", "bad"]}, "shows no sign (U+202E); write 'gnp.exe'"),
    "one label": ({"labels": ["good"]}, "too few labels (1)"),
    "27 labels": ({"labels": [f"l{n}" for n in range(27)]}, "has 27 labels; at most 26"),
    "empty label": ({"labels": ["good", " "]}, "key 'labels[2].name' is empty"),
    "label without a name": ({"labels": [{"definition": "x"}, "b"]}, "labels[1] has no key 'name'"),
    "label of a wrong type": ({"labels": ["good", 3]}, "labels[2] is a number; a table was expected"),
    "labels of a wrong type": ({"labels": "good, bad"}, "key 'labels' is a string"),
    "empty role": ({"role": ""}, "key 'role' is empty"),
    "empty definition": ({"labels": [{"name": "a", "definition": " "}, "b"]}, "labels[1].definition' is empty"),
    "role of a wrong type": ({"role": True}, "key 'role' is true or false; a string"),
    "question of a wrong type": ({"question": ["x"]}, "key 'question' is a list"),
    "no {post}": ({"introduction": "The text:"}, "key 'introduction': {post} is missing"),
    "two {post}": ({"introduction": "{post} {post}"}, "{post} occurs 2 times"),
    "no {labels}": ({"listing": "Categories."}, "key 'listing': {labels} is missing"),
    "no {symbol}": ({"answer": "Answer = [1]"}, "key 'answer': {symbol} is missing"),
    "misspelt placeholder": ({"introduction": "{tweet}: {post}"}, "only {post} may be in braces"),
    "lone brace": ({"answer": "{symbol}}"}, "key 'answer' has a brace that belongs to no placeholder"),
    "placeholder in the role": ({"role": "You read {post}"}, "key 'role' has a brace that belongs to no placeholder"),
    "example for an unknown label": ({"examples": [{"label": "godo", "text": "x"}]}, "'godo' is not a label; did you"),
    "example without text": ({"examples": [{"label": "bad"}]}, "examples[1] has no key 'text'"),
    "example with empty text": ({"examples": [{"label": "bad", "text": ""}]}, "examples[1].text' is empty"),
    "the same example twice": (
        {"examples": [{"label": "bad", "text": "x"}, {"label": "good", "text": "x"}]}, "the text of examples[1]"),
    "examples of a wrong type": ({"examples": {"bad": "x"}}, "key 'examples' is a table"),
    "group with an unknown label": (
        {"groups": {"topic": {"related": ["good", "bd"], "unrelated": ["other"]}}}, "'bd' is not a label; did you"),
    "label on no side": ({"groups": {"topic": {"related": ["good"], "unrelated": ["other"]}}}, "'bad' is on no side"),
    "label on both sides": (
        {"groups": {"topic": {"related": ["good", "bad"], "unrelated": ["other", "bad"]}}}, "'bad' is on two sides"),
    "label twice on a side": (
        {"groups": {"topic": {"related": ["good", "bad", "bad"], "unrelated": ["other"]}}}, "names a label twice"),
    "one side only": ({"groups": {"topic": {"related": ["good"]}}}, "'groups.topic' needs related and unrelated"),
    "empty side": ({"groups": {"topic": {"related": ["good"], "unrelated": []}}}, "'groups.topic.unrelated' is empty"),
    "side of a wrong type": ({"groups": {"topic": {"related": "good", "unrelated": ["bad"]}}}, "related' is a string"),
    "stance without topic": ({"groups": {"stance": {"a": ["good"], "b": ["bad"]}}}, "needs groups.topic"),
    "stance of an unrelated label": (
        {"groups": {"topic": TOPIC, "stance": {"a": ["good"], "b": ["bad", "other"]}}}, "label 'other' is unrelated"),
    "related label without stance": (
        {"labels": ["good", "bad", "odd", "other"],
         "groups": {"topic": {"related": ["good", "bad", "odd"], "unrelated": ["other"]},
                    "stance": {"a": ["good"], "b": ["bad"]}}}, "'groups.stance': label 'odd' is on no side"),
    "groups of a wrong type": ({"groups": ["topic"]}, "groups is a list; a table was expected"),
    "number in a side": ({"groups": {"topic": {"related": [1], "unrelated": ["bad"]}}}, "1 is not a label"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_named_in_one_line(case):
    changes, message = WRONG[case]
    with pytest.raises(UserError) as raised:
        Codebook.from_dict(small(**changes), "book.toml")
    assert str(raised.value).startswith("book.toml: ") and message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("content", "message"), [
    (b'role = "a\n', "is not TOML (Illegal character"),
    (b'role = "a"\nrole = "b"\n', "is not TOML (Cannot overwrite"),
    ("role = 'é'".encode("latin-1"), "is not UTF-8 text (byte 8)"),
])
def test_a_broken_file_is_named(tmp_path, content, message):
    path = tmp_path / "book.toml"
    path.write_bytes(content)
    with pytest.raises(UserError) as raised:
        load_codebook(path)
    assert str(raised.value).startswith(f"{path}: ") and message in str(raised.value)


def test_a_missing_file_lists_the_shipped_ones_and_a_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"there is no such codebook; shipped are .*paper, sib200"):
        load_codebook(tmp_path / "book.toml")
    with pytest.raises(UserError, match="cannot be read"):
        load_codebook(tmp_path)


def test_a_byte_order_mark_is_harmless(tmp_path):
    path = tmp_path / "book.toml"
    path.write_bytes(b"\xef\xbb\xbf" + (SHIPPED / "paper.toml").read_bytes())
    assert load_codebook(path) == load_codebook()
