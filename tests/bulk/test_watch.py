"""What is said while it labels, after a kill too: the rate and the time left are those of now.

Deliberate break: in bulk/watch.py let `before` call `show`, or `_tell` divide all that is done by the seconds of now.
"""

import io
import json
import sys
import time
from collections import Counter

import numpy as np
import pytest

from bulk import watch as watching
from bulk.watch import Watch, product_limit
from inference.labeller import Labelled
from tests.small import random_model


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def window(count: int) -> Labelled:
    return Labelled([None] * count, np.zeros((count, 2), np.float32), 0, 7 * count, 0)


def test_what_was_labelled_before_a_kill_is_not_in_the_rate(clock, tmp_path, capsys):
    path = tmp_path / "p.json"
    watch = Watch(100, path)
    with watch:
        watch.before(Counter(texts=60, rows=61, **{"label:a": 40, "label:b": 20}))
        clock[0] += 40
        watch.window(window(10), Counter(a=10), 0)
        watch.show(10)
        line = capsys.readouterr().err
        assert "labelling: 70 of 100 posts, 4.0 s each, 2 min 0 s left; 2 tokens a second; a 71.4 %, b 28.6 %" in line
    said = json.loads(path.read_text())
    assert (said["done"], said["total"], said["posts_per_second"], said["seconds_left"]) == (70, 100, 0.25, 120.0)
    assert watch.summary().startswith("10 posts in 40.0 s, 0.25 a second; ")


def test_a_line_every_thirty_seconds_without_a_terminal(clock, capsys):
    with Watch(1000) as watch:
        for _ in range(100):
            clock[0] += 1
            watch.show(1)
    assert capsys.readouterr().err.count("labelling: ") == 3


def test_the_bar_of_a_terminal_leaves_them_out_as_well(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    with Watch(100) as watch:
        watch.before(Counter(texts=60))
        assert (watch._bar.n, watch._bar.initial, watch._bar.last_print_n) == (60, 60, 60)
        watch.show(10)
        assert watch._bar.n == 70


def test_the_line_says_how_near_the_limit_it_is_where_there_are_many_posts(clock, capsys, monkeypatch):
    """Deliberate break: let `measure` look for a file alone, or `detail` leave the share out."""
    monkeypatch.setattr(watching, "product_limit", lambda model: 2 * model.config.linear_weights * 14.0)
    for total, said in ((watching.MANY, True), (watching.MANY - 1, False)):
        watch = Watch(total)
        watch.measure(random_model())
        with watch:
            clock[0] += 40
            watch.window(window(40), Counter(a=40), 0)  # seven tokens a second
            watch.show(40)
        assert ("; 50 % of what the device's matrix products reach; a 100" in capsys.readouterr().err) == said
        assert ("50 % of what" in watch.summary()) == said


@pytest.mark.parametrize(("seconds", "sizes"), [(0.01, 2), (0.2, 1)])
def test_a_slow_product_is_not_waited_for(monkeypatch, seconds, sizes):
    """Deliberate break: let `product_limit` take both sizes whatever the first took."""
    now, read = [0.0], []

    def clock():
        now[0] += seconds
        read.append(now[0])
        return now[0]

    monkeypatch.setattr(watching.time, "perf_counter", clock)
    assert product_limit(random_model()) > 0 and len(read) == 2 * sizes * (watching.TRIES + 1)
