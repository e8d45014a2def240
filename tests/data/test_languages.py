"""Language tags come out as ISO 639-1 whichever way a file writes them, and every change is reported.

Deliberate break that turns this red: drop `"in": "id"` from OLD_CODES in data/languages.py; Indonesian splits in two.
"""

import re
import unicodedata

import pytest

from common.errors import UserError
from data.languages import NAMES, OLD_CODES, OTHER_NAMES, OWN_NAMES, language_name, one_language, reduce_language

PAPER = {
    "ar": "Arabic",
    "de": "German",
    "en": "English",
    "es": "Spanish",
    "fr": "French",
    "hi": "Hindi",
    "hu": "Hungarian",
    "id": "Indonesian",
    "it": "Italian",
    "ko": "Korean",
    "pl": "Polish",
    "pt": "Portuguese",
    "tr": "Turkish",
}
THREE = {
    "ar": "ara",
    "de": "deu",
    "en": "eng",
    "es": "spa",
    "fr": "fra",
    "hi": "hin",
    "hu": "hun",
    "id": "ind",
    "it": "ita",
    "ko": "kor",
    "pl": "pol",
    "pt": "por",
    "tr": "tur",
}


@pytest.mark.parametrize("code", PAPER)
def test_the_papers_languages_in_every_dialect(code):
    assert language_name(code) == PAPER[code]
    assert reduce_language(code) == (code, "same")
    for tag in (code.upper(), f" {code}-XX", f"{code}_XX.UTF-8", f"{code}-Latn-XX", THREE[code],
                f"{THREE[code]}_Latn", PAPER[code], PAPER[code].upper()):  # fmt: skip
        assert reduce_language(tag) == (code, "changed"), tag


@pytest.mark.parametrize(("tag", "code", "what"), [
    ("in", "id", "changed"), ("iw", "he", "changed"), ("ji", "yi", "changed"), ("mo", "ro", "changed"),
    ("IN", "id", "changed"), ("in-ID", "id", "changed"), ("ger", "de", "changed"), ("cmn-Hans", "zh", "changed"),
    ("zh-Hant-TW", "zh", "changed"), ("fil", "tl", "changed"), ("qme", "und", "changed"), ("zxx", "und", "changed"),
    ("", "und", "missing"), ("  ", "und", "missing"), ("und", "und", "missing"), ("NaN", "und", "missing"),
    ("xx", "xx", "unknown"), ("Klingon", "klingon", "unknown"), ("ckb", "ckb", "unknown"),
    ("en es", "en es", "unknown"),
])  # fmt: skip
def test_tags(tag, code, what):
    assert reduce_language(tag) == (code, what)
    again, _ = reduce_language(code)
    assert again == code


def test_the_table_is_whole_and_clear():
    assert len(NAMES) == 183
    assert all(re.fullmatch("[a-z]{2}", code) and name[0].isupper() for code, name in NAMES.items())
    assert not set(OLD_CODES) & set(NAMES) and set(OLD_CODES.values()) <= set(NAMES)
    for code, name in NAMES.items():  # no English name is another language's code
        assert reduce_language(name)[0] == code


def test_names_for_display():
    assert [language_name(code) for code in ("nb", "und", "tlh")] == ["Norwegian Bokmål", "undetermined", "tlh"]


def test_a_language_named_on_the_command_line():
    for tag, line in [
        ("Klingn", "--languages: 'Klingn' is not a language; use an ISO 639-1 code such as en or tr"),
        ("turkisch", "--languages: 'turkisch' is not a language; use an ISO 639-1 code such as en or tr; did you mean "
         "'Turkish'?"),
    ]:  # fmt: skip
        with pytest.raises(UserError) as caught:
            one_language(tag, "--languages")
        assert str(caught.value) == line
    assert [one_language(tag, "--x") for tag in ("pt-BR", "Turkish", "in")] == ["pt", "tr", "id"]


def test_languages_by_their_own_names():
    assert reduce_language("Deutsch") == ("de", "changed") and reduce_language(" Português ")[0] == "pt"
    assert reduce_language("Espan\u0303ol")[0] == "es"  # an n and a tilde of its own
    assert set(OWN_NAMES.values()) <= set(NAMES) and set(PAPER) - {"en"} <= set(OWN_NAMES.values())
    assert not set(OWN_NAMES) & {*NAMES, *map(str.casefold, NAMES.values())}
    assert all(name == name.casefold() for name in OWN_NAMES)


def test_languages_by_their_names_in_other_languages():
    entries = [entry.strip().split(": ") for entry in OTHER_NAMES.split(";")]
    names = [name.strip() for _, row in entries for name in row.split(",")]
    assert len(names) == len(set(names)) and not set(names) & {*NAMES, *map(str.casefold, NAMES.values()), *OWN_NAMES}
    assert all(name == unicodedata.normalize("NFC", name).casefold() for name in names)
    assert {code for code, _ in entries} <= set(NAMES) and set(PAPER) - {"hi"} <= {code for code, _ in entries}
    for tag, code in (("Englisch", "en"), ("INGLÊS", "en"), ("anglais", "en"), ("turco", "tr"), ("Węgierski", "hu"),
                      ("İngilizce", "en"), ("İspanyolca", "es"), ("Italyanca", "it")):
        assert reduce_language(tag) == (code, "changed")
    assert reduce_language(unicodedata.normalize("NFD", "französisch")) == ("fr", "changed")
