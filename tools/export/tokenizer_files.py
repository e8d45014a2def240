"""The tokenizer's files beside an exported model or adapter, with which `AutoTokenizer` makes the ids of the run.

They are the base's own files, byte for byte, but for two things:

- tokenizer_config.json of a tokenizer.json names a class that runs that file's own pipeline. Others (`GPT2Tokenizer`,
  `LlamaTokenizer`) build theirs anew in transformers 5, and drop what they do not know, such as SmolLM2's `Digits`.
- A base that is a GGUF file has no such files. They are made of the vocabulary in it.
"""

import shutil
from pathlib import Path

from common.files import atomic_write, read_json, write_json
from common.gguf import is_gguf
from model.tokenizer import Tokenizer
from model.tokenizer.gguf import (
    TOKENIZER_CLASS,
    generation_config,
    gguf_vocabulary,
    tokenizer_config,
    tokenizer_json,
    tokenizer_model,
)

TOKENIZER_CLASSES = (TOKENIZER_CLASS, "TokenizersBackend")  # the name in transformers 4 and 5, and in 5 alone
CONFIG, GENERATION = "tokenizer_config.json", "generation_config.json"
TOKENIZER = ("tokenizer.model", "tokenizer.json", CONFIG, "special_tokens_map.json", "added_tokens.json",
             "chat_template.jinja", "chat_template.json")  # fmt: skip


def tokenizer_name(tokenizer: Tokenizer) -> str:
    """The name, in an export, of the file that makes the tokenizer's ids."""
    if not is_gguf(tokenizer.source):
        return tokenizer.source.name
    return "tokenizer.json" if tokenizer.kind == "bpe" else "tokenizer.model"


def write_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write the tokenizer's files into `folder`."""
    if is_gguf(tokenizer.source):
        vocabulary = gguf_vocabulary(tokenizer.source)
        write_json(folder / "tokenizer.json", tokenizer_json(vocabulary))
        write_json(folder / CONFIG, tokenizer_config(vocabulary))
        if tokenizer.kind == "sentencepiece":
            with atomic_write(folder / "tokenizer.model", "wb") as handle:
                handle.write(tokenizer_model(vocabulary))
        return
    for path in (tokenizer.source, *(tokenizer.beside / name for name in TOKENIZER)):
        if path.is_file() and not (folder / path.name).exists():
            shutil.copyfile(path, folder / path.name)
    if tokenizer.kind == "bpe":
        path = tokenizer.beside / CONFIG
        config = read_json(path) if path.is_file() else _named(tokenizer)
        if config.get("tokenizer_class") not in TOKENIZER_CLASSES:
            write_json(folder / CONFIG, config | {"tokenizer_class": TOKENIZER_CLASS})


def write_generation(tokenizer: Tokenizer, base: Path, folder: Path) -> None:
    """Write generation_config.json, which says where a text ends, where the base says so."""
    if is_gguf(tokenizer.source):
        write_json(folder / GENERATION, generation_config(gguf_vocabulary(tokenizer.source)))
    elif (base / GENERATION).is_file():
        shutil.copyfile(base / GENERATION, folder / GENERATION)


def _named(tokenizer: Tokenizer) -> dict:
    """The tokens that begin and end a text, by name."""
    names = {id: name for name, id in tokenizer.special_ids.items()}
    ids = {"bos_token": tokenizer.bos_id, "eos_token": next(iter(tokenizer.eos_ids), None)}
    return {key: names[id] for key, id in ids.items() if id in names}
