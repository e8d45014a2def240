"""python -m audit as a program: what it leaves, what its page says, what it refuses.

Deliberate break: leave the escaping out of `audit.picture`, or write audit.json before the page is made.
"""

import json
import os
import re
import shutil

import pytest

from audit import minimal, sections
from audit.page import audit_page, findings
from audit.picture import points, rounded
from audit.provenance import code_sha256
from common.files import sha256_file
from tests.audit.conftest import make
from tests.browser import PROGRAM, Browser
from tests.report.test_page import EVIL, Reader
from tests.small import here, posts, write_jsonl

QUICK = ("--model", "tiny", "--data", "test.jsonl", "--draws", "40", "--threads", "1")


@pytest.fixture(scope="module")
def written(place):
    """One whole audit with pairs of two languages: its folder, and what the program printed."""
    shipped = [path for path in minimal.SHIPPED.iterdir() if path.stem in ("ar", "en")]
    (place / "pairs").mkdir()
    for path in shipped:
        shutil.copy(path, place / "pairs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(minimal, "SHIPPED", place / "pairs")
        return audited(place)


def audited(place):
    make(place, "nf4", "--quantize", "nf4")
    make(place, "attention", "--quantize", "nf4", "--targets", "q_proj", "v_proj")
    (place / "mine.toml").write_text("language = 'en'\n[emoji]\npairs = [['a quiet river', 'a quiet river 🙂']]")
    said = here("audit", "--run", "nf4", "--out", "audited", "--other", "attention", "--pairs", "mine.toml", "--steps",
                "2", "--level", "layer", *QUICK, cwd=place)
    return place / "audited", said


def test_the_report_has_every_part(written):
    folder, said = written
    found = json.loads((folder / "audit.json").read_text(encoding="utf-8"))
    text = Reader((folder / "audit.html").read_text(encoding="utf-8"))
    assert sorted(path.name for path in folder.iterdir()) == ["audit.html", "audit.json"]
    assert set(sections.ALL) <= set(found) and not text.wrong
    assert all(heading in " ".join(text.text) for heading, _ in sections.ALL.values())
    assert found["adapter"]["angles"] and found["provenance"]["replay"]["equal"] == 2
    assert found["own_pairs"]["pairs"] == 1 and found["own_pairs"]["examples"] in ([], [
        {**row, "posts": None} for row in found["own_pairs"]["examples"]])
    plain = " ".join(said.split())
    assert all(" ".join(line.split()) in plain for line in findings(found))
    assert "audited" in said.splitlines()[-1]


def test_posts_of_one_author_belong_together_as_tools_split_kept_them(place, written):
    folder = place / "grouped"
    folder.mkdir()
    write_jsonl(folder / "test.jsonl", posts(20, 2, author=lambda number: f"a{number % 5}"))
    (folder / "split.json").write_text(json.dumps({"options": {"group_by": "author"}}))
    make(place, "own", "--quantize", "nf4")
    quick = ("--run", "own", "--model", "tiny", "--data", "grouped/test.jsonl", "--draws", "40", "--threads", "1",
             "--parts", "adapter", "--level", "layer")
    said = here("audit", *quick, "--out", "by-author", cwd=place)
    assert "posts of one “author” count together in the intervals, as grouped/split.json kept them" in said
    found = json.loads((place / "by-author" / "audit.json").read_text())
    assert (found["posts"], found["groups"], found["group_by"]) == (20, 5, "author")
    alone = json.loads((written[0] / "audit.json").read_text())["adapter"]["all"]
    assert found["adapter"]["all"]["flips"] == alone["flips"] and found["adapter"]["all"]["f1_change_ci"] is None
    assert "the same text or “author”" in (place / "by-author" / "audit.html").read_text()
    here("audit", *quick, "--out", "apart", "--group-by", "none", cwd=place)
    assert json.loads((place / "apart" / "audit.json").read_text())["groups"] == 20
    assert "--group-by nowhere" in here("audit", *quick, "--out", "no", "--group-by", "nowhere", cwd=place, code=2)


def test_the_page_loads_nothing_and_no_string_becomes_markup(written):
    found = json.loads((written[0] / "audit.json").read_text(encoding="utf-8"))
    found |= {"run": EVIL, "data": [EVIL]}
    found["behaviour"]["examples"] = [{"check": EVIL, "language": EVIL, "number": 1, "posts": [EVIL, EVIL],
                                       "labels": [EVIL, EVIL]}]
    found["provenance"]["hashes"][0]["name"] = EVIL
    found["quantisation"]["changed"][0]["name"] = EVIL
    page = Reader(audit_page(found))
    assert not page.wrong and not {"script", "img", "link", "iframe", "a"} & set(page.elements)
    assert not [key for _, key, value in page.attributes if key.startswith("on") or key in ("src", "href")]
    assert EVIL in "".join(page.text)


@pytest.mark.skipif(not PROGRAM, reason="needs chromium")
def test_the_page_fits_its_widths_and_asks_for_nothing(written):
    with Browser() as browser:
        for width in (390, 1200, 1600):
            seen = browser.read(written[0] / "audit.html", width)
            assert seen["scroll_width"] <= width and seen["messages"] == [] and len(seen["requests"]) == 1
            same = "[...document.querySelectorAll('th')].find(one => one.innerText === 'same?')"
            assert browser.value(f"{same}.getBoundingClientRect().right") < width  # what the table is there for


def test_an_axis_ends_at_a_short_number():
    assert [rounded(value) for value in (0.116, 0.177, 1.0, 0.61, 9.9, 2e-7)] == \
        pytest.approx([0.12, 0.2, 1.0, 0.8, 10, 2e-7])


def test_a_picture_keeps_points_within_it():
    text = points([("a", 0.2, [0.1, 0.4]), ("b", 0.0, None)], "KL", EVIL)
    places = [float(x) for x in re.findall(r'(?:cx|x1|x2)="([\d.]+)"', text)]
    assert all(0 <= x <= 360 for x in places) and "<script" not in text


def test_the_run_notes_that_the_posts_were_scored(written, place):
    scored = json.loads((place / "nf4" / "run.json").read_text())["scored"]
    assert scored[-1]["data"] == "test.jsonl" and scored[-1]["n"] == 20


def test_other_runs_say_what_cannot_be_said(place):
    make(place, "dense", "--quantize", "none")
    here("audit", "--run", "dense", "--out", "two", "--parts", "memorisation,quantisation", "--level", "layer", *QUICK,
         cwd=place)
    found = json.loads((place / "two" / "audit.json").read_text())
    assert found["memorisation"]["measured"] and found["memorisation"]["loss"] == "label"
    assert "It was trained to label posts, not to write them." in findings(found)[0]
    assert found["quantisation"]["state"] == "dense" and "put into 4 bits" in findings(found)[1]
    assert "adapter" not in found and "behaviour" not in found


@pytest.mark.parametrize("words, said", [
    (("--out", "tiny"), "holds something that is no audit"),
    (("--pairs", "none.toml"), "none.toml: there is no such file"),
    (("--other", "tiny"), "tiny: has no run.json"),
    (("--parts", "adaptr"), "did you mean 'adapter'"),
    (("--data", "train.jsonl"), "were trained on"),
    (("--level", "block"), "not one of auto, matrix, layer"),
])
def test_what_is_refused_leaves_nothing(place, words, said):
    make(place, "nf4", "--quantize", "nf4")
    options = [*QUICK, "--out", "refused", *words]
    if words[0] == "--data":
        options = ["--model", "tiny", "--out", "refused", *words]
    assert said in here("audit", "--run", "nf4", *options, cwd=place, code=2)
    assert not (place / "refused").exists()


def test_the_audit_says_what_was_audited_and_leaves_no_note_if_asked(place, tmp_path):
    make(place, "nf4", "--quantize", "nf4")
    before = (place / "nf4" / "run.json").read_bytes()
    said = here("audit", "--run", place / "nf4", "--out", tmp_path / "out", "--parts", "memorisation", "--no-note",
                *QUICK, cwd=place)
    assert (place / "nf4" / "run.json").read_bytes() == before
    found = json.loads((tmp_path / "out" / "audit.json").read_text())
    about = found["identity"]
    assert found["run"] == "nf4" and str(place) not in (tmp_path / "out" / "audit.html").read_text()
    assert about["data"] == [{"name": "test.jsonl", "sha256": sha256_file(place / "test.jsonl")}]
    assert about["trained"]["posts"] == 24 and about["dtype"] == "float32" and about["threads"] == 1
    assert about["code_sha256"] == code_sha256() and about["packages"]["torch"] and about["date"][:4] >= "2026"
    assert found["known"] == {"rule": "same", "all": 20, "kept": 20, "dropped": 0, "exact": 0, "same": 0,
                              "near": found["known"]["near"], "from_data": True}
    assert "Rates of so few posts say little." in " ".join(said.split())
    assert "run.json gets a note" in " ".join(helped(place).split())


def helped(place) -> str:
    return here("audit", "--help", cwd=place)


def test_near_copies_are_counted(place, tmp_path):
    make(place, "nf4", "--quantize", "nf4")
    train = [json.loads(line) for line in (place / "train.jsonl").read_text().splitlines()]
    rows = posts(20, 2)
    longest = max(train, key=lambda row: len(row["text"]))
    rows[0]["text"] = longest["text"] + " indeed"
    write_jsonl(tmp_path / "near.jsonl", rows)
    here("audit", "--run", "nf4", "--out", tmp_path / "out", "--parts", "memorisation", "--no-note", "--model", "tiny",
         "--data", tmp_path / "near.jsonl", "--draws", 0, "--threads", 1, cwd=place)
    assert json.loads((tmp_path / "out" / "audit.json").read_text())["known"]["near"] == 1


def test_names_of_a_run_do_not_reach_the_terminal_as_they_are(place, tmp_path):
    shutil.copytree(make(place, "nf4", "--quantize", "nf4"), tmp_path / "run")
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    facts["hashes"]["data"] = {"x\x1b[2J\x9b31m\u202egnp.exe": "0" * 64}
    (tmp_path / "run" / "run.json").write_text(json.dumps(facts))
    said = here("audit", "--run", tmp_path / "run", "--out", tmp_path / "out", "--parts", "provenance", *QUICK,
                cwd=place)
    assert not {"\x1b", "\x9b", "\u202e"} & set(said) and "x\\x1b[2J\\x9b31m\\u202egnp.exe" in "".join(said.split())


def test_a_hostile_file_of_the_run_costs_no_measurement(place, tmp_path):
    """What it breaks is said in the page, which is written."""
    shutil.copytree(make(place, "nf4", "--quantize", "nf4"), tmp_path / "run")
    (tmp_path / "run" / "log.jsonl").unlink()
    os.mkfifo(tmp_path / "run" / "log.jsonl")
    (tmp_path / "run" / "adapter-last" / "adapter_model.safetensors").write_bytes(b"garbage")
    said = here("audit", "--run", tmp_path / "run", "--out", tmp_path / "out", "--parts", "provenance", *QUICK,
                cwd=place)
    assert "No step could be done again" in " ".join(said.split()) and "a pipe or a device" in " ".join(said.split())
    assert (tmp_path / "out" / "audit.html").exists()
