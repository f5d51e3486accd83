"""Abstention: whether an answer declines to answer, by its meaning and not by a list of texts.

"I cannot tell", "It's too dark to see", "not visible", "n/a" and an empty text decline. "none", "no one", "unclear glass",
"do not enter" and "I'm not sure, but I think it is red" answer.
"""

import re
from functools import lru_cache

from auditdm_lib.folding import plain

WE = "(?:(?:i|we|you|one) )?"
SUBJECT = ("(?:(?:i|we|you|one|it|this|that|which|he|she|they|there|an answer|"
           "(?:the|this|that|its|their|his|her) (?:\\w+ ){0,4}?\\w+) )?")
HOW = "(?:really |simply |just |honestly |clearly |actually |possibly |reliably |definitively |quite |even |currently )*"
FINDING = ("(?:tell|say|know|determine|answer|identify|make (?:\\w+ )?out|discern|recogni[sz]e|read|verify|confirm|assist|help|"
           "provide|access|assess|judge|specify|infer|ascertain|distinguish|decide|find out|give|guess|comment|describe|"
           "be (?:sure|certain))")
FOUND = ("be (?:determined|seen|identified|answered|told|known|said|verified|read|confirmed|inferred|discerned|established|"
         "made out)")
CANNOT = "(?:cannot|could not|can hardly)"
UNABLE_TO = "(?:(?:am |are |is |was )?(?:not able|unable) to)"
HARD_TO = ("(?:(?:is |was )?(?:impossible|not possible|not feasible|(?:too )?(?:hard|difficult|tough)) (?:for me )?to|"
           "(?:is |have )?no way (?:to|of))")
UNSURE = ("(?:not (?:\\w+ly |quite |too |very |so )?(?:sure|certain|clear|known|visible|discernible|determinable|determined|"
          "specified|stated|given|shown|mentioned|provided|legible|readable|identifiable|available|answerable|possible|applicable|"
          "distinguishable|recogni[sz]able|in (?:view|frame))|unsure|uncertain|unknown|unclear|unanswerable|undetermined|"
          "indeterminate|indeterminable|undeterminable|unspecified|unknowable|illegible|unreadable|indiscernible|"
          "indistinguishable|unidentifiable|unavailable|impossible|ambiguous|inconclusive)")
REST = ("(?: (?:to|from|in|of|about|based|what|which|who|where|when|how|if|whether|because|since|as|due|given|without|at|for|"
        "with|here|that|this|the|it|so|and|or|unless|on|by|enough|yet|sorry|i|exactly|anyone)\\b.*)?")
NOTHING_KNOWN = ("(?:(?:no|not any|insufficient|not enough|too little|not sufficient|inadequate|no \\w+) ?"
                 "(?:real |clear |visual |further |relevant |specific )*"
                 "(?:idea|clue|information|info|data|context|details?|evidence|answer|indication|way of knowing)"
                 "(?: (?:available|given|provided|visible))?)")
PICTURE = ("(?:the|this|that) (?:provided |given )?"
           "(?:image|picture|photo|photograph|scene|question|information|text|context|view)(?: itself)?")
SHOWS_NOT = "(?:does not|do not|cannot|is not|provides? no|gives? no|contains? no|has no|offers? no|lacks?)"
SHOWS = ("(?:show|provide|contain|give|include|specify|state|say|tell|indicate|mention|reveal|allow|make|have|depict|display|"
         "offer|clear|visible|answerable|information|enough|sufficient|be answered|legible|available|indication|clue|detail|"
         "way|the|any)")
DIM = ("(?:blurry|dark|small|far|unclear|low|faint|blurred|fuzzy|tiny|bright|distant|grainy|pixelated|obscured|vague|"
       "cropped)")
SORRY = ("(?:(?:i am |we are )?(?:so |very |really |terribly )?(?:sorry|afraid)|(?:i |my )?apolog\\w+|unfortunately|regrettably|"
         "as an? [\\w ]*?(?:model|assistant|ai))")

DECLINES = [re.compile(rf"(?:{pattern})") for pattern in (
    rf"{SORRY}\b.*\b(?:{CANNOT}|{UNABLE_TO}|{HARD_TO}|do not|{UNSURE}|not|no)\b.*",
    rf"{WE}{HOW}(?:{CANNOT}|{UNABLE_TO}|do not|does not|did not|would not|have no way (?:to|of)) {HOW}{FINDING}\b.*",
    rf"{WE}{HOW}(?:{CANNOT}|{UNABLE_TO}) {HOW}(?:see|view|access)\b.*",
    rf"(?:(?:i|we) )?{HOW}(?:cannot|could not)",
    rf"{SUBJECT}{HOW}{CANNOT} {HOW}{FOUND}\b.*",
    rf"{SUBJECT}{HOW}{HARD_TO} {HOW}(?:{FINDING}|see|{FOUND})\b.*",
    rf"{SUBJECT}(?:am |is |are |was |were |be |remains |has been |have been )?{HOW}{UNSURE}{REST}",
    rf"{SUBJECT}(?:have |has |is |are |with |due to )?{NOTHING_KNOWN}{REST}",
    r"(?:(?:i|we|the \w+) )?(?:do not|does not) (?:have|contain|provide) (?:enough|sufficient|any|the)\b.*",
    rf".{{0,80}}\btoo {DIM}\b.{{0,40}}\b(?:to (?:{FINDING}|see|view)|for me)\b.*",
    rf"{PICTURE} {SHOWS_NOT} ?(?:\w+ly )?{SHOWS}\b.*",
    r"(?:none|neither) of (?:the|these|those) (?:above|options|choices|answers|given options)(?: .*)?",
    r"n ?/ ?a|n a|na|not applicable|no (?:comment|answer|response|reply)|idk|dunno|who knows|beats me",
    r"your guess is as good as mine|(?:(?:it|this|that) )?could be anything",
    r"(?:i )?(?:refuse|decline|must decline|have to decline|would rather not|prefer not)\b.*",
    r"(?:(?:i|we) (?:would )?)?(?:needs?|requires?) (?:more|further|additional) (?:information|context|details?)\b.*",
    rf"(?:without|with no) .{{3,60}} (?:i|it|we|one) {HOW}(?:{CANNOT}|{UNABLE_TO}|{HARD_TO})\b.*",
)]
HEDGED = re.compile(r"\b(?:but|however|though|although)\b (?P<rest>.+)$")
GUESSES = re.compile(r"\b(?:probably|possibly|maybe|perhaps|likely|looks?|appears?|seems?|guess|think|believe|"
                     r"(?:could|might|may) be|is|are)\b")


@lru_cache(100_000)
def abstains(text: str | None) -> bool:
    """Whether an answer declines to answer, is empty, or is missing (None: not asked, unfinished, or an error)."""
    if text is None or not text.strip():
        return True
    words = plain(text)
    hedged = HEDGED.search(words)
    if hedged and _declines(words[:hedged.start()].strip()):  # "I am not sure, but it looks red" answers
        return _declines(hedged["rest"]) or not GUESSES.search(hedged["rest"])
    return _declines(words)


def _declines(words: str) -> bool:
    return any(pattern.fullmatch(words) for pattern in DECLINES)
