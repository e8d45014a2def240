"""Byte-pair encoding, two ways, and Llama 3's tiktoken file.

A piece of text starts as its bytes (in Llama 2: as its characters); the adjacent pair that stands first in the list of
merges is joined, then the next, until no pair is in the list (Sennrich et al., arXiv 1508.07909).

- `RankedBPE`: any two neighbours whose bytes together are a token may merge, the lowest token id first, and a piece
  that is a token is taken whole. This is tiktoken's rule, and tiktoken does it.
- `MergedBPE`: only the pairs in an explicit list may merge, in the list's order. This is the rule of a tokenizer.json.
  The two differ if a token can be cut in two ways and only one of them is in the list.
"""

import base64
import binascii
import heapq
from functools import lru_cache
from pathlib import Path

import regex
import tiktoken

from common.errors import UserError
from model.tokenizer.pattern import LLAMA3_PATTERN, Pattern
from model.tokenizer.split import SPACE, Splitter

# tiktoken's backtracking pattern runs out of stack on a run of white space somewhere between 100,000 and 1,000,000
# characters, and takes the process's stderr with it. Meta's code cuts a text after 25,000 characters without a change
# between space and non-space, which changes ids at the cut. Here longer texts go through `Splitter`, which gives the
# same ids as the uncut text.
DIRECT_CHARACTERS = 25_000
CACHED_CHARACTERS = 64  # the merge loop remembers pieces up to this length: most of any text is words seen before

LONGEST_TOKEN = 1_000  # bytes or characters; work that takes the square of a token's length stays small
MOST_IDS = 1 << 24  # no vocabulary comes near it; a file that names a larger id is damaged, or made to fill the memory


def byte_alphabet() -> dict[str, int]:
    """GPT-2's printable character for each byte: `{"!": 33, ..., "Ġ": 32, ...}`; 188 bytes stand for themselves."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


ALPHABET = byte_alphabet()
_WRITTEN = {byte: char for char, byte in ALPHABET.items()}


def written(piece: str, byte_level: bool) -> str:
    """A piece of text as a tokenizer.json writes it: `written(" é", True) -> "ĠÃ©"`; as it is where not byte-level."""
    return piece.encode("utf-8").decode("latin-1").translate(_WRITTEN) if byte_level else piece


LLAMA3_NAMED = {0: "<|begin_of_text|>", 1: "<|end_of_text|>", 4: "<|finetune_right_pad_id|>",
                6: "<|start_header_id|>", 7: "<|end_header_id|>", 8: "<|eom_id|>", 9: "<|eot_id|>",
                10: "<|python_tag|>"}
LLAMA3_SPECIALS = 256


def llama3_special_names() -> list[str]:
    """The 256 special tokens of Llama 3.2 as published, in the order of their ids; unnamed ones are reserved."""
    names, reserved = [], 0
    for index in range(LLAMA3_SPECIALS):
        if index in LLAMA3_NAMED:
            names.append(LLAMA3_NAMED[index])
        else:
            names.append(f"<|reserved_special_token_{reserved}|>")
            reserved += 1
    return names


class RankedBPE:
    """Merges by token id over all pairs that form a token; tiktoken is the engine.

    ranks: token bytes -> id, with all 256 single bytes.
    """

    def __init__(self, ranks: dict[bytes, int], split: Splitter):
        self._split = split
        whole = lambda pattern: tiktoken.Encoding(  # noqa: E731
            "glass-llama", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
        self._direct = whole(split.whole) if split.whole else None
        self._piece = whole(r"(?s).+")  # its input is always a single piece

    def encode(self, text: str, first: bool = True) -> list[int]:
        """Ids of a text; in tiktoken from end to end where it is short enough, else piece by piece."""
        if self._direct is not None and len(text) <= DIRECT_CHARACTERS:
            return self._direct.encode_ordinary(text)
        ids: list[int] = []
        for piece in self._split(text, first):
            ids += self._piece.encode_ordinary(piece)
        return ids


class MergedBPE:
    """Merges by an explicit list.

    vocab: token -> id, as the file writes it (bytes in GPT-2's alphabet where `split.byte_level`). merges: (left id,
    right id) -> (index in the list, id of the result). whole_pieces: a piece that is a token is taken whole
    (`ignore_merges`). byte_fallback: a character that has no token becomes its bytes, tokens `<0x00>` to `<0xFF>`.
    What has no token even so becomes `unknown`, or nothing where that is None, as in the reference; of several in a
    row one is left if `fuse`.
    """

    def __init__(self, vocab: dict[str, int], merges: dict[tuple[int, int], tuple[int, int]], split: Splitter, *,
                 whole_pieces: bool = False, byte_fallback: bool = False, unknown: int | None = None,
                 fuse: bool = False):
        self._vocab, self._merges, self._split = vocab, merges, split
        self._whole_pieces, self._unknown, self._fuse = whole_pieces, unknown, fuse
        self._bytes = [vocab.get(f"<0x{byte:02X}>") if byte_fallback else None for byte in range(256)]
        self._words = None if split.byte_level else self._word_pattern()
        self._remembered = lru_cache(maxsize=1 << 16)(self._encode_word)

    def encode(self, text: str, first: bool = True) -> list[int]:
        """Ids of a text; `first`: it stands at the beginning, not behind an added word."""
        ids: list[int] = []
        for piece in self._split(text, first):
            piece = written(piece, self._split.byte_level)
            if self._whole_pieces and piece in self._vocab:
                ids.append(self._vocab[piece])
                continue
            for word in self._words.findall(piece) if self._words else [piece]:
                ids += self._remembered(word) if len(word) <= CACHED_CHARACTERS else self._encode_word(word)
        return ids

    def _word_pattern(self) -> regex.Pattern | None:
        """Words to merge by themselves, so that they can be remembered: if no merge joins a U+2581 to what is before
        it, and no character is dropped, none reaches over a word's beginning, and the ids are those of the piece."""
        token = {id: token for token, id in self._vocab.items()}
        joined = any(SPACE in token[result].lstrip(SPACE) for _, result in self._merges.values())
        dropped = self._unknown is None and None in self._bytes
        return None if joined or dropped or SPACE not in self._vocab else regex.compile(f"{SPACE}*[^{SPACE}]+|{SPACE}+")

    def _encode_word(self, word: str) -> list[int]:
        ids: list[int] = []
        waiting = False  # an unknown token is written when the next known one comes, so that it can grow until then
        for char in word:
            if char in self._vocab:
                ids += [self._unknown] if waiting else []
                ids.append(self._vocab[char])
                waiting = False
                continue
            fallback = [self._bytes[byte] for byte in char.encode("utf-8")]
            if None not in fallback:
                ids += fallback
            elif self._unknown is not None:
                ids += [self._unknown] if waiting and not self._fuse else []
                waiting = True
        return merge(ids + [self._unknown] * waiting, self._merges)


def merge(ids: list[int], merges: dict[tuple[int, int], tuple[int, int]]) -> list[int]:
    """Join neighbours until no pair is in `merges`: earliest in the list first, then leftmost.

    `merge([1, 2, 3], {(2, 3): (0, 4), (1, 2): (1, 5)}) -> [1, 4]`. A heap of candidates over a doubly linked list, so
    that n bytes take n log n steps; a candidate whose neighbours have changed since is skipped when it comes up.
    """
    ids, end = list(ids), len(ids)
    before, after = list(range(-1, end - 1)), list(range(1, end + 1))
    heap: list[tuple[int, int, int]] = []  # (index in the list, position of the left one, result)

    def offer(left: int, right: int) -> None:
        if left >= 0 and right < end and (ids[left], ids[right]) in merges:
            order, result = merges[ids[left], ids[right]]
            heapq.heappush(heap, (order, left, result))

    for position in range(end - 1):
        offer(position, position + 1)
    while heap:
        _, left, result = heapq.heappop(heap)
        right = after[left]
        if ids[left] is None or right == end or merges.get((ids[left], ids[right]), (0, None))[1] != result:
            continue
        ids[left], ids[right] = result, None
        after[left] = after[right]
        if after[left] < end:
            before[after[left]] = left
        offer(before[left], left)
        offer(left, after[left])
    return [id for id in ids if id is not None]


class TiktokenFile:
    """Meta's tiktoken text as an engine: its tokens, and the 256 published special tokens behind the last rank."""

    kind, pre, adds_space, specials_by_rule = "tiktoken", "llama-bpe", False, True
    bos: tuple = ()
    eos: tuple = ()
    unmarked: tuple = ()
    adds_bos, seam = True, " "

    def __init__(self, ranks: dict[bytes, int]):
        self.tokens = {id: token for token, id in ranks.items()}
        self.specials = {name: len(ranks) + index for index, name in enumerate(llama3_special_names())}
        self.encode = RankedBPE(ranks, Splitter([(Pattern("tiktoken", LLAMA3_PATTERN), True)])).encode


def read_tiktoken(file: Path, data: bytes) -> TiktokenFile:
    """Meta's tiktoken text: one `base64 rank` per line, ranks 0, 1, 2, ... each once; raises `UserError` with the row.

    The file names neither its pattern nor its special tokens: both are Llama 3's, and the specials follow the last
    rank.
    """
    ranks: dict[bytes, int] = {}
    rows: dict[int, int] = {}
    for row, line in enumerate(data.splitlines(), 1):
        if not line.strip():
            continue
        parts = line.split()
        try:
            token, digits = base64.b64decode(parts[0], validate=True), parts[1]
            if not digits.isdigit():
                raise ValueError("no rank")
        except (binascii.Error, ValueError, IndexError) as error:
            raise UserError(f"{file}: row {row}: is not 'base64 rank'; the file is damaged, fetch it again") from error
        if len(parts) != 2 or not token:
            raise UserError(f"{file}: row {row}: has {len(parts)} fields; one token and its rank were expected")
        if len(digits) > 8 or int(digits) >= MOST_IDS:
            raise UserError(f"{file}: row {row}: a rank of {len(digits)} digits is beyond any vocabulary; the file is "
                            "damaged, fetch it again")
        if len(token) > LONGEST_TOKEN:
            raise UserError(f"{file}: row {row}: a token of {len(token):,} bytes is longer than any; the file is "
                            "damaged, fetch it again")
        rank = int(digits)
        if rank in rows or token in ranks:
            what = f"rank {rank} was given in row {rows[rank]}" if rank in rows else "its token was given before"
            raise UserError(f"{file}: row {row}: {what}; each rank and each token may occur only once")
        ranks[token], rows[rank] = rank, row
    if set(rows) != set(range(len(rows))):
        missing = next(rank for rank in range(len(rows)) if rank not in rows)
        raise UserError(f"{file}: rank {missing} is missing among {len(rows)} rows; the file is cut or damaged")
    lost = [byte for byte in range(256) if bytes([byte]) not in ranks]
    if lost:
        raise UserError(f"{file}: has no token for byte 0x{lost[0]:02x} ({len(lost)} of 256 are missing); the file is "
                        "cut or damaged")
    return TiktokenFile(ranks)
