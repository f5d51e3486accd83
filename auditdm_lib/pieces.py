"""The words of a short answer run together, without articles and idle marks: "hot dog" and "hotdog", "5 kg" and "5kg".

Running words together makes spacing and hyphens irrelevant; what must stay apart gets a mark: numbers a space, "not" a "¬". Each
piece is written so that it is read as itself again, which keeps `answers.normalise` idempotent.
"""

import re
import string
from typing import NamedTuple

from auditdm_lib import wording
from auditdm_lib.wording import NUMBER_WORDS, singular

TOKEN = re.compile(
    r"\d\d?:\d\d(?::\d\d)?(?!\d)|\d+(?:\.\d+){2,}|\d[\d,]*\d(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+|"
    rf"[^\s\d{re.escape(string.punctuation)}]+|\S")
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?|\.\d+")
SMALL = re.compile(r"[0-9]{1,9}")
TIME = re.compile(r"\d\d?:\d\d(?::\d\d)?")
BETWEEN = frozenset("-+/*=:x^<>")  # marks that count between two numbers
RAISED = {"+": "\u207a", "-": "\u207b", "#": "\u266f"}  # "A+", "O-", "C#"
SIZES = frozenset("tall long wide high deep away old thick apart per off".split())  # words that a unit may stand before
DIGIT_WORDS = "|".join(NUMBER_WORDS[:10])


class Token(NamedTuple):
    """A word, number or mark, and whether a space (or the beginning) stands before it."""

    word: str
    space: bool


class Piece(NamedTuple):
    """A canonical piece, the place of the token after it, and whether it is a number."""

    text: str
    end: int
    number: bool = False


def joined(text: str) -> str:
    """The canonical form of a part of an answer, in lower case; "" if nothing of it counts."""
    text = re.sub(rf"\b(?:minus|negative) (?=\d|(?:{wording.COUNTED})\b)", "-", text.replace("'", ""))
    text = re.sub(rf"\b({DIGIT_WORDS}) point ({DIGIT_WORDS})\b",
                  lambda m: f"{NUMBER_WORDS.index(m[1])}.{NUMBER_WORDS.index(m[2])}", text)
    tokens, out, i, numeral = _tokens(text), "", 0, False  # numeral: whether `out` ends in a number
    while i < len(tokens):
        mark = tokens[i].word if numeral and tokens[i].word in BETWEEN and _is_number(tokens, i + 1) else ""
        piece = _quantity(tokens, i + 1) if mark else _piece(tokens, i)
        out += (mark or (" " if numeral and piece.number else "")) + piece.text
        numeral, i = piece.number if piece.text else numeral, piece.end
    return out


def _tokens(text: str) -> list[Token]:
    """Words, numbers (number words in digits) and marks, without articles."""
    found = list(TOKEN.finditer(text))
    apart = [m.start() == 0 or text[m.start() - 1].isspace() for m in found]
    tokens = [Token(word, apart[i]) for word, i in wording.digits([m[0] for m in found])]
    return [token for i, token in enumerate(tokens) if not _article(tokens, i)]


def _word(tokens: list[Token], i: int) -> str:
    """The word at place i, "" beyond the end."""
    return tokens[i].word if i < len(tokens) else ""


def _is_number(tokens: list[Token], i: int) -> bool:
    return bool(NUMBER.fullmatch(_word(tokens, i)))


def _article(tokens: list[Token], i: int) -> bool:
    """Whether token i is an article: "a man", but not "vitamin a", "a and b" or "a b"."""
    if tokens[i].word not in ("a", "an", "the") or i + 1 == len(tokens):
        return False
    following, spaced = tokens[i + 1]
    letter = len(following) == 1 and following.isalpha() and i + 2 == len(tokens)
    words = following[0].isalnum() or following[0] in '"(' and any(token.word[0].isalnum() for token in tokens[i + 2:])
    return spaced and words and following not in ("or", "and", "vs") and not letter


def _piece(tokens: list[Token], i: int) -> Piece:
    """The piece that begins at token i."""
    word, following = tokens[i].word, _word(tokens, i + 1)
    if NUMBER.fullmatch(word):
        return _quantity(tokens, i)
    if (word in "+-" or word in wording.CURRENCIES) and (signed := _signed(tokens, i)):
        return signed
    if word in ("no", "not") and following[:1].isalpha():
        return Piece("no¬" if word == "no" else "¬", i + 1)  # "not able" is not "notable"
    if TIME.fullmatch(word):
        return Piece(word[1:] if word[0] == "0" and word[1] != ":" else word, i + 1, True)
    if word[0].isalnum() or not word.isascii():
        known = singular(wording.SPELLINGS.get(word, word))
        return Piece(wording.SPELLINGS.get(known, known), i + 1, word[0].isdigit())
    return _mark(tokens, i)


def _signed(tokens: list[Token], i: int) -> Piece | None:
    """A number with the sign or currency at token i, or with both; None if it has none."""
    word, after = tokens[i].word, i > 0 and (tokens[i - 1].word[-1].isalnum() or tokens[i - 1].word == ")")
    close = i + 1 < len(tokens) and not tokens[i + 1].space
    own = close and (tokens[i].space or not after)  # no word or number stands directly before the sign
    if word in "+-" and own and _is_number(tokens, i + 1):
        return _quantity(tokens, i + 1, "-" if word == "-" else "")
    if word == "-" and own and tokens[i + 1].word in wording.CURRENCIES:
        piece = _piece(tokens, i + 1)
        return piece._replace(text=piece.text[:1] + "-" + piece.text[1:])
    if word in wording.CURRENCIES and _word(tokens, i + 1) == "-" and _is_number(tokens, i + 2):
        piece = _quantity(tokens, i + 2, "-")
        return piece._replace(text=word + piece.text)
    if word in wording.CURRENCIES and _is_number(tokens, i + 1):
        piece = _quantity(tokens, i + 1)
        return piece if piece.text[0] in wording.CURRENCIES else piece._replace(text=word + piece.text)
    return None


def _mark(tokens: list[Token], i: int) -> Piece:
    """A mark that counts beside words ("A+", "x > 5", "AC/DC"), or an empty piece for any other."""
    word, space = tokens[i]
    before, following = _word(tokens, i - 1) if i else "", _word(tokens, i + 1)
    close = bool(following) and not tokens[i + 1].space
    grade = re.fullmatch(r"[a-z]{1,2}|[+#]", before) or word in "+#" and not space and before.isalnum()
    if word in RAISED and before and grade and (not close or word == "#" or following[0] in "+#"):
        return Piece(RAISED[word], i + 1)
    compares = word in "<>=" and _is_number(tokens, i + 1) or word in "+=<>^*" and before and following
    parts = word in "/@" and before and close and not space
    return Piece(word if compares or parts else "", i + 1)


def _quantity(tokens: list[Token], i: int, sign: str = "") -> Piece:
    """The number at token i with what makes it larger ("1 1/2", "5 million") and its unit."""
    written, end = wording.value(tokens[i].word), i + 1
    if _word(tokens, end) in ("st", "nd", "rd", "th") and not tokens[end].space:
        return Piece(f"{sign}{written}{tokens[end].word}", end + 1, True)
    written, end = _enlarged(tokens, written, end)
    for n in (3, 2, 1):
        words = [token.word for token in tokens[end:end + n]]
        unit = (wording.UNITS.get(" ".join(words)) or wording.UNITS.get("".join(words))) if len(words) == n else None
        following = _word(tokens, end + n)
        if unit and (unit[0] in "%°" or not following[:1].isalpha() or following in SIZES):
            return Piece(f"{unit}{sign}{written}" if unit in wording.CURRENCIES else f"{sign}{written}{unit}", end + n, True)
    return Piece(sign + written, end, True)


def _enlarged(tokens: list[Token], written: str, end: int) -> tuple[str, int]:
    """A number with the fraction, dozen or scale word that follows at place `end`, and the place after it."""
    ahead = [token.word for token in tokens[end:end + 3]]
    if ahead[:1] == ["/"] and len(ahead) > 1 and SMALL.fullmatch(written) and SMALL.fullmatch(ahead[1]):
        return wording.fraction(written, wording.value(ahead[1])), end + 2
    if len(ahead) == 3 and ahead[1] == "/" and all(map(SMALL.fullmatch, (written, ahead[0], ahead[2]))):
        part = wording.fraction(ahead[0], ahead[2])
        return (written + part[1:], end + 3) if part.startswith("0.") else (written, end)
    if ahead[:1] == ["dozen"] and SMALL.fullmatch(written):
        return str(12 * int(written)), end + 1
    if ahead[:1] and ahead[0] in wording.SCALES:
        return wording.scaled(written, ahead[0]), end + 1
    return written, end
