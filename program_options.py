"""Options that several programs share, so that one word means one thing everywhere."""

from dataclasses import dataclass

import torch

from common.device import DTYPES, choose_device, choose_dtype, make_deterministic
from common.errors import UserError
from common.options import option
from common.terminal import human_bytes
from data.posts import Columns
from exact import make_exact
from memory import available_memory

DATA, MACHINE = "how posts are read", "machine"
EMBEDDED = "base"  # the small base model that the project ships


@dataclass
class ColumnOptions:
    """Where text, label, language and id stand in the input files."""

    text_column: str = option("text", "column of the text", metavar="NAME", group=DATA)
    label_column: str = option("label", "column of the label", metavar="NAME", group=DATA)
    language_column: str = option("language", "column of the language (ISO 639-1)", metavar="NAME", group=DATA)
    id_column: str = option("id", "column of the id", metavar="NAME", group=DATA)
    predicted_column: str = option("predicted", "column of a predicted label", metavar="NAME", group=DATA)
    annotator_column: str = option("annotator", "column that names the annotator, where a post has several rows",
                                   metavar="NAME", group=DATA)
    delimiter: str = option("", "what separates csv columns: tab, comma, semicolon, bar (default: by the file's name)",
                            metavar="WORD", group=DATA)

    quote: str = option('"', "what quotes csv cells; none for files that do not quote", metavar="CHARACTER", group=DATA)
    bad_labels: str = option("error", "rows without a label that the codebook has: stop, or drop and count them",
                             choices=("error", "drop"), group=DATA)

    def columns(self) -> Columns:
        """The same as `data.posts.Columns`."""
        return Columns(text=self.text_column, label=self.label_column, language=self.language_column,
                       id=self.id_column, predicted=self.predicted_column, annotator=self.annotator_column,
                       delimiter=self.delimiter, quote=self.quote)


@dataclass
class MachineOptions:
    """Where and in which arithmetic the model runs."""

    device: str = option("auto", "cpu, cuda or cuda:N; auto takes a GPU where there is one", metavar="NAME",
                         group=MACHINE)
    dtype: str = option("auto", "arithmetic of the model", group=MACHINE,
                        choices=("auto", *DTYPES))
    micro_tokens: int = option(0, "tokens that go through the model at once; 0 chooses (train.py: by the memory at "
                               "hand)", minimum=0, group=MACHINE)
    threads: int = option(0, "CPU threads; 0 leaves PyTorch's choice", minimum=0, group=MACHINE)
    deterministic: bool = option(False, "on CUDA: only algorithms that give the same bits each time (a CPU does)",
                                 group=MACHINE)
    cache: str | None = option(None, "folder that keeps a 4-bit copy of the base and the hashes of its files, so that "
                               "the next start maps the copy; may be deleted at any time", metavar="DIR", group=MACHINE)

    def set_up(self) -> tuple[torch.device, torch.dtype, str]:
        """Apply these options to PyTorch; returns device, dtype and why that dtype. Raises `UserError`."""
        if self.threads:
            torch.set_num_threads(self.threads)
        if self.deterministic:
            make_deterministic()
        device = choose_device(self.device)
        return device, *choose_dtype(device, self.dtype)


@dataclass
class LabelOptions:
    """What labelling may take more memory or more time for."""

    resident: bool = option(False, "keep a dense copy of the 4-bit weights in memory: the same labels, sooner",
                            group=MACHINE)
    exact: bool = option(False, "a post's probabilities are the same bits whatever else is labelled with it; always so "
                         "on a CPU, takes time on CUDA", group=MACHINE)

    def make_ready(self, model) -> None:
        """Apply these options to a loaded model. Raises `UserError` where the dense copy does not fit."""
        if self.resident:
            from quant.convert import make_resident, resident_bytes

            size, free = resident_bytes(model, model.dtype), available_memory(model.device)
            if size > free:
                raise UserError(f"--resident: the dense copy takes {human_bytes(size)}, and {human_bytes(free)} are "
                                "free; leave it out, or take --dtype bfloat16")
            print(f"  {human_bytes(size)} for a dense copy of the 4-bit weights, of {human_bytes(free)} that are free")
            make_resident(model, model.dtype)
        if self.exact:
            make_exact(model)
