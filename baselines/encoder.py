"""Baselines from a multilingual encoder (XLM-R, XLM-T, a sentence encoder), read from a local folder by transformers.

    fine_tune   the encoder with a classification head, all of it trained, as is usual
    set_fit     the encoder trained to bring posts of one label together, then a logistic head on its embeddings
    mean_vectors  the encoder as it is: a text's vector is the mean over its tokens

None of this is part of the project's own model: these are the comparisons that a reviewer asks for. transformers is
needed only here (extra `baselines`), and only when one of the two is called.

`fine_tune` follows Mosbach, Andriushchenko and Klakow (2021, On the Stability of Fine-tuning BERT, ICLR): AdamW with
bias correction, 2e-5, a tenth of the steps as warm-up, then linear decay to zero, 20 epochs; small sets need that many.

`set_fit` follows Tunstall et al. (2022, Efficient Few-Shot Learning Without Prompts, arXiv 2209.11055): for each post
as many partners with its own label as with others, loss (cos(u, v) - s)^2 with s = 1 for the same label and 0
otherwise, on embeddings that are means over a post's tokens, for one epoch; then logistic regression on embeddings of
length 1.

Arithmetic is float32; the seed decides the order of rows, dropout and pairs.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy
import torch

from baselines.tfidf import logistic, predict
from common.errors import UserError


@dataclass(frozen=True)
class Settings:
    """How an encoder is trained; the defaults are those of the papers above. `pairs` and `most_pairs` are for SetFit:
    partners of each kind for each post, and the largest number of pairs in all."""

    epochs: int = 20
    batch: int = 16
    rate: float = 2e-5
    decay: float = 0.01
    warm_up: float = 0.1
    clip: float = 1.0
    longest: int = 128
    pairs: int = 20
    most_pairs: int = 20_000
    seed: int = 0


def fine_tune(folder: str | Path, texts: Sequence[str], labels: Sequence[int], classes: int, asked: Sequence[str],
              settings: Settings | None = None, device: str = "cpu") -> tuple[numpy.ndarray, numpy.ndarray]:
    """Train the encoder in `folder` on `texts`; label `asked`: indices (m,) int64 and probabilities (m, C) float64.

    Raises `UserError` without transformers and for a folder that does not hold an encoder.
    """
    settings = settings or Settings()
    with _seeded(settings.seed):
        tokenizer, model = _load(folder, "AutoModelForSequenceClassification", num_labels=classes)
        model = model.to(device)
        gold = torch.as_tensor(numpy.asarray(labels), dtype=torch.int64)
        orders = [torch.randperm(len(texts)) for _ in range(settings.epochs)]
        batches = [rows for order in orders for rows in order.split(settings.batch)]

        def loss(rows):
            logits = model(**_tokens(tokenizer, [texts[k] for k in rows], settings, device)).logits
            return torch.nn.functional.cross_entropy(logits.float(), gold[rows].to(device))

        _train(model, batches, loss, settings)
        with torch.no_grad():
            logits = [model(**_tokens(tokenizer, part, settings, device)).logits.double().cpu()
                      for part in _parts(asked, settings.batch)]
    probabilities = torch.softmax(torch.cat([torch.zeros(0, classes).double(), *logits]), 1).numpy()
    return probabilities.argmax(1), probabilities


def set_fit(folder: str | Path, texts: Sequence[str], labels: Sequence[int], classes: int, asked: Sequence[str],
            settings: Settings | None = None, device: str = "cpu") -> tuple[numpy.ndarray, numpy.ndarray]:
    """Train the encoder in `folder` on pairs, then a logistic head (C = 1); otherwise as `fine_tune`."""
    settings = settings or Settings()
    with _seeded(settings.seed):
        tokenizer, model = _load(folder, "AutoModel")
        model = model.to(device)
        pairs = draw_pairs(labels, settings.pairs, settings.most_pairs, settings.seed)

        def embed(chosen):
            return torch.nn.functional.normalize(_means(model, _tokens(tokenizer, chosen, settings, device)), dim=1)

        def loss(rows):
            first, second, same = pairs[rows].T
            both = embed([texts[k] for k in (*first, *second)])
            cosine = (both[: len(rows)] * both[len(rows) :]).sum(1)
            return (cosine - same.to(cosine)).square().mean()

        if len(pairs):
            _train(model, list(torch.randperm(len(pairs)).split(settings.batch)), loss, settings)
        model.eval()
        with torch.no_grad():
            learned, wanted = (torch.cat([embed(part).cpu() for part in _parts(some, settings.batch)] or
                                         [torch.zeros(0, model.config.hidden_size)]) for some in (texts, asked))
    return predict(wanted, *logistic(learned, labels, classes, 1.0))


def mean_vectors(folder: str | Path):
    """A function from texts to the means over their tokens, (n, S) float32, by the encoder in `folder` as it is.

    Raises `UserError` as `fine_tune` does.
    """
    settings = Settings()
    with _seeded(settings.seed):
        tokenizer, model = _load(folder, "AutoModel")
    model = model.eval()
    positions = getattr(model.config, "max_position_embeddings", settings.longest + 2)
    settings = replace(settings, longest=min(settings.longest, positions - 2))  # XLM-R's first two are never used

    def encode(texts: Sequence[str]) -> numpy.ndarray:
        with torch.no_grad():
            found = [_means(model, _tokens(tokenizer, part, settings, "cpu")) for part in _parts(texts, settings.batch)]
        return torch.cat([torch.zeros(0, model.config.hidden_size), *found]).numpy()

    return encode


def draw_pairs(labels: Sequence[int], each: int, most: int, seed: int) -> torch.Tensor:
    """(P, 3) int64: two rows, and 1 if their labels agree, else 0; for each row `each` partners of either kind, drawn
    with replacement, never the row itself. Of more than `most` pairs, a random `most` are kept."""
    labels, rng, found = numpy.asarray(labels), numpy.random.default_rng(seed), []
    for row, label in enumerate(labels):
        for same in (1, 0):
            partners = numpy.flatnonzero((labels == label) == bool(same))
            partners = partners[partners != row]
            found += [(row, int(partner), same) for partner in (rng.choice(partners, each) if len(partners) else ())]
    pairs = torch.tensor(found, dtype=torch.int64).reshape(-1, 3)
    return pairs if len(pairs) <= most else pairs[torch.as_tensor(rng.choice(len(pairs), most, replace=False))]


def _load(folder: str | Path, kind: str, **options):
    """The tokenizer and the encoder in a local folder; nothing is downloaded, and no program of the folder is run."""
    try:
        import transformers
    except ImportError:
        raise UserError("baseline: an encoder needs transformers; install it with: pip install 'transformers>=5.0'"
                        ) from None
    if not (Path(folder) / "config.json").is_file():
        raise UserError(f"baseline: {folder} holds no config.json; a local folder of an encoder (XLM-R, XLM-T) was "
                        "expected")
    loud = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()  # its warning about a new head is expected; the rest is checked below
    own = {"local_files_only": True, "trust_remote_code": False}  # unasked, transformers would ask at the terminal
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **own)
        model, found = getattr(transformers, kind).from_pretrained(
            folder, **own, dtype=torch.float32, output_loading_info=True, **options)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"baseline: {folder}: transformers cannot read an encoder there: {error}") from error
    finally:
        transformers.logging.set_verbosity(loud)
    absent = sorted(key for key in found["missing_keys"] if not key.startswith("classifier") and "pooler" not in key)
    if absent:
        raise UserError(f"baseline: {folder}: its weights lack {len(absent)} tensors of the encoder, first {absent[0]}")
    if tokenizer.pad_token is None:
        raise UserError(f"baseline: {folder}: its tokenizer has no padding token; an encoder's has one")
    return tokenizer, model


def _tokens(tokenizer, texts: Sequence[str], settings: Settings, device: str) -> dict[str, torch.Tensor]:
    """input_ids and attention_mask, (B, T) int64, cut after `settings.longest` tokens."""
    found = tokenizer(list(texts), padding=True, truncation=True, max_length=settings.longest, return_tensors="pt")
    return {key: found[key].to(device) for key in ("input_ids", "attention_mask")}


def _means(model, tokens: dict[str, torch.Tensor]) -> torch.Tensor:
    """Of the hidden states over each text's tokens, (B, S) float32."""
    mask = tokens["attention_mask"][:, :, None]
    return (model(**tokens).last_hidden_state.float() * mask).sum(1) / mask.sum(1)


def _train(model, batches: list[torch.Tensor], loss, settings: Settings) -> None:
    """One AdamW step per batch of row numbers; leaves the model in evaluation mode."""
    plain = [p for p in model.parameters() if p.ndim < 2]  # biases and norms are not decayed
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": settings.decay},
                                   {"params": plain, "weight_decay": 0.0}], lr=settings.rate)
    warm = max(1, round(settings.warm_up * len(batches)))
    model.train()
    for number, rows in enumerate(batches):
        factor = min((number + 1) / warm, (len(batches) - number) / max(1, len(batches) - warm))
        for group in optimizer.param_groups:
            group["lr"] = settings.rate * factor
        optimizer.zero_grad()
        loss(rows).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        optimizer.step()
    model.eval()


def _parts(texts: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    return (texts[start : start + size] for start in range(0, len(texts), size))


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed torch's random numbers inside the block; afterwards its generator is as it was before."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
