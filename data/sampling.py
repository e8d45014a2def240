"""Which posts are trained on, and in which order.

`choose_posts` takes all posts of a language or a budget ("75 Turkish posts"). A budget takes the first rows of one
seeded order per language, so that the 25 rows of a seed are among its 75, and along a curve of budgets nothing but the
budget changes. In that order every beginning holds the labels in the language's own proportions, each within one row
of its share, by the chairman assignment algorithm (R. Tijdeman, Discrete Mathematics 32, 1980): at step k, among the
labels that are owed at least 1 / (2m - 2) of a row (m labels), take the one whose next row falls due first.

Epochs are drawn from an explicit numpy Generator. A balanced epoch has as many rows as the data, spread evenly over
languages, labels or cells: scarce rows are repeated, plentiful ones are drawn without replacement. It comes in rounds
that have one row of each cell, so a step of few posts already holds each label once. A step that shows one label twice
and another never pulls every answer towards the former; at small batches and high rates this noise hides what the
posts could teach (docs/recipes.md).
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from common.errors import UserError
from common.reading import LARGE, read_bytes
from data.languages import language_name, one_language
from data.posts import Post
from data.splits import hash_order

BALANCES = ("none", "language", "label", "both")


def choose_posts(
    posts: Sequence[Post],
    *,
    languages: Sequence[str] | None = None,
    per_language: Mapping[str, int] | None = None,
    seed: int = 0,
) -> list[Post]:
    """All posts of `languages` and, of each language in `per_language`, as many as given there, in input order.

    For a language in both, the budget counts. Without `languages` every language is taken, so `per_language` alone
    limits the languages that it names and leaves the others whole. Raises `UserError` for a language with no post or
    fewer than its budget, a language that is named twice, and a tag that is not a language; tags are reduced as in
    files ("in" is "id").
    """
    there = Counter(post.language for post in posts)
    named = per_language or {}
    per_language = dict(zip(_codes(named, there, "--per-language"), named.values(), strict=True))
    wanted = list(there) if languages is None else _codes(languages, there, "--languages")
    wanted += [code for code in per_language if code not in wanted]
    keep: set[int] = set()
    indices: defaultdict[str, list[int]] = defaultdict(list)
    for index, post in enumerate(posts):
        indices[post.language].append(index)
    for code in wanted:
        option = "--per-language" if code in per_language else "--languages"
        if not there[code]:
            counts = ", ".join(f"{one} {count:,}" for one, count in sorted(there.items()))
            raise UserError(f"{option} {code}: there is no post in {language_name(code)}; the files have {counts}")
        own, budget = indices[code], per_language.get(code, there[code])
        if budget < 1:
            raise UserError(f"--per-language {code}={budget}: is not a number of posts; write 1 or more")
        if budget > len(own):
            raise UserError(
                f"--per-language {code}={budget}: there are only {len(own):,} posts in {language_name(code)}; "
                f"ask for {len(own)} or fewer"
            )
        if budget < len(own):
            order = stratified_order([posts[index] for index in own], seed)
            own = [own[i] for i in order[:budget]]
        keep.update(own)
    return [post for index, post in enumerate(posts) if index in keep]


def only_posts(posts: Sequence[Post], path: str | Path) -> list[Post]:
    """The posts that a file names, one "language, tab, id" per line, in the order of `posts`.

    Raises `UserError` for a line in another format and for a post that does not exist.
    """
    wanted = {}
    try:
        lines = read_bytes(path, LARGE).decode("utf-8").splitlines()
    except (UserError, UnicodeDecodeError) as error:
        raise UserError(f"--rows {path}: cannot be read ({error})") from error
    for number, line in enumerate(lines, 1):
        language, tab, id = line.partition("\t")
        if not tab or not id:
            raise UserError(f"{path}: line {number}: is not a language, a tab and an id")
        wanted[language, id] = number
    chosen = [post for post in posts if wanted.pop((post.language, post.id), None) is not None]
    if wanted:
        (language, id), number = next(iter(wanted.items()))
        raise UserError(f"{path}: line {number}: there is no post '{id}' in {language_name(language)} "
                        f"among the {len(posts):,} that were read")
    if not chosen:
        raise UserError(f"--rows {path}: names no post; a line holds a language, a tab and an id")
    return chosen


def _codes(tags: Iterable[str], there: Mapping[str, int], option: str) -> list[str]:
    """Each tag's code, or the tag itself if posts have it (a language without a two-letter code)."""
    codes = [tag if tag in there else one_language(tag, option) for tag in tags]
    for code in codes:
        if codes.count(code) > 1:
            raise UserError(f"{option}: names {code} ({language_name(code)}) twice; name each language once")
    return codes


def stratified_order(posts: Sequence[Post], seed: int) -> list[int]:
    """Indices of posts in a seeded order in which the labels of every beginning are within one row of their shares.

    |rows of a label among the first k - k * its share| <= 1 - 1 / (2m - 2) for m labels. The position of a post in the
    file plays no part; see `data.splits.hash_order`.
    """
    queues: defaultdict[str, list[int]] = defaultdict(list)
    for index in sorted(range(len(posts)), key=lambda i: hash_order(posts[i], seed)):
        queues[posts[index].label or ""].append(index)
    sizes = {label: len(queue) for label, queue in sorted(queues.items())}
    if len(sizes) == 1:
        return next(iter(queues.values()))
    n, slack = len(posts), 2 * len(sizes) - 2
    taken, order = dict.fromkeys(sizes, 0), []
    for k in range(1, n + 1):
        owed = [label for label, size in sizes.items() if (size * k - taken[label] * n) * slack >= n]
        due = min(owed, key=lambda label: Fraction((taken[label] + 1) * slack - 1, sizes[label]))
        order.append(queues[due][taken[due]])
        taken[due] += 1
    return order


def epoch_order(posts: Sequence[Post], generator: np.random.Generator, balance: str = "none") -> np.ndarray:
    """Indices for one epoch, (len(posts),) int64: a permutation, or as many rows spread evenly over cells.

    `balance`: "none", "language", "label" or "both" (each pair of language and label is a cell). With n rows and m
    cells, each cell gets n // m rows, and n % m cells, drawn for each epoch, get one more. A cell with fewer rows than
    that repeats all of them equally often, and the remainder is drawn without replacement. The order is one of rounds:
    every m rows hold each cell once, in random order; what is over comes last. All draws come from `generator`.
    """
    if balance not in BALANCES:
        raise UserError(f"--balance {balance}: is not one of {', '.join(BALANCES)}")
    if balance == "none":
        return generator.permutation(len(posts))
    cells: defaultdict[tuple, list[int]] = defaultdict(list)
    for index, post in enumerate(posts):
        key = {"language": (post.language,), "label": (post.label,), "both": (post.language, post.label)}[balance]
        cells[key].append(index)
    share, rest = divmod(len(posts), len(cells))
    more = set(generator.permutation(len(cells))[:rest].tolist())
    rows, rounds = [], []
    for number, own in enumerate(cells.values()):
        whole, part = divmod(share + (number in more), len(own))
        rows += [*generator.permutation(own * whole + generator.choice(own, part, replace=False).tolist())]
        rounds += range(share + (number in more))
    return np.array(rows, dtype=np.int64)[np.argsort(rounds + generator.random(len(rounds)))]


def order_by_epoch(posts: Sequence[Post], seed: int, balance: str = "none") -> Callable[[int], list[int]]:
    """`order(epoch) -> indices`, which does not depend on earlier draws, so that resuming needs no saved state."""
    if balance not in BALANCES:
        raise UserError(f"--balance {balance}: is not one of {', '.join(BALANCES)}")
    return lambda epoch: epoch_order(posts, np.random.default_rng([seed, epoch]), balance).tolist()


def class_weights(posts: Sequence[Post], labels: Sequence[str]) -> np.ndarray:
    """Weights (C,) float64 for the labels' losses: n / (C' n_c), with C' labels that have rows; 0 for the others.

    These are inverse frequencies whose mean over the rows is 1, so that the loss keeps its scale and the learning rate
    its meaning (scikit-learn's "balanced").
    """
    counts = Counter(post.label for post in posts)
    present = sum(counts[label] > 0 for label in labels)
    total = sum(counts[label] for label in labels)
    if not total:
        raise UserError("--class-weights: no post has one of the codebook's labels")
    return np.array([total / (present * counts[label]) if counts[label] else 0.0 for label in labels])
