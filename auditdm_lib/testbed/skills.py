"""Skills of the testbed: how to ask about a scene, and what the right answer is.

A skill is a question form with slots and a function from a scene and the slots' words to the answer. A question that
presupposes what is not there, or that has no single answer, is answered "cannot tell".
"""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from auditdm_lib.testbed.scenes import COLOURS, DIGIT, KINDS, Scene, Thing, digit_scans

CANNOT_TELL = "cannot tell"
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
KNOWLEDGE = {  # what a thing is for -> the thing
    "flies": "plane", "keeps you dry": "umbrella", "holds a ship": "anchor", "cuts paper": "scissors",
    "rings": "phone", "holds coffee": "cup", "melts in spring": "snowman", "brings rain": "cloud",
}
PLURALS = {kind: {"cross": "crosses", "scissors": "scissors"}.get(kind, kind + "s") for kind in KINDS}


@dataclass(frozen=True)
class Skill:
    """A question form such as 'what colour is the {kind}?' and its answer function `(scene, slots) -> str`."""

    name: str
    form: str
    answer: Callable[[Scene, dict], str]


@dataclass(frozen=True)
class Question:
    """A question that the world understands: its skill and the words in its slots."""

    skill: str
    slots: dict


def only(scene: Scene, **wanted: str) -> Thing | None:
    """The one thing with these attributes, or None where there is none or more than one."""
    found = [t for t in scene.things if all(getattr(t, k) == v for k, v in wanted.items())]
    return found[0] if len(found) == 1 else None


def _attribute(name: str) -> Callable[[Scene, dict], str]:
    def answer(scene: Scene, slots: dict) -> str:
        thing = only(scene, kind=slots["kind"])
        return CANNOT_TELL if thing is None else getattr(thing, name)
    return answer


def _name(scene: Scene, slots: dict) -> str:
    thing = only(scene, colour=slots["colour"])
    return CANNOT_TELL if thing is None else thing.kind


def _count(scene: Scene, **wanted: str) -> str:
    return NUMBERS[sum(all(getattr(t, k) == v for k, v in wanted.items()) for t in scene.things)]


def _exists(scene: Scene, slots: dict) -> str:
    return "yes" if any(t.colour == slots["colour"] and t.kind == slots["kind"] for t in scene.things) else "no"


def _digit(scene: Scene, slots: dict) -> str:
    thing = only(scene, kind=DIGIT)
    return CANNOT_TELL if thing is None else NUMBERS[digit_scans()[1][thing.scan]]


def _knowledge(scene: Scene, slots: dict) -> str:
    thing = only(scene, kind=KNOWLEDGE[slots["does"]])
    return CANNOT_TELL if thing is None else thing.colour


SKILLS = {s.name: s for s in (
    Skill("colour", "what colour is the {kind}?", _attribute("colour")),
    Skill("name", "what is the {colour} thing?", _name),
    Skill("size", "is the {kind} small or large?", _attribute("size")),
    Skill("row", "which row is the {kind} in?", _attribute("row")),
    Skill("column", "which column is the {kind} in?", _attribute("column")),
    Skill("count_all", "how many things are there?", lambda scene, slots: _count(scene)),
    Skill("count_colour", "how many {colour} things are there?", lambda scene, slots: _count(scene, colour=slots["colour"])),
    Skill("count_kind", "how many {plural} are there?", lambda scene, slots: _count(scene, kind=slots["kind"])),
    Skill("exists", "is there any {colour} {kind}?", _exists),
    Skill("background", "what colour is the background?", lambda scene, slots: scene.background),
    Skill("digit", "which digit is written?", _digit),
    Skill("knowledge", "what colour is the thing that {does}?", _knowledge),
)}
_WORDS = {"kind": KINDS, "colour": tuple(COLOURS), "does": tuple(KNOWLEDGE), "plural": tuple(PLURALS.values())}


def _pattern(form: str) -> re.Pattern:
    parts = re.split(r"\{(\w+)\}", form)
    return re.compile("".join(
        re.escape(part) if i % 2 == 0 else f"(?P<{part}>{'|'.join(_WORDS[part])})" for i, part in enumerate(parts)))


_PATTERNS = {name: _pattern(skill.form) for name, skill in SKILLS.items()}
_SINGULAR = {plural: kind for kind, plural in PLURALS.items()}


@lru_cache(maxsize=100_000)
def parse_question(text: str) -> Question | None:
    """The question that `text` asks, or None where the world has no such question (never an exception)."""
    text = " ".join(text.lower().split())
    for name, pattern in _PATTERNS.items():
        if match := pattern.fullmatch(text):
            slots = match.groupdict()
            if "plural" in slots:
                slots["kind"] = _SINGULAR[slots.pop("plural")]
            return Question(name, slots)
    return None


def phrase(question: Question) -> str:
    """The words of a question; `parse_question(phrase(q)) == q`."""
    slots = question.slots
    return SKILLS[question.skill].form.format(**slots, **({"plural": PLURALS[slots["kind"]]} if "kind" in slots else {}))


def answer(scene: Scene, text: str) -> str | None:
    """The right answer to a question in words; "cannot tell" without a single answer; None outside the language."""
    question = parse_question(text)
    return None if question is None else SKILLS[question.skill].answer(scene, question.slots)


def _draw(scene: Scene, rng: random.Random, skill: str) -> str:
    """A question of one skill, mostly about what is in the scene; it may have no answer."""
    thing = rng.choice(scene.things)
    seen = rng.random() < 0.8
    kind = thing.kind if seen else rng.choice(KINDS)
    colour = thing.colour if seen and (skill != "exists" or rng.random() < 0.6) else rng.choice(tuple(COLOURS))
    present = [does for does, what in KNOWLEDGE.items() if any(t.kind == what for t in scene.things)]
    does = rng.choice(present) if present and seen else rng.choice(tuple(KNOWLEDGE))
    return SKILLS[skill].form.format(kind=kind, colour=colour, plural=PLURALS[kind], does=does)


def sample_answerable(scene: Scene, rng: random.Random, skill: str | None = None, tries: int = 12) -> str | None:
    """A question with an answer; None where a named `skill` shows none for this scene within `tries`."""
    while True:
        chosen = skill or rng.choice(tuple(SKILLS))
        for _ in range(tries):
            text = _draw(scene, rng, chosen)
            if answer(scene, text) != CANNOT_TELL:
                return text
        if skill:
            return None


def sample_question(scene: Scene, rng: random.Random, unanswerable: float = 0.2) -> str:
    """A question about a scene; a share of about `unanswerable` may have no answer."""
    if rng.random() < unanswerable:
        return _draw(scene, rng, rng.choice(tuple(SKILLS)))
    return sample_answerable(scene, rng)
