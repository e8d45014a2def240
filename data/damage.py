"""Values and texts that were damaged before they came here: missing ones in words, spreadsheet errors, mojibake.

**Missing values.** R writes NA, pandas nan, SQL NULL. In csv and tsv such a word without quotes is a missing value;
with quotes, and in jsonl, where missing is null, it is the word itself. "None" is missing in every column but the
text's: a post may say it.

**Spreadsheet errors.** A cell that says #NAME? held a post that began with "=" or "-", which the spreadsheet took for a
formula. The post is lost.

**Mojibake.** UTF-8 that was read as Windows-1252 and saved again: "cafÃ©" for "café". A text counts as mojibake if a
run of its characters, written back as Windows-1252, is UTF-8 of a character beyond ASCII, and not of a letter with an
accent in front of ordinary punctuation alone, as in French: "compliqué »".
"""

import re

MISSING_WORDS = frozenset({"NA", "N/A", "#N/A", "<NA>", "nan", "NaN", "NAN", "NULL", "null", "NaT", "\\N"})
NO_TEXT = "None"  # missing in every column but the text's


class Missing(str):
    """The word that stands for a missing value in a cell."""


NULL = Missing()  # what a null of JSON or parquet is as a cell: empty, yet told apart from an empty string


# Excel's and LibreOffice's error values, in English and as other languages write the commonest.
SPREADSHEET_ERRORS = frozenset({
    "#NAME?", "#REF!", "#VALUE!", "#DIV/0!", "#N/A", "#NULL!", "#NUM!", "#SPILL!", "#CALC!", "#FIELD!", "#BLOCKED!",
    "#GETTING_DATA", "#NOM?", "#VALEUR!", "#WERT!", "#BEZUG!", "#ZAHL!", "#NV", "#¿NOMBRE?", "#¡REF!", "#¡VALOR!",
    "#¡DIV/0!", "#¡NUM!", "#NOME?", "#VALORE!", "#RIF!", "#NAZWA?", "#ARG!", "#ADR!", "#AD?", "#DEĞER!", "#BAŞV!",
    "#NÉV?", "#ÉRTÉK!", "#HIV!", "Err:508", "Err:509", "Err:510", "Err:520", "########",
})  # fmt: skip

# Windows-1252 gives these characters to the bytes 0x80 to 0xff; five bytes are unused and come through as controls.
_HIGH = "".join(bytes([code]).decode("cp1252", "ignore") or chr(code) for code in range(0x80, 0x100))
_BYTE_OF = {character: code for code, character in enumerate(_HIGH, 0x80)}
_CONTINUES = re.escape("".join(c for c in _HIGH if 0x80 <= _BYTE_OF[c] <= 0xBF))
_TWO, _THREE, _FOUR = (re.escape("".join(c for c in _HIGH if low <= _BYTE_OF[c] <= high))
                       for low, high in ((0xC2, 0xDF), (0xE0, 0xEF), (0xF0, 0xF4)))  # fmt: skip
_PUNCTUATION = frozenset("\xa0«»‹›’‘“”‚„…–—°·•¡¿")
_RUN = re.compile(f"[{_TWO}][{_CONTINUES}]|[{_THREE}][{_CONTINUES}]{{2}}|[{_FOUR}][{_CONTINUES}]{{3}}")
_START = re.compile(f"[{_TWO}{_THREE}{_FOUR}][{_CONTINUES}]")  # of a run; most texts in most scripts have none


def is_missing(value: str, is_text: bool = False) -> bool:
    """Whether a cell without quotes says that there is no value; `is_text` for the column of posts."""
    return value in MISSING_WORDS or (value == NO_TEXT and not is_text)


def is_spreadsheet_error(text: str) -> bool:
    """Whether a text is nothing but a spreadsheet's error value."""
    return text.strip() in SPREADSHEET_ERRORS


def is_mojibake(text: str) -> bool:
    """Whether a text holds UTF-8 that was read as Windows-1252: `is_mojibake("cafÃ©")` is true."""
    if text.isascii() or _START.search(text) is None:
        return False
    return any(not _PUNCTUATION.issuperset(found[0][1:]) and _decodes(found[0]) for found in _RUN.finditer(text))


def _decodes(run: str) -> bool:
    try:
        bytes(_BYTE_OF[character] for character in run).decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
