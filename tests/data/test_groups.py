"""What counts together in an interval: posts by one author and copies of a text, and texts first where these chain.

Deliberate break: let `counted_together` return `chains`; or leave the texts out of `texts_first`, and the interval
covers the truth in three of four tables.
"""

import json
from pathlib import Path

import numpy
import pytest

from data.groups import GroupOptions, counted_together, group_posts, texts_first
from data.posts import Post
from report.clusters import rate_interval
from report.words import in_common
from tests.programs.test_eval_program import evaluate, fresh, metrics, place  # noqa: F401


def post(number: int, text: str, author: str) -> Post:
    return Post(str(number), text, "pro", "en", "p.jsonl", number, {"author": author})


def posts_of(pairs) -> list[Post]:
    return [post(number, text, author) for number, (text, author) in enumerate(pairs)]


def test_texts_that_several_authors_share_come_first_where_most_posts_would_be_one_group(capsys):
    own = [(f"own {author} {n}", f"a{author}") for author in range(6) for n in range(3)]
    shared = [("Seen by all http://a.example/1", f"a{author}") for author in range(6)]
    alone = [("twice by one", "b"), ("twice by one", "b"), ("no author", ""), ("no author", ""), ("other", "")]
    posts = posts_of([*own, *shared, *alone])
    assert len(set(group_posts(posts, "author", True))) == 4  # all of a0 to a5, b, both without author, the last
    groups, chained = counted_together(posts, "author")
    assert chained == 24 and groups == texts_first(posts, "author")
    assert [len({groups[k] for k in range(3 * a, 3 * a + 3)}) for a in range(6)] == [1] * 6
    assert len(set(groups[18:24])) == 1 and len(set(groups)) == 10 and groups[24] == groups[25]
    assert groups[26] == groups[27] != groups[28]
    options = GroupOptions(group_by="author")
    assert options.groups_of(posts, Path("p.jsonl")) == groups and options.texts_first
    said = capsys.readouterr().out
    assert said == ("  24 of 29 posts would be one group, since several “author” share texts: in the intervals these "
                    "texts are groups of their own\n")


def test_the_shortest_chain_is_taken_apart_and_what_is_no_chain_stays(capsys):
    posts = posts_of([("x", "a"), ("x", "b"), ("y", "a"), *((f"t{n}", f"c{n}") for n in range(3))])
    options = GroupOptions(group_by="author")
    assert group_posts(posts, "author", True) == [0, 0, 0, 3, 4, 5]
    assert options.groups_of(posts, Path("p.jsonl")) == [0, 0, 2, 3, 4, 5]
    assert options.texts_first and "3 of 6 posts would be one group" in capsys.readouterr().out
    assert counted_together([*posts, *posts_of([(f"own {n}", "d") for n in range(5)])], "author")[1] == 3
    options = GroupOptions(group_by="author")
    assert options.groups_of(posts[1:], Path("p.jsonl")) == list(range(5))
    assert not options.texts_first and capsys.readouterr().out == ""
    one = posts_of([(f"t{n}", "a") for n in range(5)])  # one author: no text is shared, and nothing can be taken apart
    assert counted_together(one, "author") == ([0] * 5, 0) and counted_together(one, None) == ([0, 1, 2, 3, 4], 0)
    assert counted_together([], None) == ([], 0)


def test_posts_without_a_text_are_no_copies_of_each_other():
    posts = posts_of([("", "a"), ("@b http://a.example", "b"), ("", "b"), ("", ""), ("", ""), ("x", "a"), ("x", "b")])
    assert counted_together(posts, "author") == ([0, 1, 1, 3, 4, 5, 5], 7 - 2)


def test_eval_says_what_counts_together(fresh):  # noqa: F811
    lines = [json.loads(line) for line in (fresh / "test.jsonl").read_text().splitlines()]
    for number, line in enumerate(lines):  # each author has a copy of the first text
        line["author"] = f"a{number // 3}"
        line["text"] = lines[0]["text"] if number % 3 == 0 else line["text"]
    (fresh / "test.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = ("--run", "run", "--data", "test.jsonl", "--out", "by", "--group-by", "author")
    said = " ".join(evaluate(fresh, *words).split())
    found = metrics(fresh / "by")["intervals"]
    assert found["texts_first"] and found["grouped_by"] == "author" and found["clusters"] > 15
    assert "posts would be one group, since several “author” share texts" in said
    what = f"{found['clusters']} groups of posts with a text that several “author” share, or else the same “author”"
    assert what in said and what in (fresh / "by" / "report.html").read_text()
    assert in_common("author", False) == "the same text or “author”" and in_common(None, False) == "the same text"


def made(stream, n: int, authors: int, passed_on: float) -> tuple[list[Post], numpy.ndarray]:
    """Posts by authors of very different zeal, of whom some are easy to label, a part of them copies of 299 texts by
    others, the more the more they were copied before; and which of them are right, 70 % of a large population's."""
    zeal, fame = (1 / numpy.arange(1, count + 1) ** power for count, power in ((authors, 0.8), (299, 1.1)))
    author, text = stream.choice(authors, n, p=zeal / zeal.sum()), stream.choice(299, n, p=fame / fame.sum())
    copied = stream.random(n) < passed_on
    easy, clear = stream.beta(2.8, 1.2, authors), stream.random(299) < 0.7  # posts of one author correlate by .2
    right = numpy.where(copied, clear[text], stream.random(n) < easy[author])
    return posts_of((f"copy {text[k]}" if copied[k] else f"own {k}", f"a{author[k]}") for k in range(n)), right


def covers(tables: int, n: int, authors: int, passed_on: float) -> tuple[float, float, float]:
    """How often the interval of accuracy holds the truth, how wide it is, and how wide that of whole chains is."""
    stream, found = numpy.random.default_rng([n, authors]), []
    for _ in range(tables):
        posts, right = made(stream, n, authors, passed_on)
        low, high = rate_interval(right.astype(float), numpy.array(counted_together(posts, "author")[0]))
        whole = rate_interval(right.astype(float), numpy.array(group_posts(posts, "author", True)))
        found.append((low <= 0.7 <= high, high - low, whole[1] - whole[0]))
    return tuple(numpy.mean(found, 0))


def test_the_interval_covers_the_truth_and_is_of_use_where_authors_share_texts():
    covered, width, whole = covers(60, 400, 120, 0.35)
    assert covered > 0.85 and width < 0.25 < 0.5 < whole  # 3.5 standard errors of 60 tables


@pytest.mark.slow
@pytest.mark.parametrize(("n", "authors", "passed_on"), [(400, 120, 0.35), (800, 200, 0.35), (800, 60, 0.35),
                                                         (400, 120, 0.15), (800, 200, 0.6)])
def test_the_interval_covers_the_truth_in_1000_tables(n, authors, passed_on):
    covered, width, _ = covers(1000, n, authors, passed_on)
    assert covered > 0.89 and width < 0.3, (covered, width)
