"""The study's page and folder: self-contained, true to its tables, unbroken by any text, read in a real browser.

Deliberate breaks: round in `csv_text` (`repr(value)` -> `f"{value:.2f}"`) and
test_numbers_on_the_page_are_the_csv_files turns red; take `overflow-x` out of page.css and a browser's test does.
"""

import csv
import io
import json
import re
from dataclasses import asdict, replace

import pytest

from common.errors import UserError
from report.figures import STYLE
from report.page import POLICY
from study.report.page import study_page, write_study
from study.report.section import Claim, Column, Section, Table
from study.report.tables import shown
from tests.browser import PROGRAM, Browser
from tests.page_rules import faults
from tests.report.test_page import Reader, check_sound
from tests.study.made_study import EVIL, SCRIPTS, made_study

needs_browser = pytest.mark.skipif(not PROGRAM, reason="needs Chromium (apt-get install chromium)")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("study") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(STYLE, "savefig.dpi", 40)
        write_study(place, made_study())
    return place


@pytest.fixture(scope="module")
def text(folder):
    return (folder / "report.html").read_text(encoding="utf-8")


class Tables(Reader):
    """The cells of every table by the id of the element around it."""

    def __init__(self, text):
        self.tables, self.name = {}, None
        super().__init__(text)

    def handle_starttag(self, name, attributes):
        super().handle_starttag(name, attributes)
        of = dict(attributes).get("id", "")
        if of.startswith("table-"):
            self.name = of.removeprefix("table-")
            self.tables[self.name] = []
        if name == "tr" and self.name:
            self.tables[self.name].append([])
        if name in ("td", "th") and self.name:
            self.tables[self.name][-1].append("")

    def handle_endtag(self, name):
        super().handle_endtag(name)
        if name == "table":
            self.name = None

    def handle_data(self, data):
        super().handle_data(data)
        if self.name and {"td", "th"} & set(self.open) and self.tables[self.name]:
            self.tables[self.name][-1][-1] += data


def test_page_is_one_sound_file_that_asks_nobody(text):
    reader = check_sound(text)
    assert reader.elements.count("figure") == 8 and "script" not in reader.elements
    assert ("meta", "content", POLICY) in reader.attributes and "default-src 'none'" in POLICY
    assert SCRIPTS in "".join(reader.text) and EVIL in "".join(reader.text)


def test_page_opens_with_three_claims_and_their_limits(text):
    shown_text = " ".join(" ".join(Reader(text).text).split())
    first = shown_text[: shown_text.index("The questions")]
    for _, claim in made_study().first_claims:
        for words in (claim.text, claim.may_say, claim.may_not_say, shown(claim.low, "difference")):
            assert words in first
    assert first.count("One may not say") == 3 and first.count("Exploratory") == 1


def test_numbers_on_the_page_are_the_csv_files(folder, text):
    tables = Tables(text).tables
    study = made_study()
    assert set(tables) == {table.name for table in study.tables}
    for table in study.tables:
        lines = list(csv.reader(io.StringIO((folder / "tables" / f"{table.name}.csv").read_text(encoding="utf-8"))))
        assert lines[0] == [column.key for column in table.columns]
        assert tables[table.name][0] == [column.title for column in table.columns]
        assert len(lines) == len(tables[table.name]) == len(table.rows) + 1
        for saved, cells, row in zip(lines[1:], tables[table.name][1:], table.rows, strict=True):
            for word, cell, column in zip(saved, cells, table.columns, strict=True):
                if column.kind in ("text", "language", "flag"):
                    value = None if word == "NA" else word == "TRUE" if column.kind == "flag" else word
                else:
                    value = None if word == "NA" else int(word) if column.kind == "count" else float(word)
                assert value == row[column.key] and shown(value, column.kind) == cell


def test_folder_holds_what_the_page_speaks_of(folder):
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    study = made_study()
    wanted = {f"figures/{spec.name}.{kind}" for _, spec in study.figures for kind in ("png", "svg")}
    wanted |= {f"tables/{table.name}.csv" for table in study.tables}
    assert names == wanted | {"report.html", "study.json", "methods.md", "table.tex", "tables/columns.csv",
                              "tables/read.R"}
    assert json.loads((folder / "study.json").read_text(encoding="utf-8")) == asdict(study)
    assert (folder / "figures" / "transfer.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_no_string_becomes_markup():
    study = made_study()
    evil = [Table("t", EVIL, [Column("a", EVIL), Column("n", EVIL, "rate")], [{"a": EVIL, "n": 0.5}], [EVIL])]
    section = Section("s", EVIL, EVIL, EVIL, [Claim(EVIL, None, None, None, EVIL, EVIL)], evil, [], [EVIL], True)
    text = study_page(replace(study, title=EVIL, created=EVIL, sections=[section], methods=EVIL, first=[], latex=["t"],
                              plan={EVIL: EVIL}, manifest={EVIL: [EVIL]}, cells=[{EVIL: EVIL}], note=EVIL))
    reader = check_sound(text)
    assert "".join(reader.text).count(EVIL) > 15 and "<script" not in text and "not estimable" in text


def test_page_without_claims_figures_or_cells_is_a_page():
    bare = made_study(sections=[Section("s", "One", "What?", "Nothing.")], cells=[], first=[], latex=[])
    check_sound(study_page(bare))
    assert "makes no claims" in study_page(bare)


def test_other_files_stay_and_a_study_that_cannot_be_written_leaves_the_old_one(tmp_path):
    small = made_study(sections=[Section("s", "One", "What?", "Nothing.")], first=[], latex=[])
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells" / "run.json").write_text("{}")
    write_study(tmp_path, small)
    write_study(tmp_path, small)
    assert (tmp_path / "cells" / "run.json").exists()
    broken = made_study()
    broken.sections[0].tables[0].rows.append(broken.sections[0].tables[0].rows[0])  # twice in the matrix
    before = (tmp_path / "report.html").read_bytes()
    with pytest.raises(ValueError, match="two rows for one cell"):
        write_study(tmp_path, broken)
    assert (tmp_path / "report.html").read_bytes() == before and not list(tmp_path.glob(".*"))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_study(tmp_path / "file", small)


@needs_browser
def test_a_browser_reads_it_at_phone_and_desk_width(folder, tmp_path):
    with Browser() as browser:
        for width in (390, 1280):
            seen = browser.read(folder / "report.html", width)
            assert seen["requests"] == [(folder / "report.html").resolve().as_uri()]
            assert seen["messages"] == [] and seen["blocked"] == []
            assert seen["scroll_width"] == width  # tables and figures scroll in their own boxes
            assert len(seen["png"]) > 50_000
            browser.value("document.querySelectorAll('details').forEach(d => { d.open = true }); 0")
            assert browser.value("document.documentElement.scrollWidth") == width
        words = browser.value("document.body.innerText")
        assert re.sub(r"\s", "", SCRIPTS) in re.sub(r"\s", "", words)
        found = "getComputedStyle([...document.querySelectorAll('li')].find(e => e.innerText.startsWith('العربية')))"
        assert browser.value(f"{found}.direction") == "rtl"


@needs_browser
def test_the_browser_test_can_fail(tmp_path):
    page = tmp_path / "bad.html"
    page.write_text("<!DOCTYPE html><meta name=viewport content='width=device-width'><img src='gone.png'>"
                    "<div style='width:900px'>wide</div><script>console.error('no')</script>")
    with Browser() as browser:
        seen = browser.read(page, 390)
        assert len(seen["requests"]) == 2 and seen["messages"] and seen["scroll_width"] > 390
        policed = tmp_path / "policed.html"
        policed.write_text(f'<!DOCTYPE html><meta http-equiv="Content-Security-Policy" content="{POLICY}">'
                           "<img src='gone.png'><script>document.title = 'ran'</script>")
        assert browser.read(policed, 390)["blocked"] == ["csp"]
        assert browser.value("document.title") != "ran"


def test_the_page_keeps_the_rules_for_every_reader():
    """Deliberate break: make the claims of a section `h4` in study/report/page.py."""
    assert faults(study_page(made_study())) == []
