"""The good files that damage begins from: as small as each reader takes them, so that a call costs milliseconds."""

import gzip
import io
import json
from pathlib import Path

import sentencepiece
import torch
from safetensors.torch import save_file

from common.files import ROOT, write_json
from common.safetensors_writer import DTYPES
from finetune.loop import Recipe, Trainer
from lora.adapter import save_adapter
from lora.inject import inject, trainable_parameters
from model.config import LlamaConfig
from model.llama import LlamaForCausalLM
from model.tokenizer.hf_json import ALPHABET
from quant.convert import dense_linears
from quant.double_quant import Scales
from quant.nf4 import quantize_nf4
from quant.stored import STATE, make_group, write_stored
from tests.loading.gguf import write_llama
from tests.loading.meta import meta_state, write_meta

SHAPE = {"model_type": "llama", "vocab_size": 24, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1,
         "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 4, "max_position_embeddings": 64,
         "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": True, "torch_dtype": "float32",
         "eos_token_id": [1, 2], "bos_token_id": 0, "rope_scaling": {
             "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
             "original_max_position_embeddings": 64}}  # fmt: skip
PARAMS = {"dim": 8, "n_layers": 1, "n_heads": 2, "n_kv_heads": 1, "vocab_size": 24, "multiple_of": 4,
          "ffn_dim_multiplier": 1.3, "norm_eps": 1e-5, "rope_theta": 10000.0}
POSTS = [{"id": "a-1", "text": 'a post, with "quotes" and\ttabs', "label": "neutral", "language": "en", "author": "x"},
         {"id": "a-2", "text": "otro texto 😀", "label": "unrelated", "language": "es-MX", "author": "y"},
         {"id": 3, "text": "bir gönderi", "label": "pro-immigration", "language": "tr", "author": None}]
PROBABILITIES = [0.1, 0.2, 0.3, 0.4]
PLAN = (ROOT / "study" / "plans" / "small.toml").read_bytes()


def tiny_model(**changes) -> LlamaForCausalLM:
    """A random model of `SHAPE`."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig.from_dict(SHAPE | changes))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter.data, std=0.2)
    return model.requires_grad_(False)


def dense(folder: Path) -> Path:
    """A checkpoint folder."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", SHAPE)
    save_file(dict(tiny_model().state_dict()), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def sharded(folder: Path) -> Path:
    """The same in two files with an index."""
    dense(folder)
    tensors = dict(tiny_model().state_dict())
    (folder / "model.safetensors").unlink()
    names, mapping = sorted(tensors), {}
    for number, part in enumerate((names[:5], names[5:]), 1):
        save_file({name: tensors[name] for name in part}, folder / f"model-{number}.safetensors")
        mapping |= dict.fromkeys(part, f"model-{number}.safetensors")
    write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": 1}, "weight_map": mapping})
    return folder


def stored(folder: Path, double: bool = True) -> Path:
    """A checkpoint in 4 bits."""
    folder.mkdir(parents=True, exist_ok=True)
    model = tiny_model()
    layout = {name: (p.dtype, tuple(p.shape)) for name, p in model.named_parameters()}
    assert all(dtype in DTYPES for dtype, _ in layout.values())
    write_stored(folder, SHAPE, layout, {f"{name}.weight" for name in dense_linears(model)},
                 iter(model.state_dict().items()), double=double)
    return folder


def meta(folder: Path) -> Path:
    """Meta's folder, of two files."""
    return write_meta(folder, PARAMS, meta_state(PARAMS), files=2)


def gguf(folder: Path) -> Path:
    """A GGUF file of blocks, with a scaled rope."""
    return write_llama(folder / "model.gguf", tiny_model(hidden_size=32, intermediate_size=64, head_dim=16), "Q4_1")


def adapter(folder: Path) -> Path:
    """A PEFT adapter for `SHAPE`."""
    model = tiny_model()
    inject(model, ["q_proj", "v_proj"], 2, 4)
    save_adapter(model, folder, "base")
    config = json.loads((folder / "adapter_config.json").read_text())
    write_json(folder / "adapter_config.json", config | {
        "rank_pattern": {"layers.0.self_attn.q_proj": 2}, "alpha_pattern": {"v_proj": 4},
        "exclude_modules": ["o_proj"], "layers_to_transform": [0], "layers_pattern": ["layers"]})
    return folder


def trainer() -> Trainer:
    """A trainer of a tiny adapter that has made one step, as far as its state shows it."""
    model = tiny_model()
    inject(model, ["q_proj"], 2, 4)
    recipe = Recipe(1e-3, "linear", 0.0, 0.0, 1.0, 4, "label")
    made = Trainer(model, [], [0], [1.0], [1, 2], lambda epoch: [0], [], recipe, 3, 64)
    for parameter in trainable_parameters(model).values():
        parameter.grad = torch.ones_like(parameter)
    made.optimizer.step()
    made.step_count = 1
    return made


def checkpoint() -> bytes:
    """A state.pt."""
    written = io.BytesIO()
    torch.save({"trainer": trainer().state(), "watch": {"best": 0.5, "best_step": 1, "without_gain": 0},
                "seconds": 1.5}, written)
    return written.getvalue()


def jsonl(rows=POSTS) -> bytes:
    """Posts as lines of JSON."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def table(delimiter: str = ",") -> bytes:
    """Posts as csv."""
    import csv

    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(POSTS[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(POSTS)
    return text.getvalue().encode()


def zipped(data: bytes) -> bytes:
    """The same, gzipped."""
    return gzip.compress(data, mtime=0)


def predictions() -> bytes:
    """Labels that something else made."""
    return jsonl([row | {"predicted": row["label"]} for row in POSTS])


def tokenizer_json() -> bytes:
    """A byte-level tokenizer.json of a few merges."""
    letters = {char: number for number, char in enumerate(ALPHABET)}
    vocab = letters | {"th": 256, "the": 257, "Ġa": 258}
    words = ("<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<w>")
    added = [{"id": 300 + n, "content": name, "special": n < 3, "single_word": False, "lstrip": False, "rstrip": False,
              "normalized": False} for n, name in enumerate(words)]
    split = {"type": "Split", "pattern": {"Regex": r"\p{N}{1,3}|\p{L}+|\s+"}, "behavior": "Isolated", "invert": False}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return json.dumps({
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]}, "post_processor": None,
        "decoder": level, "model": {"type": "BPE", "dropout": None, "unk_token": None, "fuse_unk": False,
                                    "byte_fallback": False, "ignore_merges": False, "vocab": vocab,
                                    "merges": ["t h", ["th", "e"], "Ġ a"]}}).encode()  # fmt: skip


def tiktoken() -> bytes:
    """Meta's text file with the single bytes and a few merges."""
    import base64

    tokens = [*(bytes([byte]) for byte in range(256)), b"th", b"the", b" a"]
    return b"".join(base64.b64encode(token) + b" %d\n" % rank for rank, token in enumerate(tokens))


def sentences() -> bytes:
    """A small sentencepiece model."""
    written = io.BytesIO()
    words = [row["text"] for row in POSTS] + ["we open the door", "they close the border", "people come and stay"]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(words * 9),
        model_writer=written, vocab_size=300, model_type="bpe", byte_fallback=True, minloglevel=2,
        hard_vocab_limit=False, normalization_rule_name="identity", control_symbols=["<|eot_id|>"])
    return written.getvalue()


def tokenizer_config() -> bytes:
    """A tokenizer_config.json."""
    return json.dumps({"bos_token": "<|begin_of_text|>", "eos_token": {"content": "<|eot_id|>", "lstrip": False},
                       "model_max_length": 10**30, "chat_template": "{{ x }}", "added_tokens_decoder": {
                           "300": {"content": "<|begin_of_text|>", "special": True}}}).encode()  # fmt: skip


def metrics() -> dict:
    """A metrics.json of a few rows."""
    from report.metrics import Scored, score

    labels = ("pro-immigration", "anti-immigration", "neutral", "unrelated")
    gold = [labels[number % 4] for number in range(8)]
    rows = Scored([str(n) for n in range(8)], gold, gold[::-1], ["en", "es"] * 4, labels, None, labels[:3])
    return score(rows, ("en",), draws=5)


def group() -> dict[str, torch.Tensor]:
    """The tensors of a 4-bit weight."""
    weight = tiny_model().model.layers[0].mlp.up_proj.weight
    packed, scales = quantize_nf4(weight)
    return make_group(packed, Scales((scales,)), tuple(weight.shape), "float32")


def group_json() -> bytes:
    """The JSON among them."""
    return bytes(group()[STATE].tolist())
