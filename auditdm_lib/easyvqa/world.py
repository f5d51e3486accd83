"""What easy-VQA knows about its pictures, from its own questions and answers: a supplier of pictures with their truth."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from PIL import Image

from auditdm_lib.easyvqa import data


@dataclass(frozen=True)
class EasyVQA:
    """The truth about a list of the data set's pictures (see `protocols.Truth`); `i` is a picture's place in that list.

    A question of the data set has the answer that the data set gives to it for pictures of the same shape and colour; any other
    question has none, and neither has one that presupposes another shape or colour. No gap is planted in any model. Of a picture
    that was drawn anew nothing is known (None).
    """

    shown: tuple[data.Shown | None, ...]
    complete: ClassVar[bool] = True

    def take(self, rows: Sequence[int]) -> "EasyVQA":
        """The truth about some of the pictures, in the order of `rows`."""
        return EasyVQA(tuple(self.shown[i] for i in rows))

    def right_answer(self, i: int, question: str) -> str | None:
        """The data set's answer, or None where it has none."""
        if not self.knows(i):
            return None
        return data.answers().get((self.shown[i].shape, self.shown[i].colour, data.tidy(question)))

    def random_question(self, i: int, rng: random.Random) -> str:
        """One of the questions that the data set asks about picture i."""
        return rng.choice(self.shown[i].rows)[0]

    def all_questions(self, i: int) -> list[str]:
        """The 96 questions of the data set that have an answer in picture i."""
        if not self.knows(i):
            return []
        return [text for shape, colour, text in data.answers() if (shape, colour) == (self.shown[i].shape, self.shown[i].colour)]

    def told(self, kinds: Sequence[str], texts: Sequence[str | None]) -> tuple["EasyVQA", list[bool]]:
        """Nothing about pictures drawn anew, the others as they are; it understands no text, so it refuses none."""
        kept = (one if text is None else None for one, text in zip(self.shown, texts, strict=True))
        return EasyVQA(tuple(kept)), [False] * len(texts)

    def knows(self, i: int) -> bool:
        """Whether picture i is still the data set's own."""
        return self.shown[i] is not None

    def unlike(self, images: Sequence[Image.Image]) -> list[str | None]:
        """None for each, as the data set cannot tell what a picture shows."""
        return [None] * len(images)

    def skill(self, question: str) -> str | None:
        """What a question of the data set is about (see `data.kind`); None for any other."""
        return data.kind(question) if data.tidy(question) in {text for *_, text in data.answers()} else None

    def gaps_in(self, target: str | Path) -> tuple[Any, ...]:
        """None: whatever a model cannot do here, it was not made to."""
        return ()

    def gap(self, i: int, question: str, gaps: tuple[Any, ...]) -> str | None:
        """None, as there are no gaps."""
        return None

    def shows(self, i: int, gap: Any) -> bool:
        """False, as there are no gaps."""
        return False


def supply_pictures(n: int, split: str, seed: int) -> tuple[list[str], list[Image.Image], EasyVQA]:
    """Names, pictures and truth of `n` pictures of a split, shuffled by `seed` (see `protocols.PictureSource`).

    A split that holds fewer gives them again, in the same order and with the same names.
    """
    shown = list(data.split(split))
    random.Random(f"easy-vqa/{split}/{seed}").shuffle(shown)
    shown = [shown[i % len(shown)] for i in range(n)]
    return [one.name for one in shown], [data.picture(one.file) for one in shown], EasyVQA(tuple(shown))
