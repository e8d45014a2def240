"""The page's part about four bits: what they cost, how each matrix was rounded, its blocks, its codes."""

import math
from collections.abc import Mapping, Sequence

from audit.tables import changes, decimals, picture
from audit.words import changed, flips, named, percent, short
from report.markup import Html, folded, grid, tag
from report.words import number


def said_of_quantisation(found: Mapping) -> str:
    """The first lines about four bits: all matrices, then single ones."""
    if found["state"] == "packed":
        return ("Four bits: the base is in 4 bits on disk, and what its weights were before is not known here; so no "
                "error and no cost can be given, only which codes are used.")
    whole, first = found["all"], found["changed"][0]
    done = "put back to 16 bits" if found["state"] == "nf4" else "put into 4 bits (the run's are dense)"
    return (f"Four bits: with all {len(found['matrices'])} matrices {done}, {flips(whole)}; macro-F1 changes by "
            f"{changed(whole)}{cost(found['state'], whole['f1_change_ci'])}.\n{found['level'].capitalize()} by "
            f"{found['level']}: alone, the one that moves the probabilities most is {short(first['name'])} (KL "
            f"{number(first['kl'], decimals([first]))}). The matrix that was rounded worst, which need not be the one "
            f"that matters most, is {worst_rounded(found['matrices'])}.")


def cost(state: str, pair: Sequence[float] | None) -> str:
    """What the interval of the change of macro-F1, with all matrices changed, says of four bits; nothing for None."""
    if pair is None:
        return ""
    if pair[0] <= 0 <= pair[1]:
        return (", an interval that holds 0: whether four bits cost macro-F1, or gain it, cannot be told from these "
                "posts")
    rises = pair[0] > 0
    if state == "nf4":
        return (", all above 0: four bits cost so much on these posts" if rises else
                ", all below 0: on these posts the run is better in the four bits that it was trained in")
    return (", all above 0: on these posts the run is better in four bits than dense, as it was trained" if rises else
            ", all below 0: four bits would cost so much on these posts")


def worst_rounded(matrices: Sequence[Mapping]) -> str:
    """The matrix that was rounded worst, and how much of that its worst block holds: known before any post is labelled.
    """
    worst = max(matrices, key=lambda row: row["relative_error"])
    words = (f"{short(worst['name'])}, off by {percent(worst['relative_error'])} (root mean square of its errors "
             "beside that of its weights)")
    block = worst["worst_blocks"][0]
    if not block["share"]:
        return words
    times = block["share"] * math.prod(worst["shape"]) / block["weights"]
    return (f"{words}; its worst block, {block['block']}, holds {percent(block['share'])} of the squared error, "
            f"{times:,.{0 if times >= 10 else 1}f} times an even share")


def quantisation(found: Mapping) -> list[Html]:
    """Tables of matrices and of what changing each costs."""
    if found["state"] == "packed":
        rows = [[named(row["name"]), number(row["bits_used"]), number(row["bits_stored"]),
                 number(row["largest_scale_over_median"], 1)] for row in found["matrices"]]
        return [grid("The matrices", ["matrix", "bits used", "bits stored", "largest scale / median"], rows,
                     class_="wide"),
                codes(found)]
    verb = "put back to 16 bits" if found["state"] == "nf4" else "put into 4 bits"
    return [tag("p", f"Each {found['level']} alone {verb}, sorted by what it does to the answers.", class_="before"),
            picture(found["changed"], f"KL when each {found['level']} alone is {verb}"),
            changes(found["changed"], found["all"], found["level"]),
            tag("h3", "How each matrix was rounded"),
            tag("p", "Error: root mean square of the weights' errors beside that of the weights. Weighted error: the "
                "same of the outputs, for the inputs that arrive with these posts; the table is sorted by it. Largest "
                "error of a block: the same as the error, within the block of 64 weights where it is largest. Crest: "
                "largest weight of a block beside the block's root mean square; the largest of any block is given. "
                "Outliers: weights beyond six standard deviations.", class_="note"),
            grid("How each matrix was rounded",
                 ["matrix", "error", "weighted error", "largest error of a block", "largest crest", "outliers",
                  "bits used", "bits by error"],
                 [[named(row["name"]), percent(row["relative_error"]), percent(row["weighted_error"]),
                   percent(row["block_error_largest"]), number(row["crest_largest"], 1), f"{row['outliers']:,}",
                   number(row["bits_used"]), number(row["bits_by_error"], 2)] for row in
                  sorted(found["matrices"], key=lambda row: -row["weighted_error"])], class_="wide"),
            worst_blocks(found), codes(found)]


def worst_blocks(found: Mapping) -> Html:
    """Of each matrix the block that holds the largest share of its squared error."""
    every = [(block["share"], row["name"], block) for row in found["matrices"] for block in row["worst_blocks"][:1]]
    blocks = sorted(every, key=lambda part: -part[0])
    note = ("Worst block: the one with the largest share of its matrix's squared error. That need not be the block "
            "with the largest error for its own weights, which the table above has. ")
    if found["state"] == "nf4":
        note += ("To see one weight by weight: .venv/bin/python -m glass --run RUN; under Four bits, choose the matrix "
                 "and press “its worst block”.")
    return folded("The worst block of each matrix", tag("p", note.strip(), class_="note"), grid(
        "The worst block of each matrix",
        ["matrix", "block", "row", "from column", "share of squared error", "error of the block", "largest weight",
         "crest"],
        [[named(name), block["block"], block["row"], block["column"], percent(share), percent(block["relative_error"]),
          number(block["largest"]), number(block["crest"], 1)] for share, name, block in blocks], class_="wide"))


def codes(found: Mapping) -> Html:
    """How often each of the sixteen codes is used."""
    title = "Codes 0 to 15, in per cent of the weights"
    return folded(title, grid(
        title, ["matrix", *range(16)],
        [[named(row["name"]), *(f"{100 * code / sum(row['codes']):.1f}" for code in row["codes"])]
         for row in found["matrices"]], class_="wide"))
