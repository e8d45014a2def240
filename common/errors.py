"""Errors that a user can mend, told in one line; and output that no terminal refuses.

Every program's `main` runs inside `run_program`. A `UserError` says where (file, row, key or option), what is wrong and
what would be right; it reaches the terminal as one line on stderr and exit status 2. What the machine refuses (memory,
room on a disk, open files) ends in the same way. Any other exception is a defect of this project and keeps its
traceback.
"""

import builtins
import codecs
import errno
import logging
import os
import re
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import NoReturn, TypeVar

E = TypeVar("E", bound=BaseException)
UNFINISHED = 75  # "temporary failure; try again" (sysexits.h)
LONGEST = 1200  # characters of an error's line
HARMLESS = "\u00a0\u202f\u3000\u200c\u200d"  # spaces and joiners of names (Persian, Hindi, emoji)
# Signs of ours that a terminal may lack (Windows' cp1252 has neither the minus nor the rule), and what it gets instead.
PLAIN = {"−": "-", "─": "-", "–": "-", "“": '"', "”": '"', "…": "...", "×": "x", "±": "+-", "█": "#"}
WHAT_HELPS = {
    errno.ENOSPC: "make room", errno.EDQUOT: "make room", errno.EFBIG: "make room",
    errno.EMFILE: "allow more open files (ulimit -n)", errno.ENFILE: "close other programs",
    errno.EROFS: "choose a place that can be written to", errno.EIO: "see whether the disk is whole",
}  # fmt: skip


class UserError(Exception):
    """Something that the user can put right; `str(error)` is one line: where, what, and what would be right."""

    def __init__(self, message: str):
        super().__init__(one_line(message))


class ToBeContinued(Exception):
    """The program was asked to end, and has kept what is done: the same command goes on (exit status `UNFINISHED`)."""


def arguments(text: str) -> str:
    """`text` with arguments of Python in the place of a program's options: `arguments("try --max-tokens 9") -> "try
    max_tokens 9"`. A clause with a command, which is to be copied, stays as it is."""
    clauses = [clause if re.search(r"\.py |-m \w", clause) else re.sub(
        r"(?<![^\s(])--([a-z][a-z0-9-]*)", lambda found: found[1].replace("-", "_"), clause)
        for clause in text.split(";")]
    return ";".join(clauses)


@contextmanager
def naming_arguments() -> Iterator[None]:
    """Within the block, which a user of Python called, a `UserError` names `arguments` where it would name options."""
    try:
        yield
    except UserError as error:
        error.args = (arguments(str(error)),)
        raise


def one_line(text: str, longest: int = LONGEST) -> str:
    r"""`text` as a terminal may be given it: `one_line("a\x1b[2J\nb") -> "a\\x1b[2J\\nb"`.

    Line breaks, control characters, marks that turn the direction of writing and all else that shows no sign are
    written as escapes. Of a longer text the beginning and the end are left, since they say where and what would be
    right.
    """
    return _shortened(escaped(_shortened(str(text).strip(), longest)), longest)


def escaped(text: str, keep: str = "") -> str:
    r"""`text` with what shows no sign, or turns the direction of writing, as escapes: names that others chose must not
    move the cursor of a terminal. What is in `keep` stays: `escaped("a\x1b[2J") -> "a\\x1b[2J"`."""
    return "".join(char if char.isprintable() or char in keep else char.encode("unicode_escape").decode("ascii")
                   for char in text)


class Shown:
    """A text stream for a person's eyes: of labels, names and posts that are printed, no sign moves a terminal's
    cursor. `stream`: the one behind it, which takes everything."""

    def __init__(self, stream):
        self.stream = stream

    def write(self, text: str) -> int:
        self.stream.write(text if text.isprintable() else escaped(text, keep=f"\n\t{HARMLESS}"))
        return len(text)

    def __getattr__(self, name: str):
        return getattr(self.stream, name)


def _shortened(text: str, longest: int) -> str:
    if len(text) <= longest:
        return text
    ahead, behind = longest * 3 // 5, longest * 3 // 10
    left_out = len(text) - ahead - behind
    return f"{text[:ahead]} [{left_out:,} characters left out] {text[-behind:]}"


def run_program(main: Callable[[list[str]], None], argv: list[str] | None = None) -> None:
    """Run `main(argv)` as a program: exit 0; 2 after a `UserError` or where the machine refuses more; 75 where it was
    asked to end and the same command goes on; 130 after Ctrl-C, also where a library made another error of that; 141
    where nobody reads its output any more.

    A character that the terminal lacks is printed as a plainer one (`PLAIN`) or as a question mark. What libraries warn
    of goes to stdout, a line each, so that an error is all that stands on stderr. A stream that was closed by whoever
    started the program (`>&-`) is an empty one. stdout is `Shown`.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 (open until the end)
    codecs.register_error("plainly", _plainly)
    for stream, how in ((sys.stdout, "plainly"), (sys.stderr, "backslashreplace")):
        if hasattr(stream, "reconfigure"):  # a notebook's has no encoding
            stream.reconfigure(errors=how)
    is_whole = argv is None and not (sys.flags.interactive or hasattr(builtins, "__IPYTHON__"))  # as `%run` is not
    before = logging.lastResort
    with warnings.catch_warnings(), redirect_stdout(Shown(sys.stdout)):
        warnings.showwarning = lambda message, *_: _show_warning(message)
        logging.lastResort = _ShownWarnings(logging.WARNING)  # of those that nobody else handles
        try:
            main(sys.argv[1:] if argv is None else argv)
            sys.stdout.flush()
        except KeyboardInterrupt:
            _stop(is_whole)
        except ToBeContinued as asked:
            print(one_line(str(asked)), file=sys.stderr)
            sys.stdout.flush()
            sys.exit(UNFINISHED)
        except Exception as error:
            if _is_unread(error):  # the reader (say, `head`) has gone
                _mute_stdout()
                sys.exit(141)
            if behind(error, KeyboardInterrupt):
                _stop(is_whole)
            line = line_of(error)
            if line is None:
                raise
            print(f"error: {one_line(line)}", file=sys.stderr)
            try:
                sys.stdout.flush()
            except OSError:  # it was stdout itself
                _mute_stdout()
            sys.exit(2)
        finally:
            logging.lastResort = before


def _plainly(error: UnicodeError) -> tuple[str, int]:
    """What `codecs.register_error` asks for: what is printed instead, and where to go on."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(PLAIN.get(char, "?") for char in error.object[error.start : error.end]), error.end


def _stop(is_whole: bool) -> NoReturn:
    """End after Ctrl-C; is_whole: the process is this program's alone. What libraries then still have to put away is
    not interrupted by pressing the keys once more, which Python would show as an error of theirs."""
    if is_whole:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    print("stopped", file=sys.stderr)
    sys.exit(130)


def _is_unread(error: Exception) -> bool:
    """Whether a pipe has lost its reader; Windows calls that an invalid argument, and of no file."""
    return isinstance(error, BrokenPipeError) or (sys.platform == "win32" and isinstance(error, OSError)
                                                  and error.errno == errno.EINVAL and error.filename is None)


def _mute_stdout() -> None:
    """Point stdout elsewhere, or Python complains again while closing it."""
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def _show_warning(message) -> None:
    print(f"  warning: {one_line(message)}")


class _ShownWarnings(logging.Handler):
    """What libraries log, a line each: matplotlib does where it cannot keep its fonts."""

    def emit(self, record: logging.LogRecord) -> None:
        _show_warning(record.getMessage())


def behind(error: BaseException | None, kind: type[E]) -> E | None:
    """The first of a kind among an error and those that it came of: a library that fails once more while it closes or
    is being imported hides what happened, be it a full disk or Ctrl-C. An error that was kept and raised again can be
    among its own causes."""
    seen = set()
    while error is not None and id(error) not in seen and not isinstance(error, kind):
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return error if isinstance(error, kind) else None


def line_of(error: Exception) -> str | None:
    """What the user is told of an exception; `None` where it is a defect of this project."""
    if isinstance(error, UserError):
        return str(error)
    if is_memory(error):
        what = str(error).strip().splitlines()[0][:100] if str(error) else "Python's"
        return (f"not enough memory ({what}); what helps, where the program has the option: --quantize nf4, "
                "--checkpointing on, fewer --micro-tokens; and a smaller model")
    if isinstance(error, OSError) and error.errno in WHAT_HELPS:
        where = error.filename or "the output"
        return f"{where}: {error.strerror}; {WHAT_HELPS[error.errno]}"
    if isinstance(error, ValueError) and "integer string conversion" in str(error):
        return f"a whole number in the input has more than {sys.get_int_max_str_digits():,} digits; write a smaller one"
    return None


def is_memory(error: Exception) -> bool:
    """Whether an exception means that memory ran out: Python's, numpy's, PyTorch's on a GPU, or its CPU allocator's."""
    names = {kind.__name__ for kind in type(error).__mro__}
    said = ("DefaultCPUAllocator", "can't start new thread", "Cannot allocate memory")
    return bool(names & {"MemoryError", "OutOfMemoryError"}) or any(words in str(error) for words in said)


def closest(word: str, candidates) -> str:
    """A hint for a misspelt name: `closest("langages", ["languages"]) -> "; did you mean 'languages'?"`, or ""."""
    match = nearest(word, candidates)
    return f"; did you mean '{match}'?" if match else ""


def nearest(word: str, candidates) -> str | None:
    """The candidate that a misspelt name is most like, if it is like any."""
    import difflib

    if len(str(word)) > 200:  # no name, and comparing takes the square of its length
        return None
    names = [str(c) for c in candidates]
    match = ([name for name in names if name.casefold() == str(word).casefold() and name != word]
             or difflib.get_close_matches(str(word), names, n=1))
    return match[0] if match else None
