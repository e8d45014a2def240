"""Sentencepiece's `tokenizer.model`: Llama 2's format, and that of the project's own base. The library does the work.

A piece writes a space as U+2581; characters without a piece fall back to their UTF-8 bytes, pieces `<0x00>` to
`<0xFF>`. Control symbols (`<s>`, `<|eot_id|>`) are never made from text. Two things are peculiar to the format: a space
is put before each text, which `decode` removes again, and a U+2581 in the text comes back as a space.
"""

from pathlib import Path

import sentencepiece

from common.errors import UserError

SPACE = "▁"  # U+2581


class SentencePiece:
    """A sentencepiece model as an engine: tokens as bytes, specials by name, `encode`."""

    kind = "sentencepiece"
    specials_by_rule = False

    def __init__(self, processor: sentencepiece.SentencePieceProcessor):
        self._processor = processor
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


def read_sentencepiece(file: Path, data: bytes) -> SentencePiece:
    """The engine of a sentencepiece protobuf; raises `UserError` if the bytes are not one."""
    try:
        processor = sentencepiece.SentencePieceProcessor(model_proto=data)
        if processor.vocab_size() < 1:
            raise ValueError("no pieces")
        return SentencePiece(processor)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{file}: is not a tokenizer: neither tiktoken text, nor a tokenizer.json, nor an intact "
                        "sentencepiece model; download it again") from error
