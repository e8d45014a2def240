"""What a teacher's vectors are used for: the words' starting vectors, and what the answer position is to say.

**Targets.** With v_d the teacher's vector of document d (of its English text, if it has translations), P (S, c) the
leading principal axes of all vectors, and c the coordinates of the base that carry meaning (all but the reserved):

    t_d = P^T v_d / |P^T v_d|

Of a row of several documents, the target is the mean of theirs, scaled to length 1.

**Words.** A linear student first: the vectors E (V, c) of the vocabulary for which the sums over texts are nearest to
the targets, by ridge regression with strength s,

    min  sum_d |E^T x_d - t_d|^2 + s |E|^2,    x_dt = idf_t (1 + log n_td), scaled to length 1

over all texts in all languages and all words that the teacher has vectors for; by conjugate gradients (Hestenes &
Stiefel 1952) with the diagonal as preconditioner. E_t / |E_t| is where word t's embedding starts, and log |E_t| idf_t
takes the place of its log idf, so that attention starts out by weighing words as this student does. float32.
"""

import warnings
from collections import Counter

import torch

from common.errors import UserError
from tools.pretrain.start import starting_table
from tools.pretrain.teacher import Taught, principal_axes
from tools.pretrain.text import Document, fold

ITERATIONS = 15
STRENGTH = 0.3
RAREST, COMMONEST, PER_SHARE = 4, 60, 300_000  # how often a word counts when the vocabulary is trained


class Targets:
    """The target of every document that pre-training draws, parallel ones first: `rows(items)` -> (items, c)."""

    def __init__(self, parallel: list[Document], rows: list[Taught], vectors: torch.Tensor, size: int):
        original = {row.text: k for k, row in enumerate(rows) if row.kind == "original"}
        missing = next((d for d in parallel if dict(d.texts).get("en") not in original), None)
        if missing is not None:
            raise UserError(f"--teacher: has no vector for the English text of {missing.key}; write its folder from "
                            "the same --parallel files")
        self.axes = principal_axes(vectors, size)  # (S, c)
        projected = torch.nn.functional.normalize(vectors @ self.axes, dim=1)
        words = [k for k, row in enumerate(rows) if row.kind == "word"]
        alone = [k for k, row in enumerate(rows) if row.kind in ("text", "crop")]
        self.alone = [Document(f"teacher:{k}", ((rows[k].language, rows[k].text),)) for k in alone]
        self.of_document = projected[[*(original[dict(d.texts)["en"]] for d in parallel), *alone]]  # (documents, c)
        self.of_word = projected[words]
        self.words = [rows[k] for k in words]
        self.plain = [document for document, k in zip(self.alone, alone, strict=True) if rows[k].kind == "text"]

    def rows(self, items: list[tuple[int, ...]]) -> torch.Tensor:
        """The targets of a step's items: (items, c) float32, rows of length 1."""
        mean = torch.stack([self.of_document[list(item)].mean(0) for item in items])
        return torch.nn.functional.normalize(mean, dim=1)

    def common_words(self, most: int) -> list[tuple[str, int]]:
        """The teacher's most frequent words as the vocabulary reads them, and how often each is to count there."""
        shares = Counter()
        for row in self.words:
            shares["".join(fold(char) for char in row.text)] += row.share
        return [(word, max(RAREST, min(COMMONEST, int(share * PER_SHARE)))) for word, share in shares.most_common(most)]

    def texts(self, parallel: list[Document], encode, vocab_size: int) -> tuple[list[list[int]], torch.Tensor,
                                                                               torch.Tensor]:
        """Every text and word as token ids, its target, and the idf of the tokens among the texts: (V,) float32."""
        every = [(text, k) for k, document in enumerate([*parallel, *self.alone]) for _, text in document.texts]
        ids = encode([text for text, _ in every])
        target = torch.cat([self.of_document[[k for _, k in every]], self.of_word])
        frequency = torch.zeros(vocab_size)
        for tokens in ids:
            frequency[torch.tensor(tokens, dtype=torch.int64).unique()] += 1
        idf = ((1 + len(ids)) / (1 + frequency)).log()
        return ids + encode([row.text for row in self.words]), target, idf


def text_weights(texts: list[list[int]], idf: torch.Tensor) -> torch.Tensor:
    """x: (texts, V) sparse CSR, rows of length 1 (of zeros, where no word is known)."""
    starts, columns, values = [0], [], []
    for ids in texts:
        tokens, counts = torch.tensor(ids, dtype=torch.int64).unique(return_counts=True)
        weight = idf[tokens] * (1 + counts.float().log())
        columns.append(tokens)
        values.append(weight / weight.norm().clamp_min(1e-9))
        starts.append(starts[-1] + len(tokens))
    with warnings.catch_warnings():  # torch warns that CSR tensors are beta; other sparse products are far slower
        warnings.filterwarnings("ignore", message="Sparse CSR")
        return torch.sparse_csr_tensor(torch.tensor(starts), torch.cat(columns), torch.cat(values),
                                       (len(texts), len(idf)), check_invariants=True)


def ridge(x: torch.Tensor, targets: torch.Tensor, strength: float = STRENGTH) -> torch.Tensor:
    """E: (texts, V) sparse and (texts, c) -> (V, c)."""
    across = x.t().to_sparse_csr()
    diagonal = torch.zeros(x.shape[1]).index_add_(0, x.col_indices(), x.values().square()) + strength
    found = torch.zeros(x.shape[1], targets.shape[1])
    rest = across @ targets
    step = scaled = rest / diagonal[:, None]
    size = (rest * scaled).sum(0)
    for _ in range(ITERATIONS):
        image = across @ (x @ step) + strength * step
        length = size / (step * image).sum(0).clamp_min(1e-12)
        found = found + length * step
        rest = rest - length * image
        scaled = rest / diagonal[:, None]
        before, size = size, (rest * scaled).sum(0)
        step = scaled + size / before.clamp_min(1e-12) * step
    return found


def taught_table(texts: list[list[int]], targets: torch.Tensor, idf: torch.Tensor, symbols: list[int],
                 generator: torch.Generator) -> torch.Tensor:
    """The starting table (V, c + RESERVED) by which sums over `texts` say `targets`, (texts, c)."""
    words = ridge(text_weights(texts, idf), targets)  # (V, c)
    length = words.norm(dim=1)
    known = length > 1e-6
    weight = torch.where(known, length * idf, 1.0)
    return starting_table(words, (weight / weight.median()).clamp(0.02, 10.0), known, symbols, generator)
