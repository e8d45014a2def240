"""What stands below each picture: only what that picture shows, read from the drawn figure itself.

Each function takes the figure (of report/figures.py) and returns its caption, so that a mark, a colour or a row of
numbers that this run does not have is not explained either.
"""

from matplotlib.figure import Figure

from report.tables import MARKS

MARKERS = {"s": "blue squares: languages seen in training", "o": "orange dots: not seen"}


def marks_in(text: str) -> list[str]:
    """The lines of `MARKS` whose sign occurs in the text."""
    return [line for line in MARKS if line[0] in text]


def of_intervals(figure: Figure, level: float) -> str:
    """`level`: that of the intervals, 0 to 1."""
    drawn = {line.get_marker() for ax in figure.axes for line in ax.lines}
    colours = [words for marker, words in MARKERS.items() if marker in drawn]
    colours = ["orange dots: languages not seen in training"] if drawn & set(MARKERS) == {"o"} else colours
    sides = f" {_sentence(colours)}" if colours else ""
    return (f"Accuracy with its {level * 100:g} % interval (line).{sides} Grey bar: the accuracy of always giving that "
            "row's most frequent label. If the line crosses the bar, no difference from that constant answer can be "
            "shown.")


def of_heat_map(figure: Figure) -> str:
    shown = " ".join(text.get_text() for ax in figure.axes for text in (*ax.texts, *ax.get_yticklabels()))
    marks = marks_in(shown)
    return "Darker is higher; the number of posts is in brackets." + (f" {_sentence(marks)}" if marks else "")


def of_confusion(figure: Figure) -> str:
    cells = [text.get_text() for text in figure.axes[0].texts]
    if not cells:
        told = ": the darker a cell, the larger its share of the row"
    elif any(text.endswith("%") for text in cells):
        told = ": the percentage, and the number of posts below it"
    else:
        told = ", in per cent of the row: the darker a cell, the more"
    numbered = " Columns have the numbers of the rows." if len(figure.axes[0].get_yticks()) > 8 else ""
    return (f"Each row shows how the model labelled the posts with that human label{told}.{numbered} Framed cells are "
            "right answers.")


def of_reliability(figure: Figure) -> str:
    return ("Points: as many posts each, sorted by the probability of their label, with intervals. On the dashed line, "
            "answers with that probability are right that often; below it, the model is too sure, above it, not sure "
            "enough. The other picture: how many posts keep their label, and how many of these labels are right, if "
            "labels with a lower probability are left out.")


def of_loss(figure: Figure) -> str:
    scores = " Below: macro-F1 on the validation posts, with a ring around the best." if len(figure.axes) > 1 else ""
    return f"Pale: the loss at each optimiser step; dark: smoothed.{scores}"


def _sentence(parts: list[str]) -> str:
    text = "; ".join(parts) + "."
    return text[:1].upper() + text[1:]
