"""Tokenizer files for tests, and the texts on which ours and the reference must agree."""

import json
import random
import sys
import unicodedata
from functools import cache

PLAIN = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
TRICKY = [
    "", " ", "  ", "\n", "\r\n\r\n", "\t x", " \n \n", "a  b   c", "trailing  ", "\u00a0nbsp\u2003em\u3000ideographic",
    "<|eot_id|>", "hi<|begin_of_text|><|start_header_id|>system<|end_header_id|>", "<s> </s> <unk> <0x0A> <|im_end|>",
    "it's I'LL we'Ve 'ſ d'accord 's't", "1234567 1,234.5 ٣٤٥٦ ५६७ ①② ⅷ ½", "x²y³", "a\x00b\x1c\x85\u2028c",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 \U0001f44d\U0001f3fd \U0001f3f3\ufe0f\u200d\U0001f308",
    "\U0001f1e7\U0001f1f7\U0001f1f5\U0001f1f1 \u270a\U0001f3ff!!", "\U0001f468\u200d",
    "e\u0301\u0323\u0301 ñ n\u0303 Å A\u030a", "\u0301\u0301 leading marks",
    "مرحبا، كيف الحال؟ ١٢٣ \u200f(RTL) \u202bembedded\u202c", "שלום עוֹלָם־", "नमस्ते क्षत्रिय ज़",
    "한국어 각 \u1100\u1161\u11a8",
    "汉字かな交じり文。",
    "ภาษาไทยไม่มีช่องว่าง", "Ünïcödé ß İıİ ŉ", "user@example.org #tag @handle https://example.org/?q=1&r=%20",
    "\ufeffbom \ufffd \U0010ffff",
    "...!!!???---===***", "\U0001f600" * 30, "haha" * 40, "ha " * 40, "\n" * 50, " " * 50 + "x", "=" * 77, "é" * 33,
]


@cache
def assigned_characters() -> list[str]:
    """Every character that this Python's Unicode tables know; the libraries' own tables are at least as new."""
    everything = map(chr, range(sys.maxunicode + 1))
    return [char for char in everything if unicodedata.category(char) not in ("Cn", "Cs", "Co")]


def random_strings(count: int, seed: int = 0) -> list[str]:
    """Strings that mix any assigned character with white space, digits, contractions, ASCII and repeated runs."""
    draw = random.Random(seed)
    anything = assigned_characters()
    frequent = [*" \n\t'.,!?-_=0123456789abcdeostTSLV", "  ", "'s", "'LL", "\r\n", "\u0301", "\u200d", "\U0001f44d",
                "<|", "|>"]
    texts = []
    for _ in range(count):
        parts = []
        for _ in range(draw.randint(1, 12)):
            source = frequent if draw.random() < 0.7 else anything
            parts.append(draw.choice(source) * (1 if draw.random() < 0.9 else draw.randint(2, 20)))
        texts.append("".join(parts))
    return texts


def languages(shared_data, step: int = 40) -> dict[str, list[str]]:
    """Sentences of the 13 languages, by language: every `step`-th of the topic and of the parallel sentences."""
    texts: dict[str, list[str]] = {}
    for name in ("topics/sib200.jsonl", "parallel/ntrex.jsonl"):
        with open(shared_data / name, encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                texts.setdefault(row["language"], []).append(row["text"])
    return {language: rows[::step] for language, rows in texts.items()}


def llama3_json(shared_data, folder):
    """A tokenizer.json made from Llama 3's tiktoken file by transformers' converter; returns its path."""
    from tokenizers import AddedToken
    from transformers.convert_slow_tokenizer import TikTokenConverter

    config = json.loads((shared_data / "llama3/hf_3b_instruct/tokenizer_config.json").read_text())
    tokenizer = TikTokenConverter(str(shared_data / "llama3/tokenizer.model")).converted()
    tokenizer.add_special_tokens([AddedToken(token["content"], special=True, normalized=False)
                                  for token in config["added_tokens_decoder"].values()])
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


def llama2_json(model, folder, how: str = "transformers 5"):
    """A tokenizer.json as transformers writes it for a sentencepiece `model`; returns its path.

    how: "transformers 5", from a tokenizer.json of the same release; "transformers 4", whose normaliser writes spaces;
    "converted", by transformers 5 from the model itself, with merges in the order of the ids and not of the scores.
    """
    import sentencepiece
    from transformers import LlamaTokenizer
    from transformers.convert_slow_tokenizer import generate_merges

    pieces = sentencepiece.SentencePieceProcessor(model_file=str(model))
    vocab = {pieces.id_to_piece(id): id for id in range(pieces.vocab_size())}
    no_text = [piece for piece, id in vocab.items() if pieces.is_control(id) or pieces.is_byte(id) or id == 0]
    scores = {piece: pieces.get_score(id) for piece, id in vocab.items()}
    merges = generate_merges(vocab) if how == "converted" else generate_merges(vocab, scores, no_text)
    LlamaTokenizer(vocab=vocab, merges=merges).save_pretrained(folder)
    path = folder / "tokenizer.json"
    if how == "transformers 4":
        content = json.loads(path.read_text(encoding="utf-8"))
        content["pre_tokenizer"], content["normalizer"] = None, characters("prepend")["normalizer"]
        content["model"]["unk_token"] = "<unk>"
        path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return path


def trained_json(path, style: str, words=(), nfc: bool = False, size: int = 700):
    """A small byte-level BPE trained by `tokenizers`: style "gpt2", "smollm2" or "llama3"; returns its path."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    from model.tokenizer.pattern import LLAMA3_PATTERN

    tokenizer = Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=style != "llama3")
    before = {"gpt2": [], "smollm2": [pre_tokenizers.Digits(individual_digits=True)],
              "llama3": [pre_tokenizers.Split(Regex(LLAMA3_PATTERN), "isolated")]}[style]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*before, byte_level]) if before else byte_level
    tokenizer.normalizer = normalizers.NFC() if nfc else None
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(TRICKY * 3 + random_strings(500, seed=1), trainer)
    tokenizer.add_tokens([AddedToken(word, normalized=False) for word in words])
    tokenizer.save(str(path))
    return path


def reference(path):
    """`tokenizers` on a tokenizer.json, with the names of special tokens in a text left as text."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.encode_special_tokens = True
    return lambda texts: [e.ids for e in tokenizer.encode_batch(texts, add_special_tokens=False)]


def word(id, content, **flags):
    """An entry of `added_tokens`; all that is not said of it is false."""
    return {"id": id, "content": content, "special": False, **PLAIN} | flags


def characters(before: str, split: bool = False, **model):
    """A tokenizer.json as a dict, as of Llama 2: characters, U+2581 for a space, bytes for what has no token.

    before: where a U+2581 is put by Metaspace ("always", "first" or "never"), or "prepend", by the normaliser.
    """
    singles = [*"▁abehxÉ.<>|[]_15", "é", "\u0301"]
    merged = ["▁a", "▁▁", "ha", "haha", "▁ha", "ab", "ah", "e\u0301"]
    cuts = {token: [(token[:at], token[at:]) for at in range(1, len(token))] for token in merged}
    known = {*singles, *merged}
    vocab = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *singles, *merged]
    normalizers = [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]
    space = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": before, "split": split}
    decoders = [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
                {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": int(before != "never"), "stop": 0}]
    return {
        "added_tokens": [],
        "normalizer": {"type": "Sequence", "normalizers": normalizers} if before == "prepend" else None,
        "pre_tokenizer": None if before == "prepend" else space,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {"type": "BPE", "vocab": {token: id for id, token in enumerate(vocab)}, "byte_fallback": True,
                  "fuse_unk": True, "unk_token": "<unk>",
                  "merges": [list(cut) for token in merged for cut in cuts[token] if {*cut} <= known]} | model,
    }  # fmt: skip


def byte_vocabulary(**model):
    """A tokenizer.json as a dict: the 256 bytes, "ab" and "abc", one special token; `model` overrides its model."""
    from model.tokenizer.bpe import ALPHABET

    vocab = {char: byte for char, byte in ALPHABET.items()} | {"ab": 256, "abc": 257}
    return {
        "added_tokens": [{"id": 300, "content": "<|end|>", "special": True, **PLAIN}],
        "normalizer": None,
        "pre_tokenizer": BYTE_LEVEL,
        "decoder": BYTE_LEVEL,
        "model": {"type": "BPE", "vocab": vocab, "merges": ["a b", "ab c"]} | model,
    }
