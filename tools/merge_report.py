"""What changes when an adapter is merged and the result is rounded: one adapter, one labelled file, every export form.

    python -m tools.merge_report                                            the newest run on the sample posts
    python -m tools.merge_report --run runs/mine --data test.jsonl --out reports/merge

    beside                  the base as in training (in NF4), with the adapter beside it: what eval.py scores
    merged                  that base dequantised, with the adapter added, in the dtype of the base's files
    merged, original        the base's 16-bit files, which the adapter never saw, with the adapter added
    merged, in NF4          "merged", its linears then quantised to NF4 again
    GGUF F16, Q8_0, Q4_0    the merged weights as tools.export writes them, in llama.cpp (if it is installed)

The first is the reference. For every other form x and posts i with label probabilities p (reference) and q (x):

    flips    posts whose label differs from the reference's
    KL       mean over i of sum_c p_ic ln(p_ic / q_ic), in nats, float64: how far the probabilities moved, flips or not
    F1 gain  macro-F1 of x minus the reference's on the same posts, with a paired bootstrap (95 %, by language) of posts
             that belong together: copies of a text, or of one author where --group-by says so; an interval that
             contains 0 shows no change that this file could tell from chance

Every form that certainly changes labels gets a warning. One model is in memory at a time. Writes merge_report.json and
merge_report.md. Posts whose text was trained on are left out, as in eval.py, and the run records that the file was
scored.
"""

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from common.device import MachineOptions
from common.errors import UserError, run_program
from common.files import (
    atomic_folder,
    atomic_write,
    check_place,
    find_path,
    scratch_folder,
    sha256_file,
    write_json,
)
from common.options import option, parse_options
from common.reading import check_path
from common.terminal import progress, table
from data.annotators import read_labelled
from data.checks import TrainingTexts, check_test, refuse_unlearnt
from data.codebook import Codebook
from data.groups import GroupOptions
from data.posts import DATA, ColumnOptions, Post
from data.prompt import Prompt
from data.rows import stem
from finetune.run_folder import RunFolder
from inference.decide import decide
from inference.labeller import label_probabilities
from inference.run import base_folder, finished_run, open_model, run_prompt
from quant.nf4 import dequantize_nf4, quantize_nf4
from report.counts import Grouping
from report.words import interval, number
from stats.change import change
from stats.predictions import Predictions, Rows
from tools.export.tensors import MergedTensors, build_model

JSON, MARKDOWN = "merge_report.json", "merge_report.md"
GGUF = {"f16": "GGUF F16", "q8_0": "GGUF Q8_0", "q4_0": "GGUF Q4_0"}
# Form -> how tools.export writes it, and what is in it that the adapter has never seen.
AGAIN = "the merged weights are rounded again"
WAYS = {"merged": ("merged", "the merged weights are rounded to the numbers of the base's files"),
        "merged, original": ("merged --base original", "the adapter learned beside the base in 4 bits, not this one"),
        "merged, in NF4": ("bnb-4bit", AGAIN), GGUF["f16"]: ("gguf-f16", AGAIN), GGUF["q8_0"]: ("gguf-q8_0", AGAIN),
        GGUF["q4_0"]: ("gguf-q4_0", AGAIN)}  # fmt: skip
FEW_FLIPS = 0.02  # of the posts: a form that certainly changes more labels is warned of
REFERENCE = {"none": "16-bit base + adapter", "nf4": "NF4 + adapter", "nf4-double": "NF4, double + adapter"}


@dataclass
class ReportOptions(GroupOptions, ColumnOptions, MachineOptions):
    """Options of one report."""

    run: str | None = option(None, "folder of a finished run (default: the newest in runs/)", metavar="DIR")
    data: list[str] = option(("data/samples/test.jsonl",), "labelled posts that took no part in training",
                             metavar="FILE")
    out: str | None = option(None, "folder for merge_report.json and merge_report.md (default: in the run)",
                             metavar="DIR")
    model: str | None = option(None, "where the base model is, if it has moved since training", metavar="DIR")
    gguf: str = option("auto", "compare GGUF files in llama.cpp; auto: if it is installed",
                       choices=("auto", "on", "off"))
    drop_known: str = option("same", "leave out posts whose text was trained on, as eval.py does",
                             choices=("same", "exact", "none"), group=DATA)
    draws: int = option(2000, "bootstrap draws for the intervals", minimum=0, maximum=10**6)
    seed: int = option(0, "seed of the bootstrap", minimum=0)


def main(argv: list[str]) -> None:
    """Read the posts, label them with every form in turn, compare, write."""
    options = parse_options(ReportOptions, argv, program="python -m tools.merge_report", description=__doc__)
    run = finished_run(options.run)
    out = Path(options.out) if options.out else run.path / f"merge-{stem(Path(options.data[0]))}"
    check_path(out / JSON)
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / JSON).exists())):
        raise UserError(f"--out {out}: holds something that is no merge report; choose another folder")
    check_place(out, "--out")
    posts, groups = read_posts(options, run)
    folder = base_folder(run, options.model, options.cache)
    forms, left_out = choose_forms(options, run, folder, run_prompt(run, folder))
    found = {}
    with progress(len(forms), "form", "labelling") as bar:
        for name, label in forms.items():
            found[name] = label(posts)
            bar.update()
    labels = Codebook.from_dict(run.facts["codebook"]).labels
    rows = compare(found, posts, groups, labels, options.draws, options.seed)
    warnings = warnings_of(rows, len(posts))
    with atomic_folder(out) as beside:
        write_json(beside / JSON, {"schema": 1, "run": str(run.path), "data": list(map(str, options.data)),
                                   "n": len(posts), "reference": rows[0]["form"], "draws": options.draws,
                                   "seed": options.seed, "left_out": left_out, "forms": rows,
                                   "warnings": warnings})
        with atomic_write(beside / MARKDOWN) as handle:
            handle.write(markdown(rows, len(posts), warnings))
    for name in options.data:  # the reference's score: the others are nearly the same answers
        run.note_scored({"data": str(name), "data_sha256": sha256_file(find_path(name)), "n": len(posts),
                         "accuracy": rows[0]["accuracy"], "macro_f1": rows[0]["macro_f1"]})
    print("\n".join(["", shown(rows), "", *(f"  {line}" for line in warnings + left_out)]).rstrip())
    print(f"\nreport: {out / JSON}")


def read_posts(options: ReportOptions, run: RunFolder) -> tuple[list[Post], np.ndarray]:
    """The labelled posts, without those whose text the run was trained on, and the group (n,) of each."""
    options.remember(run.facts["options"])
    files = [find_path(name) for name in options.data]
    with options.or_samples():
        posts, notes, _ = read_labelled(files, options.columns(), Codebook.from_dict(run.facts["codebook"]),
                                        bad_labels=options.bad_labels)
    check = check_test(TrainingTexts.from_file(run.path / "training_texts.json"), posts,
                       options.drop_known)
    if not run.facts["options"]["allow_missing_labels"]:
        refuse_unlearnt(check)
    groups = dict(zip(map(id, posts), options.groups_of(posts, files[0]), strict=True))
    print("\n".join([*notes.lines(), *check.lines()]))
    return check.kept, np.array([groups[id(post)] for post in check.kept])


def choose_forms(options: ReportOptions, run: RunFolder, folder: Path, prompt: Prompt
                 ) -> tuple[dict[str, Callable[[list[Post]], np.ndarray]], list[str]]:
    """Name -> a function from posts to label probabilities (n, C), the reference first; and why others are left out."""
    device, dtype, reason = options.set_up()
    print(f"  {dtype}, since {reason}")
    trained = run.facts["options"]["quantize"]

    def tensors(quantize: str = trained, rounded: str | None = "stored") -> MergedTensors:
        return MergedTensors(folder, adapter=run.path / "adapter", quantize=quantize, dtype=rounded)

    def label(make: Callable) -> Callable[[list[Post]], np.ndarray]:
        def with_model(posts: list[Post]) -> np.ndarray:
            rows = [prompt.encode(post.text) for post in posts]
            return label_probabilities(make(), prompt, rows, micro_tokens=options.micro_tokens)
        return with_model

    def dense(source: MergedTensors, items: Callable = MergedTensors.items):
        return build_model(source.config, items(source), dtype).to(device)

    packed = tensors().packed
    reference = "4-bit base + adapter" if packed else REFERENCE[trained]
    forms = {reference: label(lambda: open_model(run, model=options.model, device=device, dtype=dtype,
                                                 cache=options.cache)[0]),
             "merged": label(lambda: dense(tensors()))}
    left_out = []
    if packed or trained == "none":
        left_out.append("merged, original: the base " + ("has no 16-bit files" if packed else "was not in 4 bits in "
                        "training, so this is \"merged\""))  # fmt: skip
    else:
        forms["merged, original"] = label(lambda: dense(tensors("none")))
    forms["merged, in NF4"] = label(lambda: dense(tensors(), in_nf4))
    if options.gguf == "off":
        return forms, left_out
    missing = [name for name in ("gguf", "llama_cpp") if importlib.util.find_spec(name) is None]
    try:
        if missing:
            raise UserError(f"needs {' and '.join(missing)}, which the extra 'peers' has")
        from tools.export.vocabulary import read_vocabulary

        read_vocabulary(prompt.tokenizer.source, tensors().config.vocab_size)
    except UserError as error:
        if options.gguf == "on":
            raise UserError(f"--gguf on: {error}") from error
        left_out.append(f"GGUF: {error}")
        return forms, left_out
    threads = options.threads or torch.get_num_threads()
    for kind, name in GGUF.items():
        forms[name] = lambda posts, kind=kind: in_llama_cpp(tensors(rounded=None), prompt, posts, kind, threads,
                                                            run.path)
    return forms, left_out


def in_nf4(tensors: MergedTensors) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors, with linears as they come back from NF4."""
    for name, tensor in tensors.items():
        yield name, (dequantize_nf4(*quantize_nf4(tensor, name), tensor.shape, torch.float32)
                     if name in tensors.linears else tensor)


def in_llama_cpp(tensors: MergedTensors, prompt: Prompt, posts: list[Post], kind: str, threads: int, folder: Path
                 ) -> np.ndarray:
    """Label probabilities (n, C) of llama.cpp on a GGUF file, which is written in `folder` for this, then removed."""
    from tools.export.gguf_file import write_gguf
    from tools.export.llama_cpp import GGUFModel

    rows = [prompt.encode(post.text).ids for post in posts]
    with scratch_folder(folder / f"merge-{kind}") as beside:
        path = beside / f"{kind}.gguf"
        write_gguf(tensors, prompt.tokenizer.source, path, kind)
        model = GGUFModel(path, max(map(len, rows)) + 1, threads)
        logits = np.stack([model.logits(row)[prompt.label_ids] for row in rows]).astype(np.float64)
        model.close()
    weights = np.exp(logits - logits.max(1, keepdims=True))
    return weights / weights.sum(1, keepdims=True)


def compare(found: dict[str, np.ndarray], posts: list[Post], groups: np.ndarray, labels: tuple[str, ...], draws: int,
            seed: int) -> list[dict]:
    """One row per form, the first being the reference: macro-F1, accuracy, flips, KL, F1 gain with its interval.

    groups (n,): equal for posts that belong together.
    """
    table = Rows.of(posts, groups, Grouping(labels))
    rows, reference = [], None
    for name, probabilities in found.items():
        answers = Predictions(table, decide(probabilities), probabilities.astype(np.float64))
        row = {"form": name} | {key: answers.figure(key) for key in ("macro_f1", "accuracy")}
        if rows:
            told = change(reference, answers, draws, seed)
            row |= {key: told[key] for key in ("flips", "flip_rate", "flip_rate_ci", "kl")}
            row |= {"f1_gain": told["f1_change"], "f1_gain_ci": told["f1_change_ci"]}
        rows, reference = [*rows, row], reference or answers
    return rows


def warnings_of(rows: list[dict], count: int) -> list[str]:
    """A line for each form that changes labels, of `count` posts: the 95 % interval of the flips' rate lies above
    `FEW_FLIPS`, or that of the F1 gain below 0. It names the forms of which that is not so; the adapter beside its base
    is always one, since it is what all are compared with."""
    changed = [row for row in rows[1:] if count and (row["flip_rate_ci"][0] > FEW_FLIPS or (
        row["f1_gain_ci"] is not None and row["f1_gain_ci"][1] < 0))]
    kept = ["peft", *(WAYS[row["form"]][0] for row in rows[1:] if row not in changed)]
    ways = f"{', '.join(kept[:-1])} or {kept[-1]}" if len(kept) > 1 else kept[0]
    return [f"warning: {row['form']} gives {row['flips']:,} of {count:,} posts another label, since "
            f"{WAYS[row['form']][1]}; release a form without such a change (tools.export --to {ways})"
            for row in changed]


def cells(rows: list[dict]) -> tuple[list[str], list[list[str | None]]]:
    """Header and cells of both tables."""
    header = ["", "macro-F1", "F1 gain", "95 % interval", "flips", "%", "KL"]
    body = [[rows[0]["form"], number(rows[0]["macro_f1"]), *[None] * 5]]
    body += [[row["form"], number(row["macro_f1"]), f"{row['f1_gain']:+.3f}", interval(row["f1_gain_ci"], 3),
              f"{row['flips']:,}", f"{100 * row['flip_rate']:.1f}", f"{row['kl']:.2g}"] for row in rows[1:]]
    return header, body


def shown(rows: list[dict]) -> str:
    """The terminal's table."""
    return table(*cells(rows))


def markdown(rows: list[dict], count: int, warnings: list[str]) -> str:
    """The same as a Markdown table, with a line that says what it is, and the warnings."""
    header, body = cells(rows)
    lines = [header, ["---"] * len(header), *[["–" if cell is None else cell for cell in row] for row in body]]
    table_lines = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([f"{count:,} posts; flips, KL and F1 gain against the first line.", "", *table_lines, "",
                      *(line for words in warnings for line in (words, ""))])


if __name__ == "__main__":
    run_program(main)
