"""Memory: exposure by its formula, continuations against greedy decoding, and a run that knows its posts by heart.

Deliberate break: rank among all unseen posts without `own`, or read the loss one token too late.
"""

import contextlib
import math

import numpy as np
import pytest
import torch

from audit import sections
from audit.memorisation import WORDS, above, continuation, drawn_above, exposures, for_the_card, memorisation, split
from finetune.recorded import prepared_of
from report.markup import escape
from report.words import number
from tests.audit.conftest import make, subject_of
from tests.small import posts, write_jsonl

SHORT = """name = "short"
question = "Which?"
introduction = 'Post:"{post}"'
listing = "{labels}"
answer = "{symbol}"
labels = ["pro-immigration", "anti-immigration", "neutral", "unrelated"]
"""


@pytest.fixture(scope="module")
def fluent(place):
    """A run of the loss on the whole text that was trained until it knew its eight posts."""
    (place / "short.toml").write_text(SHORT)
    write_jsonl(place / "few.jsonl", posts(8, 5, ("en", "es")))
    path = make(place, "fluent", "--quantize", "none", "--loss", "text", "--epochs", "60", "--rank", "16", "--data",
                "few.jsonl", "--learning-rate", "2e-2", "--codebook", "short.toml", "--allow-missing-labels")
    subject = subject_of(path, place)
    with contextlib.chdir(place):
        return subject, prepared_of(subject.run)[1]


def test_exposure_is_the_log_of_the_rank():
    losses, others = np.array([0.5, 2.0, 9.0]), np.array([1.0, 2.0, 3.0])
    expected = [math.log2(4 / rank) for rank in (1, 1 + 1.5, 4)]
    assert exposures(losses, others).tolist() == pytest.approx(expected)
    assert exposures(others, others, own=True).tolist() == pytest.approx([math.log2(3 / rank) for rank in (1, 2, 3)])
    assert above(np.array([1.0, 2.0]), np.array([2.0, 3.0])) == (1 + 1 + 0.5 + 1) / 4


def test_draws_are_of_groups_and_each_is_the_figure_itself():
    draw = np.random.default_rng(3)
    first, second = draw.normal(size=40), draw.normal(size=30)
    groups = draw.integers(0, 9, 40), draw.integers(0, 12, 30)
    drawn = drawn_above((first, second), groups, 60, 5)
    stream, times = np.random.default_rng([5, 0x3F]), []
    for part in groups:  # the same multinomials, with whole posts copied
        names, group = np.unique(part, return_inverse=True)
        counts = stream.multinomial(len(names), np.full(len(names), 1 / len(names)), size=60)
        times.append(counts[:, group])
    by_hand = [above(np.repeat(first, a), np.repeat(second, b)) for a, b in zip(*times, strict=True)]
    assert drawn == pytest.approx(np.array(by_hand), abs=1e-12)
    alone = drawn_above((np.repeat(first, 4), second), (np.arange(160), np.arange(30)), 2000, 0).std()
    copies = drawn_above((np.repeat(first, 4), second), (np.arange(160) // 4, np.arange(30)), 2000, 0).std()
    honest = drawn_above((first, second), (np.arange(40), np.arange(30)), 2000, 0).std()
    assert copies == pytest.approx(honest, rel=0.06) and alone < 0.9 * honest  # copies tell nothing new


def test_the_halves_are_the_posts_own(fluent):
    subject, prepared = fluent
    cut = [(post.text, half) for post in prepared.train if (half := split(subject, post.text))]
    assert len(cut) > 4 and split(subject, "a") is None
    for text, (ids, middle, stop) in cut:
        start = middle - (stop - start_of(subject, text)) // 2
        assert len(ids) == stop and start == start_of(subject, text)
        decoded = subject.prompt.tokenizer.decode(ids[middle:stop])
        assert text.endswith(decoded.strip()[-5:]) and len(decoded) < len(text)


def start_of(subject, text: str) -> int:
    """Where the first of the post's own ids is: the first that an empty post's row has otherwise."""
    ids, bare = subject.prompt.encode(text).ids, subject.prompt.encode("").ids
    return next(place for place in range(len(bare)) if ids[place] != bare[place])


def test_losses_and_continuations_are_those_of_one_row(fluent):
    subject, prepared = fluent
    halves = [half for post in prepared.train + subject.posts[:6] if (half := split(subject, post.text))]
    losses, right = continuation(subject, halves)
    assert right.any() and not right.all()
    for (ids, middle, stop), loss, same in zip(halves, losses, right, strict=True):
        with torch.no_grad():
            logits = subject.model(torch.tensor([ids]))[0].double().log_softmax(-1)
        by_hand = -np.mean([logits[place - 1, ids[place]].item() for place in range(middle, stop)])
        assert loss == pytest.approx(by_hand, rel=1e-4, abs=1e-5)
        greedy = list(ids[:middle])
        with torch.no_grad():
            while len(greedy) < min(stop, middle + WORDS):
                greedy.append(int(subject.model(torch.tensor([greedy]))[0, -1].argmax()))
        assert same == (greedy == ids[: len(greedy)])


def test_a_run_that_knows_its_posts_is_found_out(fluent):
    subject, prepared = fluent
    found = memorisation(subject, prepared.train, draws=100)
    tuned, base = found["with_adapter"], found["without"]
    assert tuned["above"] > 0.9 and tuned["above_ci"][0] > 0.8 and 0.1 < base["above"] < 0.9
    assert tuned["exposure"]["training"] > tuned["exposure"]["unseen"] + 1
    assert tuned["continued"]["training"]["posts"] > 0
    assert tuned["exposure"]["training"] <= tuned["exposure"]["largest_possible"]
    assert "Do not publish" in " ".join(for_the_card(found))
    shown = " ".join(map(str, sections.memorisation({"measured": True} | found)))
    assert all(escape(line) in shown for line in for_the_card(found)) and number(tuned["loss"]["unseen"]) in shown
    assert sections.said_of_memorisation({"measured": True} | found).startswith("Memory: It was trained on the whole")


def test_what_the_card_must_say_depends_on_what_was_measured():
    def measured(posts, low):
        return {"words": 10, "why": None, "with_adapter": {
            "above": 0.6, "above_ci": [low, 0.9], "posts": {"training": 9},
            "continued": {"training": {"posts": posts}}}}

    assert "word for word for 2 of 9" in " ".join(for_the_card(measured(2, 0.4)))
    assert "can partly be guessed" in " ".join(for_the_card(measured(0, 0.55)))
    assert "no proof" in " ".join(for_the_card(measured(0, 0.45)))
    without = measured(0, 0.45)
    without["with_adapter"]["above_ci"] = None
    assert "was not judged" in " ".join(for_the_card(without))
    assert "could not be measured" in for_the_card({"why": "x"})[0]


def test_too_few_posts_are_a_reason(fluent):
    subject, prepared = fluent
    assert "fewer than two posts" in memorisation(subject, prepared.train[:1])["why"]
