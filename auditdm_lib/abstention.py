"""Abstention: whether an answer declines to answer, by its meaning and not by a list of texts.

"I cannot tell", "It's too dark to see", "not visible", "n/a" and an empty text decline. "none", "no one", "unclear glass",
"do not enter" and "I'm not sure, but I think it is red" answer.
"""

import re
from functools import lru_cache

from auditdm_lib.folding import plain

WE = "(?:i|we|you|one)"
HOW = ("(?:really |simply |just |honestly |clearly |actually |possibly |reliably |definitively |quite |even |currently |still |"
       "fully )*")
IT = ("(?:it|this|that|which|there|(?:the|this|that) (?:answer|question|image|picture|photo|text|information|context|"
      "exact \\w+))")
THING = "(?:it|this|that|which|they|these|those|there|an answer|(?:the|its|their|his|her) (?:[\\w']+ ){0,4}?[\\w']+)"
FINDING = ("(?:tell|say|know|determine|answer|identify|make (?:\\w+ )?out|discern|recogni[sz]e|read|verify|confirm|assist|help|"
           "provide|access|assess|judge|specify|infer|ascertain|distinguish|decide|find out|give|guess|comment|describe|"
           "speculate|be (?:sure|certain|able to \\w+))")
FOUND = ("be (?:determined|seen|identified|answered|told|known|said|verified|read|confirmed|inferred|discerned|established|"
         "ascertained|made out)")
CANNOT = "(?:cannot|could not|can hardly|will not|would not|am having trouble|have trouble)"
UNABLE_TO = "(?:(?:am |are |is |was |would |will )?(?:not be able|not able|unable) to)"
DO_NOT = "(?:do not|does not|did not)"
HARD_TO = ("(?:(?:is |was )?(?:impossible|not possible|not feasible|(?:too |very |quite )?(?:hard|difficult|tough)) "
           "(?:for me )?to|(?:is |have )?no way (?:to|of))")
LOST = ("(?:not (?:\\w+ly |quite |too |very |so )?(?:visible|discern[ai]ble|determinable|determined|specified|stated|given|shown|"
        "mentioned|provided|legible|readable|identifiable|answerable|applicable|distinguishable|recogni[sz]able|"
        "in (?:view|frame))|unknown|unclear|unanswerable|undetermined|indeterminate|indeterminable|undeterminable|unspecified|"
        "unknowable|illegible|unreadable|indiscernible|indecipherable|undecipherable|indistinguishable|unidentifiable|"
        "unrecogni[sz]able|inconclusive)")
VAGUE = "(?:not (?:\\w+ly |quite |very |so )?(?:clear|known)|not available|unavailable|ambiguous|not possible|impossible)"
UNSURE = "(?:not (?:\\w+ly |quite |too |very |so )?(?:sure|certain)|unsure|uncertain)"
BE = "(?:am |is |are |was |were |be |remains |has been |have been )?"
ABOUT = ("(?:to (?:me|tell|say)|from|in the|in this|in view|of|about|based|what|which|who|where|when|how|if|whether|because|"
         "since|as|due|given|without|at|with|here|that|this|the|it|so|and|or|unless|on|by|enough|yet|sorry|i|exactly|anyone)")
REST, PURPOSE = rf"(?: {ABOUT}\b.*)?", rf"(?: (?:to|for|{ABOUT})\b.*)?"
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
         "(?:i am (?:just |only )?)?(?:as )?an? [\\w ]{0,40}?(?:model|assistant|ai))")
LEAD = "(?:(?:from|based on|in|given|since|because|as|there is|without|with|looking at) .{1,90}? )?"
SEE = "(?:see|view|access)"
A_PICTURE, DETAIL = "(?:image|picture|photo)", "(?:information|context|details?)"

DECLINES = [re.compile(rf"(?:{pattern})") for pattern in (
    rf"{SORRY}\b.{{0,200}}\b(?:(?:{CANNOT}|{UNABLE_TO}|{HARD_TO}|{DO_NOT}) {HOW}(?:{FINDING}|{SEE}|{FOUND}|have)|{LOST}|{UNSURE}|"
    r"no (?:information|way|idea|image))\b.*",
    rf"(?:{LEAD}{WE} )?{HOW}(?:{CANNOT}|{UNABLE_TO}|have no way (?:to|of)) {HOW}(?:{FINDING}|{SEE})\b.*",
    rf"{LEAD}{WE} {HOW}{DO_NOT} {HOW}{FINDING}\b.*",
    rf"{HOW}{DO_NOT} {HOW}know(?: (?:what|which|who|where|how|if|that|this|it)\b.*)?",
    rf".{{1,120}}\bso (?:i|we|it) {HOW}(?:{CANNOT}|{UNABLE_TO}|(?:is )?{HARD_TO}) {HOW}(?:{FINDING}|{SEE}|{FOUND})\b.*",
    rf"(?:(?:i|we) )?{HOW}(?:cannot|could not)",
    rf"{LEAD}(?:{THING} )?{HOW}{CANNOT} {HOW}{FOUND}\b.*",
    rf"{LEAD}(?:(?:{IT}|{WE}) )?{HOW}(?:{HARD_TO}) {HOW}(?:{FINDING}|see|{FOUND})\b.*",
    rf"(?:(?:{THING}|{IT}) )?{BE}{HOW}{LOST}{REST}",
    rf"(?:{IT} )?{BE}{HOW}{VAGUE}(?: (?:from|in|to) (?:the|this|me)\b.*| (?:what|which|who|where|how|if|whether)\b.*)?",
    rf"{THING} is {HOW}not (?:\w+ly )?clear",
    rf"(?:(?:i|we) )?{BE}{HOW}{UNSURE}{PURPOSE}",
    rf"(?:(?:i|we|there|it|{PICTURE}) )?(?:have |has |is |are |with |due to )?{NOTHING_KNOWN}{PURPOSE}",
    rf"(?:(?:i|we|{PICTURE}) )?{DO_NOT} (?:have|contain|provide) (?:enough|sufficient|any|the|access|vision)\b.*",
    rf"(?!because).{{0,80}}\btoo {DIM}\b.{{0,40}}\b(?:to (?:{FINDING}|see|view)|for me)\b.*",
    rf"{PICTURE} {SHOWS_NOT} ?(?:\w+ly )?{SHOWS}\b.*",
    rf"(?:(?:i|it|there|no)\b.*\b)?no {A_PICTURE} (?:was |is |has been )?(?:provided|attached|uploaded|given)\b.*",
    rf"i (?:do not|cannot) see (?:an?|any) {A_PICTURE}(?: attached| here| provided)?",
    rf"(?:please|could you|can you)\b.*\b(?:provide|upload|share|attach) (?:an?|the|your) {A_PICTURE}\b.*",
    r"(?:none|neither) of (?:the|these|those) (?:above|options|choices|answers|given options)(?: .*)?",
    r"n ?/ ?a|n a|not applicable|no (?:comment|answer|response|reply)|idk|dunno|(?:who|god|nobody) knows|beats me",
    r"(?:it is )?any(?:one|body)'s guess|(?:i )?(?:have not|haven't) a clue|it does not say",
    r"your guess is as good as mine|(?:(?:it|this|that) )?could be anything",
    r"i (?:refuse|decline|must decline|have to decline|would rather not|prefer not|am not comfortable)\b.*",
    rf"(?:(?:i|we) (?:would )?)?(?:needs?|requires?) (?:more|further|additional|a clearer) (?:{DETAIL}|{A_PICTURE})\b.*",
    rf"more {DETAIL} (?:is|are) (?:needed|required)\b.*",
    rf"(?:without|with no) .{{3,60}} (?:i|it|we|one) {HOW}(?:{CANNOT}|{UNABLE_TO}|{HARD_TO})\b.*",
)]
ABBREVIATED = ("na", "NA", "N.A.", "n.a.", "N.A", "n.a")
TELLS = re.compile(r"(?:the|this|that|a) [\w ]{1,40}? (?:says|said|reads)\b")  # "the sign says no information" answers
HEDGED = re.compile(r"\b(?:but|however|though|although)\b (?P<rest>.+)$")
GUESSES = re.compile(r"\b(?:probably|possibly|maybe|perhaps|likely|looks?|appears?|seems?|guess|think|believe|"
                     r"(?:could|might|may) be|is|are)\b")


@lru_cache(100_000)
def abstains(text: str | None) -> bool:
    """Whether an answer declines to answer, is empty, or is missing (None: not asked, unfinished, or an error)."""
    if text is None or not text.strip():
        return True
    if text.strip() in ABBREVIATED:
        return True
    words = plain(text)
    if TELLS.match(words):
        return False
    hedged = HEDGED.search(words)
    if hedged and _declines(words[:hedged.start()].strip()):  # "I am not sure, but it looks red" answers
        return _declines(hedged["rest"]) or not GUESSES.search(hedged["rest"])
    return _declines(words)


def _declines(words: str) -> bool:
    return any(pattern.fullmatch(words) for pattern in DECLINES)
