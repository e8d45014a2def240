"""The vocabulary inside a GGUF file: read as one of the other kinds, and written as the files of that kind.

    tokenizer.ggml.model   "gpt2"     tokens in GPT-2's alphabet, merges; `pre` names what cuts a text before they merge
                           "llama"    pieces with scores, as in a sentencepiece model; `pre` means nothing
    .tokens .token_type .merges .scores .bos_token_id .eos_token_id .add_bos_token ...; tokenizer.chat_template

The first becomes what a tokenizer.json holds, the second the bytes of a `tokenizer.model`, and the readers of those do
the rest, so that a vocabulary makes the same ids wherever it lies. The ids are llama.cpp's (src/llama-vocab.cpp), which
has a few dozen names for `pre`; those whose pattern this project knows are read. A byte without a token is left out of
the text, as there. Tokens of another type than "normal" are what `added.py` calls added words: control words, and
ordinary ones where the type is "user-defined".
"""

import re
import struct
from dataclasses import dataclass
from pathlib import Path

from common.errors import UserError
from common.files import sha256_json
from common.gguf import read_gguf
from model.tokenizer.bpe import LONGEST_TOKEN, MOST_IDS
from model.tokenizer.hf_json import BYTE, TokenizerJson, json_engine
from model.tokenizer.neighbours import Neighbours
from model.tokenizer.pattern import LLAMA3_PATTERN, short
from model.tokenizer.split import SPACE
from model.tokenizer.spm import SentencePiece, read_sentencepiece

KEY = "tokenizer.ggml."
TEMPLATE = "tokenizer.chat_template"
TOKENIZER_CLASS = "PreTrainedTokenizerFast"  # of transformers: it runs a tokenizer.json as it is
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE_PIECE = range(1, 7)  # as in sentencepiece
ORDINARY = (NORMAL, BYTE_PIECE)
# Names that llama.cpp treats alike: the same pattern, and for the first row pieces that are tokens are taken whole.
SAME_PRE = {
    "llama-bpe": ("llama-bpe", "llama3", "llama-v3"),
    "smollm": ("smollm", "starcoder", "refact"),
    "gpt-2": ("gpt-2", "phi-2", "mpt", "olmo"),
}
NEEDED_ROLES = ("bos", "eos", "eot", "eom", "unknown")
TURN_ENDS = ("eos", "eot", "eom")
_ROLE = re.compile(re.escape(KEY) + r"(\w+)_token_id")
_BPE, _BYTE_LEVEL = 2, {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}


@dataclass(frozen=True)
class GGUFVocabulary:
    """What a file says: tokens, types and scores by id, merges ("left right"), ids by their role ("bos", "eos", ...).

    model: "gpt2" or "llama". pre: as the file has it; `cut` is the name of that kind in `PRE_PATTERNS`. scores: of a
    "llama", else None; merges: of a "gpt2", else None. add_space: whether a space is put before a text.
    """

    file: Path
    model: str
    pre: str
    cut: str | None
    tokens: list[str]
    kinds: list[int]
    scores: list[float] | None
    merges: list[str] | None
    roles: dict[str, int]
    add_bos: bool
    add_space: bool
    template: str | None

    @property
    def hash(self) -> str:
        """SHA-256 of all that decides ids, and of none of the weights around it, which may be gigabytes."""
        return sha256_json({key: value for key, value in vars(self).items() if key not in ("file", "template")})

    @property
    def beside(self) -> Neighbours:
        """What is said of the tokens, as the files beside a tokenizer would say it."""
        return Neighbours(self.file.parent, {"tokenizer_config.json": tokenizer_config(self),
                                             "generation_config.json": generation_config(self)})

    def engine(self, beside: Neighbours) -> TokenizerJson | SentencePiece:
        """The engine; raises `UserError` naming what in the file does not go together."""
        if self.model == "gpt2":
            return json_engine(self.file, tokenizer_json(self), beside)
        return read_sentencepiece(self.file, tokenizer_model(self), beside)


def gguf_vocabulary(file: Path) -> GGUFVocabulary:
    """The vocabulary in a GGUF file. Raises `UserError`, naming the key, for what is missing, damaged or not read."""
    metadata = read_gguf(file).metadata

    def found(name: str, kind: type, default=None):
        value = metadata.get(KEY + name, default)
        if value is None or not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            what = "is missing" if value is None else "is of another kind than llama.cpp writes"
            raise UserError(f"{file}: {KEY}{name} {what}; take a file that llama.cpp's converter made of a whole model")
        return value

    model = found("model", str)
    if model not in ("gpt2", "llama"):
        raise UserError(f"{file}: {KEY}model is {short(model)}; the vocabularies of a Llama are read, gpt2 and llama")
    pre, cut = found("pre", str, "default"), None
    if model == "gpt2":
        cut = next((name for name, names in SAME_PRE.items() if pre in names), None)
        if cut is None:
            known = ", ".join(name for names in SAME_PRE.values() for name in names)
            raise UserError(f"{file}: {KEY}pre is {short(pre)}, which cuts texts in a way that is not known here; read "
                            f"are {known}")
    tokens = _list(file, "tokens", found("tokens", list), str)
    kinds = _list(file, "token_type", found("token_type", list), int, len(tokens))
    _check_tokens(file, model, tokens, kinds)
    scores = merges = None
    if model == "llama":
        scores = [float(score) for score in _list(file, "scores", found("scores", list), int | float, len(tokens))]
        wrong = next((id for id, score in enumerate(scores) if not abs(score) <= 3e38), None)
        if wrong is not None:
            raise UserError(f"{file}: {KEY}scores: that of {short(tokens[wrong])} is not finite in float32")
    else:
        merges = _list(file, "merges", found("merges", list), str)
    template = metadata.get(TEMPLATE)
    if not isinstance(template, str | None):
        raise UserError(f"{file}: {TEMPLATE} is no text")
    add_space = found("add_space_prefix", bool, model == "llama")
    if add_space and model == "gpt2":
        raise UserError(f"{file}: {KEY}add_space_prefix is not supported beside gpt2; a text would not come back as it "
                        "was")
    return GGUFVocabulary(
        file, model, pre, cut, tokens, kinds, scores, merges, _roles(file, metadata, len(tokens)),
        found("add_bos_token", bool, model == "llama" or cut == "llama-bpe"), add_space, template)


def _list(file: Path, name: str, values: list, kind, count: int | None = None) -> list:
    wrong = next((value for value in values if not isinstance(value, kind) or isinstance(value, bool)), None)
    if wrong is not None:
        raise UserError(f"{file}: {KEY}{name} is of another kind than llama.cpp writes; the file is damaged")
    if count is not None and len(values) != count:
        raise UserError(f"{file}: {KEY}{name} has {len(values):,} entries for {count:,} tokens; the file is damaged")
    return values


def _check_tokens(file: Path, model: str, tokens: list[str], kinds: list[int]) -> None:
    if not 0 < len(tokens) <= MOST_IDS:
        raise UserError(f"{file}: {KEY}tokens: has {len(tokens):,} tokens, which no vocabulary has")
    seen: dict[str, int] = {}
    for id, (token, kind) in enumerate(zip(tokens, kinds, strict=True)):
        where = f"{file}: {KEY}tokens: id {id}"
        if not token or len(token) > LONGEST_TOKEN:
            raise UserError(f"{where} is {'empty' if not token else f'of {len(token):,} characters'}; the file is "
                            "damaged")
        if token in seen:
            raise UserError(f"{where} is {short(token)}, as id {seen[token]} is; the file is damaged")
        seen[token] = id
        if not NORMAL <= kind <= (BYTE_PIECE if model == "llama" else UNUSED):
            raise UserError(f"{where}, {short(token)}, is of type {short(kind)}, which a {model} vocabulary does not "
                            "have; the file is damaged")
        if kind == BYTE_PIECE and not BYTE.fullmatch(token):
            raise UserError(f"{where}, {short(token)}, is of the type of a byte, such as <0x0A>; the file is damaged")
    for kind, right, what in ((UNKNOWN, (1,), "unknown token"), (BYTE_PIECE, (0, 256), "tokens of bytes")):
        if model == "llama" and kinds.count(kind) not in right:
            raise UserError(f"{file}: {KEY}token_type: {kinds.count(kind)} {what}; a llama vocabulary has {right[-1]}")


def _roles(file: Path, metadata: dict[str, object], count: int) -> dict[str, int]:
    """Ids by role. One that no text needs, such as the padding token, is left out where it is beyond the vocabulary."""
    roles = {match[1]: value for key, value in metadata.items() for match in [_ROLE.fullmatch(key)] if match}
    for role, id in roles.items():
        if isinstance(id, bool) or not isinstance(id, int) or (role in NEEDED_ROLES and not 0 <= id < count):
            raise UserError(f"{file}: {KEY}{role}_token_id is {short(id)}; an id below {count:,} was expected")
    return {role: id for role, id in roles.items() if 0 <= id < count}


def tokenizer_config(vocabulary: GGUFVocabulary) -> dict:
    """A tokenizer_config.json that says the same."""
    named = {"bos": "bos", "eos": "eos", "unknown": "unk", "padding": "pad"}
    config = {f"{named[role]}_token": vocabulary.tokens[id] for role, id in vocabulary.roles.items() if role in named}
    config |= {"add_bos_token": vocabulary.add_bos and "bos" in vocabulary.roles, "add_eos_token": False,
               "clean_up_tokenization_spaces": False, "tokenizer_class": TOKENIZER_CLASS}
    return config | ({} if vocabulary.template is None else {"chat_template": vocabulary.template})


def generation_config(vocabulary: GGUFVocabulary) -> dict:
    """A generation_config.json that says which ids begin and end a text."""
    ends = sorted({vocabulary.roles[role] for role in TURN_ENDS if role in vocabulary.roles})
    begin = {"bos_token_id": vocabulary.roles["bos"]} if "bos" in vocabulary.roles else {}
    return begin | ({"eos_token_id": ends} if ends else {})


def tokenizer_json(vocabulary: GGUFVocabulary) -> dict:
    """What a tokenizer.json of the vocabulary holds.

    Added words behind the last normal token are in `added_tokens` alone, as in Llama 3's; those among the normal ones
    are in the vocab too, since Hugging Face's reader numbers what is not in it behind it.
    """
    tokens, kinds = vocabulary.tokens, vocabulary.kinds
    size = 1 + max((id for id, kind in enumerate(kinds) if kind in ORDINARY), default=-1)
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    named = set(vocabulary.roles.values())
    added = [{"id": id, "content": token, "special": kind != USER_DEFINED or id in named, **flags}
             for id, (token, kind) in enumerate(zip(tokens, kinds, strict=True)) if kind not in ORDINARY or id in named]
    model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
             "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
             "vocab": {token: id for id, token in enumerate(tokens[:size])}}  # fmt: skip
    steps = _characters(vocabulary, model) if vocabulary.model == "llama" else _bytes(vocabulary, model)
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
            "post_processor": _begins(vocabulary), **steps}


def _bytes(vocabulary: GGUFVocabulary, model: dict) -> dict:
    """The steps of a byte-level tokenizer.json."""
    before = {"llama-bpe": [{"type": "Split", "pattern": {"Regex": LLAMA3_PATTERN}, "behavior": "Isolated",
                             "invert": False}],
              "smollm": [{"type": "Digits", "individual_digits": True}], "gpt-2": []}[vocabulary.cut]
    level = _BYTE_LEVEL | {"use_regex": vocabulary.cut != "llama-bpe"}
    return {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [*before, level]} if before else level,
            "decoder": _BYTE_LEVEL | {"use_regex": True},
            "model": model | {"ignore_merges": vocabulary.cut == "llama-bpe",
                              "merges": vocabulary.merges}}  # fmt: skip


def _characters(vocabulary: GGUFVocabulary, model: dict) -> dict:
    """The steps of a Llama 2's tokenizer.json; its merges are all cuts of all pieces, the highest score first.

    The space before a text is put by the normaliser: `Metaspace` leaves it out where the text begins with one.
    """
    ids = {token: id for id, token in enumerate(vocabulary.tokens) if vocabulary.kinds[id] == NORMAL}
    order = sorted(ids, key=lambda token: -vocabulary.scores[ids[token]])  # stable: the lower id of two equal ones
    merges = [[token[:at], token[at:]] for token in order for at in range(1, len(token))
              if token[:at] in ids and token[at:] in ids]
    decoders = [{"type": "Replace", "pattern": {"String": SPACE}, "content": " "}, {"type": "ByteFallback"},
                {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": int(vocabulary.add_space), "stop": 0}]
    spaces = [{"type": "Prepend", "prepend": SPACE}] * vocabulary.add_space
    spaces.append({"type": "Replace", "pattern": {"String": " "}, "content": SPACE})
    return {"normalizer": {"type": "Sequence", "normalizers": spaces}, "pre_tokenizer": None,
            "decoder": {"type": "Sequence", "decoders": decoders},
            "model": model | {"byte_fallback": BYTE_PIECE in vocabulary.kinds, "fuse_unk": True, "merges": merges,
                              "unk_token": vocabulary.tokens[vocabulary.kinds.index(UNKNOWN)]}}  # fmt: skip


def _begins(vocabulary: GGUFVocabulary) -> dict | None:
    """A post-processor that puts BOS before a text, where the model wants it."""
    if not vocabulary.add_bos or "bos" not in vocabulary.roles:
        return None
    id = vocabulary.roles["bos"]
    name = vocabulary.tokens[id]
    first, second = ([{"SpecialToken": {"id": name, "type_id": kind}}, {"Sequence": {"id": text, "type_id": kind}}]
                     for kind, text in enumerate("AB"))
    return {"type": "TemplateProcessing", "single": first, "pair": first + second,
            "special_tokens": {name: {"id": name, "ids": [id], "tokens": [name]}}}


def tokenizer_model(vocabulary: GGUFVocabulary) -> bytes:
    """The bytes of a sentencepiece model (sentencepiece_model.proto) that holds a "llama" vocabulary."""
    pieces = zip(vocabulary.tokens, vocabulary.scores, vocabulary.kinds, strict=True)
    parts = [_field(1, _field(1, text.encode()) + _field(2, score) + _field(3, kind)) for text, score, kind in pieces]
    trained = {3: _BPE, 4: len(vocabulary.tokens), 35: int(BYTE_PIECE in vocabulary.kinds)}
    normalised = {1: b"identity", 3: int(vocabulary.add_space), 4: 0, 5: 1}  # 4: double spaces stay; 5: U+2581 for " "
    for number, spec in ((2, trained), (3, normalised)):
        parts.append(_field(number, b"".join(_field(key, value) for key, value in spec.items())))
    return b"".join(parts)


def _field(number: int, value: int | float | bytes) -> bytes:
    """One field of a protobuf message; `spm.fields` reads it."""
    if isinstance(value, int):
        return _number(number << 3) + _number(value)
    if isinstance(value, float):
        return _number(number << 3 | 5) + struct.pack("<f", value)
    return _number(number << 3 | 2) + _number(len(value)) + value


def _number(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])
