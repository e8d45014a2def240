"""Budgets are nested and keep the labels' proportions; epochs are drawn from one generator; weights have mean one.

Deliberate break that turns this red: in `stratified_order` of data/sampling.py take the label that is owed the most
(`max` of size * k - taken * n) instead of the one due first; some beginning then misses its share by more than the
bound.
"""

import json
import random
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from common.errors import UserError
from data.posts import Post
from data.sampling import (
    choose_posts,
    class_weights,
    epoch_order,
    only_posts,
    order_by_epoch,
    stratified_order,
)


def make(count, shares=(9, 5, 2, 1), codes=(("en", 5), ("es", 3), ("tr", 2)), seed=0):
    rng = random.Random(seed)
    names, weights = zip(*codes, strict=True)
    return [Post(f"i{i}", f"text {i}", rng.choices("abcd"[: len(shares)], shares)[0], rng.choices(names, weights)[0],
                 "p.csv", i, {}) for i in range(count)]  # fmt: skip


@pytest.mark.parametrize("counts", [
    (9,), (1,), (8, 8), (97, 3), (90, 50, 20, 10), (50, 1, 1, 1), (7, 7, 7, 6),
    (40, 3, 40, 3, 1, 3, 1), (5, 1, 21, 21, 1, 1, 21, 3),  # the label that is owed most would be off by 1.2 rows here
])  # fmt: skip
def test_every_beginning_has_the_labels_in_proportion(counts):
    labels = [label for label, count in zip("abcdefgh", counts, strict=False) for _ in range(count)]
    posts = [Post(f"i{i}", f"text {i}", label, "en", "p.csv", i, {}) for i, label in enumerate(labels)]
    order, sizes, taken = stratified_order(posts, 3), Counter(labels), Counter()
    assert sorted(order) == list(range(len(posts)))
    bound = 1 - 1 / (2 * len(sizes) - 2) if len(sizes) > 1 else 0
    for k, place in enumerate(order, 1):
        taken[posts[place].label] += 1
        assert all(abs(taken[label] - k * size / len(posts)) <= bound + 1e-9 for label, size in sizes.items())


def test_budgets_are_nested_and_independent_of_row_order():
    posts = make(900)
    sets = {}
    for budget in (10, 25, 75):
        chosen = choose_posts(posts, languages=("en",), per_language={"tr": budget}, seed=4)
        assert [p for p in posts if p in chosen] == chosen  # input order
        assert Counter(p.language for p in chosen) == {"en": sum(p.language == "en" for p in posts), "tr": budget}
        sets[budget] = {p.id for p in chosen if p.language == "tr"}
    assert sets[10] < sets[25] < sets[75]
    shuffled = random.Random(1).sample(posts, 900)
    again = choose_posts(shuffled, languages=("en",), per_language={"tr": 25}, seed=4)
    assert {p.id for p in again if p.language == "tr"} == sets[25]
    other = {p.id for p in choose_posts(posts, languages=(), per_language={"tr": 25}, seed=5)}
    assert len(other) == 25 and len(other & sets[25]) < 15


def test_which_languages_are_chosen():
    posts = make(300)
    there = Counter(p.language for p in posts)
    assert choose_posts(posts) == posts
    counted = lambda **options: dict(Counter(p.language for p in choose_posts(posts, **options)))  # noqa: E731
    assert counted(languages=("en", "es")) == {"en": there["en"], "es": there["es"]}
    assert counted(per_language={"tr": 9}) == {"en": there["en"], "es": there["es"], "tr": 9}
    assert counted(languages=("en",), per_language={"en": 8, "tr": 9}) == {"en": 8, "tr": 9}
    assert counted(languages=("en-GB",), per_language={"Turkish": 9}) == {"en": there["en"], "tr": 9}
    assert counted(languages=("tr",), per_language={"tr": there["tr"]}) == {"tr": there["tr"]}


def test_errors_say_how_many_there_are():
    posts = make(10, codes=(("en", 1),))
    for call, line in [
        (lambda: choose_posts(posts, languages=("en", "ko")), "--languages ko: there is no post in Korean; the files "
         "have en 10"),
        (lambda: choose_posts(posts, per_language={"ko": 5}), "--per-language ko: there is no post in Korean; the "
         "files have en 10"),
        (lambda: choose_posts(posts, per_language={"en": 11}), "--per-language en=11: there are only 10 posts in "
         "English; ask for 10 or fewer"),
        (lambda: choose_posts(posts, per_language={"en": 0}), "--per-language en=0: is not a number of posts; write "
         "1 or more"),
        (lambda: choose_posts(posts, languages=("qq",)), "--languages: 'qq' is not a language; use an ISO 639-1 code "
         "such as en or tr"),
        (lambda: epoch_order(posts, np.random.default_rng(0), "size"), "--balance size: is not one of none, language, "
         "label, both"),
        (lambda: order_by_epoch(posts, 0, "size"), "--balance size: is not one of none, language, label, both"),
        (lambda: class_weights(posts, ["x"]), "--class-weights: no post has one of the codebook's labels"),
        (lambda: choose_posts(posts, languages=("en", "English")), "--languages: names en (English) twice; "
         "name each language once"),
        (lambda: choose_posts(posts, per_language={"en": 1, "English": 2}), "--per-language: names en (English) twice; "
         "name each language once"),
    ]:  # fmt: skip
        with pytest.raises(UserError) as caught:
            call()
        assert str(caught.value) == line


def test_a_language_without_a_code_of_two_letters_can_be_chosen_as_the_file_has_it():
    posts = make(60, codes=(("en", 1), ("ceb", 1)))
    assert {post.language for post in choose_posts(posts, languages=("ceb",))} == {"ceb"}
    assert len(choose_posts(posts, languages=("en",), per_language={"ceb": 3})) == 3 + sum(
        post.language == "en" for post in posts)


def test_an_epoch_without_balance_is_a_permutation():
    posts = make(100)
    order = epoch_order(posts, np.random.default_rng(1))
    assert sorted(order.tolist()) == list(range(100)) and order.tolist() != list(range(100))


@pytest.mark.parametrize(("balance", "key"), [
    ("language", lambda p: p.language), ("label", lambda p: p.label), ("both", lambda p: (p.language, p.label)),
])  # fmt: skip
def test_a_balanced_epoch_is_as_even_as_whole_rows_can_be(balance, key):
    posts = make(251)
    cells = Counter(key(p) for p in posts)
    generator, extra = np.random.default_rng(2), Counter()
    for _ in range(30):
        order = epoch_order(posts, generator, balance)
        assert order.dtype == np.int64 and order.shape == (251,)
        drawn, times = Counter(key(posts[i]) for i in order), Counter(order.tolist())
        share = 251 // len(cells)
        assert set(drawn) == set(cells) and set(drawn.values()) <= {share, share + 1}
        for cell, size in cells.items():  # inside a cell no row comes twice before each came once
            own = [times[i] for i, p in enumerate(posts) if key(p) == cell]
            assert min(own) >= drawn[cell] // size and max(own) <= -(-drawn[cell] // size)
        extra.update(cell for cell, count in drawn.items() if count > share)
    assert len(extra) > 1 or 251 % len(cells) == 0  # the rows that are over go to other cells each time


@pytest.mark.parametrize("sizes", [{"a": 20, "b": 20, "c": 20}, {"a": 40, "b": 15, "c": 6}])
def test_a_balanced_epoch_comes_in_rounds_of_all_cells(sizes):
    """Deliberate break: return a permutation of the drawn rows."""
    posts = [Post(f"{label}{i}", f"{label} {i}", label, "en", "p.csv", i, {})
             for label, size in sizes.items() for i in range(size)]  # fmt: skip
    orders = [epoch_order(posts, np.random.default_rng(seed), "label") for seed in range(5)]
    for order in orders:
        labels = [posts[place].label for place in order]
        assert all(sorted(labels[i : i + 3]) == ["a", "b", "c"] for i in range(0, len(posts) // 3 * 3, 3))
        assert len(set(labels[len(posts) // 3 * 3 :])) == len(posts) % 3
        assert len({tuple(labels[i : i + 3]) for i in range(0, 60, 3)}) > 3  # within a round, any order
    assert len({order[0] for order in orders}) > 2


@pytest.mark.parametrize("balance", ["none", "language", "label", "both"])
def test_orders_come_again_from_a_saved_generator_or_an_epoch_number(balance):
    posts = make(80)
    generator = np.random.default_rng(7)
    epoch_order(posts, generator, balance)
    saved = json.dumps(generator.bit_generator.state)
    expected = [epoch_order(posts, generator, balance).tolist() for _ in range(3)]
    resumed = np.random.default_rng()
    resumed.bit_generator.state = json.loads(saved)
    assert [epoch_order(posts, resumed, balance).tolist() for _ in range(3)] == expected
    order = order_by_epoch(posts, 7, balance)
    late = order(2)
    assert late == order_by_epoch(posts, 7, balance)(2) != order_by_epoch(posts, 8, balance)(2) and late != order(1)
    assert all(type(place) is int for place in late)


def test_class_weights():
    posts = [SimpleNamespace(label=label) for label in "aaaaaabbc"]
    weights = class_weights(posts, ["c", "b", "a", "never"])
    assert weights.tolist() == [3.0, 1.5, 0.5, 0.0]
    by_label = dict(zip("cba", weights, strict=False))
    assert np.mean([by_label[p.label] for p in posts]) == 1.0


def test_only_the_posts_that_a_file_names(tmp_path):
    posts = [Post(f"i{i}", f"text {i}", "a", "en" if i % 2 else "de", "p.csv", i, {}) for i in range(6)]
    names = tmp_path / "rows.tsv"
    names.write_text("de\ti4\nen\ti1\n", encoding="utf-8")
    assert [post.id for post in only_posts(posts, names)] == ["i1", "i4"]  # in the posts' order
    for text, words in (("de\ti1\n", "line 1: there is no post 'i1' in German"),
                        ("en i1\n", "line 1: is not a language"), ("", "names no post")):
        names.write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match=words):
            only_posts(posts, names)
    with pytest.raises(UserError, match="cannot be read"):
        only_posts(posts, tmp_path / "none.tsv")
