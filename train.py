#!/usr/bin/env python
"""Fine-tune a LLaMA checkpoint on labelled posts: frozen weights (dense or 4-bit), LoRA adapters, loss on the answer.

    python train.py                                                    the small base on English and Spanish samples
    python train.py --data data/samples/train.jsonl --languages en,de --out runs/mine
    python train.py --model Llama-3.2-3B-Instruct --data posts.csv --out runs/mine
    python train.py --model smollm2 --data posts.csv --out runs/mine   a small real model, which needs no account
    python train.py --resume --out runs/mine                           continue a killed run, to the same bits
"""

import sys
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict

import numpy as np
import torch

from common.device import available_memory
from common.errors import UserError, run_program
from common.files import check_place, sha256_json, write_json
from common.options import parse_options
from common.terminal import command, counted, human_bytes, human_seconds, progress
from data.exposure import exposure_table
from finetune.build import choose_graphs, choose_order, make_trainer, what_comes
from finetune.defaults import fill_in
from finetune.fit import NotFinite, Watch, fit, overflowed
from finetune.learning import Learning, advice, answers_of, sample
from finetune.loop import Trainer
from finetune.memory import fullest, plan_memory
from finetune.options import PRESETS, TrainOptions
from finetune.prepare import Prepared, prepare
from finetune.resume import check_same, check_same_files, take_up
from finetune.run_folder import RunFolder, environment, next_run
from finetune.team import END, Team, TeamTrainer
from finetune.weights import resolve, show_price
from inference.decide import decide
from inference.labeller import label_probabilities
from loading import load_model
from loading.assemble import choose_attend
from loading.cache import weights_sha256
from loading.choice import Choice, is_small
from loading.gguf import in_blocks
from lora.adapter import save_adapter
from lora.inject import inject, trainable_parameters
from model.llama import LlamaForCausalLM
from quant.convert import model_bytes
from report.metrics import Scored, score
from stats.calibration import fit_scaling


def main(argv: list[str]) -> None:
    """Read the options, print what is about to happen, train, and leave a run folder."""
    options = parse_options(TrainOptions, argv, program="train.py", description=__doc__, presets=PRESETS)
    complete(options)
    team = Team.joined(options.device)
    with ExitStack() as held:  # of the run's folder: nobody else writes there before this program has ended
        if team is not None:
            options.device = team.device(options.device)
            held.enter_context(team.at_work())
        work(options, held, team)


def work(options: TrainOptions, held: ExitStack, team: Team | None = None) -> None:
    """Open the run or begin one, and train it to its end; of several processes the first one keeps it."""
    run = RunFolder.open(options.out) if options.resume else None
    is_first = team is None or team.is_first
    if run is not None:
        check_same(run, options)
        if not run.facts["finished"] and is_first:
            held.enter_context(run.held())
    elif options.out and is_first:
        RunFolder.check_free(options.out)
    elif is_first:
        check_place("runs/run", "--out")
    torch.manual_seed(options.seed)
    device, dtype, reason = options.set_up()
    if run is not None and run.facts["finished"]:
        print(f"{run.path}: this run is finished; its report is {run.path / 'report.html'}")
        return
    prepared = prepare(options, run)
    options.choose_threads(device, prepared.config)
    here = environment(device) | {"dtype": str(dtype).removeprefix("torch."), "processes": team.size if team else 1}
    prepared.facts["hashes"]["weights"] = weights_sha256(prepared.base, options.cache)
    if team is not None:
        team.agree(options, prepared.facts["hashes"], here)
    order = choose_order(options, prepared)
    piece = fullest(prepared.rows, order(0), options.batch_size, prepared.shared_ids(options))
    choice = resolve(options, prepared.config, device, dtype, piece, team)
    print("\n".join(["posts", *prepared.notes, prepared.counts_table(), exposure_table(prepared.exposure)]))
    facts = {"program": "train.py", "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "options": asdict(options),
             "environment": here, **prepared.facts}
    if run is not None:
        check_same_files(run, facts, prepared.base)
    print(f"model {options.model}: {dtype}, since {reason}; weights {choice or options.quantize}")
    print(f"  chat layout {prepared.prompt.layout}, since {prepared.prompt.why}")
    if options.quantize != "none" and in_blocks(prepared.base):
        print("  its linears lie in blocks of a few bits each, and are rounded once more; --quantize none keeps them")
    model, built = load(options, prepared, device, dtype, choice)
    built["resident"] = options.keep_dense(model) if options.resident == "on" else 0
    memory = plan_memory(model, built["parameters"]["trainable"], micro_tokens=options.micro_tokens or None,
                         checkpointing=options.recompute, available=available_memory(device), loss=options.loss,
                         piece=piece)
    memory = choose_graphs(options, model, memory, team, run)
    if options.resident == "auto":  # how steps are cut and recorded comes first; what room is left may go to the copy
        built["resident"] = options.keep_dense(model, memory.needed)
        memory = memory.beside(built["resident"])
    print(f"  memory: {memory}")
    trainer = make_trainer(options, prepared, model, memory, order, team)
    if not is_first:
        team.follow(trainer)
        return
    built |= {"memory_expected": asdict(memory) | {"total": memory.total}, "steps": trainer.total_steps}
    print("\n".join(f"  {line}" for line in what_comes(options, prepared, trainer)))
    if run is None:  # only now: a model that cannot be loaded leaves no folder behind
        out = options.out or next_run(prepared.facts["languages"])
        run = held.enter_context(RunFolder.create(out, facts | built))
    try:
        train(options, prepared, run, trainer)
    except KeyboardInterrupt:
        print(f"to continue: {command('train.py', '--resume', '--out', run.path)}", file=sys.stderr)
        raise
    except NotFinite:
        if not options.resume and not run.kept_steps:  # from the first steps on: there is nothing to go on with
            run.discard()
        raise


def complete(options: TrainOptions) -> None:
    """Defaults that depend on other options, and what cannot be."""
    fill_in(options)
    if not options.resume:
        options.settle_validation()
        for line in options.take_from_split():
            print(f"  {line}")
    if options.resume and not options.out:
        raise UserError("--resume: needs --out, the folder of the run to continue")


def load(options, prepared: Prepared, device, dtype, choice: Choice | None) -> tuple[LlamaForCausalLM, dict]:
    """The base with fresh adapters, and what run.json records of it; prints both."""
    began = time.perf_counter()
    model = load_model(prepared.base, device=device, dtype=dtype, quantize=options.quantize, cache=options.cache)
    seconds = time.perf_counter() - began
    size = model_bytes(model)
    weights = choice and choice.to_dict() | {"price": show_price(options, prepared, choice, model)}
    attention = choose_attend(device, dtype, model.config.head_dim)[1]
    if device.type == "cuda":
        print(f"  attention: {attention}")
    inject(model, options.lora_targets, options.rank, options.alpha, options.dropout, rslora=options.rslora,
           generator=torch.Generator().manual_seed(options.seed))
    trainable = sum(p.numel() for p in trainable_parameters(model).values())
    total = sum(p.numel() for p in model.parameters())
    total += sum(m.in_features * m.out_features for m in model.modules() if hasattr(m, "load_packed"))  # in 4 bits
    print(f"  {total:,} parameters, {trainable:,} of them trainable, loaded in {human_seconds(seconds)}")
    return model, {"parameters": {"total": total, "trainable": trainable, "bytes": size}, "weights": weights,
                   "attention": attention}


def validator(prepared: Prepared, trainer: Trainer):
    """A function that scores the validation posts: macro-F1 (and a few figures to log); `None` if there are none."""
    if not prepared.validation:
        return None
    posts, codebook = prepared.validation, prepared.codebook
    gold = np.array([codebook.index(post.label) for post in posts])

    def evaluate() -> tuple[float, dict]:
        probabilities = label_probabilities(trainer.model, prepared.prompt, prepared.validation_rows,
                                            micro_tokens=trainer.micro_tokens)
        predicted = [codebook.labels[index] for index in decide(probabilities)]
        figures = score(Scored([post.id for post in posts], [post.label for post in posts], predicted,
                               [post.language for post in posts], codebook.labels, probabilities,
                               codebook.related), draws=0)
        topic = (figures["topic"] or {}).get("macro_f1")
        return figures["macro_f1"], {"n": figures["n"], "macro_f1": figures["macro_f1"],
                                     "accuracy": figures["accuracy"], "topic_macro_f1": topic,
                                     "answers": dict(Counter(predicted)),
                                     "calibration": fit_scaling(probabilities, gold)}

    return evaluate


def train(options, prepared: Prepared, run: RunFolder, trainer: Trainer) -> None:
    """Continue from the checkpoint, if there is one, to the end; save the best and last adapters; write the report."""
    torch.manual_seed(options.seed)  # dropout draws from here on; what came before must not matter
    watch, earlier = take_up(options, run, trainer)
    if isinstance(trainer, TeamTrainer):
        trainer.team.begin(trainer)
    run.cut_log(trainer.step_count)
    learning = Learning.of(trainer)
    for line in run.read_log():
        learning.add(line)
    keep = lambda name: save_adapter(trainer.model, run.path / name, base_name=options.model)  # noqa: E731
    evaluate = validator(prepared, trainer)
    size = options.batch_size
    bar = progress(trainer.total_steps * size, "post", "training", initial=trainer.step_count * size)
    began, posts_done = time.perf_counter(), 0

    def show(line: dict) -> None:
        nonlocal posts_done
        posts_done += line["posts"]
        bar.update(size)
        if not bar.disable and line["step"] % 5 == 0:  # reading the loss waits for a GPU
            beside = f" beside {learning.entropy:.3f}" if learning.compared else ""
            bar.set_postfix_str(f"loss {line['loss'].item():.3f}{beside}" + (
                "" if watch.best is None else f", best macro-F1 {watch.best:.3f}"))

    def log(line: dict) -> None:
        run.append_log(line)
        if told := learning.add(line):
            if not bar.disable:
                bar.clear()
            tries = advice(options, is_small(trainer.model.config))
            words = learning.warning(tries) if told == "warn" else [f"step {line['step']}: {learning.beside()}: it has "
                                                                    "left the constant answer"]
            print("\n".join(f"  {said}" for said in words), flush=True)
        if bar.disable and "validation" in line:
            seconds = time.perf_counter() - began
            print(f"  step {line['step']} of {trainer.total_steps}: {learning.beside()}, validation macro-F1 "
                  f"{line['validation']['macro_f1']:.3f}, {posts_done / seconds:.1f} posts/s", flush=True)

    def save() -> None:
        seconds = earlier + time.perf_counter() - began
        run.write_state({"trainer": trainer.state(), "watch": asdict(watch), "seconds": seconds})

    ended = fit(trainer, watch, evaluate=evaluate, on_best=lambda: keep("adapter"), save=save, log=log, show=show,
                eval_every=options.eval_every or trainer.steps_per_epoch, save_every=options.save_every,
                patience=options.patience)
    if isinstance(trainer, TeamTrainer):
        trainer.team.tell(END)
    bar.close()
    keep("adapter-last")
    if evaluate is None:
        keep("adapter")
    seconds = earlier + time.perf_counter() - began
    run.facts |= {"learning": learning.to_dict(), "answers": answers(prepared, run, trainer, watch)}
    finish(prepared, run, trainer, watch, ended, seconds)


def validated(run: RunFolder, watch: Watch) -> dict:
    """What was logged of the kept adapter's validation."""
    return next(line["validation"] for line in reversed(run.read_log())
                if line["step"] == watch.best_step and "validation" in line)


def answers(prepared: Prepared, run: RunFolder, trainer: Trainer, watch: Watch) -> dict:
    """What the kept adapter answers: on the validation posts, where there are some, else on a few training posts."""
    labels = prepared.codebook.labels
    if watch.best is not None:
        given = validated(run, watch).get("answers")
        if given:  # an older version, which began this run, did not count
            people = Counter(post.label for post in prepared.validation)
            return answers_of(Counter(given), people, labels, "validation posts")
    some = sample(len(prepared.train))
    rows = [prepared.prompt.encode(prepared.train[index].text) for index in some]
    found = label_probabilities(trainer.model.eval(), prepared.prompt, rows, micro_tokens=trainer.micro_tokens)
    return answers_of(Counter(labels[index] for index in decide(found)),
                      Counter(prepared.train[index].label for index in some), labels, "training posts")


def finish(prepared, run: RunFolder, trainer: Trainer, watch: Watch, ended: str, seconds: float) -> None:
    """Write the results of the run, and print where they are."""
    from report.page import write_page  # matplotlib: half a second that no error message should wait for

    steps = run.read_log()
    posts = sum(line.get("posts", 0) for line in steps)
    write_json(run.path / "training_texts.json", prepared.texts.to_dict())
    run.facts |= {"ended": ended, "step": trainer.step_count, "seconds": round(seconds, 3), "posts_seen": posts,
                  "halvings": trainer.halvings, "checkpointing": trainer.checkpointing,
                  "best": {"macro_f1": watch.best, "step": watch.best_step} if watch.best is not None else None,
                  "adapter_from": "best validation macro-F1" if watch.best is not None else "last step"}
    if watch.best is not None:
        run.facts["calibration"] = validated(run, watch).get("calibration")
    run.facts["run_hash"] = sha256_json([run.facts["options"], run.facts["hashes"]])
    run.facts |= {"files": run.file_hashes(), "finished": True}
    write_page(run.path / "report.html", facts=run.facts, steps=steps, title=f"Training run {run.path.name}")
    run.save()
    best = "" if watch.best is None else f", {watch.best:.3f} at step {watch.best_step:,}"
    print(f"trained {counted(trainer.step_count, 'step')} in {human_seconds(seconds)} ({ended}); adapter of the "
          f"{run.facts['adapter_from']}{best}")
    said = [run.facts[key]["sentence"] for key in ("learning", "answers")] + overflowed(steps)
    print("\n".join(f"  {line}" for line in said))
    size = sum(path.stat().st_size for path in (run.path / "adapter").iterdir())
    print(f"run: {run.path} (adapter {human_bytes(size)}); next: {command('eval.py', '--run', run.path)} --data FILE")


if __name__ == "__main__":
    run_program(main)
