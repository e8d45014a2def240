"""The codebook: the question about a post, its possible answers, and how they are grouped.

A codebook is a TOML file (data/codebooks/ holds some, `paper.toml` is the default):

    name          what the codebook is called; not part of its hash
    role          the system turn
    introduction  the sentence that holds the post, with {post} where it goes
    question      what to do with the post
    listing       how the labels are listed, with {labels} where they go
    answer        the form of the answer, with {symbol} where the label's symbol goes
    labels        names, or tables of `name` and `definition`; their order is the order of the symbols
    examples      tables of `label` and `text`
    groups.topic  related = [labels], unrelated = [labels]: each label on exactly one side
    groups.stance any sides over the related labels: each related label on exactly one side

Only `labels` must be there; each other text has a default that suits any posts. Symbols are 1 to 9, and A to Z where
there are more than nine labels, because "10" would begin as "1" does; the question should then ask for a letter. The
reader is strict: a misspelt key that is skipped in silence changes what a model is taught, so every unknown key, empty
string or label in no group is an error that names the file and the key.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from common.errors import UserError, closest
from common.files import find_path, read_toml, sha256_json
from data.visible import composed

SHIPPED = Path(__file__).parent / "codebooks"
KEYS = ("name", "role", "introduction", "question", "listing", "answer", "labels", "examples", "groups")
PLACEHOLDERS = {"role": None, "question": None, "introduction": "{post}", "listing": "{labels}", "answer": "{symbol}"}
DEFAULTS = {  # KIND becomes "number" or "letter", as the symbols are
    "role": "You are an expert in reading posts. Answer the question truthfully.",
    "introduction": 'The next text is a post:"{post}"',
    "question": "Analyze carefully the post and assign it to the most relevant category among those listed below. "
                "Do not explain your answer and return only a KIND.",
    "listing": "Category KINDs: {labels}.",
    "answer": "Answer = [{symbol}]. ",
}  # fmt: skip
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Codebook:
    """One question with its labels; made by `load_codebook` or `Codebook.from_dict`, which check every field."""

    name: str
    role: str
    introduction: str
    question: str
    listing: str
    answer: str
    labels: tuple[str, ...]
    definitions: dict[str, str]  # label -> definition, for the labels that have one
    examples: tuple[tuple[str, str], ...]  # (label, text), in the order in which the prompt shows them
    groups: dict[str, dict[str, tuple[str, ...]]]  # {"topic": {"related": (...), ...}, "stance": {...}}, or {}

    @property
    def symbols(self) -> tuple[str, ...]:
        """The symbol of each label in the answer: "1" to "9", or "A" to "Z" if there are more than nine labels."""
        return tuple(symbols_for(len(self.labels)))

    @property
    def related(self) -> tuple[str, ...]:
        """The labels that count as on topic; empty if the codebook has no topic."""
        return self.groups.get("topic", {}).get("related", ())

    @property
    def stance(self) -> dict[str, tuple[str, ...]]:
        """Each stance and its labels; empty if the codebook has no stance."""
        return self.groups.get("stance", {})

    @property
    def hash(self) -> str:
        """SHA-256 of the canonical JSON of everything but the codebook's name."""
        return sha256_json({key: value for key, value in self.to_dict().items() if key != "name"})

    def index(self, label: str) -> int:
        """The index of `label` among the labels. Raises `UserError` for a label that is not there."""
        if label not in self.labels:
            raise UserError(f"label '{label}' is not in the codebook{closest(label, self.labels)}; "
                            f"its labels are {', '.join(self.labels)}")
        return self.labels.index(label)

    def listed(self, label: str) -> str:
        """`listed("neutral") -> "3 = 'neutral'"`."""
        return f"{self.symbols[self.index(label)]} = '{label}'"

    def answer_text(self, label: str) -> str:
        """`answer_text("neutral") -> "Answer = [3]. "`."""
        return self.answer.replace("{symbol}", self.symbols[self.index(label)])

    def instruction(self) -> str:
        """The question and the listed labels, then definitions and examples if the codebook has any."""
        lines = [self.question, self.listing.replace("{labels}", "; ".join(map(self.listed, self.labels)))]
        if self.definitions:
            lines.append("Definitions:")
            lines += [f"{self.listed(label)}: {text}" for label, text in self.definitions.items()]
        if self.examples:
            lines.append("Examples:")
            lines += [f'"{text}": {self.listed(label)}' for label, text in self.examples]
        return "\n".join(lines)

    def to_dict(self) -> dict:
        """The codebook in the shape of its TOML file, as plain lists and dicts: what run.json keeps."""
        labels = [
            {"name": label, "definition": self.definitions[label]} if label in self.definitions else {"name": label}
            for label in self.labels
        ]
        examples = [{"label": label, "text": text} for label, text in self.examples]
        groups = {group: {side: list(members) for side, members in sides.items()}
                  for group, sides in self.groups.items()}
        texts = {key: getattr(self, key) for key in ("name", *PLACEHOLDERS)}
        return {**texts, "labels": labels, "examples": examples, "groups": groups}

    @classmethod
    def from_dict(cls, data: dict, where: str = "codebook") -> "Codebook":
        """Check `data`, shaped like the TOML file, and make it a codebook. Raises `UserError` with `where` in front."""
        return _build(data, where)


def load_codebook(path: str | Path | None = None) -> Codebook:
    """Read a codebook: a TOML file, the name of a shipped one ("sib200"), or the paper's without a `path`.

    Raises `UserError`, one line with the file and the key, for everything that would change or blur the question.
    """
    path = find_path(path) if path else SHIPPED / "paper.toml"
    shipped = SHIPPED / f"{path}.toml"
    if not path.exists() and path.name == str(path) and shipped.exists():
        path = shipped
    if not path.exists():
        names = sorted(file.stem for file in SHIPPED.glob("*.toml"))
        raise UserError(f"{path}: there is no such codebook; shipped are {', '.join(names)}")
    return _build(read_toml(path), str(path), composed)


def symbols_for(count: int) -> str:
    """The symbols of `count` labels, one character each: digits up to nine labels, capital letters up to 26."""
    return "123456789"[:count] if count <= 9 else LETTERS[:count]


def _build(data: dict, where: str, spelt: Callable[[str], str] = str) -> Codebook:
    _table(data, KEYS, where, "")
    if "labels" not in data:
        raise UserError(f"{where}: key 'labels' is missing; a codebook needs its labels: labels = [\"yes\", \"no\"]")
    labels, definitions = _labels(data["labels"], where, spelt)
    kind = "number" if len(labels) <= 9 else "letter"
    defaults = {key: text.replace("KIND", kind) for key, text in DEFAULTS.items()}
    texts = {key: _template(data.get(key, defaults[key]), mark, where, key) for key, mark in PLACEHOLDERS.items()}
    return Codebook(
        name=_text(data.get("name", "codebook"), where, "name"), **texts, labels=labels, definitions=definitions,
        examples=_examples(data.get("examples", []), labels, where),
        groups=_groups(data.get("groups", {}), labels, where),
    )


def _table(value, keys, where: str, path: str) -> None:
    if not isinstance(value, dict):
        raise UserError(f"{where}: {path or 'the codebook'} is {_kind(value)}; a table was expected")
    for key in value:
        if key not in keys:
            place = f"{path}.{key}" if path else key
            raise UserError(f"{where}: key '{place}' is unknown{closest(key, keys)}; known are {', '.join(keys)}")


def _text(value, where: str, key: str) -> str:
    if not isinstance(value, str):
        raise UserError(f"{where}: key '{key}' is {_kind(value)}; a string in quotes was expected")
    if not value.strip():
        raise UserError(f"{where}: key '{key}' is empty; give it text or leave the key out")
    return value


def _template(value, placeholder: str | None, where: str, key: str) -> str:
    text = _text(value, where, key)
    if placeholder and text.count(placeholder) != 1:
        found = "is missing" if placeholder not in text else f"occurs {text.count(placeholder)} times"
        raise UserError(f"{where}: key '{key}': {placeholder} {found}; it must occur once")
    rest = text.replace(placeholder, "") if placeholder else text
    if "{" in rest or "}" in rest:
        right = f"only {placeholder} may be in braces" if placeholder else "this text has no placeholder"
        raise UserError(f"{where}: key '{key}' has a brace that belongs to no placeholder; {right}")
    return text


def _labels(value, where: str, spelt: Callable[[str], str]) -> tuple[tuple[str, ...], dict[str, str]]:
    if not isinstance(value, list):
        raise UserError(f"{where}: key 'labels' is {_kind(value)}; a list of names or [[labels]] tables was expected")
    names, definitions, seen = [], {}, {}
    for number, entry in enumerate(value, 1):
        key = f"labels[{number}]"
        entry = {"name": entry} if isinstance(entry, str) else entry
        _table(entry, ("name", "definition"), where, key)
        if "name" not in entry:
            raise UserError(f"{where}: {key} has no key 'name'")
        name = spelt(_text(entry["name"], where, f"{key}.name"))
        if name != name.strip() or not name.isprintable():
            raise UserError(f"{where}: {key}.name {name!r} {_unseen(name)}")
        plain = " ".join(composed(name).casefold().split())
        if plain in seen:
            raise UserError(f"{where}: key 'labels': '{seen[plain]}' and '{name}' are the same; remove or rename one")
        seen[plain] = name
        names.append(name)
        if "definition" in entry:
            definitions[name] = _text(entry["definition"], where, f"{key}.definition").strip()
    if len(names) < 2:
        raise UserError(f"{where}: key 'labels' has too few labels ({len(names)}); at least two are needed")
    if len(names) > len(LETTERS):
        raise UserError(f"{where}: key 'labels' has {len(names)} labels; at most {len(LETTERS)} can be told apart")
    return tuple(names), definitions


def _unseen(name: str) -> str:
    """What in a name cannot be seen, and what to write: two labels that look alike would be taken for one."""
    right = "".join(char for char in " ".join(name.split()) if char.isprintable())
    odd = next((char for char in name.strip() if not char.isprintable()), None)
    if odd is None or odd in "\n\r\t\v\f\x1c\x1d\x1e\x85\u2028\u2029":
        return f"has spaces around it or a line break in it; write {right!r}"
    return f"has a character in it that shows no sign (U+{ord(odd):04X}); write {right!r}"


def _examples(value, labels: tuple[str, ...], where: str) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, list):
        raise UserError(f"{where}: key 'examples' is {_kind(value)}; [[examples]] tables were expected")
    examples, seen = [], {}
    for number, entry in enumerate(value, 1):
        key = f"examples[{number}]"
        _table(entry, ("label", "text"), where, key)
        for needed in ("label", "text"):
            if needed not in entry:
                raise UserError(f"{where}: {key} has no key '{needed}'; an example needs label and text")
        label, text = _known(entry["label"], labels, where, f"{key}.label"), _text(entry["text"], where, f"{key}.text")
        if text in seen:
            raise UserError(f"{where}: {key} repeats the text of examples[{seen[text]}]; keep one of them")
        seen[text] = number
        examples.append((label, text))
    return tuple(examples)


def _groups(value, labels: tuple[str, ...], where: str) -> dict[str, dict[str, tuple[str, ...]]]:
    _table(value, ("topic", "stance"), where, "groups")
    groups = {}
    for group, sides in value.items():
        key = f"groups.{group}"
        _table(sides, ("related", "unrelated") if group == "topic" else sides, where, key)
        if len(sides) < 2:
            need = "related and unrelated" if group == "topic" else "at least two sides"
            raise UserError(f"{where}: key '{key}' needs {need}")
        groups[group] = {side: _members(members, labels, where, f"{key}.{side}") for side, members in sides.items()}
    if "stance" in groups and "topic" not in groups:
        raise UserError(f"{where}: key 'groups.stance' needs groups.topic: stance is judged among the related labels")
    for group, sides in groups.items():
        expected = labels if group == "topic" else groups["topic"]["related"]
        for label in labels:
            found = [side for side, members in sides.items() if label in members]
            if label in expected and not found:
                raise UserError(f"{where}: key 'groups.{group}': label '{label}' is on no side; "
                                f"put it into one of {', '.join(sides)}")
            if len(found) > 1:
                both = " and ".join(found)
                raise UserError(f"{where}: key 'groups.{group}': label '{label}' is on two sides, {both}; keep one")
            if found and label not in expected:
                raise UserError(f"{where}: key 'groups.{group}.{found[0]}': label '{label}' is unrelated; take it out")
    return groups


def _members(value, labels: tuple[str, ...], where: str, key: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise UserError(f"{where}: key '{key}' is {_kind(value)}; a list of labels was expected")
    if not value:
        raise UserError(f"{where}: key '{key}' is empty; a side needs at least one label")
    members = [_known(label, labels, where, key) for label in value]
    if len(set(members)) < len(members):
        raise UserError(f"{where}: key '{key}' names a label twice")
    return tuple(label for label in labels if label in members)  # in the codebook's order, so equal books hash equal


def _known(label, labels: tuple[str, ...], where: str, key: str) -> str:
    label = {composed(one): one for one in labels}.get(composed(label), label) if isinstance(label, str) else label
    if label not in labels:
        raise UserError(f"{where}: key '{key}': {label!r} is not a label{closest(label, labels)}; "
                        f"labels are {', '.join(labels)}")
    return label


def _kind(value) -> str:
    names = {str: "a string", bool: "true or false", int: "a number", float: "a number", list: "a list"}
    return "a table" if isinstance(value, dict) else names.get(type(value), f"of type {type(value).__name__}")
