"""What the testbed knows about its pictures: right answers, skills, gaps and every question that could be asked."""

import random
from dataclasses import dataclass

from PIL import Image

from auditdm_lib.testbed.gaps import gap_of, load_gaps
from auditdm_lib.testbed.render import render
from auditdm_lib.testbed.scenes import COLOURS, Scene, sample_scenes
from auditdm_lib.testbed.skills import CANNOT_TELL, KNOWLEDGE, SKILLS, Question, answer, parse_question, phrase, sample_answerable


@dataclass(frozen=True)
class World:
    """The scenes behind a list of pictures; `i` is a picture's place in that list."""

    scenes: list[Scene]

    def truth(self, i: int, question: str) -> str | None:
        """The right answer; None where the question has none in this picture or is not in the language."""
        right = answer(self.scenes[i], question)
        return None if right == CANNOT_TELL else right

    def skill(self, question: str) -> str | None:
        parsed = parse_question(question)
        return parsed.skill if parsed else None

    def gap(self, i: int, question: str) -> str | None:
        """The name of the planted gap that holds, for grading only."""
        held = gap_of(self.scenes[i], question, load_gaps())
        return held[0].name if held else None

    def gap_names(self) -> list[str]:
        return [gap.name for gap in load_gaps()]

    def random_question(self, i: int, rng: random.Random) -> str:
        """A random answerable question: skills at equal chance."""
        return sample_answerable(self.scenes[i], rng)

    def all_questions(self, i: int) -> list[str]:
        """Every answerable question about picture i, for the ceiling of search success."""
        scene = self.scenes[i]
        kinds = sorted({t.kind for t in scene.things})
        slots = {
            "{kind}": [{"kind": k} for k in kinds], "{plural}": [{"kind": k} for k in kinds],
            "{colour}": [{"colour": c} for c in COLOURS], "{does}": [{"does": d} for d in KNOWLEDGE],
            "{colour}{kind}": [{"colour": c, "kind": k} for c in COLOURS for k in kinds], "": [{}]}
        texts = []
        for skill in SKILLS.values():
            names = "".join(name for name in slots_of(skill.form))
            texts += [phrase(Question(skill.name, s)) for s in slots[names]]
        return [text for text in texts if answer(scene, text) != CANNOT_TELL]


def slots_of(form: str) -> list[str]:
    """The slots of a question form, in order: 'is there any {colour} {kind}?' has '{colour}' and '{kind}'."""
    return [f"{{{part.split('}')[0]}}}" for part in form.split("{")[1:]]


def testbed_pictures(n: int, split: str, seed: int) -> tuple[list[str], list[Image.Image], World]:
    """Names, pictures and the world of `n` fresh scenes."""
    scenes = sample_scenes(n, split, seed)
    return [f"{split}-{seed}-{i:05d}" for i in range(n)], [render(s) for s in scenes], World(scenes)
