"""`report.html`: one self-contained file that opens with what was found and how certain it is.

    page(metrics, facts, steps=...)  -> str      an evaluation, a training run, or both: empty parts are left out
    write_page(path, metrics, facts, ...)        the same, written completely or not at all

It contains no scripts, fonts or addresses, and a content security policy that would stop one. Post texts appear only in
`posts`, which a program passes only if the user asks for it. Every string goes through report/markup.py. Pictures are
SVG elements of the page, each drawn twice, for a desk and for a phone; report/page.css is copied into the page and
shows one of them.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from common.files import atomic_write
from report import captions, pictures
from report.beside import beside_section
from report.cells import MIN_ROWS
from report.clusters import MIN_GROUPS
from report.markup import Html, escape, folded, grid, join, tag
from report.markup import facts as facts_list
from report.pictures import two
from report.probabilities import probabilities_section
from report.tables import by_language, cells_of, header_of, how_to_read, short_cells, short_header
from report.words import counted, findings, groups, interval, language_name, number, rate, unbroken

STYLE = Path(__file__).with_name("page.css")
# A browser loads nothing and runs nothing for such a page, whatever a string in it turned out to be.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
POSTS = 500  # at most so many posts are listed; a browser must still be able to open the page


def page(
    metrics: Mapping | None = None,
    facts: Mapping | None = None,
    *,
    steps: Iterable[Mapping] = (),
    agreement: Mapping[str, float | None] | None = None,
    agreement_name: str = "Krippendorff's alpha",
    posts: Sequence[Mapping] | None = None,
    names: Mapping[str, str] | None = None,
    title: str = "Glass Llama",
    caution: str = "",
    below_table: Sequence[str] = (),
) -> str:
    """The page as text.

    `metrics`: the dict of metrics.json. `facts`: a dict like run.json; each key with a dict or list gets a heading.
    `steps`: the lines of log.jsonl. `agreement`: annotators' agreement by language code (and "all"), shown beside the
    accuracy. `posts`: dicts to list, text included. `names`: additional names of languages. `caution`: words to add to
    the third line, for example that the rows were also used to choose the adapter. `below_table`: sentences to stand
    below the table of languages.
    """
    steps = list(steps)
    found = findings(metrics, caution=caution, names=names) if metrics else \
        training_findings(steps, facts or {})
    sections = [tag("h1", title), tag("div", *(tag("p", unbroken(line)) for line in found), class_="found")]
    if metrics and metrics["n"]:
        sections += [_pictures(metrics, names), _table(metrics, names, agreement, agreement_name, below_table),
                     beside_section(metrics.get("baseline")), _labels(metrics), _columns(metrics),
                     probabilities_section(metrics, names, pictures.of_reliability(metrics))]
    if metrics:
        sections.append(_dropped(metrics))
    sections += [_training(steps), _posts(posts, names), _facts(facts or {}), _reading(metrics)]
    return document(title, sections)


def document(title: str, sections: Sequence, more: str = "") -> str:
    """A whole page of finished parts, with the style and the policy that every page of this project has.

    `more`: style sheets of that kind of page, behind the one of all.
    """
    head = join([tag("meta", charset="utf-8"),
                 tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
                 tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
                 tag("meta", name="color-scheme", content="light dark"),
                 tag("title", title), tag("style", Html(f"{STYLE.read_text(encoding='utf-8')}\n{more}"))])
    body = tag("main", join(sections))
    return f'<!DOCTYPE html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n{body}\n</body>\n</html>\n'


def write_page(path: str | Path, metrics: Mapping | None = None, facts: Mapping | None = None, **more) -> None:
    """Write `page(metrics, facts, **more)`, completely or not at all. Raises `UserError` if `path` cannot be written.
    """
    text = page(metrics, facts, **more)
    with atomic_write(path) as handle:
        handle.write(text)


def training_findings(steps: Sequence[Mapping], facts: Mapping) -> list[str]:
    """The first lines for a run without an evaluation: the loss, whether it left a constant answer and what the model
    answers (as run.json tells), the best validation score, what is missing."""
    losses = [line["loss"] for line in steps if isinstance(line.get("loss"), int | float)]
    if not losses:
        return ["Nothing was trained or scored.", "There is nothing to compare.", "No conclusion can be drawn."]
    share = max(1, len(losses) // 10)
    first, last = sum(losses[:share]) / share, sum(losses[-share:]) / share
    lines = [f"Over {counted(len(losses), 'step')}, the training loss went from {first:.3f} to {last:.3f} "
             f"(means of the first and the last {counted(share, 'step')})."]
    told = [facts.get(key) for key in ("learning", "answers")]
    lines += [part["sentence"] for part in told if isinstance(part, Mapping) and isinstance(part.get("sentence"), str)]
    scores = [(line["validation"]["macro_f1"], line["step"]) for line in steps
              if isinstance(line.get("validation"), Mapping) and line["validation"].get("macro_f1") is not None]
    if scores:
        best, step = max(scores, key=lambda pair: (pair[0], -pair[1]))
        lines.append(f"The best macro-F1 on the validation posts, out of {counted(len(scores), 'evaluation')}, was "
                     f"{best:.3f}, at step {step:,}.")
    else:
        lines.append("No validation posts were scored during training.")
    return [*lines, "How sure: not at all yet. A training loss tells little about new posts, and the best validation "
            "score is optimistic, since it was picked as the best. Use eval.py to score posts that took no part in "
            "training."]


def _section(title: str, *parts) -> Html:
    return tag("section", tag("h2", title), *parts)


def _pictures(metrics: Mapping, names) -> Html:
    return join([_section("How often the model is right, by language", pictures.of_intervals(metrics, names)),
                 _section("All figures, by language", pictures.of_heat_map(metrics, names)),
                 _section("Which labels are confused", pictures.of_confusion(metrics))])


def _table(metrics: Mapping, names, agreement, agreement_name: str, below: Sequence[str]) -> Html:
    codes = {id(cell): code for code, cell in metrics["by_language"].items()} | {id(metrics): "all"}
    rows = by_language(metrics, names, lambda name, cell: [
        [name, *cells_of(cell, (agreement or {}).get(codes.get(id(cell), "")), bool(agreement))]])
    short = by_language(metrics, names, lambda name, cell: [_short(name, cell)])
    words = (f" people: {agreement_name} among the annotators, who do not always agree with each other either."
             if agreement else "")
    means = metrics["mean_over_languages"]
    lines = [f"Mean over {counted(means['languages'], 'language')}, each counted once: accuracy "
             f"{number(means['accuracy'])}, macro-F1 {number(means['macro_f1'])}."]
    for key, which in (("seen", "seen"), ("unseen", "unseen")):
        if metrics[key] and metrics[key]["n"]:
            m = metrics[key]["mean_over_languages"]
            lines.append(f"{which.capitalize()} ({m['languages']}): {number(m['accuracy'])}, {number(m['macro_f1'])}.")
    title, header = "Every language, accuracy with intervals", ["language", *header_of(metrics, bool(agreement))[1:]]
    return _section(title, grid(title, ["language", *short_header(metrics)[1:]], short, class_="wide"),
                    _marks(short), *(tag("p", line) for line in below), tag("p", " ".join(lines), class_="note"),
                    folded("All figures", grid("All figures, by language", header, rows, class_="wide"),
                           _marks(rows, words), tag("p", how_to_read(header), class_="note")))


def _short(name: str, cell: Mapping) -> list:
    return [name, *(two(*pair) for pair in short_cells(cell))]


def _marks(rows: Sequence, more: str = "") -> Html | None:
    """What the signs in these rows mean."""
    found = captions.marks_in(" ".join(cell for row in rows if not isinstance(row, str) for cell in row[1:]))
    text = ("; ".join(found) + "." if found else "") + more
    return tag("p", text.strip(), class_="note") if text else None


def _labels(metrics: Mapping) -> Html:
    def with_interval(row: Mapping, key: str) -> Html:
        return two(number(row[key]), interval(row[f"{key}_ci"]))

    rows = [[name, f"{row['support']:,}", f"{row['predicted']:,}",
             *(with_interval(row, key) for key in ("precision", "recall", "f1"))]
            for name, row in metrics["labels"].items()]
    parts = [grid("Labels", ["label", "posts", "predicted", "precision", "recall", "F1"], rows, class_="wide")]
    if metrics["left_out"]:
        parts.append(tag("p", f"Not part of macro-F1, since neither people nor the model gave them: "
                         f"{', '.join(metrics['left_out'])}.", class_="note"))
    if metrics["stance"]:
        names = {"end_to_end": "end to end: a post not found related is wrong",
                 "given_detection": "given that it was found related",
                 "conditional": "by the related labels' probabilities alone"}
        body = [[words, f"{cell['n']:,}", *(with_interval(cell, key) for key in ("accuracy", "macro_f1")),
                 number(cell["majority"]["accuracy"])]
                for key, words in names.items() if (cell := metrics["stance"][key])]
        title = "Stance of the posts that people labelled as related"
        parts += [tag("h3", title),
                  grid(title, ["stance", "posts", "accuracy", "macro-F1", "best constant"], body, class_="wide")]
    return _section("Labels", *parts)


def _columns(metrics: Mapping) -> Html | None:
    if not metrics["by"]:
        return None
    parts = []
    for column, values in metrics["by"].items():
        short = [_short(name, cell) for name, cell in values.items()]
        rows = [[name, *cells_of(cell)] for name, cell in values.items()]
        title, header = f"All figures by {column}", [column, *header_of(metrics)[1:]]
        parts += [tag("h3", f"By {column}"),
                  grid(f"By {column}", [column, *short_header(metrics)[1:]], short, class_="wide"), _marks(short),
                  folded(title, grid(title, header, rows, class_="wide"), _marks(rows),
                         tag("p", how_to_read(header), class_="note"))]
    return _section("Other groups", *parts)


def _dropped(metrics: Mapping) -> Html | None:
    dropped = metrics["dropped"]
    if not dropped.get("rows"):
        return None
    reasons = [[reason.replace("_", " "), f"{n:,}"] for reason, n in dropped["reasons"].items()]
    parts = [grid("Posts left out", ["reason", "posts"], reasons)]
    every = dropped.get("all_rows")
    if every:
        rows = [[name, f"{cell['n']:,}", rate(cell), number(cell["macro_f1"]), number(cell["weighted_f1"]),
                 number((cell["topic"] or {}).get("macro_f1"))]
                for name, cell in (("without them (used above)", metrics), ("all rows, as published", every))]
        title = "Figures with and without them"
        parts += [tag("h3", title),
                  grid(title, ["of", "posts", "accuracy", "macro-F1", "weighted F1", "topic F1"], rows, class_="wide")]
    return _section("Posts left out", *parts)


def _training(steps: Sequence[Mapping]) -> Html | None:
    picture = pictures.of_loss(steps)
    return None if picture is None else _section("Training", picture)


def _posts(posts: Sequence[Mapping] | None, names) -> Html | None:
    if posts is None:
        return None
    first, *rest = dict.fromkeys(key for post in posts for key in post if key != "text") or ["id"]
    columns = [first, "text", *rest]  # the text where a phone shows it, too
    rows = [[_of_post(post, column, names) for column in columns] for post in posts[:POSTS]]
    more = f" The first {POSTS:,} of {len(posts):,}; predictions.jsonl has all." if len(posts) > POSTS else ""
    return _section("Posts", tag("p", f"Listed on request.{more}", class_="note"),
                    grid("Posts", [column.replace("_", " ") for column in columns], rows,
                         numbers=[False] * len(columns), class_="posts"))


def _of_post(post: Mapping, column: str, names: Mapping[str, str] | None):
    """One cell of the posts' table: text in its own language, probabilities a line each, anything else as people write
    it."""
    value = post.get(column)
    if column == "language":
        return language_name(value, names)
    if column == "text":
        return tag("span", value, lang=post.get("language"))
    if isinstance(value, Mapping):
        return join([tag("div", f"{key} {number(share)}") for key, share in value.items()])
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else escape(value)


def _facts(facts: Mapping) -> Html | None:
    if not facts:
        return None
    plain = {key: value for key, value in facts.items() if not isinstance(value, Mapping | list | tuple)}
    parts = [facts_list(plain)] if plain else []
    for key, value in facts.items():
        if isinstance(value, Mapping | list | tuple) and value:
            words = str(key).replace("_", " ")
            parts += [tag("h3", words[:1].upper() + words[1:]), facts_list(value)]
    return _section("Facts about the run", folded("Facts and options", *parts))


def _reading(metrics: Mapping | None) -> Html | None:
    if not metrics:
        return None
    i = metrics["intervals"]
    terms = {
        "accuracy": "the share of posts that get the human label; an answer outside the label set is wrong.",
        "base, best constant": "the accuracy of always giving the most frequent human label of that row.",
        "macro-F1": "the mean over labels of 2 × hits / (posts + predictions); a rare label counts as much as a "
                    "frequent one.",
        "topic": "whether a post is related. Recall: the share of related posts that were found. Specificity: the "
                 "share of unrelated posts that were recognised as unrelated.",
        "stance": "which side a related post takes, over all related posts (one that was not found is wrong) or over "
                  "those found.",
        "calibration error": "how far stated probabilities lie from the share of right answers: the root of the mean "
                             "square over groups of posts, less what chance alone makes of it.",
        "Brier score, log loss": "the squared distance of all labels' probabilities from the human label (0 to 2), and "
                                 "−ln of the probability that this label got; each a mean over posts.",
        "intervals": f"{i['level'] * 100:g} %. For rates: Wilson; posts that belong together, by their text or by a "
                     f"column that was named, count as fewer. For F1: {i['draws']:,} bootstrap draws within languages "
                     f"(seed {i['seed']}), from {groups(i) if i['largest_cluster'] > 1 else 'single posts'}; none of "
                     f"fewer than {MIN_GROUPS} groups, nor for a label with fewer than {MIN_ROWS} posts.",
    }
    needs = {"topic": "topic", "stance": "stance", "calibration error": "calibration",
             "Brier score, log loss": "calibration"}
    terms = {k: v for k, v in terms.items() if k not in needs or metrics[needs[k]]}
    return _section("How to read this", tag("dl", *(tag("div", tag("dt", k), tag("dd", v)) for k, v in terms.items())))
