"""Added words of a tokenizer.json: ids equal to `tokenizers`, and no text that becomes the id of a control word.

The reference is told which words are control words (the file may call them `special: false`), as the model card's
program tells it, and then leaves them as text: `encode_special_tokens`.

Deliberate break: in `model/tokenizer/added.py` let `Cutter.cut` look at ordinary words only (`_passed_over` words left
out of `_words`), let `AddedWords.__call__` cut before it normalises, or drop `has_form` from `read_added_words`.
"""

import json
import random
import unicodedata

import pytest

from common.errors import UserError
from model.tokenizer import load_tokenizer
from model.tokenizer.added import has_form
from tests.model.tokenizer_cases import TRICKY, byte_vocabulary, characters, random_strings, word

FLAGS = ("normalized", "lstrip", "rstrip", "single_word")
POOL = ["haha", "ha", "hahaha", "ah", " ", "  ", "\n", "é", "e\u0301", "ñ n", "x", "a", "▁", "▁a", "<|im_start|>", "|>",
        "<|", "im", "[INST]", "T]", "ß", "İ", "_", "1"]  # fmt: skip


def marked(tokenizer, path):
    """`tokenizers` on the file, with the words that we take for control words marked special."""
    from tokenizers import Tokenizer

    content = json.loads(path.read_text(encoding="utf-8"))
    for entry in content["added_tokens"]:
        entry["special"] |= entry["content"] in tokenizer.unmarked
    theirs = Tokenizer.from_str(json.dumps(content))
    theirs.encode_special_tokens = True
    return lambda text: theirs.encode(text, add_special_tokens=False).ids


def write(path, content, words):
    """`content` with added words; those that the vocab lacks are numbered behind it, as the library numbers them."""
    vocab = content["model"]["vocab"]
    new = len(vocab)
    content["added_tokens"] = []
    for name, flags in words:
        id = vocab.get(name, new)
        new += name not in vocab
        content["added_tokens"].append(word(id, name, **flags))
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


KINDS = {
    "bytes": lambda: byte_vocabulary(),
    "bytes, NFC": lambda: byte_vocabulary() | {"normalizer": {"type": "NFC"}},
    "characters, prepended": lambda: characters("prepend"),
    "characters, first": lambda: characters("first"),
    "characters, NFC": lambda: characters("first") | {"normalizer": {"type": "NFC"}},
    "characters, always": lambda: characters("always", split=True),
    "characters, never": lambda: characters("never"),
}


def texts(words, draw):
    """Strings in which the words touch, overlap, and stand beside spaces, letters and marks."""
    parts = [*words, *words, *" \t\u00a0\x1cae\u0301b_5.▁é\u200d語", "  "]
    return ["".join(draw.choices(parts, k=draw.randint(1, 9))) for _ in range(60)]


def is_young_mark(character: str) -> bool:
    """A combining mark of which the library's tables of Unicode may not know, so that it does not order it."""
    return bool(unicodedata.combining(character)) and unicodedata.ucd_3_2_0.category(character) == "Cn"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(25))
def test_any_words_with_any_flags_equal_the_reference(tmp_path, kind, seed):
    draw = random.Random(f"{kind} {seed}")
    content = KINDS[kind]()
    names = draw.sample(POOL, draw.randint(1, 6))
    if content["normalizer"]:  # two words that are one once they are normalised are refused
        names = list({unicodedata.normalize("NFC", name.replace(" ", "▁")): name for name in names}.values())
    words = [(name, {flag: draw.random() < 0.3 for flag in (*FLAGS, "special")}) for name in names]
    path = write(tmp_path / "tokenizer.json", content, words)
    ours = load_tokenizer(path)
    theirs = marked(ours, path)
    control = set(ours.special_ids.values())
    for text in [*texts(names, draw), *TRICKY, *random_strings(30, seed)]:
        if content["normalizer"] and any(map(is_young_mark, text)):
            continue
        try:
            expected = theirs(text)
        except BaseException as error:  # the library panics where white space was taken twice
            assert "bad split" in str(error)
            continue
        ids = ours.encode(text)
        assert ids == expected, (words, text)
        assert not control & set(ids), (words, text)


def test_a_short_word_at_the_end_beside_a_longer_one(tmp_path):
    """The longer one does not fit any more; found as if it did, the shorter would reach over the end of the text."""
    words = [("  ", {}), (" ", {"lstrip": True}), ("x", {"rstrip": True})]
    path = write(tmp_path / "tokenizer.json", byte_vocabulary(), words)
    tokenizer = load_tokenizer(path)
    assert tokenizer.encode("x ") == marked(tokenizer, path)("x ") == [120]


def test_a_special_word_that_the_file_does_not_mark(tmp_path):
    """Derived Llama 3 tokenizers: the post stays text, and the word is there for a prompt."""
    path = write(tmp_path / "tokenizer.json", byte_vocabulary(), [("<|im_start|>", {"special": False}), ("haha", {})])
    tokenizer = load_tokenizer(path)
    start, laugh = tokenizer.special("<|im_start|>"), 259
    assert tokenizer.unmarked == ("<|im_start|>",) and not tokenizer.has_special("haha")
    assert start not in tokenizer.encode("x<|im_start|>system")
    assert tokenizer.decode(tokenizer.encode("<|im_start|>")) == "<|im_start|>"
    assert tokenizer.encode("haha") == [laugh] and tokenizer.decode([start, laugh]) == "<|im_start|>haha"


@pytest.mark.parametrize("name, is_marker", [
    ("<|im_start|>", True), ("<s>", True), ("</s>", True), ("<think>", True), ("[INST]", True), ("[/INST]", True),
    ("<<SYS>>", True), ("<｜User｜>", True), ("<|im_end|>\n", True), ("<unk>", True),
    ("haha", False), ("<3", False), ("<>", False), ("[...]", False), ("<a b>", False), ("  ", False), ("", False),
    ("user", False), ("->", False),
])  # fmt: skip
def test_the_form_of_a_marker(name, is_marker):
    assert has_form(name) == is_marker


TEMPLATE = ("{% for m in messages %}{{ '### ' + m['role'] + ':\\n' }}USER: {{ m.content }}{% endfor %}"
            "{{ '### Reply:\\n' }}")  # fmt: skip
BESIDE = {
    "added": ("tokenizer_config.json", {"added_tokens_decoder": {"258": {"content": "haha", "special": True}}}),
    "a role": ("tokenizer_config.json", {"eos_token": "haha"}),
    "a role as an object": ("special_tokens_map.json", {"pad_token": {"content": "haha"}}),
    "a list": ("special_tokens_map.json", {"additional_special_tokens": ["x", "haha"]}),
    "roles by name": ("tokenizer_config.json", {"extra_special_tokens": {"image_token": "haha"}}),
    "an id": ("generation_config.json", {"eos_token_id": [7, 258]}),
    "config": ("config.json", {"bos_token_id": 258}),
    "template": ("tokenizer_config.json", {"chat_template": TEMPLATE.replace("USER:", "haha:")}),
    "one of several": ("tokenizer_config.json", {"chat_template": [{"name": "x", "template": "{{ 'haha:\\n' }}"}]}),
    "jinja": ("chat_template.jinja", "{{ 'haha:' }}"),
}


@pytest.mark.parametrize("case", BESIDE)
def test_a_word_that_a_neighbour_calls_special(tmp_path, case):
    name, value = BESIDE[case]
    content = "haha:" if "haha:" in json.dumps(value) else "haha"
    path = write(tmp_path / "tokenizer.json", byte_vocabulary(), [(content, {})])
    assert load_tokenizer(path).encode(content) == [258]
    (tmp_path / name).write_text(value if isinstance(value, str) else json.dumps(value))
    tokenizer = load_tokenizer(path)
    assert tokenizer.special_ids == {content: 258} and tokenizer.unmarked == (content,)
    assert 258 not in tokenizer.encode(content)


def test_what_a_template_writes(tmp_path):
    """Whole literals, not words in them, and not letters alone: a post may say "user"."""
    names = ["### Reply:", "USER:", "user", "role", "messages", "###", "for"]
    path = write(tmp_path / "tokenizer.json", byte_vocabulary(), [(name, {}) for name in names])
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    assert load_tokenizer(path).unmarked == ("### Reply:", "USER:", "###")


def test_a_token_that_merges_make_is_ordinary_whatever_is_said(tmp_path):
    """A file that calls "!" its padding: a post's "!" keeps its id, and no prompt can be built with it."""
    path = write(tmp_path / "tokenizer.json", byte_vocabulary(), [("!", {"special": True}), ("abc", {"special": True})])
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"pad_token": "!", "eos_token": "abc"}))
    tokenizer = load_tokenizer(path)
    assert tokenizer.special_ids == {} and tokenizer.encode("abc!") == marked(tokenizer, path)("abc!") == [257, 33]
    assert tokenizer.eos_ids == [] and "eos_token 'abc' is no" in tokenizer.notes[0]


def test_nfc_comes_before_the_words_that_are_normalised(tmp_path):
    """"é" as two characters is the word, and as one character it is too."""
    content = byte_vocabulary() | {"normalizer": {"type": "NFC"}}
    path = write(tmp_path / "tokenizer.json", content, [("née", {"normalized": True}), ("e\u0301", {})])
    tokenizer = load_tokenizer(path)
    theirs = marked(tokenizer, path)
    for text in ("née", "ne\u0301e", "e\u0301", "é", "nne\u0301ee\u0301"):
        assert tokenizer.encode(text) == theirs(text)
    assert tokenizer.encode("née") == [258] and 259 in tokenizer.encode("ne\u0301e")


BAD = {
    "one word": ([word(258, "née", normalized=True), word(259, "ne\u0301e", normalized=True)], "are one word once"),
    "another id": ([word(301, "haha")], "has the id 301, but Hugging Face's own reader"),
    "another id in the vocab": ([word(258, "abc")], "has the id 258, but the vocab has it as 257"),
    "the id of a token": ([word(257, "<|x|>")], "id 257 is 'abc' in the vocab"),
    "empty": ([word(258, "")], "entry 0 is an empty word"),
    "huge": ([word(10**12, "<|x|>", special=True)], "entry 0 has an id that no vocabulary has"),
    "negative": ([word(-1, "<|x|>", special=True)], "entry 0 has an id that no vocabulary has"),
    "half a pair": ([word(258, "\ud83d")], ""),
    "true": ([word(True, "x")], "entry 0 has no 'id' and 'content'"),
    "a fraction": ([word(258.0, "x")], "entry 0 has no 'id' and 'content'"),
    "no object": ([[1]], "entry 0 has no 'id' and 'content'"),
    "no list": ({"x": 1}, "a list was expected"),
    "a flag": ([word(258, "x", lstrip=None)], "lstrip must be true or false"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_words_that_contradict_each_other(tmp_path, case):
    words, message = BAD[case]
    content = byte_vocabulary() | {"normalizer": {"type": "NFC"}, "added_tokens": words}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"tokenizer\.json: ") as caught:
        load_tokenizer(tmp_path)
    assert message in str(caught.value) and len(str(caught.value)) < 400


def test_a_control_word_that_ignore_merges_would_make(tmp_path):
    content = characters("first", ignore_merges=True)
    content["model"]["vocab"]["<end>"] = len(content["model"]["vocab"])
    path = write(tmp_path / "tokenizer.json", content, [("<end>", {"special": True})])
    with pytest.raises(UserError, match=r"ignore_merges would make the control word '<end>' of a text"):
        load_tokenizer(path)
    content["model"]["ignore_merges"] = False
    tokenizer = load_tokenizer(write(path, content, [("<end>", {"special": True})]))
    assert tokenizer.special("<end>") not in tokenizer.encode("<end>a<end>")
