"""The parts of the page: for each section of audit.json its sentence, its tables and its pictures."""

from collections.abc import Callable, Mapping, Sequence

from audit.memorisation import for_the_card
from audit.minimal import DIFFER, ENOUGH, SAME
from audit.picture import points
from report.markup import Html, folded, grid, join, tag
from report.words import counted, interval, language_name, number, percent

ANGLES = ("cosine", "writes", "writes_by_chance", "reads", "reads_by_chance")
MOST = 14  # rows of a table or picture before the rest is folded


def short(name: str) -> str:
    """As the glass names it: `short("model.layers.0.self_attn.v_proj") -> "layers.0.self_attn.v_proj"`."""
    return name.removeprefix("model.")


def said_of_quantisation(found: Mapping) -> str:
    """The first line about four bits."""
    if found["state"] == "packed":
        return ("Four bits: the base is in 4 bits on disk, and what its weights were before is not known here; so no "
                "error and no cost can be given, only which codes are used.")
    whole, first = found["all"], found["changed"][0]
    done = "put back to 16 bits" if found["state"] == "nf4" else "put into 4 bits (the run's are dense)"
    part = "matrix" if found["level"] == "matrix" else "layer"
    return (f"Four bits: with all {len(found['matrices'])} matrices {done}, {flips(whole)} and macro-F1 changes by "
            f"{changed(whole)}. Alone, the {part} that moves the "
            f"probabilities most is {short(first['name'])} (KL {number(first['kl'], 4)}); the worst rounded is "
            f"{worst_rounded(found['matrices'])}.")


def worst_rounded(matrices: Sequence[Mapping]) -> str:
    """The matrix that was rounded worst, and in which block most: known before any post is labelled."""
    worst = max(matrices, key=lambda row: row["relative_error"])
    return (f"{short(worst['name'])}, off by {percent(worst['relative_error'])} of its norm, most in block "
            f"{worst['worst_blocks'][0]['block']}")


def quantisation(found: Mapping) -> list[Html]:
    """Tables of matrices and of what changing each costs."""
    if found["state"] == "packed":
        rows = [[short(row["name"]), number(row["bits_used"]), number(row["bits_stored"]),
                 number(row["largest_scale_over_median"], 1)] for row in found["matrices"]]
        return [grid(["matrix", "bits used", "bits stored", "largest scale / median"], rows, class_="wide"),
                codes(found)]
    verb = "put back to 16 bits" if found["state"] == "nf4" else "put into 4 bits"
    return [tag("p", f"Each {'matrix' if found['level'] == 'matrix' else 'layer'} alone {verb}, sorted by what it does "
                "to the answers.", class_="before"),
            picture(found["changed"], f"KL when each part alone is {verb}"), changes(found["changed"], found["all"]),
            tag("h3", "How each matrix was rounded"),
            tag("p", "Error: of all weights, as a share of the matrix's norm. Weighted: of the outputs, for the inputs "
                "that arrive with these posts. Crest: largest weight of a block over the block's root mean square. "
                "Outliers: weights beyond six standard deviations. Sorted by the weighted error; python -m glass shows "
                "any block, weight by weight.", class_="note"),
            grid(["matrix", "error", "weighted", "worst block", "crest", "outliers", "bits used", "bits by error"],
                 [[short(row["name"]), percent(row["relative_error"]), percent(row["weighted_error"]),
                   percent(row["block_error_largest"]), number(row["crest_largest"], 1), f"{row['outliers']:,}",
                   number(row["bits_used"]), number(row["bits_by_error"], 2)] for row in
                  sorted(found["matrices"], key=lambda row: -row["weighted_error"])], class_="wide"),
            worst_blocks(found), codes(found)]


def worst_blocks(found: Mapping) -> Html:
    """Of each matrix the block that holds the largest share of its squared error."""
    every = [(block["share"], row["name"], block) for row in found["matrices"] for block in row["worst_blocks"][:1]]
    blocks = sorted(every, key=lambda part: -part[0])
    return folded("The worst block of each matrix", grid(
        ["matrix", "block", "row", "from column", "share of its squared error", "error", "largest weight", "crest"],
        [[short(name), block["block"], block["row"], block["column"], percent(share), percent(block["relative_error"]),
          number(block["largest"]), number(block["crest"], 1)] for share, name, block in blocks], class_="wide"))


def codes(found: Mapping) -> Html:
    """How often each of the sixteen codes is used."""
    return folded("Codes, in per cent of the weights", grid(
        ["matrix", *range(16)], [[short(row["name"]), *(f"{100 * code / sum(row['codes']):.1f}"
                                                        for code in row["codes"])]
                                 for row in found["matrices"]], class_="wide"))


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
             picture(found["off"], "KL when each part's update is left out"), changes(found["off"], found["all"]),
             tag("h3", "Size and directions of the updates"),
             grid(["matrix", "update", "weight", "ratio", "rank", "effective rank"],
                  [[short(row["name"]), number(row["update_norm"]), number(row["weight_norm"]), percent(row["ratio"]),
                    row["rank"], number(row["effective_rank"], 1)] for row in found["matrices"]], class_="wide")]
    if told := found.get("probe"):
        rows = [[words, number(told["macro_f1"][key]), percent(told["accuracy"][key])] for key, words in (
            ("run", "the run"), ("probe", "linear probe on the base's answer state"),
            ("base", "the base, adapter off"))]
        parts += [tag("h3", "What the base already knew"),
                  grid(["", "macro-F1", "accuracy"], rows, class_="wide"),
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
                  grid(["matrix", "cosine", "writes", "by chance", "reads", "by chance"],
                       [[short(row["name"]), *(number(row[key]) for key in ANGLES)] for row in found["angles"]],
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
    parts = [grid(["", "name", "", "recorded", "found now"], rows, numbers=[False] * 5, class_="wide"),
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
    rows = [[row["check"].replace("_", " "), f"{row['failures']}/{row['pairs']}", percent(row["rate"]),
             interval(row["rate_ci"]), "one label" if row["expect"] == SAME else "two labels",
             f"{row['commonest']} {percent(row['commonest_share'])}"] for row in found["checks"]]
    about = [[row["check"].replace("_", " "), row["about"]] for row in found["checks"] if row["about"]]
    languages = list(found["languages"])
    cells = {(cell["check"], cell["language"]): cell for cell in found["cells"]}
    by_language = [[language_name(code), *(_cell(cells.get((check["check"], code))) for check in found["checks"])]
                   for code in languages]
    star = f" * fewer than {ENOUGH} pairs." if any(cell["few"] for cell in found["cells"]) else ""
    parts = [points([(row["check"].replace("_", " "), row["rate"], row["rate_ci"]) for row in found["checks"]],
                    "share of pairs that fail", "Failure rates of the checks, as in the table below", 1.0),
             grid(["check", "failures", "rate", "interval", "expected", "commonest answer"], rows,
                  numbers=[False, True, True, True, False, False], class_="wide"),
             folded("What differs", grid(["check", "between the posts of a pair"], about, numbers=[False] * 2))
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
                 join([tag("div", label.replace("-", "\N{NON-BREAKING HYPHEN}")) for label in row["labels"]])]
                for row in found["examples"]]
    if examples:
        parts.append(folded("Some that fail", grid(["check", "language", "posts", "labels"], examples,
                                                   numbers=[False] * 4)))
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
                 f"{part['continued'][name]['posts']} ({percent(part['continued'][name]['rate'])})",
                 interval(part["continued"][name]["rate_ci"])] for name in ("training", "unseen")]
        parts += [tag("h3", title), grid(["posts", "n", "loss", "exposure, bits", "continued", "interval"], rows),
                  tag("p", f"A training post has the smaller loss in {percent(part['above'])} of comparisons "
                      f"{interval(part['above_ci'])}; 50 % is no sign of memory. Exposure is at most "
                      f"{number(part['exposure']['largest_possible'], 2)} here.", class_="note")]
    return [*parts, tag("h3", "What the model card must say"), *(tag("p", line) for line in for_the_card(found))]


def changes(rows: list[Mapping], whole: Mapping) -> Html:
    """A table of changes, the whole first; what is beyond `MOST` rows is folded."""
    header = ["", "KL", "interval", "flips", "%", "interval", "macro-F1", "F1 change", "interval"]
    body = [[short(row["name"]), number(row["kl"], 4), interval(row["kl_ci"], 4), row["flips"],
             f"{100 * row['flip_rate']:.1f}", interval(row["flip_rate_ci"]), number(row["macro_f1"]),
             signed(row["f1_change"]), interval(row["f1_change_ci"], 3).replace("-", "−")]
            for row in [{**whole, "name": "all together"}, *rows]]
    table = grid(header, body[: MOST + 1], class_="wide")
    rest = body[MOST + 1 :]
    return join([table, folded("The rest", grid(header, rest, class_="wide"))]) if rest else table


def picture(rows: list[Mapping], words: str) -> Html:
    """KL of the first rows with intervals."""
    return points([(short(row["name"]), row["kl"], row["kl_ci"]) for row in rows[:MOST]], "KL, nats", words)


def flips(row: Mapping) -> str:
    """`flips({...}) -> "12 posts (7.1 %) get another label"`."""
    verb = "gets" if row["flips"] == 1 else "get"
    return f"{counted(row['flips'], 'post')} ({percent(row['flip_rate'])}) {verb} another label"


def signed(value: float) -> str:
    """`signed(0.5) -> "+0.500"`."""
    return f"{value:+.3f}".replace("-", "−")


def changed(row: Mapping) -> str:
    """`changed({...}) -> "+0.500 [0.400, 0.600]"`, without brackets where there is no interval."""
    return f"{signed(row['f1_change'])} {interval(row['f1_change_ci'], 3)}".rstrip().replace("-", "−")


def whole(pair: Sequence[float]) -> str:
    """`whole([0.512, 0.73]) -> "51 to 73 %"`."""
    return f"{100 * pair[0]:.0f} to {100 * pair[1]:.0f} %"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _cell(cell: Mapping | None) -> str:
    return "–" if cell is None else f"{cell['failures']}/{cell['pairs']}{'*' * cell['few']}"


# Key in audit.json -> heading and parts of the section; and its first line.
ALL: dict[str, tuple[str, Callable]] = {
    "quantisation": ("What four bits cost", quantisation), "adapter": ("What the adapter does", adapter),
    "behaviour": ("How it behaves on minimal pairs", behaviour), "own_pairs": ("Your own pairs", behaviour),
    "memorisation": ("What it remembers", memorisation), "provenance": ("Where it is from", provenance)}  # fmt: skip
SAID: dict[str, Callable[[Mapping], str]] = {
    "quantisation": said_of_quantisation, "adapter": said_of_adapter, "behaviour": said_of_behaviour,
    "own_pairs": lambda found: said_of_behaviour(found).replace("Behaviour", "Your pairs", 1),
    "memorisation": said_of_memorisation, "provenance": said_of_provenance}  # fmt: skip
