"""Whether a fine-tune has learnt anything: its loss beside that of a constant answer, and what it answers in the end.

A model that ignores the post can do no better than to give each label its share p_c of the training rows, as the recipe
draws and weights them. Its loss is then the entropy of these shares, in nats:

    H = - sum_c p_c ln p_c,    p_c = sum_i w_i [y_i = c] / sum_i w_i    over the rows i of an epoch

A step's loss varies with the labels that happen to be in it, and the constant answer's varies with it. So they are
compared on the same posts: log.jsonl has, beside a step's loss l_t, what the constant answer would get on it,
c_t = sum_i w_i (-ln p_(y_i)) / sum_i w_i, whose mean over an epoch is about H. With d_t = l_t - c_t over the last n
steps, a tenth of all the run's, m their mean and s their standard deviation, the loss *has left* the constant answer if

    m < -SHARE H    and    m + 2 s / sqrt(n) < 0

The second rules out luck. The first rules out what is certain but of no use: a real model of 135 million parameters got
to 1.267 beside 1.297, 2 % below, and gave nearly all posts the same label; where it told the topics apart, the loss was
5.5 % below or more (LOG.md).

The loss over the whole vocabulary is compared in the same way: -ln P(y) = -ln P(y | a label) - ln P(a label), so the
same constant answer gets H there too, and no answer that ignores the post gets less. The loss over the whole text is a
mean over other tokens, most of them the post's own; it is not compared, and only the answers tell.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from common.terminal import counted
from finetune.loop import Trainer

SHARE = 0.05  # of H: how far below a constant answer the loss must lie
PART = 0.2  # of all steps, after which a loss that has not left is worth a warning (`look`)
WINDOW = 0.1  # of all steps: so many of the last ones are looked at, but not fewer than half of FIRST_LOOK
FIRST_LOOK = 10  # steps before which nothing is said: the standard error of fewer than five is too unsure
EARLIEST = 20  # steps before which nobody is warned
# Updates below which train.py says that they are few: in 76 steps of 16 posts at rates from 5e-5 to 2e-3 a real model
# of 135 million parameters did not leave the constant answer; in 150 of 4 posts, from as many posts, it did (LOG.md).
FEW_STEPS = 150
SAMPLE = 64  # training posts that are labelled at the end where there are no validation posts
HARDLY = 0.05  # a model that gives fewer other answers than this share says hardly anything but one label
RATE, LEAST_RATE = 1e-3, 2e-4  # no larger and no smaller learning rate is proposed
SMALL_BATCH = 4  # no smaller batch is proposed


def look(total: int) -> int:
    """The step after which a loss that has not left is worth a warning.

    A fifth of the steps; but in a run that makes enough of them, not before `FEW_STEPS` or half: a real small model
    that learnt in the end was seen to leave the constant answer only at step 125 of 300. Nor before `EARLIEST`: runs of
    42 steps that learnt well were warned at step 10 and had left at step 11 (LOG.md).
    """
    patience = min(FEW_STEPS, total // 2) if total >= FEW_STEPS else 0
    return max(EARLIEST, math.ceil(PART * total), patience)


def entropy(shares: Sequence[float]) -> float:
    """- sum p ln p in nats; a share of 0 adds nothing."""
    return sum(-p * math.log(p) for p in shares if p > 0)


@dataclass
class Learning:
    """The losses of a run so far, beside those of the constant answer; fed with the lines of log.jsonl.

    shares: p_c, (C,); total: the run's steps; compared: False for the loss over the whole text. `warned_at` and
    `left_at` are the steps at which `add` said so.
    """

    shares: Sequence[float]
    total: int
    compared: bool = True
    warned_at: int | None = field(default=None, init=False)
    left_at: int | None = field(default=None, init=False)
    _apart: list[float] = field(default_factory=list, init=False)  # d_t
    _losses: list[float] = field(default_factory=list, init=False)

    @classmethod
    def of(cls, trainer: Trainer) -> "Learning":
        """Of a trainer whose steps are logged with their constant losses (`Trainer.constant`)."""
        return cls(trainer.shares, trainer.total_steps, trainer.constant is not None)

    @property
    def entropy(self) -> float:
        """H in nats."""
        return entropy(self.shares)

    def add(self, line: Mapping) -> str:
        """Take a line of the log; "warn" once, where the loss has not left at the look, and "left" if it then does."""
        if "loss" not in line:
            return ""
        self._losses.append(line["loss"])
        self._apart.append(line["loss"] - line.get("constant", self.entropy))
        if len(self._losses) == look(self.total) and self.left is False:
            self.warned_at = line["step"]
            return "warn"
        if self.warned_at and not self.left_at and self.left:
            self.left_at = line["step"]
            return "left"
        return ""

    @property
    def recent(self) -> int:
        """n, the number of the last steps that are looked at."""
        return min(len(self._losses), max(FIRST_LOOK // 2, math.ceil(WINDOW * self.total)))

    @property
    def loss(self) -> float | None:
        """The mean loss of the last n steps, or `None` before the first step."""
        return sum(self._losses[-self.recent :]) / self.recent if self._losses else None

    @property
    def left(self) -> bool | None:
        """Whether the recent losses have left the constant answer; `None` where that cannot be said."""
        if not self.compared or len(self._losses) < FIRST_LOOK:
            return None
        apart, mean = self._apart[-self.recent :], self._mean
        spread = math.sqrt(sum((x - mean) ** 2 for x in apart) / (len(apart) - 1))
        return mean < -SHARE * self.entropy and mean + 2 * spread / math.sqrt(len(apart)) < 0

    @property
    def _mean(self) -> float:
        return sum(self._apart[-self.recent :]) / self.recent

    def beside(self) -> str:
        """The loss of the last n steps and the constant answer's, for a line of progress."""
        return f"loss {self.loss:.3f}" + (f" beside {self.entropy:.3f}" if self.compared else "")

    def warning(self, tries: Sequence[str]) -> list[str]:
        """What is said once, with what to try (`advice`)."""
        return [f"warning: after {len(self._losses):,} of {self.total:,} steps the loss ({self.loss:.3f}, mean of the "
                f"last {self.recent:,}) has not left {self.entropy:.3f}, which a constant answer gets, by more than "
                "luck: so far nothing shows that the model has learnt from the posts. To try, in this order:",
                *(f"  {number}. {words}" for number, words in enumerate(tries, 1))]

    def sentence(self) -> str:
        """What is said at the end, and stands in run.json and in the report."""
        if not self._losses:
            return "No step was made."
        over = "the only step" if len(self._losses) == 1 else f"mean of the last {counted(self.recent, 'step')}"
        if not self.compared:
            return (f"The loss over the whole text was {self.loss:.3f} at the end ({over}); there is no constant "
                    "answer to compare it with.")
        beside = (f"The loss was {self.loss:.3f} at the end ({over}), beside "
                  f"{self.entropy:.3f} for a constant answer, which ignores the post")
        nothing = ": the model has learnt next to nothing from the posts."
        if self.left is False and self._mean < -SHARE * self.entropy:
            nothing = ": lower, but not by more than luck, so nothing shows that the model has learnt from the posts."
        return beside + {True: ".", False: nothing,
                         None: "; these are too few steps to tell them apart."}[self.left]

    def to_dict(self) -> dict:
        """For run.json."""
        return {"label_entropy": self.entropy, "loss": self.loss, "steps": self.recent, "left": self.left,
                "warned_at": self.warned_at, "left_at": self.left_at, "sentence": self.sentence()}


def advice(options, small: bool) -> list[str]:
    """What to try where a run does not learn, best first, for the options that it has.

    small: whether the base is so small that four bits cost it a lot (`loading.choice`).
    """
    tries = []
    if small and options.quantize != "none":
        tries.append("--quantize none, since four bits cost a small model much of what it knows")
    if options.batch_size > SMALL_BATCH:
        tries.append(f"--batch-size {SMALL_BATCH}, which makes {options.batch_size / SMALL_BATCH:.3g} times as many "
                     "steps of the same posts")
    if options.learning_rate < RATE:
        tries.append(f"--learning-rate {min(RATE, max(LEAST_RATE, 5 * options.learning_rate)):g}")
    if options.max_steps:  # how many epochs its posts then get depends on them
        tries.append("no --max-steps")
    else:
        tries.append(f"--epochs {2 * options.epochs}")
    if options.learning_rate > 2 * RATE:
        tries.append(f"--learning-rate {options.learning_rate / 5:g}, if the loss rose")
    if list(options.targets) != ["all-linear"]:
        tries.append("--targets all-linear")
    tries.append("a look at the data: does each post's label follow from its text?")
    return tries


def few_steps(steps: int) -> str:
    """A line for a run of few updates; "" for one of enough."""
    if steps >= FEW_STEPS:
        return ""
    return (f"only {counted(steps, 'update')}; below about {FEW_STEPS} a model often learns no more than how frequent "
            "each label is. A smaller --batch-size or more --epochs make more")


def sample(count: int) -> list[int]:
    """Which of `count` training posts are labelled at the end: at most `SAMPLE`, evenly spaced."""
    some = min(count, SAMPLE)
    return [place * count // some for place in range(some)]


def answers_of(given: Counter, people: Counter, labels: Sequence[str], source: str) -> dict:
    """What the model answers, for run.json: counts by label, the most frequent one, and a sentence.

    given, people: how often the model and people gave each label; source: "validation posts" or "training posts".
    """
    top = max(labels, key=lambda label: given[label])
    n = sum(given.values())
    others = n - given[top]
    usual = top == max(labels, key=lambda label: people[label])
    which = f"“{top}”, the most frequent one" if usual else f"“{top}”, which is not even the most frequent one"
    beside = f"people gave it to {people[top]:,}"
    if not others:
        words = f"The model gives all {n:,} {source} the same label, {which} ({beside}): it tells no two posts apart."
    elif others < HARDLY * n:
        words = (f"The model gives {given[top]:,} of {n:,} {source} the same label, {which} ({beside}): it hardly "
                 "tells posts apart.")
    else:
        words = (f"The model answers more than its most frequent label: of {n:,} {source}, {given[top]:,} get “{top}” "
                 f"({beside}) and {others:,} another of the {len(labels)} labels.")
    return {"posts": n, "of": source, "most_frequent": top, "given": {label: given[label] for label in labels},
            "people": {label: people[label] for label in labels}, "sentence": words}
