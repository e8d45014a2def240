"""Numbers as words: names of languages, rates with their intervals, and the three lines that open a report.

The three lines are made from `metrics.json` alone, so they claim no more than it holds:

    1. what was found on all rows, with its interval, beside the best constant answer
    2. seen against unseen languages as a difference with its interval (if training is unknown: topic and stance alone)
    3. what limits this: small cells, answers that are not labels, rows left out, repeated rows, and what no interval
       covers

Two rates are called different only if the interval of their difference excludes zero. "No difference can be shown" does
not mean that there is none, and the lines never claim that.
"""

from collections.abc import Mapping, Sequence

from report.intervals import rate_difference

SMALL = 30  # a language with fewer rows is marked: an accuracy of .5 is then uncertain by 17 points or more either way
NAMES = {
    "ar": "Arabic", "de": "German", "en": "English", "es": "Spanish", "fr": "French", "hi": "Hindi", "hu": "Hungarian",
    "id": "Indonesian", "it": "Italian", "ko": "Korean", "pl": "Polish", "pt": "Portuguese", "tr": "Turkish",
    "und": "language not given",
}  # fmt: skip


def language_name(code: str, names: Mapping[str, str] | None = None) -> str:
    """The English name of a language code, or the code itself if no name is known."""
    return (names or {}).get(code) or NAMES.get(code, code)


def number(value: float | None, digits: int = 3) -> str:
    """`number(0.5) -> "0.500"`; a dash for None."""
    return "–" if value is None else f"{value:.{digits}f}"


def interval(pair: Sequence[float] | None, digits: int = 2) -> str:
    """`interval([0.1, 0.2]) -> "[0.10, 0.20]"`; nothing for None."""
    return "" if pair is None else f"[{pair[0]:.{digits}f}, {pair[1]:.{digits}f}]"


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def counted(n: int, noun: str) -> str:
    """`counted(1, "post") -> "1 post"`, `counted(1200, "post") -> "1,200 posts"`."""
    return f"{n:,} {noun}" + ("" if n == 1 else "s")


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
    return [_overall(metrics), _comparison(metrics), _unsure(metrics, caution, names)]


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
    if not seen or not unseen or not seen["n"] or not unseen["n"]:
        if not seen:
            which = "It is not known here which languages were seen in training"
        else:
            side = "seen" if seen["n"] else "not seen"
            which = f"All {counted(metrics['n'], 'post')} are in languages {side} in training"
        told = [f"{words} {rate(cell)}" for words, cell, _ in _questions(metrics, metrics)]
        return f"{which}, so seen and unseen ones cannot be compared. Over all posts, {'; '.join(told)}."
    trained = f"{len(seen['languages'])} languages" if len(seen["languages"]) > 1 else "one language"
    others = f"{len(unseen['languages'])} unseen ones" if len(unseen["languages"]) > 1 else "one unseen language"
    opening = (f"Of the {counted(seen['n'], 'post')} in the {trained} seen in training and the {unseen['n']:,} in the "
               f"{others},")
    parts = []
    for words, one, two in _questions(seen, unseen):
        part = f"{words} {rate(one)} and {rate(two)}"
        found = rate_difference((one["accuracy"] * one["n"], one["n"]), (two["accuracy"] * two["n"], two["n"]),
                                metrics["intervals"]["level"]) if one["n"] and two["n"] else None
        if found:
            gap, low, high = (-100 * found[0], -100 * found[2], -100 * found[1])
            verdict = "lower" if gap < 0 else "higher"
            verdict = "so no difference can be shown" if low <= 0 <= high else f"{verdict} in the unseen languages"
            part += f": {gap:+.1f} points ({low:+.1f} to {high:+.1f}), {verdict}".replace("-", "−")
        parts.append(part)
    return f"{opening} {'; '.join(parts)}."


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
    if metrics["intervals"]["largest_cluster"] > 1:
        parts.append("for the intervals of F1, copies of a post or posts by one author are resampled together")
    if metrics["seen"] and metrics["seen"]["n"] and metrics["unseen"]["n"]:
        parts.append("seen and unseen languages also differ in their posts")
    parts.append("the intervals cover the choice of test posts, not the luck of one training run")
    if caution:
        parts.append(caution.rstrip("."))
    return f"How sure: {'; '.join(parts)}."
