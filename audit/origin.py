"""The page's part about provenance: what the hashes and the steps done again say, and what they leave open."""

from collections.abc import Mapping

from audit.provenance import KEPT
from finetune.run_folder import MADE
from report.markup import Html, grid, tag
from report.words import counted

ADAPTER = tuple(name for name in MADE if name.startswith("adapter/"))


def said_of_provenance(found: Mapping) -> str:
    """The first line about where the run is from."""
    rows = found["hashes"]
    wrong = [row["name"] for row in rows if row["same"] is False]
    absent = [row["name"] for row in rows if row["recorded"] and row["found"] is None]
    words = "Provenance: every recorded hash that could be checked is the same" if not wrong else (
        f"Provenance: {', '.join(wrong)} differ{'s' * (len(wrong) == 1)} from what was recorded")
    words += f"; {', '.join(absent)} could not be checked" if absent else ""
    if any(row["name"] in ADAPTER and row["recorded"] is None for row in rows):
        words += ("; the run recorded no hash of its adapter, so the adapter's file itself was not checked" +
                  (" by one" if compared(found) else ""))
    return f"{words}. {said_of_steps(found['replay'])}"


def compared(found: Mapping) -> bool:
    """Whether the adapter that is audited was compared with one that was made again."""
    return bool(found["replay"] and not found["replay"]["why"] and found["replay"]["adapter"])


def said_of_steps(again: Mapping | None) -> str:
    """What was done again, of how much, and whether that came to the adapter."""
    if again is None:
        return "No step was done again, so nothing says that this data made this adapter."
    if again["why"]:
        return f"No step could be done again, so nothing says that this data made this adapter: {again['why']}."
    of = f"Of {counted(again['recorded'], 'recorded step')}, {again['steps']:,} {_were(again['steps'])} done again"
    first = again["difference"]
    if first is None:
        words = f"{of}, all equal to the bit." if again["steps"] > 1 else f"{of}, equal to the bit."
    else:
        where = f" Not as recorded: {'; '.join(again['elsewhere'])}." if again["elsewhere"] else (
            " Packages, code and processor's kind are as recorded.")
        words = (f"{of}, of which {again['equal']:,} {_are(again['equal'])} equal to the bit before the first "
                 f"difference: step {first['step']:,}, {first['figure']}, {first['recorded']!r} then and "
                 f"{first['found']!r} now.{where}")
    if again["adapter"]:
        words += f" {said_of_adapter(again)}"
    else:
        way = f"it is that of step {again['chosen']:,}" if again["chosen"] else "run.json does not say of which step"
        words += f" The adapter that was audited, adapter/, was not compared: {way}."
    posts = again["posts"]
    left = posts["all"] - posts["done"]
    return words + (f" {left:,} of {counted(posts['all'], 'training post')} {_are(left)} in none of these steps, and "
                    f"{'was' if left == 1 else 'were'} not tested." if left else "")


def said_of_adapter(again: Mapping) -> str:
    """`adapter/`, beside what the steps done again made of it."""
    made, of = again["adapter"], f"that of step {again['chosen']:,}"
    if made["same"]:
        return f"The adapter that was audited, adapter/, is to the bit {of}."
    far = f" differs, by up to {made['largest_difference']:.2g}" if made["largest_difference"] is not None else ""
    return f"The adapter that was audited, adapter/, is not {of}: {made['what']}{far}."


def provenance(found: Mapping) -> list[Html]:
    """The table of hashes, and the steps done again."""
    words = {True: "same", False: "differs", None: "–"}
    rows = [[row["name"], words[row["same"]], row["what"], tag("code", (row["recorded"] or "–")[:16]),
             tag("code", (row["found"] or "not there")[:16])] for row in found["hashes"]]
    parts = [tag("p", said_of_steps(found["replay"])),
             grid("Hashes", ["name", "same?", "kind", "recorded", "found now"], rows, numbers=[False] * 5,
                  class_="wide hashes"),
             tag("p", "The first 16 digits of each; audit.json has all. A dash: the run recorded nothing to compare. "
                 f"{KEPT}", class_="note")]
    again = found["replay"]
    if again and again["difference"]:
        parts.append(tag("p", "Other bits are no proof of other data: another processor, library or code "
                         "rounds otherwise. A difference in the last digits looks like such a rounding; one in the "
                         "first digits does not."))
    return parts


def _were(count: int) -> str:
    return "was" if count == 1 else "were"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"
