"""Launches by part of the model, forward and backward: where a step's kernels come from.

    python -m tests.cuda.parts [paper | instruction-first]

A part is a module, or one of the functions in `FUNCTIONS`. Nodes of the graph that a part made carry its name, so that
backward's kernels are counted with it.
"""

import contextlib
import sys
from collections import Counter
from collections.abc import Iterator
from importlib import import_module
from unittest import mock

import torch
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from tests.cuda.fake import Card, Seen, card

NAMES = {"q_proj": "q, k, v", "k_proj": "q, k, v", "v_proj": "q, k, v", "o_proj": "o", "gate_proj": "gate, up",
         "up_proj": "gate, up", "down_proj": "down", "input_layernorm": "norms", "post_attention_layernorm": "norms",
         "norm": "norms", "self_attn": "attention", "mlp": "MLP", "embed_tokens": "embedding"}
FUNCTIONS = {"model.attention.rotate": "RoPE", "model.attention.rotate_both": "RoPE", "model.layers.swiglu": "SwiGLU",
             "model.llama.rotation": "angles", "model.attention.several": "q, k, v: adapter",
             "model.layers.several": "gate, up: adapter"}


@contextlib.contextmanager
def named(one: Card, model: torch.nn.Module) -> Iterator[None]:
    """Inside, `Seen.parts` has names."""
    parts, names = one.watch.parts, {}
    for path, module in model.named_modules():
        leaf = path.removesuffix(".base").rpartition(".")[2]
        kind = ": weight" if path.endswith(".base") else ": adapter" if hasattr(module, "lora_A") else ""
        names[module] = NAMES.get(leaf, "block" if leaf.isdigit() else "model") + kind

    def begin(module, args):
        parts.append(names.get(module, parts[-1] if parts else ""))

    def end(module, args, out):
        mark(out, parts.pop())

    with contextlib.ExitStack() as stack:
        stack.callback(register_module_forward_pre_hook(begin).remove)
        stack.callback(register_module_forward_hook(end).remove)
        for path, name in FUNCTIONS.items():
            place, _, function = path.rpartition(".")
            stack.enter_context(mock.patch(path, _within(parts, getattr(import_module(place), function), name)))
        stack.enter_context(mock.patch.object(model, "attend", _within(parts, model.attend, "attend")))
        yield


def _within(parts: list[str], function, name: str):
    def run(*args, **kwargs):
        parts.append(name)
        out = function(*args, **kwargs)
        mark(out, parts.pop())
        return out

    return run


def mark(out, name: str) -> None:
    """Name every node of the graph behind `out` that has no name yet: inner parts have named theirs."""
    waiting = [tensor.grad_fn for tensor in (out if isinstance(out, tuple) else [out])
               if isinstance(tensor, torch.Tensor) and tensor.grad_fn is not None]
    while waiting:
        node = waiting.pop()
        if "part" not in node.metadata:
            node.metadata["part"] = name
            waiting += [before for before, _ in node.next_functions if before is not None]


def table(seen: Seen) -> str:
    """Kernels by part, forward and backward, the most first, with the operations that they are."""
    rows, total = {}, Counter()
    for (part, way, name), count in seen.parts.items():
        rows.setdefault(part or "step", {}).setdefault(way, Counter())[name] += count
        total[part or "step"] += count
    lines = [f"{seen.total:,} launches"]
    for part, count in total.most_common():
        lines.append(f"{part:20}{count:6,}")
        for way, names in sorted(rows[part].items(), reverse=True):
            listed = ", ".join(f"{name} {n}" for name, n in names.most_common())
            lines.append(f"    {way:10}{names.total():6,}   {listed}")
    return "\n".join(lines)


def main() -> None:
    """Print the table of a training step and of a batch to label."""
    from inference.labeller import MICRO_TOKENS, Labeller
    from tests.cuda.models import batch_rows, load, posts, recipe_trainer, some_prompt

    template = sys.argv[1] if len(sys.argv) > 1 else "paper"
    with card() as one:
        prompt = some_prompt(template)
        model = load(one, layers=4, quantize="nf4", adapter=True)
        trainer = recipe_trainer(model, prompt, posts(16))
        trainer.step()
        with named(one, model), one.inside(strict=False) as seen:
            trainer.step()
        print(f"training step of 16 posts, 4 layers, {template}: {table(seen)}\n")
        labeller = Labeller(model, prompt, MICRO_TOKENS)
        with named(one, model), one.inside(strict=False) as seen:
            labeller.give(batch_rows(prompt, MICRO_TOKENS))
        print(f"batch of {labeller.micro_tokens} tokens to label, 4 layers, {template}: {table(seen)}")


if __name__ == "__main__":
    main()
