"""Vocabularies in GGUF files for tests: as llama.cpp's converter writes them, from files of the other kinds."""

import json

from model.tokenizer.bpe import ALPHABET
from tests.loading.gguf import packed, pair

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
FORMS = {"model": "string", "pre": "string", "tokens": ("array", "string"), "token_type": ("array", "int32"),
         "merges": ("array", "string"), "scores": ("array", "float32"), "add_bos_token": "bool",
         "add_space_prefix": "bool"}  # fmt: skip
LETTERS = [*ALPHABET, "ab", "abc", "<|end|>", "haha"]
KINDS = [NORMAL] * 258 + [CONTROL, USER_DEFINED]
GOOD = {"model": "gpt2", "pre": "smollm", "tokens": LETTERS, "token_type": KINDS, "merges": ["a b", "ab c"],
        "eos_token_id": 258, "padding_token_id": 2**32 - 1}  # fmt: skip
PIECES = ["<unk>", "<s>", "</s>", "▁", "a", "▁a"]
LLAMA = {"model": "llama", "pre": "default", "tokens": PIECES, "token_type": [2, 3, 3, 1, 1, 1],
         "scores": [0.0, 0.0, 0.0, -1.0, -2.0, -3.0]}  # fmt: skip


def keys(content: dict) -> list[bytes]:
    """The keys under `tokenizer.ggml.`, but for "template"; a value may be (kind, value); None leaves a key out."""
    pairs = [pair("general.architecture", "string", "llama")]
    for name, value in content.items():
        if value is None:
            continue
        key = "tokenizer.chat_template" if name == "template" else f"tokenizer.ggml.{name}"
        form = FORMS.get(name, "string" if name == "template" else "uint32")
        if isinstance(value, tuple):
            pairs.append(pair(key, *value))
        else:
            pairs.append(pair(key, form, value) if isinstance(form, str) else pair(key, form[0], (form[1], value)))
    return pairs


def write(path, content: dict):
    """A file that holds a vocabulary and nothing else; returns its path."""
    path.write_bytes(packed(keys(content)))
    return path


def of_json(path, pre: str, **more) -> dict:
    """The keys of a byte-level tokenizer.json: its special words are control tokens, others user-defined."""
    content = json.loads(path.read_text(encoding="utf-8"))
    words = {word["id"]: word for word in content["added_tokens"]}
    tokens = {id: token for token, id in content["model"]["vocab"].items()}
    tokens |= {id: word["content"] for id, word in words.items()}
    merges = content["model"]["merges"]
    assert sorted(tokens) == list(range(len(tokens)))
    return {"model": "gpt2", "pre": pre, "tokens": [tokens[id] for id in range(len(tokens))],
            "token_type": [NORMAL if id not in words else CONTROL if words[id]["special"] else USER_DEFINED
                           for id in range(len(tokens))],
            "merges": [merge if isinstance(merge, str) else " ".join(merge) for merge in merges]} | more  # fmt: skip


def of_sentencepiece(path, **more) -> dict:
    """The keys of a sentencepiece model of type BPE."""
    import sentencepiece

    pieces = sentencepiece.SentencePieceProcessor(model_file=str(path))
    ids = range(pieces.vocab_size())
    return {"model": "llama", "pre": "default", "tokens": [pieces.id_to_piece(id) for id in ids],
            "token_type": [UNKNOWN if pieces.is_unknown(id) else CONTROL if pieces.is_control(id) else
                           BYTE if pieces.is_byte(id) else NORMAL for id in ids],
            "scores": [pieces.get_score(id) for id in ids],
            "bos_token_id": pieces.bos_id(), "eos_token_id": pieces.eos_id()} | more  # fmt: skip
