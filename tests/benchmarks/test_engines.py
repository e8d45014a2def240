"""benchmarks.engines: rows a second behind the first window.

Deliberate break: count the rows of the first window as well.
"""

import pytest

from benchmarks.engines import rate
from common.errors import UserError


def test_the_first_window_counts_for_the_start_alone():
    assert rate(1.0, iter([(3.0, 1000), (4.0, 20), (7.0, 60)])) == (20.0, 2.0)
    with pytest.raises(UserError, match="--count: all posts were in the first window"):
        rate(1.0, iter([(3.0, 1000)]))
