"""How the run behaves on minimal pairs: how often two labels that should agree do not, or the other way round.

A pair fails if its posts get two labels where the same is expected, or one label where two are. So a model that always
answers the same fails none of the first kind and all of the second: beside each rate stands how often the commonest
answer was given. A rate of one language has Wilson's interval, at 95 %, over the pairs; it takes them as independent
and does not cover how they were chosen and written. Over several languages there is none: the same situations recur
from language to language, not in one order, so nothing says which pairs count together. Beside such a rate stand the
lowest and the highest of a language. Nothing here asks whether a label is right.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import zip_longest

import numpy as np

from audit.minimal import CHECKS, ENOUGH, SAME, Pair
from audit.subject import Subject
from inference.decide import decide
from report.intervals import wilson

SHOWN = 3  # failing pairs of a check that are kept as examples


def behaviour(subject: Subject, pairs: Sequence[Pair], *, shipped: bool = True,
              progress: Callable[[int], object] = lambda total: lambda: None) -> dict:
    """The section for audit.json: by check, by check and language, and examples of failures.

    shipped: whether these are the project's own pairs, whose texts may be shown; of the user's, only numbers are.
    """
    done = progress(1)
    texts = list(dict.fromkeys(text for pair in pairs for text in (pair.first, pair.second)))
    found = subject.probabilities([subject.prompt.encode(text) for text in texts])
    done()
    label = dict(zip(texts, decide(found).tolist(), strict=True))
    answers = np.array([[label[pair.first], label[pair.second]] for pair in pairs]).reshape(-1, 2)
    fails = np.array([(a == b) != (pair.expect == SAME) for pair, (a, b) in zip(pairs, answers, strict=True)])
    checks = list(dict.fromkeys([*(name for name in CHECKS if any(pair.check == name for pair in pairs)),
                                 *(pair.check for pair in pairs)]))
    languages = sorted({pair.language for pair in pairs})
    rows, cells, examples = [], [], []
    for check in checks:
        inside = [pair.check == check for pair in pairs]
        expect = next(pair.expect for pair in pairs if pair.check == check)
        own = []
        for language in languages:
            both = [pair.check == check and pair.language == language for pair in pairs]
            if any(both):
                cell = figures(fails, answers, both, subject.labels)
                own.append({"check": check, "language": language, "few": cell["pairs"] < ENOUGH, **cell})
        cells += own
        rows.append({"check": check, "expect": expect, "about": CHECKS.get(check, (None, None))[1],
                     **figures(fails, answers, inside, subject.labels)})
        if len(own) > 1:
            rates = [cell["rate"] for cell in own]
            rows[-1] |= {"rate_ci": None, "by_language": [min(rates), max(rates)]}
        wrong = spread([number for number in np.flatnonzero(fails) if inside[number]], pairs, len(rows))[:SHOWN]
        examples += [{"check": check, "language": pairs[n].language, "number": 1 + sum(inside[:n]),
                      "posts": [pairs[n].first, pairs[n].second] if shipped else None,
                      "labels": [subject.labels[k] for k in answers[n]]} for n in wrong]
    counts = Counter(pair.language for pair in pairs)
    return {"pairs": len(pairs), "languages": {code: counts[code] for code in languages}, "checks": rows,
            "cells": cells, "examples": examples}


def spread(numbers: Iterable[int], pairs: Sequence[Pair], turn: int) -> list[int]:
    """Numbers of pairs in another order: one of each language after the other, beginning with the language at `turn`.
    """
    by_language: dict[str, list[int]] = {}
    for number in numbers:
        by_language.setdefault(pairs[number].language, []).append(number)
    parts = list(by_language.values())
    first = turn % len(parts) if parts else 0
    return [number for row in zip_longest(*parts[first:], *parts[:first]) for number in row if number is not None]


def figures(fails: np.ndarray, answers: np.ndarray, inside: Iterable[bool], labels: Sequence[str]) -> dict:
    """Counts and rate of some pairs, with the commonest answer among their posts."""
    inside = np.fromiter(inside, dtype=bool)
    count, failed = int(inside.sum()), int(fails[inside].sum())
    answer, times = Counter(answers[inside].reshape(-1).tolist()).most_common(1)[0]
    return {"pairs": count, "failures": failed, "rate": failed / count, "rate_ci": list(wilson(failed, count)),
            "commonest": labels[answer], "commonest_share": times / (2 * count)}
