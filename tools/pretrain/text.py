"""Texts for the base model: reading them, and a vocabulary that folds away what a small model cannot afford.

Two kinds of files. `--parallel`: JSON lines with `id, language, text`, where rows with the same id say the same thing
in different languages and form one *document*; or a `.tsv` with one document per line, a column per language and a
header that names them. `--text`: JSON lines with `text`. A row whose `split` is not "train" is never read, so that a
benchmark's development and test rows stay unseen.

The vocabulary is a sentencepiece BPE (Sennrich et al. 2016, arXiv 1508.07909; Kudo & Richardson 2018, arXiv 1808.06226)
with byte fallback and Llama 3's control symbols. Its normaliser lower-cases and drops accents, Arabic vowel signs and
the Devanagari nukta, so that "Inmigración", "INMIGRACION" and "inmigracion" are one word. The model then cannot write
capitals, but each piece of the vocabulary covers more words: posts are typed in haste.
"""

import contextlib
import io
import sys
import tempfile
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import sentencepiece

from common.errors import UserError
from common.reading import LARGE, json_value, read_bytes

CONTROL = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
MASKS = ("@user", "http")  # what masked handles and links look like in published data sets of posts
CHARACTERS = "=_@#<>|&*+~^{}[]()/%$€£0123456789abcdefghijklmnopqrstuvwxyz😂🤣😍😭🙏👏🔥😡🤔😅💪🎉👍🙄😎✅⚽🌍💔😱❤"
QUOTES = {"“": '"', "”": '"', "„": '"', "«": '"', "»": '"', "‘": "'", "’": "'", "‚": "'", "`": "'", "´": "'"}
SINGLE = {"ı": "i", "ł": "l", "đ": "d", "ø": "o", "ى": "ي", "ة": "ه", "ـ": "", "ँ": "ं", "\t": " ", "\r": ""}


@dataclass(frozen=True)
class Document:
    """One meaning: its text in one or several languages."""

    key: str
    texts: tuple[tuple[str, str], ...]  # (language, text), in the file's order


def read_parallel(paths: Iterable[str | Path]) -> list[Document]:
    """Documents of `--parallel` files, in the order of their first rows. Raises `UserError` with file and row."""
    documents: dict[str, dict[str, str]] = {}
    for path in paths:
        rows = _table(path) if Path(path).suffix == ".tsv" else _rows(path, ("id", "language", "text"))
        for row, value in rows:
            languages = documents.setdefault(f"{Path(path).stem}:{value['id']}", {})
            if value["language"] in languages:
                raise UserError(f"{path}: row {row}: id {value['id']} occurs twice in {value['language']}")
            languages[value["language"]] = value["text"]
    return [Document(key, tuple(texts.items())) for key, texts in documents.items()]


def read_text(paths: Iterable[str | Path]) -> list[Document]:
    """One document per distinct text of `--text` files. Raises `UserError` with file and row."""
    documents: dict[str, Document] = {}
    for path in paths:
        for row, value in _rows(path, ("text",)):
            key = f"{Path(path).stem}:{row}"
            documents.setdefault(value["text"], Document(key, ((value.get("language", "und"), value["text"]),)))
    return list(documents.values())


def _lines(path: str | Path) -> list[str]:
    try:
        return read_bytes(path, LARGE).decode("utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: cannot be read as UTF-8 text ({error})") from error


def _rows(path: str | Path, columns: tuple[str, ...]):
    for row, line in enumerate(_lines(path), start=1):
        try:
            value = json_value(line)
        except ValueError as error:
            raise UserError(f"{path}: row {row}: is not JSON ({error}); one object a line was expected") from error
        if not isinstance(value, dict):
            raise UserError(f"{path}: row {row}: is not an object with the keys {', '.join(columns)}")
        missing = [name for name in columns if name not in value]
        if missing:
            raise UserError(f"{path}: row {row}: has no '{missing[0]}'")
        if value.get("split", "train") == "train" and str(value["text"]).strip():
            yield row, value


def _table(path: str | Path):
    header, *lines = (line.split("\t") for line in _lines(path))
    for row, cells in enumerate(lines, start=2):
        if len(cells) != len(header):
            raise UserError(f"{path}: row {row}: has {len(cells)} columns; the header names {len(header)} languages")
        for language, text in zip(header, cells, strict=True):
            if text.strip():
                yield row, {"id": row, "language": language, "text": text}


def fold(char: str) -> str:
    """What the vocabulary reads for one character: compatible form, lower case, no accent; `fold("É") -> "e"`."""
    if char in SINGLE:
        return SINGLE[char]
    char = QUOTES.get(char, char)
    plain = []
    for part in unicodedata.normalize("NFD", unicodedata.normalize("NFKC", char).casefold()):
        is_vowel_sign = "\u0900" <= part <= "\u097f" and part != "\u093c"  # Hindi writes its vowels as marks: they stay
        if unicodedata.category(part) not in ("Mn", "Cf") or is_vowel_sign:
            plain.append(SINGLE.get(part, part))
    return unicodedata.normalize("NFC", "".join(plain))


def normaliser_rules() -> str:
    """`fold` of every character that it changes, in sentencepiece's table format: code points, tab, code points."""
    lines = []
    for code in range(1, sys.maxunicode + 1):
        char = chr(code)
        if unicodedata.category(char) in ("Cn", "Co", "Cs") or char == "\n":
            continue
        folded = fold(char)
        if folded != char:
            lines.append(f"{code:X}\t{' '.join(f'{ord(part):X}' for part in folded)}")
    return "\n".join(lines) + "\n"


def train_vocabulary(documents: Iterable[Document], size: int, words: Iterable[tuple[str, int]] = ()) -> bytes:
    """A sentencepiece model of `size` pieces: the bytes of `tokenizer.model`. Raises `UserError` if text is scarce.

    `words`: words and how often each is to count, for those that the documents are too few to hold.
    """
    sentences = [text for document in documents for _, text in document.texts]
    sentences += [word for word, count in words for _ in range(count)]
    written = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):  # the model records the rules' path
        Path("rules.tsv").write_text(normaliser_rules(), encoding="utf-8", newline="\n")
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(sentences), model_writer=written, vocab_size=size, model_type="bpe",
                byte_fallback=True, split_digits=True, character_coverage=0.9995, normalization_rule_tsv="rules.tsv",
                control_symbols=list(CONTROL[2:]), user_defined_symbols=list(MASKS), required_chars=CHARACTERS,
                unk_id=0, bos_id=1, eos_id=2, pad_id=-1, bos_piece=CONTROL[0],
                eos_piece=CONTROL[1], num_threads=1, minloglevel=2, max_sentence_length=1 << 20,
            )  # fmt: skip
        except RuntimeError as error:
            raise UserError(f"--vocabulary {size}: does not suit the text ({str(error)[-120:]})") from error
    return written.getvalue()
