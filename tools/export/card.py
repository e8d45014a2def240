"""The model card of an export: README.md in the Hub's format, made from the run's folder.

Everything in it is from run.json, the codebook, metrics.json and the base's folder; what they do not say is not said.
No post stands in it: of the data it has counts, file names and hashes, and it is made from the codebook without its
examples, which may be posts (`private`). Folders on the machine of whoever trained are left out as well.

The front matter is YAML between two lines of dashes. Each value is written as JSON, which YAML contains, so that a
language called "no" stays a language.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from common.errors import UserError
from common.files import read_json
from common.reading import check_path
from data.codebook import Codebook
from finetune.run_folder import RunFolder
from report.tables import groups_of_rows
from report.words import counted, findings, interval, language_name, number
from tools.export.licence import BASE_CARD, NOTICE, Base
from tools.export.private import EXAMPLE, PASSAGE

CITATION = """\
@article{nasuto2025learning,
  title   = {Learning the Topic, Not the Language: How LLMs Classify Online Immigration Discourse Across Languages},
  author  = {Nasuto, Andrea and Iacus, Stefano Maria and Rowe, Francisco and Jain, Devika},
  journal = {arXiv preprint arXiv:2508.06435},
  year    = {2025},
  url     = {https://arxiv.org/abs/2508.06435}
}
@software{glass_llama,
  title   = {Glass Llama: fine-tuning LLaMA 3.2 on multilingual posts in plain PyTorch},
  author  = {{The Glass Llama authors}},
  version = {0.1.0},
  year    = {2026}
}"""
TEXT_LOSS = ("Its training loss covered the whole text, so it was also taught to write posts like those that it was "
             "trained on, and may repeat parts of them. Treat it as you would treat the posts, and never use it to "
             "generate text.")  # fmt: skip
RECIPE = {"languages": "languages", "quantize": "base's weights in training", "targets": "adapted linears",
          "rank": "LoRA rank", "alpha": "LoRA alpha", "rslora": "rsLoRA", "dropout": "LoRA dropout", "loss": "loss",
          "learning_rate": "learning rate", "schedule": "schedule", "warmup": "warm-up", "weight_decay": "weight decay",
          "clip": "gradient clipping", "batch_size": "posts per step", "epochs": "epochs", "balance": "balancing",
          "class_weights": "class weights", "template": "template", "max_tokens": "longest row, tokens",
          "seed": "seed"}  # fmt: skip


@dataclass(frozen=True)
class Evaluation:
    """One metrics.json of the run: which file was scored, and how often with this run."""

    metrics: dict
    data: str
    times: int


@dataclass(frozen=True)
class Card:
    """What a card is made from.

    codebook: as it may be shown. prompt: `Prompt.parts()` of it. library, relation: the Hub's words for how it is
    loaded and what it is to its base. holds: sentences on what the folder holds. code: how to load and use it.
    """

    name: str
    base: Base
    facts: Mapping
    codebook: Codebook
    prompt: list[int | str]
    evaluations: list[Evaluation]
    library: str | None
    relation: str
    holds: tuple[str, ...] = ()
    code: str = ""

    def text(self) -> str:
        """The whole README.md. Raises `UserError` where run.json lacks something that train.py writes into it."""
        codebook = self.codebook
        try:
            parts = [self._front(), self._head(codebook), self._use(codebook), self._data(codebook), self._recipe(),
                     self._figures(), self._limits(codebook), self._licence(), self._cite()]
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise UserError(f"run.json: {error} is missing or of another kind; the file was changed by hand, so train "
                            "again") from error
        return "\n\n".join("\n".join(map(_safe, part)) for part in parts) + "\n"

    def own_words(self) -> str:
        """The card's text without the words of others: codebook (but for its labels), names of model, base, files."""
        book = Codebook(PASSAGE, "", "", "", "", "", self.codebook.labels, {}, self.codebook.examples, {})
        code, holds = self.code, self.holds
        for name in (self.name, self.base.name):
            code = code.replace(json.dumps(name), '""')
            holds = tuple(line.replace(f"`{name}`", "``") for line in holds)
        return replace(self, name="", base=replace(self.base, name=""), codebook=book, prompt=[EXAMPLE], holds=holds,
                       facts={**self.facts, "hashes": {"data": {}, "weights": {}}}, code=code,
                       evaluations=[replace(found, data="") for found in self.evaluations]).text()

    def _front(self) -> list[str]:
        languages = [code for code in self.facts["languages"] if code != "und"]
        # "text-classification" would have the Hub's own snippets, and `pipeline`, put a head of random numbers on it.
        matter = {"license": self.base.licence, "language": languages, "pipeline_tag": "text-generation",
                  "library_name": self.library, "base_model": self.base.name if self.base.on_hub else None,
                  "base_model_relation": self.relation if self.base.on_hub else None,
                  "tags": [*(["llama"] if self.base.llama else []), "lora", "glass-llama", "text-classification"],
                  "model_name": self.name}  # fmt: skip
        return ["---", *(Code(f"{key}: {json.dumps(value)}") for key, value in matter.items() if value), "---"]

    def _head(self, codebook: Codebook) -> list[str]:
        languages = ", ".join(map(language_name, self.facts["languages"]))
        lines = [f"# {self.name}", ""]
        lines += [f"**{self.base.built_with}**", ""] if self.base.built_with else []
        lines += [f"Labels short posts by the codebook “{codebook.name}”. Fine-tuned with LoRA from `{self.base.name}` "
                  f"on labelled posts in {languages}, with Glass Llama."]
        if self.facts["options"]["loss"] == "text":
            lines += ["", f"> **Warning.** {TEXT_LOSS}"]
        return [*lines, "", "## What is in this folder", "", *(f"- {line}" for line in self.holds)]

    def _use(self, codebook: Codebook) -> list[str]:
        lines = ["## How to use it", "", f"> {_cell(codebook.question)}", "", "| answer | label | definition |",
                 "|---|---|---|"]
        lines += [f"| {symbol} | {_cell(label)} | {_cell(codebook.definitions.get(label, ''))} |"
                  for symbol, label in zip(codebook.symbols, codebook.labels, strict=True)]
        lines += ["", "The label is read at one position: the token that follows the prompt. The prompt must be this "
                  "one, token for token; the numbers in it are ids of special tokens."]
        lines += self._left_out(codebook)
        imports, _, rest = self.code.partition("\n\n")
        code = ["```python", imports, "", *self._constants(codebook), "", rest, "```"]
        return [*lines, "", *map(Code, code)]

    def _left_out(self, codebook: Codebook) -> list[str]:
        examples = (f"The prompt also showed {counted(len(codebook.examples), 'example')}, left out here because they "
                    "may be posts.")
        passages = "Passages of the codebook that are posts, or parts of examples, are left out as well."
        gone = [examples] * bool(codebook.examples) + [passages] * (PASSAGE in str(codebook))
        more = "Without them the answers differ: ask whoever trained the model for them."
        return ["", " ".join([*gone, more])] if gone else []

    def _constants(self, codebook: Codebook) -> list[str]:
        labels = dict(zip(self.facts["prompt"]["label_ids"], codebook.labels, strict=True))
        return [f"PROMPT = {json.dumps(self.prompt, ensure_ascii=False)}", f"LABELS = {labels!r}"]

    def _data(self, codebook: Codebook) -> list[str]:
        rows, hashes = self.facts["rows"], self.facts["hashes"]
        lines = ["## What it was trained on", "", f"| language | {' | '.join(map(_cell, codebook.labels))} | posts |",
                 "|---|" + "--:|" * (len(codebook.labels) + 1)]
        for code, cell in rows["train"].items():
            counts = [cell.get(label, 0) for label in codebook.labels]
            lines.append(f"| {language_name(code)} | {' | '.join(f'{n:,}' for n in [*counts, sum(counts)])} |")
        kept = sum(sum(cell.values()) for cell in rows["validation"].values())
        if kept:
            lines += ["", f"{counted(kept, 'further post')} chose the adapter (best macro-F1) and took no part in the "
                      "training itself."]
        lines += ["", "Files (their content is not part of this export):", ""]
        lines += [f"- `{Path(name).name}`, SHA-256 `{digest}`" for name, digest in hashes["data"].items()]
        lines += ["", f"Files of the base, `{self.base.name}`, beside which the adapter was trained:", ""]
        return lines + [f"- `{name}`, SHA-256 `{digest}`" for name, digest in hashes["weights"].items()]

    def _recipe(self) -> list[str]:
        facts, options = self.facts, self.facts["options"]
        shown = {words: options[key] for key, words in RECIPE.items() if key in options} | {"languages":
                                                                                            facts["languages"]}
        shown |= {"chat layout": facts["prompt"]["layout"],
                  "steps": f"{facts['step']:,} of {facts['steps']:,} ({facts['ended']})",
                  "adapter": facts["adapter_from"], "posts seen": f"{facts['posts_seen']:,}",
                  "arithmetic": f"{facts['environment']['dtype']} on {facts['environment']['device_name']}",
                  "PyTorch": facts["environment"]["packages"]["torch"], "commit": facts["environment"]["commit"],
                  "run": facts["run_hash"]}  # fmt: skip
        return ["## Recipe", "", "| | |", "|---|---|", *(f"| {words} | {_cell(_plain(value))} |"
                                                         for words, value in shown.items())]

    def _figures(self) -> list[str]:
        lines = ["## How well it labels", ""]
        if not self.evaluations:
            return [*lines, "It has not been scored: nothing is known of how well it labels. `eval.py` scores a run."]
        lines += ["These figures are the run's own, with the base as in training and the adapter beside it; they were "
                  "not measured again on the files of this folder."]
        for found in self.evaluations:
            times = f", scored {found.times} times with this run" if found.times > 1 else ""
            lines += ["", f"### {found.data}{times}", "", *(f"{line}\n" for line in findings(found.metrics)),
                      *metrics_table(found.metrics)]
        return lines

    def _limits(self, codebook: Codebook) -> list[str]:
        languages = ", ".join(map(language_name, self.facts["languages"]))
        return ["## Limits", "",
                "- It knows the labels as those who labelled its training posts understood them, with their mistakes "
                "and their views.",
                f"- Training posts were in {languages}. In other languages it relies on what the base knows; only "
                "figures for that language show how far.",
                "- Posts from other times, places and platforms than the training posts may be labelled worse.",
                "- Its probabilities were not calibrated. Irony, quotations and pictures are often misread.",
                "- What the base learnt from its texts, prejudice included, is in it.",
                *(f"- {line}" for line in [TEXT_LOSS] if self.facts["options"]["loss"] == "text"),
                "", "## What it is for, and what not", "",
                f"- **For** labelling many posts by the codebook above ({', '.join(codebook.labels)}), to be read as "
                "counts and shares in research, with a hand-labelled sample beside them in each language.",
                "- **Not for** decisions about individual people or posts (moderation, policing, hiring, credit, "
                "migration cases), for finding out what a person thinks, or for acting on a label that nobody has "
                "checked.",
                "- **Not for** writing text or answering questions."]  # fmt: skip

    def _licence(self) -> list[str]:
        base = self.base
        lines = ["## Licence", ""]
        if base.llama:
            lines += [f"{base.built_with}. {base.attribution}", ""]
            there = ", ".join(f"`{path.name}`" for path in base.files)
            lines += [f"The licence and what belongs to it are in this folder: {there}, `{NOTICE}`."
                      if base.has_licence_text else
                      f"`{NOTICE}` is in this folder. **The licence's text was not in the base's folder and is missing "
                      "here: add it (https://www.llama.com/llama-downloads/) before you pass this model on.**"]
        elif base.licence == "unknown":
            lines += [f"The folder of `{base.name}` names no licence. Find out which one applies before you pass this "
                      "model on."]  # fmt: skip
        else:
            lines += [f"The base's licence, {base.licence}, applies to what is made from it."]
        lines += ["", f"The base's own card is `{BASE_CARD}`."] if base.card.is_file() else []
        return lines

    def _cite(self) -> list[str]:
        return ["## How to cite", "",
                f"Cite the method and the software as below, and the base (`{self.base.name}`) as its own card asks:",
                "", *map(Code, ["```bibtex", CITATION, "```"])]


class Code(str):
    """Lines of code, or of the front matter: written as they are."""


def _safe(line: str) -> str:
    """A line of the card with no HTML in it and no line break but its last; Markdown would let both through."""
    if isinstance(line, Code):
        return line
    body = line.removesuffix("\n")
    end = line[len(body) :]
    return " ".join(body.splitlines()).replace("<", "&lt;") + end


def metrics_table(metrics: Mapping) -> list[str]:
    """Pooled rows and languages, accuracy, macro-F1 and topic F1 with their intervals, as a Markdown table."""
    level = f"{metrics['intervals']['level'] * 100:g} %"
    names = ("accuracy", "macro_f1")
    head = ["", "posts", "accuracy", level, "most frequent label", "macro-F1", level]
    head += ["topic macro-F1", level] if metrics["topic"] else []
    lines = [f"| {' | '.join(head)} |", "|---|" + "--:|" * (len(head) - 1)]
    for heading, rows in groups_of_rows(metrics):
        for name, cell in rows:
            figures = [[number(part[key]), interval(part.get(f"{key}_ci"))] for part, key in
                       [*((cell, key) for key in names), *([(cell["topic"], "macro_f1")] if cell["topic"] else [])]]
            figures[0].append(number(cell["majority"]["accuracy"]))
            where = "" if heading == "Together" else f" ({heading.lower()})"
            row = [f"{name}{where}", f"{cell['n']:,}", *(word for pair in figures for word in pair)]
            lines.append(f"| {' | '.join(row)} |")
    return lines


def read_evaluations(run: RunFolder, further: list[str]) -> list[Evaluation]:
    """metrics.json of every evaluation in the run's folder, and of the files or folders `further`.

    Raises `UserError` for one that run.json does not know of, or that is not what eval.py wrote.
    """
    for name in further:
        check_path(name)
    paths = [Path(name) / "metrics.json" if Path(name).is_dir() else Path(name) for name in further]
    inside = [path for path in sorted(run.path.glob("*/metrics.json")) if path.resolve() not in
              {given.resolve() for given in paths}]
    found = []
    for path in [*inside, *paths]:
        metrics, keys = read_json(path), ("n", "accuracy", "macro_f1")
        try:
            same = [entry for entry in run.facts["scored"] if all(entry[key] == metrics[key] for key in keys)
                    and entry["data_sha256"] in metrics.get("files", {entry["data"]: entry["data_sha256"]}).values()]
            if not same:
                raise UserError(f"{path}: is no evaluation of {run.path}: its run.json does not know these figures; "
                                "score with eval.py --run, or leave it out")
            times = sum(entry["data_sha256"] == same[-1]["data_sha256"] for entry in run.facts["scored"])
            found.append(Evaluation(metrics, Path(same[-1]["data"]).name, times))
            metrics_table(metrics), findings(metrics)
        except (KeyError, TypeError, AttributeError, IndexError, ValueError, ArithmeticError) as error:
            raise UserError(f"{path}: is not what eval.py writes ({type(error).__name__}); score again") from error
    return found


def _plain(value) -> str:
    """A value of run.json in words."""
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return {None: "–", True: "yes", False: "no"}.get(value, str(value)) if value is None or isinstance(value, bool) \
        else str(value)


def _cell(text: str) -> str:
    """Text that cannot leave its cell of a Markdown table."""
    return " ".join(str(text).split()).replace("\\", "\\\\").replace("|", "\\|")
