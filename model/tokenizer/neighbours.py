"""The files beside a tokenizer: what they call special, and where a text begins and ends.

`tokenizer_config.json`, `special_tokens_map.json`, `generation_config.json`, `config.json`, and the chat template,
which may be a file of its own. None of them need be there. On the Hub Meta's vocabulary lies in `original/`, and these
files in the folder above it. A GGUF file says the same of itself, and none of them is read for it.
"""

import re
from pathlib import Path

from common.errors import UserError
from common.files import read_json

ROLE = re.compile(r"\w+_tokens?")  # bos_token, additional_special_tokens, ...
ROLE_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


class Neighbours:
    """The JSON objects beside a tokenizer, empty where there is none, and what they say of its words.

    chat_template: the one that is used, in Jinja, or None. adds_bos: whether texts begin with BOS, where a file says
    so, else None.
    """

    def __init__(self, folder: Path, stated: dict[str, dict] | None = None):
        """stated: what a GGUF file says in their place, by their names."""
        self.folder, self._stated = folder, stated
        self.tokenizer, self.map, self.generation, self.config = map(self._object, (
            "tokenizer_config.json", "special_tokens_map.json", "generation_config.json", "config.json"))
        self.added = self._added()
        templates = self._templates()
        self.chat_template = next((text for text, name in templates if name in ("", "default")), None)
        self.adds_bos = self.tokenizer.get("add_bos_token")
        if not isinstance(self.adds_bos, bool | None):
            raise UserError(f"{folder / 'tokenizer_config.json'}: add_bos_token: must be true or false")
        self._names = {name for name, special in self.added.values() if special}
        self._names |= {name for roles in (self.tokenizer, self.map) for key, value in roles.items()
                        if ROLE.fullmatch(key) for name in _names(value)}
        self._names |= _literals("\n{{}}".join(text for text, _ in templates))
        self._ids = {id for ids in (self.generation, self.config) for key in ROLE_IDS for id in _ids(ids.get(key))}

    def marks(self, word: str, id: int) -> bool:
        """Whether a file calls a word special, or names it or its id in a role, or the chat template writes it."""
        return word in self._names or word.strip() in self._names or id in self._ids

    def _added(self) -> dict[int, tuple[str, bool]]:
        """`added_tokens_decoder` of tokenizer_config.json: id -> (name, whether it is special)."""
        where = f"{self.folder / 'tokenizer_config.json'}: added_tokens_decoder"
        added = self.tokenizer.get("added_tokens_decoder") or {}
        if not isinstance(added, dict):
            raise UserError(f"{where}: is not an object of ids and tokens")
        found = {}
        for key, token in added.items():
            name, digits = content(token), re.fullmatch(r"0*([0-9]{1,7})", key)
            if not digits or not is_text(name):
                raise UserError(f"{where}: '{key[:40]}': an id and a token with 'content' were expected")
            found[int(digits[1])] = name, isinstance(token, dict) and token.get("special") is True
        return found

    def _object(self, name: str) -> dict:
        """The JSON object in a file, or an empty one where there is no file."""
        if self._stated is not None or not (self.folder / name).is_file():
            return (self._stated or {}).get(name, {})
        value = read_json(self.folder / name)
        if not isinstance(value, dict):
            raise UserError(f"{self.folder / name}: holds a {type(value).__name__}; a JSON object was expected")
        return value

    def _templates(self) -> list[tuple[str, str]]:
        """Every chat template and its name, "" where it has none; the first of a name counts, as in transformers."""
        found, path = [], self.folder / "chat_template.jinja"
        if self._stated is None and path.is_file():
            try:
                found.append(path.read_text(encoding="utf-8"))
            except (OSError, UnicodeDecodeError) as error:
                raise UserError(f"{path}: is no text in UTF-8 ({error})") from error
        found += [self.tokenizer.get("chat_template"), self._object("chat_template.json").get("chat_template")]
        named = [(entry.get("template"), entry.get("name")) for entries in found if isinstance(entries, list)
                 for entry in entries if isinstance(entry, dict)]
        return [(text, name) for text, name in [*((text, "") for text in found), *named] if isinstance(text, str)]


def folder_of(file: Path) -> Path:
    """Where a tokenizer's neighbours are: in its folder, or above `original/` where a model of the Hub's is."""
    above = file.parent.parent
    return above if file.parent.name == "original" and (above / "config.json").is_file() else file.parent


def content(value):
    """A token's name where it is given as an object: `{"content": "<s>", "lstrip": false} -> "<s>"`."""
    return value.get("content") if isinstance(value, dict) else value


def is_text(value) -> bool:
    """Whether a value is a string that UTF-8 can hold; JSON may have half a surrogate pair in it."""
    return isinstance(value, str) and not re.search("[\ud800-\udfff]", value)


def _names(value) -> list[str]:
    """The tokens under a role: a name, an object with 'content', a list of these, or an object of them."""
    several = value if isinstance(value, list) else [value]
    if isinstance(value, dict) and "content" not in value:
        several = list(value.values())
    return [name for name in map(content, several) if isinstance(name, str)]


def _ids(value) -> list[int]:
    several = value if isinstance(value, list) else [value]
    return [id for id in several if isinstance(id, int) and not isinstance(id, bool)]


def _literals(template: str) -> set[str]:
    """What a Jinja template writes: text outside its tags, and quoted strings, without the space around them.

    Words of letters alone ("user") are left out: posts are full of them, and so are templates.
    """
    found = set()
    for part in re.split(r"\{\{|\}\}|\{%|%\}|\{#|#\}", template):
        for text in (part, *(a or b for a, b in re.findall(r"'([^']*)'|\"([^\"]*)\"", part))):
            text = text.replace("\\n", "\n").strip()
            if text and not text.isalnum():
                found.add(text)
    return found
