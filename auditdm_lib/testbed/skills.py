"""Skills of the testbed: question forms about a scene, and the right answers.

A skill has several question forms with slots, and a function from a scene and the words in the slots to the answer. The right
answer to a question that presupposes what is not there, or that has no single answer, is "cannot tell". To add a skill, add a
row to `SKILLS`.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache

from auditdm_lib.testbed.scenes import (
    BACKGROUNDS,
    BEAD,
    BOTH_SIZES,
    COLOURS,
    COLUMNS,
    DETAILS,
    DIGIT,
    KINDS,
    MATERIALS,
    NUMBERS,
    ROWS,
    SHAPES,
    WEATHERS,
    Scene,
    Thing,
    neighbour,
)

CANNOT_TELL = "cannot tell"
NOTHING, SAME, YES_NO = "nothing", "the same", ("yes", "no")
KNOWLEDGE = {  # what a thing does or is for -> the thing
    "flies": "plane", "keeps you dry": "umbrella", "holds a ship": "anchor", "cuts paper": "scissors",
    "rings": "phone", "holds coffee": "cup", "melts in spring": "snowman", "brings rain": "cloud",
    "gives milk": "cow", "catches mice": "cat", "eats cheese": "mouse", "is worn by a king": "crown", "waxes and wanes": "moon",
    "weighs things": "scales", "comes with thunder": "bolt", "smells sweet": "flower", "has a stamp": "letter",
    "writes": "pencil",
}
RIVALS = {"melts in spring": "snowflake"}  # also does it; where one is present, the question has no single answer
_IRREGULAR = {"cross": "crosses", "scissors": "scissors", "scales": "scales", "person": "people", "mouse": "mice",
              "snowman": "snowmen"}
PLURALS = {kind: _IRREGULAR.get(kind, kind + "s") for kind in KINDS}
SINGULAR = {plural: kind for kind, plural in PLURALS.items()}
WHERE = {"left of": "left", "right of": "right", "above": "above", "below": "below"}
RANKS = {"first": 0, "last": -1}
HEIGHTS = {"left": 0, "middle": 1, "right": 2}
SLOTS = {  # slot of a question form -> its words
    "kind": KINDS, "kind2": KINDS, "shape": SHAPES, "plural": tuple(SINGULAR),
    "colour": tuple(COLOURS), "colour2": tuple(COLOURS), "does": tuple(KNOWLEDGE), "where": tuple(WHERE), "row": ROWS,
    "rank": tuple(RANKS), "bar": tuple(HEIGHTS),
    "beside": tuple(f"{colour} {kind}" for colour in COLOURS for kind in KINDS)}


@dataclass(frozen=True)
class Skill:
    """A type of question.

    `category` is the failure category of the paper's Figure 4 that the skill stands in for, or "". `forms` are the wordings;
    `answers` all possible right answers except "cannot tell"; `answer(scene, slots)` the right one. `about` is the kind of
    thing asked about where no slot names it; `asks` selects the things worth asking about. `balance(answer, slots)` assigns a
    question to one of `classes`; the class is drawn first, so that the most frequent answer is not a good guess.
    """

    name: str
    category: str
    forms: tuple[str, ...]
    answers: tuple[str, ...]
    answer: Callable[[Scene, dict], str]
    about: str = ""
    asks: Callable[[Scene, Thing], bool] = lambda scene, thing: True
    balance: Callable[[str, dict], str] | None = None
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Question:
    """A parsed question: its skill and the words in its slots."""

    skill: str
    slots: dict


def only(scene: Scene, **wanted: str) -> Thing | None:
    """The only thing with these attributes; None where there is none or more than one."""
    found = [t for t in scene.things if all(getattr(t, k) == v for k, v in wanted.items())]
    return found[0] if len(found) == 1 else None


def _attribute(name: str, kind: str = "", slot: str = "kind") -> Callable[[Scene, dict], str]:
    """An answer function: an attribute of the only thing of a kind, which is `kind` or the one named in a slot."""
    def answer(scene: Scene, slots: dict) -> str:
        thing = only(scene, kind=kind or slots[slot])
        return CANNOT_TELL if thing is None or not getattr(thing, name) else getattr(thing, name)
    return answer


def _kind(thing: Thing | None) -> str:
    return CANNOT_TELL if thing is None else thing.kind


def _pair(compare: Callable[[Thing, Thing, dict], str]) -> Callable[[Scene, dict], str]:
    """An answer function that compares the only thing of one kind with the only thing of another."""
    def answer(scene: Scene, slots: dict) -> str:
        a, b = (only(scene, kind=slots[slot]) for slot in ("kind", "kind2"))
        return CANNOT_TELL if a is None or b is None or a is b else compare(a, b, slots)
    return answer


def _order(a: int, b: int, before: str, after: str) -> str:
    return CANNOT_TELL if a == b else before if a < b else after


def _count(scene: Scene, **wanted: str) -> int:
    return sum(all(getattr(t, k) == v for k, v in wanted.items()) for t in scene.things)


def _exists(scene: Scene, slots: dict) -> str:
    return "yes" if _count(scene, colour=slots["colour"], kind=slots["kind"]) else "no"


def _knowledge(scene: Scene, slots: dict) -> str:
    thing = only(scene, kind=KNOWLEDGE[slots["does"]])
    return CANNOT_TELL if thing is None or _count(scene, kind=RIVALS.get(slots["does"], "")) else thing.colour


def _neighbour(scene: Scene, slots: dict) -> str:
    thing = only(scene, kind=slots["kind"])
    if thing is None:
        return CANNOT_TELL
    beside = scene.at(neighbour(thing.cell, WHERE[slots["where"]]))
    return beside.kind if beside else NOTHING


def _size(scene: Scene, slots: dict) -> str:
    thing = only(scene, kind=slots["kind"])
    return thing.size if thing and thing.kind in BOTH_SIZES else CANNOT_TELL


def _larger(a: Thing, b: Thing, slots: dict) -> str:
    if not {a.kind, b.kind} <= set(BOTH_SIZES):
        return CANNOT_TELL
    return SAME if a.size == b.size else a.kind if a.size == "large" else b.kind


def _despite(scene: Scene, slots: dict) -> str:
    """The colour of a thing, regardless of the other thing in the scene that the question mentions first."""
    colour, kind = slots["beside"].split()
    if kind == slots["kind"] or not _count(scene, colour=colour, kind=kind):
        return CANNOT_TELL
    return _attribute("colour")(scene, slots)


def _hider(scene: Scene, slots: dict) -> str:
    thing = only(scene, kind=slots["kind"])
    return CANNOT_TELL if thing is None else _kind(scene.coverer(thing))


def _more(scene: Scene, slots: dict) -> str:
    a, b = (_count(scene, colour=slots[slot]) for slot in ("colour", "colour2"))
    if slots["colour"] == slots["colour2"] or a == b == 0:
        return CANNOT_TELL
    return SAME if a == b else slots["colour"] if a > b else slots["colour2"]


def _ranked(scene: Scene, slots: dict) -> str:
    row = [t for t in scene.things if t.row == slots["row"]]
    return _kind(row[RANKS[slots["rank"]]] if row else None)


def _sum(scene: Scene, slots: dict) -> str:
    digits = [NUMBERS.index(t.detail) for t in scene.things if t.kind == DIGIT]
    return NUMBERS[sum(digits)] if len(digits) == 2 else CANNOT_TELL


def _bars(scene: Scene) -> list[int] | None:
    chart = only(scene, kind="chart")
    return [NUMBERS.index(word) for word in chart.detail.split()] if chart else None


def _bar_height(scene: Scene, slots: dict) -> str:
    bars = _bars(scene)
    return NUMBERS[bars[HEIGHTS[slots["bar"]]]] if bars else CANNOT_TELL


def _highest(scene: Scene, slots: dict) -> str:
    bars = _bars(scene)
    return tuple(HEIGHTS)[bars.index(max(bars))] if bars and bars.count(max(bars)) == 1 else CANNOT_TELL


def _place(scene: Scene, slots: dict) -> str:
    bead = only(scene, kind=BEAD)
    return CANNOT_TELL if bead is None else f"{bead.row} {bead.column}"


def _winner(right: str, slots: dict) -> str:
    return SAME if right == SAME else "first" if right == slots.get("kind", slots.get("colour")) else "second"


def _by_answer(right: str, slots: dict) -> str:
    return right


_contest = dict(balance=_winner, classes=(SAME, "first", "second"))
_sized = dict(asks=lambda scene, thing: thing.kind in BOTH_SIZES)
_EMOTION = "Emotion (Atmosphere / Weather) Understanding"
_colours, _counts = tuple(COLOURS), NUMBERS[:10]

SKILLS = {s.name: s for s in (
    # Attributes, positions and numbers of the most common things.
    Skill("colour", "Color Recognition", ("what colour is the {kind}?", "which colour does the {kind} have?"),
          _colours, _attribute("colour")),
    Skill("name", "", ("what is the {colour} thing?", "which thing is {colour}?"),
          KINDS, lambda scene, slots: _kind(only(scene, colour=slots["colour"]))),
    Skill("size", "", ("is the {kind} small or large?", "how large is the {kind}?"),
          ("small", "large"), _size, **_sized, balance=_by_answer, classes=("small", "large")),
    Skill("row", "", ("which row is the {kind} in?", "how high up is the {kind}?"),
          ROWS, _attribute("row")),
    Skill("column", "", ("which column is the {kind} in?", "how far right is the {kind}?"),
          COLUMNS, _attribute("column")),
    Skill("count_all", "Counting", ("how many things are there?", "how many things does the picture show?"),
          _counts, lambda scene, slots: NUMBERS[_count(scene)]),
    Skill("count_colour", "Counting", ("how many {colour} things are there?", "how many things are {colour}?"),
          _counts, lambda scene, slots: NUMBERS[_count(scene, colour=slots["colour"])]),
    Skill("count_kind", "Counting", ("how many {plural} are there?", "what is the number of {plural}?"),
          _counts, lambda scene, slots: NUMBERS[_count(scene, kind=slots["kind"])],
          balance=lambda right, slots: right if right in ("zero", "one") else "more", classes=("zero", "one", "more")),
    Skill("exists", "Hallucination Avoidance", ("is there any {colour} {kind}?", "do you see any {colour} {kind}?"),
          YES_NO, _exists, balance=_by_answer, classes=YES_NO),
    Skill("background", "", ("what colour is the background?", "which colour is behind the things?"),
          tuple(BACKGROUNDS), lambda scene, slots: scene.background),
    Skill("digit", "", ("which digit is written?", "which digit can be read?"),
          DETAILS[DIGIT], _attribute("detail", DIGIT), about=DIGIT),
    Skill("knowledge", "World Knowledge", ("what colour is the thing that {does}?", "which colour has the thing that {does}?"),
          _colours, _knowledge),
    # What one thing or the whole picture shows.
    Skill("clock", "Clock Reading", ("what time does the clock show?", "which hour is it on the clock?"),
          DETAILS["clock"], _attribute("detail", "clock"), about="clock"),
    Skill("action", "Action Recognition", ("what is the person doing?", "which action does the person show?"),
          DETAILS["person"], _attribute("detail", "person"), about="person"),
    Skill("sign", "Sign Understanding", ("what does the sign mean?", "which message does the sign give?"),
          DETAILS["sign"], _attribute("detail", "sign"), about="sign"),
    Skill("text", "Small Text Recognition", ("which word is written?", "which word can be read?"),
          DETAILS["word"], _attribute("detail", "word"), about="word"),
    Skill("mood", _EMOTION, ("how does the face look?", "which mood does the face show?"),
          DETAILS["face"], _attribute("detail", "face"), about="face"),
    Skill("orientation", "", ("which way does the arrow point?", "in which direction does the arrow point?"),
          DETAILS["arrow"], _attribute("detail", "arrow"), about="arrow"),
    Skill("chart", "", ("how high is the {bar} bar of the chart?", "which height has the {bar} bar of the chart?"),
          NUMBERS[1:5], _bar_height, about="chart"),
    Skill("peak", "", ("which bar of the chart is the highest?", "where is the highest bar of the chart?"),
          tuple(HEIGHTS), _highest, about="chart"),
    Skill("small_object", "Small Object Detection", ("where is the tiny bead?", "in which place is the tiny bead?"),
          tuple(f"{row} {column}" for row in ROWS for column in COLUMNS), _place, about=BEAD),
    Skill("material", "Material Recognition", ("is the {shape} plain, striped, dotted or hollow?", "how is the {shape} filled?"),
          MATERIALS, _attribute("material", slot="shape"), asks=lambda scene, thing: thing.kind in SHAPES),
    Skill("weather", _EMOTION, ("what is the weather like?", "what is the weather behind the things?"),
          WEATHERS, lambda scene, slots: scene.weather),
    Skill("distraction", "Distraction Avoidance", ("there is a {beside}. what colour is the {kind}?",
                                                   "forget the {beside}: what colour is the {kind}?"),
          _colours, _despite),
    # Relations between several things.
    Skill("compare_size", "Size Comparison", ("which is larger, the {kind} or the {kind2}?",
                                              "is the {kind} or the {kind2} larger?"),
          (*KINDS, SAME), _pair(_larger), **_sized, **_contest),
    Skill("neighbour", "Object Relationship", ("what is directly {where} the {kind}?", "which thing is just {where} the {kind}?"),
          (*KINDS, NOTHING), _neighbour, balance=lambda right, slots: NOTHING if right == NOTHING else "thing",
          classes=(NOTHING, "thing", "thing")),
    Skill("side", "Spatial Relationship", ("is the {kind} left or right of the {kind2}?",
                                           "on which side of the {kind2} is the {kind}?"),
          ("left", "right"), _pair(lambda a, b, slots: _order(a.cell % 3, b.cell % 3, "left", "right"))),
    Skill("height", "Spatial Relationship", ("is the {kind} above or below the {kind2}?",
                                             "compared with the {kind2}, is the {kind} above or below?"),
          ("above", "below"), _pair(lambda a, b, slots: _order(a.cell // 3, b.cell // 3, "above", "below"))),
    Skill("occlusion", "", ("what partly hides the {kind}?", "which thing is in front of the {kind}?"),
          SHAPES, _hider, asks=lambda scene, thing: scene.coverer(thing) is not None),
    Skill("same_colour", "", ("are the {kind} and the {kind2} of the same colour?",
                              "do the {kind} and the {kind2} share a colour?"),
          YES_NO, _pair(lambda a, b, slots: "yes" if a.colour == b.colour else "no"), balance=_by_answer,
          classes=("yes", "yes", "no")),  # in few scenes the answer can be "yes"
    Skill("compare_counts", "", ("which are more, the {colour} or the {colour2} things?",
                                 "are more things {colour} or {colour2}?"),
          (*_colours, SAME), _more, **_contest),
    Skill("order", "", ("what is the {rank} thing in the {row} row?", "which thing comes {rank} in the {row} row?"),
          KINDS, _ranked),
    Skill("negation", "", ("how many things are not {colour}?", "how many things have another colour than {colour}?"),
          _counts, lambda scene, slots: NUMBERS[len(scene.things) - _count(scene, colour=slots["colour"])]),
    Skill("arithmetic", "", ("what is the sum of the two digits?", "what do the two digits add up to?"),
          NUMBERS, _sum, about=DIGIT),
)}


def slots_of(form: str) -> list[str]:
    """The slots of a question form: 'is there any {colour} {kind}?' has 'colour' and 'kind'."""
    return re.findall(r"\{(\w+)\}", form)


@cache
def _pattern(form: str) -> re.Pattern:
    parts = re.split(r"\{(\w+)\}", form)
    return re.compile("".join(
        f"(?P<{part}>{'|'.join(map(re.escape, SLOTS[part]))})" if i % 2 else re.escape(part) for i, part in enumerate(parts)))


@lru_cache(maxsize=200_000)
def parse_question(text: str) -> Question | None:
    """The question that `text` asks; None where it is not one of the testbed's (never an exception)."""
    text = " ".join(text.lower().split())
    for skill in SKILLS.values():
        for form in skill.forms:
            if text.startswith(form[:form.find("{")] if "{" in form else form) and (match := _pattern(form).fullmatch(text)):
                slots = match.groupdict()
                if "plural" in slots:
                    slots["kind"] = SINGULAR[slots.pop("plural")]
                return Question(skill.name, slots)
    return None


def phrase(question: Question, form: int = 0) -> str:
    """A question in words, in one of its skill's forms; the inverse of parsing: `parse_question(phrase(q)) == q`."""
    slots = question.slots
    plural = {"plural": PLURALS[slots["kind"]]} if "kind" in slots else {}
    return SKILLS[question.skill].forms[form].format(**slots, **plural)


def answer(scene: Scene, text: str) -> str | None:
    """The right answer to a question in words; "cannot tell" where there is no single one; None if it cannot be parsed."""
    question = parse_question(text)
    return None if question is None else SKILLS[question.skill].answer(scene, question.slots)
