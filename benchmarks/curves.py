"""A finished run's recipe once more by transformers and peft: same start, posts, order and rates, curve beside curve.

    python -m benchmarks.curves --run runs/mine --data test.jsonl --json curves.json --figure curves.png

The run's own log gives our curve. Theirs begins from the same adapter and takes the same steps on batches padded as its
users pad them, with AdamW, clipping and rates as the run had them; both then label the same posts. In float32 the
curves agree until rounding has grown; in bfloat16 they differ from the first step on by what rounding in another order
makes, and what should agree is where they lead.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from audit.provenance import trainer_of
from benchmarks.card.peer import peer
from benchmarks.worker import padded
from common.errors import UserError, run_program
from common.files import check_file, write_json
from common.options import option, parse_options
from common.terminal import progress
from data.annotators import read_labelled
from finetune.loop import learning_rate
from finetune.options import TrainOptions
from finetune.recorded import prepared_of
from finetune.run_folder import RunFolder
from report.metrics import Scored, score

WINDOW = 20  # steps that a point of the figure is the mean of
LABELS_AT_ONCE = 16


@dataclass
class CurvesOptions:
    """Options of this program."""

    run: str | None = option(None, "a finished run of train.py with the label loss", metavar="DIR")
    data: list[str] = option((), "posts that both label afterwards", metavar="FILE")
    json: str | None = option(None, "file for losses and figures", metavar="FILE")
    figure: str | None = option(None, "picture of both curves", metavar="FILE")
    steps: int = option(0, "take only the run's first N steps; 0: all", minimum=0)
    device: str = option("cpu", "cpu or cuda", metavar="NAME")
    threads: int = option(0, "CPU threads; 0 leaves PyTorch's choice", minimum=0)


def main(argv: list[str]) -> None:
    """Train theirs, label, compare, write."""
    options = parse_options(CurvesOptions, argv, program="python -m benchmarks.curves", description=__doc__)
    check_file(options.json, "--json")
    if options.run is None:
        raise UserError("--run: is needed")
    if options.threads:
        torch.set_num_threads(options.threads)
    run = RunFolder.open(options.run)
    recipe, prepared = prepared_of(run)
    if recipe.loss != "label" or recipe.dropout:
        raise UserError(f"{options.run}: was trained with loss {recipe.loss} and dropout {recipe.dropout}; this "
                        "program compares runs with the label loss and without dropout")
    ours = run.read_log()
    trainer = trainer_of(run, recipe, prepared, options.device)
    theirs = peer(trainer.model)
    losses = train_theirs(theirs, trainer, options.steps or trainer.total_steps, options.device)
    mine = [line["loss"] for line in ours if "loss" in line][: len(losses)]
    result = {"run": options.run, "steps": len(losses), "ours": mine, "theirs": losses}
    if options.data:
        result["scores"] = score_theirs(theirs, prepared, options)
    if options.json:
        write_json(Path(options.json), result)
    if options.figure:
        draw(mine, losses, Path(options.figure))
    late = max(1, len(losses) // 10)
    print(f"late loss: ours {sum(mine[-late:]) / late:.3f}, theirs {sum(losses[-late:]) / late:.3f}; first step "
          f"{mine[0]:.4f} and {losses[0]:.4f}")
    if options.data:
        print(json.dumps(result["scores"], indent=1))


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
def score_theirs(model, prepared, options: CurvesOptions) -> dict:
    """What eval.py would report of their labels: posts, accuracy, macro-F1 and topic macro-F1, over all and by
    language."""
    model.eval()
    codebook = prepared.codebook
    posts, _, _ = read_labelled([Path(name) for name in options.data], TrainOptions().columns(), codebook)
    label_ids = torch.tensor(prepared.prompt.label_ids, device=options.device)
    rows, parts = [prepared.prompt.encode(post.text) for post in posts], []
    with progress(len(rows), "post", "labelling") as bar:
        for start in range(0, len(rows), LABELS_AT_ONCE):
            some = rows[start : start + LABELS_AT_ONCE]
            parts.append(at_answers(model, some, label_ids, options.device).float().softmax(-1).cpu())
            bar.update(len(some))
    probabilities = torch.cat(parts).numpy()
    predicted = [codebook.labels[index] for index in probabilities.argmax(1)]
    found = score(Scored([post.id for post in posts], [post.label for post in posts], predicted,
                         [post.language for post in posts], codebook.labels, probabilities, codebook.related), draws=0)
    short = lambda cell: {"n": cell["n"], "accuracy": cell["accuracy"], "macro_f1": cell["macro_f1"],  # noqa: E731
                          "topic": (cell["topic"] or {}).get("macro_f1")}
    return {"all": short(found)} | {name: short(cell) for name, cell in found["by_language"].items()}


def draw(ours: list[float], theirs: list[float], path: Path) -> None:
    """Both curves, each point the mean of `WINDOW` steps."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 3.6), layout="constrained")
    for name, values, style in (("Glass Llama", ours, "-"), ("transformers + peft", theirs, "--")):
        kept = len(values) // WINDOW * WINDOW
        means = torch.tensor(values[:kept]).view(-1, WINDOW).mean(1).tolist()
        axes.plot([WINDOW * (place + 1) for place in range(len(means))], means, style, label=name, linewidth=1.6)
    axes.set_xlabel("step")
    axes.set_ylabel(f"loss, mean of {WINDOW} steps")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=160)
    pyplot.close(figure)


if __name__ == "__main__":
    run_program(main)
