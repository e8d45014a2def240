"""The study's figures on a desk and a phone, intervals that leave their axis, and legends of what is drawn.

Deliberate break: let `looks.whisker` draw its line without the arrow, or give `heat.matrix` its old size (no
`data.width`), and the tests of arrows and widths turn red; or take `section .cards` out of study.css, and that of the
boxes does.
"""

import pytest

from report.figures import NARROW, WIDE
from study.questions.compared import of_cells
from study.questions.pretraining_share import bias
from study.report.figures import figure_of, interval_picture
from study.report.looks import Data
from study.report.page import study_page
from study.report.section import Claim, Column, FigureSpec, Table
from study.write_up import make_study
from tests.browser import BOXES, PROGRAM, Browser
from tests.report.test_page_folds import PHONE, SMALLEST, inside_of, pictures_of
from tests.study.fake_study import PLAN as STUDY
from tests.study.fake_study import fake_results, few_languages
from tests.study.made_study import LANGUAGES, made_study
from tests.study.test_question_pretraining_share import PLAN, write_shares

FIGURES = {spec.name: (spec, table) for table, spec in made_study().figures}


@pytest.fixture(scope="module")
def text():
    return study_page(made_study())


def test_every_picture_is_drawn_for_a_desk_and_for_a_phone(text):
    found = pictures_of(text)
    assert [which for which, *_ in found] == ["desk", "phone"] * len(FIGURES)
    for which, width, sizes in found:
        assert width == pytest.approx(72 * {"desk": WIDE, "phone": NARROW}[which])
        assert which == "desk" or min(sizes) * PHONE / width >= SMALLEST - 1.1  # a few grey notes are smaller


@pytest.mark.parametrize("name", FIGURES)
def test_nothing_in_a_figure_leaves_it(name):
    for width in (WIDE, NARROW, 0.0):
        inside_of(figure_of(*FIGURES[name], width))


@pytest.mark.skipif(not PROGRAM, reason="needs Chromium (apt-get install chromium)")
def test_in_a_browser_figures_fill_the_page_and_the_phone(text, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(text, encoding="utf-8")
    shown = "[...document.querySelectorAll('figure svg')].filter(s => s.getClientRects().length)"
    with Browser() as browser:
        for width, column in ((1200, 1024), (390, PHONE)):
            assert browser.read(path, width)["scroll_width"] == width
            found = browser.value(f"{shown}.map(s => s.getBoundingClientRect().width)")
            assert found == pytest.approx([column] * len(FIGURES), abs=2)


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """The page of a whole study of random answers, with all of its sections, cells and hashes."""
    folder = tmp_path_factory.mktemp("real")
    study = make_study(fake_results(folder, STUDY + few_languages(folder)), {"base": "b" * 64}, "A note. " * 9)
    page = folder / "page.html"
    page.write_text(study_page(study), encoding="utf-8")
    return page


def check_boxes(page):
    """Nothing is cut, scrolls sideways or lies on another box at four widths, every fold opened."""
    with Browser() as browser:
        for width in (390, 800, 1200, 1600):
            browser.read(page, width)
            assert browser.value(BOXES) == [], width
            assert browser.value("document.documentElement.scrollWidth") == width


@pytest.mark.skipif(not PROGRAM, reason="needs Chromium (apt-get install chromium)")
def test_in_a_browser_no_box_is_cut_scrolls_or_lies_on_another(text, tmp_path):
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    check_boxes(tmp_path / "page.html")


@pytest.mark.slow
@pytest.mark.skipif(not PROGRAM, reason="needs Chromium (apt-get install chromium)")
def test_in_a_browser_no_box_of_a_whole_study_does(real):
    check_boxes(real)


def bars(rows, log):
    columns = [Column("way", "way"), *(Column(key, key, "number") for key in ("price", "low", "high"))]
    spec = FigureSpec("bars", "t", "", "", x="price", y="way", low="low", high="high", log=log)
    return figure_of(spec, Table("t", "", columns, rows)).axes[0]


@pytest.mark.parametrize("low, high, arrows", [(1.5, 40.0, ""), (0.0, 40.0, "<"), (0.001, 40.0, "<"),
                                               (2.0, 5000.0, ">"), (-1.0, 5000.0, "<>")])
def test_an_interval_that_leaves_a_log_axis_has_an_arrow_there(low, high, arrows):
    ax = bars([{"way": "a", "price": 3.0, "low": low, "high": high}, {"way": "b", "price": 30.0}], True)
    left, right = ax.get_xlim()
    drawn = {line.get_marker(): line.get_xdata()[0] for line in ax.lines if line.get_marker() in ("<", ">")}
    assert drawn == {mark: {"<": left, ">": right}[mark] for mark in arrows}
    assert all(left <= x <= right for line in ax.lines for x in line.get_xdata())


def test_a_long_name_is_broken_between_its_words():
    spec, table = FIGURES["transfer"]
    name = "multi − en, stance.given_detection.accuracy, unseen"
    lines = Data(spec, table, NARROW).lines(name)
    assert lines.split("\n") == ["multi − en, stance.", "given_detection.", "accuracy, unseen"]
    assert Data(spec, table).lines(name) == name


def test_a_plain_axis_grows_with_its_intervals():
    ax = bars([{"way": "a", "price": 3.0, "low": -1.0, "high": 9.0}], False)
    assert ax.get_xlim()[0] <= -1 and ax.get_xlim()[1] >= 9
    assert not [line for line in ax.lines if line.get_marker() in ("<", ">")]


@pytest.mark.parametrize("value, low, high, arrows, caps, points", [
    (0.1, -0.2, 0.25, 0, 2, 1), (0.1, -0.2, 0.7, 1, 1, 1), (0.1, -1.5, 2.0, 2, 0, 1), (0.9, 0.2, 2.0, 1, 1, 0)])
def test_the_small_picture_s_interval_has_an_arrow_where_it_leaves(value, low, high, arrows, caps, points):
    picture = interval_picture(Claim("a", value, low, high, "", ""), 0.3)
    assert [picture.count(f'class="{name}"') for name in ("beyond", "cap", "point")] == [arrows, caps, points]


def legend_of(spec, rows, table):
    figure = figure_of(spec, Table(table.name, table.title, table.columns, rows))
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def test_a_legend_explains_only_what_is_drawn():
    spec, table = FIGURES["transfer"]
    whole = legend_of(spec, table.rows, table)
    assert {"seen in training", "small cell", "– not estimable"} <= set(whole)
    plain = [{**row, "seen": False, "small": False, "f1": row["f1"] or 0.5} for row in table.rows]
    assert not {"seen in training", "small cell", "– not estimable"} & set(legend_of(spec, plain, table))
    spec, table = FIGURES["by-language"]
    assert any("small cell" in words for words in legend_of(spec, table.rows, table))
    plain = [{**row, "small": False} for row in table.rows]
    assert not any("small cell" in words for words in legend_of(spec, plain, table))


def test_a_matrix_without_small_cells_speaks_of_none():
    table = FIGURES["transfer"][1]
    assert "hatched" in of_cells(table)
    plain = Table("t", "", table.columns, [{**row, "small": False} for row in table.rows])
    assert "hatched" not in of_cells(plain) and of_cells(plain).startswith("That ")



def test_a_scatter_speaks_of_its_strip_and_of_english_only_where_they_are(tmp_path):
    def caption(shares):
        return bias(fake_results(tmp_path, PLAN + write_shares(tmp_path, shares))).figures[0].caption

    every = {code: 0.1 + 0.01 * k for k, code in enumerate(LANGUAGES)}
    assert "English" not in caption(every)  # its share is the smallest here
    every["en"] = 89.7
    assert "English" in caption(every) and "strip" not in caption(every)
    without = {code: share for code, share in every.items() if code != "en"}
    assert "English" not in caption(without) and "strip" in caption(without)
