"""From step to step: memory that runs out, state that goes on in the same bits, evaluation, patience, checkpoints.

Deliberate break: take `torch.set_rng_state` out of `loop.Trainer.load_state`; with dropout the bits differ. Or leave
`optimizer.zero_grad` out of `_accumulate`; the halved step turns red.
"""

import io
import math

import pytest
import torch

from common.errors import UserError
from finetune import loop
from finetune.fit import Watch, fit
from finetune.loop import batch_loss
from tests.finetune.test_loop import close, make_model, make_rows, trainer


def test_out_of_memory_halves_the_micro_batch_and_nothing_else(monkeypatch):
    rows, prefix = make_rows(4)
    runs = {}
    for limit in (10_000, 45):  # 45 tokens fit: 160 -> 80 -> 40
        model = make_model(torch.float64)
        some = trainer(model, rows, prefix, 160)

        def fails(model, batch, *rest, limit=limit):
            loss = batch_loss(model, batch, *rest)
            if len(batch.tokens) > limit:
                loss.backward()  # what a failed try has already added must not stay
                raise torch.OutOfMemoryError("CUDA out of memory")
            return loss

        monkeypatch.setattr(loop, "batch_loss", fails)
        lines = [some.step(), some.step()]
        runs[limit] = (some, lines, parameters(some))
    whole, cut = runs[10_000], runs[45]
    assert (whole[0].halvings, whole[0].micro_tokens) == (0, 160) and (cut[0].halvings, cut[0].micro_tokens) == (2, 40)
    assert [line["step"] for line in cut[1]] == [1, 2] and cut[0].state()["halvings"] == 2
    for ours, other in zip(whole[1], cut[1], strict=True):
        assert ours["loss"].item() == pytest.approx(other["loss"].item(), abs=1e-10)
        assert ours["grad_norm"].item() == pytest.approx(other["grad_norm"].item(), rel=1e-10)
    # AdamW's first steps divide by the gradient's own size: rounding of 1e-16 may grow where that is almost 0.
    close(cut[2], whole[2], 1e-8)


def test_a_post_that_does_not_fit_is_told_in_words(monkeypatch):
    rows, prefix = make_rows(4)

    def fails(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(loop, "batch_loss", fails)
    with pytest.raises(UserError, match=f"step 1: one post of {max(len(row.ids) for row in rows)} tokens does not fit"):
        trainer(make_model(torch.float32), rows, prefix, 500).step()


def parameters(some) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in some.named.items()}


def through_a_file(state: dict) -> dict:
    """A checkpoint as train.py reads it: nothing but tensors and plain values."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, map_location="cpu", weights_only=True)


def shuffled(count: int):
    return lambda epoch: torch.randperm(count, generator=torch.Generator().manual_seed(epoch)).tolist()


@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize("kind", ["label", "text"])
def test_a_resumed_run_ends_in_the_same_bits(dropout, kind):
    """Stopped after each number of steps, in the middle of an epoch and at its end, before the first step and last."""
    rows, prefix = make_rows(4, whole=kind == "text")
    fresh = lambda: trainer(make_model(torch.float32, dropout=dropout), rows, [] if dropout else prefix, 60,  # noqa: E731
                            order=shuffled(9), batch_size=4, steps=6, loss=kind, weight_decay=0.1)
    torch.manual_seed(1)
    whole, states, lines = fresh(), [], []
    for _ in range(6):
        states.append(through_a_file(whole.state()))
        lines.append(whole.step())
    states.append(through_a_file(whole.state()))
    assert whole.steps_per_epoch == 3 and [line["posts"] for line in lines] == [4, 4, 1, 4, 4, 1]
    for stopped, state in enumerate(states):
        torch.manual_seed(99)  # what else was drawn since must not matter
        torch.rand(5)
        resumed = fresh()
        resumed.load_state(state)
        assert resumed.step_count == stopped
        for line in lines[stopped:]:
            again = resumed.step()
            assert all(torch.equal(torch.as_tensor(again[key]), torch.as_tensor(line[key])) for key in line)
        assert all(torch.equal(p, parameters(whole)[name]) for name, p in parameters(resumed).items())


def test_a_state_keeps_how_steps_are_cut_and_is_of_one_set_of_adapters():
    rows, prefix = make_rows(4)
    some = trainer(make_model(torch.float32), rows, prefix, 40, checkpointing=True)
    some.halvings = 2
    state = through_a_file(some.state())
    other = trainer(make_model(torch.float32), rows, prefix, 9999)
    other.load_state(state)
    assert (other.micro_tokens, other.halvings, other.checkpointing) == (40, 2, True)
    with pytest.raises(ValueError, match="another set of adapters"):
        trainer(make_model(torch.float32, targets=["q_proj"]), rows, prefix).load_state(state)


def test_places_follow_from_the_step_alone():
    some = trainer(make_model(torch.float32), make_rows(4)[0], order=shuffled(9), batch_size=4)
    forward = [some.indices(step) for step in range(9)]
    assert [some.indices(step) for step in reversed(range(9))] == forward[::-1]
    for epoch in range(3):
        assert [place for part in forward[3 * epoch : 3 * epoch + 3] for place in part] == shuffled(9)(epoch)


class Told:
    """Records what `fit` does; scores come from a list, losses from a trainer that only counts."""

    def __init__(self, steps: int, scores=None, loss=lambda step: 1 / step):
        self.total_steps, self.step_count, self.scores, self.loss = steps, 0, scores, loss
        self.logged, self.saved, self.best, self.shown = [], [], [], []

    def step(self):
        self.step_count += 1
        return {"step": self.step_count, "loss": torch.tensor(self.loss(self.step_count)), "grad_norm": torch.ones(()),
                "lr": 0.1}

    def fit(self, watch=None, **changes):
        values = dict(eval_every=3, save_every=100, patience=0) | changes
        evaluate = None if self.scores is None else lambda: (self.scores[self.step_count], {"macro_f1": 0.5})
        return fit(self, watch or Watch(), evaluate=evaluate, on_best=lambda: self.best.append(self.step_count),
                   save=lambda: self.saved.append((self.step_count, len(self.logged))),
                   log=self.logged.append, show=self.shown.append, **values)


def test_evaluation_comes_every_so_often_and_at_the_end_and_keeps_the_first_of_the_best():
    told, watch = Told(8, {3: 0.5, 6: 0.7, 8: 0.7}), Watch()
    assert told.fit(watch) == "all steps"
    assert told.best == [3, 6] and watch == Watch(0.7, 6, 1)
    assert [line["step"] for line in told.logged if "loss" in line] == list(range(1, 9))
    assert [line["step"] for line in told.logged if "validation" in line] == [3, 6, 8]
    # Saved where it was evaluated, with every line of the steps so far in the log: 8 steps and 3 evaluations.
    assert told.saved == [(3, 4), (6, 8), (8, 11)]
    assert all(isinstance(line["loss"], float) for line in told.logged if "loss" in line) and len(told.shown) == 8


def test_without_validation_posts_it_saves_every_so_often():
    told = Told(45)
    assert told.fit(save_every=20) == "all steps" and told.best == []
    assert told.saved == [(20, 20), (40, 40), (45, 45)]


def test_patience_ends_training_also_when_the_end_is_what_was_killed():
    scores = {3: 0.5, 6: 0.4, 9: 0.5, 12: 0.9}
    told, watch = Told(12, scores), Watch()
    assert told.fit(watch, patience=2) == "no gain in 2 evaluations"
    assert told.step_count == 9 and told.saved[-1][0] == 9 and told.best == [3]
    # Killed after that last checkpoint and resumed from it: not one step more.
    again = Told(12, scores)
    again.step_count = 9
    assert again.fit(Watch(0.5, 3, 2), patience=2) == "no gain in 2 evaluations"
    assert again.step_count == 9 and not again.logged
    assert Told(12, scores).fit(patience=0) == "all steps"


def test_a_loss_that_is_no_number_ends_the_run_before_anything_is_kept():
    told = Told(12, dict.fromkeys(range(13), 0.9), loss=lambda step: math.nan if step == 5 else 1.0)
    with pytest.raises(UserError, match=r"step 5: the loss is nan .* smaller --learning-rate"):
        told.fit()
    assert [step for step, *_ in told.saved] == [3] and told.best == [3]
    assert [line["step"] for line in told.logged if "loss" in line] == [1, 2, 3, 4]


def test_watch():
    watch = Watch()
    assert [watch.update(score, step) for step, score in enumerate([0.2, 0.2, 0.1, 0.3, 0.0])] == [
        True, False, False, True, False]  # fmt: skip
    assert watch == Watch(best=0.3, best_step=3, without_gain=1)
