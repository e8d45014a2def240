"""A finished run in memory: from a list of texts, or a pandas frame, to labels. Five lines in a notebook:

    import sys
    sys.path.insert(0, "/path/to/glass-llama")              # if the notebook is in another folder
    from inference import load_run
    run = load_run("runs/mine")                             # without an argument: the newest in runs/
    run.label(["I came here as a child."])                  # [Label(label=..., probabilities={...}, related=0.93)]

`run.label_frame(frame, text="tweet")` does the same for a frame's column. Paths are relative to the working folder, as
for the programs; if that has no run in runs/ yet, the one that the project ships is copied to runs/shipped, and a line
says so.

Texts are treated as in classify.py (the same repairs, the same prompt, the same model), so on a CPU their probabilities
are the same to the bit. A wrong argument raises a `UserError`, an exception of one line.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Set
from types import SimpleNamespace

import numpy as np

from common.device import best_threads, choose_device, choose_dtype, unused_card
from common.errors import UserError, arguments, closest, naming_arguments
from common.terminal import progress
from data.cells import mend
from data.chat import imitation
from data.languages import reduce_language
from data.visible import is_empty
from finetune.run_folder import RunFolder
from inference.decide import NO_LABEL, Label, as_labels, decide, related
from inference.labeller import Labeller, unseen
from inference.options import LabelOptions
from inference.run import finished_run, open_model


class LoadedRun:
    """A run with its model in memory; made by `load_run`.

    micro_tokens: packed tokens that go through the model at once; 0 leaves the choice to `Labeller`. make_quicker:
    called as `LabelOptions.make_quicker` with the first call's texts, on which it measures its price.
    """

    def __init__(self, folder: RunFolder, model, prompt, micro_tokens: int = 0,
                 make_quicker: Callable | None = None):
        self.folder, self.model, self.prompt, self.codebook = folder, model, prompt, prompt.codebook
        self._make_quicker = make_quicker
        self._labeller = Labeller(model, prompt, micro_tokens)

    def __repr__(self) -> str:
        labels = ", ".join(self.codebook.labels)
        return f"LoadedRun({self.folder.path}: {labels}; {self.model.dtype}, {self.model.device})"

    def label(self, texts: Iterable[str], languages: Iterable[str | None] | None = None) -> list[Label]:
        """A `Label` for each text, in order; a text of nothing but white space gets one without label and figures.

        languages: one tag per text (None, or what pandas has for it, if unknown), reduced to ISO 639-1 as in files and
        kept in the labels; they are not in the prompt, so they change no probability. Raises `UserError` for anything
        but a list, for entries that are not strings, and for lists of different lengths.
        """
        if hasattr(texts, "columns"):
            raise UserError("texts: is a frame; give it to run.label_frame, or one of its columns here")
        texts = _strings(_listed(texts, "texts", "run.label([text])"), "texts[{}]".format)
        if languages is not None:
            tags = ["" if _is_missing(tag) else tag for tag in _listed(languages, "languages", 'languages=["en"]')]
            if len(tags) != len(texts):
                raise UserError(f"languages: has {len(tags)} entries for {len(texts)} texts; give one for each text, "
                                "None if it is unknown")
            languages = [reduce_language(tag)[0] for tag in _strings(tags, "languages[{}]".format)]
        return as_labels(self._probabilities(texts), self.codebook, languages)

    def label_frame(self, frame, text: str = "text"):
        """A new pandas frame with the index and order of `frame`, and columns for the answers to its column `text`.

            label  probability  related (if the codebook has a topic)  p_LABEL for each label of the codebook

        A row without text has missing values. Raises `UserError` for anything but a frame, for a column that is absent
        or doubled, and for a cell that is missing or not a string.
        """
        if not all(hasattr(frame, name) for name in ("columns", "index", "assign")):
            raise UserError(f"frame: is of type {type(frame).__name__}; give a pandas DataFrame, or a list of texts to "
                            "run.label")
        names = list(frame.columns)
        if text not in names:
            there = ", ".join(repr(name) for name in names[:12]) + (", ..." if len(names) > 12 else "")
            raise UserError(f"frame: has no column '{text}'; it has {there or 'none'}; text=... names the one with the "
                            f"texts{closest(text, names)}")
        if names.count(text) > 1:
            raise UserError(f"frame: has {names.count(text)} columns named '{text}'; rename all but one")
        texts = _strings(list(frame[text]), lambda row: f"frame.iloc[{row}][{text!r}]",
                         f"; leave such rows out: frame.dropna(subset=[{text!r}])")
        probabilities = self._probabilities(texts)
        labels, chosen = self.codebook.labels, decide(probabilities)
        columns = {"label": np.array([None if index == NO_LABEL else labels[index] for index in chosen], dtype=object),
                   "probability": probabilities.max(1).astype(np.float64)}
        if self.codebook.related:
            columns["related"] = related(probabilities, self.codebook)
        columns |= {f"p_{label}": probabilities[:, index].astype(np.float64) for index, label in enumerate(labels)}
        return frame[[]].assign(**columns)

    @naming_arguments()
    def _probabilities(self, texts: list[str]) -> np.ndarray:
        """(n, C) float32 in the order of `texts`, NaN where one is empty; a bar if it takes more than a moment."""
        mended = [mend(text) for text in texts]
        before = self._labeller.halvings
        bar = progress(sum(not is_empty(text) for text in mended), "post", "labelling", delay=1)
        with bar, best_threads(self.model.config):
            if self._make_quicker and not all(map(is_empty, mended)):
                self._make_quicker(self.model, self.prompt, mended)
                self._make_quicker = None
            self._labeller.show = bar.update
            try:
                windows = list(self._labeller.label(SimpleNamespace(text=text) for text in mended))
            finally:
                self._labeller.show = unseen  # a bar holds a terminal, and a run may be pickled
        changed, cut = sum(a != b for a, b in zip(texts, mended, strict=True)), sum(window.cut for window in windows)
        if changed:
            print(f"{changed:,} of {len(texts):,} texts had NUL or half characters, replaced by U+FFFD")
        if cut:
            print(f"{cut:,} of {len(texts):,} texts were too long and cut: with their prompt, more than "
                  f"{self.prompt.max_tokens} tokens")
        imitating = self.prompt.imitating(mended)
        if imitating:
            print(imitation(imitating, self.prompt.imitated))
        if self._labeller.halvings > before:
            print("memory ran out, so labelling went on in smaller batches")
        return np.concatenate([np.empty((0, len(self.codebook.labels)), np.float32),
                               *(window.probabilities for window in windows)])


def load_run(path: str | os.PathLike | None = None, *, model: str | os.PathLike | None = None, device="auto",
             dtype="auto", cache: str | os.PathLike | None = None, int8: bool = False,
             merge: bool = False) -> LoadedRun:
    """Open a finished run for labelling, with the same choice of run, device and dtype as in the programs.

    path: a run's folder; None takes the newest in runs/, or else a copy of the run that the project ships.
    model: where the base now is, if it has moved. device: "auto", "cpu", "cuda:0", ...; dtype: "auto", "bfloat16", ...
    or PyTorch's own. cache: a folder that keeps a 4-bit copy of the base. int8, merge: as the programs' --int8 and
    --merge, with the price measured on the texts of the first call.
    Raises `UserError` for a run that is not there or was stopped early, and if the base's bytes or the prompt are not
    those that the run was made with.
    """
    with naming_arguments():
        return open_run(path, model=model, device=device, dtype=dtype, cache=cache, int8=int8, merge=merge,
                        worded=arguments)


def open_run(path=None, *, model=None, device="auto", dtype="auto", cache=None, int8: bool = False, merge: bool = False,
             worded: Callable[[str], str] = str) -> LoadedRun:
    """`load_run` for a program, whose user knows options and not arguments; `worded` rewords what it prints."""
    for name, value in {"path": path, "model": model, "cache": cache}.items():
        if value is not None and not (isinstance(value, str | os.PathLike) and os.fspath(value)):
            raise UserError(f"{name}: {value!r} names no folder; give one, or leave it out")
    folder, is_open = finished_run(path), device in (None, "auto")
    device = choose_device(None if device is None else str(device))
    dtype, reason = choose_dtype(device, dtype)
    print(f"run {folder.path}: {device}, {dtype}, since {worded(reason)}")
    if is_open and device.type == "cpu" and (unused := unused_card()):
        print(f"  {unused}")
    options = LabelOptions(int8=int8, merge=merge)
    options.check_quicker(device, dtype)
    opened, prompt = open_model(folder, model=model, device=device, dtype=dtype, cache=cache)
    options.apply(opened)
    return LoadedRun(folder, opened, prompt, make_quicker=options.make_quicker)


def _listed(values, name: str, example: str) -> list:
    """An ordered iterable as a list; a string is refused, since nobody means its characters."""
    one = isinstance(values, str | bytes | bytearray | Mapping | Set) or getattr(values, "shape", None) == ()
    if one or not isinstance(values, Iterable):
        raise UserError(f"{name}: is of type {type(values).__name__}; give a list of strings: {example}")
    return list(values)


def _strings(values: list, where, missing: str = "") -> list[str]:
    """The same values, all of them strings; `where(number)` names one that is not, `missing` gives advice."""
    for number, value in enumerate(values):
        if not isinstance(value, str):
            if _is_missing(value):
                raise UserError(f"{where(number)}: is missing ({value}), not a string{missing}")
            raise UserError(f"{where(number)}: {str(value)[:40]!r} is of type {type(value).__name__}, not a string")
    return [str(value) for value in values]


def _is_missing(value) -> bool:
    """Whether a value that should be a string stands for none, as pandas writes it."""
    return value is None or (not isinstance(value, str) and str(value) in ("nan", "<NA>", "NaT"))
