"""What may be said of pre-training shares: the rise from the smallest share to the largest, and whether it is shown."""

from collections.abc import Sequence

from data.languages import language_name
from report.intervals import LEVEL
from report.words import counted
from study.questions.sentences import NONE, amount, many, p_words, shortest, unshown
from study.report.section import Claim, Table
from study.report.tables import shown
from study.results import Results

AFTER_BASE = "after less before"


def share_rows(chosen: str, related: Sequence[dict], over: str = "all") -> list[dict]:
    """A model's accuracy on log10 share: the row with all listed languages, then the one without English."""
    return [row for row in related if (row["model"], row["figure"], row["over"]) == (chosen, "accuracy", over)
            and row["measure"].startswith("pearson")]


def one_association(row: dict) -> str:
    """"r = +0.52, p = 0.031 over all 362,880 orders of 9 languages"."""
    orders = f"{'all' if row['exact'] else 'randomly drawn'} {row['orders']:,} orders"
    return f"r = {shown(row['r'], 'difference')}, {p_words(row['p'])} over {orders} of {row['n']} languages"


def share_answer(chosen: str, related: Sequence[dict], listed: Sequence[str]) -> str:
    """The section's answer, from the chosen model's rows."""
    rows = [row for row in share_rows(chosen, related) if row["r"] is not None]
    if not rows:
        return (f"Nothing can be said: {counted(len(listed), 'test language')} with a listed share, but three are "
                "needed that differ in share and in accuracy.")
    words = f"For {chosen}, {whether_associated(rows[0], 'accuracy')} ({one_association(rows[0])})"
    if len(rows) > 1:
        words += f"; without English, {whether_associated(rows[1], 'accuracy')} ({one_association(rows[1])})"
    return f"{words}. This can be no more than an association among these languages."


def whether_associated(row: dict, figure: str) -> str:
    """What was found, without numbers: whether the test finds the two to go together."""
    if is_associated(row):
        return f"{figure} and the share of pre-training are associated among these {row['n']} languages"
    return f"no association of {figure} with the share of pre-training is shown among these {row['n']} languages"


def is_associated(row: dict) -> bool:
    return row["p"] <= 1 - LEVEL + 1e-9


def share_claims(chosen: str, related: Sequence[dict]) -> list[Claim]:
    """With and without English: the rise over the observed shares, and its permutation p."""
    rows = [row for row in share_rows(chosen, related) if row["r"] is not None]
    claims = []
    for row in rows:
        without = "" if row["english"] or len(rows) == 1 else " without English"
        beside = f"; without English, {one_association(rows[1])}" if row["english"] and len(rows) > 1 else ""
        claims.append(Claim(
            over_range(row, [f"{chosen}'s accuracy"], without),
            row["rise"], row["low"], row["high"],
            f"{what_may_be_said(row, 'accuracy')} In numbers: {one_association(row)}{beside}.",
            "That share causes accuracy, that anything follows for individual posts or for languages without a listed "
            "share, or that a bias is corrected.",
            languages=row["languages"].split(), holds="other orders of these languages, by permutation"))
    return claims


def over_range(row: dict, figures: Sequence[str], without: str = "") -> str:
    """A headline of a rise: its size, its direction, and between which shares; or that it is undecided.

    figures: the same one, in several wordings.
    """
    over = f"over {many(row['n'], 'language')}{without}"
    if row["rise"] is None:
        found = f"r = {shown(row['r'], 'difference')} of {figures[0]} with pre-training share, {over}"
        return f"{'Association' if is_associated(row) else NONE}: {found}."
    between = [f" from the smallest {words}share ({language_name(row['least'])}) to the largest "
               f"({language_name(row['largest'])})" for words in ("pre-training ", "")]
    if not is_associated(row):
        start = unshown(row["rise"], row["low"], row["high"])
        return shortest([f"{start} in {figure}, {over}," for figure in figures], between) + "."
    turn = "rises" if row["rise"] >= 0 else "falls"
    return shortest([f"O{over[1:]}, {figure} {turn} by {amount(row['rise'])}" for figure in figures], between) + "."


def what_may_be_said(row: dict, figure: str) -> str:
    """An association if the test finds one; else that none is shown."""
    if is_associated(row):
        return (f"Among these {row['n']} languages, {figure} and share are associated: they go together as closely as "
                f"here in {row['p']:.2g} of the orders.")
    return (f"Among these {row['n']} languages, no association of {figure} with share is shown ({p_words(row['p'])}; "
            f"no p below {row['smallest_p']:.2g} was possible).")


def exposure_claims(results: Results, table: Table, tests: Table) -> list[Claim]:
    """The change against share, if there are enough languages."""
    name = f"{results.plan.exposure.base}, {AFTER_BASE}"
    row = next((row for row in share_rows(name, tests.rows, "added") if row["r"] is not None), None)
    if row is None:
        return []
    most = max(line["rows"] for line in table.rows)
    return [Claim(over_range(row, [f"the gain in accuracy from {most} rows of their own",
                                   f"the gain from {most} own rows"]),
                  row["rise"], row["low"], row["high"],
                  f"{what_may_be_said(row, 'the change in accuracy')} In numbers: {one_association(row)}.",
                  "That the rows corrected a bias of pre-training: languages that are low before have more room, and "
                  "rise by chance alone; or that the share causes the change.",
                  languages=row["languages"].split(), holds="other orders of these languages, by permutation")]
