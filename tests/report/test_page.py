"""The page and the tables: self-contained, safe from any string, with first lines that agree with the numbers.

Deliberate break: let `markup.escape` return `Html(text)` and test_no_string_becomes_markup turns red.
"""

import json
import random
import re
from html.parser import HTMLParser

import numpy
import pytest

from common.errors import UserError
from report import figures, tables
from report.markup import Html, escape, facts, tag
from report.metrics import Scored, dropped_section, score
from report.page import page, write_page
from report.tables import label_table, language_table
from report.words import findings, unbroken

LABELS = ("pro", "anti", "neutral", "unrelated")
EVIL = '<script>alert("1")</script>&\'"><img src=x onerror=alert(1)>$x_1^2$'
STEPS = [{"step": i, "loss": 1 / i} for i in range(1, 40)] + [{"step": 39, "validation": {"macro_f1": 0.5, "n": 3}}]
EMPTY = {"meta", "br", "img", "path", "use", "rect", "link", "hr", "input"}


def scored(rows=240, labels=LABELS, related=LABELS[:3], languages=("en", "es", "tr", "ko"), right=0.6, seed=0, **more):
    rng = random.Random(seed)
    gold = [rng.choice(labels) for _ in range(rows)]
    predicted = [g if rng.random() < right else rng.choice(labels) for g in gold]
    p = numpy.full((rows, len(labels)), 0.4 / len(labels))
    for i, name in enumerate(predicted):
        p[i, labels.index(name)] += 0.6
    of_row = [rng.choice(languages) for _ in range(rows)]
    return Scored([f"id-{i}" for i in range(rows)], gold, predicted, of_row, labels, p, related, **more)


class Reader(HTMLParser):
    """Collects elements, attributes, ids and visible text, and end tags that do not match their start tags."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.attributes, self.open, self.wrong, self.text = [], [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, name, attributes):
        self.elements.append(name)
        self.attributes += [(name, key, value or "") for key, value in attributes]
        if name not in EMPTY:
            self.open.append(name)

    def handle_startendtag(self, name, attributes):
        self.elements.append(name)
        self.attributes += [(name, key, value or "") for key, value in attributes]

    def handle_endtag(self, name):
        if name in EMPTY:
            return
        if not self.open or self.open.pop() != name:
            self.wrong.append(name)

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("style", "script"):
            self.text.append(data)


def check_sound(text):
    """Check that the page is well-formed, without script or address, and has each id once; return the reader."""
    reader = Reader(text)
    assert reader.wrong == [] and reader.open == []
    assert not {"script", "img", "iframe", "object", "embed", "link", "form", "base", "b", "i"} & set(reader.elements)
    ids = [value for _, key, value in reader.attributes if key == "id"]
    assert len(ids) == len(set(ids))
    for name, key, value in reader.attributes:
        assert not key.startswith("on"), (name, key)
        if key in ("src", "href", "xlink:href", "action", "data", "srcset"):
            assert re.fullmatch(r"#[\w-]+", value) and value[1:] in ids, (name, key, value)
    assert not re.search(r"https?:|//\w|@import|@font-face|javascript:", re.sub(r"data:image/\S+", "", text))
    assert all(found in ids for found in re.findall(r"url\(#([\w-]+)\)", text))
    assert "url(" not in re.sub(r"url\(#[\w-]+\)", "", text)
    return reader


def test_page_of_an_evaluation_holds_all_parts_and_asks_nobody():
    parts = scored(extra={"client": ["web", "app"] * 120})
    section = dropped_section({"same text in training": 28}, score(scored(seed=1), draws=20))
    metrics = score(parts, seen_languages=("en", "es"), by=("client",), draws=50, dropped=section)
    facts_of_run = {"seed": 3, "recipe": {"lora": {"r": 16}}, "exposure": [{"language": "tr", "ratio": 9.615e-11}],
                    "prompt": {"text": "two\nlines"}, "sha256": "ab" * 32, "nothing": None}
    text = page(json.loads(json.dumps(metrics)), facts_of_run, steps=STEPS, agreement={"en": 0.81, "all": None})
    reader = check_sound(text)
    shown = " ".join(" ".join(reader.text).split())
    for words in ("Turkish", "Not seen in training", "Posts left out", "same text in training",
                  "all rows, as published", "By client", "probabilities honest", "Training", "9.615e-11", "ab" * 32,
                  "0.810", "Krippendorff",
                  "given that it was found related", "How to read this", "Brier score, log loss"):
        assert words in shown, words
    assert reader.elements.count("svg") == 2 * 5  # each for a desk and for a phone
    assert ("meta", "name", "viewport") in reader.attributes and "@media print" in text
    assert "id-0" not in text  # no row appears by itself


def test_page_opens_with_the_three_lines():
    metrics = score(scored(), seen_languages=("en",), draws=50)
    reader = Reader(page(metrics))
    lines = [unbroken(line) for line in findings(metrics)]
    assert len(lines) == 3 and "\u00a0%" in lines[0]  # no line ends between a number and its sign
    shown = "".join(reader.text)
    places = [shown.index(line) for line in lines]
    assert places == sorted(places) and places[0] < shown.index("How often the model is right")


def test_no_string_becomes_markup():
    labels = tuple(f"{EVIL}{k}" for k in range(4))
    one = scored(labels=labels, related=labels[:3], languages=(EVIL, "en"), extra={EVIL: [EVIL + "a", "b"] * 120})
    section = dropped_section({EVIL: 3}, score(one, draws=10))
    metrics = score(one, seen_languages=(EVIL,), by=(EVIL,), draws=10, dropped=section)
    posts = [{"id": EVIL, "language": EVIL, "text": EVIL, EVIL: EVIL}, {"text": "مرحبا \x00 \ud800"}]
    nested = {EVIL: {EVIL: [EVIL, {EVIL: EVIL}]}, "table": [{EVIL: EVIL, "file": f"/tmp/{EVIL}"}], "text": f"{EVIL}\n"}
    text = page(metrics, nested, steps=STEPS, posts=posts, title=EVIL, caution=EVIL, names={"en": EVIL},
                agreement={"en": 0.5}, agreement_name=EVIL)
    reader = check_sound(text)
    shown = "".join(reader.text)
    assert shown.count(EVIL) > 20 and "<script" not in text and "<img" not in text
    text.encode("utf-8")  # lone surrogates would fail here
    assert "\x00" not in text


def test_posts_appear_only_when_asked_for():
    metrics = score(scored(), draws=10)
    assert "Posts" not in Reader(page(metrics)).text
    shown = "".join(Reader(page(metrics, posts=[{"id": "7", "language": "ko", "text": "새 이웃"}])).text)
    assert "새 이웃" in shown and "Korean" in shown


@pytest.mark.parametrize("case", ["one row", "no rows", "no topic", "no predictions right", "all seen", "twelve labels",
                                  "training only", "nothing"])  # fmt: skip
def test_every_kind_of_run_has_a_page(case):
    names = tuple(f"label {k}" for k in range(12))
    metrics, steps = {
        "one row": lambda: (score(scored(rows=1), draws=10), ()),
        "no rows": lambda: (score(Scored([], [], [], [], LABELS, None, LABELS[:3]), ("en",), draws=10), ()),
        "no topic": lambda: (score(scored(related=()), ("en",), draws=10), ()),
        "no predictions right": lambda: (score(Scored(["a"], ["pro"], [None], ["en"], LABELS, None, LABELS[:3]),
                                               draws=10), ()),
        "all seen": lambda: (score(scored(languages=("en",)), ("en",), draws=10), STEPS),
        "twelve labels": lambda: (score(scored(labels=names, related=()), draws=10), ()),
        "training only": lambda: (None, STEPS),
        "nothing": lambda: (None, ()),
    }[case]()
    check_sound(page(metrics, {"seed": 1}, steps=steps))
    if metrics:
        language_table(metrics)


def test_same_numbers_same_bytes(tmp_path):
    metrics = score(scored(), seen_languages=("en",), draws=20)
    write_page(tmp_path / "a.html", metrics, steps=STEPS)
    write_page(tmp_path / "b.html", metrics, steps=STEPS)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    for kind in ("png", "svg"):
        figures.save(figures.heat_map(metrics), tmp_path / f"one.{kind}")
        first = (tmp_path / f"one.{kind}").read_bytes()
        figures.save(figures.heat_map(metrics), tmp_path / f"one.{kind}")
        assert (tmp_path / f"one.{kind}").read_bytes() == first
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_page(tmp_path / "file" / "report.html", metrics)


def test_first_line_says_when_a_constant_answer_is_as_good():
    def line(right, seed):
        return findings(score(scored(rows=200, right=right, seed=seed), draws=10))[0]

    assert "more than the" in line(0.9, 1)
    poor = scored(rows=60, right=0.0, seed=2)
    assert "which cannot be told apart from the" in findings(score(poor, draws=10))[0]
    wrong = Scored(poor.ids, poor.gold, [None] * 60, poor.languages, LABELS, None, LABELS[:3])
    lines = findings(score(wrong, draws=10))
    assert "0.0 %" in lines[0] and "less than the" in lines[0] and "60 answers outside the label set" in lines[2]


def test_second_line_claims_a_difference_only_where_its_interval_leaves_out_zero():
    def line(right_unseen, seed=3, rows=600):
        one = scored(rows, languages=("en",), right=0.8)
        two = scored(rows, languages=("ko",), right=right_unseen, seed=seed)
        both = Scored([f"{i}" for i in range(2 * rows)], one.gold + two.gold, one.predicted + two.predicted,
                      one.languages + two.languages, LABELS, None, LABELS[:3])
        return findings(score(both, ("en",), draws=10))[1]

    assert line(0.8).count("no difference can be shown") == 2
    assert line(0.2).count("lower in the unseen") == 2 and "−" in line(0.2)
    assert "cannot be compared" in findings(score(scored(), draws=10))[1]


def test_third_line_counts_small_languages_and_what_was_left_out():
    metrics = score(scored(rows=60), ("en",), draws=10, dropped=dropped_section({"copies": 5}, score(scored(rows=65))))
    line = findings(metrics, caution="scored twice before.")[2]
    assert "all of the 4 languages have fewer than 30 posts" in line and "5 posts left out (with all 65" in line
    one = findings(score(scored(rows=20, languages=("en",)), ("en",), draws=10))[2]
    assert one.startswith("How sure: the only language has fewer than 30 posts")
    assert line.endswith("; scored twice before.") and "not the luck of one training run" in line


def test_terminal_table_is_aligned_and_marks_small_cells():
    metrics = score(scored(rows=400, languages=("en", "en", "en", "ko", "hi", "xx")), ("en",), draws=20)
    metrics["by_language"]["xx"]["accuracy"] = None
    text = language_table(metrics, agreement={"en": 0.8})
    lines = text.split("\n")
    body = [line for line in lines[2 : lines.index("", lines.index("  Not seen in training"))] if "0." in line]
    assert len(body) == 3 + 4
    assert len({len(line) for line in [lines[1], *body]}) == 1
    starts = [m.start() for m in re.finditer(r"(?<= )─", lines[1])]
    assert all(line[start - 1] == " " for line in body for start in starts)
    assert [line.split()[0] for line in body] == ["All", "Seen", "Unseen", "English", "Hindi", "Korean", "xx"]
    assert max(map(len, lines)) <= 112
    assert "unrelated" in label_table(metrics)
    assert "stance: right side" in text and "by sum:" in text
    small = score(scored(rows=20), draws=20)
    small |= {"topic": None, "stance": None}
    small["by_language"] = {code: cell | {"topic": None, "stance": None}
                            for code, cell in small["by_language"].items()}
    assert "acc: accuracy" in language_table(small) and "stance" not in language_table(small)
    assert "20°" in language_table(small) and "†" in language_table(small) and "not estimable" in language_table(small)


def test_loss_curve_reads_the_lines_of_a_log():
    assert figures.loss_curve([]) is None and figures.loss_curve([{"step": 1, "validation": {"macro_f1": 0.1}}]) is None
    text = figures.svg(figures.loss_curve(STEPS), "loss")
    assert "best, 0.500 at step 39" in text
    values = numpy.array([3.0, 3.0, 3.0])
    assert figures.smoothed(values) == pytest.approx(values)  # corrected for its start
    assert figures.smoothed(numpy.array([1.0, 2.0]))[1] == pytest.approx((1.0 * 0.8 + 2.0) / 1.8)


def test_markup_by_hand():
    assert tag("td", "<b>", class_="n") == '<td class="n">&lt;b&gt;</td>'
    assert tag("p", Html("<b>x</b>"), id=None) == "<p><b>x</b></p>" and escape(None) == "–"
    assert facts({"a_b": True, "n": 12345, "x": 9.615e-11}).count("<dt>") == 3
    assert facts([{}]) == facts([{}, {}]) == facts({}) == facts([]) == "none"  # a table needs columns
    assert facts(["a"] * 20).count("a") == 20 and facts(["b"] * 23).endswith("b, and 3 more")
    long = facts([[f"row {n}", "pro"] for n in range(3000)])  # a run's texts with several labels can be as many
    assert long.count("<li>") == 6 and long.endswith("<li>and 2,995 more</li></ul>")
    assert "12,345" in facts({"n": 12345}) and "9.615e-11" in facts({"x": 9.615e-11}) and "yes" in facts({"a": True})


def test_the_terminal_shows_each_value_of_a_column_up_to_a_number(monkeypatch):
    """Deliberate break: in report/tables.py leave `MOST` out."""
    monkeypatch.setattr(tables, "MOST", 2)
    parties = [("green", "left", "right")[row % 3] for row in range(240)]
    found = score(scored(extra={"party": parties}), by=["party"], draws=20)
    lines = tables.group_tables(found).splitlines()
    assert [line.split()[0] for line in lines if line] == ["party", lines[2].split()[0], "green", "left", "and"]
    assert lines[-1] == "  and 1 more in the report"
