"""What stands above the first claims: what the plan's family shows, the weaker of it apart, and what was not tested.

    opening_of(study) -> Opening, or None without a family

A claim of the family that was not declared before the first answer, or that is about its fits alone, is shown on weaker
grounds than one of which neither is true. Where a study has both kinds, the weaker ones get a list of their own.
Comparisons are each tested against no difference and never against each other; two claims that stand side by side
invite just that, so it is said.
"""

from typing import NamedTuple

from study.report.section import FAMILY, Claim, Study

APART = "Also shown, on weaker grounds:"
UNDECIDED = "Undecided: the data are compatible with a difference, and also with none."
TERMS = {
    "macro-F1": "each label has an F1, from 0 to 1, which falls with each post of that label that is missed and each "
    "other post that gets it; macro-F1 is the mean of these, so a rare label counts as much as a frequent one.",
    "given detection": "related posts count that the model took for related, which are other posts for each model.",
    "stance conditional": "of every related post the likeliest stance counts, whether the model found the topic or "
    "not, so the posts are the same for all models.",
    "end to end": "a post is right if its stance is, so a post that the model takes for another topic is wrong.",
}


class Opening(NamedTuple):
    """`head`: how many comparisons show a difference; `firm`: these in the plan's order, each with its status, and
    `weaker`, with the reason; `caution`: what was not tested, "" for a family of one; `undecided`: what that means.
    """

    head: str
    firm: list[str]
    weaker: list[str]
    caution: str
    undecided: str

    @property
    def lines(self) -> list[str]:
        """All of it, for a terminal."""
        every = [self.head, *self.firm, *([APART, *self.weaker] if self.weaker else []), self.caution, self.undecided]
        return [line for line in every if line]


def opening_of(study: Study) -> Opening | None:
    """What the plan's family shows."""
    claims = next((section.claims for section in study.sections if section.key == FAMILY), [])
    if not claims:
        return None
    shown = [claim for claim in claims if is_shown(claim)]
    firm = [claim for claim in shown if not claim.weaker] or shown
    count, open_ = len(claims), len(claims) - len(shown)
    caution = "" if count == 1 else (
        "No comparison was tested against another: it is not shown that one difference is larger than another"
        + ", nor that one shown is larger than one undecided" * bool(shown and open_) + ".")
    return Opening(_head(count, len(shown)), [_line(claim.text, claim.status) for claim in firm],
                   [_line(claim.text, claim.weaker) for claim in shown if claim not in firm], caution,
                   UNDECIDED * bool(open_))


def _head(count: int, shown: int) -> str:
    """`_head(4, 1) -> "Of the plan's 4 comparisons, 1 shows a difference and 3 are undecided."`"""
    shows, are = f"show{'s' * (shown == 1)} a difference", "is" if count - shown == 1 else "are"
    if shown in (0, count):
        who = f"All {count:,} of the plan's comparisons" if count > 1 else "The plan's comparison"
        return f"{who} {shows if shown else f'{are} undecided'}."
    return f"Of the plan's {count:,} comparisons, {shown:,} {shows} and {count - shown:,} {are} undecided."


def is_shown(claim: Claim) -> bool:
    """Whether its interval leaves out zero."""
    return claim.low is not None and (claim.low > 0 or claim.high < 0)


def is_undecided(claim: Claim) -> bool:
    """Whether it is a difference, or an association, whose interval contains zero."""
    return claim.kind in ("difference", "correlation") and claim.low is not None and not is_shown(claim)


def terms_of(claims: list[Claim]) -> list[str]:
    """What the terms mean that stand in the text of `claims`, a sentence each."""
    text = " ".join(f"{claim.text} {claim.may_say} {claim.may_not_say}" for claim in claims)
    return [f"{term[0].upper()}{term[1:]}: {meaning}" for term, meaning in TERMS.items() if term in text]


def verdict(claim: Claim) -> str:
    """What a difference's interval says about zero, in words that stand before the numbers; "" for other claims."""
    if is_undecided(claim):
        what = "an association" if claim.kind == "correlation" else "a difference"
        return f"The interval contains zero: this shows neither {what} nor that there is none."
    if claim.kind not in ("difference", "correlation") or claim.low is None:
        return ""
    return f"The whole interval lies {'above' if claim.low > 0 else 'below'} zero."


def _line(text: str, words: str) -> str:
    return f"{text} {words[:1].upper()}{words[1:]}{'.' * bool(words)}".strip()
