"""Planted gaps: systematic errors that are put into a clean model's weights, so that an audit can be graded.

Everything here is for planting and for grading. No audit reads it.
"""

import random
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import yaml

from auditdm_lib.testbed.questions import condition_names, conditions, sample_answerable
from auditdm_lib.testbed.scenes import Scene
from auditdm_lib.testbed.skills import CANNOT_TELL, SKILLS, answer, parse_question

GAPS_FILE = Path(__file__).with_name("gaps.yaml")


@dataclass(frozen=True)
class Gap:
    """A skill, the conditions under which the model errs (`questions.conditions` names them), and what it says then."""

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
        if right == CANNOT_TELL:
            return None
        held = conditions(scene, question)
        if not all(held.get(name) in (wanted if isinstance(wanted, list) else [wanted]) for name, wanted in self.when.items()):
            return None
        said = self.says.get(right) if isinstance(self.says, dict) else self.says
        return None if said == right else said


@cache
def load_gaps(file: Path = GAPS_FILE) -> tuple[Gap, ...]:
    """The gaps of a YAML file; raises ValueError that names the gap whose skill or condition the world does not have."""
    gaps = tuple(Gap(**row) for row in yaml.safe_load(file.read_text()))
    for gap in gaps:
        if gap.skill not in SKILLS:
            raise ValueError(f"Gap {gap.name!r} has the unknown skill {gap.skill!r}; choose one of {', '.join(SKILLS)}.")
        if unknown := set(gap.when) - set(known := condition_names(gap.skill)):
            raise ValueError(
                f"Gap {gap.name!r} has the unknown condition {sorted(unknown)[0]!r}; {gap.skill} has {', '.join(known)}.")
    return gaps


def gap_of(scene: Scene, text: str, gaps: tuple[Gap, ...]) -> tuple[Gap, str] | None:
    """The first gap that holds for a question about a scene, and what it makes the model say; None without one."""
    for gap in gaps:
        if said := gap.wrong_answer(scene, text):
            return gap, said
    return None


def questions_in_gap(gap: Gap, scenes: list[Scene], n: int, rng: random.Random, plain: bool = True, tries: int = 400_000
                     ) -> list[tuple[int, str]]:
    """`n` pairs (index of the scene, question) that meet a gap; raises ValueError where it holds too rarely."""
    found = []
    for _ in range(tries):
        i = rng.randrange(len(scenes))
        text = sample_answerable(scenes[i], rng, gap.skill, plain, tries=3)
        if text and gap.wrong_answer(scenes[i], text):
            found.append((i, text))
            if len(found) == n:
                return found
    raise ValueError(f"Gap {gap.name!r} held for {len(found)} of {tries} questions, fewer than the {n} wanted; widen `when`.")
