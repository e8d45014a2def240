"""Question 6: does a model label a post better from its machine translation than from its own text?

The same fit is asked twice about the same posts, so every difference is paired. A post without a translation, or whose
translation is the text itself (an English post translated into English), says nothing about translating: it is counted
but left out of both sides. Monolingual sets come first, since translating is what one would do instead of training on
more languages; such a model is also compared with the widest set on the posts' own text. An outside model takes part
where a file has its labels for the translations.
"""

from collections.abc import Mapping

import numpy as np

from data.languages import language_name
from report.words import counted, number
from stats.families import THESE
from stats.paired import exact_rate, permutation
from stats.predictions import Predictions, Rows
from study.inputs import has_text, text_of
from study.questions.compared import notes_of, of_cells, title_of, widest
from study.questions.scopes import main_figures, part, scopes, spread, table_part
from study.questions.sentences import FIGURES, finding, many, scored
from study.report.section import Claim, Column, FigureSpec, Section, Table
from study.results import Results

ONE_FIT = "One fit: another seed could differ."
QUESTION = "Does a model trained on few languages label posts in others better from a machine translation?"


def translation(results: Results) -> Section | None:
    """Own text against translation, by set and language; None if the plan names no column of translations."""
    column = results.plan.data.translation
    asked = {name: one for name in results.plan.sets for one in results.asked(name) if one.name == "translation"}
    others = [name for name, one in results.plan.outside.items() if one.translated]
    if column is None or not [*asked, *others]:
        return None
    names = sorted(asked, key=lambda name: len(results.seen(name)) > 1)
    chosen, counts = translated(results, column)
    if not chosen.any():
        return Section("translation", "Translation", QUESTION, "No test post has a translation that differs from its "
                       "own text, so nothing can be said.", tables=[counts], exploratory=True)
    rows = table_part(results.kept, chosen)
    given = {name: results.first(name, asked[name]) for name in names}
    given |= {name: results.outside(name, translated=True) for name in others}
    sides = {name: (part(answers, rows, chosen), part(results.first(name), rows, chosen))
             for name, answers in given.items()}
    by_language, by_set = language_table(results, sides, rows), set_table(results, sides, rows)
    claims, answer = claims_of(results, sides, rows, chosen)
    small = sum(row["small"] for row in by_language.rows if row["train"] == next(iter(sides)))
    notes = [f"{int(chosen.sum()):,} of {counted(len(chosen), 'test post')} have a translation that differs from their "
             "own text; the others are left out of both sides.",
             "Labels are those of each set's first fit (first seed, first draw); intervals are over test posts alone."]
    if small:
        notes.append(f"{counted(small, 'language')} with fewer than 30 such posts, or fewer than 10 posts or groups "
                     "of a label, are marked, not hidden.")
    return Section("translation", "Translation", QUESTION, answer, claims, [by_set, by_language, counts],
                   figures_of_section(results, by_set, by_language), notes, exploratory=True)


def translated(results: Results, column: str) -> tuple[np.ndarray, Table]:
    """(n,) bool: kept rows with a translation that is not the text itself; and the counts by language."""
    kept, posts = results.kept, results.posts(results.kept)
    there = np.array([has_text(post, column) for post in posts], dtype=bool)
    same = np.array([text_of(post, column).strip() == post.text.strip() for post in posts], dtype=bool)
    lines = []
    for code in kept.languages:
        own = kept.language == code
        lines.append({"language": code, "n": int(own.sum()), "without": int((own & ~there).sum()),
                      "same": int((own & there & same).sum()), "compared": int((own & there & ~same).sum())})
    columns = [Column("language", "language", "language"), *(Column(key, title, "count") for key, title in (
        ("n", "test posts"), ("without", "without a translation"), ("same", "translation is the text itself"),
        ("compared", "compared")))]
    return there & ~same, Table("translation_posts", "Test posts and their translations", columns, lines)


def language_table(results: Results, sides: Mapping[str, tuple[Predictions, Predictions]], rows: Rows) -> Table:
    """One row per set and language: each figure on the post's own text, on its translation, and the difference."""
    figures, lines = main_figures(results), []
    alone = {code: [code] for code in rows.languages}
    for name, (by_translation, by_text) in sides.items():
        found = spread([by_translation, by_text], figures, alone, results.plan.statistics)
        for code in rows.languages:
            inside = rows.language == code
            line = {"train": name, "language": code, "n": int(inside.sum()), "seen": code in results.seen(name),
                    "small": rows.is_small(inside)}
            for figure in figures:
                key = short(figure)
                line |= {f"{key}_text": by_text.figure(figure, [code]),
                         f"{key}_translation": by_translation.figure(figure, [code])}
                line |= dict(zip((key, f"{key}_low", f"{key}_high"), found[code, figure], strict=True))
            lines.append(line)
    columns = [Column("train", "train set"), Column("language", "test language", "language"),
               Column("n", "posts", "count"), Column("seen", "seen", "flag"), Column("small", "small cell", "flag")]
    for figure in figures:
        key, title = short(figure), title_of(figure)
        columns += [Column(f"{key}_text", f"{title}, own text", "rate"),
                    Column(f"{key}_translation", "translation", "rate"), Column(key, "difference", "difference"),
                    Column(f"{key}_low", "low", "difference"), Column(f"{key}_high", "high", "difference")]
    return Table("translation_languages", "Translation less own text, by set and language", columns, lines,
                 ["Positive: better on the translation. Secondary: one language alone has few posts."])


def set_table(results: Results, sides: Mapping[str, tuple[Predictions, Predictions]], rows: Rows) -> Table:
    """One row per set, group of languages and figure, each language counting the same, with a test."""
    figures, statistics, lines = main_figures(results), results.plan.statistics, []
    for name, (by_translation, by_text) in sides.items():
        groups = scopes(rows.languages, results.seen(name), "part")
        found = spread([by_translation, by_text], figures, groups, statistics)
        for (group, figure), (value, low, high) in found.items():
            codes = groups[group]
            tested = permutation(by_translation, by_text, figure, codes, "languages", statistics.draws, statistics.seed,
                                 statistics.p_error)
            test = "signs" if exact_rate(figure, "languages") else "labels"
            test = f"{test} swapped by cluster, {'all ways' if tested['exact'] else 'drawn'}"
            lines.append({"what": f"{name}, {group}", "figure": title_of(figure), "train": name, "languages": group,
                          "count": len(codes), "n": int(rows.where(codes).sum()),
                          "text": by_text.figure(figure, codes, "languages"),
                          "translation": by_translation.figure(figure, codes, "languages"),
                          "difference": value, "low": low, "high": high, "p": tested["p"], "test": test})
    columns = [Column("what", "train set, test languages"), Column("figure", "figure"), Column("train", "train set"),
               Column("languages", "test languages"), Column("count", "how many", "count"),
               Column("n", "posts", "count"), Column("text", "own text", "rate"),
               Column("translation", "translation", "rate"), Column("difference", "difference", "difference"),
               Column("low", "low", "difference"), Column("high", "high", "difference"), Column("p", "p", "p"),
               Column("test", "test")]
    return Table("translation_sets", "Translation less own text, each language counting the same", columns, lines,
                 ["Seen and unseen: whether the set has training rows in the language. Interval and p are of the "
                  "same difference, in which each language counts the same, and both keep these together: "
                  f"{results.material.together}. p values are not corrected for their number: all of this is "
                  "exploratory."])


def claims_of(results: Results, sides: Mapping[str, tuple[Predictions, Predictions]], rows: Rows, chosen: np.ndarray
              ) -> tuple[list[Claim], str]:
    """The first set's gain from translation where it was not trained; and against the widest set on own text."""
    name, wide = next(iter(sides)), widest(results)
    figure, statistics = main_figures(results)[0], results.plan.statistics
    groups = scopes(rows.languages, results.seen(name), "part")
    group = "unseen" if "unseen" in groups else "seen"
    codes, title = groups[group], title_of(figure)
    by_translation, by_text = sides[name]

    def against(other: Predictions) -> tuple[float, float, float]:
        return spread([by_translation, other], [figure], {group: codes}, statistics)[group, figure]

    value, low, high = against(by_text)
    where = f"{counted(len(codes), 'language')} that it was {'not ' * (group == 'unseen')}trained on"
    taught = " and ".join(language_name(code) for code in results.seen(name)[:3])
    pair = [one.figure(figure, codes, "languages") for one in (by_text, by_translation)]
    answer = (f"In the {where}, the set {name} ({taught}{' and more' * (len(results.seen(name)) > 3)}) reaches {title} "
              f"{said(pair[0])} on the posts' own text and {said(pair[1])} on their translations.")
    found, what = {"value": value, "low": low, "high": high}, FIGURES.get(figure, title)
    about = {"languages": codes, "notes": [ONE_FIT, *notes_of(results, codes, {})], "points": [value], "holds": THESE}
    claims = [Claim(
        finding(found, [f"Given translations instead of the posts' own text, {name} scores {scored(value)} on {what}"],
                [f"on {what} for {name}, given translations instead of the posts' own text,"],
                [f" in {many(len(codes), 'language')}" + " new to it" * (group == "unseen"), ""]), value, low, high,
        "With this fit and this translator, the change on posts like these is compatible with anything inside the "
        "interval, each language counting the same.",
        "That another translator or another seed of training would do the same; that it holds in a single language; "
        "what translating does in languages without a translation here.", **about)]
    if wide != name:
        other = part(results.first(wide), rows, chosen)
        value, low, high = against(other)
        answer += f" The set {wide} reaches {said(other.figure(figure, codes, 'languages'))} on their own text."
        found = {"value": value, "low": low, "high": high}
        claims.append(Claim(
            finding(found, [f"On translations, {name} scores {scored(value, wide)} on the posts' own text, on {what}"],
                    [f"on {what}, {name} on translations less {wide} on the posts' own text"],
                    [f", in {many(len(codes), 'language')}", ""]),
            value, low, high, "On these posts, translating for the one model less training the other on more languages "
            "is compatible with anything inside the interval.",
            "That the two are worth the same where the interval contains zero; or why they differ: the sets differ in "
            "rows too.", **about | {"points": [value]}))
    return claims, answer


def figures_of_section(results: Results, by_set: Table, by_language: Table) -> list[FigureSpec]:
    """A forest of the pooled differences and a matrix of those by language."""
    key = short(main_figures(results)[0])
    title = title_of(main_figures(results)[0])
    return [
        FigureSpec("forest", by_set.name, "Right of the line: better on the translation. Rows of languages that a set "
                   "was not trained on are where translating could help.",
                   "That an interval across zero shows that translating changes nothing.", name="translation-sets",
                   title="Translation less own text", x="difference", y="what", low="low", high="high",
                   series="figure"),
        FigureSpec("matrix", by_language.name, "Blue cells are better on the translation, orange ones worse. Outlined: "
                   "languages that the set was trained on.",
                   of_cells(by_language), name="translation-languages", title=f"{title}, translation less own text",
                   x="language", y="train", value=key, outlined="seen", hatched="small", label="n")]


def short(figure: str) -> str:
    """A figure's name as a column key: `short("topic.macro_f1") -> "topic_macro_f1"`."""
    return figure.replace(".", "_")


def said(value: float) -> str:
    return number(None if np.isnan(value) else value)
