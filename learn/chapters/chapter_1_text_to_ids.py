"""Chapter 1: Text to ids

A model computes with numbers. How does a post become numbers, in any language?
"""

# %%
import sys
from pathlib import Path

# The project's folder, wherever this file or notebook was opened.
sys.path.insert(0, str(next(folder for folder in Path(globals().get("__file__", "x")).resolve().parents
                            if (folder / "learn").is_dir())))
from collections import Counter
from itertools import pairwise

import sentencepiece

from common.files import ROOT
from data.readers import read_posts
from learn.picture import BLUE, GREY, ORANGE, panels, show

posts, _ = read_posts([ROOT / "data/samples/train.jsonl"])
print(f"{len(posts)} invented posts; the first:", posts[0].text)

# %% [markdown]
# ## Bytes
#
# A computer already stores text as numbers. In the usual way, UTF-8, each character becomes one to four *bytes*,
# numbers from 0 to 255. English letters take one; most other scripts take two or three; an emoji takes four.

# %%
for text in ("house", "für", "дом", "집", "🏠"):
    print(f"{text}: {len(text)} characters, {len(text.encode())} bytes: {list(text.encode())}")

# %% [markdown]
# A model could read bytes. But then a post would be hundreds of steps long, and a byte alone means nothing. Whole
# words would be short and meaningful, but there is no end of words: new ones, names, typing errors. What is used lies
# in between: *pieces*, frequent words whole, rare ones in parts. A piece in a text is called a *token*, and its number
# in the list of all pieces its *id*.
#
# ## Learning pieces
#
# Which pieces? Let the texts decide. Begin with single characters. Count which two neighbours stand together most
# often; glue them to a new piece; begin again. This is *byte-pair encoding*, BPE. The sign ▁ marks where a word begins.

# %%
words = Counter("▁" + word for post in posts if post.language == "en" for word in post.text.lower().split())
spelled = {word: list(word) for word in words}  # each word as its pieces; at first, characters


def merge(pieces: list[str], pair: tuple[str, str]) -> list[str]:
    """The pieces with every `pair` of neighbours glued together, from left to right."""
    result, i = [], 0
    while i < len(pieces):
        if tuple(pieces[i : i + 2]) == pair:
            result.append(pieces[i] + pieces[i + 1])
            i += 2
        else:
            result.append(pieces[i])
            i += 1
    return result


learned = []
for _ in range(60):
    counts = Counter()
    for word, times in words.items():
        for pair in pairwise(spelled[word]):
            counts[pair] += times
    best = max(counts, key=lambda pair: (counts[pair], pair))
    learned.append("".join(best))
    spelled = {word: merge(pieces, best) for word, pieces in spelled.items()}
print("the first:", " ".join(learned[:12]))
print("the last: ", " ".join(learned[-12:]))

# %% [markdown]
# To cut a new word, apply the same merges in the order in which they were learned. Frequent words come out whole.

# %%
def cut(word: str) -> list[str]:
    """A word as pieces, by our own merges: the earliest learned goes first."""
    pieces = list("▁" + word)
    while True:
        found = [a + b for a, b in pairwise(pieces) if a + b in learned]
        if not found:
            return pieces
        first = min(found, key=learned.index)
        at = next(i for i, (a, b) in enumerate(pairwise(pieces)) if a + b == first)
        pieces = merge(pieces, (pieces[at], pieces[at + 1]))


for word in ("the", "there", "other", "street"):
    print(f"{word}: {' '.join(cut(word))}")

# %% [markdown]
# ## The base's pieces
#
# The small base of this project has pieces that were learned from texts in thirteen languages. Each has a *score*: the
# later it was learned, the lower. So the same rule works with scores: again and again, glue the two neighbours that
# make the piece with the highest score. A character that is no piece falls apart into its bytes, for which there are
# pieces like `<0xF0>`; so nothing is ever unknown.
#
# Before that, a text is *normalised*: capitals become small, accents go, so that more posts share pieces.

# %%
reader = sentencepiece.SentencePieceProcessor(model_file=str(ROOT / "base/tokenizer.model"))
ids = {reader.id_to_piece(i): i for i in range(reader.vocab_size())}
score = {piece: reader.get_score(i) for piece, i in ids.items()}
print(f"{len(ids):,} pieces; “{posts[200].text}” is read as “{reader.normalize(posts[200].text)}”")


def encode(text: str) -> list[int]:
    """The ids of a text, by hand."""
    pieces = list("▁" + reader.normalize(text).strip().replace(" ", "▁").lstrip("▁"))
    while True:
        candidates = [(score[a + b], -i) for i, (a, b) in enumerate(pairwise(pieces)) if a + b in score]
        if not candidates:
            break
        i = -max(candidates)[1]  # the highest score; of equal ones the leftmost
        pieces[i : i + 2] = [pieces[i] + pieces[i + 1]]
    found = []
    for piece in pieces:
        found += [ids[piece]] if piece in ids else [ids[f"<0x{byte:02X}>"] for byte in piece.encode()]
    return found


example = "Welcome, neighbours! 🏠"
print([reader.id_to_piece(i) for i in encode(example)])
print(encode(example))

# %% [markdown]
# ## The project's own
#
# `load_tokenizer` reads this file, and those of other models too. Ours must give the same ids. (Left out: posts with
# `@user` or `http`, which stand for hidden names and links and are cut out first.)

# %%
from model.tokenizer import load_tokenizer

tokenizer = load_tokenizer(ROOT / "base")
plain = [post for post in posts if "@user" not in post.text and "http" not in post.text]
same = [encode(post.text) == tokenizer.encode(post.text) for post in plain]
print(f"the same ids for {sum(same)} of {len(plain)} posts in {len({post.language for post in plain})} languages")
assert all(same)
print("back to text:", tokenizer.decode(encode(example)))

# %% [markdown]
# Some ids are never made from text. They mark where a message begins and who speaks. A post that spells such a mark
# gets ordinary pieces instead, or it could pretend to be the end of the question.

# %%
mark = "<|eot_id|>"
print(f"the mark {mark} has id {tokenizer.special(mark)}; the same letters in a post: {tokenizer.encode(mark)}")
assert tokenizer.special(mark) not in tokenizer.encode(mark)

# %% [markdown]
# ## The picture: not every language pays the same
#
# The file `base/words.tsv` has the same words in thirteen languages. How many tokens does each language need for
# them? More tokens mean more computing, and less room for text. And how many bytes go into one token?
#
# Some languages list more forms of a word than English does, so take the left side as a rough measure. The right side
# does not have this fault, but bytes are not equal either: a letter of Hindi or Korean takes three of them.

# %%
header, *lines = (ROOT / "base/words.tsv").read_text(encoding="utf-8").splitlines()
columns = dict(zip(header.split("\t"), zip(*(line.split("\t") for line in lines), strict=True), strict=True))
tokens = {language: sum(len(tokenizer.encode(cell)) for cell in cells) for language, cells in columns.items()}
size = {language: sum(len(cell.encode()) for cell in cells) for language, cells in columns.items()}
order = sorted(tokens, key=tokens.get)
for language in order:
    print(f"{language}: {tokens[language]:,} tokens, {tokens[language] / tokens['en']:.2f} times English's; "
          f"{size[language] / tokens[language]:.1f} bytes a token")
figure, (left, right) = panels(2)
left.barh(order, [tokens[language] / tokens["en"] for language in order],
          color=[ORANGE if language == "en" else BLUE for language in order])
left.axvline(1, color=GREY, linewidth=0.8)
left.set(title="Tokens for the same words, beside English", xlabel="times as many as English needs")
right.barh(order, [size[language] / tokens[language] for language in order],
           color=[ORANGE if language == "en" else BLUE for language in order])
right.set(title="Bytes in one token", xlabel="bytes")
show(figure, "chapter_1_text_to_ids")

# %% [markdown]
# ## Exercises
#
# Open `learn/exercises/chapter_1.py`. Write `most_frequent_pair`, `merge` and `byte_pieces`, then
# `python -m learn check 1`.
#
# That is a command for a terminal in the clone's folder. In a cell of this notebook it is `%run -m learn check 1`.
#
# To think about: why does the choice of texts for learning the pieces decide who pays more?
