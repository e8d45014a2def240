"""Chat layouts: which one a tokenizer's template gets, and ids equal to transformers' `apply_chat_template`.

Deliberate break: in `data/chat.py` leave the line break out of ChatML's pattern, or let `choose` take the layout whose
words a template holds; in `data/chat_template.py` let `_outside` return its text as it is. Cases below turn red.
"""

import pytest

from data.chat import KNOWN, LAYOUTS
from data.codebook import load_codebook
from data.prompt import PROBES, TEMPLATES, Prompt
from model.tokenizer import load_tokenizer
from tests.data import chats
from tests.data.prompts import NASTY, paper_turns

DATES = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"
WORDS = ("<|im_start|>", "<|im_end|>")
KINDS = {"smollm2": "chatml", "small chatml": "chatml", "llama3": "llama-3", "llama2": "llama-2", "tinyllama": "zephyr",
         "small zephyr": "zephyr", "marked zephyr": "zephyr", "marked llama2": "llama-2"}  # fmt: skip


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def folder(kind, request, tmp_path_factory):
    """A tokenizer folder with a chat template of each kind; "marked": the marks of a turn are special tokens."""
    made, ends = tmp_path_factory.mktemp("chat"), dict(bos="<s>", eos="</s>")
    if kind in ("llama3", "llama2", "tinyllama"):
        shared = request.getfixturevalue("shared_data")
        more = [] if kind == "llama3" else [chats.LLAMA2 if kind == "llama2" else chats.ZEPHYR]
        return (chats.llama3 if kind == "llama3" else chats.llama2)(made, shared, *more)
    if kind == "smollm2":
        return chats.smollm2(made)
    if kind == "small chatml":
        return chats.small(made, chats.CHATML)
    marks = LAYOUTS[KINDS[kind]].marks if kind.startswith("marked") else ()
    return chats.small(made, chats.ZEPHYR if "zephyr" in kind else chats.LLAMA2, ("<s>", "</s>", *marks), **ends)


def conversation(template: str, post: str, answer: str) -> list[dict]:
    role, user = paper_turns(template)
    turns = [("system", role), ("user", user.replace("{post}", post)), ("assistant", answer)]
    return [{"role": name, "content": text} for name, text in turns]


@pytest.mark.parametrize("template", TEMPLATES)
def test_ids_equal_apply_chat_template(folder, kind, template):
    ours, theirs = load_tokenizer(folder), chats.theirs(folder)
    prompt = Prompt(load_codebook(), ours, template)
    assert prompt.layout == KINDS[kind]
    posts = [post for post in NASTY + PROBES[::3] if not any(name in post for name in ours.special_ids)]
    assert len(posts) > 80
    for post in posts:
        text = theirs.apply_chat_template(conversation(template, post, "Answer = [3]. "), tokenize=False,
                                          date_string="26 Jul 2024").replace(DATES, "")
        ids = theirs(text, add_special_tokens=False)["input_ids"]
        row = prompt.encode_whole(post, "neutral").ids
        end = {"chatml": 1, "zephyr": 2 if ours.adds_space else 1}.get(prompt.layout, 0)  # the last turn's line break
        if prompt.layout == "llama-3":  # its template takes the answer's last space off
            row, ids = row[:-2], ids[:-1]
        elif prompt.layout == "zephyr" and ours.bos_id is not None:
            ids = [ours.bos_id, *ids]  # no template writes it there: the tokenizer does
        assert row == ids[: len(ids) - end], post


def test_where_the_answer_begins_is_where_the_template_lets_it_begin(folder, kind):
    ours, theirs = load_tokenizer(folder), chats.theirs(folder)
    turns = conversation("paper", "a post", "")[:2]
    text = theirs.apply_chat_template(turns, tokenize=False, date_string="26 Jul 2024", add_generation_prompt=True)
    prompt = Prompt(load_codebook(), ours)
    *before, last = prompt.parts()
    spelled = {id: name for name, id in ours.special_ids.items()}
    written = "".join(spelled.get(part, part) for part in [*before, last.removesuffix("Answer = [1]. ")])
    bos, space = "<s>" if prompt.layout == "zephyr" else "", " " if prompt.layout == "llama-2" else ""
    assert written.replace("{post}", "a post") == bos + text.replace(DATES, "") + space


def test_smollm2s_own_default_is_not_there_beside_a_system_turn(tmp_path):
    folder = chats.smollm2(tmp_path)
    prompt, theirs = Prompt(load_codebook(), load_tokenizer(folder)), chats.theirs(folder)
    default = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
    turns = conversation("paper", "a post", "x")
    assert default not in prompt.text and default not in theirs.apply_chat_template(turns, tokenize=False)
    assert default in theirs.apply_chat_template(turns[1:], tokenize=False)
    assert prompt.why == "the tokenizer's chat template (SHA-256 872be49d) is SmolLM2's"
    assert prompt.encode("x").ids[:3] == [1, 9690, 198]  # <|im_start|>, which its files call BOS, once
    assert {known.system for known in KNOWN.values()} == {None, default}
