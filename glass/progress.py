"""How far a model has come with what it computes, and a way to leave off: by hooks from outside that change no bit.

    progress = Progress(model)
    with progress.counting(): ...           meanwhile, in another thread:
    progress.now  ->  {"layer": 7, "layers": 16, "pass": 1}
"""

from collections.abc import Iterator
from contextlib import contextmanager


class Left(Exception):
    """What was being computed is not wanted any more."""


class Progress:
    """The layer that is being computed, and the how-manieth pass through the model."""

    def __init__(self, model):
        self.layers = model.model.layers
        self.now, self.left = {"layer": 0, "layers": len(self.layers), "pass": 0}, False
        self.ended = False

    @contextmanager
    def counting(self, may_leave: bool = False) -> Iterator[None]:
        """Count within the block; `may_leave`: it ends with `Left` at the next layer after `leave`."""
        self.now, self.left = self.now | {"layer": 0, "pass": 0}, False
        handles = [layer.input_layernorm.register_forward_hook(self._at(number, may_leave))
                   for number, layer in enumerate(self.layers)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def leave(self) -> None:
        """Another question waits."""
        self.left = True

    def end(self) -> None:
        """Nobody waits for anything any more: whatever is computed, now or later, ends with `Left` at a layer."""
        self.ended = True

    def _at(self, number: int, may_leave: bool):
        def hook(module, inputs, output):
            self.now = self.now | {"layer": number + 1, "pass": self.now["pass"] + (number == 0)}
            if self.ended or (self.left and may_leave):
                raise Left
        return hook
