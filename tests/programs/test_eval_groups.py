"""eval.py: columns that posts are scored by, and posts that belong together, as an option or tools.split says.

Deliberate break: let `GroupOptions.groups_of` not look for split.json, or `MIN_GROUPS` out of report/metrics.py.
"""

import json
import shutil

from tests.programs.test_eval_program import KNOWN, evaluate, fresh, metrics, place  # noqa: F401


def test_by_and_group_by(fresh):  # noqa: F811
    words = ("--run", "run", "--data", "test.jsonl", "--out", "by")
    said = evaluate(fresh, *words, "--by", "year", "--group-by", "author")
    found = metrics(fresh / "by")
    table = said[said.index("\n  year ") :].splitlines()
    for line, (year, cell) in zip(table[3:5], found["by"]["year"].items(), strict=True):
        assert line.replace("°", "").split()[:3] == [year, f"{cell['n']:,}", f"{cell['accuracy']:.3f}"]
    assert set(found["by"]["year"]) == {"2020", "2021"}
    assert sum(cell["n"] for cell in found["by"]["year"].values()) == found["n"]
    assert found["intervals"]["clusters"] == 7 and found["intervals"]["largest_cluster"] >= 7
    assert found["macro_f1_ci"] is None and "has rows worth 7 equal groups" in found["notes"]["macro_f1_ci"]
    assert "7 groups of posts with the same text or “author”" in " ".join(said.split())
    assert "fewer than 10 groups are too few for an interval of F1" in " ".join(said.split())
    assert "7 groups of posts with the same text or “author”" in (fresh / "by" / "report.html").read_text()
    (fresh / "split.json").write_text(json.dumps({"options": {"group_by": "author"}}))  # as tools.split leaves it
    said = evaluate(fresh, "--run", "run", "--data", "test.jsonl", "--out", "remembered")
    assert "posts of one “author” count together in the intervals, as split.json kept them" in said
    assert metrics(fresh / "remembered")["intervals"] == found["intervals"]
    lines = [json.loads(line) for line in (fresh / "remembered" / "predictions.jsonl").read_text().splitlines()]
    authors = [json.loads(line)["author"] for line in (fresh / "test.jsonl").read_text().splitlines()]
    assert len({(line["group"], author) for line, author in zip(lines, authors, strict=True)}) == 7
    assert sum(line["left_out"] for line in lines) == KNOWN == len(lines) - found["n"]
    evaluate(fresh, "--run", "run", "--data", "test.jsonl", "--out", "apart", "--group-by", "none")
    assert metrics(fresh / "apart")["intervals"]["clusters"] > 40
    (fresh / "split.json").unlink()
    shutil.rmtree(fresh / "tiny")  # a wrong name is told before a model is even looked for
    for option in ("--by", "--group-by"):
        message = evaluate(fresh, "--run", "run", "--data", "test.jsonl", option, "nowhere", code=2)
        assert f"{option} nowhere" in message and "author" in message
