"""What a few posts of each other language change: fits that labelled the same posts, as figures, contrasts, a picture.

    python -m benchmarks.exposure --fits fits.json --data test.jsonl --trained-on runs/all/training_texts.json \\
        --json docs/recipes.json --figure docs/exposure.png

`fits.json` names, for each set of training posts, the model, how many posts of each other language it holds, and each
seed's `predictions.jsonl`:

    {"English, 25 of each other": {"model": "SmolLM2-135M", "others": 25, "seeds": {"11": "runs/a/predictions.jsonl"}}}

All are scored on the posts whose text the largest training set does not hold, in three groups: English, Spanish, and
the other languages together ("ten"). The figures of each fit go under --part in the JSON file, whose other parts stay
as they are. The comparisons that `CONTRASTS` has for this part are one family (stats/families.py): with three seeds on
both sides, the interval takes in other seeds and other test posts.

    python -m benchmarks.exposure --fits docs/fits/fits.json --part training_languages ...

does so for the fits whose answers are kept in docs/fits.
"""

from dataclasses import dataclass
from math import isnan
from pathlib import Path

import numpy
from matplotlib.figure import Figure

from common.errors import UserError, run_program
from common.files import check_file, check_picture, write_json
from common.options import option, parse_options
from common.reading import read_json
from data.annotators import read_labelled
from data.checks import TrainingTexts, check_test
from data.codebook import load_codebook
from data.readers import by_id, read_predictions
from finetune.options import TrainOptions
from report.counts import Grouping
from report.figures import GREY, INK, SEEN, UNSEEN, save, styled
from stats.families import Contrast, family
from stats.predictions import Predictions, Rows
from stats.recipes import ALL_ROWS, Fits
from tools.compare import index_of, read_probabilities

ALONE, SPANISH, BOTH, ALL = "English alone", "Spanish alone", "English and Spanish", "All twelve"
FEW, SOME, MANY = (f"English, {count} of each other" for count in (5, 25, 75))
PUBLISHED = "Llama 3.2-3B as published"
TOPIC, STANCE = "topic.macro_f1", "stance.conditional.macro_f1"
FIGURES = ("accuracy", "macro_f1", TOPIC, "topic.recall", "topic.specificity", STANCE)
CONTRASTS = {"exposure": [(BOTH, ALONE), (FEW, ALONE), (SOME, ALONE), (SOME, FEW), (MANY, SOME), (ALL, SOME)],
             "training_languages": [(SPANISH, ALONE), (BOTH, ALONE), (ALL, ALONE), (ALL, BOTH)]}
STEPS = {ALONE: 0, FEW: 1, SOME: 2, MANY: 3}  # the picture's places; sets without one are written at its right


@dataclass
class ExposureOptions:
    """Options of this program."""

    fits: str | None = option(None, "which fits there are, and their predictions", metavar="FILE")
    data: list[str] = option((), "the labelled posts", metavar="FILE")
    trained_on: str | None = option(None, "training_texts.json of the largest training set", metavar="FILE")
    json: str | None = option(None, "file of which a part is written", metavar="FILE")
    part: str = option("exposure", "which part, and so which comparisons", choices=tuple(CONTRASTS))
    figure: str | None = option(None, "picture to draw of \"exposure\": .png, .svg or .pdf", metavar="FILE")
    draws: int = option(10_000, "resampled sets of posts", minimum=100)


def main(argv: list[str]) -> None:
    """Score and compare where --fits is given; draw where --figure is."""
    options = parse_options(ExposureOptions, argv, program="python -m benchmarks.exposure", description=__doc__)
    if options.json is None:
        raise UserError("--json: is needed")
    read = {"--fits": options.fits, "--trained-on": options.trained_on}
    check_file(options.json, "--json", read)
    check_picture(options.figure, read | {"--json": options.json})
    path = Path(options.json)
    result = read_json(path) if path.exists() else {}
    if not isinstance(result, dict):
        raise UserError(f"--json {path}: holds no object to put a part into; name another file")
    if options.fits:
        if not options.data or options.trained_on is None:
            raise UserError("--fits: needs --data and --trained-on beside it")
        asked = asked_of(options.fits)
        rows = table_of(options.data, options.trained_on)
        result[options.part] = figures_of(asked, rows, CONTRASTS[options.part], options.draws)
        write_json(path, result)
    if options.figure:
        if not isinstance(result.get("exposure"), dict) or "sets" not in result["exposure"]:
            raise UserError(f"--figure: {path} has no part \"exposure\" to draw; --fits computes it")
        draw(result["exposure"], options.figure)


def asked_of(path: str) -> dict:
    """What `--fits` names; `UserError` for what is not as the module's docstring shows it."""
    asked = read_json(path)
    for name, one in asked.items() if isinstance(asked, dict) else [("", None)]:
        seeds = one.get("seeds") if isinstance(one, dict) else None
        if not isinstance(seeds, dict) or not all(isinstance(file, str) for file in seeds.values()) or not (
                {"model", "others"} <= one.keys()):
            raise UserError(f"{path}: {name or 'the whole'}: is not an object of \"model\", \"others\" and "
                            "\"seeds\", the files of predictions by seed")
    return asked


def table_of(data: list[str], trained_on: str) -> Rows:
    """The labelled posts whose text the largest training set does not hold."""
    book = load_codebook()
    posts, _, _ = read_labelled([Path(name) for name in data], TrainOptions().columns(), book)
    kept = check_test(TrainingTexts.from_file(Path(trained_on)), posts, "same").kept
    return Rows(numpy.array([post.id for post in kept], dtype=object),
                numpy.array([post.language for post in kept], dtype=object),
                numpy.array([book.index(post.label) for post in kept]), numpy.arange(len(kept)),
                Grouping(book.labels, book.related, book.stance or None))


def predictions_of(path: str, rows: Rows) -> Predictions:
    """One fit's answers to the table's posts. Raises `UserError` if one is missing."""
    labels, found = rows.grouping.labels, by_id(read_predictions([Path(path)])[0])
    answers = [found.get(key) for key in zip(rows.ids, rows.language, strict=True)]
    if None in answers:
        raise UserError(f"{path}: has no answer to post '{rows.ids[answers.index(None)]}'")
    each = [read_probabilities(post.extra.get("probabilities", "")) for post in answers]
    p = numpy.array([[one[label] for label in labels] for one in each]) if all(each) else None
    return Predictions(rows, numpy.array([index_of(post.extra["predicted"], labels) for post in answers]), p)


def figures_of(asked: dict, rows: Rows, pairs: list[tuple[str, str]], draws: int) -> dict:
    """Each fit's figures by group of languages, and the family of contrasts between sets with fits of one model."""
    groups = {"en": ["en"], "es": ["es"], "ten": [code for code in rows.languages if code not in ("en", "es")]}
    for group, codes in groups.items():
        if not rows.where(codes).any():
            raise UserError(f"--data: has no post {'in another language' if group == 'ten' else f'in {group}'} whose "
                            "text was not trained on; name files that have English, Spanish and other posts")
    fits = {name: {(ALL_ROWS, seed): predictions_of(path, rows) for seed, path in one["seeds"].items()}
            for name, one in asked.items()}
    found = {"posts": {group: int(rows.where(codes).sum()) for group, codes in groups.items()}, "sets": {}}
    for name, one in asked.items():
        found["sets"][name] = {"model": one["model"], "others": one["others"], "seeds": {
            seed: {group: cell_of(fit, codes) for group, codes in groups.items()}
            for (_, seed), fit in fits[name].items()}}
    found["contrasts"] = contrasts_of(fits, groups["ten"], pairs, draws)
    return found


def cell_of(fit: Predictions, codes: list[str]) -> dict:
    """The figures of one fit in one group, and the language whose topic is found worst, of those where it can be said.
    """
    cell = {name: rounded(fit.figure(name, codes)) for name in FIGURES
            if fit.probabilities is not None or name != STANCE}
    topic = {code: found for code in codes if not isnan(found := fit.figure(TOPIC, [code]))}
    worst = min(topic, key=topic.get, default=None)
    return cell | {"lowest": worst and {"language": worst, TOPIC: rounded(topic[worst])}}


def rounded(figure: float) -> float | None:
    """A figure to four places; None, as JSON has no NaN, for one that cannot be computed."""
    return None if isnan(figure) else round(float(figure), 4)


def contrasts_of(fits: dict[str, Fits], codes: list[str], pairs: list[tuple[str, str]], draws: int) -> list[dict]:
    """These pairs in topic and stance as one family, as far as both sides have fits."""
    there = [(first, second, figure) for figure in (TOPIC, STANCE) for first, second in pairs
             if first in fits and second in fits]
    found = family([Contrast(f"{first} - {second}", fits[first], fits[second], figure, codes)
                    for first, second, figure in there], draws=draws)
    keys = ("value", "low", "high", "simultaneous_low", "simultaneous_high", "p", "p_holm")
    return [{"first": first, "second": second, "figure": figure, "holds": line["holds"]}
            | {key: rounded(line[key]) for key in keys} for (first, second, figure), line in
            zip(there, found, strict=True)]


def figures_in(found: dict, one: str, group: str, name: str) -> list[float]:
    """A figure of each fit of a set in one group of languages, where it could be computed."""
    cells = [seed[group] for seed in found["sets"].get(one, {"seeds": {}})["seeds"].values()]
    return [cell[name] for cell in cells if cell.get(name) is not None]


def draw(found: dict, path: str) -> None:
    """Topic and stance over the posts of each other language: a dot for each fit, a line through the means."""
    with styled():
        figure = Figure(figsize=(9.6, 4.2), layout="constrained")
        both = figure.subplots(1, 2, sharey=True)
        for axes, name, title in zip(both, (TOPIC, STANCE), ("Topic", "Stance of related posts"), strict=True):
            for group, colour, label in (("en", GREY, "English"), ("ten", UNSEEN, "ten other languages")):
                means, dots = {}, {}
                for one, place in STEPS.items():
                    values = figures_in(found, one, group, name)
                    if values:
                        means[place], dots[place] = sum(values) / len(values), values
                        axes.plot([place] * len(values), values, "o", color=colour, alpha=0.45, markersize=5, mew=0)
                axes.plot(list(means), list(means.values()), "-", color=colour, linewidth=1.8)
                if means:
                    last = max(means)
                    above = group == "en"  # names lie outside the two lines, and clear of their dots
                    axes.annotate(label, (last, (max if above else min)(dots[last])), color=colour, ha="center",
                                  xytext=(0, 9 if above else -9), textcoords="offset points",
                                  va="bottom" if above else "top")
            beside(axes, found, name)
            axes.set_title(title)
            axes.set_xticks(list(STEPS.values()), ["0", "5", "25", "75"])
            axes.set_xlim(-0.3, 5.6)
            axes.set_xlabel("posts of each other language beside 1,125 English ones", loc="left")
            axes.yaxis.grid(True, color="#eeeeee")
            axes.set_axisbelow(True)
        both[0].set_ylabel("macro-F1")
        both[0].set_ylim(0, 1)
        save(figure, path)


def beside(axes, found: dict, name: str) -> None:
    """English and Spanish, and all twelve, right of the line: each fit in the ten languages; and the paper's own."""
    for place, one, label in ((4.55, BOTH, "750 Spanish"), (5.2, ALL, "all twelve")):
        values = figures_in(found, one, "ten", name)
        if values:
            axes.plot([place] * len(values), values, "D", color=SEEN, alpha=0.45, markersize=5, mew=0)
            axes.annotate(label, (place, min(values)), xytext=(0, -9), textcoords="offset points", ha="center",
                          va="top", color=INK, fontsize=8)
    for place, one in ((0, ALONE), (4.55, BOTH), (5.2, ALL)):
        for value in figures_in(found, f"{PUBLISHED}: {one}", "ten", name):
            axes.plot(place, value, "^", color=INK, markersize=6, mfc="none",
                      label=f"{PUBLISHED}, one fit" if one == ALONE else None)
            axes.legend(frameon=False, loc="lower right")


if __name__ == "__main__":
    run_program(main)
