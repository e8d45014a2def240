"""Rows for pre-training: a post, or a piece of it, inside an instruction that is worded anew for every batch.

Fine-tuning reads a label at one position, after the post and the instruction. There the base must have gathered the
content of the post, whatever the instruction says and wherever it comes. The wordings below are drawn at random; a
program's own codebook need not be among them. Posts are cropped, joined, thinned and decorated, because the available
texts are clean sentences and real posts are not.
"""

import random
from dataclasses import dataclass

SUBJECTS = (
    "migration", "politics", "sport", "health", "travel", "science", "music", "weather", "work", "housing", "school",
    "food", "football", "religion", "prices", "the economy", "crime", "family", "nature", "technology", "films",
    "public transport", "elections", "history", "war", "energy", "news", "daily life", "feelings", "cities",
)  # fmt: skip
LABELS = (
    "pro-immigration", "anti-immigration", "neutral", "unrelated", "positive", "negative", "mixed", "politics",
    "science/technology", "sports", "health", "travel", "geography", "entertainment", "yes", "no", "none of these",
    "about it", "not about it", "in favour", "against", "other", "housing", "something else", "angry", "happy", "sad",
    "business", "question", "report", "opinion", "joke", "unclear", "relevant", "not relevant", "hateful", "offensive",
    "normal", "support", "criticism", "economy", "culture", "religion", "education", "crime", "weather", "food",
)  # fmt: skip
KINDS = ("tweet", "post", "text", "sentence", "message", "comment", "headline", "short text", "document", "note")
ROLES = (
    "You are an expert on {s}. Answer the question truthfully.", "You are a careful annotator.", "You label texts.",
    "You are a helpful assistant.", "You read {k}s about {s} and answer briefly.", "You know a lot about {s}.",
    "You are an expert on {s} and {t}.", "Answer with a single symbol.",
    "You work for a study of {s} in many languages.",
)  # fmt: skip
INTRODUCTIONS = (
    'The next text is a {k} probably about {s}:"{post}"', 'The next text is a {k}:"{post}"', '{K}:"{post}"',
    'Here is a {k} from a social network: "{post}"', 'Read this {k}: "{post}"', '{K}: {post}', '"{post}"', "{post}",
    'The {k} to label is:"{post}"', 'Someone wrote this {k}:\n"{post}"', 'The next text is a {k} on {s}:"{post}"',
)  # fmt: skip
QUESTIONS = (
    "Analyze carefully the {k} and assign it to the most relevant category among those listed below. Do not explain "
    "your answer and return only a number.", "Which of the categories below fits the {k} best?",
    "What is the {k} about? Return only a number.", "Is the {k} about {s} or not?", "Assign the {k} to one category.",
    "Decide what the author of the {k} thinks about {s}. Do not explain your answer.",
    "Choose the label that describes the {k} best and return only its symbol.", "What is the topic of the {k}?",
    "Sort the {k} into one of the groups below.", "",
)  # fmt: skip
LISTINGS = ("Category numbers: {labels}.", "Topic numbers: {labels}.", "Labels: {labels}", "Options: {labels}.",
            "Choose one: {labels}.", "")  # fmt: skip
ANSWERS = ("Answer = [", "Answer: [", "Answer:", "Label =", "Category = [", "The answer is", "[")
HASHTAGS = ("#news", "#now", "#today", "#fyi", "#tbt", "#world", "#life", "#fail", "#wow", "#thread", "#breaking")
EMOJI = tuple("😂🤣😍😭🙏👏🔥😡🤔😅💪🎉👍🙄😎✅⚽🌍💔😱")


@dataclass(frozen=True)
class Wrapper:
    """What stands before and after a post in one batch: two lists of token ids."""

    before: list[int]
    after: list[int]


def draw_wrapper(rng: random.Random, encode, special: dict[str, int], post_first: float) -> Wrapper:
    """A chat prompt in Llama 3's layout in random words; the instruction follows the post with odds `post_first`."""
    subject, other, kind = rng.choice(SUBJECTS), rng.choice(SUBJECTS), rng.choice(KINDS)
    count = rng.randint(2, 8)
    labels = "; ".join(f"{i + 1} = '{label}'" for i, label in enumerate(rng.sample(LABELS, count)))
    words = {"s": subject, "t": other, "k": kind, "K": kind.capitalize(), "labels": labels, "post": "{post}"}
    role, question, listing = (rng.choice(part).format(**words) for part in (ROLES, QUESTIONS, LISTINGS))
    introduction = rng.choice(INTRODUCTIONS).format(**words)
    instruction = "\n".join(part for part in (question, listing) if part)
    order = (introduction, instruction) if rng.random() < post_first else (instruction, introduction)
    head, tail = "\n".join(part for part in order if part).split("{post}")

    def turn(name: str) -> list[int]:
        return [special["<|start_header_id|>"], *encode(name), special["<|end_header_id|>"]]

    system = [*turn("system"), *encode("\n\n" + role), special["<|eot_id|>"]] if rng.random() < 0.8 else []
    before = [special["<|begin_of_text|>"], *system, *turn("user"), *encode("\n\n" + head)]
    after = [*encode(tail), special["<|eot_id|>"], *turn("assistant"), *encode("\n\n" + rng.choice(ANSWERS))]
    return Wrapper(before, after)


def draw_bare(rng: random.Random, encode, special: dict[str, int]) -> Wrapper:
    """The shortest prompt in the same layout: a post, and where its answer begins. It costs a third of the tokens."""
    def turn(name: str) -> list[int]:
        return [special["<|start_header_id|>"], *encode(name), special["<|end_header_id|>"]]

    before = [special["<|begin_of_text|>"], *turn("user"), *encode("\n\n")]
    return Wrapper(before, [special["<|eot_id|>"], *turn("assistant"), *encode("\n\n" + rng.choice(ANSWERS))])


def roughen(rng: random.Random, text: str, crop: float = 0.6) -> str:
    """A text as it might stand in a post: with odds `crop` only a piece of it, at times with a handle, tag, link,
    emoji."""
    words = text.split()
    if len(words) > 5 and rng.random() < crop:
        size = rng.randint(max(3, len(words) // 4), len(words))
        start = rng.randint(0, len(words) - size)
        words = words[start : start + size]
    if rng.random() < 0.3:
        words = ["@user"] * rng.choice((1, 1, 1, 2, 3)) + words
    if rng.random() < 0.2:
        words.insert(rng.randint(0, len(words)), rng.choice(HASHTAGS))
    if rng.random() < 0.25:
        words.append("".join(rng.choices(EMOJI, k=rng.choice((1, 1, 2, 3)))))
    if rng.random() < 0.25:
        words.append("https://t.co/" + "".join(rng.choices("abcdefghijkmnopqrstuvwxyz0123456789", k=8)))
    elif rng.random() < 0.1:
        words.append("http")
    return " ".join(words)


def thin(rng: random.Random, ids: list[int], drop: float, longest: int) -> list[int]:
    """`ids`, each left out with probability `drop`; at least one and at most `longest` are kept."""
    kept = [i for i in ids if rng.random() >= drop][:longest]
    return kept or ids[:1]
