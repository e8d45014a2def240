"""Sentencepiece's `tokenizer.model`: Llama 2's format, and that of the project's own base. The library does the work.

A piece writes a space as U+2581; characters without a piece fall back to their UTF-8 bytes, pieces `<0x00>` to
`<0xFF>`. Control symbols (`<s>`, `<|eot_id|>`) are never made from text. User-defined symbols are: the library cuts
them out of every text. Where one is a control word (`added.py` says which are), it is made a control symbol before the
library reads the file. Two things are the format's own: a space is put before each text, which `decode` takes away
again, and a U+2581 in the text comes back as a space.
"""

from collections.abc import Iterator
from pathlib import Path

import sentencepiece

from common.errors import UserError
from model.tokenizer.added import has_form
from model.tokenizer.neighbours import Neighbours
from model.tokenizer.split import SPACE

CONTROL, USER_DEFINED = 3, 4  # a piece's type, field 3 of its message; 1 is its text
TRAINER, NORMALISER, BPE = 2, 3, 2  # fields of the model, and the model's kind, field 3 of the first of them


class SentencePiece:
    """A sentencepiece model as an engine: tokens as bytes, specials by name, `encode`.

    unmarked: user-defined symbols of the file that are control symbols here. seam: see `Tokenizer.divide`.
    """

    kind, pre, specials_by_rule, adds_bos = "sentencepiece", None, False, True

    def __init__(self, processor: sentencepiece.SentencePieceProcessor, unmarked: tuple[str, ...] = (),
                 seam: str | None = None):
        self._processor, self.unmarked, self.seam = processor, unmarked, seam
        pieces = {id: processor.id_to_piece(id) for id in range(processor.vocab_size())}
        self.specials = {piece: id for id, piece in pieces.items()
                         if processor.is_control(id) or processor.is_unknown(id)}
        self.tokens = {id: bytes([int(piece[3:5], 16)]) if processor.is_byte(id) else piece.replace(SPACE, " ").encode()
                       for id, piece in pieces.items()}
        self.bos = [id for id in [processor.bos_id()] if id >= 0]
        self.eos = [id for id in [processor.eos_id()] if id >= 0]
        first = processor.encode("a")
        self.adds_space = bool(first) and pieces[first[0]].startswith(SPACE)

    def encode(self, text: str) -> list[int]:
        """Ids of a text."""
        return self._processor.encode(text)


def read_sentencepiece(file: Path, data: bytes, beside: Neighbours) -> SentencePiece:
    """A sentencepiece protobuf; raises `UserError` where the bytes are none."""
    try:
        processor = _load(data)
        text = [id for id in range(processor.vocab_size())
                if not (processor.is_control(id) or processor.is_unknown(id) or processor.is_byte(id))]
        marked = {piece for id in text for piece in [processor.id_to_piece(id)]
                  if beside.marks(piece, id) or has_form(piece)}
        symbols = _symbols(data, marked) if marked else {}
        for message in symbols.values():
            data = data.replace(message, message[:-1] + bytes([CONTROL]))
        processor = _load(data) if symbols else processor
        return SentencePiece(processor, tuple(symbols), "" if words_stand_alone(data, processor) else None)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{file}: is not a tokenizer: neither tiktoken text, nor a tokenizer.json, nor a sentencepiece "
                        "model (or one that is damaged); download it again") from error


def _load(data: bytes) -> sentencepiece.SentencePieceProcessor:
    processor = sentencepiece.SentencePieceProcessor(model_proto=data)
    if processor.vocab_size() < 1:
        raise ValueError("no pieces")
    return processor


def words_stand_alone(data: bytes, processor: sentencepiece.SentencePieceProcessor) -> bool:
    """Whether the ids of a word that begins with a space are the same whatever is around it.

    So it is where merges are made one by one (in a unigram model, scores are sums over the whole text, and rounding may
    tip two that are equal), no piece holds a space behind something else, which no merge then reaches over, the space
    before a text is put there, no rule of the normaliser takes a space together with other characters, and none makes
    one out of another character unless spaces in a row are one.
    """
    specs = {number: dict(fields(value)) for number, value in fields(data)
             if number in (TRAINER, NORMALISER) and isinstance(value, bytes)}
    trainer, normaliser = specs.get(TRAINER, {}), specs.get(NORMALISER, {})
    rules = normaliser.get(2, b"")
    plain = (trainer.get(3) == BPE and not trainer.get(24, 0)  # the space is not written behind its word
             and normaliser.get(3, 1) and normaliser.get(5, 1))  # it is put before a text, and written as U+2581
    if not plain or not isinstance(rules, bytes) or _takes_spaces(rules):
        return False
    made = rules[4 + int.from_bytes(rules[:4], "little") :]
    makes_spaces = b" " in made or SPACE.encode() in made
    return not (makes_spaces and not normaliser.get(4, 1)) and not any(
        SPACE in processor.id_to_piece(id).lstrip(SPACE) for id in range(processor.vocab_size()))


def _takes_spaces(rules: bytes) -> bool:
    """Whether a normaliser's rules hold a space beside other characters.

    They begin with the size of a double-array trie and the trie, in units of 32 bits (github.com/s-yata/darts-clone):
    the child of a unit by a byte lies at the unit's offset XOR that byte, and has the byte as its label.
    """
    units = memoryview(rules[4 : 4 + int.from_bytes(rules[:4], "little") // 4 * 4]).cast("I")
    children: dict[int, list[int]] = {}
    for place, unit in enumerate(units):
        if not unit >> 31:  # else it is no byte but a value
            children.setdefault(place ^ unit & 0xFF, []).append(place)

    def below(place: int) -> int:
        unit = units[place]
        return place ^ (unit >> 10) << ((unit & 1 << 9) >> 6)

    todo, seen = [below(0)] if len(units) else [], set()
    while todo:
        at = todo.pop()
        for place in children.get(at, ()) if at not in seen else ():
            is_space = units[place] & 0xFF == 0x20
            if is_space and (seen or children.get(below(place))):
                return True
            todo.append(below(place))
        seen.add(at)
    return False


def _symbols(data: bytes, words: set[str]) -> dict[str, bytes]:
    """Which of `words` are user-defined symbols, and their messages, which must end in their type."""
    symbols = {}
    for number, message in fields(data):
        piece = dict(fields(message)) if number == 1 and isinstance(message, bytes) else {}
        text = piece.get(1, b"")
        if (number == 1 and not piece) or not isinstance(text, bytes):
            raise ValueError("a piece, or its text, is a number")
        word = text.decode()
        if piece.get(3) == USER_DEFINED and word in words:
            if message[-2:] != bytes([3 << 3, USER_DEFINED]):
                raise ValueError("a piece that sentencepiece would not write")
            symbols[word] = message
    return symbols


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a protobuf message as (number, value): whole numbers, or bytes for all that is longer.

    The wire format of protobuf.dev/programming-guides/encoding. Raises `ValueError` where the bytes end too early.
    """
    at = 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while at < len(data):
            byte, at = data[at], at + 1
            value, shift = value | (byte & 127) << shift, shift + 7
            if byte < 128:
                return value
        raise ValueError("cut in a number")

    while at < len(data):
        key = number()
        if key & 7 == 0:
            yield key >> 3, number()
            continue
        length = {1: 8, 5: 4}.get(key & 7) or number()
        if at + length > len(data):
            raise ValueError("cut in a field")
        yield key >> 3, data[at : at + length]
        at += length
