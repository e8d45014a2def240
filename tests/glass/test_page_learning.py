"""A step of learning on the live page: what it did to any post that is typed, and what was chosen under "Four bits".

Deliberate breaks: in glass/page/main.js give `aboutRun` the facts of the model alone; in glass/page/tokens.js leave out
`before`; in glass/server.py leave `self.block` as it was.
"""

import re
from contextlib import nullcontext

import pytest

from glass import server
from glass.server import serving
from tests.browser import Browser, until
from tests.glass.numbers_shown import NUMBERS
from tests.glass.test_page import STEPS, browser_only

OTHER = "open the gate"
NOW = "[...document.querySelectorAll('.labels .n:not(.soft)')].slice(0, 4).map(n => Number(n.textContent))"
BEFORE = "[...document.querySelectorAll('.labels .n.soft')].map(n => Number(n.textContent))"
MEASURED = "document.getElementById('measured').textContent"
MARKS = "[...document.querySelectorAll('button.ask')].map(n => n.getAttribute('aria-label'))"
WARNED = "document.getElementById('about').textContent.includes('not the run as it was')"


@browser_only
def test_beside_the_label_stands_how_often_it_is_right_and_what_speaks_for_it(run, monkeypatch):
    """Deliberate breaks: in glass/page/tokens.js forget `index`; in glass/page/why.js say `ofMarks` of letters."""
    monkeypatch.setitem(run.folder.facts, "scored", [{"data": "my/test.csv", "data_sha256": "", "n": 20,
                                                      "accuracy": 0.8}])
    with Browser() as browser, serving(run, "!?") as address:
        browser.call("Page.navigate", url=address)
        until(browser, "document.getElementById('matrix')", "the post")
        assert browser.value(MEASURED).endswith(
            "80.0 % of 20 posts (test.csv) got the label that their file gives them; 95 % interval 58.4 to 91.9 %.")
        assert browser.value(NUMBERS)[0] == [], "a number without a stage or a file"
        marks, some = browser.value(MARKS), []
        assert marks == ["what speaks for " + label for label in run.codebook.labels]
        for index in range(len(marks)):
            browser.value(f"document.querySelectorAll('button.ask')[{index}].click()")
            assert browser.value("[document.getElementById('why').value, document.activeElement.id]") == [
                str(index), "why"]
            some.append(browser.value("document.querySelector('[aria-labelledby=h-why] ul').textContent"))
        assert any("A mark is a token like any other" in one for one in some)
        assert all(re.search(r"the post is then (still )?“[^”]+”", one) for one in some)  # a label may be called "for"
        head = browser.value("document.querySelectorAll('table.why th')[2].textContent")
        assert head.startswith("lowers, raises it: ±")
        whose = browser.value("[...document.querySelectorAll('.whose')].map(one => one.textContent)")
        assert whose and set(whose) <= {f"for “{label}”" for label in run.codebook.labels}
        assert browser.value("document.querySelector('[aria-labelledby=h-why] a').getAttribute('href')") == "#h-labels"


@browser_only
def test_beside_every_label_stands_what_it_was_before_any_step(run, monkeypatch):
    made, answers = server.Answers, []
    monkeypatch.setattr(server, "Answers", lambda *some, **more: answers.append(made(*some, **more)) or answers[0])

    def probabilities(text):
        with answers[0].lock if answers else nullcontext():  # the page's server may be at other strengths just now
            return pytest.approx(list(run.label([text])[0].probabilities.values()), abs=6e-5)

    before = probabilities("first post"), probabilities(OTHER)
    with Browser() as browser, serving(run, "first post") as address:
        browser.call("Page.navigate", url=address)
        until(browser, "document.getElementById('matrix')", "the first post")
        browser.value("document.getElementById('block').value = 9;"
                      "document.getElementById('block').dispatchEvent(new Event('change'))")
        until(browser, "document.querySelector('[data-stage=bits]').textContent.startsWith('Block 9 of')", "a block")
        assert browser.value(BEFORE) == [] and not browser.value(WARNED)
        browser.value("document.getElementById('step').click()")
        until(browser, f"{BEFORE}.length == 4", "the labels before the step")
        assert browser.value(BEFORE) == before[0] and browser.value(NOW) == probabilities("first post") != before[0]
        assert browser.value(WARNED)
        browser.value("document.getElementById('post').focus(); document.getElementById('post').select()")
        browser.call("Input.insertText", text=OTHER)
        until(browser, "[...document.querySelectorAll('.token')].some(n => n.textContent.includes('gate'))", "typed")
        until(browser, f"{BEFORE}.length == 4 && document.getElementById('matrix')", "the other post's labels before")
        assert browser.value(BEFORE) == before[1] and browser.value(NOW) == probabilities(OTHER) != before[1]
        assert browser.value("document.getElementById('block').value") == "9"
        assert browser.value(MEASURED) == "How often is this run right? Nobody knows yet: eval.py has not tested it."
        assert browser.value(NUMBERS)[0] == [], "a number without a stage"
        assert browser.value("document.getElementById('undone')") is None
        browser.value("document.getElementById('undo').click()")
        until(browser, f"{STEPS} == 'no step taken' && document.getElementById('matrix')", "undone")
        assert browser.value("document.getElementById('undone').textContent") == "undone: back to before step 1"
        until(browser, f"{BEFORE}.length == 0 && !{WARNED}", "nothing to compare any more")
        assert browser.value(NOW) == before[1]
        until(browser, "document.getElementById('against-what').value == ''", "B is chosen no more")


@browser_only
def test_an_emptied_box_does_not_pass_for_the_post_before(run):
    """Deliberate break: in glass/page/main.js leave out `toggle`."""
    shade = "getComputedStyle(document.querySelector('[aria-labelledby=h-why]').parentElement).opacity"
    error = "document.querySelector('.error').textContent"
    with Browser() as browser, serving(run, "first post") as address:
        browser.call("Page.navigate", url=address)
        until(browser, "document.getElementById('matrix')", "the post")
        typed = "const box = document.getElementById('post'); box.value = %r; box.dispatchEvent(new Event('input'))"
        browser.value(f"(() => {{ {typed % ' '} }})()")
        until(browser, f"{error}.endsWith('what stands below is the previous post')", "the error")
        assert "nothing of it can be seen" in browser.value(error) and float(browser.value(shade)) < 0.5
        browser.value(f"(() => {{ {typed % OTHER} }})()")
        until(browser, f"{error} === '' && {shade} === '1'", "the other post")
