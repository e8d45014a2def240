"""Every option of train.py, with its default and the reason for it; presets are named sets of them."""

from dataclasses import dataclass
from typing import ClassVar

from common.device import MachineOptions
from common.files import ROOT, find_path, place_key
from common.options import option
from data.groups import SPLIT, split_options
from data.posts import DATA, ColumnOptions
from data.prompt import TEMPLATES
from data.rows import HALVES
from data.sampling import BALANCES
from finetune.elsewhere import ELSEWHERE
from finetune.loop import LOSSES
from finetune.recipe import SCHEDULES
from loading.resident import ResidentOptions
from loading.sources import EMBEDDED

ADAPTER, RUN, PROMPT = "adapter (LoRA)", "run", "prompt"
RECIPE = "recipe (small models have their own: docs/recipes.md)"

ENOUGH = 400  # training posts; of fewer, a tenth is too few to tell one adapter from another


@dataclass
class TrainOptions(ColumnOptions, ResidentOptions, MachineOptions):
    """The options of one fine-tune; run.json holds all of them."""

    ELSEWHERE: ClassVar = ELSEWHERE
    FIRST: ClassVar = ("data", "model", "out", "languages", "codebook", "epochs")
    least_steps = 0  # no option: what `finetune.defaults` asks for where the user says nothing of epochs

    model: str = option(EMBEDDED, "checkpoint folder, Hugging Face's or Meta's, with its tokenizer; or a GGUF file; or "
                        "a name on the Hugging Face Hub, such as meta-llama/Llama-3.2-3B-Instruct; or smollm2",
                        metavar="DIR")
    data: list[str] = option(("data/samples/train.jsonl",), "labelled posts: .jsonl, .csv or .tsv, also .gz",
                             metavar="FILE")
    out: str | None = option(None, "folder of the run (default: the next free name in runs/)",
                             metavar="DIR")

    languages: list[str] = option((), "train on these languages only (default: all in the data)", metavar="en,es",
                                  group=DATA)
    per_language: dict[str, int] = option({}, "posts to take of each language; with the same seed, a smaller "
                                          "number is a subset of a larger", metavar="tr=75,pl=75",
                                          minimum=1, group=DATA)
    rows: str | None = option(None, "file that lists the posts to train on: language, tab and id on each line",
                              metavar="FILE", group=DATA)
    validation: float | None = option(None, "share of the training posts set aside to choose the best adapter; 0 for "
                                      f"none (default: a tenth if there are {ENOUGH} posts or more, else none)",
                                      minimum=0, maximum=0.9, group=DATA)
    validation_data: list[str] = option((), "other labelled posts, to choose the best adapter by; only those in the "
                                        "training posts' languages count", metavar="FILE", group=DATA)
    group_by: str | None = option(None, "column (such as author): posts with the same value stay on one side of "
                                  "that split (default: what tools.split kept together)",
                                  metavar="NAME", group=DATA)
    split_by: str | None = option(None, "column with a date: the latest posts are the validation posts",
                                  metavar="NAME", group=DATA)
    balance: str = option("none", "draw each language, label or both equally often in an epoch; small models: label",
                          group=DATA, choices=BALANCES)
    group_by_length: bool = option(False, "put posts of similar length into one step", group=DATA)
    class_weights: bool = option(False, "weight each post by how rare its label is", group=DATA)
    allow_missing_labels: bool = option(False, "train even if a label of the codebook has no post", group=DATA)

    codebook: str | None = option(None, "TOML file with question and labels (default: the paper's four labels)",
                                  metavar="FILE", group=PROMPT)
    template: str = option("instruction-first", "where the instruction goes: after the post (paper) or before it, "
                           "which lets all posts share its computation", choices=TEMPLATES, group=PROMPT)
    max_tokens: int = option(512, "longest prompt in tokens, post included; a longer post is cut", minimum=8,
                            group=PROMPT)

    quantize: str = option("auto", "weights of the base: 4 bits, 4 bits with quantised scales, or dense; auto: dense "
                           "where the model is small or fits into the free memory, else 4 bits",
                           choices=("auto", "nf4", "nf4-double", "none"), group=ADAPTER)
    targets: list[str] = option(("all-linear",), "linear layers that get an adapter", metavar="q_proj,v_proj",
                                group=ADAPTER)
    rank: int = option(16, "rank r", minimum=1, maximum=4096, group=ADAPTER)
    alpha: float = option(32, "scale: alpha / r multiplies the adapter's output", above=0, group=ADAPTER)
    dropout: float = option(0.0, "dropout in front of the adapter; above 0 the prompt's prefix cannot be shared",
                            minimum=0, maximum=0.95, group=ADAPTER)
    rslora: bool = option(False, "scale by alpha / sqrt(r) instead (rsLoRA)", group=ADAPTER)

    learning_rate: float = option(2e-4, "AdamW's learning rate; the small base takes a larger one if none is given",
                                  above=0, group=RECIPE)
    schedule: str = option("linear", "how the learning rate changes after the warm-up", choices=SCHEDULES, group=RECIPE)
    warmup: float = option(0.05, "share of the steps in which the learning rate rises", minimum=0, maximum=1,
                          group=RECIPE)
    weight_decay: float = option(0.0, "AdamW's weight decay", minimum=0, group=RECIPE)
    clip: float = option(1.0, "largest norm of a step's gradient; 0 for no limit", minimum=0, group=RECIPE)
    batch_size: int = option(16, "posts per step; it is cut into pieces that fit into memory, whose gradients add up",
                             minimum=1, group=RECIPE)
    epochs: int = option(3, "how often each post is seen; small models have a number of their own", minimum=1,
                         group=RECIPE)
    max_steps: int = option(0, "stop after this many steps; 0 for no limit", minimum=0, group=RECIPE)
    loss: str = option("label", "softmax over the labels, over the whole vocabulary, or the paper's loss over the "
                       "whole text, which also teaches the model to write such posts", choices=LOSSES, group=RECIPE)
    checkpointing: str = option("auto", "recompute activations in backward to save memory", group=RECIPE,
                                choices=("auto", "on", "off"), switch=("on", "off"))
    graphs: str = option("auto", "record the launches of a step's pieces, filled up to a few sizes, and replay them, "
                         "so that a GPU need not wait for the host; auto: where a GPU can and has the memory",
                         choices=("auto", "on", "off"), switch=("on", "off"), group=RECIPE)

    seed: int = option(123, "seed of all random draws", minimum=0, maximum=2**63 - 1, group=RUN)
    eval_every: int = option(0, "steps between evaluations on the validation posts; 0: once an epoch", minimum=0,
                             group=RUN)
    patience: int = option(0, "stop after this many evaluations without a better macro-F1; 0: never", minimum=0,
                           group=RUN)
    save_every: int = option(50, "steps between checkpoints", minimum=1, group=RUN)
    resume: bool = option(False, "continue the run in --out", group=RUN)

    @property
    def lora_targets(self) -> str | list[str]:
        """`targets` as `lora.inject` takes them: a single name may stand for several linears."""
        return self.targets[0] if len(self.targets) == 1 else list(self.targets)

    @property
    def recompute(self) -> bool | None:
        """Whether activations are computed twice; `None` leaves that to the memory at hand."""
        return {"auto": None, "on": True, "off": False}[self.checkpointing]

    def settle_validation(self) -> None:
        """Where the command line says which posts choose the adapter, a file's other answers give way."""
        ways = {"validation", "validation_data"}
        if ways & self.typed:
            ways |= set() if self.validation and "validation_data" not in self.typed else {"group_by", "split_by"}
            for name in ways - self.typed:
                setattr(self, name, getattr(TrainOptions(), name))
            self.given -= ways - self.typed

    def take_from_split(self) -> list[str]:
        """Columns and codebook that `tools.split` left beside the data, where none are given; says what it took, and
        warns where both of the files that it wrote are trained on.

        The column whose posts it kept together keeps them together in training and validation, too (`prepare.part`).
        """
        file, said = find_path(self.data[0]), []
        folder, stored = file.parent, split_options(file)
        if stored:
            before = self.columns()
            self.remember(stored)
            if self.columns() != before:
                names = ", ".join(f"{role} '{getattr(self.columns(), role)}'" for role in self.columns().remembered)
                said.append(f"columns as in {folder / SPLIT}: {names}")
        if stored and {folder / name for name in HALVES} <= set(map(find_path, [*self.data, *self.validation_data])):
            said.append(f"warning: {' and '.join(HALVES)} of {folder} are the two sides of a split; knowing both, a "
                        f"run cannot be tested on either: leave {HALVES[1]} out")
        if self.group_by is None and self.split_by is None:
            self.group_by = stored.get("group_by")
        if self.codebook is None and (folder / "codebook.toml").is_file():
            self.codebook = str(folder / "codebook.toml")
            said.append(f"labels of {self.codebook}; --codebook names another")
        return said


# The paper's recipe as its repository has it. The constant schedule ignores the warm-up that the authors set.
PAPER = {
    "template": "paper", "quantize": "nf4", "targets": ["q_proj", "v_proj"], "rank": 64, "alpha": 32, "dropout": 0.1,
    "learning_rate": 2e-4, "schedule": "constant", "warmup": 0.0, "weight_decay": 0.001, "clip": 0.3,
    "batch_size": 16, "epochs": 10, "loss": "text", "checkpointing": "on", "validation": 0.0,
    "group_by_length": True,
}  # fmt: skip
# The shipped base is hundreds of times smaller than the models that the defaults are meant for, so its rate is larger.
# Chosen on SIB-200's development rows and on training rows of other languages; more epochs hurt unseen languages
# (LOG.md).
SMALL = {"learning_rate": 2e-3, "epochs": 3, "quantize": "nf4"}
# The demonstration: two languages of the sample posts, 160 posts or ten steps an epoch. Chosen on the training rows of
# the other languages (LOG.md).
DEMO = {"languages": ["en", "es"], "learning_rate": 1e-3, "epochs": 8}
# A real model of some hundred million parameters, such as SmolLM2. Found on development rows (docs/recipes.md).
SMALL_MODEL = {"learning_rate": 1e-3, "schedule": "cosine", "warmup": 0.06, "batch_size": 4, "epochs": 3,
               "balance": "label"}
PRESETS = {"paper": PAPER, "small-base": SMALL, "small-model": SMALL_MODEL}


def is_embedded(options: TrainOptions) -> bool:
    """Whether the base is the project's own small one, not any folder of that name."""
    return place_key(find_path(options.model)) == place_key(ROOT / EMBEDDED)
