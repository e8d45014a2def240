"""A study's report: the declared contrasts first, then the questions, then the data that the figures rest on."""

import time
from collections import Counter

import torch

from common.files import sha256_json
from data.languages import language_name
from finetune.run_folder import environment
from report.words import counted, interval, number
from stats.families import Contrast, family
from study.inputs import posts_hash
from study.questions.baselines import baselines
from study.questions.calibration import behaviour
from study.questions.confounds import confounds
from study.questions.learning_curves import exposure
from study.questions.pretraining_share import bias
from study.questions.speed import speed
from study.questions.transfer import compare, is_shown, main_figure, stance, title_of, topic
from study.questions.translation import translation
from study.report.section import Claim, Column, FigureSpec, Section, Study, Table
from study.results import Results
from study.runner import ZERO


def make_study(results: Results, hashes: dict[str, str], caution: str = "") -> Study:
    """The answers to every question of the plan; `caution` is a sentence under the title."""
    declared = contrasts(results)
    asked = (topic, stance, exposure, bias, confounds, translation, behaviour, baselines, speed, data)
    sections = [section for section in (declared, *(ask(results) for ask in asked)) if section is not None]
    for section in sections[1:] if declared else sections:
        section.exploratory = section.key not in ("data", "speed", "baselines", "behaviour")
    claimed = [section.key for section in sections if section.claims]
    order = ("contrasts", "stance", "exposure", "topic", "bias")  # what was declared opens the page
    first = [key for key in order if key in claimed][:3]
    return Study(results.plan.title, time.strftime("%Y-%m-%d %H:%M"), results.plan.to_dict(),
                 manifest(results, hashes), sections, methods(results), cells(results), first, note=caution)


def summary(study: Study) -> str:
    """The first claims, for a terminal."""
    lines = []
    for _, claim in study.first_claims:
        pair = None if claim.low is None else (claim.low, claim.high)
        lines += [claim.text, f"  {number(claim.value)} {interval(pair)}", f"  may say: {claim.may_say}",
                  f"  may not say: {claim.may_not_say}"]
    return "\n".join(lines)


def contrasts(results: Results) -> Section | None:
    """The plan's declared family: Holm over its tests, simultaneous intervals, and the recipes' own intervals."""
    plan = results.plan
    if not plan.contrasts:
        return None
    models = results.models({name: None for one in plan.contrasts for name in (one.first, one.second)})
    asked = [Contrast(one.name, models[one.first], models[one.second], one.figure, results.languages_of(one),
                      one.weight) for one in plan.contrasts]
    found, rows, claims = family(asked, plan.statistics.draws, plan.statistics.seed), [], []
    for one, line in zip(plan.contrasts, found, strict=True):
        row = {"contrast": one.name, "figure": title_of(one.figure), "languages": len(line["languages"]),
               **{key: line[key] for key in ("first", "second", "value", "low", "high", "simultaneous_low",
                                             "simultaneous_high", "test", "p", "p_holm")}}
        shown = line  # outside predictions have one fit, so only posts are resampled
        if {one.first, one.second} <= set(plan.sets):
            shown = compare(results.recipe(one.first), results.recipe(one.second), one.figure, line["languages"], plan,
                            one.weight)
            row |= {"recipe": shown["value"], "recipe_low": shown["low"], "recipe_high": shown["high"]}
        claims += [declared(one, line, shown)] if not claims else []
        rows.append(row)
    difference = [Column(key, title, "difference") for key, title in (
        ("value", "first fits"), ("low", "low"), ("high", "high"), ("simultaneous_low", "low, all at once"),
        ("simultaneous_high", "high, all at once"), ("recipe", "recipes"), ("recipe_low", "low"),
        ("recipe_high", "high"))]
    table = Table("contrasts", "The declared family of contrasts",
                  [Column("contrast", "contrast"), Column("figure", "figure"),
                   Column("languages", "languages", "count"),
                   Column("first", "first", "rate"), Column("second", "second", "rate"), *difference,
                   Column("test", "test"), Column("p", "p", "p"), Column("p_holm", "p, Holm", "p")], rows,
                  ["First fits: intervals over test posts. Recipes: over draws of rows, seeds and test posts."])
    figure = FigureSpec("forest", "contrasts", "The thick interval holds for one contrast, the thin one for all "
                        "contrasts of the family at once.", "That other seeds would give the same: these are the "
                        "first fits.", name="contrasts", x="value", y="contrast", low="low", high="high",
                        wider_low="simultaneous_low", wider_high="simultaneous_high")
    outside = sum(row["simultaneous_low"] > 0 or row["simultaneous_high"] < 0 for row in rows)
    answer = (f"Of {counted(len(rows), 'declared contrast')}, {outside or 'none'} {'have' if outside > 1 else 'has'} a "
              "simultaneous interval that leaves out zero (first fits).")
    answer = answer if outside else f"No difference is shown. {answer}"
    return Section("contrasts", "Declared contrasts", "Which of the comparisons declared in the plan stand out?",
                   answer, claims, [table], [figure])


def declared(one, line: dict, shown: dict) -> Claim:
    """The claim of a declared contrast: `line` of the family, `shown` the difference and interval that carry it."""
    count = len(line["languages"])
    where = f"{count} language{'s' * (count > 1)}" + (
        f" that {one.second} never saw" if one.languages == ["unseen"] else "")
    words = "this difference" if is_shown(shown) else "no difference is shown"
    return Claim(
        f"{one.first} against {one.second}: {title_of(one.figure)} in {where}.", shown["value"], shown["low"],
        shown["high"],
        f"Declared before the data: {words} (Holm-adjusted p {number(line['p_holm'])} for the first fits).",
        "Anything that the plan did not declare, with this certainty.")


def data(results: Results) -> Section:
    """What the figures rest on: rows by language, and the figures with the known rows beside those without."""
    material, name = results.material, main_figure(results)
    train = Counter(post.language for post in material.train)
    rows = [{"language": code, "train": train[code], "test": int((results.every.language == code).sum()),
             "known": int((results.every.language == code).sum() - (results.kept.language == code).sum()),
             "small": bool(results.kept.is_small(results.kept.language == code)), "folded": code in material.folded}
            for code in results.every.languages]
    known = int(material.is_known.sum())
    both = []
    for each in results.plan.sets:
        kept, every = results.first(each), results.first(each, rows=results.every)
        both.append({"train": each, "kept": kept.figure(name), "accuracy": kept.figure("accuracy"),
                     "every": every.figure(name), "every_accuracy": every.figure("accuracy")})
    tables = [
        Table("data_rows", "Rows by language", [
            Column("language", "language", "language"), Column("train", "training rows", "count"),
            Column("test", "test rows", "count"), Column("known", "of them known", "count"),
            Column("small", "small cell", "flag"), Column("folded", "cross-validated", "flag")], rows,
              ["Known: the text (case, spaces, handles and links aside) is also that of a training row."]),
        Table("data_known", "Figures without and with the known rows (first fits)", [
            Column("train", "train set"), Column("kept", title_of(name), "rate"),
            Column("accuracy", "accuracy", "rate"),
            Column("every", f"{title_of(name)}, all rows", "rate"),
            Column("every_accuracy", "accuracy, all rows", "rate")], both)]
    answer = (f"{len(results.kept.ids):,} test rows in {len(results.kept.languages)} languages; {known:,} more have "
              "the text of a training row and are left out of every figure above.")
    return Section("data", "What the figures rest on", "How many rows are there, and what do repeated texts change?",
                   answer, [], tables, [])


def manifest(results: Results, hashes: dict[str, str]) -> dict:
    """Hashes, versions and machine."""
    material, runner = results.material, results.runner
    return {"plan": results.plan.hash, "base": runner.model, "hashes": hashes,
            "training posts": posts_hash(material.train), "test rows": posts_hash(material.rows),
            "codebook": material.codebook.hash, "fits": len({fit.key for fit in results.fits}),
            "answers": sha256_json(sorted(fit.key for fit in results.fits)),
            "environment": environment(getattr(runner, "device", torch.device("cpu")))}


def cells(results: Results) -> list[dict]:
    """One line per model: what it is, what it was trained on, for how long, and the command that makes it again."""
    found = {}
    for fit in results.fits:
        if fit.kind == ZERO or fit.key in found:
            continue
        facts, options = results.runner.facts(fit), results.runner.out / "fits" / fit.key / "options.toml"
        found[fit.key] = {"key": fit.key, "model": fit.title, "rows": len(fit.keys),
                          "languages": " ".join(fit.languages), "steps": facts.get("step"),
                          "seconds": facts.get("seconds"),
                          "command": f"python train.py --config {options} --out ANOTHER"}
    return list(found.values())


def methods(results: Results) -> str:
    """A methods paragraph, ready to paste, made from the plan."""
    plan, kept, repeat = results.plan, results.kept, results.plan.repeat
    options = {"quantize": "nf4", "rank": 16, "alpha": 32, "epochs": 3, **plan.train}
    sets = "; ".join(f"{name} ({len(next(f for f in results.fits if f.name == name).keys):,} rows in "
                     f"{len(results.seen(name))} language{'s' * (len(results.seen(name)) > 1)})" for name in plan.sets)
    small = [language_name(code) for code in kept.languages if kept.is_small(kept.language == code)]
    text = (
        f"We fine-tuned {results.runner.model} with LoRA (rank {options['rank']}, alpha {options['alpha']:g}, "
        f"{counted(options['epochs'], 'epoch')}) on weights stored as {options['quantize']}, with Glass Llama, on "
        f"these training sets: {sets}. Each set was fitted with {counted(len(repeat.draws), 'draw')} of rows and "
        f"{counted(len(repeat.seeds), 'seed')}, crossed")
    if repeat.folds:
        folded = ", ".join(language_name(code) for code in results.material.folded)
        text += (f"; {folded} were cross-validated in {repeat.folds} folds, {repeat.rounds} "
                 f"time{'s' * (repeat.rounds > 1)}, with equal texts in the same fold")
    text += (
        f". All models labelled the same {len(kept.ids):,} test posts in {len(kept.languages)} languages; posts whose "
        f"normalised text also occurred in training ({int(results.material.is_known.sum()):,}) were left out. "
        f"Intervals are 95 per cent: bootstrap over test posts ({plan.statistics.draws:,} draws, stratified by "
        "language, copies of a text together), and for differences between training sets also over draws and seeds "
        "(Satterthwaite). ")
    if plan.contrasts:
        text += (f"The plan declared {counted(len(plan.contrasts), 'contrast')} (SHA-256 {plan.hash[:12]}), whose "
                 "p-values are adjusted by Holm and whose intervals hold simultaneously. ")
    text += "Everything else is exploratory. "
    if small:
        text += f"Cells with fewer than 30 rows, or fewer than 10 of a label, are marked: {', '.join(small)}."
    return text.strip()

