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


NAMES = {"ar": "Arabic", "de": "German", "en": "English", "es": "Spanish", "fr": "French", "hi": "Hindi",
         "hu": "Hungarian", "id": "Indonesian", "it": "Italian", "pl": "Polish", "pt": "Portuguese", "tr": "Turkish"}


def row(name: str) -> list[str]:
    """The cells of the last table row that begins with this name."""
    lines = [line for line in PAGE.splitlines() if line.startswith(f"| {name} |")]
    return [cell.strip() for cell in lines[-1].strip("|").split("|")][1:]


def short(value: float) -> str:
    return f"{value:.3f}".removeprefix("0") if value < 1 else f"{value:.3f}"


@pytest.mark.parametrize("name", RESULT["development"])
def test_the_second_series(name):
    found = RESULT["development"][name]
    mine, other = found["dev"], found["dev_other"]
    low, high = mine["macro_f1_ci"]
    assert row(name) == [short(found["late_loss"]), short(mine["accuracy"]),
                         f"{short(mine['macro_f1'])} ({short(low)} to {short(high)})", short(mine["topic_macro_f1"]),
                         short(other["macro_f1"]), short(other["topic_recall"])]


@pytest.mark.parametrize("seed", RESULT["rounds_development"])
def test_the_third_series(seed):
    found = RESULT["rounds_development"][seed]
    mine, (low, high) = found["dev"], found["dev"]["macro_f1_ci"]
    assert row(f"development, seed {seed}") == [
        short(found["late_loss"]), short(mine["accuracy"]),
        f"{short(mine['macro_f1'])} ({short(low)} to {short(high)})", short(mine["topic_macro_f1"]),
        str(found["left_by_step"])]


def figures(found: dict) -> list[float]:
    """What the page shows of a model on the test tweets."""
    english, unseen = found["en"], found["unseen"]
    return [english["accuracy"], english["macro_f1"], english["topic_macro_f1"], unseen["macro_f1"],
            unseen["topic_macro_f1"], unseen["topic_recall"]]


@pytest.mark.parametrize(("kind", "seed"), [(kind, seed) for kind in ("shuffled", "rounds") for seed in RESULT[kind]])
def test_the_test_rows(kind, seed):
    assert row(f"{kind}, seed {seed}") == [short(value) for value in figures(RESULT[kind][seed])]


@pytest.mark.parametrize("kind", ["shuffled", "rounds"])
def test_the_means_over_seeds(kind):
    columns = zip(*(figures(found) for found in RESULT[kind].values()), strict=True)
    assert row(f"{kind}, mean of {len(RESULT[kind])}") == [short(mean(column)) for column in columns]


def test_what_the_page_says_of_both():
    text = PAGE.replace("\n", " ")
    assert re.search(r"bar was \.62 .* \.88", text)
    for kind in ("shuffled", "rounds"):
        means = [mean(column) for column in zip(*(figures(found) for found in RESULT[kind].values()), strict=True)]
        assert means[1] < 0.62 and means[2] < 0.88
    by = {kind: [str(found["left_by_step"]) for found in RESULT[kind].values()] for kind in ("shuffled", "rounds")}
    assert by["shuffled"] == list(re.search(r"by steps (\d+), (\d+) and (\d+) of 600", text).groups())
    assert set(by["rounds"]) == {re.search(r"all three left it by step (\d+)", text)[1]}
    assert max(found["left_by_step"] for found in RESULT["rounds_development"].values()) <= 160
    scores = [found["en"]["macro_f1"] for found in RESULT["rounds"].values()]
    assert max(scores) - min(scores) < 0.07


def test_the_run_on_all_languages():
    found = RESULT["languages"]["all twelve, seed 11"]
    low, high = found["macro_f1_ci"]
    assert " ".join(PAGE.split()).count(
        f"On {found['n']} test tweets accuracy {short(found['accuracy'])}, macro-F1 {short(found['macro_f1'])} "
        f"({short(low)} to {short(high)}), topic macro-F1 {short(found['topic_macro_f1'])}; the loss left the constant "
        f"answer by step {found['left_by_step']} and ended at {found['late_loss']:.2f}") == 1
    for code, name in NAMES.items():
        own = found["by_language"][code]
        assert row(name) == [str(own["n"]), *(short(own[key]) for key in (
            "macro_f1", "topic_macro_f1", "topic_recall", "topic_specificity"))]
    most = max(RESULT["rounds"][seed]["unseen"]["topic_recall"] for seed in RESULT["rounds"])
    assert most <= 1 / 6 < min(own["topic_recall"] for code, own in found["by_language"].items() if code != "ar")


@pytest.mark.parametrize("name", RESULT["exposure"])
def test_a_tiny_exposure(name):
    english, ten = (RESULT["exposure"][name][group] for group in ("en", "ten"))

    def spread(key: str) -> str:
        low, high = ten[f"{key}_ci"]
        return f"{short(ten[key])} ({short(low)} to {short(high)})"

    assert row(name) == [short(english["macro_f1"]), short(english["topic_macro_f1"]), short(ten["macro_f1"]),
                         spread("topic_macro_f1"), short(ten["topic_recall"]), short(ten["topic_specificity"]),
                         spread("stance_given")]


def test_what_the_page_says_of_exposure():
    text, found = " ".join(PAGE.split()), RESULT["exposure"]
    alone = [found[f"English alone, seed {seed}"] for seed in (11, 12, 13)]

    def ends(group: str, key: str, runs=alone) -> tuple[float, float]:
        values = [run[group][key] for run in runs]
        return min(values), max(values)

    low, high = (f"{value:.2f}".removeprefix("0") for value in ends("ten", "topic_macro_f1"))
    five, many, all_of_them = (found[name]["ten"] for name in (
        "English, 5 of each other", "English, 25 of each other", "All twelve"))
    assert (f"from {low} to {high} up to {short(five['topic_macro_f1'])}, and 25 of each to "
            f"{short(many['topic_macro_f1'])}**") in text
    assert f"as far as one run shows ({short(all_of_them['topic_macro_f1'])})" in text
    assert f"lifts it to {short(found['English and Spanish']['ten']['topic_macro_f1'])}" in text
    stance = [f"{value:.2f}".removeprefix("0") for value in (*ends("ten", "stance_given"), *ends("en", "stance_given"))]
    assert (f"{stance[0]} to {stance[1]} for English alone, {short(many['stance_given'])} with 25 posts of each, where "
            f"English itself has {stance[2]} to {stance[3]}") in text
    lowest = [f"{short(one['lowest_topic']['topic_macro_f1'])} ({NAMES[one['lowest_topic']['language']]})"
              for one in (five, many, all_of_them)]
    assert f"is {lowest[0]} with five posts, {lowest[1]} with 25 and {lowest[2]} with all" in text
    luck = [short(value) for value in ends("ten", "topic_macro_f1")]
    assert f"for English alone was {luck[0]} to {luck[1]}" in text
