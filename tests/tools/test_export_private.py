"""No post leaves with a model: nasty examples, posts quoted in a codebook, and the search over the finished files.

Deliberate break: give `Card` the run's own codebook in `tools/export/__main__.py`, and the search refuses the export;
take the search away as well (`export.check_posts`), and the examples are found in the files. Let `Private._of_training`
hash pieces as they are, or `is_longer_than_a_word` say yes to one word; cases below turn red.
"""

import json
import re

import pytest

from data.checks import TrainingTexts
from data.posts import Post
from tests.small import here, posts, write_base, write_jsonl
from tests.tools.exports import card, export
from tools.export.private import (
    EXAMPLE,
    PASSAGE,
    Private,
    as_words,
    is_longer_than_a_word,
    runs_of,
    words_of,
)

SECRET = "quartzjackal"  # begins every word of an example that must not be seen
START = f"{SECRET}a close the border"
NASTY = [
    START, f"{START} and {SECRET}b mean it", f"{START} and {SECRET}b mean it, {SECRET}c today.",  # each begins the next
    f"and {SECRET}b mean", f"the {SECRET}d", "number", "return", "[example left out]",
    f"<b>{SECRET}e</b> & <script>alert('{SECRET}f')</script> &amp;",
    f"| {SECRET}g | `{SECRET}h` **x** [y](z) ``` # a |", f"{{post}} {SECRET}i {{{{ .Prompt }}}} {{",
    f".*({SECRET}j|[a-z]+)\\d{{3}}$ \\1 \\\\", f"{SECRET}k\nnew\r\nlines \t {SECRET}l",
    f'"{SECRET}m" said “{SECRET}n” \'and\' """{SECRET}o"""', f"移民问题 {SECRET}p 很多", "关闭边境关闭边境",
    f"ＦＵＬＬ {SECRET.upper()}Q width", f"so\u00adft {SECRET}\u200br", "!!! ...", "\\u0041", "%s %(x)s ${HOME}",
    "👍🏽👎👍👎👍👎",
]
QUESTION = "Which one is it? Do not explain your answer and return only a number."
QUOTED = f"an early {SECRET}s ferry, they sing"  # a training post
CODEBOOK = {
    "name": "ferries", "role": "You know ferries.", "question": QUESTION,
    "labels": [{"name": "boat", "definition": f"Such as: {QUOTED}! {START} AND {SECRET}B is no end."},
               {"name": "street", "definition": "Anything else."}],
    "examples": [{"label": ["boat", "street"][place % 2], "text": text} for place, text in enumerate(NASTY)],
}  # fmt: skip


def toml(book: dict) -> str:
    def value(one):
        if isinstance(one, dict):
            return "{" + ", ".join(f"{key} = {value(part)}" for key, part in one.items()) + "}"
        return f"[{', '.join(map(value, one))}]" if isinstance(one, list) else json.dumps(one, ensure_ascii=False)

    return "".join(f"{key} = {value(one)}\n" for key, one in book.items())


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A run with that codebook; among its training posts one that the codebook quotes and one that is a heading."""
    folder = tmp_path_factory.mktemp("world")
    write_base(folder / "base", max_position_embeddings=4096)
    (folder / "codebook.toml").write_text(toml(CODEBOOK))
    texts = [QUOTED.upper(), "How to use it", "the text of a post", "the-boat-we.open", "We lost boats"]
    texts += [row["text"] for row in posts(19, seed=1)]
    rows = [{"text": text, "label": ["boat", "street"][place % 2]} for place, text in enumerate(texts)]
    for name in ("train", "we lost boats"):
        data = write_jsonl(folder / f"{name}.jsonl", rows)
        train(folder, folder / f"run-{name}", data, "--codebook", folder / "codebook.toml")
    (folder / "run-train").rename(folder / "run")
    return folder


def train(folder, run, data, *words):
    here("train.py", "--model", folder / "base", "--data", data, "--out", run, "--max-steps", 1, "--batch-size", 4,
         "--rank", 2, "--dtype", "float32", "--max-tokens", 2048, *words, cwd=folder)


@pytest.mark.parametrize("kind", ["peft", "merged", "gguf-f16"])
def test_nothing_of_the_examples_leaves(world, tmp_path, kind):
    if kind == "gguf-f16":
        pytest.importorskip("gguf")
    said = export(world / "run", kind, tmp_path / "out")
    inside = b"".join(path.read_bytes() for path in sorted((tmp_path / "out").rglob("*")) if path.is_file())
    assert SECRET.encode() not in inside.lower()
    for text in ["关闭边境", "👎👍👎", "移民问题", "alert(", "mean it", "[y](z)", "${HOME}"]:
        assert text.encode() not in inside and json.dumps(text)[1:-1].encode() not in inside, text
    assert "left out of the card, since they may be posts: the codebook's examples" in said


def test_what_the_card_shows_instead(world, tmp_path):
    export(world / "run", "peft", tmp_path / "out")
    text = card(tmp_path / "out")
    prompt = "".join(part for part in json.loads(re.search(r"^PROMPT = (.*)$", text, re.MULTILINE)[1])
                     if isinstance(part, str))
    assert prompt.count(EXAMPLE) == len(NASTY) and QUESTION in prompt  # "number" is an example, and a word of it
    assert f"| Such as: {PASSAGE}! {PASSAGE} is no end. |" in text and "2 = 'street': Anything else." in prompt
    assert f"also showed {len(NASTY)} examples, left out" in text and "Passages of the codebook that are posts" in text
    assert "## How to use it" in text  # a training post as well, and none of it


def test_posts_of_few_words_and_questions(world, tmp_path):
    """They take nothing out of labels and of the questions that this project ships; out of one's own they do."""
    book = {"labels": ["about boats", "a number"], "role": "You know boats. Do you?"}
    (tmp_path / "book.toml").write_text(toml(book))
    texts = ["about boats", "Analyze", "a number", "Do not", "return only", "Answer the question", "do you", "a b"]
    rows = [{"text": text, "label": book["labels"][place % 2]} for place, text in enumerate(texts)]
    train(world, tmp_path / "run", write_jsonl(tmp_path / "data.jsonl", rows), "--codebook", tmp_path / "book.toml")
    said = export(tmp_path / "run", "peft", tmp_path / "out")
    assert "return only a number.\\nCategory numbers: 1 = 'about boats'; 2 = 'a number'." in card(tmp_path / "out")
    assert f"You know boats. {PASSAGE}?" in card(tmp_path / "out") and "left out of the card" in said


@pytest.mark.parametrize("run, words", [("run", ["--name", "the-boat-we.open"]), ("run-we lost boats", []),
                                        ("run", ["--base-name", "somebody/the-boat-we.open"])])
def test_a_post_by_another_way_is_refused_and_nothing_is_left(world, tmp_path, run, words):
    line = here("tools.export", "--run", world / run, "--to", "peft", "--out", tmp_path / "out", *words, cwd=tmp_path,
                code=2)
    assert re.search(r": line \d+ would publish words of an example or of a training post", line)
    assert list(tmp_path.iterdir()) == []


def test_files_of_the_base_are_its_own(world, tmp_path):
    """A post in the base's own card, which was there before, does not forbid the export; a changed copy would."""
    readme = world / "base" / "README.md"
    readme.write_text(f"---\nlicense: mit\n---\n{START}\n")
    try:
        export(world / "run", "peft", tmp_path / "out")
    finally:
        readme.unlink()
    assert START in (tmp_path / "out" / "BASE_README.md").read_text()


def of(*texts, examples=()) -> Private:
    """What is looked for beside training texts and examples."""
    hashed = [Post(str(place), text, None, "en", "f", 1, {}) for place, text in enumerate(texts)]
    return Private(runs_of(examples), TrainingTexts.of(hashed).same)


TEXTS = [
    "How we came here", "“Quoted” start", "#Refugees welcome!", "हिन्दी में पोस्ट", "Straße ﬁn İstanbul", "移民问题很多吗",
    "👍👎👍👎👍", "don't <b>stop</b> | now", 'he said "no"', "a\u200bb cd", "is `this` *so*?", "c:\\new\\table",
    "RT @bob: they left https://x.y/z town @ann", "x & y < z", "one " * 400,
]


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_is_found_however_it_is_written(text):
    ways = [text, text.upper(), text.casefold(), json.dumps(text), json.dumps(text, ensure_ascii=False), repr(text),
            text.replace("&", "&amp;").replace("<", "&lt;"), re.sub(r"([|*_`\\])", r"\\\1", text), f"({text})."]
    for private in (of(text), of(examples=[text])):
        for way in ways:
            assert private.lines(f"before\n| {way} | after") == [2], way
        if len(text) < 300:  # within a sentence of others too
            [(start, end)] = private.passages(f"before {text} after")
            assert as_words(f"before {text} after"[start:end]).strip() in as_words(text)
    assert of(text).lines("before and after,\nin other words") == []


def test_what_is_no_find():
    for text in ("word", "移民问题", "👍👎", "!!!", ""):
        assert of(text, examples=[text]).passages(f"a {text} b 移民问题 word 👍👎 !!!") == []
    assert of("@bob https://x.y").passages("a @bob https://x.y b") == []
    private = of("one two three four five six", examples=["seven eight nine ten eleven twelve"])
    assert private.passages("one two three four five, seven eight nine ten") == []  # a part; what a hash cannot tell
    found = "x eight nine TEN, eleven twelve y one. two three four five six"
    assert [found[slice(*span)] for span in private.passages(found)] == ["eight nine TEN, eleven twelve"]
    assert private.passages(found, as_words("eight nine ten eleven twelve")) == []
    assert is_longer_than_a_word(words_of("a b")) and not is_longer_than_a_word(words_of("关闭边境"))
