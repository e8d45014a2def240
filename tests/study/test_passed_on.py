"""A study of posts that authors pass on: few groups in a language, what is said of them, and annotators of copies.

Deliberate break: in `study.questions.calibration.answer_of` count rows without an interval, in `Material.table` let
each post be by itself, or in `Material.agreement` leave the clusters out.
"""

import json

import pytest

from stats.alpha import alpha
from study.inputs import read_material
from study.plan import load_plan
from study.questions.calibration import answer_of
from study.write_up import make_study, methods
from tests.small import write_jsonl
from tests.study.fake_study import PLAN, fake_results, few_languages


def by_authors(folder, authors: int) -> str:
    """The plan's table `[data]` with sample posts by a few authors of each language, who all have its first text."""
    head = few_languages(folder)
    rows = [json.loads(line) for line in (folder / "few.jsonl").read_text(encoding="utf-8").splitlines()]
    first = {row["language"]: row["text"] for row in reversed(rows)}
    write_jsonl(folder / "few.jsonl", [row | {"author": f"{row['language']}{number % authors}"} | (
        {"text": first[row["language"]]} if number % 13 < authors else {}) for number, row in enumerate(rows)])
    return head + 'group_by = "author"\n'


def test_what_counts_together_is_said_and_counted(tmp_path):
    results = fake_results(tmp_path, PLAN + by_authors(tmp_path, 3))
    assert results.groups == "16 groups, the largest of 4 rows"
    told = methods(results)
    assert ("stratified by language, copies of a text and the other posts of one “author” together: 16 groups, the "
            "largest of 4 rows), for means over languages") in told
    assert "fewer than 10 rows or groups of a label, are marked" in told
    alone = fake_results(tmp_path, PLAN + few_languages(tmp_path))
    assert alone.groups == "" and "copies of a text together), for means over languages" in methods(alone)


def test_a_language_of_few_groups_has_no_verdict_on_its_sureness():
    own = [{"language": "all", "gap": 0.1, "gap_low": 0.05, "gap_high": 0.2},
           {"language": "en", "gap": 0.2, "gap_low": 0.1, "gap_high": 0.3},
           {"language": "es", "gap": 0.3, "gap_low": None, "gap_high": None}]
    assert "multi is too sure in 1 and not sure enough in 0 of 1 language with an interval." in answer_of(
        {"multi": 0.1}, own, "multi")
    assert answer_of({"multi": 0.1}, own[:2], "multi").endswith("in 0 of 1 language.")
    assert answer_of({"multi": 0.1}, own[::2], "multi").endswith("No language alone has enough posts for an interval.")


def test_annotators_of_copies_of_a_text_count_once(tmp_path):
    rows = [{"id": f"p{n}", "text": f"post {n % 7}", "language": "en", "author": f"a{n}", "label": "",
             "label_ana": "neutral" if n % 7 < 4 else "unrelated", "label_ben": "neutral" if n % 7 < 3 else "unrelated"}
            for n in range(28)]
    train = [{"id": f"t{n}", "text": f"other {n}", "language": "en", "label": "neutral", "author": ""}
             for n in range(30)]
    files = {name: write_jsonl(tmp_path / f"{name}.jsonl", own) for name, own in (("train", train), ("test", rows))}
    head = "".join(f'{name} = "{file}"\n' for name, file in files.items())
    (tmp_path / "plan.toml").write_text(f'[data]\n{head}group_by = "author"\n[sets]\nen = {{ en = 20 }}\n')
    found = read_material(load_plan(tmp_path / "plan.toml"))
    assert len(found.rows) == 24 and len(set(found.vote_groups.values())) == 7  # of one text in seven the two are tied
    votes = [[row["label_ana"], row["label_ben"]] for row in rows]
    wanted = alpha(votes, 500, 1, clusters=[n % 7 for n in range(28)])
    apart = alpha(votes, 500, 1)
    assert found.agreement(draws=500, seed=1)["alpha"] == wanted["alpha"] == apart["alpha"]
    assert found.agreement(draws=500, seed=1)["low"] < apart["low"] - 0.1
    assert found.agreement(["es"])["posts"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("authors", [2, 11])
def test_the_whole_study_of_a_few_authors(tmp_path, authors):
    study = make_study(fake_results(tmp_path, PLAN + by_authors(tmp_path, authors)), {"base": "b" * 64})
    [rows] = [section for section in study.sections if section.key == "data"]
    assert "In intervals copies of a text and the other posts of one “author” count together" in rows.answer
