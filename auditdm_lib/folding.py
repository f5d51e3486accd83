"""Texts in one spelling of their characters, for comparing them: width, case, digits, accents, dashes, quotation marks."""

import re
import unicodedata

MARKUP = re.compile(r"</?(?:b|i|u|em|strong|code|p|br|span|mark|small|big|tt|s|answer)\s*/?>|\*\*|__|`", re.IGNORECASE)
CHARACTERS = {"\u2026": " ", "\u2212": "-", "\u3000": " ", "\u2044": "/", "\u3002": ".", "\u3001": ",", "\u2032": "'",
              "\u2033": '"', "\u00b4": "'", "\u2018": "'", "\u2019": "'", "\u201a": "'", "\u201b": "'"}
STROKED = dict(zip("øØłŁđĐ", "oOlLdD", strict=True)) | {
    "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "™": "", "®": "", "©": "", "№": "no. ", "\u20e3": ""}
QUOTES = "\u201e\u201f\u300c\u300d\u300e\u300f"
BY_CATEGORY = {"Pd": "-", "Zs": " ", "Zl": " ", "Zp": " ", "Cc": " ", "Cf": "", "Cs": "\ufffd", "Pi": '"', "Pf": '"'}
CONTRACTED = {"can't": "cannot", "won't": "will not", "shan't": "shall not", "ain't": "is not", "let's": "let us"}
WITHOUT_MARK = re.compile(r"\b(ca|do|does|did|is|was|are|were|has|have|had|could|would|should|wo|ai)nt\b")
SUBJECTS = r"\b(i|you|he|she|it|we|they|that|there|what|who|here|where|this)'"
AUXILIARIES = {"s": "is", "re": "are", "ll": "will", "ve": "have", "m": "am", "d": "would"}


def folded(text: str) -> str:
    """`text` in lower case and one spelling of its characters. Accents are dropped on Latin and Greek letters only."""
    text = unicodedata.normalize("NFD", "".join(map(_folded_character, unicodedata.normalize("NFC", text))).casefold())
    out = []
    for c in text:
        accent = unicodedata.category(c) == "Mn"
        on_letter = bool(out) and (out[-1].isascii() and out[-1].isalpha() or "\u0370" <= out[-1] <= "\u03ff")  # Latin, Greek
        if not (accent and (on_letter or "\ufe00" <= c <= "\ufe0f")):
            out.append(c)
    return unicodedata.normalize("NFC", "".join(out))


def _folded_character(c: str) -> str:
    if c.isascii():
        return c if " " <= c < "\x7f" else " "
    if c in CHARACTERS:
        return CHARACTERS[c]
    if c in STROKED:
        return STROKED[c]
    category = unicodedata.category(c)
    if category == "Nd":  # the digits of any script, not the circled or raised ones
        return str(unicodedata.decimal(c))
    if "\uff01" <= c <= "\uff5e":
        return chr(ord(c) - 0xFEE0)
    if category == "No" and "\u2044" in (written := unicodedata.normalize("NFKC", c)):  # a fraction as one character
        return f" {written.replace(chr(0x2044), '/')}"
    if category == "So" or "\uff61" <= c <= "\uffdc" or "\U0001d400" <= c <= "\U0001d7ff":
        if (written := unicodedata.normalize("NFKC", c)) != c:
            return written
    return '"' if c in QUOTES else BY_CATEGORY.get(category, c)


def written_out(text: str) -> str:
    """A folded text without markup and contractions: "it isn't" -> "it is not", "dont" -> "do not"."""
    text = MARKUP.sub("", text)
    for short, words in CONTRACTED.items():
        text = re.sub(rf"\b{short}\b", words, text)
    text = re.sub(r"\b(\w+)n't\b", r"\1 not", text)
    text = WITHOUT_MARK.sub(lambda m: {"ca": "cannot", "wo": "will not", "ai": "is not"}.get(m[1], f"{m[1]} not"), text)
    text = re.sub(rf"{SUBJECTS}({'|'.join(AUXILIARIES)})\b", lambda m: f"{m[1]} {AUXILIARIES[m[2]]}", text)
    return " ".join(re.sub(r"\bcan not\b", "cannot", text).split())


def plain(text: str) -> str:
    """`text` in lower case without punctuation, contractions written out ("It isn't red." -> "it is not red")."""
    return " ".join(re.sub(r"[^\w\s'/]|(?<!\w)['/]|['/](?!\w)", " ", written_out(folded(text))).split())
