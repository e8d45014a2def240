"""Dates of posts: which columns hold one where none is named, and the month or moment of a date as files write it."""

import re
from collections.abc import Mapping
from datetime import datetime

# Columns of a date, by name; the last, Portuguese, Italian and Polish for date, may as well be what a file holds.
DATES = ("date", "created_at", "created", "timestamp", "datetime", "time", "datum", "dátum", "fecha", "tarih",
         "tanggal", "data")
# 2024-05-01, 2024/05, 2024.05.01; 20240501; 1.5.2024, whose points say that the day comes first
_MONTH = re.compile(r"(?P<y1>\d{4})[-/.](?P<m1>\d{2})(?!\d)|(?P<y2>\d{4})(?P<m2>\d{2})\d{2}(?!\d)"
                    r"|\d{1,2}\.\s?(?P<m3>\d{1,2})\.\s?(?P<y3>\d{4})(?!\d)")
_POINTS = re.compile(r"(\d{1,2})\.\s?(\d{1,2})\.\s?(\d{4})(?:,?\s+(\d{1,2}):(\d{2})(?::(\d{2}))?)?")
_SLASHES = re.compile(r"(?P<first>\d{1,2})/(?P<second>\d{1,2})/(?P<year>\d{4})(?!\d)")
TWITTER = "%a %b %d %H:%M:%S %z %Y"  # Wed Oct 10 20:19:24 +0000 2018


def month_of(value) -> str | None:
    """`month_of("2024-05-01T10:00:00Z") -> "2024-05"`; also 20240501, 01.05.2024, 25/05/2024 and Twitter's own way;
    else `None`.

    04/05/2024 is none: whether the day or the month comes first depends on who wrote it (`months_of`).
    """
    first, second = months_of(value) or (None, None)
    return first if first == second else None


def months_of(value) -> tuple[str | None, str | None] | None:
    """The month of a date if the day is written before it, and if it is written behind; `None` for no date.

    The two differ with slashes alone, and one of them is `None` where its number can be no month: 25/05/2024 and
    05/25/2024 each have one reading, which stands in its place twice.
    """
    text = str(value or "").strip()
    if found := _MONTH.match(text):
        parts = found.groupdict()
        year, month = next((parts[f"y{way}"], int(parts[f"m{way}"])) for way in "123" if parts[f"y{way}"])
        return (f"{year}-{month:02}",) * 2 if 1 <= month <= 12 else None
    if found := _SLASHES.match(text):
        numbers = [int(found[name]) for name in ("second", "first")]
        readings = [f"{found['year']}-{month:02}" if 1 <= month <= 12 else None for month in numbers]
        day_first, month_first = readings
        if min(numbers) < 1 or max(numbers) > 31 or not any(readings):
            return None
        return day_first or month_first, month_first or day_first
    moment = _twitters(text)
    return moment and (moment.strftime("%Y-%m"),) * 2


def moment_of(text: str) -> datetime | None:
    """The moment of an ISO date, of one whose points say that the day comes first, with or without a time, and of
    Twitter's own: 2024-03-31T18:00:00Z, 31.3.2024 18:00; `None` for any other text. It has a time zone if the text has.
    """
    text = text.strip()
    found = _POINTS.fullmatch(text)
    try:
        if not found:
            return datetime.fromisoformat(text)
        day, month, year, *time = (int(part or 0) for part in found.groups())
        return datetime(year, month, day, *time)
    except ValueError:
        return _twitters(text)


def _twitters(text: str) -> datetime | None:
    try:
        return datetime.strptime(text, TWITTER)
    except ValueError:
        return None


def day_comes_first(value) -> bool | None:
    """What a date with slashes shows of a file's habit: 25/05/2024 the day first, 05/25/2024 the month; else nothing.
    """
    found = _SLASHES.match(str(value or "").strip())
    if not found or (int(found["first"]) > 12) == (int(found["second"]) > 12):
        return None
    return int(found["first"]) > 12


def date_column(row: Mapping[str, object]) -> str | None:
    """The column of `row` that holds its month or date, by its name, as it is or with what classify.py puts before an
    input's column; "data" only where a date stands in it."""
    there = {name.lower().removeprefix("input_"): name for name in reversed(row)}
    found = next((name for name in ("month", *DATES) if name in there), None)
    return None if found is None or (found == DATES[-1] and not months_of(row[there[found]])) else there[found]
