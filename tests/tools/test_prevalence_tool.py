"""tools.prevalence: the published predictions' shares, the JSON's shape, how files are joined, and what is refused.

Deliberate break: let `checked` look at `training.exact` alone, join by row in `read_labels`, or leave out the sorting
of `groups`.
"""

import json
import random

import pytest

from common.files import ROOT
from tests.programs.hostile import call, in_an_empty_folder, jsonl, refused  # noqa: F401
from tools.prevalence import figure
from tools.prevalence.__main__ import main

PUBLISHED = {"en": 24.4, "es": 11.2, "en-es": 9.2, "multi": 18.4}
WORDS = ("--labels", "labels.jsonl", "--coded", "coded.jsonl")
KEYS = ["group", "groups", "label", "n", "n_coded", "naive", "coded", "ppi", "dsl"]


def made(count=400, seed=0, **more) -> tuple[list[dict], list[dict]]:
    """Labels of all posts, and what people would have said of each."""
    draw, labels, codes = random.Random(seed), [], []
    for n in range(count):
        truth = draw.choices("abc", (5, 3, 2))[0]
        said = truth if draw.random() < 0.8 else draw.choice("abc")
        row = {"id": f"p{n}", "language": ("en", "es")[n % 2], "predicted": said}
        labels.append(row | {name: make(n) for name, make in more.items()})
        codes.append({"id": f"p{n}", "label": truth})
    return labels, codes


def run(*words):
    ended = call(main, *WORDS, "--json", "out.json", *words)
    assert ended.code == 0, ended.err
    return ended.out, json.loads(open("out.json", encoding="utf-8").read())["shares"]


@pytest.mark.parametrize("model", PUBLISHED)
def test_the_share_against_immigration_in_ten_languages(model, shared_data, tmp_path):
    folder = shared_data / "immigration"
    rows = [json.loads(line) for line in (folder / "test.jsonl").read_text(encoding="utf-8").splitlines()]
    ten = [{"id": row["id"], "label": row["label"]} for row in rows if row["language"] not in ("en", "es")]
    assert len(ten) == 250 and round(100 * sum(row["label"] == "anti-immigration" for row in ten) / 250, 1) == 18.0
    own = {row["id"] for row in ten}
    said = (folder / "published_predictions" / f"{model}.jsonl").read_text(encoding="utf-8").splitlines()
    jsonl(tmp_path / "labels.jsonl", [row for row in map(json.loads, said) if row["id"] in own])
    jsonl(tmp_path / "coded.jsonl", random.Random(1).sample(ten, 120))
    share = next(row for row in run()[1] if row["label"] == "anti-immigration")
    assert list(share) == KEYS and share["group"] == "all" and (share["n"], share["n_coded"]) == (250, 120)
    assert round(100 * share["naive"], 1) == PUBLISHED[model]
    for name in ("coded", "ppi", "dsl"):
        assert list(share[name]) == ["estimate", "low", "high"] and share[name]["low"] <= 0.18 <= share[name]["high"]


def test_groups_labels_and_sentences(tmp_path):
    labels, codes = made(date=lambda n: f"2024-0{1 + n % 2}-03T10:00")
    jsonl(tmp_path / "labels.jsonl", labels)
    jsonl(tmp_path / "coded.jsonl", random.Random(2).sample(codes, 150))
    said, found = run("--by", "month,language")
    assert [row["group"] for row in found[::3]] == ["2024-01, en", "2024-02, es"] and {r["n"] for r in found} == {200}
    assert sum(row["n_coded"] for row in found[::3]) == 150
    for group in ("2024-01, en", "2024-02, es"):
        assert sum(r["coded"]["estimate"] for r in found if r["group"] == group) == pytest.approx(1)
    assert "not checked against training: that needs --run and --posts, or a text in the coded rows" in said
    assert "narrowest" in said and "chances and coded whole" in said and "these posts and no others" in said


def test_columns_and_languages_of_the_posts(tmp_path):
    """Deliberate break: in `same_post` look a post up by id and language alone, or in `value_of_group` leave a
    language that the labels lack undetermined."""
    labels, codes = made(count=80)
    bare = [{key: row[key] for key in ("id", "predicted")} for row in labels]
    posts = [{"id": row["id"], "text": row["id"], "author": f"u{n % 2}"} for n, row in enumerate(labels)]
    spoken = [row | {"language": of["language"]} for row, of in zip(posts, labels, strict=True)]
    jsonl(tmp_path / "coded.jsonl", random.Random(2).sample(codes, 40))
    seen = []
    for ours, theirs in ((labels, spoken), (bare, spoken), (labels, posts)):
        jsonl(tmp_path / "labels.jsonl", ours)
        jsonl(tmp_path / "posts.jsonl", theirs)
        seen.append(run("--posts", "posts.jsonl", "--by", "language,author")[1])
        assert [row["group"] for row in seen[-1][::3]] == ["en, u0", "es, u1"]
    jsonl(tmp_path / "labels.jsonl", [{"label" if key == "predicted" else key: value for key, value in row.items()}
                                      for row in labels])
    seen.append(run("--posts", "posts.jsonl", "--by", "language,author", "--predicted-column", "label")[1])
    assert seen[0] == seen[1] == seen[2] == seen[3]
    jsonl(tmp_path / "labels.jsonl", labels)
    words = ["--labels", "labels.jsonl", "--coded", "coded.jsonl", "--posts", "posts.jsonl", "--by"]
    refused(main, *words, "autor", says=[
        "--by autor: labels.jsonl: row 1 has no such column, nor has --posts in posts.jsonl: row 1; did you mean "
        "'author'?; they have author, language, predicted"])
    jsonl(tmp_path / "posts.jsonl", posts[1:])
    refused(main, *words, "author", says=[
        "labels.jsonl: row 1 has no such column, and --posts has no post with its id 'p0', or has several; it has "
        "language, predicted"])
    jsonl(tmp_path / "labels.jsonl", bare)
    jsonl(tmp_path / "posts.jsonl", [*spoken, spoken[0] | {"language": "de"}])  # which of the two is not known
    assert {row["group"] for row in run("--posts", "posts.jsonl", "--by", "language")[1]} == {"en", "es", "und"}


def test_a_folder_of_labels_is_the_file_of_all_its_rows(tmp_path):
    """As classify.py writes it, with a manifest. Deliberate break: in `_rows` take the first file alone."""
    labels, codes = made(count=60)
    jsonl(tmp_path / "labels.jsonl", labels)
    jsonl(tmp_path / "coded.jsonl", random.Random(2).sample(codes, 40))
    whole = run()[1]
    (tmp_path / "labels.jsonl").unlink()
    (tmp_path / "labels.jsonl").mkdir()
    refused(main, "--labels", "labels.jsonl", "--coded", "coded.jsonl", says="--labels labels.jsonl: the folder holds")
    for name, rows in (("a.jsonl", labels[:20]), ("b.jsonl", labels[20:])):
        jsonl(tmp_path / "labels.jsonl" / name, rows)
    (tmp_path / "labels.jsonl" / "manifest.json").write_text("{}")
    assert run()[1] == whole


def test_a_machine_that_guesses_adds_nothing(tmp_path):
    labels, codes = made()
    draw = random.Random(3)
    jsonl(tmp_path / "labels.jsonl", [row | {"predicted": draw.choice("abc")} for row in labels])
    jsonl(tmp_path / "coded.jsonl", draw.sample(codes, 100))
    assert "The machine adds nothing for “" in run()[0]


def test_few_codes_are_marked_and_fewer_called_too_narrow(tmp_path):
    """tests/stats/test_prevalence.py has how often such intervals hold."""
    labels, codes = made()
    jsonl(tmp_path / "labels.jsonl", labels)
    for count, there in ((9, True), (10, False), (29, False), (30, False)):
        jsonl(tmp_path / "coded.jsonl", random.Random(4).sample(codes, count))
        said, _ = run()
        assert ("1 group with fewer than 10: where posts had different chances of being drawn, or a label is rare, "
                "these intervals are known to be too narrow." in said) == there
        assert ("° fewer than 30 coded posts (1 group)." in said) == (count < 30)
    labels[0]["g"] = "all of it"
    jsonl(tmp_path / "labels.jsonl", [row | {"g": row.get("g", "rest")} for row in labels])
    jsonl(tmp_path / "coded.jsonl", [codes[0], *random.Random(4).sample(codes[1:], 40)])
    assert "too narrow" not in run("--by", "g")[0]  # one code of one post: nothing is left to chance
    assert "too narrow" in run("--by", "g", "--beyond")[0]  # but of the process behind it


def test_a_naive_share_outside_its_intervals_is_told_with_how_often_chance_does_it(tmp_path):
    labels, codes = made()
    jsonl(tmp_path / "labels.jsonl", [row | {"predicted": "c" if row["predicted"] == "b" else row["predicted"]}
                                      for row in labels])
    jsonl(tmp_path / "coded.jsonl", random.Random(4).sample(codes, 150))
    said, _ = run()
    assert "The naive share lies outside both corrected intervals for “c”, “b” (2 of 3 shares; at 95 % each, " \
           "chance alone puts about one in twenty there, often several together)." in said
    assert "is wrong" not in said
    jsonl(tmp_path / "labels.jsonl", [row | {"predicted": code["label"]} for row, code in zip(labels, codes,
                                                                                            strict=True)])
    assert "No naive share lies outside both corrected intervals; that does not make it right." in run()[0]


def test_chances_and_probabilities_are_used(tmp_path):
    labels, codes = made()
    sure = [row | {f"p_{c}": 0.8 if c == row["predicted"] else 0.1 for c in "abc"} for row in labels]
    jsonl(tmp_path / "labels.jsonl", sure)
    taken = [row | {"inclusion_probability": 0.5 if n < 100 else 0.2} for n, row in enumerate(codes)
             if (n % 2 == 0 if n < 100 else n % 5 == 0)]
    jsonl(tmp_path / "coded.jsonl", taken)
    said, found = run()
    assert "drawn with chances from 0.2 to 0.5, in 2 strata" in said
    w = [1 / row["inclusion_probability"] for row in taken]
    for row in found:
        share = sum(v for v, one in zip(w, taken, strict=True) if one["label"] == row["label"]) / sum(w)
        assert row["coded"]["estimate"] == pytest.approx(share)
    nested = [{k: v for k, v in row.items() if not k.startswith("p_")}
              | {"probabilities": {c: row[f"p_{c}"] for c in "abc"}} for row in sure]
    jsonl(tmp_path / "labels.jsonl", nested)
    again = {row["label"]: row for row in run()[1]}
    assert all(again[row["label"]] == row for row in found)
    jsonl(tmp_path / "coded.jsonl", taken[:60])
    assert "warning: by their inclusion_probability the coded rows stand for" in run()[0]


def test_posts_that_the_machine_left_without_a_label_are_posts(tmp_path):
    labels, codes = made()
    draw = random.Random(7)
    some = [row | {"predicted": "", "error": ""} if draw.random() < 0.25 else row | {"error": ""} for row in labels]
    none = sum(not row["predicted"] for row in some)
    jsonl(tmp_path / "labels.jsonl", [*some, {"id": "x", "language": "en", "predicted": "", "error": "has no text"}])
    jsonl(tmp_path / "coded.jsonl", draw.sample(codes, 200))
    said, found = run()
    assert f"  {none} posts without a label by the machine (classify.py --abstain): shares are of all posts" in said
    assert "  1 row that could not be read, or had no text, left out" in said and "  400 posts, 200 of them" in said
    assert {row["n"] for row in found} == {400} and sum(row["naive"] for row in found) == pytest.approx(1 - none / 400)
    for name in ("coded", "ppi", "dsl"):
        assert sum(row[name]["estimate"] for row in found) == pytest.approx(1, abs=0.04)
    for row in found:
        truth = sum(code["label"] == row["label"] for code in codes) / 400
        assert row["dsl"]["low"] <= truth <= row["dsl"]["high"]
    jsonl(tmp_path / "coded.jsonl", [*codes[:50], {"id": "x", "label": "a"}])
    refused(main, "--labels", "labels.jsonl", "--coded", "coded.jsonl", says="was not labelled (")


def test_codes_that_are_no_random_sample_are_told(tmp_path):
    labels, codes = made()
    jsonl(tmp_path / "labels.jsonl", labels)
    chosen = [code for row, code in zip(labels, codes, strict=True) if row["predicted"] == "a"][:80] + codes[:20]
    jsonl(tmp_path / "coded.jsonl", {row["id"]: row for row in chosen}.values())
    assert "spread otherwise than those of all posts" in run()[0]


def test_what_was_trained_on_is_refused(tmp_path):
    data, shipped = ROOT / "data/samples/train.jsonl", ROOT / "base/run"  # fine-tuned on its English and Spanish
    posts = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines()]
    posts.sort(key=lambda row: row["language"] not in ("en", "es"))
    labels = [{"id": row["id"], "language": row["language"], "predicted": row["label"]} for row in posts]
    labels += [{"id": f"new{n}", "language": "en", "predicted": "neutral"} for n in range(50)]
    jsonl(tmp_path / "labels.jsonl", labels)
    new = [{"id": f"new{n}", "label": "neutral", "text": f"something else {n}"} for n in range(20)]
    jsonl(tmp_path / "coded.jsonl", new)
    assert "20 of 20 coded rows checked: none was in the run's training or validation" in run("--run", shipped)[0]
    shouted = {"id": posts[0]["id"], "label": posts[0]["label"], "text": posts[0]["text"].upper()}
    jsonl(tmp_path / "coded.jsonl", [*new, shouted])
    words = ["--labels", "labels.jsonl", "--coded", "coded.jsonl"]
    refused(main, *words, "--run", shipped, says=["coded.jsonl: row 21", "training or validation", "tools.sample"])
    jsonl(tmp_path / "coded.jsonl", [{k: v for k, v in row.items() if k != "text"} for row in [*new, shouted]])
    assert "not checked against training" in run("--run", shipped)[0]
    refused(main, *words, "--run", shipped, "--posts", data, says=["row 21", "training or validation"])
    jsonl(tmp_path / "coded.jsonl", new)
    said, found = run("--run", shipped, "--posts", data)
    assert "  160 posts of the run's training or validation left out" in said
    assert {row["n"] for row in found} == {len(labels) - 160} and "stand for" not in said


def test_the_panels_of_a_picture_have_one_scale(tmp_path, monkeypatch):
    labels, codes = made()
    jsonl(tmp_path / "labels.jsonl", labels)
    jsonl(tmp_path / "coded.jsonl", random.Random(2).sample(codes, 150))
    made_ones, original = [], figure.figure_of
    monkeypatch.setattr(figure, "figure_of", lambda *given: made_ones.append(original(*given)) or made_ones[-1])
    run("--figure", "f.svg", "--by", "language")
    limits = {axes.get_xlim() for axes in made_ones[0].axes}
    assert len(made_ones[0].axes) == 3 and len(limits) == 1 and limits.pop()[0] == 0
    jsonl(tmp_path / "coded.jsonl", random.Random(2).sample([row for row in codes if row["label"] != "a"], 60))
    found = run("--figure", "f.svg", "--by", "language")[1]  # the widest are not those of the first panel
    right = {axes.get_xlim()[1] for axes in made_ones[1].axes}
    assert min(right) >= 100 * max(row[way]["high"] for row in found for way in ("coded", "ppi", "dsl"))


def test_the_picture_has_a_line_for_each_share(tmp_path):
    labels, codes = made()
    jsonl(tmp_path / "labels.jsonl", labels)
    jsonl(tmp_path / "coded.jsonl", random.Random(2).sample(codes, 150))
    for words, lines in (([], ["a", "b", "c", "codes alone", "naive: machine labels"]),
                         (["--by", "language"], ["en", "es"])):
        said, _ = run("--figure", "f.svg", *words)
        text = (tmp_path / "f.svg").read_text(encoding="utf-8")
        assert "figure: f.svg" in said and all(f">{line}</text>" in text for line in lines)
    files = ["--labels", "labels.jsonl", "--coded", "coded.jsonl"]
    refused(main, *files, "--figure", "f.txt", says=["--figure f.txt", "no known format", ".png"])
    jsonl(tmp_path / "labels.jsonl", [row | {"day": str(n)} for n, row in enumerate(labels)])
    refused(main, *files, "--figure", "g.png", "--by", "day", says=["--figure: 400 groups", "leave it out"])
    assert not (tmp_path / "g.png").exists()


def test_bad_files_are_told(tmp_path):
    labels, codes = made(20)
    jsonl(tmp_path / "labels.jsonl", labels)
    jsonl(tmp_path / "coded.jsonl", codes[:8])
    words = ["--labels", "labels.jsonl", "--coded"]
    refused(main, "--coded", "coded.jsonl", says="--labels: is missing")
    refused(main, *words, "coded.jsonl", "--by", "month", says=["--by month", "no such column"])
    bad = {
        "twice": ([*codes[:4], codes[0]], "was coded before"), "away": ([{"id": "x", "label": "a"}], "is in no row of"),
        "none": ([{"label": "a"}], "has no id"), "bare": ([{"id": "p1", "label": ""}], "has no label"),
        "odd": ([codes[0] | {"inclusion_probability": 2}], "inclusion_probability '2' is not a number above 0"),
        "half": ([codes[0] | {"inclusion_probability": 0.5}, codes[1]], "every coded row needs the chance"),
    }
    for name, (rows, says) in bad.items():
        jsonl(tmp_path / f"{name}.jsonl", rows)
        refused(main, *words, f"{name}.jsonl", says=says)
    jsonl(tmp_path / "p.jsonl", [row | {"p_a": 0.9, "p_b": 0.9, "p_c": 0} for row in labels])
    refused(main, "--labels", "p.jsonl", "--coded", "coded.jsonl", says=["p.jsonl: row 1", "sum to 1"])
    jsonl(tmp_path / "q.jsonl", [{"id": "p1", "text": "t"}])
    refused(main, "--labels", "q.jsonl", "--coded", "coded.jsonl", says="has no column 'predicted'")
