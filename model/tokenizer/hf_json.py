"""Hugging Face's `tokenizer.json` with byte-pair encoding: the format of Llama 3, SmolLM2 and newer Llama 2 folders.

Two kinds of vocabulary are read. In a byte-level one tokens are written in GPT-2's alphabet, in which each byte is one
printable character. In that of a Llama 2 they are characters, with U+2581 for a space, and tokens `<0x00>` to `<0xFF>`
for what has none (`byte_fallback`); transformers 5 writes such a file in place of `tokenizer.model`.

What the file says about the text before BPE (`normalizer`, `pre_tokenizer`, `added_tokens`) and about the merges is
honoured; what would change ids and is not known here is an error that names it. `truncation` and `padding` have no
say, and of `post_processor` only whether it puts BOS before a text: `encode` gives the ids of the text alone. Even that
is not asked of a Llama 2, which wants BOS; transformers 5 writes a post-processor for it that adds none.
"""

import re
from dataclasses import replace
from pathlib import Path

from common.errors import UserError
from common.files import read_json
from model.tokenizer.added import AddedWord, AddedWords, read_added_words
from model.tokenizer.bpe import ALPHABET, LONGEST_TOKEN, MOST_IDS, MergedBPE, RankedBPE, written
from model.tokenizer.neighbours import Neighbours, is_text
from model.tokenizer.pattern import short
from model.tokenizer.split import SPACE, Normaliser, Splitter, flatten, read_normalisers, read_splitter

BYTE = re.compile(r"<0x([0-9A-F]{2})>")
FLAGS = ("ignore_merges", "byte_fallback", "fuse_unk")
UNSUPPORTED = ("dropout", "continuing_subword_prefix", "end_of_word_suffix")
DECODERS = ("Replace", "ByteFallback", "Fuse", "Strip", "Metaspace")  # of a Llama 2
Merges = dict[tuple[int, int], tuple[int, int]]


class TokenizerJson:
    """A tokenizer.json as an engine: its tokens as bytes, its control words by name, `encode`.

    unmarked: control words that the file does not call special. pre: llama.cpp's name for how texts are cut, or None.
    adds_bos: whether the file would have texts begin with BOS. seam: see `Tokenizer.divide`.
    """

    kind, specials_by_rule = "bpe", False
    bos: tuple = ()
    eos: tuple = ()

    def __init__(self, model: MergedBPE | RankedBPE, tokens: dict[int, bytes], added: AddedWords,
                 words: list[AddedWord], adds_space: bool, pre: str | None, adds_bos: bool):
        self._model, self._added, self.adds_space, self.pre, self.adds_bos = model, added, adds_space, pre, adds_bos
        self.specials = {word.content: word.id for word in words if word.control}
        self.unmarked = tuple(word.content for word in words if word.control and not word.special)
        # The published patterns cut before each space behind another character; so must the added words.
        reach = any(word.rstrip or word.lstrip or " " in word.content for word in words if not word.control)
        self.seam = " " if pre is not None and not reach else None
        self.tokens = tokens

    def encode(self, text: str) -> list[int]:
        """Ids of a text: each added word is one id, and the text between them is encoded on its own."""
        ids: list[int] = []
        for part, first, id in self._added(text):
            ids += self._model.encode(part, first) if id is None else [id]
        return ids


def read_tokenizer_json(file: Path, beside: Neighbours) -> TokenizerJson:
    """The engine of a tokenizer.json; raises `UserError` naming the key that is wrong or not supported."""
    return json_engine(file, read_json(file), beside)


def json_engine(file: Path, content, beside: Neighbours) -> TokenizerJson:
    """The engine of what a tokenizer.json holds; `file` is what errors name."""
    model = content.get("model") if isinstance(content, dict) else None
    if not isinstance(model, dict) or not isinstance(model.get("vocab"), dict | list):
        raise UserError(f"{file}: has no model with a vocab; a tokenizer.json was expected")
    _check_model(file, model)
    steps = read_normalisers(str(file), content.get("normalizer"))

    def normalise(text: str) -> str:
        for step in steps:
            text = step(text)
        return text

    split = read_splitter(str(file), content.get("pre_tokenizer"), normalise("a b") != "a b")
    _check_decoder(file, content.get("decoder"), split.byte_level)
    words = read_added_words(file, content.get("added_tokens"), beside)
    vocab = _vocab(file, model["vocab"], words)
    merges = _merges(file, model.get("merges"), vocab)
    made = _made(vocab, merges, split.byte_level, bool(model.get("byte_fallback")))
    words = [replace(word, control=word.control and word.id not in made) for word in words]
    control = {word.content for word in words if word.control}
    if model.get("ignore_merges"):
        _check_whole_pieces(file, control & vocab.keys(), split, normalise)
    text_vocab = {token: id for token, id in vocab.items() if token not in control}
    tokens = _tokens(file, text_vocab, words, split.byte_level, bool(model.get("byte_fallback")))
    engine = _engine(file, model, split, text_vocab, tokens, merges, vocab | {w.content: w.id for w in words})
    tokens = {word.id: word.content.encode() for word in words if not word.control} | tokens
    adds_space = normalise("a") != "a" or (split.spaces is not None and split.spaces.before != "never")
    return TokenizerJson(engine, tokens, AddedWords(file, words, normalise), words, adds_space,
                         None if steps else split.pre,
                         _adds_bos(file, content.get("post_processor")) or not split.byte_level)


def _engine(file: Path, model: dict, split: Splitter, vocab: dict[str, int], tokens: dict[int, bytes], merges: Merges,
            ids: dict[str, int]) -> MergedBPE | RankedBPE:
    """What merges. vocab: what texts may become; ids: those and the added words, control words among them."""
    whole, unknown = bool(model.get("ignore_merges")), model.get("unk_token")
    if unknown is not None and (not isinstance(unknown, str) or unknown not in ids):
        raise UserError(f"{file}: model: unk_token {short(unknown)} is not in the vocab")
    if split.byte_level and whole:
        ranks = {token: id for id, token in tokens.items()}
        if _is_ranked(ranks, merges):
            return RankedBPE(ranks, split)
    return MergedBPE(vocab, merges, split, whole_pieces=whole, byte_fallback=bool(model.get("byte_fallback")),
                     unknown=ids.get(unknown), fuse=bool(model.get("fuse_unk")))


def _check_model(file: Path, model: dict) -> None:
    """Refuse what would change ids and is not written here."""
    kind = model.get("type", "BPE" if "merges" in model else "unknown")
    if kind != "BPE" or not isinstance(model["vocab"], dict):
        raise UserError(f"{file}: model: type {short(kind)} is not supported; BPE is (or a tokenizer.model)")
    for key in UNSUPPORTED:
        if model.get(key):
            raise UserError(f"{file}: model: {key} is not supported; it must be absent or null")
    for key in FLAGS:
        if not isinstance(model.get(key), bool | None):
            raise UserError(f"{file}: model: {key} must be true or false")


def _adds_bos(file: Path, processor) -> bool:
    """Whether a post-processor puts a token before a text."""
    for step in flatten(str(file), "post_processor", processor, "processors"):
        single = step.get("single")
        if step["type"] == "TemplateProcessing" and isinstance(single, list) and single:
            if isinstance(single[0], dict) and "SpecialToken" in single[0]:
                return True
        elif step["type"] in ("BertProcessing", "RobertaProcessing"):
            return True
    return False


def _check_decoder(file: Path, decoder, byte_level: bool) -> None:
    """Refuse a decoder that does not turn ids back into the text they came from."""
    for step in flatten(str(file), "decoder", decoder, "decoders"):
        known = step["type"] in (("ByteLevel",) if byte_level else DECODERS)
        if step["type"] == "Replace":
            known &= (step.get("pattern"), step.get("content")) == ({"String": SPACE}, " ")
        if step["type"] == "Strip":
            known &= (step.get("content"), step.get("stop")) == (" ", 0) and step.get("start") in (0, 1)
        if not known:
            raise UserError(f"{file}: decoder: {short(step['type'])} is not supported; "
                            + ("ByteLevel is" if byte_level else "the steps of a Llama 2 are"))


def _vocab(file: Path, vocab: dict, words: list[AddedWord]) -> dict[str, int]:
    """The vocabulary, token -> id, each id once, and agreeing with the added words."""
    by_id: dict[int, str] = {}
    for token, id in vocab.items():
        if isinstance(id, bool) or not isinstance(id, int) or id < 0:
            raise UserError(f"{file}: vocab: {short(token)}: the id {short(id)} is not a whole number")
        if id >= MOST_IDS:
            raise UserError(f"{file}: vocab: {short(token)}: the id {short(id)} is beyond any vocabulary (at most "
                            f"{MOST_IDS - 1:,})")
        if id in by_id:
            raise UserError(f"{file}: vocab: id {id} is both {short(by_id[id])} and {short(token)}")
        by_id[id] = token
    if not vocab or "" in vocab or not is_text("".join(vocab)):
        what = "is empty" if not vocab else "holds an empty token" if "" in vocab else "holds half a surrogate pair"
        raise UserError(f"{file}: vocab: {what}")
    following = len(vocab)
    for word in words:
        name = f"{file}: added_tokens: {short(word.content)}"
        if vocab.get(word.content, word.id) != word.id:
            raise UserError(f"{name} has the id {word.id}, but the vocab has it as {vocab[word.content]}")
        if by_id.get(word.id, word.content) != word.content:
            raise UserError(f"{name}: id {word.id} is {short(by_id[word.id])} in the vocab")
        if word.content not in vocab:
            if word.id != following and not word.control:
                raise UserError(f"{name} has the id {word.id}, but Hugging Face's own reader, which numbers words that "
                                f"are not in the vocab behind it, makes it {following}")
            following += 1
    return vocab


def _merges(file: Path, merges, ids: dict[str, int]) -> Merges:
    """The list of merges, "left right" or ["left", "right"], as (left id, right id) -> (index, id of the result)."""
    if not isinstance(merges, list):
        raise UserError(f"{file}: merges: a list was expected")
    result: Merges = {}
    for index, pair in enumerate(merges):
        parts = pair.split(" ") if isinstance(pair, str) else pair
        if not isinstance(parts, list) or len(parts) != 2 or not all(isinstance(part, str) for part in parts):
            raise UserError(f"{file}: merges: entry {index} {short(pair)} is not a pair of tokens")
        left, right = parts
        for token in (left, right, left + right):
            if token not in ids:
                raise UserError(f"{file}: merges: entry {index} {short(pair)}: {short(token)} is not in the vocab; "
                                "vocab and merges are not of one tokenizer")
        result[ids[left], ids[right]] = (index, ids[left + right])
    return result


def _made(vocab: dict[str, int], merges: Merges, byte_level: bool, byte_fallback: bool) -> set[int]:
    """Ids that a text may become, whatever a file says of them: single characters, bytes, results of merges."""
    single = {id for token, id in vocab.items() if len(token) == 1 and (not byte_level or token in ALPHABET)}
    fallback = {id for token, id in vocab.items() if byte_fallback and BYTE.fullmatch(token)}
    return single | fallback | {result for _, result in merges.values()}


def _check_whole_pieces(file: Path, control: set[str], split: Splitter, normalise: Normaliser) -> None:
    """`ignore_merges` takes a piece that is in the vocab whole; a control word must not be such a piece of any text."""
    for name in sorted(control):
        if name in [written(piece, split.byte_level) for first in (True, False)
                    for piece in split(normalise(name), first)]:
            raise UserError(f"{file}: model: ignore_merges would make the control word {short(name)} of a text that "
                            "holds it; take the word out of the vocab, and leave it in added_tokens")


def _tokens(file: Path, vocab: dict[str, int], words: list[AddedWord], byte_level: bool,
            byte_fallback: bool) -> dict[int, bytes]:
    """The bytes that each token of the vocabulary stands for, by id."""
    if not byte_level:
        value = {token: bytes.fromhex(BYTE.fullmatch(token)[1]) for token in vocab
                 if byte_fallback and BYTE.fullmatch(token)}
        return {id: value.get(token, token.replace(SPACE, " ").encode()) for token, id in vocab.items()}
    result, added = {}, {word.content for word in words}
    for token, id in vocab.items():
        try:
            result[id] = bytes(ALPHABET[char] for char in token)
        except KeyError as error:
            if token not in added:
                raise UserError(f"{file}: vocab: {short(token)} is not written in the byte-level alphabet ({error})"
                                ) from error
    return result


def _is_ranked(ranks: dict[bytes, int], merges: Merges) -> bool:
    """Whether tiktoken's rule gives the ids of the merges: all cuts of all tokens are listed, in the order of the ids.

    Llama 3 is such a case, since its list was made from tiktoken's file: 280,147 cuts of 128,000 tokens.
    """
    if max(map(len, ranks)) > LONGEST_TOKEN:
        return False
    results = [result for _, result in merges.values()]  # in the order of the list
    cuts = sum(token[:i] in ranks and token[i:] in ranks for token in ranks for i in range(1, len(token)))
    return (len(merges) == cuts and results == sorted(results)
            and all(bytes([byte]) in ranks for byte in range(256)))
