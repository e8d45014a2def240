"""The tokenizer's tax: what one sentence costs in thirteen languages, in tokens beside bytes and characters.

    tax = tokens / tokens of the same sentence in English

A tokenizer cuts the languages that it saw often into long pieces and the others into short ones, so the same words
take more of a model's time and of its window (Ahia et al. 2023, arXiv 2305.13707; Petrov et al. 2023, arXiv
2305.15425). The sentences were written for this project; `SENTENCES["en"]` is also the page's first post.
"""

from functools import cache

import torch

from glass.source import code
from glass.stages import Stage, Step

SENTENCES = {
    "en": "They came here as children; let them stay.",
    "es": "Llegaron aquí de niños; déjenlos quedarse.",
    "fr": "Ils sont arrivés ici enfants ; laissez-les rester.",
    "it": "Sono arrivati qui da bambini; lasciateli restare.",
    "pt": "Chegaram aqui quando crianças; deixem que fiquem.",
    "de": "Sie kamen als Kinder hierher; lasst sie bleiben.",
    "pl": "Przyjechali tu jako dzieci; pozwólcie im zostać.",
    "hu": "Gyerekként jöttek ide; hadd maradjanak.",
    "tr": "Buraya çocukken geldiler; bırakın kalsınlar.",
    "id": "Mereka datang ke sini waktu kecil; biarkan mereka tinggal.",
    "ar": "جاؤوا إلى هنا أطفالًا؛ دعوهم يبقون.",
    "hi": "वे बचपन में यहाँ आए थे; उन्हें रहने दो।",
    "ko": "그들은 어릴 때 이곳에 왔다. 그대로 살게 하자.",
}


@cache
def tax(tokenizer) -> Stage:
    """The stage `tax`: each sentence's ids (13, n), -1 behind the last; its tokens, bytes and characters (13,) int64;
    the tax (13,) float32."""
    rows = [torch.tensor(tokenizer.encode(text)) for text in SENTENCES.values()]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)
    tokens = (ids >= 0).sum(-1)
    sizes = torch.tensor([[len(text.encode("utf-8")), len(text)] for text in SENTENCES.values()])
    texts = {"texts": list(SENTENCES.values())}
    return Stage("tax", "The tax of the tokenizer", "tax = tokens / tokens of the same sentence in English",
                 {"pieces": ids, "tokens": tokens, "bytes": sizes[:, 0], "characters": sizes[:, 1],
                  "tax": tokens / tokens[0]},
                 (code(tax, "rows =", "tokens =", "sizes =", "tokens[0]"),), (
                     Step("count_tokens", "tax.tokens", ("tax.pieces",)), Step("count_bytes", "tax.bytes", (), texts),
                     Step("count_characters", "tax.characters", (), texts), Step("tax", "tax.tax", ("tax.tokens",))))
