"""What the files beside a tokenizer say, and files that are damaged, contradict each other or are no tokenizer at all.

Deliberate break: in `model/tokenizer/__init__.py` let `known` append every id (a config.json with the defaults of
another vocabulary turns red), or in `model/tokenizer/bpe.py` drop the check for a rank that was given before.
"""

import base64
import contextlib
import json
import os
import shutil
import tracemalloc

import pytest

from common.errors import UserError
from model.tokenizer import load_tokenizer
from model.tokenizer.bpe import MOST_IDS, llama3_special_names
from tests.model.tokenizer_cases import byte_vocabulary, word


@pytest.fixture()
def folder(shared_data, tmp_path):
    for file in (shared_data / "llama3/hf_3b_instruct").glob("*.json"):
        shutil.copyfile(file, tmp_path / file.name)
    shutil.copyfile(shared_data / "llama3/tokenizer.model", tmp_path / "tokenizer.model")
    return tmp_path


def change(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_real_folder(folder, shared_data):
    tokenizer, llama3 = load_tokenizer(folder), load_tokenizer(shared_data / "llama3/tokenizer.model")
    assert tokenizer.special_ids == llama3.special_ids and tokenizer.notes == ()
    assert (tokenizer.bos_id, tokenizer.eos_ids) == (128000, [128001, 128008, 128009])


def test_generation_config_says_where_a_turn_ends(folder):
    change(folder / "generation_config.json", eos_token_id=[128009])
    assert load_tokenizer(folder).eos_ids == [128009]
    (folder / "generation_config.json").unlink()
    change(folder / "config.json", eos_token_id=128001)
    assert load_tokenizer(folder).eos_ids == [128001]
    (folder / "config.json").unlink()
    assert load_tokenizer(folder).eos_ids == [128009]  # tokenizer_config.json: <|eot_id|>


def test_ids_of_another_vocabulary_are_not_used(folder):
    for name in ("tokenizer_config.json", "special_tokens_map.json", "generation_config.json"):
        (folder / name).unlink()
    change(folder / "config.json", bos_token_id=1, eos_token_id=2)  # what a config.json gets by default
    tokenizer = load_tokenizer(folder)
    assert (tokenizer.bos_id, tokenizer.eos_ids) == (128000, [128001, 128008, 128009])
    assert len(tokenizer.notes) == 2 and "config.json: bos_token_id 1 is not a special token" in tokenizer.notes[0]


def test_published_names_give_way_to_the_neighbour(folder):
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["added_tokens_decoder"]["128011"]["content"] = "<|my_own|>"
    change(folder / "tokenizer_config.json", **config)
    tokenizer = load_tokenizer(folder)
    assert tokenizer.special("<|my_own|>") == 128011 and not tokenizer.has_special("<|reserved_special_token_3|>")


@pytest.mark.parametrize("id, name, message", [
    ("5", "<|x|>", "id 5 is '<|x|>', but tokenizer.model has an ordinary token there"),
    ("128011", "<|eot_id|>", "two ids are called '<|eot_id|>'"),
    ("x", "<|x|>", "added_tokens_decoder: 'x'"),
])
def test_neighbours_that_contradict(folder, id, name, message):
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["added_tokens_decoder"][id] = {"content": name}
    change(folder / "tokenizer_config.json", **config)
    with pytest.raises(UserError) as caught:
        load_tokenizer(folder)
    assert message in str(caught.value) and "tokenizer_config.json" in str(caught.value)


# ---- files that are none, or damaged

BYTES = [b"%s %d" % (base64.b64encode(bytes([byte])), byte) for byte in range(256)]
JSON = byte_vocabulary()
VOCAB = JSON["model"]["vocab"]
BAD_FILES = {
    "empty": (b"", "is empty"),
    "blank": (b" \n\n", "is empty"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:82e9\nsize 2183982\n", "Git LFS pointer"),
    "html": (b"<!DOCTYPE html>\n<html><body>401</body></html>", "is a web page"),
    "xml": (b'<?xml version="1.0"?><Error/>', "is a web page"),
    "text": (b"some words in a file\nand more of them\n" * 9, "is not a tokenizer"),
    "random": (bytes(range(128, 256)) * 9, "is not a tokenizer"),
    "base64": (b"\n".join([*BYTES[:40], b"!!! 40", *BYTES[41:]]), "row 41: is not 'base64 rank'"),
    "no rank": (b"\n".join([*BYTES[:40], b"IQ==", *BYTES[41:]]), "row 41: is not 'base64 rank'"),
    "third field": (b"\n".join([*BYTES[:40], BYTES[40] + b" 7", *BYTES[41:]]), "row 41: has 3 fields"),
    "endless rank": (b"\n".join([*BYTES, b"QUI= " + b"9" * 5000]), "row 257: a rank of 5000 digits is beyond"),
    "huge rank": (b"\n".join([*BYTES, b"QUI= 999999999999"]), "row 257: a rank of 12 digits is beyond any vocabulary"),
    "negative rank": (b"\n".join([*BYTES, b"QUI= -1"]), "row 257: is not 'base64 rank'"),
    "underscore": (b"\n".join([*BYTES, b"QUI= 2_56"]), "row 257: is not 'base64 rank'"),
    "rank twice": (b"\n".join([*BYTES, b"QUI= 7"]), "row 257: rank 7 was given in row 8"),
    "token twice": (b"\n".join([*BYTES, b"QQ== 256"]), "row 257: its token was given before"),
    "rank missing": (b"\n".join([*BYTES, b"QUI= 300"]), "rank 256 is missing"),
    "cut": (b"\n".join(BYTES[:200]), "has no token for byte 0xc8 (56 of 256 are missing)"),
    "json": (b'{"model": ', "is not JSON"),
    "json list": (b"[1, 2]", "has no model with a vocab"),
    "json other": (b'{"architectures": []}', "has no model with a vocab"),
    "unigram": (JSON | {"model": {"type": "Unigram", "vocab": [["a", 0.0]]}}, "type 'Unigram' is not supported"),
    "wordpiece": (byte_vocabulary(type="WordPiece"), "type 'WordPiece' is not supported"),
    "type": (byte_vocabulary(type=[1]), "type (a list) is not supported"),
    "byte fallback": (byte_vocabulary(byte_fallback=1), "byte_fallback must be true or false"),
    "dropout": (byte_vocabulary(dropout=0.1), "dropout is not supported"),
    "suffix": (byte_vocabulary(end_of_word_suffix="</w>"), "end_of_word_suffix is not supported"),
    "normalizer": (JSON | {"normalizer": {"type": "Lowercase"}}, "normalizer: 'Lowercase' is not supported"),
    "nested normalizer": (JSON | {"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFKC"}]}}, "'NFKC'"),
    "no pre-tokenizer": (JSON | {"pre_tokenizer": None}, "pre_tokenizer: ends in 'none'"),
    "pre-tokenizer": (JSON | {"pre_tokenizer": {"type": "Whitespace"}}, "pre_tokenizer: ends in 'Whitespace'"),
    "steps": (JSON | {"pre_tokenizer": {"type": "Sequence", "pretokenizers": 5}}, "pre_tokenizer: holds something"),
    "a step": (JSON | {"normalizer": {"type": "Sequence", "normalizers": [[]]}}, "normalizer: holds something"),
    "many steps": (JSON | {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [JSON["pre_tokenizer"]] * 200}},
                   "has more than 20 steps"),
    "unknown step": (JSON | {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [
        {"type": "Punctuation"}, JSON["pre_tokenizer"]]}}, "pre_tokenizer: 'Punctuation' is not supported"),
    "split behavior": (JSON | {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": "a"}, "behavior": "MergedWithNext"}, JSON["pre_tokenizer"]]}},
        "behavior 'MergedWithNext' is not supported"),
    "split pattern": (JSON | {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": "(a"}, "behavior": "Isolated"}, JSON["pre_tokenizer"]]}},
        "the pattern '(a' leaves a group open"),
    "prefix space": (JSON | {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True}}, "add_prefix_space"),
    "decoder": (JSON | {"decoder": {"type": "Metaspace"}}, "decoder: 'Metaspace' is not supported"),
    "merge of nothing": (byte_vocabulary(merges=["a b", "ab x"]), "merges: entry 1 'ab x': 'abx' is not in the vocab"),
    "merge of unknown": (byte_vocabulary(merges=[["zz", "c"]]), "'zz' is not in the vocab"),
    "no pair": (byte_vocabulary(merges=["abc"]), "entry 0 'abc' is not a pair"),
    "no merges": (byte_vocabulary(merges=None), "merges: a list was expected"),
    "same id": (byte_vocabulary(vocab=JSON["model"]["vocab"] | {"abc": 256}), "id 256 is both 'ab' and 'abc'"),
    "id is text": (byte_vocabulary(vocab=JSON["model"]["vocab"] | {"abc": "x"}), "'abc': the id 'x'"),
    "not byte-level": (byte_vocabulary(vocab=JSON["model"]["vocab"] | {"▁the": 258}), "byte-level alphabet"),
    "empty vocab": (byte_vocabulary(vocab={}, merges=[]), "vocab: is empty"),
    "huge id": (byte_vocabulary(vocab=VOCAB | {"abcd": 10**12}), "is beyond any vocabulary"),
    "endless id": (json.dumps(JSON).replace('"abc": 257', '"abc": ' + "9" * 5000).encode(), "tokenizer.model: "),
    "true as id": (byte_vocabulary(vocab=VOCAB | {"abcd": True}), "the id True is not a whole number"),
    "half a pair": (byte_vocabulary(vocab=VOCAB | {"\ud83d": 258}), "half a surrogate pair"),
    "nested": (b'{"model":' * 100_000, "tokenizer.model: "),
    "long token": (byte_vocabulary(merges=["a" * 10**6 + " b"]), "aaaaaaaaaaaaa...' is not in the vocab"),
    "unknown token": (byte_vocabulary(unk_token="<unk>"), "unk_token '<unk>' is not in the vocab"),
    "unknown list": (byte_vocabulary(unk_token=["<unk>"]), "unk_token (a list) is not in the vocab"),
    "added twice": (JSON | {"added_tokens": JSON["added_tokens"] * 2}, "'<|end|>' (id 300) is there twice"),
    "added without id": (JSON | {"added_tokens": [{"content": "x"}]}, "entry 0 has no 'id'"),
    "added word": (JSON | {"added_tokens": [{"id": 258, "content": "x", "lstrip": True}]}, "special must be true or"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files_are_told_in_one_line(tmp_path, case):
    content, message = BAD_FILES[case]
    path = tmp_path / "tokenizer.model"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    with pytest.raises(UserError) as caught:
        load_tokenizer(path)
    assert message in str(caught.value) and str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert len(str(caught.value)) < len(str(path)) + 300


ADDED, NO_TOKEN = "added_tokens_decoder", "an id and a token with 'content' were expected"
NEIGHBOURS = {
    "a list": ("tokenizer_config.json", [], "tokenizer_config.json: holds a list"),
    "tokens": ("tokenizer_config.json", {ADDED: [1]}, "is not an object of ids and tokens"),
    "superscript": ("tokenizer_config.json", {ADDED: {"²": {"content": "x"}}}, f"'²': {NO_TOKEN}"),
    "endless id": ("tokenizer_config.json", {ADDED: {"9" * 5000: {"content": "x"}}}, NO_TOKEN),
    "huge id": ("tokenizer_config.json", {ADDED: {str(10**12): {"content": "x"}}}, NO_TOKEN),
    "content": ("tokenizer_config.json", {ADDED: {"7": {"content": ["x"]}}}, f"'7': {NO_TOKEN}"),
    "half a pair": ("tokenizer_config.json", {ADDED: {"7": {"content": "\ud83d"}}}, ""),
    "role": ("tokenizer_config.json", {"bos_token": {"content": ["x"]}}, "bos_token: (a list): a token or its id was"),
    "ids": ("generation_config.json", {"eos_token_id": [[2]]}, "eos_token_id: (a list): a token or its id was"),
    "true": ("config.json", {"bos_token_id": True}, "bos_token_id: True: a token or its id was expected"),
    "object": ("config.json", {"eos_token_id": {"a": 1}}, "eos_token_id: None: a token or its id was expected"),
}


@pytest.mark.parametrize("case", NEIGHBOURS)
def test_bad_neighbours_are_told_in_one_line(tmp_path, case):
    name, value, message = NEIGHBOURS[case]
    (tmp_path / "tokenizer.json").write_text(json.dumps(JSON))
    (tmp_path / name).write_text(json.dumps(value))
    with pytest.raises(UserError) as caught:
        load_tokenizer(tmp_path)
    assert message in str(caught.value) and str(tmp_path / name) in str(caught.value) and len(str(caught.value)) < 400


def test_files_that_would_take_hours(tmp_path):
    """Tokens and words of a million characters, a million ends of a text: some work is quadratic in them."""
    long = "a" * 1_000_000
    for change, message in ((byte_vocabulary(vocab=VOCAB | {long: 258}, ignore_merges=True), None),
                            (JSON | {"added_tokens": [word(258, long)]}, "'aaa.*has 1,000,000 characters")):
        (tmp_path / "tokenizer.json").write_text(json.dumps(change))
        with pytest.raises(UserError, match=message) if message else contextlib.nullcontext():
            assert load_tokenizer(tmp_path).encode("aaa") == [97, 97, 97]
    (tmp_path / "tokenizer.json").write_text(json.dumps(JSON))
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": list(range(10**6))}))
    with pytest.raises(UserError, match=r"config.json: eos_token_id: lists 1,000,000 tokens"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes(b"\n".join([*BYTES, base64.b64encode(long.encode()) + b" 256"]))
    (tmp_path / "config.json").unlink()
    with pytest.raises(UserError, match=r"row 257: a token of 1,000,000 bytes is longer than any"):
        load_tokenizer(tmp_path)


def test_an_id_that_nobody_uses_takes_no_memory(tmp_path):
    """The largest id that is taken: a list of so many entries would be noticed."""
    largest = byte_vocabulary(vocab=VOCAB | {"abcd": MOST_IDS - 1})
    (tmp_path / "tokenizer.json").write_text(json.dumps(largest))
    tracemalloc.start()
    tokenizer = load_tokenizer(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert tokenizer.vocab_size == MOST_IDS and tokenizer.token_bytes(MOST_IDS - 1) == b"abcd" and peak < 100_000_000


def test_pipes_devices_and_files_of_models(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(UserError, match="is neither a file nor a folder"):
            load_tokenizer(path)
    with open(tmp_path / "tokenizer.json", "wb") as handle:
        handle.truncate(10**12)  # a hole: it takes no room
    with pytest.raises(UserError, match="has 1,000,000,000,000 bytes, more than any tokenizer"):
        load_tokenizer(tmp_path)


def test_missing_files_and_cut_protobuf(tmp_path, shared_data):
    with pytest.raises(UserError, match="there is no such file or folder"):
        load_tokenizer(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"has no tokenizer; one of tokenizer.model or tokenizer.json"):
        load_tokenizer(tmp_path)
    whole = (shared_data / "llama2/tokenizer.model").read_bytes()
    (tmp_path / "tokenizer.model").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="is not a tokenizer"):
        load_tokenizer(tmp_path)


def test_content_decides_not_the_name(tmp_path, shared_data):
    shutil.copyfile(shared_data / "llama2/tokenizer.model", tmp_path / "tokenizer.json")
    assert load_tokenizer(tmp_path).kind == "sentencepiece"
    (tmp_path / "tokenizer.model").write_text(json.dumps(JSON))
    assert load_tokenizer(tmp_path).kind == "bpe"
    (tmp_path / "any").write_bytes(b"\r\n".join(BYTES))
    tokenizer = load_tokenizer(tmp_path / "any")
    assert tokenizer.kind == "tiktoken" and tokenizer.vocab_size == 512 and tokenizer.encode("é") == [0xC3, 0xA9]
    assert list(tokenizer.special_ids) == llama3_special_names()
