"""Train a small base model of the LLaMA 3.2 architecture from parallel text: `python -m tools.pretrain`.

    text -> vocabulary -> embeddings by latent semantic indexing -> start -> steps -> a Hugging Face folder

A model of a few million parameters and a few million words of text will not learn language. It can learn what makes
fine-tuning on one language carry over to others: words that translate each other get similar vectors, and the answer
position gathers the content of the post. The vocabulary is in `text.py`, the starting weights and what is set in them
by hand in `start.py`, the prompts in `prompts.py`, the objective in `batch.py`, all in tools/pretrain/; this file is
the loop around them. A run that is killed continues from its checkpoint and ends in the same bits.

With `--teacher`, a folder of a sentence encoder's vectors (`teacher.py`), the embeddings start as a linear student of
these vectors and the answer position learns them (`taught.py`): those of a sentence itself, and for every language of a
parallel text those of its English original, so that languages the teacher never saw get them as well.
"""

import json
import math
import platform
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import sentencepiece
import torch
from safetensors.torch import save as as_bytes

from common.device import choose_device
from common.errors import UserError, run_program
from common.files import atomic_write, making, sha256_file, sha256_json, write_json
from common.lock import hold
from common.options import option, parse_options
from common.states import read_state
from common.terminal import human_seconds, progress
from model.attention import attend_padded
from model.attention_gradient import attend_by_hand
from model.config import LlamaConfig, RopeScaling
from model.llama import LlamaForCausalLM
from tools.pretrain.batch import Bags, Sampler, step_losses
from tools.pretrain.mixed import Worker
from tools.pretrain.start import RESERVED, SYMBOLS, bags, embeddings, start_model
from tools.pretrain.taught import Targets, taught_table
from tools.pretrain.teacher import read_teacher
from tools.pretrain.text import CONTROL, Document, read_parallel, read_text, train_vocabulary

CHECKPOINT = "pretrain_checkpoint.pt"
TEACHER_FILES = ("texts.jsonl", "vectors.safetensors")
UNREMEMBERED = ("out", "save_every", "stop_after", "parallel", "text", "teacher")  # they do not change the result


@dataclass
class Options:
    """Everything that decides the result; the defaults made the base model that the repository ships."""

    parallel: list[str] = option((), "parallel text: jsonl with id, language, text, or tsv with a column per language",
                                 metavar="FILE", group="text")  # fmt: skip
    text: list[str] = option((), "files of text without translations: jsonl with text", metavar="FILE", group="text")
    teacher: str | None = option(None, "folder that python -m tools.pretrain.teacher wrote", metavar="DIR",
                                 group="text")  # fmt: skip
    teacher_words: int = option(30000, "words of the teacher's that the vocabulary learns from", minimum=0,
                                group="text")  # fmt: skip
    out: str = option("", "folder for the finished model; a killed run continues from what is there", metavar="DIR")
    seed: int = option(1, "seed of all random numbers", minimum=0)
    threads: int = option(1, "CPU threads; matrices this small gain nothing from a second one", minimum=1)
    save_every: int = option(50, "steps between checkpoints", minimum=1)
    stop_after: int | None = option(None, "save and stop after this many seconds; the same command goes on", minimum=1)
    within: int | None = option(None, "seconds in which training is to end, if need be before its last step: the rates "
                                "then fall by the clock, and the result depends on the machine", minimum=1)
    device: str = option("cpu", "where to compute", choices=("cpu", "cuda"))
    dtype: str = option("float32", "what the layers compute in; the weights that are updated stay float32",
                        choices=("float32", "bfloat16"))

    vocabulary: int = option(20000, "pieces of the vocabulary, bytes and control symbols included", minimum=300,
                             group="model")  # fmt: skip
    width: int = option(192, "hidden size D", minimum=32, group="model")
    layers: int = option(3, "layers L", minimum=2, group="model")
    heads: int = option(6, "query heads H", minimum=1, group="model")
    kv_heads: int = option(3, "key/value heads K", minimum=1, group="model")
    head_dim: int = option(32, "size h of a head", minimum=4, group="model")
    mlp: int = option(512, "width F of the MLP", minimum=8, group="model")

    noise: float = option(0.03, "with --teacher: what the random parts of the layers start with", minimum=0,
                          group="model")  # fmt: skip

    steps: int = option(1500, "optimizer steps", minimum=1, group="training")
    items: int = option(64, "items per step; each is shown twice", minimum=2, group="training")
    rows: int = option(32, "rows that share a prompt", minimum=1, group="training")
    lr: float = option(1e-3, "peak learning rate of the layers", above=0, group="training")
    embedding_lr: float = option(3e-4, "peak learning rate of the embeddings", minimum=0, group="training")
    weight_decay: float = option(0.1, "weight decay of the layers' matrices", minimum=0, group="training")
    warmup: int = option(50, "steps of linear warm-up, before the cosine", minimum=0, group="training")
    clip: float = option(1.0, "largest norm of the gradient", above=0, group="training")
    words_weight: float = option(1.0, "weight of the bag-of-words loss", minimum=0, group="training")
    contrast_weight: float = option(1.0, "weight of the contrastive loss", minimum=0, group="training")
    taught_weight: float = option(10.0, "weight of the distance from the teacher", minimum=0, group="training")
    nearest_weight: float = option(1.0, "weight of being nearest to the own target", minimum=0, group="training")
    temperature: float = option(0.1, "temperature of the contrastive losses", above=0, group="training")

    drop: float = option(0.1, "share of a text's tokens left out", minimum=0, maximum=0.9, group="rows")
    longest: int = option(48, "most tokens that are kept of a text", minimum=4, group="rows")
    post_first: float = option(0.25, "share of prompts whose instruction follows the post", minimum=0, maximum=1,
                               group="rows")  # fmt: skip
    join_share: float = option(0.15, "share of items made of two documents", minimum=0, maximum=1, group="rows")
    alone_share: float = option(0.15, "share of items without translations, if any are given", minimum=0, maximum=1,
                                group="rows")  # fmt: skip
    crop_share: float = option(0.6, "share of texts of which only a piece is shown", minimum=0, maximum=1, group="rows")
    bare_share: float = option(0.0, "share of prompts without an instruction", minimum=0, maximum=1, group="rows")


def model_config(o: Options) -> LlamaConfig:
    """The architecture: Llama 3.2's rope numbers, tied embeddings, grouped-query attention."""
    if o.heads % o.kv_heads:
        raise UserError(f"--kv-heads {o.kv_heads}: --heads {o.heads} must be a multiple of it")
    return LlamaConfig(
        vocab_size=o.vocabulary, hidden_size=o.width, intermediate_size=o.mlp, num_hidden_layers=o.layers,
        num_attention_heads=o.heads, num_key_value_heads=o.kv_heads, head_dim=o.head_dim, rope_theta=500000.0,
        rope_scaling=RopeScaling(32.0, 1.0, 4.0, 8192), max_position_embeddings=131072, tie_word_embeddings=True,
        bos_token_id=1, eos_token_id=(2, 5), dtype="bfloat16",
    )  # fmt: skip


def learning_rate(o: Options, step: int, seconds: float = 0.0) -> float:
    """The factor at `step`: linear warm-up, then a cosine from 1 to 0.05 over the steps, or over --within."""
    warm, gone = min(1.0, (step + 1) / max(1, o.warmup)), step / o.steps
    gone = gone if o.within is None else max(gone, min(1.0, seconds / o.within))
    return warm * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * gone)))


def make_optimizer(model: LlamaForCausalLM, o: Options) -> torch.optim.AdamW:
    """AdamW with three groups: matrices of the layers (decayed), norms, and the embedding table."""
    table = model.model.embed_tokens.weight
    matrices = [p for p in model.parameters() if p.dim() == 2 and p is not table]
    norms = [p for p in model.parameters() if p.dim() == 1]
    groups = [{"params": matrices, "weight_decay": o.weight_decay, "peak": o.lr},
              {"params": norms, "weight_decay": 0.0, "peak": o.lr},
              {"params": [table], "weight_decay": 0.0, "peak": o.embedding_lr}]
    return torch.optim.AdamW(groups, lr=o.lr, betas=(0.9, 0.98), fused=True)


def train(o: Options, model: LlamaForCausalLM, sampler: Sampler, goals: tuple[Bags | None, Targets | None],
          identity: str, out: Path) -> float:
    """Run the remaining steps; returns the seconds of training so far, interrupted runs included.

    `goals`: the bags of words and a teacher's targets; either may be None.
    """
    optimizer, first, seconds = make_optimizer(model, o), 0, 0.0
    worker = Worker(model, getattr(torch, o.dtype))
    path = out / CHECKPOINT
    lines: list[str] = []
    if path.exists():
        try:
            state = read_state(path)
            is_ours = state["identity"] == identity
            if is_ours:
                model.load_state_dict(state["model"])
                optimizer.load_state_dict(state["optimizer"])
                first, seconds, lines = state["step"], state["seconds"], state["log"]
        except UserError:
            raise
        except Exception as error:  # what a damaged or hostile pickle ends in is not to be foreseen
            raise UserError(f"{path}: is not a whole checkpoint ({type(error).__name__}); remove it or choose another "
                            "--out") from error
        if not is_ours:
            raise UserError(f"{path}: belongs to a run with other options or texts; remove it or choose another --out")
    began, opened = time.monotonic() - seconds, time.monotonic()
    with progress(o.steps, "step", "pre-training", initial=first) as bar:
        for step in range(first, o.steps):
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * learning_rate(o, step, seconds)
            items, showings = sampler.draw(step)
            optimizer.zero_grad()
            with worker as computing:
                loss, parts = step_losses(computing, items, showings, goals, o)
                loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), o.clip)
            optimizer.step()
            values = {"loss": loss, **parts, "gradient_norm": norm}
            shown = {name: round(float(value.detach()), 4) for name, value in values.items()}
            seconds = time.monotonic() - began
            lines.append(json.dumps({"step": step + 1, **shown, "seconds": round(seconds, 1)}))
            bar.set_postfix_str(f"loss {shown['loss']}")
            bar.update()
            is_time = o.stop_after is not None and time.monotonic() - opened > o.stop_after
            is_over = step + 1 == o.steps or (o.within is not None and seconds >= o.within)
            if (step + 1) % o.save_every == 0 or is_over or is_time:
                with atomic_write(out / "log.jsonl") as handle:
                    handle.write("".join(line + "\n" for line in lines))
                with atomic_write(path, "wb") as handle:
                    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1,
                                "seconds": seconds, "log": lines, "identity": identity}, handle)
            if is_over:
                break
            if is_time:
                raise UserError(f"{out}: stopped after {step + 1:,} of {o.steps:,} steps, as --stop-after said; the "
                                "same command goes on from there")
    return seconds


def save(model: LlamaForCausalLM, config: LlamaConfig, record: dict, out: Path) -> None:
    """The finished folder beside its tokenizer: bf16 weights under Hugging Face names, config, defaults, record."""
    tensors = {name: tensor.to("cpu", torch.bfloat16).contiguous() for name, tensor in model.state_dict().items()}
    with atomic_write(out / "model.safetensors", "wb") as handle:
        handle.write(as_bytes(tensors, metadata={"format": "pt"}))
    write_json(out / "config.json", config.to_dict())
    write_json(out / "generation_config.json", {"bos_token_id": 1, "eos_token_id": [2, 5], "do_sample": False})
    write_json(out / "pretrain.json", record)


def read_targets(o: Options, parallel: list[Document]) -> Targets:
    """What a teacher's folder says about `parallel`, and its own texts."""
    if o.text:
        raise UserError("--text: with --teacher, the texts without translations are those of its folder")
    return Targets(parallel, *read_teacher(o.teacher), o.width - RESERVED)


def main(argv: list[str]) -> None:
    """Read the options and texts, train, write the folder."""
    o = parse_options(Options, argv, program="python -m tools.pretrain", description=__doc__)
    if not o.parallel or not o.out:
        raise UserError("--parallel and --out: both are needed; --help explains them")
    torch.set_num_threads(o.threads)
    if o.device == "cuda":
        choose_device("cuda")
    out, config = Path(o.out), model_config(o)
    parallel, alone = read_parallel(o.parallel), read_text(o.text)
    taught = read_targets(o, parallel) if o.teacher else None
    if taught is not None:
        alone = taught.alone
    print(f"{len(parallel)} parallel documents, {len(alone)} texts without translations")
    files = {Path(path).name: sha256_file(path) for path in [*o.parallel, *o.text]}
    if o.teacher:
        files |= {name: sha256_file(Path(o.teacher) / name) for name in TEACHER_FILES}
    options = {key: value for key, value in asdict(o).items() if key not in UNREMEMBERED}
    vocabulary = train_vocabulary([*parallel, *(taught.plain if taught else ())], o.vocabulary,
                                  taught.common_words(o.teacher_words) if taught else ())
    tokenizer = sentencepiece.SentencePieceProcessor(model_proto=vocabulary)
    special = {name: tokenizer.piece_to_id(name) for name in CONTROL}
    generator = torch.Generator().manual_seed(o.seed)
    symbols, targets = [tokenizer.piece_to_id(symbol) for symbol in SYMBOLS], None
    if taught is None or o.words_weight:
        weights, idf = bags(parallel, tokenizer.encode, o.vocabulary)
        targets = Bags(weights, idf, bags(alone, tokenizer.encode, o.vocabulary)[0] if alone else None)
    table = embeddings(weights, idf, o.width, symbols, generator) if taught is None else taught_table(
        *taught.texts(parallel, tokenizer.encode, o.vocabulary), symbols, generator)
    model = start_model(config, table, generator, 1.0 if taught is None else o.noise).to(o.device)
    model.attend = attend_padded if o.device == "cuda" else attend_by_hand  # rows are many and short
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{parameters:,} parameters; {o.steps} steps of 2 x {o.items} rows; seed {o.seed}")
    sampler = Sampler(parallel, alone, tokenizer, special, o)
    with making(out), hold(out):
        with atomic_write(out / "tokenizer.model", "wb") as handle:
            handle.write(vocabulary)
        seconds = train(o, model, sampler, (targets, taught), sha256_json([options, files]), out)
        versions = {"python": platform.python_version(), "torch": torch.__version__,
                    "sentencepiece": sentencepiece.__version__}
        record = {"options": options, "files": files, "parameters": parameters, "versions": versions,
                  "machine": platform.machine(), "minutes": round(seconds / 60, 1)}
        save(model, config, record, out)
        (out / CHECKPOINT).unlink(missing_ok=True)
    print(f"{out}: written after {human_seconds(seconds)} of training")


if __name__ == "__main__":
    run_program(main, sys.argv[1:])
