"""benchmarks.compare: the whole at a tiny size, the checks that both sides do equal work, and the arithmetic behind it.

Deliberate breaks: leave the prefix's positions out of `worker.padded` (the sides no longer agree, and the program ends
in one line); project to `depth + 1`; count a linear's products once too few in `products.Recorder.note`.
"""

import json
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from benchmarks import products
from benchmarks.checkpoint import LLAMA_3_2_3B, write_checkpoints
from benchmarks.equality import check_close, check_training, check_weights, digest
from benchmarks.machine import has_bf16_kernels
from benchmarks.measure import FIRST, PAPER, TEMPLATES, Depth, jobs
from benchmarks.products import Recorder, copy_bandwidth, dequantised_bytes, extrapolate, seconds_of, time_shapes, work
from benchmarks.settings import whole_numbers
from benchmarks.summary import RATIOS, at, limits, line, memories, project, ratios
from benchmarks.turns import Job, Measured, Worker
from benchmarks.worker import padded
from common.errors import UserError
from common.files import ROOT
from quant.int8 import pays
from tests.small import here, needs

# Rows of whole blocks of 64; the vocabulary holds the small base's tokenizer.
TINY = LLAMA_3_2_3B | {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2,
                       "head_dim": 16, "vocab_size": 44032, "bos_token_id": 1, "eos_token_id": 2}
LLAMA_TINY = TINY | {"hidden_size": 256, "intermediate_size": 256, "head_dim": 64}  # Q4_K wants rows of 256


def write_source(folder, config=TINY):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def compare(tmp_path, *words, config=TINY, code=0):
    source = write_source(tmp_path / "source", config)
    out = tmp_path / "result.json"
    printed = here("benchmarks.compare", "--quick", "--source", source, "--depths", "1,2", "--turns", "1",
                   "--train-posts", "4", "--label-posts", "4", "--batch-size", "4", "--work", tmp_path / "work",
                   "--threads", "1", "--json", out, *words, cwd=ROOT, code=code)
    assert not list((tmp_path / "work").iterdir())
    return printed, json.loads(out.read_text()) if code == 0 else None


@pytest.mark.slow
def test_the_whole(tmp_path, monkeypatch):
    """Every job was timed at both depths, the sides agreed, and each figure is where a reader of the file looks."""
    needs("transformers", "peft", "bitsandbytes")
    monkeypatch.setattr(products, "_time", partial(products._time, least=0.0))  # one call of each product
    printed, result = compare(tmp_path, "--llama", "off")
    assert {"schema", "command", "machine", "settings", "depths", "projection", "ratios", "limits", "memory",
            "seconds"} == set(result)
    assert result["settings"]["attention"] in ("eager", "sdpa") and result["settings"]["full_depth"] == 28
    bf16 = has_bf16_kernels()
    int8 = pays()
    names = {job.name for job in jobs(options(), everything=False, llama=False, bf16=bf16, int8=int8)}
    assert len(names) == 7 + 2 * bf16 + 2 * int8 and set(result["projection"]) == names
    for depth in ("1", "2"):
        measured = result["depths"][depth]
        assert set(measured["jobs"]) == names and measured["checks"] and measured["copy_bytes_per_second"][0] > 0
        rounded = ("ours in ", "usual in ")
        assert max(value for name, value in measured["checks"].items() if not name.startswith(rounded)) < 1e-4
        for one in measured["jobs"].values():
            assert one["seconds"][0] == one["median"] > 0 and one["posts"] == 4 and one["peak"] > 1e7
        assert not measured["other_checkpointing"]
    assert len(result["ratios"]) == 5 + 2 * int8 and {row["met"] for row in result["ratios"]} <= {True, False, None}
    assert len(result["limits"]) == 4 and all(row["products"] > 0 for row in result["limits"])
    assert len(result["memory"]) == 2 and "times faster" in printed


@pytest.mark.slow
def test_llama_cpp_takes_part(tmp_path):
    """The GGUF file's F16 logits agree with ours (checked inside), and both ways of it are in the ratios."""
    needs("transformers", "peft", "bitsandbytes", "llama_cpp", "gguf")
    _, result = compare(tmp_path, "--llama", "on", config=LLAMA_TINY)
    assert result["settings"]["llama.cpp F16"] < 1e-2 and "AVX" in result["settings"]["llama.cpp system"]
    assert sum(row["theirs"].startswith("llama.cpp") for row in result["ratios"]) == 4 * (1 + has_bf16_kernels()) + (
        2 * pays())


def test_rotary_pairs_in_a_gguf_file():
    """Turning neighbours after reordering is turning halves before it."""
    pytest.importorskip("gguf")
    from tools.export.gguf_file import gguf_name, interleaved

    heads, size = 3, 8
    weight = torch.arange(heads * size).float()[:, None]
    rows = interleaved(weight, heads)[:, 0].view(heads, size // 2, 2)
    halves = weight[:, 0].view(heads, 2, size // 2)
    assert torch.equal(rows[..., 0], halves[:, 0]) and torch.equal(rows[..., 1], halves[:, 1])
    assert gguf_name("model.layers.3.mlp.up_proj.weight") == "blk.3.ffn_up.weight"
    assert gguf_name("model.norm.weight") == "output_norm.weight"


@pytest.mark.parametrize("words, message", [
    (["--depths", "2"], "--depths 2: must be 2 or more"), (["--depths", "0,3"], "--depths 0 3"),
    (["--label-posts", "100000"], "fewer than the 100000"), (["--tokenizer", "no/such"], "no/such"),
])
def test_what_a_user_can_get_wrong(tmp_path, words, message):
    needs("transformers", "peft", "bitsandbytes")
    assert message in compare_error(tmp_path, *words)


def compare_error(tmp_path, *words):
    return here("benchmarks.compare", "--work", tmp_path / "work", *words, cwd=ROOT, code=2)


def options(**changes):
    return SimpleNamespace(**{"train_posts": 4, "label_posts": 8, "micro_tokens": 64, "checkpointing": False} | changes)


def test_sides_alternate():
    """A B A B: no side's two jobs of a task stand together while another side still waits."""
    sides = [job.side for job in jobs(options(), everything=False, llama=False)]
    assert sides == ["ours", "usual", "ours"] + ["ours", "usual"] * 2
    everything = jobs(options(), everything=True, llama=True)
    assert len({job.name for job in everything}) == len(everything) == 2 + 4 + 2 + 6 + 4
    known = {job.name for job in jobs(options(), everything=True, llama=True, bf16=True, int8=True)}
    assert {ratio.ours_job for ratio in RATIOS} | {ratio.their_job for ratio in RATIOS} == known


def test_unequal_work_is_refused(tmp_path):
    """Other bytes, another probability, another gradient, adapter or loss: each ends the benchmark."""
    packed, absmax = torch.arange(32, dtype=torch.uint8), torch.ones(4)
    ours = {"a": digest(packed, absmax)}
    check_weights(ours, {"a": digest(packed.view(-1, 1), absmax)})
    with pytest.raises(UserError, match="packed bytes or scales differ"):
        check_weights(ours, {"a": digest(packed, absmax + 1e-7)})
    with pytest.raises(UserError, match="not the same"):
        check_weights(ours, {"b": ours["a"]})
    assert check_close("x", [[0.5, 0.5]], [[0.50005, 0.5]], 1e-4) == pytest.approx(5e-5, rel=1e-2)
    for other in ([[0.5002, 0.5]], [[float("nan"), 0.5]], [[0.5]]):
        with pytest.raises(UserError, match="x: "):
            check_close("x", [[0.5, 0.5]], other, 1e-4)

    def written(name, **changes):
        tensors = {"gradient w": torch.ones(3), "adapter w": torch.ones(3)}
        tensors |= {key.replace("_", " "): value for key, value in changes.items()}
        save_file(tensors, tmp_path / name)
        return str(tmp_path / name)

    mine = written("mine")
    check_training("y", mine, written("same"), (1.0, 1.0), 1e-4)
    for what, changes in (("gradient", {"gradient_w": torch.tensor([1, 1, 1.001])}),
                          ("adapter", {"adapter_w": torch.tensor([1, 1, 1.001])})):
        with pytest.raises(UserError, match=f"y: {what} differs"):
            check_training("y", mine, written(what, **changes), (1.0, 1.0), 1e-4)
    both = {"gradient_w": torch.tensor([1, 1, 1e-9]), "adapter_w": torch.tensor([1, 1, 1.001])}
    assert check_training("y", written("noise", **both), written("other", **both | {"adapter_w": torch.ones(3)}),
                          (1.0, 1.0), 1e-4)["adapter"] == 0  # AdamW moved it by the sign of a rounding error
    with pytest.raises(UserError, match="y: loss differs"):
        check_training("y", mine, mine, (1.0, 1.001), 1e-4)
    with pytest.raises(UserError, match="gradient is zero"):
        check_training("y", mine, written("zero", gradient_w=torch.zeros(3)), (1.0, 1.0), 1e-4)


def depths_of(cost, turns=2):
    """Depths 2 and 4 where (fixed, per layer) of job number i are `cost(i)` seconds for a post, ten posts a turn."""
    found = {}
    every = jobs(options(), everything=False, llama=False)
    for depth in (2, 4):
        result = Depth(bandwidth=[1e9])
        for place, job in enumerate(every):
            fixed, per_layer = cost(place)
            answer = {"seconds": 10 * (fixed + depth * per_layer), "peak_anonymous": 10**9 * (place + 1) * depth}
            for _ in range(turns):
                result.jobs.setdefault(job.name, Measured()).add(answer, 10)
            if job.task == "train":
                result.other_way.setdefault(job.name, Measured()).add(answer | {"peak_anonymous": 5}, 10)
            if job.side == "ours":
                result.counts[job.name] = [[100, 64, 128, False, True, depth], [16, 64, 4, False, True, 1]]
        result.products = {(100, 64, 128, False, True): [0.5] * turns, (16, 64, 4, False, True): [0.25] * turns}
        found[depth] = result
    return found


def test_projection_and_ratios():
    """Costs that are known come back: fixed, per layer, at full depth, and every ratio of them."""
    assert line({2: 7.0, 4: 11.0}) == pytest.approx((3.0, 2.0)) and at({2: 7.0, 4: 11.0}, 28) == pytest.approx(59.0)
    assert at({1: 1.0, 2: 2.0, 3: 3.0}, 28) == pytest.approx(28.0)
    with pytest.raises(ValueError):
        line({2: 7.0})
    cost = lambda place: (1.0 + place, 0.5 * (place + 1))  # noqa: E731
    found = depths_of(cost)
    projected = project(found, 28)
    names = [job.name for job in jobs(options(), everything=False, llama=False)]
    for place, name in enumerate(names):
        one = projected[name]
        assert (one["fixed"], one["per_layer"]) == pytest.approx(cost(place))
        assert one["projected"] == pytest.approx(1 + place + 14 * (place + 1))
        assert one["peak_projected"] == pytest.approx(28e9 * (place + 1))
    rows = ratios(found, projected, 28)
    assert len(rows) == 5
    first = next(row for row in rows if row["target"] == 2)
    assert first["projected"] == pytest.approx(2.0) and first["met"] and first["range"] == pytest.approx([2.0, 2.0])
    changed = next(row for row in rows if row["target"] == 4)
    assert changed["template_changed"] and changed["projected"] == pytest.approx(30 / 45) and not changed["met"]
    rows = memories(found, 28, False)
    kept, twice = (next(row for row in rows if row["checkpointing"] is way) for way in (False, True))
    assert kept["share"] == pytest.approx(0.5) and not kept["met"] and twice["projected_ours"] == pytest.approx(5)


def test_what_cannot_be_is_called_noise():
    """A layer that seems to cost less than nothing proves no ratio, and products longer than the whole no share."""
    found = depths_of(lambda place: (100.0, -0.5 if place == 1 else 0.001))
    projected = project(found, 28)
    rows = ratios(found, projected, 28)
    assert {row["noisy"] for row in rows if ", train, " in row["theirs"]} == {True}
    assert all(row["met"] is None for row in rows if row["noisy"]) and not all(row["noisy"] for row in rows)
    found = depths_of(lambda place: (0.0, 0.001))
    assert all(row["noisy"] and row["met"] is None for row in limits(found, project(found, 28), 28, set()))


def test_shares_of_the_limit():
    """28 products of 0.5 s and one of 0.25 s for ten posts, beside 15 s a post; bytes at a gigabyte a second."""
    found = depths_of(lambda place: (1.0 + place, 0.5 * (place + 1)))
    rows = limits(found, project(found, 28), 28, {(64, 128)})
    row = next(row for row in rows if row["job"] == f"ours, train, {PAPER}, packed")
    assert row["products"] == pytest.approx((28 * 0.5 + 0.25) / 10) and row["seconds"] == pytest.approx(15.0)
    assert row["share"] == pytest.approx(1.425 / 15) and not row["met"]
    assert row["bytes"] == pytest.approx(28 * 64 * 128 * (4.5 + 1 / 16) / 1e9 / 10)


@pytest.mark.parametrize("training", [False, True])
def test_recorded_products_are_those_of_one_more_layer(tmp_path, training):
    """From depth 2 to 3 the operations grow by one layer's: forward 2 N in out a linear, backward dx as much again, and
    LoRA's thin ones; so nothing is missed, whichever operation of PyTorch's computes it."""
    from common.packed import pack
    from loading import load_model
    from lora.inject import inject

    folders = write_checkpoints(TINY, [2, 3], ROOT / "base" / "tokenizer.model", tmp_path)
    tokens, rank = 48, 16
    rows = [list(range(10, 10 + tokens // 2)), list(range(40, 40 + tokens // 2))]
    counts = {}
    for depth, folder in folders.items():
        model = load_model(folder, quantize="nf4", dtype=torch.float32)
        inject(model, "all-linear", rank, 32)
        batch = pack(rows, [len(row) - 1 for row in rows], [0, 1])
        with Recorder(True) as recorder, torch.set_grad_enabled(training):
            hidden = model.hidden(batch)
            if training:
                hidden.sum().backward()
        counts[depth] = {tuple(line[:5]): line[5] for line in recorder.counts()}
    grown = sum(work(shape, count) for shape, count in counts[3].items()) - sum(
        work(shape, count) for shape, count in counts[2].items())
    d, f, keys = TINY["hidden_size"], TINY["intermediate_size"], 32
    linears = [(d, d), (d, keys), (d, keys), (d, d), (d, f), (d, f), (f, d)]
    dense = sum(2 * tokens * a * b for a, b in linears)
    thin = sum(2 * tokens * rank * (a + b) for a, b in linears)
    assert grown == (2 * dense + 3 * thin if training else dense + thin)
    further = extrapolate(counts, 4)
    assert sum(work(*item) for item in further.items()) == pytest.approx(
        sum(work(*item) for item in counts[3].items()) + grown)


def test_products_are_timed_alone():
    shapes = [(32, 64, 16, False, True), (64, 32, 16, True, False)]
    seconds = time_shapes(shapes, torch.float32, "cpu")
    assert set(seconds) == set(shapes) and all(value > 0 for value in seconds.values())
    assert seconds_of({shapes[0]: 3}, seconds) == pytest.approx(3 * seconds[shapes[0]])
    assert copy_bandwidth("cpu", 1 << 16) > 0
    assert dequantised_bytes({(5, 64, 32, False, True): 2, (5, 7, 9, False, True): 1}, {(64, 32)}) == 2 * 2048 * 4.5625


def test_padding():
    left, right = (padded([[1, 2, 3], [4]], side) for side in ("left", "right"))
    assert left["input_ids"].tolist() == [[1, 2, 3], [0, 0, 4]]
    assert right["input_ids"].tolist() == [[1, 2, 3], [4, 0, 0]]
    assert left["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 1]]
    assert left["position_ids"].tolist() == [[0, 1, 2], [0, 0, 0]]


def test_a_worker_that_dies_is_one_line(tmp_path):
    with Worker("ours", "benchmarks.worker_ours", {"threads": 1}, tmp_path) as worker, \
            pytest.raises(UserError, match="the worker 'ours' ended with status 1"):
        worker.ask("describe")


def test_depths_share_their_files(tmp_path):
    """The first layers of both depths are the same bytes, and no value is a copy of another tensor's."""
    folders = write_checkpoints(TINY, [1, 2], ROOT / "base" / "tokenizer.model", tmp_path)
    first, second = (folders[depth] / "layer-0.safetensors" for depth in (1, 2))
    assert first.samefile(second) and not (folders[1] / "layer-1.safetensors").exists()
    assert (folders[2] / "layer-1.safetensors").read_bytes() != first.read_bytes()
    assert whole_numbers(["3", "1", "3"], "depths", 2) == [1, 3] and Job("ours", "label", FIRST, "packed").name


def test_template_names():
    from data.prompt import TEMPLATES as KNOWN

    assert set(TEMPLATES) == set(KNOWN)
