"""The Python that a model card shows: how to load an export elsewhere and read a label with it.

It follows the card's PROMPT and LABELS, runs as it is if FOLDER and BASE are found, and needs nothing from this
project. Texts between special tokens are encoded one by one, as in training. A sentencepiece vocabulary is read with
its own library: transformers reads its pieces, but not its normaliser, and so gets different ids.
"""

import json

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
ENCODE = {
    True: 'encode = sentencepiece.SentencePieceProcessor(model_file=f"{{{where}}}/tokenizer.model").encode',
    False: "tokenizer = AutoTokenizer.from_pretrained({where}, split_special_tokens=True)\n"
           "encode = lambda text: tokenizer.encode(text, add_special_tokens=False)",
}  # fmt: skip
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


def usage(kind: str, *, name: str, base: str, sentencepiece: bool, four_bits: str | None = None, file: str = "") -> str:
    """The program for a "peft", "merged" (also in 4 bits) or "gguf" export called `name`.

    four_bits: for "peft", how the base was quantised in training, "nf4" or "nf4-double". file: of a "gguf", its name.
    """
    torch, where = kind != "gguf", "BASE" if kind == "peft" else "FOLDER"
    imports = ["import torch"] * torch + ["import sentencepiece"] * sentencepiece + [IMPORTS[kind]]
    imports += [] if sentencepiece else ["from transformers import AutoTokenizer"]
    places = [f"FOLDER = {json.dumps(name)}  # where this folder is"]
    if kind == "peft":
        places.append(f"BASE = {json.dumps(base)}  # where the base is")
    model = MODEL[kind].replace("{file}", file).replace("{how}", ", quantization_config=how" if four_bits else "")
    if four_bits:
        imports.append("from transformers import BitsAndBytesConfig")
        model = FOUR_BITS.format(double=four_bits == "nf4-double").strip() + "\n" + model
    blocks = ["\n".join(imports), "\n".join(places), model, ENCODE[sentencepiece].format(where=where),
              *([] if torch else [NEXT.strip()]), LABEL.replace("LOGITS", LOGITS[torch]).strip()]
    return "\n\n".join(blocks) + '\n\nprint(label("the text of a post"))'
