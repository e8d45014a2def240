"""Llama 2 without its tokenizer.model: transformers' tokenizer.json, against `tokenizers` and sentencepiece.

Such a file comes in three forms. transformers 4 let the normaliser put U+2581 before every text, as sentencepiece does;
transformers 5 has `Metaspace`, which puts none before a text that begins with a space. What transformers 5 converts
from a tokenizer.model has its merges in another order, and other ids than sentencepiece for two spaces in a row.

Deliberate break: in `model/tokenizer/bpe.py` let `_word_pattern` cut before every U+2581 (`SPACE` without the star),
or emit the waiting unknown token at once in `_encode_word`; in `split.py` let `Spaces` ignore `first`.
"""

import json

import pytest
import sentencepiece
from tokenizers import Tokenizer

from common.errors import UserError
from data.codebook import load_codebook
from data.prompt import TEMPLATES, Prompt
from model.tokenizer import load_tokenizer
from tests.data.prompts import NASTY, plain_text
from tests.model.tokenizer_cases import TRICKY, characters, languages, llama2_json, random_strings, reference, word


@pytest.fixture(scope="module")
def model(shared_data):
    return shared_data / "llama2/tokenizer.model"


@pytest.fixture(scope="module", params=["transformers 5", "transformers 4"])
def path(model, request, tmp_path_factory):
    return llama2_json(model, tmp_path_factory.mktemp("llama2"), request.param)


@pytest.fixture(scope="module")
def texts(shared_data):
    by_language = languages(shared_data)
    return [*TRICKY, *NASTY, *(text for rows in by_language.values() for text in rows), *random_strings(3_000)]


def test_ids_and_texts_equal_both_references(path, model, texts):
    ours, theirs, pieces = load_tokenizer(path), Tokenizer.from_file(str(path)), load_tokenizer(model)
    assert ours.kind == "bpe" and ours.adds_space and ours.unmarked == () == ours.notes
    assert (ours.vocab_size, ours.bos_id, ours.eos_ids) == (32000, 1, [2])
    assert ours.special_ids == {"<unk>": 0, "<s>": 1, "</s>": 2}
    legacy = json.loads(path.read_text())["pre_tokenizer"] is None
    for text, ids in zip(texts, reference(path)(texts), strict=True):
        assert ours.encode(text) == ids, text
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=False), text
        if legacy or text[:1] not in (" ", "▁"):
            assert ids == pieces.encode(text), text
            assert ours.decode(ids) == text.replace("▁", " ")
    assert [ours.token_bytes(id) for id in range(32000)] == [pieces.token_bytes(id) for id in range(32000)]


def test_what_transformers_converts_equals_tokenizers(model, tmp_path, texts):
    path = llama2_json(model, tmp_path, "converted")
    ours, pieces = load_tokenizer(path), load_tokenizer(model)
    for text, ids in zip(texts, reference(path)(texts), strict=True):
        assert ours.encode(text) == ids, text
    assert ours.encode("a  b") != pieces.encode("a  b") and ours.encode("a b") == pieces.encode("a b")


def test_posts_equal_sentencepiece(path, model, shared_data):
    ours = load_tokenizer(path)
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(model))
    for line in (shared_data / "immigration/test.jsonl").read_text(encoding="utf-8").splitlines():
        text = json.loads(line)["text"].strip()
        assert ours.encode(text) == theirs.encode(text)


def test_a_long_text_equals_the_reference(path, shared_data):
    rows = languages(shared_data, step=10)
    text = "\n".join(row for language in sorted(rows) for row in rows[language])
    assert [load_tokenizer(path).encode(text)] == reference(path)([text])


@pytest.mark.parametrize("template", TEMPLATES)
def test_prompts_are_those_of_the_tokenizer_model(path, model, template):
    """Ids, labels, prefix and cuts; no post leaves its place."""
    ours, theirs = (Prompt(load_codebook(), load_tokenizer(file), template, max_tokens=180) for file in (path, model))
    assert (ours.layout, ours.label_ids, ours.prefix_ids) == (theirs.layout, theirs.label_ids, theirs.prefix_ids)
    for post in [*NASTY, *TRICKY, "a long post " * 90]:
        assert ours.encode(post) == theirs.encode(post)
        assert ours.encode_whole(post, "neutral") == theirs.encode_whole(post, "neutral")
    assert ours.tokenizer.decode(ours.encode("a post").ids) == plain_text(template, "a post")


def test_control_words_are_never_made(path):
    ours = load_tokenizer(path)
    for text in ("<s>", "</s>", "a<s>b</s> <unk>", "<0x0A>"):
        assert not set(ours.encode(text)) & set(ours.special_ids.values())
        assert ours.decode(ours.encode(text)) == text


# ---- small vocabularies, for what Llama 2's own does not show


def without(token):
    """A change: the vocabulary lacks a token, and the merges that need it."""
    def change(model):
        del model["vocab"][token]
        model["merges"] = [pair for pair in model["merges"] if token not in pair]
    return change


def join(model):
    """A change: merges that join a U+2581 to what is before it."""
    model["vocab"] |= {"a▁": 900, "a▁b": 901}
    model["merges"] += [["a", "▁"], ["a▁", "b"]]


CHANGES = {
    "none": lambda model: None,
    "unknown one by one": lambda model: model.update(fuse_unk=False),
    "no unknown": lambda model: model.update(unk_token=None),
    "no bytes": lambda model: model.update(byte_fallback=False),
    "no bytes, one by one": lambda model: model.update(byte_fallback=False, fuse_unk=False),
    "no bytes, no unknown": lambda model: model.update(byte_fallback=False, unk_token=None),
    "whole pieces": lambda model: model.update(ignore_merges=True),
    "without a byte": without("<0xC3>"),
    "without a space": without("▁"),
    "a merge across a space": join,
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("before, split", [("prepend", False), ("first", False), ("first", True), ("always", False),
                                           ("always", True), ("never", False), ("never", True)])  # fmt: skip
def test_small_vocabularies_equal_the_reference(tmp_path, before, split, change):
    content = characters(before, split)
    CHANGES[change](content["model"])
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    ours = load_tokenizer(path)
    texts = [*TRICKY, *NASTY, *random_strings(300), "a ba  ba b haha", "xyz éÉ zx", "ééé z É"]
    assert ours.adds_space == (before != "never")
    for text, ids in zip(texts, reference(path)(texts), strict=True):
        assert ours.encode(text) == ids, text


def test_a_space_is_added_at_the_beginning_alone(tmp_path):
    """`first`: what stands behind an added word gets none; `always` and the normaliser give it one."""
    for before, expected in (("first", "xxa"), ("always", "xx a"), ("prepend", "xx a"), ("never", "xxa")):
        content = characters(before)
        content["added_tokens"] = [word(len(content["model"]["vocab"]), "xx")]
        path = tmp_path / "tokenizer.json"
        path.write_text(json.dumps(content), encoding="utf-8")
        tokenizer = load_tokenizer(path)
        ids = tokenizer.encode("xxa")
        assert [ids, tokenizer.encode("a")] == reference(path)(["xxa", "a"])
        assert tokenizer.decode(ids) == expected


SPACES = {"type": "Metaspace", "replacement": "▁"}
BYTES = {"type": "ByteLevel", "add_prefix_space": False}
BAD = {
    "byte-level too": ("pre_tokenizer", {"type": "Sequence", "pretokenizers": [SPACES, BYTES]}, "ends in 'ByteLevel'"),
    "twice": ("normalizer", characters("prepend")["normalizer"], "pre_tokenizer: ends in 'Metaspace'"),
    "replacement": ("pre_tokenizer", SPACES | {"replacement": "_"}, "must have U+2581"),
    "scheme": ("pre_tokenizer", SPACES | {"prepend_scheme": "last"}, "must have U+2581"),
    "another prefix": ("normalizer", {"type": "Prepend", "prepend": "_"}, "normalizer: 'Prepend' is not supported"),
    "replace": ("normalizer", {"type": "Replace", "pattern": {"Regex": " +"}, "content": "▁"}, "'Replace' is not"),
    "decoder": ("decoder", {"type": "Sequence", "decoders": [{"type": "CTC"}]}, "decoder: 'CTC' is not supported"),
    "stripping": ("decoder", {"type": "Strip", "content": " ", "start": 2, "stop": 0}, "'Strip' is not supported"),
    "flag": ("model", {"type": "BPE", "vocab": {"a": 0}, "merges": [], "fuse_unk": "yes"}, "fuse_unk must be true"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_would_change_ids_is_refused_by_name(tmp_path, case):
    key, value, message = BAD[case]
    (tmp_path / "tokenizer.json").write_text(json.dumps(characters("first") | {key: value}))
    with pytest.raises(UserError) as caught:
        load_tokenizer(tmp_path)
    assert message in str(caught.value)
