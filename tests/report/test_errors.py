"""The surest errors by cell of the confusion table, readable in a terminal.

Deliberate break: sort the least sure first, or show a post as it is (`shown`).
"""

from report.errors import MOST, WIDTH, shown, surest_errors


def test_cells_by_size_and_errors_by_sureness():
    gold = ["a", "a", "a", "b", "b", "a"]
    predicted = ["b", "b", "b", "a", "b", "c"]
    sure = [0.5, 0.9, 0.7, 0.6, 1.0, 0.4]
    lines = surest_errors(gold, predicted, sure, [f"text {n}" for n in range(6)], [f"p: row {n}" for n in range(6)], 2)
    assert lines.splitlines() == [
        "5 of 6 posts have another label than people gave them; the surest of each kind:",
        "", "people say “a”, the model says “b”: 3", "  0.900  p: row 1", "         text 1", "  0.700  p: row 2",
        "         text 2",
        "", "people say “a”, the model says “c”: 1", "  0.400  p: row 5", "         text 5",
        "", "people say “b”, the model says “a”: 1", "  0.600  p: row 3", "         text 3"]  # fmt: skip
    assert surest_errors(["a"], ["a"], [1.0], ["x"], ["p"]) == "no errors: every post has its human label"


def test_a_post_cannot_drive_the_terminal():
    assert shown("a\n\tb\x1b[2Jc\u202ed") == "a b\ufffd[2Jc\ufffdd"
    assert len(shown("x" * 1000)) == MOST and shown("👨\u200d👩") == "👨\u200d👩"
    lines = surest_errors(["a"], ["b"], [0.5], ["word " * 200], ["p"]).splitlines()
    assert max(map(len, lines[2:])) <= WIDTH
