"""Shares as a picture: the naive one beside those that a coded sample gives, with their intervals.

With groups, a panel for each label and a line for each group; without, one panel with a line for each label.
"""

import numpy
from matplotlib.figure import Figure

from report.figures import GREY, INK, SEEN, UNSEEN, styled
from stats.prevalence import Share
from tools.prevalence.read import Labels

WORDS = 30
WAYS = (("coded", "codes alone", GREY, "s"), ("ppi", "PPI++", SEEN, "o"), ("dsl", "DSL", UNSEEN, "^"))
APART = 0.2  # between the three ways, in lines


def figure_of(found: list[Share], labels: Labels) -> Figure:
    """The picture."""
    used = [n for n in range(len(labels.labels)) if any(s.label == n and (s.naive or s.coded.estimate) for s in found)]
    grouped = len(labels.groups) > 1
    names = labels.groups if grouped else [labels.labels[n] for n in used]
    panels = [[s for s in found if s.label == n] for n in used] if grouped else [[s for s in found if s.label in used]]
    with styled():
        figure = Figure(figsize=(10.6 if len(panels) > 1 else 7.5, 1.5 + 0.42 * len(names)), layout="constrained")
        axes = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]  # one scale for all labels
        for ax, shares in zip(axes, panels, strict=True):
            for share in shares:
                line = share.group if grouped else used.index(share.label)
                ax.plot(100 * share.naive, line, "D", color="white", mec=INK, mew=1.3, ms=7.5, clip_on=False)
                for place, (key, _, colour, marker) in enumerate(WAYS):
                    one, y = getattr(share, key), line + APART * (place - 1)
                    if one.low is not None:
                        ax.plot([100 * one.low, 100 * one.high], [y, y], color=colour, lw=1.8)
                        ax.plot(100 * one.estimate, y, marker, color=colour, ms=4.5, mec="white", mew=0.6, zorder=4,
                                clip_on=False)
            if grouped:
                ax.set_title(_short(labels.labels[shares[0].label]))
            ax.set_xlabel("per cent of the posts")
            ax.grid(axis="x", color="#e4e4e4", lw=0.7)
            ax.set_axisbelow(True)
        axes[0].set_yticks(numpy.arange(len(names)), [_short(name) for name in names])
        axes[0].set_ylim(len(names) - 0.5, -0.5)
        axes[0].set_xlim(left=0)  # when all is drawn: it ends the scaling, of all panels
        handles = [axes[0].plot([], [], "D", color="white", mec=INK, mew=1.3, ms=7.5, label="naive: machine labels")]
        handles += [axes[0].plot([], [], f"{marker}-", color=colour, ms=4.5, lw=1.8, label=words)
                    for _, words, colour, marker in WAYS]
        figure.legend(handles=[one for one, in handles], loc="outside upper center", ncols=4, frameon=False)
    return figure


def _short(name: str) -> str:
    return name if len(name) <= WORDS else name[: WORDS - 1] + "…"
