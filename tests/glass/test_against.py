"""Two traces beside each other: against direct computation, models that part in a known place, and numpy alone.

Deliberate breaks: in glass/against.py take the first row for the answer's, forget the sum between the shared tokens,
or multiply `right` with `left2`; in glass/other.py load the base without the adapter.
"""

import shutil
from copy import deepcopy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from common.errors import UserError
from common.files import ROOT, read_json, write_json
from glass import recompute, trace
from glass.against import COMPARED, compared, principal_angles, updates
from glass.other import offered, other_run
from glass.verify import write_verification
from lora.inject import adapters, inject
from tests.small import needs, random_model

POST, LONGER = "They open the border.", "Wir öffnen die Grenze, und alle kommen."


@pytest.fixture(scope="module")
def dense(run):
    return other_run(run, "16-bit")


@pytest.fixture(scope="module")
def changed(run, tmp_path_factory):
    """Another run: a copy beside the first one, with other numbers in its adapter."""
    folder = run.folder.path.with_name("other")
    shutil.copytree(run.folder.path, folder)
    file, draw = folder / "adapter" / "adapter_model.safetensors", torch.Generator().manual_seed(0)
    save_file({name: x + 0.3 * x.std() * torch.randn(x.shape, generator=draw) for name, x in load_file(file).items()},
              file, metadata={"format": "pt"})
    return folder


def test_the_base_in_16_bits_is_the_file_s(run, dense):
    """The second run's weights are the file's own, its adapter the first one's, and its labels `load_run`'s of both."""
    weights = load_file(ROOT / "base" / "model.safetensors")
    assert list(adapters(dense.model)) == list(adapters(run.model)) != []
    for name, layer in adapters(dense.model).items():
        assert torch.equal(layer.base.dense_weight(torch.float32), weights[f"{name}.weight"].float())
        assert layer.lora_B is adapters(run.model)[name].lora_B and layer.lora_A is adapters(run.model)[name].lora_A
    found = compared(trace(run, POST), trace(dense, POST))
    for row, which in zip(found.by_name["against.labels"].probabilities, (run, dense), strict=True):
        np.testing.assert_allclose(row, list(which.label([POST])[0].probabilities.values()), atol=1e-6)


@pytest.mark.parametrize("post", [POST, LONGER])
def test_distances_are_those_computed_row_by_row(run, dense, post):
    one, two = trace(run, POST), trace(dense, post)
    found = compared(one, two)
    first, last = found.by_name["against.tokens"].shared.tolist()
    ids = [[token.id for token in side.tokens] for side in (one, two)]
    assert ids[0][:first] == ids[1][:first] and ids[0][len(ids[0]) - last :] == ids[1][len(ids[1]) - last :]
    assert (first, last) == (len(ids[0]), 0) if post == POST else min(first, last) > 5
    for number in range(len(one.layers)):
        stage, a, b = found.by_name[f"against.{number}"], one.layers[number], two.layers[number]
        for place, name in enumerate(COMPARED):
            part, tensor = name.split(".")
            rows = [getattr(getattr(side, part), tensor)[-1].double().flatten().numpy() for side in (a, b)]
            distance = np.sqrt(((rows[0] - rows[1]) ** 2).sum() / (rows[0] ** 2).sum())
            assert stage.distances[place].item() == pytest.approx(distance, rel=1e-6)
        for head, weights in enumerate(zip(a.attention.weights[:, -1].double(), b.attention.weights[:, -1].double(),
                                           strict=True)):
            whole = sum(abs(float(weights[0][i] - weights[1][i])) for i in range(first))
            whole += sum(abs(float(weights[0][-i] - weights[1][-i])) for i in range(1, last + 1))
            between = [float(w[first : len(w) - last].sum()) for w in weights]
            assert stage.heads[head].item() == pytest.approx((whole + abs(between[0] - between[1])) / 2, rel=1e-5)
        assert torch.equal(stage.reading, torch.cat([a.lens.probabilities, b.lens.probabilities]))
        if number < len(one.layers) - 1:
            for place in (0, first - 1, *([first + last - 1] if last else [])):
                at = place if place < first else place - first - last
                rows = [side.mlp.residual[at].double() for side in (a, b)]
                assert stage.tokens[place].item() == pytest.approx(((rows[0] - rows[1]).norm() / rows[0].norm()).item())


def test_two_posts_share_what_stands_ahead_of_them(run):
    """What comes before a post is computed without it: there the two do not differ by a bit, and behind it they do."""
    found = compared(trace(run, POST), trace(run, LONGER))
    first, last = found.by_name["against.tokens"].shared.tolist()
    assert first and last
    for number in range(len(found.layers) - 1):
        tokens = found.by_name[f"against.{number}"].tokens
        assert len(tokens) == first + last and not tokens[:first].any() and bool((tokens[first:] > 0).all())


def parts(found) -> tuple[list[int], int, int]:
    stage = found.by_name["against.parted"]
    return stage.differs.tolist(), int(stage.residual), int(stage.reading)


def test_where_they_part_is_where_one_was_changed(run):
    assert parts(compared(trace(run, POST), trace(run, POST))) == ([-1, -1], -1, -1)
    model = random_model(1, vocab_size=44_000, num_hidden_layers=4).eval()
    for name, place, layer in (("2.mlp.down_proj", [2, COMPARED.index("mlp.residual")], 2),
                               ("1.self_attn.v_proj", [1, COMPARED.index("values.v")], 1)):
        other = deepcopy(model)
        other.get_submodule(f"model.layers.{name}").weight.mul_(-3)
        pair = [trace(SimpleNamespace(model=one, prompt=run.prompt), POST) for one in (model, other)]
        found = compared(*pair)
        assert parts(found)[:2] == (place, layer)
        labels = [[one.layers[n].lens.probabilities.argmax() for n in range(4)] for one in pair]
        assert parts(found)[2] == next((n for n in range(4) if labels[0][n] != labels[1][n]), -1)


def test_two_adapters_angles_are_scipy_s(run):
    needs("scipy")
    from scipy.linalg import subspace_angles
    models = [random_model(7).eval() for _ in range(2)]
    for seed, rank, model in zip((0, 1), (3, 5), models, strict=True):
        draw = torch.Generator().manual_seed(seed)
        inject(model, ["q_proj", "down_proj"], r=rank, alpha=4, generator=draw)
        with torch.no_grad():
            for layer in adapters(model).values():
                layer.lora_B.normal_(generator=draw)
    pairs = {name: (layer, adapters(models[1])[name]) for name, layer in adapters(models[0]).items()}
    stage = updates(pairs)
    for row, layers in enumerate(pairs.values()):
        u, v = ((layer.scaling * layer.lora_B @ layer.lora_A).detach().double() for layer in layers)
        cosine = (u * v).sum() / (u.norm() * v.norm())
        assert stage.cosine[row].item() == pytest.approx(cosine.item(), abs=1e-6)
        for side, factor in (("writes", lambda layer: layer.lora_B), ("reads", lambda layer: layer.lora_A.T)):
            spaces = [factor(layer).detach().double().numpy() for layer in layers]
            theirs = np.degrees(np.sort(subspace_angles(*spaces)))
            np.testing.assert_allclose(stage.tensors[side][row, :3], theirs, rtol=1e-5)
            assert stage.tensors[side][row, 3:].isneginf().all()
        for place, update in enumerate((u, v)):
            np.testing.assert_allclose(stage.spectra[place, row, :3], np.linalg.svd(update, compute_uv=False)[:3],
                                       rtol=1e-5)
    assert principal_angles(torch.eye(5)[:, :2].double(), torch.eye(5)[:, 1:3].double()).tolist() == [0, 90]


def test_numpy_alone_agrees_and_a_planted_error_is_named(run, changed, tmp_path, capsys):
    other = other_run(run, str(changed))
    found = compared(trace(run, POST), trace(other, LONGER))
    write_verification(found, tmp_path / "check")
    assert recompute.main(tmp_path / "check") == 0, capsys.readouterr().out
    for name, tensor in (("against.1", "heads"), ("against.updates", "reads"), ("against.parted", "differs")):
        found = compared(trace(run, POST), trace(other, LONGER))
        with torch.inference_mode():
            found.by_name[name].tensors[tensor].view(-1)[0] += 1
        write_verification(found, tmp_path / name)
        capsys.readouterr()
        assert recompute.main(tmp_path / name) == 1
        said = capsys.readouterr().out.splitlines()
        assert [line.split()[1] for line in said if line.startswith("DIFFERS")] == [name]


def test_what_cannot_be_compared_is_said(run, changed, tmp_path):
    with pytest.raises(UserError, match="--against nf4: the run's weights have four bits already"):
        other_run(run, "nf4")
    with pytest.raises(UserError, match=r"--against 16bit: is no folder of a run.*did you mean.*16-bit"):
        other_run(run, "16bit")
    with pytest.raises(UserError, match=r"^--against: .*has no run.json"):
        other_run(run, str(tmp_path))
    facts = read_json(changed / "run.json", 10**6)
    small = SimpleNamespace(model=random_model(1, vocab_size=44_000), prompt=run.prompt, codebook=run.codebook,
                            folder=run.folder)
    with pytest.raises(UserError, match="its base has num_hidden_layers 3, not 2"):
        other_run(small, str(changed))
    few = SimpleNamespace(model=run.model, prompt=run.prompt, folder=run.folder,
                          codebook=SimpleNamespace(labels=run.codebook.labels[:2]))
    with pytest.raises(UserError, match="give a run with the same labels"):
        other_run(few, str(changed))
    assert offered(run) == {"16-bit": "the base in 16 bits", str(changed.resolve()): "the run other"}
    assert list(offered(run, str(changed))) == [str(changed), "16-bit"]
    unfinished = shutil.copytree(changed, changed.with_name("stopped"))
    other_base = facts["hashes"] | {"weights": dict.fromkeys(facts["hashes"]["weights"], "0" * 64)}
    for change in ({"finished": False}, {"hashes": other_base}):
        write_json(unfinished / "run.json", facts | change)
        assert "the run stopped" not in offered(run).values()
    shutil.rmtree(unfinished)
