"""Does a difference between models hold in all languages alike? Right answers by model and language, languages drawn.

stats/mixed.py takes the test languages as a sample: a random intercept for each, and a random slope for each model in
each. No pre-training share is in it, since a share has one value per language and a dozen of these carry no slope.
"""

import numpy as np

from common.errors import UserError
from report.student import t_quantile
from report.words import counted, number
from stats.mixed import Mixed, fit
from study.report.section import Column, FigureSpec, Section, Table
from study.results import Results

SMALL_SPREAD = 0.001  # an estimate below it is none
LEANS = "the estimate leans towards 0, because the models share posts and counts are means over fits"


def model_by_language(results: Results) -> Section | None:
    """The mixed model's differences and spreads; None with fewer than four languages or two models."""
    names, kept = results.names, results.kept
    if len(names) < 2 or len(kept.languages) < 4:
        return None
    inside = [kept.language == code for code in kept.languages]
    posts = np.array([[chosen.sum()] * len(names) for chosen in inside])
    right = np.array([[np.mean([fit.correct[chosen].sum() for fit in results.recipe(name).values()])
                       for name in names] for chosen in inside])
    question = "Does a difference between models hold in all languages alike?"
    try:
        found = fit(right, posts)
    except UserError as error:
        return Section("languages", "Model by language", question, f"Nothing can be said: {error}.", exploratory=True)
    times = t_quantile(0.95, len(kept.languages) - 1)
    differences = [difference(found, names, k, times) for k in range(1, len(names))]
    cells = [{"model": name, "language": code, "n": int(posts[i, k]), "small": bool(kept.is_small(inside[i])),
              "raw": float(right[i, k] / posts[i, k]), "fitted": expit(found.fixed[k] + found.effects[i, k])}
             for k, name in enumerate(names) for i, code in enumerate(kept.languages)]
    sides = Table("languages_models", f"Right answers less {names[0]}, in the mean language (log odds)", [
        Column("what", "contrast"), Column("model", "model"), Column("value", "log odds", "number"),
        Column("low", "low", "number"), Column("high", "high", "number"), Column("rate", "mean language", "rate"),
        Column("lowest", "lowest language", "number"), Column("highest", "highest language", "number")], differences,
        [f"Spread between languages: {found.intercept:.3f} of the intercept, {found.slope:.3f} of the differences (log "
         f"odds, standard deviations). Intervals: t with {len(kept.languages) - 1} degrees of freedom, languages as a "
         "sample; posts are taken as independent given the language. Lowest and highest: what the model expects in the "
         f"least and the most favourable test language; empty where no spread is shown. {LEANS.capitalize()}."])
    table = Table("languages_cells", "Accuracy by model and language, raw and as fitted", [
        Column("model", "model"), Column("language", "test language", "language"), Column("n", "posts", "count"),
        Column("small", "small cell", "flag"), Column("raw", "raw", "rate"), Column("fitted", "fitted", "rate")], cells,
        ["Fitted values are drawn towards the model's and the language's means, the more so the fewer the posts."])
    answer = answer_of(found, len(kept.languages))
    figure = FigureSpec("forest", sides.name, f"Right of zero: more often right than {names[0]} in the mean language.",
                        "That a difference holds in every language: the table has the least favourable one.",
                        name="languages-models", x="value", y="what", low="low", high="high")
    return Section("languages", "Model by language", question, answer, [], [sides, table], [figure], exploratory=True)


def answer_of(found: Mixed, languages: int) -> str:
    """Whether a spread of the differences is shown, never that there is none."""
    start = f"Over {counted(languages, 'language')}, "
    beside = f"{number(found.intercept)} in log odds (standard deviation)"
    if found.slope < SMALL_SPREAD:
        return (f"{start}no spread of the differences is shown from one language to another, while languages "
                f"themselves spread by {beside}; {LEANS}.")
    return (f"{start}differences between models vary with the language: they spread by {number(found.slope)}, and "
            f"languages themselves by {beside}; {LEANS}.")


def difference(found: Mixed, names: list[str], k: int, times: float) -> dict:
    """One model less the first."""
    value, error = found.less_first(k)
    apart = value + found.effects[:, k] - found.effects[:, 0]
    ends = {"lowest": float(apart.min()), "highest": float(apart.max())} if found.slope >= SMALL_SPREAD else \
        {"lowest": None, "highest": None}
    return {"what": f"{names[k]} − {names[0]}", "model": names[k], "value": value, "low": value - times * error,
            "high": value + times * error, "rate": expit(found.fixed[k]), **ends}


def expit(x: float) -> float:
    return float(1 / (1 + np.exp(-x)))
