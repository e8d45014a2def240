"""The model that labels, set up by the program's options, here or in a worker; and the arithmetic it computes in."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

import torch

from common.device import MachineOptions
from finetune.run_folder import RunFolder
from inference.options import LabelOptions
from inference.run import open_model


@dataclass
class OpenOptions(LabelOptions, MachineOptions):
    """The options that `ready` reads; a program's own have them all."""

    model: str | None = None


def ready(run: RunFolder, options: OpenOptions, texts: Iterable[str]):
    """The run's model, set up by the options, and its prompt: (model, prompt); `texts` begins what will be labelled."""
    device, dtype, reason = options.set_up()
    print(f"  {dtype}, since {reason}")
    options.check_quicker(device, dtype)
    model, prompt = open_model(run, model=options.model, device=device, dtype=dtype, cache=options.cache,
                               machine=options)
    options.make_ready(model)
    options.make_quicker(model, prompt, texts, options.micro_tokens)
    return model, prompt


def arithmetic(model, options: OpenOptions) -> dict:
    """What decides the last bits: dtype, 8-bit products, a merged adapter, the device's kind, its threads, the library.
    """
    is_cpu = model.device.type == "cpu"
    device = torch.backends.cpu.get_cpu_capability() if is_cpu else torch.cuda.get_device_name(model.device)
    return {"dtype": str(model.dtype), **options.decides(),
            "--exact": options.exact or is_cpu, "device": device,
            "--threads": torch.get_num_threads() if is_cpu else 0, "torch": torch.__version__}


def portable(options) -> dict:
    """The part of a program's options that `OpenOptions` has, as plain values for another process.

    Paths are made absolute: a worker has another working folder.
    """
    values = {field.name: getattr(options, field.name) for field in fields(OpenOptions)}
    for name in ("model", "cache"):
        if values[name] is not None and Path(values[name]).exists():
            values[name] = str(Path(values[name]).resolve())
    return values


