"""What the live page may ask and what it is answered; `common.page_server` serves it, on this machine alone.

    with serving(run, "first post") as address: ...        http://127.0.0.1:PORT/TOKEN/

Computations wait for one another: there is one model. `progress` and `leave` are answered while one goes on.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from common import page_server
from common.errors import UserError
from glass.adapter import every_part, strengths
from glass.against import compared
from glass.learning import Learner, with_steps
from glass.measured import measured
from glass.other import offered, other_run, words_for
from glass.page import frozen, live, policy
from glass.progress import Left, Progress
from glass.shown import details, shown
from glass.stages import Trace
from glass.trace import trace
from glass.whole import base_of, block_of, whole_trace
from glass.why import why
from loading.choice import parameters

WHY = "why"
SMALL = 50_000_000  # parameters; of a larger model, the run before any step is opened only if asked for
KEPT = 4  # traces that are kept, for the stages that the page asks for next
KEPT_BYTES = 1_000_000_000  # and of those before the newest one; a long post's through a large model takes more alone


class Answers:
    """What the page may ask: `trace`, `stage`, `part`, `bits`, `against`, `step` and `save`, each with a post, and
    `undo`, `progress` and `leave`; the last traces are kept, until a step changes the model.

    named: what the run is held against at first; model, cache: as in `load_run`; threads: as in `trace`.
    """

    def __init__(self, run, named: str = "", *, model: str | None = None, cache: str | None = None, threads: int = 0):
        self.run, self.lock, self.kept, self.threads = run, threading.Lock(), OrderedDict(), threads
        self.learner, self.progress = Learner(run, threads), Progress(run.model)
        self.base, self.more = model or base_of(run), {"model": model, "cache": cache}
        self.saved = str(run.folder.path.resolve())
        self.offered = {**offered(run, named), self.saved: "this run as its files have it, before any step of learning"}
        self.other = ("", run)  # of the other models, one is kept
        self.small = parameters(run.model.config) < SMALL
        self.block: dict = {}  # what was chosen under "Four bits", which stays whatever is typed
        if named:
            self.model_named(named)

    def trace(self, text: str, whole: bool | str = False, may_leave: bool = False) -> Trace:
        """The trace of a post; `whole`: with the stages that take longer, or, if it is "why", with the first of them;
        `may_leave`: and may be left off."""
        with self.lock, self.progress.counting(may_leave):
            return self.found(text, whole)

    def found(self, text: str, whole: bool | str = False) -> Trace:
        """The same for whoever holds the lock."""
        found = self.kept.pop(text, None)
        if found is None:
            while sum(one.size for one in self.kept.values()) > KEPT_BYTES:
                self.kept.popitem(last=False)
            found = trace(self.run, text, self.threads)
        if whole == WHY and "without_tokens" not in found.by_name:
            found = why(found)
        if whole is True and "tax" not in found.by_name:
            found = whole_trace(found, self.base)
        if whole is True and self.block and found.by_name["bits"].steps[0].settings != self.block:
            found = found.without("bits").extended([block_of(found, **self.block, base=self.base)])
        self.kept[text] = found
        while len(self.kept) > KEPT:
            self.kept.popitem(last=False)
        return found

    def answer(self, what: str, content: dict) -> dict:
        """The answer to a request; raises `UserError` for one that has none."""
        if what == "progress":
            return self.progress.now
        if what == "leave":
            self.progress.leave()
            return {}
        if what == "undo":
            return self.learn(self.learner.undo)
        text = content.get("text")
        if not isinstance(text, str):
            raise UserError("text: give a post")
        if what == "step":
            return self.learn(lambda: self.learner.step(text, content.get("label")))
        if what == "save":
            return {"page": self.page(text)}
        whole = content.get("whole") if content.get("whole") in (True, WHY) else False
        found = self.trace(text, whole, may_leave=bool(whole))
        if what == "trace":
            return self.shown(found)
        if what == "bits":
            return self.bits(text, content.get("linear"), content.get("block"))
        if what == "part":
            return self.part(text, content.get("part"))
        if what == "against":
            return self.against(text, content.get("what"), content.get("other"))
        if what == "stage" and isinstance(content.get("stage"), str):
            return {"tensors": self.tensors(text, content["stage"], found)}
        raise UserError(f"{what}: the page has no such question")

    def tensors(self, text: str, name: str, found: Trace) -> list[dict] | None:
        """The numbers of one stage; None for a step of learning that was undone while the page asked."""
        if name.startswith("learning."):
            learnt = {stage.name: stage for stage in self.learner.stages}
            return details(learnt[name]) if name in learnt else None
        if name not in found.by_name:
            found = self.trace(text, whole=True)  # the page may still show what is no longer kept
        if name not in found.by_name:
            raise UserError("stage: the page has no such question")
        return details(found.by_name[name])

    def shown(self, found: Trace) -> dict:
        """What the page is given of a trace, the steps of learning included."""
        return shown(found.extended(self.learner.stages), len(self.learner.taken))

    def learn(self, change: Callable[[], object]) -> dict:
        """A step of learning, or one taken back: what was computed with the model before is forgotten."""
        with self.lock, self.progress.counting():
            change()
            self.kept.clear()
            return {"steps": len(self.learner.taken)}

    def page(self, text: str) -> str:
        """The page for a post as one file: with the steps that were taken, or, without any, some towards each label."""
        with self.lock, self.progress.counting():
            found = every_part(self.found(text, whole=True))
            steps = len(self.learner.taken)
            found = found.extended(self.learner.stages) if steps else with_steps(self.run, found)
            return frozen(found, steps, self.run.folder.path.name, measured(self.run))

    def model_named(self, what: str):
        """The run itself for "", or what the page offers, which is opened unless it was the last one."""
        if what and what not in self.offered:
            raise UserError("against: the page offers no such model")
        if what and self.other[0] != what:
            self.other = ("", self.run)  # the one before goes first
            self.other = (what, other_run(self.run, what, **self.more))
        return self.other[1] if what else self.run

    def against(self, text: str, what, other) -> dict:
        """The page with the post held against another model, another post, or both; against neither, without it."""
        if not isinstance(what, str) or not isinstance(other, str):
            raise UserError("against: give a model's name and a post, or empty strings")
        with self.lock, self.progress.counting():
            found = self.found(text).without("against")
            if what or other:
                words = self.offered.get(what) or words_for(what)
                found = compared(found, trace(self.model_named(what), other or text, self.threads), words)
            self.kept[text] = found
            return self.shown(found)

    def part(self, text: str, part) -> dict:
        """The page with the strengths of one more part of the adapter."""
        if not isinstance(part, str):
            raise UserError("part: give a part of the adapter by its name")
        with self.lock, self.progress.counting():
            found = self.found(text, whole=True)
            if f"factors.{part}" not in found.by_name:
                found = self.kept[text] = found.extended([strengths(found, part)])
            return self.shown(found)

    def bits(self, text: str, linear, block) -> dict:
        """The page with one block of one matrix in place of the one that it shows."""
        if not isinstance(linear, str) or not (block is None or type(block) is int):
            raise UserError("bits: give a matrix by its name and the number of a block, or null for its worst one")
        with self.lock, self.progress.counting():
            found = self.found(text, whole=True).without("bits")
            stage = block_of(found, linear, block, self.base)
            self.block = stage.steps[0].settings
            found = self.kept[text] = found.extended([stage])
            return self.shown(found)


@contextmanager
def serving(run, text: str, port: int = 0, *, against: str = "", against_text: str = "", model: str | None = None,
            cache: str | None = None, threads: int = 0) -> Iterator[str]:
    """A server in a thread of its own for the length of the block; gives the page's address.

    port: 0 takes a free one. against, against_text: the other model and post that the page begins with. model, cache,
    threads: as in `Answers`. Behind the block no request computes with the run any more, also where Ctrl-C ended it:
    before Python 3.14 a thread that computes when Python ends takes the program down with an abort.
    Raises `UserError` if the port or the other model cannot be had.
    """
    answers = Answers(run, against, model=model, cache=cache, threads=threads)
    page = live(text, run=run.folder.path.name, measured=measured(run), offered=answers.offered, saved=answers.saved,
                small=answers.small, against_what=against, against_text=against_text)

    def answer(what: str, content: dict) -> dict:
        try:
            return answers.answer(what, content)
        except Left:
            if answers.progress.ended:
                raise ConnectionAbortedError from None  # to be closed unanswered
            return {"left": True}

    with page_server.serving(lambda: page, policy(True), answer, port) as address:
        try:
            yield address
        finally:
            answers.progress.end()
            with answers.lock:  # whoever goes on with the run must not meet a request that still computes with it
                pass
