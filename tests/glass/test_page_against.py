"""Two of anything on the page: its numbers stand in the file that is recomputed, and live it follows what is chosen.

Deliberate break: in glass/page/against.js forget a `data-stage`, or that a language is selected; in glass/shown.py give
the residual's distances for the heads'.
"""

import numpy as np
import pytest

from glass import trace
from glass.against import compared
from glass.other import other_run
from glass.page import frozen
from glass.server import serving
from glass.tax import SENTENCES
from glass.verify import stored
from tests.browser import Browser, until
from tests.glass.numbers_shown import NUMBERS
from tests.glass.test_page import browser_only, changed_adapter, data_of


def test_every_number_of_the_comparison_stands_in_the_file_that_is_recomputed(run):
    two = changed_adapter(other_run(run, "16-bit"))
    found = compared(trace(run, "They open the border."), trace(two, "Lasst sie bleiben, عبرنا"), "another adapter")
    data, (tensors, _) = data_of(frozen(found))["against"], stored(found)
    assert data["text"] == "Lasst sie bleiben, عبرنا" and data["words"] == "another adapter"
    for number, layer in enumerate(data["layers"]):
        for name, shown in layer.items():
            if shown is not None:
                np.testing.assert_allclose(shown, tensors[f"against.{number}.{name}"], rtol=1e-5)
    np.testing.assert_allclose(data["probabilities"], tensors["against.labels.probabilities"], rtol=1e-5)
    for name in ("differs", "residual", "reading"):
        assert np.array_equal(data["parted"][name], tensors[f"against.parted.{name}"])
    for row, one in enumerate(data["updates"]):
        assert one["cosine"] == pytest.approx(tensors["against.updates.cosine"][row], rel=1e-5)
        np.testing.assert_allclose(one["spectra"], tensors["against.updates.spectra"][:, row], rtol=1e-5)
        for side in ("writes", "reads"):
            np.testing.assert_allclose(one[side], tensors[f"against.updates.{side}"][row], rtol=1e-5)


@browser_only
def test_the_live_page_holds_what_was_kept_against_what_is_typed(run):
    """Another post, another model, a part of the adapter; typing into B's post goes on through every answer."""
    with Browser() as browser, serving(run, "first post") as address:
        browser.call("Page.navigate", url=address)
        until(browser, "document.getElementById('matrix')", "the first post")
        browser.value("document.getElementById('keep').click()")
        browser.value("document.getElementById('post').focus(); document.getElementById('post').select()")
        browser.call("Input.insertText", text="open the gate")
        until(browser, "document.querySelector('[data-stage=\"against.parted\"]')", "the post that was kept, compared")
        until(browser, "document.querySelector('.both')", "both labels")
        browser.value("document.getElementById('against-text').focus()")
        browser.value("document.getElementById('against-text').select()")
        for piece in ("open", " the", " door"):
            browser.call("Input.insertText", text=piece)
            until(browser, "[...document.querySelectorAll('.post')].some(n => n.textContent.endsWith('" + piece + "'))",
                  piece)
        for language in ("fr", "de", "ko"):  # faster than the answers come: the last choice is what stays
            browser.value("{ const s = document.getElementById('against-sentence'); "
                          f"s.value = '{SENTENCES[language]}'; s.dispatchEvent(new Event('change')); }}")
        until(browser, f"[...document.querySelectorAll('.post')].some(n => n.textContent == '{SENTENCES['ko']}')", "ko")
        assert browser.value("document.getElementById('against-sentence').value") == SENTENCES["ko"]
        browser.value("const w = document.getElementById('against-what'); w.value = '16-bit'; "
                      "w.dispatchEvent(new Event('change'))")
        until(browser, "document.body.textContent.includes('B is the base in 16 bits')", "the base in 16 bits")
        browser.value("document.getElementById('part').value = 'q_proj'; "
                      "document.getElementById('part').dispatchEvent(new Event('change'))")
        browser.value("document.getElementById('part-get').click()")
        until(browser, "document.getElementById('part-factor')", "the strengths of a part")
        assert browser.value("!!document.querySelector('.both')")
        named = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        assert not [event["params"] for event in browser.events if event.get("method") in named]
        assert browser.value(NUMBERS)[0] == [], "a number without a stage"
