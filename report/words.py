"""Numbers as words: names of languages, rates with their intervals, and the three lines that open a report.

The three lines are made from `metrics.json` alone, so they claim no more than it holds:

    1. what was found on all rows, with its interval, beside the best constant answer
    2. seen against unseen languages as a difference with its interval, beside what each side's own most frequent answer
       gets; where the answers are too near to constant ones, that instead (if training is unknown: topic and stance
       alone)
       (and, where a baseline was asked for, whether it is better: the sentence that report/beside.py made)
    3. what limits this: small cells, answers that are not labels, rows left out, repeated rows, and what no interval
       covers

Two rates are called different only if the interval of their difference excludes zero, and also what the most frequent
answers differ by. "No difference can be shown" does not mean that there is none, and the lines never claim that.
"""

from collections.abc import Mapping, Sequence
from textwrap import wrap

from common.errors import escaped
from common.terminal import HARMLESS
from common.terminal import counted as counted
from report.cells import MIN_ROWS
from report.clusters import MIN_GROUPS
from report.intervals import rate_difference, wilson

SMALL = 30  # a language with fewer rows is marked: an accuracy of .5 is then uncertain by 17 points or more either way
NEAR = 0.1  # to 0 or 1: so near to a constant answer nothing is said about transfer
NAMES = {
    "ar": "Arabic", "de": "German", "en": "English", "es": "Spanish", "fr": "French", "hi": "Hindi", "hu": "Hungarian",
    "id": "Indonesian", "it": "Italian", "ko": "Korean", "pl": "Polish", "pt": "Portuguese", "tr": "Turkish",
    "und": "language not given",
}  # fmt: skip


def language_name(code: str, names: Mapping[str, str] | None = None) -> str:
    """The English name of a language code, or the code itself if no name is known."""
    return (names or {}).get(code) or NAMES.get(code, code)


def signed(value: float, digits: int) -> str:
    """`signed(-0.0312, 2) -> "−0.03"`; what rounds to zero has no sign."""
    text = f"{value:+.{digits}f}"
    return text.replace("-", "−") if any(c in "123456789" for c in text) else text[1:]


def number(value: float | None, digits: int = 3) -> str:
    """`number(0.5) -> "0.500"`, `number(-0.5) -> "−0.500"`, `number(-0.0001) -> "0.000"`; a dash for None."""
    return "–" if value is None else f"{value:z.{digits}f}".replace("-", "−")


def interval(pair: Sequence[float] | None, digits: int = 2) -> str:
    """`interval([0.1, 0.2]) -> "[0.10, 0.20]"`; nothing for None."""
    return "" if pair is None else f"[{number(pair[0], digits)}, {number(pair[1], digits)}]"


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def unbroken(text: str) -> str:
    """`text` with no-break spaces before its per cent signs."""
    return text.replace(" %", "\u00a0%")


def filled(text: str) -> list[str]:
    """Lines of at most 100 columns, for a terminal; a number stays with its per cent sign, and a word whole."""
    plain = unbroken(escaped(text, keep=HARMLESS + "\n"))
    return [line.replace("\u00a0", " ") for line in wrap(plain, 100, break_on_hyphens=False)]


def rate(cell: Mapping, name: str = "accuracy") -> str:
    """`66.1 % (62.9 to 69.1 %)`."""
    pair = cell.get(f"{name}_ci")
    spread = f" ({100 * pair[0]:.1f} to {100 * pair[1]:.1f} %)" if pair else ""
    return percent(cell[name]) + spread


def findings(metrics: Mapping, *, caution: str = "", names: Mapping[str, str] | None = None) -> list[str]:
    """Three lines: what was found, seen against unseen, how sure. `caution`: a caller's own words for the third line.
    """
    if not metrics["n"]:
        return ["No posts were scored.", "There is nothing to compare.", "No conclusion can be drawn."]
    beside = [metrics["baseline"]["sentence"]] if metrics.get("baseline") else []
    return [_overall(metrics), _comparison(metrics), *beside, _unsure(metrics, caution, names)]


def _overall(metrics: Mapping) -> str:
    majority = metrics["majority"]
    low, high = metrics["accuracy_ci"]
    level = f"{metrics['intervals']['level'] * 100:g} % interval"
    if low > majority["accuracy"]:
        against = "more than"
    elif high < majority["accuracy"]:
        against = "less than"
    else:
        against = "which cannot be told apart from"
    languages = counted(len(metrics["by_language"]), "language")
    macro = f"Macro-F1, in which each label counts the same, is {number(metrics['macro_f1'])}"
    if metrics["macro_f1_ci"]:
        macro += f" ({metrics['macro_f1_ci'][0]:.3f} to {metrics['macro_f1_ci'][1]:.3f})"
    share = percent(metrics["accuracy"])
    return (f"Of {counted(metrics['n'], 'post')} in {languages}, {share} get the label that people gave them "
            f"({level} {100 * low:.1f} to {100 * high:.1f} %), {against} the {percent(majority['accuracy'])} that "
            f"always answering “{majority['label']}” would get right. {macro}; for that constant answer it is "
            f"{number(majority['macro_f1'])}.")


def _comparison(metrics: Mapping) -> str:
    seen, unseen = metrics["seen"], metrics["unseen"]
    if not seen or not unseen or min(seen["n"], unseen["n"]) < MIN_ROWS:
        if not seen:
            which = "It is not known here which languages were seen in training"
        elif seen["n"] and unseen["n"]:
            side, n = min((("seen", seen["n"]), ("not seen", unseen["n"])), key=lambda pair: pair[1])
            which = f"Only {counted(n, 'post')} {'is' if n == 1 else 'are'} in languages {side} in training"
        else:
            side = "seen" if seen["n"] else "not seen"
            which = f"All {counted(metrics['n'], 'post')} are in languages {side} in training"
        told = [f"{words} {rate(cell)}" for words, cell, _ in _questions(metrics, metrics) if cell["n"]]
        over = f" Over all posts, {'; '.join(told)}." if told else ""
        return f"{which}, so seen and unseen ones cannot be compared.{over}"
    trained = f"{len(seen['languages'])} languages" if len(seen["languages"]) > 1 else "one language"
    others = f"{len(unseen['languages'])} unseen ones" if len(unseen["languages"]) > 1 else "one unseen language"
    opening = (f"Of the {counted(seen['n'], 'post')} in the {trained} seen in training and the {unseen['n']:,} in the "
               f"{others},")
    questions = _questions(seen, unseen)
    flat = [f"in the {side} languages {words}" for side, cell in (("seen", seen), ("unseen", unseen))
            if (words := constant_like(cell))]
    if flat:
        words, one, two = questions[0]
        return (f"{opening} nothing can be said about transfer: {'; '.join(flat)}. {words[:1].upper()}{words[1:]} "
                f"{rate(one)} and {rate(two)}, beside {_constants(one, two)}.")
    level = metrics["intervals"]["level"]
    return f"{opening} {'; '.join(_compared(words, one, two, level) for words, one, two in questions)}."


def _compared(words: str, one: Mapping, two: Mapping, level: float) -> str:
    """One question's rates in the seen and the unseen languages, what may be said of their difference, and beside them
    what each side's own most frequent answer gets: it differs where the answers' shares do, whatever the model does."""
    part = f"{words} {rate(one)} and {rate(two)}"
    if not one["n"] or not two["n"]:
        return part
    found = rate_difference(_hits(one), _hits(two), level)
    gap, low, high = (-100 * found[0], -100 * found[2], -100 * found[1])
    shift = 100 * (two["majority"]["accuracy"] - one["majority"]["accuracy"])
    if low <= 0 <= high:
        verdict = "so no difference can be shown"
    else:
        verdict = "lower in the unseen languages" if gap < 0 else "higher in the unseen languages"
        if (high if gap < 0 else -low) - (shift if gap < 0 else -shift) >= 0:
            verdict = f"no more than the most frequent answers' own difference of {signed(shift, 1)} points explains"
    part += f": {signed(gap, 1)} points ({signed(low, 1)} to {signed(high, 1)}), {verdict}"
    return f"{part}, beside {_constants(one, two)}"


def _hits(cell: Mapping) -> tuple[float, float]:
    """Right answers and answers, as many as those that belong together are worth."""
    n = cell.get("n_effective", cell["n"])
    return cell["accuracy"] * n, n


def _constants(one: Mapping, two: Mapping) -> str:
    """What always giving the most frequent answer gets on each side, and the model's macro-F1 beside it."""
    first, second = one["majority"], two["majority"]
    same = first["label"] == second["label"]
    which = f"“{first['label']}”" if same else f"“{first['label']}” and “{second['label']}”"
    return (f"{percent(first['accuracy'])} and {percent(second['accuracy'])} for always {which} (macro-F1 "
            f"{number(one['macro_f1'])} and {number(two['macro_f1'])}, beside {number(first['macro_f1'])} and "
            f"{number(second['macro_f1'])})")


def constant_like(cell: Mapping) -> str:
    """What the model does where its answers are too near to a constant one to compare anything; else "".

    Near: the interval of the topic's recall reaches below `NEAR`; or it reaches above 1 - `NEAR`, and the specificity's
    below `NEAR`. (A recall near 1 alone is what a good model has.) Without a topic: the same of the label that is
    given most often, with all the others in the place of the unrelated.
    """
    topic = cell["topic"]
    if topic:
        if topic["recall"] is None or topic["specificity"] is None:
            return ""
        if topic["recall_ci"][0] < NEAR:
            return (f"the model finds {rate(topic, 'recall')} of the related posts, too near to always answering "
                    "“unrelated”")
        if topic["recall_ci"][1] > 1 - NEAR and topic["specificity_ci"][0] < NEAR:
            return (f"the model recognises {rate(topic, 'specificity')} of the unrelated posts, too near to always "
                    "answering “related”")
        return ""
    most = max(cell["labels"], key=lambda name: cell["labels"][name]["predicted"])
    support = cell["labels"][most]["support"]
    hits = [row[column] for column, row in enumerate(cell["confusion"]["counts"])]
    own = hits[cell["confusion"]["labels"].index(most)]
    others = wilson(sum(hits) - own, cell["n"] - support)
    if others is None or not support or others[0] >= NEAR or wilson(own, support)[1] <= 1 - NEAR:
        return ""
    return (f"the model gets {percent((sum(hits) - own) / (cell['n'] - support))} ({100 * others[0]:.1f} to "
            f"{100 * others[1]:.1f} %) of the posts with another label than “{most}” right, too near to always "
            f"answering “{most}”")


def _questions(first: Mapping, second: Mapping) -> list[tuple[str, Mapping, Mapping]]:
    """What is compared, in words: the topic and the stance if the codebook has them, else the label."""
    if not first["topic"]:
        return [("the label is right for", first, second)]
    pairs = [("the topic (related or not) is right for", first["topic"], second["topic"])]
    if first["stance"]:
        key = "given_detection"
        pairs.append(("the stance of related posts that were found is right for",
                      first["stance"][key], second["stance"][key]))
    return pairs


def groups(intervals: Mapping) -> str:
    """`"72 groups of posts with the same text"`, as metrics.json says what was resampled; the column is named."""
    what = in_common(intervals.get("grouped_by"), intervals.get("texts_first", False))
    few = round(intervals.get("effective_clusters", intervals["clusters"]))  # evaluations before it had none
    unequal = f", so unequal that they count as {few:,}" if few < 0.8 * intervals["clusters"] else ""
    return (f"{counted(intervals['clusters'], 'group')} of posts with {what}, the largest of "
            f"{intervals['largest_cluster']:,}{unequal}")


def in_common(column: str | None, texts_first: bool) -> str:
    """What posts have in common that belong together (`data.groups`): `in_common("author", False) -> "the same text or
    “author”"`."""
    if texts_first:
        return f"a text that several “{column}” share, or else the same “{column}”"
    return f"the same text or “{column}”" if column else "the same text"


def _unsure(metrics: Mapping, caution: str, names: Mapping[str, str] | None) -> str:
    parts = []
    languages = metrics["by_language"]
    small = [name for name, cell in languages.items() if cell["n"] < SMALL]
    if small:
        worst = max((languages[name]["accuracy_ci"][1] - languages[name]["accuracy_ci"][0]) / 2 for name in small)
        which = "all" if len(small) == len(languages) else str(len(small)) if len(small) > 3 else \
            " and ".join(language_name(name, names) for name in small)
        of = f"{which} of the {len(languages)} languages" if which.isdigit() or which == "all" else which
        of = "the only language" if len(languages) == 1 else of
        have = "have" if len(small) > 1 else "has"
        parts.append(f"{of} {have} fewer than {SMALL} posts, so accuracy there is uncertain by up to "
                     f"±{100 * worst:.0f} points")
    outside = sum(line[-1] for line in metrics["confusion"]["counts"])
    if outside:
        verb = "counts" if outside == 1 else "count"
        parts.append(f"{counted(outside, 'answer')} outside the label set {verb} as wrong")
    dropped = metrics["dropped"]
    if dropped.get("rows"):
        words = f"{counted(dropped['rows'], 'post')} left out"
        if dropped.get("all_rows"):
            words += f" (with all {dropped['all_rows']['n']:,}, accuracy is {percent(dropped['all_rows']['accuracy'])})"
        parts.append(words)
    if near := metrics.get("near"):
        verb, their, them = ("is", "its", "it") if near["rows"] == 1 else ("are", "their", "them")
        words = (f"{counted(near['rows'], 'post')} {verb} much like a training post (half of {their} three-word runs "
                 "or more")
        if near["rest"]["n"]:
            words += f"; without {them}, accuracy is {percent(near['rest']['accuracy'])}"
        parts.append(words + ")")
    if metrics["intervals"]["largest_cluster"] > 1:
        parts.append(f"in the intervals, posts that belong together count together: {groups(metrics['intervals'])}")
        if round(metrics["intervals"].get("effective_clusters", metrics["intervals"]["clusters"])) < MIN_GROUPS:
            parts.append(f"fewer than {MIN_GROUPS} groups are too few for an interval of F1")
    if metrics["seen"] and metrics["seen"]["n"] and metrics["unseen"]["n"]:
        parts.append("seen and unseen languages also differ in their posts")
    parts.append("the intervals cover the choice of test posts, not the luck of one training run")
    if caution:
        parts.append(caution.rstrip("."))
    return f"How sure: {'; '.join(parts)}."
