"""The prompt: the paper's text to the character, ids equal to an independent encoder, cuts, answers, fingerprints.

The posts of ../shared/data are counted and compared here, never shown.

Deliberate break: in `Prompt._raw`, encode each part of a run separately: the test against tiktoken turns red.
"""
# ruff: noqa: F401, F811  (fixtures are imported by name and then named as arguments)

import base64
import json
from dataclasses import replace

import pytest
import tiktoken

from common.errors import UserError
from data.codebook import Codebook, load_codebook
from data.prompt import AUTHORS, PROBES, TEMPLATES, Prompt, check_fingerprint, common_prefix
from tests.data.prompts import (
    HEAD,
    NASTY,
    TAIL,
    Letters,
    llama2,
    llama3,
    llama3_text,
    plain_text,
    tiny,
    tokenizer,
    tweets,
)


@pytest.fixture(scope="session")
def reference(shared_data):
    """tiktoken itself, given the file's ranks, the published pattern and the special tokens that the prompt uses."""
    lines = (line.split() for line in (shared_data / "llama3" / "tokenizer.model").read_bytes().splitlines())
    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
        r"|\s+(?!\S)|\s+"
    )
    special = dict(zip(("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
                       (128000, 128006, 128007, 128009), strict=True))
    ranks = {base64.b64decode(token): int(rank) for token, rank in lines}
    return tiktoken.Encoding("llama3", pat_str=pattern, mergeable_ranks=ranks, special_tokens=special)


@pytest.mark.parametrize("template", TEMPLATES)
def test_every_test_tweet_decodes_back_to_the_papers_prompt(llama3, llama2, tweets, template):
    for encoder, text in ((llama3, llama3_text), (llama2, plain_text)):
        prompt = Prompt(load_codebook(), encoder, template)
        for tweet in tweets:
            row = prompt.encode(tweet)
            assert encoder.decode(row.ids) == text(template, tweet)
            assert row.ids[: len(prompt.prefix_ids)] == prompt.prefix_ids
            assert row.answer_index == len(row.ids) - 1 and not row.cut
    assert len(tweets) == 875


def test_the_authors_inference_prompt(llama3, llama2):
    """A stray end of turn, no system turn, no quotes around the tweet; in the plain layout no role and no quotes."""
    user = HEAD[:-1] + "a tweet" + TAIL[1:]
    expected = (f"<|begin_of_text|><|eot_id|><|start_header_id|>user<|end_header_id|>\n\n{user}<|eot_id|>"
                "<|start_header_id|>assistant<|end_header_id|>\n\nAnswer = [")
    assert llama3.decode(Prompt(load_codebook(), llama3, AUTHORS).encode("a tweet").ids) == expected
    plain = Prompt(load_codebook(), llama2, AUTHORS).encode("a tweet").ids
    assert llama2.decode(plain) == f"<s>{user}\n\nAnswer = ["


@pytest.mark.parametrize("template", TEMPLATES)
def test_ids_equal_tiktoken_on_the_whole_chat(llama3, reference, tweets, template):
    prompt = Prompt(load_codebook(), llama3, template)
    for tweet in tweets:
        assert prompt.encode(tweet).ids == reference.encode(llama3_text(template, tweet), allowed_special="all")
        whole = prompt.encode_whole(tweet, "neutral")
        text = llama3_text(template, tweet, "Answer = [3]. ") + "<|eot_id|>"
        assert whole.ids == reference.encode(text, allowed_special="all")


def test_piecewise_encoding_would_differ_for_many_tweets(llama3, tweets):
    parts = llama3.encode("\n\n" + HEAD), llama3.encode(TAIL)
    different = sum(
        llama3.encode("\n\n" + HEAD + tweet + TAIL) != parts[0] + llama3.encode(tweet) + parts[1] for tweet in tweets
    )
    assert different == 274


def test_token_counts_are_those_that_the_speed_figures_rest_on(llama3, tweets):
    lengths = [len(llama3.encode(tweet)) for tweet in tweets]
    assert sum(lengths) / len(lengths) == pytest.approx(50.8, abs=0.05)
    # (ids before and after a post when the parts are encoded alone, ids that really are the same for every post): the
    # last token before the post, ':"', merges with some first characters, so one id fewer can be shared.
    for template, before, after, shared in (("paper", 33, 70, 32), ("instruction-first", 94, 9, 93)):
        prompt = Prompt(load_codebook(), llama3, template)
        mark = "\ue000"  # private use: it merges with nothing around it
        ids = prompt.encode(mark).ids
        inside = llama3.encode(mark)
        place = next(i for i in range(len(ids)) if ids[i : i + len(inside)] == inside)
        assert (place, len(ids) - place - len(inside)) == (before, after)
        assert len(prompt.prefix_ids) == shared


@pytest.mark.parametrize("template", TEMPLATES)
def test_no_post_can_leave_its_place(tokenizer, template):
    prompt = Prompt(load_codebook(), tokenizer, template)
    special = set(tokenizer.special_ids.values())
    frame = [id for id in prompt.encode("x").ids if id in special]
    text = llama3_text if prompt.layout == "llama-3" else plain_text
    for post in NASTY + PROBES:
        row = prompt.encode(post)
        assert [id for id in row.ids if id in special] == frame
        assert row.ids[: len(prompt.prefix_ids)] == prompt.prefix_ids
        assert tokenizer.decode(row.ids).encode() == text(template, post).encode()


def test_the_layout_follows_the_tokenizer(llama3, llama2, tiny):
    assert Prompt(load_codebook(), llama3).layout == "llama-3"
    assert Prompt(load_codebook(), llama2).layout == "plain" == Prompt(load_codebook(), tiny).layout
    answer = "Answer = [{symbol}]. "
    assert Prompt(load_codebook(), llama3).text == llama3_text("paper", "{post}", answer) + "<|eot_id|>"
    assert Prompt(load_codebook(), llama2).text == plain_text("paper", "{post}", answer) + "</s>"


@pytest.mark.parametrize("count", [2, 9, 10, 26])
@pytest.mark.parametrize("template", TEMPLATES)
def test_the_label_tokens_are_the_symbols_and_stand_at_the_answer(tokenizer, template, count):
    book = Codebook.from_dict({"role": "r", "question": "q", "labels": [f"l{n}" for n in range(count)]})
    prompt = Prompt(book, tokenizer, template)
    assert "".join(tokenizer.token_bytes(id).decode() for id in prompt.label_ids).split() == ["".join(book.symbols)]
    assert len(set(prompt.label_ids)) == count
    for label, id in zip(book.labels, prompt.label_ids, strict=True):
        row, whole = prompt.encode("some text"), prompt.encode_whole("some text", label)
        assert whole.ids[: len(row.ids)] == row.ids and whole.answer_index == row.answer_index
        assert whole.ids[whole.answer_index + 1] == id
        end = "<|eot_id|>" if prompt.layout == "llama-3" else "</s>"
        assert tokenizer.decode(whole.ids).endswith(book.answer_text(label) + end)


@pytest.mark.parametrize(("answer", "kind", "message"), [
    ("x{symbol}", "llama3", "'l6' and 'l7' do not differ in their first answer token"),
    ("N{symbol}", "llama2", "'l7' and 'l9' do not differ in their first answer token"),
])
def test_labels_that_begin_with_the_same_token_are_refused(request, answer, kind, message):
    labels = [f"l{n}" for n in range(26)]
    book = Codebook.from_dict({"role": "r", "question": "q", "labels": labels, "answer": answer})
    with pytest.raises(UserError, match=message) as raised:
        Prompt(book, request.getfixturevalue(kind))
    assert "change the key 'answer'" in str(raised.value)


def test_an_answer_whose_ids_depend_on_the_post_is_refused():
    class Parity(Letters):
        def encode(self, text):
            ids = super().encode(text)
            return [*ids[:-1], ids[-1] + len(text) % 2]

    with pytest.raises(UserError, match="depend on the text around them"):
        Prompt(load_codebook(), Parity())

    class ParityOfOne(Parity):  # only the third label's ids change: rows of the first would never show it
        def encode(self, text):
            return super().encode(text) if "[3]" in text else Letters.encode(self, text)

    with pytest.raises(UserError, match="depend on the text around them"):
        Prompt(load_codebook(), ParityOfOne())


def test_answers_that_a_vocabulary_cannot_tell_apart_are_refused():
    class Blind(Letters):
        def encode(self, text):
            return [99 if id in range(2 + ord("1"), 2 + ord("5")) else id for id in super().encode(text)]

    with pytest.raises(UserError, match="'pro-immigration' and 'anti-immigration' do not differ"):
        Prompt(load_codebook(), Blind())


def test_a_row_that_breaks_the_verified_answer_is_an_error_and_not_a_wrong_label():
    class Trap(Letters):
        def encode(self, text):
            ids = super().encode(text)
            return ids[::-1] if "trap" in text else ids

    prompt = Prompt(load_codebook(), Trap())
    with pytest.raises(UserError, match="depend on the text around them"):
        prompt.encode("a trap")


def test_definitions_and_examples_reach_the_model_before_the_post_where_asked(llama3):
    book = load_codebook("filled_example")
    for template in TEMPLATES:
        text = llama3.decode(Prompt(book, llama3, template).encode("THE POST").ids)
        assert book.instruction() in text and all(example in text for _, example in book.examples)
        assert (text.index("Examples:") < text.index("THE POST")) == (template == "instruction-first")


def test_the_fingerprint_names_what_differs(llama3, llama2):
    book = load_codebook()
    base = Prompt(book, llama3).fingerprint()
    assert json.loads(json.dumps(base)) == base == Prompt(load_codebook(), llama3, max_tokens=200).fingerprint()
    check_fingerprint(json.loads(json.dumps(base)), base, "run.json")
    other = Codebook.from_dict({**book.to_dict(), "role": "You are somebody else."})
    grouped = replace(book, groups={})
    for prompt, words in [
        (Prompt(book, llama3, "instruction-first"), r"template \(paper in the run, instruction-first here\), text, "),
        (Prompt(book, llama2), r"layout \(llama-3 in the run, plain here\), text, label_ids .*, tokenizer, probe diff"),
        (Prompt(other, llama3), "another prompt: text, codebook, probe differ"),
        (Prompt(grouped, llama3), "another prompt: codebook differ"),
    ]:
        with pytest.raises(UserError, match=words):
            check_fingerprint(base, prompt.fingerprint(), "run.json")
    with pytest.raises(UserError, match=r"old/run\.json: holds no prompt"):
        check_fingerprint(None, base, "old/run.json")
    with pytest.raises(UserError, match="probe"):
        check_fingerprint({key: value for key, value in base.items() if key != "probe"}, base, "run.json")


def test_common_prefix():
    assert common_prefix([[1, 2, 3], [1, 2, 4], [1, 2]]) == 2
    assert common_prefix([[1, 2]]) == 2 and common_prefix([[1], [2]]) == 0 and common_prefix([[], [1]]) == 0


@pytest.mark.parametrize("template", [*TEMPLATES, AUTHORS])
def test_what_is_around_every_post_is_encoded_once_and_the_ids_are_those_of_one_call(tokenizer, template, monkeypatch):
    """Deliberate break: in `Prompt._beyond_seams` take the first seam of the head, or let `divide` say None."""
    prompt, given = Prompt(load_codebook(), tokenizer, template), []
    for post in [*NASTY, *PROBES]:
        assert prompt.encode(post).ids == prompt._in_one_call(post), post
    encode = tokenizer.encode
    monkeypatch.setattr(tokenizer, "encode", lambda text: given.append(len(text)) or encode(text))
    prompt.encode("a post")
    assert sum(given) < 60 < len(prompt.codebook.instruction())
