"""The glass: one post on its way to a label, stage by stage, each with the code that computed it.

    from glass import trace
    t = trace(run, "I came here as a child.")
    t.layers[1].attention.weights
"""

from glass.trace import trace

__all__ = ["trace"]
