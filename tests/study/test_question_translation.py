"""Own text against machine translation: which posts count, what the differences are, what is said with little data.

Deliberate break: in study/questions/translation.py let `translated` keep the posts without a translation (return
`~same`), or subtract the sides the other way round; both turn red.
"""

import json

import numpy as np
import pytest

from common.errors import UserError
from study.fits import Asked
from study.questions.translation import translation
from study.report.figures import figure_of
from study.report.section import Study
from tests.small import write_jsonl
from tests.study.fake_study import FakeRunner, fake_results, first_posts, table

PLAN = """
[data]
test = ["{file}"]
{more}
[sets]
multi = {{ en = 20, es = 20, "*" = 20 }}
en = {{ en = 20 }}
[variants]
{sets}
[statistics]
draws = 200
p_error = 0.05
"""


def translated_posts(*codes: str) -> list[dict]:
    """The sample posts; those in `codes` with a translation, the first of each language without, the second its own
    text."""
    rows, seen = [json.loads(line) for line in first_posts("test")], {}
    for row in rows:
        place = seen[row["language"]] = seen.get(row["language"], -1) + 1
        row["translation_en"] = "" if row["language"] not in codes or place == 0 else row["text"] if place == 1 else \
            f"in English: {row['text']}"
    return rows


def results(tmp_path, *codes: str, more: str = 'translation = "translation_en"', sets: str = ""):
    file = write_jsonl(tmp_path / "test.jsonl", translated_posts(*codes))
    return fake_results(tmp_path, PLAN.format(file=file, more=more, sets=sets))


def test_nothing_is_said_without_a_column_of_translations(tmp_path):
    assert translation(results(tmp_path, "es", more="")) is None


def test_posts_without_a_translation_are_counted_and_left_out_of_both_sides(tmp_path, monkeypatch):
    found = results(tmp_path, "de", "tr")
    plain = FakeRunner.read

    def read(self, fit, asked):  # by translation all is right; and one kept post is wrong by its own text
        told = plain(self, fit, asked)
        labels = self.material.codebook.labels
        gold = {(post.language, post.id): labels.index(post.label) for post in self.material.rows}
        rows = [[code, name, np.eye(len(labels))[gold[code, name]].tolist()] for code, name, _ in told["rows"]]
        if asked.name == "test":
            own = [row for row in rows if row[0] == "de"]
            own[5][2] = own[5][2][1:] + own[5][2][:1]
            own[0][2] = own[0][2][1:] + own[0][2][:1]  # has no translation: must not count
            own[1][2] = own[1][2][1:] + own[1][2][:1]  # its translation is the text itself: nor may this
        return told | {"rows": rows}

    monkeypatch.setattr(FakeRunner, "read", read)
    section = translation(found)
    counts = {row["language"]: row for row in table(section, "translation_posts").rows}
    assert [counts["de"][key] for key in ("n", "without", "same", "compared")] == [13, 1, 1, 11]
    assert counts["en"]["without"] == 13 and counts["en"]["compared"] == 0
    rows = {(row["train"], row["language"]): row for row in table(section, "translation_languages").rows}
    assert set(rows) == {(name, code) for name in ("en", "multi") for code in ("de", "tr")}
    german = rows["en", "de"]
    assert german["n"] == 11 and german["small"] and not german["seen"] and rows["multi", "de"]["seen"]
    assert german["accuracy_text"] == pytest.approx(10 / 11) and german["accuracy_translation"] == 1
    assert german["accuracy"] == pytest.approx(1 / 11) and german["accuracy_low"] == 0 < german["accuracy_high"]
    assert rows["en", "tr"]["accuracy"] == 0
    pooled = {(row["train"], row["languages"], row["figure"]): row for row in table(section, "translation_sets").rows}
    whole = pooled["en", "unseen", "accuracy"]
    assert whole["difference"] == pytest.approx(1 / 22) and whole["n"] == 22 and whole["count"] == 2
    assert whole["p"] == 1 and whole["test"] == "signs swapped by cluster, all ways"  # one post differs: 2 * 1/2
    assert ("en", "all", "accuracy") not in pooled and ("multi", "seen", "accuracy") in pooled
    assert "22 of 169 test posts" in section.notes[0]


def test_monolingual_sets_come_first_and_the_claims_hold_their_numbers(tmp_path):
    found = results(tmp_path, "de", "tr", "ko", "es")
    section = translation(found)
    sets = table(section, "translation_sets").rows
    assert sets[0]["train"] == "en" and section.exploratory
    gain, against = section.claims
    first = next(row for row in sets if row["figure"] == "topic macro-F1")
    assert (gain.value, gain.low, gain.high) == (first["difference"], first["low"], first["high"])
    assert f"{first['text']:.3f}" in section.answer and f"{first['translation']:.3f}" in section.answer
    assert "multi" in against.text and against.low <= against.value <= against.high
    asked = Asked("translation", text="translation_en")
    assert found.first("en", asked).predicted.max() == 3  # the fake answers all rows; the real one none without text
    for spec in section.figures:
        figure_of(spec, table(section, spec.table))
    Study("t", "now", {}, {}, [section], "")  # names are unique, claims are whole


def test_only_the_named_sets_are_asked(tmp_path):
    section = translation(results(tmp_path, "de", sets='sets = ["en"]'))
    assert {row["train"] for row in table(section, "translation_languages").rows} == {"en"}


def test_translations_that_are_all_the_text_itself_give_words(tmp_path):
    rows = translated_posts("de")
    for row in rows:
        row["translation_en"] = row["text"]
    file = write_jsonl(tmp_path / "test.jsonl", rows)
    found = fake_results(tmp_path, PLAN.format(file=file, more='translation = "translation_en"', sets=""))
    section = translation(found)
    assert "nothing can be said" in section.answer and not section.claims and not section.figures


def test_a_codebook_without_a_topic(tmp_path):
    book = tmp_path / "book.toml"
    book.write_text('name = "four"\nrole = "You read posts."\nquestion = "Which?"\n'
                    'labels = ["pro-immigration", "anti-immigration", "neutral", "unrelated"]\n', encoding="utf-8")
    section = translation(results(tmp_path, "de", more=f'translation = "translation_en"\ncodebook = "{book}"'))
    assert "macro_f1" in section.tables[1].rows[0] and "topic" not in section.answer


def test_the_samples_have_languages_that_the_tests_name():
    assert {"de", "tr", "ko", "es", "en"} <= {row["language"] for row in translated_posts()}


def test_an_outside_model_takes_part_where_it_labelled_the_translations(tmp_path):
    plain = results(tmp_path, "es", "de")
    posts = plain.material.rows
    for name, right in (("own", 0), ("translated", 1)):
        write_jsonl(tmp_path / f"{name}.jsonl", [
            {"id": post.id, "language": post.language, "predicted": post.label if right else "neutral"}
            for post in posts if name == "own" or post.extra["translation_en"]])
    more = (f'translation = "translation_en"\n[outside.theirs]\nfile = "{tmp_path}/own.jsonl"\nseen = ["en"]\n'
            f'translated = "{tmp_path}/translated.jsonl"\n')
    section = translation(results(tmp_path, "es", "de", more=more))
    rows = [row for row in table(section, "translation_sets").rows if row["train"] == "theirs"]
    assert rows and all(row["translation"] == 1 and row["text"] < 1 for row in rows if row["figure"] == "accuracy")
    assert {row["train"] for row in table(section, "translation_sets").rows} == {"en", "multi", "theirs"}
    (tmp_path / "translated.jsonl").write_text((tmp_path / "translated.jsonl").read_text().split("\n", 1)[1])
    with pytest.raises(UserError, match=r"translated.jsonl: has no prediction for id .* one of 1 test rows without"):
        results(tmp_path, "es", "de", more=more).check()
