"""Write the golden files of the tests: tiny random checkpoints with what transformers computes from them.

    python -m tests.model.make_golden

Each file holds the weights, the input ids and the reference's logits as whole tensors; its header names the versions
and the seed. The tests read them on machines without transformers, and they show when a later one changes its mind.
"""

from dataclasses import dataclass
from pathlib import Path

from common.errors import run_program
from common.files import atomic_write
from common.options import option, parse_options


@dataclass
class GoldenOptions:
    """Options of this program."""

    out: str = option("tests/model/golden", "folder for the golden files", metavar="DIR")
    seed: int = option(1, "seed of the random weights and ids")


def main(argv: list[str]) -> None:
    """Make one file per case of `tests.tiny.GOLDEN_CASES`."""
    options = parse_options(GoldenOptions, argv, program="python -m tests.model.make_golden", description=__doc__)
    import json
    from importlib.metadata import version

    import torch
    from safetensors.torch import save

    from tests.tiny import GOLDEN_CASES, reference_model

    for name, overrides in GOLDEN_CASES.items():
        model = reference_model(options.seed, **overrides)
        ids = torch.randint(0, model.config.vocab_size, (2, 90), generator=torch.Generator().manual_seed(options.seed))
        with torch.no_grad():
            logits = model(ids).logits
        weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
        if model.config.tie_word_embeddings:
            weights.pop("lm_head.weight")
        header = {"config": json.dumps(model.config.to_dict()), "seed": str(options.seed),
                  "versions": ", ".join(f"{package} {version(package)}" for package in ("torch", "transformers"))}
        tensors = {f"weights/{name}": tensor for name, tensor in weights.items()} | {"ids": ids, "logits": logits}
        with atomic_write(Path(options.out) / f"{name}.safetensors", "wb") as handle:
            handle.write(save(tensors, metadata=header))
        print(f"{options.out}/{name}.safetensors  {header['versions']}")


if __name__ == "__main__":
    run_program(main)
