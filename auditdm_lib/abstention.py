"""Abstention: whether an answer declines to answer, by its meaning and not by a list of texts.

"I cannot tell", "It's too dark to see", "not visible", "n/a" and an empty text decline. "none", "no one", "unclear glass", "do not
enter" and "I'm not sure, but I think it is red" answer.
"""

import re
from functools import lru_cache

from auditdm_lib.folding import plain

FINDING = ("tell|say|know|see|determine|answer|identify|make out|discern|recogni[sz]e|read|verify|confirm|assist|help|provide|view|"
           "access|assess|judge|specify|infer|ascertain|distinguish|decide|find out|give|guess|comment|describe|"
           "be (?:sure|certain|determined|seen|identified|answered|told|known|said|verified|read|confirmed|inferred|discerned)")
HOW = "(?:really |simply |just |honestly |clearly |actually |possibly |reliably |definitively |quite |even |currently )*"
WHO = "(?:i|we|you|one|it|this|that|which|he|she|they|there|an answer|(?:the|this|that|its|their|his|her) (?:\\w+ ){0,4}?\\w+)"
UNABLE = ("cannot|could not|can hardly|do not|does not|did not|would not|(?:am |are |is |was )?(?:not able|unable) to|"
          "(?:is |was )?(?:impossible|not possible|not feasible) to|(?:is |have |has |there is )?no way (?:to|of)|"
          "(?:is |was )?(?:too )?(?:hard|difficult|tough) to")
UNSURE = ("(?:not (?:\\w+ly |quite |too |very |so )?(?:sure|certain|clear|known|visible|discernible|determinable|determined|specified|"
          "stated|given|shown|mentioned|provided|legible|readable|identifiable|available|answerable|possible|applicable|"
          "distinguishable|recogni[sz]able|in (?:view|frame)))|unsure|uncertain|unknown|unclear|unanswerable|undetermined|"
          "indeterminate|indeterminable|undeterminable|unspecified|unknowable|illegible|unreadable|indiscernible|indistinguishable|"
          "unidentifiable|unavailable|impossible|ambiguous|inconclusive")
REST = ("(?: (?:to|from|in|of|about|based|what|which|who|where|when|how|if|whether|because|since|as|due|given|without|at|for|with|"
        "here|that|this|the|it|so|and|or|unless|on|by|enough|yet|sorry|i|exactly|anyone)\\b.*)?")
NOTHING_KNOWN = ("(?:no|not any|insufficient|not enough|too little|not sufficient|inadequate|no (?:\\w+ )?) ?(?:real |clear |visual |further |"
                 "relevant |specific )*(?:idea|clue|information|info|data|context|details?|evidence|answer|indication|way of knowing)")
PICTURE = "(?:the|this|that|provided|given) (?:provided |given )?(?:image|picture|photo|photograph|scene|question|information|text|context|view)(?: itself)?"
SHOWS = ("show|provide|contain|give|include|specify|state|say|tell|indicate|mention|reveal|allow|make|have|depict|display|offer|"
         "clear|visible|answerable|information|enough|sufficient|be answered|legible|available|indication|clue|detail|way")
DIM = "(?:blurry|dark|small|far|unclear|low|faint|blurred|fuzzy|tiny|bright|distant|grainy|pixelated|obscured|vague|cropped)"
DECLINES = [re.compile(rf"^(?:{pattern})$") for pattern in (
    "",
    rf"(?:(?:i am |we are )?(?:so |very |really |terribly )?(?:sorry|afraid)|(?:i |my )?apolog\w+|unfortunately|regrettably|as an? [\w ]*?(?:model|assistant|ai))\b"
    rf".*\b(?:{UNABLE}|not|no|{UNSURE})\b.*",
    rf"(?:{WHO} )?{HOW}(?:{UNABLE}) {HOW}(?:{FINDING})\b(?: .*)?",
    rf"(?:(?:i|we) )?{HOW}(?:cannot|could not)",
    rf"(?:{WHO} )?(?:am |is |are |was |were |be |remains |has been |have been )?{HOW}(?:{UNSURE}){REST}",
    rf"(?:{WHO} )?(?:have |has |is |are |with |due to )?{NOTHING_KNOWN}\b.*",
    rf".{{0,80}}\btoo {DIM}\b.{{0,40}}\b(?:to (?:{FINDING})|for me)\b.*",
    rf"{PICTURE} (?:does not|do not|cannot|is not|provides? no|gives? no|contains? no|has no|offers? no|lacks?)\b ?(?:\w+ly )?(?:{SHOWS}|the|any)\b.*",
    r"(?:none|neither) of (?:the|these|those) (?:above|options|choices|answers|given options)(?: .*)?",
    r"n ?/ ?a|n a|not applicable(?: .*)?|no (?:comment|answer|response|reply)|idk|dunno|who knows|beats me|your guess is as good as mine",
    r"(?:(?:it|this|that) )?could be anything|cannot answer.*|unable to answer.*|(?:i )?(?:refuse|decline|must decline|have to decline|would rather not|prefer not)\b.*",
    r"(?:only|need|needs|requires?) (?:more|further|additional) (?:information|context|details?).*",
    rf"(?:i|we) (?:would )?(?:need|require) (?:more|further|additional|to see)\b.*",
    rf"(?:without|with no) .{{3,60}} (?:i|it|we|one) {HOW}(?:{UNABLE})\b.*",
)]
HEDGED = re.compile(r"\b(?:but|however|though|although)\b (?P<rest>.+)$")
SAYS = re.compile(r"\b(?:probably|possibly|maybe|perhaps|likely|looks? like|looks|appears?|seems?|guess|think|believe|could be|might be|may be|is|are)\b")


@lru_cache(100_000)
def abstains(text: str | None) -> bool:
    """Whether an answer declines to answer, is empty, or is missing (None: not asked, unfinished, or an error)."""
    if text is None or not text.strip():
        return True
    words = plain(text)
    if not words:  # marks alone, such as "+", are answers
        return False
    if hedged := HEDGED.search(words):  # "I am not sure, but it looks red" answers
        if _declines(words[:hedged.start()].strip()):
            return _declines(hedged["rest"]) or not SAYS.search(hedged["rest"])
    return _declines(words)


def _declines(words: str) -> bool:
    return any(pattern.match(words) for pattern in DECLINES)
