"""Encoder baselines on a tiny random XLM-R built here: they learn, are repeatable, and name what is missing.

Deliberate break: leave out `torch.manual_seed(seed)` and test_same_seed_same_answers turns red; leave out the last line
of `_train` (dropout stays on), or take the mean over padding too in `set_fit`, and test_padding_changes_nothing does.
"""

import builtins
import json
import shutil
from dataclasses import replace

import numpy
import pytest
import torch

from baselines.encoder import Settings, draw_pairs, fine_tune, set_fit
from common.errors import UserError

TEXTS = ["the wall is closed", "open the border", "open hearts and open doors", "the match is lost",
         "a lost match again", "close the border and the wall now"] * 4
LABELS = [1, 0, 0, 2, 2, 1] * 4
QUICK = Settings(epochs=40, batch=8, rate=2e-3, pairs=4, longest=16)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    folder = tmp_path_factory.mktemp("encoder")
    words = sorted({word for text in TEXTS for word in text.split()})
    vocabulary = {word: place for place, word in enumerate(["<s>", "<pad>", "</s>", "<unk>", *words])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", pad_token="<pad>",
                                         eos_token="</s>", unk_token="<unk>").save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.XLMRobertaConfig(vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=2,
                                           num_attention_heads=2, intermediate_size=64, max_position_embeddings=40)
    transformers.XLMRobertaModel(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("train", [fine_tune, set_fit])
def test_learns_and_gives_what_answers_take(encoder, train):
    predicted, probabilities = train(encoder, TEXTS, LABELS, 4, TEXTS[:6], QUICK)
    assert predicted.dtype == numpy.int64 and probabilities.dtype == numpy.float64
    assert probabilities.shape == (6, 4) and probabilities.sum(1) == pytest.approx(numpy.ones(6), abs=1e-9)
    assert (predicted == LABELS[:6]).all()
    assert train(encoder, TEXTS, LABELS, 4, [], QUICK)[1].shape == (0, 4)


@pytest.mark.parametrize("train", [fine_tune, set_fit])
def test_same_seed_same_answers(encoder, train):
    short = Settings(epochs=1, batch=8, rate=1e-3, pairs=1, longest=16, seed=3)
    first = train(encoder, TEXTS, LABELS, 3, TEXTS[:6], short)[1]
    torch.manual_seed(77)
    before = torch.get_rng_state()
    assert numpy.array_equal(train(encoder, TEXTS, LABELS, 3, TEXTS[:6], short)[1], first)
    assert torch.equal(torch.get_rng_state(), before)
    other = train(encoder, TEXTS, LABELS, 3, TEXTS[:6], replace(short, seed=4))[1]
    assert not numpy.array_equal(other, first)


@pytest.mark.parametrize("train", [fine_tune, set_fit])
def test_padding_changes_nothing(encoder, train):
    # Asked alone or beside a longer post: the same probabilities, to float32's rounding.
    short = Settings(epochs=1, batch=8, rate=1e-3, pairs=1, longest=16)
    alone = train(encoder, TEXTS, LABELS, 3, ["open the border"], short)[1][0]
    asked = ["open the border", "close the wall now and again and again"]
    beside = train(encoder, TEXTS, LABELS, 3, asked, short)[1][0]
    assert beside == pytest.approx(alone, abs=1e-5)


def test_weights_that_lack_the_encoder_are_refused(encoder, tmp_path):
    from safetensors.torch import load_file, save_file

    shutil.copytree(encoder, tmp_path / "part")
    tensors = load_file(tmp_path / "part" / "model.safetensors")
    tensors.pop("encoder.layer.1.output.dense.weight")
    save_file(tensors, tmp_path / "part" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"lack 1 tensors of the encoder, first .*layer\.1\.output\.dense\.weight"):
        fine_tune(tmp_path / "part", TEXTS, LABELS, 3, TEXTS, QUICK)


@pytest.mark.parametrize("train", [fine_tune, set_fit])
def test_no_program_of_the_folder_is_run(encoder, tmp_path, monkeypatch, train):
    """Deliberate break: leave out `trust_remote_code`."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    its = {"AutoConfig": "its.Its", "AutoModel": "its.Its", "AutoModelForSequenceClassification": "its.Its"}
    (folder / "config.json").write_text(json.dumps({"model_type": "its", "auto_map": its}))
    (folder / "its.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    monkeypatch.setattr(builtins, "input", lambda *words: "y")
    with pytest.raises(UserError, match="cannot read an encoder there"):
        train(folder, TEXTS, LABELS, 3, TEXTS, QUICK)
    assert not (tmp_path / "ran").exists()


def test_pairs():
    pairs = draw_pairs([0, 0, 0, 1, 1, 2], 3, 1000, 0)
    labels = numpy.array([0, 0, 0, 1, 1, 2])
    first, second, same = pairs.T.numpy()
    assert (same == (labels[first] == labels[second])).all() and (first != second).all()
    # Five rows have a partner of their label, the sixth has none; all six have others.
    assert same.sum() == 15 and (same == 0).sum() == 18
    assert len(draw_pairs([0, 0, 1, 1], 20, 50, 0)) == 50 and torch.equal(draw_pairs([0, 1, 1], 2, 9, 5),
                                                                         draw_pairs([0, 1, 1], 2, 9, 5))
    assert draw_pairs([0], 3, 9, 0).shape == (0, 3)


def test_what_is_missing_is_said(tmp_path, monkeypatch):
    pytest.importorskip("transformers")
    with pytest.raises(UserError, match="holds no config"):
        fine_tune(tmp_path, TEXTS, LABELS, 3, TEXTS)
    (tmp_path / "config.json").write_text('{"model_type": "no such"}')
    with pytest.raises(UserError, match="cannot read an encoder there"):
        set_fit(tmp_path, TEXTS, LABELS, 3, TEXTS)
    original = builtins.__import__

    def without(name, *rest):
        if name == "transformers":
            raise ImportError(name)
        return original(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"pip install 'transformers>=5\.0'"):
        fine_tune(tmp_path, TEXTS, LABELS, 3, TEXTS)
