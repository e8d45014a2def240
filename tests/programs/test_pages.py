"""Every page of the project: its links and anchors lead somewhere, its tables have whole rows, its commands are taken.

Deliberate break: rename a heading that another page links to, leave a cell out of a table, or rename an option of a
program that a page starts.
"""

import re
from functools import cache
from pathlib import Path

import pytest

from common.files import ROOT
from tests.small import here

PAGES = [ROOT / "README.md", *sorted(path for folder in ("docs", "learn", "base", "data/samples", "audit/pairs")
                                     for path in (ROOT / folder).glob("*.md"))]
FENCE = re.compile(r"^```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
STARTED = re.compile(r"python (?:-m )?((?:tools|learn|study|glass|audit|benchmarks)(?:\.[a-z_]+)*|\w+\.py)\b(.*)")
BY_PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def anchors(page: Path) -> set[str]:
    """The names that GitHub gives to a page's headings."""
    heads = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@BY_PAGE
def test_links_lead_somewhere(page):
    for pair in re.findall(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"", FENCE.sub("", page.read_text(encoding="utf-8"))):
        name, _, anchor = "".join(pair).partition("#")
        if not name.startswith("http"):
            target = page.parent / name if name else page
            assert target.exists() and (not anchor or anchor in anchors(target)), pair


@BY_PAGE
def test_a_row_of_a_table_has_as_many_cells_as_its_head(page):
    for table in re.findall(r"(?:^\|.*\n?)+", page.read_text(encoding="utf-8"), re.MULTILINE):
        assert len({line.count("|") for line in table.splitlines()}) == 1, table


@cache
def helped(program: str) -> str:
    return here(program, "--help", cwd=ROOT)


@BY_PAGE
def test_programs_take_the_options_that_pages_give_them(page):
    lines = page.read_text(encoding="utf-8").replace("\\\n", " ").replace("^\n", " ").splitlines()
    for program, words in (found.groups() for line in lines for found in STARTED.finditer(line)):
        module = ROOT / program.removesuffix(".py").replace(".", "/")
        assert module.is_dir() or module.with_suffix(".py").exists(), program
        if program.startswith("learn"):
            continue  # a sub-command has its own --help
        for option in re.findall(r"(?<!\S)--(?:no-)?([a-z][a-z0-9-]*)", re.split(r"[`#]", words)[0]):
            assert re.search(rf"--(\[no-\])?{option}\b", helped(program)) or option == "help", (program, option)


@BY_PAGE
def test_the_base_has_one_name(page):
    assert "embedded base" not in page.read_text(encoding="utf-8").lower()
