"""Speed and cost: the formulas by hand, which machines are priced, what a wrong price table is refused with.

Deliberate break: in study/questions/speed.py forget the 3,600 seconds of an hour; in inference/prices.py let `is_for`
look for a part of a word (an L40S is then priced as an L4); or skip the check of missing keys. All turn red.
"""

from pathlib import Path

import pytest

from common.errors import UserError
from inference.prices import PRICES, Machine, load_prices
from study.questions.speed import speed
from study.report.figures import figure_of, in_numbers, interval_picture
from study.report.section import Study
from tests.study.fake_study import FakeRunner, fake_results, table

PLAN = """
{data}
[sets]
en = {{ en = 20 }}
multi = {{ en = 20, es = 20, "*" = 20 }}
[exposure]
base = "en"
languages = ["tr"]
rows = [4]
draws = [1]
[statistics]
draws = 200
"""
CPU = {"device": "cpu", "device_name": "x86_64", "threads": 2}
TABLE = """
currency = "EUR"
[[machine]]
name = "small"
device = "cpu"
per_hour = 0.36
source = "a page"
date = "2025-01"
checked = true
[[machine]]
name = "large"
device = "H100"
per_hour = 3
source = "a page"
date = "2025-01"
[[api]]
name = "an API"
input = 2.5
output = 10.0
source = "a page"
date = "2025-02-03"
[[published]]
name = "somebody"
kind = "speed"
ratio = 26
ratio_to = 168
source = "a paper"
date = "2025-12"
"""


def study(tmp_path, monkeypatch, environment, prices: str | None = TABLE, seconds=lambda fit: 2.0,
          plan: str = PLAN):
    data = ""
    if prices is not None:
        (tmp_path / "prices.toml").write_text(prices, encoding="utf-8")
        data = f'[data]\nprices = "{tmp_path / "prices.toml"}"'
    facts, read = FakeRunner.facts, FakeRunner.read
    monkeypatch.setattr(FakeRunner, "facts", lambda self, fit: facts(self, fit) | {"environment": environment})
    monkeypatch.setattr(FakeRunner, "read",
                        lambda self, fit, asked: read(self, fit, asked) | {"seconds": seconds(fit)})
    return fake_results(tmp_path, plan.format(data=data))


def test_cost_follows_from_the_measured_seconds(tmp_path, monkeypatch):
    def seconds(fit):  # four fits: posts per second 169 / 1, / 2, / 2, / 4
        return {("en", "set"): 1.0, ("multi", "set"): 4.0}.get((fit.name, fit.kind), 2.0)

    section = speed(study(tmp_path, monkeypatch, CPU, seconds=seconds))
    rows = {row["name"]: row for row in table(section, "speed_cost").rows}
    assert set(rows) == {"small", "an API"}  # nothing was measured on an H100
    # One of the arm's fits is the set's own model, so three are measured: 169, 84.5 and 42.25 posts a second.
    assert rows["small"]["cost"] == pytest.approx(0.36 * 1e6 / (3600 * 84.5))
    assert rows["small"]["low"] == pytest.approx(0.36 * 1e6 / (3600 * 169))
    assert rows["small"]["high"] == pytest.approx(0.36 * 1e6 / (3600 * 42.25))
    assert rows["small"]["training"] == pytest.approx(10 * 0.36 / 3600)
    assert rows["an API"]["cost"] == pytest.approx(60 * 2.5 + 10)  # 60 tokens a post, one token of answer
    ratios = {row["name"]: row for row in table(section, "speed_ratios").rows}
    assert ratios["an API over small"]["ratio"] == pytest.approx(160 * 3600 * 84.5 / 0.36e6)
    assert (ratios["somebody"]["ratio"], ratios["somebody"]["ratio_to"], ratios["somebody"]["from"]) == (
        26, 168, "a paper")
    sets = {row["name"]: row for row in table(section, "speed_sets").rows}
    assert sets["en"]["rate"] == pytest.approx(169) and sets["en"]["tokens"] == 60 and sets["multi"]["rows"] == 260
    assert set(sets) == {"en", "multi", "exposure arm"}


def test_a_sets_own_model_counts_as_its_set_where_an_exposure_begins_with_it(tmp_path, monkeypatch):
    own = study(tmp_path, monkeypatch, CPU, plan=PLAN.replace("draws = [1]", "draws = [123]"))
    sets = {row["name"]: row["fits"] for row in table(speed(own), "speed_sets").rows}
    assert sets == {"en": 1, "multi": 1, "exposure arm": 1}


def test_it_says_on_which_machine_and_what_may_not_be_said(tmp_path, monkeypatch):
    section = speed(study(tmp_path, monkeypatch, CPU))
    assert "On x86_64, 2 threads in float32" in section.answer and "EUR on small" in section.answer
    assert "still to be checked against their source: 1 of 2" in section.answer
    assert all("other machine" in claim.may_not_say for claim in section.claims) and len(section.claims) == 2
    claim = section.claims[0]
    assert claim.value == pytest.approx(84.5)
    assert in_numbers(claim) == ("84.5", "no interval") and interval_picture(claim, 1.0) is None
    for spec in section.figures:
        figure_of(spec, table(section, spec.table))
    assert section.figures[0].log
    Study("t", "now", {}, {}, [section], "")


def test_a_machine_without_a_price_gets_words_not_a_price(tmp_path, monkeypatch):
    section = speed(study(tmp_path, monkeypatch, {"device": "cuda:0", "device_name": "NVIDIA L40S"}, prices=None))
    assert {row["kind"] for row in table(section, "speed_cost").rows} == {"API"}
    assert "no price for such a machine" in section.answer and len(section.claims) == 1


def test_machines_are_told_by_whole_words():
    machine = Machine("a", "L4", 1.0, "s", "2025-01")
    assert machine.is_for({"device": "cuda:0", "device_name": "NVIDIA L4"})
    assert not machine.is_for({"device": "cuda:0", "device_name": "NVIDIA L40S"})
    assert Machine("a", "cpu", 1.0, "s", "2025-01").is_for(CPU)
    assert not Machine("a", "cpu", 1.0, "s", "2025-01").is_for({"device": "cuda", "device_name": "NVIDIA H100"})
    assert Machine("a", "H100", 1.0, "s", "2025-01").is_for({"device": "cuda", "device_name": "NVIDIA H100 80GB HBM3"})


def test_fits_that_were_not_timed_leave_no_section(tmp_path, monkeypatch):
    assert speed(study(tmp_path, monkeypatch, CPU, seconds=lambda fit: 0.0)) is None


def test_the_shipped_table_is_whole_dated_and_names_the_papers_figures():
    prices = load_prices()
    assert prices.path == PRICES and prices.currency == "USD"
    rows = [*prices.machines, *prices.apis]
    assert all(row.source and row.date and not row.checked for row in rows) and "to be checked" in prices.note
    published = {(one.kind, one.ratio, one.ratio_to) for one in prices.published}
    assert {("speed", 35, 0), ("speed", 26, 168), ("cost", 1000, 0)} <= published
    share = next(one.ratio for one in prices.published if one.ratio > 1e6)
    assert 100 / share == pytest.approx(0.00000989, rel=1e-6)
    gpt = next(api for api in prices.apis if api.name == "GPT-4o")
    assert gpt.per_million(100) == pytest.approx(100 * 2.5 + 10)


@pytest.mark.parametrize("old, new, words", [
    ('currency = "EUR"', "", ("key 'currency' is missing",)),
    ('currency = "EUR"', 'curency = "EUR"', ("unknown key 'curency'", "did you mean 'currency'")),
    ("per_hour = 0.36", "", ("machine[1]", "key 'per_hour' is missing")),
    ("per_hour = 0.36", "per_hours = 0.36", ("machine[1]", "unknown key 'per_hours'")),
    ("per_hour = 0.36", 'per_hour = "0.36"', ("machine[1]", "key 'per_hour'", "a number was expected")),
    ("per_hour = 0.36", "per_hour = -1", ("key 'per_hour' is -1",)),
    ("per_hour = 0.36", "per_hour = inf", ("key 'per_hour' is inf",)),
    ("per_hour = 0.36", "per_hour = true", ("key 'per_hour' is True",)),
    ("checked = true", "checked = 1", ("key 'checked' is 1", "true or false")),
    ('name = "large"', 'name = "small"', ("machine[2]", "'small' occurs twice")),
    ('date = "2025-02-03"', 'date = "last week"', ("api[1]", "key 'date' is 'last week'")),
    ('date = "2025-02-03"', "date = 2025-02-03", ("api[1]", "key 'date'", "text was expected")),
    ('source = "a paper"', 'source = " "', ("published[1]", "key 'source' is empty")),
    ('kind = "speed"', 'kind = "pace"', ("published[1]", "key 'kind' is 'pace'")),
    ("ratio_to = 168", "ratio_to = 2", ("published[1]", "key 'ratio_to' is 2")),
    ("[[api]]", "[api]", ("key 'api'", "[[api]] tables")),
])
def test_a_wrong_table_is_refused_in_one_line(tmp_path, old, new, words):
    path = Path(tmp_path / "prices.toml")
    assert old in TABLE
    path.write_text(TABLE.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(UserError) as error:
        load_prices(path)
    assert all(word in str(error.value) for word in (str(path), *words)), str(error.value)
