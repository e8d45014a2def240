"""The parts of the page: for each section of audit.json its sentence, its tables and its pictures."""

from collections.abc import Callable, Mapping

from audit.four_bits import quantisation, said_of_quantisation
from audit.memory import memorisation, said_of_memorisation
from audit.minimal import DIFFER, ENOUGH, SAME
from audit.origin import provenance, said_of_provenance
from audit.picture import both_widths
from audit.tables import changes, picture
from audit.words import changed, flips, in_one_line, named, percent, percents, short, whole
from report.markup import Html, folded, grid, join, tag
from report.words import counted, language_name, number

ANGLES = ("cosine", "writes", "writes_by_chance", "reads", "reads_by_chance")


def said_of_adapter(found: Mapping) -> str:
    """The first line about the adapter."""
    largest, first = max(found["matrices"], key=lambda row: row["ratio"]), found["off"][0]
    words = (f"Adapter: without it, {flips(found['all'])} and macro-F1 changes by "
             f"{changed(found['all'])}. The part whose absence moves the probabilities most is "
             f"{short(first['name'])}; the largest update for its weight is that of {short(largest['name'])} "
             f"({percent(largest['ratio'])} of the norm).")
    told = found.get("probe")
    if told and not told["why"]:
        f1 = {**told["macro_f1"], "constant": told["constant"]["macro_f1"]}
        words += (f" A linear probe on the base's answer state has a macro-F1 of {number(f1['probe'])} in "
                  f"cross-validation on these posts, the run {number(f1['run'])}, and always answering the commonest "
                  f"label {number(f1['constant'])}.{known(told)}")
    return words


def known(told: Mapping) -> str:
    """What the adapter learned that the probe already knew; nothing where it learned nothing."""
    if not told["learned"]:
        return ""
    return (f" Of the {counted(told['learned'], 'post')} that the adapter turned from wrong to right, the probe "
            f"already has {told['known']} right ({whole(told['known_ci'])}); of the {told['missed']:,} that the run "
            f"has wrong, it has {told['missed_known']} right.")


def adapter(found: Mapping) -> list[Html]:
    """Tables of updates, of what leaving each out does, of angles, and the probe."""
    parts = [tag("p", "Each part's update alone left out, sorted by what that does to the answers.", class_="before"),
             picture(found["off"], "KL when each part's update is left out"),
             changes(found["off"], found["all"], found["level"]),
             tag("h3", "Size and directions of the updates"),
             grid("Size and directions of the updates",
                  ["matrix", "update", "weight", "ratio", "rank", "effective rank"],
                  [[named(row["name"]), number(row["update_norm"]), number(row["weight_norm"]), percent(row["ratio"]),
                    row["rank"], number(row["effective_rank"], 1)] for row in found["matrices"]], class_="wide")]
    told = found.get("probe")
    if told and told["why"]:
        parts += [tag("h3", "What the base already knew"), tag("p", f"There is no probe: {told['why']}.")]
    elif told:
        rows = [[words, number(told["macro_f1"][key]), percent(told["accuracy"][key]),
                 percents(told["accuracy_ci"][key])] for key, words in (
            ("run", "the run"), ("probe", "linear probe on the base's answer state"),
            ("base", "the base, adapter off"))]
        rows.append(["always the commonest label", number(told["constant"]["macro_f1"]),
                     percent(told["constant"]["accuracy"]), ""])
        parts += [tag("h3", "What the base already knew"),
                  grid("What the base already knew", ["labelled by", "macro-F1", "accuracy", "interval of accuracy, %"],
                       rows, class_="wide"),
                  tag("p", known(told).strip()) if told["learned"] else None,
                  tag("p", f"The probe learns from the labels of four fifths of these "
                      f"{counted(told['posts'], 'post')}, in all their languages; the run learned from its training "
                      "posts. A probe near the run says that the answer lay in the base's state in a linear form; a "
                      f"probe far below it does not say the opposite: it has {told['features']:,} columns to choose "
                      "from and few posts to learn from.", class_="note")]
    if found.get("angles"):
        parts += [tag("h3", f"Beside {found['other']}"),
                  tag("p", "Cosine of the two updates, and how far the directions they write into and read from "
                      "coincide (1: the same; beside it, what directions drawn at random would have).", class_="note"),
                  grid(f"Beside {found['other']}",
                       ["matrix", "cosine", "writes", "writes by chance", "reads", "reads by chance"],
                       [[named(row["name"]), *(number(row[key]) for key in ANGLES)] for row in found["angles"]],
                       class_="wide")]
    return parts


def said_of_behaviour(found: Mapping) -> str:
    """The first line about pairs."""
    said = []
    for expect, words in ((DIFFER, "two labels"), (SAME, "one label")):
        if rows := [row for row in found["checks"] if row["expect"] == expect]:
            worst = max(rows, key=lambda row: row["rate"])
            of = f"of the {counted(len(rows), 'check')} that should give {words}" if len(rows) > 1 else f"for {words}"
            most = "fails most often" if len(rows) > 1 else "fails"
            said.append(f"{of}, {worst['check'].replace('_', ' ')} {most}, in {worst['failures']:,} of "
                        f"{worst['pairs']:,} ({percent(worst['rate'])}{spread(worst)})")
    picked = " What fails most was picked as the worst, so on other pairs it may fail less." if any(
        "fails most often" in words for words in said) else ""
    return (f"Behaviour, on {counted(found['pairs'], 'minimal pair')} in {counted(len(found['languages']), 'language')}"
            f": {'; '.join(said)}.{picked}")


def spread(row: Mapping) -> str:
    """What stands behind a rate: its interval, or, over several languages, the lowest and highest of one."""
    return f"; by language {whole(row['by_language'])}" if row.get("by_language") else f", {whole(row['rate_ci'])}"


def behaviour(found: Mapping) -> list[Html]:
    """Failure rates by check and language, and examples."""
    several = any(row.get("by_language") for row in found["checks"])
    ends = "by_language" if several else "rate_ci"
    column = "lowest and highest of a language, %" if several else "interval of failures, %"
    rows = [[row["check"].replace("_", " "), f"{row['failures']}/{row['pairs']}", f"{100 * row['rate']:.1f}",
             _ends(row.get(ends)) if several else percents(row["rate_ci"]),
             "one label" if row["expect"] == SAME else "two labels",
             f"{in_one_line(row['commonest'])}\u00a0{percent(row['commonest_share'])}"] for row in found["checks"]]
    about = [[row["check"].replace("_", " "), row["about"]] for row in found["checks"] if row["about"]]
    languages = list(found["languages"])
    cells = {(cell["check"], cell["language"]): cell for cell in found["cells"]}
    by_language = [[language_name(code), *(_cell(cells.get((check["check"], code))) for check in found["checks"])]
                   for code in languages]
    star = f" * fewer than {ENOUGH} pairs." if any(cell["few"] for cell in found["cells"]) else ""
    parts = [both_widths([(*2 * [row["check"].replace("_", " ")], row["rate"], row.get(ends))
                          for row in found["checks"]],
                         "share of pairs that fail", "Failure rates of the checks, as in the table below", 1.0),
             grid("Failures of each check",
                  ["check", "failures", "failures, %", column, "expected", "commonest answer"], rows,
                  numbers=[False, True, True, True, False, False], class_="wide"),
             folded("What differs", grid("What differs", ["check", "between the posts of a pair"], about,
                                         numbers=[False] * 2, class_="wide"))
             if about else None,
             tag("p", "A model that always answers the same fails none of the pairs that expect the same label, and "
                 "all that expect two: hence the commonest answer's share. Whether labels are right is not asked here. "
                 + ("Lines in the picture lead from the lowest to the highest of a language. " if several else "")
                 + found["written"], class_="note"),
             tag("h3", "By language"),
             tag("p", f"Failures of pairs.{star}", class_="note"),
             grid("Failures of pairs, by language",
                  ["language", *(row["check"].replace("_", " ") for row in found["checks"])], by_language,
                  class_="wide")]
    examples = [[row["check"].replace("_", " "), language_name(row["language"]),
                 join([tag("div", text, dir="auto", lang=row["language"]) for text in row["posts"]]) or
                 f"pair {row['number']}",
                 join([tag("div", in_one_line(label)) for label in row["labels"]])]
                for row in found["examples"]]
    if examples:
        parts.append(folded("Some that fail", grid("Some that fail", ["check", "language", "posts", "labels"],
                                                   examples, numbers=[False] * 4, class_="wide")))
    return parts


def _ends(pair: list | None) -> str:
    """No interval, so without its brackets: `_ends([0.35, 0.75]) -> "35.0 to 75.0"`."""
    return "" if pair is None else f"{100 * pair[0]:.1f} to {100 * pair[1]:.1f}"


def _cell(cell: Mapping | None) -> str:
    return "–" if cell is None else f"{cell['failures']}/{cell['pairs']}{'*' * cell['few']}"


# Key in audit.json -> heading and parts of the section; and its first lines. What the run is and what it gives away
# comes first: whoever has to answer for it asks that before any figure.
ALL: dict[str, tuple[str, Callable]] = {
    "provenance": ("Where it is from", provenance), "memorisation": ("What it remembers", memorisation),
    "behaviour": ("How it behaves on minimal pairs", behaviour), "own_pairs": ("Your own pairs", behaviour),
    "quantisation": ("What four bits cost", quantisation), "adapter": ("What the adapter does", adapter)}  # fmt: skip
SAID: dict[str, Callable[[Mapping], str]] = {
    "provenance": said_of_provenance, "memorisation": said_of_memorisation, "behaviour": said_of_behaviour,
    "own_pairs": lambda found: said_of_behaviour(found).replace("Behaviour", "Your pairs", 1),
    "quantisation": said_of_quantisation, "adapter": said_of_adapter}  # fmt: skip
