"""Vocabularies in GGUF files: against the files they come from, and the ids that llama.cpp makes with them.

Deliberate break: let `all_cuts` leave out cuts behind the first byte, leave the scores out of `_sentencepiece`, call
every token NORMAL, or write "gpt-2" as every `pre`; cases below turn red.
"""

import json
import shutil

import pytest
import sentencepiece

from common.errors import UserError
from common.files import ROOT
from model.tokenizer import load_tokenizer
from model.tokenizer.bpe import ALPHABET
from model.tokenizer.pattern import GPT2_PATTERN, LLAMA3_PATTERN
from tests.model.gguf_vocabularies import of_json, of_sentencepiece, write
from tests.model.tokenizer_cases import TRICKY, characters, random_strings, trained_json, word
from tests.small import posts, write_base

gguf = pytest.importorskip("gguf")
from tools.export.vocabulary import NORMALISER, read_vocabulary  # noqa: E402 - needs gguf


def keys(vocabulary, path, size):
    """The keys that it writes for a model of `size` rows, as read back; the file at `path` holds no more than them."""
    writer = gguf.GGUFWriter(path, "llama")
    for key in ("block_count", "context_length", "embedding_length", "head_count", "feed_forward_length"):
        getattr(writer, f"add_{key}")(8)
    writer.add_layer_norm_rms_eps(1e-5)
    vocabulary.write(writer, size)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    return {name: field.contents() for name, field in gguf.GGUFReader(path).fields.items()}


def test_sentencepiece(tmp_path):
    """Pieces, scores and types are the library's own; rows beyond the last piece are filled up."""
    write_base(tmp_path)
    vocabulary = read_vocabulary(tmp_path, 600)
    fields = keys(vocabulary, tmp_path / "a.gguf", 600)
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    ids = range(pieces.vocab_size())
    assert (fields["tokenizer.ggml.model"], fields["tokenizer.ggml.pre"]) == ("llama", "default")
    assert fields["tokenizer.ggml.tokens"] == [pieces.id_to_piece(id) for id in ids]
    ordinary = [id for id in ids if not pieces.is_control(id)]
    assert [fields["tokenizer.ggml.scores"][id] for id in ordinary] == [pieces.get_score(id) for id in ordinary]
    kinds = fields["tokenizer.ggml.token_type"]
    for kind, which in ((2, pieces.is_unknown), (3, pieces.is_control), (6, pieces.is_byte)):
        assert {id for id in ids if kinds[id] == kind} == {id for id in ids if which(id)}
    assert fields["tokenizer.ggml.bos_token_id"] == pieces.bos_id()
    assert fields["tokenizer.ggml.eos_token_id"] == pieces.eos_id()
    assert vocabulary.notes == ()
    assert keys(vocabulary, tmp_path / "b.gguf", 700)["tokenizer.ggml.tokens"][599:601] == [pieces.id_to_piece(599),
                                                                                           "[PAD600]"]


def test_a_normaliser_is_said():
    """The project's own vocabulary has one; llama.cpp has no place for it."""
    assert read_vocabulary(ROOT / "base", 44000).notes == (NORMALISER,)


def test_llama_3(shared_data, tmp_path):
    """Meta's file: merges as in the published tokenizer.json, specials, ends, a chat template where one lies beside."""
    shutil.copy(shared_data / "llama3" / "tokenizer.model", tmp_path)
    found = read_vocabulary(tmp_path, 128256)
    assert (found.model, found.pre, len(found.tokens), found.template) == ("gpt2", "llama-bpe", 128256, None)
    assert found.tokens[0][:2] == ("!", 1) and found.tokens[264][:2] == ("Ġa", 1)
    assert found.tokens[128009][:2] == ("<|eot_id|>", 3)
    assert len(found.merges) == 280147 and found.merges[:3] == ["Ġ Ġ", "Ġ ĠĠĠ", "ĠĠ ĠĠ"]
    assert found.special == {"bos": 128000, "eos": 128001, "eot": 128009, "eom": 128008}
    shutil.copy(shared_data / "llama3" / "hf_3b_instruct" / "tokenizer_config.json", tmp_path)
    found = read_vocabulary(tmp_path, 128256)
    assert found.special["eos"] == 128009
    template = json.loads((tmp_path / "tokenizer_config.json").read_text()).get("chat_template")
    assert found.template == template
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    assert read_vocabulary(tmp_path, 128256).template == "{{ messages }}"


def test_a_tokenizer_json_of_llama_3s_kind_and_another(tmp_path):
    def write(pattern, *further):
        letters = {char: byte for byte, char in enumerate(ALPHABET)}
        content = {"model": {"type": "BPE", "ignore_merges": True, "vocab": letters | {"ab": 256, "abc": 257},
                             "merges": ["a b", ["ab", "c"]]},
                   "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                       {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False},
                       {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}]},
                   "added_tokens": [word(258, "<|end_of_text|>", special=True), word(259, "Wort"),
                                    word(260, "<|im_start|>"), *further]}  # fmt: skip
        (tmp_path / "tokenizer.json").write_text(json.dumps(content))

    write(LLAMA3_PATTERN)
    found = read_vocabulary(tmp_path, 300)
    assert found.merges == ["a b", "ab c"] and found.special == {"eos": 258}
    assert [found.tokens[id][:2] for id in (257, 258, 259, 260)] == [
        ("abc", 1), ("<|end_of_text|>", 3), ("Wort", 4), ("<|im_start|>", 3)]
    write(LLAMA3_PATTERN, word(261, "Rand", lstrip=True))
    with pytest.raises(UserError, match=r"'Rand' takes the space around it .* llama.cpp has no place for"):
        read_vocabulary(tmp_path, 300)
    write(GPT2_PATTERN)
    with pytest.raises(UserError, match=r"tokenizer\.json: splits or merges .* only llama-bpe, smollm, gpt-2"):
        read_vocabulary(tmp_path, 300)  # with ignore_merges, which llama.cpp knows for Llama 3's alone


def test_a_llama_2_vocabulary_without_scores_is_refused(tmp_path):
    (tmp_path / "tokenizer.json").write_text(json.dumps(characters("first")))
    with pytest.raises(UserError, match=r"without the scores that llama.cpp needs; put the tokenizer.model"):
        read_vocabulary(tmp_path, 300)


def test_a_unigram_model_is_refused(tmp_path):
    with open(tmp_path / "tokenizer.model", "wb") as handle:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter([row["text"] for row in posts(200, seed=1)]), model_writer=handle, vocab_size=60,
            model_type="unigram", minloglevel=2)
    with pytest.raises(UserError, match=r"tokenizer\.model: is a sentencepiece model of type 1; .* as BPE, type 2"):
        read_vocabulary(tmp_path, 60)


SMALL = [*TRICKY, *random_strings(200, seed=8), "<|im_end|> 12345 <|endoftext|>"]


@pytest.fixture(params=["smollm", "gpt-2"])
def small(request, tmp_path):
    """A folder with a tokenizer.json of this kind, which wants no BOS, and llama.cpp's name for it."""
    trained_json(tmp_path / "tokenizer.json", {"smollm": "smollm2", "gpt-2": "gpt2"}[request.param])
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({
        "bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "chat_template": "{{ messages }}"}))
    return tmp_path, request.param


def test_other_ways_to_split(small):
    """The file names the way to split and the end, wants no BOS, and read back makes the same ids."""
    folder, pre = small
    right = load_tokenizer(folder)
    fields = keys(read_vocabulary(folder, 800), folder / "a.gguf", 800)
    assert (fields["tokenizer.ggml.pre"], fields["tokenizer.ggml.add_bos_token"]) == (pre, False)
    assert (fields["tokenizer.ggml.bos_token_id"], fields["tokenizer.ggml.eos_token_id"]) == (1, 2)
    assert fields["tokenizer.chat_template"] == "{{ messages }}"
    ours = load_tokenizer(folder / "a.gguf")
    assert [ours.encode(text) for text in SMALL] == [right.encode(text) for text in SMALL]
    assert (ours.bos_id, ours.eos_ids, ours.adds_bos, ours.vocab_size) == (1, [2], False, 800)


def test_llama_cpp_splits_in_the_same_ways(small):
    llama_cpp = pytest.importorskip("llama_cpp")
    folder, _ = small
    keys(read_vocabulary(folder, 800), folder / "a.gguf", 800)
    theirs, right = llama_cpp.Llama(str(folder / "a.gguf"), vocab_only=True, verbose=False), load_tokenizer(folder)
    for text in (text.replace("\0", "") for text in SMALL):
        assert theirs.tokenize(text.encode(), add_bos=False, special=False) == right.encode(text)


def test_bytes_that_become_an_unknown_token_are_refused(small):
    folder, _ = small
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["unk_token"] = "<|endoftext|>"
    (folder / "tokenizer.json").write_text(json.dumps(content))
    assert read_vocabulary(folder, 800).special["eos"] == 2
    rest = {token: id for token, id in content["model"]["vocab"].items() if token != "Ā"}
    content["model"] |= {"vocab": rest, "merges": [pair for pair in content["model"]["merges"] if "Ā" not in pair]}
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"makes unk_token of bytes that are not in the vocab; llama.cpp leaves them"):
        read_vocabulary(folder, 800)


@pytest.mark.parametrize("model", ["gpt2", "llama"])
def test_of_a_gguf_file(tmp_path, model):
    """Key by key what it was, but for roles that mean nothing to a Llama; further rows are filled up."""
    more = {"eot_token_id": 2, "padding_token_id": 0, "add_bos_token": False, "template": "{{ messages }}"}
    if model == "gpt2":
        content = of_json(trained_json(tmp_path / "tokenizer.json", "smollm2"), "smollm", bos_token_id=1, **more)
    else:
        write_base(tmp_path)
        content = of_sentencepiece(tmp_path / "tokenizer.model", add_space_prefix=True, **more)
    vocabulary = read_vocabulary(write(tmp_path / "base.gguf", content), 800)
    fields = keys(vocabulary, tmp_path / "a.gguf", len(content["tokens"]))
    expected = {f"tokenizer.ggml.{name}": value for name, value in content.items() if name != "template"}
    assert {name: value for name, value in fields.items() if name.startswith("tokenizer.ggml.")} == expected
    assert fields["tokenizer.chat_template"] == "{{ messages }}"
    assert len(keys(vocabulary, tmp_path / "b.gguf", 800)["tokenizer.ggml.tokens"]) == 800


@pytest.mark.parametrize("family, size", [("llama3", 128256), ("llama2", 32000)])
def test_llama_cpp_makes_the_same_ids(shared_data, tmp_path, family, size):
    llama_cpp = pytest.importorskip("llama_cpp")
    keys(read_vocabulary(shared_data / family, size), tmp_path / "vocabulary.gguf", size)
    theirs = llama_cpp.Llama(str(tmp_path / "vocabulary.gguf"), vocab_only=True, verbose=False)
    right = load_tokenizer(shared_data / family)
    rows = [json.loads(line)["text"] for line in (shared_data / "immigration/test.jsonl").read_text().splitlines()]
    for text in [*rows[::4], "", " ", "  a  b ", "\n\n x", "<|eot_id|> hi <s>", "a" * 63, "\t\r\n ", "ﬁne x２ 123456"]:
        assert theirs.tokenize(text.encode(), add_bos=False, special=False) == right.encode(text)
    assert theirs.token_bos() == right.bos_id
