"""Memory: exposure by its formula, continuations against greedy decoding, runs that know their posts and one that
learned nothing.

Deliberate break: rank among all unseen posts without `own`, read the loss one token too late, let `verdict` look at
`with_adapter` alone, or leave the base's losses out of `relative`.
"""

import contextlib
import math

import numpy as np
import pytest
import torch

from audit import sections
from audit.adapter import switched_off
from audit.membership import LEAST, NOT_TOLD, TOLD, UNKNOWN, above, drawn_above, membership
from audit.memorisation import WORDS, continuation, exposures, memorisation, split
from audit.memory import for_the_card
from data.annotators import read_labelled
from data.codebook import load_codebook
from data.posts import Columns
from finetune.recorded import prepared_of
from lora.inject import adapters
from report.markup import escape
from report.words import number, unbroken
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


def test_many_unseen_posts_take_memory_by_their_number():
    """No table of posts by groups: twenty thousand unseen posts beside a few of training."""
    import tracemalloc

    draw = np.random.default_rng(0)
    losses, groups = (draw.normal(size=50), draw.normal(size=20_000)), (np.arange(50), np.arange(20_000))
    tracemalloc.start()
    drawn = drawn_above(losses, groups, 20, 0)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 100e6 and abs(drawn.mean() - 0.5) < 0.1


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
    found = memorisation(subject, prepared.train, "text", draws=100)
    tuned, base = found["with_adapter"], found["without"]
    assert tuned["above"] > 0.9 and tuned["above_ci"][0] > 0.8 and 0.1 < base["above"] < 0.9
    assert found["relative"]["above"] > 0.9
    assert tuned["exposure"]["training"] > tuned["exposure"]["unseen"] + 1
    assert tuned["continued"]["training"]["posts"] > 0
    assert tuned["exposure"]["training"] <= tuned["exposure"]["largest_possible"]
    assert found["gained"]["continued"]["training"]["posts"] == tuned["continued"]["training"]["posts"]
    said = " ".join(for_the_card(found))
    assert "Do not publish" in said and found["verdict"] == TOLD and "its base and a post can partly guess" in said
    shown = " ".join(map(str, sections.memorisation({"measured": True} | found)))
    assert all(escape(unbroken(line)) in shown for line in for_the_card(found))
    assert number(tuned["loss"]["unseen"], 4) in shown and "exposure, bits" in shown
    assert sections.said_of_memorisation({"measured": True} | found).startswith("Memory: It was trained on the whole")


@pytest.fixture(scope="module")
def many(place):
    """Training posts and as many unseen ones of the same making, for runs of the label loss."""
    write_jsonl(place / "learned.jsonl", posts(48, 11, ("en", "es")))
    return read_labelled([write_jsonl(place / "unseen.jsonl", posts(48, 12, ("en", "es")))], Columns(),
                         load_codebook())[0]


def asked(path, place, unseen):
    """The section about memory of the run in `path`, asked about these posts."""
    subject = subject_of(path, place)
    subject.posts = unseen
    with contextlib.chdir(place):
        prepared = prepared_of(subject.run)[1]
    return subject, prepared, memorisation(subject, prepared.train, "label", draws=300)


def test_a_run_that_learned_its_labels_by_heart_is_found_out(place, many):
    path = make(place, "by-heart", "--quantize", "nf4", "--data", "learned.jsonl", "--epochs", "40", "--rank", "16",
                "--learning-rate", "1e-2", "--allow-missing-labels")
    subject, prepared, found = asked(path, place, many)
    assert {post.language for post in prepared.train} == {"en", "es", "pl"} and found["languages"] == ["en", "es"]
    assert found["verdict"] == TOLD and found["posts"] == {"training": 64, "unseen": 48} and "gained" not in found
    probabilities = subject.probabilities([subject.prompt.encode(post.text) for post in many])
    by_hand = -np.log([row[subject.labels.index(post.label)] for row, post in zip(probabilities, many, strict=True)])
    assert found["with_adapter"]["loss"]["unseen"] == pytest.approx(by_hand.mean(), rel=1e-5)
    said = " ".join(for_the_card(found))
    assert "its base and a post and its label can partly guess" in said and "come from one source" in said
    shown = " ".join(map(str, sections.memorisation({"measured": True} | found)))
    assert "its true label among the labels" in shown and "exposure" not in shown


def test_a_run_that_learned_nothing_is_not_accused(place, many):
    """Its training posts are the ones that its base finds easier, so its losses alone tell the two sets apart."""
    path = make(place, "nothing", "--quantize", "nf4", "--data", "learned.jsonl", "--epochs", "1", "--learning-rate",
                "1e-12", "--allow-missing-labels")
    subject, prepared, _ = asked(path, place, many)
    every = prepared.train + many
    with switched_off(subject.model, adapters(subject.model)):
        found = subject.probabilities([subject.prompt.encode(post.text) for post in every])
    gold = [subject.labels.index(post.label) for post in every]
    easy = np.argsort(-found[np.arange(len(every)), gold])
    training, subject.posts = ([every[index] for index in part] for part in (easy[:48], easy[48:]))
    found = memorisation(subject, training, "label", draws=300)
    assert found["with_adapter"]["above_ci"][0] > 0.9 and found["without"]["above"] == 1
    assert found["verdict"] == NOT_TOLD and found["difference"]["ci"][0] <= 0
    said = " ".join(for_the_card(found))
    assert "did not tell training posts from unseen ones beyond what its base's do" in said and "no proof" in said


def test_a_post_of_training_is_not_taken_for_an_unseen_one(place, many):
    path = make(place, "nothing", "--quantize", "nf4", "--data", "learned.jsonl", "--epochs", "1", "--learning-rate",
                "1e-12", "--allow-missing-labels")
    with contextlib.chdir(place):
        train = prepared_of(subject_of(path, place).run)[1].train
    assert asked(path, place, many + train[:5])[2]["posts"]["unseen"] == 48


def test_a_verdict_needs_the_base_and_enough_groups():
    easy, hard = np.arange(30.0), np.arange(30.0) + 100
    groups = [np.arange(30), np.arange(30)]
    same = membership((easy, hard), (easy, hard), groups, 200, 0)
    assert same["with_adapter"]["above"] == 1 and same["relative"]["above"] == 0.5 and same["verdict"] == NOT_TOLD
    assert same["difference"] == {"value": 0.0, "ci": [0.0, 0.0]}
    lower = membership((hard - 90, easy), (hard, easy), groups, 200, 0)  # the harder posts were learned
    assert lower["with_adapter"]["above"] < 0.5 and lower["relative"]["above"] == 1 and lower["verdict"] == TOLD
    assert membership((hard - 90, easy), (hard, easy), groups, 0, 0)["verdict"] == UNKNOWN
    few = membership((hard - 90, easy), (hard, easy), [np.arange(30) // 2, np.arange(30)], 200, 0)
    assert few["groups"] == {"training": 15, "unseen": 30} and few["verdict"] == UNKNOWN


def continued(training, unseen, base=0, gained=None):
    """A found section of 9 posts each; gained: of unseen posts."""
    part = {"above": 0.6, "above_ci": [0.55, 0.9], "continued": {"training": {"posts": training},
                                                                  "unseen": {"posts": unseen}}}
    more = {"continued": {"training": {"posts": max(0, training - base)}, "unseen": {"posts": gained or unseen}},
            "continued_difference": [0, -0.1 if unseen else 0.1, 1]}
    return {"why": None, "loss": "text", "words": 10, "verdict": NOT_TOLD, "posts": {"training": 9, "unseen": 9},
            "groups": {"training": 9, "unseen": 9}, "with_adapter": part, "relative": part, "gained": more,
            "without": part | {"continued": {"training": {"posts": base}, "unseen": {"posts": 0}}}}


def test_what_the_card_must_say_depends_on_what_was_measured():
    said = " ".join(for_the_card(continued(2, 0)))
    assert "word for word for 2 of 9 posts (its base for 0), and for 0 of 9 posts" in said and "Do not publish" in said
    assert "no sign that it knows" in " ".join(for_the_card(continued(2, 0, base=2)))
    assert "no sign that it knows" in " ".join(for_the_card(continued(3, 3)))
    assert "No training post was continued" in " ".join(for_the_card(continued(0, 0)))
    assert "can partly guess" in " ".join(for_the_card(continued(0, 0) | {"verdict": TOLD}))
    assert "no proof" in " ".join(for_the_card(continued(0, 0)))
    few = " ".join(for_the_card(continued(0, 0) | {"verdict": UNKNOWN}))
    assert f"was not judged, since fewer than {LEAST} posts" in few
    without = continued(0, 0) | {"verdict": UNKNOWN, "groups": {"training": 90, "unseen": 90}}
    assert "no interval without --draws" in " ".join(for_the_card(without))
    assert "could not be measured" in for_the_card({"why": "x"})[0]


def test_too_few_posts_are_a_reason(fluent):
    subject, prepared = fluent
    assert "fewer than two training posts" in memorisation(subject, prepared.train[:1], "text")["why"]
