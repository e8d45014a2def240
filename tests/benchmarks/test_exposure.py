"""benchmarks.exposure on invented answers: figures are those of report.metrics, contrasts those of the means.

Deliberate breaks: score the posts that training held too; write `round(value, 4)` for `rounded(value)`.
"""

import json
from pathlib import Path

import numpy
import pytest

from benchmarks.exposure import ALONE, BOTH, FEW, SOME, TOPIC, main, predictions_of, table_of
from common.errors import UserError
from data.checks import TrainingTexts
from data.codebook import load_codebook
from data.posts import Post
from report.metrics import Scored, score
from tests.small import here

BOOK = load_codebook()
LANGUAGES = ("en", "es", "de", "fr")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Posts, of which one was trained on; three seeds of two sets and one of a third, right more and more often."""
    folder, stream = tmp_path_factory.mktemp("exposure"), numpy.random.default_rng(3)
    posts = [{"id": f"p{i}", "language": LANGUAGES[i % 4], "label": BOOK.labels[i // 4 % 4],
              "text": f"invented post number {i} about {'the border' if i % 3 else 'the weather'}"} for i in range(240)]
    (folder / "test.jsonl").write_text("\n".join(map(json.dumps, posts)), encoding="utf-8")
    held = TrainingTexts.of([Post("t", posts[0]["text"], posts[0]["label"], "en", "train.jsonl", 1, {})])
    (folder / "training_texts.json").write_text(json.dumps(held.to_dict()), encoding="utf-8")
    asked = {}
    for name, others, right, seeds in ((ALONE, 0, 0.3, "123"), (FEW, 5, 0.6, "123"), (SOME, 25, 0.9, "1")):
        asked[name] = {"model": "invented", "others": others, "seeds": {}}
        for seed in seeds:
            path = folder / f"{others}-{seed}.jsonl"
            with path.open("w", encoding="utf-8") as handle:
                for post in posts:
                    p = stream.dirichlet([1, 1, 1, 1])
                    if stream.random() < right:
                        p = 0.1 * p + 0.9 * (numpy.array(BOOK.labels) == post["label"])
                    predicted = BOOK.labels[int(p.argmax())]
                    row = {key: post[key] for key in ("id", "language", "label")}
                    handle.write(json.dumps(row | {"predicted": predicted,
                                                   "probabilities": dict(zip(BOOK.labels, p, strict=True))}) + "\n")
            asked[name]["seeds"][seed] = str(path)
    (folder / "fits.json").write_text(json.dumps(asked), encoding="utf-8")
    (folder / "out.json").write_text('{"kept": [1]}', encoding="utf-8")
    main(["--fits", str(folder / "fits.json"), "--data", str(folder / "test.jsonl"), "--trained-on",
          str(folder / "training_texts.json"), "--json", str(folder / "out.json"), "--figure", str(folder / "out.png"),
          "--draws", "300"])
    return folder, asked, json.loads((folder / "out.json").read_text(encoding="utf-8"))


def test_each_fits_figures_are_those_of_an_evaluation(world):
    folder, asked, found = world
    assert found["kept"] == [1] and found["exposure"]["posts"] == {"en": 59, "es": 60, "ten": 120}
    rows = table_of([str(folder / "test.jsonl")], str(folder / "training_texts.json"))
    fit = predictions_of(asked[FEW]["seeds"]["2"], rows)
    ours = [k for k, code in enumerate(rows.language) if code in ("de", "fr")]
    named = lambda indices: [BOOK.labels[indices[k]] for k in ours]  # noqa: E731
    whole = score(Scored([rows.ids[k] for k in ours], named(rows.gold), named(fit.predicted),
                         [rows.language[k] for k in ours], BOOK.labels, fit.probabilities[ours], BOOK.related, None, {},
                         BOOK.stance or None), draws=0)
    cell = found["exposure"]["sets"][FEW]["seeds"]["2"]["ten"]
    expected = {"accuracy": whole["accuracy"], "macro_f1": whole["macro_f1"], TOPIC: whole["topic"]["macro_f1"],
                "topic.recall": whole["topic"]["recall"], "topic.specificity": whole["topic"]["specificity"],
                "stance.conditional.macro_f1": whole["stance"]["conditional"]["macro_f1"]}
    assert {name: cell[name] for name in expected} == pytest.approx(expected, abs=5e-5)  # four places are kept
    by_language = {code: own["topic"]["macro_f1"] for code, own in whole["by_language"].items()}
    assert cell["lowest"] == {"language": min(by_language, key=by_language.get),
                              TOPIC: pytest.approx(min(by_language.values()), abs=5e-5)}


def test_contrasts_are_differences_of_means_over_seeds(world):
    found = world[2]["exposure"]
    mean = {name: numpy.mean([cell["ten"][TOPIC] for cell in one["seeds"].values()])
            for name, one in found["sets"].items()}
    lines = {(line["first"], line["second"]): line for line in found["contrasts"] if line["figure"] == TOPIC}
    assert set(lines) == {(FEW, ALONE), (SOME, ALONE), (SOME, FEW)}  # as far as both sides were fitted
    for (first, second), line in lines.items():
        assert line["value"] == pytest.approx(mean[first] - mean[second], abs=2e-4)
        assert line["simultaneous_low"] <= line["low"] < line["value"] < line["high"] <= line["simultaneous_high"]
    assert "other seeds" in lines[FEW, ALONE]["holds"]  # three seeds on both sides
    assert "these fits" in lines[SOME, ALONE]["holds"]  # one


def test_another_part_has_comparisons_of_its_own(world, tmp_path):
    folder, asked, found = world
    (tmp_path / "fits.json").write_text(json.dumps({ALONE: asked[ALONE], BOTH: asked[FEW], SOME: asked[SOME]}),
                                        encoding="utf-8")
    (tmp_path / "out.json").write_text(json.dumps(found), encoding="utf-8")
    main(["--fits", str(tmp_path / "fits.json"), "--data", str(folder / "test.jsonl"), "--trained-on",
          str(folder / "training_texts.json"), "--json", str(tmp_path / "out.json"), "--part", "training_languages",
          "--draws", "300"])
    again = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert again["exposure"] == found["exposure"]  # the other part stays
    assert again["training_languages"]["sets"][BOTH]["seeds"] == found["exposure"]["sets"][FEW]["seeds"]
    lines = again["training_languages"]["contrasts"]
    assert [(line["first"], line["second"]) for line in lines] == [(BOTH, ALONE)] * 2  # not 25 posts less none


def test_the_picture_is_drawn(world):
    assert (world[0] / "out.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_an_answer_that_is_missing_is_named(world, tmp_path):
    folder, asked, _ = world
    rows = table_of([str(folder / "test.jsonl")], str(folder / "training_texts.json"))
    lines = Path(asked[ALONE]["seeds"]["1"]).read_text(encoding="utf-8").splitlines()
    (tmp_path / "short.jsonl").write_text("\n".join(lines[:-1]), encoding="utf-8")
    with pytest.raises(UserError, match="has no answer to post 'p239'"):
        predictions_of(str(tmp_path / "short.jsonl"), rows)


def test_what_cannot_be_computed_is_null(world, tmp_path):
    """Where the Spanish and German posts are all unrelated, no related one can be found; the picture leaves it out."""
    folder = world[0]
    lines = [json.loads(line) for line in (folder / "test.jsonl").read_text(encoding="utf-8").splitlines()]
    some = [line for line in lines if line["language"] == "en" or
            (line["language"] in ("es", "de") and line["label"] == "unrelated")]
    (tmp_path / "some.jsonl").write_text("\n".join(map(json.dumps, some)), encoding="utf-8")
    words = ("benchmarks.exposure", "--fits", folder / "fits.json", "--trained-on", folder / "training_texts.json",
             "--json", "new.json", "--draws", "100")
    here(*words, "--data", "some.jsonl", "--figure", "new.svg", cwd=tmp_path)
    found = json.loads((tmp_path / "new.json").read_text(encoding="utf-8"))["exposure"]
    cell = found["sets"][FEW]["seeds"]["1"]["ten"]
    assert cell["topic.recall"] is None and cell["stance.conditional.macro_f1"] is None and cell["accuracy"] > 0
    assert {line["value"] for line in found["contrasts"] if line["figure"] != TOPIC} == {None}
    assert "<svg" in (tmp_path / "new.svg").read_text(encoding="utf-8")
    english = [line for line in some if line["language"] == "en"]
    (tmp_path / "english.jsonl").write_text("\n".join(map(json.dumps, english)), encoding="utf-8")
    assert "--data: has no post in es whose text was not trained on" in here(*words, "--data", "english.jsonl",
                                                                            cwd=tmp_path, code=2)


@pytest.mark.parametrize(("words", "says"), [
    (("--json", "new.json", "--figure", "x.png"), "--figure: new.json has no part \"exposure\" to draw"),
    (("--json", "list.json", "--figure", "x.png"), "--json list.json: holds no object"),
    (("--json", "new.json", "--figure", "x.jpg"), "--figure x.jpg: has no known format"),
    (("--json", "new.json", "--figure", "list.json/x.png"), "is a file, so nothing can be put into it"),
    (("--json", "x.png", "--figure", "x.png"), "is the file of --json, too"),
    (("--json", "new.json", "--fits", "list.json", "--data", "a.jsonl", "--trained-on", "t.json"),
     "list.json: the whole: is not an object of")])
def test_what_is_wrong_is_one_line(tmp_path, words, says):
    (tmp_path / "list.json").write_text("[1]", encoding="utf-8")
    assert says in here("benchmarks.exposure", *words, cwd=tmp_path, code=2)
    assert [path.name for path in tmp_path.iterdir()] == ["list.json"]
