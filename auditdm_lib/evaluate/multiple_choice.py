"""Which option of a multiple-choice item a reply names, by letter or by text."""

import math
import re
import string
import unicodedata

from auditdm_lib.wording import NUMBER_WORDS

_SAME = {word: str(i) for i, word in enumerate(NUMBER_WORDS)} | {
    "true": "yes", "yeah": "yes", "yep": "yes", "false": "no", "nope": "no", "grey": "gray", "centre": "center"}
_REFUSALS = re.compile(  # VLMEvalKit's list
    "cannot determine the answer|i can't process this file|i can't help with images|without the image provided", re.IGNORECASE)
_CONTAINER = re.compile(
    r"<answer\b[^<>]*>(.*?)(?:</answer\s*>|$)|\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}", re.IGNORECASE | re.DOTALL)
_MARKUP = re.compile(
    r"\\(?:text|mathrm|mathbf|textbf)\b|[`\"\u201c\u201d{}\[\]\u3010\u3011]|__|\$(?=\(?[A-Za-z]\)?\$)|(?<=[A-Za-z)])\$"
    r"|(?<!\w)[*'\u2019]+|[*'\u2019]+(?!\w)")
_LETTER = r"\(?\s*([a-z])(?!(?!입니다|です)\w)(?!['\u2019./:@-]\w)(?:\s*\))?"  # no part of a word, of "U.S.", of an address
_AS_LETTER = r"\s*(?:because|since|as|is|was|seems|looks|appears)\b"  # what follows a letter and no article
_NAMED = re.compile(rf"(?:(?:option|choice|answer|letter)\s*[:=\u2013\u2014-]?\s*)?{_LETTER}", re.IGNORECASE)
_DECLARED = re.compile(
    r"\b(?:answer|option|choice)\s*(?:(?:is|would be|should be)\b\s*:?|[:=]|[\u2013\u2014-](?=\s))"
    r"|\b(?:i|we)(?:['\u2019]d|\s+would)?\s+(?:choose|select|pick|go with)\b"
    r"|\boption\s+(?=\(?[a-z]\)?\s+is\s+(?:the\s+)?(?:correct|right|best)\b)"
    r"|答案[是为]|答案\s*:|选(?:择|项)?|正解は|答えは|정답은|답은|답\s*:|옵션", re.IGNORECASE)
_SECOND = re.compile(  # "B or C", "B, C", "B C"
    r"[ \t]*(?:(?:[.:)][ \t]*)?(?:(?:and/or|and|or)\b|[/&,+|;])[ \t]*(?:(?:maybe|perhaps|possibly|option)[ \t]+)*|[ \t])"
    r"\(?([A-Z])\)?[ \t]*(?:[.,;:!?/&+|]|$|(?:and|or)\b)")
_REJECTED = re.compile(r"\bnot\s+\(?[A-Z]\)?(?!\w)|\(?(?<!\w)[A-Z]\)?\s+(?:is|was)\s+(?:wrong|incorrect|false|not)\b")
_LABEL = re.compile(rf"\s*{_LETTER}\s*(?:[.:)](?=\s|$)|$)", re.IGNORECASE)
_BRACKETED = re.compile(r"(?<!\w)\(\s*([A-Za-z])\s*\)(?!\w)")
_BARE = re.compile(r"(?<![\w'\u2019/@.-])([A-Z])(?!\w)(?!['\u2019./:@-]\w)")


def value(text: str) -> float | None:
    """The number that a text is ("4", "-4.0", "1,000", "1e3"), None if it is none; thousands are set off by commas."""
    if re.fullmatch(r"[+-]?\d{1,3}(?:,\d{3})+(?:\.\d+)?", text):
        text = text.replace(",", "")
    number = float(text) if re.fullmatch(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?", text, re.IGNORECASE) else math.nan
    return number if math.isfinite(number) else None


def choice(prediction: str, options: list[str]) -> str | None:
    """The letter of the option that a reply names; None if it names none, or several.

    Read in this order, as in lmms-eval's `mcq_extract`, VLMEvalKit's `can_infer` and MMMU's `eval_utils`: the last <answer>
    or box, if there is one, instead of the whole reply; an option's very text; the letter after the last "the answer is",
    "I choose" and the like; a letter at the beginning ("B", "b.", "B: blue", "B because ..."); one in parentheses or alone
    on a line; the one option whose text stands in the reply; a capital letter. The letter decides against the text beside
    it ("B. red" is B). Letters that are no option, "A or B" and a copied list of options name none. An "A" before a word
    is an article ("A blue car" is the option blue).

    Where those scripts differ from each other or from this: lmms-eval takes no option's text and no capital letter from plain
    prose; MMMU guesses where it finds nothing, and of several takes the last. Option texts are compared without case, article
    and final punctuation, numbers by value ("2" is "two", "1,000" is "1000"), and "true" is "yes".
    """
    if scoped := list(_CONTAINER.finditer(prediction)):
        prediction = scoped[-1][1] or scoped[-1][2] or ""
    if not prediction.strip() or _REFUSALS.search(prediction):
        return None
    options = options[:len(string.ascii_uppercase)]  # what comes after Z cannot be named
    letters = string.ascii_uppercase[:len(options)]
    text = _MARKUP.sub("", unicodedata.normalize("NFKC", prediction)).strip()
    text = _REJECTED.sub("", text)
    exact = [i for i, option in enumerate(options) if option.strip() == prediction.strip()]
    same = [] if re.fullmatch("[A-Za-z]", text) and text.upper() in letters else _same(prediction, options)
    for found in (exact, same):
        if found:
            return letters[found[0]] if len(found) == 1 else None
    return _declared(text, letters, options) if _DECLARED.search(text) else _implied(text, letters, options)


def _declared(text: str, letters: str, options: list[str]) -> str | None:
    """The option after the last declaration; none is looked for before it."""
    said = text[list(_DECLARED.finditer(text))[-1].end():].lstrip(" \t\r\n:,.-\u2013\u2014")
    if (match := _NAMED.match(said)) and _is_letter(match, said, options, letters):
        return _single(match, said, letters)
    sentence = re.split(r"(?<=[.!?])\s|\n", said)[0]
    found = _same(sentence, options) or _contained(sentence, options)
    if found:
        return letters[found[0]] if len(found) == 1 else None
    return _only([bare[1] for bare in _BARE.finditer(sentence) if not _is_article(bare, sentence)], letters)


def _implied(text: str, letters: str, options: list[str]) -> str | None:
    """The option of a reply that declares none."""
    lines = [match[1].upper() for line in text.splitlines() if (match := _LABEL.match(line))]
    if len(set(lines)) > 1:  # a copied list
        return None
    if (match := _NAMED.match(text)) and _is_label(match, text, options, letters):
        return _single(match, text, letters)
    if (match := re.match(r"([A-Za-z])[.:-]+(\S.*)", text)) and _same(match[2], options):  # "B.blue"
        return _only([match[1].upper()], letters)
    if marked := [match[1].upper() for match in _BRACKETED.finditer(text)] or lines:
        return _only(marked, letters)
    if found := _contained(text, options):
        return letters[found[0]] if len(found) == 1 else None
    return _only([bare[1] for bare in _BARE.finditer(text) if not _is_article(bare, text)], letters)


def _is_label(match: re.Match, text: str, options: list[str], letters: str) -> bool:
    """Whether the letter at the beginning of a reply is its choice and not an article or a part of a word."""
    rest = text[match.end():]
    return bool(re.match(r"[.:)\u3001\u3002,;!?\n\u2013\u2014-]", rest.lstrip(" ")) or match[0].endswith(")")
                ) or _is_letter(match, text, options, letters)


def _is_letter(match: re.Match, text: str, options: list[str], letters: str) -> bool:
    """Whether a letter that stands where a choice is expected is one; "a" and "I" before a word are others."""
    rest = text[match.end():]
    if not _is_article(match, text) or re.match(_AS_LETTER, rest, re.IGNORECASE):
        return True
    place = letters.find(match[1].upper())
    return place >= 0 and _same(rest, options) == [place]


def _is_article(match: re.Match, text: str) -> bool:
    """Whether a letter is the article "a" or the pronoun "I": bare, before a word that does not tell of the letter."""
    rest = text[match.end():]
    return (match[1] in "AaI" and not match[0].endswith(")") and bool(re.match(r"\s+\w", rest))
            and not re.match(rf"{_AS_LETTER}|\s+(?:and|or)\b", rest, re.IGNORECASE))


def _single(match: re.Match, text: str, letters: str) -> str | None:
    """The letter that was matched, unless another follows as an alternative ("A or B"), or it is no option."""
    letter, second = match[1].upper(), _SECOND.match(text[match.end():])
    return letter if letter in letters and (second is None or second[1] == letter) else None


def _only(found: list[str], letters: str) -> str | None:
    return found[0] if len(set(found)) == 1 and found[0] in letters else None


def _plain(text: str) -> str:
    """A text without case, outer quotation marks, final punctuation, article, and blanks that mean nothing."""
    text = " ".join(unicodedata.normalize("NFKC", text).lower().split()).strip("*`\"\u201c\u201d")
    return re.sub(r"^(?:an?|the)\s+(?=\S)", "", text.rstrip(".!?,;:\u3002") or text)


def _meant(text: str) -> str | float:
    """What a plain text means: a number by its value, "true" as "yes", "grey" as "gray"."""
    text = _SAME.get(text, text)
    return text if value(text) is None else value(text)


def _same(text: str, options: list[str]) -> list[int]:
    """The options whose text is all of `text`, by letter of the text if possible, else by meaning."""
    text, plain = _plain(text), [_plain(option) for option in options]
    return ([i for i, option in enumerate(plain) if text and option == text]
            or [i for i, option in enumerate(plain) if text and _meant(option) == _meant(text)])


def _contained(text: str, options: list[str]) -> list[int]:
    """The options whose text stands in `text`, in words of its own and not only within a longer option's ("dark red")."""
    text, spans = " ".join(unicodedata.normalize("NFKC", text).lower().split()), []
    for i, option in enumerate(_plain(option) for option in options):
        if len(option) > 1 and re.search(r"\w", option) or option.isdigit():
            meant = _SAME.get(option, option)
            forms = {option, meant, *(word for word, same in _SAME.items() if same == meant)}  # "two" and "2"
            form = "|".join(map(re.escape, sorted(forms, key=len, reverse=True)))
            plural = "(?:e?s)?" if option[-1].isalpha() else ""
            pattern = rf"(?<![\w$\u20ac\u00a3+-])(?<!\w[.,:/'\u2019])(?:{form}){plural}(?![\w%])(?![.,:/'\u2019-]\w)"
            spans += [(*match.span(), i) for match in re.finditer(pattern, text)]
    return sorted({i for start, end, i in spans if not any(
        a <= start and end <= b and b - a > end - start for a, b, _ in spans)})
