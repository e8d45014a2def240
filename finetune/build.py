"""What a fine-tune is made of, put together, and what it is about to do, in words."""

from dataclasses import replace

from common.errors import UserError
from common.terminal import counted, human_bytes
from data.batching import order_by_length
from data.sampling import class_weights, order_by_epoch
from finetune.graphs import refused
from finetune.learning import Learning, few_steps
from finetune.loop import Recipe, Trainer, steps_per_epoch
from finetune.memory import MemoryPlan
from finetune.options import is_embedded
from finetune.prepare import Prepared
from finetune.run_folder import RunFolder
from finetune.team import Team, TeamTrainer


def choose_order(options, prepared: Prepared):
    """order(epoch) -> indices, by the options `balance` and `group_by_length`; the same for the same epoch."""
    if not options.group_by_length:
        return order_by_epoch(prepared.train, options.seed, options.balance)
    if options.balance != "none":
        raise UserError(f"--group-by-length and --balance {options.balance}: both decide the order; choose one")
    return order_by_length([len(row.ids) for row in prepared.rows], options.batch_size, options.seed)


def choose_graphs(options, model, memory: MemoryPlan, team: Team | None = None, run: RunFolder | None = None
                  ) -> MemoryPlan:
    """The plan with or without steps that are recorded as CUDA graphs; says which on a GPU, and why not.

    The bits of a `run` that is resumed depend on what it began with, so memory no longer decides. Raises `UserError`
    for what `--graphs` cannot record.
    """
    planned = {} if run is None else run.facts.get("memory_expected")
    before = planned.get("graphs") if isinstance(planned, dict) else None
    why, instead = refused(model, options.loss)
    if not why and team is not None:
        why = "only the steps of a single process can be recorded, and torchrun started several"
    if options.graphs == "on" and why:
        raise UserError(f"--graphs: {why}; {instead + ', or ' * bool(instead)}leave it out")
    recorded = replace(memory, graphs=True)
    if options.graphs == "auto" and not why and before is False:
        why = "this run began without"
    if options.graphs == "auto" and not (why or before or recorded.fits):
        why = (f"that would need {human_bytes(recorded.needed)} beside the model, and {human_bytes(memory.available)} "
               "is free")
    if options.graphs != "off" and not why:
        print("  steps are recorded as CUDA graphs and replayed (--graphs off: launch after launch)")
        return recorded
    if options.graphs == "auto" and model.device.type == "cuda":
        print(f"  steps are not recorded as CUDA graphs: {why}")
    return memory


def make_trainer(options, prepared: Prepared, model, memory: MemoryPlan, order, team: Team | None = None) -> Trainer:
    """Rows, labels, weights and recipe put together; `team`: the processes that share the steps."""
    labels = [prepared.codebook.index(post.label) for post in prepared.train]
    weights = [1.0] * len(labels)
    if options.class_weights:
        by_label = class_weights(prepared.train, prepared.codebook.labels)
        weights = [float(by_label[index]) for index in labels]
    recipe = Recipe(options.learning_rate, options.schedule, options.warmup, options.weight_decay, options.clip,
                    options.batch_size, options.loss)
    steps = steps_per_epoch(len(labels), options.batch_size) * options.epochs
    trainer = (Trainer if team is None else TeamTrainer)(
        model, prepared.rows, labels, weights, prepared.prompt.label_ids, order, prepared.shared_ids(options), recipe,
        min(steps, options.max_steps) if options.max_steps else steps, memory.micro_tokens, memory.checkpointing,
        memory.graphs)
    if memory.graphs and options.graphs == "auto" and not memory.fits:  # resumed beside a program that holds memory
        trainer.graphs.given_up = True
    if team is not None:
        trainer.team, trainer.seed = team, options.seed
    return trainer


def what_comes(options, prepared: Prepared, trainer: Trainer) -> list[str]:
    """Lines about the steps that are about to be made."""
    lines = [f"{counted(trainer.total_steps, 'step')} of {counted(options.batch_size, 'post')}: AdamW, rate "
             f"{options.learning_rate:g} {options.schedule}, loss {options.loss}; rank {options.rank} on "
             f"{', '.join(options.targets)}"]
    if options.balance != "none":
        both = {"both": "labels and languages", "label": "labels", "language": "languages"}[options.balance]
        lines.append(f"{both} are drawn equally often (--balance none: posts as they come)")
    few = "" if is_embedded(options) else few_steps(trainer.total_steps)  # that base has a recipe of its own
    if few:
        lines.append(f"warning: {few}")
    if options.loss == "text":
        return [*lines, "loss over the whole text: the adapter also learns to write such posts; there is no constant "
                "answer to compare it with"]
    lines.append("a constant answer, each label as often as the recipe shows it, gets a loss of "
                 f"{Learning.of(trainer).entropy:.3f} nats; a model whose loss stays there has learnt nothing from the "
                 "posts")
    if options.dropout and prepared.prompt.prefix_ids:
        prefix = len(prepared.prompt.prefix_ids)
        average = sum(len(row.ids) for row in prepared.rows) / len(prepared.rows)
        lines.append(f"dropout {options.dropout}: the prompt's first {prefix} tokens are computed for every post "
                     f"({average:.0f} tokens a post instead of {average - prefix:.0f})")
    return lines
