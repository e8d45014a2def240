"""Hugging Face's `tokenizer.json`, for byte-level BPE: the format of Llama 3 and SmolLM2 checkpoints.

Tokens are written in GPT-2's alphabet, in which each byte is one printable character. The settings for the text before
BPE (`normalizer`, `pre_tokenizer`) and for the merges are honoured; one that would change ids and is not supported here
is an error that names it. `post_processor` (which would add BOS), `truncation` and `padding` are ignored: `encode`
gives the ids of the text alone.
"""

from pathlib import Path

import regex

from common.errors import UserError
from common.files import read_json
from model.tokenizer.bpe import MergedBPE, RankedBPE
from model.tokenizer.split import read_splitter


def byte_alphabet() -> dict[str, int]:
    """GPT-2's printable character for each byte: `{"!": 33, ..., "Ġ": 32, ...}`; 188 bytes stand for themselves."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


ALPHABET = byte_alphabet()


class WithAddedWords:
    """A BPE engine for what is left once words are cut out of the text: added tokens that are not special."""

    def __init__(self, engine, words: dict[str, int]):
        self.engine, self.words = engine, words
        self.kind, self.specials, self.specials_by_rule = engine.kind, engine.specials, False
        self.adds_space, self.bos, self.eos = False, (), ()
        self.tokens = engine.tokens | {id: word.encode() for word, id in words.items()}
        longest_first = sorted(words, key=len, reverse=True)
        self._pattern = regex.compile("(" + "|".join(map(regex.escape, longest_first)) + ")")

    def encode(self, text: str) -> list[int]:
        """Ids of a text: each added word is one id, and the text between them is encoded on its own."""
        ids: list[int] = []
        for index, part in enumerate(self._pattern.split(text)):
            ids += [self.words[part]] if index % 2 else self.engine.encode(part)
        return ids


def read_tokenizer_json(file: Path):
    """The engine of a byte-level tokenizer.json; raises `UserError` naming the key that is wrong or not supported."""
    content = read_json(file)
    model = content.get("model") if isinstance(content, dict) else None
    if not isinstance(model, dict) or not isinstance(model.get("vocab"), dict | list):
        raise UserError(f"{file}: has no model with a vocab; a tokenizer.json was expected")
    _check_model(file, content, model)
    split = read_splitter(str(file), content.get("normalizer"), content.get("pre_tokenizer"))
    specials, words = _added_tokens(file, content)
    vocab = _vocab(file, model["vocab"], specials, words)
    merges = _merges(file, model.get("merges"), model["vocab"], specials)
    unknown = None
    if model.get("unk_token") is not None:
        unknown = (specials | words | model["vocab"]).get(model["unk_token"])
        if unknown is None:
            raise UserError(f"{file}: model: unk_token '{model['unk_token']}' is not in the vocab")
    if model.get("ignore_merges") and _is_ranked(vocab, merges):
        engine = RankedBPE("bpe", vocab, split, specials)
    else:
        engine = MergedBPE(vocab, merges, split, specials, bool(model.get("ignore_merges")), unknown)
    return WithAddedWords(engine, words) if words else engine


def _check_model(file: Path, content: dict, model: dict) -> None:
    """Refuse settings that would change ids and are not supported here."""
    kind = model.get("type", "BPE" if "merges" in model else "unknown")
    if kind != "BPE" or not isinstance(model["vocab"], dict):
        raise UserError(f"{file}: model: type '{kind}' is not supported; byte-level BPE is (or a tokenizer.model)")
    if model.get("byte_fallback"):
        raise UserError(f"{file}: model: is a sentencepiece vocabulary (byte_fallback); give the tokenizer.model of "
                        "the same release instead")
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            raise UserError(f"{file}: model: {key} is not supported; it must be absent or null")
    decoder = content.get("decoder") or {"type": "ByteLevel"}
    if decoder.get("type") == "Sequence" and len(decoder.get("decoders") or []) == 1:
        decoder = decoder["decoders"][0]
    if decoder.get("type") != "ByteLevel":
        raise UserError(f"{file}: decoder: '{decoder.get('type')}' is not supported; ByteLevel is")


def _added_tokens(file: Path, content: dict) -> tuple[dict[str, int], dict[str, int]]:
    """`added_tokens` as (special tokens, ordinary words), each name -> id."""
    specials: dict[str, int] = {}
    words: dict[str, int] = {}
    for row, token in enumerate(content.get("added_tokens") or []):
        try:
            name, id = token["content"], int(token["id"])
        except (TypeError, KeyError, ValueError) as error:
            raise UserError(f"{file}: added_tokens: entry {row} has no 'id' and 'content'") from error
        if name in specials or name in words or id in specials.values() or id in words.values():
            raise UserError(f"{file}: added_tokens: '{name}' (id {id}) occurs twice")
        if not token.get("special"):
            for key in ("lstrip", "rstrip", "single_word"):
                if token.get(key):
                    raise UserError(f"{file}: added_tokens: '{name}': {key} is not supported for a word of the text")
        (specials if token.get("special") else words)[name] = id
    return specials, words


def _vocab(file: Path, vocab: dict, specials: dict[str, int], words: dict[str, int]) -> dict[bytes, int]:
    """The vocabulary as bytes -> id, without the special tokens, which are never made from text."""
    result: dict[bytes, int] = {}
    seen = {id: name for name, id in (specials | words).items()}
    for token, id in vocab.items():
        if isinstance(id, bool) or not isinstance(id, int) or id < 0:
            raise UserError(f"{file}: vocab: '{token}': the id {id!r} is not a whole number")
        if specials.get(token) == id or (words.get(token) == id and not set(token) <= ALPHABET.keys()):
            continue
        if seen.get(id, token) != token:
            raise UserError(f"{file}: vocab: id {id} is both '{seen[id]}' and '{token}'")
        seen[id] = token
        try:
            result[bytes(ALPHABET[char] for char in token)] = id
        except KeyError as error:
            raise UserError(f"{file}: vocab: '{token}' is not written in the byte-level alphabet ({error}); "
                            "only byte-level vocabularies are supported") from error
    if not result or b"" in result:
        raise UserError(f"{file}: vocab: {'holds an empty token' if result else 'is empty'}")
    return result


def _merges(file: Path, merges, written: dict, specials: dict[str, int]) -> dict[tuple[int, int], tuple[int, int]]:
    """The list of merges, "left right" or ["left", "right"], as (left id, right id) -> (index, id of the result)."""
    if not isinstance(merges, list):
        raise UserError(f"{file}: merges: a list was expected")
    ids = {token: id for token, id in written.items() if specials.get(token) != id}
    result: dict[tuple[int, int], tuple[int, int]] = {}
    for index, pair in enumerate(merges):
        parts = pair.split(" ") if isinstance(pair, str) else pair
        if not isinstance(parts, list) or len(parts) != 2 or not all(isinstance(part, str) for part in parts):
            raise UserError(f"{file}: merges: entry {index} {pair!r} is not a pair of tokens")
        left, right = parts
        for token in (left, right, left + right):
            if token not in ids:
                raise UserError(f"{file}: merges: entry {index} {pair!r}: '{token}' is not in the vocab; vocab and "
                                "merges are not of one tokenizer")
        result[ids[left], ids[right]] = (index, ids[left + right])
    return result


def _is_ranked(vocab: dict[bytes, int], merges: dict[tuple[int, int], tuple[int, int]]) -> bool:
    """Whether tiktoken's rule gives the ids of the merges: all cuts of all tokens are listed, in the order of the ids.

    Llama 3 is such a case, since its list was made from tiktoken's file: 280,147 cuts of 128,000 tokens.
    """
    results = [result for _, result in merges.values()]  # in the order of the list
    cuts = sum(token[:i] in vocab and token[i:] in vocab for token in vocab for i in range(1, len(token)))
    return (len(merges) == cuts and results == sorted(results)
            and all(bytes([byte]) in vocab for byte in range(256)))
