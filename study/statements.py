"""Texts that a study can be registered and published with, filled from its plan: what only people know is left open.

    preregistration_text(results, reach, date)    preregistration.md, in the shape of OSF's preregistration form
    data_statement(results)                       data-statement.md, after Bender and Friedman 2018 (TACL 6, 587-604)

Neither contains a post. What the plan and the posts do not say stands as `open_place`, with what belongs there.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from common.files import sha256_json
from data.languages import language_name
from report.words import counted, number
from study.fits import TEST
from study.inputs import posts_hash
from study.power import Reach
from study.questions.compared import title_of
from study.results import Results

OPEN = "[To fill in: "


def open_place(what: str) -> str:
    """A place that somebody has to fill in: `[To fill in: who labelled the posts.]`"""
    return f"{OPEN}{what}.]"


def preregistration_text(results: Results, reach: Sequence[Reach], date: str) -> str:
    """The form's headings with the plan's answers; `reach`: of its contrasts, `date`: when the plan was frozen."""
    plan, repeat, kept = results.plan, results.plan.repeat, results.kept
    sets = [f"`{name}`: {_size(results, name)} in {', '.join(map(language_name, results.seen(name)))}"
            for name in plan.sets]
    fits = len({fit.key for fit in results.fits})
    whole = [name for name in plan.sets if all(
        fit.whole for fit in results.fits if (fit.name, fit.kind) == (name, "set"))]
    arm = plan.exposure
    parts = {
        "# Study information": {
            "Title": plan.title,
            "Authors": open_place("who registers the study"),
            "Description": f"{results.runner.model} is fine-tuned on {counted(len(plan.sets), 'set')} of labelled "
                           f"posts that differ in their languages; every model labels the same {len(kept.ids):,} test "
                           f"posts in {counted(len(kept.languages), 'language')}.",
            "Hypotheses": _listed([_hypothesis(results, one) for one in plan.contrasts]) or
            "None: all of the study is exploratory."},
        "# Design plan": {
            "Study type": "Computational experiment: training sets are chosen by the researcher, posts are observed.",
            "Blinding": "Models are trained and asked by a program; nobody chooses among their answers.",
            "Study design": _listed(sets) + (
                f"\n- Added languages: {', '.join(arm.languages)}, each with {', '.join(map(str, arm.rows))} rows on "
                f"top of `{arm.base}`, in {counted(len(arm.draws), 'draw')}, each with "
                f"{counted(len(arm.seeds) or 1, 'seed')}; placebos: "
                f"{', '.join(arm.placebos) or 'none'}"
                if arm.languages else "") + (
                f"\n- Over time: sets trained once more on posts from before {plan.drift.cut} alone, and on as many of "
                "all days" if plan.drift.cut else ""),
            "Randomization": f"Rows are drawn by label with the seeds {_numbers(repeat.draws)}; training has the seeds "
                             f"{_numbers(repeat.seeds)}; both are crossed."
                             + (f" {', '.join(f'`{name}`' for name in whole)} take every row there is, so they have no "
                                "draws." if whole else "")},
        "# Sampling plan": {
            "Existing data": f"{_answered(results)}: the posts and their labels exist, the plan was frozen on {date}, "
                             "and every answer carries its time."
                             + (f" Labels of {', '.join(plan.outside)} existed before; contrasts of these are in the "
                                "plan, not declared." if plan.outside else ""),
            "Data collection procedures": open_place("how posts were collected, sampled and labelled"),
            "Sample size": f"{len(results.material.train):,} training and {len(kept.ids):,} test posts "
                           f"({_by_language(results)}); {fits:,} models.",
            "Sample size rationale": _listed([_rationale(one) for one in reach]) or
            "No contrast is declared, so none has a power.",
            "Stopping rule": "None: every model of the plan is trained and asked once, and all are reported."},
        "# Variables": {
            "Manipulated variables": "The training set; " + "; ".join(
                words for there, words in ((len(repeat.templates) > 1, "the prompt's template"),
                                           (plan.variants.prompts, "another prompt when asking"),
                                           (plan.variants.quantize, "other weights when asking"),
                                           (plan.data.translation, "the post's own text or its translation"),
                                           (True, "the training language of a test post, seen or not")) if there) + ".",
            "Measured variables": f"The label that a model gives to each test post, of "
                                  f"{counted(len(kept.grouping.labels), 'label')} "
                                  f"({', '.join(kept.grouping.labels)}), and its probabilities.",
            "Indices": _listed(sorted({f"{title_of(one.figure)}, {_weight(one)}" for one in plan.contrasts}))},
        "# Analysis plan": {
            "Statistical models": "Each contrast is the mean over all fits of the first set less that of the second. "
                                  "With three seeds or more, and three draws where there are any, its interval is "
                                  "over fits and test posts (Satterthwaite), otherwise over test posts alone, and "
                                  "then it holds for these fits. Means over languages have the stratified jackknife, "
                                  "less its bias.",
            "Transformations": "None of the labels. In every resampling these stay together: "
                               f"{results.material.together}.",
            "Inference criteria": f"Two-sided, at .05 over the family of {counted(len(plan.contrasts), 'contrast')}: "
                                  f"Holm's p, and intervals that hold all at once.",
            "Data exclusion": "Test posts that belong together with a training post, by their text (case, spaces, "
                              "handles and links aside) or otherwise, are answered and left out of the figures: "
                              f"{results.material.why_known('post')}.",
            "Missing data": "An answer outside the labels counts as wrong.",
            "Exploratory analysis": "All that the report shows beside the contrasts, each marked so."},
        "# Other": {
            "Other": f"Plan (SHA-256): {plan.hash}. Training posts: {posts_hash(results.material.train)}. Test posts: "
                     f"{posts_hash(results.material.rows)}. Models: "
                     f"{sha256_json(sorted({f.key for f in results.fits}))}."},
    }
    return _document(parts)


def data_statement(results: Results) -> str:
    """What is known of the posts; nothing of a post's text."""
    material, kept = results.material, results.kept
    files = {name: ", ".join(Path(file).name for file in getattr(results.plan.data, name))
             for name in ("train", "test")}
    labels = Counter(post.label for post in [*material.train, *material.rows])
    total = sum(labels.values())
    lengths = np.array([len(post.text) for post in [*material.train, *material.rows]])
    votes = [list(found.values()) for found in material.votes.values() if len(found) > 1]
    agreed = "No post has labels of two annotators, so their agreement is not known."
    if votes:
        found = material.agreement()
        agreed = (f"On {counted(len(votes), 'test post')} with two annotators or more, Krippendorff's alpha is "
                  f"{number(found['alpha'])}.")
    when = "The plan names no column with dates."
    if results.plan.data.date:
        days = sorted(str(post.extra.get(results.plan.data.date) or "") for post in [*material.train, *material.rows])
        days = [day for day in days if day]
        when = f"Written from {days[0][:10]} to {days[-1][:10]}." if days else "No post has a date."
    counts = Counter(post.language for post in material.train)
    tests = Counter(post.language for post in material.rows)
    lines = [f"{language_name(code)}: {counts[code]:,} training, {tests[code]:,} test posts"
             for code in sorted({*counts, *tests})]
    return _document({"# Data statement": {
        "Curation rationale": open_place("which posts were chosen, from where, and why"),
        "Language variety": f"{_listed(lines)}\n\n{open_place('varieties, scripts, and who found out the languages')}",
        "Speakers": open_place("who wrote the posts; their consent and how they are protected"),
        "Annotators": f"{agreed} "
                      f"{open_place('who labelled the posts, in which languages, how they were trained, paid')}",
        "Speech situation": f"{when} {open_place('platform, to whom the posts were written, how they were prepared')}",
        "Text characteristics": f"{len(lengths):,} posts; characters: median {int(np.median(lengths)):,}, longest "
                                f"{int(lengths.max()):,}. Labels that people gave: "
                                + ", ".join(f"{label} {count / total:.1%}" for label, count in labels.most_common())
                                + ".",
        "Use in this study": f"Training: {files['train']} ({posts_hash(material.train)[:12]}). Test: {files['test']} "
                             f"({posts_hash(material.rows)[:12]}); {len(kept.ids):,} test posts count, "
                             f"{material.why_known('post')} do not.",
        "Licence and ethics": open_place("terms of the platform, licence, review board")}})


def _document(parts: dict[str, dict[str, str]]) -> str:
    return "\n\n".join("\n\n".join([head, *(f"## {name}\n\n{text}" for name, text in own.items())])
                       for head, own in parts.items()) + "\n"


def _listed(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _numbers(values: Sequence[int]) -> str:
    return ", ".join(map(str, values))


def _size(results: Results, name: str) -> str:
    return counted(next(len(fit.keys) for fit in results.fits if (fit.name, fit.kind) == (name, "set")), "row")


def _weight(one) -> str:
    return "each language counting the same" if one.weight == "languages" else "each post counting the same"


def _hypothesis(results: Results, one) -> str:
    codes = results.languages_of(one)
    return (f"`{one.first}` and `{one.second}` differ in {title_of(one.figure)} over {counted(len(codes), 'language')} "
            f"({', '.join(map(language_name, codes))}), {_weight(one)}. Two-sided; null: no difference. Expected "
            f"direction: {open_place('which of the two is expected to be higher, or none')}")


def _answered(results: Results) -> str:
    """OSF's words for how much was known when the plan was frozen."""
    there = len({fit.key for fit in results.fits if results.runner.answers_path(fit, TEST).exists()})
    every = len({fit.key for fit in results.fits})
    return "Registration before any answer of these models" if not there else \
        f"Registration after {there:,} of {counted(every, 'model')} had answered"


def _rationale(one: Reach) -> str:
    return (f"{one.contrast}: the smallest difference shown with 80 per cent is {one.smallest:.3f} with "
            f"{one.design.clusters:,} {one.unit} ({one.basis})" + (
                f"; {one.shortfall()}" if one.shortfall() else "") + ".")


def _by_language(results: Results) -> str:
    counts = Counter(results.kept.language.tolist())
    return ", ".join(f"{language_name(code)} {counts[code]:,}" for code in results.kept.languages)
