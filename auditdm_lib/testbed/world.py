"""What the testbed knows about its pictures: right answers, skills, gaps and every question that could be asked."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from PIL import Image

from auditdm_lib.testbed.gaps import Gap, gap_of, gaps_of
from auditdm_lib.testbed.language import Refusal, apply_edit, parse_caption
from auditdm_lib.testbed.questions import all_questions, sample_answerable
from auditdm_lib.testbed.render import render
from auditdm_lib.testbed.scenes import Scene, pose_after, sample_scenes
from auditdm_lib.testbed.skills import CANNOT_TELL, answer, parse_question


@dataclass(frozen=True)
class World:
    """The scenes behind a list of pictures, of one split; `i` is a picture's place in that list.

    A scene is None where nothing is known: the picture was drawn by another than the renderer, from a text outside the language.
    """

    scenes: list[Scene | None]
    split: str = "probe"
    complete: ClassVar[bool] = True

    def take(self, rows: Sequence[int]) -> "World":
        """The world of some of the pictures, in the order of `rows`."""
        return replace(self, scenes=[self.scenes[i] for i in rows])

    def right_answer(self, i: int, question: str) -> str | None:
        """The right answer; None where the question has none in this picture or is not in the language."""
        right = answer(self.scenes[i], question) if self.knows(i) else CANNOT_TELL
        return None if right == CANNOT_TELL else right

    def skill(self, question: str) -> str | None:
        parsed = parse_question(question)
        return parsed.skill if parsed else None

    def gaps_in(self, target: str | Path) -> tuple[Gap, ...]:
        """The gaps planted in a model, for grading only; none in a model that the testbed did not make."""
        return gaps_of(target)

    def gap(self, i: int, question: str, gaps: tuple[Gap, ...]) -> str | None:
        """The name of the first of `gaps` that holds, for grading only."""
        held = gap_of(self.scenes[i], question, gaps) if self.knows(i) else None
        return held[0].name if held else None

    def random_question(self, i: int, rng: random.Random) -> str:
        """A random answerable question: skills at equal chance."""
        return sample_answerable(self.scenes[i], rng)

    def told(self, kinds: Sequence[str], texts: Sequence[str | None]) -> tuple["World", list[bool]]:
        """The world if captions (kind `regeneration`) and edit commands (`edit`) were followed exactly, and whether text i cannot
        be followed or changes nothing; the scene is then None."""
        scenes = list(self.scenes)
        for i, (kind, text) in enumerate(zip(kinds, texts, strict=True)):
            if text is not None:
                new = apply_edit(self.scenes[i], text) if kind == "edit" else parse_caption(text)
                refused = isinstance(new, Refusal) or new == self.scenes[i]
                scenes[i] = None if refused else pose_after(self.scenes[i], new, text, self.split)
        return replace(self, scenes=scenes), [text is not None and new is None for text, new in zip(texts, scenes, strict=True)]

    def knows(self, i: int) -> bool:
        """Whether the scene of picture i is known."""
        return self.scenes[i] is not None

    def unlike(self, images: Sequence[Image.Image]) -> list[str | None]:
        """Why a picture does not show its scene, as the scene reader sees it; None where it does or no scene is known."""
        from auditdm_lib.testbed.reader import differences  # it loads a model, which only drawn pictures need

        known = [i for i in range(len(images)) if self.knows(i)]
        reasons = dict(zip(known, differences([images[i] for i in known], [self.scenes[i] for i in known]), strict=True))
        return [reasons.get(i) for i in range(len(images))]

    def shows(self, i: int, gap: Gap) -> bool:
        """Whether picture i lets one ask a question that meets a gap, for grading only."""
        asked = all_questions(self.scenes[i], [gap.skill]) if self.knows(i) else []
        return any(gap_of(self.scenes[i], text, (gap,)) for text in asked)

    def all_questions(self, i: int) -> list[str]:
        """Every answerable question about picture i (see there), for the ceiling of search success."""
        return all_questions(self.scenes[i]) if self.knows(i) else []


# What `protocols.PictureSource` and `protocols.Drawer` ask of a module

SOURCE = "testbed"  # the value of the parameter `pictures` that stands for this world


def supply_pictures(n: int, split: str, seed: int) -> tuple[list[str], list[Image.Image], World]:
    """Names, pictures and the world of `n` fresh scenes of a split."""
    scenes = sample_scenes(n, split, seed)
    return [f"{split}-{seed}-{i:05d}" for i in range(n)], [render(s) for s in scenes], World(scenes, split)


def can_draw(source: str) -> bool:
    """The renderer draws this world's pictures only."""
    return source == SOURCE


def draw(truth: World, images: list[Image.Image], kinds: list[str], texts: list[str | None],
         ) -> tuple[list[Image.Image | None], World, list[bool]]:
    """The pictures that captions and edit commands ask for, drawn exactly (see `protocols.Drawer`).

    Raises ValueError for pictures that this world did not draw.
    """
    if not isinstance(truth, World):
        raise ValueError("The renderer draws the testbed's pictures only: set drawer to diffusion, or set regeneration_share and "
                         "edit_share to 0.")
    told, refused = truth.told(kinds, texts)
    scenes = [old if r else new for old, new, r in zip(truth.scenes, told.scenes, refused, strict=True)]
    new = [render(scene) if text is not None and not r else None for scene, text, r in zip(scenes, texts, refused, strict=True)]
    return new, replace(truth, scenes=scenes), refused
