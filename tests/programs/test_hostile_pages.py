"""Pages and cards hold strings from anywhere: none of them becomes HTML, and a browser is told to load nothing.

Deliberate break that turns this red: in report/page.py, leave the policy out of the head; in tools/export/card.py, let
`_safe` return its line.
"""

import json
import re

import pytest

import eval as evaluation
from report.figures import STYLE
from report.page import POLICY
from study.report.page import write_study
from tests.programs.hostile import World, call
from tests.study.made_study import made_study
from tools.export import __main__ as export

EVIL = '<script>alert("1")</script>\n\n```\n<img src=x onerror=alert(1)>\n    ~~~\n| <b>&lt;</b>'
HEAD = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'.replace("'", "&#x27;")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study's report whose methods hold HTML, with coarse pictures."""
    folder, made = tmp_path_factory.mktemp("study"), made_study()
    made.methods = f"We fine-tuned {EVIL} & more."
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(STYLE, "savefig.dpi", 40)
        write_study(folder, made)
    return folder


def test_every_report_has_the_policy(world: World, tmp_path, study):
    run = world.copy(world.run, tmp_path)
    ended = call(evaluation.main, "--run", run, "--data", world.test, "--out", "e", "--draws", "5")
    assert ended.code == 0, ended.err
    for page in (run / "report.html", tmp_path / "e" / "report.html", study / "report.html"):
        text = page.read_text(encoding="utf-8")
        assert text.count(HEAD) == 1 and text.index(HEAD) < text.index("<style>"), page
    assert "default-src 'none'" in POLICY and "script-src" not in POLICY


def test_methods_are_markdown_without_html(study):
    text = (study / "methods.md").read_text(encoding="utf-8")
    assert "<" not in text and "&lt;script&gt;" in text and "&amp; more" in text


@pytest.mark.parametrize("place", ["codebook", "languages", "rows", "hashes", "ended"])
def test_a_card_holds_no_html(place, world: World, tmp_path):
    run = world.copy(world.run, tmp_path)
    facts = json.loads((run / "run.json").read_text())
    if place == "codebook":
        facts["codebook"]["name"] = EVIL  # the name is no part of the prompt
    elif place == "languages":
        facts["languages"].append(EVIL)
    elif place == "rows":
        facts["rows"]["train"][EVIL] = facts["rows"]["train"]["en"]
    elif place == "hashes":
        facts["hashes"]["data"][EVIL] = EVIL
    else:
        facts["ended"] = EVIL
    (run / "run.json").write_text(json.dumps(facts))
    ended = call(export.main, "--run", run, "--to", "peft", "--out", "out")
    assert ended.code == 0, ended.err
    text = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    body = text.split("\n---\n", 1)[1]
    outside = re.sub(r"^```\w+\n.*?^```$", "", body, flags=re.MULTILINE | re.DOTALL)
    assert "<" not in outside and "&lt;script>" in outside and not re.search(r"^\s*(```|~~~)", outside, re.MULTILINE)
    assert body.count("\n```python\n") == body.count("\n```bibtex\n") == 1
