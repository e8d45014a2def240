"""tools.prevalence: what its JSON says of the design, clusters beyond these posts, posts that are there twice.

Deliberate break: leave `part.posts` of stats/prevalence.py as it is, or the look at ids out of `read_labels`.
"""

import json
import random

import pytest

from tests.programs.hostile import in_an_empty_folder, jsonl, refused  # noqa: F401
from tests.tools.test_prevalence_tool import WORDS, made, run
from tools.prevalence.__main__ import main


def test_the_json_says_how_it_was_made(tmp_path):
    labels, codes = made(date=lambda n: f"2024-0{1 + n % 2}-03")
    jsonl(tmp_path / "labels.jsonl", labels)
    jsonl(tmp_path / "coded.jsonl", random.Random(2).sample(codes, 150))
    run("--by", "month,language", "--seed", "3")
    found = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert [found[key] for key in ("by", "beyond", "clusters", "level", "seed")] == [
        ["month", "language"], False, None, 0.95, 3]
    assert "equal chances" in found["design"]
    for row in found["shares"]:
        assert row["group"] == ", ".join(row["groups"].values()) and list(row["groups"]) == ["month", "language"]


def test_beyond_these_posts_authors_count(tmp_path):
    labels, codes = made()
    for row in labels:  # each author always says the same
        row["author"] = f"{row['predicted']}{int(row['id'][1:]) % 3}"
    jsonl(tmp_path / "labels.jsonl", labels)
    jsonl(tmp_path / "coded.jsonl", random.Random(2).sample(codes, 150))
    alone, plain = run("--beyond")
    said, found = run("--beyond", "--clusters", "author")
    assert "name the column with --clusters" in alone and "those of one author taken together" in said
    for row, other in zip(found, plain, strict=True):
        assert row["ppi"]["estimate"] == other["ppi"]["estimate"]
        assert row["ppi"]["high"] - row["ppi"]["low"] > 1.5 * (other["ppi"]["high"] - other["ppi"]["low"])
    refused(main, *WORDS, "--clusters", "author", says="--clusters: goes with --beyond")


def test_a_post_that_is_there_twice_is_refused(tmp_path):
    labels, codes = made()
    coded = random.Random(2).sample(codes, 150)
    other = next(row for row in labels if row["id"] not in {code["id"] for code in coded})
    jsonl(tmp_path / "labels.jsonl", [*labels, other])
    jsonl(tmp_path / "coded.jsonl", coded)
    refused(main, *WORDS, says=[f"id '{other['id']}' came before", "would count twice"])


def test_the_weights_of_fixed_strata_must_add_up(tmp_path):
    """Five of a hundred rows of a stratum left out: by the rule for single draws, that would be chance."""
    labels, codes = made()
    jsonl(tmp_path / "labels.jsonl", labels)
    first, second = random.Random(5).sample(codes[:200], 60), random.Random(6).sample(codes[200:], 40)
    rows = [row | {"stratum": stratum, "inclusion_probability": len(own) / 200}
            for stratum, own in (("1", first), ("2", second)) for row in own]
    jsonl(tmp_path / "coded.jsonl", rows)
    said, _ = run()
    assert "in 2 strata" in said and "warning" not in said
    jsonl(tmp_path / "coded.jsonl", rows[:-3])
    assert "warning: by their inclusion_probability the coded rows stand for 385 posts, and there are 400" in run()[0]
    more = [row | {"stratum": "2", "inclusion_probability": 0.2} for row in codes[200:] if row["id"] not in {
        one["id"] for one in second}][:30]  # a second sample of this stratum beside the first
    jsonl(tmp_path / "coded.jsonl", [*rows, *more])
    said, _ = run()
    assert "stand for 550 posts, and there are 400" in said and "code the whole sample" not in said
    assert "two samples were joined" in said and "its coded rows by its posts" in said
    jsonl(tmp_path / "coded.jsonl", [row if row["stratum"] == "1" else row | {"inclusion_probability": 70 / 200}
                                     for row in [*rows, *more]])
    assert "warning" not in run()[0]
    jsonl(tmp_path / "coded.jsonl", [rows[0] | {"stratum": "2"}, *rows[1:]])
    refused(main, "--labels", "labels.jsonl", "--coded", "coded.jsonl",
            says=["coded.jsonl: row 61", "0.2 in stratum '2', where others have 0.3", "two samples", "other names"])


def test_coded_rows_without_a_label_are_no_random_part(tmp_path):
    """Of an equal-chance sample no sum says that some are missing."""
    labels, codes = made()
    jsonl(tmp_path / "labels.jsonl", labels)
    coded = random.Random(2).sample(codes, 100)
    jsonl(tmp_path / "coded.jsonl", [row | {"label": ""} if n % 10 == 0 else row for n, row in enumerate(coded)])
    refused(main, *WORDS, says=["has no label", "10 such rows"])
    said, _ = run("--bad-labels", "drop")
    assert "warning: 10 coded rows without a label" in said and "no interval covers" in said
    jsonl(tmp_path / "coded.jsonl", [*(row | {"annotator": "ana"} for row in coded),
                                     *(row | {"label": "", "annotator": "ben"} for row in coded[:7])])
    said, _ = run("--bad-labels", "drop")
    assert "warning: 7 coded rows" in said and "where nobody else coded the post, give it" in said


@pytest.mark.parametrize("name", ["stratum", "weight"])
def test_a_design_without_chances_is_told(tmp_path, name):
    labels, codes = made()
    jsonl(tmp_path / "labels.jsonl", labels)
    coded = [row | {name: 1 + n % 2} for n, row in enumerate(random.Random(2).sample(codes, 100))]
    for rows in (coded, [row | {"inclusion_probability": ""} for row in coded]):
        jsonl(tmp_path / "coded.jsonl", rows)
        assert f"warning: column '{name}' is not used" in run()[0]
    jsonl(tmp_path / "coded.jsonl", [row | {name: 1} for row in coded])
    assert "is not used" not in run()[0]  # one value for all: no chance differed by it
    jsonl(tmp_path / "coded.jsonl", [row | {"inclusion_probability": 0.25} for row in coded])
    assert "is not used" not in run()[0]
