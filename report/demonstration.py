"""What the demonstration shows, in three sentences for somebody who has not read the paper.

    1. what the paper found        2. what this run found, in posts        3. why its seen and unseen languages differ,
                                                                              or do not

The third follows the interval of the difference between the two rates, as the findings do (`report.words`); no share
and no interval is quoted, only counts of posts.
"""

from collections.abc import Mapping

from report.intervals import rate_difference
from report.words import counted

PAPER = ("What the paper found: a model hundreds of times as large, fine-tuned on tweets in one or two languages, can "
         "also tell whether a tweet is about immigration in languages that it was not fine-tuned on; which side a "
         "tweet takes it gets right more often when it is fine-tuned on many languages.")
SAME = ("Why the two come out alike, as far as so few posts can tell: before, this base read the same sentences in all "
        "thirteen languages, so that a word and its translation mean nearly the same to it, and what it learns from a "
        "few English and Spanish posts holds for the others as well.")
LOWER = ("Why it does worse there: before, this base read the same sentences in all thirteen languages, so much of "
         "what it learns carries over, but not the words and turns of phrase that only posts in a language show.")
HIGHER = ("Why it does better there: hardly because it was not fine-tuned on them; the few posts of each language are "
          "other posts, and some are easier than others.")


def explanation(metrics: Mapping) -> list[str]:
    """The three sentences; none unless there are posts in both seen and unseen languages."""
    seen, unseen = metrics["seen"], metrics["unseen"]
    if not seen or not unseen or not seen["n"] or not unseen["n"]:
        return []
    right = {id(part): round(part["accuracy"] * part["n"]) for part in (seen, unseen)}
    constant = round(unseen["majority"]["accuracy"] * unseen["n"])
    here = (f"What is seen here: of {counted(unseen['n'], 'post')} in {counted(len(unseen['languages']), 'language')} "
            f"that this run was not fine-tuned on, {right[id(unseen)]} get the right label (always giving the same one "
            f"would get {constant} right); of {seen['n']} in the {len(seen['languages'])} that it was, "
            f"{right[id(seen)]} do. These posts are invented: a language model wrote and labelled them, where people "
            "label posts of your own.")
    _, low, high = rate_difference((right[id(seen)], seen["n"]), (right[id(unseen)], unseen["n"]),
                                   metrics["intervals"]["level"])
    return [PAPER, here, SAME if low <= 0 <= high else LOWER if low > 0 else HIGHER]
