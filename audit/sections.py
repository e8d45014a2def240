"""The parts of the page: for each section of audit.json its sentence, its tables and its pictures."""

from collections.abc import Callable, Mapping

from audit.four_bits import quantisation, said_of_quantisation
from audit.memorisation import for_the_card
from audit.minimal import DIFFER, ENOUGH, SAME
from audit.picture import both_widths
from audit.tables import changes, picture
from audit.words import changed, flips, in_one_line, named, percent, percents, short, unbroken, whole
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
    if told := found.get("probe"):
        f1 = told["macro_f1"]
        words += (f" A linear probe on the base's answer state has a macro-F1 of {number(f1['probe'])} in "
                  f"cross-validation on these posts, the run {number(f1['run'])}.{known(told)}")
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
             grid(["matrix", "update", "weight", "ratio", "rank", "effective rank"],
                  [[named(row["name"]), number(row["update_norm"]), number(row["weight_norm"]), percent(row["ratio"]),
                    row["rank"], number(row["effective_rank"], 1)] for row in found["matrices"]], class_="wide")]
    if told := found.get("probe"):
        rows = [[words, number(told["macro_f1"][key]), percent(told["accuracy"][key])] for key, words in (
            ("run", "the run"), ("probe", "linear probe on the base's answer state"),
            ("base", "the base, adapter off"))]
        parts += [tag("h3", "What the base already knew"),
                  grid(["labelled by", "macro-F1", "accuracy"], rows, class_="wide"),
                  tag("p", known(told).strip()) if told["learned"] else None,
                  tag("p", f"The probe learns from the labels of {told['folds'] - 1} fifths of these "
                      f"{counted(told['posts'], 'post')}, in all their languages; the run learned from its training "
                      "posts. A probe near the run says that the answer lay in the base's state in a linear form; a "
                      f"probe far below it does not say the opposite: it has {told['features']:,} columns to choose "
                      "from and few posts to learn from.", class_="note")]
    if found.get("angles"):
        parts += [tag("h3", f"Beside {found['other']}"),
                  tag("p", "Cosine of the two updates, and how far the directions they write into and read from "
                      "coincide (1: the same; beside it, what directions drawn at random would have).", class_="note"),
                  grid(["matrix", "cosine", "writes", "writes by chance", "reads", "reads by chance"],
                       [[named(row["name"]), *(number(row[key]) for key in ANGLES)] for row in found["angles"]],
                       class_="wide")]
    return parts


def said_of_provenance(found: Mapping) -> str:
    """The first line about where the run is from."""
    wrong = [row["name"] for row in found["hashes"] if row["same"] is False]
    absent = [row["name"] for row in found["hashes"] if row["recorded"] and row["found"] is None]
    words = "Provenance: every recorded hash that could be checked is the same" if not wrong else (
        f"Provenance: {', '.join(wrong)} differ{'s' * (len(wrong) == 1)} from what was recorded")
    words += f"; {', '.join(absent)} could not be checked" if absent else ""
    again = found["replay"]
    if again is None:
        return f"{words}. No step was done again."
    if again["why"]:
        return f"{words}. No step could be done again: {again['why']}."
    if again["difference"] is None:
        whole = again["adapter"]
        end = "" if whole is None else (", and so is the adapter" if whole["same"] else
                                        f", but the adapter is not (first {whole['tensor']})")
        return (f"{words}. {counted(again['steps'], 'recorded step')} done again {_are(again['steps'])} equal to the "
                f"bit{end}.")
    first = again["difference"]
    where = f" Not as recorded: {'; '.join(again['elsewhere'])}." if again["elsewhere"] else (
        " Packages, code and processor's kind are as recorded.")
    return (f"{words}. Of {counted(again['steps'], 'recorded step')} done again, {again['equal']:,} are equal to the "
            f"bit before the first difference: step {first['step']:,}, {first['figure']}, {first['recorded']!r} then "
            f"and {first['found']!r} now.{where}")


def provenance(found: Mapping) -> list[Html]:
    """The table of hashes, and the steps done again."""
    words = {True: "same", False: "differs", None: "–"}
    rows = [[row["what"], row["name"], words[row["same"]], tag("code", (row["recorded"] or "–")[:16]),
             tag("code", (row["found"] or "not there")[:16])] for row in found["hashes"]]
    parts = [grid(["kind", "name", "same?", "recorded", "found now"], rows, numbers=[False] * 5, class_="wide"),
             tag("p", "The first 16 digits of each; audit.json has all. A dash: the run recorded nothing to compare.",
                 class_="note")]
    again = found["replay"]
    if again and again["difference"]:
        parts.append(tag("p", "Other bits are no proof of other data: another processor, library or code "
                         "rounds otherwise. A difference in the last digits looks like such a rounding; one in the "
                         "first digits does not."))
    return parts


def said_of_behaviour(found: Mapping) -> str:
    """The first line about pairs."""
    said = []
    for expect, words in ((DIFFER, "should have two labels"), (SAME, "should have one label")):
        if rows := [row for row in found["checks"] if row["expect"] == expect]:
            worst = max(rows, key=lambda row: row["rate"])
            said.append(f"of those that {words}, {worst['check'].replace('_', ' ')} fails most, in {worst['failures']} "
                        f"of {worst['pairs']} ({whole(worst['rate_ci'])})")
    return (f"Behaviour, on {counted(found['pairs'], 'minimal pair')} in {counted(len(found['languages']), 'language')}"
            f": {'; '.join(said)}.")


def behaviour(found: Mapping) -> list[Html]:
    """Failure rates by check and language, and examples."""
    rows = [[row["check"].replace("_", " "), f"{row['failures']}/{row['pairs']}", f"{100 * row['rate']:.1f}",
             percents(row["rate_ci"]), "one label" if row["expect"] == SAME else "two labels",
             f"{in_one_line(row['commonest'])}\u00a0{percent(row['commonest_share'])}"] for row in found["checks"]]
    about = [[row["check"].replace("_", " "), row["about"]] for row in found["checks"] if row["about"]]
    languages = list(found["languages"])
    cells = {(cell["check"], cell["language"]): cell for cell in found["cells"]}
    by_language = [[language_name(code), *(_cell(cells.get((check["check"], code))) for check in found["checks"])]
                   for code in languages]
    star = f" * fewer than {ENOUGH} pairs." if any(cell["few"] for cell in found["cells"]) else ""
    parts = [both_widths([(*2 * [row["check"].replace("_", " ")], row["rate"], row["rate_ci"])
                          for row in found["checks"]],
                         "share of pairs that fail", "Failure rates of the checks, as in the table below", 1.0),
             grid(["check", "failures", "failures, %", "interval of failures, %", "expected", "commonest answer"], rows,
                  numbers=[False, True, True, True, False, False], class_="wide"),
             folded("What differs", grid(["check", "between the posts of a pair"], about, numbers=[False] * 2,
                                         class_="wide"))
             if about else None,
             tag("p", "A model that always answers the same fails none of the pairs that expect the same label, and "
                 "all that expect two: hence the commonest answer's share. Whether labels are right is not asked here. "
                 f"{found['written']}", class_="note"),
             tag("h3", "By language"),
             tag("p", f"Failures of pairs.{star}", class_="note"),
             grid(["language", *(row["check"].replace("_", " ") for row in found["checks"])], by_language,
                  class_="wide")]
    examples = [[row["check"].replace("_", " "), language_name(row["language"]),
                 join([tag("div", text, dir="auto") for text in row["posts"] or [f"pair {row['number']}"]]),
                 join([tag("div", in_one_line(label)) for label in row["labels"]])]
                for row in found["examples"]]
    if examples:
        parts.append(folded("Some that fail", grid(["check", "language", "posts", "labels"], examples,
                                                   numbers=[False] * 4, class_="wide")))
    return parts


def said_of_memorisation(found: Mapping) -> str:
    """The first line about memory."""
    return "Memory: " + " ".join(for_the_card(found) if found["measured"] else [found["why"]])


def memorisation(found: Mapping) -> list[Html]:
    """Losses, exposure and continuations of training posts beside unseen ones."""
    if not found["measured"] or found["why"]:
        return [tag("p", found["why"][:1].upper() + found["why"][1:])]
    parts = []
    for key, title in (("with_adapter", "The run"), ("without", "The base, adapter off")):
        part = found[key]
        rows = [[name, part["posts"][name], number(part["loss"][name]), number(part["exposure"][name], 2),
                 part["continued"][name]["posts"],
                 f"{100 * part['continued'][name]['rate']:.1f}", percents(part["continued"][name]["rate_ci"])]
                for name in ("training", "unseen")]
        parts += [tag("h3", title), grid(["posts", "n", "loss", "exposure, bits", "continued", "continued, %",
                                          "interval of continued, %"], rows, class_="wide"),
                  tag("p", f"A training post has the smaller loss in {percent(part['above'])} of comparisons "
                      f"{percents(part['above_ci'])}; 50\u00a0% is no sign of memory. Exposure is at most "
                      f"{number(part['exposure']['largest_possible'], 2)} here.", class_="note")]
    return [*parts, tag("h3", "What the model card must say"),
            *(tag("p", unbroken(line)) for line in for_the_card(found))]


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _cell(cell: Mapping | None) -> str:
    return "–" if cell is None else f"{cell['failures']}/{cell['pairs']}{'*' * cell['few']}"


# Key in audit.json -> heading and parts of the section; and its first lines.
ALL: dict[str, tuple[str, Callable]] = {
    "quantisation": ("What four bits cost", quantisation), "adapter": ("What the adapter does", adapter),
    "behaviour": ("How it behaves on minimal pairs", behaviour), "own_pairs": ("Your own pairs", behaviour),
    "memorisation": ("What it remembers", memorisation), "provenance": ("Where it is from", provenance)}  # fmt: skip
SAID: dict[str, Callable[[Mapping], str]] = {
    "quantisation": said_of_quantisation, "adapter": said_of_adapter, "behaviour": said_of_behaviour,
    "own_pairs": lambda found: said_of_behaviour(found).replace("Behaviour", "Your pairs", 1),
    "memorisation": said_of_memorisation, "provenance": said_of_provenance}  # fmt: skip
