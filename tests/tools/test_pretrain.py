"""Pre-training of the small base: a tiny run from start to folder, the pieces it is made of, and the shipped base.

Deliberate break: in `pretrain_text.read_parallel`, keep the split "test"; `test_texts_of_other_splits_are_never_read`
fails.
"""

import json
import random
from pathlib import Path

import pytest
import sentencepiece
import torch
from safetensors.torch import load_file

from common.errors import UserError
from common.files import ROOT
from loading import load_model
from model.tokenizer import load_tokenizer
from tools.pretrain import __main__ as pretrain
from tools.pretrain import batch as pretrain_batch
from tools.pretrain import start as pretrain_start
from tools.pretrain import text as pretrain_text

BASE = ROOT / "base"
TINY = ["--vocabulary", "420", "--width", "48", "--layers", "2", "--heads", "2", "--kv-heads", "1", "--head-dim", "16",
        "--mlp", "32", "--steps", "24", "--items", "8", "--rows", "4", "--warmup", "2", "--save-every", "8", "--lr",
        "0.01", "--embedding-lr", "0.01", "--threads", "1"]  # fmt: skip


@pytest.fixture(scope="module")
def text_files(tmp_path_factory) -> list[str]:
    """Sixty sentences of invented words in three invented languages, and a table of single words."""
    rng = random.Random(0)
    words = ["".join(rng.choices(["ka", "lo", "mi", "ne", "ru", "sa", "ti", "po"], k=rng.randint(2, 3)))
             for _ in range(40)]
    spell = {"en": str, "es": lambda w: w[::-1], "de": lambda w: w.upper() + "t"}
    folder = tmp_path_factory.mktemp("text")
    with open(folder / "parallel.jsonl", "w", encoding="utf-8") as handle:
        for number in range(60):
            chosen = rng.choices(words, k=8)
            for language, write in spell.items():
                row = {"id": number, "language": language, "text": " ".join(write(word) for word in chosen)}
                handle.write(json.dumps(row | {"split": "test" if number == 0 else "train"}) + "\n")
    lines = ["\t".join(spell), *("\t".join(write(word) for write in spell.values()) for word in words[:5])]
    (folder / "words.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return [str(folder / "parallel.jsonl"), str(folder / "words.tsv")]


@pytest.fixture(scope="module")
def finished(text_files, tmp_path_factory) -> Path:
    """The folder of a tiny finished run."""
    out = tmp_path_factory.mktemp("run") / "base"
    pretrain.main(["--parallel", *text_files, "--out", str(out), *TINY])
    return out


def test_the_loss_falls_and_every_step_is_logged(finished):
    steps = [json.loads(line) for line in (finished / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in steps] == list(range(1, 25))
    assert sum(line["loss"] for line in steps[-4:]) < sum(line["loss"] for line in steps[:4]) - 0.4
    assert not (finished / pretrain.CHECKPOINT).exists()


@pytest.mark.slow
def test_a_killed_run_ends_in_the_same_bits(finished, text_files, tmp_path, monkeypatch):
    arguments = ["--parallel", *text_files, "--out", str(tmp_path / "base"), *TINY]
    draw, kill_at = pretrain.Sampler.draw, iter((11, 19))

    def killed(at):
        def sample(self, step):
            if step == at:
                raise KeyboardInterrupt
            return draw(self, step)
        return sample

    for at in kill_at:
        monkeypatch.setattr(pretrain.Sampler, "draw", killed(at))
        with pytest.raises(KeyboardInterrupt):
            pretrain.main(arguments)
    monkeypatch.setattr(pretrain.Sampler, "draw", draw)
    with pytest.raises(UserError, match="other options"):
        pretrain.main([*arguments, "--seed", "2"])
    pretrain.main(arguments)
    for name in ("model.safetensors", "tokenizer.model", "config.json"):
        assert (tmp_path / "base" / name).read_bytes() == (finished / name).read_bytes(), name


def test_the_folder_loads_here_and_in_transformers_alike(finished):
    from transformers import LlamaForCausalLM

    ours = load_model(finished, dtype=torch.float32, quantize="none")
    theirs = LlamaForCausalLM.from_pretrained(finished, dtype=torch.float32)
    ids = torch.randint(0, 420, (2, 40))
    with torch.no_grad():
        torch.testing.assert_close(ours(ids), theirs(ids).logits, atol=1e-4, rtol=1e-4)  # bf16 table, float32 sums
    load_model(finished, quantize="nf4")
    tokenizer = load_tokenizer(finished)
    assert [tokenizer.special(name) for name in pretrain_text.CONTROL] == [1, 2, 3, 4, 5]


def test_texts_of_other_splits_are_never_read(text_files):
    documents = pretrain_text.read_parallel(text_files)
    assert len(documents) == 59 + 5  # the sentence whose split is "test" is not among them
    assert all(len(document.texts) == 3 for document in documents)


@pytest.mark.parametrize(("content", "says"), [
    ('{"id": 1, "language": "en"}\n', "row 1: has no 'text'"),
    ("[1]\n", "row 1: is not an object"),
    ('{"id": 1, "language": "en", "text": "a"}\n{"id": 1, "language": "en", "text": "b"}\n', "row 2: id 1 occurs"),
    ("nonsense\n", "row 1: is not JSON"),
])  # fmt: skip
def test_bad_text_files_are_named_with_their_row(tmp_path, content, says):
    (tmp_path / "bad.jsonl").write_text(content)
    with pytest.raises(UserError, match=says):
        pretrain_text.read_parallel([tmp_path / "bad.jsonl"])


def test_a_table_with_a_missing_column_is_named(tmp_path):
    (tmp_path / "bad.tsv").write_text("en\tes\nyes\tsí\nno\n", encoding="utf-8")
    with pytest.raises(UserError, match="row 3: has 1 columns; the header names 2"):
        pretrain_text.read_parallel([tmp_path / "bad.tsv"])


@pytest.mark.parametrize(("written", "read"), [
    ("É", "e"), ("İ", "i"), ("ı", "i"), ("Ł", "l"), ("ß", "ss"), ("“", '"'), ("’", "'"), ("ة", "ه"), ("أ", "ا"),
    ("\u0301", ""), ("한", "한"), ("ि", "ि"), ("क़", "क"), ("\u200d", ""), ("\t", " "), ("Ａ", "a"), ("x", "x"),
])  # fmt: skip
def test_fold(written, read):
    assert pretrain_text.fold(written) == read


def test_bags_weigh_by_idf_and_leave_out_what_stands_once():
    spelled = {"a b": [0, 1], "a c": [0, 2], "b c d": [1, 2, 3]}
    documents = [pretrain_text.Document(text, (("en", text),)) for text in spelled]
    weights, idf = pretrain_start.bags(documents, spelled.get, 5)
    torch.testing.assert_close(idf, torch.tensor([4 / 3, 4 / 3, 4 / 3, 2.0, 1.0]).log())
    target = pretrain_batch.Bags(weights, idf, None).rows([(0,), (2,), (0, 2)])
    torch.testing.assert_close(target[0], torch.tensor([0.5, 0.5, 0, 0, 0]))
    torch.testing.assert_close(target[1], torch.tensor([0, 0.5, 0.5, 0, 0]))  # token 3 is in one document only
    torch.testing.assert_close(target[2], (target[0] + target[1]) / 2)


def test_token_vectors_are_the_leading_singular_vectors():
    dense = torch.randn(30, 6) @ torch.randn(6, 50)
    vectors = pretrain_start.token_vectors(dense.to_sparse(), 6, torch.Generator().manual_seed(0))
    torch.testing.assert_close(vectors @ vectors.t(), dense.t() @ dense, atol=1e-2, rtol=1e-3)  # U S S U^T = A^T A


PARALLEL = ("ntrex.jsonl", "sib200.jsonl", "words.tsv")


class TestShippedBase:
    def test_architecture_and_size(self):
        config = json.loads((BASE / "config.json").read_text())
        assert config["rope_scaling"]["rope_type"] == "llama3" and config["rope_scaling"]["factor"] == 32
        assert config["tie_word_embeddings"] and config["num_attention_heads"] > config["num_key_value_heads"]
        tensors = load_file(BASE / "model.safetensors")
        assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
        assert all(tensor.isfinite().all() for tensor in tensors.values())
        assert sum(tensor.numel() for tensor in tensors.values()) <= 15_000_000
        assert sum(path.stat().st_size for path in BASE.iterdir()) < 30_000_000

    def test_vocabulary_reads_labels_as_tokens_and_folds_posts(self):
        tokenizer = load_tokenizer(BASE)
        assert [tokenizer.special(name) for name in pretrain_text.CONTROL] == [1, 2, 3, 4, 5]
        spm = sentencepiece.SentencePieceProcessor(model_file=str(BASE / "tokenizer.model"))
        for text in ("İnmigración, ŁÓDŹ", "पुलिस 경찰 شرطة", "<|eot_id|> @user http #x 😂 [1]"):
            assert tokenizer.encode(text) == spm.encode(text)
        assert tokenizer.encode("INMIGRACIÓN") == tokenizer.encode("inmigracion")
        labels = [tokenizer.encode(f"Answer = [{i}]. ")[-3] for i in range(1, 10)]
        assert len(set(labels)) == 9

    def test_the_card_says_what_the_record_says(self):
        card, record = (BASE / "README.md").read_text(), json.loads((BASE / "pretrain.json").read_text())
        tensors = load_file(BASE / "model.safetensors")
        assert record["parameters"] == sum(tensor.numel() for tensor in tensors.values())
        for needed in (f"{record['parameters']:,}", f"{record['options']['steps']:,}", f"{record['minutes']} minutes",
                       record["versions"]["torch"], "CC BY-SA 4.0", "NTREX-128", "SIB-200", "words.tsv"):
            assert needed in card, needed
        teacher = json.loads((BASE / "teacher.json").read_text())
        for name, digest in (record["files"] | teacher["files"]).items():
            assert name in card and digest in card, name
        assert teacher["encoder"] in card and {name: teacher["files"][name] for name in PARALLEL} == {
            name: record["files"][name] for name in PARALLEL}

    def test_the_record_names_the_files_that_are_there(self, shared_data):
        record = json.loads((BASE / "pretrain.json").read_text())
        teacher = json.loads((BASE / "teacher.json").read_text())
        folders = ("parallel", "topics", "text")
        known = {path.name: path for folder in folders for path in (shared_data / folder).iterdir()}
        known["words.tsv"] = BASE / "words.tsv"
        files = record["files"] | teacher["files"]
        assert len(files) == 6
        for name in set(files) - {"texts.jsonl", "vectors.safetensors"}:  # the teacher's own, made from the others
            assert pretrain.sha256_file(known[name]) == files[name], name


@pytest.mark.slow
def test_topics_carry_over_from_english_to_twelve_languages(shared_data, tmp_path):
    """SIB-200: fine-tuned in 4 bits on the English train rows, mean accuracy over the other twelve languages' test."""
    import eval as evaluation
    import train

    rows = [json.loads(line) for line in (shared_data / "topics" / "sib200.jsonl").read_text().splitlines()]
    for split in ("train", "test"):
        chosen = [row for row in rows if row["split"] == split]
        chosen = [row | {"id": f"{row['id']}-{row['language']}"} for row in chosen]
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in chosen)
        (tmp_path / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    run, codebook = str(tmp_path / "run"), str(BASE.parent / "data" / "codebooks" / "sib200.toml")
    train.main(["--model", str(BASE), "--data", str(tmp_path / "train.jsonl"), "--languages", "en", "--codebook",
                codebook, "--out", run])
    evaluation.main(["--run", run, "--data", str(tmp_path / "test.jsonl"), "--out", str(tmp_path / "scores")])
    metrics = json.loads((tmp_path / "scores" / "metrics.json").read_text())
    unseen = [value["accuracy"] for name, value in metrics["by_language"].items() if name != "en"]
    assert len(unseen) == 12
    assert sum(unseen) / 12 >= 0.65
