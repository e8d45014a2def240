"""What can be seen of a text: one definition of "empty", for posts, labels and column names alike; and where it may be
cut.

A character is invisible if Unicode gives it the property White_Space or Default_Ignorable_Code_Point (joiners, bidi
controls, variation selectors, soft hyphen, Hangul fillers, tags ...), the category Z (separators), Cc, Cs or Cf
(controls, half pairs, format characters; not the few of these that Prepended_Concatenation_Mark makes visible), or if
it is the Braille pattern without a dot. A text is empty if it has no other characters. Private and unassigned code
points count as visible: a font may show them. Properties are those of the `regex` module's Unicode (UAX 44).
"""

import unicodedata

import regex

_INVISIBLE = (r"[\p{White_Space}\p{Default_Ignorable_Code_Point}\p{Z}\p{Cc}\p{Cs}\p{Cf}\u2800"
              r"--\p{Prepended_Concatenation_Mark}]")  # fmt: skip
_VISIBLE = regex.compile(f"[^{_INVISIBLE}]", regex.V1)
_ENDS = regex.compile(f"^{_INVISIBLE}+|{_INVISIBLE}+$", regex.V1)


def composed(label: str) -> str:
    """A label as Unicode's NFC spells it: "ç" may be one character or two, as files from a Mac have it, and looks the
    same."""
    return unicodedata.normalize("NFC", label)


def is_empty(text: str) -> bool:
    """Whether nothing of a text can be seen: `is_empty("\\u2066\\u2069")` is true."""
    return _VISIBLE.search(text) is None


def strip_invisible(text: str) -> str:
    """`text` without invisible characters at its ends: `strip_invisible("pro\\u200b ") -> "pro"`."""
    return _ENDS.sub("", text)


def is_boundary(text: str, count: int) -> bool:
    """Whether `text` may be cut before its character `count`: not inside a letter with marks, an emoji or CR LF."""
    if count == len(text):
        return True
    following, last = text[count], text[count - 1]
    mark = unicodedata.category(following).startswith("M") or "\U0001f3fb" <= following <= "\U0001f3ff"  # skin tones
    halves = "\u200d" in (last, following) or unicodedata.combining(last) == 9  # joiner; virama, as in Hindi's "pra"
    return not (mark or halves or (last == "\r" and following == "\n"))
