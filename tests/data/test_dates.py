"""Months from dates as files write them.

Deliberate break: in data/dates.py let the way with points take the first number for the month.
"""

from datetime import UTC, datetime

import pytest

from data.dates import date_column, day_comes_first, moment_of, month_of, months_of


@pytest.mark.parametrize("text, month", [
    ("2024-05-01T10:00:00Z", "2024-05"), ("2024/05/01", "2024-05"), ("2024.05", "2024-05"), ("20240501", "2024-05"),
    ("Wed Oct 10 20:19:24 +0000 2018", "2018-10"), (datetime(2024, 5, 1).isoformat(), "2024-05"),
    ("25.04.2024", "2024-04"), ("1.4.2024 10:30", "2024-04"), (" 1. 4. 2024", "2024-04"),
    ("13/06/2024 09:00", "2024-06"), ("06/13/2024", "2024-06"), ("6/6/2024", "2024-06")])
def test_months(text, month):
    assert month_of(text) == month


@pytest.mark.parametrize("text", ["2024-13-01", "May", "", None, "04/05/2024", "13/13/2024", "5/0/2024",
                                  "00/05/2024", "32/01/2024",
                                  "25.13.2024", "1.4.24", "25.04.20245", "1234567"])
def test_what_is_no_month_or_could_be_two(text):
    assert month_of(text) is None


@pytest.mark.parametrize("text, moment", [
    ("31.03.2024 18:00", datetime(2024, 3, 31, 18)), ("1. 4. 2024, 9:05:07", datetime(2024, 4, 1, 9, 5, 7)),
    ("Wed Oct 10 20:19:24 +0000 2018", datetime(2018, 10, 10, 20, 19, 24, tzinfo=UTC)),
    (" 2024-03-31", datetime(2024, 3, 31)), ("31.13.2024", None), ("31.3.24", None), ("03/04/2024", None), ("", None)])
def test_moments(text, moment):
    assert moment_of(text) == moment


@pytest.mark.parametrize("text, months, first", [
    ("04/05/2024", ("2024-05", "2024-04"), None), ("25/05/2024", ("2024-05",) * 2, True),
    ("05/25/2024", ("2024-05",) * 2, False), ("2024-05-25", ("2024-05",) * 2, None), ("13/13/2024", None, None)])
def test_readings_of_a_date_with_slashes(text, months, first):
    assert months_of(text) == months and day_comes_first(text) is first


def test_which_column_is_the_date():
    assert date_column({"id": "1", "data": "13/06/2024"}) == "data"
    assert date_column({"data": "some text", "label": "a"}) is None and date_column({"id": "1"}) is None
    assert date_column({"data": "13/06/2024", "input_Created_at": "?"}) == "input_Created_at"
    assert date_column({"date": "2024-05-01", "month": "2024-04"}) == "month"
