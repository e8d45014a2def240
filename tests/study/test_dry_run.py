"""What a study will take: models counted once, steps by hand, one short measured run that leaves nothing behind.

Deliberate break: in study/dry_run.py keep the short folder (no `rmtree`), count a shared model twice (`unique` gives
all), or forget the limit `max_steps`. All turn red.
"""

import json

import pytest
import torch

from common.device import MachineOptions
from common.reading import read_toml
from study.dry_run import Measured, cells_table, dry_run, state, steps_of
from study.fits import asked_of, make_fits, unique
from study.inputs import read_material
from study.plan import load_plan
from study.runner import Runner, zero_shot

PLAN = """
[train]
epochs = 2
batch_size = 8
max_tokens = 200
[repeat]
seeds = [1]
draws = [1]
[sets]
en = { en = 20 }
multi = { en = 20, "*" = 2 }
[exposure]
base = "en"
languages = ["tr", "ko"]
rows = [4]
draws = [1]
placebos = ["steps"]
"""
HASHES = {"base": "b", "prompt instruction-first": "i"}


@pytest.fixture
def study(tmp_path):
    (tmp_path / "plan.toml").write_text(PLAN, encoding="utf-8")
    plan = load_plan(tmp_path / "plan.toml")
    material = read_material(plan)
    runner = Runner(plan, material, tmp_path / "new" / "out", MachineOptions(threads=1, device="cpu"), jobs=1,
                    device=torch.device("cpu"), dtype=torch.float32)
    return runner, [*make_fits(plan, material, HASHES), zero_shot(plan, HASHES)]


def finish(runner, fit, finished: bool = True):
    folder = runner.folder(fit) / "run"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"finished": finished}))


def columns(line: str) -> list[str]:
    return [word.strip() for word in line.split("  ") if word.strip()]


def test_models_are_counted_once_with_their_state(study):
    runner, fits = study
    models = unique(fits)
    assert len(fits) == 7 and [fit.title.split(",")[0] for fit in models] == [
        "en", "multi", "en + 4 tr (exposure)", "en + 4 ko (exposure)", "en", "zero-shot (zero-shot)"]
    finish(runner, fits[0])
    finish(runner, models[2], finished=False)
    assert [state(runner, fit) for fit in models] == ["done", "to do", "started", "to do", "to do", "done"]
    lines = [columns(line) for line in cells_table(runner, fits).splitlines()[2:]]
    assert lines == [["en", "1", "20", "1", "0", "0"], ["multi", "1", "44", "0", "0", "1"],
                     ["en, added languages", "2", "24", "0", "1", "1"],
                     ["en, placebo: steps", "1", "20", "0", "0", "1"], ["zero-shot", "1", "–", "1", "0", "0"]]


def test_a_name_with_an_emoji_reaches_train_py(study, tmp_path):
    """Deliberate break: let study/runner.py escape what is not ASCII."""
    runner, (fit, *_) = study
    names = {"text_column": "Text 💬", "codebook": "C:\\Jürgen Müller\\💬.toml", "targets": ("q_proj", "v_proj")}
    runner.write_options(fit, tmp_path, names)
    assert read_toml(tmp_path / "options.toml").items() >= (names | {"targets": ["q_proj", "v_proj"]}).items()


def test_a_model_that_two_parts_share_is_called_by_the_first(study):
    """A set's own model was "en (exposure)" in what is printed and in its file of answers."""
    runner, fits = study
    for fit in unique(fits):
        if fit.keys:
            finish(runner, fit)
    assert [fit.title for fit in runner.train_all(fits)] == [fit.title for fit in unique(fits)]


def test_steps_are_those_of_train(study):
    runner, fits = study
    models = unique(fits)
    # 20 rows in steps of 8: 3 an epoch, twice; 44: 6; 24: 3; the placebo: the 6 steps of 24 rows; the base: none
    assert [steps_of(runner, fit) for fit in models] == [6, 12, 6, 6, 6, 0]
    fits[0].options["max_steps"] = 4
    assert steps_of(runner, fits[0]) == 4


def test_seconds_are_what_is_missing(study):
    runner, fits = study
    measured = Measured(fits[0], start=5.0, step=2.0, load=1.0, post=0.1, memory=1, how="")
    posts, asked = len(runner.material.rows), asked_of(runner.plan, fits[0])
    assert measured.seconds(runner, fits[0], asked) == pytest.approx(5 + 6 * 2 + 1 + posts * 0.1)
    finish(runner, fits[0])
    assert measured.seconds(runner, fits[0], asked) == pytest.approx(1 + posts * 0.1)
    path = runner.answers_path(fits[0], asked[0])
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    assert measured.seconds(runner, fits[0], asked) == 0


def test_a_dry_run_measures_one_model_and_leaves_nothing(study, tmp_path):
    runner, fits = study
    said = dry_run(runner, fits)
    assert not (tmp_path / "new").exists()
    lines = said.splitlines()
    start = next(k for k, line in enumerate(lines) if line.strip().startswith("order"))
    models = [columns(line) for line in lines[start + 2 : start + 8]]
    assert [line[0] for line in models] == list("123456")
    assert models[1][1:5] == ["multi, instruction-first, seed 1, draw 1", "44", "12", "1"]
    assert all(line[5].endswith("s") and line[6].endswith("B") for line in models)
    assert "measured: en, instruction-first, seed 1, draw 1, 3 steps and 32 posts" in said
    assert lines[-1].startswith("total: ") and "one after another" in lines[-1]


def test_a_study_that_is_done_measures_nothing(study, monkeypatch):
    runner, fits = study
    for fit in unique(fits)[:-1]:
        finish(runner, fit)
    monkeypatch.setattr("study.dry_run.measure", None)
    assert "every model is trained; nothing was measured" in dry_run(runner, fits)
