"""Fits of a plan: which rows, which keys, which folds; and what only the posts can tell to be wrong.

Deliberate break: in study/fits.py draw an exposure's rows with the seed in place of the draw, or leave the rows' texts
out of the key, or let `Choice.taken` keep the draw of a fit that takes all rows; in study/inputs.py deal single posts
instead of groups into folds.
"""

import json
import re
from collections import Counter

import pytest

from common.errors import UserError
from common.files import ROOT, sha256_json
from data.checks import normalise
from stats.recipes import ALL_ROWS, components, lacking
from study.fits import Choice, asked_of, equal_steps, evenly, make_fits
from study.inputs import posts_hash, read_material
from study.plan import load_plan
from tests.small import write_jsonl
from tests.study.fake_study import HASHES, PLAN, fake_results, first_posts


def named(results, kind: str, **wanted) -> list:
    return [fit for fit in results.fits if fit.kind == kind
            and all(getattr(fit, key) == value for key, value in wanted.items())]


def test_every_set_with_every_seed_draw_and_template(tmp_path):
    results = fake_results(tmp_path)
    fits = named(results, "set")
    assert Counter(fit.name for fit in fits) == dict.fromkeys(("en", "es", "en-es", "multi"), 8)
    for fit in named(results, "set", name="multi"):
        counts = Counter(language for language, _ in fit.keys)
        assert set(counts) == set(results.material.by_language) and set(counts.values()) == {20}
    rows = {(fit.name, fit.draw): fit.keys for fit in fits}
    assert set(rows["en", 1]) < set(rows["en-es", 1]) < set(rows["multi", 1]) and rows["en", 1] != rows["en", 2]
    assert len({fit.key for fit in fits}) == len(fits)  # another seed, draw, template or set is another model


def test_exposures_are_nested_and_their_base_is_shared(tmp_path):
    results = fake_results(tmp_path)
    for draw in (1, 2):
        base, = named(results, "exposure", draw=draw, added=("", 0))
        first, second = (named(results, "exposure", draw=draw, added=("tr", count))[0] for count in (4, 8))
        assert set(base.keys) < set(first.keys) < set(second.keys)
        assert Counter(language for language, _ in second.keys) == {"en": 20, "es": 20, "tr": 8}
        same, = named(results, "set", name="en-es", seed=1, draw=draw, template="instruction-first")
        assert same.key == base.key  # trained once
        english, = named(results, "english", draw=draw, added=("en", 8))
        assert Counter(language for language, _ in english.keys) == {"en": 28, "es": 20}
        steps, = named(results, "steps", draw=draw, added=("", 8))
        assert steps.keys == base.keys and steps.key != base.key and steps.options["max_steps"] == 3 * 3


def test_an_exposure_is_trained_with_its_own_seeds_or_the_plans_first(tmp_path):
    arms = ("exposure", "english", "steps")
    before = {kind: named(fake_results(tmp_path), kind) for kind in arms}
    assert {fit.seed for fits in before.values() for fit in fits} == {1}
    results = fake_results(tmp_path, PLAN.replace("placebos", "seeds = [1, 4]\nplacebos"))
    for kind in arms:
        found = named(results, kind)
        assert len(found) == 2 * len(before[kind]) and {fit.seed for fit in found} == {1, 4}
        assert {fit.key for fit in before[kind]} <= {fit.key for fit in found}  # what is trained stays


def test_equal_steps():
    options = equal_steps({"batch_size": 16, "epochs": 10}, 1875, 1950)
    assert options["max_steps"] == 10 * 122 and options["epochs"] == 11  # 118 steps an epoch of 1,875 rows
    assert equal_steps({"batch_size": 16, "epochs": 10, "max_steps": 5}, 32, 64)["max_steps"] == 5


def test_equally_many_of_each_label(tmp_path):
    posts = fake_results(tmp_path).material.by_language["tr"]
    chosen = evenly(posts[1:])  # one label has one post less
    counts = Counter(post.label for post in chosen[:8])
    assert set(counts.values()) == {2} and len(chosen) % 4 == 0


def test_the_first_fit_is_asked_the_variants(tmp_path):
    results = fake_results(tmp_path, PLAN.replace('quantize = ["none"]', 'quantize = ["none", "nf4"]\nsets = ["en"]'))
    names = [[one.name for one in asked_of(results.plan, fit)] for fit in results.fits]
    assert names.count(["test", "prompt authors", "weights none"]) == 1 and names.count(["test"]) == len(names) - 1


@pytest.mark.parametrize(("train", "options"), [
    ("", {}), ('[train]\npreset = "small-base"\n', {"learning_rate": 2e-3, "epochs": 3}),
    ('[train]\nquantize = "none"\n', {"quantize": "none"}),
])
def test_the_weights_of_a_plan_that_does_not_say_are_in_no_key(tmp_path, train, options):
    """train.py's own default depends on the machine; a fit's does not, and keys are those of before there was one."""
    results = fake_results(tmp_path, PLAN + train)
    fit = results.fits[0]
    rows = Choice(results.plan, results.material).rows(fit.name, fit.draw, fit.fold)
    determined_by = [posts_hash(rows), options, fit.seed, fit.template, HASHES[f"prompt {fit.template}"],
                     HASHES["base"]]
    assert fit.key == sha256_json(determined_by)[:16]
    with pytest.raises(UserError, match="'auto' would depend on the machine"):
        fake_results(tmp_path, PLAN + '[train]\nquantize = "auto"\n')


def test_a_key_follows_texts_labels_and_options(tmp_path):
    from dataclasses import replace

    from study.fits import make_fits

    results = fake_results(tmp_path)
    plan, material = results.plan, results.material
    before = {(fit.name, fit.kind, fit.seed, fit.draw, fit.template, fit.added): fit.key for fit in results.fits}
    place = next(k for k, post in enumerate(material.train) if (post.language, post.id) in results.fits[0].keys)
    material.train[place] = replace(material.train[place], text=material.train[place].text + " .")
    material.__dict__.pop("by_language")
    after = {(fit.name, fit.kind, fit.seed, fit.draw, fit.template, fit.added): fit.key
             for fit in make_fits(plan, material, HASHES)}
    changed = {key[0] for key in after if after[key] != before[key]}
    assert changed and "es" not in changed  # Spanish alone was not touched


FOLDS = PLAN.replace("[repeat]", "[repeat]\nfolds = 4\nrounds = 2", 1)


def test_folds_hold_out_whole_groups_and_every_row_once(tmp_path):
    results = fake_results(tmp_path, FOLDS.replace("[exposure]", '[unused]').split("[unused]")[0])
    material = results.material
    assert material.folded == tuple(sorted(material.by_language))  # each has fewer than a hundred test rows
    for round in (1, 2):
        held = material.fold_of(round, 4)
        assert set(held.values()) == {1, 2, 3, 4} and {id(post) for post in material.rows} <= set(held)
        groups = {}
        for post in material.rows:
            groups.setdefault(normalise(post.text), set()).add(held[id(post)])
        assert all(len(folds) == 1 for folds in groups.values())
        cells = Counter((post.language, post.label, held[id(post)]) for post in material.rows)
        for language, label in {(language, label) for language, label, _ in cells}:
            own = [cells[language, label, fold] for fold in (1, 2, 3, 4)]
            assert max(own) - min(own) <= 1
    for fit in named(results, "set", name="multi", seed=1, draw=1):
        held = material.fold_of(fit.fold[0], 4)
        keys = {(post.language, post.id) for post in material.rows if held[id(post)] == fit.fold[1]}
        assert not keys & set(fit.keys)
    assert material.fold_of(1, 4) != material.fold_of(2, 4)


def test_no_author_and_no_text_of_a_fold_is_in_its_training(tmp_path):
    """Where authors pass each other's posts on, chains of them would be one group, and one fold all of a language."""
    lines = [json.loads(line) for line in first_posts("train")]
    rows = [row | {"author": f"{row['language']}{number % 10}"} for number, row in enumerate(lines)]
    rows += [row | {"id": f"c{number}", "author": f"{row['language']}{(number + 3) % 10}"}
             for number, row in enumerate(rows) if number % 4 == 0]
    files = {"train": rows[::2], "test": rows[1::2]}
    files = {name: write_jsonl(tmp_path / f"{name}.jsonl", own) for name, own in files.items()}
    head = "".join(f'{name} = "{file}"\n' for name, file in files.items())
    (tmp_path / "plan.toml").write_text(f'[data]\n{head}group_by = "author"\n[repeat]\nfolds = 4\n[sets]\n'
                                        "en = { en = 20 }\nmulti = { de = 9, en = 9, es = 9 }\n")
    plan = load_plan(tmp_path / "plan.toml")
    material = read_material(plan)
    post_of = {(post.language, post.id): post for post in [*material.train, *material.rows]}
    held, folds = material.fold_of(1, 4), Counter()
    for fit in make_fits(plan, material, HASHES):
        learnt = [post_of[key] for key in fit.keys]
        tested = [post for post in material.rows if held[id(post)] == fit.fold[1]]
        assert not {post.extra["author"] for post in learnt} & {post.extra["author"] for post in tested}
        assert not {normalise(post.text) for post in learnt} & {normalise(post.text) for post in tested}
        folds[fit.fold[1]] = sum(post.language == "en" for post in tested)
    assert not material.is_known.any() and max(folds.values()) < 2 * min(folds.values())
    assert "from whose training copies of its texts were left out" in material.in_one_fold


def test_out_of_fold_answers_come_from_the_fold_that_held_the_row_out(tmp_path):
    results = fake_results(tmp_path, FOLDS.replace("[exposure]", '[unused]').split("[unused]")[0])
    recipe = results.recipe("multi")
    assert sorted(recipe) == [((draw, round), seed) for draw in (1, 2) for round in (1, 2) for seed in (1, 2)]
    fits = [fit for fit in named(results, "set", name="multi", seed=1, draw=1, template="instruction-first")
            if fit.fold[0] == 1]
    held, answers = results.material.fold_of(1, 4), recipe[(1, 1), 1]
    said = {fit.fold[1]: {(language, name): p for language, name, p in results.runner.read(fit, asked_of(
        results.plan, fit)[0])["rows"]} for fit in fits}
    for place, post in enumerate(results.posts(results.kept)):
        assert answers.probabilities[place].tolist() == said[held[id(post)]][post.language, post.id]


@pytest.mark.parametrize("old, new, words", [
    ("en = { en = 20 }", "en = { en = 2000 }", ["[sets]: en: en", "2,000 rows", "there are 39"]),
    ("en = { en = 20 }", "en = { xx = 20 }", ["[sets]: en", "no training post in 'xx'", "ar, de"]),
    ('languages = ["tr", "ko"]', 'languages = ["tr", "kk"]', ["[exposure]: languages", "'kk'", "ko"]),
    ("rows = [4, 8]", "rows = [4, 80]", ["[exposure]", "80 more rows of tr"]),
    ("[repeat]", '[data]\ntest = ["data/samples/train.jsonl"]\n[repeat]', ["[data]: test", "also a file of 'train'"]),
    ("[repeat]", '[data]\ntranslation = "en"\n[repeat]', ["[data]: translation", "column 'en'"]),
    ("[repeat]", '[repeat]\nfolds = 3\nfolded = ["xx"]', ["[repeat]: folded", "'xx'"]),
])  # fmt: skip
def test_what_the_posts_do_not_have_is_named(tmp_path, old, new, words):
    with pytest.raises(UserError) as caught:
        fake_results(tmp_path, PLAN.replace(old, new, 1))
    assert "\n" not in str(caught.value) and all(word in str(caught.value) for word in words), caught.value


def test_known_texts_leave_the_figures(tmp_path):
    text, samples = tmp_path / "t.jsonl", ROOT / "data" / "samples"
    lines = (samples / "test.jsonl").read_text(encoding="utf-8").splitlines()
    again = (samples / "train.jsonl").read_text(encoding="utf-8").splitlines()[0].replace('"id": "', '"id": "again-')
    text.write_text("\n".join([*lines, again]), encoding="utf-8")
    plan = PLAN.replace("[repeat]", f'[data]\ntest = ["{text}"]\n[repeat]', 1)
    results = fake_results(tmp_path, plan)
    assert len(results.every.ids) == len(lines) + 1 and len(results.kept.ids) == len(lines)
    assert read_material(results.plan).is_known.sum() == 1


@pytest.mark.parametrize("old, new, words", [
    ("figure = \"stance.end_to_end.accuracy\"", 'figure = "topic.f1"', ["contrast[2]", "topic.f1", "macro_f1"]),
    ('languages = ["unseen"]', 'languages = ["xx"]', ["contrast", "no test row"]),
    ("[repeat]", '[outside]\nmine = "none.jsonl"\n[repeat]', ["none.jsonl"]),
    ("[repeat]", '[data]\nprices = "none.toml"\n[repeat]', ["none.toml"]),
])  # fmt: skip
def test_what_only_the_report_would_stumble_over_is_named_before_training(tmp_path, old, new, words):
    assert old in PLAN
    results = fake_results(tmp_path, PLAN.replace(old, new, 1))
    with pytest.raises(UserError) as caught:
        results.check()
    assert "\n" not in str(caught.value) and all(word in str(caught.value) for word in words), caught.value


def test_a_draw_of_all_rows_is_trained_once_for_each_seed(tmp_path):
    rows = sum(line.count('"language": "tr"') for line in first_posts("train"))
    results = fake_results(tmp_path, f"""
[repeat]
seeds = [1, 2, 3]
draws = [7, 8, 9]
[sets]
tr = {{ tr = "all" }}
part = {{ tr = {rows - 1} }}
[exposure]
base = "tr"
languages = ["hi"]
rows = [4]
draws = [1, 2]
""")
    whole, part = named(results, "set", name="tr"), named(results, "set", name="part")
    assert len(whole) == 3 and all(fit.whole and fit.draw == 7 and "all rows" in fit.title for fit in whole)
    assert len(part) == 9 and not any(fit.whole for fit in part)
    assert set(results.recipe("tr")) == {(ALL_ROWS, seed) for seed in (1, 2, 3)} and len(results.recipe("part")) == 9
    base, = named(results, "exposure", added=("", 0))  # the set's own model, whatever the exposure's draws are
    assert base.key == whole[0].key and len(named(results, "exposure", added=("hi", 4))) == 2
    assert lacking(results.recipe("tr"), results.recipe("part")) == ""
    parts = components(results.recipe("tr"), "accuracy")
    assert parts["draw"] is None and parts["seed"] is not None  # no variance of zero for draws that are none


def test_the_papers_plan_trains_124_models_and_not_175(tmp_path):
    """The paper's numbers of rows, made of invented posts: 51 of the 175 models would be copies of another."""
    plan = load_plan(ROOT / "study" / "plans" / "paper.toml")
    sizes = {"en": 1125, "es": 750, **dict.fromkeys(plan.exposure.languages, 75)}
    lines = [{"id": f"{code}-{k}", "language": code, "text": f"post {k} in {code}",
              "label": ("pro-immigration", "anti-immigration", "neutral", "unrelated")[k % 4], "translation_en": "x"}
             for code, count in sizes.items() for k in range(count + 4)]
    own = [line for line in lines if int(line["id"].split("-")[1]) < sizes[line["language"]]]
    plan.data.train = [str(write_jsonl(tmp_path / "train.jsonl", own))]
    plan.data.test = [str(write_jsonl(tmp_path / "test.jsonl", [line for line in lines if line not in own]))]
    plan.outside = {}
    hashes = {"base": "b", **{f"prompt {name}": name for name in plan.repeat.templates}}
    fits = make_fits(plan, read_material(plan), hashes)
    assert len({fit.key for fit in fits}) == 124
    text = (ROOT / "study" / "plans" / "paper.toml").read_text(encoding="utf-8")
    named, = re.findall(r"^# (seeds = .*)$", text, re.M)
    (tmp_path / "seeds.toml").write_text(text.replace("# " + named, named), encoding="utf-8")
    plan.exposure = load_plan(tmp_path / "seeds.toml").exposure
    several = {fit.key for fit in make_fits(plan, read_material(plan), hashes)}
    assert f"{len(several)} models in place of 124" in text and {fit.key for fit in fits} < several
    assert {fit.name: len([one for one in fits if (one.name, one.kind) == (fit.name, "set")]) for fit in fits
            if fit.kind == "set"} == {"en": 3, "es": 3, "en-es": 3, "multi": 3, "multi-1875": 9}
