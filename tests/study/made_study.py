"""A made-up study with everything that a real one may hold: thirteen languages, four train sets, every kind of figure,
missing values, small cells, three further scripts, and text that would like to be markup."""

import random

from report.intervals import wilson
from study.report.section import Claim, Column, FigureSpec, Section, Study, Table

LANGUAGES = ("en", "es", "ar", "de", "fr", "hi", "hu", "id", "it", "ko", "pl", "pt", "tr")
TRAIN = {"en": ("en",), "es": ("es",), "en-es": ("en", "es"), "multi": tuple(c for c in LANGUAGES if c != "ko")}
SHARES = {"en": 89.7, "de": 0.17, "fr": 0.16, "es": 0.13, "it": 0.11, "pl": 0.09, "pt": 0.09, "ko": 0.06, "id": 0.03,
          "hu": 0.03}
LABELS = ("pro-immigration", "anti-immigration", "neutral", "unrelated")
EVIL = "<script>alert('1')</script>&\"$x_1^2$ 100 % #1 ~ \\"
SCRIPTS = "العربية: مرحبا بالعالم (من اليمين) · हिन्दी: नमस्ते दुनिया · 한국어: 안녕하세요 세계"


def transfer(rng) -> Section:
    rows = []
    for name, seen in TRAIN.items():
        for code in LANGUAGES:
            n = {"en": 375, "es": 250}.get(code, 25)
            rate = 0.56 + 0.16 * (code in seen) + 0.08 * (name == "multi") + rng.uniform(-0.12, 0.12)
            hits = round(rate * n)
            low, high = wilson(hits, n)
            missing = (name, code) == ("es", "ko")
            rows.append({"train": name, "test": code, "n": n, "f1": None if missing else hits / n,
                         "low": None if missing else low, "high": None if missing else high,
                         "seen": code in seen, "small": n < 30})
    table = Table("topic", "Topic macro-F1 by train set and test language",
                  [Column("train", "train set"), Column("test", "test language", "language"),
                   Column("n", "posts", "count"), Column("f1", "macro-F1", "rate"), Column("low", "low", "rate"),
                   Column("high", "high", "rate"), Column("seen", "seen", "flag"), Column("small", "small", "flag")],
                  rows, ["Korean was only ever tested.", SCRIPTS])
    names = [("multi − en, unseen languages, each equal", 0.0713), ("multi − es, unseen languages, each equal", 0.0987),
             ("multi − en-es, unseen languages, by posts", 0.0422), ("en − es, by posts", -0.0118)]
    lines = [{"id": f"{7 * 10**17 + k}", "contrast": name, "group": group, "value": None if k == 3 and group[0] == "P"
              else value * (1 if group[0] == "D" else 0.7), "low": value * 0.85 - 0.06, "high": value * 0.85 + 0.06,
              "wide_low": value * 0.85 - 0.09, "wide_high": value * 0.85 + 0.09, "p": 10 ** -(k + 1.5), "small": k == 3}
             for group in ("Declared family", "Per language, partially pooled")
             for k, (name, value) in enumerate(names)]
    contrasts = Table("topic-contrasts", "Contrasts of train sets",
                      [Column("id", "id"), Column("contrast", "contrast"), Column("group", "group"),
                       Column("value", "difference of macro-F1", "difference"), Column("low", "low", "difference"),
                       Column("high", "high", "difference"), Column("wide_low", "low, all at once", "difference"),
                       Column("wide_high", "high, all at once", "difference"), Column("p", "p, Holm", "p"),
                       Column("small", "small", "flag")], lines)
    return Section(
        "topic", "Topic transfer", "Does the topic carry over to languages never seen in fine-tuning?",
        "Mostly: in the made-up numbers the multilingual model gains 7 points of topic F1 in unseen languages over the "
        "English one, and the interval leaves out zero.",
        [Claim("In languages that the English model never saw, training on twelve languages finds the topic better.",
               0.0713, 0.0113, 0.1313, "With these rows and this recipe, topic F1 is higher by 1 to 13 points.",
               "That more languages, and not more rows, are the cause: the multilingual set also holds 750 more.")],
        [table, contrasts],
        [FigureSpec("matrix", "topic", "Higher values stand in the outlined cells, where the language was trained on; "
                    "the row of the multilingual model is the most even.",
                    "That two hatched cells differ: with 25 posts a value is unsure by 20 points.", name="transfer",
                    x="test", y="train", value="f1", outlined="seen", hatched="small", label="n"),
         FigureSpec("forest", "topic-contrasts", "Intervals right of the line: the first model is better.",
                    "That an interval across the line shows equality.", x="value", y="contrast", low="low",
                    high="high", wider_low="wide_low", wider_high="wide_high", series="group", hatched="small")],
        [f"Post texts may hold anything: {EVIL}", SCRIPTS])


def exposure(rng) -> Section:
    rows = []
    for code in ("ar", "hi", "ko", "tr", "hu", "id"):
        for arm, gain in (("added language", 0.05), ("placebo: English rows", 0.012), ("placebo: equal steps", 0.008)):
            for step in (0, 5, 10, 25, 75):
                if (code, step) == ("ko", 75):
                    continue
                y = 0.5 + gain * (step ** 0.4) + rng.uniform(-0.012, 0.012)
                tokens = {"ar": None, "hi": None}.get(code, 9e9)
                rows.append({"language": code, "arm": arm, "rows": step, "f1": y, "low": y - 0.05, "high": y + 0.05,
                             "ratio": tokens and step * 60 / tokens / 900, "few": step == 5})
    table = Table("exposure", "Learning curves", [
        Column("language", "language", "language"), Column("arm", "what was added"),
        Column("rows", "rows added", "count"), Column("f1", "stance macro-F1", "rate"), Column("low", "low", "rate"),
        Column("high", "high", "rate"), Column("ratio", "exposure ratio", "number"),
        Column("few", "small", "flag")], rows)
    return Section(
        "exposure", "Minimal exposure", "How few rows of a language help?",
        "From 25 rows on the curve of the added language leaves those of both placebos in the made-up numbers.",
        [Claim("Seventy-five rows of a language against as many English rows: its stance F1.", 0.1241,
               -0.0139, 0.2621, "The estimate is 12 points, and no difference is within the interval.",
               "That an exposure ratio of 10⁻¹¹ corrects a bias: the ratio's denominator is a guess.")],
        [table], [FigureSpec("curves", "exposure", "The solid line rises above both placebos.",
                             "That the ratio above is exact: shares of pre-training are published for another model.",
                             x="rows", y="f1", low="low", high="high", series="arm", facet="language",
                             second="ratio", hatched="few")])


def bias(rng) -> Section:
    rows = []
    for code in LANGUAGES:
        for when, gain in (("before", 0.0), ("after 75 rows", 0.06)):
            n = {"en": 375, "es": 250}.get(code, 25)
            hits = round(n * min(0.95, 0.6 + gain + rng.uniform(-0.12, 0.12)))
            low, high = wilson(hits, n)
            rows.append({"language": code, "share": SHARES.get(code), "when": when, "accuracy": hits / n, "low": low,
                         "high": high, "small": n < 30})
    table = Table("share", "Accuracy and pre-training share", [
        Column("language", "language", "language"), Column("share", "share of pre-training, per cent", "number"),
        Column("when", "when"), Column("accuracy", "accuracy", "rate"), Column("low", "low", "rate"),
        Column("high", "high", "rate"), Column("small", "small", "flag")], rows,
        ["Llama 2's published shares (2023); Llama 3 published none."])
    return Section("bias", "Pre-training share", "Is accuracy higher where pre-training held more of a language?",
                   "No relation can be shown among ten listed languages; English alone carries any slope.",
                   [Claim("Accuracy is not shown to go with the share of pre-training.", 0.21, -0.44, 0.73,
                          "Ten languages cannot tell a rank correlation of 0.2 from none.",
                          "That pre-training share does not matter.", "correlation")], [table],
                   [FigureSpec("scatter", "share", "Ten languages on the scale, three in the strip.",
                               "That unlisted languages have a share of zero.", x="share", y="accuracy", low="low",
                               high="high", label="language", series="when", hatched="small")], exploratory=True)


def answers(rng) -> Section:
    bins = [{"model": model, "p": k / 10 + 0.05, "right": min(1, max(0, k / 10 + 0.05 - bend + rng.uniform(-.03, .03))),
             "low": max(0, k / 10 - 0.06), "high": min(1, k / 10 + 0.1), "n": 40 + 20 * k}
            for model, bend in (("multi", 0.03), ("en", 0.1)) for k in range(2, 10)]
    cells = []
    for code in LANGUAGES:
        for i, gold in enumerate(LABELS):
            shares = [rng.random() + (2.2 if i == k else 0) for k in range(4)]
            n = 0 if (code, i) == ("ko", 2) else rng.randint(3, 9)
            cells += [{"language": code, "gold": gold, "model": name, "n": round(n * share / sum(shares)),
                       "share": share / sum(shares) if n else None, "small": code not in ("en", "es")}
                      for name, share in zip(LABELS, shares, strict=True)]
    return Section("answers", "Answers and probabilities", "What is taken for what, and are probabilities honest?",
                   "The English model is more sure than right.", [], [
                       Table("bins", "Reliability", [
                           Column("model", "model"), Column("p", "stated probability", "rate"),
                           Column("right", "share that is right", "rate"), Column("low", "low", "rate"),
                           Column("high", "high", "rate"), Column("n", "answers", "count")], bins),
                       Table("confusion", "Confusion by language", [
                           Column("language", "language", "language"), Column("gold", "human label"),
                           Column("model", "the model's label"), Column("n", "posts", "count"),
                           Column("share", "share of the row", "rate"), Column("small", "small", "flag")], cells)],
                   [FigureSpec("reliability", "bins", "Points below the dashed line: more sure than right.",
                               "That a bin with few answers is off.", x="p", y="right", low="low", high="high",
                               value="n", series="model"),
                    FigureSpec("confusion", "confusion", "Framed cells are right answers.",
                               "That panels of 25 posts differ.", name="by-language", x="model", y="gold",
                               value="share", label="n", facet="language", hatched="small")])


def cost() -> Section:
    rows = [{"way": way, "who": who, "price": price} for way, who, price in (
        ("1B, 4 bits, one H100", "own machine", 0.41), ("3B, 16 bits, one H100", "own machine", 1.9),
        ("3B, two CPU cores", "own machine", 23.5), ("GPT-4o mini, batch", "API", 31.0), ("GPT-4o", "API", 1043.0),
        ("not priced", "API", None))]
    speed = [{"way": f"batch of {n}", "rate": 40.0 * n ** 0.6} for n in (1, 4, 16, 64)]
    return Section("cost", "Speed and cost", "What does a million posts cost?", "From under one to a thousand dollars.",
                   [], [Table("cost", "Cost of a million posts", [
                       Column("way", "way"), Column("who", "whose"), Column("price", "US dollars", "number")], rows),
                       Table("speed", "Speed", [Column("way", "way"), Column("rate", "posts per second", "number")],
                             speed)],
                   [FigureSpec("bars", "cost", "Each line is ten times the last.", "That prices stay.", x="price",
                               y="way", series="who", log=True),
                    FigureSpec("bars", "speed", "Larger batches are faster.", "That any machine does this.", x="rate",
                               y="way")])


def made_study(seed: int = 0, **more) -> Study:
    rng = random.Random(seed)
    values = {
        "title": "Topic and stance across languages", "created": "2026-01-31",
        "note": "Made-up numbers: they show the page, not a finding.",
        "plan": {"name": "made", "languages": list(LANGUAGES), "train": {k: list(v) for k, v in TRAIN.items()}},
        "manifest": {"base": {"name": "embedded", "sha256": "0a" * 32, "bits": 4}, "lora": {"rank": 64, "alpha": 32},
                     "seeds": [0, 1, 2], "learning_rate": 2e-4, "deterministic": True, "outside": None},
        "sections": [transfer(rng), exposure(rng), bias(rng), answers(rng), cost()],
        "methods": "We fine-tuned a base model on four sets of languages & scored it on thirteen.\n\n"
                   "Rates carry Wilson intervals; 5 % of nothing is nothing.",
        "cells": [{"train_set": name, "seed": seed, "rows": 100 * k, "minutes": 2.5 * k, "hash": "ab12" * 5}
                  for k, name in enumerate(TRAIN, 1) for seed in (0, 1)],
    }
    return Study(**{**values, **more})
