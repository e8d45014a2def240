"""What a study reads, and what it says of it: rows that are left out, annotators' ties, and words of the plan.

Deliberate break: in study/inputs.py let chains of authors who share texts be known, count all known rows as
`same_text`, leave out an agreement's lines, or raise an
error as it comes.
"""

import pytest

from common.errors import UserError
from common.terminal import command
from study.inputs import read_material
from study.plan import load_plan
from study.power import power, power_lines
from tests.small import write_jsonl
from tests.study.fake_study import PLAN, fake_results

LABELS = ("pro-immigration", "anti-immigration", "neutral", "unrelated")


def row(name: str, text: str, author: str, **more) -> dict:
    return {"id": name, "text": text, "label": LABELS[len(text) % 4], "language": "en", "author": author} | more


def plan_of(folder, test: list[dict], words: str = "") -> object:
    train = [row(f"t{n}", f"training post {n}", f"a{n}") for n in range(40)]
    files = [write_jsonl(folder / f"{name}.jsonl", rows) for name, rows in (("train", train), ("test", test))]
    (folder / "plan.toml").write_text(f"""
[data]
train = "{files[0]}"
test = "{files[1]}"
{words}
[sets]
en = {{ en = 20 }}
""")
    return load_plan(folder / "plan.toml")


def test_each_reason_for_leaving_a_row_out_is_counted(tmp_path):
    test = [row("s1", "training post 3", "x"), row("s2", "by an author of training", "a7"), row("s3", "new", "y")]
    alone = read_material(plan_of(tmp_path, test))
    assert alone.why_known() == "1 with the text of a training row" and alone.together == "copies of a text"
    both = read_material(plan_of(tmp_path, test, 'group_by = "author"'))
    assert both.is_known.tolist() == [True, True, False] and both.together == (
        "copies of a text and posts of one “author”")
    assert both.why_known("post") == ("1 with the text of a training post and 1 of a group by “author” that has "
                                      "training posts")
    assert both.notes[-1] == (
        "  2 of 3 test rows are known from training and count in no figure; "
        f"{command('-m', 'tools.split', '--group-by', 'author', '--repeats-apart')} makes files with fewer of them")
    assert not any("count in no figure" in line for line in alone.notes)
    with pytest.raises(UserError, match="or belongs to a group by 'author' that has training posts"):
        read_material(plan_of(tmp_path, test[:2], 'group_by = "author"'))


def test_who_shares_a_text_with_a_training_author_is_tested_and_counts_by_text_first(tmp_path):
    """Author x has copied a training post, y has copied x: chains of such authors must leave something to test."""
    test = [row("s1", "training post 3", "x"), *(row(f"x{n}", f"of x {n}", "x") for n in range(3)),
            row("y1", "of x 0 https://a.example/1", "y"), row("y2", "of y", "y"), row("z", "alone", "z")]
    found = read_material(plan_of(tmp_path, test, 'group_by = "author"'))
    assert found.is_known.tolist() == [True] + [False] * 6 and found.same_text == 1
    assert found.table(~found.is_known).clusters.tolist() == [0, 1, 1, 0, 4, 5]
    assert found.together == "copies of a text and the other posts of one “author”"
    alone = read_material(plan_of(tmp_path, test))
    assert alone.table(~alone.is_known).clusters.tolist() == [0, 1, 2, 0, 4, 5]


def test_ties_are_said(tmp_path):
    votes = [{"label_ana": "neutral", "label_ben": ("neutral", "unrelated")[n % 2], "label": ""} for n in range(10)]
    test = [row(f"s{n}", f"post {n}", "x") | vote for n, vote in enumerate(votes)]
    found = read_material(plan_of(tmp_path, test))
    assert len(found.rows) == 5 and len(found.votes) == 10
    said = "\n".join(found.notes)
    assert "  2 annotators: ana, ben" in said and " ties" in said


@pytest.mark.parametrize("words, says", [
    ('text_column = "body"', "[data] text_column"), ('group_by = "who"', "[data] group_by"),
    ('codebook = "none.toml"', "none.toml"), ('shares = "nowhere.toml"', "nowhere.toml")])
def test_an_error_in_the_posts_speaks_the_plans_language(tmp_path, words, says):
    with pytest.raises(UserError) as caught:
        read_material(plan_of(tmp_path, [row("s1", "new", "y"), row("s2", "newer", "z")], words))
    assert says in str(caught.value) and str(caught.value).startswith(str(tmp_path / "plan.toml"))
    assert "--" not in str(caught.value)


def test_what_is_counted_for_the_reach_has_its_name(tmp_path):
    results = fake_results(tmp_path, PLAN)
    assert "contrast" in power_lines(power(results))[0] and "groups" not in power_lines(power(results))[0]
    results.material.group_by = "author"
    assert "groups of posts for 0.1" in power_lines(power(results))[0]


def test_a_language_without_test_rows_is_named_with_those_that_are_there(tmp_path):
    results = fake_results(tmp_path, PLAN.replace('languages = ["unseen"]', 'languages = ["Ko"]'))
    with pytest.raises(UserError, match=r"no test row in .* did you mean 'ko'.* there are ar, de, en"):
        results.languages_of(results.plan.contrasts[0])
