"""docs/recipes.md against docs/recipes.json, what the runs' own metrics.json files said.

Deliberate break: change a figure in one of the page's last two tables.
"""

import json
import re
from pathlib import Path
from statistics import mean

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
RESULT = json.loads((DOCS / "recipes.json").read_text(encoding="utf-8"))
PAGE = (DOCS / "recipes.md").read_text(encoding="utf-8")


def row(name: str) -> list[str]:
    """The cells of the last table row that begins with this name."""
    lines = [line for line in PAGE.splitlines() if line.startswith(f"| {name} |")]
    return [cell.strip() for cell in lines[-1].strip("|").split("|")][1:]


def short(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")


@pytest.mark.parametrize("name", RESULT["development"])
def test_the_second_series(name):
    found = RESULT["development"][name]
    mine, other = found["dev"], found["dev_other"]
    low, high = mine["macro_f1_ci"]
    assert row(name) == [short(found["late_loss"]), short(mine["accuracy"]),
                         f"{short(mine['macro_f1'])} ({short(low)} to {short(high)})", short(mine["topic_macro_f1"]),
                         short(other["macro_f1"]), short(other["topic_recall"])]


@pytest.mark.parametrize("seed", RESULT["test"])
def test_the_test_rows(seed):
    found = RESULT["test"][seed]
    english, unseen = found["en"], found["unseen"]
    assert row(f"seed {seed}") == [short(english["accuracy"]), short(english["macro_f1"]),
                                   short(english["topic_macro_f1"]), short(unseen["macro_f1"]),
                                   short(unseen["topic_macro_f1"]), short(unseen["topic_recall"])]


def test_the_means_over_seeds():
    means = [short(mean(found[part][key] for found in RESULT["test"].values())) for part, key in (
        ("en", "accuracy"), ("en", "macro_f1"), ("en", "topic_macro_f1"), ("unseen", "macro_f1"),
        ("unseen", "topic_macro_f1"), ("unseen", "topic_recall"))]
    assert row(f"mean of {len(RESULT['test'])}") == means
    assert re.search(r"bar was \.62 .* \.88", PAGE.replace("\n", " "))
