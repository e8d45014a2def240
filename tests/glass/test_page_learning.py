"""A step of learning on the live page: what it did to any post that is typed, and what was chosen under "Four bits".

Deliberate breaks: in glass/page/main.js give `aboutRun` the facts of the model alone; in glass/page/tokens.js leave out
`before`; in glass/server.py leave `self.block` as it was.
"""

import pytest

from glass.server import serving
from tests.browser import Browser
from tests.glass.numbers_shown import NUMBERS
from tests.glass.test_page import STEPS, browser_only, until

OTHER = "open the gate"
NOW = "[...document.querySelectorAll('.labels .n:not(.soft)')].slice(0, 4).map(n => Number(n.textContent))"
BEFORE = "[...document.querySelectorAll('.labels .n.soft')].map(n => Number(n.textContent))"
WARNED = "document.getElementById('about').textContent.includes('not the run as it was')"


@browser_only
def test_beside_every_label_stands_what_it_was_before_any_step(run):
    def probabilities(text):
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
        assert browser.value(NUMBERS)[0] == [], "a number without a stage"
        browser.value("document.getElementById('undo').click()")
        until(browser, f"{STEPS} == 'no step taken' && document.getElementById('matrix')", "undone")
        until(browser, f"{BEFORE}.length == 0 && !{WARNED}", "nothing to compare any more")
        assert browser.value(NOW) == before[1]
        until(browser, "document.getElementById('against-what').value == ''", "B is chosen no more")
