"""Several models' predictions: figures against `report.metrics` and the paper's, resampling against copied rows.

Deliberate break: draw clusters that span languages separately in each (in `Rows.span`, return zeros) and
test_translations_are_drawn_together turns red.
"""

import json

import numpy
import pytest

from common.errors import UserError
from report.counts import Grouping
from report.metrics import Scored, score
from stats.predictions import Predictions, Rows, figure_of, figures_of, pooled, resampled, strata
from tests.stats.answered import GROUPING, made_answers, made_rows

PAPER = ("pro-immigration", "anti-immigration", "neutral", "unrelated")
MEANS = ("accuracy", "balanced_accuracy", "macro_f1", "weighted_f1")


def published(folder, model):
    """One of the paper's models on its 875 test posts."""
    gold = [json.loads(line) for line in (folder / "test.jsonl").open(encoding="utf-8")]
    path = folder / "published_predictions" / f"{model}.jsonl"
    said = {row["id"]: row["predicted"] for row in map(json.loads, path.open(encoding="utf-8"))}
    rows = Rows(*(numpy.array([row[key] for row in gold], dtype=object) for key in ("id", "language")),
                numpy.array([PAPER.index(row["label"]) for row in gold]), numpy.arange(len(gold)),
                Grouping(PAPER, PAPER[:3]))
    place = dict(zip(PAPER, range(4), strict=True))
    return Predictions(rows, numpy.array([place.get(said[row["id"]], 4) for row in gold]))


@pytest.mark.parametrize("model, topic, recall, end_to_end, given, pooled_accuracy", [
    ("en", 0.772, 0.773, 0.403, 0.522, 0.661),
    ("es", 0.760, 0.546, 0.303, 0.554, 0.672),
    ("en-es", 0.736, 0.529, 0.303, 0.571, 0.721),
    ("multi", 0.828, 0.882, 0.529, 0.600, 0.704),
])
def test_the_papers_figures(shared_data, model, topic, recall, end_to_end, given, pooled_accuracy):
    answers = published(shared_data / "immigration", model)
    ten = [code for code in answers.rows.languages if code not in ("en", "es")]
    assert len(ten) == 10 and int(answers.rows.where(ten).sum()) == 250
    found = [answers.figure(name, ten) for name in ("topic.accuracy", "topic.recall", "stance.end_to_end.accuracy",
                                                    "stance.given_detection.accuracy")]
    assert [round(value, 3) for value in found] == [topic, recall, end_to_end, given]
    assert round(answers.figure("accuracy"), 3) == pooled_accuracy
    assert numpy.isnan(answers.figure("stance.conditional.accuracy"))  # no probabilities were published


def test_figures_equal_those_of_metrics():
    rows = made_rows(200, seed=1)
    answers = made_answers(rows, 2, probabilities=True)
    names = [*GROUPING.labels, None]
    whole = score(Scored(rows.ids.tolist(), [names[g] for g in rows.gold], [names[p] for p in answers.predicted],
                         rows.language.tolist(), GROUPING.labels, answers.probabilities, GROUPING.related), draws=2)
    for code, cell in (None, whole), *whole["by_language"].items():
        languages = None if code is None else [code]
        for prefix, part in (("", cell), ("topic.", cell["topic"]), ("topic_by_sum.", cell["topic"]["by_sum"]),
                             *((f"stance.{way}.", part) for way, part in cell["stance"].items() if part)):
            kinds = [kind for kind in (*MEANS, "recall", "specificity") if kind in part]
            assert len(kinds) >= 2, prefix
            for kind in kinds:
                if not (prefix == "" and kind in ("recall", "specificity")):
                    ours = answers.figure(prefix + kind, languages)
                    assert ours == pytest.approx(part[kind], abs=1e-14), prefix + kind


def test_languages_count_alike_and_one_without_the_figure_is_left_out_for_both():
    rows = made_rows(91, seed=3, languages=("de", "en", "en", "tr"))
    first, second = made_answers(rows, 4), made_answers(rows, 5)
    each = [first.figure("macro_f1", [code]) for code in rows.languages]
    assert first.figure("macro_f1", weight="languages") == pytest.approx(sum(each) / 3, abs=1e-15)
    blind = Predictions(rows, numpy.where(rows.language == "tr", 3, second.predicted))  # detects nothing in Turkish
    name = "stance.given_detection.accuracy"
    assert numpy.isnan(blind.figure(name, ["tr"])) and not numpy.isnan(first.figure(name, ["tr"]))
    both = figures_of([first, blind], name, None, "languages")
    assert both == pytest.approx([numpy.mean([model.figure(name, [code]) for code in ("de", "en")])
                                  for model in (first, blind)])
    assert numpy.isnan(figures_of([first, blind], name, ["tr"], "languages")).all()


def test_draws_keep_languages_pairs_and_streams(monkeypatch):
    rows = made_rows(90, seed=6)
    first, second = made_answers(rows, 7), made_answers(rows, 8, probabilities=True)
    drawn = list(resampled([first, second, first], rows.languages, 50, seed=1))
    assert len(drawn) == 1
    for code, counts in drawn[0].items():
        assert counts.shape == (50, 3, GROUPING.width)
        assert (counts[:, :, :20].sum(-1) == 30).all(), code  # as many posts of each language as there are
        assert numpy.array_equal(counts[:, 0], counts[:, 2])  # the same posts for all models
        gold = counts[..., :20].reshape(50, 3, 4, 5).sum(-1)
        assert numpy.array_equal(gold[:, 0], gold[:, 1]) and len(numpy.unique(gold[:, 0], axis=0)) > 10
    alone = next(resampled([first, second, first], ["en"], 50, seed=1))
    assert numpy.array_equal(alone["en"], drawn[0]["en"])
    monkeypatch.setattr("stats.predictions.CHUNK_BYTES", 60_000)
    pieces = list(resampled([first, second, first], rows.languages, 50, seed=1))
    assert len(pieces) > 1
    for code in rows.languages:
        assert numpy.array_equal(numpy.concatenate([piece[code] for piece in pieces]), drawn[0][code])


def test_clusters_are_drawn_whole_within_a_language():
    rows = made_rows(40, seed=9, languages=("en",), clusters=numpy.arange(40) // 4)
    answers = made_answers(rows, 10)
    [(codes, matrix, times)] = strata([answers], ["en"])
    assert codes == ["en"] and times.sum() == 10 and (matrix.sum((1, 2, 3)) == 4).all()
    assert (times @ matrix[:, 0, 0]).tolist() == answers.counts().tolist()


def test_translations_are_drawn_together():
    # 60 posts in three languages, labelled alike in each: drawn together, the languages' counts are equal in each draw.
    gold = numpy.random.default_rng(11).choice(4, 60)
    rows = Rows(numpy.arange(180).astype(str).astype(object), numpy.repeat(["de", "en", "tr"], 60).astype(object),
                numpy.tile(gold, 3), numpy.tile(numpy.arange(60), 3), GROUPING)
    answers = Predictions(rows, numpy.tile(numpy.where(numpy.arange(60) % 3, gold, 0), 3))
    drawn = next(resampled([answers], rows.languages, 400, seed=2))
    assert numpy.array_equal(drawn["de"], drawn["en"]) and numpy.array_equal(drawn["de"], drawn["tr"])
    spread = pooled(drawn, "accuracy", GROUPING, "rows").std()
    alone = pooled({"de": drawn["de"]}, "accuracy", GROUPING, "rows").std()
    assert spread == pytest.approx(alone)  # three times the rows, no more evidence
    # Only the languages that are asked for count, and clusters of one language keep their own stratum.
    clusters = numpy.where(rows.language == "tr", numpy.arange(180), rows.clusters)
    mixed = Rows(rows.ids, rows.language, rows.gold, clusters, GROUPING)
    models = [Predictions(mixed, answers.predicted)]
    assert [codes for codes, _, _ in strata(models, ["en", "tr"])] == [["en"], ["tr"]]
    assert [codes for codes, _, _ in strata(models, ["de", "en", "tr"])] == [["tr"], ["de", "en", "tr"]]
    assert int(mixed.span(["de", "en", "tr"]).sum()) == 120


def test_small_cells_are_known():
    rows = made_rows(400, seed=12, languages=("en",), prior=(0.3, 0.3, 0.3, 0.1))
    everything = numpy.ones(400, dtype=bool)
    assert rows.is_small(everything) is False
    assert rows.is_small(numpy.arange(400) < 29) is True  # rows
    few = everything & ((rows.gold != 3) | (numpy.cumsum(rows.gold == 3) < 10))
    assert few.sum() > 300 and rows.is_small(few) is True  # a label with nine rows
    for size, small in ((2, False), (50, True)):  # 400 rows by 8 authors
        pairs = Rows(rows.ids, rows.language, rows.gold, numpy.arange(400) // size, rows.grouping)
        assert pairs.is_small(everything) is small
    giant = numpy.where(numpy.arange(400) < 300, 0, numpy.arange(400))  # a hundred authors, of whom one wrote most
    assert Rows(rows.ids, rows.language, rows.gold, giant, rows.grouping).is_small(everything) is True


@pytest.mark.parametrize("name, says", [
    ("f1", "there is no 'f1'"), ("recall", "there is no 'recall'"), ("topic.f1", "there is no 'f1'"),
    ("mood.accuracy", "no question 'mood'"), ("end_to_end.accuracy", "no question 'end_to_end'"),
    ("stance.topic.accuracy", "no question 'stance.topic'"), ("stance.end_to_end.recall", "there is no 'recall'"),
])
def test_figures_that_do_not_exist_are_named(name, says):
    with pytest.raises(UserError, match=says):
        figure_of(name, numpy.zeros(GROUPING.width), GROUPING)


def test_a_codebook_without_a_topic_has_no_topic_figures():
    grouping = Grouping(("a", "b"))
    assert figure_of("accuracy", numpy.array([3.0, 1, 0, 0, 4, 0]), grouping) == 7 / 8
    with pytest.raises(UserError, match=r"no question 'topic'; it has none but the labels"):
        figure_of("topic.recall", numpy.zeros(grouping.width), grouping)


def test_other_rows_languages_and_weights_are_refused():
    rows = made_rows(30)
    answers = made_answers(rows, 1)
    with pytest.raises(UserError, match="different tables"):
        next(resampled([answers, made_answers(made_rows(30), 1)], ["en"], 5, 0))
    with pytest.raises(UserError, match="language 'xx': no row has it; there are de, en, tr"):
        next(resampled([answers], ["en", "xx"], 5, 0))
    with pytest.raises(UserError, match="weight 'posts': is not one of rows, languages"):
        answers.figure("accuracy", weight="posts")
