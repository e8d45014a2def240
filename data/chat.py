"""Chat layouts: how the turns of a conversation are written for a model, and which layout a tokenizer's model has.

    plain      {text}\\n\\n{text}\\n\\n{text}                                     a base model: it knows no turns
    llama-3    <|start_header_id|>{role}<|end_header_id|>\\n\\n{text}<|eot_id|>   Llama 3 (but for the date)
    chatml     <|im_start|>{role}\\n{text}<|im_end|>\\n                           SmolLM2, Qwen and many more
    llama-2    [INST] <<SYS>>\\n{text}\\n<</SYS>>\\n\\n{text} [/INST] {text} </s>   Llama 2's chat models
    zephyr     <|{role}|>\\n{text}</s>\\n                                         TinyLlama's chat model, Zephyr

A model knows the layout in which it was taught to answer; another costs it accuracy, and no program would complain. So
the layout is that of the chat template which comes with the tokenizer, and of nothing else:

- a template whose SHA-256 is in `KNOWN` is one whose text was at hand when its layout was written;
- any other is read (`chat_template.py`), and taken for a layout if it writes that layout's turns to the character, for
  the messages and for where the answer begins, and those of no other;
- the words that must be single ids (`Layout.special`) must be special tokens of the tokenizer;
- where no template comes with the tokenizer, as with Meta's own files, Llama 3's special tokens say enough; all else is
  a base model.

A template that passes none of these gets plain paragraphs, and never the layout that looks nearest. `Choice.why` says
in words which of these it was; train.py prints it, and the layout is part of a run's fingerprint. What a template
writes beyond the turns (dates, tools, a default system message) is left out.

In Llama 2's layout, and in Zephyr's with most tokenizers, the marks of a turn are ordinary text: a post that holds
"[/INST]" looks to the model like the end of its turn. `imitated` says which marks these are; programs count such posts.
"""

import re
from dataclasses import dataclass
from hashlib import sha256

from common.errors import UserError
from data.chat_template import writings

ROLES = ("system", "user", "assistant")
BOS, EOS, TEXT = "{bos}", "{eos}", "{text}"


@dataclass(frozen=True)
class Layout:
    """The text around each turn: patterns with `{text}` for the turn's own, `{bos}` and `{eos}` for the tokens.

    after_system: the user's turn behind a system turn, if that differs. special: words that must be special tokens.
    marks: words that are ordinary text with most tokenizers. begins: whether the template itself writes BOS, so that it
    is there whatever the tokenizer's files say. strips: roles of the turns from whose ends the template takes white
    space. written: what its templates write, one set or the other; see `chat_template.writings`.
    """

    system: str
    user: str
    assistant: str
    after_system: str = ""
    special: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    begins: bool = False
    strips: tuple[str, ...] = ()
    written: tuple[frozenset[str], ...] = ()

    def around(self, role: str, follows: str | None) -> tuple[str, str]:
        """What stands before and after the text of a turn; follows: the role of the turn before it."""
        pattern = self.after_system if role == "user" and follows == "system" and self.after_system else {
            "system": self.system, "user": self.user, "assistant": self.assistant}[role]  # fmt: skip
        before, after = pattern.split(TEXT)
        return (before.removeprefix(BOS) if follows is None else before), after

    def strip(self, text: str, role: str, follows: str | None) -> str:
        """The text of a message as the template takes it; behind a system turn inside it, the beginning stays."""
        if role not in self.strips:
            return text
        return text.rstrip() if role == "user" and follows == "system" and self.after_system else text.strip()


def _headed(pattern: str, **more) -> Layout:
    """A layout whose turns differ in their role alone: `pattern` with `{role}`."""
    turns = [pattern.replace("{role}", role) for role in ROLES]
    opening = turns[2].split(TEXT)[0]
    return Layout(*turns, written=(frozenset((pattern, opening)), frozenset((*turns, opening))), **more)


LAYOUTS = {
    "plain": Layout("{text}\n\n", "{text}\n\n", "{text}{eos}"),
    "llama-3": _headed("<|start_header_id|>{role}<|end_header_id|>\n\n{text}<|eot_id|>", begins=True, strips=ROLES,
                       special=("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")),
    "chatml": _headed("<|im_start|>{role}\n{text}<|im_end|>\n", special=("<|im_start|>", "<|im_end|>")),
    "llama-2": Layout("{bos}[INST] <<SYS>>\n{text}\n<</SYS>>\n\n", "{bos}[INST] {text} [/INST]", " {text} {eos}",
                      after_system="{text} [/INST]", begins=True, strips=ROLES[1:],
                      special=(EOS,), marks=("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>"),
                      written=(frozenset(("<<SYS>>\n{text}\n<</SYS>>\n\n{text}", "{bos}[INST] {text} [/INST]",
                                          " {text} {eos}")),)),
    "zephyr": _headed("<|{role}|>\n{text}{eos}\n", special=(EOS,), marks=tuple(f"<|{role}|>" for role in ROLES)),
}  # fmt: skip


@dataclass(frozen=True)
class Known:
    """A published template: the model, its layout, and the system message that it writes where there is none."""

    model: str
    layout: str
    system: str | None = None


# By the SHA-256 of the template's text in UTF-8; each was computed from the text itself.
KNOWN = {
    "5816fce10444e03c2e9ee1ef8a4a1ea61ae7e69e438613f3b17b69d0426223a4": Known("Llama 3.2's", "llama-3"),
    "872be49dbb638044ad01b60388f48d469ff2980e5f0dccdc22ec907db54d0788": Known(
        "SmolLM2's", "chatml", "You are a helpful AI assistant named SmolLM, trained by Hugging Face"),
    "e8d5b5a546d3f19df16a5320c614fab05bdc4edd50e850f1afd947b503ea41cf": Known("Llama 2's", "llama-2"),
    "66291cf0045c2425a3a667cf3cbb7af2b11f09e025c02f97245323ab79119362": Known("Zephyr's and TinyLlama's", "zephyr"),
}  # fmt: skip


@dataclass(frozen=True)
class Choice:
    """The layout of a tokenizer's model, by name, why it is that one, and the published template, if it is one."""

    name: str
    why: str
    known: Known | None = None

    @property
    def layout(self) -> Layout:
        """The layout itself."""
        return LAYOUTS[self.name]


def choose(tokenizer, stored: str | None = None) -> Choice:
    """The layout of the model that `tokenizer` belongs to; stored: the one that a run was made with, which stays.

    A stored layout that is unknown, or that this tokenizer cannot write, is passed over: the run's fingerprint shows
    the difference.
    """
    if stored in list(LAYOUTS) and not _lacks(stored, tokenizer):
        return Choice(stored, "the run was made with it")
    if tokenizer.chat_template is None:
        if not _lacks("llama-3", tokenizer):
            return Choice("llama-3", "the tokenizer has Llama 3's special tokens, and no chat template")
        return Choice("plain", "the tokenizer has no chat template: a base model")
    digest = sha256(tokenizer.chat_template.encode("utf-8", "surrogatepass")).hexdigest()
    named, known = f"the tokenizer's chat template (SHA-256 {digest[:8]})", KNOWN.get(digest)
    if known is None:
        found = writings(tokenizer.chat_template)
        names = [name for name, layout in LAYOUTS.items() if any(all(map(found.__contains__, wanted))
                                                                 for wanted in layout.written)]
        if len(names) != 1:
            return Choice("plain", f"{named} is none that is known here")
    name, says = (known.layout, f"is {known.model}") if known else (names[0], f"writes {names[0]} turns")
    lacks = _lacks(name, tokenizer)
    if lacks:
        return Choice("plain", f"{named} {says}, but {lacks} is no special token")
    return Choice(name, f"{named} {says}", known)


def pieces(layout: Layout, tokenizer, turns: list[tuple[str, list]], lead=(), answer: bool = False) -> list:
    """A conversation as special ids (int) and, in turn, strings and whatever the turns hold.

    turns: (role, contents), a system turn only as the first. lead: pieces between BOS and the first turn. answer: end
    where the assistant's answer begins.
    """
    begins = tokenizer.adds_bos or (layout.begins and tokenizer.bos_id is not None)
    found, follows = [*([tokenizer.bos_id] if begins else []), *lead], None
    for role, contents in turns:
        before, after = layout.around(role, follows)
        found += [*_cut(layout, tokenizer, before), *contents, *_cut(layout, tokenizer, after)]
        follows = role
    opening = layout.around("assistant", follows)[0].rstrip(" ")  # a token of the answer may begin with the space
    return found + (_cut(layout, tokenizer, opening) if answer else [])


def end_of_turn(layout: Layout, tokenizer) -> list:
    """What Llama 3 and its like write behind a system turn; nothing where a system turn has no end of its own."""
    after = layout.around("system", None)[1]
    return [] if not layout.special or layout.after_system else _cut(layout, tokenizer, after)


def imitated(layout: Layout, tokenizer) -> tuple[str, ...]:
    """The layout's marks that are ordinary text with this tokenizer, so that a post can hold them."""
    return tuple(mark for mark in layout.marks if not tokenizer.has_special(mark))


def imitation(count: int, marks: tuple[str, ...]) -> str:
    """What programs say of so many posts that hold one of the marks."""
    return (f"{count:,} posts hold a mark of the chat layout ({', '.join(marks)}), which is ordinary text with this "
            "tokenizer: the model can take it for the end of the post")


def check_chat(choice: Choice, tokenizer) -> None:
    """Raise `UserError` unless the model has a chat layout."""
    if choice.name == "plain":
        raise UserError(f"{tokenizer.source}: --chat: there is no chat layout for it, since {choice.why}")


def _lacks(name: str, tokenizer) -> str:
    """A word that must be a special token for this layout and is none, or ""."""
    for word in LAYOUTS[name].special:
        if len(tokenizer.eos_ids) != 1 if word == EOS else not tokenizer.has_special(word):
            return "the token that ends a text" if word == EOS else word
    return ""


def _cut(layout: Layout, tokenizer, text: str) -> list:
    """The layout's own text, cut at the words that are special ids."""
    ids = {mark: tokenizer.special_ids[mark] for mark in (*layout.special, *layout.marks)
           if tokenizer.has_special(mark)}
    ids |= {BOS: tokenizer.bos_id, EOS: min(tokenizer.eos_ids, default=None)}
    parts = re.split(f"({'|'.join(map(re.escape, ids))})", text)
    return [ids.get(part, part) for part in parts if part and ids.get(part, part) is not None]
