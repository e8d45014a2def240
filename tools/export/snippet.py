"""The Python that a model card shows: how to load an export elsewhere and read a label with it.

It stands below the card's PROMPT and LABELS, runs as it is where FOLDER and BASE are found, and needs nothing of this
project. Texts between special tokens are encoded one by one, and a post that is too long loses its end where the run
cuts it. Each vocabulary is read with the library that it was made for: transformers gets other ids from some of them,
since it leaves out the normaliser of a sentencepiece vocabulary. Control words that the file does not mark as such are
named in the program, so that no post can become one there either.
"""

import json

from common.gguf import is_gguf
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
ROW = """
def row(post):
    ids = []
    for part in PROMPT:
        ids += [part] if isinstance(part, int) else encode(part.replace("{post}", post))
    return ids[: max(place for place, id in enumerate(ids) if id in LABELS)]  # PROMPT ends in the first label's answer
"""
CUT = """
def fits(post):
    return len(row(post)) <= LONGEST

def cut(post):  # a post that is too long loses its end, but no letter its marks, and no emoji a part
    low, high = 0, min(len(post), 4 * LONGEST)
    while fits(post[:high]):
        if high == len(post):
            return post
        low, high = high, min(len(post), 2 * high)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(post[:middle]) else (low, middle)
    count = max(more for more in range(low, min(low + 8, len(post)) + 1) if fits(post[:more]))
    while count and not (parts(post[count - 1], post[count]) and fits(post[:count])):
        count -= 1
    return post[:count]

def parts(last, following):
    mark = unicodedata.category(following).startswith("M") or "\\U0001f3fb" <= following <= "\\U0001f3ff"
    halves = "\\u200d" in (last, following) or unicodedata.combining(last) == 9
    return not (mark or halves or last + following == "\\r\\n")
"""
LABEL = """
def label(post):
    logits = LOGITS
    return LABELS[max(LABELS, key=lambda id: logits[id])]
"""
LOGITS = {True: "model(torch.tensor([row(cut(post))])).logits[0, -1]", False: "next_logits(row(cut(post)))"}
NEXT = """
def next_logits(ids):
    model.reset()
    model.eval(ids)
    return llama_get_logits_ith(model.ctx, -1)  # of the last token, by id
"""


def usage(kind: str, *, name: str, base: str, tokenizer: Tokenizer, longest: int, four_bits: str | None = None,
          file: str = "") -> str:
    """The program for a "peft", "merged" (also in 4 bits) or "gguf" export called `name`.

    longest: tokens that a prompt with its post may take. four_bits: for "peft", how the base was quantised in
    training, "nf4" or "nf4-double". file: of a "gguf", its name.
    """
    torch, source = kind != "gguf", tokenizer.source
    modules, encode = _encoder(tokenizer, f'f"{{FOLDER}}/{tokenizer_name(tokenizer)}"')
    modules = sorted([*modules, "unicodedata"]) + ["torch"] * torch
    imports = [f"import {module}" for module in modules] + [IMPORTS[kind]]
    imports += ["from tokenizers import Tokenizer"] if "Tokenizer." in encode else []
    places = [f"LONGEST = {longest}  # tokens of a prompt with its post, as in training",
              f"FOLDER = {json.dumps(name)}  # where this folder is"]
    how = ", quantization_config=how" if four_bits else ""
    if kind == "peft" and is_gguf(source):  # which transformers reads, but not into bitsandbytes' 4 bits
        how, four_bits = f", gguf_file={json.dumps(source.name)}", None
    if kind == "peft":
        where = "where the base is" if not is_gguf(source) else f"the folder in which the base's {source.name} is"
        places.append(f"BASE = {json.dumps(base)}  # {where}")
    model = MODEL[kind].replace("{file}", file).replace("{how}", how)
    if four_bits:
        imports.append("from transformers import BitsAndBytesConfig")
        model = FOUR_BITS.format(double=four_bits == "nf4-double").strip() + "\n" + model
    blocks = ["\n".join(imports), "\n".join(places), model, encode, *([] if torch else [NEXT.strip()]), ROW.strip(),
              CUT.strip(), LABEL.replace("LOGITS", LOGITS[torch]).strip()]
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
