"""tools.prevalence on files that a spreadsheet of another country saved: semicolons, decimal commas, days first; and
on what it spoils.

Deliberate break: in data/columns.py leave the single column out, or in tools/prevalence/probabilities.py the comma.
"""

import csv
import json
import random
from pathlib import Path

import pytest

from tests.programs.hostile import call, in_an_empty_folder, refused  # noqa: F401
from tools import sample
from tools.prevalence.__main__ import main

WORDS = ["--labels", "labels.csv", "--coded", "coded.csv"]


def write(name: str, rows: list[dict], separator: str = ",", comma: bool = False) -> None:
    with open(name, "w", newline="", encoding="utf-8-sig" if separator == ";" else "utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=separator)
        writer.writeheader()
        for row in rows:
            writer.writerow({key: str(value).replace(".", ",") if comma and isinstance(value, float) else value
                             for key, value in row.items()})


def files(count: int = 200) -> tuple[list[dict], list[dict]]:
    """Labels with probabilities and dates, and codes of every second post, drawn with two chances."""
    draw, labels, codes = random.Random(0), [], []
    for n in range(count):
        truth = draw.choice("ab")
        said = truth if draw.random() < 0.8 else "ab"["ba".index(truth)]
        sure = 0.9 if said == "a" else 0.15
        labels.append({"id": f"{n:04}", "predicted": said, "p_a": sure, "p_b": round(1 - sure, 2),
                       "date": f"2{n % 8}.0{1 + n % 3}.2024"})
        if n % 2:
            codes.append({"id": f"{n:04}", "label": truth, "stratum": n % 4, "inclusion_probability": 0.5})
    return labels, codes


def shares() -> list[dict]:
    ended = call(main, *WORDS, "--json", "out.json", "--by", "month")
    assert ended.code == 0, ended.err
    return json.loads(open("out.json", encoding="utf-8").read())["shares"]


def test_semicolons_decimal_commas_and_days_first_give_the_same_shares():
    labels, codes = files()
    write("labels.csv", labels)
    write("coded.csv", codes)
    wanted = shares()
    assert {row["group"] for row in wanted} == {"2024-01", "2024-02", "2024-03"}
    assert all(row["dsl"]["low"] < row["dsl"]["high"] for row in wanted)
    write("labels.csv", labels, ";", comma=True)
    write("coded.csv", codes, ";", comma=True)
    assert shares() == wanted


def test_a_sample_with_semicolons_and_decimal_commas_is_read_again():
    labels, _ = files()
    write("labels.csv", [row | {"text": f"post {row['id']}"} for row in labels])
    to = ("--labels", "labels.csv", "--size", "40", "--unsure", "3", "--unsure-below", "0.87")
    assert call(sample.main, *to, "--out", "plain.csv").code == 0
    assert call(sample.main, *to, "--out", "drawn.csv", "--semicolons", "--bom").code == 0
    with open("drawn.csv", newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file, delimiter=";"))
    assert len({row["inclusion_probability"] for row in rows}) > 1 and "," in rows[0]["inclusion_probability"]
    found = []
    for name, separator in (("plain.csv", ","), ("drawn.csv", ";")):
        with open(name, newline="", encoding="utf-8-sig") as file:
            coded = [row | {"label": "ab"[number % 3 == 0]} for number, row in
                     enumerate(csv.DictReader(file, delimiter=separator))]
        write("coded.csv", coded, separator)
        ended = call(main, *WORDS, "--json", f"{name}.json")
        assert ended.code == 0, ended.err
        found.append(json.loads(Path(f"{name}.json").read_text(encoding="utf-8")))
    assert found[0] == found[1]
    refused(sample.main, *to, "--out", "drawn.jsonl", "--bom", says="--bom says nothing of drawn.jsonl")


@pytest.mark.parametrize("change, says", [
    (lambda row: row | {"id": row["id"].lstrip("0")}, ["id '1' is in no row", "there is '0199', so a spreadsheet may"]),
    (lambda row: row | {"inclusion_probability": "571428571428571"}, ["'571428571428571' is not a number above 0",
                                                                      "a spreadsheet may have taken its point"])])
def test_what_a_spreadsheet_spoilt_is_refused_with_what_may_have_happened(change, says):
    labels, codes = files()
    write("labels.csv", labels)
    write("coded.csv", [change(row) for row in codes], ";")
    refused(main, *WORDS, says=says)


def test_zeros_that_the_labels_lost_are_said_as_well():
    labels, codes = files()
    write("labels.csv", [row | {"id": row["id"].lstrip("0") or "0"} for row in labels])
    write("coded.csv", codes)
    refused(main, *WORDS, says=["id '0001' is in no row", "there is '199', so a spreadsheet may"])


def test_posts_without_a_date_are_a_group():
    labels, codes = files()
    write("labels.csv", [row | {"date": ""} if row["id"] < "0050" else row for row in labels])
    write("coded.csv", codes)
    assert {row["group"] for row in shares()} == {"(none)", "2024-01", "2024-02", "2024-03"}


def test_where_no_month_is_found_the_names_of_dates_are_said():
    labels, codes = files()
    write("labels.csv", [{"Tag" if key == "date" else key: value for key, value in row.items()} for row in labels])
    write("coded.csv", codes)
    refused(main, *WORDS, "--by", "month", says=["has no such column", "is called date, created_at, created"])
    write("labels.csv", [{"Datum" if key == "date" else key: value for key, value in row.items()} for row in labels])
    assert {row["group"] for row in shares()} == {"2024-01", "2024-02", "2024-03"}
    write("labels.csv", [row | {"date": "04/05/2024"} for row in labels])
    refused(main, *WORDS, "--by", "month", says=["date '04/05/2024' may be either month; add a column 'month'"])
    write("labels.csv", [row | {"date": "May 2024"} for row in labels])
    refused(main, *WORDS, "--by", "month", says=["'May 2024' is not written as 2024-03-31 or 31.03.2024"])
