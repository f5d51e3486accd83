"""The judge D by rule: when two short answers are the same.

Answers are compared by a canonical form (`normalise`), so sameness is an equivalence relation. The form is made for the wording
of people and chat models: case, Unicode, quotation marks and Markdown, articles, "it is red" and "red", numbers in words or
digits, thousands, units, currencies, times of day, spellings ("grey", "t shirt"), plurals, the order in "red and blue". It keeps
what makes answers differ: signs, decimal points, units, "A+" and "A-", "not". Where no rule can tell ("puppy", "dog"), a language
model judges if one is named (`models.llm`). The benchmarks' own metrics (`evaluate.metrics`) do not use this module.
"""

import html
import re
import string
import unicodedata
from functools import lru_cache

from auditdm_lib import wording
from auditdm_lib.abstention import abstains
from auditdm_lib.folding import folded, plain, written_out
from auditdm_lib.wording import NUMBER_WORDS, singular

__all__ = ["LETTERS", "NUMBER_WORDS", "abstains", "certainly_different", "normalise", "plain", "same_answer", "singular"]

LETTERS = "ABCDEFGH"  # labels of the options of a multiple-choice item

VERB = "(?:is|are|was|were|do|does|did|can|cannot|could|has|have|had|will|would)"
YES_NO = re.compile(
    r"(?:(?P<yes>yes|yeah|yep|yup)|no|nope|nah)(?:$|\s*[,;!](?!\d)|\.(?!\s*\d)(?=\s|$)|\s*(?:\(|because\b|definitely\b)|"
    r"\s+-\s+(?=(?:it|there|the|an?|this|that|they|i|he|she)\b)|"
    rf"\s+(?:it|there|they|he|she|i|we|you|this|that|these|those)\s+{VERB}\b)")
WHOLE = wording.WHOLE
SCALED = re.compile(r"(?<=\d) ?(?:(?P<thousand>[kK])|(?P<million>M)|(?P<billion>bn)|(?P<giga>G))\b(?! ?[a-z])")  # not "3 m"
SPAN = re.compile(r"(?:(?:from )?([\d.]+) to|between ([\d.]+) and) ([\d.]+)")
PICTURED = re.compile(r"\s+(?:in|on|of) (?:the|this) (?:picture|image|photo|photograph|scene)$")
NAMED = "color|colour|number|time|size|shape|name|word|letter|text|material|weather|season|year|date|brand"
OPENERS = re.compile(
    r"^(?:(?:it|this|that|they|these|those|there|here) (?:is|are|was|were)"
    r"|(?:it|this|that|they|these|those) (?:looks?|appears?|seems?)(?: like| to be)?"
    r"|(?:i|we|you) (?:can )?(?:see|think it is|believe it is)|(?:it|the sign|the text|the label) (?:says|reads)"
    rf"|(?:(?:the|my|final|short) )*answer ?(?:is|:)|(?:the|its|their) (?:{NAMED})(?: of (?:the|this) \w+)? (?:is|are|says|reads)"
    r"|made (?:out )?of|(?:option|choice)(?= [a-h]$)|(?:the )?colou?r(?= \w+$)|either|both) (?=[^\s,.;:!?])")
TRAILERS = re.compile(
    r"(?<=\w)(?<!\bwater)(?<!\bhair)(?<!\beye)(?<!\bfull)(?<!\bno)(?<!\bnot)(?<!\bsame) (?:(?:in )?colou?r(?:ed)?|of them)$"
    r"|(?<=\w) ones$")
SIDE = re.compile(
    r"(?:(?:on|to|at|in|near|towards?) )?(?:the )?(?:very )?"
    r"((?:(?:top|bottom)[ -]?)?(?:left|right)|top|bottom|middle|center)(?:[ -]hand)?(?: (?:side|part|corner))?")
ONE = re.compile(r"(?:an?|the) (.+?) ones?")
COUNTED = "|".join((*NUMBER_WORDS, *wording.TENS))
ABOUT = re.compile(
    r"^(?:(?:only|just|about|approximately|approx\.?|around|roughly|nearly|almost|exactly|circa) |~ ?)"
    rf"(?=\d|(?:{COUNTED}|an? (?:hundred|dozen|thousand))\b)")
ORDER = re.compile(r"^(?:(?:number|no\.|nr\.?|#) ?)(?=\d)|(?<=\s)#(?=\d)")
DOLLARS, FRACTION = re.compile(r"^\s*\$([^$]+)\$\s*$"), re.compile(r"\\d?frac\{(\d+)\}\{(\d+)\}")  # of LaTeX
FEET = re.compile(r"\b(\d+) ?'(?!\d{3}|\w*[a-z])(?: ?(\d+)\b ?\"?)?")
INCHES = re.compile(r"(?<![\"\w])(\d[\d.]*)\"(?=\s|$)")
MINUTES = {"five": 5, "ten": 10, "quarter": 15, "a quarter": 15, "twenty": 20, "twenty five": 25, "twenty-five": 25, "half": 30}
PAST = re.compile(rf"({'|'.join(MINUTES)}|\d\d?)(?: minutes?)? (past|to|after|before) (\w+)")
HOURS = "|".join(NUMBER_WORDS[1:13])
HALF_DAY = re.compile(rf"(?<![\d:])(?<!\w)(\d\d?|{HOURS})(?::(\d\d))? ?([ap])\.? ?m\b\.?")
OCLOCK = re.compile(rf"\b(\d\d?|{HOURS}) oclock\b")
MONTH = "|".join(sorted(wording.MONTHS, key=len, reverse=True))
DATE = re.compile(
    rf"\b(?:(?P<m1>{MONTH})\.? ?(?:the )?(?P<d1>\d\d?)(?:st|nd|rd|th)?(?![\d:])|"
    rf"(?P<d2>\d\d?)(?:st|nd|rd|th)? (?:of )?(?P<m2>{MONTH})\b\.?)"
    r"(?:,? (?=\d{4}\b))?")
SEPARATORS = re.compile(
    r" ?; ?|, ?(?:and |& ?)|, |,(?=[^\d\s])|(?<=[^\d\s]),| (?:and|&) |-and-|&|(?<=[a-z]{3})/(?=[a-z]{3})")
TOKEN = re.compile(
    r"\d\d?:\d\d(?::\d\d)?(?!\d)|\d+(?:\.\d+){2,}|\d[\d,]*\d(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+|"
    rf"[^\s\d{re.escape(string.punctuation)}]+|\S")
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?|\.\d+")
BETWEEN = frozenset("-+/*=:x^<>")  # marks that count between two numbers
SIZES = frozenset("tall long wide high deep away old thick apart per off".split())
CLOSED = frozenset("yes no left right top bottom topleft topright bottomleft bottomright".split())  # no two of them mean the same


@lru_cache(100_000)  # a panel compares the same few answers repeatedly
def normalise(text: str) -> str:
    """The canonical form of a short answer: "The Two." -> "2", "It is grey" -> "gray", "5 p.m." -> "17:00". Idempotent.

    Answers that abstain have one form, "", whatever their wording.
    """
    for _ in range(10):  # two or three passes are enough
        if abstains(text):
            return ""
        if (again := _canonical(text)) == text:
            break
        text = again
    return text


def same_answer(a: str, b: str) -> bool:
    """The judge D by rule: whether two short answers are equal when normalised. An equivalence relation."""
    return normalise(a) == normalise(b)


def certainly_different(a: str, b: str) -> bool:
    """Whether a rule tells that two answers differ: two plain numbers, yes and no, left and right. No model need be asked."""
    a, b = normalise(a), normalise(b)
    positions = a in CLOSED and b in CLOSED and a not in b and b not in a  # "left" may be short for "top left"
    return a != b and (positions or all(re.fullmatch(r"-?\d+", form) for form in (a, b)))


def _canonical(text: str) -> str:
    marks, text = text, SCALED.sub(lambda m: f" {m.lastgroup} ", html.unescape(text))
    text = written_out(folded(FRACTION.sub(r"\1/\2", DOLLARS.sub(r"\1", text))))
    if not any(c.isalnum() for c in text):
        return text.strip("\"' ") or text or "".join(marks.split())
    # a drawing beside words adds nothing
    text = "".join(c for c in text if c.isascii() or c in "°♭♮♠♣♥♦✓✔✗✘⬅➡⬆⬇⚪⚫←→" or unicodedata.category(c) not in ("So", "Sk"))
    text = FEET.sub(lambda m: f"{m[1]} ft" + (f" {m[2]} inch" if m[2] else ""), text)
    text = INCHES.sub(r"\1 inch", text)
    text = " ".join(re.sub(r"\\(?:boxed|text)\{([^{}]*)\}", r"\1", text.strip("\"' ")).split())
    if said := YES_NO.match(text):
        return "yes" if said["yes"] else "no"
    for phrase, word in wording.PHRASES.items():
        text = re.sub(rf"(?<![\w.]){re.escape(phrase)}(?!\w)", word, text) if phrase in text else text
    text = re.sub(r"\b(hundred|thousand|million) and (?=\w)", r"\1 ", _unwrapped(text))
    text = WHOLE.get(text.replace("-", " "), text)
    text = re.sub(r"(?<=\d) out of (?=\d)", "/", re.sub(r"\bus ?(?=\$)", "", text))
    if span := SPAN.fullmatch(text):
        text = f"{span[1] or span[2]}-{span[3]}"
    if " or " in text:
        return "|".join(sorted(filter(None, map(_canonical, re.split(r",? or |, ", text)))))
    parts = [part for part in SEPARATORS.split(_timed(text)) if part.strip(" .!?")]
    forms = [form for part in parts if (form := _joined(part))]
    if not all(re.fullmatch(r"[-\d.,:/]+", form) for form in forms):  # "red and blue" has no order, "3, 4" may have one
        forms = sorted(forms)
    return "&".join(forms)


def _unwrapped(text: str) -> str:
    """Without what people put around an answer: "it is ...", "... in the picture", "the ... one", "about ...", "... side"."""
    for _ in range(10):
        short = re.sub(r"^[\s.]+(?!\d)|^[\s!?,;:\"']+|[\s.!?,;:\"']+$", "", text) if any(map(str.isalnum, text)) else text.strip()
        short = short[1:-1] if short[:1] == "(" and short.find(")") == len(short) - 1 else short
        for pattern in (PICTURED, OPENERS, TRAILERS, ABOUT, ORDER):
            short = pattern.sub("", short)
        for pattern in (ONE, SIDE):
            if found := pattern.fullmatch(short):
                short = found[1]
        if short == text or not short:
            return text
        text = short
    return text


def _timed(text: str) -> str:
    """Times of day and dates: "ten past ten" -> "10:10", "5 p.m." -> "17:00", "5 Jan." -> "january 5"."""
    text = HALF_DAY.sub(_on_24_hours, text)
    text = OCLOCK.sub(lambda m: f"{_hour(m[1])}:00", text)
    if (found := PAST.fullmatch(text)) and (hour := _hour(found[3])):
        minutes = MINUTES.get(found[1]) or int(found[1])
        if not found[3].isdigit() and hour > 12:
            return text
        if found[2] in ("past", "after"):
            text = f"{hour}:{minutes:02d}"
        elif not found[1].isdigit():  # "9 to 5" is a span
            text = f"{(hour - 2) % 12 + 1}:{60 - minutes:02d}"
    return DATE.sub(lambda m: f"{wording.MONTHS[m['m1'] or m['m2']]} {int(m['d1'] or m['d2'])} ", text)


def _hour(word: str) -> int:
    """An hour in words or digits; 0 if it is none."""
    hour = NUMBER_WORDS.index(word) if word in NUMBER_WORDS else int(word) if word.isdecimal() and len(word) < 3 else 0
    return hour if hour <= 24 else 0


def _on_24_hours(found: re.Match) -> str:
    hour, minute = _hour(found[1]), found[2] or "00"
    return f"{hour % 12 + 12 * (found[3] == 'p')}:{minute}" if 0 < hour <= 12 else found[0]


def _joined(text: str) -> str:
    """The words run together, without articles and idle marks; numbers in their shortest form, with sign and unit."""
    text = re.sub(rf"\b(?:minus|negative) (?=\d|(?:{COUNTED})\b)", "-", text.replace("'", ""))
    text = re.sub(rf"\b({'|'.join(NUMBER_WORDS[:10])}) point ({'|'.join(NUMBER_WORDS[:10])})\b",
                  lambda m: f"{NUMBER_WORDS.index(m[1])}.{NUMBER_WORDS.index(m[2])}", text)
    found = list(TOKEN.finditer(text))
    apart = [m.start() == 0 or text[m.start() - 1].isspace() for m in found]
    tokens = [(word, apart[i]) for word, i in wording.digits([m[0] for m in found])]
    tokens = [(word, space) for i, (word, space) in enumerate(tokens) if not _article(tokens, i)]
    out, i, numeral = "", 0, False  # numeral: whether `out` ends in a number
    while i < len(tokens):
        between = numeral and tokens[i][0] in BETWEEN and NUMBER.fullmatch("".join(word for word, _ in tokens[i + 1:i + 2]))
        mark = tokens[i][0] if between else ""
        piece, i, number = _quantity(tokens, i + 1, "") if mark else _piece(tokens, i)
        out += (mark or (" " if numeral and number else "")) + piece
        numeral = number if piece else numeral
    return out


def _article(tokens: list[tuple[str, bool]], i: int) -> bool:
    """Whether token i is an article: "a man", but not "vitamin a" or "a and b"."""
    if tokens[i][0] not in ("a", "an", "the") or i + 1 == len(tokens):
        return False
    following, spaced = tokens[i + 1]
    letter = len(following) == 1 and following.isalpha() and i + 2 == len(tokens)  # "a b"
    words = following[0].isalnum() or following[0] in '"(' and any(token[0].isalnum() for token, _ in tokens[i + 2:])
    return spaced and words and following not in ("or", "and", "vs") and not letter


def _piece(tokens: list[tuple[str, bool]], i: int) -> tuple[str, int, bool]:
    """The canonical piece that begins at token i, the place after it, and whether it is a number."""
    (word, space), following = tokens[i], tokens[i + 1:i + 2]
    close = bool(following) and not following[0][1]  # no space before the next token
    to_number = bool(following) and bool(NUMBER.fullmatch(following[0][0]))
    if NUMBER.fullmatch(word):
        return _quantity(tokens, i, "")
    if word in "+-" and to_number and close and (space or not _after_word(tokens, i)):
        return _quantity(tokens, i + 1, "-" if word == "-" else "")
    if word == "-" and close and following[0][0] in wording.CURRENCIES and (space or not _after_word(tokens, i)):
        piece, end, number = _piece(tokens, i + 1)
        return piece[:1] + "-" + piece[1:], end, number
    ahead = [token for token, _ in tokens[i + 1:i + 3]]
    if word in wording.CURRENCIES and ahead[:1] == ["-"] and NUMBER.fullmatch("".join(ahead[1:])):
        piece, end, _ = _quantity(tokens, i + 2, "-")
        return word + piece, end, True
    if word in wording.CURRENCIES and to_number:
        piece, end, _ = _quantity(tokens, i + 1, "")
        return (piece if piece[0] in wording.CURRENCIES else word + piece), end, True
    if word in ("no", "not") and following and following[0][0][0].isalpha():
        return ("no¬" if word == "no" else "¬"), i + 1, False  # "not able" is not "notable"
    if word[0].isalnum() or not word.isascii():
        if re.fullmatch(r"\d\d?:\d\d(:\d\d)?", word):
            return word[1:] if word[0] == "0" and word[1] != ":" else word, i + 1, True
        known = wording.SPELLINGS.get(word, word)
        known = singular(known)
        return wording.SPELLINGS.get(known, known), i + 1, word[0].isdigit()
    before = tokens[i - 1][0] if i else ""
    if word in "+#-" and before and (not close or word == "#" or following[0][0] in "+#") and (
            re.fullmatch(r"[a-z]{1,2}|[+#]", before) or word in "+#" and not space and before.isalnum()):
        return {"+": "\u207a", "-": "\u207b", "#": "\u266f"}[word], i + 1, False
    if word in "<>=" and to_number or word in "+=<>^*" and before and following:
        return word, i + 1, False
    if word in "/@" and 0 < i and following and not space and close:
        return word, i + 1, False
    return "", i + 1, False


def _after_word(tokens: list[tuple[str, bool]], i: int) -> bool:
    """Whether a word or number stands directly before token i."""
    return i > 0 and (tokens[i - 1][0][-1].isalnum() or tokens[i - 1][0] == ")")


def _quantity(tokens: list[tuple[str, bool]], i: int, sign: str) -> tuple[str, int, bool]:
    """The number at token i with its unit, the place after it, and True."""
    written, end = wording.value(tokens[i][0]), i + 1
    ahead = [word for word, _ in tokens[end:end + 3]]
    if ahead[:1] and ahead[0] in ("st", "nd", "rd", "th") and not tokens[end][1]:
        return f"{sign}{written}{ahead[0]}", end + 1, True
    if ahead[:1] == ["/"] and len(ahead) > 1 and re.fullmatch(r"[0-9]{1,9}", ahead[1]) and re.fullmatch(r"[0-9]{1,9}", written):
        written, end = wording.fraction(written, wording.value(ahead[1])), end + 2
    elif len(ahead) == 3 and ahead[1] == "/" and re.fullmatch(r"[0-9]{1,9} [0-9]{1,9}", f"{written} {ahead[0]}") and (
            part := wording.fraction(ahead[0], ahead[2]) if re.fullmatch(r"[0-9]{1,9}", ahead[2]) else "/").startswith("0."):
        written, end = written + part[1:], end + 3  # "1 1/2"
    elif ahead[:1] == ["dozen"] and re.fullmatch(r"[0-9]{1,9}", written):
        written, end = str(12 * int(written)), end + 1
    elif ahead[:1] and ahead[0] in wording.SCALES:
        written, end = wording.scaled(written, ahead[0]), end + 1
    ahead = [word for word, _ in tokens[end:end + 3]]
    for n in (3, 2, 1):
        unit = wording.UNITS.get(" ".join(ahead[:n])) or wording.UNITS.get("".join(ahead[:n])) if len(ahead) >= n else None
        if unit and (unit[0] in "%\u00b0" or not (tokens[end + n:end + n + 1] and tokens[end + n][0][0].isalpha()
                                                  and tokens[end + n][0] not in SIZES)):
            written = f"{unit}{sign}{written}" if unit in wording.CURRENCIES else f"{sign}{written}{unit}"
            return written, end + n, True
    return sign + written, end, True
