"""Text to token ids and back, from the four kinds of public tokenizer files, told apart by their content.

    tiktoken text      lines of `base64 rank`                      Meta's Llama 3 `tokenizer.model`
    tokenizer.json     BPE, vocabulary and merges                  Hugging Face's Llama 3, SmolLM2; Llama 2 as of late
    sentencepiece      a protobuf                                  Llama 2's `tokenizer.model`, and our own base
    GGUF               one of the last two, beside the weights     llama.cpp's models

Two rules hold for all of them. `encode` adds nothing: no BOS, and text that looks like a special token ("<|eot_id|>" in
a post) stays ordinary text, since a post must not be able to end its own turn; special ids come from `special(name)`.
And the ids are those of the reference: tiktoken, tokenizers (with `encode_special_tokens`) and sentencepiece. Where a
file fails to mark a word that controls the model, the first rule holds and `added.py` says which words these are.

The special ids come from the file itself and from `tokenizer_config.json` beside it; a tiktoken file lists none and
gets Llama 3.2's published 256. BOS and the ids that end a turn come from the neighbouring files
`tokenizer_config.json`, `special_tokens_map.json`, `generation_config.json` and `config.json`, in that order for BOS.
An id that they name but that is not a special token here is not used, and `notes` has a line about it: a config.json
often keeps the defaults 1 and 2 of another vocabulary. A GGUF file says all of this itself, and no other file is read.
"""

import re
from pathlib import Path

from common.errors import UserError, closest
from common.files import find_path, sha256_file
from common.gguf import is_gguf
from model.tokenizer.bpe import read_tiktoken
from model.tokenizer.gguf import gguf_vocabulary
from model.tokenizer.hf_json import read_tokenizer_json
from model.tokenizer.neighbours import Neighbours, content, folder_of
from model.tokenizer.pattern import short
from model.tokenizer.split import SPACE
from model.tokenizer.spm import read_sentencepiece

FILE_NAMES = ("tokenizer.model", "tokenizer.json")  # in a folder, the first that is there
MOST_BYTES = 1 << 26  # of a tokenizer file; the largest published ones have about half of it
MOST_ENDS = 1_000
BOS_NAMES = ("<|begin_of_text|>", "<s>", "<|startoftext|>")
SEAM = re.compile("[!-~] (?=[!-~])")
EOS_NAMES = ("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>", "</s>", "<|endoftext|>", "<|im_end|>")


class Tokenizer:
    """One vocabulary: `encode`, `decode`, `token_bytes`, `special`, and the ids that begin and end a text.

    kind: "tiktoken", "bpe" or "sentencepiece". special_ids: name -> id. bos_id: an id, or None if the vocabulary has
    none. adds_bos: whether the model wants `bos_id` before a plain text: `add_bos_token` where a file has it, else what
    tokenizer.json's post-processor does, else True. eos_ids: ids that end a turn or a text. vocab_size: the largest
    id + 1. chat_template: as the files have it, in Jinja, or None. hash: SHA-256 of the tokenizer file, or of what
    decides ids in a GGUF file, whose weights may be gigabytes.
    unmarked: control words that the file does not mark as such; whoever reads it with another library must be told.
    pre: llama.cpp's name for how a text is cut before its bytes are merged, if nothing else happens to it, or None.
    notes: what a neighbouring file said and was not used. beside: the folder of these files.
    """

    def __init__(self, engine, beside: Neighbours, special_ids: dict[str, int], bos_id: int | None, eos_ids: list[int],
                 hash: str, source: Path, notes: tuple[str, ...] = ()):
        self._engine, self.kind, self.source, self.hash, self.notes = engine, engine.kind, source, hash, notes
        self.special_ids, self.bos_id, self.eos_ids = special_ids, bos_id, eos_ids
        wanted = engine.adds_bos if beside.adds_bos is None else beside.adds_bos
        self.adds_bos: bool = wanted and bos_id is not None
        self.chat_template: str | None = beside.chat_template
        self.beside: Path = beside.folder
        self.unmarked: tuple[str, ...] = engine.unmarked
        self.pre: str | None = engine.pre
        self._tokens: dict[int, bytes] = engine.tokens | {id: name.encode() for name, id in special_ids.items()}
        self.vocab_size = max(self._tokens) + 1
        self._special = frozenset(special_ids.values())

    def __repr__(self) -> str:
        return f"Tokenizer({self.source}: {self.kind}, {self.vocab_size:,} ids)"

    def encode(self, text: str) -> list[int]:
        """Ids of `text` and of nothing else; half a surrogate pair, which UTF-8 cannot hold, becomes U+FFFD. Raises
        `UserError` for anything but a string."""
        if not isinstance(text, str):
            raise UserError(f"text: is of type {type(text).__name__}; give one string")
        if not text.isascii():
            try:
                text.encode("utf-8")
            except UnicodeEncodeError:  # JSON may hold a lone "\ud83d"; two matching halves become one character
                text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return self._engine.encode(text)

    def divide(self, text: str, last: bool = False) -> tuple[str, str] | None:
        """`text` in two at its first or last seam, whose ids, one behind the other, are those of the whole.

        So they are whatever stands before the first and behind the second. A seam is a space between two printable
        ASCII characters, where this tokenizer never makes a token of both sides; None where it promises that nowhere.
        `divide("a b c") -> ("a", " b c")`; sentencepiece puts the space there by itself: ("a", "b c").
        """
        found = list(SEAM.finditer(text)) if self._engine.seam is not None else []
        if not found:
            return None
        place = found[-1 if last else 0].start() + 1
        return text[:place], self._engine.seam + text[place + 1 :]

    def decode(self, ids) -> str:
        """Text of `ids`; special tokens appear by name, bytes that are not UTF-8 as U+FFFD."""
        ids = [int(id) for id in ids]
        parts = [self.token_bytes(id) for id in ids]
        if self._engine.adds_space:  # sentencepiece puts a space before every text; it is not part of the text
            for index, id in enumerate(ids):
                if id not in self._special:
                    parts[index] = parts[index].removeprefix(b" ")
                    break
        return b"".join(parts).decode("utf-8", "replace")

    def token_bytes(self, id: int) -> bytes:
        """The bytes that one token stands for, which need not be whole characters; a special token's is its name."""
        token = self._tokens.get(id)
        if token is None:
            raise UserError(f"{self.source}: has no token {id}; its ids go from 0 to {self.vocab_size - 1}")
        return token

    def special(self, name: str) -> int:
        """The id of a special token, by its name; raises `UserError` with the nearest name if there is none."""
        if name not in self.special_ids:
            known = ", ".join(list(self.special_ids)[:12]) or "none"
            raise UserError(f"{self.source}: has no special token '{name}'{closest(name, self.special_ids)}"
                            f" (special tokens: {known}{', ...' if len(self.special_ids) > 12 else ''})")
        return self.special_ids[name]

    def has_special(self, name: str) -> bool:
        """Whether `special(name)` would find a token."""
        return name in self.special_ids

    def check_fits(self, vocab_size: int, also=()) -> None:
        """Raise `UserError` if an id of text, BOS or one of `also` is beyond a model's embedding of `vocab_size` rows.

        Unused special tokens may lie beyond it: some tokenizers have a padding token that no model has.
        """
        ordinary = (id for id in self._tokens if id not in self._special)
        largest = max([*ordinary, *also, *([] if self.bos_id is None else [self.bos_id])])
        if largest >= vocab_size:
            raise UserError(f"{self.source}: has ids up to {largest}, but the model's vocabulary ends at "
                            f"{vocab_size - 1}; tokenizer and model do not belong together")

    @property
    def adds_space(self) -> bool:
        """Whether `encode` puts a space before the text (sentencepiece's dummy prefix), which `decode` removes."""
        return self._engine.adds_space


def load_tokenizer(path: str | Path) -> Tokenizer:
    """The tokenizer in a file, or in a folder's `tokenizer.model` or `tokenizer.json`; raises `UserError`.

    What the project ships is found from every working directory, as `load_model` finds it: `load_tokenizer("base")`.
    """
    file = _find(find_path(path))
    inside = gguf_vocabulary(file) if is_gguf(file) else None
    beside = inside.beside if inside else Neighbours(folder_of(file))
    engine, notes = inside.engine(beside) if inside else _read(file, beside), []
    special_ids = _special_ids(engine, beside, file)
    numbers = set(special_ids.values())
    names = beside.map | {key: value for key, value in beside.tokenizer.items() if value}

    def known(source: str, key: str, values) -> list[int]:
        source = file.name if inside else source
        found, values = [], values if isinstance(values, list) else [] if values is None else [values]
        if len(values) > MOST_ENDS:
            raise UserError(f"{beside.folder / source}: {key}: lists {len(values):,} tokens; a few were expected")
        for value in map(content, values):
            if isinstance(value, bool) or not isinstance(value, str | int):
                raise UserError(f"{beside.folder / source}: {key}: {short(value)}: a token or its id was expected")
            id = special_ids.get(value, value)
            if id in numbers:
                found.append(id)
            else:
                notes.append(f"{source}: {key} {short(value)} is not a special token of {file.name}; it is "
                             "not used")
        return found

    bos = (known("tokenizer_config.json", "bos_token", names.get("bos_token"))
           or known("generation_config.json", "bos_token_id", beside.generation.get("bos_token_id"))
           or known("config.json", "bos_token_id", beside.config.get("bos_token_id"))
           or [special_ids[name] for name in BOS_NAMES if name in special_ids] or engine.bos)
    eos = (known("generation_config.json", "eos_token_id", beside.generation.get("eos_token_id"))
           or known("config.json", "eos_token_id", beside.config.get("eos_token_id"))
           or known("tokenizer_config.json", "eos_token", names.get("eos_token"))
           or [special_ids[name] for name in EOS_NAMES if name in special_ids] or engine.eos)
    return Tokenizer(engine, beside, special_ids, bos[0] if bos else None, sorted(set(eos)),
                     inside.hash if inside else sha256_file(file), file, tuple(notes))


def _find(path: Path) -> Path:
    """The tokenizer file that `path` is or holds."""
    if not path.exists():
        raise UserError(f"{path}: there is no such file or folder; give a tokenizer file or a checkpoint folder")
    if path.is_file():
        return path
    if not path.is_dir():
        raise UserError(f"{path}: is neither a file nor a folder; give a tokenizer file or a checkpoint folder")
    for name in FILE_NAMES:
        if (path / name).is_file():
            return path / name
    raise UserError(f"{path}: has no tokenizer; one of {' or '.join(FILE_NAMES)} is expected in it")


def _read(file: Path, beside: Neighbours):
    """The engine for a file's content: what it looks like decides, not its name."""
    try:
        if file.stat().st_size > MOST_BYTES:
            raise UserError(f"{file}: has {file.stat().st_size:,} bytes, more than any tokenizer; is it a model?")
        data = file.read_bytes()
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from error
    start = data[:4096].lstrip()
    if not data.strip():
        raise UserError(f"{file}: is empty; download it again")
    if start.startswith(b"version https://git-lfs"):
        raise UserError(f"{file}: is a Git LFS pointer, not the file itself; fetch it with `git lfs pull`")
    if re.match(rb"<(!doctype|html|\?xml|!--)", start.lower()):
        raise UserError(f"{file}: is a web page, not a tokenizer; download the raw file (a login may be needed)")
    if start[:1] in (b"{", b"["):
        return read_tokenizer_json(file, beside)
    if re.match(rb"[A-Za-z0-9+/]+=*[ \t]+\S+[ \t]*\r?(\n|$)", start):
        return read_tiktoken(file, data)
    return read_sentencepiece(file, data, beside)


def _special_ids(engine, beside: Neighbours, file: Path) -> dict[str, int]:
    """Names of the special tokens: the file's own (or the published ones), as `added_tokens_decoder` renames them."""
    where = f"{beside.folder / 'tokenizer_config.json'}: added_tokens_decoder"
    by_id = {id: name for name, id in engine.specials.items()}
    for id, (name, _) in beside.added.items():
        if id in engine.tokens and id not in by_id:
            if engine.tokens[id] in (name.encode(), name.replace(SPACE, " ").encode()):
                continue  # an ordinary word that is listed too
            raise UserError(f"{where}: id {id} is {short(name)}, but {file.name} has an ordinary token there; the two "
                            "files are not of one tokenizer")
        if id in by_id and by_id[id] != name and not engine.specials_by_rule:
            raise UserError(f"{where}: id {id} is {short(name)}, but {file.name} calls it {short(by_id[id])}; the two "
                            "files are not of one tokenizer")
        by_id[id] = name
    special_ids = {name: id for id, name in sorted(by_id.items())}
    if len(special_ids) < len(by_id):
        twice = next(name for id, name in by_id.items() if special_ids[name] != id)
        raise UserError(f"{where}: two ids are called {short(twice)}")
    return special_ids
