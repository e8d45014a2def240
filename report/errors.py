"""The surest errors of a model, cell by cell of the confusion table, as text to read: where the codebook is unclear,
where people may have erred, and what the model has not learnt."""

import unicodedata
from collections.abc import Sequence
from textwrap import wrap

WIDTH, MOST = 96, 280  # columns of the text; characters of a post that are shown


def surest_errors(gold: Sequence[str], predicted: Sequence[str], sureness: Sequence[float], texts: Sequence[str],
                  places: Sequence[str], each: int = 5) -> str:
    """Lines: for every pair of human and predicted label, the commonest pair first, the `each` surest errors.

    sureness: the probability of the predicted label. places: where each post is found again.
    """
    cells: dict[tuple[str, str], list[int]] = {}
    for index, pair in enumerate(zip(gold, predicted, strict=True)):
        if pair[0] != pair[1]:
            cells.setdefault(pair, []).append(index)
    if not cells:
        return "no errors: every post has its human label"
    total = sum(map(len, cells.values()))
    lines = [f"{total:,} of {len(gold):,} posts have another label than people gave them; the surest of each kind:"]
    for (right, wrong), found in sorted(cells.items(), key=lambda cell: (-len(cell[1]), cell[0])):
        lines += ["", f"people say “{right}”, the model says “{wrong}”: {len(found):,}"]
        for index in sorted(found, key=lambda index: (-sureness[index], places[index]))[:each]:
            lines.append(f"  {sureness[index]:.3f}  {places[index]}")
            lines += [f"         {line}" for line in wrap(shown(texts[index]), WIDTH - 9)]
    return "\n".join(lines)


def shown(text: str) -> str:
    """A post on one line, shortened; what would move a terminal's cursor is shown as U+FFFD."""
    plain = "".join(" " if char.isspace() else "\ufffd" if unicodedata.category(char)[0] == "C" and
                    char not in "\u200c\u200d" else char for char in text)
    plain = " ".join(plain.split())
    return plain if len(plain) <= MOST else plain[: MOST - 1] + "…"
