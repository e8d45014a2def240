"""Pre-training from a teacher's vectors: the folder they lie in, the linear student, the targets, a tiny run.

Deliberate break: in `taught.Targets` take the vector of each text instead of that of its English original; in
`taught.ridge` leave out the strength; or in `mixed.Worker` do not copy the weights before a step. All turn red.
"""
# ruff: noqa: F401, F811  (fixtures are imported by name and then named as arguments)

import json
from types import SimpleNamespace

import pytest
import sentencepiece
import torch

from common.errors import UserError
from model.attention import attend_padded
from model.llama import LlamaForCausalLM
from tests.baselines.test_sentences import package
from tests.tools.test_pretrain import TINY, text_files
from tools.pretrain import __main__ as pretrain
from tools.pretrain import teacher
from tools.pretrain.batch import step_losses
from tools.pretrain.mixed import Worker
from tools.pretrain.start import RESERVED
from tools.pretrain.taught import Targets, ridge, taught_table, text_weights
from tools.pretrain.teacher import Taught, principal_axes, read_teacher, words_of
from tools.pretrain.text import Document

SMALL = [*TINY, "--dtype", "bfloat16", "--words-weight", "0", "--alone-share", "0.3", "--bare-share", "0.5"]


@pytest.fixture
def folder(package, text_files, tmp_path):
    """What the disguised package says about the invented texts; its `encode` counts letters."""
    (tmp_path / "alone.jsonl").write_text("".join(json.dumps({"text": f"kalo mine {k} sati", "language": "en"}) + "\n"
                                                  for k in range(9)))
    teacher.main(["--parallel", *text_files, "--text", str(tmp_path / "alone.jsonl"), "--unknown", "de", "--out",
                  str(tmp_path / "teacher")])
    return tmp_path / "teacher"


def test_the_folder_holds_each_text_with_its_own_vector(folder, package):
    rows, vectors = read_teacher(folder)
    counts = {kind: sum(row.kind == kind for row in rows) for kind in teacher.KINDS}
    assert counts == {"original": 64, "text": 9, "crop": 59 * 2 * 2, "word": 0}  # two cuts of two languages each
    assert [row.kind for row in rows] == sorted((row.kind for row in rows), key=teacher.KINDS.index)
    assert {row.language for row in rows if row.kind == "crop"} == {"en", "es"}  # de is unknown to the teacher
    own = torch.tensor(package.USE(threads=1).encode([row.text for row in rows])).float()
    torch.testing.assert_close(vectors, torch.nn.functional.normalize(own, dim=1), atol=1e-3, rtol=1e-3)  # float16
    whole = {row.text for row in rows if row.kind == "original"}
    crops = [row for row in rows if row.kind == "crop" and row.language == "en"]
    assert all(3 <= len(row.text.split()) <= 5 and any(row.text in text for text in whole) for row in crops)


def test_a_folder_that_is_not_whole_is_named(folder):
    lines = (folder / "texts.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "texts.jsonl").write_text("".join(lines[:-1]), encoding="utf-8")
    with pytest.raises(UserError, match="one each"):
        read_teacher(folder)
    (folder / "texts.jsonl").write_text(lines[0] + '{"text": 1, "what": 2}\n', encoding="utf-8")
    with pytest.raises(UserError, match="row 2: is not a text"):
        read_teacher(folder)
    (folder / "texts.jsonl").write_text(lines[0].replace("original", "copy"), encoding="utf-8")
    with pytest.raises(UserError, match=r"row 1: .* whose kind is one of original, text, crop, word"):
        read_teacher(folder)
    (folder / "texts.jsonl").write_bytes(b"\xff")
    with pytest.raises(UserError, match="cannot be read as UTF-8"):
        read_teacher(folder)
    (folder / "texts.jsonl").write_text("".join(lines), encoding="utf-8")
    (folder / "vectors.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match="holds no vectors"):
        read_teacher(folder)


def test_words_are_whole_words_in_the_bases_scripts(tmp_path):
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["open borders 日本 граница 난민 لاجئ x1"] * 9), model_prefix=str(tmp_path / "m"),
        vocab_size=60, hard_vocab_limit=False, model_type="word", minloglevel=2)
    words = words_of(tmp_path / "m.model")
    texts = {row.text for row in words}
    assert texts == {"open", "borders", "난민", "لاجئ"} and all(0 < row.share < 1 for row in words)
    (tmp_path / "bad").write_bytes(b"no model")
    with pytest.raises(UserError, match="is not a sentencepiece model"):
        words_of(tmp_path / "bad")


def taught() -> tuple[list[Document], list[Taught], torch.Tensor]:
    """Two parallel documents and three texts without translations, with vectors of 6 numbers."""
    parallel = [Document("a", (("en", "one"), ("hu", "egy"))), Document("b", (("es", "dos"), ("en", "two")))]
    rows = [Taught("original", "en", "one"), Taught("original", "en", "two"), Taught("text", "es", "tres"),
            Taught("crop", "en", "four"), Taught("word", "und", "Één", 1e-3), Taught("word", "und", "een", 1e-9)]
    vectors = torch.nn.functional.normalize(torch.randn(6, 6), dim=1)
    return parallel, rows, vectors


def test_every_language_is_to_mean_its_english_original():
    parallel, rows, vectors = taught()
    found = Targets(parallel, rows, vectors, 6)
    assert [document.texts[0][1] for document in found.alone] == ["tres", "four"]
    assert [document.texts[0][1] for document in found.plain] == ["tres"]
    axes = principal_axes(vectors, 6)
    torch.testing.assert_close(axes.t() @ axes, torch.eye(6), atol=1e-5, rtol=0)
    target = found.rows([(0,), (1,), (2,), (0, 3)])
    expected = vectors @ axes
    torch.testing.assert_close(target[:3], expected[:3], atol=1e-5, rtol=0)  # all axes: a turn, lengths stay
    torch.testing.assert_close(target[3], torch.nn.functional.normalize(expected[0] + expected[3], dim=0), atol=1e-5,
                               rtol=0)
    ids, targets, idf = found.texts(parallel, lambda texts: [[len(text)] for text in texts], 8)
    assert ids[:4] == [[3]] * 4 and targets.shape == (8, 6)  # four translations, two texts, two words
    torch.testing.assert_close(targets[0], targets[1])  # "egy" means what "one" means
    assert idf[3] == pytest.approx(torch.log(torch.tensor(7 / 5)).item())
    assert found.common_words(5) == [("een", 60)]
    with pytest.raises(UserError, match="no vector for the English text of c"):
        Targets([*parallel, Document("c", (("en", "three"),))], rows, vectors, 6)


def test_the_linear_student_is_the_ridge_regression():
    texts = [torch.randint(0, 12, (7,)).tolist() for _ in range(40)]
    idf, targets = torch.rand(14) + 0.5, torch.randn(40, 5)
    x = text_weights(texts, idf)
    dense = x.to_dense()
    torch.testing.assert_close(dense.norm(dim=1), torch.ones(40))
    count = texts[0].count(texts[0][0])
    one = dense[0, texts[0][0]] / (idf[texts[0][0]] * (1 + torch.tensor(float(count)).log()))
    two = dense[0, texts[0][1]] / (idf[texts[0][1]] * (1 + torch.tensor(float(texts[0].count(texts[0][1]))).log()))
    torch.testing.assert_close(one, two)
    expected = torch.linalg.solve(dense.t() @ dense + 0.3 * torch.eye(14), dense.t() @ targets)
    torch.testing.assert_close(ridge(x, targets, 0.3), expected, atol=1e-3, rtol=1e-3)


def test_the_table_starts_with_the_students_directions_and_weights():
    texts, targets = [[1, 2], [2, 3], [3, 1], [4]], torch.randn(4, 5)
    table = taught_table(texts, targets, torch.ones(8), [4], torch.Generator().manual_seed(0))
    assert table.shape == (8, 5 + RESERVED)
    words = ridge(text_weights(texts, torch.ones(8)), targets)
    for token in (1, 2, 3):
        torch.testing.assert_close(table[token, :5], words[token] / words[token].norm())
    assert table[4, :5].norm() == pytest.approx(0.3, abs=1e-5)  # a label's symbol
    order = words[1:4].norm(dim=1).argsort()
    assert torch.equal(table[1:4, -2].argsort(), order)  # heavier words attract more attention


def test_the_worker_computes_in_bfloat16_with_the_weights_of_now():
    o = pretrain.Options()
    o.vocabulary, o.width, o.layers, o.heads, o.kv_heads, o.head_dim, o.mlp = 300, 48, 2, 2, 1, 16, 32
    model = LlamaForCausalLM(pretrain.model_config(o), attend_padded)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    ids = torch.randint(0, 300, (2, 9))
    worker = Worker(model, torch.bfloat16)
    for _ in range(2):
        model.zero_grad()
        model(ids).square().sum().backward()
        wanted = {name: p.grad.clone() for name, p in model.named_parameters()}
        model.zero_grad()
        with worker as computing:
            out = computing(ids)
            assert out.dtype == torch.bfloat16
            out.float().square().sum().backward()
        for name, parameter in model.named_parameters():
            assert parameter.dtype == parameter.grad.dtype == torch.float32
            error = (parameter.grad - wanted[name]).norm() / wanted[name].norm().clamp_min(1e-9)
            assert error < 0.1, (name, error)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(-1.5)  # the next turn must see this
    assert Worker(model, torch.float32).computing is model


def test_a_run_learns_from_the_teacher_and_goes_on_after_a_stop(folder, text_files, tmp_path):
    words = ["--parallel", *text_files, "--teacher", str(folder), *SMALL]
    pretrain.main([*words, "--out", str(tmp_path / "whole")])
    log = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    assert set(log[0]) >= {"contrast", "taught", "nearest"} and "words" not in log[0]
    assert sum(line["taught"] for line in log[-4:]) < sum(line["taught"] for line in log[:4])
    record = json.loads((tmp_path / "whole" / "pretrain.json").read_text())
    assert {"texts.jsonl", "vectors.safetensors"} <= set(record["files"])
    draw = pretrain.Sampler.draw
    with pytest.MonkeyPatch.context() as patch:
        clock = iter(range(0, 10**6, 40))
        patch.setattr(pretrain.time, "monotonic", lambda: next(clock))
        with pytest.raises(UserError, match=r"stopped after \d of 24 steps, as --stop-after said"):
            pretrain.main([*words, "--out", str(tmp_path / "cut"), "--stop-after", "300"])
    assert draw is pretrain.Sampler.draw and (tmp_path / "cut" / pretrain.CHECKPOINT).exists()
    pretrain.main([*words, "--out", str(tmp_path / "cut")])
    for name in ("model.safetensors", "tokenizer.model"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    with pytest.raises(UserError, match="--text: with --teacher"):
        pretrain.main([*words, "--text", str(tmp_path / "alone.jsonl"), "--out", str(tmp_path / "other")])


def test_losses_are_what_the_module_says():
    torch.manual_seed(3)
    first, second, target = (torch.nn.functional.normalize(torch.randn(4, 6), dim=1) for _ in range(3))
    halves = iter([first, second])
    model = SimpleNamespace(device=torch.device("cpu"), answer_hidden=lambda batch: next(halves))
    showing = SimpleNamespace(batches=[SimpleNamespace(to=lambda device: None)])
    o = pretrain.Options()
    goals = None, SimpleNamespace(rows=lambda items: target)
    total, parts = step_losses(model, [(0,)] * 4, [showing, showing], goals, o)
    distance = (2 - (first * target).sum(1).mean() - (second * target).sum(1).mean()) / 2
    torch.testing.assert_close(parts["taught"], distance)

    def nce(a, b):
        p = torch.stack([(a[i] @ b.t() / o.temperature).softmax(0)[i] for i in range(4)])
        return -p.log().mean()

    expected = [(nce(a, b) + nce(b, a)) / 2 for a, b in ((first, second), (first, target), (second, target))]
    torch.testing.assert_close(parts["contrast"], expected[0])
    torch.testing.assert_close(parts["nearest"], (expected[1] + expected[2]) / 2)
    torch.testing.assert_close(total, 10 * distance + expected[0] + (expected[1] + expected[2]) / 2)
