"""Replies of models: the short answer in what a chat model writes, and texts made safe to store and show.

A panel compares short answers. A chat model thinks aloud, repeats the question, adds emphasis and explains; `short_answer` takes
its thinking and its format away and leaves the sentence to `sentences`.
"""

import json
import re
import unicodedata
from functools import lru_cache

from auditdm_lib.folding import plain
from auditdm_lib.sentences import from_sentence, unmarked
from auditdm_lib.wording import singular

THINKING = "think|thinking|thought|reasoning"
THOUGHT = re.compile(rf"<({THINKING})>.*?</\1>|◁think▷.*?◁/think▷|\[THINK\].*?\[/THINK\]", re.DOTALL | re.IGNORECASE)
THOUGHT_ENDS = re.compile(rf"</(?:{THINKING})>|◁/think▷|\[/THINK\]", re.IGNORECASE)
THOUGHT_BEGINS = re.compile(rf"<(?:{THINKING})>|◁think▷|\[THINK\]", re.IGNORECASE)
SPECIAL = re.compile(r"<\|[^|<>]{1,40}\|>|^\s*assistant\s*\n")
TAGGED = re.compile(r"<answer>(.+?)</answer>", re.DOTALL | re.IGNORECASE)
IS = r"[*_ ]*(?::|-|–|\bis\b|\bwould be\b)[*_: ]*([^\n]+)"
STATED = re.compile(
    rf"^(?:(?:so|therefore|thus|hence|final|the|my|short|correct)[, ]+)*(?:answer|conclusion|a(?=:))\b{IS}", re.IGNORECASE)
MENTIONED = re.compile(rf"\b(?:answer|conclusion)\b(?:(?: to| for) [^.:\n]{{1,80}}?)?{IS}", re.IGNORECASE)
POLITE = re.compile(
    r"(?:sure|hmm|certainly|of course|absolutely|great question|good question|okay|ok|well|hi|hello|thank you|thanks|"
    r"(?:based on|looking at|according to|from (?:what|the)|upon)[^,.]{1,60}|"
    r"in (?:the|this) (?:image|picture|photo|photograph|scene)|"
    r"i think|i believe|i would say|it seems|it appears)\s*[,!.:;-]+\s*", re.IGNORECASE)
HEADING = re.compile(r".*:|(?:(?:final|short|my|the) )*(?:answer|response|solution|result)", re.IGNORECASE)
KEYED = re.compile(r"([\w' ]{2,40}): *(\S.*)")
ITEM = re.compile(r"\s*(?:\d{1,2}[.)]|[-*•])\s+(?=\S)")


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

    A thinking block is dropped; an answer in tags, in JSON, in a box or after "Answer:" is taken; else the first sentence,
    without the words of the question around the answer. A sentence about a yes/no question gives "yes" or "no", one that declines
    to answer "cannot tell". An answer of few words stays as it is. A reply that only thinks gives "".
    """
    text = SPECIAL.sub(" ", without_thought(reply)).strip()
    if given := _in_json(text):
        text = given
    if tagged := TAGGED.findall(text) or _boxed(text):
        return from_sentence(tagged[-1].strip(), question)
    raw = [line for line in text.splitlines() if unmarked(line)]
    lines = [unmarked(line) for line in raw]
    if not lines:
        return ""
    listed = [bool(ITEM.match(line)) for line in raw]
    for pattern in (STATED, MENTIONED):
        if stated := [found[1] for line in lines if (found := pattern.search(line)) and len(line.split()) > 1]:
            return from_sentence(_polite_off(stated[-1]), question)
    if any(listed) and len(lines) > 1:
        text = _of_list(lines, listed, raw, question)
    else:
        text = next((line for line in lines if not HEADING.fullmatch(line)), lines[-1])
    return from_sentence(_polite_off(_unkeyed(text, question)), question)


def without_thought(reply: str) -> str:
    """A reply without its thinking block; "" where the block is never closed."""
    text = THOUGHT.sub("", reply)
    if ends := list(THOUGHT_ENDS.finditer(text)):  # templates may open the block in the prompt
        text = text[ends[-1].end():]
    return "" if THOUGHT_BEGINS.search(text) else text.strip()


def _in_json(text: str) -> str | None:
    """The value of "answer" in a reply that is a JSON object, perhaps in a code block; None for any other reply."""
    body = re.sub(r"^```\w*\s*|\s*```$", "", text.strip())
    if not body.startswith("{") or len(body) > 5000:
        return None
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    lone = next(iter(found.values())) if len(found) == 1 else None
    value = next((found[key] for key in found if key.lower() == "answer"), lone)
    return str(value) if isinstance(value, str | int | float) else None


def _boxed(text: str) -> list[str]:
    r"""What stands in the last \boxed{...}, braces within included."""
    start, depth = text.rfind("\\boxed{"), 0
    for i in range(start + 6, len(text) if start >= 0 else 0):
        depth += (text[i] == "{") - (text[i] == "}")
        if depth == 0:
            return [text[start + 7:i]]
    return []


def _of_list(lines: list[str], listed: list[bool], raw: list[str], question: str) -> str:
    """What a reply with a list says: for a number the line that is no item, or else how many items; else all items."""
    spoken = [line for line, item in zip(lines, listed, strict=True) if not item and not HEADING.fullmatch(line)]
    items = [unmarked(ITEM.sub("", line)) for line, item in zip(raw, listed, strict=True) if item]
    if plain(question).startswith("how many"):
        return spoken[-1] if spoken else str(len(items))
    return spoken[0] if spoken and not listed[0] else ", ".join(item.rstrip(".") for item in items)


def _unkeyed(text: str, question: str) -> str:
    """The value in "Colour: red", where the question asks for a colour."""
    asked = {singular(word) for word in plain(question).split()} | {"color", "colour", "number", "count", "the", "of"}
    keyed = KEYED.fullmatch(text)
    return keyed[2] if keyed and all(singular(word) in asked for word in plain(keyed[1]).split()) else text


def _polite_off(text: str) -> str:
    """A text without the politeness and the references to the picture that it begins with."""
    while (polite := POLITE.match(text)) and text[polite.end():].strip():
        text = text[polite.end():].strip()
    return text
