"""What a chat template writes, found by reading it; it is never run.

A chat template is a program in Jinja that comes with a model's tokenizer. Which layout it makes can be seen from its
text: between two of its statements it writes strings and variables, joined by `+`, and text that stands outside its
tags. `writings` gives these, each in one form however it is written,

    {{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}
    {{- "<|im_start|>" ~ message.role ~ "\\n" ~ message.content | trim ~ "<|im_end|>\\n" }}

    both: "<|im_start|>{role}\\n{text}<|im_end|>\\n"

and `chat.py` compares them with its layouts. White space outside the tags counts, by Jinja's rules as transformers sets
them (`trim_blocks`, `lstrip_blocks`, and the signs `-` and `+`). Time is linear in the length of the text.
"""

import re
from collections.abc import Iterator

LONGEST = 200_000  # characters of a template; the longest published ones, with their tools, have a twentieth of it
STRING = r"'(?:[^'\\]|\\.)*+(?:'|\Z)|\"(?:[^\"\\]|\\.)*+(?:\"|\Z)"
TAG = re.compile(rf"(\{{\{{)([-+]?)((?:{STRING}|[^'\"])*?)([-+]?)(?:\}}\}}|\Z)"
                 rf"|(\{{%)([-+]?)((?:{STRING}|[^'\"])*?)([-+]?)(?:%\}}|\Z)"
                 r"|(\{#)([-+]?)(.*?)([-+]?)(?:#\}|\Z)", re.DOTALL)
OPERAND = re.compile(rf"({STRING})|([+~])|([^'\"+~]+)", re.DOTALL)
ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}
NAMES = {"message['role']": "{role}", "message['content']": "{text}", "content": "{text}",
         "messages[0]['content']": "{text}", "system_message": "{text}", "eos_token": "{eos}", "bos_token": "{bos}"}
UNKNOWN = "{?}"  # a variable or a call of which nothing is known


def writings(template: str) -> set[str]:
    """All that a template writes between two of its statements, and all that it keeps in a variable by `set`.

    In a writing `{role}` and `{text}` stand for those of a message, `{bos}` and `{eos}` for the tokens, `{?}` for
    anything else that is computed; a brace of the template's own is doubled. Empty for a text that is too long.
    """
    if len(template) > LONGEST:
        return set()
    found, current = set(), ""
    for kind, body in _parts(template):
        if kind == "{%":
            found.add(current)
            current = ""
            keeps = re.match(r"\s*set\s+\w+\s*=(?!=)", body)
            if keeps:
                found.add(_expression(body[keeps.end() :]))
        else:
            current += body.replace("{", "{{") if kind == "" else _expression(body)
    return (found | {current}) - {""}


def _parts(template: str) -> Iterator[tuple[str, str]]:
    """("", text outside), ("{{", an expression) and ("{%", a statement) in turn, white space cut as Jinja cuts it."""
    end, after = 0, ""
    for match in TAG.finditer(template):
        kind, left, body, right = [group for group in match.groups() if group is not None]
        yield "", _outside(template[end : match.start()], after, kind + left)
        if kind != "{#":
            yield kind, body
        end, after = match.end(), kind + right
    yield "", _outside(template[end:].removesuffix("\n"), after, "")


def _outside(text: str, after: str, before: str) -> str:
    """Text between two tags, of which `after` and `before` are the kinds and signs."""
    begins_line = after == ""
    if after.endswith("-"):
        text = text.lstrip()
    elif after in ("{%", "{#"):
        begins_line = text.startswith(("\n", "\r\n"))
        text = re.sub(r"\A\r?\n", "", text)
    if before.endswith("-"):
        return text.rstrip()
    line = re.search(r"[ \t]*\Z", text).start()
    spaces = before in ("{%", "{#") and (begins_line if line == 0 else text[line - 1] == "\n")
    return text[:line] if spaces else text


def _expression(body: str) -> str:
    """Strings and variables joined by `+` or `~`, as one text; a filter or method that trims has no say."""
    written, operand = "", ""
    for string, sign, rest in [*OPERAND.findall(body), ("", "+", "")]:
        operand += string + rest
        if sign:
            written += _operand(operand.strip())
            operand = ""
    return written


def _operand(text: str) -> str:
    text = re.sub(r"\s*\|\s*trim\s*\)*$|\.strip\(\)\)*$", "", text).strip("()").strip()
    if re.fullmatch(STRING, text, re.DOTALL):
        return re.sub(r"\\(.)", lambda found: ESCAPES.get(found[1], found[1]), text[1:-1], flags=re.DOTALL
                      ).replace("{", "{{")
    return NAMES.get(re.sub(r"\.(\w+)$", r"['\1']", text.replace('"', "'")), UNKNOWN if text else "")
