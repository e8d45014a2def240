"""benchmarks.scaling and benchmarks.plots: the arithmetic of growth, and pictures of what the benchmarks wrote.

Deliberate breaks: take the exponent's quotient the other way round in `scaling.growth`; take `one.median` for
`one.peak` in `scaling.one_series`; let `plots.memory` draw a job twice,
or give every panel the first one's limits.
"""

import json
from math import log

import pytest

from benchmarks import plots
from benchmarks.measure import FIRST, PAPER
from benchmarks.scaling import growth, one_series, report
from benchmarks.summary import limits, memories, project
from benchmarks.turns import Measured
from common.files import ROOT
from tests.benchmarks.test_compare import depths_of, write_source
from tests.small import here


def series():
    """Time that is 1 + 2 x, memory that does not grow; and time that grows as x squared."""
    def measured(seconds, peak):
        one = Measured()
        for off in (-0.1, 0.0, 0.1):
            one.add({"seconds": seconds + off, "peak_anonymous": peak}, 1)
        return one

    linear = one_series("layers", {x: measured(1 + 2 * x, 10**9) for x in (1, 2, 4)})
    square = one_series("posts", {x: measured(x * x, 10**9 * x) for x in (10, 20, 40)})
    tokens = one_series("tokens", {x: measured(x, 10**9) for x in (10, 20, 40)})
    return {"train over depth": linear, "classify.py over posts": square, "label over tokens": tokens}


def test_growth():
    found = growth({1: 3.0, 2: 5.0, 4: 9.0})
    assert (found["fixed"], found["each"]) == pytest.approx((1, 2)) and found["farthest"] < 1e-9
    assert found["exponent"] == pytest.approx(log(3) / log(4))
    one = series()
    assert one["train over depth"]["peak"]["exponent"] == 0
    assert one["classify.py over posts"]["seconds"]["exponent"] == pytest.approx(2)
    assert one["classify.py over posts"]["seconds"]["farthest"] > 0.1
    assert one["classify.py over posts"]["peak"]["exponent"] == pytest.approx(1)
    assert "10 to 40 posts" in report(one) and "2.00" in report(one)


def test_pictures(tmp_path):
    """A PNG of each; every job of the memory picture once; a file of another kind is refused."""
    found = depths_of(lambda place: (1.0 + place, 0.5 * (place + 1)))
    projected = project(found, 28)
    result = {"schema": 1, "projection": projected, "limits": limits(found, projected, 28, {(64, 128)}),
              "memory": memories(found, 28, False), "settings": {"full_depth": 28, "batch_size": 16}}
    growing = {"schema": 1, "series": series(), "settings": {"token_depth": 2, "depth_posts": 16}}
    files = []
    for name, content in (("compare.json", result), ("scaling.json", growing)):
        files.append(tmp_path / name)
        files[-1].write_text(json.dumps(content))
    here("benchmarks.plots", "--compare", files[0], "--scaling", files[1], "--out", tmp_path / "out", cwd=ROOT)
    pictures = sorted((tmp_path / "out").iterdir())
    assert [path.name for path in pictures] == ["memory.png", "scaling.png", "speed.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)
    for ax in plots.memory(json.loads(files[0].read_text())).axes:
        labels = [label.get_text() for label in ax.get_yticklabels()]
        assert sorted(labels) == sorted([f"{PAPER}: ours", f"{PAPER}: full logits", f"{FIRST}: ours"])
    longer = [row | {"checkpointing": True} | {key: 3 * value for key, value in row.items() if key.startswith("proj")}
              for row in result["memory"]]
    axes = plots.memory(result | {"memory": result["memory"] + longer}).axes
    assert len(axes) == 2 and len({ax.get_xlim() for ax in axes}) == 1
    assert all(bar.get_width() < ax.get_xlim()[1] for ax in axes for bar in ax.patches)
    one = next(iter(projected.values()))
    rows = {f"{side}, label, {PAPER}, packed": one for side in ("ours", "ours in bf16", "ours in int8")}
    files[0].write_text(json.dumps(result | {"memory": [], "limits": [], "projection": rows}))  # as --task label writes
    here("benchmarks.plots", "--compare", files[0], "--out", tmp_path / "label", cwd=ROOT)
    assert [path.name for path in (tmp_path / "label").iterdir()] == ["labelling.png"]
    assert "is not what the benchmark wrote" in here("benchmarks.plots", "--compare", files[1], cwd=ROOT, code=2)
    assert "at least one file" in here("benchmarks.plots", cwd=ROOT, code=2)


@pytest.mark.slow
def test_the_whole_at_a_tiny_size(tmp_path):
    out = tmp_path / "scaling.json"
    printed = here("benchmarks.scaling", "--source", write_source(tmp_path / "source"), "--token-posts", "2,4",
                   "--depths", "1,2", "--depth-posts", "2", "--file-posts", "5,10", "--turns", "1", "--threads", "1",
                   "--work", tmp_path / "work", "--json", out, cwd=ROOT)
    result = json.loads(out.read_text())
    assert set(result["series"]) == {"train over tokens", "label over tokens", "train over depth", "label over depth",
                                     "classify.py over posts"}
    for one in result["series"].values():
        assert len(one["points"]) == 2 and all(point["median"] > 0 and point["peak"] > 0 for point in one["points"])
    assert "exponent" in printed and not list((tmp_path / "work").iterdir())
