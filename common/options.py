"""A program's options: one dataclass, readable as a table, fed from a TOML file and the command line.

    @dataclass
    class Options:
        rank: int = option(16, "rank r of the adapters", minimum=1)
        languages: list[str] = option((), "languages to fine-tune on", metavar="en,es")

    options = parse_options(Options, argv, program="train.py", description="...")

Which value counts, strongest first: the command line, the TOML file of `--config`, the preset, the default written
here. Field `per_language` is `--per-language` on the command line and `per_language` in TOML. Annotations decide how a
value is read: str, int, float, bool (`--flag`, `--no-flag`), `list[str]` and `list[int]` (several words, or one with
commas), `dict[str, int]` (`tr=75,es=20`), each with `| None` if "not given" has a meaning of its own. An unknown option
or key is an error. A pattern in a list of files (`--data posts/*.csv`) is looked for, since Windows' shells do not.
"""

import argparse
import dataclasses
import re
import shutil
import textwrap
import typing
from functools import cache
from pathlib import Path
from types import NoneType, UnionType

from common.errors import UserError, closest
from common.files import matching
from common.option_file import called_here, read_option_file
from common.reading import check_name


def option(default, help: str, *, choices=None, minimum=None, above=None, maximum=None, metavar=None, group=None,
           switch=None):
    """A dataclass field with its help text and the values it may take (`above` is an exclusive lower bound).

    switch: of a text with choices, those that a bare `--flag` and `--no-flag` stand for, and true and false in TOML.
    """
    metadata = {"help": help, "choices": choices, "minimum": minimum, "above": above, "maximum": maximum,
                "metavar": metavar, "group": group, "switch": switch}
    if isinstance(default, list | dict | tuple):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


class _Help(argparse.HelpFormatter):
    """Help at any width: paragraphs are filled, indented lines stay, remarks that are too wide go below."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=30, width=min(shutil.get_terminal_size().columns, 110) - 2)

    def _fill_text(self, text, width, indent):
        parts = []
        for part in text.strip().split("\n\n"):
            lines = part.split("\n")
            if any(line.startswith(" ") for line in lines):
                parts.append("\n".join(re.sub(r"(\S) {3,}(?=\S)", r"\1\n        ", line) if len(line) > width else line
                                       for line in lines))
            else:
                parts.append(textwrap.fill(" ".join(lines), width, break_on_hyphens=False))
        return "\n\n".join(parts)

    def _split_lines(self, text, width):
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)

    def _format_action_invocation(self, action):
        if isinstance(action, argparse.BooleanOptionalAction):
            return action.option_strings[0].replace("--", "--[no-]", 1)
        return super()._format_action_invocation(action)

    def _format_args(self, action, default_metavar):
        listed = action.nargs == "+" and "," in (action.metavar or "")
        return action.metavar if listed else super()._format_args(action, default_metavar)


class _Join(argparse.Action):
    """`--per-language tr=75 --per-language pl=75` is `tr=75,pl=75`."""

    def __call__(self, parser, namespace, values, option_string=None):
        before = getattr(namespace, self.dest, None)
        setattr(namespace, self.dest, values if before is None else f"{before},{values}")


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        raise UserError(f"{self.prog}: {message}; --help shows every option")

    def _check_value(self, action, value):  # argparse would list the choices at greater length
        if action.choices is not None and value not in action.choices:
            raise argparse.ArgumentError(action, f"{value!r} is not one of {', '.join(map(str, action.choices))}")


def parse_options(cls, argv: list[str], *, program: str, description: str, presets=None):
    """Read `argv` (and the TOML file and preset that it names) into an instance of the dataclass `cls`.

    `presets` maps a name to values that `--preset NAME` sets. The instance's `given` is the set of field names that the
    user set somewhere, `typed` of those on the command line. `cls.FIRST`, if there is one, names the options that
    --help shows first. Raises `UserError`.
    """
    parser = _Parser(prog=program, usage=f"{program} [options]", description=description,
                     allow_abbrev=False, formatter_class=_Help)
    parser.add_argument("--config", metavar="FILE", help="TOML file with the same options" + (", or the "
                        "run.json of an earlier run" if presets else "") + "; the command line wins")
    if presets:
        parser.add_argument("--preset", choices=sorted(presets), help="a named set of option values; --config and the "
                            "command line win over it")
    fields = {field.name: field for field in dataclasses.fields(cls)}
    kinds = {name: _kind(annotation) for name, annotation in typing.get_type_hints(cls).items() if name in fields}
    groups: dict[str | None, argparse._ArgumentGroup] = {}
    if first := getattr(cls, "FIRST", ()):
        group = parser.add_argument_group("what most people need")
        parser._action_groups.insert(0, parser._action_groups.pop())  # ahead of --help and all else
        for name in first:
            _add_argument(group, name, fields[name], kinds[name])
    inherited = [name for name in fields if name not in cls.__annotations__]
    for name, field in sorted(fields.items(), key=lambda item: item[0] in inherited):  # shared options come last
        if name in first:
            continue
        title = field.metadata["group"]
        if title not in groups:
            groups[title] = parser.add_argument_group(title) if title else parser
        _add_argument(groups[title], name, field, kinds[name])

    namespace, rest = parser.parse_known_args(argv)
    if rest:
        is_file = Path(rest[0]).suffix.lower() in (".toml", ".yaml", ".yml", ".json")
        hint = (called_here(cls, rest[0], fields, "--") if rest[0].startswith("-") else
                f"; a file of options is --config {rest[0]}" if is_file else " after the options")
        parser.error(f"unknown {'option' if rest[0].startswith('-') else 'word'} '{rest[0]}'{hint}")
    given = vars(namespace)
    for name, value in given.items():  # an empty shell variable must not mean "the default"
        field, is_empty = fields.get(name), "" in value if isinstance(value, list) else value == ""
        metavar = "FILE" if name == "config" else field and field.default != "" and field.metadata["metavar"]
        if is_empty and metavar:
            raise UserError(f"--{name.replace('_', '-')}: is empty; give {metavar}, or leave the option out")
        if isinstance(value, list) and metavar == "FILE":
            given[name] = [str(file) for word in value for file in matching(word) or [word]]
    config, preset = given.pop("config"), given.pop("preset", None)
    from_file = _read_config(config, cls, program, fields, presets) if config else {}
    if preset and presets[preset].keys() <= from_file.keys():
        raise UserError(f"--preset {preset}: {config} has a value for all that it sets; leave one of them out")
    preset, _ = preset or from_file.get("preset"), from_file.pop("preset", None)
    values = {name: (value, f"preset {preset}") for name, value in (presets or {}).get(preset, {}).items()}
    values |= {name: (value, f"{config}: {name}") for name, value in from_file.items()}
    values |= {name: (value, "--" + name.replace("_", "-")) for name, value in given.items()}
    result = cls(**{name: _checked(value, kinds[name], fields[name].metadata, where)
                    for name, (value, where) in values.items()})
    for name, (_, where) in values.items():  # in a file [] may say "all"
        if getattr(result, name) == [] and (getattr(cls(), name) or where.startswith("--")):
            raise UserError(f"{where}: is empty; name something, or leave it out")
    result.given, result.typed = frozenset(values), frozenset(given)
    return result


def check_value(cls, name: str, value, where: str):
    """`value` as the field `name` of the dataclass `cls` would take it from a TOML file; else a `UserError`."""
    field = next(field for field in dataclasses.fields(cls) if field.name == name)
    return _checked(value, _kinds(cls)[name], field.metadata, f"{where}: {name}")


@cache
def _kinds(cls) -> dict[str, tuple[str, bool]]:
    """`_kind` of every annotation; a run.json has dozens of options to check."""
    return {name: _kind(annotation) for name, annotation in typing.get_type_hints(cls).items()}


def _kind(annotation) -> tuple[str, bool]:
    """`list[str] | None -> ("list", True)`: the kind of a value (`list[int]`: "numbers"), whether it may be absent."""
    optional = typing.get_origin(annotation) in (UnionType, typing.Union) and NoneType in typing.get_args(annotation)
    if optional:
        annotation = next(part for part in typing.get_args(annotation) if part is not NoneType)
    if typing.get_args(annotation) == (int,):
        return "numbers", optional
    return (typing.get_origin(annotation) or annotation).__name__, optional


def _add_argument(group, name: str, field, kind) -> None:
    flag, words, metadata = "--" + name.replace("_", "-"), kind[0], field.metadata
    default = field.default if field.default is not dataclasses.MISSING else field.default_factory()
    shown = "" if default is False or default in (None, "", [], {}, ()) else f" (default: {_shown(default, metadata)})"
    text = (metadata["help"] + shown).replace("%", "%%")
    if words == "bool":
        group.add_argument(flag, dest=name, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=text)
        return
    # Where an option takes several values, one that comes again adds to them: the last alone would lose the others.
    again = {"list": "extend", "numbers": "extend", "dict": _Join}.get(words, "store")
    metavar = metadata["metavar"] or (None if metadata["choices"] else {"int": "N", "float": "X"}.get(words, "TEXT"))
    group.add_argument(flag, dest=name, action=again, default=argparse.SUPPRESS, help=text, metavar=metavar,
                       choices=metadata["choices"] if words == "str" else None,
                       nargs="+" if words in ("list", "numbers") else "?" if metadata["switch"] else None,
                       const=metadata["switch"] and metadata["switch"][0])
    if metadata["switch"]:
        group.add_argument(flag.replace("--", "--no-", 1), dest=name, default=argparse.SUPPRESS, help=argparse.SUPPRESS,
                           action="store_const", const=metadata["switch"][1])


def _shown(value, metadata) -> str:  # several as they are typed
    between = "," if "," in str(metadata["metavar"]) else " "
    return between.join(map(str, value if isinstance(value, list | tuple) else [value]))


def _read_config(path: str, cls, program: str, fields, presets) -> dict:
    result = read_option_file(path, cls, program, [*fields, *(["preset"] if presets else [])])
    preset = result.get("preset", next(iter(presets or [""])))
    if presets and (not isinstance(preset, str) or preset not in presets):
        raise UserError(f"{path}: preset: '{result['preset']}' is not one of {', '.join(sorted(presets))}")
    return result


def _checked(value, kind, metadata, where: str):
    """`value` converted to its kind and within its bounds; otherwise a `UserError` that begins with `where`."""
    name, optional = kind
    if value is None and optional:
        return None
    if isinstance(value, bool) and metadata["switch"]:
        value = metadata["switch"][0 if value else 1]
    try:
        is_files = metadata["metavar"] in ("FILE", "PATH") and name == "list"  # a file's name may hold a comma
        value = _READ["files" if is_files else name](value)
    except (ValueError, TypeError) as error:
        raise UserError(f"{where}: {value!r} is not {_WORDS[name]}") from error
    if metadata["metavar"] in ("FILE", "DIR", "PATH"):
        for path in value if isinstance(value, list) else [value]:
            try:
                check_name(path)
            except UserError as error:
                raise UserError(f"{where}: {error}") from error
    items = value.values() if name == "dict" else value if name == "numbers" else [value]
    for item in items if name in ("int", "float", "dict", "numbers") else []:
        if isinstance(item, int) and abs(item) >= 2**63:
            raise UserError(f"{where}: {item} has more than the 64 bits that a whole number may have")
        if metadata["minimum"] is not None and item < metadata["minimum"]:
            raise UserError(f"{where}: {item} is below the smallest value, {metadata['minimum']}")
        if metadata["above"] is not None and item <= metadata["above"]:
            raise UserError(f"{where}: {item} must be above {metadata['above']}")
        if metadata["maximum"] is not None and item > metadata["maximum"]:
            raise UserError(f"{where}: {item} is above the largest value, {metadata['maximum']}")
    if metadata["choices"]:
        for item in value if name == "list" else [value]:
            if item not in metadata["choices"]:
                known = ", ".join(map(str, metadata["choices"]))
                raise UserError(f"{where}: '{item}' is not one of {known}{closest(item, metadata['choices'])}")
    return value


def _read_int(value) -> int:
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise ValueError(value)
    return int(value)


def _read_float(value) -> float:
    number = float(value)
    if isinstance(value, bool) or number != number or number in (float("inf"), float("-inf")):
        raise ValueError(value)
    return number


def _read_str(value) -> str:
    if not isinstance(value, str | Path):
        raise TypeError(value)
    return str(value)


def _read_bool(value) -> bool:
    if not isinstance(value, bool):
        raise TypeError(value)
    return value


def _read_files(value) -> list[str]:
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list | tuple) or not all(isinstance(item, str) for item in items):
        raise TypeError(value)
    return list(items)


def _read_list(value) -> list[str]:
    return [word.strip() for item in _read_files(value) for word in item.split(",") if word.strip()]


def _read_numbers(value) -> list[int]:
    items = value.split(",") if isinstance(value, str) else value if isinstance(value, list | tuple) else [value]
    return [_read_int(word) for item in items for word in (item.split(",") if isinstance(item, str) else [item])]


def _read_dict(value) -> dict[str, int]:
    if isinstance(value, dict):
        return {str(key): _read_int(count) for key, count in value.items()}
    pairs = [word.split("=") for word in str(value).split(",") if word.strip()]
    if not pairs or not all(len(pair) == 2 for pair in pairs) or len({key.strip() for key, _ in pairs}) < len(pairs):
        raise ValueError(value)
    return {key.strip(): _read_int(count) for key, count in pairs}


_READ = {"str": _read_str, "int": _read_int, "float": _read_float, "bool": _read_bool, "list": _read_list,
         "files": _read_files, "numbers": _read_numbers, "dict": _read_dict}
_WORDS = {"str": "text", "int": "a whole number", "float": "a finite number", "bool": "true or false",
          "list": "a list of words", "numbers": "a list of whole numbers",
          "dict": "NAME=NUMBER pairs, each name once, such as tr=75,es=20"}
