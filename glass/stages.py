"""What a trace is made of: stages, each with its tensors, its formula, the code that computed it, and how to repeat it.

    stage.scores        one of its tensors, by name
    stage.formula       as text
    print(stage.code[0])
    stage.steps         Step("softmax", "layers.0.attention.weights", ("layers.0.attention.scores",)), ...

A step names its tensors as `trace.safetensors` does, `STAGE.TENSOR`; `NAME@answer` is the row of NAME at which the
label is read. `glass/recompute/` repeats the steps with numpy alone.
"""

from dataclasses import dataclass, field

import torch

from common.errors import closest
from glass.source import Code

ANSWER = "@answer"
OTHER = "against/"  # in front of the names of another trace's tensors, where two are compared


@dataclass(frozen=True)
class Step:
    """One operation: its name in `glass/recompute/`, the tensor that it makes, what it is given, its settings."""

    op: str
    out: str
    args: tuple[str, ...] = ()
    settings: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Stage:
    """A part of the computation. `tensors` by their short names, which are attributes, too."""

    name: str
    title: str
    formula: str
    tensors: dict[str, torch.Tensor]
    code: tuple[Code, ...]
    steps: tuple[Step, ...] = ()
    facts: dict = field(default_factory=dict)  # what else the page says of it

    def __getattr__(self, name: str) -> torch.Tensor:
        try:
            return self.__dict__["tensors"][name]
        except KeyError:
            there = self.__dict__.get("tensors", ())
            raise AttributeError(f"stage {self.__dict__.get('name')} has no tensor {name!r}{closest(name, there)}; "
                                 f"there are {', '.join(there)}") from None

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self.tensors]

    def __repr__(self) -> str:
        listed = ", ".join(f"{name} {tuple(t.shape)} {str(t.dtype)[6:]}" for name, t in self.tensors.items())
        return f"Stage({self.name}: {listed})"


class Layer:
    """One layer's stages as attributes: `layer.attention`, `layer.mlp`, ..."""

    def __init__(self, stages: dict[str, Stage]):
        self.__dict__.update(stages)

    def __repr__(self) -> str:
        return f"Layer({', '.join(self.__dict__)})"


@dataclass(frozen=True)
class Token:
    """One token of the row: its id, its bytes, and where it comes from ("prompt", "special" or "post").

    A token in which characters of the post and of the prompt meet counts as the post's.
    """

    id: int
    bytes: bytes
    part: str

    @property
    def text(self) -> str:
        """The bytes as text; those of half a character are written out, such as `\\xf0`."""
        return self.bytes.decode("utf-8", "backslashreplace")


@dataclass(frozen=True)
class Other:
    """Another trace that one is compared with, and words for its model."""

    trace: "Trace"
    words: str


class Trace:
    """One post on its way to a label. `stages` in the order of computation; `layers[i].attention.weights`.

    text: the post as it was read (repaired, and cut if it was too long). label: the run's answer. probabilities: by
    label. model, prompt: the run's own, not copies. threads: CPU threads for what is computed next; 0 chooses.
    """

    def __init__(self, text: str, cut: bool, tokens: tuple[Token, ...], label: str, probabilities: dict[str, float],
                 stages: list[Stage], model, prompt, other: "Other | None" = None, threads: int = 0):
        self.text, self.cut, self.tokens, self.label, self.probabilities = text, cut, tokens, label, probabilities
        self.stages, self.model, self.prompt, self.other = tuple(stages), model, prompt, other
        self.threads = threads
        self.by_name = {stage.name: stage for stage in stages}
        parts: dict[int, dict[str, Stage]] = {}
        for stage in stages:
            if stage.name.startswith("layers."):
                _, number, name = stage.name.split(".")
                parts.setdefault(int(number), {})[name] = stage
        self.layers = tuple(Layer(parts[number]) for number in sorted(parts))

    def extended(self, stages: list[Stage], other: "Other | None" = None) -> "Trace":
        """The same trace with further stages at its end."""
        return Trace(self.text, self.cut, self.tokens, self.label, self.probabilities, [*self.stages, *stages],
                     self.model, self.prompt, other or self.other, self.threads)

    def without(self, name: str) -> "Trace":
        """The same trace without the stage of this name and those whose names begin with it and a dot."""
        kept = [stage for stage in self.stages if stage.name != name and not stage.name.startswith(f"{name}.")]
        return Trace(self.text, self.cut, self.tokens, self.label, self.probabilities, kept, self.model, self.prompt,
                     None if name == "against" else self.other, self.threads)

    def tensor(self, name: str) -> torch.Tensor:
        """One tensor by its whole name, `STAGE.TENSOR`."""
        stage, _, short = name.rpartition(".")
        return self.by_name[stage].tensors[short]

    def tensors(self) -> dict[str, torch.Tensor]:
        """Every tensor by its whole name, `STAGE.TENSOR`."""
        return {f"{stage.name}.{name}": tensor for stage in self.stages for name, tensor in stage.tensors.items()}

    @property
    def size(self) -> int:
        """Bytes of all its tensors, and of the other trace's."""
        return sum(tensor.nbytes for tensor in self.tensors().values()) + (self.other.trace.size if self.other else 0)

    def post_tokens(self) -> list[int]:
        """Places of the post's own tokens in the row."""
        return [place for place, token in enumerate(self.tokens) if token.part == "post"]

    def __repr__(self) -> str:
        shown = ", ".join(f"{name} {value:.3f}" for name, value in self.probabilities.items())
        return f"Trace({len(self.tokens)} tokens, {len(self.layers)} layers: {shown})"
