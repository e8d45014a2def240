"""What a person sees in a terminal: aligned tables, a progress bar that is quiet in files, and units."""

import re
import shutil
import sys
import unicodedata
from collections.abc import Iterable

EIGHTHS = " ▏▎▍▌▋▊▉█"  # the blocks that end a bar


def display_width(text: str) -> int:
    """Columns that `text` takes in a terminal: wide East Asian characters and emoji count two, marks above or below
    none."""
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    return len(text) + wide - sum(unicodedata.category(char) in ("Mn", "Me") for char in text)


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
    """True of `"1.59 GB"`, `"9 + 1"`, a dash and the empty string; false of `"4 tokens"`."""
    return cell == "" or (cell[0] in "–−-+.[0123456789" and not re.search("[^\\W\\d_]{3}", cell))


def bars(shares: dict[str, float], encoding: str | None = None, indent: str = "  ") -> str:
    """A line for each name: its share of one, and a bar of that length; in ASCII if `encoding` has no blocks.

        pro-immigration  0.812  ████████████████████████████████▌
        unrelated        0.188  ███████▌

    encoding: that of the output stream; None for one that takes every character, as a string does.
    """
    blocks = printable(EIGHTHS, encoding) == EIGHTHS
    names = {name: printable(name, encoding) for name in shares}
    widest = max(map(display_width, names.values()))
    room = shutil.get_terminal_size().columns - display_width(indent) - widest - len("  0.812  ") - 1
    length = max(8, min(40, room))

    def line(name: str, share: float) -> str:
        full, rest = divmod(round(share * length * 8), 8)
        bar = "█" * full + EIGHTHS[rest].strip() if blocks else "#" * round(share * length)
        return f"{indent}{name}{' ' * (widest - display_width(name))}  {share:.3f}  {bar}".rstrip()

    return "\n".join(line(names[key], share) for key, share in shares.items())


def printable(text: str, encoding: str | None) -> str:
    """`text` with a question mark for each character that `encoding` lacks: `printable("naïf", "ascii") -> "na?f"`."""
    encoding = encoding or "utf-8"
    return text.encode(encoding, "replace").decode(encoding)


def progress(total: int, unit: str, description: str = "", initial: int = 0, delay: float = 0):
    """A tqdm bar on stderr, after `delay` seconds; silent if stderr is a file or a CI log, shown in a notebook."""
    from tqdm import tqdm

    in_notebook = type(sys.stderr).__module__.startswith("ipykernel.")  # not a terminal, but somebody is looking
    return tqdm(total=total, initial=initial, unit=unit, desc=description, dynamic_ncols=True, delay=delay,
                disable=not (sys.stderr.isatty() or in_notebook), file=sys.stderr, smoothing=0.1)


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
