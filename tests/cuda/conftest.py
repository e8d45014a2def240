"""One card for each file of tests, the machine's or one that is not there."""

import pytest

from tests.cuda.fake import card


@pytest.fixture(scope="module")
def one():
    """The card; all of the module's tests run on it."""
    with card() as found:
        yield found
