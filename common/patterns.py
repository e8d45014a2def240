"""Regular expressions out of other people's files, matched so that none can hang a program or fill its memory.

An adapter's target_modules and a 4-bit folder's llm_int8_skip_modules may be expressions. `(a|a)*b` can take the
exponential of a name's length in time, `((a{999}){999}){999}` a machine's memory before it has matched anything. So an
expression is short, its counts are small, and all that one file asks for shares one budget of time, which the `regex`
module keeps (it comes with tiktoken; Python's own has no such limit). Only what Python's own takes is an expression.
"""

import re
import time
import warnings
from functools import lru_cache

import regex

from common.errors import UserError

LONGEST = 2000  # characters of an expression; PEFT's own examples have fewer than a hundred
COUNTS = 10_000  # the product of an expression's counts, such as {2,30}: `regex` unrolls them
SECONDS = 10.0  # for all that one file asks for; an ordinary expression takes a microsecond a name
_COUNT = re.compile(r"\{(\d*),?(\d*)\}")


def check_expression(text: str, where: str) -> None:
    """Raise `UserError`, beginning with `where`, for what is no regular expression, or none that is matched here."""
    shown = f"'{text[:60]}{'...' if len(text) > 60 else ''}'"
    if len(text) > LONGEST:
        raise UserError(f"{where}: {shown} has {len(text):,} characters; an expression has at most {LONGEST:,}")
    product = 1
    for pair in _COUNT.finditer(text):
        product *= max(int(number) for number in (*pair.groups(), "1") if number)
    if product > COUNTS:
        raise UserError(f"{where}: {shown} repeats too much (its counts multiply to more than {COUNTS:,})")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python's about the future of "[["
            re.compile(text)
        regex.compile(text)
    except (re.error, regex.error, RecursionError, OverflowError) as error:
        raise UserError(f"{where}: {shown} is not a regular expression ({error})") from error


class Matcher:
    """Matches expressions against names for one file, `where`, within one budget of time.

    Each method raises `UserError`, beginning with `where`, for what is no expression and when the budget is used up.
    """

    def __init__(self, where: str):
        self.where, self.left = where, SECONDS

    def full(self, expression: str, name: str) -> bool:
        """Whether the whole name matches."""
        return self._timed("fullmatch", expression, name) is not None

    def start(self, expression: str, name: str) -> regex.Match | None:
        """The match at the name's beginning, if there is one."""
        return self._timed("match", expression, name)

    def _timed(self, how: str, expression: str, name: str) -> regex.Match | None:
        began = time.perf_counter()
        try:
            if self.left <= 0:
                raise TimeoutError
            compiled = _compiled(expression, self.where)
            return getattr(compiled, how)(name, timeout=self.left)
        except TimeoutError as error:
            raise UserError(f"{self.where}: '{expression[:60]}': takes too long to match; write a simpler expression"
                            ) from error
        finally:
            self.left -= time.perf_counter() - began


@lru_cache(maxsize=4096)
def _compiled(expression: str, where: str) -> regex.Pattern:
    check_expression(expression, where)
    return regex.compile(expression)
