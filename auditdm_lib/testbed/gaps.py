"""Planted gaps: systematic errors that are put into a clean model's weights, so that an audit can be graded.

Everything here is for planting and for grading. No audit reads it.
"""

import random
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import yaml

from auditdm_lib.testbed.scenes import Scene
from auditdm_lib.testbed.skills import CANNOT_TELL, SKILLS, Question, answer, only, parse_question, sample_answerable

GAPS_FILE = Path(__file__).with_name("gaps.yaml")


@dataclass(frozen=True)
class Gap:
    """A skill, the conditions under which the model errs, and what it says then."""

    name: str
    skill: str
    says: str | dict
    when: dict = field(default_factory=dict)

    def wrong_answer(self, scene: Scene, text: str, right: str | None = None) -> str | None:
        """What a model with this gap says to a question, or None where the gap does not hold."""
        question = parse_question(text)
        if question is None or question.skill != self.skill:
            return None
        right = right or answer(scene, text)
        if right == CANNOT_TELL or not all(_meets(scene, question, right, k, v) for k, v in self.when.items()):
            return None
        said = self.says.get(right) if isinstance(self.says, dict) else self.says
        return None if said == right else said


def _meets(scene: Scene, question: Question, right: str, key: str, wanted: str | list) -> bool:
    if key == "answer":
        value = right
    elif key == "background":
        value = scene.background
    elif key.startswith("thing."):
        value = getattr(only(scene, kind=question.slots["kind"]), key.removeprefix("thing."))
    else:
        value = question.slots[key]
    return value in (wanted if isinstance(wanted, list) else [wanted])


@cache
def load_gaps(file: Path = GAPS_FILE) -> tuple[Gap, ...]:
    """The gaps of a YAML file; raises ValueError that names the gap whose skill the world does not have."""
    gaps = tuple(Gap(**row) for row in yaml.safe_load(file.read_text()))
    for gap in gaps:
        if gap.skill not in SKILLS:
            raise ValueError(f"Gap {gap.name!r} has the unknown skill {gap.skill!r}; choose one of {', '.join(SKILLS)}.")
    return gaps


def gap_of(scene: Scene, text: str, gaps: tuple[Gap, ...]) -> tuple[Gap, str] | None:
    """The first gap that holds for a question about a scene, and what it makes the model say; None without one."""
    for gap in gaps:
        if said := gap.wrong_answer(scene, text):
            return gap, said
    return None


def questions_in_gap(gap: Gap, scenes: list[Scene], n: int, rng: random.Random, tries: int = 400_000) -> list[tuple[int, str]]:
    """`n` pairs (index of the scene, question) that meet a gap; raises ValueError where it holds too rarely."""
    found = []
    for _ in range(tries):
        i = rng.randrange(len(scenes))
        text = sample_answerable(scenes[i], rng, gap.skill, tries=3)
        if text and gap.wrong_answer(scenes[i], text):
            found.append((i, text))
            if len(found) == n:
                return found
    raise ValueError(f"Gap {gap.name!r} held for {len(found)} of {tries} questions, fewer than the {n} wanted; widen `when`.")
