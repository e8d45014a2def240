"""The report's pictures: each drawn for a desk and for a phone, with its caption and, folded below, its numbers.

What a picture shows can so be read without seeing it, and copied into a spreadsheet.
"""

from collections.abc import Callable, Mapping, Sequence

from report import captions, figures
from report.intervals import wilson
from report.markup import Html, escape, folded, grid, join, tag
from report.tables import by_language
from report.words import interval, number


def both_widths(wide, narrow, name: str, words: str) -> list[Html]:
    """The figure drawn for a desk and the same for a phone; the style shows one. `words`: said in place of it."""
    return [tag("div", Html(figures.svg(figure, own).replace("<svg", f'<svg aria-label="{escape(words)}"', 1)),
                class_=f"picture {which}")
            for figure, own, which in ((wide, name, "desk"), (narrow, f"{name}-phone", "phone"))]


def framed(draw: Callable, name: str, title: str, caption: Callable, numbers: Html | None = None,
           where: str = "the table below it has the numbers") -> Html | None:
    """`draw(width)` as the page shows it, with `caption(figure)`, which is read from the figure; None without one.

    `title`: what a screen reader calls the picture, and its table `numbers`; `where`: where it finds the numbers.
    """
    if (wide := draw(figures.WIDE)) is None:
        return None
    return join([tag("figure", *both_widths(wide, draw(figures.NARROW), name, f"Picture: {title}; {where}"),
                     tag("figcaption", caption(wide))),
                 folded("The picture's numbers", numbers) if numbers else None])


def of_intervals(metrics: Mapping, names: Mapping[str, str] | None) -> Html | None:
    """Accuracy by language, beside that of a constant answer."""
    title, panels = "Accuracy by language, with intervals", figures.panels_of(metrics)

    def cells(name: str, cell: Mapping) -> list:
        parts = [of(cell) for _, of in panels]
        return [[name, *(words for part in parts for words in
                         (two(number(part["accuracy"]), interval(part["accuracy_ci"])),
                          number(part["majority"]["accuracy"])))]]

    header = ["language", *(words for what, _ in panels for words in (what, "best constant"))]
    return framed(lambda width: figures.intervals_by_language(metrics, names, width), "intervals", title,
                  lambda figure: captions.of_intervals(figure, metrics["intervals"]["level"]),
                  grid(title, header, by_language(metrics, names, cells), class_="wide"))


def of_heat_map(metrics: Mapping, names: Mapping[str, str] | None) -> Html | None:
    """All figures by language; the table "All figures" has their numbers."""
    return framed(lambda width: figures.heat_map(metrics, names, width), "heat", "All figures, by language",
                  captions.of_heat_map, where="the table “All figures” has the numbers")


def of_confusion(metrics: Mapping) -> Html | None:
    """Which labels are confused."""
    title = "Posts by human label (rows) and the model's label (columns)"
    labels, counts = metrics["confusion"]["labels"], metrics["confusion"]["counts"]
    rows = [[label, *(f"{count:,}" for count in line), f"{sum(line):,}"]
            for label, line in zip(labels, counts, strict=True)]
    return framed(lambda width: figures.confusion_matrix(metrics, width), "confusion", title, captions.of_confusion,
                  grid(title, ["human label", *labels, "other answer", "all"], rows, class_="wide"))


def of_reliability(metrics: Mapping) -> Html | None:
    """Stated probabilities and shares of right answers; those that --abstain leaves have a table of their own."""
    title = "Probability of the answer, and share of right answers"
    bins = (metrics["calibration"] or {}).get("bins", [])
    rows = []
    for b in bins:
        worth = b.get("worth", 1.0)  # of an evaluation before there was one
        ends = wilson(worth * b["right"], worth * b["n"])
        rows.append([f"{b['low']:.3f} to {b['high']:.3f}", f"{b['n']:,}", number(b["confidence"]),
                     two(number(b["right"] / b["n"]), interval(ends))])
    return framed(lambda width: figures.reliability(metrics, width), "reliability", title, captions.of_reliability,
                  grid(title, ["probability", "posts", "mean probability", "share that is right"], rows, class_="wide"))


def of_loss(steps: Sequence[Mapping]) -> Html | None:
    """The loss of training, of which the run's log.jsonl has every step."""
    return framed(lambda width: figures.loss_curve(steps, width), "loss", "Training loss by step", captions.of_loss,
                  where="log.jsonl in the run's folder has the numbers")


def two(figure: str, below: str | None) -> Html:
    """A figure and, in a line below it, its interval if it has one."""
    return join([figure, tag("small", below) if below else ""], "")
