"""The adapter's figures against dense updates, an adapter left out against one whose B is zero, the probe.

Deliberate break: leave `layer.scaling` out of `thin_svd`; switch the adapter off by its base; or let `cross_validated`
learn from the part that it labels.
"""

import math

import numpy as np
import pytest
import torch

from audit import sections
from audit.adapter import adapter, angles, compare, effective_rank, norms, switched_off
from audit.change import change, macro_f1
from audit.probe import cross_validated, folds, overlap, probe, states, too_few
from common.errors import UserError
from data.batching import make_batch
from lora.inject import adapters
from lora.layer import LoRALinear
from lora.update import thin_svd
from model.layers import Linear
from report.intervals import wilson
from stats.predictions import Rows
from tests.audit.conftest import make, subject_of


def layer(seed: int, out: int = 7, size: int = 11, r: int = 3) -> LoRALinear:
    torch.manual_seed(seed)
    made = LoRALinear.from_base(Linear(size, out), r, 2.0)
    torch.nn.init.normal_(made.base.weight)
    torch.nn.init.normal_(made.lora_B)
    return made.requires_grad_(False)


def update(of: LoRALinear) -> torch.Tensor:
    return (of.lora_B.double() @ of.lora_A.double()) * of.scaling


def test_norms_and_spectrum_are_those_of_the_dense_update():
    model = torch.nn.ModuleDict({"one": layer(1), "two": layer(2, r=5)})
    for row, of in zip(norms(model), model.values(), strict=True):
        values = torch.linalg.svdvals(update(of))[: of.r]
        assert row["singular_values"] == pytest.approx(values.tolist(), rel=1e-9)
        assert row["update_norm"] == pytest.approx(float(update(of).norm()), rel=1e-9)
        assert row["ratio"] == pytest.approx(float(update(of).norm() / of.base.weight.double().norm()), rel=1e-6)
        shares = (values / values.sum()).tolist()
        assert row["effective_rank"] == pytest.approx(math.exp(-sum(p * math.log(p) for p in shares)), rel=1e-9)


def test_effective_rank_counts_equal_directions():
    assert effective_rank(torch.ones(4, dtype=torch.float64)) == pytest.approx(4)
    assert effective_rank(torch.zeros(0, dtype=torch.float64)) == 0


def test_the_parts_make_the_update_again():
    of = layer(3)
    left, values, right = thin_svd(of)
    torch.testing.assert_close((left * values) @ right.T, update(of))
    of.lora_B.zero_()
    assert len(thin_svd(of)[1]) == 0 and norms(torch.nn.ModuleDict({"x": of}))[0]["effective_rank"] == 0
    assert angles(of, layer(4))["cosine"] is None


def test_angles_are_those_of_the_dense_updates():
    one, two = layer(5), layer(6, r=2)
    found, u, v = angles(one, two), update(one), update(two)
    assert found["cosine"] == pytest.approx(float((u * v).sum() / (u.norm() * v.norm())), rel=1e-6)
    for key, bases in (("writes", (u, v)), ("reads", (u.T, v.T))):
        p, q = (torch.linalg.svd(part, full_matrices=False)[0][:, :rank] for part, rank in zip(bases, (3, 2),
                                                                                              strict=True))
        cosines = torch.linalg.svdvals(p.T @ q)
        assert found[key] == pytest.approx(float(cosines.square().mean()), rel=1e-6)
    assert found["writes_by_chance"] == 3 / 7 and found["reads_by_chance"] == 3 / 11
    same = angles(one, one)
    assert [same[key] for key in ("cosine", "writes", "reads")] == pytest.approx([1, 1, 1])


def test_random_updates_overlap_as_much_as_chance_says():
    found = [angles(layer(2 * seed, 40, 50), layer(2 * seed + 1, 40, 50)) for seed in range(40)]
    assert np.mean([row["writes"] for row in found]) == pytest.approx(3 / 40, rel=0.15)
    assert np.mean([row["reads"] for row in found]) == pytest.approx(3 / 50, rel=0.15)


def test_an_adapter_left_out_is_one_whose_b_is_zero(subject):
    before = subject.probabilities()
    found = adapter(subject, before, draws=20)
    assert len(found["off"]) == len(found["matrices"]) == 14
    name = found["off"][0]["name"]
    left_out = adapters(subject.model)[name]
    kept = left_out.lora_B.clone()
    with torch.no_grad():
        left_out.lora_B.zero_()
    after = subject.probabilities()
    with torch.no_grad():
        left_out.lora_B.copy_(kept)
    assert found["off"][0] == {"name": name, "matrices": 1, **change(subject.table, before, after, 20)}
    assert np.array_equal(subject.probabilities(), before)
    layers = adapter(subject, before, level="layer", draws=0)
    assert [row["matrices"] for row in layers["off"]] == [7, 7] and layers["all"]["flips"] == found["all"]["flips"]


def test_two_runs_are_compared_where_both_have_adapters(subject, place):
    other = subject_of(make(place, "attention", "--quantize", "nf4", "--targets", "q_proj", "v_proj"), place)
    rows = compare(subject.model, other.model, "other")
    assert [row["name"].rpartition(".")[2] for row in rows] == ["q_proj", "v_proj"] * 2
    assert all(-1 <= row["cosine"] <= 1 and 0 < row["writes"] <= 1 for row in rows)
    with pytest.raises(UserError, match="other: its adapter is on no linear"):
        compare(subject.model, torch.nn.ModuleDict({"x": layer(1)}), "other")


def test_states_are_those_of_each_post_alone(subject):
    found = states(subject)
    for index in (0, 7):
        with torch.inference_mode():
            batch = make_batch(subject.rows, [index])
            alone = subject.model.hidden(batch)[batch.answer_index]
        torch.testing.assert_close(found[index : index + 1], alone, rtol=1e-4, atol=1e-5)


def test_a_probe_finds_what_is_linear_and_nothing_in_noise():
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 3, 150)
    clusters = np.arange(150) // 2
    part = folds(clusters, 5, 0)
    assert all(len(set(part[clusters == cluster])) == 1 for cluster in clusters) and set(part) == set(range(5))
    noise = torch.from_numpy(draw.normal(size=(150, 20)).astype(np.float32))
    told = noise.clone()
    told[:, :3] += 4 * torch.nn.functional.one_hot(torch.from_numpy(labels), 3)
    right = [(cross_validated(x, labels, part, 3).argmax(1) == labels).mean() for x in (noise, told)]
    assert right[0] < 0.5 and right[1] > 0.9


def test_the_probe_of_few_posts_says_nothing_and_of_more_stands_beside_the_run(subject, monkeypatch):
    before = subject.probabilities()
    assert probe(subject, before) == {"why": "20 posts, and a probe learns from 50 or more"}
    monkeypatch.setattr("audit.probe.LEAST", 20)
    found = probe(subject, before)
    with switched_off(subject.model, adapters(subject.model)):
        alone = subject.probabilities()
    assert found["accuracy"]["base"] == (alone.argmax(1) == subject.table.gold).mean()
    assert found["accuracy"]["run"] == (before.argmax(1) == subject.table.gold).mean()
    assert found["accuracy_ci"]["run"] == list(wilson((before.argmax(1) == subject.table.gold).sum(), 20))
    answer = np.eye(4)[[np.bincount(subject.table.gold).argmax()] * 20]
    assert found["constant"] == {"accuracy": 0.3, "macro_f1": pytest.approx(macro_f1(subject.table, answer))}
    shown = sections.adapter({"off": [], "matrices": [], "all": change(subject.table, before, before, 0),
                              "level": "matrix", "probe": found})
    text = "".join(map(str, shown))
    assert "always the commonest label" in text and "interval of accuracy" in text
    assert set(found["macro_f1"]) == {"probe", "run", "base"} and found["posts"] == 20
    gold = subject.table.gold
    with switched_off(subject.model, adapters(subject.model)):
        x = states(subject)
    probed = cross_validated(x, gold, folds(subject.table.clusters, 5, 0), 4).argmax(1)
    learned = [i for i in range(20) if before[i].argmax() == gold[i] != alone[i].argmax()]
    assert found["learned"] == len(learned) and found["known"] == sum(probed[i] == gold[i] for i in learned)
    missed = [i for i in range(20) if before[i].argmax() != gold[i]]
    assert found["missed"] == len(missed) and found["missed_known"] == sum(probed[i] == gold[i] for i in missed)


@pytest.mark.parametrize("gold, clusters, words", [
    (np.zeros(60, int), np.arange(60), "all posts have one label"),
    (np.arange(60) % 3, np.zeros(60, int), "from 1 group, and a probe needs 5"),
    (np.arange(60) % 3, np.arange(60) % 4, "from 4 groups"), (np.arange(49) % 3, np.arange(49), "49 posts")])
def test_a_probe_that_could_not_learn_says_why(subject, gold, clusters, words):
    table = Rows(np.arange(len(gold)).astype(str), np.array(["en"] * len(gold)), gold, clusters, subject.table.grouping)
    assert words in too_few(table)
    assert too_few(Rows(np.arange(60).astype(str), np.array(["en"] * 60), np.arange(60) % 2, np.arange(60) % 5,
                        subject.table.grouping)) is None


def test_what_was_learned_and_known_is_counted_post_by_post():
    run, base, probed = (np.array([*map(int, row)], dtype=bool) for row in ("111100", "000110", "110110"))
    alone = np.arange(6)
    assert overlap(alone, run, base, probed) == {"learned": 3, "known": 2, "known_rate": 2 / 3,
                                                 "known_ci": list(wilson(2, 3)), "missed": 2, "missed_known": 1}
    low, high = overlap(np.array([0, 0, 1, 2, 3, 4]), run, base, probed)["known_ci"]  # two of the three by one author
    assert low < wilson(2, 3)[0] and high > wilson(2, 3)[1]
    assert overlap(alone, base, base, probed) == {"learned": 0, "known": 0, "known_rate": None, "known_ci": None,
                                                  "missed": 4, "missed_known": 2}
