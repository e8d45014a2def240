"""Which tokens of a row are the post's, which the prompt's: found from ids, so that it holds for every tokenizer.

A tokenizer may lower letters' case, put a space in front, or join the post's last character with the quote behind it;
so the bytes of the tokens need not be those of the text. What all posts' rows begin and end with is the prompt's, and
what lies between is the post's.
"""

from functools import cache

from data.prompt import PROBES, Prompt
from glass.stages import Token

SOME = 12  # every so many-th probe: the ends of rows depend on a post's last character alone


@cache
def suffix_length(prompt: Prompt) -> int:
    """How many ids every row ends with, whatever the post."""
    rows = [prompt.encode(post).ids[::-1] for post in [*PROBES[::SOME], "x.", "x)", 'x"']]
    length = 0
    while all(length < len(row) and row[length] == rows[0][length] for row in rows):
        length += 1
    return length


def tokens_of(prompt: Prompt, ids: list[int]) -> tuple[Token, ...]:
    """The row's tokens, each with the part that it belongs to."""
    end = len(ids)
    while end > max(len(prompt.prefix_ids), len(ids) - suffix_length(prompt)):
        end -= 1
    start = next((place for place, (a, b) in enumerate(zip(ids, prompt.prefix_ids, strict=False)) if a != b),
                 min(len(ids), len(prompt.prefix_ids)))
    special = set(prompt.tokenizer.special_ids.values())

    def part(place: int, id: int) -> str:
        return "special" if id in special else "post" if start <= place < end else "prompt"

    return tuple(Token(id, prompt.tokenizer.token_bytes(id), part(place, id)) for place, id in enumerate(ids))
