"""What is audited: a finished run in memory, and labelled posts that took no part in its training."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from common.device import MachineOptions
from data.checks import TestCheck, TrainingTexts, check_test
from data.posts import Post
from data.prompt import EncodedPost, Prompt
from finetune.run_folder import RunFolder
from inference.labeller import label_probabilities
from inference.run import open_model
from loading.sources import find_base
from lora.inject import linears
from lora.layer import LoRALinear
from model.llama import LlamaForCausalLM
from report.counts import Grouping
from stats.predictions import Rows

MOST_MATRICES = 64
TEXTS = "training_texts.json"


@dataclass
class Subject:
    """A run and posts to ask it about.

    base: the folder or GGUF file of its base. rows: the posts as token ids. table: the posts as statistics take them.
    micro_tokens: packed tokens that go through the model at once. check: which posts were left out, and why. group_by:
    the column whose posts belong together.
    """

    run: RunFolder
    base: Path
    model: LlamaForCausalLM
    prompt: Prompt
    posts: list[Post]
    rows: list[EncodedPost]
    table: Rows
    micro_tokens: int
    check: TestCheck
    group_by: str | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """The codebook's labels, in its order."""
        return self.prompt.codebook.labels

    def probabilities(self, rows: Sequence[EncodedPost] | None = None) -> np.ndarray:
        """(n, C) float32, of the model as it is now, for the audit's posts or for other `rows`."""
        rows = self.rows if rows is None else rows
        return label_probabilities(self.model, self.prompt, rows, micro_tokens=self.micro_tokens)


def open_subject(run: RunFolder, posts: list[Post], groups: Sequence[int], *, model: str | None, device: torch.device,
                 dtype: torch.dtype, micro_tokens: int, cache: str | None = None, drop: str = "same",
                 group_by: str | None = None, machine: MachineOptions | None = None,
                 texts: TrainingTexts | None = None) -> tuple[Subject, list[str]]:
    """The run with its model in memory, asked about those `posts` that it was not trained on; and lines that say so.

    groups: a number for each post, equal for posts that belong together, by the column `group_by` or their texts.
    `machine`: as `inference.run.open_model` has it. texts: of its training posts, if not by the list in its folder.
    Raises `UserError` if the base's bytes or the prompt are not those that the run was made with.
    """
    group = dict(zip(map(id, posts), groups, strict=True))
    check = check_test(texts or TrainingTexts.from_file(run.path / TEXTS), posts, drop)
    loaded, prompt = open_model(run, model=model, device=device, dtype=dtype, cache=cache, machine=machine)
    folder = find_base(model or run.facts["options"]["model"])  # which `open_model` has checked
    rows = [prompt.encode(post.text) for post in check.kept]
    table = table_of(check.kept, [group[id(post)] for post in check.kept], prompt.codebook)
    return (Subject(run, folder, loaded, prompt, check.kept, rows, table, micro_tokens or 4096, check, group_by),
            check.lines())


def table_of(posts: Sequence[Post], groups: Sequence[int], codebook) -> Rows:
    """Labelled posts as `stats` takes them; those of one group are one cluster."""
    return Rows.of(posts, groups, Grouping(codebook.labels, codebook.related))


def level_of(model: nn.Module) -> str:
    """What is changed alone, with one run over the posts each: "matrix" up to `MOST_MATRICES` of them, else "layer"."""
    return "matrix" if len(linears(model)) <= MOST_MATRICES else "layer"


def base_linears(model: nn.Module) -> dict[str, nn.Module]:
    """Every linear of the model without what an adapter puts around it, by the linear's own name."""
    return {name: module.base if isinstance(module, LoRALinear) else module for name, module in linears(model).items()}
