"""A post's probabilities are the same bits in any company: batch size, order, neighbours and threads of its batch.

What it rests on, each held here: products of a multiple of sixteen rows give each row the same bits however many rows
there are; attention goes row by row; labels are read by product and sum; `silu` has one version.

Deliberate break: in `model.attention._fused` let `rest` be 0 (the test of another processor's code turns red); in
`inference/labeller.py` leave `multiple=ROWS` out and in `model.llama.answer_hidden` let `fill` be 0, or in
`model.layers.silu` call PyTorch's: the test of posts in company turns red (the latter with three threads).
"""

import os
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from common.files import ROOT
from common.packed import ROWS, Layout
from common.product import matmul
from data.codebook import load_codebook
from data.prompt import TEMPLATES, Prompt
from inference import labeller
from inference.exact import Tiled, tile_products
from inference.labeller import label_probabilities
from lora.inject import inject, trainable_parameters
from model.attention import attend_sdpa, attend_softmax
from model.layers import silu
from model.tokenizer import load_tokenizer
from quant.convert import replace_linears
from tests.data.prompts import NASTY
from tests.small import posts, random_model, write_base

# Odd widths too: nothing may rest on a vector's length dividing them.
SIZES = {"small": {}, "wide": dict(hidden_size=256, intermediate_size=688, num_attention_heads=8, head_dim=32),
         "odd": dict(hidden_size=72, intermediate_size=164, num_attention_heads=6, num_key_value_heads=3, head_dim=12),
         "two-mod-four": dict(hidden_size=60, num_attention_heads=3, num_key_value_heads=1, head_dim=10)}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return load_tokenizer(write_base(tmp_path_factory.mktemp("base")))


@pytest.fixture
def threads():
    """Sets PyTorch's threads; three do not divide a batch into whole vectors."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def adapted(size: str, quantize: bool):
    """A random model of one of `SIZES` with an adapter that adds something, its linears in NF4 or dense."""
    model = random_model(2, **SIZES[size])
    if quantize:
        replace_linears(model)
    inject(model, "all-linear", 5, 8, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        for parameter in trainable_parameters(model).values():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(6)) * 0.05)
    return model


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("quantize", "template"), [(True, TEMPLATES[0]), (False, TEMPLATES[1])])
def test_a_posts_probabilities_are_the_same_bits_in_any_company(tokenizer, threads, size, quantize, template,
                                                                monkeypatch):
    prompt = Prompt(load_codebook(), tokenizer, template, max_tokens=140)
    rows = [prompt.encode(text) for text in [*NASTY, *(row["text"] for row in posts(8, 5))]]
    model = adapted(size, quantize)
    for count in (1, 3):
        threads(count)
        alone = np.concatenate([label_probabilities(model, prompt, [row]) for row in rows])
        assert len({row.tobytes() for row in alone}) > 10  # the posts differ, so a mix-up would show
        draw = random.Random(count)
        for micro_tokens in (400, 100_000):
            order = list(range(len(rows)))
            draw.shuffle(order)
            order = order[: draw.randint(1, len(order))]
            monkeypatch.setattr(labeller, "WINDOW", draw.choice([1, 7, 1024]))
            found = label_probabilities(model, prompt, [rows[place] for place in order], micro_tokens=micro_tokens)
            assert found.tobytes() == alone[order].tobytes()


def test_products_in_tiles_of_one_shape_give_the_same_bits_too(tokenizer):
    """What --exact does on a GPU, on a CPU: the same labels, and bits that no neighbour changes."""
    prompt = Prompt(load_codebook(), tokenizer)
    rows = [prompt.encode(row["text"]) for row in posts(12, 5)]
    model = random_model(2, **SIZES["wide"])
    replace_linears(model)
    inject(model, "all-linear", 5, 8, generator=torch.Generator().manual_seed(5))
    plain = label_probabilities(model, prompt, rows)
    tile_products(model, 64)
    found = label_probabilities(model, prompt, rows)
    alone = np.concatenate([label_probabilities(model, prompt, [row]) for row in rows])
    assert found.tobytes() == alone.tobytes() and np.abs(found - plain).max() < 1e-6
    shapes = set()
    for module in model.modules():
        if isinstance(module, Tiled):
            module.base.register_forward_hook(lambda _, inputs, out: shapes.add(len(inputs[0])))
    label_probabilities(model, prompt, rows, micro_tokens=300)
    assert shapes == {64}


@pytest.mark.parametrize("shape", [(256, 688), (96, 64), (320, 20), (20, 320), (1024, 512), (72, 164), (5, 36)])
def test_a_products_rows_do_not_depend_on_how_many_there_are(threads, shape):
    weight = torch.randn(shape[1], shape[0], generator=torch.Generator().manual_seed(1))
    x = torch.randn(2608, shape[0], generator=torch.Generator().manual_seed(2))
    z = torch.randn(2608, shape[1], generator=torch.Generator().manual_seed(3))
    for count in (1, 2, 3):
        threads(count)
        for add in (None, z):
            whole = matmul(x, weight, add=add)
            for rows in (ROWS, 3 * ROWS, 7 * ROWS, 1040):
                for start in (0, 5, 2608 - rows):  # and not on their places
                    some = slice(start, start + rows)
                    assert matmul(x[some], weight, add=None if add is None else z[some]).equal(whole[some])


def test_silu_has_one_version_and_is_silu(threads):
    x = torch.randn(999, generator=torch.Generator().manual_seed(1)) * 5
    with torch.no_grad():
        one = torch.cat([silu(x[i : i + 1]) for i in range(999)])
        threads(3)
        big = silu(x.repeat(400))
        assert big.equal(one.repeat(400))
        torch.testing.assert_close(one, F.silu(x), atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(silu(x.double()), F.silu(x.double()), atol=1e-15, rtol=1e-15)
        far = silu(torch.tensor([-1000.0, 1000.0, 0.0]))
        assert far.tolist() == [0.0, 1000.0, 0.0]
    assert silu(x.bfloat16()).equal(F.silu(x.bfloat16()))


@pytest.mark.parametrize("how", ["row", "last token", "behind a prefix"])
@pytest.mark.parametrize("head_dim", [2, 6, 8, 10, 18, 66])
def test_a_rows_attention_does_not_depend_on_its_address(how, head_dim):
    """One row of 1 to 40 tokens behind 0 to 8 others: its place decides where its vectors lie within 16 bytes."""
    heads, generator = (3, 1, 1), torch.Generator().manual_seed(head_dim)
    prefix = 4 if how == "behind a prefix" else 0
    for length in (1, 2, 3, 5, 9, 40):
        front, own, rest = ([torch.randn(count, number, head_dim, generator=generator) for number in heads]
                            for count in (prefix, length, 8))
        found = []
        for place in range(9):
            q, k, v = (torch.cat([a, c[:place], b, c]) for a, b, c in zip(front, own, rest, strict=True))
            start = prefix + place
            layout = Layout(tuple(sorted({prefix, start, start + length, start + length + 8})), prefix)
            wanted = slice(start, start + length)
            right = attend_softmax(q, k, v, layout)[wanted]
            if how != "row":
                tokens = [*[start + length] * place, start + length - 1]
                layout, q, wanted, right = layout.with_queries(tokens), q[tokens], slice(place, None), right[-1:]
            found.append(attend_sdpa(q, k, v, layout)[wanted])
            torch.testing.assert_close(found[-1], right, atol=1e-6, rtol=1e-5)
        assert all(one.equal(found[0]) for one in found), length


def test_nor_does_it_with_the_code_that_mkl_takes_on_other_processors():
    """MKL can be told to compute as on an older processor, as it does by itself on some; tests from above, run so."""
    chosen = "does_not_depend_on_its_address or any_company and two-mod-four"
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", __file__, "-k", chosen]
    environment = os.environ | {"MKL_ENABLE_INSTRUCTIONS": "SSE4_2", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and " passed" in done.stdout, done.stdout
