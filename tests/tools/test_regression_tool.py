"""tools.regression: what enters the matrix, the JSON, the sentences, and what is refused.

Deliberate break: take the machine's label for the code in `question` (leave the loop over `by_hand` out), or the first
value as the reference in `design`.
"""

import json
import random

import numpy
import pytest

from stats.prevalence import Estimate, equal_probabilities
from stats.regression import Coefficient, Question, regression
from stats.sandwich import Sample
from tests.programs.hostile import call, in_an_empty_folder, jsonl, refused  # noqa: F401
from tools.regression.__main__ import main
from tools.regression.words import cells

WORDS = ["--labels", "labels.jsonl", "--coded", "coded.jsonl"]


def made(count=900, coded=220) -> tuple[list[dict], list[dict], list[str]]:
    """Labels, codes of a sample, and what people would have said of each post; the machine errs more often in es."""
    draw, labels, truth = random.Random(3), [], []
    for n in range(count):
        language = draw.choices(["en", "es"], (3, 2))[0]
        label = "anti" if draw.random() < (0.45 if language == "es" else 0.2) else draw.choice(["pro", "neutral"])
        said = label if draw.random() > (0.35 if language == "es" else 0.1) else draw.choice(["anti", "pro", "neutral"])
        truth.append(label)
        labels.append({"id": f"p{n}", "language": language, "predicted": said, "author": f"u{n % 150}",
                       "date": f"2024-0{1 + n % 3}-11", "followers": draw.randint(0, 40), "year": 2023 + n % 2,
                       "shares": round(3 + 3 * (label == "anti") + draw.gauss(0, 1), 2)})
    rows = sorted(draw.sample(range(count), coded))
    return labels, [{"id": f"p{n}", "label": truth[n]} for n in rows], truth


@pytest.fixture
def files(tmp_path):
    labels, codes, truth = made()
    jsonl(tmp_path / "labels.jsonl", labels)
    jsonl(tmp_path / "coded.jsonl", codes)
    return labels, codes, truth


def run(*words):
    ended = call(main, *WORDS, "--json", "out.json", *words)
    assert ended.code == 0, ended.err
    return ended.out, json.loads(open("out.json", encoding="utf-8").read())


def test_a_labelled_outcome(files):
    labels, codes, _ = files
    said, found = run("--outcome", "label=anti", "--on", "language,followers")
    assert [found[name] for name in ("model", "outcome", "on", "n", "n_coded")] == [
        "logistic", "label=anti", ["language", "followers"], 900, 220]
    assert [row["term"] for row in found["coefficients"]] == ["(intercept)", "language: es", "followers"]
    matrix = numpy.array([[1.0, row["language"] == "es", row["followers"]] for row in labels])
    post = numpy.array([int(row["id"][1:]) for row in codes])
    outcome = numpy.array([row["predicted"] == "anti" for row in labels], dtype=float)
    own = numpy.array([row["label"] == "anti" for row in codes], dtype=float)
    names = sorted({row["predicted"] for row in labels}, key=[row["predicted"] for row in labels].index)
    x = numpy.array([[row["predicted"] == name for name in names] for row in labels], dtype=float)
    expected, tuned = regression(Question("logistic", ["", "", ""], matrix, outcome, matrix[post], own, (), x),
                                 Sample(post, *equal_probabilities(220, 900)))
    assert found["tuned"] == pytest.approx(tuned)
    for row, one in zip(found["coefficients"], expected, strict=True):
        for name in ("naive", "coded", "ppi", "dsl"):
            assert list(row[name]) == ["estimate", "low", "high", "error", "df", "covariances"]
            wanted = getattr(one, name).to_dict()
            assert row[name].pop("covariances") == pytest.approx(wanted.pop("covariances"))
            assert list(row[name].values()) == pytest.approx(list(wanted.values()))
    assert "differences in the log odds of label=anti" in said and "do not say what would change" in said
    assert "not checked against training" in said and "narrowest" in said


def test_a_labelled_regressor_whose_naive_coefficient_is_too_small(files):
    said, found = run("--outcome", "shares", "--on", "label=anti,language", "--clusters", "author")
    assert found["model"] == "linear" and "150 clusters by author" in said
    anti = next(row for row in found["coefficients"] if row["term"] == "label=anti")
    matrix = numpy.array([[1, label == "anti", row["language"] == "es"] for row, label in zip(files[0], files[2],
                                                                                             strict=True)], dtype=float)
    truth = numpy.linalg.lstsq(matrix, [row["shares"] for row in files[0]], rcond=None)[0][1]
    assert anti["naive"]["high"] < truth and all(anti[name]["low"] < truth < anti[name]["high"]
                                                 for name in ("ppi", "dsl"))
    assert "The naive coefficient lies outside both corrected intervals for " in said


def test_words_numbers_months_and_references(files):
    found = run("--outcome", "label=anti", "--on", "month,year,language=es", "--model", "linear")[1]
    assert [row["term"] for row in found["coefficients"]][1:] == ["month: 2024-02", "month: 2024-03", "year",
                                                                  "language=es"]
    found = run("--outcome", "label=anti", "--on", "month,year", "--words", "year", "--reference",
                "month=2024-02,year=2024")[1]
    assert [row["term"] for row in found["coefficients"]][1:] == ["month: 2024-01", "month: 2024-03", "year: 2023"]


def test_small_coefficients_have_more_decimals():
    def estimate(value, half):
        return Estimate(value, value - half, value + half)

    small = Coefficient("n", *(estimate(-0.00004, half) for half in (0.0002, 0.0005, 0.0003, 0.0003)))
    assert cells(small)[1] == "−0.00004 [−0.00054, 0.00046]"
    assert cells(Coefficient("x", *[estimate(2.0, 12.5)] * 4))[0] == "2.000 [−10.500, 14.500]"
    assert cells(Coefficient("0", *[estimate(-1e-7, 0.4)] * 4))[0] == "0.000 [−0.400, 0.400]"


def test_few_codes_are_told(files, tmp_path):
    jsonl(tmp_path / "coded.jsonl", files[1][:35])
    said = run("--outcome", "label=anti", "--on", "month,language", "--model", "linear")[0]
    assert "Only 35 coded posts for 4 coefficients" in said and "code 40 or more" in said


def test_a_level_of_few_codes_has_an_estimate_and_no_interval(files, tmp_path):
    labels, codes, _ = files
    few = [row for row in codes if labels[int(row["id"][1:])]["language"] == "en"]
    few += [row for row in codes if labels[int(row["id"][1:])]["language"] == "es"][:4]
    jsonl(tmp_path / "coded.jsonl", few)
    said, found = run("--outcome", "label=anti", "--on", "language", "--model", "linear")
    line = next(line for line in said.splitlines() if line.startswith("  language: es"))
    assert line.count("[") == 1 and line.count(" –") == 4  # naive alone has an interval, and nothing is narrowest
    assert "– no interval, since too few codes stand behind it: language: es (4" in said
    assert "An interval takes 10 or more codes, and on either side 3 with the outcome and 3 without it" in said
    row = found["coefficients"][1]
    assert row["dsl"]["estimate"] is not None and row["dsl"]["low"] is row["dsl"]["error"] is None
    assert row["reach"] == pytest.approx(4, abs=0.3) and found["references"] == {"language": "en"}
    assert found["level"] == 0.95 and "equal chances" in found["design"] and "left out (language: en)" in said
    few = [row for row in few if labels[int(row["id"][1:])]["language"] == "en"] + few[-1:]
    jsonl(tmp_path / "coded.jsonl", few)
    refused(main, *WORDS, "--outcome", "label=anti", "--on", "language", "--model", "linear",
            says=["'language: es' rests on a single coded post", "merge values"])


def test_a_label_that_the_machine_never_gives(files, tmp_path):
    labels, _, _ = files
    jsonl(tmp_path / "labels.jsonl", [row | {"predicted": "pro" if row["predicted"] == "anti" else row["predicted"]}
                                      for row in labels])
    said, found = run("--outcome", "label=anti", "--on", "language")
    assert "There is no naive regression" in said and "people gave labels that the machine gave to no post" in said
    assert all(row["naive"]["estimate"] is None and row["coded"]["low"] is not None for row in found["coefficients"])
    refused(main, *WORDS, "--outcome", "shares", "--on", "label=anti",
            says=["--on label=anti: the machine gave this label to no post"])


def test_numbers_with_decimal_commas(files, tmp_path):
    labels, _, _ = files
    plain = run("--outcome", "label=anti", "--on", "shares")[1]["coefficients"]
    jsonl(tmp_path / "labels.jsonl", [row | {"shares": str(row["shares"]).replace(".", ",")} for row in labels])
    assert run("--outcome", "label=anti", "--on", "shares")[1]["coefficients"] == plain
    jsonl(tmp_path / "labels.jsonl", [row | {"shares": f"0,{100 + n % 800}"} for n, row in enumerate(labels)])
    assert len(run("--outcome", "label=anti", "--on", "shares")[1]["coefficients"]) == 2  # no thousand begins with 0
    jsonl(tmp_path / "labels.jsonl", [row | {"shares": f"{1 + n % 7},{100 + n % 800}"} for n, row in enumerate(labels)])
    refused(main, *WORDS, "--outcome", "label=anti", "--on", "shares",
            says=["--on shares: '1,100' could be one and a part, or a thousand", "--words"])


@pytest.mark.parametrize(("words", "says"), [
    ([], "--outcome: is missing"), (["--outcome", "label=anti"], "--on: is missing"),
    (["--outcome", "label", "--on", "language"], "label: write which one, label=NAME"),
    (["--outcome", "label=ant", "--on", "language"], "did you mean 'anti'"),
    (["--outcome", "shares", "--on", "language"], "on neither side"),
    (["--outcome", "label=anti", "--on", "label=pro"], "on both sides"),
    (["--outcome", "label=anti", "--on", "language,language"], "stands twice"),
    (["--outcome", "label=anti", "--on", "langauge"], ["--on langauge", "no such column", "did you mean 'language'"]),
    (["--outcome", "language", "--on", "label=anti"], ["--outcome language", "is no number", "language=e"]),
    (["--outcome", "label=anti", "--on", "author"], ["--on author", "has 150 different values"]),
    (["--outcome", "label=anti", "--on", "language=fr"], ["--on language=fr", "no post has that value"]),
    (["--outcome", "shares", "--on", "label=anti", "--model", "logistic"], "has other values than 0 and 1"),
    (["--outcome", "label=anti", "--on", "language", "--reference", "month=2024-01"], "--reference month"),
    (["--outcome", "label=anti", "--on", "language,="], "write COLUMN, COLUMN=VALUE or label=NAME"),
    (["--outcome", "label=anti", "--on", "language", "--clusters", "autor"], "--clusters autor"),
    (["--outcome", "label=anti", "--on", "language", "--clusters", "label"], "--clusters label"),
    (["--outcome", "label=anti", "--on", "year", "--words", "yaer"], ["--words yaer", "did you mean 'year'"]),
])  # fmt: skip
def test_what_cannot_be_asked(files, words, says):
    refused(main, *WORDS, *words, says=says)


def test_posts_without_a_value_are_left_out_and_counted(files, tmp_path):
    """As R's lm and glm do; by R, pandas, SQL, SAS, Stata or nothing at all, and whatever the coded posts are."""
    labels, codes, _ = files
    coded = {row["id"] for row in codes}
    gap = {f"p{n}": word for n, word in zip(range(0, 900, 9), ["NA", "", "nan", ".", ".a", "NULL", "N/A", None] * 13,
                                            strict=False)}
    holes = [row | ({"followers": gap[row["id"]]} if row["id"] in gap else {}) for row in labels]
    jsonl(tmp_path / "labels.jsonl", [row for row in labels if row["id"] not in gap])
    jsonl(tmp_path / "coded.jsonl", [row for row in codes if row["id"] not in gap])
    wanted = run("--outcome", "label=anti", "--on", "followers,language")[1]
    jsonl(tmp_path / "labels.jsonl", holes)
    jsonl(tmp_path / "coded.jsonl", codes)
    said, found = run("--outcome", "label=anti", "--on", "followers,language")
    assert found["coefficients"] == wanted["coefficients"] and found["lacking"] == {"followers": 100}
    lost = len(coded & set(gap))
    assert (f"  100 posts left out, {lost} of them coded, for want of a value in followers (100): the coefficients are "
            f"of the other 800, {220 - lost} of them coded") in said and "900 posts, 220 of them coded" in said


def test_a_part_of_a_whole_sample_is_no_sample_that_lacks_codes(files, tmp_path):
    """Drawn in strata, all coded; how many of them have a value is chance."""
    labels, _, truth = files
    parts = [[n for n in range(900) if n % 3], [n for n in range(900) if n % 3 == 0]]
    jsonl(tmp_path / "labels.jsonl", [row | ({"followers": ""} if n % 2 else {}) for n, row in enumerate(labels)])
    coded = [{"id": f"p{n}", "label": truth[n], "inclusion_probability": 110 / len(part), "stratum": name}
             for name, part in zip("uv", parts, strict=True) for n in random.Random(5).sample(part, 110)]
    for rows in (coded, [{key: row[key] for key in row if key != "stratum"} for row in coded]):
        jsonl(tmp_path / "coded.jsonl", rows)
        said, found = run("--outcome", "label=anti", "--on", "followers")
        assert "warning" not in said and found["design"].endswith("in 2 strata") and found["n"] == 450
    jsonl(tmp_path / "coded.jsonl", coded[9:])
    assert "warning: by their inclusion_probability" in run("--outcome", "label=anti", "--on", "followers")[0]


@pytest.mark.parametrize("given", ["z", "anti"])
def test_a_label_that_people_gave_to_none_or_all(files, tmp_path, given):
    labels, codes, _ = files
    jsonl(tmp_path / "labels.jsonl", [row | ({"predicted": "z"} if n % 9 == 0 else {}) for n, row in enumerate(labels)])
    jsonl(tmp_path / "coded.jsonl", [row | {"label": "anti"} for row in codes])
    refused(main, *WORDS, "--outcome", f"label={given}", "--on", "language",
            says=f"label={given}: people gave it to {'none' if given == 'z' else 'all'} of the 220 coded posts")


@pytest.mark.parametrize("column", ["party", "shares"])
def test_what_r_writes_for_a_missing_word_or_outcome_is_no_value(files, tmp_path, column):
    labels, _, _ = files
    names = [*labels[0], "party"]
    rows = [row | {"party": ("left", "right")[n % 2]} for n, row in enumerate(labels)]
    lines = [",".join("NA" if n % 10 == 4 and name == column else f'"{row[name]}"' if isinstance(row[name], str)
                      else str(row[name]) for name in names) for n, row in enumerate(rows)]
    (tmp_path / "labels.csv").write_text("\n".join([",".join(names), *lines]) + "\n")
    words = ("--labels", "labels.csv", "--outcome", "shares", "--on", "label=anti,party", "--model", "linear")
    said, found = run(*words)
    assert [row["term"] for row in found["coefficients"]] == ["(intercept)", "party: left", "label=anti"]
    assert found["lacking"] == {column: 90} and f"for want of a value in {column} (90)" in said and found["n"] == 810
    found = run(*words[:4], "--outcome", "label=anti", "--on", "party=left")[1]
    assert found["n"] == 900 and found["lacking"] == {}


def test_an_error_that_comes_of_missing_values_says_so(files, tmp_path):
    labels, _, _ = files
    jsonl(tmp_path / "labels.jsonl", [row | {"paid": "yes" if n % 3 else "", "k": 7} for n, row in enumerate(labels)])
    refused(main, *WORDS, "--outcome", "label=anti", "--on", "paid",
            says=["'paid' has only one level, 'yes'", "without a value in paid (300) were left out", "such as none"])
    refused(main, *WORDS, "--outcome", "label=anti", "--on", "k", says=["column 'k' is the same in all 900 rows"])


def test_separation_names_the_level_and_what_helps(files, tmp_path):
    labels, _, truth = files
    flags = [row | {"flag": ("a", "b")[label == "anti"]} for row, label in zip(labels, truth, strict=True)]
    jsonl(tmp_path / "labels.jsonl", flags)
    refused(main, *WORDS, "--outcome", "label=anti", "--on", "flag",
            says=["the coded posts alone", "without error by", "'flag: b';", "or code more posts"])


def test_who_has_no_author_is_by_herself(files, tmp_path):
    labels, _, _ = files
    jsonl(tmp_path / "labels.jsonl", [row | ({"author": ""} if n % 3 == 0 else {}) for n, row in enumerate(labels)])
    said, _ = run("--outcome", "label=anti", "--on", "language", "--clusters", "author")
    assert "; 400 clusters by author, 300 posts without one being clusters of their own" in said


def test_no_coded_post_has_a_value(files, tmp_path):
    labels, codes, _ = files
    coded = {row["id"] for row in codes}
    jsonl(tmp_path / "labels.jsonl", [row | ({"followers": "NA"} if row["id"] in coded else {}) for row in labels])
    refused(main, *WORDS, "--outcome", "label=anti", "--on", "followers",
            says=["no coded post has a value in followers"])
    jsonl(tmp_path / "labels.jsonl", [row | {"followers": "."} for row in labels])
    refused(main, *WORDS, "--outcome", "label=anti", "--on", "followers", says=["--on followers: holds no numbers"])


def test_values_without_a_code(files, tmp_path):
    labels, codes, _ = files
    jsonl(tmp_path / "coded.jsonl", [row for row in codes if labels[int(row["id"][1:])]["language"] == "en"])
    refused(main, *WORDS, "--outcome", "label=anti", "--on", "language",
            says=["'language: es' is the same for all", "code others too"])
