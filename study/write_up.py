"""A study's report: the declared contrasts first, then the questions, then the data that the figures rest on."""

from collections import Counter
from collections.abc import Callable
from dataclasses import fields

import torch

from common.files import sha256_json
from common.terminal import progress
from data.languages import language_name
from finetune.options import TrainOptions
from finetune.run_folder import environment
from report.words import counted, interval, number
from study.fits import QUANTIZE
from study.inputs import posts_hash
from study.preregistration import Standing, now
from study.questions.agreement import agreement
from study.questions.as_published import as_published
from study.questions.baselines import baselines
from study.questions.calibration import behaviour
from study.questions.compared import main_figure, title_of
from study.questions.confounds import confounds
from study.questions.contrasts import contrasts
from study.questions.drift import drift
from study.questions.errors import errors
from study.questions.learning_curves import exposure
from study.questions.model_by_language import model_by_language
from study.questions.pretraining_share import bias
from study.questions.sentences import capped, weights_words
from study.questions.speed import speed
from study.questions.stance import stance
from study.questions.transfer import topic
from study.questions.translation import translation
from study.report.opening import opening_of
from study.report.section import Column, Section, Study, Table
from study.results import Results
from study.runner import ZERO
from study.statements import data_statement

LOSSES = {"label": "loss over the labels", "vocabulary": "loss over the vocabulary", "text": "loss over the whole text"}


def make_study(results: Results, hashes: dict[str, str], caution: str = "", standing: Standing | None = None,
               error_ids: bool = False) -> Study:
    """The answers to every question of the plan; `caution` is a sentence under the title.

    `error_ids`: list the posts that are most often given a wrong stance, by id.
    """
    asked = (topic, stance, exposure, bias, model_by_language, confounds, agreement, translation, behaviour, baselines,
             drift, as_published, speed, data)
    with progress(2 + len(asked), "question", "statistics") as bar:
        def answer(ask: Callable, *more) -> Section | None:
            found = ask(results, *more)
            bar.update()
            return found

        declared = answer(contrasts, standing)
        answered = [answer(ask) for ask in asked]
        answered.insert(asked.index(behaviour), answer(errors, error_ids))
    sections = [section for section in (declared, *answered) if section is not None]
    for section in sections[1:] if declared else sections:
        section.exploratory = section.key not in ("data", "speed")
    for section in sections:
        section.claims = [capped(results.plan, claim) for claim in section.claims]
    claimed = [section.key for section in sections if section.claims]
    order = ("contrasts", "stance", "exposure", "topic", "bias")  # what the plan names opens the page
    first = [key for key in order if key in claimed][:3]
    return Study(results.plan.title, now().replace("T", " "), results.plan.to_dict(),
                 manifest(results, hashes), sections, methods(results, standing), cells(results), first, note=caution,
                 statement=data_statement(results))


def summary(study: Study) -> str:
    """What the plan's family shows, then the first claims, for a terminal."""
    opening = opening_of(study)
    lines = opening.lines if opening else []
    for _, claim in study.first_claims:
        pair = None if claim.low is None else (claim.low, claim.high)
        lines += [claim.text, f"  {number(claim.value)} {interval(pair)}", f"  may say: {claim.may_say}",
                  f"  may not say: {claim.may_not_say}"]
    return "\n".join(lines)


def data(results: Results) -> Section:
    """What the figures rest on: rows by language, and the figures with the known rows beside those without."""
    material, name = results.material, main_figure(results)
    train = Counter(post.language for post in material.train)
    rows = [{"language": code, "train": train[code], "test": int((results.every.language == code).sum()),
             "known": int((results.every.language == code).sum() - (results.kept.language == code).sum()),
             "small": bool(results.kept.is_small(results.kept.language == code)), "folded": code in material.folded}
            for code in results.every.languages]
    known, groups = int(material.is_known.sum()), results.groups
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
              ["Known: the text (case, spaces, handles and links aside) "
               + (f"or the “{material.group_by}” " if material.group_by else "") + "is also that of a training row."]),
        Table("data_known", "Figures without and with the known rows (first fits)", [
            Column("train", "train set"), Column("kept", title_of(name), "rate"),
            Column("accuracy", "accuracy", "rate"),
            Column("every", f"{title_of(name)}, all rows", "rate"),
            Column("every_accuracy", "accuracy, all rows", "rate")], both)]
    answer = (f"{len(results.kept.ids):,} test rows in {len(results.kept.languages)} languages; {known:,} more are "
              f"left out of every figure above: {results.material.why_known()}."
              + (f" In intervals {results.material.together} count together: {groups}." if groups else ""))
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


def used(results: Results) -> dict:
    """The options of the sets' first fit, as its run.json has them, with epochs in words: they may depend on the rows.

    What no run says is the plan's, or train.py's own.
    """
    plan, fits = results.plan, [fit for fit in results.fits if fit.kind == "set"]
    ran = [results.runner.facts(fit).get("options", {}) for fit in fits]
    found = {**{entry.name: entry.default for entry in fields(TrainOptions)}, "quantize": QUANTIZE, "targets":
             TrainOptions().targets, **plan.train, **ran[0]}
    epochs = sorted({one.get("epochs", found["epochs"]) for one in ran})
    few = counted(epochs[0], "epoch")
    return found | {"epochs": few if len(epochs) == 1 else f"{epochs[0]} to {epochs[-1]} epochs"}


def methods(results: Results, standing: Standing | None = None) -> str:
    """A methods paragraph, ready to paste, made from the plan."""
    plan, kept, repeat = results.plan, results.kept, results.plan.repeat
    options = used(results)
    sets = "; ".join(f"{name} ({len(next(f for f in results.fits if f.name == name).keys):,} rows in "
                     f"{len(results.seen(name))} language{'s' * (len(results.seen(name)) > 1)})" for name in plan.sets)
    small = [language_name(code) for code in kept.languages if kept.is_small(kept.language == code)]
    text = (
        f"We fine-tuned {results.runner.model} with LoRA (rank {options['rank']}, alpha {options['alpha']:g}, dropout "
        f"{options['dropout']:g}, on {', '.join(options['targets'])}) on {weights_words(options['quantize'])}, with "
        f"Glass Llama: {options['epochs']}, {counted(options['batch_size'], 'post')} a step, learning rate "
        f"{options['learning_rate']:g} ({options['schedule']}), {LOSSES[options['loss']]}, prompt "
        f"{' and '.join(repeat.templates)}. The training sets: {sets}. Each set was fitted with "
        f"{counted(len(repeat.draws), 'draw')} of rows and {counted(len(repeat.seeds), 'seed')}, crossed"
        + ("; a set that takes all rows of its languages has no draws" * any(
            fit.whole for fit in results.fits if fit.kind == "set")))
    if plan.exposure.languages:
        text += (f"; the models with rows of an added language with {counted(len(plan.exposure.draws), 'draw')} and "
                 f"{counted(len(plan.exposure.seeds) or 1, 'seed')}")
    if repeat.folds:
        folded = ", ".join(language_name(code) for code in results.material.folded)
        text += (f"; {folded} were cross-validated in {repeat.folds} folds, {repeat.rounds} "
                 f"time{'s' * (repeat.rounds > 1)}, with {results.material.in_one_fold}")
    text += (
        f". All models labelled the same {len(kept.ids):,} test posts in {len(kept.languages)} languages; left "
        f"out were {results.material.why_known('post')} (texts normalised). "
        f"Intervals are 95 per cent: bootstrap over test posts ({plan.statistics.draws:,} draws, stratified by "
        f"language, {results.material.together} together{': ' * bool(results.groups)}{results.groups}), for means over "
        "languages the stratified jackknife, less its bias, and for differences between training sets with three seeds "
        "or more, and three draws where there are any, also over these (Satterthwaite); with fewer they allow for "
        "other test posts only, with these fits. ")
    if plan.contrasts:
        text += (f"The plan names {counted(len(plan.contrasts), 'contrast')} (SHA-256 {plan.hash[:12]}), whose "
                 "p-values are adjusted by Holm and whose intervals hold simultaneously. "
                 f"{' '.join((standing or Standing()).notes)} ")
    text += "Everything else is exploratory. "
    if small:
        text += ("Cells with fewer than 30 rows, or fewer than 10 rows or groups of a label, are marked: "
                 f"{', '.join(small)}.")
    return text.strip()

