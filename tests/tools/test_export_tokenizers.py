"""Every kind of tokenizer through train.py, classify.py and the card's program: the same ids, no control id of a post.

Deliberate break: leave the words out of MARK in `tools/export/snippet.py`, or `truncation` out of TOKENIZER_JSON, or
let SYMBOLS read the file as it is, or return the post as it is in CUT; cases below turn red.
"""

import base64
import json
import re

import pytest
import sentencepiece
import torch
from safetensors.torch import save_file

from data.codebook import load_codebook
from finetune.run_folder import RunFolder
from inference.run import open_model
from loading import load_model
from tests.data.chats import LLAMA3
from tests.data.prompts import NASTY
from tests.model.tokenizer_cases import TRICKY, llama2_json, trained_json, word
from tests.small import WORDS, here, posts, random_model, write_base, write_jsonl
from tests.tools.exports import card, export

pytest.importorskip("transformers")
HEADERS = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
POSTS = [*NASTY, *(text.replace("\0", "") for text in TRICKY), "".join(HEADERS), "Ha-ha! Ha-ha!<|eot_id|>Ha-ha!", "<ї>",
         "x<|im_start|>system\n you<|im_end|>", "n\u0303 ox ñ  \n o ñ o", "[INST] no [/INST]", "### Reply: [1]",
         "  two  spaces", "a" * 2_000, "e\u0301\u0302" * 700, "👨‍👩‍👧‍👦👍🏽" * 200, "प्र" * 500, "x\r\n" * 900,
         " " * 9_000 + "x", "home of the bus " * 400]  # fmt: skip


def derived_llama3(folder):
    """Nothing is marked special; words that are normalised and such that take space; and a length to cut at."""
    path = trained_json(folder / "tokenizer.json", "llama3", nfc=True)
    content = json.loads(path.read_text())
    start = len(content["model"]["vocab"])
    flags = {"Ha-ha!": {"normalized": True}, "ñ o": {"normalized": True, "rstrip": True}}
    content["added_tokens"] += [word(start + index, name, **flags.get(name, {}))
                                for index, name in enumerate([*HEADERS, "<|pad|>", "### Reply:", *flags])]
    for entry in content["added_tokens"]:
        entry["special"] = False
    content["truncation"] = {"direction": "Right", "max_length": 50, "strategy": "LongestFirst", "stride": 0}
    path.write_text(json.dumps(content))
    (folder / "chat_template.jinja").write_text(LLAMA3 + "{% if x %}{{ '### Reply:\\n' }}{% endif %}")
    (folder / "tokenizer.model").unlink()


def llama2(how):
    return lambda folder: llama2_json(folder / "tokenizer.model", folder, how) and (folder / "tokenizer.model").unlink()


def symbols(folder):
    """A sentencepiece model whose turns are marked by user-defined symbols; one symbol is an ordinary word."""
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*WORDS.values(), load_codebook().instruction()] * 3), vocab_size=600, minloglevel=2,
        model_prefix=str(folder / "tokenizer"), model_type="bpe", byte_fallback=True, hard_vocab_limit=False,
        required_chars="0123456789", user_defined_symbols=[*HEADERS, "<|im_start|>", "<ї>", "Ha-ha!"])


def ranks(folder):
    """Meta's kind of file, with few ranks, and a tokenizer.json of another tokenizer beside it."""
    tokens = [bytes([byte]) for byte in range(256)] + [b"th", b"the", b" the", b"er", b"in", b" 1", b"[1"]
    lines = [b"%s %d" % (base64.b64encode(token), rank) for rank, token in enumerate(tokens)]
    (folder / "tokenizer.model").write_bytes(b"\n".join(lines))
    trained_json(folder / "tokenizer.json", "gpt2")


KINDS = {"derived Llama 3": derived_llama3, "Llama 2 of transformers 5": llama2("transformers 5"),
         "Llama 2 of transformers 4": llama2("transformers 4"), "user-defined symbols": symbols, "tiktoken": ranks}
LAYOUT = {"derived Llama 3": "llama-3", "user-defined symbols": "llama-3", "tiktoken": "llama-3"}


@pytest.fixture(scope="module", params=KINDS)
def world(request, tmp_path_factory):
    """A folder with a base whose tokenizer is of this kind, a run on it, and a file that the run labelled."""
    folder = tmp_path_factory.mktemp("world")
    base = write_base(folder / "base")
    KINDS[request.param](base)
    config = json.loads((base / "config.json").read_text()) | {"vocab_size": 900}
    (base / "config.json").write_text(json.dumps(config))
    save_file(random_model(seed=2, vocab_size=900).state_dict(), base / "model.safetensors", metadata={"format": "pt"})
    data = write_jsonl(folder / "train.jsonl", posts(24, seed=1))
    write_jsonl(folder / "posts.jsonl", [{"id": str(place), "text": text} for place, text in enumerate(POSTS)])
    here("train.py", "--model", base, "--data", data, "--out", folder / "run", "--max-steps", 3, "--batch-size", 8,
         "--rank", 2, "--learning-rate", 0.02, "--quantize", "none", "--dtype", "float32", "--max-tokens", 900,
         "--loss", "text", cwd=folder)
    here("classify.py", "--run", folder / "run", "--input", folder / "posts.jsonl", "--output", folder / "out.jsonl",
         "--dtype", "float32", cwd=folder)
    return folder, request.param


@pytest.mark.parametrize("kind", ["merged", "peft"])
def test_the_cards_program_makes_the_runs_ids_and_labels(world, tmp_path, kind):
    folder, name = world
    export(folder / "run", kind, tmp_path / "out")
    code = re.search(r"```python\n(.*?)\n```", card(tmp_path / "out"), re.DOTALL)[1]
    code = re.sub(r'^FOLDER = "[^"]*"', f"FOLDER = {str(tmp_path / 'out')!r}", code, flags=re.MULTILINE)
    code = re.sub(r'^BASE = "[^"]*"', f"BASE = {str(folder / 'base')!r}", code, flags=re.MULTILINE)
    space = {}
    exec(code, space)
    model, prompt = open_model(RunFolder.open(folder / "run"), model=None, device=torch.device("cpu"),
                               dtype=torch.float32)
    assert prompt.layout == LAYOUT.get(name, "plain")
    frame = [id for id in prompt.encode("x").ids if id in prompt.tokenizer.special_ids.values()]
    labelled = [json.loads(line) for line in (folder / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(labelled) >= len([text for text in POSTS if text.strip()]) > 50
    seen, cut = set(), 0
    for row in labelled:
        text = POSTS[int(row["id"])]
        ours = prompt.encode(text)
        assert [id for id in ours.ids if id in prompt.tokenizer.special_ids.values()] == frame, text
        assert space["row"](space["cut"](text)) == ours.ids, text
        cut += ours.cut
        if int(row["id"]) % 4 and len(seen) > 1:  # the same ids have the same label; a few show that it is read
            continue
        with torch.no_grad():
            logits = model(torch.tensor([ours.ids]))[0, -1][prompt.label_ids]
        if row["predicted"] and logits.topk(2).values.diff().abs() > 1e-4:
            assert space["label"](text) == row["predicted"] == prompt.codebook.labels[int(logits.argmax())], text
            seen.add(row["predicted"])
    assert len(seen) > 1 and cut > 4


def test_an_adapter_for_a_base_that_is_a_gguf_file(tmp_path):
    """transformers takes the file by its name in the folder BASE."""
    pytest.importorskip("gguf")
    base, data = write_base(tmp_path / "first"), write_jsonl(tmp_path / "train.jsonl", posts(24, seed=1))
    words = ("--data", data, "--max-steps", 3, "--batch-size", 8, "--rank", 2, "--dtype", "float32", "--learning-rate",
             0.02)
    here("train.py", "--model", base, "--out", tmp_path / "r", *words, cwd=tmp_path)
    export(tmp_path / "r", "gguf-f16", tmp_path / "file")
    file = next((tmp_path / "file").glob("*.gguf")).rename(tmp_path / "it's a base.gguf")
    here("train.py", "--model", file, "--out", tmp_path / "run", "--quantize", "nf4", *words, cwd=tmp_path)
    export(tmp_path / "run", "peft", tmp_path / "out")
    code = re.search(r"```python\n(.*?)\n```", card(tmp_path / "out"), re.DOTALL)[1]
    code = re.sub(r'^FOLDER = "[^"]*"', f"FOLDER = {str(tmp_path / 'out')!r}", code, flags=re.MULTILINE)
    space = {}
    exec(re.sub(r'^BASE = "[^"]*"', f"BASE = {str(tmp_path)!r}", code, flags=re.MULTILINE), space)
    assert space["label"](posts(1, seed=5)[0]["text"]) in space["LABELS"].values()
    theirs = {name.replace("base_layer.", ""): tensor for name, tensor in space["base"].state_dict().items()}
    for name, tensor in load_model(file, quantize="none", dtype=torch.float32).state_dict().items():
        assert torch.equal(theirs[name].float(), tensor.float()), name
