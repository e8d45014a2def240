"""One depth of the comparison: start the sides, check that they agree, then let them take turns."""

from dataclasses import dataclass, field
from pathlib import Path

import torch

from benchmarks.equality import IN_FLOAT32, ROUNDED, check_close, check_training, check_weights
from benchmarks.products import Shape, as_counter, copy_bandwidth, time_shapes
from benchmarks.turns import Job, Measured, Worker
from common.errors import UserError
from common.terminal import human_seconds

PAPER, FIRST = "paper", "instruction-first"
TEMPLATES = (PAPER, FIRST)
USUAL_WAYS = {"train": ("full logits", "answer logits"), "label": ("generate", "full logits", "answer logits")}
QUICK_WAYS = {("train", "full logits"), ("label", "generate"), ("label", "answer logits")}
LLAMA_WAYS = ("prefix kept", "reset")
CHECKED = 4  # posts on which the sides are compared before anything is timed


@dataclass
class Depth:
    """Everything measured at one depth."""

    jobs: dict[str, Measured] = field(default_factory=dict)
    other_way: dict[str, Measured] = field(default_factory=dict)  # training once with checkpointing the other way
    counts: dict[str, list] = field(default_factory=dict)  # ours -> its matrix products, as Recorder counts them
    products: dict[Shape, list[float]] = field(default_factory=dict)  # seconds of one product alone, turn by turn
    bandwidth: list[float] = field(default_factory=list)
    checks: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict:
        """For the JSON file."""
        return {"jobs": {name: measured.to_dict() for name, measured in self.jobs.items()},
                "other_checkpointing": {name: measured.to_dict() for name, measured in self.other_way.items()},
                "counts": self.counts, "copy_bytes_per_second": self.bandwidth, "checks": self.checks,
                "products": [[*shape, seconds] for shape, seconds in self.products.items()]}


def jobs(plan, everything: bool, llama: bool, bf16: bool = False, int8: bool = False) -> list[Job]:
    """The jobs that take turns, ours and another side's alternately.

    `bf16`: labelling in bfloat16 as well; `int8`: with 8-bit products. `everything`: the usual stack in all ways and on
    both templates; else only `QUICK_WAYS` on the paper's.
    """
    training = {"posts": plan.train_posts, "micro_tokens": plan.micro_tokens, "checkpointing": plan.checkpointing}
    labelling = {"posts": plan.label_posts, "micro_tokens": 0}
    found = []
    for task, arguments in (("train", training), ("label", labelling)):
        ours = [Job("ours", task, template, "packed", arguments) for template in TEMPLATES]
        others = [Job("usual", task, template, way, arguments)
                  for template in (TEMPLATES if everything else TEMPLATES[:1]) for way in USUAL_WAYS[task]
                  if everything or (task, way) in QUICK_WAYS]
        if task == "label" and bf16:
            ours += [Job("ours in bf16", task, template, "packed", arguments) for template in TEMPLATES]
        if task == "label" and int8:
            ours += [Job("ours in int8", task, template, "packed", arguments) for template in TEMPLATES]
        if task == "label" and bf16 and everything:
            others += [Job("usual in bf16", task, PAPER, way, arguments) for way in ("generate", "answer logits")]
        if task == "label" and llama:
            others += [Job("llama.cpp", task, template, way, arguments)
                       for template in TEMPLATES for way in LLAMA_WAYS]
        for place in range(max(len(ours), len(others))):
            found += ours[place : place + 1] + others[place : place + 1]
    return found


def check(sides: dict[str, Worker], every: list[Job], work: Path, limit: float) -> dict[str, float]:
    """Compare the usual stack with ours on a few posts: bytes of the weights, one step, probabilities; the differences.

    Raises `UserError` at the first that is too large.
    """
    ours, usual = sides["ours"].ask("describe"), sides["usual"].ask("describe")
    check_weights(ours["weights"], usual["weights"])
    if ours["trainable"] != usual["trainable"]:
        raise UserError(f"trainable numbers: {ours['trainable']} of ours, {usual['trainable']} of the usual stack's")
    found, reference = {}, {}
    for job in sorted(every, key=lambda job: job.side != "ours"):
        if job.side not in ("ours", "usual"):
            continue
        file = str(work / f"{job.side}-step.safetensors") if job.task == "train" else None
        if file and job.side == "ours":
            file = str(work / f"ours-step-{job.template}.safetensors")
        answer = ask(sides, job, posts=min(CHECKED, job.arguments["posts"]), **({"save": file} if file else {}))
        if job.side == "ours":
            reference[job.task, job.template] = answer, file
            continue
        mine, my_file = reference[job.task, job.template]
        if job.task == "train":
            losses = (mine["loss"], answer["loss"])
            for what, value in check_training(job.name, my_file, file, losses, limit).items():
                found[f"{job.name}: {what}"] = value
        else:
            found[job.name] = check_close(job.name, mine["probabilities"], answer["probabilities"], limit)
    return found


def ask(sides: dict[str, Worker], job: Job, **changes) -> dict:
    """Let a job's side do it."""
    return sides[job.side].ask(job.task, template=job.template, way=job.way, **job.arguments | changes)


def choose_attention(usual: Worker, job: Job) -> tuple[str, dict[str, float]]:
    """The faster of transformers' two ways to attend, by the shorter of two labellings with each."""
    seconds = {}
    for kind in ("eager", "sdpa"):
        usual.ask("attention", kind=kind)
        times = [ask({"usual": usual}, job)["seconds"] for _ in range(2)]
        seconds[kind] = min(times)
    best = min(seconds, key=seconds.get)
    usual.ask("attention", kind=best)
    return best, seconds


def measure_depth(plan, depth: int, sides: dict[str, Worker], every: list[Job], work: Path, show) -> Depth:
    """Check; then `plan.turns` turns of all jobs and of the limit; then, unless `plan.quick`, one training each
    with checkpointing the other way, for its memory."""
    limit = IN_FLOAT32 if plan.dtype == "float32" else ROUNDED
    result = Depth(checks=check(sides, every, work, limit))
    show(f"depth {depth}: weights equal to the byte; largest differences: {worst(result.checks)}")
    for job in every:
        if job.side == "ours":
            result.counts[job.name] = ask(sides, job, record=True)["products"]
    for turn in range(plan.turns):
        reference = {}
        took = 0.0
        for job in every:
            answer = ask(sides, job)
            took += answer["seconds"]
            result.jobs.setdefault(job.name, Measured()).add(answer, job.arguments["posts"])
            what = "loss" if job.task == "train" else "probabilities"
            if job.side == "ours":
                reference[job.task, job.template] = answer[what]
            elif job.side == "usual":
                check_close(f"{job.name}, {what}", reference[job.task, job.template], answer[what], limit)
            elif job.side.endswith((" in bf16", " in int8")):  # noted, not judged: it is not the same arithmetic
                result.checks[job.name] = check_close(job.name, reference[job.task, job.template], answer[what], 1.0)
        result.bandwidth.append(copy_bandwidth(plan.device))
        shapes = {shape for lines in result.counts.values() for shape in as_counter(lines)}
        for shape, seconds in time_shapes(sorted(shapes), getattr(torch, plan.dtype), plan.device).items():
            result.products.setdefault(shape, []).append(seconds)
        more = 1 if plan.quick else 2  # the checks, and training the other way
        left = took * (plan.turns - turn - 2 + more + sum((plan.turns + more) * int(deeper) / depth
                                                          for deeper in plan.depths if int(deeper) > depth))
        show(f"depth {depth}: turn {turn + 1} of {plan.turns} took {human_seconds(took)}; at most about "
             f"{human_seconds(left)} to go")
    for job in () if plan.quick else every:
        if job.task == "train":
            answer = ask(sides, job, checkpointing=not plan.checkpointing)
            result.other_way.setdefault(job.name, Measured()).add(answer, job.arguments["posts"])
    return result


def worst(checks: dict[str, float]) -> str:
    """The largest difference of each kind, in words."""
    kinds: dict[str, float] = {}
    for name, value in checks.items():
        kind = name.rpartition(": ")[2] if ": " in name else "probability"
        kinds[kind] = max(value, kinds.get(kind, 0.0))
    return ", ".join(f"{kind} {value:.1e}" for kind, value in kinds.items())
