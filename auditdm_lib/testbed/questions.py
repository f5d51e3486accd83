"""Questions about scenes: random, answerable or all of them; and the conditions that hold for a question."""

import itertools
import random
from collections.abc import Iterable

from auditdm_lib.testbed.scenes import BEAD, COLOURS, DETAILS, KINDS, NUMBERS, PICTOGRAMS, SHAPES, Scene, Thing
from auditdm_lib.testbed.skills import (
    CANNOT_TELL,
    KNOWLEDGE,
    PLURALS,
    SKILLS,
    SLOTS,
    Question,
    answer,
    only,
    parse_question,
    slots_of,
)

SEEN = 0.8  # share of a question's slots that are filled from what is in the scene
TRIES = 12
# Share of training and evaluation questions drawn without checking that they have an answer; one question in six has none.
UNANSWERABLE = 0.35
# Kinds about as frequent as in scenes: with equal shares, a rare kind alone would predict the answer "zero" or "no".
AS_COMMON = (*4 * (*SHAPES, *DETAILS, BEAD), *PICTOGRAMS)
THING = ("colour", "size", "row", "column", "detail", "material")


def _words(scene: Scene, rng: random.Random, skill: str, form: str) -> dict[str, str]:
    """Words for the slots of a question form, mostly from what is in the scene; the question may have no answer."""
    asks = SKILLS[skill].asks
    worth = [t for t in scene.things if asks(scene, t)]
    things = rng.sample(worth, 2) if len(worth) > 1 else worth * 2 or [Thing(_any_kind(rng, skill), "red", "large", 0)] * 2
    words = {}
    for slot in slots_of(form):
        seen = rng.random() < SEEN
        thing = things[slot.endswith("2")]
        if slot in ("kind", "kind2", "shape"):
            words[slot] = thing.kind if seen else _any_kind(rng, skill)
        elif slot == "plural":
            words[slot] = PLURALS[thing.kind if seen else _any_kind(rng, skill)]
        elif slot in ("colour", "colour2"):
            palette = [thing.colour] if skill == "exists" and rng.random() < 0.6 else [t.colour for t in scene.things]
            words[slot] = rng.choice(palette if seen and palette else tuple(COLOURS))
        elif slot == "does":
            present = [does for does, kind in KNOWLEDGE.items() if any(t.kind == kind for t in scene.things)]
            words[slot] = rng.choice(present if present and seen else SLOTS[slot])
        elif slot == "beside":
            words[slot] = f"{things[1].colour} {things[1].kind}"
        elif slot == "row":
            words[slot] = rng.choice([t.row for t in scene.things] if seen and scene.things else SLOTS[slot])
        else:
            words[slot] = rng.choice(SLOTS[slot])
    return words


def _any_kind(rng: random.Random, skill: str) -> str:
    return rng.choice(SHAPES if skill == "material" else AS_COMMON if skill in ("count_kind", "exists") else KINDS)


def draw_question(scene: Scene, rng: random.Random, skill: str) -> str:
    """A question of one skill in one of its forms, mostly about what is in the scene; it may have no answer."""
    form = rng.choice(SKILLS[skill].forms)
    return form.format(**_words(scene, rng, skill, form))


def _is_of(scene: Scene, text: str, wanted: str | None) -> bool:
    """Whether a question has an answer and, if `wanted` names a class of answers, one of that class."""
    question, right = parse_question(text), answer(scene, text)
    if right == CANNOT_TELL or wanted is None:
        return right != CANNOT_TELL
    return SKILLS[question.skill].balance(right, question.slots) == wanted


def sample_answerable(scene: Scene, rng: random.Random, skill: str | None = None, tries: int = TRIES) -> str | None:
    """A question that has an answer; None where `tries` draws of a given `skill` found none for this scene.

    For skills with answer `classes` (yes/no questions, comparisons) a class is drawn first, so that the most frequent answer
    is not a good guess. A scene that allows no answer of that class gives None, or, without `skill`, another skill is drawn.
    """
    while True:
        chosen = skill or rng.choice(tuple(SKILLS))
        wanted = rng.choice(SKILLS[chosen].classes or (None,))
        for _ in range(tries):
            text = draw_question(scene, rng, chosen)
            if _is_of(scene, text, wanted):
                return text
        if skill:
            return None


def sample_question(scene: Scene, rng: random.Random, unanswerable: float = 0.2) -> str:
    """A question about a scene; with probability `unanswerable` it is drawn without checking that it has an answer."""
    if rng.random() < unanswerable:
        return draw_question(scene, rng, rng.choice(tuple(SKILLS)))
    return sample_answerable(scene, rng)


def all_questions(scene: Scene, skills: Iterable[str] = tuple(SKILLS)) -> list[str]:
    """Every answerable question, in the first form of its skill, about what is in a scene and about two kinds that are not:
    one shape and one other kind."""
    kinds = tuple(dict.fromkeys(t.kind for t in scene.things))
    kinds += tuple(next(k for k in some if k not in kinds) for some in (SHAPES, (*PICTOGRAMS, *DETAILS)))
    present = {"kind": kinds, "kind2": kinds, "shape": kinds, "plural": tuple(PLURALS[k] for k in kinds),
               "beside": tuple(dict.fromkeys(f"{t.colour} {t.kind}" for t in scene.things))}
    texts = []
    for skill in skills:
        form = SKILLS[skill].forms[0]
        slots = slots_of(form)
        texts += [form.format(**dict(zip(slots, words, strict=True)))
                  for words in itertools.product(*(present.get(slot, SLOTS[slot]) for slot in slots))]
    return [text for text in texts if answer(scene, text) not in (None, CANNOT_TELL)]


def conditions(scene: Scene, question: Question) -> dict[str, str]:
    """Conditions that hold for a question about a scene, by the names that a gap's `when` may use.

    Always: answer, background, weather, things (their number, in words), and the question's slots. Where the question is about
    a single thing, also: thing.colour, thing.size, thing.row, thing.column, thing.detail, thing.material.
    """
    skill, slots = SKILLS[question.skill], question.slots
    held = dict(answer=skill.answer(scene, slots), background=scene.background, weather=scene.weather,
                things=NUMBERS[len(scene.things)], **slots)
    kind = skill.about or slots.get("kind", slots.get("shape", KNOWLEDGE.get(slots.get("does"))))
    thing = only(scene, kind=kind) if kind else only(scene, colour=slots["colour"]) if question.skill == "name" else None
    return held | ({f"thing.{name}": getattr(thing, name) for name in THING} if thing else {})


def condition_names(skill: str) -> tuple[str, ...]:
    """The condition names that a gap in this skill may use in `when`."""
    slots = dict.fromkeys(slot.replace("plural", "kind") for form in SKILLS[skill].forms for slot in slots_of(form))
    about_thing = SKILLS[skill].about or skill == "name" or {"kind", "shape", "does"} & set(slots)
    return ("answer", "background", "weather", "things", *slots, *(f"thing.{name}" for name in THING if about_thing))
