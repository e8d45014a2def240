"""What a base's folder says about its licence, and which parts of it must go with everything made from the base.

Llama's licences require of anyone who passes on a derivative: a copy of the licence, a notice in a text file, "Built
with Llama" where people read about it, and a name that begins with "Llama" (Llama 3.2 Community License, 1.b). Whether
a base is Llama is determined from its folder, in this order, and the first sign counts:

    1. a licence or notice file that names a Llama community licence
    2. its own card (README.md), whose front matter has `license: llama3.2` or the like
    3. a vocabulary of 128,256, Llama 3's: the tokenizer alone is under that licence
    4. its own card with another licence (apache-2.0, cc-by-sa-4.0, ...): then it is not Llama
    5. "llama" in its name: the folder's, the one given, or `_name_or_path` in config.json

A GGUF file may lie among files that are not its own: of it, `general.license` and `general.name` stand for the card
and the config.json.

`model_type: llama` is no sign, since many other models have the architecture. The small base that the project ships is
recognised by its card (4). If a sign gives no version, it is 3.2, which this project is for. None of this is legal
advice.
"""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from common.errors import UserError
from common.files import read_json
from common.gguf import read_gguf
from common.reading import DOCUMENT, read_bytes

TRAVELLING = re.compile(r"(licen[cs]e|use_policy|notice|copying|attribution)", re.IGNORECASE)
LLAMA_3_VOCABULARY = 128256
NOTICE, BASE_CARD = "NOTICE", "BASE_README.md"
_DEFAULT = "3.2"
_LICENCE = re.compile(r"llama (\d(?:\.\d)?) community licen[cs]e", re.IGNORECASE)
_NAME = re.compile(r"llama[-_ ]?(\d(?:\.\d)?)?", re.IGNORECASE)


@dataclass(frozen=True)
class Base:
    """A base as a card describes it. `llama`: the version whose licence it carries, or `None`."""

    folder: Path
    name: str
    licence: str  # the Hub's word for it: "llama3.2", "cc-by-sa-4.0", "unknown"
    llama: str | None
    files: tuple[Path, ...]  # licence texts that travel

    @property
    def card(self) -> Path:
        """The base's own card, which may be missing."""
        return self.folder / "README.md"

    @property
    def copied(self) -> list[Path]:
        """The files that `write` copies as they are."""
        return [path for path in (*self.files, self.card) if path.is_file() and path.name.upper() != NOTICE]

    @property
    def on_hub(self) -> bool:
        """Whether the name is one of the Hub: owner/model."""
        return re.fullmatch(r"[\w.-]+/[\w.-]+", self.name) is not None

    @property
    def attribution(self) -> str:
        """The notice that Llama's licence requires to be kept; empty for other bases."""
        name = f"{'Meta ' if self.llama == '3' else ''}Llama {self.llama}"
        return "" if self.llama is None else (
            f"{name} is licensed under the {name} Community License, Copyright © Meta Platforms, Inc. All Rights "
            "Reserved.")

    @property
    def built_with(self) -> str:
        """ "Built with Llama", or "" for other bases."""
        return "" if self.llama is None else "Built with Meta Llama 3" if self.llama == "3" else "Built with Llama"

    @property
    def has_licence_text(self) -> bool:
        """Whether the licence itself, not only a notice or a policy, is among the files."""
        return any(re.match("licen[cs]e", path.name, re.IGNORECASE) for path in self.files)

    def model_name(self, given: str | None, place: str) -> str:
        """The exported model's name: `given`, or its folder's name `place`, with "Llama-" in front if required.

        Raises `UserError` for a given name that the licence does not allow (it was chosen, so it is not changed), or
        that the Hub does not.
        """
        name = given or re.sub(r"[^\w.-]+", "-", place)
        if not re.fullmatch(r"[\w.-]+", name):
            raise UserError(f"--name {name}: may hold letters, digits, '.', '-' and '_' only; leave an owner out")
        if self.llama is None or name.startswith("Llama-"):
            return name
        if given:
            raise UserError(f"--name {given}: a model made from Llama weights must be named Llama-... (its licence, "
                            f"1.b); --name Llama-{given}")
        return f"Llama-{name}"

    def write(self, folder: Path) -> None:
        """Copy the licence texts, and the base's own card under another name, and write the notice."""
        notices = [path for path in self.files if path.name.upper() == NOTICE]
        for path in self.files:
            if path not in notices:
                shutil.copyfile(path, folder / path.name)
        if self.card.is_file():
            shutil.copyfile(self.card, folder / BASE_CARD)
        texts = [_text(path).strip() for path in notices]
        texts += [text for text in (self.attribution, self.built_with) if text and text not in "".join(texts)]
        if texts:
            (folder / NOTICE).write_text("\n\n".join(texts) + "\n", encoding="utf-8", newline="\n")


def describe_base(folder: str | Path, vocab_size: int, name: str | None = None) -> Base:
    """Read the signs in the base's folder or GGUF file; `name` is what its user calls it: meta-llama/Llama-3.2-3B."""
    folder = Path(folder)
    if folder.is_file():
        said = read_gguf(folder).metadata
        licence = str(said.get("general.license", ""))[:60].lower()
        name = name or _name_of(folder)
        llama = _llama_version(folder, vocab_size, f"{name} {said.get('general.name', '')}", (), licence)
        return Base(folder, name, f"llama{llama}" if llama else licence or "unknown", llama, ())
    files = tuple(sorted(path for path in folder.iterdir() if path.is_file() and TRAVELLING.match(path.name)))
    found = re.search(r"\A---\n.*?^license:\s*[\"']?([\w.-]+)", _text(folder / "README.md").partition("\n---\n")[0],
                      re.MULTILINE | re.DOTALL)
    licence, name = found[1].lower() if found else "", name or _name_of(folder)
    llama = _llama_version(folder, vocab_size, name, files, licence)
    return Base(folder, name, f"llama{llama}" if llama else licence or "unknown", llama, files)


def _llama_version(folder: Path, vocab_size: int, name: str, files: tuple[Path, ...], licence: str) -> str | None:
    config = read_json(folder / "config.json") if (folder / "config.json").exists() else {}
    config = config if isinstance(config, dict) else {}  # beside Meta's files, whose reader asks for none
    names = [name, folder.resolve().name, str(config.get("_name_or_path") or "")]
    hits = [hit for word in names for hit in _NAME.finditer(word)]  # of meta-llama/Llama-2-7b the second says it
    version = next((hit[1] for hit in hits if hit[1]), _DEFAULT)
    written = next((hit for hit in (_LICENCE.search(" ".join(_text(path).split())) for path in files) if hit), None)
    if written:
        return written[1]
    if re.fullmatch(r"llama\d(\.\d)?", licence):
        return licence.removeprefix("llama")
    if vocab_size == LLAMA_3_VOCABULARY:
        return version
    if licence not in ("", "other", "unknown"):
        return None
    return version if hits else None


def _name_of(folder: Path) -> str:
    """owner/model for a snapshot in the Hub's cache (models--owner--model/snapshots/...), else the folder's or the
    file's own name.
    """
    cached = next((part for part in folder.resolve().parts[::-1] if part.startswith("models--")), "")
    return "/".join(cached.split("--")[1:]) or (folder.stem if folder.is_file() else folder.resolve().name)


def _text(path: Path) -> str:
    return read_bytes(path, DOCUMENT).decode("utf-8", "replace") if path.is_file() else ""
