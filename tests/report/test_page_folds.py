"""What a reader of the page meets first: few columns, folded facts, whole figures, and captions of what is drawn.

Deliberate break: give `figures.confusion_matrix` its old size (`figsize=(1.9 + side * len(columns), ...)`) and
test_every_picture_is_drawn_for_a_desk_and_for_a_phone turns red; take the whole pixels out of report/page.css and the
test in a browser does.
"""

import re

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from report import figures
from report.metrics import Scored, score
from report.page import STYLE, page
from tests.browser import PROGRAM, Browser
from tests.report.test_page import LABELS, STEPS, Reader, scored

FACTS = {"seed": 3, "options": {"rate": 9.615e-11}, "sha256": "ab" * 32}
PHONE = 366  # pixels that a figure has on a screen of 390
SMALLEST = 8  # pixels: the smallest letters that are read without zooming
needs_browser = pytest.mark.skipif(not PROGRAM, reason="needs Chromium (apt-get install chromium)")


class Folds(Reader):
    """Text by where it stands: folded (in a closed `details`) or not; captions; each table's header."""

    def __init__(self, text):
        self.folded, self.outside, self.captions, self.headers, self.foldings = [], [], [], [], []
        super().__init__(text)

    def handle_starttag(self, name, attributes):
        super().handle_starttag(name, attributes)
        if name == "details":
            self.foldings.append(dict(attributes))
        if name == "table":
            self.headers.append([])
        if name == "th" and ("scope", "col") in attributes:
            self.headers[-1].append("")

    def handle_data(self, data):
        super().handle_data(data)
        if self.open and self.open[-1] in ("style", "svg", "text"):
            return
        (self.folded if "details" in self.open and self.open[-1] != "summary" else self.outside).append(data)
        if "figcaption" in self.open:
            self.captions.append(data)
        if "thead" in self.open and self.headers[-1]:
            self.headers[-1][-1] += data


@pytest.fixture(scope="module")
def metrics():
    parts = scored(rows=400, languages=("en", "en", "es", "tr", "ko", "id"), extra={"client": ["web", "app"] * 200})
    return score(parts, seen_languages=("en", "es"), by=("client",), draws=20)


@pytest.fixture(scope="module")
def text(metrics):
    return page(metrics, FACTS, steps=STEPS)


def test_facts_and_options_are_folded_and_printed_open(text):
    seen = Folds(text)
    folded, outside = " ".join(seen.folded), " ".join(seen.outside)
    for words in ("9.615e-11", "ab" * 32):
        assert words in folded and words not in outside
    assert "Facts and options" in outside and all("open" not in found for found in seen.foldings)
    assert "details::details-content" in STYLE.read_text(encoding="utf-8").partition("@media print")[2]


def test_the_first_table_has_six_columns_and_the_rest_is_folded(text, metrics):
    seen = Folds(text)
    first, every = (next(header for header in seen.headers if name in header) for name in ("base", "acc"))
    assert first == ["language", "n", "accuracy", "base", "macro-F1", "topic macro-F1"]
    assert every[-2:] == ["stance", "detected"] and "by sum" in every
    assert "detected" not in seen.outside and "detected" in seen.folded
    low, high = metrics["by_language"]["ko"]["accuracy_ci"]
    assert f"[{low:.2f}, {high:.2f}]" in seen.outside  # the interval stands with its accuracy
    client = seen.headers[next(i for i, header in enumerate(seen.headers) if header[0] == "client")]
    assert client == ["client", "n", "accuracy", "base", "macro-F1", "topic macro-F1"]
    plain = Folds(page(score(scored(related=()), ("en",), draws=10)))
    assert plain.headers[2] == ["language", "n", "accuracy", "base", "macro-F1"]


def pictures_of(text):
    """(class, width in points, texts' sizes) of every picture."""
    found = []
    for which, svg in re.findall(r'<div class="picture (\w+)">(<svg.*?</svg>)', text, flags=re.S):
        sizes = [float(size) for size in re.findall(r"font-size: ([\d.]+)px", svg)]
        found.append((which, float(re.search(r'viewBox="0 0 ([\d.]+)', svg).group(1)), sizes))
    return found


def test_every_picture_is_drawn_for_a_desk_and_for_a_phone(text):
    found = pictures_of(text)
    assert [which for which, *_ in found] == ["desk", "phone"] * 5
    for which, width, sizes in found:
        assert width == pytest.approx(72 * {"desk": figures.WIDE, "phone": figures.NARROW}[which])
        assert which == "desk" or min(sizes) * PHONE / width >= SMALLEST


@pytest.mark.parametrize("width", [figures.WIDE, figures.NARROW])
def test_nothing_in_a_figure_leaves_it(metrics, width):
    twelve = score(scored(labels=tuple(f"a label with the number {k}" for k in range(12)), related=()), draws=10)
    drawn = [figures.intervals_by_language(metrics, None, width), figures.heat_map(metrics, None, width),
             figures.confusion_matrix(metrics, width), figures.confusion_matrix(twelve, width),
             figures.reliability(metrics, width), figures.loss_curve(STEPS, width)]
    for figure in drawn:
        inside_of(figure)


def inside_of(figure):
    """Check that all that is drawn lies within the figure."""
    FigureCanvasAgg(figure)
    figure.draw_without_rendering()
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert box.x0 > -0.03 and box.y0 > -0.03 and box.x1 < width + 0.03 and box.y1 < height + 0.03, (box, width, height)


def captions(metrics, steps=()):
    return " ".join(Folds(page(metrics, steps=steps)).captions)


def test_captions_explain_only_the_colours_that_are_drawn():
    both, seen, unseen, unknown = (captions(score(scored(400), languages, draws=10))
                                   for languages in (("en",), ("en", "es", "tr", "ko"), ("xx",), None))
    assert "Blue squares" in both and "orange dots" in both
    assert "Blue squares" in seen and "orange" not in seen.lower()
    assert "Orange dots: languages not seen" in unseen and "blue" not in unseen.lower()
    assert "blue" not in unknown.lower() and "orange" not in unknown.lower() and "Grey bar" in unknown


def test_captions_and_notes_explain_only_the_marks_that_are_there():
    def outside(metrics):
        reader = Folds(page(metrics))
        return " ".join(reader.outside), " ".join(reader.folded)

    large, folded = outside(score(scored(2000), ("en",), draws=20))
    for mark in ("°", "†", "not estimable"):
        assert mark not in large and mark not in folded
    small = outside(score(scored(60), ("en",), draws=10))[0]
    assert small.count("° fewer than 30 posts") == 2 and small.count("† no interval") == 2
    one_sided = Scored(["a", "b"], ["pro", "pro"], ["pro", "anti"], ["en", "en"], LABELS, None, LABELS[:3])
    assert "not estimable" in outside(score(one_sided, ("en",), draws=10))[0]


def test_captions_say_what_this_run_s_pictures_hold():
    names = tuple(f"label {k}" for k in range(12))
    few, many = captions(score(scored(), draws=10)), captions(score(scored(labels=names, related=()), draws=10))
    assert "the number of posts below it" in few and "the number of posts below it" not in many
    assert "in per cent of the row" in many
    without = captions(None, [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5}])
    assert "validation" not in without and "validation" in captions(None, STEPS)
    terms = " ".join(Reader(page(score(scored(related=()), draws=10))).text)
    assert "which side a related post takes" not in terms and "Specificity" not in terms


@needs_browser
def test_in_a_browser_figures_fill_the_page_and_the_phone(text, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(text, encoding="utf-8")
    shown = "[...document.querySelectorAll('figure svg')].filter(s => s.getClientRects().length)"
    with Browser() as browser:
        for width, column in ((1200, 1024), (390, PHONE)):
            assert browser.read(path, width)["scroll_width"] == width
            assert browser.value("document.querySelector('main').clientWidth") == pytest.approx(column, abs=2)
            found = browser.value(f"{shown}.map(s => s.getBoundingClientRect().width)")
            assert found == pytest.approx([column] * 5, abs=2)
            assert browser.value("[...document.querySelectorAll('figure *')].every("
                                 "e => e.scrollWidth <= Math.max(e.clientWidth, 1) || !e.matches('div'))")
            table = "document.querySelector('section > .scroll')"
            assert browser.value(f"{table}.scrollWidth - {table}.clientWidth") <= 0  # the first table is whole, too
        # On a phone names stay where they are, and their paper covers no row's line: rows are whole pixels high.
        assert browser.value("[...document.querySelectorAll('.wide tr')].filter(row => row.getClientRects().length)"
                             ".every(row => Number.isInteger(row.getBoundingClientRect().height))")
        assert browser.value("getComputedStyle(document.querySelector('.wide')).borderCollapse") == "separate"
        facts = "[...document.querySelectorAll('details dl')].pop().checkVisibility()"
        assert not browser.value(facts)
        browser.call("Emulation.setEmulatedMedia", media="print")
        assert browser.value(facts)
