"""train.py as a program on a small random base: what a run leaves, that it can be had again, its options and refusals.

Deliberate break: let `fit.Watch.update` take every score for the best (`if True:`); the kept adapter turns red.
"""

import json

import pytest
import torch
from safetensors.torch import load_file

from common.errors import UserError
from common.files import sha256_file
from data.codebook import load_codebook
from data.prompt import Prompt
from finetune import loop
from finetune.options import PAPER
from finetune.run_folder import RunFolder
from lora.inject import expected_count
from model.tokenizer import load_tokenizer
from tests.small import LABELS, here, posts, random_model, run, write_base, write_jsonl

COMMON = ("--model", "tiny", "--data", "train.jsonl", "--rank", "4", "--batch-size", "8", "--micro-tokens", "500",
          "--learning-rate", "3e-3", "--threads", "1")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the base, 62 posts of three languages (two of them too long) and what `train` made of them."""
    folder = tmp_path_factory.mktemp("train")
    write_base(folder / "tiny")
    rows = posts(62, 1, author=lambda number: f"a{number // 2}")
    for number in (7, 31):
        rows[number]["text"] += " street" * 200
    write_jsonl(folder / "train.jsonl", rows)
    return folder


def train(place, name, *words, code=0, how=here) -> str:
    return how("train.py", *COMMON, "--out", name, *words, cwd=place, code=code)


def facts(folder) -> dict:
    return json.loads((folder / "run.json").read_text(encoding="utf-8"))


def log(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def adapter(folder, name="adapter") -> bytes:
    return (folder / name / "adapter_model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def first(place):
    """The run that most tests look at, and what it printed."""
    words = ("--epochs", "2", "--validation", "0.2", "--max-tokens", "150", "--eval-every", "3", "--seed", "11")
    return place / "first", train(place, "first", *words), words


def test_a_run_leaves_the_documented_files_and_no_others(first):
    found = {str(path.relative_to(first[0])) for path in first[0].rglob("*") if path.is_file()}
    folders = {f"{name}/{file}" for name in ("adapter", "adapter-last")
               for file in ("adapter_config.json", "adapter_model.safetensors")}
    assert found == folders | {"run.json", "log.jsonl", "report.html", "training_texts.json", "checkpoint/state.pt"}


def test_run_json_has_every_fact(first, place):
    told, tokenizer = facts(first[0]), load_tokenizer(place / "tiny")
    options = told["options"]
    assert (options["seed"], options["epochs"], options["rank"], options["quantize"]) == (11, 2, 4, "none")
    assert options["schedule"] == "linear" and options["weight_decay"] == 0.0  # resolved, not only what was given
    environment = told["environment"]
    assert environment["packages"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert (environment["device"], environment["dtype"], environment["threads"]) == ("cpu", "float32", 1)
    assert {"python", "platform", "device_name", "commit"} <= set(environment)
    book = load_codebook()
    prompt = Prompt(book, tokenizer, "instruction-first", 150)
    assert told["prompt"] == prompt.fingerprint() and told["codebook"] == book.to_dict()
    hashes = told["hashes"]
    assert hashes["data"] == {"train.jsonl": sha256_file(place / "train.jsonl")} and hashes["codebook"] == book.hash
    assert hashes["weights"] == {name: sha256_file(place / "tiny" / name) for name in ("config.json",
                                                                                       "model.safetensors")}
    assert len(hashes["prompt"]) == 64
    assert told["files"] == {name: sha256_file(first[0] / name) for name in (
        "adapter/adapter_config.json", "adapter/adapter_model.safetensors", "training_texts.json", "log.jsonl")}
    rows, given = told["rows"], [json.loads(line) for line in (place / "train.jsonl").read_text().splitlines()]
    for language in ("en", "es", "pl"):
        for label in LABELS:
            count = sum(row["language"] == language and row["label"] == label for row in given)
            assert rows["train"][language].get(label, 0) + rows["validation"][language].get(label, 0) == count
    held_out = {id for id, _ in rows["split"]["validation"]}
    encoded = {row["id"]: prompt.encode(row["text"]) for row in given if row["id"] not in held_out}
    assert len(held_out) == 12 and rows["cut"] == sum(row.cut for row in encoded.values()) > 0
    assert rows["tokens_per_epoch"] == sum(len(row.ids) for row in encoded.values())
    exposed = told["exposure"]["languages"]
    assert sum(row["post_tokens"] + row["prompt_tokens"] for row in exposed.values()) == 2 * rows["tokens_per_epoch"]
    model = random_model()
    trainable = expected_count(model, "all-linear", 4)
    assert told["parameters"]["trainable"] == trainable
    assert told["parameters"]["total"] == trainable + sum(p.numel() for p in model.parameters())
    assert told["memory_expected"]["total"] > told["parameters"]["bytes"] > 600 * 32 * 4
    assert (told["finished"], told["ended"], told["step"], told["scored"]) == (True, "all steps", 14, [])
    assert told["posts_seen"] == 100 and told["languages"] == ["en", "es", "pl"] and told["seconds"] > 0


def test_a_run_that_cannot_learn_is_told_so_once(place):
    """The posts' labels take turns, whatever their texts say, and the rate is next to nothing."""
    said = train(place, "hopeless", "--epochs", "7", "--learning-rate", "1e-6", "--validation", "0.2")
    told = facts(place / "hopeless")
    learning, answers = told["learning"], told["answers"]
    assert said.count("warning: after") == 1 and learning["warned_at"] == 20 and learning["left"] is False
    assert "  1. --batch-size 4" in said and f"beside {learning['label_entropy']:.3f}" in said
    assert "gets a loss of 1.384 nats" in said and "warning: only 49 updates" in said
    page = (place / "hopeless" / "report.html").read_text(encoding="utf-8")
    for part in (learning, answers):
        assert part["sentence"] in said and part["sentence"].replace("“", "“") in page
    assert answers["of"] == "validation posts" and answers["posts"] == sum(answers["given"].values()) == 12
    resumed = here("train.py", "--resume", "--out", "hopeless", cwd=place)
    assert "is finished" in resumed


def test_the_log_has_one_line_per_step_and_per_evaluation(first):
    lines = log(first[0])
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == list(range(1, 15))
    assert all({"loss", "lr", "grad_norm", "posts", "tokens"} <= set(line) for line in steps)
    assert [line["step"] for line in lines if "validation" in line] == [3, 6, 9, 12, 14]
    assert steps[0]["lr"] == pytest.approx(3e-3 / 2) and steps[1]["lr"] == pytest.approx(3e-3)  # 1 of 14 steps warms up
    assert steps[-1]["lr"] == pytest.approx(3e-3 / 13)
    assert sum(line["posts"] for line in steps) == 100 and 0.5 < steps[0]["loss"] < 4


def test_it_says_what_it_is_about_to_do(first):
    said = first[1]
    for words in ("62  rows read", "Exposure", "trainable", "memory: about", "float32, since", "validation macro-F1"):
        assert words in said
    assert "first" in said.splitlines()[-1] and "%" not in said.splitlines()[-1]  # no progress bar in a file


def test_the_kept_adapter_is_that_of_the_best_validation_score(first, place):
    scores = {line["step"]: line["validation"]["macro_f1"] for line in log(first[0]) if "validation" in line}
    best = max(scores, key=lambda step: (scores[step], -step))
    assert facts(first[0])["best"] == {"macro_f1": scores[best], "step": best}
    # The same steps, ended there: --max-steps would change the schedule, so the rate is constant in both.
    words = ("--validation", "0.2", "--schedule", "constant", "--warmup", "0", "--epochs", "2", "--eval-every", "2",
             "--seed", "12")
    train(place, "constant", *words)
    scores = {line["step"]: line["validation"]["macro_f1"] for line in log(place / "constant") if "validation" in line}
    best = max(scores, key=lambda step: (scores[step], -step))
    assert len(set(scores.values())) > 1 and best < 14
    train(place, "cut", *words, "--max-steps", str(best))
    assert adapter(place / "constant") == adapter(place / "cut", "adapter-last") != adapter(place / "constant",
                                                                                            "adapter-last")


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(first, place):
    train(place, "again", *first[2], how=run)
    assert adapter(place / "again") == adapter(first[0])
    assert adapter(place / "again", "adapter-last") == adapter(first[0], "adapter-last")
    assert [line for line in log(place / "again")] == log(first[0])
    train(place, "other", *first[2][:-1], "12")
    assert adapter(place / "other", "adapter-last") != adapter(first[0], "adapter-last")


def test_the_papers_recipe(place):
    train(place, "paper", "--preset", "paper", "--max-steps", "2", "--dtype", "float32", "--rank", "64")
    told = facts(place / "paper")
    options = told["options"]
    published = dict(template="paper", quantize="nf4", targets=["q_proj", "v_proj"], rank=64, alpha=32, dropout=0.1,
                     schedule="constant", warmup=0.0, weight_decay=0.001, clip=0.3, loss="text", epochs=10)
    assert {key: options[key] for key in published} == published and PAPER["learning_rate"] == 2e-4
    assert PAPER["batch_size"] == 16 and options["learning_rate"] == 3e-3  # the command line wins over the preset
    assert told["checkpointing"] is True and told["step"] == 2 and told["best"] is None
    assert told["parameters"]["trainable"] == expected_count(random_model(), ["q_proj", "v_proj"], 64)
    assert adapter(place / "paper") == adapter(place / "paper", "adapter-last")
    names = load_file(place / "paper" / "adapter" / "adapter_model.safetensors")
    assert {name.split(".")[-3] for name in names} == {"q_proj", "v_proj"}
    # The whole text is learnt: the log counts the answer's tokens and the end of turn too.
    prompt = Prompt(load_codebook(), load_tokenizer(place / "tiny"), "paper", 512)
    assert log(place / "paper")[0]["tokens"] > 8 * len(prompt.encode("").ids)


@pytest.mark.parametrize("words", [
    ("--quantize", "none", "--class-weights", "--loss", "vocabulary", "--rslora", "--group-by", "author",
     "--validation", "0.3"),
    ("--quantize", "nf4-double", "--balance", "both", "--per-language", "en=8,pl=12", "--languages", "es"),
])
def test_other_ways(place, words):
    name = f"way{words[1]}"
    said = train(place, name, *words, "--max-steps", "3")
    told = facts(place / name)
    taken = "  41 of 62 posts taken: --languages es --per-language en=8,pl=12"
    assert (taken in said) == ("posts taken" in said) == ("--languages" in words)
    assert told["step"] == 3 and [line["step"] for line in log(place / name) if "loss" in line] == [1, 2, 3]
    if "--group-by" in words:
        held_out = {id for id, _ in told["rows"]["split"]["validation"]}
        authors = {number: f"1-{number}" in held_out for number in range(62)}
        assert held_out and all(authors[number] == authors[number + 1] for number in range(0, 62, 2))
    else:
        counts = {language: sum(told["rows"][side].get(language, {}).get(label, 0) for side in ("train", "validation")
                                for label in LABELS) for language in ("en", "es", "pl")}
        assert counts == {"en": 8, "es": 21, "pl": 12}


def test_a_run_is_made_again_from_its_run_json(first, place):
    """To the bit; with another seed on the command line it is another one."""
    folder = place / "from-json"
    here("train.py", "--config", first[0] / "run.json", "--out", folder, cwd=place)
    assert adapter(folder) == adapter(first[0])
    assert facts(folder)["options"] == facts(first[0])["options"] | {"out": str(folder)}
    here("train.py", "--config", first[0] / "run.json", "--out", "other-seed", "--seed", "12", cwd=place)
    assert adapter(place / "other-seed") != adapter(first[0])


def test_patience_ends_a_run(place):
    said = train(place, "patient", "--epochs", "20", "--validation", "0.2", "--eval-every", "1", "--patience", "2",
                 "--learning-rate", "1e-9")
    told = facts(place / "patient")
    assert told["ended"] == "no gain in 2 evaluations" and told["step"] == 3 and "no gain" in said


def test_refusals(first, place):
    assert "is not empty; --resume continues it" in train(place, "first", code=2)
    before = {path: path.read_bytes() for path in first[0].rglob("*") if path.is_file()}
    resumed = here("train.py", "--resume", "--out", "first", cwd=place)
    assert resumed.count("\n") == 1 and "this run is finished" in resumed
    assert "--rank 8: the run in first began with 4" in here("train.py", "--resume", "--out", "first", "--rank", "8",
                                                          cwd=place, code=2)
    assert "--resume: needs --out" in here("train.py", "--resume", cwd=place, code=2)
    assert "no such run folder" in here("train.py", "--resume", "--out", "nothing", cwd=place, code=2)
    assert {path: path.read_bytes() for path in first[0].rglob("*") if path.is_file()} == before
    assert not (place / "nothing").exists()


def test_a_loss_that_explodes_is_one_line_and_the_same_command_is_free(place):
    """Nothing is kept that would be worth going on with, so the folder does not stand in the way of a smaller rate."""
    for made_before in (False, True):
        if made_before:
            (place / "burst").mkdir()
        said = train(place, "burst", "--learning-rate", "1e30", "--clip", "0", "--validation", "0", code=2)
        assert "the loss is" in said and "smaller --learning-rate" in said
        assert (place / "burst").exists() == made_before and not list(place.glob("burst/*"))
    train(place, "burst", "--learning-rate", "1e-3", "--clip", "0", "--validation", "0")
    assert facts(place / "burst")["finished"]


@pytest.fixture
def full_disk(monkeypatch):
    """`RunFolder.append_log` where the disk is full; the returned function empties it."""
    def append_log(self, line):
        raise UserError("no space left")

    monkeypatch.setattr(RunFolder, "append_log", append_log)
    return monkeypatch.undo


def test_a_full_disk_keeps_the_run_that_is_to_be_continued(place, full_disk):
    assert "no space left" in train(place, "full", code=2)
    full_disk()
    here("train.py", "--resume", "--out", "full", "--micro-tokens", "0", cwd=place)
    assert facts(place / "full")["finished"]


def test_the_file_of_chosen_rows_belongs_to_the_run(place, full_disk):
    rows = [json.loads(line) for line in (place / "train.jsonl").read_text().splitlines()]
    names = [f"{row['language']}\t{row['id']}\n" for row in rows]
    (place / "rows.txt").write_text("".join(names[:40]))
    assert "no space left" in train(place, "chosen", "--rows", "rows.txt", code=2)
    full_disk()
    (place / "rows.txt").write_text("".join(names[10:50]))
    assert "rows changed since this run began" in here("train.py", "--resume", "--out", "chosen", cwd=place, code=2)


def test_a_loss_that_explodes_behind_a_checkpoint_keeps_it(place, monkeypatch):
    step = loop.Trainer.step
    monkeypatch.setattr(loop.Trainer, "step", lambda self: step(self) | (
        {"loss": torch.tensor(float("nan"))} if self.step_count == 4 else {}))
    assert "step 4: the loss is nan" in train(place, "late", "--save-every", "2", code=2)
    assert not facts(place / "late")["finished"] and (place / "late" / "checkpoint" / "state.pt").exists()
