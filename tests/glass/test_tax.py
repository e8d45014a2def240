"""The tokenizer's tax: against the tokenizer's own counts, for a tokenizer of bytes, and with numpy alone.

Deliberate break: in glass/tax.py divide by another language's tokens, count characters as bytes, or leave out `>= 0`.
"""

from collections import Counter

import pytest

from glass import recompute, trace
from glass.tax import SENTENCES, tax
from glass.verify import write_verification


def test_counts_are_those_of_the_sentences_one_by_one(run):
    stage, tokenizer = tax(run.prompt.tokenizer), run.prompt.tokenizer
    assert len(SENTENCES) == 13 and len(set(SENTENCES.values())) == 13
    english = len(tokenizer.encode(SENTENCES["en"]))
    for row, text in enumerate(SENTENCES.values()):
        ids = tokenizer.encode(text)
        assert [id for id in stage.pieces[row].tolist() if id >= 0] == ids and stage.tokens[row] == len(ids)
        assert stage.bytes[row] == len(text.encode()) and stage.characters[row] == sum(Counter(text).values())
        assert stage.tax[row].item() == pytest.approx(len(ids) / english)


def test_a_tokenizer_of_bytes_taxes_by_bytes():
    class Bytes:
        def encode(self, text):
            return list(text.encode())

    stage = tax(Bytes())
    assert stage.tokens.tolist() == stage.bytes.tolist() and stage.tax[0] == 1
    korean, hindi = (list(SENTENCES).index(language) for language in ("ko", "hi"))
    assert stage.bytes[korean] > 2 * stage.characters[korean] and stage.bytes[hindi] > 2 * stage.characters[hindi]


def test_numpy_alone_agrees(run, tmp_path, capsys):
    found = trace(run, "They").extended([tax(run.prompt.tokenizer)])
    write_verification(found, tmp_path / "check")
    assert recompute.main(tmp_path / "check") == 0, capsys.readouterr().out
    assert "agrees   tax " in capsys.readouterr().out
