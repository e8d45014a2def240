"""Months from dates as files write them.

Deliberate break: in data/dates.py let the way with points take the first number for the month.
"""

from datetime import datetime

import pytest

from data.dates import month_of


@pytest.mark.parametrize("text, month", [
    ("2024-05-01T10:00:00Z", "2024-05"), ("2024/05/01", "2024-05"), ("2024.05", "2024-05"), ("20240501", "2024-05"),
    ("Wed Oct 10 20:19:24 +0000 2018", "2018-10"), (datetime(2024, 5, 1).isoformat(), "2024-05"),
    ("25.04.2024", "2024-04"), ("1.4.2024 10:30", "2024-04"), (" 1. 4. 2024", "2024-04")])
def test_months(text, month):
    assert month_of(text) == month


@pytest.mark.parametrize("text", ["2024-13-01", "May", "", None, "04/25/2024", "04/05/2024", "25.13.2024", "1.4.24",
                                  "25.04.20245", "1234567"])
def test_what_is_no_month_or_could_be_two(text):
    assert month_of(text) is None
