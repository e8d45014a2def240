"""A finished run's recipe once more by transformers and peft: same start, posts, order and rates, curve beside curve.

    python -m benchmarks.curves --run runs/mine --data test.jsonl --json curves.json --figure curves.png

The run's own log gives our curve. Theirs begins from the same adapter and takes the same steps on batches padded as its
users pad them, with AdamW, clipping and rates as the run had them. In float32 the curves agree until rounding has
grown; in bfloat16 they differ from the first step on by what rounding in another order makes, and what should agree is
where they lead.

Theirs then labels the posts of `--data`; what eval.py reports of the run on the same posts stands beside it. As there,
figures are given twice: "kept" without the posts whose text was trained on, "all" with them.
"""

import importlib.util
import json
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import numpy
import torch
import torch.nn.functional as F

from audit.replay import trainer_of
from benchmarks.card.peer import peer
from benchmarks.worker import padded
from common.device import choose_device
from common.errors import UserError, run_program
from common.files import check_file, check_picture, find_path, write_json
from common.options import option, parse_options
from common.run_json import check_finished
from common.terminal import progress
from data.annotators import read_labelled
from data.checks import TestCheck, check_test
from finetune.loop import learning_rate
from finetune.options import TrainOptions
from finetune.prepare import Prepared
from finetune.recorded import prepared_of
from finetune.run_folder import RunFolder
from inference.decide import decide
from report.metrics import Scored, score

WINDOW = 20  # steps that a point of the figure is the mean of
LABELS_AT_ONCE = 16


@dataclass
class CurvesOptions:
    """Options of this program."""

    run: str | None = option(None, "a finished run of train.py with the label loss", metavar="DIR")
    data: list[str] = option((), "labelled posts that theirs labels afterwards", metavar="FILE")
    drop_known: str = option("same", "posts that the scores \"kept\" leave out, as in eval.py: whose text was in "
                             "training, the same after normalising or exactly the same; or none",
                             choices=("same", "exact", "none"))
    json: str | None = option(None, "file for losses and figures", metavar="FILE")
    figure: str | None = option(None, "picture of both curves: .png, .svg or .pdf", metavar="FILE")
    steps: int = option(0, "take only the run's first N steps; 0: all", minimum=0)
    device: str = option("cpu", "cpu or cuda", metavar="NAME")
    threads: int = option(0, "CPU threads; 0 leaves PyTorch's choice", minimum=0)


def main(argv: list[str]) -> None:
    """Train theirs, write, label, compare, write."""
    options = parse_options(CurvesOptions, argv, program="python -m benchmarks.curves", description=__doc__)
    for name in options.data or [None]:
        check_file(options.json, "--json", {"--data": name})
        check_picture(options.figure, {"--data": name, "--json": options.json})
    if options.run is None:
        raise UserError("--run: is needed")
    missing = [name for name in ("transformers", "peft") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"benchmarks.curves: {missing[0]} is not installed; the extra 'test' brings it")
    choose_device(options.device)
    if options.threads:
        torch.set_num_threads(options.threads)
    run = RunFolder.open(options.run)
    ours = losses_of(run, options.steps)
    recipe, prepared = prepared_of(run)
    if recipe.loss != "label" or recipe.dropout:
        raise UserError(f"{options.run}: was trained with loss {recipe.loss} and dropout {recipe.dropout}; this "
                        "program compares runs with the label loss and without dropout")
    check = posts_of(options, run, prepared) if options.data else None
    trainer = trainer_of(run, recipe, prepared, options.device)
    theirs = peer(trainer.model)
    losses = train_theirs(theirs, trainer, len(ours), options.device)
    result = {"run": options.run, "steps": len(losses), "ours": ours,
              "theirs": [loss if isfinite(loss) else None for loss in losses]}  # JSON has no NaN
    if options.json:  # what took longest; the scores are added
        write_json(Path(options.json), result)
    if options.figure:
        draw(ours, losses, options.figure)
    late = max(1, len(losses) // 10)
    print(f"late loss: ours {sum(ours[-late:]) / late:.3f}, theirs {sum(losses[-late:]) / late:.3f}; first step "
          f"{ours[0]:.4f} and {losses[0]:.4f}")
    if check is not None:
        result["scores"] = score_theirs(theirs, prepared, check, options.device)
        if options.json:
            write_json(Path(options.json), result)
        print(json.dumps(result["scores"], indent=1))


def losses_of(run: RunFolder, steps: int) -> list[float]:
    """The losses of a finished run's first `steps` steps; of all where `steps` is 0 or more than there are.

    Raises `UserError` for a run that is not finished, and for a log that lacks a step.
    """
    check_finished(run.path, run.facts)
    lines = [line for line in run.read_log() if "loss" in line]
    if not lines or [line["step"] for line in lines] != list(range(1, len(lines) + 1)) or (
            run.facts.get("step") != len(lines)):
        raise UserError(f"{run.log_path}: does not hold each of the run's {run.facts.get('step')} steps once; give a "
                        "run as train.py left it")
    return [line["loss"] for line in lines][: steps or None]


def posts_of(options: CurvesOptions, run: RunFolder, prepared: Prepared) -> TestCheck:
    """The posts to label, from columns as the run had them, beside the texts that it was trained on."""
    columns = TrainOptions().columns_of(run.facts["options"])
    posts, notes, _ = read_labelled([find_path(name) for name in options.data], columns, prepared.codebook)
    check = check_test(prepared.texts, posts, options.drop_known)
    print("\n".join([*notes.lines(), *check.lines()]))
    return check


def train_theirs(model, trainer, steps: int, device: str) -> list[float]:
    """The run's first steps by transformers and peft; the loss of each."""
    model.train()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    recipe = trainer.recipe
    optimiser = torch.optim.AdamW(parameters, lr=recipe.learning_rate, betas=recipe.betas, eps=recipe.epsilon,
                                  weight_decay=recipe.weight_decay, fused=True)
    losses = []
    with progress(steps, "step", "theirs") as bar:
        for step in range(steps):
            chosen = trainer.indices(step)
            optimiser.param_groups[0]["lr"] = learning_rate(step, trainer.total_steps, recipe)
            optimiser.zero_grad(set_to_none=True)
            logits = at_answers(model, [trainer.rows[index] for index in chosen], trainer.label_ids, device)
            each = F.cross_entropy(logits.float(), trainer.labels[chosen].to(device), reduction="none")
            weights = trainer.weights[chosen].to(device, torch.float32)
            loss = (each * weights).sum() / weights.sum()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, recipe.clip or float("inf"))
            optimiser.step()
            losses.append(loss.item())
            bar.update()
    return losses


def at_answers(model, rows, label_ids, device: str) -> torch.Tensor:
    """Label logits (B, C) where each row's answer is read, rows padded on the left."""
    batch = padded([row.ids for row in rows], "left", device)
    return model(**batch, use_cache=False, logits_to_keep=1).logits[:, -1][:, label_ids]


@torch.inference_mode()
def score_theirs(model, prepared: Prepared, check: TestCheck, device: str) -> dict:
    """What eval.py would report of their labels: posts, accuracy, macro-F1 and topic macro-F1, over all languages and
    by language; of the posts kept, of all posts, and how many were left out of the first."""
    model.eval()
    codebook, posts, parts = prepared.codebook, check.all, []
    label_ids = torch.tensor(prepared.prompt.label_ids, device=device)
    rows = [prepared.prompt.encode(post.text) for post in posts]
    with progress(len(rows), "post", "labelling") as bar:
        for start in range(0, len(rows), LABELS_AT_ONCE):
            some = rows[start : start + LABELS_AT_ONCE]
            parts.append(at_answers(model, some, label_ids, device).float().softmax(-1).cpu())
            bar.update(len(some))
    probabilities = torch.cat(parts).numpy()  # (n, C)
    if not numpy.isfinite(probabilities).all():
        raise UserError("theirs: its probabilities are not finite, so its labels are not scored; see its losses")
    predicted = [codebook.labels[index] for index in decide(probabilities)]
    gone = {id(post) for post in check.dropped}
    every = range(len(posts))
    kept = [place for place in every if id(posts[place]) not in gone]

    def cells(places) -> dict:
        some = [posts[place] for place in places]
        found = score(Scored([post.id for post in some], [post.label for post in some],
                             [predicted[place] for place in places], [post.language for post in some], codebook.labels,
                             probabilities[list(places)], codebook.related), draws=0)
        return {"all": short(found)} | {name: short(cell) for name, cell in found["by_language"].items()}

    return {"left_out": len(gone), "kept": cells(kept), "all": cells(every)}


def short(cell: dict) -> dict:
    """The figures of a cell of metrics.json that are shown."""
    return {"n": cell["n"], "accuracy": cell["accuracy"], "macro_f1": cell["macro_f1"],
            "topic": (cell["topic"] or {}).get("macro_f1")}


def draw(ours: list[float], theirs: list[float], path: str) -> None:
    """Both curves, each point the mean of `WINDOW` steps."""
    from matplotlib.figure import Figure

    from report.figures import save, styled

    with styled():
        figure = Figure(figsize=(7, 3.6), layout="constrained")
        axes = figure.subplots()
        for name, values, style in (("Glass Llama", ours, "-"), ("transformers + peft", theirs, "--")):
            kept = len(values) // WINDOW * WINDOW
            means = torch.tensor(values[:kept]).view(-1, WINDOW).mean(1).tolist()
            axes.plot([WINDOW * (place + 1) for place in range(len(means))], means, style, label=name, linewidth=1.6)
        axes.set_xlabel("step")
        axes.set_ylabel(f"loss, mean of {WINDOW} steps")
        axes.legend(frameon=False)
        save(figure, path)


if __name__ == "__main__":
    run_program(main)
