"""A `Modelfile`, with which Ollama asks an exported GGUF file as the run asks its model.

    FROM ./mine-Q8_0.gguf
    TEMPLATE \"\"\"<|start_header_id|>system<|end_header_id|> ... {{ .Prompt }} ... Answer = [{{ .Response }}\"\"\"
    PARAMETER ...

The template is the prompt up to the label, with `{{ .Prompt }}` for the post, so one token is all that is asked for. It
is text: Ollama puts the token that begins a text in front, and makes special tokens of their names. Whether the run's
own ids come out is found here, with the run's tokenizer, for posts of many kinds; `why_not` says where they do not.
Two grammars read the file, Ollama's (ollama/ollama, parser/parser.go) and Go's text/template; so an opening brace, the
third of three quotes, and what the parser drops because it does not print, are written as Go's strings, such as
`{{ "\\u00a0" }}`.
"""

import re

from data.prompt import PROBES, Prompt

RESPONSE = "{{ .Response }}"
SPECIMENS = [*PROBES[::12], 'three """ quotes', "{{ .Prompt }} {", "{post} {{ .Response }}", "#", " around ",
             "a\r\nb\tc\u00a0\u00ad\u200b", "移民"]  # fmt: skip
LIMITS = ("the answer is the likeliest of all tokens, not only of the labels; a post that spells a special token's "
          "name gets that token; and one that is too long is cut elsewhere")
CONTEXT = 2048  # positions that Ollama keeps room for, at least


def modelfile(prompt: Prompt, file: str, positions: int) -> str:
    """The text of a Modelfile for the GGUF `file` of a model with so many positions; see `why_not` first."""
    book, tokenizer = prompt.codebook, prompt.tokenizer
    answers = [f"# {tokenizer.decode([id]).strip()} = {label}" for id, label in
               zip(prompt.label_ids, book.labels, strict=True)]
    names = {id: name for name, id in tokenizer.special_ids.items()}
    rest = book.answer.partition("{symbol}")[2].strip()  # what follows the label
    stops = [names[id] for id in tokenizer.eos_ids if id in names] + [rest] * (rest != "" and rest.isprintable())
    # Ollama's default lowers what it has seen lately, and the prompt names every label.
    parameters = {"temperature": 0, "repeat_penalty": 1, "num_predict": 1,
                  "num_ctx": min(positions, max(CONTEXT, (prompt.max_tokens or 0) + 1))}
    return "\n".join([
        "# For Ollama. A request is one post and nothing else (in a chat, the posts before it would be read as well);",
        "# the answer is one of", *answers, f"FROM ./{file}",
        f'TEMPLATE """{template(prompt)}"""', *(f"PARAMETER {name} {value}" for name, value in parameters.items()),
        *(f'PARAMETER stop "{stop}"' for stop in stops), "",
    ])  # fmt: skip


def why_not(prompt: Prompt) -> str:
    """Why the template's tokens would not be those of the run's prompt; "" where they are, for all of `SPECIMENS`."""
    if sum(run.count("{post}") for run in prompt.parts() if isinstance(run, str)) != 1:
        return "{post} stands in the codebook's own words"
    text, special = template(prompt), prompt.tokenizer.special_ids
    for post in SPECIMENS:
        if not any(name in post for name in special) and not prompt.shorten(post)[1] and (
                ids_of(prompt, rendered(text, post)) != prompt.encode(post).ids):
            return "as one text, which is what Ollama takes, the prompt becomes other tokens"
    return ""


def template(prompt: Prompt) -> str:
    """The prompt up to the label as a template of Go's: special tokens by name, `{{ .Prompt }}` for the post."""
    names = {id: name for name, id in prompt.tokenizer.special_ids.items()}
    tokenizer, runs = prompt.tokenizer, prompt.parts()
    runs = runs[1:] if tokenizer.adds_bos and runs[0] == tokenizer.bos_id else runs  # Ollama puts it there
    text = "".join(names[run] if isinstance(run, int) else run for run in runs)
    answer = prompt.codebook.answer_text(prompt.codebook.labels[0])
    text = text.removesuffix(answer) + prompt.codebook.answer.partition("{symbol}")[0]
    return "{{ .Prompt }}".join(map(escaped, text.split("{post}"))) + RESPONSE


def escaped(text: str) -> str:
    """Text as both grammars read it: `escaped('{a}') -> '{{ "{" }}a}'`."""
    def written(char: str) -> str:
        # Python's and Go's tables of what prints may be of different years: no risk beyond the first 65,536.
        if char != "{" and (char in "\n\t" or (char.isprintable() and char <= "\uffff")):
            return char
        return f'{{{{ "{char if char == "{" else go_escape(char)}" }}}}'

    return "".join(map(written, text)).replace('"""', '""{{ "\\"" }}')


def go_escape(char: str) -> str:
    """A character in a string of Go's: `go_escape("\\r") -> "\\\\u000d"`."""
    return f"\\u{ord(char):04x}" if char <= "\uffff" else f"\\U{ord(char):08x}"


def rendered(text: str, post: str) -> str:
    """What Ollama makes of a template for a post: the text up to `{{ .Response }}`, each action by what it says."""
    def said(found: re.Match) -> str:
        code = r"\\(?:u(.{4})|U(.{8})|(.))"
        return post if found[1] is None else re.sub(
            code, lambda char: char[3] or chr(int(char[1] or char[2], 16)), found[1])  # fmt: skip

    return re.sub(r'\{\{ (?:\.Prompt|"((?:[^"\\]|\\.)*)") \}\}', said, text.partition(RESPONSE)[0])


def ids_of(prompt: Prompt, text: str) -> list[int]:
    """The ids of one text with names of special tokens in it, behind the one that begins a text."""
    tokenizer = prompt.tokenizer
    names = sorted(tokenizer.special_ids, key=len, reverse=True)
    ids = [tokenizer.bos_id] if tokenizer.adds_bos else []
    for piece in filter(None, re.split(f"({'|'.join(map(re.escape, names))})", text) if names else [text]):
        ids += [tokenizer.special_ids[piece]] if piece in names else tokenizer.encode(piece)
    return ids
