"""One fine-tune's peak of anonymous memory, measured in a process of its own, beside what `plan_memory` expected.

    python -m tests.finetune.measured '{"config": {...}, "dtype": "bfloat16", "quantize": "none", "posts": 16, ...}'

Random weights of a layout go straight into their places, as `load_model` puts them there; then come adapters on all
linears and three steps of training. A thread reads RssAnon a thousand times a second. Prints one JSON object, bytes.
"""

import json
import random
import subprocess
import sys
import threading
from dataclasses import asdict

import torch

from common.files import ROOT
from data.prompt import EncodedPost
from finetune.loop import Recipe, Trainer
from finetune.memory import expected_plan, fullest, plan_memory
from lora.inject import inject, trainable_parameters
from model.config import LlamaConfig
from model.llama import LlamaForCausalLM
from quant.convert import replace_linears

PREFIX, STEPS = 90, 3


def measure(**setting) -> dict:
    """`main` in a process of its own."""
    child = subprocess.run([sys.executable, "-m", "tests.finetune.measured", json.dumps(setting)], cwd=ROOT,
                           capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
    return json.loads(child.stdout)


def anonymous() -> int:
    """Bytes of this process's memory that no file stands behind."""
    with open("/proc/self/status", encoding="ascii") as handle:
        return next(int(line.split()[1]) * 1024 for line in handle if line.startswith("RssAnon"))


def random_base(config: LlamaConfig, dtype: torch.dtype, quantize: str) -> LlamaForCausalLM:
    """A model as `load_model` leaves it: tables in bfloat16, linears dense in `dtype` or in NF4."""
    model = LlamaForCausalLM.empty(config)
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    if quantize != "none":
        replace_linears(model)
    draw = torch.Generator().manual_seed(0)
    for name, shape in shapes.items():
        owner, leaf = name.rsplit(".", 1)
        module = model.get_submodule(owner)
        stored = hasattr(module, "load_packed") or "embed_tokens" in name or "lm_head" in name
        weight = torch.ones(shape) if "norm" in name else 0.02 * torch.randn(shape, generator=draw)
        module.load_dense(leaf, weight.to(torch.bfloat16 if stored else dtype))
    return model.requires_grad_(False)


def main(setting: dict) -> None:
    """Train a little, and print what it took."""
    config, dtype = LlamaConfig.from_dict(setting["config"]), getattr(torch, setting["dtype"])
    draw, prefix = random.Random(0), list(range(PREFIX))
    rows = [EncodedPost([*prefix, *(draw.randrange(config.vocab_size) for _ in range(own))], PREFIX + own - 1, False)
            for own in (draw.randint(20, 90) for _ in range(setting["posts"]))]
    every, micro, way = list(range(len(rows))), setting["micro_tokens"], setting["checkpointing"]
    piece = fullest(rows, every, len(rows), prefix)
    before = expected_plan(config, dtype, setting["quantize"], "all-linear", 16, 2**40, micro_tokens=micro,
                           checkpointing=way, piece=piece)
    if setting.get("only_expect"):
        print(json.dumps({"expected": before.total, "tokens": before.tokens}))
        return
    peak, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.001):
            peak[0] = max(peak[0], anonymous())

    thread = threading.Thread(target=watch, daemon=True)
    model = random_base(config, dtype, setting["quantize"])
    thread.start()
    inject(model, "all-linear", 16, 32, generator=torch.Generator().manual_seed(0))
    trainable = sum(parameter.numel() for parameter in trainable_parameters(model).values())
    plan = plan_memory(model, trainable, micro_tokens=micro, checkpointing=way, available=2**40, piece=piece)
    trainer = Trainer(model, rows, [index % 4 for index in every], [1.0] * len(rows), [5, 6, 7, 8], lambda epoch: every,
                      prefix, Recipe(1e-4, "constant", 0.0, 0.0, 1.0, len(rows), "label"), STEPS, plan.micro_tokens,
                      plan.checkpointing)
    for _ in range(STEPS):
        trainer.step()
    done.set()
    thread.join()
    print(json.dumps({"peak": peak[0], "expected": plan.total, "before": before.total, "plan": asdict(plan)}))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
