"""The judge D by rule: when two short answers are the same.

Answers are compared by a canonical form (`normalise`), so sameness is an equivalence relation. The form is made for the wording
of people and chat models: case, Unicode, quotation marks and Markdown, articles, "it is red" and "red", numbers in words or
digits, thousands, units, currencies, times of day, spellings ("grey", "t shirt"), plurals, the order in "red and blue". It keeps
what makes answers differ: signs, decimal points, units, "A+" and "A-", "not". Where no rule can tell ("puppy", "dog"), a language
model judges if one is named (`models.llm`). The benchmarks' own metrics (`evaluate.metrics`) do not use this module.
"""

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
    r"(?:(?P<yes>yes|yeah|yep|yup)|no|nope|nah)(?:$|\s*[,;:!](?!\d)|\.(?!\s*\d)(?=\s|$)|\s+-\s|"
    rf"\s+(?:it|there|they|he|she|i|we|you|this|that|these|those)\s+{VERB}\b)")
WHOLE = {"true": "yes", "correct": "yes", "yeah": "yes", "yep": "yes", "yup": "yes", "false": "no", "incorrect": "no",
         "nope": "no", "nah": "no", "none": "0", "noon": "12:00", "midday": "12:00", "midnight": "0:00", "us": "usa"}
PICTURED = re.compile(r"\s+(?:in|on|of) (?:the|this) (?:picture|image|photo|photograph|scene)$")
NAMED = "color|colour|number|time|size|shape|name|word|letter|text|material|weather|season|year|date|brand"
OPENERS = re.compile(
    r"^(?:(?:it|this|that|they|these|those|there|here) (?:is|are|was|were)"
    r"|(?:it|this|that|they|these|those) (?:looks?|appears?|seems?)(?: like| to be)?"
    r"|(?:i|we|you) (?:can )?(?:see|think it is|believe it is)|(?:it|the sign|the text|the label) (?:says|reads)"
    rf"|(?:(?:the|my|final|short) )*answer ?(?:is|:)|(?:the|its|their) (?:{NAMED})(?: of (?:the|this) \w+)? (?:is|are|says|reads)"
    r") (?=[^\s,.;:!?])")
TRAILERS = re.compile(r"(?<=\w) (?:(?:in )?colou?r(?:ed)?|of them)$")
SIDE = re.compile(
    r"(?:(?:on|to|at|in|from|near|towards?) )?(?:the )?(?:very )?((?:(?:top|bottom)[ -]?)?(?:left|right)|top|bottom)(?:[ -]hand)?"
    r"(?: (?:side|part|corner))?")
ONE = re.compile(r"(?:an?|the) (.+?) ones?")
COUNTED = "|".join((*NUMBER_WORDS, *wording.TENS))
ABOUT = re.compile(
    r"^(?:(?:about|approximately|approx\.?|around|roughly|nearly|almost|exactly|circa) |~ ?)"
    rf"(?=\d|(?:{COUNTED}|an? (?:hundred|dozen|thousand))\b)")
ORDER = re.compile(r"^(?:(?:number|no\.|nr\.?|#) ?)(?=\d)|(?<=\s)#(?=\d)")
FEET, INCHES = re.compile(r"(\d+) ?'(?: ?(\d+) ?\"?)?"), re.compile(r"([\d.]+) ?\"")
MINUTES = {"five": 5, "ten": 10, "quarter": 15, "a quarter": 15, "twenty": 20, "twenty five": 25, "twenty-five": 25, "half": 30}
PAST = re.compile(rf"({'|'.join(MINUTES)}|\d\d?)(?: minutes?)? (past|to|after|before) (\w+)")
HOURS = "|".join(NUMBER_WORDS[1:13])
HALF_DAY = re.compile(rf"\b(\d\d?|{HOURS})(?::(\d\d))? ?([ap])\.? ?m\b\.?")
OCLOCK = re.compile(rf"\b(\d\d?|{HOURS}) oclock\b")
MONTH = "|".join(sorted(wording.MONTHS, key=len, reverse=True))
DATE = re.compile(
    rf"\b(?:(?P<m1>{MONTH})\.? ?(?:the )?(?P<d1>\d\d?)(?:st|nd|rd|th)?(?![\d:])|"
    rf"(?P<d2>\d\d?)(?:st|nd|rd|th)? (?:of )?(?P<m2>{MONTH})\b\.?)"
    r"(?:,? (?=\d{4}\b))?")
SEPARATORS = re.compile(r" ?; ?|, ?(?:and |& ?)|, |,(?=[^\d\s])|(?<=[^\d\s]),| (?:and|&) |&")
TOKEN = re.compile(
    r"\d\d?:\d\d(?::\d\d)?(?!\d)|\d+(?:\.\d+){2,}|\d[\d,]*\d(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+|"
    rf"[^\s\d{re.escape(string.punctuation)}]+|\S")
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?|\.\d+")
BETWEEN = frozenset("-+/*=:x^<>")  # marks that count between two numbers
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
    return a != b and (a in CLOSED and b in CLOSED or all(re.fullmatch(r"-?\d+(\.\d+)?", form) for form in (a, b)))


def _canonical(text: str) -> str:
    marks, text = text, written_out(folded(text))
    if not any(c.isalnum() for c in text):
        return text.strip("\"' ") or text or "".join(marks.split())
    # a drawing beside words adds nothing
    text = "".join(c for c in text if c.isascii() or c == "°" or unicodedata.category(c) not in ("So", "Sk"))
    if length := FEET.fullmatch(text):
        text = f"{length[1]} ft" + (f" {length[2]} inch" if length[2] else "")
    text = INCHES.sub(r"\1 inch", text) if INCHES.fullmatch(text) else text
    text = " ".join(re.sub(r"\\(?:boxed|text)\{([^{}]*)\}", r"\1", text.strip("\"' ")).split())
    if said := YES_NO.match(text):
        return "yes" if said["yes"] else "no"
    for phrase, word in wording.PHRASES.items():
        text = re.sub(rf"(?<![\w.]){re.escape(phrase)}(?!\w)", word, text) if phrase in text else text
    text = re.sub(r"\b(hundred|thousand|million) and (?=\w)", r"\1 ", _unwrapped(text))
    text = WHOLE.get(text, text)
    parts = [part for part in SEPARATORS.split(_timed(text)) if part.strip(" .!?")]
    forms = [form for part in parts if (form := _joined(part))]
    if not all(re.fullmatch(r"[-\d.,:/]+", form) for form in forms):  # "red and blue" has no order, "3, 4" may have one
        forms = sorted(set(forms))
    return "&".join(forms)


def _unwrapped(text: str) -> str:
    """Without what people put around an answer: "it is ...", "... in the picture", "the ... one", "about ...", "... side"."""
    while True:
        short = text.strip(" .!?,;:\"'" if any(c.isalnum() for c in text) else " ")
        short = short[1:-1] if short[:1] == "(" and short.find(")") == len(short) - 1 else short
        for pattern in (PICTURED, OPENERS, TRAILERS, ABOUT, ORDER):
            short = pattern.sub("", short)
        for pattern in (ONE, SIDE):
            if found := pattern.fullmatch(short):
                short = found[1]
        if short == text or not short:
            return text
        text = short


def _timed(text: str) -> str:
    """Times of day and dates: "ten past ten" -> "10:10", "5 p.m." -> "17:00", "5 Jan." -> "january 5"."""
    text = HALF_DAY.sub(_on_24_hours, text)
    text = OCLOCK.sub(lambda m: f"{_hour(m[1])}:00", text)
    if (found := PAST.fullmatch(text)) and (hour := _hour(found[3])):
        minutes = MINUTES.get(found[1]) or int(found[1])
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
    text = re.sub(r"\b(?:minus|negative) (?=\d)", "-", text.replace("'", ""))
    found = list(TOKEN.finditer(text))
    apart = [m.start() == 0 or text[m.start() - 1].isspace() for m in found]
    tokens = [(word, apart[i]) for word, i in wording.digits([m[0] for m in found])]
    tokens = [(word, space) for i, (word, space) in enumerate(tokens) if not _article(tokens, i)]
    out, i, numeral = "", 0, False  # numeral: whether `out` ends in a number
    while i < len(tokens):
        piece, i, number = _piece(tokens, i, numeral)
        out += (" " if numeral and number else "") + piece
        numeral = number if piece else numeral
    return out


def _article(tokens: list[tuple[str, bool]], i: int) -> bool:
    """Whether token i is an article: "a man", but not "vitamin a" or "a and b"."""
    if tokens[i][0] not in ("a", "an", "the") or i + 1 == len(tokens):
        return False
    following, spaced = tokens[i + 1]
    letter = len(following) == 1 and following.isalpha() and i + 2 == len(tokens)  # "a b"
    return spaced and (following[0].isalnum() or following[0] in '"(') and following not in ("or", "and", "vs") and not letter


def _piece(tokens: list[tuple[str, bool]], i: int, numeral: bool) -> tuple[str, int, bool]:
    """The canonical piece that begins at token i, the place after it, and whether it is a number."""
    (word, space), following = tokens[i], tokens[i + 1:i + 2]
    close = bool(following) and not following[0][1]  # no space before the next token
    to_number = bool(following) and bool(NUMBER.fullmatch(following[0][0]))
    if NUMBER.fullmatch(word):
        return _quantity(tokens, i, "")
    if word in "+-" and to_number and close and (space or not _after_word(tokens, i)):
        return _quantity(tokens, i + 1, "-" if word == "-" else "")
    if word in wording.CURRENCIES and to_number:
        piece, end, _ = _quantity(tokens, i + 1, "")
        return (piece if piece[0] in wording.CURRENCIES else word + piece), end, True
    if word in BETWEEN and numeral and to_number:
        piece, end, _ = _quantity(tokens, i + 1, "")
        return word + piece, end, False
    if word[0].isalnum() or not word.isascii():
        known = wording.SPELLINGS.get(word, word)
        known = singular(known)
        return wording.SPELLINGS.get(known, known), i + 1, word[0].isdigit()
    lone = i > 0 and not space and re.fullmatch(r"[a-z]|[+#]", tokens[i - 1][0])  # "c++", "a-", "c#"
    if lone and word in "+-#" and (not close or following[0][0] in "+#") or word in "<>=" and to_number:
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
    if ahead[:1] == ["/"] and len(ahead) > 1 and ahead[1].isdigit() and written.isdigit():
        written, end = wording.fraction(written, wording.value(ahead[1])), end + 2
    elif ahead[:1] and ahead[0] in wording.SCALES:
        written, end = wording.scaled(written, ahead[0]), end + 1
    ahead = [word for word, _ in tokens[end:end + 3]]
    for n in (3, 2, 1):
        unit = wording.UNITS.get(" ".join(ahead[:n])) or wording.UNITS.get("".join(ahead[:n])) if len(ahead) >= n else None
        if unit and not (tokens[end + n:end + n + 1] and tokens[end + n][0][0].isalpha()):
            written = f"{unit}{sign}{written}" if unit in wording.CURRENCIES else f"{sign}{written}{unit}"
            return written, end + n, True
    return sign + written, end, True
