"""Every solution passes its check, every wrong answer is named for what it is, and all else is told by its place.

Deliberate break: in `learn/checks/chapter_6.py` let `by_mean` divide by the largest magnitude; in `learn/check.py` let
`_does` compare with an absolute tolerance of 1e-6, or call a wrong answer the reader's where both only stop.
"""

import importlib
import json

import numpy
import pytest
import torch

from learn.check import EMPTY, RIGHT, WRONG, Task, Wrong, judge
from learn.contents import LEARN, find_chapter
from learn.difference import call_of, difference, factor_of_all
from tests.learn.commands import NUMBERS, TASKS, command, line_on, solution, written

WRONG_ANSWERS = [(number, task, wrong) for number, task in TASKS for wrong in task.wrong]
BY_NAME = {task.name: task for _, task in TASKS}


def told(name: str, answer) -> str:
    """The words for an answer that is not right yet."""
    verdict = judge(BY_NAME[name], answer)
    assert verdict.status == WRONG, (name, verdict)
    return verdict.words


@pytest.mark.parametrize("number", NUMBERS)
def test_a_solution_passes_and_an_empty_exercise_is_told_so(number):
    status, out, _ = command("check", number, "--file", solution(number))
    assert status == 0 and "All right" in out, out
    status, out, _ = command("check", number, "--file", find_chapter(number).exercise)
    assert status == 2 and "Nothing is written yet" in out


@pytest.mark.parametrize(("number", "task"), TASKS, ids=[f"{number}-{task.name}" for number, task in TASKS])
def test_a_task_names_three_wrong_answers_and_its_exercise_is_empty(number, task):
    assert len(task.wrong) >= 3
    exercise = importlib.import_module(f"learn.exercises.chapter_{number}")
    solved = importlib.import_module(f"learn.solutions.chapter_{number}")
    assert judge(task, getattr(exercise, task.name), find_chapter(number).exercise).status == EMPTY
    assert judge(task, getattr(solved, task.name), solution(number)).status == RIGHT
    assert getattr(exercise, task.name).__annotations__ == getattr(solved, task.name).__annotations__


@pytest.mark.parametrize(("number", "task", "wrong"), WRONG_ANSWERS,
                         ids=[f"{n}-{task.name}-{task.wrong.index(wrong)}" for n, task, wrong in WRONG_ANSWERS])
def test_a_wrong_answer_is_named_for_what_it_is(number, task, wrong):
    verdict = judge(task, wrong.answer)
    assert (verdict.status, verdict.words) == (WRONG, wrong.words)
    assert len(wrong.words) > 40 and not any(mark in wrong.words for mark in ("=", ".amax(", "def "))


@pytest.mark.parametrize(("body", "words"), [
    ("return None", "is there a `return`?"),
    ("return weight / undefined, None", "it stops with NameError: name 'undefined' is not defined (line 3 of anna.py)"),
    ("weight.mul_(2); return weight, weight", "it changes the arguments"),
    ("return weight", "one Tensor where 2 results are wanted"),
    ("return weight.long(), weight", "result 1: it gives shape (2, 128); (256,) is wanted"),
    ("return weight.reshape(-1), weight", "result 1: it gives numbers of type torch.float32; torch.int64 is wanted"),
    ("return torch.zeros(weight.numel()).long(), weight", "result 1: at [0] it gives 0 where"),
    ("return levels[weight.reshape(-1).byte()], weight", "`.long()` makes places of them"),
    ("raise SystemExit(0)", "it stops with SystemExit: 0 (line 3 of"),
    ("return weight / weight.amax(dim=1), weight", "does one number for each row have to be a column first"),
    ("return weight @ weight, weight", "in a product A @ B of matrices, A has as many columns as B has rows"),
])
def test_other_mistakes_are_told_with_their_place(body, words, tmp_path):
    path = written(tmp_path, f"def quantize(weight, levels):\n    {body}\n")
    status, out, _ = command("check", 6, "--file", path)
    assert status == 1 and words in out
    assert "pack: not yet: there is no function pack in the file any more" in out


def test_half_written_answers_end_in_status_one(tmp_path):
    path = written(tmp_path, solution(6).read_text() + "\n\ndef pack(codes):\n    raise NotImplementedError\n")
    status, out, _ = command("check", 6, "--file", path)
    assert status == 1 and "quantize: right" in out and "pack: not begun" in out


def test_lines_above_a_forgotten_raise_are_seen(tmp_path):
    line = line_on(6, "pack", tmp_path, 'def pack(codes):\n    """Two."""\n    two = codes[0::2]\n'
                                        "    raise NotImplementedError\n")
    assert line == ("pack: not yet: there are lines, but a `raise NotImplementedError` is left (line 5 of anna.py)")
    empty = 'def pack(codes):\n    """Two."""\n    raise NotImplementedError("later")\n'
    assert line_on(6, "pack", tmp_path, empty) == "pack: not begun"


def test_the_call_is_shown_where_it_is_short(tmp_path):
    assert told("common_prefix", lambda rows: BY_NAME["common_prefix"].right(rows) + 0 * rows[0][2]).endswith(
        "(inside the call); trial 3 of 7, common_prefix([[1, 2], [1, 2, 3]])")
    assert told("merge", lambda pieces, pair: [*pieces, "x"]).startswith("trial 1 of 6, merge(['a', 'b', 'c', 'a', 'b'"
                                                                         "], ('a', 'b')): it gives 6 results where 3")
    assert told("quantize", lambda weight, levels: (weight.long().view(-1), weight)).startswith("trial 1 of 3: result")
    assert told("block", lambda x, *parts: x).startswith("trial 1 of 2: at [0, 0] it gives")
    assert call_of("f", (torch.tensor([0.1, 1 / 3]), 2, 1 / 3)) == "f(tensor([0.1, 0.3333]), 2, 0.333333)"
    assert call_of("f", (torch.zeros(9),)) == call_of("f", ("x" * 200,)) == ""


def one_length_byte(data, name):
    head = json.loads(data[8 : 8 + data[0]])[name]
    return head["shape"], *(8 + data[0] + place for place in head["data_offsets"])


def test_a_mistake_that_stops_in_some_trials_only_is_named_as_well():
    assert told("find_tensor", one_length_byte).startswith("only the first of the eight bytes is read")
    assert told("common_prefix", lambda rows: next(
        (i for i in range(len(rows[0])) if len({row[i] for row in rows}) > 1), len(rows[0]))).startswith("a later row")
    stops = Task("root", lambda: [(0,)], lambda x: 0, (Wrong(lambda x: 1 / x, "one divides by the number"),))
    assert judge(stops, lambda x: 2 / x).words.startswith("it stops with ZeroDivisionError: ")


def test_an_answer_that_is_right_in_most_trials_is_not_accepted():
    assert "compare whole pieces" in told(
        "merge", lambda pieces, pair: " ".join(pieces).replace(" ".join(pair), "".join(pair)).split(" "))
    assert "stands twice" in told("most_frequent_pair", once_a_word)
    assert "another pair" in told("merge", by_sound)
    assert "neighbours as well" in told("most_frequent_pair", halves)


def test_a_check_looks_at_results_alone_as_the_course_says():
    def gradients(x, dy, A, B, s):
        A, B = A.clone().requires_grad_(), B.clone().requires_grad_()
        (s * x @ A.T @ B.T).backward(dy)
        return A.grad, B.grad

    def read(data):
        return torch.frombuffer(bytearray(data), dtype=torch.bfloat16).float()

    assert judge(BY_NAME["lora_gradients"], gradients).status == judge(BY_NAME["from_bfloat16"], read).status == RIGHT
    course = " ".join((LEARN / "TEACHING.md").read_text(encoding="utf-8").split())
    assert "looks at what a function gives, not at how: gradients by `backward`, or bytes by `torch.bfloat16`" in course


def once_a_word(words, spelled):
    counts = {}
    for word, times in words.items():
        for pair in set(zip(spelled[word], spelled[word][1:], strict=False)):
            counts[pair] = counts.get(pair, 0) + times
    return max(counts, key=counts.get)


def halves(words, spelled):
    """Every second pair alone, as `range(0, len(pieces) - 1, 2)` goes."""
    counts = {}
    for word, times in words.items():
        for i in range(0, len(spelled[word]) - 1, 2):
            pair = tuple(spelled[word][i : i + 2])
            counts[pair] = counts.get(pair, 0) + times
    return max(counts, key=counts.get)


def by_sound(pieces, pair):
    result, i = [], 0
    while i < len(pieces):
        if i + 1 < len(pieces) and pieces[i] + pieces[i + 1] == pair[0] + pair[1]:
            result, i = [*result, pieces[i] + pieces[i + 1]], i + 2
        else:
            result, i = [*result, pieces[i]], i + 1
    return result


def test_numbers_are_compared_by_their_size_with_wrong_answers():
    def low_half(data):
        return (torch.frombuffer(bytearray(data), dtype=torch.int16).int() & 0xFFFF).view(torch.float32)

    def overflow(data):
        pairs = torch.frombuffer(bytearray(data), dtype=torch.uint8).view(-1, 2)
        return ((pairs[:, 0] + 256 * pairs[:, 1]).int() << 16).view(torch.float32)

    def no_room(data):
        pairs = torch.frombuffer(bytearray(data), dtype=torch.uint8).view(-1, 2)
        return ((pairs[:, 0] + 256 * pairs[:, 1]) << 16).view(torch.float32)

    assert told("from_bfloat16", low_half).startswith("the sixteen bits are in the lower half")
    assert told("from_bfloat16", overflow) == told("from_bfloat16", no_room)
    assert told("from_bfloat16", overflow).startswith("the numbers overflow: a byte")
    assert "at [0] it gives 0 where 1 is wanted" in told("from_bfloat16", lambda data: torch.zeros(len(data) // 2))


def test_the_type_of_numbers_counts_where_the_exercise_names_it():
    right = {name: BY_NAME[name].right for name in ("from_bfloat16", "may_see", "pack", "label_shares", "quantize")}
    assert "type torch.bfloat16; torch.float32 is wanted" in told(
        "from_bfloat16", lambda data: torch.frombuffer(bytearray(data), dtype=torch.bfloat16))
    assert "type torch.int32, which take 4 bytes each; torch.bool is wanted" in told(
        "may_see", lambda *given: right["may_see"](*given).int())
    assert told("pack", lambda codes: right["pack"](codes).char()).endswith("type torch.int8; torch.uint8 is wanted")
    for name, to in (("label_shares", torch.Tensor.double), ("quantize", lambda pair: (pair[0].int(), pair[1]))):
        assert judge(BY_NAME[name], lambda *given, name=name, to=to: to(right[name](*given))).status == RIGHT


def test_numbers_of_numpy_are_numbers():
    for kind in (numpy.float32, numpy.float64, torch.tensor):
        assert judge(BY_NAME["scaled_frequency"],
                     lambda *given, kind=kind: kind(BY_NAME["scaled_frequency"].right(*given) + 5e-7)).status == RIGHT
    for kind in (numpy.int64, torch.tensor):
        assert judge(BY_NAME["common_prefix"],
                     lambda rows, kind=kind: kind(BY_NAME["common_prefix"].right(rows))).status == RIGHT
    assert "a table of shape (2,) where one float is wanted" in told("macro_f1", lambda *given: torch.zeros(2))
    assert "a table of shape (2,) where one int is wanted" in told("common_prefix", lambda rows: numpy.zeros(2))


def test_a_factor_and_a_transposed_matrix_are_named():
    right = torch.tensor([[1.0, -2.0, 0.0], [4.0, 0.5, 8.0]])
    assert difference(-0.5 * right, right, 1e-6).endswith("; every number is -0.5 times the one that is wanted")
    for other in (right + 1, 0 * right, right.square(), torch.tensor([[2.0, -4.0, 1.0], [8.0, 1.0, 16.0]])):
        assert "times" not in difference(other, right, 1e-6) and difference(other, right, 1e-6)
    assert "times" not in difference(right * 1.00001, right, 1e-6) != ""
    assert difference((right / 3).half(), right / 3, 1e-6).endswith("of type torch.float16 hold only a few digits")
    assert difference(2 * right.half(), right, 1e-6).endswith("; every number is 2 times the one that is wanted")
    assert difference(right.T, right, 0).endswith("(2, 3) is wanted; rows and columns have changed places")
    assert "infinity is multiplied by 0" in difference(right / 0 * 0, right, 0)
    codes = torch.tensor([1, 2, 3])
    assert difference(codes, codes.byte(), 0, typed=True).endswith("torch.uint8 is wanted")
    assert not difference(codes, codes, 0, typed=True) and not difference(codes, codes.byte(), 0)


def test_a_factor_of_single_numbers_is_named_over_all_trials():
    for name, by, words in (("macro_f1", 100, "100"), ("macro_f1", 0.5, "0.5"), ("scaled_frequency", 3, "3")):
        said = told(name, lambda *given, name=name, by=by: by * BY_NAME[name].right(*given))
        assert said.endswith(f"; every number is {words} times the one that is wanted")
    assert told("wilson", lambda k, n: tuple(100 * end for end in BY_NAME["wilson"].right(k, n))).endswith("100 times "
                                                                                      "the one that is wanted")
    assert told("macro_f1", lambda *given: BY_NAME["macro_f1"].right(*given) + 1).endswith("is wanted")
    assert factor_of_all([None, 2.0], [1.0, 1.0]) == factor_of_all([["a"]], [["b"]]) == ""


def test_differences_are_found():
    assert difference(0.5, 0.5000001, 1e-6) == "" and difference(0.5, 0.6, 1e-6)
    assert difference(["a"], ["a"], 0) == "" and "1 result where 2 are" in difference(["a"], ["a", "b"], 0)
