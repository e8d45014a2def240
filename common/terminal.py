"""What a person sees in a terminal: aligned tables, a progress bar that is quiet in files, and units."""

import os
import re
import shlex
import shutil
import sys
import time
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from common.errors import HARMLESS, escaped

EIGHTHS = " ▏▎▍▌▋▊▉█"  # the blocks that end a bar


def display_width(text: str) -> int:
    """Columns that `text` takes in a terminal: wide East Asian characters and emoji count two, marks above or below
    none."""
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    return len(text) + wide - sum(unicodedata.category(char) in ("Mn", "Me") for char in text)


def table(header: list[str], rows: Iterable[list], indent: str = "  ") -> str:
    """Rows as aligned columns under a header; numbers to the right, text to the left; `None` is shown as a dash."""
    body = [["–" if cell is None else escaped(str(cell), keep=HARMLESS) for cell in row] for row in rows]
    lines = [[escaped(str(cell), keep=HARMLESS) for cell in header], *body]
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


def this_python() -> str:
    """How the Python that runs is called from this folder, for a command that is to be copied: ".venv/bin/python" where
    it lies below it, else "python"."""
    place = Path(sys.executable)
    return str(place.relative_to(Path.cwd())) if place.is_relative_to(Path.cwd()) else "python"


def command(*words: str | os.PathLike) -> str:
    """A command of this project that is to be copied, with the Python that runs and names quoted for a shell:
    `command("eval.py", "--run", "my run") -> ".venv/bin/python eval.py --run 'my run'"`."""
    return " ".join([this_python(), *(_quoted(os.fspath(word)) for word in words)])


def _quoted(word: str) -> str:
    """A word as a shell takes it; on Windows as PowerShell does, and, if no `$` or backtick is in it, cmd too, to which
    single quotes are letters."""
    if sys.platform != "win32":
        return shlex.quote(word)
    if re.fullmatch(r"[\w:./\\+=-]+", word):
        return word
    return f"""'{word.replace("'", "''")}'""" if re.search("[$`“”„]", word) else f'"{word}"'


def printable(text: str, encoding: str | None) -> str:
    """`text` with a question mark for each character that `encoding` lacks: `printable("naïf", "ascii") -> "na?f"`."""
    encoding = encoding or "utf-8"
    return text.encode(encoding, "replace").decode(encoding)


def counted(n: int, noun: str) -> str:
    """`counted(1, "post") -> "1 post"`, `counted(1200, "post") -> "1,200 posts"`."""
    return f"{n:,} {noun}" + ("" if n == 1 else "s")


def progress(total: int | None, unit: str, description: str = "", initial: int = 0, delay: float = 0):
    """A tqdm bar on stderr, after `delay` seconds; in a file or under a scheduler a line now and then (`LogLines`)."""
    in_notebook = type(sys.stderr).__module__.startswith("ipykernel.")  # no terminal, yet somebody is looking
    if not (sys.stderr.isatty() or in_notebook):
        return LogLines(total, unit, description, initial)
    from tqdm import tqdm

    return tqdm(total=total, initial=initial, unit=unit, desc=description, dynamic_ncols=True, delay=delay,
                file=sys.stderr, smoothing=0.1)


class LogLines:
    """Progress where nobody watches: at most every `EVERY` seconds a line on stderr, and none for what takes less.

        training: 1,200 of 5,000 posts, 41.3 a second, 1 min 32 s left

    The rate is that of all that was done here; `disable` says, as tqdm's does, that there is no bar. `detail` stands at
    the end of a line.
    """

    EVERY = 30.0
    disable = True
    detail = ""

    def __init__(self, total: int | None, unit: str, description: str = "", initial: int = 0):
        self.total, self.unit, self.description, self.initial, self.n = total, unit, description, initial, initial
        self._began = self._told = time.monotonic()

    def update(self, count: int = 1) -> None:
        """`count` more are done."""
        self.n += count
        now = time.monotonic()
        if now - self._told >= self.EVERY:
            self._told = now
            print(self.line(now - self._began), file=sys.stderr, flush=True)

    def line(self, seconds: float) -> str:
        """The line after so many seconds."""
        rate = (self.n - self.initial) / seconds if seconds > 0 else 0.0
        words = f"{self.description or 'done'}: "
        words += counted(self.n, self.unit) if self.total is None else f"{self.n:,}"
        words += f" of {counted(self.total, self.unit)}" if self.total is not None else ""
        words += f", {three_digits(rate)} a second" if rate >= 1 or not rate else f", {human_seconds(1 / rate)} each"
        left = self.total is not None and rate > 0 and self.n <= self.total
        words += f", {human_seconds((self.total - self.n) / rate)} left" if left else ""
        return f"{words}; {self.detail}" if self.detail else words

    def set_postfix_str(self, text: str) -> None:
        """Nothing: the next line comes when it comes."""

    def refresh(self) -> None:
        """The same."""

    def close(self) -> None:
        """Nothing is left to take away."""

    def __enter__(self) -> "LogLines":
        return self

    def __exit__(self, *error) -> None:
        self.close()


def done_before(bar, count: int) -> None:
    """Move a bar of `progress` on by what was done before it began, so that the rate and the time left are of now."""
    bar.initial += count
    bar.n += count
    bar.last_print_n = bar.n  # tqdm's rate is of the steps since
    bar.refresh()


def three_digits(number: float) -> str:
    """`three_digits(22_345.6) -> "22,300"`, `three_digits(0.01234) -> "0.0123"`: never a power of ten in front."""
    return f"{float(f'{number:.3g}'):,.0f}" if abs(number) >= 99.95 else f"{number:.3g}"


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
