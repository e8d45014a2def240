"""What the benchmarks that run on random weights share: options, the chosen posts, and a worker's settings."""

import random
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.checkpoint import read_config
from benchmarks.measure import PAPER, TEMPLATES
from common.device import DTYPES, available_memory, choose_device, choose_dtype
from common.errors import UserError
from common.files import check_file, find_path, write_json
from common.options import option
from data.annotators import read_labelled
from data.codebook import load_codebook
from data.prompt import Prompt
from finetune.memory import MemoryPlan, plan_memory
from lora.inject import expected_count
from model.config import LlamaConfig
from model.llama import LlamaForCausalLM
from model.tokenizer import load_tokenizer
from quant.convert import replace_linears

PRESETS = {"paper": {"targets": ["q_proj", "v_proj"], "rank": 64, "alpha": 32.0}}


@dataclass
class BenchmarkOptions:
    """Model, posts, adapter and machine of a benchmark."""

    source: str | None = option(None, "folder with a config.json (default: Llama 3.2-3B's numbers)", metavar="DIR")
    tokenizer: str = option("base/tokenizer.model", "tokenizer.model (default: the small base's; posts then differ in "
                            "length from Llama 3's)", metavar="FILE")
    posts: str = option("data/samples/train.jsonl", "labelled posts, drawn from at random", metavar="FILE")
    batch_size: int = option(16, "posts per step, and per batch of the usual stack in labelling", minimum=1)
    targets: list[str] = option(("all-linear",), "linears with an adapter", metavar="q_proj,v_proj")
    rank: int = option(16, "rank r of the adapters", minimum=1)
    alpha: float = option(32, "alpha of the adapters", above=0)
    micro_tokens: int = option(1024, "ours in training; 0: as train.py would with the free memory", minimum=0)
    checkpointing: bool = option(False, "compute activations twice, on every side")
    device: str = option("cpu", "cpu, or cuda (untested)", metavar="NAME")
    dtype: str = option("auto", "compute dtype of every side; auto as in train.py", choices=("auto", *DTYPES))
    threads: int = option(0, "CPU threads of every side; 0: PyTorch's choice", minimum=0)
    seed: int = option(123, "chooses the posts", minimum=0)
    work: str = option("runs", "where to make a folder for checkpoints and logs", metavar="DIR")
    keep: bool = option(False, "keep that folder afterwards")
    json: str | None = option(None, "everything measured, as JSON", metavar="FILE")

    def settle(self) -> None:
        """Fill in what was left open and check what can be checked at once. Raises `UserError`."""
        if self.json:
            check_file(self.json, "--json")
        self.dtype = str(choose_dtype(choose_device(self.device), self.dtype)[0]).removeprefix("torch.")
        if self.threads:
            torch.set_num_threads(self.threads)
        self.threads = torch.get_num_threads()

    @contextmanager
    def work_folder(self) -> Iterator[Path]:
        """A fresh folder inside `--work`, removed afterwards unless `--keep` is given."""
        Path(self.work).mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="benchmark-", dir=self.work))
        try:
            yield folder
        finally:
            if not self.keep:
                shutil.rmtree(folder)

    def read_config(self) -> dict:
        """The model's config.json at full depth."""
        return read_config(self.source)

    def for_worker(self, checkpoint: Path, work: Path) -> dict:
        """The settings that a worker gets when it starts; `work` holds what `choose_posts` wrote."""
        return {"checkpoint": str(checkpoint), "adapter": str(work / "adapter"), "posts": str(work / "posts.json"),
                "encoded": str(work / "encoded.json"), "templates": list(TEMPLATES), "device": self.device,
                "dtype": self.dtype, "threads": self.threads, "targets": list(self.targets), "rank": self.rank,
                "alpha": self.alpha, "batch_size": self.batch_size, "quantize": "nf4"}


def whole_numbers(words: list[str], name: str, least: int) -> list[int]:
    """Different whole numbers from 1 up, in rising order; `UserError` if there are fewer than `least`."""
    if not all(word.isdigit() and int(word) for word in words) or len(set(map(int, words))) < least:
        raise UserError(f"--{name} {' '.join(words)}: must be {least} or more different whole numbers from 1 up")
    return sorted(set(map(int, words)))


def choose_posts(options: BenchmarkOptions, count: int, config: dict, work: Path) -> dict:
    """Draw `count` posts, encode them in both templates and write both into `work`; returns tokens per post.

    The draw is systematic: of the posts sorted by length every k-th, from a random start, in random order. So a few
    posts have the lengths of the whole file, and no lucky draw decides what padding costs.
    """
    book, tokenizer = load_codebook(), load_tokenizer(find_path(options.tokenizer))
    posts, _, _ = read_labelled([find_path(options.posts)], None, book)
    if len(posts) < count:
        raise UserError(f"--posts {options.posts}: has {len(posts)} posts, fewer than the {count} of one turn")
    prompt, draw = Prompt(book, tokenizer, template=PAPER), random.Random(options.seed)
    lengths = {id(post): len(prompt.encode(post.text).ids) for post in posts}
    ranked, start = sorted(posts, key=lambda post: lengths[id(post)]), draw.random()
    chosen = [ranked[int((place + start) * len(ranked) / count)] for place in range(count)]
    draw.shuffle(chosen)
    encoded, tokens = {}, {"a post of the whole file, paper": round(sum(lengths.values()) / len(posts), 1)}
    for template in TEMPLATES:
        prompt = Prompt(book, tokenizer, template=template)
        tokenizer.check_fits(config["vocab_size"], [*prompt.prefix_ids, *prompt.label_ids])
        rows = [prompt.encode(post.text) for post in chosen]
        encoded[template] = {"rows": [row.ids for row in rows], "answers": [row.answer_index for row in rows],
                             "labels": [book.index(post.label) for post in chosen], "label_ids": prompt.label_ids,
                             "prefix": len(prompt.prefix_ids)}
        size = [len(row.ids) for row in rows]
        tokens[f"a chosen post, {template}"] = round(sum(size) / len(size), 1)
        tokens[f"shared, {template}"] = len(prompt.prefix_ids)
        batches = [size[place : place + options.batch_size] for place in range(0, count, options.batch_size)]
        tokens[f"padded, {template}"] = round(sum(max(batch) * len(batch) for batch in batches) / count, 1)
    write_json(work / "posts.json", [{"text": post.text, "label": post.label} for post in chosen])
    write_json(work / "encoded.json", encoded)
    return tokens


def choose_cut(options: BenchmarkOptions, config: dict, depth: int) -> MemoryPlan:
    """How train.py would cut steps at `depth` with the available memory; sets `options.micro_tokens`.

    Activations are kept, or computed twice, as the options say; the returned plan leaves that open too.
    """
    model = LlamaForCausalLM.empty(LlamaConfig.from_dict(config | {"num_hidden_layers": depth}))
    model.to(getattr(torch, options.dtype))
    replace_linears(model)
    targets = options.targets[0] if len(options.targets) == 1 else list(options.targets)
    trainable, free = expected_count(model, targets, options.rank), available_memory(choose_device(options.device))
    plan = plan_memory(model, trainable, micro_tokens=options.micro_tokens or None, checkpointing=options.checkpointing,
                       available=free)
    options.micro_tokens = plan.micro_tokens
    return plan_memory(model, trainable, micro_tokens=None, checkpointing=None, available=free)
