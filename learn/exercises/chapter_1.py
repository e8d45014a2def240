"""Exercises of chapter 1: text to ids. Replace each `raise NotImplementedError`, then `python -m learn check 1`."""


def most_frequent_pair(words: dict[str, int], spelled: dict[str, list[str]]) -> tuple[str, str]:
    """The two neighbouring pieces that stand together most often in the texts.

    words: how often each word occurs; spelled: each word's pieces. Pairs do not cross from one word to the next. In
    these trials one pair always leads.
    """
    raise NotImplementedError


def merge(pieces: list[str], pair: tuple[str, str]) -> list[str]:
    """The pieces with every `pair` of neighbours glued together, from left to right; a new list.

    `merge(["a", "b", "c", "a", "b"], ("a", "b"))` is `["ab", "c", "ab"]`.
    """
    raise NotImplementedError


def byte_pieces(character: str) -> list[str]:
    """The pieces that stand for the UTF-8 bytes of a character, each as <0x..> with two capital hexadecimal digits.

    `byte_pieces("é")` is `["<0xC3>", "<0xA9>"]`.
    """
    raise NotImplementedError
