"""The texts that a study is registered and published with: filled from the plan, open where nobody but people know.

Deliberate break: in study/statements.py leave the languages out of `_hypothesis`, or put a post's text into
`data_statement`.
"""

import re

from study.plan import Outside
from study.power import power
from study.report.page import write_study
from study.statements import OPEN, data_statement, preregistration_text
from tests.study.fake_study import fake_results
from tests.study.made_study import made_study

OSF = ("Title", "Authors", "Description", "Hypotheses", "Study type", "Blinding", "Study design", "Randomization",
       "Existing data", "Data collection procedures", "Sample size", "Sample size rationale", "Stopping rule",
       "Manipulated variables", "Measured variables", "Indices", "Statistical models", "Transformations",
       "Inference criteria", "Data exclusion", "Missing data", "Exploratory analysis", "Other")


def parts(text):
    """Heading -> what stands below it."""
    pieces = re.split(r"^## (.+)$", text, flags=re.MULTILINE)[1:]
    return dict(zip(pieces[::2], map(str.strip, pieces[1::2]), strict=True))


def test_the_preregistration_has_osfs_headings_and_the_plans_answers(tmp_path):
    results = fake_results(tmp_path)
    found = parts(preregistration_text(results, power(results), "2026-03-01T12:00:00+0100"))
    assert tuple(found) == OSF and all(found.values())
    assert "`multi` and `en` differ in topic macro-F1 over 12 languages (Arabic, German," in found["Hypotheses"]
    assert found["Hypotheses"].count("\n- ") == 1 and "Two-sided" in found["Hypotheses"]
    assert "seeds 1, 2; both are crossed" in found["Randomization"]
    assert "frozen on 2026-03-01T12:00:00+0100" in found["Existing data"] and "existed before" not in \
        found["Existing data"]
    assert "Korean 13" in found["Sample size"] and "with 80 per cent is" in found["Sample size rationale"]
    assert "family of 2 contrasts" in found["Inference criteria"] and results.plan.hash in found["Other"]
    assert "another prompt when asking" in found["Manipulated variables"]
    assert OPEN in found["Authors"] and OPEN in found["Data collection procedures"]
    assert found["Existing data"].startswith("Registration before any answer")
    results.runner.answered = True
    late = parts(preregistration_text(results, [], ""))["Existing data"]
    assert late.startswith(f"Registration after {len({fit.key for fit in results.fits})} of ")
    results.plan.outside["theirs"] = Outside("o.jsonl")
    assert "Labels of theirs existed before" in parts(preregistration_text(results, [], ""))["Existing data"]


def test_the_data_statement_counts_and_holds_no_post(tmp_path):
    results = fake_results(tmp_path)
    text = data_statement(results)
    found = parts(text)
    assert "Korean: 26 training, 13 test posts" in found["Language variety"] or "Korean:" in found["Language variety"]
    assert "no column with dates" in found["Speech situation"] and "train.jsonl" in found["Use in this study"]
    assert not [post for post in results.material.rows if post.text in text]
    study = made_study()
    study.statement = text
    for section in study.sections:
        section.figures.clear()  # what takes long
    write_study(tmp_path / "out", study)
    assert (tmp_path / "out" / "data-statement.md").read_text(encoding="utf-8").startswith("# Data statement")
