"""Texts in one spelling of their characters, for comparing them: width, case, digits, accents, dashes, quotation marks."""

import re
import unicodedata

MARKUP = re.compile(r"</?(?:b|i|u|em|strong|code|p|br|span|mark|small|big|tt|s|answer)\s*/?>|\*\*|__|`", re.IGNORECASE)
CHARACTERS = {"\u2026": " ", "\u2212": "-", "\u3000": " ", "\u2044": "/", "\u3002": ".", "\u3001": ",", "\u2032": "'",
              "\u2033": '"', "\u00b4": "'", "\u2018": "'", "\u2019": "'", "\u201a": "'", "\u201b": "'"}
QUOTES = "\u201e\u201f\u300c\u300d\u300e\u300f"
BY_CATEGORY = {"Pd": "-", "Zs": " ", "Zl": " ", "Zp": " ", "Cc": " ", "Cf": "", "Cs": "\ufffd", "Pi": '"', "Pf": '"'}
CONTRACTED = {"can't": "cannot", "won't": "will not", "shan't": "shall not", "ain't": "is not", "let's": "let us"}
WITHOUT_MARK = re.compile(r"\b(ca|do|does|did|is|was|are|were|has|have|had|could|would|should|wo|ai)nt\b")
SUBJECTS = r"\b(i|you|he|she|it|we|they|that|there|what|who|here|where|this)'"
AUXILIARIES = {"s": "is", "re": "are", "ll": "will", "ve": "have", "m": "am", "d": "would"}


def folded(text: str) -> str:
    """`text` in lower case and one spelling of its characters. Accents are dropped on Latin letters only."""
    text = unicodedata.normalize("NFD", "".join(map(_folded_character, text)).casefold())
    out = []
    for c in text:
        accent = unicodedata.category(c) == "Mn"
        if not (accent and (out and out[-1].isascii() or "\ufe00" <= c <= "\ufe0f")):
            out.append(c)
    return unicodedata.normalize("NFC", "".join(out))


def _folded_character(c: str) -> str:
    if c.isascii():
        return c if c >= " " else " "
    if c in CHARACTERS:
        return CHARACTERS[c]
    category = unicodedata.category(c)
    if category == "Nd":  # the digits of any script, not the circled or raised ones
        return str(unicodedata.decimal(c))
    if "\uff01" <= c <= "\uff5e":
        return chr(ord(c) - 0xFEE0)
    if category == "No" and "\u2044" in (written := unicodedata.normalize("NFKC", c)):  # a fraction as one character
        return f" {written.replace(chr(0x2044), '/')}"
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
