"""The short answer in a sentence that answers a question: "The umbrella is red." to "What colour is the umbrella?" gives "red".

Only words of the question, of the verb and of politeness are dropped; the answer's own words stay as they are. A sentence about
a yes/no question gives "yes" or "no" where it says the question's predicate or its opposite, and is kept where it says another.
"""

import re

from auditdm_lib.abstention import abstains
from auditdm_lib.folding import plain
from auditdm_lib.wording import COUNTED as NUMBERS
from auditdm_lib.wording import singular

DECLINED = "cannot tell"  # how a refusal in any wording is recorded
POLAR = re.compile(r"(?:is|are|am|was|were|do|does|did|can|could|has|have|had|will|would|should|may|might)\b", re.IGNORECASE)
SAID = re.compile(r"(yes|yeah|yep|yup|no|nope|nah)\b(?![- ]one\b|-|\.? ?\d)", re.IGNORECASE)
EXISTENCE = re.compile(
    r"^(?:is|are|was|were) there |^(?:can|do|did) (?:you|we|i) see |"
    r"\b(?:visible|shown|seen|in (?:the|this) (?:image|picture|photo))\b")
UNSEEN = re.compile(
    r"\b(?:does|do) not (?:\w+ )?(?:show|contain|include|depict|display|feature|have|appear|see)\b|"
    r"\bnot (?:\w+ )?(?:visible|shown|seen|present|depicted)\b|\bcannot (?:be seen|see)\b|^(?:there (?:is|are) )?no(?:ne| )\b")
NEGATED = re.compile(r"\b(?:no|not|none|neither|nobody|nothing|cannot|without|never|unlikely|hardly|fails?)\b")
NO_NEGATION = re.compile(r"\b(?:no doubt|not only)\b")
OPPOSITES = {word: other.split() for word, _, other in (pair.partition(":") for pair in """
open:closed shut|closed:open|on:off|off:on|asleep:awake|sleeping:awake|awake:asleep sleeping|happy:sad unhappy|sad:happy
daytime:nighttime night|day:night|night:day daytime|full:empty|empty:full|clean:dirty|dirty:clean|wet:dry|dry:wet|hot:cold
cold:hot|old:young new|young:old|new:old|big:small|large:small|small:large big|tall:short|short:tall long|long:short
sunny:cloudy overcast raining|left:right|right:left|up:down|down:up|inside:outside|outside:inside|indoors:outdoors
outdoors:indoors|male:female|female:male|standing:sitting lying|sitting:standing lying|ripe:unripe|raw:cooked|same:different
different:same|light:dark|dark:light|top:bottom|bottom:top|front:back|alive:dead|moving:parked stationary|parked:moving
smiling:frowning|odd:even|even:odd""".strip().replace("\n", "|").split("|"))}
COUNT = rf"(?:\d[\d,]*|{NUMBERS}|an?|no)"
COUNTED = [re.compile(pattern, re.IGNORECASE) for pattern in (
    rf"\bso (?:there are |there is )?({COUNT})\b", rf"^({COUNT}) ?[:(]", rf"\bcounting ({COUNT})\b",
    rf"\btotal of (?:about |approximately )?({COUNT})\b", rf"\bnumber of [^.]{{1,60}}? (?:is|are) ({COUNT})\b",
    r"\b(?:there (?:is|are|were)|i (?:can )?(?:count|see))(?: only| just| exactly| about| approximately)* "
    rf"({COUNT})\b(?! (?:number|total))", rf"^({COUNT})\b[^.]*\bin total\b")]
COLOURS = ("red green blue yellow orange purple pink brown black white grey gray silver gold golden beige tan turquoise teal "
           "maroon navy violet magenta cyan cream ivory lavender burgundy khaki olive bronze copper crimson indigo").split()
COLOUR = re.compile(rf"\b(?:(?:dark|light|bright|pale|deep|sky|navy|olive|lime|royal) )?(?:{'|'.join(COLOURS)})\b"
                    r"(?! (?:and white )?(?:photo|image|picture))")
WRITTEN = re.compile(r"\b(?:say|says|said|written|read|reads|text|words?|label|title|name|spell|message|called)\b", re.IGNORECASE)
QUOTED = re.compile(r"[\"“”«]([^\"“”«»]{1,120})[\"“”»]")
HEDGE = re.compile(r"^(.{3,90}?)[,;.]? (?:but|however,?|although|though) (.+)$", re.IGNORECASE | re.DOTALL)
GUESS = re.compile(
    r"^(?:(?:if i had to guess|my (?:best )?guess (?:is|would be)|i (?:would |will )?(?:guess|think|believe|say)|perhaps|maybe|"
    r"probably|possibly|most likely|likely)[,:]? )+", re.IGNORECASE)
CORRECTED = re.compile(r"^.*\b(?:actually|correction|wait)\b[,:.]? (?=\S)", re.IGNORECASE | re.DOTALL)
INSTEAD = re.compile(r"^(?:it is |they are |the \w+ is )?(?:not|neither) [^;,.]{1,60}[;,.] (?:but )?(.+)$", re.IGNORECASE)
NOT_THAT = re.compile(r"^(.+?), (?:not|rather than|and not) [^,;.]+\.?$", re.IGNORECASE)
ASIDE = re.compile(
    r", (?:which|given|specifically|but|so|as|because|since|while|making|indicating|suggesting)\b.*$", re.IGNORECASE)
LEADING = re.compile(
    r"^(?:(?:likely|probably|possibly|most likely|called|named|made by|by|because)(?= \S) |"
    r"(?:an? )?(?:game|picture|photo|close-up|image|kind|type) of )", re.IGNORECASE)
SUBJECTS = frozenset("price time answer color colour name animal object number brand sport result total year word text".split())
NO_PREMISE = re.compile(
    r"^(?:there (?:is|are) no (?!one\b|body\b|more\b|text\b|writing\b|words?\b|letters?\b)\w+|"
    r"(?:i|we) do not see (?:an?|any)\b|no \w+ (?:is|are) (?:visible|shown|present))")
IN_PICTURE = re.compile(r"(?:in|of|on) (?:the|this) (?:picture|image|photo|photograph|scene)|here|there|visible|shown")
CONTRACTION = re.compile(r"\b(he|she|it|they|that|there|who|we|you|i)(?:['’](s|re|m))\b", re.IGNORECASE)

BRIEF = re.compile(
    r"^(?:it|he|she|they|there|i|we) (?:is|are|was|were|does|do|did|has|have|can)(?P<no> not)?$|"
    r"^(?:probably |likely |most likely )?(?P<no2>not)$|\b(?P<no3>(?:do|does) not|not) (?:think|believe|seem|appear) so$|"
    r"^(?:i|it) (?:think|believe|suppose|guess|seems|appears) so$|\bso (?:the answer is )?(?:yes|(?P<no4>no))$")
COMPARED = re.compile(r"\b(?:more|less|fewer|at least|at most|exactly) (?:than )?\w+ ")

ARTICLES = frozenset("the a an".split())
FILLERS = frozenset("""it its this that these those they there here i we you he she only just exactly total of about some both
picture image photo photograph scene shown visible depicted seen displayed present appear currently actually clearly""".split())
VERBS = frozenset("""is are was were be being been has have had see seen sees show shows showing depicts displays contains says
said reads read looks look appears appear seems seem like to does do did can wears features costs""".split())
TELLING = frozenset("says said reads shows displays indicates spells costs".split())
PREPOSITIONS = frozenset("""on in at under over above below behind beside between near next inside outside from with by into onto
against around across through to toward towards along left right""".split())
ENDINGS = frozenset("""in the a this picture image photo photograph scene there here visible shown is are was were it has have
of""".split())


def from_sentence(text: str, question: str) -> str:
    """The short answer in a text of one or more sentences; the last sentence of `question` is the one that is asked."""
    text = CONTRACTION.sub(lambda m: f"{m[1]} {dict(s='is', re='are', m='am')[m[2].lower()]}", CORRECTED.sub("", text, count=1))
    sentence = first_sentence(text)
    if (hedge := HEDGE.match(text)) and abstains(hedge[1]) and not abstains(hedge[2]):
        sentence = first_sentence(GUESS.sub("", hedge[2]))
    sentence = sentence if BRIEF.search(plain(sentence)) else GUESS.sub("", sentence) or sentence
    asked = re.split(r"(?<=[?.!])\s+", question.strip())[-1]  # "How many are there? Is the answer two?"
    polar = POLAR.match(asked) and " or " not in asked.lower().replace("yes or no", "")
    if polar and EXISTENCE.search(plain(asked)) and len(plain(sentence).split()) > 3 and UNSEEN.search(plain(sentence)):
        return "no"
    if not QUOTED.search(sentence) and abstains(sentence):
        return DECLINED if sentence.strip() else ""
    if polar:
        return _polar(sentence, asked, question)
    return _open(text, sentence, asked)


def _open(text: str, sentence: str, asked: str) -> str:
    """The answer to a question that is no yes/no question."""
    words = plain(asked)
    if WRITTEN.search(asked) and len(quoted := QUOTED.findall(sentence)) == 1:
        return stripped(quoted[0])
    if words.startswith("how many"):
        if (count := _count(text)) is not None:
            return count
    elif NO_PREMISE.match(plain(sentence)):
        return DECLINED
    sentence = ASIDE.sub("", sentence)
    if instead := INSTEAD.match(sentence):
        sentence = instead[1]
    elif that := NOT_THAT.match(sentence):
        sentence = that[1]
    if words.startswith(("what color", "what colour")) and len(plain(sentence).split()) > 2:
        found = list(dict.fromkeys(COLOUR.findall(plain(sentence))))
        if found and not NEGATED.search(plain(sentence)):
            asked_colours = COLOUR.findall(words)
            return " and ".join([c for c in found if c not in asked_colours] or found)
    return stripped(_without_start(_trimmed(sentence, asked), words))


def _without_start(text: str, asked: str) -> str:
    """An answer without what only leads to it: "likely London", "located on the table" (where), "in 1985" (what year)."""
    text = LEADING.sub("", text)
    if asked.startswith("where"):
        return re.sub(r"^(?:located|situated|placed|positioned|sitting|lying|standing|resting) (?=\w+ \w)", "", text)
    if asked.startswith(("what year", "what time", "when", "what date", "what month", "what day")):
        return re.sub(r"^(?:in|at|on) (?=\S)", "", text)
    return text


def _count(text: str) -> str | None:
    """The number in a text that counts something; None if the text does not say it in one of the usual ways."""
    if re.search(r"\b(?:are|is) ?n[o']t any\b|\bdo not see any\b", plain(text) + text.lower()):
        return "zero"
    for pattern in COUNTED:
        if found := pattern.search(text):
            return {"a": "one", "an": "one", "no": "zero"}.get(found[1].lower(), found[1])
    return "zero" if re.search(r"^no [a-z]+s?\.?$|\b(?:nobody|no one|none)\b", text.strip().lower()) else None


def first_sentence(text: str) -> str:
    """The first sentence of a text; a point after an abbreviation or a number ends none."""
    for end in re.finditer(r"[.!?](?=\s|$)|[。！？]", text):
        before = text[max(0, end.start() - 20):end.start()]
        abbreviated = re.search(r"(?:\b(?:mr|mrs|ms|dr|st|no|vs|etc|prof|jr|sr|approx)|\b\w(?:\.\w)*)$", before, re.IGNORECASE)
        if end[0] != "." or not abbreviated or end.end() == len(text):
            return text[:end.end()] if before.strip() else text
    return text


def _polar(sentence: str, asked: str, question: str) -> str:
    """"yes" or "no" where a sentence answers a yes/no question, else the sentence."""
    if said := SAID.match(sentence.strip("\"'“” *")):
        return "yes" if said[1].lower().startswith("y") else "no"
    words, asked_words = plain(sentence).split(), plain(asked).split()
    if brief := BRIEF.search(plain(sentence)):
        return "no" if any(brief.groupdict().values()) else "yes"
    opposite = next((i for i, w in enumerate(words) for a in asked_words if w in OPPOSITES.get(a, ())), None)
    if opposite is None and len(words) < 3 or COMPARED.search(plain(asked)):
        return stripped(sentence)
    content = [singular(w) for w in asked_words if w not in ARTICLES | FILLERS | VERBS | PREPOSITIONS]
    keys = [singular(w) for w in words]
    if opposite is not None:
        return "yes" if _negated(words[:opposite]) else "no"
    if asked_words[-1:] and asked_words[-1] in words and asked_words[-1] not in ARTICLES | FILLERS:
        return "no" if _negated(words[:words.index(asked_words[-1])]) else "yes"
    if content and content[-1] in keys:
        before = words[:keys.index(content[-1])]
        return "no" if _negated(before) else "yes"
    about = words[0] in ("there", "i", "it", "this", "that", "they") and not content
    if EXISTENCE.search(plain(asked)) and any(key in content for key in keys) or about:
        return "no" if _negated(words) else "yes"
    return "no" if _negated(words) and any(key in content for key in keys) else stripped(sentence)


def _negated(words: list[str]) -> bool:
    return bool(NEGATED.search(NO_NEGATION.sub("", " ".join(words))))


def _roots(question: str) -> set[str]:
    """The words of a question, in the singular, without the options that it offers ("red or blue")."""
    words = plain(question).split()
    offered = {words[k] for i, w in enumerate(words) if w == "or" for k in _options(words, i)}
    return {singular(w.removesuffix("'s")) for w in words if w not in offered} - {"or"}


def _options(words: list[str], i: int) -> list[int]:
    """The places of the options around the "or" at place i: the next word on each side that is no article."""
    before = next((k for k in range(i - 1, -1, -1) if words[k] not in ARTICLES), i)
    after = next((k for k in range(i + 1, len(words)) if words[k] not in ARTICLES), i)
    return [before, after]


def _trimmed(sentence: str, question: str) -> str:
    """A sentence without the words of the question before its verb, and without those at its end."""
    words, asked = sentence.split(), _roots(question)
    bare = [plain(word) for word in words]
    keys = [singular(word.removesuffix("'s")) for word in bare]
    known = [k in asked or b in ARTICLES | FILLERS | VERBS or not b for k, b in zip(keys, bare, strict=True)]
    prefix = next((i for i, k in enumerate(known) if not k and bare[i] not in ("in", "of")), len(words))
    verbs = [i for i in range(prefix) if bare[i] in VERBS]
    told = [i for i, b in enumerate(bare[:4]) if b in TELLING and 0 < i < len(words) - 1]  # "the clock shows ten"
    first = max([i + 1 for i in verbs[-1:] + told], default=0)
    if first:
        while first < len(words) - 1 and known[first] and bare[first] not in PREPOSITIONS:
            first += 1
    first = first or _after_subject(bare, keys, asked)
    last = len(words)
    counts = plain(question).startswith(("how many", "what color", "what colour"))
    while last > first + 1 and (keys[last - 1] in asked or bare[last - 1] in ENDINGS) and not words[last - 1][0].isupper():
        last -= 1
    if not counts:  # only with the verb before it ("a cup is on the table"), or "in the picture"
        verb = next((i for i in range(max(last, first + 1), len(words)) if bare[i] in VERBS), None)
        last = verb if verb is not None else next(
            (i for i in range(max(last, first + 1), len(words)) if IN_PICTURE.fullmatch(" ".join(bare[i:]))), len(words))
    return " ".join(words[first:last]) if first < last else sentence


def _after_subject(bare: list[str], keys: list[str], asked: set[str]) -> int:
    """The place after the verb in "the animal is a cat", whose subject stands for what is asked; 0 in any other sentence."""
    verb = next((i for i, word in enumerate(bare) if word in ("is", "are", "was", "were") and 0 < i < len(bare) - 1), 0)
    last = max((i for i, word in enumerate(bare) if word in ("is", "are", "was", "were") and i < len(bare) - 1), default=0)
    stands_for = any(key in asked | SUBJECTS for key in keys[:verb] if key not in ARTICLES | FILLERS)
    rest = zip(keys[last + 1:], bare[last + 1:], strict=True)
    says_more = any(key not in asked and word not in FILLERS | ARTICLES for key, word in rest)
    first = last + 1 if verb and stands_for and says_more and bare[0] in ("the", "his", "her", "its", "their") else 0
    return first + 1 if first and first < len(bare) - 1 and bare[first] in ARTICLES else first


def unmarked(line: str) -> str:
    """A line without Markdown: headings, bullets, emphasis, code."""
    line = re.sub(r"^\s*(?:#{1,6}\s+|>\s+|[-*•]\s+)", "", line)
    return re.sub(r"\*\*|__|`|(?<!\w)[*_](?=\w)|(?<=\w)[*_](?!\w)", "", line).strip()


def stripped(text: str) -> str:
    """One line without the quotation marks and the full stop around it."""
    text = " ".join(unmarked(line) for line in text.split("\n")).strip()
    text = re.sub(r"(?<=[^\s.])[.。,;:]$", "", text) if not re.search(r"\b\w\.\w\.$", text) else text
    for opened, closed in ('""', "''", "“”", "‘’", "«»", "「」"):
        if len(text) > 2 and text[0] == opened and text[-1] == closed:
            text = text[1:-1].strip().rstrip(".") or text
    return " ".join(text.split())
