"""Everything that the page shows of one post: the way to its label, why it is this one, and what the adapter does."""

from glass.adapter import adapter
from glass.stages import Trace
from glass.why import why


def whole_trace(trace: Trace) -> Trace:
    """The trace with all further stages at its end."""
    return adapter(why(trace))
