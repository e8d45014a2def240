"""Where a text may be cut: the ids of the two parts are those of the whole, whatever stands around them.

Deliberate break: in `Tokenizer.divide` leave the seam out of the second part, in model/tokenizer/spm.py let
`words_stand_alone` say yes whatever there is, or in model/tokenizer/hf_json.py leave `reach` out.
"""

import json
import random

import pytest
import sentencepiece

from common.files import ROOT
from model.tokenizer import load_tokenizer
from tests.data.prompts import NASTY, llama2, llama3, tiny  # noqa: F401 - fixtures
from tests.model.tokenizer_cases import byte_vocabulary, trained_json, word

CONSTANT = ["a b", 'The next text is a tweet:"', '" x "', "1 2", ". ( 'll", "it 's <|eot_id|> y"]
AROUND = [*NASTY, "  ", "\u00a0", "\u0301", "\u200b", "\u3000x", "é", "e\u0308", "'", "'s", "123", "x\n", "\t", "▁",
          "ﬁ", "Ａ", "İ", "ß", "🇺🇸", "http", "@user", "कि", "x" * 70]


STYLES = ("gpt2", "smollm2", "llama3")


@pytest.fixture(scope="module")
def trained_files(tmp_path_factory):
    pytest.importorskip("tokenizers", reason="needs tokenizers")
    folder = tmp_path_factory.mktemp("seams")
    return {style: load_tokenizer(trained_json(folder / f"{style}.json", style)) for style in STYLES}


@pytest.fixture(params=["base", "tiny", "llama2", "llama3", *(f"tokenizer.json as of {style}" for style in STYLES)])
def tokenizer(request):
    if request.param == "base":
        return load_tokenizer(ROOT / "base")
    if request.param.startswith("tokenizer.json"):
        return request.getfixturevalue("trained_files")[request.param.rsplit(" ", 1)[1]]
    return request.getfixturevalue(request.param)


def test_two_parts_have_the_ids_of_the_whole_between_all_texts(tokenizer):
    draw = random.Random(2)
    for constant in CONSTANT:
        for last in (False, True):
            first, second = tokenizer.divide(constant, last)
            assert first.strip() and second.strip()
            for _ in range(120):
                before, behind = ("".join(draw.choices(AROUND, k=draw.randint(0, 3))) for _ in range(2))
                whole = tokenizer.encode(before + constant + behind)
                assert tokenizer.encode(before + first) + tokenizer.encode(second + behind) == whole, (before, behind)


def test_the_first_and_the_last_seam(tokenizer):
    assert tokenizer.divide("a b c")[0] == "a" and tokenizer.divide("a b c", last=True)[0] == "a b"
    for text in ("", "abc", "a  b", " a", "a ", "a\nb", "é b", "a\u00a0b"):
        assert tokenizer.divide(text) is None, text


RULES = {"a space behind a letter": "0061 0020\t0062\n", "a space ahead of one": "0020 0061\t0062\n",
         "another space": "00A0\t0020\n"}  # fmt: skip


def trained(folder, **options):
    words = ("we", "they", "open", "close", "border", "door", "street", "river", "boat", "town", "new", "old", "people")
    draw = random.Random(3)
    lines = [" ".join(draw.choices(words, k=6)) for _ in range(200)]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_prefix=str(folder / "tokenizer"), minloglevel=2, hard_vocab_limit=False,
        **({"vocab_size": 360, "model_type": "bpe", "byte_fallback": True} | options))
    return load_tokenizer(folder / "tokenizer.model")


@pytest.mark.parametrize("rule", RULES)
def test_a_normaliser_that_takes_a_space_with_something_else_has_no_seams(tmp_path, rule):
    (tmp_path / "rules.tsv").write_text(RULES[rule] + "0041\t0061\n00C0 0301\t0061\n", encoding="utf-8")
    options = {"normalization_rule_tsv": str(tmp_path / "rules.tsv")}
    assert (trained(tmp_path, **options).divide("x y") is not None) == (rule == "another space")
    assert trained(tmp_path, **options, remove_extra_whitespaces=False).divide("x y") is None


@pytest.mark.parametrize(("options", "has_seams"), [
    ({}, True), ({"model_type": "unigram", "vocab_size": 320}, False), ({"split_by_whitespace": False}, False),
    ({"add_dummy_prefix": False}, False), ({"treat_whitespace_as_suffix": True}, False),
])
def test_other_kinds_of_vocabulary(tmp_path, options, has_seams):
    assert (trained(tmp_path, **options).divide("x y") is not None) == has_seams


@pytest.mark.parametrize(("content", "flags", "has_seams"), [
    ("haha", {}, True), ("ha ha", {}, False), ("haha", {"rstrip": True}, False),
    ("<haha>", {"rstrip": True, "special": True}, True),
])
def test_added_words_that_reach_over_a_space(tmp_path, content, flags, has_seams):
    path = tmp_path / "tokenizer.json"
    whole = byte_vocabulary()
    whole["added_tokens"].insert(0, word(258, content, **flags))
    path.write_text(json.dumps(whole), encoding="utf-8")
    assert (load_tokenizer(path).divide("x y") is not None) == has_seams


def test_a_normaliser_or_a_pattern_that_is_not_known_has_none(tmp_path):
    path = tmp_path / "tokenizer.json"
    for change in ({"normalizer": {"type": "NFC"}}, {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": "a b"}, "behavior": "Isolated", "invert": False},
            byte_vocabulary()["pre_tokenizer"]]}}):
        path.write_text(json.dumps(byte_vocabulary() | change), encoding="utf-8")
        assert load_tokenizer(path).divide("x y") is None
