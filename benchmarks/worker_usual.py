"""The usual stack's side of the comparison: transformers + peft + bitsandbytes, batches padded as their users do.

Started by benchmarks/turns.py. Ways to train: the loss on the label tokens at the answer, from the logits of every
position ("full logits", what a model's forward gives unless told otherwise) or of the last position alone ("answer
logits", rows padded on the left). Ways to label: the same two, and generation of a few tokens by `generate`.

Left out in the peer's favour: the KV cache when nothing is generated, a Trainer's bookkeeping, data loading. On a CPU
with bf16 instructions bitsandbytes repacks its weights in eval mode and computes in bf16, whatever dtype it was asked
for; that is faster but not the same arithmetic. So its linears are told that the CPU has no such instructions, unless
the settings ask for those kernels, whose figures are shown separately. Were they used all the same, the probabilities
would be too far from ours, and the comparison would end.
"""

import json
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from bitsandbytes.nn import Linear4bit
from peft import PeftModel
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, GenerationConfig

from benchmarks.equality import digest
from benchmarks.worker import device_peak, padded, serve, timed
from common.files import read_json


class Usual:
    """The quantised model with the same adapter, and the rows of token ids."""

    def __init__(self, settings: dict):
        self.settings, self.device = settings, settings["device"]
        torch.set_num_threads(settings["threads"])
        dtype = getattr(torch, settings["dtype"])
        config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype,
                                    bnb_4bit_use_double_quant=False)
        base = AutoModelForCausalLM.from_pretrained(settings["checkpoint"], quantization_config=config, dtype=dtype,
                                                    device_map=self.device, attn_implementation="sdpa")
        self.model = PeftModel.from_pretrained(base, settings["adapter"], is_trainable=True)
        self.base = base
        self.parameters = {plain_name(name): p for name, p in self.model.named_parameters() if p.requires_grad}
        self.start = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}
        self.encoded = read_json(settings["encoded"])  # template -> rows, answers, labels, label_ids
        for module in self.linears().values():
            module.support_avx512bf16_for_cpu &= self.settings["bf16_kernels"]

    def linears(self) -> dict[str, Linear4bit]:
        named = self.base.named_modules()
        return {name.removesuffix(".base_layer"): module for name, module in named if isinstance(module, Linear4bit)}

    def describe(self) -> dict:
        """Hashes of the packed weights and their scales by the linear's name."""
        hashes = {name: digest(module.weight.data, module.weight.quant_state.absmax)
                  for name, module in self.linears().items()}
        return {"weights": hashes, "trainable": sum(p.numel() for p in self.parameters.values())}

    def attention(self, kind: str) -> dict:
        """Compute attention by "eager" (explicit softmax) or "sdpa" from now on."""
        self.base.set_attn_implementation(kind)
        return {}

    def train(self, template: str, posts: int, way: str, checkpointing: bool, save: str | None = None, **_) -> dict:
        """`posts` posts in steps of the batch size; with `save` the last step's gradients and adapter are kept."""
        self.reset()
        self.model.train()
        if checkpointing:
            self.base.gradient_checkpointing_enable({"use_reentrant": False})
        optimiser = torch.optim.AdamW(list(self.parameters.values()), lr=2e-4, weight_decay=0.0, fused=True)
        size = min(self.settings["batch_size"], posts)

        def step(start: int) -> torch.Tensor:
            optimiser.zero_grad(set_to_none=True)
            logits = self.label_logits(template, start, start + size, way)
            labels = torch.tensor(self.encoded[template]["labels"][start : start + size], device=self.device)
            loss = F.cross_entropy(logits.float(), labels)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(list(self.parameters.values()), 1.0)
            optimiser.step()
            return loss.detach()

        starts = range(0, posts // size * size, size)
        seconds, losses = timed(lambda: [step(start) for start in starts], self.device)
        if checkpointing:
            self.base.gradient_checkpointing_disable()
        if save:
            tensors = {f"gradient {name}": p.grad for name, p in self.parameters.items()}
            tensors |= {f"adapter {name}": p.detach() for name, p in self.parameters.items()}
            save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, save)
        self.reset()
        return {"seconds": seconds, "loss": losses[0].item(), **device_peak(self.device)}

    def label(self, template: str, posts: int, way: str, **_) -> dict:
        """Probabilities of the labels for `posts` posts, in batches of the batch size in the given order."""
        self.reset()
        self.model.eval()
        size = self.settings["batch_size"]
        read = self.first_logits if way == "generate" else lambda *part: self.label_logits(*part, way)

        def everything():
            with torch.inference_mode():
                parts = [read(template, start, min(start + size, posts)) for start in range(0, posts, size)]
                return torch.cat(parts).float().softmax(-1).tolist()

        seconds, found = timed(everything, self.device)
        return {"seconds": seconds, "probabilities": found, **device_peak(self.device)}

    def label_logits(self, template: str, start: int, stop: int, way: str) -> torch.Tensor:
        """Logits of the label tokens at the answer, (B, C), by a forward of one padded batch."""
        known = self.encoded[template]
        rows, answers = known["rows"][start:stop], known["answers"][start:stop]
        label_ids = torch.tensor(known["label_ids"], device=self.device)
        if way == "answer logits":
            batch = padded(rows, "left", self.device)
            logits = self.model(**batch, use_cache=False, logits_to_keep=1).logits[:, -1]  # (B, V)
        else:
            batch = padded(rows, "right", self.device)
            del batch["position_ids"]  # on the right they are counted from 0 anyway
            logits = self.model(**batch, use_cache=False).logits  # (B, T, V)
            logits = logits[torch.arange(len(rows), device=self.device), torch.tensor(answers, device=self.device)]
        return logits[:, label_ids]

    def first_logits(self, template: str, start: int, stop: int) -> torch.Tensor:
        """Logits of the label tokens for the first of the generated tokens, (B, C)."""
        known, count = self.encoded[template], self.settings["new_tokens"]
        batch = padded(known["rows"][start:stop], "left", self.device)
        del batch["position_ids"]  # generate makes them from the mask
        config = GenerationConfig(max_new_tokens=count, do_sample=False, pad_token_id=0, eos_token_id=None,
                                  output_logits=True, return_dict_in_generate=True)
        found = self.model.generate(**batch, generation_config=config)
        if len(found.logits) != count:
            raise RuntimeError(f"generate made {len(found.logits)} tokens, not {count}")
        return found.logits[0][:, torch.tensor(known["label_ids"], device=self.device)]

    def reset(self) -> None:
        """The adapter's starting values, and no gradients."""
        for name, parameter in self.parameters.items():
            parameter.data.copy_(self.start[name])
            parameter.grad = None


def plain_name(name: str) -> str:
    """`base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight` as our parameter is called."""
    return name.removeprefix("base_model.model.").replace(".default.weight", "")


if __name__ == "__main__":
    usual = Usual(json.loads(Path(sys.argv[1]).read_text()))
    serve({"describe": usual.describe, "attention": usual.attention, "train": usual.train, "label": usual.label})
