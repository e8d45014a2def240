"""tools.prevalence: what its JSON says of the design, clusters beyond these posts, posts that are there twice.

Deliberate break: leave `part.posts` of stats/prevalence.py as it is, or the look at ids out of `read_labels`.
"""

import json
import random

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
