"""The glass for every reader: names, tables, colours, and targets that a finger finds.

Deliberate breaks: in glass/page/style.css set `--c3` back to #d9a441 or take the height from `button.ask`; in
glass/page/base.js let `columnHead` make a title of nothing.
"""

import importlib

import pytest

from common.files import ROOT
from glass import trace
from glass.against import compared
from glass.learning import with_steps
from glass.page import FOLDER, frozen
from glass.whole import whole_trace
from tests.browser import Browser, until
from tests.glass.test_page import browser_only
from tests.page_rules import faults, schemes, too_alike, too_pale

INKS = dict.fromkeys(("--ink", "--soft"), ("--paper", "--tint")) | {"--ink": ("--paper", "--tint", "--mark"),
                                                                    "--heat": ("--paper",)}
COLOURS = dict.fromkeys((*(f"--c{k}" for k in range(6)), "--size", "--plus", "--minus", "--focus"),
                        ("--paper", "--tint"))
# What can be pressed or chosen and is less than 24 pixels wide or high (WCAG 2.2, 2.5.8).
SMALL = """
[...document.querySelectorAll('button, summary, select, input, textarea')].filter(one => {
  const box = one.getBoundingClientRect();
  return box.width && (box.width < 24 || box.height < 24);
}).map(one => one.textContent)
"""
POST = "\u05e9\u05dc\u05d5\u05dd " + "Wort" * 40 + " \u202e</script><img src=x onerror=alert(1)>"


def test_colours_stand_out_in_light_and_in_dark():
    css = (FOLDER / "style.css").read_text(encoding="utf-8")
    assert too_pale(css, INKS, 4.5) == [] and too_pale(css, COLOURS, 3) == []


def test_colours_of_labels_differ_for_eyes_without_one_kind_of_cone():
    """Deliberate break: make `--c1` of style.css #c8553d again, which looks like `--c3` without the middle cones."""
    for colours in schemes((FOLDER / "style.css").read_text(encoding="utf-8")):
        assert too_alike({name: colours[name] for name in (f"--c{k}" for k in range(6))}, 20) == []
    assert any("deuteranopia" in pair for pair in too_alike({"red": "#c8553d", "ochre": "#b07d1a"}, 20))


@pytest.fixture(scope="module")
def browser():
    with Browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def path(run, tmp_path_factory):
    path = tmp_path_factory.mktemp("glass") / "page.html"
    whole = with_steps(run, whole_trace(trace(run, POST), ROOT / "base"), "neutral")
    path.write_text(frozen(compared(whole, trace(run, "first post"))), encoding="utf-8")
    return path


@browser_only
@pytest.mark.parametrize("width", [320, 390, 1200])
def test_the_page_keeps_the_rules_with_all_of_it_open(browser, path, width):
    browser.read(path, width)
    for each in ("document.querySelectorAll('details').forEach(one => one.open = true); 1",
                 "document.getElementById('step').click()",
                 "document.querySelector('[data-open=\"layers.1.attention\"]').click()"):
        browser.value(each)
    until(browser, "document.querySelector('.stage pre mark')", "the stage's code")
    browser.value("document.querySelectorAll('details').forEach(one => one.open = true)")
    until(browser, "document.querySelectorAll('.tokens').length == 3", "the whole row")
    assert faults(browser.value("document.documentElement.outerHTML")) == []
    assert browser.value(SMALL) == []
    assert browser.value("document.documentElement.scrollWidth") == width


@browser_only
def test_a_label_behind_its_bar_takes_one_line(browser, path, run):
    browser.read(path, 1200)
    longest = max(run.codebook.labels, key=len)
    browser.value(f"document.querySelectorAll('.whose bdi').forEach(one => one.textContent = '{longest}')")
    heights = "[...document.querySelectorAll('.{}')].map(one => one.getBoundingClientRect().height)"
    assert max(browser.value(heights.format("bars .whose"))) == min(browser.value(heights.format("bars .n")))


@browser_only
@pytest.mark.parametrize("width", [320, 390, 1200])
@pytest.mark.parametrize("name", ["blames them for harm or all else", "Donaudampfschifffahrt", "\u063a\u064a\u0631 "])
def test_a_long_label_leaves_its_bar_room(browser, path, width, name):
    """Deliberate break: give `.labels` in style.css the first column `max-content` again."""
    browser.read(path, width)
    browser.value(f"document.querySelectorAll('.labels .name').forEach(one => one.textContent = '{5 * name}')")
    assert browser.value("document.documentElement.scrollWidth") == width
    assert browser.value("Math.min(...[...document.querySelectorAll('.labels .bar')].map(one => one.clientWidth))") > 20


@browser_only
def test_a_phone_shows_the_whole_table_of_a_block(browser, path):
    browser.read(path, 390)
    browser.value("document.querySelectorAll('details').forEach(one => one.open = true)")
    frame = "document.querySelector('[aria-labelledby=h-bits] .frame')"
    assert browser.value(f"{frame}.scrollWidth <= {frame}.clientWidth") is True


@browser_only
def test_a_label_is_written_in_its_own_direction_wherever_it_stands(browser, path):
    """With Latin words in an Arabic label, the two would change their places between the bars and their key."""
    browser.read(path, 1200)
    assert browser.value("[...document.querySelectorAll('.key li')].map(one => one.querySelector('bdi').textContent)")


@browser_only
def test_what_a_chip_has_no_room_for_is_a_table(browser, path, run):
    browser.read(path, 1200)
    browser.value("document.querySelector('[data-fold=row]').open = true")
    until(browser, "document.querySelector('[data-fold=row] table')", "the table")
    rows = browser.value("[...document.querySelectorAll('[data-fold=row] tbody tr')].map(row => [...row.cells].map("
                         "cell => cell.textContent))")
    tokens = trace(run, POST).tokens
    assert len(rows) == len(tokens)
    assert [row[4].replace(" ", "") for row in rows if row[2] == "post"][:3] == [
        token.bytes.hex() for token in tokens if token.part == "post"][:3]


@browser_only
def test_a_strength_is_read_out_as_itself_and_a_post_in_no_language_of_the_page(browser, path):
    browser.read(path, 1200)
    slider = "document.getElementById('factor')"
    browser.value(f"{slider}.value = 0; {slider}.dispatchEvent(new Event('input'))")
    assert browser.value(f"{slider}.ariaValueText") == "0 times as strong"
    assert browser.value("document.querySelector('.post').lang") == ""
    assert browser.value("getComputedStyle(document.querySelector('.post')).direction") == "rtl"


@browser_only
@pytest.mark.parametrize("most", [3, 256])
def test_of_a_long_post_it_is_said_that_only_its_beginning_was_tried(browser, run, tmp_path, monkeypatch, most):
    for module in ("why", "shown"):
        monkeypatch.setattr(f"glass.{module}.MOST", most)
    found = importlib.import_module("glass.why").why(trace(run, "They came here as children; let them stay."))
    (tmp_path / "page.html").write_text(frozen(found), encoding="utf-8")
    browser.read(tmp_path / "page.html", 390)
    said = browser.value("document.querySelector('[aria-labelledby=h-why]').textContent")
    assert ("at most its first 3 words and its first 3 tokens were taken out" in said) == (most == 3)


@browser_only
def test_on_paper_each_label_stands_beside_its_own_bar(browser, path):
    """Deliberate break: leave the columns of `.labels.asked` as they are where no button is printed."""
    browser.read(path, 680)
    browser.call("Emulation.setEmulatedMedia", media="print")
    try:
        assert browser.value("[...document.querySelectorAll('.labels.asked .name')].every((name, index, all) => "
                             "name.getBoundingClientRect().left === all[0].getBoundingClientRect().left)")
        assert browser.value("document.documentElement.scrollWidth") == 680
    finally:
        browser.call("Emulation.setEmulatedMedia", media="")
