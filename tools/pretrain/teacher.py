"""Write down what a sentence encoder says about the texts of pre-training: `python -m tools.pretrain.teacher`.

A student learns from these vectors (Reimers & Gurevych 2020, arXiv 2004.09813); the encoder itself is needed here and
nowhere else. The folder that is written holds one text a line in `texts.jsonl` and its vector in the same row of
`vectors.safetensors`, (N, S) float16:

    original   the English text of every parallel document: what all its translations are to mean
    text       a text of --text, as it stands
    crop       a few words in a row out of a parallel text, for every language that the encoder was trained on
    word       a word of the encoder's own vocabulary, with its share of the encoder's texts, if the encoder has one

A text whose language the encoder does not know is left to its English original.
"""

import json
import math
import random
import sys
import unicodedata
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy
import sentencepiece
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as as_bytes

from baselines.sentences import SentenceEncoder
from common.errors import UserError, run_program
from common.files import atomic_write, making, sha256_file, write_json
from common.options import option, parse_options
from common.reading import LARGE, check_plain, json_value, read_bytes
from common.terminal import progress
from tools.pretrain.text import Document, read_parallel, read_text

SCRIPTS = ("LATIN", "ARABIC", "HANGUL", "DEVANAGARI")  # of the languages that the base is for
KINDS = ("original", "text", "crop", "word")


@dataclass
class Options:
    """What is encoded, and by what."""

    parallel: list[str] = option((), "parallel text, as for python -m tools.pretrain", metavar="FILE", group="text")
    text: list[str] = option((), "files of text without translations: jsonl with text", metavar="FILE", group="text")
    encoder: str = option("package", "'package', or a local folder of a sentence encoder", metavar="NAME")
    vocabulary: str | None = option(None, "the encoder's sentencepiece model, for its words", metavar="FILE")
    unknown: list[str] = option(("hi", "hu"), "languages that the encoder does not know", metavar="hi,hu")
    words: int = option(60000, "how many of its words, the most frequent", minimum=0)
    crops: int = option(2, "pieces that are cut out of a parallel text", minimum=0)
    axes: int = option(0, "keep this many principal axes of the vectors, for a smaller file; 0: all", minimum=0)
    seed: int = option(1, "seed of the cuts", minimum=0)
    out: str = option("", "folder to write", metavar="DIR")


@dataclass(frozen=True)
class Taught:
    """A text with the teacher's vector in the same row; `share` is a word's share of the teacher's texts."""

    kind: str
    language: str
    text: str
    share: float = 0.0


def main(argv: list[str]) -> None:
    """Read the texts, encode them, write the folder."""
    o = parse_options(Options, argv, program="python -m tools.pretrain.teacher", description=__doc__)
    if not o.parallel or not o.out:
        raise UserError("--parallel and --out: both are needed; --help explains them")
    encoder = SentenceEncoder(o.encoder)
    rows = taught_texts(o, read_parallel(o.parallel), read_text(o.text))
    with progress(len(rows), "text", "encoding") as bar:
        order = sorted(range(len(rows)), key=lambda k: len(rows[k].text))
        vectors = encoder.encode([rows[k].text for k in order], bar.update)
    ordered = numpy.empty_like(vectors)
    ordered[order] = vectors
    kept = torch.from_numpy(ordered)
    kept = kept @ principal_axes(kept, min(o.axes, kept.shape[1])) if o.axes else kept
    out = Path(o.out)
    with making(out):
        with atomic_write(out / "texts.jsonl") as handle:
            handle.write("".join(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows))
        with atomic_write(out / "vectors.safetensors", "wb") as handle:
            handle.write(as_bytes({"vectors": kept.to(torch.float16)}))
        files = {Path(path).name: sha256_file(path) for path in [*o.parallel, *o.text]}
        write_json(out / "teacher.json", {"encoder": encoder.name, "files": files, "words": o.words, "crops": o.crops,
                                          "axes": o.axes, "seed": o.seed})
    counts = ", ".join(f"{sum(row.kind == kind for row in rows):,} {kind}s" for kind in KINDS)
    print(f"{out}: {counts}, by {encoder.name}")


def taught_texts(o: Options, parallel: list[Document], alone: list[Document]) -> list[Taught]:
    """All the texts to encode, in the order of `KINDS`."""
    rng = random.Random(o.seed)
    rows = [Taught("original", "en", dict(document.texts)["en"]) for document in parallel
            if "en" in dict(document.texts)]
    rows += [Taught("text", *document.texts[0]) for document in alone]
    for document in parallel:
        for language, text in document.texts:
            words = text.split()
            if language in o.unknown or len(words) < 6:
                continue
            for _ in range(o.crops):
                size = rng.randint(3, max(4, len(words) * 2 // 3))
                start = rng.randint(0, len(words) - size)
                rows.append(Taught("crop", language, " ".join(words[start : start + size])))
    words = words_of(o.vocabulary) if o.vocabulary else []
    return rows + sorted(words, key=lambda row: -row.share)[: o.words]


def words_of(path: str | Path) -> list[Taught]:
    """The whole words of a sentencepiece vocabulary in the base's scripts, with exp(score), the share of a piece."""
    model = sentencepiece.SentencePieceProcessor()
    try:
        model.LoadFromSerializedProto(read_bytes(path, LARGE))
    except RuntimeError as error:
        raise UserError(f"--vocabulary {path}: is not a sentencepiece model") from error
    found = []
    for index in range(len(model)):
        piece = model.id_to_piece(index)
        if piece.startswith("▁") and _is_word(piece[1:]):
            found.append(Taught("word", "und", piece[1:], math.exp(model.get_score(index))))
    return found


def _is_word(text: str) -> bool:
    return len(text) > 1 and all(char.isalpha() and unicodedata.name(char, "").startswith(SCRIPTS) for char in text)


def principal_axes(vectors: torch.Tensor, size: int) -> torch.Tensor:
    """The leading `size` eigenvectors of V^T V, (S, size) float32; padded with zeros where S is smaller."""
    axes = torch.linalg.eigh((vectors.t() @ vectors).double())[1].flip(1)[:, :size].float()
    axes = axes * torch.where(axes.sum(0) < 0, -1.0, 1.0)  # an eigenvector's sign is anyone's choice
    return torch.nn.functional.pad(axes, (0, size - axes.shape[1]))


def read_teacher(folder: str | Path) -> tuple[list[Taught], torch.Tensor]:
    """The texts of a folder and their vectors, (N, S) float32. Raises `UserError` for one that is not whole."""
    texts, file = Path(folder) / "texts.jsonl", Path(folder) / "vectors.safetensors"
    try:
        lines = read_bytes(texts, LARGE).decode("utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{texts}: cannot be read as UTF-8 text ({error})") from error
    rows = [_taught(line, f"{texts}: row {number}") for number, line in enumerate(lines, start=1)]
    check_plain(file)
    try:
        vectors = load_file(file)["vectors"].float()
    except (OSError, SafetensorError, KeyError) as error:
        raise UserError(f"{file}: holds no vectors; write the folder anew with python -m tools.pretrain.teacher"
                        ) from error
    if vectors.ndim != 2 or len(vectors) != len(rows) or not vectors.isfinite().all():
        raise UserError(f"{folder}: {len(rows)} texts and vectors of shape {tuple(vectors.shape)}; one each, finite, "
                        "was expected")
    return rows, vectors


def _taught(line: str, where: str) -> Taught:
    try:
        row = Taught(**json_value(line))
    except (ValueError, TypeError) as error:
        raise UserError(f"{where}: is not a text of a teacher's") from error
    is_text = all(isinstance(value, str) for value in (row.kind, row.language, row.text))
    if not is_text or row.kind not in KINDS or not isinstance(row.share, float) or not 0 <= row.share <= 1:
        raise UserError(f"{where}: is not a text of a teacher's, whose kind is one of {', '.join(KINDS)}")
    return row


if __name__ == "__main__":
    run_program(main, sys.argv[1:])
