"""The model card: data, recipe, figures with intervals, the warning, Llama 3's tokenizer beside it, and no post.

Deliberate break: give `Card` the run's own codebook in `tools/export/__main__.py`, write the path of the base instead
of its name into the card, or drop the quotes around languages; cases below turn red.
"""

import json
import re
import shutil

import pytest
import torch

from common.files import ROOT
from finetune.run_folder import RunFolder
from inference.run import open_model
from tests.small import here, posts, write_base, write_jsonl
from tests.tools.exports import KINDS, card, export, make_run, matter, train_run
from tools.export.card import CITATION, TEXT_LOSS
from tools.export.private import EXAMPLE as LEFT_OUT

EXAMPLE = 'the ferry of Lindental is "late | again"'
CODEBOOK = f"""
name = "ferries | and boats"
role = "You know ferries."
question = "Which one is it?"
examples = [{{label = "boat", text = '{EXAMPLE}'}}]
[[labels]]
name = "boat"
definition = "It is | a boat."
[[labels]]
name = "street"
"""
SECRET = "quartzjackal"  # a word of every post


def rows(count, seed):
    """Posts that all hold one word, in English, Spanish and Norwegian, whose code is a word of YAML's."""
    return [row | {"text": f"{row['text']} {SECRET}", "label": "boat" if place % 4 else "street",
                   "language": {"pl": "no"}.get(row["language"], row["language"])}
            for place, row in enumerate(posts(count, seed))]  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with a base, a plain run, and a run with all that may be in one, scored once in it and once outside."""
    folder = tmp_path_factory.mktemp("alices-private-folder")
    train_run(folder)
    (folder / "codebook.toml").write_text(CODEBOOK)
    train, test = (write_jsonl(folder / f"{name}.jsonl", rows(count, seed)) for name, count, seed in
                   (("secret-train", 60, 1), ("test", 45, 2)))  # fmt: skip
    here("train.py", "--model", folder / "base", "--data", train, "--out", folder / "full", "--codebook",
         folder / "codebook.toml", "--validation", 0.2, "--languages", "en,no", "--max-steps", 4, "--batch-size", 4,
         "--rank", 2, "--dtype", "float32", cwd=folder)
    for words in ([], ["--out", folder / "elsewhere"]):
        here("eval.py", "--run", folder / "full", "--data", test, "--draws", 50, *words, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def exported(world):
    for kind in KINDS:
        export(world / "full", kind, world / kind)
    return world


@pytest.mark.parametrize("kind", KINDS)
def test_no_post_and_no_private_path_leaves(exported, kind):
    inside = b"".join(path.read_bytes() for path in sorted((exported / kind).rglob("*")))
    for word in (SECRET, EXAMPLE, json.dumps(EXAMPLE), "alices-private-folder", str(exported)):
        assert word.encode() not in inside, word
    assert LEFT_OUT in card(exported / kind) and "1 example, left out" in card(exported / kind)


def test_front_matter(exported):
    for kind, library in (("peft", "peft"), ("merged", "transformers"), ("bnb-4bit", "transformers")):
        found = matter(exported / kind)
        assert found["language"] == ["en", "no"] and found["library_name"] == library
        assert found["license"] == "unknown" and "base_model" not in found and found["model_name"] == kind
        # by this word alone others choose the class that loads it; see the next test
        assert found["pipeline_tag"] == "text-generation" and "text-classification" in found["tags"]


def test_the_pipeline_of_the_front_matter_loads_the_model_that_was_trained(exported):
    """`AutoModelForSequenceClassification` takes the folder as well, with a head of random numbers."""
    transformers = pytest.importorskip("transformers")
    tasks = transformers.pipelines.PIPELINE_REGISTRY.check_task(matter(exported / "merged")["pipeline_tag"])[1]["pt"]
    for kind in tasks:
        model, found = kind.from_pretrained(exported / "merged", output_loading_info=True)
        assert not found["missing_keys"] and type(model).__name__ == "LlamaForCausalLM"


def test_base_on_the_hub(world, tmp_path):
    for kind, relation in (("peft", "adapter"), ("merged", "finetune"), ("bnb-4bit", "quantized")):
        export(world / "run", kind, tmp_path / kind, "--base-name", "somebody/some-model")
        found = matter(tmp_path / kind)
        assert found["base_model"] == "somebody/some-model" and found["base_model_relation"] == relation
    run = make_run(tmp_path / "run", world / "run", world / "base", model="somebody/known")  # as train.py was told
    export(run, "peft", tmp_path / "out", "--model", world / "base")
    assert matter(tmp_path / "out")["base_model"] == "somebody/known"


def test_data_recipe_and_codebook(exported):
    text, facts = card(exported / "merged"), json.loads((exported / "full" / "run.json").read_text())
    for code, name in (("en", "English"), ("no", "no")):
        cell = facts["rows"]["train"][code]
        assert f"| {name} | {cell['boat']} | {cell['street']} | {sum(cell.values())} |" in text
    kept = sum(sum(cell.values()) for cell in facts["rows"]["validation"].values())
    assert kept > 0 and f"{kept} further posts chose the adapter" in text
    assert "`secret-train.jsonl`" in text and next(iter(facts["hashes"]["data"].values())) in text
    assert facts["hashes"]["weights"] and all(f"- `{name}`, SHA-256 `{digest}`" in text
                                              for name, digest in facts["hashes"]["weights"].items())
    assert "| 1 | boat | It is \\| a boat. |" in text and "| LoRA rank | 2 |" in text and "| steps | 4 of " in text
    assert f"| run | {facts['run_hash']} |" in text and "| languages | en, no |" in text


def test_figures_with_their_intervals(exported):
    text = card(exported / "merged")
    metrics = json.loads((exported / "full" / "eval-test" / "metrics.json").read_text())
    low, high = metrics["accuracy_ci"]
    assert "### test.jsonl, scored 2 times with this run" in text
    assert f"| All | {metrics['n']} | {metrics['accuracy']:.3f} | [{low:.2f}, {high:.2f}] |" in text
    low, high = metrics["macro_f1_ci"]
    assert f"| {metrics['macro_f1']:.3f} | [{low:.2f}, {high:.2f}] |" in text
    assert "| Spanish (not seen in training) | 15 |" in text and "How sure:" in text


def test_evaluations_outside_the_run(exported, tmp_path):
    path = exported / "elsewhere"
    export(exported / "full", "peft", tmp_path / "out", "--metrics", path)
    assert card(tmp_path / "out").count("### test.jsonl") == 2
    inside = exported / "full" / "eval-test" / "metrics.json"
    export(exported / "full", "peft", tmp_path / "one", "--metrics", inside)  # found by itself, too
    assert card(tmp_path / "one").count("### test.jsonl") == 1
    foreign = json.loads(inside.read_text()) | {"accuracy": 0.99}
    (tmp_path / "metrics.json").write_text(json.dumps(foreign))
    line = here("tools.export", "--run", exported / "full", "--to", "peft", "--out", tmp_path / "x", "--metrics",
                tmp_path / "metrics.json", cwd=tmp_path, code=2)
    assert "is no evaluation of" in line and not (tmp_path / "x").exists()
    for damage in ({"intervals": 3}, {"by_language": {"en": {}}}, {"seen": []}):
        (tmp_path / "metrics.json").write_text(json.dumps(json.loads(inside.read_text()) | damage))
        line = here("tools.export", "--run", exported / "full", "--to", "peft", "--out", tmp_path / "x", "--metrics",
                    tmp_path / "metrics.json", cwd=tmp_path, code=2)
        assert "is not what eval.py writes" in line and not (tmp_path / "x").exists()


def test_files_of_equal_figures_keep_their_names(exported, tmp_path):
    """Deliberate break: in `read_evaluations` leave the files' hashes out."""
    run = tmp_path / "full"
    shutil.copytree(exported / "full", run)
    other = write_jsonl(tmp_path / "other.jsonl", [row | {"seen_by": "a"} for row in rows(45, 2)])  # scored last
    here("eval.py", "--run", run, "--model", exported / "base", "--data", other, "--draws", 50, cwd=tmp_path)
    figures = [json.loads((run / f"eval-{name}" / "metrics.json").read_text()) for name in ("test", "other")]
    assert figures[0]["accuracy"] == figures[1]["accuracy"] and figures[0]["files"] != figures[1]["files"]
    export(run, "peft", tmp_path / "out", "--model", exported / "base")
    text = card(tmp_path / "out")
    assert text.count("### test.jsonl, scored 2 times") == text.count("### other.jsonl") == 1


def test_a_run_that_was_not_scored_says_so(world, tmp_path):
    said = export(world / "run", "peft", tmp_path / "out")
    assert "has not been scored: nothing is known" in card(tmp_path / "out") and "not scored yet" in said


def test_the_whole_text_loss_is_a_warning(world, tmp_path):
    run = make_run(tmp_path / "run", world / "run", world / "base", loss="text")
    said = export(run, "peft", tmp_path / "text")
    assert f"warning: {TEXT_LOSS}" in said and f"> **Warning.** {TEXT_LOSS}" in card(tmp_path / "text")
    export(world / "run", "peft", tmp_path / "label")
    assert "Warning" not in card(tmp_path / "label")


def test_citation_is_that_of_the_repository():
    cff = (ROOT / "CITATION.cff").read_text()
    titles = re.findall(r'title: "(.*)"', cff)
    assert len(titles) == 2 and all(title in CITATION for title in titles)
    assert all(name in CITATION for name in re.findall(r'family-names: "?([^"\n]*)', cff))
    assert re.search(r"arXiv:([\d.]+)", cff)[1] in CITATION
    assert f"{{{re.search(r'^version: (.*)$', cff, re.MULTILINE)[1]}}}" in CITATION


# ---- Llama 3's real tokenizer


@pytest.mark.slow
def test_llama3_tokenizer_and_chat_template_travel(world, shared_data, tmp_path):
    """The card's program tokenizes with transformers from the exported files, and gives the run's labels."""
    pytest.importorskip("transformers")
    source, base = shared_data / "llama3", write_base(tmp_path / "base", vocab_size=128256)
    shutil.copy(source / "tokenizer.model", base)
    for name in ("tokenizer_config.json", "special_tokens_map.json", "generation_config.json", "LICENSE.txt"):
        shutil.copy(source / "hf_3b_instruct" / name, base)
    data = write_jsonl(tmp_path / "train.jsonl", posts(24, seed=1))
    here("train.py", "--model", base, "--data", data, "--out", tmp_path / "run", "--max-steps", 6, "--batch-size", 8,
         "--rank", 4, "--learning-rate", 0.05, "--quantize", "none", "--dtype", "float32", cwd=tmp_path)
    export(tmp_path / "run", "merged", tmp_path / "out")
    out = tmp_path / "out"
    assert "chat_template" in json.loads((out / "tokenizer_config.json").read_text())
    for name in ("tokenizer.model", "generation_config.json", "LICENSE.txt"):
        assert (out / name).read_bytes() == (base / name).read_bytes()
    assert card(out).startswith('---\nlicense: "llama3.2"\n') and "\n# Llama-out\n" in card(out)
    code = re.search(r"```python\n(.*?)\n```", card(out), re.DOTALL)[1].replace('FOLDER = "Llama-out"',
                                                                                 f"FOLDER = {str(out)!r}")
    space = {}
    exec(code, space)
    model, prompt = open_model(RunFolder.open(tmp_path / "run"), model=None, device=torch.device("cpu"),
                               dtype=torch.float32)
    for text in ["we stay", "¿Cerrar la frontera? [2]", "<|eot_id|> 3", "łódź 🚢 한국", "the old town " * 9]:
        row, ids = prompt.encode(text).ids, []
        for part in prompt.parts():
            ids += [part] if isinstance(part, int) else space["encode"](part.replace("{post}", text))
        assert ids[: len(row)] == row  # a post that spells a special token is text in both
        with torch.no_grad():
            place = int(model(torch.tensor([row]))[0, -1][prompt.label_ids].argmax())
        assert space["label"](text) == prompt.codebook.labels[place]
