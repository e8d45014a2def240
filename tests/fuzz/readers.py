"""Every reader of files: where its file lies, what a good one looks like, and the calls that take it in.

A call goes as far as the programs go before they compute: what is read must also be usable, so that a value of another
kind is found by its first user and not in the middle of a night's work.
"""

import json
import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import torch

from audit.minimal import read_pairs
from common.errors import UserError
from common.files import ROOT, read_json, write_json
from common.options import parse_options
from data.checks import TrainingTexts, check_test
from data.codebook import Codebook, load_codebook
from data.exposure import load_shares
from data.posts import Columns, Post
from data.prompt import check_fingerprint
from data.readers import by_id, iter_posts, read_predictions
from data.sampling import only_posts
from finetune.checkpoint import check_trainer
from finetune.fit import Watch
from finetune.options import TrainOptions
from finetune.run_folder import RunFolder
from inference.prices import load_prices
from loading import load_model
from loading.sources import find_source
from loading.weights import find_shards
from lora.adapter import load_adapter
from lora.inject import adapters
from model.tokenizer import load_tokenizer
from model.tokenizer.gguf import generation_config, gguf_vocabulary, tokenizer_config, tokenizer_json
from quant.stored import STATE, read_group
from report.page import page, training_findings
from study.kept import read_answers, read_probabilities
from study.plan import load_plan
from tests.fuzz import fixtures
from tests.fuzz.kept import answers, cache_of, froze, frozen, go_on, journal, kept
from tests.fuzz.mutate import Mutate, change_value, mutate
from tests.loading.gguf import packed
from tests.model.gguf_vocabularies import GOOD, LLAMA, keys
from tools.export.card import metrics_table, read_evaluations

TEXT = "we open the door 123 <|eot_id|> <w> é\u0301"


@dataclass(frozen=True)
class Reader:
    """name: also of the file; make(folder): the file, with all that lies beside it; read(path): the calls."""

    name: str
    make: Callable[[Path], Path]
    read: Callable[[Path], object]
    mutate: Mutate = mutate


def file_of(name: str, data: Callable[[], bytes] | bytes) -> Callable[[Path], Path]:
    """A fixture of one file."""
    def make(folder: Path) -> Path:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data() if callable(data) else data)
        return path

    return make


def inside(make: Callable[[Path], Path], name: str) -> Callable[[Path], Path]:
    """A fixture of a folder in which one file is damaged."""
    return lambda folder: make(folder / "f") / name


@cache
def codebook() -> Codebook:
    return load_codebook()


def posts(path: Path) -> None:
    """All rows, as strictly and as leniently as a program can ask for them."""
    draw, book = random.Random(path.stat().st_size), codebook()
    columns = Columns(longest=1, quote=draw.choice(('"', '"', "none")))
    list(iter_posts([path], columns, draw.choice((book, None)), require_labels=draw.random() < 0.5,
                    require_text=draw.random() < 0.8, keep_empty=draw.random() < 0.5,
                    bad_labels=draw.choice(("drop", "error")), keep_bad=draw.random() < 0.5))


def model(path: Path) -> None:
    """A whole model from the folder that a file lies in."""
    load_model(path.parent, dtype=torch.float32, quantize=("stored", "none", "nf4")[path.stat().st_size % 3])


def gguf_model(path: Path) -> None:
    """A whole model from a file."""
    load_model(path, dtype=torch.float32, quantize=("stored", "none", "nf4")[path.stat().st_size % 3])


@cache
def base() -> torch.nn.Module:
    return fixtures.tiny_model()


def adapted(path: Path) -> None:
    if adapters(base()):
        base.cache_clear()
    load_adapter(base(), path.parent)


def run(folder: Path) -> Path:
    """A run's folder: the one that comes with the project, with a base of its own."""
    shutil.copytree(ROOT / "base" / "run", folder)
    facts = read_json(folder / "run.json")
    facts["scored"] = [{"data": "test.jsonl", "data_sha256": "0" * 64, "n": 8, "accuracy": 0.0, "macro_f1": 0.0}]
    (folder / "checkpoint").mkdir()
    (folder / "checkpoint" / "state.pt").write_bytes(fixtures.checkpoint())
    found = fixtures.metrics()
    facts["scored"] = [facts["scored"][0] | {key: found[key] for key in ("n", "accuracy", "macro_f1")}]
    write_json(folder / "run.json", facts)
    write_json(folder / "eval-test" / "metrics.json", found)
    return folder


def run_json(path: Path) -> None:
    facts = RunFolder.open(path.parent).facts
    book = Codebook.from_dict(facts["codebook"], "run.json")
    with suppress(UserError):  # they differ; what counts is how that is told
        check_fingerprint(facts["prompt"], {"template": "x", "labels": list(book.labels)}, "run.json")
    ", ".join(facts["languages"]), max([facts["created"]]), facts["environment"]["threads"] + 1
    page(facts={key: facts[key] for key in facts if key not in ("codebook", "scored")})
    sum(past["data_sha256"] == "0" for past in facts["scored"])
    find_source(path.parent)


@cache
def opened(folder: Path) -> RunFolder:
    return RunFolder.open(folder)


def evaluations(path: Path) -> None:
    for found in read_evaluations(opened(path.parents[1]), []):
        metrics_table(found.metrics)


@cache
def trained():
    return fixtures.trainer()


def state(path: Path) -> None:
    found = RunFolder(path.parents[1], {}).read_state()
    Watch(**found["watch"])
    try:
        check_trainer(found["trainer"], trained().state(), 3)
    except ValueError as error:  # train.py makes a line of it
        raise UserError(str(error)) from error


TENSORS = [
    lambda: torch.empty(2, 8, device="meta"), lambda: torch.ones(2, 8).to_sparse(), lambda: torch.ones(2, 8).cfloat(),
    lambda: torch.ones(1).expand(2, 8), lambda: torch.ones(0), lambda: torch.ones(2, 8).half(),
    lambda: torch.ones(2, 8, dtype=torch.int64), lambda: torch.full((2, 8), torch.nan),
    lambda: torch.nn.Parameter(torch.ones(2, 8)), lambda: torch.ones(2, 8).to(torch.float8_e4m3fn),
]
OTHERS = [None, True, -1, 10**30, 0.5, float("nan"), "x", [], {}, [1], {"a": 1}, (1, 2)]


def mutate_state(data: bytes, rng: random.Random) -> bytes:
    """A checkpoint with a value of another kind somewhere in it, or damage to its bytes."""
    import io

    if rng.random() < 0.5:
        return mutate(data, rng)
    found = torch.load(io.BytesIO(data), weights_only=True)
    values = [*(make() for make in TENSORS), *OTHERS]
    written = io.BytesIO()
    torch.save(change_value(found, rng, values), written)
    return written.getvalue()


def log(path: Path) -> None:
    lines = RunFolder(path.parent, {}).read_log()
    training_findings(lines, {}), sum(line.get("posts", 0) for line in lines)


def texts(path: Path) -> None:
    post = Post("a", "a text", "neutral", "en", "f", 1, {})
    check_test(TrainingTexts.from_file(path), [post, post]).lines()


def tokenizer(path: Path) -> None:
    found = load_tokenizer(path.parent)
    ids = found.encode(TEXT)
    found.decode(ids), found.check_fits(10**6, ids)


def vocabulary(path: Path) -> None:
    found, inside = load_tokenizer(path), gguf_vocabulary(path)
    ids = found.encode(TEXT)
    found.decode(ids), found.check_fits(10**6, ids)
    tokenizer_config(inside), generation_config(inside), tokenizer_json(inside)


def beside(name: str, data: Callable[[], bytes]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / "tokenizer.json").write_bytes(fixtures.tokenizer_json())
        return file_of(name, data)(folder)

    return make


def stored_group(path: Path) -> None:
    weight = base().model.layers[0].mlp.up_proj.weight
    data = path.read_bytes()
    group = fixtures.group() | {STATE: torch.tensor(list(data), dtype=torch.uint8)}
    read_group(group, tuple(weight.shape), "group")


LOG = b'{"step": 1, "loss": 1.5, "grad_norm": 0.5, "lr": 0.001, "posts": 4, "tokens": 90}\n' * 2 + (
    b'{"step": 2, "validation": {"n": 3, "macro_f1": 0.5, "accuracy": 0.5, "topic_macro_f1": null}}\n')
OPTIONS = b"""model = "base"\ndata = ["a.jsonl", "b.csv"]\nlanguages = ["en", "es"]\nper_language = {en = 5, es = 6}
rank = 16\nalpha = 32.0\nrslora = true\nlearning_rate = 1e-3\nmax_steps = 1_000\ntargets = ["q_proj"]\n# a comment
"""
BOOK = (ROOT / "data" / "codebooks" / "filled_example.toml").read_bytes()
ROWS = b"en\ta-1\nes\ta-2\n"
PAIRS = """language = "pt-BR"\n[emoji]\npairs = [["a é", "a é ☺"], ["b", "b ☺"]]\n[mine]\nexpect = "differ"
pairs = [["c", "d"]]
""".encode()
TABLES = {
    "prices.toml": ((ROOT / "inference" / "prices.toml").read_bytes(), load_prices),
    "shares.toml": ((ROOT / "data" / "pretraining_shares.toml").read_bytes(), load_shares),
    "plan.toml": (fixtures.PLAN, lambda path: load_plan(path).hash),
    "pairs.toml": (PAIRS, read_pairs),
    "codebook.toml": (BOOK, lambda path: (load_codebook(path).instruction(), load_codebook(path).hash)),
    "options.toml": (OPTIONS, lambda path: asdict(parse_options(
        TrainOptions, ["--config", str(path)], program="p", description="d", presets={"a": {"rank": 2}}))),
}  # fmt: skip
FILES = {
    "posts.jsonl": (fixtures.jsonl, posts), "posts.csv": (fixtures.table, posts),
    "posts.tsv": (lambda: fixtures.table("\t"), posts),
    "posts.jsonl.gz": (lambda: fixtures.zipped(fixtures.jsonl()), posts),
    "posts.csv.gz": (lambda: fixtures.zipped(fixtures.table()), posts),
    "predictions.jsonl": (fixtures.predictions, lambda path: by_id(read_predictions(path)[0])),
    "rows.tsv": (ROWS, lambda path: only_posts([Post(name, "t", None, name_language, "f", 1, {})
                                               for name_language, name in (("en", "a-1"), ("es", "a-2"))], path)),
    "training_texts.json": ((ROOT / "base" / "run" / "training_texts.json").read_bytes()[:], texts),
    "log.jsonl": (LOG, log), "answers.json": (answers, lambda path: read_answers(path, 4)),
    "baseline.json": (lambda: json.dumps({"rows": [fixtures.PROBABILITIES] * 2}).encode(),
                      lambda path: read_probabilities(path, 2, 4)),
    "group.json": (fixtures.group_json, stored_group),
    "tokenizer.json": (fixtures.tokenizer_json, tokenizer),
    "tiktoken/tokenizer.model": (fixtures.tiktoken, tokenizer),
    "sentencepiece/tokenizer.model": (fixtures.sentences, tokenizer),
    "bytes.gguf": (packed(keys(GOOD)), vocabulary), "pieces.gguf": (packed(keys(LLAMA)), vocabulary),
}  # fmt: skip
NEIGHBOURS = {
    "tokenizer_config.json": fixtures.tokenizer_config,
    "special_tokens_map.json": lambda: b'{"bos_token": "<|begin_of_text|>", "eos_token": {"content": "<|eot_id|>"}}',
    "generation_config.json": lambda: b'{"bos_token_id": 300, "eos_token_id": [301, 302], "temperature": 0.6}',
}
READERS = {reader.name: reader for reader in [
    *(Reader(name, file_of(name, data), read) for name, (data, read) in {**FILES, **TABLES}.items()),
    *(Reader(name, beside(name, data), tokenizer) for name, data in NEIGHBOURS.items()),
    Reader("config.json", inside(fixtures.dense, "config.json"), model),
    Reader("model.safetensors", inside(fixtures.dense, "model.safetensors"), model),
    Reader("model.safetensors.index.json", inside(fixtures.sharded, "model.safetensors.index.json"),
           lambda path: (find_shards(path.parent), model(path))),
    Reader("stored/config.json", inside(fixtures.stored, "config.json"), model),
    Reader("stored/model.safetensors", inside(fixtures.stored, "model.safetensors"), model),
    Reader("params.json", inside(fixtures.meta, "params.json"), model),
    Reader("consolidated.00.pth", inside(fixtures.meta, "consolidated.00.pth"), model, mutate_state),
    Reader("model.gguf", fixtures.gguf, gguf_model),
    Reader("adapter_config.json", inside(fixtures.adapter, "adapter_config.json"), adapted),
    Reader("adapter_model.safetensors", inside(fixtures.adapter, "adapter_model.safetensors"), adapted),
    Reader("run.json", inside(run, "run.json"), run_json),
    Reader("metrics.json", inside(run, "eval-test/metrics.json"), evaluations),
    Reader("state.pt", inside(run, "checkpoint/state.pt"), state, mutate_state),
    Reader("journal", journal, go_on),
    Reader("frozen.json", frozen, froze),
    Reader("hashes.json", kept("hashes.json"), cache_of),
    Reader("made.json", kept("made.json"), cache_of),
]}  # fmt: skip
