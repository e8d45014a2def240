"""Which recipe a base gets where the user says nothing, by its size alone, and how many epochs few posts make.

Deliberate break: in finetune/defaults.py let `fill_in` ignore `options.given`, or `enough_epochs` return the option.
"""

import json
import re
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest

from common.errors import UserError
from common.files import ROOT
from common.options import parse_options
from finetune.defaults import LEAST_STEPS, MOST_EPOCHS, SMALL_FROM, enough_epochs, fill_in
from finetune.learning import FEW_STEPS
from finetune.options import DEMO, PRESETS, SMALL, SMALL_MODEL, TrainOptions
from finetune.recorded import is_demonstration
from finetune.resume import check_same
from finetune.run_folder import next_run
from loading.choice import SMALL_BELOW

SMOLLM2 = {"model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
           "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152, "tie_word_embeddings": True}
SIZES = {"135 million": {}, "1 billion": {"hidden_size": 2304, "intermediate_size": 6144, "num_hidden_layers": 20},
         "a toy": {"hidden_size": 72, "intermediate_size": 100, "num_hidden_layers": 2}}


def given(*words) -> TrainOptions:
    options = parse_options(TrainOptions, list(words), program="train.py", description="", presets=PRESETS)
    fill_in(options)
    return options


@pytest.fixture(params=SIZES)
def base(request, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(SMOLLM2 | SIZES[request.param]))
    return request.param, str(tmp_path)


def test_a_base_of_some_hundred_million_parameters_has_its_own_recipe(base):
    size, folder = base
    options, plain = given("--model", folder), TrainOptions()
    for key, value in SMALL_MODEL.items():
        assert getattr(options, key) == (value if size == "135 million" else getattr(plain, key)), key
    assert options.least_steps == (LEAST_STEPS if size == "135 million" else 0)
    assert given("--model", folder, "--group-by-length").balance == "none"  # who asks for an order gets it
    assert given("--model", folder, "--class-weights").balance == "none"  # which lets labels count equally already
    with pytest.raises(UserError, match="--class-weights and --balance label: each lets all labels count the same"):
        given("--model", folder, "--class-weights", "--balance", "label")
    options = given("--model", folder, "--learning-rate", "3e-4", "--epochs", "1")
    assert (options.learning_rate, options.epochs, options.least_steps) == (3e-4, 1, 0)
    assert given("--model", folder, "--preset", "paper").schedule == "constant"


def test_the_projects_own_base_keeps_its_recipes():
    shipped, mine = given(), given("--data", "posts.csv")
    assert all(getattr(shipped, key) == value for key, value in (SMALL | DEMO).items())
    assert all(getattr(mine, key) == value for key, value in SMALL.items()) and not mine.languages
    assert shipped.least_steps == mine.least_steps == 0
    assert not given("--rows", "rows.json").languages  # the file says which posts, not the demonstration


def test_a_run_that_goes_on_keeps_the_epochs_that_it_began_with():
    options = parse_options(TrainOptions, ["--resume", "--out", "x"], program="train.py", description="")
    options.least_steps = LEAST_STEPS  # as for a base of this size where nothing is said of epochs
    run = SimpleNamespace(path="x", facts={"options": {"epochs": 2}, "environment": {"threads": 1}})
    check_same(run, options)
    assert enough_epochs(options, 14) == options.epochs == 2


def test_only_two_languages_of_the_sample_posts_are_the_demonstration():
    def made(**changes):
        options = asdict(TrainOptions(**{"languages": DEMO["languages"]} | changes))
        return SimpleNamespace(facts={"options": json.loads(json.dumps(options))})

    assert is_demonstration(made()) and not is_demonstration(made(languages=["en", "de"]))
    assert not is_demonstration(made(languages=[])) and not is_demonstration(made(rows="rows.json"))


def test_a_run_is_named_by_its_languages_and_lies_in_one_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert next_run(["en", "es"]) == Path("runs/en-es-1") and next_run(["en", "pt/br"]) == Path("runs/en-pt-br-1")


@pytest.mark.parametrize("steps, epochs", [(212, 2), (1000, 2), (100, 3), (20, MOST_EPOCHS), (1, MOST_EPOCHS)])
def test_few_posts_are_seen_more_often(steps, epochs):
    options = TrainOptions(epochs=2)
    assert enough_epochs(options, steps) == 2
    options.least_steps = LEAST_STEPS
    assert enough_epochs(options, steps) == epochs


def test_the_page_on_recipes_has_those_of_the_code():
    """Its first table: base -> rate, schedule, batches, epochs, and the rest in words."""
    page = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    shown = dict(re.findall(r"^\| ([^|]+) \| (rate [^|]+) \| [^|]+ \|$", page, re.MULTILINE))

    def recipe(options: TrainOptions) -> str:
        rate = f"{options.learning_rate:.0e}".replace("e-0", "e-")
        return f"rate {rate} {options.schedule}, batches of {options.batch_size}, {options.epochs} epochs"

    small, large = TrainOptions(**SMALL_MODEL), TrainOptions()
    nf4 = f", {SMALL['quantize'].upper()}"
    assert shown["the small base, 13 million parameters"] == recipe(TrainOptions(**SMALL)) + nf4
    assert shown["the same in `make demo`"] == recipe(TrainOptions(**SMALL | DEMO)) + nf4
    assert shown["larger, such as Llama 3.2 1B and 3B"] == recipe(large)
    assert small.balance == "label" and shown["50 to 500 million, such as SmolLM2-135M"] == (
        f"{recipe(small)}, more if that makes fewer than {LEAST_STEPS} steps (at most {MOST_EPOCHS}), labels drawn "
        "equally often and in rounds, dense")
    assert (SMALL_FROM, SMALL_BELOW) == (50_000_000, 500_000_000) and f"warns below {FEW_STEPS}" in page
