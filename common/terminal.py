"""What a person sees in a terminal: aligned tables, a progress bar that is quiet in files, and units."""

import re
import sys
import unicodedata
from collections.abc import Iterable


def display_width(text: str) -> int:
    """Columns that `text` takes in a terminal: wide East Asian characters count two, combining marks none."""
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    return len(text) + wide - sum(bool(unicodedata.combining(char)) for char in text)


def table(header: list[str], rows: Iterable[list], indent: str = "  ") -> str:
    """Rows as aligned columns under a header; numbers to the right, text to the left; `None` is shown as a dash."""
    body = [["–" if cell is None else str(cell) for cell in row] for row in rows]
    lines = [[str(cell) for cell in header], *body]
    widths = [max(display_width(line[i]) for line in lines) for i in range(len(header))]
    is_number = [bool(body) and all(_reads_as_number(row[i]) for row in body) for i in range(len(header))]

    def aligned(line: list[str]) -> str:
        cells = []
        for cell, width, right in zip(line, widths, is_number, strict=True):
            space = " " * (width - display_width(cell))
            cells.append(space + cell if right else cell + space)
        return (indent + "  ".join(cells)).rstrip()

    rule = indent + "  ".join("─" * width for width in widths)
    return "\n".join([aligned(lines[0]), rule, *(aligned(line) for line in lines[1:])])


def _reads_as_number(cell: str) -> bool:
    """`"1.59 GB"`, `"9 + 1"`, a dash and nothing at all do; `"4 tokens"` does not."""
    return cell == "" or (cell[0] in "–−-+.[0123456789" and not re.search("[^\\W\\d_]{3}", cell))


def progress(total: int, unit: str, description: str = "", initial: int = 0):
    """A tqdm bar on stderr, silent where stderr is a file or a CI log."""
    from tqdm import tqdm

    return tqdm(total=total, initial=initial, unit=unit, desc=description, dynamic_ncols=True,
                disable=not sys.stderr.isatty(), file=sys.stderr, smoothing=0.1)


def human_bytes(count: float) -> str:
    """`human_bytes(1_590_000_000) -> "1.59 GB"` (powers of 1000)."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(count) < 1000 or unit == "TB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1000
    raise AssertionError("unreachable")


def human_seconds(seconds: float) -> str:
    """`human_seconds(75) -> "1 min 15 s"`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
