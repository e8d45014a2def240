"""GGUF files in llama.cpp: its logits beside ours, stories260K's tokens, and what the card tells others to run.

Deliberate break: leave `.transpose(1, 2)` out of `tools.export.gguf_file.interleaved`, write no rope_freqs.weight, or
give the writer another `rms_norm_eps`; cases below turn red.
"""

import re

import numpy
import pytest
import torch

from finetune.run_folder import RunFolder
from inference.generate import generate
from inference.run import open_model
from loading import load_model
from tests.small import posts, write_base
from tests.tools.exports import WHOLE, card, export, make_run
from tools.export.tensors import MergedTensors, build_model

pytest.importorskip("gguf")
pytest.importorskip("llama_cpp")
from tests.tools.gguf_files import KINDS, file_in, make_runs, merged, read, turned
from tools.export.gguf_file import gguf_name, write_gguf
from tools.export.llama_cpp import GGUFModel

# Beyond the original window of 64, where the stretch of the frequencies shows.
ROWS = torch.randint(6, 600, (8, 90), generator=torch.Generator().manual_seed(0)).tolist()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return make_runs(tmp_path_factory.mktemp("runs"))


def in_llama_cpp(path, rows=ROWS):
    model = GGUFModel(path, 512)
    found = numpy.stack([model.logits(row) for row in rows])
    model.close()
    return torch.from_numpy(found)


@torch.no_grad()
def ours(model, rows=ROWS):
    return torch.stack([model(torch.tensor([row]))[0, -1] for row in rows])


def gap(found, right):
    return float((found - right).norm() / right.norm())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", ["tied", "untied"])
def test_logits_in_llama_cpp(runs, tmp_path, kind, shape):
    """On the weights that are in the file the logits differ by what llama.cpp rounds in between: to 11 bits in F16
    (measured: 0.1 %), to 8 bits in blocks otherwise (measured: 1 to 2 %). Wrong pairs or factors give more than 50 %.
    """
    run = runs["whole"]
    if shape == "untied":
        base = write_base(tmp_path / "base", **WHOLE, tie_word_embeddings=False, attention_bias=True, mlp_bias=True)
        run = make_run(tmp_path / "run", runs["trained"], base, size=0.3)
    export(run, f"gguf-{kind}", tmp_path / "out")
    path, tensors = file_in(tmp_path / "out"), merged(run)
    _, found = read(path)
    rounded = {name: found[gguf_name(name)][1] for name in tensors}
    back = {name: tensor.clone() for name, tensor in rounded.items()}
    for name in tensors:  # the rows back into halves
        place = turned(name, torch.arange(len(rounded[name])), tensors.config)
        back[name][place] = rounded[name]
    right = ours(build_model(tensors.config, back.items()))
    logits = in_llama_cpp(path)
    exact = ours(build_model(tensors.config, tensors.items()))
    assert gap(logits, right) < (0.005 if kind == "f16" else 0.05)
    assert gap(logits, exact) < {"f16": 0.005, "q8_0": 0.06, "q4_0": 0.6}[kind]


def test_llama_cpps_own_quantiser_takes_the_f16_file(runs, tmp_path):
    """The way to Q4_K_M; rows of 64 are too short for its blocks of 256, so llama.cpp falls back to coarser kinds."""
    from benchmarks.gguf_file import quantise

    export(runs["whole"], "gguf-f16", tmp_path / "out")
    quantise(file_in(tmp_path / "out"), tmp_path / "small.gguf", 1)
    assert gap(in_llama_cpp(tmp_path / "small.gguf"), in_llama_cpp(file_in(tmp_path / "out"))) < 0.6
    assert (tmp_path / "small.gguf").stat().st_size < file_in(tmp_path / "out").stat().st_size


def test_stories260k(shared_data, tmp_path):
    """Its 200 greedy tokens, with its own vocabulary; the lossy kinds tell another story from some token on."""
    source = shared_data / "checkpoints/stories260K"
    right = list(generate(load_model(source), [1], 200))
    firsts = {}
    for kind in KINDS:
        write_gguf(MergedTensors(source), source, tmp_path / f"{kind}.gguf", kind)
        model, ids = GGUFModel(tmp_path / f"{kind}.gguf", 512), [1]
        for _ in right:
            ids.append(int(model.logits(ids).argmax()))
        firsts[kind] = next((place for place, pair in enumerate(zip(ids[1:], right, strict=True)) if len({*pair}) > 1),
                            None)
        story = "".join(model._llama.detokenize([id]).decode() for id in ids[1:])
        model.close()
        if kind == "f16":
            assert story.strip() == (source / "stories260K_greedy200.txt").read_text().strip()
    assert firsts["f16"] is None and 10 < firsts["q4_0"] < firsts["q8_0"]


def test_the_cards_program_reads_the_runs_labels_from_the_file(runs, tmp_path):
    from tests.tools.test_export import snippet  # needs transformers and peft

    export(runs["whole"], "gguf-f16", tmp_path / "out")
    code = re.search(r"```python\n(.*?)\n```", card(tmp_path / "out"), re.DOTALL)[1]
    label = snippet(code, FOLDER=tmp_path / "out")
    model, prompt = open_model(RunFolder.open(runs["whole"]), model=None, device=torch.device("cpu"),
                               dtype=torch.float32)
    texts = [row["text"] for row in posts(12, seed=5)]
    right = ours(model, [prompt.encode(text).ids for text in texts])[:, prompt.label_ids]
    clear = right.topk(2).values.diff().abs()[:, 0] > 0.05  # more than 16 bits blur
    found = [label(text) for text in texts]
    labels = [prompt.codebook.labels[place] for place in right.argmax(1)]
    assert [pair for pair, sure in zip(zip(found, labels, strict=True), clear, strict=True) if sure and len({*pair}) > 1
            ] == [] and clear.sum() > 8
