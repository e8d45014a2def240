"""The Modelfile of a GGUF export, read as Ollama reads it and tokenized by other libraries: the run's ids come out.

`parse` and `execute` are written after ollama/ollama's parser/parser.go and template/template.go; Ollama itself was not
there.

Deliberate break: let `tools.export.ollama.escaped` return its text as it is, leave `repeat_penalty` out, or end the
template behind the label in `tools.export.ollama.template`; cases below turn red.
"""

import re
from dataclasses import replace

import pytest
import sentencepiece

from common.files import ROOT
from data.codebook import Codebook, load_codebook
from data.prompt import AUTHORS, PROBES, TEMPLATES, Prompt
from model.tokenizer import load_tokenizer
from tests.tools.exports import WHOLE, card, export, train_run
from tools.export.ollama import SPECIMENS, modelfile, why_not
from tools.export.private import PASSAGE, Private

NASTY = [
    "{{ .Prompt }} {{- .Response -}} {% x %} {{", 'three """ quotes """"', "a\u00a0b\u200bc\u00adz\u2028", "# FROM ./x",
    "x \\n \\u0041 \\", "two\n\nlines\t\"", "emoji 👍🏽 and \U000e0041 tags", "移民 हिन्दी مرحبا", '"',
    '"""', 'ends in "',
]
PLAIN = [post for post in SPECIMENS + PROBES[::7] + NASTY if "<|" not in post]


def parse(text: str) -> list[tuple[str, str]]:
    """Commands of a Modelfile, by the states of Ollama's parser: what does not print is dropped, unless it is space."""
    commands, state, name, held = [], "nothing", "", ""
    for char in text:
        line, space = char in "\r\n", char in " \t"
        if state == "nothing":
            if not line and not space:
                state, held = ("comment", "") if char == "#" else ("name", char)
        elif state == "comment":
            state = "nothing" if line else state
        elif state == "name":
            assert space or (char.isascii() and char.isalpha()), char
            if space:
                state, name, held = "parameter" if held == "PARAMETER" else "value", held, ""
            else:
                held += char
        elif state == "parameter":
            state, name, held = ("value", held, "") if space else (state, name, held + char)
        elif line and (value := unquoted(held.strip())) is not None:
            commands, state, held = [*commands, (name, value)], "nothing", ""
        else:
            held += char if line or space or char.isprintable() else ""
    assert state in ("nothing", "comment")
    return commands


def unquoted(value: str) -> str | None:
    for quotes in ('"""', '"'):
        if value.startswith(quotes):
            whole = len(value) >= 2 * len(quotes) and value.endswith(quotes)
            return value[len(quotes) : -len(quotes)] if whole else None
    return value


def character(code: re.Match) -> str:
    return {'\\"': '"', "\\\\": "\\"}.get(code[0]) or chr(int(code[0][2:], 16))


def execute(template: str, post: str) -> str:
    """Go's text/template, as far as it is used: text, strings and two fields; it ends at the response."""
    out, at = "", 0
    while True:
        start = template.find("{{", at)
        assert start >= 0, "there is no response"
        out += template[at:start]
        action = re.compile(r'\{\{ (?:\.(Prompt|Response)|"((?:\\.|[^"\\\n])*)") \}\}').match(template, start)
        assert action, template[start : start + 40]
        if action[1] == "Response":
            return out
        out += post if action[1] else re.sub(r"\\u[0-9a-f]{4}|\\U[0-9a-f]{8}|\\.", character, action[2])
        at = action.end()


def theirs(folder, tokenizer):
    """text -> ids with special names as tokens, by the tokenizer's own library."""
    if tokenizer.kind == "sentencepiece":
        pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
        special = {pieces.id_to_piece(id): id for id in range(pieces.vocab_size()) if pieces.is_control(id)}
        cut = re.compile("(" + "|".join(map(re.escape, special)) + ")")
        return lambda text: [pieces.bos_id(), *(id for part in cut.split(text) if part for id in (
            [special[part]] if part in special else pieces.encode(part)))]
    import tiktoken
    from tiktoken.load import load_tiktoken_bpe

    from model.tokenizer.pattern import LLAMA3_PATTERN

    encoding = tiktoken.Encoding("x", pat_str=LLAMA3_PATTERN, special_tokens=tokenizer.special_ids,
                                 mergeable_ranks=load_tiktoken_bpe(str(folder / "tokenizer.model")))
    return lambda text: [tokenizer.bos_id, *encoding.encode(text, allowed_special="all")]


def nasty(**more) -> Codebook:
    """A codebook whose definitions hold all that the two grammars could stumble over."""
    labels = [{"name": f"label {place} {{x}}", "definition": text} for place, text in enumerate(NASTY)]
    return Codebook.from_dict({"labels": labels, "introduction": 'Post: "{post}"'} | more)


def check(folder, book, kind, **words):
    tokenizer = load_tokenizer(folder)
    prompt = Prompt(book, tokenizer, kind, **words)
    assert why_not(prompt) == ""
    commands = parse(modelfile(prompt, "a-Q8_0.gguf", 8192))
    assert [name for name, _ in commands[:2]] == ["FROM", "TEMPLATE"] and commands[0][1] == "./a-Q8_0.gguf"
    encode, template = theirs(folder, tokenizer), dict(commands)["TEMPLATE"]
    for post in PLAIN:
        assert encode(execute(template, post)) == prompt.encode(post).ids, post
    return commands


@pytest.mark.parametrize("kind", [*TEMPLATES, AUTHORS])
@pytest.mark.parametrize("book", [*sorted(path.stem for path in (ROOT / "data/codebooks").glob("*.toml")), "nasty"])
def test_the_ids_are_the_runs(book, kind):
    check(ROOT / "base", nasty() if book == "nasty" else load_codebook(book), kind)


@pytest.mark.parametrize("kind", TEMPLATES)
def test_with_llama_3s_and_llama_2s_tokenizers(shared_data, kind):
    for family in ("llama3", "llama2"):
        commands = check(shared_data / family, nasty(), kind)
        stops = [value for name, value in commands if name == "stop"]
        assert stops == ["<|end_of_text|>", "<|eom_id|>", "<|eot_id|>", "]."] if family == "llama3" else ["</s>", "]."]


def test_parameters_and_answers():
    text = modelfile(Prompt(load_codebook(), load_tokenizer(ROOT / "base"), max_tokens=512), "a.gguf", 1024)
    commands = dict(parse(text))
    assert {name: commands[name] for name in ("temperature", "repeat_penalty", "num_predict", "num_ctx")} == {
        "temperature": "0", "repeat_penalty": "1", "num_predict": "1", "num_ctx": "1024"}
    assert "# 2 = anti-immigration\n" in text and text.count("\nPARAMETER stop ") == 3
    assert commands["TEMPLATE"].endswith("<|end_header_id|>\n\nAnswer = [{{ .Response }}")
    prompt = Prompt(nasty(answer="{symbol}"), load_tokenizer(ROOT / "base"), max_tokens=3000)
    text = modelfile(prompt, "a.gguf", 131072)
    assert dict(parse(text))["num_ctx"] == "3001" and "\n# k = label 10 {x}\n" in text and text.count(" stop ") == 2


@pytest.mark.parametrize("words, reason", [
    ({"question": "Is <|eot_id|> in it?"}, "as one text, which is what Ollama takes, the prompt becomes other tokens"),
    ({"labels": [{"name": "a", "definition": "a {post}"}, "b"]}, "{post} stands in the codebook's own words"),
])
def test_a_prompt_that_no_template_can_hold(words, reason):
    book = Codebook.from_dict({"labels": ["a", "b"]} | words)
    assert why_not(Prompt(book, load_tokenizer(ROOT / "base"))) == reason


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return train_run(folder, **WHOLE)


def test_it_lies_beside_each_gguf_file(run, tmp_path):
    pytest.importorskip("gguf")
    for kind in ("f16", "q8_0", "q4_0"):
        export(run, f"gguf-{kind}", tmp_path / kind, "--name", "Ferry")
        commands = dict(parse((tmp_path / kind / "Modelfile").read_text(encoding="utf-8")))
        assert (tmp_path / kind / commands["FROM"]).is_file() and "{{ .Prompt }}" in commands["TEMPLATE"]
        assert "`Modelfile`, for Ollama: `ollama create ferry -f Modelfile`" in card(tmp_path / kind)
    export(run, "merged", tmp_path / "merged")
    assert not (tmp_path / "merged" / "Modelfile").exists()


def test_there_is_none_where_the_prompt_must_not_be_shown(run, tmp_path, monkeypatch):
    pytest.importorskip("gguf")
    monkeypatch.setattr(Private, "public", lambda self, book: replace(book, role=f"{PASSAGE}."))
    export(run, "gguf-f16", tmp_path / "out")
    assert not (tmp_path / "out" / "Modelfile").exists()
    assert "no `Modelfile` for Ollama: the prompt holds examples or posts" in card(tmp_path / "out")


def test_there_is_none_where_llama_cpp_lacks_the_normaliser(tmp_path):
    """The shipped base's vocabulary folds case: through text, llama.cpp would get other ids for the instruction too."""
    pytest.importorskip("gguf")
    export(ROOT / "base" / "run", "gguf-q8_0", tmp_path / "out")
    assert not (tmp_path / "out" / "Modelfile").exists()
    assert "no `Modelfile` for Ollama: it takes text, of which llama.cpp makes other ids here" in card(tmp_path / "out")


def test_llama_cpp_makes_these_ids(run, tmp_path):
    llama_cpp = pytest.importorskip("llama_cpp")
    pytest.importorskip("gguf")
    export(run, "gguf-f16", tmp_path / "out")
    commands = dict(parse((tmp_path / "out" / "Modelfile").read_text(encoding="utf-8")))
    model = llama_cpp.Llama(str(tmp_path / "out" / commands["FROM"]), vocab_only=True, verbose=False)
    prompt = Prompt(load_codebook(), load_tokenizer(run.parent / "base"), "instruction-first")
    same_ids(model, commands["TEMPLATE"], prompt)


@pytest.mark.parametrize("family, size", [("llama3", 128256), ("llama2", 32000)])
def test_llama_cpp_with_llama_3s_and_llama_2s_vocabularies(shared_data, tmp_path, family, size):
    llama_cpp = pytest.importorskip("llama_cpp")
    pytest.importorskip("gguf")
    from tests.tools.test_export_vocabulary import keys
    from tools.export.vocabulary import read_vocabulary

    keys(read_vocabulary(shared_data / family, size), tmp_path / "a.gguf", size)
    model = llama_cpp.Llama(str(tmp_path / "a.gguf"), vocab_only=True, verbose=False)
    for kind in TEMPLATES:
        prompt = Prompt(nasty(), load_tokenizer(shared_data / family), kind)
        same_ids(model, dict(parse(modelfile(prompt, "a.gguf", 4096)))["TEMPLATE"], prompt)


def same_ids(model, template, prompt):
    for post in PLAIN:
        ids = model.tokenize(execute(template, post).encode(), add_bos=True, special=True)
        assert ids == prompt.encode(post).ids, post
