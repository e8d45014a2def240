"""Months of posts: which columns hold a date where none is named, and the month of a date as files write it."""

import re
from datetime import datetime

# Columns of a date, by name.
DATES = ("date", "created_at", "created", "timestamp", "datetime", "time", "datum", "fecha")
# 2024-05-01, 2024/05, 2024.05.01; 20240501; 1.5.2024, whose points say that the day comes first
_MONTH = re.compile(r"(?P<y1>\d{4})[-/.](?P<m1>\d{2})(?!\d)|(?P<y2>\d{4})(?P<m2>\d{2})\d{2}(?!\d)"
                    r"|\d{1,2}\.\s?(?P<m3>\d{1,2})\.\s?(?P<y3>\d{4})(?!\d)")
TWITTER = "%a %b %d %H:%M:%S %z %Y"  # Wed Oct 10 20:19:24 +0000 2018


def month_of(value) -> str | None:
    """`month_of("2024-05-01T10:00:00Z") -> "2024-05"`; also 20240501, 01.05.2024 and Twitter's own way; else `None`.

    05/01/2024 is none: whether the day or the month comes first depends on who wrote it.
    """
    text = str(value or "").strip()
    if found := _MONTH.match(text):
        parts = found.groupdict()
        year, month = next((parts[f"y{way}"], int(parts[f"m{way}"])) for way in "123" if parts[f"y{way}"])
        return f"{year}-{month:02}" if 1 <= month <= 12 else None
    try:
        return datetime.strptime(text, TWITTER).strftime("%Y-%m")
    except ValueError:
        return None
