"""Annotators: majorities, ties, and alpha equal to the published examples and to brute force.

Deliberate break that turns this red: weight each pair equally in `krippendorff_alpha` of data/annotators.py (leave out
the division by the post's labels - 1); every example with missing labels is off.
"""

import json
import random
from itertools import permutations
from types import SimpleNamespace

import pytest

from common.errors import UserError
from data.annotators import krippendorff_alpha, majority, pairwise_agreement, read_labelled
from data.readers import Columns

CODEBOOK = SimpleNamespace(labels=("pro", "anti", "neutral"))

# Krippendorff, Computing Krippendorff's Alpha-Reliability (2011): A binary, B nominal, C nominal with missing labels;
# and the example with three coders of the encyclopaedia article on alpha (nominal .691).
EXAMPLES = [
    (["0 1 0 0 0 0 0 0 1 0", "1 1 1 0 0 1 0 0 0 0"], 0.095),
    (["a a b b d c c c e d d a", "b a b b b c c c e d d d"], 0.692),
    (["1 2 3 3 2 1 4 1 2 . . .", "1 2 3 3 2 2 4 1 2 5 . 3", ". 3 3 3 2 3 4 2 2 5 1 .", "1 2 3 3 2 4 4 1 2 5 1 ."],
     0.743),
    ([". . . . . 3 4 1 2 1 1 3 3 . 3", "1 . 2 1 3 3 4 3 . . . . . . .", ". . 2 1 3 4 4 . 2 1 1 3 3 . 4"], 0.691),
]


def units(rows):
    return [[label for label in unit if label != "."] for unit in zip(*(row.split() for row in rows), strict=True)]


def brute_force_alpha(posts):
    """1 - D_o / D_e with every ordered pair written out."""
    within = [(a, b, 1 / (len(one) - 1)) for one in posts if len(one) > 1 for a, b in permutations(one, 2)]
    pool = [label for one in posts if len(one) > 1 for label in one]
    across = list(permutations(pool, 2))
    if not across or all(a == b for a, b in across):
        return None
    observed = sum(weight for a, b, weight in within if a != b) / len(pool)
    return 1 - observed / (sum(a != b for a, b in across) / len(across))


@pytest.mark.parametrize(("rows", "alpha"), EXAMPLES)
def test_alpha_is_the_published_one(rows, alpha):
    assert round(krippendorff_alpha(units(rows)), 3) == alpha
    assert krippendorff_alpha(units(rows)) == pytest.approx(brute_force_alpha(units(rows)), abs=1e-12)


def test_alpha_and_agreement_against_brute_force():
    rng = random.Random(9)
    for _ in range(300):
        posts = [rng.choices("abc"[: rng.randrange(1, 4)], k=rng.randrange(5)) for _ in range(rng.randrange(8))]
        expected, pairs = brute_force_alpha(posts), [a == b for one in posts for a, b in permutations(one, 2)]
        assert krippendorff_alpha(posts) == (expected if expected is None else pytest.approx(expected, abs=1e-12))
        assert pairwise_agreement(posts) == (pytest.approx(sum(pairs) / len(pairs)) if pairs else None)


def test_alpha_at_its_ends():
    assert krippendorff_alpha([["a", "a"], ["b", "b", "b"]]) == 1.0
    assert krippendorff_alpha([["a", "a"], ["a", "a"]]) is None and krippendorff_alpha([["a"], [], ["b"]]) is None
    assert krippendorff_alpha([["a", "b"], ["a", "b"]]) < 0


def test_majority():
    cases = {"": None, "a": "a", "ab": None, "aab": "a", "aabb": None, "aabbc": None, "aaabbc": "a", "abc": None}
    assert {labels: majority(labels) for labels in cases} == cases


WIDE = """id,text,language,label,label_ana,label_ben,label_cy
1,one,en,,pro,pro,anti
2,two,en,,pro,anti,
3,three,es,,anti,anti,anti
4,four,es,neutral,pro,anti,pro
5,five,es,,,,neutral
"""
LONG = "\n".join(
    [json.dumps({"id": i, "text": text, "language": code, "annotator": name, "label": label})
     for name, position in (("ana", 0), ("ben", 1), ("cy", 2))
     for i, text, code, labels in [(1, "one", "en", "ppa"), (2, "two", "en", "pa."), (3, "three", "es", "aaa"),
                                   (5, "five", "es", "..n")]
     if (label := {"p": "pro", "a": "anti", "n": "neutral", ".": ""}[labels[position]])]
)  # fmt: skip


def test_wide(tmp_path):
    (tmp_path / "p.csv").write_text(WIDE)
    posts, notes, agreement = read_labelled(tmp_path / "p.csv", codebook=CODEBOOK)
    assert [(p.id, p.label) for p in posts] == [("1", "pro"), ("3", "anti"), ("4", "neutral"), ("5", "neutral")]
    assert posts[0].extra == {} and notes.kept == 4 and notes.to_dict()["labels"] == {"anti": 1, "neutral": 2, "pro": 1}
    assert agreement.annotators == ("ana", "ben", "cy") and agreement.settled == 1
    assert [(post.id, votes) for post, votes in agreement.ties] == [("2", {"ana": "pro", "ben": "anti"})]
    assert agreement.pairs == {("ana", "ben"): (2, 4), ("ana", "cy"): (2, 3), ("ben", "cy"): (1, 3)}
    assert agreement.overall["pairwise"] == 0.5 and agreement.by_language["en"]["pairwise"] == 0.25
    assert agreement.by_language["es"] == {
        "posts": 3, "labelled_twice": 2, "pairwise": pytest.approx(4 / 6), "ties": 0,
        "alpha": pytest.approx(brute_force_alpha([["anti"] * 3, ["pro", "anti", "pro"]])),
    }  # fmt: skip
    path = tmp_path / "p.csv"
    assert agreement.lines() == [
        "  3 annotators: ana, ben, cy",
        "       posts  by two or more   alpha  pairwise  ties",
        "  ───  ─────  ──────────────  ──────  ────────  ────",
        "  en       2               2  -0.333     0.250     1",
        "  es       3               2   0.375     0.667     0",
        "  all      5               4   0.000     0.500     1",
        f"  no majority, dropped: {path}: row 3 (ana pro, ben anti)",
        "  posts whose label was settled, which counts instead of a majority: 1",
    ]
    json.dumps(agreement.to_dict())


def test_long_says_the_same_as_wide(tmp_path):
    (tmp_path / "wide.csv").write_text("\n".join(line for line in WIDE.split("\n") if not line.startswith("4")))
    (tmp_path / "long.jsonl").write_text(LONG)
    wide_posts, _, wide = read_labelled(tmp_path / "wide.csv", codebook=CODEBOOK)
    long_posts, notes, long = read_labelled(tmp_path / "long.jsonl", codebook=CODEBOOK)
    facts = lambda posts: [(p.id, p.text, p.label, p.extra) for p in posts]  # noqa: E731
    assert facts(long_posts) == facts(wide_posts)
    assert (long.overall, long.by_language, long.pairs) == (wide.overall, wide.by_language, wide.pairs)
    assert notes.counts["duplicate_id"] == notes.counts["parallel_id"] == 0


def test_a_settled_row_is_the_post_s_label_and_nobody_s_vote(tmp_path):
    """Deliberate break: in data/annotators.py let `_gather_long` count the row of `SETTLED` as a vote."""
    row = {"id": "2", "text": "two", "language": "en", "annotator": "settled"}
    (tmp_path / "long.jsonl").write_text(f"{LONG}\n{json.dumps(row | {'label': 'neutral'})}\n")
    posts, _, agreement = read_labelled(tmp_path / "long.jsonl", codebook=CODEBOOK)
    (tmp_path / "before.jsonl").write_text(LONG)
    before = read_labelled(tmp_path / "before.jsonl", codebook=CODEBOOK)[2]
    assert [post.label for post in posts] == ["pro", "neutral", "anti", "neutral"]
    assert (agreement.annotators, agreement.pairs, agreement.settled) == (before.annotators, before.pairs, 1)
    assert agreement.overall == before.overall | {"ties": 0} and before.overall["ties"] == 1
    (tmp_path / "long.jsonl").write_text("\n".join([LONG, *[json.dumps(row | {"label": "pro"})] * 2]))
    with pytest.raises(UserError, match="'settled' labels id '2' again"):
        read_labelled(tmp_path / "long.jsonl", codebook=CODEBOOK)


def test_one_label_each_has_no_agreement(tmp_path):
    (tmp_path / "p.csv").write_text("text,label\na,pro\n")
    posts, _, agreement = read_labelled(tmp_path / "p.csv")
    assert len(posts) == 1 and agreement is None


@pytest.mark.parametrize(("content", "line"), [
    ("id,text,label_a,label_b\n1,x,pro,prro\n", "p.csv: row 2: label_b 'prro' is not in the codebook, which has pro, "
     "anti, neutral; did you mean 'pro'? (columns label_* are annotators' labels)"),
    ("id,text,label_a,label_b\n1,x,pro,pro\n2,y,,\n", "p.csv: row 3: nobody labelled this post; fill in a label or "
     "leave the row out"),
    ("id,text,label_a,label_b\n1,x,pro,anti\n", "p.csv: none of 1 posts has a majority; settle them in a label column"),
    ("id,text,label,annotator\n1,x,pro,a\n1,x,pro,b\n1,x,pro,a\n", "p.csv: row 4: annotator 'a' labels id '1' again "
     "(first in row 2); leave one of the rows out"),
    ("id,text,label,annotator\n1,x,pro,a\n1,z,pro,b\n", "p.csv: row 3: id '1' has a different text from p.csv: row 2; "
     "an id stands for one post"),
    ("id,text,label,annotator\n1,x,pro,a\n1,x,pro,\n", "p.csv: row 3: has no annotator; every row of a file with "
     "annotators must name one"),
    ("text,label,annotator\nx,pro,a\nx,pro,b\n", "p.csv: row 2: has no id; with several annotators, the id tells which "
     "rows are the same post"),
])  # fmt: skip
def test_errors(tmp_path, content, line):
    (tmp_path / "p.csv").write_text(content)
    with pytest.raises(UserError) as caught:
        read_labelled(tmp_path / "p.csv", codebook=CODEBOOK)
    assert str(caught.value).replace(f"{tmp_path}/", "") == line


def test_ties_can_be_an_error_and_the_column_can_be_named(tmp_path):
    (tmp_path / "p.csv").write_text("id,text,label,coder\n1,x,pro,a\n1,x,anti,b\n2,y,pro,a\n")
    columns = Columns(annotator="coder")
    posts, _, agreement = read_labelled(tmp_path / "p.csv", columns)
    assert [p.id for p in posts] == ["2"] and len(agreement.ties) == 1
