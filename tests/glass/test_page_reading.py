"""The page without a mouse and without eyes: every control has a name, every picture a text, and keys do all of it.

Deliberate breaks: in glass/page/ leave out a `for`, give a picture neither `aria-hidden` nor words, let `draw`
forget what was focused, or leave `spoken` out of the page.
"""

import time

import pytest

from glass import server
from glass.server import serving
from tests.browser import Browser, until
from tests.glass.test_page import STEPS, browser_only

CONTROLS = {"button", "checkbox", "combobox", "DisclosureTriangle", "image", "img", "link", "listbox", "slider",
            "spinbutton", "textbox"}
KEYS = {"Tab": 9, "Enter": 13, "End": 35, "Home": 36, "ArrowRight": 39, "ArrowDown": 40}
MUTE = """
[...document.querySelectorAll('svg')].filter(one => one.getAttribute('aria-hidden') ?
  !/\\d/.test(one.closest('tr, .bars, .labels, .key, .stage').textContent) && !one.closest('.key') :
  !['img', 'application'].includes(one.getAttribute('role')) || !one.getAttribute('aria-label')).length
"""


def press(browser, key: str, times: int = 1):
    for _ in range(times):
        for kind in ("keyDown", "keyUp"):
            browser.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=KEYS[key],
                         **({"text": "\r"} if key == "Enter" and kind == "keyDown" else {}))


def tab_to(browser, control: str):
    """Press the tabulator until `control`, a selector, has the focus."""
    for _ in range(150):
        press(browser, "Tab")
        if browser.value(f"document.activeElement.matches({control!r})"):
            return
    raise AssertionError(f"no way to {control} by keys")


@pytest.fixture(scope="module")
def page(run):
    """The live page, whose longer part takes as long as that of a larger model."""
    whole = server.whole_trace
    with pytest.MonkeyPatch.context() as patch, Browser() as browser:
        patch.setattr(server, "whole_trace", lambda *given: time.sleep(1.0) or whole(*given))
        with serving(run, "first post") as address:
            browser.call("Page.navigate", url=address)
            until(browser, "document.getElementById('spoken')", "the page")
            browser.value("window.heard = []; new MutationObserver(() => heard.push(document.getElementById('spoken')"
                          ".textContent)).observe(document.getElementById('spoken'), {childList: true}); 1")
            until(browser, "document.getElementById('matrix')", "the first post")
            yield browser


@browser_only
def test_it_is_said_that_something_is_computed_and_what_came_of_it(page, run):
    until(page, "heard.some(one => one.startsWith('computed: '))", "the end")
    heard = page.value("heard")
    answer = run.label(["first post"])[0]
    assert "being computed" in heard[:-1]
    assert heard[-1] == f"computed: {answer.label}, {answer.probabilities[answer.label]:.4f}"
    assert page.value("document.getElementById('spoken').getAttribute('role')") == "status"


@browser_only
def test_every_control_has_a_name_and_every_picture_a_text(page):
    page.value("document.querySelectorAll('details').forEach(one => one.open = true)")
    page.value("document.querySelector('[data-open=\"layers.1.attention\"]').click()")
    until(page, "document.querySelector('.stage pre mark')", "the stage's code")
    page.call("Accessibility.enable")
    found = [(node["role"]["value"], node.get("name", {}).get("value", "").strip())
             for node in page.call("Accessibility.getFullAXTree")["nodes"] if not node["ignored"]]
    assert [role for role, name in found if role in CONTROLS and not name] == []
    roles = [role for role, _ in found]
    assert {"textbox", "slider", "combobox", "button", "image", "spinbutton", "status"} <= set(roles) | (
        {"image"} if "img" in roles else set())
    assert page.value(MUTE) == 0, "a picture without words, and without a number beside it"
    headings = [name for role, name in found if role == "heading"]
    assert headings[0] == "The glass" and {"Tokens", "Why this label", "A step of learning"} <= set(headings)


@browser_only
def test_keys_alone_type_step_undo_turn_and_open(page):
    page.value("document.activeElement.blur()")
    tab_to(page, "#post")
    page.value("document.getElementById('post').select()")
    page.value("heard.length = 0")
    page.call("Input.insertText", text="open the border")
    until(page, "heard.some(one => one.startsWith('computed: ')) && document.getElementById('matrix')", "the post")
    tab_to(page, "#factor")
    press(page, "Home")
    assert page.value("document.querySelector('output').textContent") == "0 times as strong"
    tab_to(page, "#step")
    press(page, "Enter")
    until(page, f"{STEPS} == '1 step taken' && document.getElementById('matrix')", "a step")
    until(page, "document.activeElement.id == 'step'", "the button still has the focus")
    tab_to(page, "#undo")
    press(page, "Enter")
    until(page, f"{STEPS} == 'no step taken' && document.getElementById('matrix')", "undone")
    tab_to(page, "[data-open='layers.0.queries']")
    press(page, "Enter")
    until(page, "document.querySelector('.stage[data-stage=\"layers.0.queries\"] pre mark')", "a stage opened")
    tab_to(page, "svg[aria-label^=attention]")
    said = "document.querySelector('p[aria-live]').textContent"
    before = page.value(said)
    press(page, "ArrowDown")
    assert page.value(said) != before
    named = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
    assert [event["params"] for event in page.events if event.get("method") in named] == []


@browser_only
def test_what_has_the_focus_keeps_it_when_the_rest_of_the_page_comes(page):
    """A name of a stage and a fold, neither of which has an id."""
    for control in ("[data-open=\"layers.0.mlp\"]", "[data-fold=\"row\"] > summary"):
        page.value("document.querySelectorAll('.stage').forEach(one => one.remove())")
        page.value(f"document.querySelector({control!r}).focus()")
        page.value("window.old = document.activeElement; box = document.getElementById('post'); box.value += '!';"
                   "box.dispatchEvent(new Event('input'))")
        until(page, "!document.contains(old)", "the page drawn anew")
        assert page.value(f"document.activeElement.matches({control!r})")
