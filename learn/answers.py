"""The file with somebody's answers: read as a module, with words for what keeps it from being read."""

import ast
import sys
import traceback
from pathlib import Path
from types import ModuleType

from common.errors import UserError, one_line
from learn import limit


class Unreadable(UserError):
    """A file of answers that is there and that Python cannot read or run to its end; the text is words for its
    writer, without the file's name."""


def read_answers(path: Path) -> ModuleType:
    """The file as a module. Raises `UserError` if it is not there, and `Unreadable`."""
    if not path.is_file():
        raise UserError(f"{path}: is not there")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    module = ModuleType(f"answers_{path.stem}")
    module.__file__ = str(path)
    code = _compiled(data, path)
    try:
        sys.modules[module.__name__] = module  # a dataclass looks its module up while it is made
        with limit.at_most(limit.SECONDS):
            exec(code, module.__dict__)
    except limit.OutOfTime as error:
        raise Unreadable(f"Python has not come to the file's end after {limit.SECONDS:g} seconds "
                         f"({line_of(error, path)}); is there a loop that never ends, outside the functions?") from None
    except (Exception, SystemExit) as error:  # an exit() would end the check with its own status
        raise Unreadable(f"stops with {said(error)} ({line_of(error, path)}), before any function is called"
                         ) from error
    finally:
        sys.modules.pop(module.__name__, None)
    return module


def _compiled(data: bytes, path: Path):
    if b"\0" in data:
        raise Unreadable("is not plain text in UTF-8; it looks like UTF-16, which some editors call Unicode. Save it "
                         "as UTF-8")
    try:
        return compile(data, str(path), "exec")
    except (SyntaxError, ValueError) as error:
        if getattr(error, "lineno", None):
            raise Unreadable(f"Python cannot read line {error.lineno}: {error.msg}") from error
        try:
            data.decode("utf-8")
        except UnicodeDecodeError as broken:
            place = data[: broken.start].count(b"\n") + 1
            raise Unreadable(f"Python cannot read line {place}: it has a character that is not in UTF-8. Save the file "
                             "as UTF-8") from error
        raise Unreadable(f"Python cannot read it: {error}") from error


def said(error: BaseException) -> str:
    """An error's kind and message, in one line."""
    return f"{type(error).__name__}: {one_line(str(error), 300)}"


def line_of(error: BaseException, path: Path | None) -> str:
    """The last line of the file on the way to an error."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__)
              if path and Path(frame.filename).resolve() == path.resolve()]
    return f"line {frames[-1].lineno} of {path.name}" if frames else "inside the call"


def is_begun(path: Path, name: str) -> bool:
    """Whether the function has more in it than a docstring and one `raise`."""
    functions = [node for node in ast.walk(ast.parse(path.read_bytes()))
                 if isinstance(node, ast.FunctionDef) and node.name == name]
    if not functions:
        return True  # made in some other way
    body = functions[-1].body[ast.get_docstring(functions[-1]) is not None :]
    return len(body) != 1 or not isinstance(body[0], ast.Raise)
