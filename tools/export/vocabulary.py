"""A tokenizer's file as the keys of a GGUF file, with which llama.cpp encodes text by itself.

    tiktoken, tokenizer.json       model "gpt2": tokens in GPT-2's alphabet (a printable character per byte), merges
    sentencepiece                  model "llama": pieces, scores
    tok512_vocab.json              the same, of llama2.c's stories260K, which comes without a tokenizer.model

    GGUF                           as it is, where the base is such a file

llama.cpp finds the pattern that splits a text before merging by a name, `pre`: "llama-bpe", "smollm" or "gpt-2". A
tokenizer.json that splits otherwise is refused, since a wrong pattern gives wrong ids and no error. tiktoken's rule
(join the neighbours that form the token of the lowest id) is written as a list of merges: all cuts of all tokens, in
the order of the ids. A sentencepiece model must be BPE; llama.cpp cannot apply its normaliser, and `notes` then says
so.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy

from common.errors import UserError
from common.files import read_json
from common.gguf import is_gguf
from model.tokenizer import FILE_NAMES, Tokenizer, load_tokenizer
from model.tokenizer.bpe import ALPHABET
from model.tokenizer.gguf import gguf_vocabulary
from model.tokenizer.pattern import PRE_PATTERNS, short
from model.tokenizer.split import SPACE
from model.tokenizer.spm import fields

LLAMA2C = "tok512_vocab.json"
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = (int(kind) for kind in gguf.TokenType)  # as in sentencepiece
WRITTEN = {byte: char for char, byte in ALPHABET.items()}
UNIGRAM, BPE = 1, 2  # sentencepiece's model_type
NO_SCORE = -1000.0  # of a token that no text is encoded to
ROLES = {"bos": "bos", "eos": "eos", "eot": "eot", "eom": "eom", "unknown": "unk", "padding": "pad"}
TURN_ENDS = {"eot": "<|eot_id|>", "eom": "<|eom_id|>"}
NORMALISER = ("llama.cpp reads the vocabulary in the GGUF file without the normaliser of `tokenizer.model`, and so "
              "makes different ids of some texts; feed it ids, as below")


@dataclass(frozen=True)
class Vocabulary:
    """Tokens with text, type and score by id, merges ("left right") or `None`, ids of special tokens by their role."""

    model: str
    pre: str
    tokens: dict[int, tuple[str, int, float]]
    special: dict[str, int]  # "bos", "eos", "eot", "eom", "unk", "pad"
    add_bos: bool
    merges: list[str] | None = None
    add_space: bool = False
    template: str | None = None  # of a chat, in Jinja
    notes: tuple[str, ...] = ()

    def write(self, writer: gguf.GGUFWriter, size: int) -> None:
        """Add the keys for a model whose embedding has `size` rows: each gets a token, used or not."""
        texts, kinds, scores = zip(*(self.tokens.get(id, (f"[PAD{id}]", UNUSED, NO_SCORE)) for id in range(size)),
                                   strict=True)
        writer.add_tokenizer_model(self.model)
        writer.add_tokenizer_pre(self.pre)
        writer.add_token_list(texts)
        writer.add_token_types(kinds)
        if self.merges is None:
            writer.add_token_scores(scores)
            writer.add_add_space_prefix(self.add_space)
        else:
            writer.add_token_merges(self.merges)
        for role, id in self.special.items():
            getattr(writer, f"add_{role}_token_id")(id)
        writer.add_add_bos_token(self.add_bos)
        if self.template is not None:
            writer.add_chat_template(self.template)


def read_vocabulary(path: str | Path, vocab_size: int) -> Vocabulary:
    """The vocabulary of a tokenizer, in its file or its folder; raises `UserError` for one that llama.cpp could not
    reproduce."""
    path = Path(path)
    if (path / LLAMA2C).is_file() and not any((path / name).is_file() for name in FILE_NAMES):
        return _llama2c(path / LLAMA2C)
    tokenizer = load_tokenizer(path)
    tokenizer.check_fits(vocab_size)
    if is_gguf(tokenizer.source):
        return _gguf(tokenizer.source)
    make = {"tiktoken": _tiktoken, "bpe": _json, "sentencepiece": _sentencepiece}[tokenizer.kind]
    return make(tokenizer, {"special": _special(tokenizer), "add_bos": tokenizer.adds_bos,
                            "template": tokenizer.chat_template})


def _gguf(file: Path) -> Vocabulary:
    found = gguf_vocabulary(file)
    scores = found.scores or [0.0] * len(found.tokens)
    tokens = dict(enumerate(zip(found.tokens, found.kinds, scores, strict=True)))
    special = {ROLES[role]: id for role, id in found.roles.items() if role in ROLES}
    return Vocabulary(found.model, found.pre, tokens, special, found.add_bos, found.merges, found.add_space,
                      found.template)


def _tiktoken(tokenizer: Tokenizer, words: dict) -> Vocabulary:
    names = {id: name for name, id in tokenizer.special_ids.items()}
    ids = {tokenizer.token_bytes(id): id for id in range(min(names))}  # special tokens come after
    tokens = {id: (_written(token), NORMAL, 0.0) for token, id in ids.items()}
    return Vocabulary("gpt2", "llama-bpe", tokens | _control(names), merges=all_cuts(ids), **words)


def all_cuts(ids: dict[bytes, int]) -> list[str]:
    """tiktoken's rule as merges "left right", from token -> id, in the order of the ids; Llama 3's own list is this."""
    merges = []
    for token in sorted(ids, key=ids.get):
        cuts = [(ids[token[:at]], ids[token[at:]], at) for at in range(1, len(token))
                if token[:at] in ids and token[at:] in ids]
        merges += [f"{_written(token[:at])} {_written(token[at:])}" for _, _, at in sorted(cuts)]
    return merges


def _json(tokenizer: Tokenizer, words: dict) -> Vocabulary:
    file = tokenizer.source
    content = read_json(file)
    model, added = content["model"], content.get("added_tokens") or []
    if tokenizer.adds_space:
        raise UserError(f"{file}: is a Llama 2 vocabulary without the scores that llama.cpp needs; put the "
                        "tokenizer.model of the same release beside it")
    if tokenizer.pre is None or bool(model.get("ignore_merges")) != (tokenizer.pre == "llama-bpe"):
        raise UserError(f"{file}: splits or merges texts in a way of its own; a GGUF file would have to name "
                        f"llama.cpp's own word for that, and only {', '.join(PRE_PATTERNS)} are known here")
    if model.get("unk_token") is not None and not ALPHABET.keys() <= model["vocab"].keys():
        raise UserError(f"{file}: model: makes unk_token of bytes that are not in the vocab; llama.cpp leaves them out")
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    ordinary = [word for word in added if not word["special"] and word["content"] not in tokenizer.special_ids]
    flagged = [word["content"] for word in ordinary if word["lstrip"] or word["rstrip"] or word["single_word"]]
    if flagged:
        raise UserError(f"{file}: added_tokens: {short(flagged[0])} takes the space around it or must stand alone "
                        "(lstrip, rstrip, single_word), which llama.cpp has no place for")
    tokens = {id: (text, NORMAL, 0.0) for text, id in model["vocab"].items()}
    tokens |= {word["id"]: (word["content"], USER_DEFINED, 0.0) for word in ordinary}
    names = {id: name for name, id in tokenizer.special_ids.items()}
    return Vocabulary("gpt2", tokenizer.pre, tokens | _control(names), merges=merges, **words)


def _sentencepiece(tokenizer: Tokenizer, words: dict) -> Vocabulary:
    parts = list(fields(tokenizer.source.read_bytes()))
    trained, normalise = ({key: value for number, part in parts if number == which for key, value in fields(part)}
                          for which in (2, 3))  # trainer_spec, normalizer_spec
    if trained.get(3, UNIGRAM) != BPE:
        raise UserError(f"{tokenizer.source}: is a sentencepiece model of type {trained.get(3, UNIGRAM)}; llama.cpp "
                        "reads the vocabulary of a Llama as BPE, type 2, and would make different ids")
    tokens = {}
    for id, piece in enumerate(part for number, part in parts if number == 1):
        found = dict(fields(piece))
        score = float(numpy.frombuffer(found.get(2, bytes(4)), "<f4")[0])
        tokens[id] = (found[1].decode(), found.get(3, NORMAL), score)
    unknown = {id for id, (_, kind, _) in tokens.items() if kind == UNKNOWN}
    names = {id: name for name, id in tokenizer.special_ids.items() if id not in unknown}
    normalises = bool(normalise.get(2)) or bool(normalise.get(4, 1))  # a table of characters; double spaces removed
    words["special"] |= {"unk": min(unknown)} if unknown else {}
    return Vocabulary("llama", "default", tokens | _control(names), add_space=tokenizer.adds_space,
                      notes=(NORMALISER,) * normalises, **words)


def _llama2c(file: Path) -> Vocabulary:
    """Entries of id, bytes (hexadecimal), piece and score; 0 is the unknown token, 1 begins and 2 ends a text."""
    tokens = {}
    for entry in read_json(file):
        id, kind, text = entry["id"], NORMAL, bytes.fromhex(entry["bytes_hex"]).decode().replace(" ", SPACE)
        if id < 3:
            text, kind = text.strip(), UNKNOWN if id == 0 else CONTROL
        elif re.fullmatch(r"<0x[0-9A-F]{2}>", entry["piece"]):
            text, kind = entry["piece"], BYTE
        tokens[id] = (text, kind, float(entry["score"]))
    return Vocabulary("llama", "default", tokens, {"unk": 0, "bos": 1, "eos": 2}, True, add_space=True)


def _control(names: dict[int, str]) -> dict[int, tuple[str, int, float]]:
    return {id: (name, CONTROL, NO_SCORE) for id, name in names.items()}


def _written(token: bytes) -> str:
    """Bytes in GPT-2's alphabet: `_written(b" a") -> "Ġa"`."""
    return "".join(WRITTEN[byte] for byte in token)


def _special(tokenizer: Tokenizer) -> dict[str, int]:
    """Ids by role. The end of a text is the one that tokenizer_config.json names, else the first of the ends."""
    named = _config(tokenizer.beside).get("eos_token")
    named = tokenizer.special_ids.get(named.get("content") if isinstance(named, dict) else named)
    ends = [id for id in [named, *tokenizer.eos_ids] if id is not None]
    found = {"bos": tokenizer.bos_id, "eos": ends[0] if ends else None}
    found |= {role: tokenizer.special_ids.get(name) for role, name in TURN_ENDS.items()}
    return {role: id for role, id in found.items() if id is not None}


def _config(folder: Path) -> dict:
    path = folder / "tokenizer_config.json"
    return read_json(path) if path.is_file() else {}
