"""The measurement on a card as one picture: posts a second by every side, beside what the products alone would allow.

    python -m benchmarks.card.picture gpu.json gpu.png
"""

import json
from pathlib import Path

from common.errors import UserError, run_program

SIDES = {"products alone": "#c9ced6", "ours, resident weights": "#0b6aa2", "ours, NF4": "#5aa9d6",
         "transformers + peft + bitsandbytes": "#e08a2e"}  # fmt: skip
PANELS = {"Labelling, 16,384 tokens at once": ("label", "16,384 tokens"),
          "Training, 16 posts a step": ("train", "16 posts a step")}
TEMPLATES = ("paper", "instruction-first")


def main(argv: list[str]) -> None:
    """Read, draw."""
    if len(argv) != 2:
        raise UserError("give the gpu.json to read and the picture to write")
    draw(bars(json.loads(Path(argv[0]).read_text(encoding="utf-8"))), Path(argv[1]))


def bars(result: dict) -> dict[str, dict[str, dict[str, float]]]:
    """Panel -> template -> side -> posts a second."""
    values, found = rates(result), {}
    for panel, (task, size) in PANELS.items():
        for template in TEMPLATES:
            base, theirs = f"{task}, {template}, {size}", "transformers + peft, bitsandbytes' NF4"
            # Training is taken where it was timed in turns with the usual stack.
            ours, usual, limit = (
                (f"{base}: ours,", f"{base}: {theirs}", f"{base}: products alone") if task == "train" else
                (f"{base},", f"label, {template}, generating: {theirs}", f"label, {template}: products alone"))
            names = dict(zip(SIDES, (limit, f"{ours} resident", f"{ours} NF4", usual), strict=True))
            found.setdefault(panel, {})[template] = {side: values[name] for side, name in names.items()
                                                     if name in values}
    return found


def rates(result: dict) -> dict[str, float]:
    """Posts a second by what was timed; of what was timed twice, the better time."""
    values: dict[str, float] = {}
    for figure in (figure for part in result["parts"].values() for figure in part["figures"]):
        if figure["unit"] == "posts/s":
            values[figure["what"]] = max(figure["value"], values.get(figure["what"], 0.0))
    return values


def draw(found: dict, path: Path) -> None:
    """Two panels of horizontal bars, each bar with its number."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, both = pyplot.subplots(1, len(found), figsize=(10, 4.2), layout="constrained")
    for axes, (panel, by_template) in zip(both, found.items(), strict=True):
        place, ticks = 0.0, []
        for template, sides in by_template.items():
            ticks.append((place + (len(sides) - 1) / 2, template))
            for side, value in sides.items():
                name = side if template == TEMPLATES[0] else None  # once in the legend
                axes.barh(place, value, color=SIDES[side], height=0.85, label=name)
                axes.text(value, place, f" {value:,.0f}", va="center", fontsize=9)
                place += 1
            place += 0.8
        axes.set_yticks([tick for tick, _ in ticks], [name for _, name in ticks])
        axes.invert_yaxis()
        axes.set_xlim(right=1.15 * max(value for sides in by_template.values() for value in sides.values()))
        axes.set_title(panel, fontsize=11, loc="left")
        axes.set_xlabel("posts a second")
        axes.spines[["top", "right"]].set_visible(False)
    handles, labels = both[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


if __name__ == "__main__":
    run_program(main)
