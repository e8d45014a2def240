"""Minimal pairs: two posts that differ in one thing, and whether their labels should.

A file of pairs is TOML:

    language = "en"                     ISO 639-1
    [negation]                          a check: one of `CHECKS`, or a name of your own with expect = "same" or "differ"
    pairs = [["Open the border.", "Do not open the border."]]

The files that ship (`audit/pairs/LANGUAGE.toml`) are about immigration, in the paper's four categories; each says in
its head how it was written.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.errors import UserError, closest
from common.files import read_toml
from data.languages import reduce_language
from data.visible import is_empty

SHIPPED = Path(__file__).with_name("pairs")
SAME, DIFFER = "same", "differ"
ENOUGH = 20  # pairs of a check in a language
# Check -> whether the two labels should be the same, and what differs between the posts.
CHECKS = {
    "negation": (DIFFER, "the claim is denied, so the side changes"),
    "sides": (DIFFER, "the same matter seen from the other side"),
    "groups": (SAME, "another group of immigrants is spoken of"),
    "hashtags": (SAME, "hashtags are added, or words made into them"),
    "capitals": (SAME, "words, or all of it, in capitals"),
    "elongation": (SAME, "letters or signs drawn out"),
    "emoji": (SAME, "emoji added that do not change the meaning"),
    "code_switching": (SAME, "a part said in another language"),
    "injection": (SAME, "words that tell the model what to answer"),
    "control_tokens": (SAME, "text that looks like the chat's own marks"),
}


@dataclass(frozen=True)
class Pair:
    """Two posts, and what is expected of their labels: "same" or "differ"."""

    check: str
    language: str
    expect: str
    first: str
    second: str


def read_pairs(path: str | Path) -> list[Pair]:
    """The pairs of one file, in its order. Raises `UserError` naming the file, the check and the pair."""
    value = read_toml(path)
    language = value.pop("language", None)
    if not isinstance(language, str) or not language:
        raise UserError(f"{path}: language: is missing; write, say, language = \"en\"")
    language, found, seen = reduce_language(language)[0], [], set()
    for check, table in value.items():
        where = f"{path}: [{check}]"
        if not isinstance(table, dict) or not isinstance(table.get("pairs"), list):
            raise UserError(f"{where}: has no list 'pairs' of pairs of posts")
        if unknown := sorted(table.keys() - {"pairs", "expect"}):
            raise UserError(f"{where}: unknown key '{unknown[0]}'; there are pairs and expect")
        expect = table.get("expect", CHECKS.get(check, (None,))[0])
        if expect not in (SAME, DIFFER) or (check in CHECKS and expect != CHECKS[check][0]):
            raise UserError(f"{where}: expect: must be \"{CHECKS[check][0]}\" for this check" if check in CHECKS else
                            f"{where}: is a check of your own{closest(check, CHECKS)}; say expect = \"same\" or "
                            "\"differ\"")
        for number, pair in enumerate(table["pairs"], 1):
            if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
                raise UserError(f"{where}: pair {number}: must be two posts, [\"...\", \"...\"]")
            if any(is_empty(text) for text in pair) or pair[0] == pair[1]:
                raise UserError(f"{where}: pair {number}: its posts must differ, and neither may be empty")
            if (check, *pair) in seen:
                raise UserError(f"{where}: pair {number}: is there twice")
            seen.add((check, *pair))
            found.append(Pair(check, language, expect, *pair))
    if not found:
        raise UserError(f"{path}: holds no pair")
    return found


def own_pairs(paths: Sequence[str | Path]) -> list[Pair]:
    """The pairs of several files, in their order; a pair that is in two of them counts once.

    Raises `UserError` where one check has two expectations, since its failures would be of two kinds.
    """
    found, first = {}, {}
    for path in paths:
        for pair in read_pairs(path):
            expect, where = first.setdefault(pair.check, (pair.expect, path))
            if expect != pair.expect:
                raise UserError(f"{path}: [{pair.check}]: expect = \"{pair.expect}\", and in {where} \"{expect}\"; "
                                "give one of the two checks another name")
            found[pair.check, pair.language, pair.first, pair.second] = pair
    return list(found.values())


def shipped_pairs() -> list[Pair]:
    """Every pair that comes with the project, by language."""
    return [pair for path in sorted(SHIPPED.glob("*.toml")) for pair in read_pairs(path)]
