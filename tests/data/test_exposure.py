"""Exposure: tokens counted per language, divided by what the table says, every source named.

Deliberate break: in `exposure`, multiply the shares by `tokens` without dividing by 100; or in `count_tokens`, count
the row's tokens as the post's; or in `shares_of` leave out the vocabulary or the shape. All turn red.
"""
# ruff: noqa: F401, F811  (fixtures are imported by name and then named as arguments)

from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest

from common.errors import UserError
from data.codebook import load_codebook
from data.exposure import (
    SHARES,
    TokenCount,
    count_tokens,
    exposure,
    exposure_table,
    load_shares,
    shares_of,
    vocabulary_sha256,
)
from data.prompt import Prompt
from loading.weights import read_config
from model.tokenizer import load_tokenizer
from tests.data.prompts import Letters, llama3
from tests.model.tokenizer_cases import llama3_json


@dataclass
class APost:
    text: str
    language: str
    label: str = "neutral"


POSTS = [APost("ab", "tr"), APost("abcd", "en"), APost("a" * 50, "tr")]


@pytest.mark.parametrize("whole", [False, True])
def test_tokens_are_counted_per_language_and_told_apart(whole):
    def counted(prompt):
        rows = [prompt.encode_whole(post.text, post.label) if whole else prompt.encode(post.text) for post in POSTS]
        return count_tokens(POSTS, rows, prompt)

    prompt = Prompt(load_codebook(), Letters())
    counts = counted(prompt)
    empty = len((prompt.encode_whole("", "neutral") if whole else prompt.encode("")).ids)
    assert counts == {"en": TokenCount(1, 4, empty, 0), "tr": TokenCount(2, 52, 2 * empty, 0)}
    assert list(counts) == ["en", "tr"]
    short = counted(Prompt(load_codebook(), Letters(), max_tokens=len(prompt.encode("").ids) + 10))
    assert short["tr"] == TokenCount(2, 12, 2 * empty, 1)


def test_post_and_prompt_tokens_add_up_to_the_rows(llama3):
    prompt = Prompt(load_codebook(), llama3)
    posts = [APost(text, "en") for text in ('"quoted"', "#tag", "plain words", "移民", "")]
    rows = [prompt.encode(post.text) for post in posts]
    count = count_tokens(posts, rows, prompt)["en"]
    assert count.post_tokens + count.prompt_tokens == sum(len(row.ids) for row in rows)
    assert count.post_tokens == sum(len(llama3.encode(post.text)) for post in posts)


def test_the_shipped_table_is_the_one_that_the_paper_used():
    shares = load_shares()
    assert shares.percent == {"en": 89.70, "de": 0.17, "fr": 0.16, "es": 0.13, "it": 0.11, "pl": 0.09, "pt": 0.09,
                              "ko": 0.06, "id": 0.03, "hu": 0.03}
    assert shares.tokens == 9e12 and "Llama 2" in shares.note
    assert all("Llama 2" in source and "2307.09288" in source for source in shares.row_sources.values())


def test_the_ratios_are_numerator_over_denominator():
    counts = {"en": TokenCount(10, 400, 1030), "tr": TokenCount(75, 1500, 7725, 2)}
    result = exposure(counts, 10, load_shares(), "tokenizer.model (tiktoken)")
    turkish, english = result["languages"]["tr"], result["languages"]["en"]
    assert turkish["post_tokens"] == 15000 and turkish["prompt_tokens"] == 77250
    assert turkish["ratio"] == pytest.approx(15000 / 9e12)
    assert turkish["ratio_with_prompt"] == pytest.approx(92250 / 9e12)
    assert turkish["share_percent"] is None and turkish["ratio_own"] is None and turkish["source"] is None
    assert english["pretraining_tokens"] == pytest.approx(0.897 * 9e12)
    assert english["ratio_own"] == pytest.approx(4000 / (0.897 * 9e12))
    text = exposure_table(result)
    for part in ("10 epochs", "tokenizer.model (tiktoken)", "15,000", "1.67e-09", "9e+12 tokens, Llama 3.2", "Llama 2"):
        assert part in text
    assert next(line for line in text.splitlines() if line.strip().startswith("tr")).rstrip().endswith("–")


def test_the_shipped_shares_are_used_for_llama_32_alone(llama3, shared_data, tmp_path):
    """By vocabulary and size: neither the same size with other tokens nor the same tokens at another size will do."""
    real = read_config(shared_data / "llama3/hf_3b_instruct")
    assert shares_of(tmp_path, llama3, real) == (load_shares(), "")
    assert shares_of(tmp_path, llama3, read_config(shared_data / "llama3/hf_1b"))[0] == load_shares()
    other = SimpleNamespace(vocab_size=128_256, token_bytes=lambda id: llama3.token_bytes(id ^ 1))
    small = SimpleNamespace(vocab_size=49_152)
    smaller = replace(real, num_hidden_layers=real.num_hidden_layers - 1)
    for tokenizer, config in ((other, real), (small, real), (llama3, smaller)):
        shares, why = shares_of(tmp_path, tokenizer, config)
        assert shares is None
        result = exposure({"en": TokenCount(10, 400, 1030)}, 2, shares, "a tokenizer", why)
        lines = exposure_table(result).splitlines()
        assert lines[-2].split() == ["en", "10", "800", "2,060", "–", "–", "–", "–"]
        assert lines[-1] == "  no ratio: the shipped shares are Llama 3.2's; this model's folder has no " + SHARES.name
        assert "Llama 2" not in exposure_table(result) and result["languages"]["en"]["ratio"] is None
    (tmp_path / SHARES.name).write_text(SHARES.read_text().replace("Llama 3.2", "Its own"))
    for place in (tmp_path, tmp_path / "model.gguf"):
        (tmp_path / "model.gguf").touch()
        assert shares_of(place, small, real)[0].model == "Its own"


@pytest.mark.slow
def test_the_vocabulary_is_known_in_tokenizer_json_too(shared_data, tmp_path):
    tokenizer = load_tokenizer(llama3_json(shared_data, tmp_path))
    assert vocabulary_sha256(tokenizer) == load_shares().vocabulary != tokenizer.hash


def test_the_papers_figure_is_75_posts_of_20_tokens():
    # 9.62e-11 of the pre-training tokens: 1,500 tokens over Llama 3's 15.6e12 is the nearest round match.
    assert f"{75 * 20 / 15.6e12:.3e}" == "9.615e-11"


@pytest.mark.parametrize(("change", "message"), [
    (("tokens = 9.0e12", "tokns = 9.0e12"), "key 'tokns' is unknown; did you mean 'tokens'"),
    (("tokens = 9.0e12", ""), "key 'tokens' is missing"),
    (("tokens = 9.0e12", "tokens = -1"), "key 'tokens' is -1; a positive number"),
    (("tokens = 9.0e12", "tokens = inf"), "key 'tokens' is inf; a positive number"),
    (("tokens = 9.0e12", "tokens = nan"), "key 'tokens' is nan; a positive number"),
    (("tokens = 9.0e12", 'tokens = "9T"'), "key 'tokens' is '9T'; a number was expected"),
    (("percent = 89.7", "percent = 189.7"), "shares[1]: key 'percent' is 189.7"),
    (("percent = 0.17", "percent = 17.0"), "the shares add up to 107.4 per cent"),
    (("percent = 0.17", "percent = true"), "shares[2]: key 'percent' is True; a number was expected"),
    (('language = "de"', 'language = "en"'), "shares[2]: language 'en' is listed twice"),
    (("[[2048, 16]", "[[2048]"), "key 'shapes': pairs of a hidden size and a number of layers were expected"),
    (("shapes = ", "shapes = 1 #"), "key 'shapes' is 1; a list of pairs was expected"),
    (("[[shares]]", "[[share]]"), "key 'share' is unknown; did you mean 'shares'"),
    (('model = "Llama 3.2"', "model = Llama 3.2"), "is not TOML"),
])
def test_a_bad_table_is_named_in_one_line(tmp_path, change, message):
    path = tmp_path / "shares.toml"
    path.write_text(SHARES.read_text().replace(*change))
    with pytest.raises(UserError) as raised:
        load_shares(path)
    assert str(raised.value).startswith(str(path)) and message in str(raised.value)


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        load_shares(tmp_path / "none.toml")
