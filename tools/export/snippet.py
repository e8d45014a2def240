"""The Python that a model card shows: how to load an export elsewhere and read a label with it.

It stands below the card's PROMPT and LABELS, runs as it is where FOLDER and BASE are found, and needs nothing of this
project. Texts between special tokens are encoded one by one, as in training. Each vocabulary is read with the library
that it was made for. transformers gets other ids from some of them: it leaves out the normaliser of a sentencepiece
vocabulary. Control words that
the file does not mark as such are named in the program, so that no post can become one there either.
"""

import json

from model.tokenizer import Tokenizer
from model.tokenizer.pattern import LLAMA3_PATTERN
from tools.export.tokenizer_files import tokenizer_name

IMPORTS = {"peft": "from peft import PeftModel\nfrom transformers import AutoModelForCausalLM",
           "merged": "from transformers import AutoModelForCausalLM",
           "gguf": "from llama_cpp import Llama, llama_get_logits_ith"}
MODEL = {
    "peft": "base = AutoModelForCausalLM.from_pretrained(BASE{how})\nmodel = PeftModel.from_pretrained(base, FOLDER)",
    "merged": "model = AutoModelForCausalLM.from_pretrained(FOLDER)",
    "gguf": 'model = Llama(f"{FOLDER}/{file}", n_ctx=2048, verbose=False)',
}
FOUR_BITS = """
how = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant={double},
                         bnb_4bit_compute_dtype=torch.bfloat16)"""
SENTENCEPIECE = "encode = sentencepiece.SentencePieceProcessor(model_file={file}).encode"
SYMBOLS = """
data = open({file}, "rb").read()
for word in map(str.encode, {words}):  # no text may become one of these: control symbols, not the user's
    piece = re.escape(b"\\n" + bytes([len(word)]) + word) + rb"(\\x15.{{4}})?\\x18\\x04"
    data = re.sub(piece, lambda found: found[0][:-1] + b"\\x03", data, flags=re.DOTALL)
encode = sentencepiece.SentencePieceProcessor(model_proto=data).encode"""
TIKTOKEN = """
lines = [line.split() for line in open({file}, "rb") if line.strip()]
encode = tiktoken.Encoding(
    "llama3",
    pat_str=r"{pattern}",
    mergeable_ranks={{base64.b64decode(token): int(rank) for token, rank in lines}},
    special_tokens={{}},
).encode_ordinary"""
TOKENIZER_JSON = """
content = json.load(open({file}, encoding="utf-8")) | {{"truncation": None, "padding": None}}
{mark}tokenizer = Tokenizer.from_str(json.dumps(content))
tokenizer.encode_special_tokens = True  # as text
encode = lambda text: tokenizer.encode(text, add_special_tokens=False).ids"""
MARK = """for word in content["added_tokens"]:  # no text may become one of these
    word["special"] |= word["content"] in {words}
"""
LABEL = """
def label(post):
    ids = []
    for part in PROMPT:
        ids += [part] if isinstance(part, int) else encode(part.replace("{post}", post))
    place = max(place for place, id in enumerate(ids) if id in LABELS)  # PROMPT ends in the first label's answer
    logits = LOGITS
    return LABELS[max(LABELS, key=lambda id: logits[id])]
"""
LOGITS = {True: "model(torch.tensor([ids[:place]])).logits[0, -1]", False: "next_logits(ids[:place])"}
NEXT = """
def next_logits(ids):
    model.reset()
    model.eval(ids)
    return llama_get_logits_ith(model.ctx, -1)  # of the last token, by id
"""


def usage(kind: str, *, name: str, base: str, tokenizer: Tokenizer, four_bits: str | None = None,
          file: str = "") -> str:
    """The program for a "peft", "merged" (also in 4 bits) or "gguf" export called `name`.

    four_bits: for "peft", how the base was quantised in
    training, "nf4" or "nf4-double". file: of a "gguf", its name.
    """
    torch = kind != "gguf"
    modules, encode = _encoder(tokenizer, f'f"{{FOLDER}}/{tokenizer_name(tokenizer)}"')
    imports = [f"import {module}" for module in [*modules, *["torch"] * torch]] + [IMPORTS[kind]]
    imports += ["from tokenizers import Tokenizer"] if "Tokenizer." in encode else []
    places = [f"FOLDER = {json.dumps(name)}  # where this folder is"]
    if kind == "peft":
        places.append(f"BASE = {json.dumps(base)}  # where the base is")
    model = MODEL[kind].replace("{file}", file).replace("{how}", ", quantization_config=how" if four_bits else "")
    if four_bits:
        imports.append("from transformers import BitsAndBytesConfig")
        model = FOUR_BITS.format(double=four_bits == "nf4-double").strip() + "\n" + model
    blocks = ["\n".join(imports), "\n".join(places), model, encode,
              *([] if torch else [NEXT.strip()]), LABEL.replace("LOGITS", LOGITS[torch]).strip()]
    return "\n\n".join(blocks) + '\n\nprint(label("the text of a post"))'


def _encoder(tokenizer: Tokenizer, file: str) -> tuple[list[str], str]:
    """Modules to import, and the lines that make `encode` of the file at the expression `file`."""
    words = json.dumps(tokenizer.unmarked, ensure_ascii=False)
    if tokenizer.kind == "tiktoken":
        return ["base64", "tiktoken"], TIKTOKEN.format(file=file, pattern=LLAMA3_PATTERN).strip()
    if tokenizer.kind == "bpe":
        mark = MARK.format(words=words) if tokenizer.unmarked else ""
        return ["json"], TOKENIZER_JSON.format(file=file, mark=mark).strip()
    if tokenizer.unmarked:
        return ["re", "sentencepiece"], SYMBOLS.format(file=file, words=words).strip()
    return ["sentencepiece"], SENTENCEPIECE.format(file=file)
