"""Question 4, share against accuracy, on answers that no model gave.

Deliberate break: in study/questions/pretraining_share.py let `listed_of` take every language, or leave the range of the
shares out of `associations` (a tenfold share again); put "language" into SHARE_TERMS.
"""

import json
import re
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from stats.correctness import regress
from stats.shares import association
from study.questions.pretraining_share import associations, bias, models_of
from study.questions.regression import cells_of
from study.report.figures import figure_of
from tests.study.fake_study import fake_results, first_posts, table

LABELS = ("pro-immigration", "anti-immigration", "neutral", "unrelated")
PERCENT = {"en": 89.7, "de": 0.17, "fr": 0.16, "es": 0.13, "ko": 0.06, "hu": 0.03}
PLAN = """
[repeat]
seeds = [1, 2]
templates = ["instruction-first", "paper"]
[sets]
en = { en = 20 }
multi = { en = 20, es = 20, "*" = 20 }
[exposure]
base = "en"
languages = ["de", "fr", "ko", "hu", "tr"]
rows = [4, 8]
draws = [1]
[statistics]
draws = 100
[data]
"""
CAUSAL = re.compile(r"\b(caus\w+|because|due to|leads? to|drives?|driven|improv\w+|affects?|correct(s|ed)|impact\w*|"
                    r"explain\w*|influence\w*)\b", re.IGNORECASE)


def write_shares(folder: Path, percent: dict[str, float]) -> str:
    rows = [f'[[shares]]\nlanguage = "{code}"\npercent = {value}\nsource = "made up"\ndate = "2000-01-01"\n'
            for code, value in percent.items()]
    path = folder / "shares.toml"
    path.write_text("\n".join(['model = "none"', "tokens = 1e12", 'source = "made up"', 'date = "2000-01-01"', *rows]),
                    encoding="utf-8")
    return f'shares = "{path}"\n'


def write_posts(folder: Path, languages: list[str]) -> str:
    """The samples' posts in some languages only."""
    lines = []
    for name in ("train", "test"):
        kept = [line for line in first_posts(name) if json.loads(line)["language"] in languages]
        (folder / f"{name}.jsonl").write_text("\n".join(kept) + "\n", encoding="utf-8")
        lines.append(f'{name} = ["{folder / name}.jsonl"]\n')
    return "".join(lines)


def answering(results, right):
    """The same study with other answers: `right(fit, post)` says whether the human label is given."""
    def read(fit, asked):
        labels, rows = results.material.codebook.labels, []
        for post in results.material.rows:
            place = (labels.index(post.label) + (not right(fit, post))) % len(labels)
            rows.append([post.language, post.id, np.eye(len(labels))[place].tolist()])
        return {"rows": rows}

    results.runner.read = read
    return results


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bias")
    return fake_results(folder, PLAN + write_shares(folder, PERCENT))


@pytest.fixture(scope="module")
def section(results):
    return bias(results)


# -- the section


def test_every_model_and_language_has_its_accuracy_and_share(results, section):
    rows = table(section, "bias_languages").rows
    assert {row["model"] for row in rows} == {"en", "multi", "zero-shot"} and len(rows) == 3 * 13
    for row in rows:
        fits = models_of(results)[row["model"]]
        value = np.mean([fit.figure("accuracy", [row["language"]]) for fit in fits])
        assert row["accuracy"] == pytest.approx(value) and row["low"] <= row["accuracy"] <= row["high"]
        assert row["share"] == PERCENT.get(row["language"]) and row["small"] and row["n"] == 13
        assert row["seen"] == (row["language"] in results.seen(row["model"]))


def test_association_counts_languages_with_and_without_english(results, section):
    rows = table(section, "bias_association").rows
    own = [row for row in rows if (row["model"], row["figure"], row["over"]) == ("multi", "accuracy", "all")]
    assert [(row["measure"][:8], row["english"], row["n"]) for row in own] == [
        ("pearson,", True, 6), ("pearson,", False, 5), ("spearman", True, 6), ("spearman", False, 5),
        ("spearman", True, 13), ("spearman", False, 12)]
    values = {row["language"]: row["accuracy"] for row in table(section, "bias_languages").rows
              if row["model"] == "multi"}
    wanted = association({code: round(value, 12) for code, value in values.items()}, PERCENT)
    assert [(row["r"], row["p"]) for row in own] == [(row["r"], row["p"]) for row in wanted]
    for row in own[:2]:
        codes = row["languages"].split()
        line = np.polyfit(np.log10([PERCENT[code] for code in codes]), [values[code] for code in codes], 1)
        span = np.log10(PERCENT[row["largest"]] / PERCENT[row["least"]])
        assert (row["least"], row["largest"]) == ("hu", "en" if row["english"] else "de")
        assert row["rise"] == pytest.approx(line[0] * span)
        assert (row["low"] is None) or (row["low"] <= 0 <= row["high"]) == (row["p"] > 0.05)
    assert all(row["rise"] is None for row in own[2:])
    assert any(row["over"] == "not trained on" and not row["english"] for row in rows if row["model"] == "en")


def test_shares_that_hardly_differ_give_no_size_that_cannot_be(tmp_path):
    """Shares that span 1.3-fold: a slope per tenfold share of 2.63 and an interval to 8; over what was observed, .3."""
    near = {code: 0.1 * 1.3 ** (k / 5) for k, code in enumerate(PERCENT)}
    results = fake_results(tmp_path, PLAN + write_shares(tmp_path, near))
    values = dict(zip(near, (0.5, 0.56, 0.62, 0.68, 0.74, 0.8), strict=True))
    row = associations(results, values)[0]
    assert (row["least"], row["largest"], row["rise"]) == ("en", "hu", pytest.approx(0.3))
    assert -1 <= row["low"] < 0.3 < row["high"] <= 1
    assert associations(results, {code: 1.0 - 2 * (code in ("en", "de", "fr")) for code in near}, 2.0)[0]["rise"] == 2
    section = bias(results)
    assert section.claims and all(abs(end) <= 2 for claim in section.claims for end in (claim.value, claim.low or 0,
                                                                                      claim.high or 0))
    said = " ".join(claim.text for claim in section.claims)
    assert "smallest pre-training share (" in said and "pre-training share instead of" in said
    assert all(len(claim.text.split()) <= 25 for claim in section.claims)
    row = next(row for row in table(section, "bias_effects").rows if row["term"] == "share")
    assert (row["what"], row["level"], row["reference"]) == ("Hungarian's share − English's", "hu", "en")
    assert -1 <= row["low"] <= row["effect"] <= row["high"] <= 1


def test_rows_that_repeat_another_are_left_out(results):
    values = {"de": 0.5, "fr": 0.6, "ko": 0.4, "hu": 0.3}  # no English, none unlisted: six rows are two
    assert [row["measure"][:8] for row in associations(results, values)] == ["pearson,", "spearman"]


def test_a_planted_association_is_found_and_claimed(tmp_path):
    made = fake_results(tmp_path, PLAN + write_shares(tmp_path, PERCENT))
    order = sorted(PERCENT, key=PERCENT.get)
    place: dict[str, int] = {}
    for post in made.material.rows:  # the k-th listed language has 2 k of its posts right
        post.extra["right"] = place.setdefault(post.language, 0) < 2 * (
            order.index(post.language) + 1 if post.language in order else 3)
        place[post.language] += 1
    found = bias(answering(made, lambda fit, post: post.extra["right"]))
    row = next(row for row in table(found, "bias_association").rows if row["measure"] == "spearman")
    assert row["r"] == pytest.approx(1) and row["p"] == pytest.approx(2 / 720)
    claim = found.claims[0]
    assert claim.value > 0 and claim.low > 0
    assert "p = " in claim.may_say and "six languages" in claim.text and "6 languages" in claim.may_say


def test_claims_say_association_and_nothing_about_causes(section):
    assert section.exploratory and section.claims
    said = [section.answer, section.question, *section.notes, *(claim.text for claim in section.claims),
            *(claim.may_say for claim in section.claims), *(spec.caption for spec in section.figures),
            *(note for one in section.tables for note in one.notes), *(one.title for one in section.tables)]
    assert not [text for text in said if CAUSAL.search(text)]
    forbidden = section.claims[0].may_not_say
    assert "causes" in forbidden and "individual posts" in forbidden and "bias is corrected" in forbidden
    assert any("not a share of zero" in note and "Turkish" in note for note in section.notes)


def test_english_is_said_to_lie_far_to_the_right_only_where_it_does(tmp_path, section):
    told = [" far to the right" in spec.caption for spec in section.figures]
    assert told[0] and not any(told[1:])
    text = PLAN.replace('["de", "fr", "ko", "hu", "tr"]', '["de", "tr"]') + write_shares(tmp_path, PERCENT | {
        "en": 0.1})
    found = bias(fake_results(tmp_path, text))
    assert not any("far to the right" in spec.caption for spec in found.figures)
    assert not any("large shares" in note for note in found.notes)  # which languages have many rows is the plan's
    assert "bias_exposure_association" not in [one.name for one in found.tables]  # one listed language: all empty


def test_before_and_after_the_added_rows(results, section):
    rows = {(row["when"], row["language"]): row for row in table(section, "bias_exposure").rows}
    assert len(rows) == 2 * 5
    for code in ("de", "tr"):
        before = list(results.recipe("en", kind="exposure").values())
        after = list(results.recipe("", kind="exposure", added=(code, 8)).values())
        means = [np.mean([fit.figure("accuracy", [code]) for fit in fits]) for fits in (before, after)]
        assert [rows[when, code]["accuracy"] for when in ("before", "after")] == pytest.approx(means)
        assert rows["after", code]["change"] == pytest.approx(means[1] - means[0])
    tests = table(section, "bias_exposure_association").rows
    assert {row["model"] for row in tests} == {"en, before", "en, after", "en, after less before"}
    assert {row["n"] for row in tests} == {4, 5} and not any(row["english"] for row in tests)
    assert any(" the gain " in one.text and "(Hungarian) to the largest" in one.text
               for one in section.claims)


def test_share_and_language_effects_never_stand_together(results, section):
    rows = table(section, "bias_effects").rows
    terms = {name: {row["term"] for row in rows if row["regression"] == name} for name in
             ("with language effects", "with share", "with share, without English")}
    assert terms["with language effects"] == {"model", "label", "template", "language"}
    assert terms["with share"] == terms["with share, without English"] == {"model", "label", "template", "share"}
    cells = cells_of(results)["the sets"]
    assert len(cells) == 2 * 2 * 2  # sets, templates, seeds
    direct = regress(cells, ("model", "label", "template", "share"), shares=PERCENT,
                     references={"model": "en", "template": "instruction-first", "label": "pro-immigration"})
    wanted = next(one for one in direct.effects if one["level"] is None)
    row = next(row for row in rows if row["regression"] == "with share" and row["term"] == "share")
    assert row["effect"] == pytest.approx(wanted["effect"]) and row["languages"] == 6
    assert (row["low"], row["high"]) == pytest.approx((wanted["low_languages"], wanted["high_languages"]))
    assert row["error_posts"] > 0 and row["error_languages"] > 0 and row["n"] == 8 * 6 * 13
    own = next(row for row in rows if row["term"] == "language")
    assert own["reference"] == "en" and own["error_languages"] is None and own["low"] == own["low_posts"]


def test_figures_draw_and_the_section_survives_json(section):
    for spec in section.figures:
        assert figure_of(spec, table(section, spec.table)).axes
    assert {spec.kind for spec in section.figures} == {"scatter", "forest"}
    assert json.loads(json.dumps(asdict(section))) == asdict(section)


# -- thin and wrong data


def test_no_listed_share(tmp_path):
    section = bias(fake_results(tmp_path, PLAN + write_shares(tmp_path, {})))
    assert "Nothing can be said: 0" in section.answer
    assert any("No test language has a listed share" in note for note in section.notes)
    assert any("two are needed" in note for note in section.notes)
    assert {row["regression"] for row in table(section, "bias_effects").rows} == {"with language effects"}
    assert not any("smallest" in claim.text for claim in section.claims)
    for spec in section.figures:
        figure_of(spec, table(section, spec.table))


def test_one_language_and_one_fit(tmp_path):
    plan = '[sets]\nen = { en = 20 }\n[statistics]\ndraws = 100\n[data]\n' + write_posts(tmp_path, ["en"])
    section = bias(fake_results(tmp_path, plan))
    assert "Nothing can be said: 1" in section.answer and not section.claims
    assert {one.name for one in section.tables} >= {"bias_languages", "bias_association"}
    assert any("with language effects, could not be made: no finite estimate" in note for note in section.notes)
    for spec in section.figures:
        figure_of(spec, table(section, spec.table))


def test_separation_is_a_note(tmp_path):
    made = fake_results(tmp_path, PLAN + write_shares(tmp_path, PERCENT))
    place = {post.id: number for number, post in enumerate(made.material.rows)}
    section = bias(answering(made, lambda fit, post: post.label == "unrelated" or place[post.id] % 2 == 0))
    assert any("told apart without error by 'label: unrelated'" in note for note in section.notes)
    assert "bias_effects" not in [one.name for one in section.tables]


def test_outside_predictions_have_a_regression_of_their_own(tmp_path):
    posts = [json.loads(line) for line in first_posts("test")]
    for name, step in (("one", 3), ("two", 2)):
        with open(tmp_path / f"{name}.jsonl", "w", encoding="utf-8") as handle:
            for number, post in enumerate(posts):
                label = post["label"] if number % step else LABELS[number % 4]
                handle.write(json.dumps({**post, "predicted": label}) + "\n")
    plan = PLAN.replace("[data]", f'[outside]\none = "{tmp_path}/one.jsonl"\ntwo = "{tmp_path}/two.jsonl"\n[data]')
    section = bias(fake_results(tmp_path, plan + write_shares(tmp_path, PERCENT)))
    rows = table(section, "bias_effects").rows
    assert any(row["of"] == "outside predictions" and row["what"] == "two − one" for row in rows)
    assert {row["seen"] for row in table(section, "bias_languages").rows if row["model"] == "one"} == {None}


def test_a_codebook_without_topic_has_macro_f1(tmp_path):
    labels = ("politics", "sports", "travel")
    for name, count in (("train", 8), ("test", 12)):
        posts = [{"id": f"{name}{code}{k}", "language": code, "label": labels[k % 3], "text": f"{name} {code} {k}"}
                 for code in ("en", "de", "fr", "hu") for k in range(3 * count)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, posts)) + "\n", encoding="utf-8")
    plan = (f'[sets]\nen = {{ en = 12 }}\n[statistics]\ndraws = 100\n[data]\ncodebook = "data/codebooks/sib200.toml"\n'
            f'train = ["{tmp_path}/train.jsonl"]\ntest = ["{tmp_path}/test.jsonl"]\n')
    section = bias(fake_results(tmp_path, plan + write_shares(tmp_path, PERCENT)))
    assert {row["figure"] for row in table(section, "bias_association").rows} == {"accuracy", "macro-F1"}
    assert {row["n"] for row in table(section, "bias_association").rows if row["over"] == "all"} == {4, 3}
