"""The parts of `benchmarks.gpu` walked on a card that is not there (tests/cuda/fake.py): the code that a rehearsal on a
CPU leaves out is called with what exists, in the order in which time is given to it.

Deliberate break: in benchmarks/card/speed.py call `make_trainer` with a word that it lacks where graphs are recorded,
or measure `small_card` last; in benchmarks/card/correct.py read a step's loss.
"""

from unittest import mock

import pytest
import torch

from benchmarks.card import correct, graphs, speed
from benchmarks.card.state import TEMPLATES, State
from benchmarks.checkpoint import LLAMA_3_2_3B
from model.config import LlamaConfig
from tests.cuda.fake import card

# What a CPU build lacks and only a measurement asks for.
CARD = {"synchronize": lambda device=None: None, "is_initialized": lambda: True,
        "set_sync_debug_mode": lambda mode: None, "reset_peak_memory_stats": lambda: None,
        "max_memory_allocated": lambda: 3_000_000_000, "max_memory_reserved": lambda: 4_000_000_000}


@pytest.fixture
def state(tmp_path, monkeypatch):
    """A card's state with one layer of 3B's widths, where everything runs once."""
    if torch.cuda.is_available():
        pytest.skip("benchmarks.gpu itself runs here")
    generator = torch.Generator
    with card():
        for name, value in CARD.items():
            monkeypatch.setattr(torch.cuda, name, value)
        monkeypatch.setattr(torch, "Generator", lambda device="cpu": generator())
        monkeypatch.setattr(State, "time", lambda self, work, rounds=5, warm=2: work() is None or 0.5)
        monkeypatch.setattr(State, "host", lambda self, work, rounds=3: work() is None or 0.25)
        monkeypatch.setattr(speed, "POSTS", 12)
        monkeypatch.setattr(graphs, "STEPS", 4)
        made = State(tmp_path / "figures.json", seconds=1e6)
        made.__dict__["config"] = LlamaConfig.from_dict(LLAMA_3_2_3B | {"num_hidden_layers": 1})
        yield made


def names(state: State, start: str = "") -> list[str]:
    return [figure.what for figure in state.figures if figure.what.startswith(start)]


def test_labelling_measures_all_that_fills_a_card_first_and_merged_weights_against_their_own_products(state):
    speed.make_large(state)
    speed.labelling(state)
    rates = [name for name in names(state, "label, ") if "products alone" not in name]
    places = {tokens: [place for place, name in enumerate(rates) if tokens in name] for tokens in ("16,384", "4,096")}
    assert max(places["16,384"]) < min(places["4,096"]) and len(rates) == 2 * (4 + 3)
    assert [name for name in names(state, "label, ") if "products alone" in name] == [
        f"label, {template}{merged}: products alone" for template in TEMPLATES for merged in ("", ", merged")]


@pytest.mark.slow
def test_training_measures_what_has_a_goal_before_what_takes_longest(state):
    speed.training(state)
    found = [name for name in names(state, "train, ") if "products alone" not in name]
    small = [f"train, {template}, 16 posts a step within 4 GB, NF4" for template in TEMPLATES[::-1]]
    recorded = [f"train, {template}, {size} posts a step, {kind}" for template in TEMPLATES[::-1] for size in (64, 16)
                for kind in ("resident", "NF4")]
    assert found == [*small, *recorded, *(f"{name}, launch after launch" for name in recorded)]
    goals = {figure.goal for figure in state.figures}
    assert {"4 GB", "50%"} < goals


@pytest.mark.slow
def test_nothing_waits_where_the_walk_looks_for_it(state):
    correct.synchronisations(state)
    assert len(names(state, "waits in a recorded training step")) == 2
    assert len(state.figures) == 6 and all(figure.met for figure in state.figures)


def test_a_part_whose_time_is_over_ends_by_itself(state):
    """It would be stopped, and the next part would have to make the model anew."""
    state.seconds = 0.0
    with mock.patch.object(speed, "small_card"):
        for part in (speed.labelling, speed.training, speed.attentions, graphs.compare):
            part(state)
    assert not state.figures
