"""Every export at the size of a real model: how long it takes, how much memory, and whether the files hold the run.

    python -m benchmarks.exports --source FOLDER --tokenizer FILE [--layers N] [--json FILE]

Random bfloat16 weights are made in the public layout of FOLDER's `config.json` and index (without an index: one file),
and a run is trained on them for one step. Its adapter's B is then filled with random numbers, so that merging moves
weights by far more than rounding does. For each format `python -m tools.export` runs in a process of its own
(benchmarks.real_size says what is counted as memory); what it wrote is read back and compared:

    peft              beside the base in NF4   label logits, with the run's own: bit for bit
    merged float32    the whole model          label logits, with the run's own
    merged            in the base's 16 bits    label logits, with those of the run merged and rounded in memory
    bnb-4bit          in 4 bits again          label logits, with those of the run merged, rounded and quantised here
    gguf-...          tensor by tensor         with the run's: F16 rounded, Q8_0 and Q4_0 within half a step

With --usual, transformers, peft and bitsandbytes read the first four as well and must agree up to rounding.
"""

import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from benchmarks.real_size import make_checkpoint, measure
from benchmarks.startup import shorten
from common.errors import UserError, run_program
from common.files import ROOT, check_file, read_json, write_json
from common.options import option, parse_options
from common.terminal import human_bytes, human_seconds, table
from data.readers import iter_posts
from finetune.run_folder import RunFolder
from inference.merged import merge
from inference.run import open_model
from loading import load_model
from loading.weights import INDEX, SINGLE, expected_shapes
from lora.adapter import TENSORS
from model.config import LlamaConfig
from model.llama import LlamaForCausalLM
from quant.convert import replace_linears

JOBS = {job: [] for job in ("peft", "merged float32", "merged", "bnb-4bit", "gguf-f16", "gguf-q8_0", "gguf-q4_0")}
JOBS["merged float32"] = ["--dtype", "float32"]
ABOVE = 2_000_000_000  # bytes that an export may take beyond the model's own size
LOGITS = 1e-5  # float32 sums of a few thousand terms in another order


@dataclass
class ExportsOptions:
    """Options of this program."""

    source: str | None = option(None, "folder with config.json and, if there is one, the index", metavar="DIR")
    tokenizer: str | None = option(None, "the tokenizer.model that belongs to it", metavar="FILE")
    layers: int = option(0, "layers of the model that is made; 0 for all of them", minimum=0)
    formats: list[str] = option(tuple(JOBS), "which exports", metavar="FORMAT")
    usual: bool = option(False, "also read them with transformers, peft and bitsandbytes")
    work: str = option("runs/exports", "folder for everything; removed afterwards", metavar="DIR")
    json: str | None = option(None, "file for all figures", metavar="FILE")


def public_layout(source: Path, layers: int, out: Path) -> Path:
    """config.json and index of the model to make; where `source` has no index, all tensors are in one file."""
    out.mkdir(parents=True)
    config = read_json(source / "config.json")
    write_json(out / "config.json", config)
    names = expected_shapes(LlamaForCausalLM.empty(LlamaConfig.from_file(out / "config.json")))
    whole = {"metadata": {}, "weight_map": dict.fromkeys(names, SINGLE)}
    write_json(out / INDEX, read_json(source / INDEX) if (source / INDEX).exists() else whole)
    return shorten(out, layers or config["num_hidden_layers"], out)


def make_run(work: Path, base: Path) -> tuple[float, int]:
    """`work / "run"`: one step on a sample post of each label, then a random B; seconds and peak memory of training."""
    lines = (ROOT / "data" / "samples" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    posts = {json.loads(line)["label"]: line for line in lines}
    (work / "posts.jsonl").write_text("\n".join(posts.values()) + "\n", encoding="utf-8")
    seconds, peak, _ = measure([str(ROOT / "train.py"), "--model", str(base), "--data", str(work / "posts.jsonl"),
                                "--out", str(work / "run"), "--quantize", "nf4", "--batch-size", "1", "--max-steps",
                                "1", "--validation", "0"])  # fmt: skip
    tensors, generator = load_file(work / "run" / "adapter" / TENSORS), torch.Generator().manual_seed(0)
    for name in sorted(tensors):
        if ".lora_B." in name:
            tensors[name] = 0.05 * torch.randn(tensors[name].shape, generator=generator)
    save_file(tensors, work / "run" / "adapter" / TENSORS, metadata={"format": "pt"})
    return seconds, peak


@torch.inference_mode()
def label_logits(model, prompt, texts: list[str]) -> torch.Tensor:
    """Logits of the label tokens at the answer, of our model or of transformers': (R, C)."""
    found = []
    for text in texts:
        logits = model(torch.tensor([prompt.encode(text).ids]))
        found.append((logits if isinstance(logits, torch.Tensor) else logits.logits)[0, -1, prompt.label_ids].clone())
    return torch.stack(found)


def right_logits(run: Path, texts: list[str]) -> tuple[dict[str, torch.Tensor], object]:
    """Job -> the label logits that its export must give, all from one model in memory; and the run's prompt."""
    model, prompt = open_model(RunFolder.open(run), model=None, device=torch.device("cpu"), dtype=torch.float32)
    own = label_logits(model, prompt, texts)
    merge(model, model.model.embed_tokens.weight.dtype)
    rounded = label_logits(model, prompt, texts)
    replace_linears(model)
    return {"peft": own, "merged float32": own, "merged": rounded,
            "bnb-4bit": label_logits(model, prompt, texts)}, prompt  # fmt: skip


def read_back(job: str, out: Path, base: Path):
    """An export as our own `load_model` reads it, computing in float32."""
    if job == "peft":
        return load_model(base, dtype=torch.float32, quantize="nf4", adapter=out)
    return load_model(out, dtype=torch.float32)


def read_by_others(job: str, out: Path, base: Path):
    """The same by transformers, peft and bitsandbytes, whose linears on some CPUs compute in bfloat16 in eval mode."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    words = {"dtype": torch.float32, "device_map": "cpu"}
    if job == "peft":
        words["quantization_config"] = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    model = AutoModelForCausalLM.from_pretrained(base if job == "peft" else out, **words)
    model = PeftModel.from_pretrained(model, out) if job == "peft" else model
    for module in model.modules():
        if hasattr(module, "compute_dtype"):
            module.compute_dtype = torch.float32
    for parameter in model.parameters():
        if parameter.is_floating_point():  # transformers leaves the file's dtype in a 4-bit model
            parameter.data = parameter.data.float()
    return model.train()


def compare(job: str, out: Path, run: Path, base: Path, right: dict, prompt, texts: list[str], usual: bool) -> dict:
    """What was compared -> how far the export is from what it must be, and how far it may be."""
    if job.startswith("gguf"):
        from benchmarks.gguf_check import LIMITS, gguf_apart  # needs the package gguf, the others do not

        found = gguf_apart(next(out.glob("*.gguf")), run, job.removeprefix("gguf-").upper())
        return {f"{kind}, steps": (value, LIMITS[kind]) for kind, value in found.items()}
    ways = {"logits": read_back} | ({"logits, usual stack": read_by_others} if usual else {})
    return {name: (float((label_logits(read(job, out, base), prompt, texts) - right[job]).abs().max()),
                   0.0 if job == "peft" and read is read_back else LOGITS) for name, read in ways.items()}  # fmt: skip


def main(argv: list[str]) -> None:
    """Make checkpoint and run, export, read back, print the table; raises `UserError` at the end for a difference."""
    options = parse_options(ExportsOptions, argv, program="python -m benchmarks.exports", description=__doc__)
    check_file(options.json, "--json")
    for name in ("source", "tokenizer"):
        if getattr(options, name) is None:
            raise UserError(f"--{name}: is needed")
    unknown = [job for job in options.formats if job not in JOBS]
    if unknown:
        raise UserError(f"--formats {unknown[0]}: is none of {', '.join(JOBS)}")
    work = Path(options.work)
    shutil.rmtree(work, ignore_errors=True)
    base, run, out = work / "base", work / "run", work / "out"
    make_checkpoint(public_layout(Path(options.source), options.layers, work / "source"), Path(options.tokenizer), base)
    size = sum(path.stat().st_size for path in base.glob("*.safetensors"))
    seconds, peak = make_run(work, base)
    print(f"base {human_bytes(size)}; one step: {human_seconds(seconds)}, {human_bytes(peak)}", flush=True)
    texts = [post.text for post in iter_posts([work / "posts.jsonl"])][:2]
    right, prompt = right_logits(run, texts)
    bare = label_logits(load_model(base, dtype=torch.float32, quantize="nf4"), prompt, texts)
    moved = float((bare - right["peft"]).abs().max())
    print(f"the adapter moves label logits by up to {moved:.2g}; merged in 16 bits they are "
          f"{float((right['merged'] - right['peft']).abs().max()):.2g} from the run's, in 4 bits "
          f"{float((right['bnb-4bit'] - right['peft']).abs().max()):.2g}", flush=True)
    found = {}
    for job in options.formats:
        seconds, peak, _ = measure(["-m", "tools.export", "--run", str(run), "--to", job.split()[0], "--out",
                                    str(out), *JOBS[job]])  # fmt: skip
        written = sum(path.stat().st_size for path in out.iterdir())
        began = time.perf_counter()
        apart = compare(job, out, run, base, right, prompt, texts, options.usual)
        found[job] = {"seconds": seconds, "peak_anonymous": peak, "written": written, "apart": apart,
                      "equal": all(a <= limit for a, limit in apart.values()), "in_memory": peak <= size + ABOVE}
        print(f"{job}: {human_seconds(seconds)}; read back and compared in "
              f"{human_seconds(time.perf_counter() - began)}", flush=True)
        shutil.rmtree(out)
    print(table(["export", "seconds", "peak anonymous memory", "on disk", "compared", "largest difference", "allowed"],
                [[job if not place else "", *([f"{one['seconds']:.1f}", human_bytes(one["peak_anonymous"]),
                  human_bytes(one["written"])] if not place else [""] * 3), what, f"{value:.3g}", f"{limit:.3g}"]
                 for job, one in found.items() for place, (what, (value, limit)) in enumerate(one["apart"].items())]))
    if options.json:
        write_json(options.json, {"schema": 1, "layers": options.layers, "base_bytes": size, "adapter_moves": moved,
                                  "allowed_bytes": size + ABOVE, "exports": found})
    shutil.rmtree(work)
    wrong = [job for job, one in found.items() if not (one["equal"] and one["in_memory"])]
    if wrong:
        raise UserError(f"{', '.join(wrong)}: differs from the run, or takes more than {human_bytes(size + ABOVE)}")


if __name__ == "__main__":
    run_program(main)
