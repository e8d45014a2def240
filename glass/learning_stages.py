"""A step of learning in stages: the loss, each module's gradients, clipping, AdamW's moments, what came of it.

    loss = -log p(label)                       d loss / d logits = p - [label]
    dB = s dy^T (x A^T)                        dA = s (dy B)^T x              of y = W x + s B A x, dy = d loss / d y
    g = c dA,  c = min(1, clip / (|all| + 1e-6))
    m = b1 m + (1 - b1) g                      v = b2 v + (1 - b2) g^2        AdamW (Loshchilov and Hutter 2019,
    w = w - rate (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps) - rate decay w      arXiv 1711.05101), t = 1, 2, ...

Stages have the names `learning.K.loss`, `.gradient.MODULE`, `.clipping`, `.update.MODULE`, `.changes` and `.after`,
K the number of a step that this session never gives twice.
"""

import torch

from finetune.loop import Trainer, batch_loss, label_loss, learning_rate
from glass.source import code
from glass.stages import Stage, Step
from lora.inject import adapters
from lora.layer import LoRALinear
from model.llama import LlamaForCausalLM

TORCH_EPSILON = 1e-6  # in torch.nn.utils.clip_grad_norm_
PARTS = {"A": "lora_A", "B": "lora_B"}


def stages_of(name: str, number: int, text: str, row, label: int, seen, line: dict, before: dict, trainer: Trainer,
              after: torch.Tensor) -> tuple[Stage, ...]:
    """The stages of the step `name`, the `number`-th one from the run's own weights.

    seen: `learning.Watched`; line: what `Trainer.step` gave; before: the trainer's state in front of the step; after:
    the label logits (1, C) behind it.
    """
    made = _Made(name, number, len(row.ids), seen, line, before, trainer)
    modules = list(adapters(trainer.model))
    return (made.loss(text, row, label), *map(made.gradient, modules), made.clipping(modules),
            *map(made.update, modules), made.changes(modules), made.after(label, after))


class _Made:
    def __init__(self, name, number, length, seen, line, before, trainer):
        self.name, self.number, self.length = name, number, length
        self.seen, self.line, self.trainer = seen, line, trainer
        self.recipe, self.layers = trainer.recipe, adapters(trainer.model)
        self.order = list(trainer.named)
        self.weights, self.moments = before["parameters"], before["optimizer"]["state"]

    def stage(self, name, title, formula, tensors, code, *steps, **facts) -> Stage:
        tensors = {key: tensor.detach().cpu().clone() for key, tensor in tensors.items()}
        return Stage(f"{self.name}.{name}", title, formula, tensors, code, steps, facts)

    def loss(self, text: str, row, label: int) -> Stage:
        out, logits = f"{self.name}.loss", self.seen.logits
        tensors = {"ids": torch.tensor(row.ids), "label": torch.tensor(label), "logits": logits,
                   "probabilities": logits.softmax(-1), "loss": self.line["loss"], "slopes": self.seen.logit_slopes}
        return self.stage(
            "loss", "Loss", "loss = -log p(label);  slopes = d loss / d logits = p - [label]", tensors,
            (code(label_loss, "F.cross_entropy"), code(batch_loss, "answers =", "losses = label_loss")),
            Step("learned", f"{out}.logits", (f"{out}.ids",), {"step": self.name, "when": "before"}),
            Step("softmax", f"{out}.probabilities", (f"{out}.logits",)),
            Step("loss", f"{out}.loss", (f"{out}.logits", f"{out}.label")),
            Step("loss_slopes", f"{out}.slopes", (f"{out}.probabilities", f"{out}.label")),
            number=self.number, text=text)

    def gradient(self, module: str) -> Stage:
        out = f"{self.name}.gradient.{module}"
        update, layer = f"{self.name}.update.{module}", self.layers[module]
        a, b = (self.seen.gradients[f"{module}.{part}"] for part in PARTS.values())
        inputs, slopes = (self.rows(module, x) for x in (self.seen.inputs[module], self.seen.slopes[module]))
        tensors = {"inputs": inputs, "slopes": slopes, "A_gradient": a, "B_gradient": b, "A_place": place_of(a),
                   "B_place": place_of(b)}
        scaling, loss = {"scaling": layer.scaling}, f"{self.name}.loss"
        return self.stage(
            f"gradient.{module}", f"Gradients of {short(module)}",
            "dA = s (slopes B)^T inputs;  dB = s slopes^T (inputs A^T);  slopes = d loss / d y", tensors,
            (code(LoRALinear.forward, "thin = ", "return linear(thin"), code(Trainer._accumulate, "(part).backward()"),
             code(place_of, "argmax")),
            *(Step("passed", f"{out}.{what}", (f"{loss}.ids", f"{loss}.slopes"),
                   {"step": self.name, "linear": module, "what": what}) for what in ("inputs", "slopes")),
            Step("gradient_a", f"{out}.A_gradient", (f"{out}.inputs", f"{out}.slopes", f"{update}.B_before"), scaling),
            Step("gradient_b", f"{out}.B_gradient", (f"{out}.inputs", f"{out}.slopes", f"{update}.A_before"), scaling),
            Step("place", f"{out}.A_place", (f"{out}.A_gradient",)),
            Step("place", f"{out}.B_place", (f"{out}.B_gradient",)), **self.places(module))

    def rows(self, module: str, x: torch.Tensor) -> torch.Tensor:
        """Without what filled up the batch: the T rows, or, where the last layer needs no other, the answer's one."""
        last = f"layers.{self.trainer.model.config.num_hidden_layers - 1}."
        answer_only = last in module and not module.endswith(("k_proj", "v_proj"))
        return x[: 1 if answer_only else self.length]

    def places(self, module: str) -> dict[str, list[int]]:
        """The entry of A, and that of B, with the largest gradient: what the page shows of a matrix goes through it."""
        return {part: place_of(self.seen.gradients[f"{module}.{leaf}"]).tolist() for part, leaf in PARTS.items()}

    def clipping(self, modules: list[str]) -> Stage:
        out, clip = f"{self.name}.clipping", self.recipe.clip
        gradients = {part: [self.seen.gradients[f"{module}.{name}"] for module in modules]
                     for part, name in PARTS.items()}
        norm = self.line["grad_norm"]
        tensors = {f"{part}_sizes": sizes(found) for part, found in gradients.items()}
        tensors |= {"norm": norm, "factor": clip_factor(norm, clip)}
        return self.stage(
            "clipping", "Clipping", f"factor = min(1, clip / (norm + {TORCH_EPSILON:g})),  clip = {clip:g};  norm of "
            "all gradients" if clip else "norm of all gradients; this recipe does not clip, so factor = 1", tensors,
            (code(sizes, "vector_norm"), code(Trainer._gradients, "clip_grad_norm_"), code(clip_factor, "return")),
            *(Step("sizes", f"{out}.{part}_sizes", tuple(f"{self.name}.gradient.{module}.{part}_gradient"
                                                         for module in modules)) for part in PARTS),
            Step("joint", f"{out}.norm", (f"{out}.A_sizes", f"{out}.B_sizes")),
            Step("clip_factor", f"{out}.factor", (f"{out}.norm",), {"clip": clip, "epsilon": TORCH_EPSILON}), clip=clip)

    def update(self, module: str) -> Stage:
        out, recipe, number = f"{self.name}.update.{module}", self.recipe, self.number
        (beta1, beta2), factor = recipe.betas, f"{self.name}.clipping.factor"
        corrections = torch.tensor([1 - beta1**number, 1 - beta2**number], dtype=torch.float64)
        tensors, steps = {"corrections": corrections}, [
            Step("corrections", f"{out}.corrections", (), {"betas": recipe.betas, "number": number})]
        adam = {"rate": self.line["lr"], "decay": recipe.weight_decay, "epsilon": recipe.epsilon}
        for part, leaf in PARTS.items():
            parameter, found = f"{module}.{leaf}", f"{out}.{part}"
            before, after = self.weights[parameter], self.trainer.named[parameter].detach().cpu()
            state = self.trainer.optimizer.state[self.trainer.named[parameter]]
            earlier = self.moments.get(self.order.index(parameter), {})
            tensors |= {f"{part}_before": before, f"{part}_m": state["exp_avg"], f"{part}_v": state["exp_avg_sq"],
                        f"{part}_update": after.double() - before.double(), f"{part}_after": after}
            gradient, args = f"{self.name}.gradient.{module}.{part}_gradient", {}
            for moment, key in (("m", "exp_avg"), ("v", "exp_avg_sq")):
                if earlier:
                    tensors[f"{part}_{moment}_before"] = earlier[key]
                args[moment] = (factor, gradient, *([f"{found}_{moment}_before"] if earlier else []))
            steps += [Step("first_moment", f"{found}_m", args["m"], {"beta": beta1}),
                      Step("second_moment", f"{found}_v", args["v"], {"beta": beta2}),
                      Step("adamw", f"{found}_after", (f"{found}_before", f"{found}_m", f"{found}_v",
                                                       f"{out}.corrections"), adam),
                      Step("subtract", f"{found}_update", (f"{found}_after", f"{found}_before"))]
        return self.stage(
            f"update.{module}", f"AdamW on {short(module)}",
            f"g = factor gradient;  m = {beta1:g} m + {1 - beta1:.3g} g;  v = {beta2:g} v + {1 - beta2:.3g} g^2;  "
            f"after = before - {self.line['lr']:g} (m / {corrections[0]:.4g}) / "
            f"(sqrt(v / {corrections[1]:.4g}) + {recipe.epsilon:g})"
            + (f" - {self.line['lr']:g} {recipe.weight_decay:g} before" if recipe.weight_decay else ""), tensors,
            (code(Trainer.step, 'group["lr"] = rate', "step(self.optimizer)"),
             code(Trainer.__init__, "torch.optim.AdamW", "list(self.named.values()), lr", "weight_decay="),
             code(learning_rate, "falling =", "return recipe.learning_rate * falling")), *steps, **self.places(module))

    def changes(self, modules: list[str]) -> Stage:
        out, kinds = f"{self.name}.changes", {}
        for part, leaf in PARTS.items():
            before = [self.weights[f"{module}.{leaf}"] for module in modules]
            after = [self.trainer.named[f"{module}.{leaf}"].detach().cpu() for module in modules]
            kinds[f"{part}_sizes"] = sizes(before)
            kinds[f"{part}_changes"] = sizes([b.double() - a.double() for a, b in zip(before, after, strict=True)])
        kinds["rate"] = torch.tensor(self.line["lr"], dtype=torch.float64)
        kept = {"sizes": "before", "changes": "update"}
        return self.stage(
            "changes", "What changed", "sizes = |before|;  changes = |after - before|, of each module's A and B", kinds,
            (code(sizes, "vector_norm"), code(Trainer.step, "rate = learning_rate")),
            Step("given", f"{out}.rate", (), {"value": self.line["lr"]}),
            *(Step("sizes", f"{out}.{part}_{what}", tuple(f"{self.name}.update.{module}.{part}_{tensor}"
                                                          for module in modules))
              for part in PARTS for what, tensor in kept.items()))

    def after(self, label: int, logits: torch.Tensor) -> Stage:
        out = f"{self.name}.after"
        losses = label_loss(logits, torch.tensor([label], device=logits.device))
        return self.stage(
            "after", "The same post after the step", "probabilities = softmax(logits);  loss = -log p(label)",
            {"logits": logits, "probabilities": logits.softmax(-1), "loss": losses[0]},
            (code(LlamaForCausalLM.label_logits, "return"), code(label_loss, "F.cross_entropy")),
            Step("learned", f"{out}.logits", (f"{self.name}.loss.ids",), {"step": self.name, "when": "after"}),
            Step("softmax", f"{out}.probabilities", (f"{out}.logits",)),
            Step("loss", f"{out}.loss", (f"{out}.logits", f"{self.name}.loss.label")))


def short(module: str) -> str:
    """`model.layers.0.mlp.up_proj -> layers.0.mlp.up_proj`."""
    return module.removeprefix("model.")


def place_of(gradient: torch.Tensor) -> torch.Tensor:
    """Row and column of the entry that is farthest from zero: (2,) int64."""
    return torch.stack(torch.unravel_index(gradient.abs().argmax(), gradient.shape)).cpu()


def sizes(tensors: list[torch.Tensor]) -> torch.Tensor:
    """The Euclidean length of each of M tensors: (M,)."""
    return torch.stack([torch.linalg.vector_norm(tensor) for tensor in tensors])


def clip_factor(norm: torch.Tensor, clip: float) -> torch.Tensor:
    """What `torch.nn.utils.clip_grad_norm_` multiplies every gradient by: one number."""
    return (clip / (norm + TORCH_EPSILON)).clamp(max=1.0) if clip else torch.ones_like(norm)
