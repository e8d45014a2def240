"""A study without models: a plan, the sample posts, and random answers that are better where a language is seen.

`fake_results(tmp_path, text)` is what the questions of a study are tested with; nothing is trained. `few_languages`
is for studies that are drawn: a figure of four languages shows what one of thirteen does, in a third of the time.
Unless a plan names files, the posts are the first 52 of each language, 39 to train on and 13 to test on.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.files import ROOT
from study.fits import make_fits
from study.inputs import read_material
from study.plan import load_plan
from study.results import Results
from study.runner import zero_shot

PLAN = """
title = "A made-up study"
[repeat]
seeds = [1, 2]
draws = [1, 2]
templates = ["instruction-first", "paper"]
[sets]
en = { en = 20 }
es = { es = 20 }
en-es = { en = 20, es = 20 }
multi = { en = 20, es = 20, "*" = 20 }
[exposure]
base = "en-es"
languages = ["tr", "ko"]
rows = [4, 8]
draws = [1, 2]
placebos = ["english", "steps"]
[variants]
prompts = ["authors"]
quantize = ["none"]
[statistics]
draws = 200
p_error = 0.05
[[contrast]]
first = "multi"
second = "en"
languages = ["unseen"]
[[contrast]]
first = "multi"
second = "en"
figure = "stance.end_to_end.accuracy"
"""
HASHES = {"base": "b", "prompt instruction-first": "i", "prompt paper": "p"}


def first_posts(name: str) -> list[str]:
    """The lines of a sample file, "train" or "test", whose posts are among the first 52 of their language."""
    lines = (ROOT / f"data/samples/{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if int(json.loads(line)["id"].rsplit("-", 1)[1]) <= 52]


@dataclass
class FakeRunner:
    """In place of `study.runner.Runner`: what `Results` reads, without any model."""

    plan: object
    material: object
    out: Path
    model: str = "base"
    answered: bool = False

    def read(self, fit, asked) -> dict:
        """Predictions that find the human label more often in the fit's languages, drawn from the fit's key."""
        labels, seen = self.material.codebook.labels, set(fit.languages)
        draw = np.random.default_rng([int(fit.key, 16), sum(map(ord, asked.name))])
        rows = []
        for post in self.material.rows:
            logits = draw.normal(size=len(labels))
            logits[labels.index(post.label)] += 1.6 if post.language in seen else 0.6
            p = np.exp(logits) / np.exp(logits).sum()
            rows.append([post.language, post.id, p.tolist()])
        return {"rows": rows, "seconds": 2.0, "posts": len(rows), "tokens": 60 * len(rows), "dtype": "float32"}

    def answers_path(self, fit, asked) -> Path:
        """A file that is there if `answered` says so."""
        return Path(__file__) if self.answered else self.out / "no-such-file"

    def facts(self, fit) -> dict:
        """The parts of a run.json that a study reads."""
        return {"seconds": 10.0, "posts_seen": 3 * len(fit.keys), "step": 12, "environment": {"device_name": "none"}}


def fake_results(tmp_path: Path, text: str = PLAN) -> Results:
    """`Results` of the plan in `text`."""
    path = tmp_path / "plan.toml"
    path.write_text(text, encoding="utf-8")
    plan = load_plan(path)
    if [*plan.data.train, *plan.data.test] == ["data/samples/train.jsonl", "data/samples/test.jsonl"]:
        for name in ("train", "test"):
            (tmp_path / f"first-{name}.jsonl").write_text("\n".join(first_posts(name)) + "\n", encoding="utf-8")
            setattr(plan.data, name, [str(tmp_path / f"first-{name}.jsonl")])
    material = read_material(plan)
    fits = make_fits(plan, material, HASHES)
    return Results(FakeRunner(plan, material, tmp_path), [*fits, zero_shot(plan, HASHES)])


def few_languages(folder: Path, codes=("en", "es", "tr", "ko")) -> str:
    """The plan's table `[data]` with the sample test posts of a few languages."""
    path = folder / "few.jsonl"
    kept = [line for line in first_posts("test") if json.loads(line)["language"] in codes]
    path.write_text("\n".join(kept) + "\n", encoding="utf-8")
    return f'[data]\ntest = ["{path}"]\n'


def table(section, name):
    return next(one for one in section.tables if one.name == name)
