"""A claim's headline: one plain sentence of at most 25 words, with its number in it and a direction that is its sign's.

    "Fine-tuned on twelve languages instead of English alone, the model scores .08 higher on topic in ten languages that
    neither saw."
    "Undecided: +.03 (−.01 to +.07) on topic, fine-tuned on twelve languages instead of English alone, in ten
    languages that neither saw."

Where the interval contains zero, the sentence begins with that and has no word for a direction; where it is shown for
these fits alone, it says so. Of several ways to say the same, the first one that is short enough is taken.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product

import numpy as np

from data.languages import language_name
from stats.families import THESE
from study.questions.compared import is_shown, title_of
from study.report.section import Claim
from study.results import Results

MOST_WORDS = 25
COUNTS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
FIGURES = {"topic.macro_f1": "topic", "macro_f1": "labels", "accuracy": "labels", "topic.recall": "finding the topic",
           "topic.accuracy": "topic", "stance.end_to_end.accuracy": "stance", "stance.end_to_end.macro_f1": "stance",
           "stance.given_detection.accuracy": "stance once found", "stance.given_detection.macro_f1":
           "stance once found", "stance.conditional.accuracy": "stance of related posts",
           "stance.conditional.macro_f1": "stance of related posts"}  # fmt: skip
NONE = "Undecided"


def amount(value: float) -> str:
    """A difference's size without its sign: `amount(-0.083) -> ".08"`, `amount(0.0021) -> ".002"`."""
    size = abs(value)
    text = f"{size:.2f}" if size >= 0.005 or size == 0 else f"{size:.3f}"
    return text if float(text) >= 1 else text.removeprefix("0")


def p_words(p: float) -> str:
    """`p_words(0.0123) -> "p = 0.012"`, `p_words(0.9999) -> "p = 1"`."""
    if p >= 0.9995:
        return "p = 1"
    return "p < 0.001" if p < 0.0005 else f"p = {p:.3f}"


def many(count: int, noun: str) -> str:
    """`many(3, "language") -> "three languages"`, `many(1, "language") -> "one language"`; above twelve in digits."""
    words = COUNTS[count] if count < len(COUNTS) else f"{count:,}"
    return f"{words} {noun}{'s' * (count != 1)}"


def higher(value: float) -> str:
    """The direction that is the value's sign."""
    return "higher" if value >= 0 else "lower"


def scored(value: float, other: str = "") -> str:
    """Size and direction, beside another if one is named: ".08 higher", ".08 lower than en"."""
    return f"{amount(value)} {higher(value)}" + (f" than {other}" if other else "")


def with_sign(value: float) -> str:
    """A difference with its sign: `with_sign(-0.083) -> "−.08"`, `with_sign(0.0) -> ".00"`."""
    return ("+" if value > 0 else "−" if value < 0 else "") + amount(value)


def unshown(value: float, low: float | None, high: float | None) -> str:
    """How a headline begins that shows nothing: "Undecided: +.03 (−.01 to +.07)"."""
    ends = "no interval" if low is None or np.isnan(low) else f"{with_sign(low)} to {with_sign(high)}"
    return f"{NONE}: {with_sign(value)} ({ends})"


def finding(found: Mapping, shown: Sequence[str], begun: Sequence[str], *rest: Sequence[str]) -> str:
    """A headline: what is `shown`, if the interval leaves out zero; else that nothing is, its numbers, and `begun`,
    which goes on behind these. Each in several wordings; `rest` follows either.
    """
    if not (found["low"] is not None and is_shown(found)):
        start = unshown(*(found[key] for key in ("value", "low", "high")))
        return shortest([f"{start} {words}" for words in begun], *rest).rstrip(",") + "."
    these = found.get("holds") == THESE
    return shortest(["".join(parts) + ", in these fits" * (these and "these fits" not in parts[0])
                     for parts in product(shown, *rest)]) + "."


def shortest(*choices: Sequence[str]) -> str:
    """The parts of a sentence, each in several wordings: the first combination of at most `MOST_WORDS` words."""
    combined = ["".join(parts) for parts in product(*choices)]
    fits = [one for one in combined if len(one.split()) <= MOST_WORDS]
    return fits[0] if fits else min(combined, key=lambda one: len(one.split()))


def capped(plan, claim: Claim) -> Claim:
    """The claim; where its headline is too long, names of three words or more give way to numbers, said in its notes.

    `"…, small but many languages scores…" -> "…, set 2 scores…"`, with the note "Set 2: small but many languages."
    """
    names = [(name, f"{word} {number}") for word, group in (("set", plan.sets), ("model", plan.outside))
             for number, name in enumerate(group, 1) if len(name.split()) > 2]
    text, notes = claim.text, []
    for name, short in sorted(names, key=lambda pair: -len(pair[0])):  # one name may be part of another
        if len(text.split()) > MOST_WORDS and name in text:
            text = text.replace(f"outside model {name}", f"outside {short}").replace(name, short)
            notes.append(f"{short[:1].upper()}{short[1:]}: {name}.")
    text = text[:1].upper() + text[1:] if notes and text.startswith(("set ", "model ")) else text
    return replace(claim, text=text, notes=[*claim.notes, *notes])


def weights_words(quantize: str) -> str:
    """How the base's weights are stored: "weights stored as nf4", "weights that are not quantised"."""
    return "weights that are not quantised" if quantize == "none" else f"weights stored as {quantize}"


def taught(results: Results, name: str) -> str:
    """What a model was trained on: "English alone", "English and Spanish", "twelve languages"."""
    seen = [language_name(code) for code in results.seen(name)]
    if len(seen) == 1:
        return f"{seen[0]} alone"
    return " and ".join(seen) if len(seen) == 2 else many(len(seen), "language")


def called(results: Results, name: str) -> str:
    """A model by its name, said to be another's if it is."""
    return f"the outside model {name}" if name in results.plan.outside else name


def capital(sentence: str) -> str:
    """A sentence's first letter large, unless it begins with a set's own name."""
    return sentence.replace("the outside", "The outside", 1) if sentence.startswith("the outside") else sentence


def where(results: Results, first: str, second: str, languages: Sequence[str], named: bool) -> list[str]:
    """The languages of a comparison, the most telling words first; that only one side saw them is in all of them.

    `named`: the sentence before it names the two models; else it says what one was trained on instead of the other.
    """
    count, plain = len(languages), many(len(languages), "language")
    place = language_name(languages[0]) if count == 1 else plain
    known = [name not in results.plan.outside or results.plan.outside[name].seen is not None
             for name in (first, second)]
    saw = [len(set(languages) - set(results.unseen(name))) for name in (first, second)]
    ways = [f" over all {plain}"] if 1 < count == len(results.kept.languages) else [f" in {place}"]
    if saw == [0, 0]:
        return ways if count == 1 else [f" in {plain} that neither saw", f" in {plain} new to both", *ways]
    if not all(known) and saw[1] == 0 and count > 1:
        return [f" in {plain} that {second} never saw", f" in {plain} new to {second}", *ways]
    if not all(known) or min(saw) > 0:
        return ways
    one, most = (first, second)[saw[1] > 0], max(saw)
    if named:
        some = f"{most} of them " * (most < count)
        return [f" in {place}, {some}seen by {one} alone" if some or count == 1 else f" in {place} that only {one} saw"]
    turn = "leaves out" if saw[1] > 0 else "adds"
    if count == 1:
        return [f" in {place}, which this {turn}"]
    if most < count:
        return [f" in {place}, {most} of which this {turn}"]
    return [f" in the {place} that this {turn}", f" in the {place} this {turn}"]


def compared(results: Results, first: str, second: str, figure: str, languages: Sequence[str], found: Mapping) -> str:
    """The headline of one model less another."""
    what = FIGURES.get(figure, title_of(figure))
    value = found["value"]
    if value is None or np.isnan(value):
        return capital(f"{called(results, first)} and {called(results, second)} cannot be compared on {what}: 0 posts "
                       "allow it.")
    taughts = [taught(results, name) for name in (first, second)]
    named = where(results, first, second, languages, named=True)
    if {first, second} <= set(results.plan.sets) and taughts[0] != taughts[1]:
        turn = f"fine-tuned on {taughts[0]} instead of {taughts[1]}"
        ways = where(results, first, second, languages, named=False)
        model = "these fits score" if found.get("holds") == THESE else "the model scores"
        shown, begun = f"F{turn[1:]}, {model} {scored(value)} on {what}", f"on {what}, {turn},"
    else:
        ways, pair = named, [called(results, name) for name in (first, second)]
        shown, begun = f"{pair[0]} scores {scored(value, pair[1])} on {what}", f"on {what}, {pair[0]} less {pair[1]},"
    return capital(finding(
        found, [shown + way for way in ways] + [f"{first} scores {scored(value, second)} on {what}{way}"
                                                for way in named],
        [begun + way for way in ways] + [f"on {what}, {first} less {second},{way}" for way in named]))
