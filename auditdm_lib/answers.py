"""The judge D by rule: when two short answers are the same.

Answers are compared by a canonical form (`normalise`), so sameness is an equivalence relation. The form is made for the wording
of people and chat models: case, Unicode, quotation marks and Markdown, articles, "it is red" and "red", numbers in words or
digits, thousands, units, currencies, times of day, spellings ("grey", "t shirt"), plurals, the order in "red and blue". It keeps
what makes answers differ: signs, decimal points, units, "A+" and "A-", "not". Where no rule can tell ("puppy", "dog"), a language
model judges if one is named (`models.llm`). The benchmarks' own metrics (`evaluate.metrics`) do not use this module.
"""

import html
import re
import unicodedata
from functools import lru_cache

from auditdm_lib import wording
from auditdm_lib.abstention import abstains
from auditdm_lib.folding import folded, written_out
from auditdm_lib.pieces import joined
from auditdm_lib.wording import NUMBER_WORDS

__all__ = ["LETTERS", "abstains", "certainly_different", "normalise", "same_answer"]

LETTERS = "ABCDEFGH"  # labels of the options of a multiple-choice item

VERB = "(?:is|are|was|were|do|does|did|can|cannot|could|has|have|had|will|would)"
YES_NO = re.compile(
    r"(?:(?P<yes>yes|yeah|yep|yup)|no|nope|nah)(?:$|\s*[,;!](?!\d)|\.(?!\s*\d)(?=\s|$)|\s*(?:\(|because\b|definitely\b)|"
    r"\s+-\s+(?=(?:it|there|the|an?|this|that|they|i|he|she)\b)|"
    rf"\s+(?:it|there|they|he|she|i|we|you|this|that|these|those)\s+{VERB}\b)")
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
ABOUT = re.compile(
    r"^(?:(?:only|just|about|approximately|approx\.?|around|roughly|nearly|almost|exactly|circa) |~ ?)"
    rf"(?=\d|(?:{wording.COUNTED}|an? (?:hundred|dozen|thousand))\b)")
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
TELLING = "°♭♮♠♣♥♦✓✔✗✘⬅➡⬆⬇⚪⚫←→"  # signs that an answer may consist in, unlike the picture of a dog beside "dog"
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
    """One pass of `normalise`: characters, then what stands around the answer, then its parts."""
    plain_text = _in_plain_characters(text)
    if not any(c.isalnum() for c in plain_text):
        return plain_text.strip("\"' ") or plain_text or "".join(text.split())
    text = _without_decoration(plain_text)
    if said := YES_NO.match(text):
        return "yes" if said["yes"] else "no"
    for phrase, word in wording.PHRASES.items():
        text = re.sub(rf"(?<![\w.]){re.escape(phrase)}(?!\w)", word, text) if phrase in text else text
    text = re.sub(r"\b(hundred|thousand|million) and (?=\w)", r"\1 ", _unwrapped(text))
    text = wording.WHOLE.get(text.replace("-", " "), text)
    text = re.sub(r"(?<=\d) out of (?=\d)", "/", re.sub(r"\bus ?(?=\$)", "", text))
    if span := SPAN.fullmatch(text):
        text = f"{span[1] or span[2]}-{span[3]}"
    return _alternatives(text) if " or " in text else _parts(text)


def _in_plain_characters(text: str) -> str:
    """Folded, without LaTeX and HTML, contractions written out, "5k" as "5 thousand"."""
    text = SCALED.sub(lambda m: f" {m.lastgroup} ", html.unescape(text))
    return written_out(folded(FRACTION.sub(r"\1/\2", DOLLARS.sub(r"\1", text))))


def _without_decoration(text: str) -> str:
    """Without drawings beside the words and quotation marks around them, feet and inches in words."""
    text = "".join(c for c in text if c.isascii() or c in TELLING or unicodedata.category(c) not in ("So", "Sk"))
    text = FEET.sub(lambda m: f"{m[1]} ft" + (f" {m[2]} inch" if m[2] else ""), text)
    text = INCHES.sub(r"\1 inch", text)
    return " ".join(re.sub(r"\\(?:boxed|text)\{([^{}]*)\}", r"\1", text.strip("\"' ")).split())


def _alternatives(text: str) -> str:
    """"blue or red" as "red or blue"."""
    return "|".join(sorted(filter(None, map(_canonical, re.split(r",? or |, ", text)))))


def _parts(text: str) -> str:
    """The parts of "red and blue", in one order; numbers keep theirs, since "3, 4" may be a place."""
    parts = [part for part in SEPARATORS.split(_timed(text)) if part.strip(" .!?")]
    forms = [form for part in parts if (form := joined(part))]
    return "&".join(forms if all(re.fullmatch(r"[-\d.,:/]+", form) for form in forms) else sorted(forms))


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
