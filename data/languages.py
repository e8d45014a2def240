"""Language tags as found in files, reduced to ISO 639-1, so that `pt-BR`, `por`, `Portuguese` and `pt` are one cell.

    tag -> lower case, first subtag -> old code mapped -> three letters to two -> a language's name to its code

Sources: the two-letter codes, the three-letter ones (terminological, then bibliographic if it differs) and the English
names are those of ISO 639; the withdrawn codes and their replacements are those of the IANA language subtag registry,
and `sh` becomes `sr` as in CLDR. X (Twitter) writes `in` for Indonesian and `iw` for Hebrew, and has codes of its own
for posts in no language (`qme`, `qht`, ...): those become `und`, ISO 639-2's code for "undetermined".

English names are accepted too, since they occur in hand-made spreadsheets and none of them is also a code; some
languages' own names for themselves; and the names of frequent ones in German, French, Spanish, Italian, Portuguese,
Polish, Hungarian and Turkish, all as CLDR has them. Nothing here is fatal: a tag that is not an ISO 639-1 language is
kept as written, in lower case, and counted, so that a report can show it.
"""

import re
import unicodedata
from functools import lru_cache

from common.errors import UserError, closest

UNDETERMINED = "und"

# Two letters, three letters (both codes if ISO 639-2 has two), English name.
TABLE = """
aa aar Afar; ab abk Abkhazian; ae ave Avestan; af afr Afrikaans; ak aka Akan; am amh Amharic; an arg Aragonese;
ar ara Arabic; as asm Assamese; av ava Avaric; ay aym Aymara; az aze Azerbaijani; ba bak Bashkir; be bel Belarusian;
bg bul Bulgarian; bi bis Bislama; bm bam Bambara; bn ben Bengali; bo bod tib Tibetan; br bre Breton; bs bos Bosnian;
ca cat Catalan; ce che Chechen; ch cha Chamorro; co cos Corsican; cr cre Cree; cs ces cze Czech; cu chu Church Slavic;
cv chv Chuvash; cy cym wel Welsh; da dan Danish; de deu ger German; dv div Divehi; dz dzo Dzongkha; ee ewe Ewe;
el ell gre Greek; en eng English; eo epo Esperanto; es spa Spanish; et est Estonian; eu eus baq Basque;
fa fas per Persian; ff ful Fulah; fi fin Finnish; fj fij Fijian; fo fao Faroese; fr fra fre French;
fy fry Western Frisian; ga gle Irish; gd gla Scottish Gaelic; gl glg Galician; gn grn Guarani; gu guj Gujarati;
gv glv Manx; ha hau Hausa; he heb Hebrew; hi hin Hindi; ho hmo Hiri Motu; hr hrv Croatian; ht hat Haitian Creole;
hu hun Hungarian; hy hye arm Armenian; hz her Herero; ia ina Interlingua; id ind Indonesian; ie ile Interlingue;
ig ibo Igbo; ii iii Sichuan Yi; ik ipk Inupiaq; io ido Ido; is isl ice Icelandic; it ita Italian; iu iku Inuktitut;
ja jpn Japanese; jv jav Javanese; ka kat geo Georgian; kg kon Kongo; ki kik Kikuyu; kj kua Kuanyama; kk kaz Kazakh;
kl kal Kalaallisut; km khm Khmer; kn kan Kannada; ko kor Korean; kr kau Kanuri; ks kas Kashmiri; ku kur Kurdish;
kv kom Komi; kw cor Cornish; ky kir Kyrgyz; la lat Latin; lb ltz Luxembourgish; lg lug Ganda; li lim Limburgish;
ln lin Lingala; lo lao Lao; lt lit Lithuanian; lu lub Luba-Katanga; lv lav Latvian; mg mlg Malagasy;
mh mah Marshallese; mi mri mao Maori; mk mkd mac Macedonian; ml mal Malayalam; mn mon Mongolian; mr mar Marathi;
ms msa may Malay; mt mlt Maltese; my mya bur Burmese; na nau Nauru; nb nob Norwegian Bokmål; nd nde North Ndebele;
ne nep Nepali; ng ndo Ndonga; nl nld dut Dutch; nn nno Norwegian Nynorsk; no nor Norwegian; nr nbl South Ndebele;
nv nav Navajo; ny nya Chichewa; oc oci Occitan; oj oji Ojibwa; om orm Oromo; or ori Odia; os oss Ossetian;
pa pan Punjabi; pi pli Pali; pl pol Polish; ps pus Pashto; pt por Portuguese; qu que Quechua; rm roh Romansh;
rn run Kirundi; ro ron rum Romanian; ru rus Russian; rw kin Kinyarwanda; sa san Sanskrit; sc srd Sardinian;
sd snd Sindhi; se sme Northern Sami; sg sag Sango; si sin Sinhala; sk slk slo Slovak; sl slv Slovenian; sm smo Samoan;
sn sna Shona; so som Somali; sq sqi alb Albanian; sr srp Serbian; ss ssw Swati; st sot Southern Sotho;
su sun Sundanese; sv swe Swedish; sw swa Swahili; ta tam Tamil; te tel Telugu; tg tgk Tajik; th tha Thai;
ti tir Tigrinya; tk tuk Turkmen; tl tgl Tagalog; tn tsn Tswana; to ton Tonga; tr tur Turkish; ts tso Tsonga;
tt tat Tatar; tw twi Twi; ty tah Tahitian; ug uig Uyghur; uk ukr Ukrainian; ur urd Urdu; uz uzb Uzbek; ve ven Venda;
vi vie Vietnamese; vo vol Volapük; wa wln Walloon; wo wol Wolof; xh xho Xhosa; yi yid Yiddish; yo yor Yoruba;
za zha Zhuang; zh zho chi Chinese; zu zul Zulu
"""

OLD_CODES = {"in": "id", "iw": "he", "ji": "yi", "jw": "jv", "mo": "ro", "sh": "sr"}
OTHER_CODES = {"cmn": "zh", "arb": "ar", "pes": "fa", "zsm": "ms", "fil": "tl", "npi": "ne", "ory": "or", "swh": "sw",
               "scc": "sr", "scr": "hr", "mol": "ro", "hbs": "sr"}  # fmt: skip
OWN_NAMES = {
    "deutsch": "de", "español": "es", "espanol": "es", "castellano": "es", "français": "fr", "francais": "fr",
    "italiano": "it", "português": "pt", "portugues": "pt", "polski": "pl", "magyar": "hu", "türkçe": "tr",
    "turkce": "tr", "nederlands": "nl", "svenska": "sv", "dansk": "da", "norsk": "no", "suomi": "fi", "čeština": "cs",
    "slovenčina": "sk", "slovenščina": "sl", "hrvatski": "hr", "srpski": "sr", "română": "ro", "català": "ca",
    "ελληνικά": "el", "русский": "ru", "українська": "uk", "български": "bg", "العربية": "ar", "עברית": "he",
    "فارسی": "fa", "हिन्दी": "hi", "bahasa indonesia": "id", "tiếng việt": "vi", "中文": "zh", "日本語": "ja",
    "한국어": "ko"}  # fmt: skip
# What spreadsheets in other languages call the frequent ones.
OTHER_NAMES = """
ar: arabisch, arabe, árabe, arabo, arabski, arab, arapça; de: allemand, alemán, alemão, tedesco, niemiecki, német,
almanca; el: griechisch, grec, griego, grego, greco, grecki, görög, yunanca; en: englisch, anglais, inglés, inglês,
inglese, angielski, angol, ingilizce; es: spanisch, espagnol, espanhol, spagnolo, hiszpański, spanyol, ispanyolca;
fr: französisch, francés, francês, francese, francuski, francia, fransızca; hu: ungarisch, hongrois, húngaro, ungherese,
węgierski, macarca; id: indonesisch, indonésien, indonesio, indonésio, indonesiano, indonezyjski, indonéz, endonezce;
it: italienisch, italien, włoski, olasz, italyanca; ko: koreanisch, coréen, coreano, koreański, koreai, korece;
nl: niederländisch, néerlandais, neerlandés, holandês, neerlandês, olandese, niderlandzki, holland, felemenkçe;
pl: polnisch, polonais, polaco, polonês, polacco, lengyel, lehçe; pt: portugiesisch, portugais, portugués, portoghese,
portugalski, portugál, portekizce; ro: rumänisch, roumain, rumano, romeno, rumeno, rumuński, román, rumence;
ru: russisch, russe, ruso, russo, rosyjski, orosz, rusça; tr: türkisch, turc, turco, turecki, török;
uk: ukrainisch, ukrainien, ucraniano, ucraino, ukraiński, ukrán, ukraynaca; zh: chinesisch, chinois, chino, chinês,
cinese, chiński, kínai, çince
"""
NO_LANGUAGE = {"zxx", "mul", "mis", "art", "qam", "qct", "qht", "qme", "qst", "unknown"}
ABSENT = {"", "und", "nan", "none", "null"}

_ENTRIES = [entry.split() for entry in TABLE.split(";")]
_CODES = {words[0]: [word for word in words[1:] if re.fullmatch("[a-z]{3}", word)] for words in _ENTRIES}
NAMES = {words[0]: " ".join(words[1 + len(_CODES[words[0]]) :]) for words in _ENTRIES}
_TWO_LETTERS = {three: two for two, threes in _CODES.items() for three in threes} | OTHER_CODES
_BY_NAME = {name.casefold(): code for code, name in NAMES.items()} | OWN_NAMES | {
    name.strip(): code for entry in OTHER_NAMES.split(";")
    for code, names in [entry.strip().split(": ")] for name in names.split(",")}


@lru_cache(maxsize=4096)
def reduce_language(tag: str) -> tuple[str, str]:
    """A tag's code and what was done: "same", "changed", "missing" (code `und`) or "unknown" (kept as written).

    `reduce_language("pt-BR") -> ("pt", "changed")`, `("IN") -> ("id", "changed")`, `("") -> ("und", "missing")`.
    """
    written = tag.strip()
    lower = unicodedata.normalize("NFC", written).casefold().replace("i\u0307", "i")  # the Turkish İ has its own dot
    if lower in ABSENT:
        return UNDETERMINED, "missing"
    first = re.split(r"[-_]", lower, maxsplit=1)[0]
    code = OLD_CODES.get(first) or _TWO_LETTERS.get(first, first)
    if lower in NO_LANGUAGE:
        code = UNDETERMINED
    elif code not in NAMES:
        code = _BY_NAME.get(lower, lower)
    if code not in NAMES and code != UNDETERMINED:
        return code, "unknown"
    return code, "same" if code == written else "changed"


def language_name(code: str) -> str:
    """A code's English name, `language_name("tr") -> "Turkish"`, or the code itself if it has none."""
    return "undetermined" if code == UNDETERMINED else NAMES.get(code, code)


def one_language(tag: str, option: str) -> str:
    """The code of a language given on the command line. Raises `UserError`, naming `option`, if it is not one."""
    code, what = reduce_language(tag)
    if what == "unknown":
        names = [*NAMES, *NAMES.values()]
        hint = closest(tag, names)
        raise UserError(f"{option}: '{tag}' is not a language; use an ISO 639-1 code such as en or tr{hint}")
    return code
