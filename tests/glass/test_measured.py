"""How often the run is right, beside the label: from run.json's last test.

Deliberate break: in glass/measured.py take `scored[0]`, or leave the interval out.
"""

from types import SimpleNamespace

import pytest

from glass.measured import measured


def run(*scored):
    entries = [{"data": data, "data_sha256": "", "n": n} | ({} if right is None else {"accuracy": right})
               for data, n, right in scored]
    return SimpleNamespace(folder=SimpleNamespace(facts={"scored": entries}))


def test_the_last_test_with_wilsons_interval():
    found = measured(run(("a/old.jsonl", 515, 0.9), ("a/test.jsonl", 20, 0.8)))
    assert found["files"] == ["test.jsonl"] and (found["n"], found["right"]) == (20, 0.8)
    assert found["interval"] == pytest.approx((0.5839826, 0.9193423), abs=1e-6)  # statsmodels' proportion_confint


def test_the_reports_interval_where_the_entry_has_it():
    """Nineteen posts of authors that count as ten have a wider one than nineteen posts."""
    one = run(("a/test.jsonl", 19, 0.79))
    one.folder.facts["scored"][0]["interval"] = [0.546, 0.921]
    assert measured(one)["interval"] == (0.546, 0.921)
    for wrong in (None, "0.5", [0.5], [0.9, 0.95], [0.5, 1.2], [None, 1.0], [float("nan"), 1.0]):
        one.folder.facts["scored"][0]["interval"] = wrong
        assert measured(one)["interval"] == pytest.approx((0.567, 0.915), abs=1e-3)


def test_a_test_of_several_files_is_one():
    assert measured(run(("c.csv", 7, 1.0), ("a.csv", 9, 0.5), ("b.csv", 9, 0.5)))["files"] == ["a.csv", "b.csv"]


@pytest.mark.parametrize("scored", [[], [("a.csv", 0, 0.5)], [("a.csv", 9, None)], [("a.csv", 9, float("nan"))]])
def test_what_was_not_measured_is_not_said(scored):
    assert measured(run(*scored)) is None
