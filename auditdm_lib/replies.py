"""Replies of models: the short answer in what a chat model writes, and texts made safe to store and show.

A panel compares short answers. A chat model thinks aloud, repeats the question and adds emphasis, so its reply "The umbrella is
**red**." to "What colour is the umbrella?" is reduced to "red". Only words of the question, of the verb and of politeness are
dropped; the answer's own words stay as they are.
"""

import re
import unicodedata
from functools import lru_cache

from auditdm_lib.answers import abstains, plain, singular

THOUGHT = re.compile(r"<(think|thinking|thought|reasoning)>.*?</\1>|◁think▷.*?◁/think▷", re.DOTALL | re.IGNORECASE)
THOUGHT_ENDS = re.compile(r"</(?:think|thinking|thought|reasoning)>|◁/think▷", re.IGNORECASE)
THOUGHT_BEGINS = re.compile(r"<(?:think|thinking|thought|reasoning)>|◁think▷", re.IGNORECASE)
TAGGED = re.compile(r"<answer>(.+?)</answer>|\\boxed\{(?:\\text\{)?([^{}]+)\}", re.DOTALL | re.IGNORECASE)
STATED = re.compile(
    r"\b(?:answer|conclusion)\b(?:(?: to| for) [^.:\n]{1,80}?)?[*_ ]*(?::|\bis\b|\bwould be\b)[*_: ]*([^\n]+)", re.IGNORECASE)
POLITE = re.compile(
    r"(?:sure|certainly|of course|absolutely|great question|good question|okay|ok|well|hi|hello|thank you|thanks|"
    r"(?:based on|looking at|from (?:what|the)|upon)[^,.]{1,60}|in (?:the|this) (?:image|picture|photo|photograph|scene)|"
    r"i think|i believe|i would say|it seems|it appears)\s*[,!.:;-]+\s*", re.IGNORECASE)
HEADING = re.compile(r".*:|(?:(?:final|short|my|the) )*(?:answer|response|solution|result)", re.IGNORECASE)
ABBREVIATED = re.compile(r"(?:\b(?:mr|mrs|ms|dr|st|no|vs|etc|prof|jr|sr|approx)|\b\w(?:\.\w)*)$", re.IGNORECASE)
HEDGE = re.compile(r"^(.{3,90}?)[,;.]? (?:but|however,?|although|though) (.+)$", re.IGNORECASE | re.DOTALL)
GUESS = re.compile(r"^(?:(?:if i had to guess|my (?:best )?guess (?:is|would be)|i (?:would |will )?(?:guess|think|believe|say)|"
                   r"perhaps|maybe|probably|possibly|most likely|likely)[,:]? )+", re.IGNORECASE)
POLAR = re.compile(r"^(?:is|are|am|was|were|do|does|did|can|could|has|have|had|will|would|should|may|might)\b", re.IGNORECASE)
SAID = re.compile(r"^(yes|yeah|yep|yup|no|nope|nah)\b(?![- ]one\b|-|\.? ?\d)", re.IGNORECASE)
NEGATED = re.compile(r"\b(?:no|not|none|neither|nobody|nothing|cannot|without|never)\b")

DECLINED = "cannot tell"  # how a refusal in any wording is recorded
ARTICLES = frozenset("the a an".split())
FILLERS = frozenset("""it its this that these those they there here i we you he she only just exactly total of about some
picture image photo photograph scene shown visible depicted seen displayed present appear currently actually clearly""".split())
VERBS = frozenset("""is are was were be being been has have had see seen sees show shows showing depicts displays contains says
said reads read looks look appears appear seems seem like to does do did can wears features""".split())
TELLING = frozenset("says said reads shows displays indicates spells".split())
PREPOSITIONS = frozenset("""on in at under over above below behind beside between near next inside outside from with by into onto
against around across through to toward towards along left right""".split())
ENDINGS = frozenset("""in the a this picture image photo photograph scene there here visible shown is are was were it has have
of""".split())


def clean(text: str) -> str:
    """`text` without what breaks files and figures: control characters become spaces, undecodable ones U+FFFD.

    Line breaks stay, all as one line feed. Marks that turn the writing direction, byte order marks and noncharacters go.
    """
    return "".join(map(_safe, re.sub("\r\n|[\r\x85\u2028\u2029]", "\n", text)))


def _safe(c: str) -> str:
    if c == "\n":
        return c
    category = unicodedata.category(c)
    if category == "Cc":
        return " "
    if category == "Cs":
        return "\ufffd"
    turning = "\u202a" <= c <= "\u202e" or "\u2066" <= c <= "\u2069" or c == "\ufeff"
    return "" if turning or (ord(c) & 0xFFFE) == 0xFFFE or "\ufdd0" <= c <= "\ufdef" else c


@lru_cache(100_000)
def short_answer(reply: str, question: str) -> str:
    """The answer to `question` in a model's reply: "The umbrella is red." to "What colour is the umbrella?" gives "red".

    A thinking block is dropped; an answer in tags, in a box or after "Answer:" is taken; else the first sentence, without the
    words of the question around the answer. A sentence about a yes/no question gives "yes" or "no", one that declines to answer
    "cannot tell". An answer of few words stays as it is. A reply that only thinks gives "".
    """
    text = without_thought(reply)
    if tagged := TAGGED.findall(text):
        return _stripped(next(filter(None, tagged[-1])))
    lines = [line for raw in text.splitlines() if (line := _unmarked(raw))]
    if not lines:
        return ""
    stated = [found[1] for line in lines if (found := STATED.search(line)) and len(line.split()) > 1]
    text = stated[-1] if stated else next((line for line in lines if not HEADING.fullmatch(line)), lines[-1])
    return _from_sentence(_polite_off(text), question)


def without_thought(reply: str) -> str:
    """A reply without its thinking block; "" where the block is never closed."""
    text = THOUGHT.sub("", reply)
    if ends := list(THOUGHT_ENDS.finditer(text)):  # templates may open the block in the prompt
        text = text[ends[-1].end():]
    return "" if THOUGHT_BEGINS.search(text) else text.strip()


def _unmarked(line: str) -> str:
    """A line without Markdown: headings, bullets, emphasis, code."""
    line = re.sub(r"^\s*(?:#{1,6}\s+|>\s+|[-*•]\s+)", "", line)
    return re.sub(r"\*\*|__|`|(?<!\w)[*_](?=\w)|(?<=\w)[*_](?!\w)", "", line).strip()


def _polite_off(text: str) -> str:
    """A text without the politeness and the references to the picture that it begins with."""
    while (polite := POLITE.match(text)) and text[polite.end():].strip():
        text = text[polite.end():].strip()
    return text


def _from_sentence(text: str, question: str) -> str:
    sentence = _first_sentence(text)
    if (hedge := HEDGE.match(text)) and abstains(hedge[1]) and not abstains(hedge[2]):
        sentence = _first_sentence(GUESS.sub("", hedge[2]))
    guessed = GUESS.sub("", sentence)
    sentence = guessed or sentence
    if abstains(sentence):
        return DECLINED if sentence.strip() else ""
    asked = question.strip()
    last = re.split(r"(?<=[?.!])\s+", asked)[-1]  # "How many are there? Is the answer two?"
    if POLAR.match(last) and " or " not in last.lower().replace("yes or no", ""):
        return _polar(sentence, asked)
    return _stripped(_trimmed(sentence, asked))


def _first_sentence(text: str) -> str:
    for end in re.finditer(r"[.!?。！？](?=\s|$)|[。！？]", text):
        before = text[:end.start()]
        if end[0] != "." or not ABBREVIATED.search(before) or end.end() == len(text):
            return text[:end.end()] if before.strip() else text
    return text


def _polar(sentence: str, question: str) -> str:
    if said := SAID.match(sentence.strip("\"'“” ")):
        return "yes" if said[1].lower().startswith("y") else "no"
    words, asked = plain(sentence).split(), _roots(question)
    content = [w for w in words if w not in ARTICLES | FILLERS | VERBS]
    about = words[:1] in (["there"], ["it"], ["this"], ["that"], ["they"], ["i"]) or any(singular(w) in asked for w in content)
    if len(words) < 3 or not about or not any(w in VERBS for w in words):
        return _stripped(sentence)
    return "no" if NEGATED.search(plain(sentence)) else "yes"


def _roots(question: str) -> set[str]:
    """The words of a question, in the singular, without the options that it offers ("red or blue")."""
    words = plain(question).split()
    offered = {words[k] for i, w in enumerate(words) if w == "or" for k in _options(words, i)}
    return {singular(w) for w in words if w not in offered} - {"or"}


def _options(words: list[str], i: int) -> list[int]:
    """The places of the options around the "or" at place i: the next word on each side that is no article."""
    before = next((k for k in range(i - 1, -1, -1) if words[k] not in ARTICLES), i)
    after = next((k for k in range(i + 1, len(words)) if words[k] not in ARTICLES), i)
    return [before, after]


def _trimmed(sentence: str, question: str) -> str:
    """A sentence without the words of the question before its verb, and without those at its end."""
    words, asked = sentence.split(), _roots(question)
    bare = [plain(word) for word in words]
    keys = [singular(word) for word in bare]
    known = [k in asked or b in ARTICLES | FILLERS | VERBS or not b for k, b in zip(keys, bare, strict=True)]
    prefix = next((i for i, k in enumerate(known) if not k and bare[i] not in ("in", "of")), len(words))
    verbs = [i for i in range(prefix) if bare[i] in VERBS or bare[i].endswith((" is", " are"))]
    told = [i for i, b in enumerate(bare[:4]) if b in TELLING and 0 < i < len(words) - 1]  # "the clock shows ten"
    first = max([i + 1 for i in verbs[-1:] + told], default=0)
    counts = plain(question).startswith(("how many", "what color", "what colour"))
    if first:
        while first < len(words) - 1 and known[first] and bare[first] not in PREPOSITIONS:
            first += 1
    last = len(words)
    if first or counts or any(b in VERBS for b in bare):
        while last > first + 1 and (keys[last - 1] in asked or bare[last - 1] in ENDINGS):
            last -= 1
    kept = " ".join(words[first:last]) if first < last else sentence
    if plain(question).startswith("how many") and first and plain(kept) in ("no", "not any"):
        return "zero"
    return kept


def _stripped(text: str) -> str:
    """One line without the quotation marks and the full stop around it."""
    text = " ".join(_unmarked(line) for line in text.split("\n")).strip()
    text = re.sub(r"(?<=[^\s.])[.。,;:]$", "", text) if not re.search(r"\b\w\.\w\.$", text) else text
    for opened, closed in ('""', "''", "“”", "‘’", "«»", "「」"):
        if len(text) > 2 and text[0] == opened and text[-1] == closed:
            text = text[1:-1].strip().rstrip(".") or text
    return " ".join(text.split())
