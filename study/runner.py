"""Running a study: each fit is trained once by train.py and asked what the plan asks, and every result is kept.

    OUT/fits/KEY/rows.tsv       the training rows, language and id
    OUT/fits/KEY/options.toml   the options of train.py; `python train.py --config` with this file is the fit
    OUT/fits/KEY/run/           the run folder
    OUT/fits/KEY/train.log      what train.py printed
    OUT/answers/HASH.json       one pass over the test rows: probabilities by language and id, no post text

What is there is not made again, so a study that was killed goes on, and a changed plan makes only what changed. A run
that was stopped in the middle goes on from its checkpoint. Training is a process of its own, so its memory is given
back; several at a time on a CPU, where small fits gain nothing from more threads. They end when the study does
(`study.child`). Answers are read here, in between.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch

from common.device import MachineOptions
from common.errors import UserError
from common.files import ROOT, atomic_write, find_path, sha256_json, write_json
from common.lock import hold
from common.reading import open_to_write
from common.run_json import read_run_json
from data.codebook import Codebook, load_codebook
from data.prompt import Prompt
from finetune.options import TrainOptions
from finetune.run_folder import PATIENCE, RunFolder, device_name
from inference.decide import decide
from inference.labeller import label_probabilities
from loading import load_model
from loading.sources import Source, find_base
from model.tokenizer import load_tokenizer
from study.fits import PLAIN, QUANTIZE, Asked, Fit, unique
from study.inputs import Material, has_text, posts_hash, text_of
from study.kept import is_finished, read_answers
from study.plan import Plan

ZERO = "zero-shot"  # the base without an adapter, as a fit of its own


@dataclass
class Runner:
    """A plan, what it reads, and the folder that its results are kept in."""

    plan: Plan
    material: Material
    out: Path
    machine: MachineOptions
    jobs: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype = torch.float32
    frozen: str | None = None  # the frozen plan's hash, which every answer written from now on carries

    def __post_init__(self):
        self._children, self._is_ending = set(), False
        self.base = find_base(self.model)
        self.tokenizer = load_tokenizer(Source(self.base).tokenizer)

    @property
    def model(self) -> str:
        """The base model's folder or name."""
        return self.option("model")

    def option(self, name: str):
        """An option of train.py as this plan has it."""
        return self.plan.train.get(name, getattr(TrainOptions, name, None))

    def codebook(self, file: str | None) -> Codebook:
        """The study's codebook, or another with the same labels. Raises `UserError` if the labels differ."""
        if file is None:
            return self.material.codebook
        book = load_codebook(file)
        if book.labels != self.material.codebook.labels:
            raise UserError(f"{self.plan.path}: [variants]: codebooks: {file} has labels other than the study's; only "
                            "the wording may differ")
        return book

    def prompt(self, template: str, codebook: str | None = None) -> Prompt:
        """The prompt of a template, with the study's tokenizer."""
        return Prompt(self.codebook(codebook), self.tokenizer, template=template, max_tokens=self.option("max_tokens"))

    def folder(self, fit: Fit) -> Path:
        """Where a fit is kept."""
        return self.out / "fits" / fit.key

    def is_trained(self, fit: Fit) -> bool:
        """Whether the fit's run is finished; the base itself needs no training."""
        return fit.kind == ZERO or is_finished(self.folder(fit) / "run" / "run.json")

    # -- training

    def train_all(self, fits: Iterable[Fit]) -> Iterator[Fit]:
        """Train what is not yet trained, `jobs` at a time; yields each fit when it is ready, trained ones first.
        """
        todo, self._is_ending = [], False
        for fit in unique(list(fits)):
            if self.is_trained(fit):
                yield fit
            else:
                todo.append(fit)
        with ThreadPoolExecutor(self.jobs) as pool:
            pending = {pool.submit(self.train, fit): fit for fit in todo}
            try:
                for done in as_completed(pending):
                    done.result()
                    yield pending[done]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                self._is_ending = True
                for child in list(self._children):
                    child.terminate()
                raise

    def train(self, fit: Fit, **changes) -> Path:
        """Have train.py make (or finish) one fit; returns its run folder. Raises `UserError` with its last line."""
        folder = self.folder(fit)
        self.write_options(fit, folder, changes)
        run, words = folder / "run", ["--config", str(folder / "options.toml")]
        if run.is_dir():
            with hold(run, wait=PATIENCE):  # the training of a study that was killed takes a moment to notice
                pass
        if (run / "run.json").exists():
            words = ["--resume", "--out", str(run)]
        command = [sys.executable, "-X", "utf8", str(ROOT / "study" / "child.py"), *words]  # its log is read as that
        with open_to_write(folder / "train.log", "w") as log:
            child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT)
        with child:  # its input stays open, and empty, for as long as this process lives
            self._children.add(child)
            if self._is_ending:
                child.terminate()
            status = child.wait()
            self._children.discard(child)
        if status:
            said = (folder / "train.log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
            said = said or ["nothing"]
            raise UserError(f"{fit.title}: train.py ended with status {status}: {said[-1]} (all that it "
                            f"said: {folder / 'train.log'})")
        return run

    def write_options(self, fit: Fit, folder: Path, changes: dict) -> None:
        """rows.tsv and options.toml: with them anybody can make the fit again."""
        data = self.plan.data
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(folder / "rows.tsv") as handle:
            handle.writelines(f"{language}\t{name}\n" for language, name in sorted(fit.keys))
        files = [*data.train, *(data.test if self.material.folded else ())]
        options = {
            "quantize": QUANTIZE, **fit.options, "model": self.model, "data": [str(find_path(file)) for file in files],
            "rows": str(folder / "rows.tsv"), "out": str(folder / "run"), "seed": fit.seed, "template": fit.template,
            "validation": 0.0, **{name: getattr(data, name) for name in COLUMNS},
            **{name: getattr(self.machine, name) for name in ("device", "dtype", "micro_tokens", "cache")},
            "threads": self.threads(),
        }  # fmt: skip
        book = fit.codebook or data.codebook
        options |= ({"codebook": str(find_path(book))} if book else {}) | changes
        with atomic_write(folder / "options.toml") as handle:
            for key, value in options.items():
                if value is not None:  # TOML takes no escape of half a sign, which JSON has for an emoji
                    handle.write(f"{key} = {json.dumps(value, ensure_ascii=False)}\n")

    def threads(self) -> int:
        """CPU threads of one process."""
        return self.machine.threads or (max(1, (os.cpu_count() or 1) // self.jobs) if self.jobs > 1 else 0)

    # -- asking

    def answers_path(self, fit: Fit, asked: Asked) -> Path:
        """Where one pass over the test rows is kept: a file named by the hash of all that determines it."""
        prompt = self.prompt(asked.template or fit.template, fit.codebook).fingerprint()
        rows = posts_hash(self.material.rows, asked.text)
        name = sha256_json([fit.key, asked.quantize, asked.text, prompt, rows, str(self.dtype)])
        return self.out / "answers" / f"{name[:16]}.json"

    def ask(self, fit: Fit, asked: list[Asked], show=lambda count: None) -> None:
        """Label the test rows in every way not done yet; the model is loaded once per kind of weights."""
        todo = [one for one in asked if not self.answers_path(fit, one).exists()]
        for quantize in {one.quantize: None for one in todo}:
            model = self.load(fit, quantize)
            for one in todo:
                if one.quantize == quantize:
                    self._label(model, fit, one, show)
            del model
        for one in asked:
            if one.name == PLAIN and fit.kind != ZERO:
                self._note(fit, one)

    def load(self, fit: Fit, quantize: str | None):
        """The fit's model, on the base's weights as in training or in another form."""
        adapter = None if fit.kind == ZERO else self.folder(fit) / "run" / "adapter"
        model = load_model(self.base, device=self.device, dtype=self.dtype,
                           quantize=quantize or fit.options.get("quantize", QUANTIZE),
                           adapter=adapter, cache=self.machine.cache)
        return model.eval()

    def _label(self, model, fit: Fit, asked: Asked, show) -> None:
        posts = [post for post in self.material.rows if has_text(post, asked.text)]
        prompt = self.prompt(asked.template or fit.template, fit.codebook)
        began = time.perf_counter()
        rows = [prompt.encode(text_of(post, asked.text)) for post in posts]
        found = label_probabilities(model, prompt, rows, micro_tokens=self.machine.micro_tokens)
        seconds = time.perf_counter() - began
        write_json(self.answers_path(fit, asked), {
            "made": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "frozen": self.frozen,
            "fit": fit.key, "title": fit.title, "asked": asdict(asked), "labels": list(prompt.codebook.labels),
            "seconds": seconds, "posts": len(posts), "tokens": sum(len(row.ids) for row in rows),
            "cut": sum(row.cut for row in rows), "dtype": str(self.dtype).removeprefix("torch."),
            "machine": {"device": str(self.device), "device_name": device_name(self.device),
                        "threads": torch.get_num_threads()},
            "rows": [[post.language, post.id, line.tolist()] for post, line in zip(posts, found, strict=True)],
        })  # fmt: skip
        show(len(posts))

    def _note(self, fit: Fit, asked: Asked) -> None:
        """run.json counts how often a test set was scored: by a study once, whether it was killed on the way or not."""
        run, digest = RunFolder.open(self.folder(fit) / "run"), posts_hash(self.material.rows)
        if run.times_scored(digest):
            return
        posts = [post for post in self.material.rows if has_text(post, asked.text)]
        found = np.array([line for _, _, line in self.read(fit, asked)["rows"]])
        gold = [self.material.codebook.labels.index(post.label) for post in posts]
        right = float((decide(found) == np.array(gold)).mean())
        run.note_scored({"data": "the study's test rows", "data_sha256": digest, "n": len(posts), "accuracy": right,
                         "macro_f1": None})

    def read(self, fit: Fit, asked: Asked) -> dict:
        """The content of the file that `ask` wrote. Raises `UserError` if it is damaged."""
        return read_answers(self.answers_path(fit, asked), len(self.material.codebook.labels))

    def facts(self, fit: Fit) -> dict:
        """The fit's run.json."""
        return read_run_json(self.folder(fit) / "run")


COLUMNS = ("text_column", "label_column", "language_column", "id_column", "predicted_column", "annotator_column",
           "delimiter", "quote", "bad_labels", "longest_row")


def zero_shot(plan: Plan, hashes: dict) -> Fit:
    """The base without fine-tuning, asked with the plan's first template."""
    template = plan.repeat.templates[0]
    key = sha256_json([ZERO, hashes["base"], hashes[f"prompt {template}"]])[:16]
    return Fit(ZERO, ZERO, template, 0, 0, (0, 0), (), plan.train, key=key)
