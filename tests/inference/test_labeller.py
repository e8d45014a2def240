"""The pipeline around the model: encoding ahead, results that are read late, and memory that runs out.

Deliberate breaks: in inference/labeller.py let `ahead` submit one item at a time; take the check for finite logits into
`give`'s loop; leave `self.micro_tokens //= 2` out (the test would never end, so it counts the tries); or leave out
`future.cancel()`.
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import count, islice
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from common.errors import UserError
from data.codebook import load_codebook
from data.prompt import Prompt
from inference import labeller
from inference.labeller import AHEAD, WINDOW, Labeller, ahead, label_probabilities
from model.tokenizer import load_tokenizer
from tests.small import posts, random_model, write_base


@pytest.fixture(scope="module")
def prompt(tmp_path_factory):
    tokenizer = load_tokenizer(write_base(tmp_path_factory.mktemp("base")))
    return Prompt(load_codebook(), tokenizer, "instruction-first", 140)


def some(number: int) -> list:
    return [SimpleNamespace(text=row["text"]) for row in posts(number, 4)]


def with_room(model, tokens: int):
    """The model on a device where no more than `tokens` fit at once; `model.tries` counts the batches."""
    whole, model.tries = model.answer_hidden, 0

    def answers(batch):
        model.tries += 1
        assert model.tries < 200
        if len(batch.tokens) > tokens:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(batch)

    model.answer_hidden = answers
    return model


def test_what_is_ahead_comes_in_order_from_one_thread_and_not_all_at_once():
    made, threads = [], set()

    def items():
        for number in count():
            threads.add(threading.get_ident())
            made.append(number)
            yield number

    stream = ahead(items())
    for number in range(10):
        assert next(stream) == number
        assert len(made) <= number + 1 + AHEAD
    stream.close()
    assert len(made) >= 10 and len(threads) == 1 and threading.get_ident() not in threads
    assert list(ahead(iter([]))) == [] and list(ahead(iter(range(3)))) == [0, 1, 2]


def test_whoever_stops_waits_for_one_item_alone(monkeypatch):
    """Ctrl-C in a notebook: a window of long posts takes seconds to encode, and nobody will read it."""
    made, goes_on = [], threading.Event()

    class Pool(ThreadPoolExecutor):
        def shutdown(self, *args, **kwargs):
            goes_on.set()
            super().shutdown(*args, **kwargs)

    def items():
        for number in range(5):
            made.append(number)
            yield number
            goes_on.wait()

    monkeypatch.setattr(labeller, "ThreadPoolExecutor", Pool)
    stream = ahead(items())
    next(stream)
    stream.close()
    assert made in ([0], [0, 1])


def test_an_error_of_the_thread_comes_where_its_item_would_have_come():
    def items():
        yield from range(3)
        raise UserError("row 4: is wrong")

    stream = ahead(items())
    assert list(islice(stream, 3)) == [0, 1, 2]
    with pytest.raises(UserError, match="row 4: is wrong"):
        next(stream)


def test_posts_before_an_error_are_labelled_and_those_without_text_have_no_probabilities(prompt):
    given = some(WINDOW + 3)
    for place in (0, 7, WINDOW - 1):
        given[place] = SimpleNamespace(text=" \u200b\n")

    def stream():
        yield from given
        raise UserError("posts.jsonl: row 1028: is wrong")

    model, shown = random_model(1), []
    windows = Labeller(model, prompt, show=shown.append).label(stream())
    first = next(windows)
    assert first.posts == given[:WINDOW] and sum(shown) == WINDOW - 3
    assert np.isnan(first.probabilities).all(1).nonzero()[0].tolist() == [0, 7, WINDOW - 1]
    filled = [place for place in range(WINDOW) if place not in (0, 7, WINDOW - 1)]
    rows = [prompt.encode(given[place].text) for place in filled]
    assert (first.probabilities[filled] == label_probabilities(model, prompt, rows)).all()
    with pytest.raises(UserError, match="row 1028"):
        next(windows)


def test_results_are_read_late(prompt):
    """Nothing is asked of the results until they are wanted, and then they are complete."""
    model = random_model(1)
    rows = [prompt.encode(post.text) for post in some(9)]
    expected = label_probabilities(model, prompt, rows)
    labeller = Labeller(model, prompt)
    waiting = labeller.give(rows)
    model.model.norm.weight.fill_(float("inf"))
    damaged = labeller.give(rows)  # no word yet
    assert (waiting() == expected).all()
    with pytest.raises(UserError, match="not finite"):
        damaged()


def test_memory_that_runs_out_halves_the_batches_and_changes_nothing(prompt):
    model, rows = random_model(1), [prompt.encode(post.text) for post in some(60)]
    expected, shown = label_probabilities(model, prompt, rows), []
    labeller = Labeller(with_room(model, 400), prompt, 4096, shown.append)
    assert (labeller.give(rows)() == expected).all()
    assert labeller.micro_tokens == 256 and labeller.halvings == 4 and sum(shown) == len(rows)
    assert "--micro-tokens 256" in labeller.remark() and Labeller(model, prompt).remark() == ""
    tries = model.tries
    assert (labeller.give(rows)() == expected).all()
    assert labeller.halvings == 4 and model.tries > tries  # the next window begins with what fits


def test_a_post_that_does_not_fit_alone_is_one_line(prompt):
    rows = [prompt.encode(post.text) for post in some(20)]
    longest = max(len(row.ids) for row in rows)
    with pytest.raises(UserError, match=f"one post of {longest} tokens does not fit into the device's memory; try"):
        Labeller(with_room(random_model(1), 20), prompt).give(rows)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_cuda_nothing_waits_between_two_windows(prompt, dtype):
    model = random_model(1).to("cuda", dtype)
    rows = [prompt.encode(post.text) for post in some(300)]
    labeller = Labeller(model, prompt, 1024)
    labeller.give(rows)()  # kernels are chosen and memory is taken at the first call
    torch.cuda.set_sync_debug_mode("error")
    try:
        first, second = labeller.give(rows), labeller.give(rows[::-1])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert np.abs(first() - second()[::-1]).max() < (1e-5 if dtype == torch.float32 else 0.02)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_cuda_a_window_is_read_when_the_next_is_given(prompt):
    model, given = random_model(1).to("cuda"), some(3 * WINDOW)
    labeller, asked = Labeller(model, prompt), []
    give = labeller.give
    labeller.give = lambda rows: asked.append(len(rows)) or give(rows)
    windows = labeller.label(given)
    assert len(next(windows).posts) == WINDOW and len(asked) == 2
    assert [len(window.posts) for window in windows] == [WINDOW, WINDOW]
