"""Solutions of chapter 1."""

from collections import Counter
from itertools import pairwise


def most_frequent_pair(words: dict[str, int], spelled: dict[str, list[str]]) -> tuple[str, str]:
    """Each pair counts as often as its word occurs."""
    counts = Counter()
    for word, times in words.items():
        for pair in pairwise(spelled[word]):
            counts[pair] += times
    return max(counts, key=counts.get)


def merge(pieces: list[str], pair: tuple[str, str]) -> list[str]:
    """From left to right; a piece that was glued is used up."""
    result, i = [], 0
    while i < len(pieces):
        if tuple(pieces[i : i + 2]) == pair:
            result.append(pieces[i] + pieces[i + 1])
            i += 2
        else:
            result.append(pieces[i])
            i += 1
    return result


def byte_pieces(character: str) -> list[str]:
    """One piece for each byte."""
    return [f"<0x{byte:02X}>" for byte in character.encode()]
