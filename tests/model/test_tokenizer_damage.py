"""Tokenizer files damaged at random: each loads, and then encodes, or ends in one line.

Values of a JSON file become values of another kind, deep lists, long numbers; bytes of any file are changed, cut out
and put in. The seeds are fixed, so that a trial that fails is the same tomorrow; `--slow` tries many more.

Deliberate break: in `model/tokenizer/split.py` let `flatten` take steps of any kind, or in `added.py` let
`read_added_words` take ids of any kind.
"""

import base64
import copy
import json
import random

import pytest
import sentencepiece

from common.errors import UserError
from model.tokenizer import load_tokenizer
from model.tokenizer.spm import _symbols
from tests.model.tokenizer_cases import TRICKY, byte_vocabulary, characters, llama2_json, trained_json, word
from tests.small import write_base

VALUES = [None, True, False, 0, -1, 1e308, 7.5, 10**12, 10**30, "", "x", "<|x|>", "\ud83d", "\x1b[31m", "²", [], {},
          [[]], "x" * 10_000, {"type": "x"}, [None], {"content": "<s>"}, [{"id": 0}]]  # fmt: skip
TEXTS = ["", "a b  c", "<|im_start|>x</s>", "é\u0301 \U0001f44d\u200d 123\r\n", *TRICKY[::6]]
PLACES = ("tokenizer_config.json", "special_tokens_map.json", "generation_config.json", "config.json")
BESIDE = {
    "tokenizer_config.json": {
        "bos_token": "<s>", "eos_token": {"content": "</s>"}, "chat_template": [{"name": "a", "template": "# x"}],
        "additional_special_tokens": ["<|x|>"], "added_tokens_decoder": {"0": {"content": "<unk>", "special": True}}},
    "special_tokens_map.json": {"pad_token": "x"},
    "generation_config.json": {"eos_token_id": [2, 3], "bos_token_id": 1},
    "config.json": {"eos_token_id": 2, "bos_token_id": 1, "pad_token_id": None},
}  # fmt: skip


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """JSON files as values, and other files as bytes."""
    folder = tmp_path_factory.mktemp("sources")
    model = write_base(folder / "base") / "tokenizer.model"
    split = {"type": "Split", "pattern": {"Regex": r"\p{L}+|\s+(?!\S)"}, "behavior": "Isolated", "invert": False}
    content = byte_vocabulary() | {"normalizer": {"type": "NFC"}, "added_tokens": [
        word(258, "<|x|>"), word(259, "haha", normalized=True), word(260, "  ", rstrip=True)]}
    content["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [
        split, {"type": "Digits", "individual_digits": True}, content["pre_tokenizer"]]}
    trained = json.loads(trained_json(folder / "t.json", "llama3", words=["haha"], size=300).read_text())
    values = [content, characters("first"), characters("prepend", unk_token=None), trained,
              json.loads(llama2_json(model, folder).read_text())]
    ranks = b"\n".join(b"%s %d" % (base64.b64encode(bytes([byte])), byte) for byte in range(256))
    return values, [model.read_bytes(), ranks, *(json.dumps(value).encode() for value in values[:3])]


def paths(value, before=()):
    """Every place in a JSON value; of long lists and objects a few."""
    inner = list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ())
    for key, item in inner if len(inner) < 30 else inner[:: len(inner) // 10]:
        yield *before, key
        yield from paths(item, (*before, key))


def damage_value(value, draw):
    """One value replaced, taken out, doubled, or put under another key."""
    *way, key = draw.choice(list(paths(value)))
    owner = value
    for step in way:
        owner = owner[step]
    kind = draw.randrange(5)
    if kind < 3:
        owner[key] = copy.deepcopy(draw.choice(VALUES))
    elif kind == 3:
        del owner[key]
    elif isinstance(owner, list):
        owner.append(copy.deepcopy(owner[key]))
    else:
        owner[draw.choice([*map(str, VALUES[5:9]), "type", "9" * 50, "\ud83d", ""])] = owner[key]


def damage_bytes(data, draw):
    data = bytearray(data)
    for _ in range(draw.choice([1, 1, 2, 8])):
        at, kind = draw.randrange(len(data)), draw.randrange(5)
        if kind == 0:
            data[at] = draw.randrange(256)
        elif kind == 1:
            del data[at : at + draw.randrange(1, 20)]
        elif kind == 2:
            data[at:at] = draw.choice([b"9" * 5_000, b"[" * 50_000, b"\xff", b"\0", b'"', b"null,", draw.randbytes(1)])
        elif kind == 3:
            data[at] ^= 1 << draw.randrange(8)
        elif draw.random() < 0.2:
            del data[at:]
        data = data or bytearray(b" ")
    return bytes(data)


def trial(sources, folder, seed):
    """Damage a tokenizer or a file beside it and use it; returns whether it was refused."""
    draw, (values, files) = random.Random(seed), sources
    beside, kind = copy.deepcopy(BESIDE), draw.randrange(4)
    value, data = draw.choice(values), draw.choice(files)
    if kind == 0:
        data = damage_bytes(data, draw)
    elif kind == 1:
        name = draw.choice(PLACES)
        damage_value(beside[name], draw)
    else:
        value = copy.deepcopy(value)
        for _ in range(draw.choice([1, 1, 2, 3])):
            damage_value(value, draw)
        data = json.dumps(value).encode()
    (folder / "tokenizer.model").write_bytes(data)
    for name, content in beside.items():
        if kind == 1 or draw.random() < 0.1:
            (folder / name).write_text(json.dumps(content))
        else:
            (folder / name).unlink(missing_ok=True)
    try:
        tokenizer = load_tokenizer(folder)
        for text in TEXTS:
            ids = tokenizer.encode(text)
            tokenizer.decode(ids)
            assert not set(ids) & set(tokenizer.special_ids.values()) - {tokenizer.special_ids.get("<unk>")}
        tokenizer.check_fits(1 << 24)
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) < len(str(folder)) + 500
        return True
    return False


def test_damaged_files_end_in_one_line_or_do_no_harm(sources, tmp_path):
    assert sum(trial(sources, tmp_path, seed) for seed in range(600)) > 200  # most damage is found


def test_a_damaged_table_of_characters_is_refused(tmp_path):
    """A normaliser's table is a trie of offsets; sentencepiece before 0.2.2 followed them out of it, and crashed."""
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([text for text in TRICKY if text.strip()] * 3), model_prefix=str(tmp_path / "tokenizer"),
        vocab_size=450, model_type="bpe", byte_fallback=True, normalization_rule_name="nmt_nfkc", minloglevel=2)
    data = bytearray((tmp_path / "tokenizer.model").read_bytes())
    assert load_tokenizer(tmp_path).encode("ﬁ") == load_tokenizer(tmp_path).encode("fi")
    start = len(data) // 4  # well inside the table, which is most of the file
    data[start : start + 4_000] = random.Random(0).randbytes(4_000)
    (tmp_path / "tokenizer.model").write_bytes(data)
    with pytest.raises(UserError, match="nor a sentencepiece model"):
        load_tokenizer(tmp_path)


@pytest.mark.slow
def test_many_more_damaged_files(sources, tmp_path):
    assert sum(trial(sources, tmp_path, seed) for seed in range(600, 12_000)) > 4_000


@pytest.mark.parametrize("data, words", [
    (b"\x0a\x04\x08\x07\x18\x04", "a number"),  # a piece whose text is the number 7
    (b"\x08\x07", "a number"),  # a piece that is itself a number
    (b"\x0a\x04\x0a\x01\xff\x18", "cut in a"),
])  # fmt: skip
def test_a_piece_of_sentencepiece_is_a_message_with_a_text(data, words):
    with pytest.raises(ValueError, match=words):
        _symbols(data, {"<x>"})
