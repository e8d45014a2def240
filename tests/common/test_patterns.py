"""Regular expressions from files: ordinary ones match as in Python, hostile ones end in one line at once.

Deliberate break that turns this red: in common/patterns.py, let `check_expression` take an expression of any length.
(Where counts or time have no limit, the tests take the machine's memory or no end.)
"""

import re

import pytest

from common.errors import UserError
from common.patterns import LONGEST, SECONDS, Matcher, check_expression

NAME = "model.layers.10.self_attn.q_proj"
ORDINARY = [r".*\.(q|v)_proj", r"model\.layers\.\d+\.self_attn\..*", "q_proj", r".*layers\.(1[0-9]|2[0-7])\..*",
            "(?i).*Q_PROJ", r"(?:[a-z_0-9]+\.){4}q_proj", r"[^.]*", r".*(?<!v_proj)", r"model.layers.1{1,2}.*"]
HOSTILE = {
    "exponential": ("(?:.|.)*(?<=!)", "too long"),
    "exponential in a group": (r"(?:(?:.|.)*)*(?<=[A-Z])", "too long"),
    "counts in counts": ("(?:(?:a{999}){999}){999}", "repeats too much"),
    "a huge count": ("a{9999999}", "repeats too much"),
    "a count of 300 digits": ("a{" + "9" * 300 + "}", "repeats too much"),
    "long": ("a" * (LONGEST + 1), "at most"),
    "nested": ("(" * 900 + ")" * 900, "not a regular expression"),
    "unclosed": ("(q_proj", "not a regular expression"),
    "a count that is none": ("a{2,1}", "not a regular expression"),
    "of the other module alone": (r"\p{L}+", "not a regular expression"),
}


@pytest.mark.parametrize("expression", ORDINARY)
def test_ordinary_expressions_match_as_in_python(expression):
    matcher = Matcher("x")
    for name in (NAME, NAME.replace("q_", "v_"), "lm_head", ""):
        assert matcher.full(expression, name) == bool(re.fullmatch(expression, name))
        ours, theirs = matcher.start(expression, name), re.match(expression, name)
        assert (ours and ours.group()) == (theirs and theirs.group())
    assert matcher.left > 0


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_expressions_end_in_one_line(case, monkeypatch):
    monkeypatch.setattr("common.patterns.SECONDS", 0.05)
    expression, words = HOSTILE[case]
    with pytest.raises(UserError, match=words) as caught:
        Matcher("f.json: key").full(expression, NAME)
    assert str(caught.value).startswith("f.json: key: ") and len(str(caught.value)) < 300
    if words != "too long":
        with pytest.raises(UserError):
            check_expression(expression, "f.json: key")


def test_all_of_a_file_share_one_budget():
    matcher = Matcher("f.json")
    assert matcher.full("a", "a") and matcher.left < SECONDS
    matcher.left = 0
    with pytest.raises(UserError, match="too long"):
        matcher.full("a", "a")


def test_nothing_is_said_ahead_of_an_error(recwarn):
    check_expression("[[a]", "f.json")
    assert not recwarn.list
