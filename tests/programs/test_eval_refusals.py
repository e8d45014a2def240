"""eval.py: what can be refused at once is refused before the model labels.

Deliberate break: leave `check_values` out of `eval.grouped`, or open the encoder only when it is asked.
"""

import pytest

import eval as evaluation
from common.files import ROOT
from tests.small import LABELS, here, write_jsonl


@pytest.mark.parametrize("words, says", [
    (("--by", "uid"), "--by uid: 240 different values; at most 200"), (("--encoder", "nowhere"), "nowhere")])
def test_before_the_model_labels(tmp_path, monkeypatch, words, says):
    def open_model(*_, **__):
        raise AssertionError("the model was opened")

    monkeypatch.setattr(evaluation, "open_model", open_model)
    write_jsonl(tmp_path / "many.jsonl", [
        {"id": str(number), "uid": str(number), "text": f"post {number}", "language": "en", "label": LABELS[number % 4]}
        for number in range(240)])
    assert says in here("eval.py", "--run", ROOT / "base" / "run", "--data", "many.jsonl", "--out", "out", *words,
                        cwd=tmp_path, code=2)
