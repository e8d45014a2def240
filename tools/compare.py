"""Two runs on the same posts: who is right where, with an exact paired test.

    python -m tools.compare runs/a runs/b                     the evaluation that both runs have
    python -m tools.compare runs/a/eval-test runs/b/eval-test
    python -m tools.compare runs/a runs/b --evaluation eval-test

Each run must have been scored by eval.py on the same posts: their predictions.jsonl are joined by id and language;
posts that one of the runs was trained on are left out, as eval.py leaves them out. The test is McNemar's, exact: of the
posts on which only one of the two is right, is it more often one of them? Beside it stands how large the difference can
be: an interval at 95 %, which has a width even where the two agree on every post (stats/paired.py). Where posts belong
together (copies of a text, and what --group-by of eval.py named, such as an author) a group counts as one: its sign is
flipped as a whole. Rows by language and by label are looked at together, so single small p values among them are to be
expected; only the first row, all posts, is one test.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.errors import UserError, run_program
from common.options import option, parse_options
from common.terminal import command, table
from data.codebook import Codebook
from data.groups import connected
from data.languages import language_name
from data.readers import by_id, read_predictions
from finetune.run_folder import RunFolder
from report.counts import Grouping
from report.words import counted, number, percent
from stats.paired import mcnemar, paired_rates
from stats.predictions import Predictions, Rows

PREDICTIONS = "predictions.jsonl"


@dataclass
class CompareOptions:
    """Options of one comparison."""

    runs: list[str] = option((), "the two runs, or folders of their evaluations; the word --runs may be left out",
                             metavar="RUN")
    evaluation: str | None = option(None, "folder of the evaluation in each run, if they share several", metavar="NAME")
    examples: int = option(5, "posts to list, by id, on which the two differ and one is most sure of itself", minimum=0)


class Answer(NamedTuple):
    """What people and the run say of a post, how sure the run is, and the post's group: "" if it is by itself."""

    gold: str
    said: str
    probability: float
    group: str


@dataclass(frozen=True)
class Scored:
    """One evaluation of one run: its folder, the run's name, (id, language) -> answer; and the posts that the run was
    trained on."""

    folder: Path
    name: str
    codebook: Codebook
    rows: dict[tuple[str, str], Answer]
    known: set[tuple[str, str]]


def main(argv: list[str]) -> None:
    """Read both evaluations, compare, print."""
    words = next((n for n, word in enumerate(argv) if word.startswith("-")), len(argv))
    argv = (["--runs", *argv[:words]] if words else []) + argv[words:]
    options = parse_options(CompareOptions, argv, program="python -m tools.compare", description=__doc__)
    if len(options.runs) != 2:
        raise UserError(f"--runs: names {counted(len(options.runs), 'run')}; two are compared")
    first, second = (read(folder) for folder in find(options.runs, options.evaluation))
    if first.name == second.name:  # as the fits of a study are called
        first, second = (replace(side, name=str(side.folder)) for side in (first, second))
    print(compare(first, second, options.examples))


def find(runs: list[str], evaluation: str | None) -> list[Path]:
    """The folders of the two evaluations. Raises `UserError` where there is none, or a choice to be made."""
    folders = [Path(name) for name in runs]
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder}: there is no such folder; give a run that eval.py scored")
    inside = [{path.parent.name for path in folder.glob(f"*/{PREDICTIONS}")} for folder in folders]
    if evaluation is None and all((folder / PREDICTIONS).exists() for folder in folders):
        return folders
    shared = sorted(inside[0] & inside[1]) if evaluation is None else [evaluation]
    for folder, names in zip(folders, inside, strict=True):
        if not names or (evaluation is not None and evaluation not in names):
            which = f"no {evaluation}" if evaluation else "no evaluation"
            raise UserError(f"{folder}: has {which}; score it first: "
                            f"{command('eval.py', '--run', folder)} --data FILE")
    if len(shared) != 1:
        what = f"several evaluations ({', '.join(shared)})" if shared else "no evaluation of one name"
        raise UserError(f"{folders[0]} and {folders[1]}: share {what}; name one with --evaluation, or both folders")
    return [folder / shared[0] for folder in folders]


def read(folder: Path) -> Scored:
    """The predictions in an evaluation's folder, with the codebook of the run that it lies in."""
    run = RunFolder.open(folder.parent)
    codebook = Codebook.from_dict(run.facts["codebook"])
    posts, _ = read_predictions([folder / PREDICTIONS], None, codebook)
    rows, known = {}, set()
    for key, post in by_id(posts).items():
        if post.label is None:
            raise UserError(f"{post.place}: has no gold label; eval.py writes one for every post")
        probabilities = read_probabilities(post.extra.get("probabilities", ""))
        predicted = post.extra["predicted"]
        if post.extra.get("left_out") == "true":
            known.add(key)
        rows[key] = Answer(post.label, predicted, probabilities.get(predicted, float("nan")),
                           post.extra.get("group", ""))
    return Scored(folder, run.path.name, codebook, rows, known)


def read_probabilities(text: str) -> dict[str, float]:
    """The object that eval.py wrote, or an empty one: outside predictions have none."""
    import json

    try:
        found = json.loads(text) if text else {}
        return {str(label): float(p) for label, p in found.items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise UserError(f"probabilities: {text[:40]!r} is not what eval.py writes; score the run again") from error


def compare(first: Scored, second: Scored, examples: int) -> str:
    """All that is printed. Raises `UserError` for other labels, other gold labels, and nothing in common."""
    labels = first.codebook.labels
    if set(second.codebook.labels) != set(labels):
        raise UserError(f"{first.name} and {second.name}: have other labels ({', '.join(labels)}; "
                        f"{', '.join(second.codebook.labels)}), so their answers cannot be compared")
    known = first.known | second.known
    keys = [key for key in first.rows if key in second.rows and key not in known]
    if not keys and known:
        raise UserError(f"{first.folder} and {second.folder}: every post that both have was in the training of one")
    if not keys:
        raise UserError(f"{first.folder} and {second.folder}: have no post in common; score both on the same file")
    for key in keys:
        if first.rows[key].gold != second.rows[key].gold:
            raise UserError(f"{second.folder / PREDICTIONS}: id '{key[0][:40]}' ({key[1]}) is "
                            f"'{second.rows[key].gold}', and '{first.rows[key].gold}' in {first.folder}; score both on "
                            "the same file")
    rows = Rows(np.array([key[0] for key in keys]), np.array([key[1] for key in keys]),
                np.array([labels.index(first.rows[key].gold) for key in keys]),
                np.array(connected(len(keys), *([side.rows[key].group for key in keys] for side in (first, second)))),
                Grouping(labels, first.codebook.related, first.codebook.stance or None))  # fmt: skip
    models = [Predictions(rows, np.array([index_of(side.rows[key].said, labels) for key in keys]))
              for side in (first, second)]  # fmt: skip
    lines = [f"{counted(len(keys), 'post')} in both: 1 is {first.name}, 2 is {second.name}"]
    for side, other in ((first, second), (second, first)):
        alone = len(side.rows.keys() - other.rows.keys())
        if alone:
            lines.append(f"  {alone:,} more of {side.name} are left out: the other evaluation does not have them")
        trained = len(side.known & other.rows.keys())
        if trained:
            lines.append(f"  {trained:,} that {side.name} was trained on are left out")
    groups = len(np.unique(rows.clusters))
    if groups < len(keys):
        lines.append(f"  in {counted(groups, 'group')} of posts that belong together; p and interval count a group as "
                     "one")
    header = ["", "n", "1 right", "2 right", "both", "only 1", "only 2", "neither", "2 less 1, points", "95 % interval",
              "p (exact)"]
    lines += ["", table(header, list(lines_of(models, labels))), "", verdict(models, first.name, second.name)]
    if examples:
        lines += ["", *apart(first, second, keys, examples)]
    return "\n".join(lines)


def index_of(label: str, labels: tuple[str, ...]) -> int:
    return labels.index(label) if label in labels else len(labels)


def lines_of(models: list[Predictions], labels: tuple[str, ...]) -> Iterator[list]:
    """One line for all posts, then for every language, then for every human label."""
    rows = models[0].rows
    yield line_of("all", models, np.ones(len(rows.gold), dtype=bool))
    for code in rows.languages:
        yield line_of(language_name(code), models, rows.language == code)
    for index, label in enumerate(labels):
        if (rows.gold == index).any():
            yield line_of(f"“{label}”", models, rows.gold == index)


def line_of(name: str, models: list[Predictions], chosen: np.ndarray) -> list:
    right = [model.correct[chosen] for model in models]
    both, only = int((right[0] & right[1]).sum()), [int((right[k] & ~right[1 - k]).sum()) for k in (0, 1)]
    part = Rows(*(column[chosen] for column in (models[0].rows.ids, models[0].rows.language, models[0].rows.gold,
                                                models[0].rows.clusters)), models[0].rows.grouping)  # fmt: skip
    test = mcnemar(*(Predictions(part, model.predicted[chosen]) for model in models))
    n = int(chosen.sum())
    p = p_of(test)
    return [name, n, *(number(float(side.mean())) for side in right), both, *only, n - both - sum(only),
            f"{-100 * test['difference']:+.1f}", "[{}, {}]".format(*points(models, chosen)),
            number(p) if p >= 0.001 else "<0.001"]


def points(models: list[Predictions], chosen: np.ndarray | slice = slice(None)) -> list[str]:
    """The ends of the interval of the difference of the two accuracies, second less first, in points."""
    gain = models[1].correct[chosen].astype(int) - models[0].correct[chosen]
    return [f"{100 * end:+.1f}" for end in paired_rates(gain, models[0].rows.clusters[chosen])]


def p_of(test: dict) -> float:
    """McNemar's exact p, or that of signs flipped group by group where posts belong together."""
    return test["p"] if test["p_clusters"] is None else test["p_clusters"]


def verdict(models: list[Predictions], first: str, second: str) -> str:
    """The one test that counts, in words."""
    test = mcnemar(*models)
    shares = [percent(float(model.correct.mean())) for model in models]
    apart, p = test["n01"] + test["n10"], p_of(test)
    if p < 0.05:
        sides = [(first, shares[0]), (second, shares[1])]
        (better, its), (worse, others) = sides if test["difference"] > 0 else sides[::-1]
        ends = points(models[::-1] if test["difference"] > 0 else models)
        told = (f"{better} is right more often than {worse} ({its} and {others}): of the {apart} posts on which "
                f"only one is right, {max(test['n01'], test['n10'])} go to it, p = {p:.3g}. It is ahead by "
                f"{ends[0].lstrip('+')} to {ends[1].lstrip('+')} points (95 % interval).")
    else:
        ends, one = points(models), f"{test['n10']} go to {first} and {test['n01']} to {second}, p = {p:.2g}"
        where = (f"of the {apart} posts on which only one is right, {one}" if apart
                 else "both are right on the same posts")
        told = (f"No difference is shown ({' and '.join(shares)}): {where}. That is not to say that they are alike: "
                f"{second} less {first} may be anything from {ends[0]} to {ends[1]} points (95 % interval).")
    if (p < 0.05) == (float(ends[0]) <= 0 <= float(ends[1])):
        told += (" The interval is approximate: where it and the test differ on 0, as here, the test, which is exact, "
                 "counts.")
    return told


def apart(first: Scored, second: Scored, keys: list[tuple[str, str]], count: int) -> Iterator[str]:
    """The posts on which they differ, the surest first; by id, since evaluations hold no texts."""
    found = []
    for key in keys:
        (gold, one, p, _), (_, other, q, _) = first.rows[key], second.rows[key]
        if one != other:
            found.append((-np.nanmax([p, q, 0.0]), key, gold, one, p, other, q))
    if not found:
        yield "they agree on every post"
        return
    found.sort(key=lambda entry: entry[:2])
    yield f"they differ on {counted(len(found), 'post')}; the surest of these:"
    yield table(["id", "language", "human", "1 says", "p", "2 says", "p"],
                [[key[0][:24], key[1], gold, one, number(p), other, number(q)]
                 for _, key, gold, one, p, other, q in found[:count]])


if __name__ == "__main__":
    run_program(main)
