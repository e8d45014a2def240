"""How much of each language fine-tuning adds to pre-training, with numerator, denominator and sources shown.

    exposure = post tokens of the language, times epochs / pre-training tokens

The paper reports an exposure as small as 9.62e-11 but not its formula; 75 posts of 20 tokens over 15.6e12 tokens come
nearest. So nothing is hidden here: post tokens and prompt tokens are counted separately, with the tokenizer used for
training (the post is encoded alone, and the rest of its row is the prompt), and the ratio is given twice, to all
pre-training tokens and to the language's own. The shares come from a TOML file (`pretraining_shares.toml`), in which
each row has its source and date.

The shipped table is of Llama 3.2, and is used for no other model: one whose vocabulary is Llama 3's and whose size is
that of a Llama 3.2. The vocabulary alone would not do, since others have trained models of their own with it. A base
may bring a table in its folder. For all others the tokens are counted, and what the table would say is a dash.
"""

import hashlib
from base64 import b64encode
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from textwrap import wrap

from common.errors import UserError, closest
from common.files import find_path, read_toml
from common.terminal import table
from data.prompt import EncodedPost, Prompt

SHARES = Path(__file__).parent / "pretraining_shares.toml"
KEYS = {"model": str, "tokens": (int, float), "source": str, "date": str, "note": str, "shares": list,
        "vocabulary": str, "shapes": list}
LLAMA3_TOKENS = 128_000  # those of Llama 3's vocabulary that are no special tokens
ROW_KEYS = {"language": str, "percent": (int, float), "source": str, "date": str}


@dataclass
class TokenCount:
    """Posts of one language and their tokens in one epoch."""

    posts: int = 0
    post_tokens: int = 0  # the posts alone, after cutting
    prompt_tokens: int = 0  # the rest of their rows
    cut: int = 0  # posts that lost their end


@dataclass(frozen=True)
class Shares:
    """What the base model was pre-trained on: its tokens, and the per cent of each language whose share is published.
    """

    model: str
    tokens: float
    source: str
    date: str
    note: str
    percent: dict[str, float]
    row_sources: dict[str, str]  # language -> "source (date)"
    vocabulary: str = ""  # whose models they are of: see `vocabulary_sha256`
    shapes: tuple[tuple[int, int], ...] = ()  # their hidden sizes and numbers of layers


def count_tokens(posts: Iterable, rows: Iterable[EncodedPost], prompt: Prompt) -> dict[str, TokenCount]:
    """Tokens per language in one epoch of `posts` (with `text` and `language`) and `rows`, as `prompt` encodes them.

    `post_tokens + prompt_tokens` is exactly the length of the rows. Languages are in alphabetical order.
    """
    counts: dict[str, TokenCount] = {}
    for post, row in zip(posts, rows, strict=True):
        text = prompt.shorten(post.text)[0] if row.cut else post.text
        alone = len(prompt.tokenizer.encode(text))
        count = counts.setdefault(post.language, TokenCount())
        count.posts += 1
        count.post_tokens += alone
        count.prompt_tokens += len(row.ids) - alone
        count.cut += row.cut
    return dict(sorted(counts.items()))


def load_shares(path: str | Path | None = None) -> Shares:
    """Read a table of pre-training shares, the shipped one without a `path`. Raises `UserError` if it is not valid."""
    path = find_path(path) if path else SHARES
    data = read_toml(path)
    _check(data, KEYS, f"{path}", optional=("note", "shares", "vocabulary", "shapes"))
    if not 1 <= data["tokens"] < float("inf"):
        raise UserError(f"{path}: key 'tokens' is {data['tokens']}; a positive number of tokens was expected")
    percent, sources = {}, {}
    for number, row in enumerate(data.get("shares", []), 1):
        where = f"{path}: shares[{number}]"
        _check(row, ROW_KEYS, where)
        if not (1e-9 <= row["percent"] <= 100 or row["percent"] == 0):
            raise UserError(f"{where}: key 'percent' is {row['percent']}; a number from 0 to 100 was expected")
        if row["language"] in percent:
            raise UserError(f"{where}: language '{row['language']}' is listed twice; keep one row")
        percent[row["language"]] = float(row["percent"])
        sources[row["language"]] = f"{row['source']} ({row['date']})"
    if sum(percent.values()) > 100 + 1e-9:
        raise UserError(f"{path}: the shares add up to {sum(percent.values()):g} per cent; at most 100 is possible")
    shapes = data.get("shapes", [])
    if not all(isinstance(shape, list) and list(map(type, shape)) == [int, int] for shape in shapes):
        raise UserError(f"{path}: key 'shapes': pairs of a hidden size and a number of layers were expected")
    texts = {key: data.get(key, "") for key in ("model", "source", "date", "note", "vocabulary")}
    return Shares(tokens=float(data["tokens"]), percent=percent, row_sources=sources,
                  shapes=tuple(map(tuple, shapes)), **texts)


def shares_of(folder: Path, tokenizer, config) -> tuple[Shares | None, str]:
    """The shares of the model in `folder` (or file), from its own table or the shipped one; or None, and why.
    """
    own = (folder.parent if folder.is_file() else folder) / SHARES.name
    if own.exists():
        return load_shares(own), ""
    shipped = load_shares()
    shape = config.hidden_size, config.num_hidden_layers
    if shape in shipped.shapes and vocabulary_sha256(tokenizer) == shipped.vocabulary:
        return shipped, ""
    return None, f"no ratio: the shipped shares are {shipped.model}'s; this model's folder has no {SHARES.name}"


def vocabulary_sha256(tokenizer) -> str:
    """SHA-256 of a vocabulary's first `LLAMA3_TOKENS` tokens, written as Meta's file has them: lines "base64 id".

    So it is that file's own hash, whatever kind of file the vocabulary was read from; "" for a smaller one.
    """
    if tokenizer.vocab_size < LLAMA3_TOKENS:
        return ""
    lines = (b"%s %d\n" % (b64encode(tokenizer.token_bytes(id)), id) for id in range(LLAMA3_TOKENS))
    return hashlib.sha256(b"".join(lines)).hexdigest()


def exposure(counts: dict[str, TokenCount], epochs: float, shares: Shares | None, tokenizer: str,
             why: str = "") -> dict:
    """The exposure ratios as plain values for run.json; `tokenizer` describes the tokenizer that counted, in words.

    Per language: posts, post_tokens and prompt_tokens (each times `epochs`), `ratio` = post_tokens / all pre-training
    tokens, `ratio_with_prompt` = (post_tokens + prompt_tokens) / all, `share_percent`, `pretraining_tokens` of the
    language and `ratio_own` = post_tokens / those; the last three are None if no share is listed. `source` names the
    origin of the share. Without `shares` all that rests on them is None, and `note` says `why`.
    """
    languages = {}
    for language, count in counts.items():
        seen = {key: getattr(count, key) * epochs for key in ("post_tokens", "prompt_tokens")}
        percent = shares.percent.get(language) if shares else None
        own = shares.tokens * percent / 100 if shares and percent else None
        languages[language] = {
            **asdict(count), **seen, "ratio": seen["post_tokens"] / shares.tokens if shares else None,
            "ratio_with_prompt": sum(seen.values()) / shares.tokens if shares else None,
            "share_percent": percent, "pretraining_tokens": own,
            "ratio_own": seen["post_tokens"] / own if own else None,
            "source": shares.row_sources.get(language) if shares else None,
        }
    known = (shares.model, shares.tokens, f"{shares.source} ({shares.date})", shares.note) if shares else (
        None, None, None, why)  # fmt: skip
    return {"epochs": epochs, "tokenizer": tokenizer,
            **dict(zip(("model", "pretraining_tokens", "source", "note"), known, strict=True)), "languages": languages}


def exposure_table(result: dict) -> str:
    """`exposure(...)` for the terminal: a line per language, then the source of each number."""
    def short(value: float | None) -> str | None:
        return None if value is None else f"{value:.2e}"

    header = ["language", "posts", "post tokens", "prompt tokens", "of all", "with prompt", "share %", "of its own"]
    rows = [
        [language, row["posts"], f"{row['post_tokens']:,.0f}", f"{row['prompt_tokens']:,.0f}", short(row["ratio"]),
         short(row["ratio_with_prompt"]), row["share_percent"], short(row["ratio_own"])]
        for language, row in result["languages"].items()
    ]
    sources = dict.fromkeys(row["source"] for row in result["languages"].values() if row["source"])
    words = ["of all: post tokens over all pre-training tokens; of its own: over those in the language itself",
             f"pre-training: {result['pretraining_tokens']:.3g} tokens, {result['model']}; {result['source']}",
             *(f"share: {source}" for source in sources)] if result["model"] is not None else []
    lines = [line for text in [*words, result["note"]]
             for line in wrap(text, 100, initial_indent="  ", subsequent_indent="    ")]
    head = f"Exposure: fine-tuning tokens ({result['epochs']:g} epochs, {result['tokenizer']}) over pre-training tokens"
    return "\n".join([head, table(header, rows), *lines])


def _check(data, keys: dict, where: str, optional: tuple[str, ...] = ()) -> None:
    if not isinstance(data, dict):
        raise UserError(f"{where}: a table with {', '.join(keys)} was expected")
    for key, value in data.items():
        if key not in keys:
            raise UserError(f"{where}: key '{key}' is unknown{closest(key, keys)}; known are {', '.join(keys)}")
        if isinstance(value, bool) or not isinstance(value, keys[key]):
            kind = ("text" if keys[key] is str else "a number" if keys[key] is not list else
                    "a list of pairs" if key == "shapes" else "[[shares]] tables")
            raise UserError(f"{where}: key '{key}' is {value!r}; {kind} was expected")
    for key in keys:
        if key not in data and key not in optional:
            raise UserError(f"{where}: key '{key}' is missing")
