"""Every page for every reader: the rules of tests/page_rules.py on the pages of evaluations, runs and measurements.

Deliberate breaks: in report/markup.py give `grid`'s frame no `aria_label`, or let headings of rows have the `scope`
"colgroup"; in report/page.css make `--soft` a shade lighter than #767676.
"""

import json
from collections import Counter

import pytest
from matplotlib.colors import to_rgb
from matplotlib.text import Text

from benchmarks.card.page import page as card_page
from bulk.page import Counts
from bulk.page import page as bulk_page
from report import figures
from report.colours import contrast
from report.metrics import Scored, dropped_section, score
from report.page import STYLE, page
from report.words import findings
from tests.browser import PROGRAM, Browser
from tests.page_rules import Tree, faults, too_pale
from tests.report.test_page import LABELS, STEPS, scored

NAMES = tuple(f"a rather long name of a label, number {k}" for k in range(20))
LANGUAGES = ("en", "es", "tr", "ko", "ar", "he", "de", "fr", "hi", "hu", "id", "it", "pl")
POSTS = [{"id": "1", "language": "ar", "left_out": False, "predicted": "pro",
          "probabilities": {"pro": 0.75, "anti": 0.25}, "text": "\u202eمرحبا"},
         {"id": "2", "language": "de", "left_out": True, "predicted": None, "probabilities": None, "text": "Wort" * 90}]


def metrics_of(case: str):
    return {
        "plain": lambda: score(scored(400, extra={"client": ["web", "app"] * 200}), ("en",), by=("client",), draws=20,
                               dropped=dropped_section({"copies": 5}, score(scored(60), draws=5))),
        "many labels and languages": lambda: score(scored(900, NAMES, NAMES[:9], LANGUAGES), ("en",), draws=5),
        "one post": lambda: score(scored(rows=1), draws=5),
        "no posts": lambda: score(Scored([], [], [], [], LABELS, None, LABELS[:3]), ("en",), draws=5),
        "training alone": lambda: None,
    }[case]()


CASES = ["plain", "many labels and languages", "one post", "no posts", "training alone"]


@pytest.mark.parametrize("case", CASES)
def test_a_report_keeps_the_rules(case):
    facts = {"seed": 1, "exposure": [{"language": "tr", "ratio": 1e-11}]}
    text = page(metrics_of(case), facts, steps=STEPS, posts=POSTS)
    assert faults(text) == []


def test_the_pages_of_labels_and_of_a_card_keep_the_rules(tmp_path):
    counts = Counts(date="day")
    for row in ({"predicted": "pro", "language": "en", "day": "2024-01-02"}, {"predicted": "", "error": "has no text"}):
        counts.add(row, "day")
    counts.decide()
    files = {"a.csv": {"input": "a", "counts": {"rows": 2}, "sha256": "ab" * 32}}
    assert faults(bulk_page(counts, files, tmp_path, Counter())) == []
    part = {"title": "Speed", "figures": [{"what": "rate", "value": 1.5, "unit": "1/s", "goal": "2", "met": False}]}
    assert faults(card_page({"rehearsal": True, "parts": {"speed": part}})) == []


def test_the_rules_find_what_they_look_for():
    assert faults('<html><title></title><h1>a</h1><h3 title="b">c</h3><p tabindex="0"></p><svg></svg><table><tbody><tr>'
                  '<td>d</td></tr><tr><th scope="colgroup">e</th></tr></tbody></table>') == [
        "no language", "no title", "0 of main", "h3 behind h1", "h3: words that only a mouse shows",
        "p takes the focus and has no name", "picture without words", "table without a name",
        ": columns without titles", ": d should head its row", ": e heads neither its row nor its part"]
    assert too_pale(":root { --a: #777777; --b: #ffffff }", {"--a": ("--b",)}, 4.5) == ["--a on --b: 4.48"]


def test_text_stands_out_in_light_and_in_dark():
    css = STYLE.read_text(encoding="utf-8")
    assert css.count("prefers-color-scheme: dark") == 1
    assert too_pale(css, dict.fromkeys(("--ink", "--soft", "--mark"), ("--paper", "--wash")), 4.5) == []


@pytest.mark.parametrize("width", [figures.WIDE, figures.NARROW])
@pytest.mark.parametrize("case", CASES[:3])
def test_numbers_in_a_picture_stand_out_from_their_cells(case, width):
    """Deliberate break: write white on every cell above a half."""
    metrics = metrics_of(case)
    for figure in (figures.heat_map(metrics, None, width), figures.confusion_matrix(metrics, width)):
        ax = figure.axes[0]
        cells = {(round(box.get_x() + 0.48), round(box.get_y() + 0.4)): box.get_facecolor() for box in ax.patches}
        for text in ax.texts:
            x, y = text.get_position()
            ground = min(cells, key=lambda at: abs(at[0] - x) + abs(at[1] + 0.08 - y))
            assert contrast(text.get_color(), to_rgb(cells[ground])) >= 4.5, text.get_text()


def test_words_and_lines_of_pictures_stand_out_from_the_paper():
    """Lines that no axis or grid has carry meaning: 3 to 1; words: 4.5 to 1."""
    metrics = metrics_of("one post")
    drawn = [figures.intervals_by_language(metrics), figures.loss_curve(STEPS),
             figures.reliability(metrics_of("plain"))]
    for ax in (ax for figure in drawn for ax in figure.axes):
        for text in ax.findobj(Text):
            assert contrast(text.get_color(), "white") >= 4.5, text.get_text()
        for line in ax.lines:
            assert contrast(line.get_color(), "white") >= 3


def test_a_row_of_the_matrix_without_posts_has_dashes():
    figure = figures.confusion_matrix(metrics_of("one post"))
    shares = [text.get_text() for text in figure.axes[0].texts if not text.get_text().isdigit()]
    assert sorted(shares) == sorted(["–"] * 12 + ["0 %"] * 3 + ["100 %"])


def test_names_of_many_labels_lie_on_lines_of_their_own():
    for width in (figures.WIDE, figures.NARROW):
        ax = figures.confusion_matrix(metrics_of("many labels and languages"), width).axes[0]
        names = [label.get_text() for label in ax.get_yticklabels()]
        assert len(set(names)) == 20 and not any("\n" in name for name in names)
        assert [label.get_text() for label in ax.get_xticklabels()][:3] == ["1", "2", "3"]


def test_what_a_picture_shows_is_a_table_as_well():
    metrics = json.loads(json.dumps(metrics_of("plain")))
    tables = {node.label: node for node in Tree(page(metrics)).root.every("table")}
    spanish = next(row for row in tables["Accuracy by language, with intervals"].every("tr") if "Spanish" in row.text)
    topic = metrics["by_language"]["es"]["topic"]
    low, high = topic["accuracy_ci"]
    assert spanish.children[3].text == f"{topic['accuracy']:.3f}[{low:.2f}, {high:.2f}]"
    counts = tables["Posts by human label (rows) and the model's label (columns)"].every("tbody")[0].every("tr")
    assert [int(cell.text) for cell in counts[0].children[1:-2]] == metrics["confusion"]["counts"][0][:-1]
    bins = tables["Probability of the answer, and share of right answers"].every("tbody")[0].every("tr")
    assert [int(row.children[1].text) for row in bins] == [b["n"] for b in metrics["calibration"]["bins"]]


def test_a_listed_post_is_in_its_own_language_and_its_numbers_are_words():
    table = Tree(page(metrics_of("plain"), posts=POSTS)).root.every("table")[-1]
    assert table.label == "Posts"
    titles = [cell.text for cell in table.every("thead")[0].every("th")]
    assert titles == ["id", "text", "language", "left out", "predicted", "probabilities"]
    first, second = (row.children for row in table.every("tbody")[0].every("tr"))
    assert first[1].children[0].attributes == {"lang": "ar"} and first[1].attributes["dir"] == "auto"
    assert first[3].text == "no" and second[3].text == "yes" and second[5].text == "–"
    assert [part.text for part in first[5].children] == ["pro 0.750", "anti 0.250"]


def test_short_titles_are_explained_where_they_stand():
    text = "".join(node.text for node in Tree(page(metrics_of("plain"))).root.every("details"))
    assert text.count("n: posts; acc: accuracy") == 2 and "detected: over those found related" in text


def test_nothing_is_said_about_a_stance_that_no_post_has():
    assert "–" not in findings(metrics_of("one post"))[1]


@pytest.mark.skipif(not PROGRAM, reason="needs Chromium (apt-get install chromium)")
@pytest.mark.parametrize("case", CASES)
def test_in_a_browser_no_page_scrolls_sideways(case, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(page(metrics_of(case), {"a_name": "x" * 300}, steps=STEPS, posts=POSTS), encoding="utf-8")
    with Browser() as browser:
        for width in (320, 390, 1200):
            assert browser.read(path, width)["scroll_width"] == width
            browser.value("document.querySelectorAll('details').forEach(one => one.open = true)")
            assert browser.value("document.documentElement.scrollWidth") == width
