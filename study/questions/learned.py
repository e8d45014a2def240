"""How baselines that learn from a set's training rows label the study's test rows.

They see exactly the rows that the set's first fit saw, fold by fold, and answer the posts that this fit answers. What
is slow to make is kept in OUT/baselines/HASH.json, where HASH covers all that determines it: kind, training rows, asked
texts, settings and, for an encoder, the bytes of its folder.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from baselines import tfidf as baselines
from baselines.encoder import Settings, fine_tune, set_fit
from baselines.regression import STRENGTHS, regress
from baselines.sentences import SentenceEncoder
from common.errors import UserError
from common.files import find_path, sha256_file, sha256_json, write_json
from data.posts import Post
from inference.decide import decide
from stats.predictions import Predictions
from study.fits import Fit
from study.inputs import Material, posts_hash
from study.kept import read_probabilities
from study.results import Results

Found = tuple[np.ndarray, np.ndarray]  # indices (n,) and probabilities (n, C)
Method = Callable[[Fit, list[Post], list[Post]], Found]  # fit, its training posts, asked posts


def trained_on(material: Material) -> Callable[[Fit], list[Post]]:
    """A function from a fit to its training posts."""
    by_key = {(post.language, post.id): post for post in [*material.rows, *material.train]}
    return lambda fit: [by_key[key] for key in fit.keys]


def first_fits(results: Results, name: str) -> list[Fit]:
    """The fits behind `results.first(name)`: one, or one per fold."""
    repeat = results.plan.repeat
    wanted = (name, "set", repeat.templates[0], repeat.seeds[0], repeat.draws[0])
    return [fit for fit in results.fits
            if (fit.name, fit.kind, fit.template, fit.seed, fit.draw) == wanted and fit.fold[0] <= 1]


def answers_of(results: Results, fits: Sequence[Fit], train_of: Callable[[Fit], list[Post]], method: Method
               ) -> Predictions:
    """A method's answers to the kept rows, each learnt from the training rows of the fit that answers it."""
    posts, labels = results.posts(results.kept), results.kept.grouping.labels
    by_fold = {fit.fold[1]: fit for fit in fits}
    first = min(by_fold)
    held = results.material.fold_of(fits[0].fold[0], results.plan.repeat.folds) if first else {}
    fold = np.array([held.get(id(post), first) for post in posts])
    predicted, probabilities = np.zeros(len(posts), dtype=np.int64), np.zeros((len(posts), len(labels)))
    for number, fit in by_fold.items():
        indices = np.flatnonzero(fold == number)
        if len(indices):
            predicted[indices], probabilities[indices] = method(fit, train_of(fit), [posts[k] for k in indices])
    return Predictions(results.kept, predicted, probabilities)


def majority(results: Results) -> Method:
    """The commonest label of the training rows."""
    book = results.material.codebook
    return lambda fit, train, asked: baselines.majority([book.index(post.label) for post in train], len(book.labels),
                                                        len(asked))


def tfidf(results: Results) -> Method:
    """The regression of baselines/tfidf.py with its own settings."""
    book = results.material.codebook

    def method(fit: Fit, train: list[Post], asked: list[Post]) -> Found:
        return kept(results, ["tfidf", baselines.STRENGTH], train, asked, lambda: baselines.tfidf(
            [post.text for post in train], [book.index(post.label) for post in train], len(book.labels),
            [post.text for post in asked]))

    return method


def encoder(results: Results, kind: str, folder: str) -> Method:
    """An encoder in a local folder, fine-tuned ("encoder") or by SetFit ("setfit"), with the fit's own seed."""
    book, path = results.material.codebook, find_path(folder)
    make = {"encoder": fine_tune, "setfit": set_fit}[kind]
    device, digest = str(getattr(results.runner, "device", "cpu")), folder_hash(path)

    def method(fit: Fit, train: list[Post], asked: list[Post]) -> Found:
        settings = Settings(seed=fit.seed)
        return kept(results, [kind, digest, asdict(settings)], train, asked, lambda: make(
            path, [post.text for post in train], [book.index(post.label) for post in train], len(book.labels),
            [post.text for post in asked], settings, device))

    return method


def regression(results: Results, source: str) -> Method:
    """A regression on the vectors of a sentence encoder, the package's or one in a local folder; each text's vector is
    computed once."""
    book, known = results.material.codebook, {}
    encoder = SentenceEncoder(source if source == "package" else find_path(source))
    digest = encoder.name if source == "package" else folder_hash(find_path(source))

    def vectors(posts: list[Post]) -> np.ndarray:
        new = list(dict.fromkeys(post.text for post in posts if post.text not in known))
        known.update(zip(new, encoder.encode(new), strict=True))
        return np.stack([known[post.text] for post in posts])

    def method(fit: Fit, train: list[Post], asked: list[Post]) -> Found:
        return kept(results, ["regression", digest, STRENGTHS], train, asked, lambda: regress(
            vectors(train), [book.index(post.label) for post in train], len(book.labels), vectors(asked))[:2])

    return method


def folder_hash(folder: Path) -> str:
    """SHA-256 of every file of a folder. Raises `UserError` if there is no such folder."""
    if not folder.is_dir():
        raise UserError(f"baseline: {folder}: there is no such folder; a local folder of an encoder was expected")
    return sha256_json([[path.name, sha256_file(path)] for path in sorted(folder.iterdir()) if path.is_file()])


def kept(results: Results, what: list, train: list[Post], asked: list[Post], make: Callable[[], Found]) -> Found:
    """What `make` gives, read from its file if it was made before."""
    labels = results.material.codebook.labels
    name = sha256_json([what, list(labels), posts_hash(train), posts_hash(asked)])
    path = results.runner.out / "baselines" / f"{name[:16]}.json"
    if path.exists():
        probabilities = read_probabilities(path, len(asked), len(labels))
        return decide(probabilities), probabilities
    predicted, probabilities = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"what": what, "labels": list(labels), "rows": probabilities.tolist()})
    return predicted, probabilities
