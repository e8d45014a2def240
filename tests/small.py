"""A small random base with a tokenizer of its own, and invented posts: what the tests of the programs run on."""

import contextlib
import importlib
import importlib.util
import io
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import sentencepiece
import torch
from safetensors.torch import save_file

from common.errors import run_program
from common.files import ROOT
from data.codebook import load_codebook
from model.config import LlamaConfig
from model.llama import LlamaForCausalLM
from tests import PATIENCE
from tests.tiny import LLAMA3_ROPE

LABELS = load_codebook().labels
SHAPE = dict(model_type="llama", vocab_size=600, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
             num_attention_heads=4, num_key_value_heads=2, head_dim=8, max_position_embeddings=1024, rms_norm_eps=1e-5,
             rope_parameters=LLAMA3_ROPE, tie_word_embeddings=True)
WORDS = {
    "en": "we they open close border door street river boat town new old people come stay leave work home the a and",
    "es": "nosotros ellos abrir cerrar frontera puerta calle barco pueblo gente venir trabajo casa el la y nuevo viejo",
    "pl": "my oni otworzyć zamknąć granica drzwi ulica łódź miasto ludzie przyjść praca dom i nowy stary",
}


def random_model(seed: int = 0, dtype=torch.float32, **overrides) -> LlamaForCausalLM:
    """A model whose weights are large enough that attention and every layer show in its output."""
    generator = torch.Generator().manual_seed(seed)
    model = LlamaForCausalLM(LlamaConfig.from_dict(SHAPE | overrides)).to(dtype)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(1 + 0.2 * noise if "norm" in name else noise * 0.8 / parameter.shape[-1] ** 0.5)
    return model.requires_grad_(False)


def posts(count: int, seed: int, languages=("en", "es", "pl"), **columns) -> list[dict]:
    """Invented posts, labels and languages in turn, of 1 to 14 words, no two alike; `columns` are further columns."""
    draw, rows = random.Random(seed), []
    for number in range(count):
        language = languages[number % len(languages)]
        words = draw.choices(WORDS[language].split(), k=draw.randint(1, 14))
        text = f"{' '.join(words)} {seed}.{number}"
        row = {"id": f"{seed}-{number}", "text": text, "label": LABELS[number // len(languages) % len(LABELS)]}
        rows.append(row | {"language": language} | {name: make(number) for name, make in columns.items()})
    return rows


def write_jsonl(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def write_base(folder: Path, seed: int = 0, **overrides) -> Path:
    """A checkpoint folder: config.json, model.safetensors and a sentencepiece vocabulary of 600 pieces."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(SHAPE | overrides))
    save_file(random_model(seed, **overrides).state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    book = load_codebook()
    text = " ".join([book.role, book.introduction, book.instruction(), *WORDS.values()]).split()
    sentences = [" ".join(text[start : start + 7]) for start in range(len(text))] * 3
    vocabulary = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences), model_writer=vocabulary, vocab_size=SHAPE["vocab_size"], model_type="bpe",
        byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False, minloglevel=2,
        split_digits=True, character_coverage=0.98,
    )
    (folder / "tokenizer.model").write_bytes(vocabulary.getvalue())
    return folder


def needs(*packages: str) -> None:
    """Skip the test where one is missing, without the seconds that importing them takes: other processes use them."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"needs {package}")


def start(*words, cwd: Path, log: Path | None = None) -> subprocess.Popen:
    """A program of this project in a process of its own, on one thread; `log` takes both of its outputs."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    sink = open(log, "w", encoding="utf-8") if log else contextlib.nullcontext(subprocess.PIPE)  # noqa: SIM115
    with sink as out:
        return subprocess.Popen([sys.executable, ROOT / words[0], *map(str, words[1:])], cwd=cwd, env=environment,
                                stdout=out, stderr=subprocess.STDOUT if log else subprocess.PIPE, text=True)


def run(*words, cwd: Path, code: int = 0) -> str:
    """What a program in a process of its own printed; its exit status must be `code`."""
    process = start(*words, cwd=cwd)
    out, err = process.communicate(timeout=PATIENCE)
    return _judged(process.returncode, out, err, code)


def here(*words, cwd: Path, code: int = 0) -> str:
    """The same in this process, without the seconds that it takes to import PyTorch once more."""
    module = words[0].removesuffix(".py")
    if (ROOT / module.replace(".", "/")).is_dir():
        module += ".__main__"
    main = importlib.import_module(module).main
    out, err, threads, found = io.StringIO(), io.StringIO(), torch.get_num_threads(), 0
    with contextlib.chdir(cwd), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            run_program(main, [str(word) for word in words[1:]])
        except SystemExit as end:
            found = end.code
        finally:
            torch.set_num_threads(threads)
    return _judged(found, out.getvalue(), err.getvalue(), code)


def _judged(found: int, out: str, err: str, code: int) -> str:
    assert found == code, err + out
    if code == 0:
        return out
    assert err.startswith("error: ") and err.count("\n") == 1 and "Traceback" not in out + err, err
    return err
