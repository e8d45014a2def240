"""The tokenizer's files of an export in transformers' AutoTokenizer: the run's ids, from every kind of base.

Deliberate break: leave `tokenizer_class` as the base has it in `write_tokenizer`, or `Digits` out of
`model.tokenizer.gguf._bytes`; cases below turn red.
"""

import json

import pytest

from model.tokenizer import load_tokenizer
from tests.data.prompts import NASTY, tiny  # noqa: F401 - tiny is a fixture
from tests.model.gguf_vocabularies import of_json, of_sentencepiece, write
from tests.model.tokenizer_cases import TRICKY, random_strings, trained_json
from tools.export.tokenizer_files import tokenizer_name, write_generation, write_tokenizer

transformers = pytest.importorskip("transformers")
TEXTS = [*NASTY, *TRICKY, *random_strings(150, seed=6), "1234 12 a1b2 2026", "<|im_start|>user\nhi 1999<|im_end|>"]
TEMPLATE = "{{ '<|im_start|>' + messages[0]['content'] + '<|im_end|>' }}"


def check(tokenizer, folder, texts=TEXTS):
    """Ids of the texts in the finished folder, with the names of special tokens left as text."""
    (folder / "config.json").write_text('{"model_type": "llama"}')
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    assert type(theirs).__name__ == "TokenizersBackend"
    found = theirs(texts, add_special_tokens=False, split_special_tokens=True).input_ids
    assert found == [tokenizer.encode(text) for text in texts]
    begins = [tokenizer.bos_id] if tokenizer.adds_bos else []
    assert theirs("a b").input_ids == begins + tokenizer.encode("a b")
    assert theirs.chat_template == tokenizer.chat_template
    return theirs


@pytest.mark.parametrize("style, config", [
    ("smollm2", {"tokenizer_class": "GPT2Tokenizer", "bos_token": "<|im_start|>", "add_prefix_space": False}),
    ("smollm2", None), ("gpt2", {"tokenizer_class": "GPT2Tokenizer"}),
    ("llama3", {"tokenizer_class": "LlamaTokenizer"}),
])  # fmt: skip
def test_a_tokenizer_json(tmp_path, style, config):
    """Whatever class its base named, or none; every other file is the base's byte for byte."""
    (base := tmp_path / "base").mkdir(), (out := tmp_path / "out").mkdir()
    path = trained_json(base / "tokenizer.json", style, words=["haha"])
    if config is not None:
        (base / "tokenizer_config.json").write_text(json.dumps(config | {"eos_token": "<|im_end|>"}))
        (base / "chat_template.jinja").write_text(TEMPLATE)
    tokenizer = load_tokenizer(base)
    write_tokenizer(tokenizer, out)
    theirs = check(tokenizer, out)
    assert theirs.eos_token == ("<|im_end|>" if config else "<|endoftext|>")
    assert (out / tokenizer_name(tokenizer)).read_bytes() == path.read_bytes()
    written = json.loads((out / "tokenizer_config.json").read_text())
    assert written["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert config is None or {**written, **config} == config | {"eos_token": "<|im_end|>"}


def test_a_config_that_is_right_stays(tmp_path):
    (base := tmp_path / "base").mkdir(), (out := tmp_path / "out").mkdir()
    trained_json(base / "tokenizer.json", "smollm2")
    text = '{"tokenizer_class":   "TokenizersBackend"}'
    (base / "tokenizer_config.json").write_text(text)
    (base / "generation_config.json").write_text('{"eos_token_id": [1, 2]}')
    write_tokenizer(load_tokenizer(base), out)
    write_generation(load_tokenizer(base), base, out)
    assert (out / "tokenizer_config.json").read_text() == text
    assert (out / "generation_config.json").read_text() == '{"eos_token_id": [1, 2]}'


def test_a_vocabulary_in_original(tmp_path):
    """As the Hub has Meta's: what belongs to it lies above, and goes with it, into a GGUF file as well."""
    (original := tmp_path / "base" / "original").mkdir(parents=True), (out := tmp_path / "out").mkdir()
    path = trained_json(original / "tokenizer.json", "smollm2")
    (original.parent / "config.json").write_text("{}")
    (original.parent / "tokenizer_config.json").write_text('{"eos_token": "<|im_end|>"}')
    (original.parent / "chat_template.jinja").write_text(TEMPLATE)
    tokenizer = load_tokenizer(original)
    assert tokenizer.chat_template == TEMPLATE
    write_tokenizer(tokenizer, out)
    assert check(tokenizer, out).eos_token == "<|im_end|>"
    assert (out / "tokenizer.json").read_bytes() == path.read_bytes()
    pytest.importorskip("gguf")
    from tools.export.vocabulary import read_vocabulary

    found = read_vocabulary(original, tokenizer.vocab_size)
    assert (found.special["eos"], found.template) == (tokenizer.special("<|im_end|>"), TEMPLATE)


@pytest.mark.parametrize("adds", [True, False])
@pytest.mark.parametrize("model", ["smollm", "gpt-2", "llama-bpe", "llama"])
def test_a_gguf_file(tiny, tmp_path, model, adds):  # noqa: F811
    """The files are made of the vocabulary in it, with its chat template and its ends."""
    more = {"bos_token_id": 1, "eos_token_id": 2, "eot_token_id": 0, "add_bos_token": adds, "template": TEMPLATE}
    if model == "llama":
        content = of_sentencepiece(tiny.source, **more)
    else:
        style = {"smollm": "smollm2", "gpt-2": "gpt2", "llama-bpe": "llama3"}[model]
        content = of_json(trained_json(tmp_path / "tokenizer.json", style, words=["haha"]), model, **more)
    (out := tmp_path / "out").mkdir()
    tokenizer = load_tokenizer(write(tmp_path / "base.gguf", content))
    write_tokenizer(tokenizer, out)
    write_generation(tokenizer, tmp_path / "base.gguf", out)
    theirs = check(tokenizer, out)
    again = load_tokenizer(out)
    assert again.source.name == tokenizer_name(tokenizer) and again.kind == tokenizer.kind
    assert [again.encode(text) for text in TEXTS] == [tokenizer.encode(text) for text in TEXTS]
    for name in ("special_ids", "bos_id", "eos_ids", "adds_bos", "chat_template", "vocab_size"):
        assert getattr(again, name) == getattr(tokenizer, name), name
    if model != "llama":
        marked = theirs.apply_chat_template([{"role": "user", "content": "hi 12"}], tokenize=True)["input_ids"]
        assert marked == [1, *tokenizer.encode("hi 12"), 2] and tokenizer.eos_ids == [0, 2]


@pytest.mark.parametrize("style", ["smollm2", "gpt2"])
def test_over_tweets(shared_data, tmp_path, style):
    (base := tmp_path / "base").mkdir(), (out := tmp_path / "out").mkdir()
    trained_json(base / "tokenizer.json", style)
    (base / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer", "eos_token": "<|im_end|>"}')
    rows = (shared_data / "immigration/test.jsonl").read_text(encoding="utf-8").splitlines()
    write_tokenizer(load_tokenizer(base), out)
    check(load_tokenizer(base), out, [json.loads(row)["text"] for row in rows])
