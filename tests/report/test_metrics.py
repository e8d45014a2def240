"""Every figure of metrics.json against a plain loop over rows that follows the definitions to the letter.

Deliberate break: let `counts.figures` average F1 over all declared labels (`numpy.nan_to_num(f1).mean(-1)`)
and test_figures_of_rare_classes_equal_a_loop_over_rows turns red.
"""

import json
import math
import random
import re

import numpy
import pytest

from common.errors import UserError
from report.calibration import calibration_error
from report.metrics import OUTSIDE, Scored, dropped_section, score
from report.words import findings

LABELS = ("pro", "anti", "neutral", "unrelated")
RELATED = LABELS[:3]


def made(rows=400, seed=0, labels=LABELS, related=RELATED, languages=("en", "es", "de"), probabilities=True, **more):
    """Random rows, about half of them right, with a few predictions outside the label set."""
    rng = random.Random(seed)
    gold = [rng.choice(labels) for _ in range(rows)]
    predicted = [g if rng.random() < 0.5 else rng.choice([*labels, "maybe", None]) for g in gold]
    drawn = numpy.random.default_rng(seed).dirichlet([0.5] * len(labels), rows) if probabilities else None
    return Scored([str(i) for i in range(rows)], gold, predicted, [rng.choice(languages) for _ in range(rows)], labels,
                  drawn, related, **more)


def loop(pairs, classes):
    """Accuracy, balanced accuracy, macro-F1 and weighted F1 of (gold, predicted) pairs, counted one pair at a time."""
    result = {"accuracy": sum(g == p for g, p in pairs) / len(pairs)}
    recalls, f1s, weighted = [], [], 0.0
    for name in classes:
        tp = sum(g == name and p == name for g, p in pairs)
        gold, predicted = sum(g == name for g, _ in pairs), sum(p == name for _, p in pairs)
        if gold:
            recalls.append(tp / gold)
        if gold or predicted:
            precision, recall = tp / predicted if predicted else 0.0, tp / gold if gold else 0.0
            f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
            f1s.append(f1)
            weighted += f1 * gold / len(pairs)
    return result | {"balanced_accuracy": sum(recalls) / len(recalls), "macro_f1": sum(f1s) / len(f1s),
                     "weighted_f1": weighted}


def check(cell, scored, rows):
    pairs = [(scored.gold[i], scored.predicted[i]) for i in rows]
    assert cell["n"] == len(rows)
    for name, value in loop(pairs, LABELS).items():
        assert cell[name] == pytest.approx(value, abs=1e-12), name  # the same rational numbers, other order of sums
    side = {**dict.fromkeys(RELATED, "related"), "unrelated": "unrelated"}
    topic = [(side[g], side.get(p)) for g, p in pairs]
    for name, value in loop(topic, ("related", "unrelated")).items():
        if name != "weighted_f1":
            assert cell["topic"][name] == pytest.approx(value, abs=1e-12), name
    by_sum = [(side[scored.gold[i]], "related" if scored.probabilities[i, :3].sum() >= scored.probabilities[i, 3]
               else "unrelated") for i in rows]
    for name, value in loop(by_sum, ("related", "unrelated")).items():
        if name != "weighted_f1":
            assert cell["topic"]["by_sum"][name] == pytest.approx(value, abs=1e-12), name
    for name, k in (("recall", "related"), ("specificity", "unrelated")):
        for found, figures in ((topic, cell["topic"]), (by_sum, cell["topic"]["by_sum"])):
            of_side = [p == k for g, p in found if g == k]
            assert figures[name] == pytest.approx(sum(of_side) / len(of_side), abs=1e-12)
    related = [i for i in rows if scored.gold[i] in RELATED]
    end_to_end = [(scored.gold[i], scored.predicted[i]) for i in related]
    detected = [pair for pair in end_to_end if pair[1] in RELATED]
    conditional = [(scored.gold[i], RELATED[int(scored.probabilities[i, :3].argmax())]) for i in related]
    for view, of_view in (("end_to_end", end_to_end), ("given_detection", detected), ("conditional", conditional)):
        assert cell["stance"][view]["n"] == len(of_view)
        for name, value in loop(of_view, RELATED).items():
            if name in ("accuracy", "macro_f1"):
                assert cell["stance"][view][name] == pytest.approx(value, abs=1e-12), (view, name)
    for i, gold in enumerate(LABELS):
        for k, predicted in enumerate(LABELS):
            assert cell["confusion"]["counts"][i][k] == sum(pair == (gold, predicted) for pair in pairs)
        assert cell["confusion"]["counts"][i][-1] == sum(g == gold and p not in LABELS for g, p in pairs)


def test_figures_equal_a_loop_over_rows():
    parts = ["a", "b"] * 200
    scored = made(extra={"part": parts})
    metrics = score(scored, seen_languages=("en",), by=("part",), draws=50)
    everything = range(len(scored.ids))
    check(metrics, scored, everything)
    for name, cell in metrics["by_language"].items():
        check(cell, scored, [i for i in everything if scored.languages[i] == name])
    check(metrics["seen"], scored, [i for i in everything if scored.languages[i] == "en"])
    check(metrics["unseen"], scored, [i for i in everything if scored.languages[i] != "en"])
    for name, cell in metrics["by"]["part"].items():
        check(cell, scored, [i for i in everything if parts[i] == name])
    assert metrics["confusion"]["columns"] == [*LABELS, OUTSIDE]
    assert metrics["seen"]["languages"] == ["en"] and metrics["unseen"]["languages"] == ["de", "es"]
    means = [metrics["by_language"][x]["macro_f1"] for x in ("de", "es")]
    assert metrics["unseen"]["mean_over_languages"]["macro_f1"] == pytest.approx(sum(means) / 2)


def test_figures_of_rare_classes_equal_a_loop_over_rows():
    # One label never occurs, one is predicted and never right, one is never predicted.
    gold = ["pro"] * 6 + ["unrelated"] * 5 + ["neutral"] * 2
    predicted = ["pro"] * 4 + ["unrelated", "anti"] + ["unrelated"] * 3 + ["pro", "maybe"] + ["pro", "unrelated"]
    labels = (*LABELS, "never")
    scored = Scored([str(i) for i in range(13)], gold, predicted, ["en"] * 13, labels, None, RELATED)
    metrics = score(scored, draws=50)
    for name, value in loop(list(zip(gold, predicted, strict=True)), labels).items():
        assert metrics[name] == pytest.approx(value, abs=1e-12), name
    assert metrics["left_out"] == ["never"]
    assert metrics["labels"]["never"]["f1"] is None and metrics["labels"]["anti"]["f1"] == 0.0
    assert metrics["labels"]["anti"]["recall"] is None and metrics["labels"]["neutral"]["precision"] is None
    assert metrics["labels"]["pro"]["support"] == 6 and metrics["labels"]["pro"]["predicted"] == 6


def nulls_without_a_word(value, where="metrics"):
    """The paths of nulls whose dict has no entry for them in `notes`."""
    if isinstance(value, dict):
        for key, item in value.items():
            if item is None and key not in value.get("notes", {}):
                yield f"{where}.{key}"
            yield from nulls_without_a_word(item, f"{where}.{key}")


@pytest.mark.parametrize(
    "case", ["plain", "no probabilities", "no topic", "two labels", "one row", "no rows", "one side"]
)
def test_every_null_has_a_word_and_every_figure_an_interval(case):
    scored = {
        "plain": lambda: made(),
        "no probabilities": lambda: made(probabilities=False),
        "no topic": lambda: made(related=()),
        "two labels": lambda: made(labels=("yes", "no"), related=("yes",)),
        "one row": lambda: made(rows=1),
        "no rows": lambda: made(rows=0, probabilities=False),
        "one side": lambda: Scored(["a", "b"], ["pro", "anti"], ["pro", "pro"], ["en", "en"], LABELS, None, RELATED),
    }[case]()
    for seen in (None, (), ("en",), ("en", "es", "de")):
        metrics = score(scored, seen_languages=seen, draws=50)
        json.dumps(metrics, allow_nan=False)
        assert list(nulls_without_a_word(metrics)) == []
        cells = [metrics, *metrics["by_language"].values()]
        for cell in cells + [c["topic"] for c in cells if c["topic"]]:
            for name in ("accuracy", "balanced_accuracy", "macro_f1"):
                interval = cell[f"{name}_ci"]
                if interval is not None:
                    assert 0 <= interval[0] <= cell[name] <= interval[1] <= 1
    assert (metrics["topic"] is None) == (case == "no topic")
    assert (metrics["stance"] is None) == (case in ("no topic", "two labels"))


def test_small_classes_have_no_interval_and_say_so():
    gold = ["pro"] * 9 + ["anti"] * 10 + ["unrelated"] * 30
    scored = Scored([str(i) for i in range(49)], gold, gold[::-1], ["en"] * 49, LABELS, None, RELATED)
    metrics = score(scored, draws=50)
    assert metrics["labels"]["pro"]["f1_ci"] is None and "9 rows" in metrics["labels"]["pro"]["notes"]["f1_ci"]
    assert metrics["labels"]["anti"]["f1_ci"] is not None
    assert metrics["macro_f1_ci"] is None and metrics["notes"]["macro_f1_ci"].startswith("'pro' has 9 rows")
    assert metrics["weighted_f1_ci"] is not None and metrics["accuracy_ci"] is not None
    assert metrics["topic"]["macro_f1_ci"] is not None  # 19 related, 30 unrelated


def test_seen_and_unseen_are_null_where_training_is_unknown():
    metrics = score(made(), draws=10)
    assert metrics["seen"] is None and metrics["unseen"] is None and "not known" in metrics["notes"]["seen"]
    nothing_seen = score(made(), seen_languages=(), draws=10)
    assert nothing_seen["seen"]["n"] == 0 and nothing_seen["unseen"]["n"] == nothing_seen["n"]


def test_stance_groups_sum_probabilities():
    # Two labels make one stance: neither is the most probable, together they are.
    labels, stance = ("pro strong", "pro weak", "anti", "off"), {"pro": ("pro strong", "pro weak"), "anti": ("anti",)}
    scored = Scored(["a"], ["pro weak"], ["anti"], ["en"], labels, numpy.array([[0.3, 0.25, 0.4, 0.05]]), labels[:3],
                    stance=stance)
    metrics = score(scored, draws=10)
    assert metrics["stance"]["conditional"]["accuracy"] == 1.0 and metrics["stance"]["end_to_end"]["accuracy"] == 0.0


def test_calibration_by_hand():
    scored = made(rows=300)
    p, truth = scored.probabilities, numpy.array([LABELS.index(g) for g in scored.gold])
    metrics = score(scored, draws=10)
    found = metrics["calibration"]
    assert found["log_loss"] == pytest.approx(-sum(math.log(max(p[i, t], 1e-12)) for i, t in enumerate(truth)) / 300)
    by_hand = sum((p[i, c] - (c == t)) ** 2 for i, t in enumerate(truth) for c in range(4)) / 300
    assert found["brier"] == pytest.approx(by_hand)
    assert sum(b["n"] for b in found["bins"]) == 300
    assert found["ece"] == calibration_error(p.max(1), p.argmax(1) == truth)
    assert metrics["by_language"]["de"]["calibration"]["brier_ci"] is not None


def test_neither_order_nor_company_changes_a_number():
    scored = made(clusters=[i // 3 for i in range(400)])
    metrics = score(scored, seen_languages=("en",), draws=200, seed=7)
    order = random.Random(1).sample(range(400), 400)
    take = lambda column, rows: [column[i] for i in rows]  # noqa: E731

    def part(rows):
        return Scored(take(scored.ids, rows), take(scored.gold, rows), take(scored.predicted, rows),
                      take(scored.languages, rows), LABELS, scored.probabilities[rows], RELATED,
                      clusters=take(scored.clusters, rows))

    again = score(part(order), seen_languages=("en",), draws=200, seed=7)
    for sums in (metrics, *metrics["by_language"].values(), metrics["seen"], metrics["unseen"]):
        sums.pop("calibration")  # sums of floats: equal to rounding only
    for sums in (again, *again["by_language"].values(), again["seen"], again["unseen"]):
        sums.pop("calibration")
    assert again == metrics
    alone = score(part([i for i in range(400) if scored.languages[i] == "de"]), draws=200, seed=7)
    assert alone["macro_f1_ci"] == metrics["by_language"]["de"]["macro_f1_ci"]
    assert score(scored, draws=200, seed=8)["macro_f1_ci"] != metrics["macro_f1_ci"]


def test_dropped_section_keeps_both_figures():
    all_rows = score(made(), draws=10)
    section = dropped_section({"same text in training": 28, "empty text": 1}, all_rows)
    kept = score(made(rows=371), draws=10, dropped=section)
    assert kept["dropped"]["rows"] == 29 and kept["dropped"]["all_rows"]["n"] == 400
    assert kept["dropped"]["all_rows"]["accuracy"] == all_rows["accuracy"] and kept["n"] == 371


@pytest.mark.parametrize("change, words", [
    ({"gold": ["pro", "con"]}, "row b: label 'con' is not one of pro, anti, neutral, unrelated"),
    ({"languages": ["en"]}, "languages: 1 values for 2 rows"),
    ({"probabilities": [[1, 0, 0]] * 2}, "(2, 4) fit"),
    ({"probabilities": [[1, 0, 0, 0], [0.5, 0.5, 0.5, 0]]}, "row b: probabilities"),
    ({"probabilities": [[1, 0, 0, 0], [math.nan] * 4]}, "row b: probabilities"),
    ({"labels": ("pro", "pro")}, "each must be there once"),
    ({"related": ("other",)}, "must be among them"),
])
def test_what_does_not_fit_is_told_in_one_line(change, words):
    good = {"ids": ["a", "b"], "gold": ["pro", "anti"], "predicted": ["pro", "pro"], "languages": ["en", "en"],
            "labels": LABELS, "related": RELATED}
    Scored(**good)
    with pytest.raises(UserError) as error:
        Scored(**good | change)
    assert words in str(error.value)


def test_by_needs_a_column_of_groups():
    with pytest.raises(UserError, match="--by author: the data have no such column; there are: source"):
        score(made(extra={"source": ["x"] * 400}), by=("author",), draws=10)
    with pytest.raises(UserError, match="--by id: 400 different values"):
        score(made(extra={"id": [str(i) for i in range(400)]}), by=("id",), draws=10)


def test_rows_that_belong_together_count_for_less_in_every_rate():
    """Each row twice: every interval is that of half as many rows, up to the t quantile of so many groups."""
    rng = numpy.random.default_rng(4)
    rows = 300
    gold, other = (rng.choice(LABELS, rows).tolist() for _ in range(2))
    predicted = [label if rng.random() < 0.6 else wrong for label, wrong in zip(gold, other, strict=True)]
    language = [("en", "es")[row % 2] for row in range(rows)]
    single = Scored([str(row) for row in range(rows)], gold, predicted, language, LABELS, None, RELATED)
    twice = Scored([str(row) for row in range(2 * rows)], gold * 2, predicted * 2, language * 2, LABELS, None, RELATED,
                   clusters=[*range(rows)] * 2)
    one, two = (score(scored, ("en",), draws=50) for scored in (single, twice))
    assert "n_effective" not in one and two["n"] == 600 and two["n_effective"] == pytest.approx(300, rel=0.03)
    for path in (("accuracy_ci",), ("topic", "recall_ci"), ("stance", "end_to_end", "accuracy_ci"),
                 ("labels", "pro", "precision_ci")):
        first, second = one, two
        for key in path:
            first, second = first[key], second[key]
        assert second == pytest.approx(first, abs=0.004), path
    gap = [re.search(r"topic .*? points \((.*?)\)", " ".join(findings(found)))[1] for found in (one, two)]
    low, high = ([float(part.replace("−", "-")) for part in words.split(" to ")] for words in gap)
    assert low == pytest.approx(high, abs=0.4)


def test_a_label_of_one_author_has_the_worth_of_one():
    """Fifty posts of a label by one author, all right, say little of its recall, whatever the others are worth."""
    gold, clusters = ["pro"] * 50 + ["anti"] * 200, [0] * 50 + list(range(1, 201))
    predicted = ["pro"] * 50 + ["anti", "pro"] * 100
    found = score(Scored([str(n) for n in range(250)], gold, predicted, ["en"] * 250, LABELS, None, RELATED,
                         clusters=clusters), draws=50)
    own, other = found["labels"]["pro"], found["labels"]["anti"]
    assert own["recall"] == 1 and own["recall_ci"][0] < 0.25 and own["f1_ci"] is None
    assert "groups of posts" in own["notes"]["f1_ci"] and other["f1_ci"] is not None
    assert other["recall_ci"][0] > 0.42 and found["macro_f1_ci"] is None
    assert "'pro' has rows worth 1 equal group, fewer than 10" in found["notes"]["macro_f1_ci"]


def test_authors_who_write_in_several_languages_are_drawn_whole():
    """Fifty authors of twenty posts in ten languages: F1 of all posts is as unsure as where each writes in one."""
    rng = numpy.random.default_rng(0)
    author = numpy.repeat(numpy.arange(50), 20)
    skill = rng.uniform(0.3, 0.9, 50)[author]
    gold = rng.integers(0, 3, 1000)
    said = numpy.where(rng.random(1000) < skill, gold, (gold + 1) % 3)
    widths = []
    for language in (numpy.tile(numpy.arange(20), 50) % 10, author % 10, numpy.zeros(1000, dtype=int)):
        scored = Scored([str(n) for n in range(1000)], ["abc"[k] for k in gold], ["abc"[k] for k in said],
                        [f"l{k}" for k in language], ("a", "b", "c"), clusters=author.tolist())
        low, high = score(scored, draws=400)["macro_f1_ci"]
        widths.append(high - low)
    spanning, within, alone = widths
    assert spanning == pytest.approx(alone, rel=0.1) and spanning == pytest.approx(within, rel=0.2)  # 400 draws
