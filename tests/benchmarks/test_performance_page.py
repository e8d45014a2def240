"""docs/performance.md: what it says of the engines, of many posts and of growth is what docs/performance.json has.

Deliberate break: change a digit of either.
"""

import re
from statistics import median

import pytest

from benchmarks.scaling import growth
from common.files import ROOT, read_json

PAGE = " ".join((ROOT / "docs" / "performance.md").read_text(encoding="utf-8").split())
FOUND = read_json(ROOT / "docs" / "performance.json")
STAGES = ("first reading", "second reading", "encoding", "looking for posts", "rows of the output", "writing csv")


def test_what_the_page_says_in_short():
    """Of its own tables: beside llama.cpp in float32 and in bfloat16, beside the usual stack, and memory."""
    ratios = r" [^|]+ \| ([\d.]+) \|"
    slower = [[float(ratio) < 1 for ratio in re.findall(rf"\| labelling{dtype} \| [^|]+ \| llama.cpp,{ratios}", PAGE)]
              for dtype in ("", ", `--dtype bfloat16`")]
    assert slower == [[True, True, True, False], [False] * 4]
    assert "slower in three of four settings, and in bfloat16" in PAGE and "faster in all four" in PAGE
    usual = re.findall(rf"\| [^|]+ \| (?:transformers|the same,|batched|a forward){ratios}", PAGE)
    assert len(usual) == 5 and min(map(float, usual)) > 1
    whole, *ours = (float(found) for found in re.search(
        r"takes ([\d.]+) GB \(paper's template\) and ([\d.]+) GB .* stack's ([\d.]+) GB", PAGE).groups()[::-1])
    assert all(0.28 < part / whole < 0.32 for part in ours) and "about a third of their memory" in PAGE


def test_engines():
    every = FOUND["engines"]["rows a second, seconds to the first"]
    plain = median(rate for rate, _ in every["plain loop over Labeller.label, posts in memory"])
    for name, values in every.items():
        rates = sorted(round(rate) for rate, _ in values)
        beside = 100 * (plain / median(rate for rate, _ in values) - 1)
        quoted = re.sub("Labeller.label|classify.py|--engine ray", r"`\g<0>`", name)
        last = "|" if name.startswith("plain") else f"| {beside:+.1f} % |".replace("-", "−")
        assert f"| {quoted} | {rates[1]} | {rates[0]} to {rates[-1]} {last}" in PAGE
        assert beside < 5
    starts = [f"{median(start for _, start in values):.1f}" for values in every.values()]
    assert f"after {', '.join(starts[:-1])} and {starts[-1]} seconds" in PAGE
    one, two = (median(rate for rate, _ in every[f"--engine ray, {name}"]) for name in ("1 worker", "2 workers"))
    assert f"Two workers gained {100 * (two / one - 1):.0f} % over one" in PAGE


def test_eight_bits_at_full_depth():
    found, both = FOUND["int8"], ("paper", "instruction-first")
    first, second = ({name: sum(turns) / len(turns) / 8 for name, turns in found["seconds a turn"][template].items()}
                     for template in both)
    for name, quoted, goal in (("float32", "float32", "2.8 | yes"), ("llama.cpp, prefix kept",) * 2 + ("1.8 | yes",),
                               ("bfloat16", "`--dtype bfloat16`", "– | –")):
        cells = " | ".join(f"{one[name]:.2f} and {one['int8']:.2f} | {one[name] / one['int8']:.2f}"
                           for one in (first, second))
        assert f"| {quoted} | {cells} | {goal} |" in PAGE
    before = found["memory given back, seconds a post"]
    times = [one["float32"] / one["int8"] for one in (first, second)]
    more = " ".join((ROOT / "docs" / "your-posts.md").read_text(encoding="utf-8").split())
    assert 3.5 < min(times) < max(times) < 4.5 and "about four times as fast as float32" in more
    given = ["{:.2f} and {:.2f}".format(*(before[template][name] for template in both))
             for name in ("float32", "int8", "bfloat16")]
    assert "float32 took {} seconds a post, 8 bits {}, bfloat16 {}.".format(*given) in PAGE
    moved = [f"{found['moved'][f'ours in {side}, label, {template}, packed']:.3f}" for side in ("bf16", "int8")
             for template in both]
    assert "by at most {} and {}, 8 bits by {} and {} (with".format(*moved) in PAGE


def test_what_the_readme_says_of_memory_without_a_gpu():
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    log = (ROOT / "LOG.md").read_text(encoding="utf-8")
    assert "Training with 16 posts a step takes 11.0 GB" in PAGE and "16 posts a step should take about 11 GB" in readme
    assert "train 3 steps of one post | 80.7 (67 for the steps) | 4.44 GB |" in log
    assert "three steps of one post took 4.4 GB with 3B" in readme


def test_beside_the_model():
    for before, now, name in zip(FOUND["beside"]["before"], FOUND["beside"]["now"], STAGES, strict=True):
        shown = re.search(rf"\| {name}[^|]*\| ([\d.]+) \| ([\d.]+) \|", PAGE)
        assert (float(shown[1]), float(shown[2])) == pytest.approx((before, now), abs=0.051), name
    assert f"| **{sum(FOUND['beside']['before']):.0f}** | **{sum(FOUND['beside']['now']):.0f}** |" in PAGE
    assert sum(FOUND["beside"]["now"]) < 60


def test_a_million_posts():
    points = FOUND["million"]
    memory = {round(count, -4): size / 1e6 for count, _, size in points}
    assert (f"took {memory[10_000]:.0f} MB after 10,000, {memory[200_000]:.0f} MB after 200,000, and "
            f"{memory[400_000]:.0f} MB from 310,000 to the end") in PAGE
    assert max(size for _, _, size in points) / 1e6 == pytest.approx(memory[400_000], abs=1)
    first, last = (1e6 * seconds / count for count, seconds, _ in (points[0], points[-1]))
    assert f"{first:.0f} microseconds of processor time in the first 10,000 and {last:.0f} in the mean of all" in PAGE
    assert last < 1.05 * first


def test_growth():
    series = FOUND["scaling"]
    for name, points in series.items():
        line = growth({point["x"]: point["seconds"] for point in points})
        if "depth" in name:
            assert 0.7 < -line["fixed"] / line["each"] < 1  # the axis is cut near one layer
        else:
            assert line["farthest"] < 0.03
    ends = [f"{series['classify.py over posts'][place]['peak'] / 1e6:.0f} MB at {posts}"
            for place, posts in ((0, "1,000"), (-1, "16,000"))]
    assert f"grows from {ends[0]} to {ends[1]}" in PAGE
