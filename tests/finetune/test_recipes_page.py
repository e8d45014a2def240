"""docs/recipes.md against docs/recipes.json, what the runs' own metrics.json files said.

Deliberate break: change a figure in one of the page's last two tables.
"""

import gzip
import json
import re
from pathlib import Path
from statistics import mean

import pytest

from benchmarks import exposure
from common.files import write_json
from data.checks import TrainingTexts
from data.codebook import load_codebook
from data.readers import read_posts
from finetune.options import TrainOptions
from report.intervals import rate_difference

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
    assert re.search(r"bar, set before these runs, was \.62 .* \.88", text)
    for kind in ("shuffled", "rounds"):
        means = [mean(column) for column in zip(*(figures(found) for found in RESULT[kind].values()), strict=True)]
        assert means[1] < 0.62 and means[2] < 0.88
    by = {kind: [str(found["left_by_step"]) for found in RESULT[kind].values()] for kind in ("shuffled", "rounds")}
    assert by["shuffled"] == list(re.search(r"by steps (\d+), (\d+) and (\d+) of 600", text).groups())
    assert set(by["rounds"]) == {re.search(r"all three left it by step (\d+)", text)[1]}
    assert max(found["left_by_step"] for found in RESULT["rounds_development"].values()) <= 160
    scores = [found["en"]["macro_f1"] for found in RESULT["rounds"].values()]
    assert max(scores) - min(scores) < 0.07


def test_the_shares_of_answers():
    found = RESULT["rounds_answers"]
    share = lambda answers, label: f"{100 * answers[label] / sum(answers.values()):.0f}"  # noqa: E731
    ends, people = ([], [])
    for label in ("pro-immigration", "unrelated"):
        ours = [share(answers, label) for answers in found["seeds"].values()]
        ends += [min(ours, key=int), max(ours, key=int)]
        people.append(share(found["people"], label))
    assert (f"called {ends[0]} to {ends[1]} % pro-immigration, where people called {people[0]} %, and {ends[2]} to "
            f"{ends[3]} % unrelated (people: {people[1]} %)") in " ".join(PAGE.split())


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


TOPIC, STANCE = "topic.macro_f1", "stance.conditional.macro_f1"
EXPOSURE = RESULT["exposure"]


def each(name: str, group: str, figure: str) -> list[float]:
    """A figure of every run of a set of training posts."""
    return [cell[group][figure] for cell in EXPOSURE["sets"][name]["seeds"].values() if figure in cell[group]]


def mean_of(name: str, group: str, figure: str) -> str:
    values = each(name, group, figure)
    return short(mean(values)) if values else "–"


def difference(line: dict) -> str:
    """A comparison's value and the interval that holds for the whole family at once."""
    value, low, high = (("−" if line[key] < 0 else "+") + short(abs(line[key])) for key in (
        "value", "simultaneous_low", "simultaneous_high"))
    return f"{value} ({low} to {high})"


@pytest.mark.parametrize("name", EXPOSURE["sets"])
def test_a_tiny_exposure(name):
    runs = each(name, "ten", TOPIC)
    of_runs = f" ({', '.join(map(short, runs))})" * (len(runs) > 1)
    assert row(name) == [str(len(runs)), mean_of(name, "en", "macro_f1"), mean_of(name, "en", TOPIC),
                         mean_of(name, "ten", "macro_f1"), mean_of(name, "ten", TOPIC) + of_runs,
                         *(mean_of(name, "ten", figure) for figure in ("topic.recall", "topic.specificity", STANCE))]


def test_the_comparisons_of_exposures():
    def cell(line: dict) -> str:
        return difference(line) + ", these fits" * ("other seeds" not in line["holds"])

    for line in EXPOSURE["contrasts"]:
        place = [TOPIC, STANCE].index(line["figure"])
        assert row(f"{line['first']} less {line['second']}")[place] == cell(line)


def test_what_the_page_says_of_exposure():
    text = " ".join(PAGE.split())
    alone, spanish, both, every = "English alone", "Spanish alone", "English and Spanish", "All twelve"
    five, some, many = (f"English, {count} of each other" for count in (5, 25, 75))
    ten = lambda name, figure=TOPIC: mean_of(name, "ten", figure)  # noqa: E731
    posts = EXPOSURE["posts"]
    assert f"{posts['en']} English ones and {posts['ten']} in the ten languages" in text
    lines = {(line["first"], line["second"]): line for line in EXPOSURE["contrasts"] if line["figure"] == TOPIC}
    assert (f"lift the topic in the ten languages from {ten(alone)} to {ten(some)}**, a difference of "
            f"{difference(lines[some, alone])}. With five of each it is {ten(five)}: each") in text
    assert f"leave the size open ({difference(lines[five, alone])})" in text
    assert min(each(five, "ten", TOPIC)) > max(each(alone, "ten", TOPIC)) + 0.1
    assert f"75 of each ({ten(many)}) nor all posts of twelve languages ({ten(every)}) are seen to do more" in text
    assert all(lines[one, some]["simultaneous_low"] < 0 for one in (many, every))
    assert f"750 Spanish posts lift it to {ten(both)}" in text
    assert (f"{ten(alone, STANCE)} for English alone, {ten(some, STANCE)} with 25 posts of each, where English itself "
            f"has {mean_of(some, 'en', STANCE)}") in text
    assert f"elsewhere ({mean_of(spanish, 'en', TOPIC)} in English, {ten(spanish)} in the ten)" in text
    published = [f"Llama 3.2-3B as published: {name}" for name in (alone, both, every, spanish)]
    topics, labels = ([each(name, "en", figure)[0] for name in names] for names, figure in (
        (published, TOPIC), (published[:3], "macro_f1")))
    assert f"3B models have {short(min(topics))} to {short(max(topics))}" in text
    assert f"the four labels is {short(min(labels))} to {short(max(labels))} where English" in text
    assert max(max(each(name, "en", TOPIC)) for name in EXPOSURE["sets"]) < 0.88
    cells = [cell["ten"]["lowest"] for cell in EXPOSURE["sets"][some]["seeds"].values()]
    lowest = [f"{short(cell[TOPIC])} ({NAMES[cell['language']]})" for cell in cells]
    assert f"macro-F1 of a language is {', '.join(lowest[:-1])} and {lowest[-1]}, of 22 to 25 tweets each" in text
    shown = {pair for pair, line in lines.items() if line["simultaneous_low"] > 0}
    assert shown == {(some, alone), (both, alone)}


LANGUAGES = RESULT["training_languages"]
SECTION = PAGE[PAGE.index("## English, Spanish, both, and all twelve") : PAGE.index("## A tiny exposure")]


def in_languages(name: str, group: str, figure: str) -> list[float]:
    return [cell[group][figure] for cell in LANGUAGES["sets"][name]["seeds"].values()]


@pytest.mark.parametrize("name", LANGUAGES["sets"])
def test_training_languages(name):
    line = next(line for line in SECTION.splitlines() if line.startswith(f"| {name} |"))
    runs = in_languages(name, "ten", TOPIC)
    shown = [short(mean(in_languages(name, *of))) for of in (("en", "macro_f1"), ("en", TOPIC), ("es", "macro_f1"),
                                                             ("es", TOPIC), ("ten", "macro_f1"))]
    assert [cell.strip() for cell in line.strip("|").split("|")][1:] == [
        str(len(runs)), *shown, f"{short(mean(runs))} ({', '.join(map(short, runs))})",
        short(mean(in_languages(name, "ten", STANCE)))]


def test_the_comparisons_of_training_languages():
    for line in LANGUAGES["contrasts"]:
        begins = f"| {line['first']} less {line['second']} |"
        cells = next(one for one in SECTION.splitlines() if one.startswith(begins)).strip("|").split("|")
        cell = cells[1 + [TOPIC, STANCE].index(line["figure"])].strip()
        assert cell == difference(line) + ", these fits" * ("other seeds" not in line["holds"])


def test_what_the_page_says_of_training_languages():
    text, (alone, both, every) = " ".join(SECTION.split()), ("English alone", "English and Spanish", "All twelve")
    lines = {(line["first"], line["figure"]): line for line in LANGUAGES["contrasts"] if line["second"] == alone}
    of = lambda name, figure=TOPIC: mean(in_languages(name, "ten", figure))  # noqa: E731
    assert f"from {short(of(alone))} to {short(of(every))}**, a difference of {difference(lines[every, TOPIC])}" in text
    assert f"Spanish beside English has {short(of(both))}, {difference(lines[both, TOPIC])}" in text
    spanish = "Spanish alone"
    assert f"in place of English: {short(of(spanish))}, {difference(lines[spanish, TOPIC])}" in text
    assert all(lines[name, TOPIC]["simultaneous_low"] < 0 < lines[name, TOPIC]["simultaneous_high"]
               for name in (spanish, both))
    assert f"are {difference(lines[every, STANCE])} and {difference(lines[both, STANCE])}" in text
    recalls = [f"{100 * of(name, 'topic.recall'):.0f} %" for name in (alone, every)]
    assert f"finds {recalls[0]} of the related tweets in the ten languages, with all twelve {recalls[1]}" in text
    posts = LANGUAGES["posts"]
    assert f"{posts['en']} in English, {posts['es']} in Spanish and {posts['ten']} in ten other languages" in text
    there = [part["sets"][alone]["seeds"]["11"]["en"]["macro_f1"] for part in (LANGUAGES, EXPOSURE)]
    assert f"has a macro-F1 in English of {short(there[0])} here and {short(there[1])} there" in text


DATA = DOCS.parents[1] / "shared" / "data" / "immigration"


@pytest.mark.skipif(not DATA.exists(), reason="needs the paper's tweets")
def test_the_figures_come_from_the_kept_answers(tmp_path, monkeypatch):
    """docs/fits holds each run's answers, without a text; the figures are computed from them once more."""
    monkeypatch.chdir(DOCS.parent)
    posts, _ = read_posts([DATA / "train.jsonl"], TrainOptions().columns(), load_codebook())
    write_json(tmp_path / "texts.json", TrainingTexts.of(posts).to_dict())
    exposure.main(["--fits", "docs/fits/fits.json", "--part", "training_languages", "--data", str(DATA / "test.jsonl"),
                   "--trained-on", str(tmp_path / "texts.json"), "--json", str(tmp_path / "again.json"),
                   "--draws", "100"])
    again = json.loads((tmp_path / "again.json").read_text(encoding="utf-8"))["training_languages"]
    assert again["sets"] == LANGUAGES["sets"] and again["posts"] == LANGUAGES["posts"]
    assert [line["value"] for line in again["contrasts"]] == [line["value"] for line in LANGUAGES["contrasts"]]
    kept = "".join(gzip.decompress(path.read_bytes()).decode() for path in (DOCS / "fits").glob("*.jsonl.gz"))
    assert not any(post.text in kept for post in posts) and '"label"' not in kept


def test_the_curve_beside_peft():
    text, found = " ".join(PAGE.split()), RESULT["beside_peft"]
    late, (ours, theirs) = found["late_loss"], (found["en"][side] for side in ("ours", "theirs"))
    pair = lambda key: f"{short(ours[key])} and {short(theirs[key])}"  # noqa: E731
    assert f"late loss {short(late['ours'])} here and {short(late['theirs'])} there" in text
    assert (f"on all {ours['n']} English test tweets accuracy {pair('accuracy')}, macro-F1 {pair('macro_f1')}, topic "
            f"macro-F1 {pair('topic')}.") in text and ours["n"] == theirs["n"]
    left = [max(found["by_step"]["120"].values()), min(found["by_step"]["60"].values())]
    assert left[0] < 1.3 < left[1]  # both leave the constant answer between steps 60 and 120


def test_make_real_here():
    """The run that the page quotes at length; its figures are kept in LOG.md."""
    log = " ".join((DOCS.parent / "LOG.md").read_text(encoding="utf-8").split())
    assert "Of 515 posts in 13 languages, 48.0 %" in PAGE and "48.0 % of 515" in log
    assert "is right for 81.2 % (75.8 to 85.7 %) and 56.4 %" in PAGE and "topic right for 81.2 and 56.4" in log


def test_make_real_on_another_processor():
    """The page's sentence; the run that it quotes at length was another."""
    found = RESULT["make_real_elsewhere"]
    text = " ".join(PAGE.split())

    def points(name: str) -> str:
        sides = [(cell["accuracy"] * cell["n"], cell["n"]) for cell in (found["unseen"][name], found["seen"][name])]
        value, low, high = (100 * end for end in rate_difference(*sides))
        return f"{value:.1f} points ({low:.1f} to {high:.1f})".replace("-", "−")

    assert (f"gave {100 * found['all']['accuracy']:.1f} % over all posts, a difference in the topic of "
            f"{points('topic')}, and in the stance of {points('stance')}.") in text
