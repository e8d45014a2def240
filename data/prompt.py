"""The prompt: the one object that turns a post into token ids, in training, evaluation and classification alike.

Two templates hold the same words. `paper` has the authors' order, with the instruction after the post;
`instruction-first` puts everything constant ahead of the post, so that the model can compute it once for many posts:

    paper:  The next text is a tweet ...:"{post}"      instruction-first:  Analyze carefully the tweet ...
            Analyze carefully the tweet ...                                Category numbers: 1 = ...
            Category numbers: 1 = ...                                      The next text is a tweet ...:"{post}"

A third, `authors`, is the one with which the paper's authors queried their fine-tuned models: the paper's order without
the system turn and without quotes around the post, after a stray end of turn. It is there to measure that mismatch;
train.py does not offer it.

The chat layout is the one that the model was taught, as `chat.py` finds it from the tokenizer; the templates above hold
the texts of the turns, whatever the layout.

All ordinary text between two special tokens has the ids of one call. It is a common mistake to encode the parts of the
prompt separately and to join them: the last characters of one part and the first of the next would often have been one
token. Where the tokenizer promises a seam (`Tokenizer.divide`), what lies beyond the seams nearest to the post is
encoded once for all posts. Text in a post that looks like a special token stays text, since only this file places
special ids.

The label is read at one position. The whole answer of every label is encoded; at the position where the ids first
differ, they must differ between all labels, and what follows must not depend on the post. `encode` ends just before
that position.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from common.errors import UserError, closest
from common.files import sha256_json
from data import chat
from data.codebook import Codebook
from data.visible import is_boundary

TEMPLATES = ("paper", "instruction-first")
AUTHORS = "authors"

# First characters of a post that a tokenizer may merge with the text ahead of it: ASCII, scripts, marks, emoji.
FIRST_CHARACTERS = [chr(code) for code in range(32, 127)] + list(
    "\n\t\u00a0éßøİЯєΩաაאاसा์กขក中あカ한ㄱñ¿¡“”„«»‘’…–—€£°·😀❤🇺\u0301\u064b\u200b\u200d\u200e\u200f\ufeff\ufe0f０Ａ"
)
PROBES = ["", "\r\n", "\n\n", "...", "://", '""', *(c + tail for c in FIRST_CHARACTERS for tail in ("", c, "a b"))]
FIXED_PROBE = 'Ünïcode "quoted" <|eot_id|>\n@user #tag https://x.y 123 русский العربية हिन्दी 한국어 中文 👍🏽'


class Mark(Enum):
    """The two parts of a prompt that change: the post and the answer."""

    POST = "{post}"
    ANSWER = "{answer}"


@dataclass(frozen=True, slots=True)
class EncodedPost:
    """A post as token ids; the label is read from what the model predicts at `ids[answer_index]`."""

    ids: list[int]
    answer_index: int
    cut: bool  # whether the post was too long and lost its end


class Prompt:
    """Turns posts into token ids for one codebook, tokenizer and template.

    `max_tokens` bounds `len(encode(text).ids)`: a longer post loses its end; the instruction and the answer are never
    cut. `layout` is that of a run that is opened again; without it, `chat.choose` says which it is, and `why`. Raises
    `UserError` for an unknown template, for a `max_tokens` that the instruction alone exceeds, and for labels that
    cannot be told apart by the first token in which the answers differ.
    """

    def __init__(self, codebook: Codebook, tokenizer, template: str = "paper", max_tokens: int | None = None,
                 layout: str | None = None):
        if template not in (*TEMPLATES, AUTHORS):
            raise UserError(f"--template {template}: is unknown{closest(template, TEMPLATES)}; "
                            f"known are {', '.join(TEMPLATES)}")
        self.codebook, self.tokenizer, self.template, self.max_tokens = codebook, tokenizer, template, max_tokens
        chosen = chat.choose(tokenizer, layout)
        self.layout, self.why = chosen.name, chosen.why
        self.imitated = chat.imitated(chosen.layout, tokenizer)
        self._runs, self._end, self.text = self._lay_out()
        self._known: dict[str, list[int]] = {}  # ids of the runs without the post, encoded once
        label_ids, self._endings = self._answers()
        self.label_ids = list(label_ids)
        self._around = self._beyond_seams()
        self.prefix_ids = self._prefix()
        shortest = len(self._ids(""))
        if max_tokens is not None and max_tokens < shortest:
            raise UserError(f"--max-tokens {max_tokens}: the instruction alone takes {shortest} tokens (template "
                            f"'{template}'); give more, or shorten the codebook")

    def __repr__(self) -> str:
        limit = "" if self.max_tokens is None else f", at most {self.max_tokens} tokens"
        labels = ", ".join(self.codebook.labels)
        return f"Prompt({self.codebook.name}: {labels}; template {self.template}, layout {self.layout}{limit})"

    def encode(self, text: str) -> EncodedPost:
        """`text` in the prompt, up to and including the token at which the label is read (`answer_index`, the last).
        Raises `UserError` for anything but a string."""
        if not isinstance(text, str):
            raise UserError(f"text: is of type {type(text).__name__}; give one string")
        cut = False
        ids = self._ids(text) if self.max_tokens is None or len(text) <= 4 * self.max_tokens else None
        if ids is None or (self.max_tokens is not None and len(ids) > self.max_tokens):
            text, cut = self.shorten(text)
            ids = self._ids(text)
        return EncodedPost(ids, len(ids) - 1, cut)

    def encode_whole(self, text: str, label: str) -> EncodedPost:
        """The same row with the whole answer and the end of turn: `ids[answer_index + 1]` is the label's token.

        The post is cut exactly as in `encode`, so the row exceeds `max_tokens` by the end of the answer at most.
        """
        row, index = self.encode(text), self.codebook.index(label)
        kept = self.shorten(text)[0] if row.cut else text
        ids = self._raw(kept, self.codebook.answer_text(label))
        if ids != [*row.ids, self.label_ids[index], *self._endings[index]]:
            raise self._unsteady()
        return EncodedPost(ids + self._end, row.answer_index, row.cut)

    def shorten(self, text: str) -> tuple[str, bool]:
        """The longest beginning of `text` whose row fits into `max_tokens`, and whether anything was cut.

        Binary search over characters. Token counts mostly grow with the text, but one more character can also merge two
        tokens into one, so the next few lengths are tried as well, and the row of the text returned has been encoded
        and counted. A letter is never cut off from its combining marks, nor an emoji from its modifiers.
        """
        if self.max_tokens is None:
            return text, False

        def fits(count: int) -> bool:
            return len(self._ids(text[:count])) <= self.max_tokens

        low, high = 0, min(len(text), 4 * self.max_tokens)  # doubled as needed: megabytes are never encoded whole
        while fits(high):
            if high == len(text):
                return text, False
            low, high = high, min(len(text), 2 * high)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if fits(middle) else (low, middle)
        count = next((n for n in range(min(len(text), low + 8), low, -1) if fits(n)), low)
        while count and not (is_boundary(text, count) and fits(count)):
            count -= 1
        return text[:count], count < len(text)

    def imitating(self, texts: Iterable[str]) -> int:
        """How many of `texts` hold a mark of the layout's turns that is ordinary text with this tokenizer."""
        return sum(any(mark in text for mark in self.imitated) for text in texts) if self.imitated else 0

    def fingerprint(self) -> dict:
        """Everything that decides the ids of the rows, for run.json; `check_fingerprint` compares two of them."""
        rows = [self._raw(FIXED_PROBE, self.codebook.answer_text(label)) + self._end for label in self.codebook.labels]
        return {
            "template": self.template, "layout": self.layout, "text": self.text, "labels": list(self.codebook.labels),
            "symbols": list(self.codebook.symbols), "label_ids": self.label_ids, "codebook": self.codebook.hash,
            "tokenizer": self.tokenizer.hash, "probe": sha256_json(rows),
        }

    def parts(self) -> list[int | str]:
        """Special ids and texts in order, with `{post}` where a post goes, ending in the first label's answer.

        Encoding each text and joining the ids gives the ids of `encode`; other programs need this to do the same.
        """
        words = {Mark.POST: Mark.POST.value, Mark.ANSWER: self.codebook.answer_text(self.codebook.labels[0])}
        return [run if isinstance(run, int) else "".join(words.get(part, part) for part in run) for run in self._runs]

    def _lay_out(self) -> tuple[list, list[int], str]:
        """The prompt as runs: special ids (int) and tuples of text and marks, each tuple encoded in one call."""
        book, tokenizer = self.codebook, self.tokenizer
        head, tail = book.introduction.split("{post}")
        bare = self.template == AUTHORS
        if bare:
            user = [head.removesuffix('"'), Mark.POST, tail.removeprefix('"') + f"\n{book.instruction()}"]
        elif self.template == "paper":
            user = [head, Mark.POST, f"{tail}\n{book.instruction()}"]
        else:
            user = [f"{book.instruction()}\n{head}", Mark.POST, tail]
        layout, names = chat.LAYOUTS[self.layout], {number: name for name, number in tokenizer.special_ids.items()}
        turns = [*([] if bare else [("system", [book.role])]), ("user", user), ("assistant", [Mark.ANSWER])]
        pieces = chat.pieces(layout, tokenizer, turns, chat.end_of_turn(layout, tokenizer) if bare else [])
        place = pieces.index(Mark.ANSWER) + 1
        behind = [piece for piece in pieces[place:] if isinstance(piece, int)][:1]
        if place < len(pieces) and isinstance(pieces[place], str) and not book.answer.endswith(pieces[place]):
            place += 1  # Llama 2's space, which most answers end in
        runs: list = []
        for piece in pieces[:place]:
            if isinstance(piece, int):
                runs.append(piece)
            elif runs and not isinstance(runs[-1], int):
                runs[-1] += (piece,)
            else:
                runs.append((piece,))
        spelled = {Mark.POST: Mark.POST.value, Mark.ANSWER: book.answer} | names
        return runs, behind, "".join(spelled.get(piece, piece) for piece in [*pieces[:place], *behind])

    def _raw(self, post: str, answer: str, runs: list | None = None) -> list[int]:
        """The ids of the prompt, or some runs of it, with `post` and the whole `answer`, without the end of turn."""
        ids: list[int] = []
        for run in self._runs if runs is None else runs:
            if isinstance(run, int):
                ids.append(run)
                continue
            text = "".join(post if part is Mark.POST else answer if part is Mark.ANSWER else part for part in run)
            if Mark.POST in run:
                ids += self.tokenizer.encode(text)
            else:
                if text not in self._known:
                    self._known[text] = self.tokenizer.encode(text)
                ids += self._known[text]
        return ids

    def _ids(self, post: str) -> list[int]:
        """Ids up to the one at which the label is read: the first label's row without its token and what follows."""
        if self._around is None:
            return self._in_one_call(post)
        before, head, tail, behind = self._around
        return [*before, *self.tokenizer.encode(head + post + tail), *behind]

    def _in_one_call(self, post: str) -> list[int]:
        ids = self._raw(post, self.codebook.answer_text(self.codebook.labels[0]))
        answer = [self.label_ids[0], *self._endings[0]]
        if ids[-len(answer) :] != answer:
            raise self._unsteady()
        return ids[: -len(answer)]

    def _beyond_seams(self) -> tuple[list[int], str, str, list[int]] | None:
        """Around each post: ids, text and text to encode with it, ids up to the answer; None where one call differs."""
        answer = self.codebook.answer_text(self.codebook.labels[0])
        place = next(i for i, run in enumerate(self._runs) if not isinstance(run, int) and Mark.POST in run)
        run = tuple(answer if part is Mark.ANSWER else part for part in self._runs[place])
        head, tail = "".join(run[: run.index(Mark.POST)]), "".join(run[run.index(Mark.POST) + 1 :])
        far, head = self.tokenizer.divide(head, last=True) or ("", head)
        tail, beyond = self.tokenizer.divide(tail) or (tail, "")
        before = self._raw("", answer, self._runs[:place]) + self.tokenizer.encode(far)
        behind = self.tokenizer.encode(beyond) + self._raw("", answer, self._runs[place + 1 :])
        kept = len(behind) - len([self.label_ids[0], *self._endings[0]])
        if kept < 0 or behind[kept:] != [self.label_ids[0], *self._endings[0]]:
            return None
        same = all([*before, *self.tokenizer.encode(head + post + tail), *behind[:kept]] == self._in_one_call(post)
                   for post in PROBES[::12])
        return (before, head, tail, behind[:kept]) if same else None

    def _answers(self) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]:
        """Each label's token id and the ids after it, once they are found to be the same for posts of many kinds."""
        labels, found = self.codebook.labels, set()
        for post in PROBES[::12]:
            rows = [self._raw(post, self.codebook.answer_text(label)) for label in labels]
            index = common_prefix(rows)
            seen: dict[int, str] = {}
            for label, row in zip(labels, rows, strict=True):
                token = row[index] if index < len(row) else -1
                if token in seen:
                    raise UserError(
                        f"codebook '{self.codebook.name}': the answers of '{seen[token]}' and '{label}' do not differ "
                        f"in their first answer token with this tokenizer ({self.codebook.answer!r}); change the key "
                        "'answer' so that {symbol} stands apart, for example to 'Answer = [{symbol}]. '"
                    )
                seen[token] = label
            found.add((tuple(seen), tuple(tuple(row[index + 1 :]) for row in rows)))
        if len(found) > 1:
            raise self._unsteady()
        return found.pop()

    def _prefix(self) -> list[int]:
        """The ids with which every probe's row starts; `batching.shared_prefix` checks the rows of each batch."""
        rows = [self._ids(post) for post in PROBES]
        return rows[0][: common_prefix(rows)]

    def _unsteady(self) -> UserError:
        return UserError(
            f"codebook '{self.codebook.name}': with this tokenizer the ids of the answer {self.codebook.answer!r} "
            "depend on the text around them; change the key 'answer', for example to 'Answer = [{symbol}]. '"
        )


def common_prefix(rows: list[list[int]]) -> int:
    """The number of ids that all `rows` begin with: `common_prefix([[1, 2, 3], [1, 2, 4]]) -> 2`."""
    first, last = min(rows), max(rows)  # all rows lie between these two in dictionary order, so share what they share
    differ = (index for index, (a, b) in enumerate(zip(first, last, strict=False)) if a != b)
    return next(differ, min(len(first), len(last)))


def check_fingerprint(stored: dict, current: dict, where: str) -> None:
    """Raise `UserError`, naming each difference, unless `current` is the prompt that a run was made with."""
    if not isinstance(stored, dict):
        raise UserError(f"{where}: holds no prompt; it was not written by train.py")
    different = [key for key in current if stored.get(key) != current[key]]
    if not different:
        return
    words = []
    for key in different:
        short = all(len(str(value)) <= 40 for value in (stored.get(key), current[key]))
        words.append(f"{key} ({stored.get(key)} in the run, {current[key]} here)" if short else key)
    raise UserError(f"{where}: the run was made with another prompt: {', '.join(words)} differ; "
                    "use the run's own codebook, template and tokenizer, or train again")
