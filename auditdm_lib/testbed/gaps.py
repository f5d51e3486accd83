"""Planted gaps: systematic errors fine-tuned into a clean model's weights, so that an audit can be graded against them.

This module is for planting and grading only; no audit reads it.
"""

import random
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from pathlib import Path

import yaml

from auditdm_lib import paths
from auditdm_lib.testbed.questions import condition_names, conditions, sample_answerable
from auditdm_lib.testbed.scenes import (
    BACKGROUNDS,
    COLUMNS,
    DETAILS,
    MATERIALS,
    NUMBERS,
    ROWS,
    SIZES,
    WEATHERS,
    Scene,
    sample_scenes,
)
from auditdm_lib.testbed.skills import CANNOT_TELL, SKILLS, SLOTS, answer, parse_question

GAPS_FILE = Path(__file__).with_name("gaps.yaml")
RECORD = "gaps.yaml"  # in a checkpoint's folder: the gaps planted into it
WORDS = SLOTS | {  # condition, without "thing." -> its possible values
    "background": tuple(BACKGROUNDS), "weather": WEATHERS, "things": NUMBERS[:10], "size": SIZES, "row": ROWS, "column": COLUMNS,
    "material": MATERIALS, "detail": tuple(detail for details in DETAILS.values() for detail in details)}


@dataclass(frozen=True)
class Gap:
    """A skill, the conditions under which the model errs (named as in `questions.conditions`), and its answer then."""

    name: str
    skill: str
    says: str | dict
    when: dict = field(default_factory=dict)

    def wrong_answer(self, scene: Scene, text: str, right: str | None = None) -> str | None:
        """The answer of a model with this gap to a question; None where the gap does not hold."""
        question = parse_question(text)
        if question is None or question.skill != self.skill:
            return None
        right = right or answer(scene, text)
        if right == CANNOT_TELL:
            return None
        held = conditions(scene, question)
        if not all(held.get(name) in (wanted if isinstance(wanted, list) else [wanted]) for name, wanted in self.when.items()):
            return None
        planted = self.says.get(right) if isinstance(self.says, dict) else self.says
        return None if planted == right else planted


def read_gap(row: dict) -> Gap:
    """A gap from the fields of a YAML mapping; the name is optional.

    Raises ValueError, with the gap's name, for a field, skill, condition, value or answer that the testbed does not have.
    """
    if not isinstance(row, dict) or not {"skill", "says"} <= set(row):
        raise ValueError(f"A gap is a mapping with the fields skill, says and, optionally, name and when; not {row!r}.")
    row = {"name": f"{row['skill']} says {row['says']}", **row, "when": row.get("when") or {}}
    if unknown := set(row) - {f.name for f in fields(Gap)}:
        raise ValueError(f"Gap {row['name']!r} has the unknown field {sorted(unknown)[0]!r}; it has name, skill, when and says.")
    gap = Gap(**row)
    if gap.skill not in tuple(SKILLS):
        raise ValueError(f"Gap {gap.name!r} has the unknown skill {gap.skill!r}; choose one of {', '.join(SKILLS)}.")
    if not isinstance(gap.when, dict) or gap.says in ({}, [], None):
        raise ValueError(f"Gap {gap.name!r}: `when` maps conditions to words, `says` is an answer or maps right to wrong ones.")
    if unknown := set(gap.when) - set(known := condition_names(gap.skill)):
        raise ValueError(
            f"Gap {gap.name!r} has the unknown condition {sorted(unknown)[0]!r}; {gap.skill} has {', '.join(known)}.")
    answers = (*SKILLS[gap.skill].answers, CANNOT_TELL)
    for word in (*gap.says, *gap.says.values()) if isinstance(gap.says, dict) else (gap.says,):
        _known(gap, "says", word, answers)
    for name, wanted in gap.when.items():
        for word in wanted if isinstance(wanted, list) else [wanted]:
            _known(gap, name, word, answers[:-1] if name == "answer" else WORDS[name.removeprefix("thing.")])
    return gap


def _known(gap: Gap, where: str, word: str, known: tuple[str, ...]) -> None:
    if word not in known:
        quoted = "; in YAML, put yes and no in quotes" if isinstance(word, bool) else ""
        shown = ", ".join(known[:40]) + (" ..." if len(known) > 40 else "")
        raise ValueError(f"Gap {gap.name!r} has {word!r} for {where!r}; choose one of {shown}{quoted}.")


@cache
def load_gaps(file: Path = GAPS_FILE) -> dict[str, tuple[Gap, ...]]:
    """The declared gaps, by the name of the model that they are planted into. Raises ValueError as `read_gap` does."""
    return {model: tuple(read_gap(row) for row in rows) for model, rows in yaml.safe_load(file.read_text()).items()}


def gaps_of(model: str | Path) -> tuple[Gap, ...]:
    """The gaps that `plant` put into a checkpoint, as recorded in its folder; none for any other folder or a hub id."""
    file = paths.place(model) / RECORD
    return tuple(read_gap(row) for row in yaml.safe_load(file.read_text())) if file.is_file() else ()


def save_gaps(gaps: tuple[Gap, ...], folder: Path) -> None:
    (folder / RECORD).write_text(yaml.safe_dump([asdict(gap) for gap in gaps], sort_keys=False))


def gap_of(scene: Scene, text: str, gaps: tuple[Gap, ...]) -> tuple[Gap, str] | None:
    """The first gap that holds for a question about a scene, and the wrong answer it causes; None where none holds."""
    for gap in gaps:
        if wrong := gap.wrong_answer(scene, text):
            return gap, wrong
    return None


def questions_in_gap(gap: Gap, scenes: list[Scene], n: int, rng: random.Random, repeats: bool = False, tries: int = 400_000
                     ) -> list[tuple[int, str]]:
    """`n` pairs (index of the scene, question) inside a gap, all different unless `repeats`. Raises ValueError where `tries`
    draws find fewer."""
    found = []
    seen = set()
    for _ in range(tries):
        i = rng.randrange(len(scenes))
        text = sample_answerable(scenes[i], rng, gap.skill, tries=3)
        if text and gap.wrong_answer(scenes[i], text):
            if repeats or (i, text) not in seen:
                found.append((i, text))
                seen.add((i, text))
            if len(found) == n:
                return found
    raise ValueError(f"Gap {gap.name!r} held for {len(found)} of {tries} questions, fewer than the {n} needed; widen `when`.")


def random_gap(rng: random.Random, least: float = 0.05) -> Gap:
    """A random gap: a skill, one condition, and an answer that is wrong for at least a share `least` of the skill's questions."""
    scenes = sample_scenes(200, "train", rng.random())
    while True:
        skill = rng.choice(tuple(SKILLS))
        asked = [(scene, text) for scene in scenes if (text := sample_answerable(scene, rng, skill, tries=3))]
        if not asked:
            continue
        scene, text = rng.choice(asked)
        condition, value = rng.choice([(name, value) for name, value in conditions(scene, parse_question(text)).items() if value])
        says = rng.choice([other for other in SKILLS[skill].answers if other != answer(scene, text)])
        gap = Gap(f"{skill} with {condition} {value} is {says}", skill, says, {condition: value})
        if sum(gap.wrong_answer(scene, text) is not None for scene, text in asked) >= least * len(asked):
            return gap
