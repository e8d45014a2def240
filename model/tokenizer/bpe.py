"""Byte-pair encoding over bytes, two ways, and Llama 3's tiktoken file.

A piece of text starts as its bytes; the adjacent pair that comes first in the list of merges is joined, then the next,
until no pair is in the list (Sennrich et al., arXiv 1508.07909).

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

import tiktoken

from common.errors import UserError
from model.tokenizer.split import LLAMA3_PATTERN, Splitter

# tiktoken's backtracking pattern runs out of stack on a run of white space somewhere between 100,000 and 1,000,000
# characters, and takes the process's stderr with it. Meta's code cuts a text after 25,000 characters without a change
# between space and non-space, which changes ids at the cut. Here longer texts go through `Splitter`, which gives the
# same ids as the uncut text.
DIRECT_CHARACTERS = 25_000
CACHED_CHARACTERS = 64  # the merge loop remembers pieces up to this length: most of any text is words seen before

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

    ranks: token bytes -> id, with all 256 single bytes. specials_by_rule: specials are published, not in the file.
    """

    adds_space = False
    bos: tuple = ()
    eos: tuple = ()

    def __init__(self, kind: str, ranks: dict[bytes, int], split: Splitter, specials: dict[str, int],
                 specials_by_rule: bool = False):
        self.kind, self.specials, self.specials_by_rule = kind, specials, specials_by_rule
        self.tokens = {id: token for token, id in ranks.items()}
        self._split = split
        whole = lambda pattern: tiktoken.Encoding(  # noqa: E731
            "glass-llama", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
        self._direct = whole(split.whole) if split.whole else None
        self._piece = whole(r"(?s).+")  # its input is always a single piece

    def encode(self, text: str) -> list[int]:
        """Ids of a text: tiktoken's own if it is short enough, else piece by piece."""
        if self._direct is not None and len(text) <= DIRECT_CHARACTERS:
            return self._direct.encode_ordinary(text)
        ids: list[int] = []
        for piece in self._split(text):
            ids += self._piece.encode_ordinary(piece)
        return ids


class MergedBPE:
    """Merges by an explicit list.

    vocab: token bytes -> id. merges: (left id, right id) -> (index in the list, id of the result). whole_pieces: a
    piece that is a token is taken whole (`ignore_merges`). A byte that has no token becomes `unknown`, or is dropped if
    that is None, as in the reference.
    """

    adds_space = False
    bos: tuple = ()
    eos: tuple = ()
    specials_by_rule = False

    def __init__(self, vocab: dict[bytes, int], merges: dict[tuple[int, int], tuple[int, int]], split: Splitter,
                 specials: dict[str, int], whole_pieces: bool = False, unknown: int | None = None):
        self.kind, self.specials, self.tokens = "bpe", specials, {id: token for token, id in vocab.items()}
        self._vocab, self._merges, self._split = vocab, merges, split
        self._whole_pieces, self._unknown = whole_pieces, unknown
        self._remembered = lru_cache(maxsize=1 << 16)(self._encode_piece)

    def encode(self, text: str) -> list[int]:
        """Ids of a text."""
        ids: list[int] = []
        for piece in self._split(text):
            ids += self._remembered(piece) if len(piece) <= CACHED_CHARACTERS else self._encode_piece(piece)
        return ids

    def _encode_piece(self, piece: str) -> list[int]:
        data = piece.encode("utf-8")
        if self._whole_pieces and data in self._vocab:
            return [self._vocab[data]]
        ids = [self._vocab.get(data[i : i + 1], self._unknown) for i in range(len(data))]
        return merge([id for id in ids if id is not None], self._merges)


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


def read_tiktoken(file: Path, data: bytes) -> RankedBPE:
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
            token, rank = base64.b64decode(parts[0], validate=True), int(parts[1])
        except (binascii.Error, ValueError, IndexError) as error:
            raise UserError(f"{file}: row {row}: is not 'base64 rank'; the file is damaged, fetch it again") from error
        if len(parts) != 2 or not token:
            raise UserError(f"{file}: row {row}: has {len(parts)} fields; one token and its rank were expected")
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
    specials = {name: len(ranks) + index for index, name in enumerate(llama3_special_names())}
    return RankedBPE("tiktoken", ranks, Splitter([(LLAMA3_PATTERN, True)]), specials, specials_by_rule=True)
