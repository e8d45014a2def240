"""Glass Llama's side of the comparison: `Trainer` and `label_probabilities`, called as the programs call them.

Started by benchmarks/turns.py. Every task begins from the same adapter and a fresh optimiser, so that each turn does
the same work; only the steps, or the labels, are inside the clock.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from benchmarks.equality import digest
from benchmarks.products import Recorder
from benchmarks.worker import device_peak, serve, timed
from common.allocator import keep_memory
from common.files import read_json
from data.codebook import load_codebook
from data.prompt import Prompt
from finetune.loop import Recipe, Trainer
from inference.labeller import label_probabilities
from loading import load_model
from lora.adapter import save_adapter
from lora.inject import inject, trainable_parameters
from model.tokenizer import load_tokenizer
from quant.convert import inside_layers
from quant.int8 import make_int8


class Ours:
    """The model with its adapter, the prompts of both templates and the chosen posts."""

    def __init__(self, settings: dict):
        self.settings, self.device = settings, settings["device"]
        torch.set_num_threads(settings["threads"])
        if settings.get("keep_memory"):  # as the programs that label do
            keep_memory()
        dtype = getattr(torch, settings["dtype"])
        self.model = load_model(settings["checkpoint"], device=self.device, dtype=dtype, quantize=settings["quantize"])
        self.parameters = self.adapter() if settings["targets"] else {}
        if settings.get("int8"):
            make_int8(self.model)
        self.start = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}
        posts = read_json(settings["posts"])
        book, tokenizer = load_codebook(), load_tokenizer(settings["checkpoint"])
        self.labels = [book.index(post["label"]) for post in posts]
        self.prompts = {name: Prompt(book, tokenizer, template=name) for name in settings["templates"]}
        self.rows = {name: [prompt.encode(post["text"]) for post in posts] for name, prompt in self.prompts.items()}

    def adapter(self) -> dict[str, torch.nn.Parameter]:
        """Wrap the model and save the adapter's start for the usual stack; returns its parameters by name."""
        generator, targets = torch.Generator().manual_seed(0), self.settings["targets"]
        inject(self.model, targets[0] if len(targets) == 1 else targets, self.settings["rank"], self.settings["alpha"],
               generator=generator)
        parameters = trainable_parameters(self.model)
        for name, parameter in parameters.items():
            if name.endswith("lora_B"):  # at zero it would leave A without a gradient, and the comparison half blind
                parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.02)
        save_adapter(self.model, self.settings["adapter"], self.settings["checkpoint"])
        return parameters

    def describe(self) -> dict:
        """Hashes of the packed weights and their scales by the linear's name."""
        hashes = {name.removesuffix(".base"): digest(module.packed, module.absmax)
                  for name, module in self.model.named_modules() if inside_layers(name) and hasattr(module, "packed")}
        return {"weights": hashes, "trainable": sum(p.numel() for p in self.parameters.values())}

    def train(self, template: str, posts: int, micro_tokens: int, checkpointing: bool, save: str | None = None,
              record: bool = False, **_) -> dict:
        """`posts` posts in steps of the batch size; with `save` the last step's gradients and adapter are kept."""
        for name, parameter in self.parameters.items():
            parameter.data.copy_(self.start[name])
            parameter.grad = None
        size = min(self.settings["batch_size"], posts)
        steps = posts // size
        recipe = Recipe(2e-4, "constant", 0.0, 0.0, 1.0, size, "label")
        prompt = self.prompts[template]
        trainer = Trainer(self.model, self.rows[template][:posts], self.labels[:posts], [1.0] * posts, prompt.label_ids,
                          lambda epoch: list(range(posts)), prompt.prefix_ids, recipe, steps, micro_tokens,
                          checkpointing)
        with Recorder(record) as recorder:
            seconds, losses = timed(lambda: [trainer.step()["loss"] for _ in range(steps)], self.device)
        if save:
            tensors = {f"gradient {name}": p.grad for name, p in self.parameters.items()}
            tensors |= {f"adapter {name}": p.detach() for name, p in self.parameters.items()}
            save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, save)
        for parameter in self.parameters.values():
            parameter.grad = None
        return {"seconds": seconds, "loss": losses[0].item(), "products": recorder.counts(), **device_peak(self.device)}

    def label(self, template: str, posts: int, micro_tokens: int = 0, record: bool = False, **_) -> dict:
        """Probabilities of the labels for `posts` posts."""
        rows, prompt = self.rows[template][:posts], self.prompts[template]
        for name, parameter in self.parameters.items():
            parameter.data.copy_(self.start[name])
        with Recorder(record) as recorder:
            seconds, found = timed(
                lambda: label_probabilities(self.model, prompt, rows, micro_tokens=micro_tokens), self.device)
        return {"seconds": seconds, "probabilities": found.tolist(), "products": recorder.counts(),
                **device_peak(self.device)}


if __name__ == "__main__":
    ours = Ours(json.loads(Path(sys.argv[1]).read_text()))
    serve({"describe": ours.describe, "train": ours.train, "label": ours.label})
