"""Checks of chapter 1: pairs are counted and glued here once more; a text's bytes are Python's own."""

from collections import Counter
from itertools import pairwise

from learn.check import Task, Wrong


def counted(words, spelled, weight=lambda times, pieces: times) -> Counter:
    counts = Counter()
    for word, times in words.items():
        for pair in pairwise(spelled[word]):
            counts[pair] += weight(times, spelled[word])
    return counts


def leader(counts: Counter) -> tuple:
    return max(counts, key=counts.get)


def across_words(words, spelled):
    text = [piece for word, times in words.items() for piece in spelled[word] * times]
    return leader(Counter(pairwise(text)))


def characters(words, spelled):
    return leader(counted(words, {word: list(word) for word in words}))


def glued(pieces, pair, whole=True):
    result, i = [], 0
    while i < len(pieces):
        hit = tuple(pieces[i : i + 2]) == pair
        result.append(pieces[i] + pieces[i + 1] if hit else pieces[i])
        i += 1 + (hit and whole)
    return result


def once(pieces, pair):
    at = next((i for i, found in enumerate(pairwise(pieces)) if found == pair), None)
    return pieces if at is None else [*pieces[:at], "".join(pair), *pieces[at + 2 :]]


def from_the_right(pieces, pair):
    back = glued([piece[::-1] for piece in reversed(pieces)], tuple(part[::-1] for part in reversed(pair)))
    return [piece[::-1] for piece in reversed(back)]


def replaced(pieces, pair):
    return " ".join(pieces).replace(" ".join(pair), "".join(pair)).split(" ")


def by_sound(pieces, pair):
    result, i = [], 0
    while i < len(pieces):
        hit = "".join(pieces[i : i + 2]) == "".join(pair) and i + 1 < len(pieces)
        result.append(pieces[i] + pieces[i + 1] if hit else pieces[i])
        i += 1 + hit
    return result


def once_a_word(words, spelled):
    counts = Counter()
    for word, times in words.items():
        for pair in set(pairwise(spelled[word])):
            counts[pair] += times
    return leader(counts)


def every_second(words, spelled):
    counts = Counter()
    for word, times in words.items():
        for pair in zip(spelled[word][::2], spelled[word][1::2], strict=False):
            counts[pair] += times
    return leader(counts)


def dropping(pieces, pair):
    return [piece for piece in glued(pieces, pair) if piece == "".join(pair)]


WORDS = [
    ({"aab": 5, "cb": 9, "bcc": 1, "dcc": 1}, {"aab": ["a", "ab"], "cb": ["c", "b"], "bcc": ["b", "c", "c"],
                                               "dcc": ["d", "c", "c"]}),
    ({"abc": 2, "abd": 2, "xy": 3, "xz": 1}, {"abc": ["a", "b", "c"], "abd": ["a", "b", "d"], "xy": ["x", "y"],
                                              "xz": ["x", "z"]}),
    ({"ba": 40, "xyz": 10, "xyw": 10}, {"ba": ["ba"], "xyz": ["x", "y", "z"], "xyw": ["x", "y", "w"]}),
    ({"nana": 2, "xy": 3}, {"nana": ["n", "a", "n", "a"], "xy": ["x", "y"]}),
    ({"xab": 3, "yab": 3, "zc": 4}, {"xab": ["x", "a", "b"], "yab": ["y", "a", "b"], "zc": ["z", "c"]}),
]
PIECES = [(["a", "b", "c", "a", "b"], ("a", "b")), (["a", "a", "a"], ("a", "a")), (["x", "yz", "x", "yz"], ("x", "yz")),
          (["a", "b"], ("b", "a")), (["xa", "b"], ("a", "b")), (["a", "bc"], ("ab", "c"))]
CHARACTERS = [("é",), ("집",), ("\n",), ("🏠",)]

TASKS = (
    Task("most_frequent_pair", lambda: WORDS, lambda *given: leader(counted(*given)), (
        Wrong(lambda *given: leader(counted(*given, weight=lambda times, pieces: 1)),
              "each word is counted once, however often it occurs in the texts"),
        Wrong(across_words, "pairs are counted across the border between two words as well; a piece never reaches from "
                            "one word into the next"),
        Wrong(characters, "the pairs are counted in the letters of the words. Count them in their pieces, `spelled`, "
                          "some of which are glued already"),
        Wrong(once_a_word, "a pair that stands in a word twice is counted once; in “nana”, the pair of n and a "
                           "stands twice"),
        Wrong(every_second, "each piece is in one pair only, the first with the second, the third with the fourth. The "
                            "second and the third are neighbours as well"),
        Wrong(lambda *given: min(counted(*given), key=counted(*given).get), "this is the rarest pair, not the most "
                                                                            "frequent one"),
    )),
    Task("merge", lambda: PIECES, glued, (
        Wrong(lambda pieces, pair: glued(pieces, pair, whole=False),
              "the second half of a glued pair is used again. After gluing, go on two places later, not one"),
        Wrong(once, "only the first place is glued; the pair may occur again further on"),
        Wrong(from_the_right, "the pairs are glued from the right. Where three equal pieces follow one another, that "
                              "gives another result; everybody who reads the model must do the same"),
        Wrong(replaced, "the pieces are made one text, and the pair is replaced in it. Then it is also found where its "
                        "first half is only the end of a longer piece, or its second only the beginning of one; "
                        "compare whole pieces"),
        Wrong(by_sound, "two neighbours are glued if together they spell what the pair spells. They have to be the "
                        "pair itself: a and bc spell what ab and c spell, and are another pair"),
        Wrong(dropping, "only the glued pieces are left; all others have to stay in their places"),
    )),
    Task("byte_pieces", lambda: CHARACTERS, lambda text: [f"<0x{byte:02X}>" for byte in text.encode()], (
        Wrong(lambda text: [f"<0x{ord(text):02X}>"],
              "this is the character's number in Unicode, not its bytes; `encode` gives the bytes"),
        Wrong(lambda text: [f"<0x{byte:02x}>" for byte in text.encode()],
              "the bytes are right, but their digits a to f are small letters; the pieces have capitals"),
        Wrong(lambda text: [f"<0x{byte:X}>" for byte in text.encode()],
              "a byte below sixteen has one digit here; each byte has two, the first may be zero"),
        Wrong(lambda text: [f"<0x{byte:02X}>" for byte in text.encode("utf-16-le")],
              "these are the bytes of UTF-16; the pieces stand for those of UTF-8"),
        Wrong(lambda text: [f"<{byte}>" for byte in text.encode()],
              "the bytes are right, but written in the decimal system; the pieces are named in hexadecimal digits"),
    )),
)
