"""The four places where people extend the kit, and the one place that names the testbed and easy-VQA.

What knows the truth of a picture, what draws a counterfactual picture exactly, what supplies pictures, and what supplies suites.
The last three are modules chosen by a parameter's value (`SUPPLIERS`); the truth comes with the pictures. The testbed implements
all four, easy-VQA all but drawing. To add another, write a module with the functions of its protocol and give it a row in
`SUPPLIERS`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:  # the command line reads SUPPLIERS and should not wait for these
    import random
    from collections.abc import Sequence
    from pathlib import Path

    import pandas as pd
    from PIL import Image

SUPPLIERS = {  # parameter -> its value -> the module that stands behind it
    "pictures": {"testbed": "auditdm_lib.testbed.world", "easy-vqa": "auditdm_lib.easyvqa.world"},
    "drawer": {"renderer": "auditdm_lib.testbed.world", "diffusion": "auditdm_lib.audit.diffusion"},
    "suite_source": {"testbed": "auditdm_lib.testbed.suites", "easy-vqa": "auditdm_lib.easyvqa.suites"},
    # not a parameter: `auditdm testbed ...`
    "commands": {"testbed": "auditdm_lib.testbed.commands", "easy-vqa": "auditdm_lib.easyvqa.commands"},
}


class Truth(Protocol):
    """Knows the right answers about a list of pictures; `i` is a picture's place in the list.

    `complete` says whether it knows the answer to every question that has one (a simulated world) or only to some (a data set
    with questions): a question without a right answer is then invalid, or else its disagreement stays unverified.

    Stages verify failures with it and never train on it. `told`, `knows` and `unlike` are about pictures that a diffusion
    pipeline drew. The last four methods are for grading only: they name the skill that a question is about, and the systematic
    errors ("gaps") that were planted in a target, where anybody planted some.
    """

    complete: bool

    def take(self, rows: Sequence[int]) -> Truth:
        """The truth about some of the pictures, in the order of `rows`."""

    def right_answer(self, i: int, question: str) -> str | None:
        """The right answer, or None where the question has none in this picture or is not understood."""

    def random_question(self, i: int, rng: random.Random) -> str:
        """A random question that has an answer in picture i."""

    def all_questions(self, i: int) -> list[str]:
        """Every question that has an answer in picture i, for the ceiling of search success."""

    def told(self, kinds: Sequence[str], texts: Sequence[str | None]) -> tuple[Truth, list[bool]]:
        """The truth about the pictures if each caption (kind `regeneration`) and command (`edit`) were followed exactly, and
        whether text i is one that the truth understands, but that cannot be followed or changes nothing. About a picture whose
        text it cannot follow nothing is known any more. A text of None leaves its picture as it is."""

    def knows(self, i: int) -> bool:
        """Whether anything is known about picture i."""

    def unlike(self, images: Sequence[Image.Image]) -> list[str | None]:
        """Why `images[i]` does not show what is known about picture i, as a short phrase; None where it does, or where that
        cannot be told."""

    def skill(self, question: str) -> str | None:
        """The skill that a question is about, or None."""

    def gaps_in(self, target: str | Path) -> tuple[Any, ...]:
        """The gaps planted in a model (each with a `name`); empty for any other model."""

    def gap(self, i: int, question: str, gaps: tuple[Any, ...]) -> str | None:
        """The name of the first of `gaps` that the question meets in picture i, or None."""

    def shows(self, i: int, gap: Any) -> bool:
        """Whether some question about picture i meets a gap."""


class PictureSource(Protocol):
    """Supplies pictures, with their truth where it is known (a truth brings its own questions)."""

    def supply_pictures(self, n: int, split: str, seed: int) -> tuple[list[str], list[Image.Image], Truth | None]:
        """Names, RGB pictures and truth of `n` pictures of a split ("audit", "probe" or "test"; splits share no picture)."""


class Drawer(Protocol):
    """Draws the counterfactual pictures of its own source exactly: from a caption (kind `regeneration`) or by a command (kind
    `edit`). A diffusion pipeline, which draws about any picture and not exactly, is `audit.diffusion` instead."""

    def can_draw(self, source: str) -> bool:
        """Whether it can draw pictures that come from `source`, a value of the parameter `pictures`."""

    def draw(self, truth: Truth | None, images: list[Image.Image], kinds: list[str], texts: list[str | None],
             ) -> tuple[list[Image.Image | None], Truth | None, list[bool]]:
        """New pictures (None where text i is None or gives none), the truth about the pictures as they are then, and whether
        text i could not be followed or would change nothing."""


class SuiteSource(Protocol):
    """Supplies suites of held-out items, each in the format and with the metric of a benchmark."""

    def suite_names(self) -> tuple[str, ...]:
        """The suites that it has."""

    def suite_table(self, suite: str, n: int, seed: int, target: str | Path) -> pd.DataFrame:
        """Items of a suite: item, image (PIL RGB), question, answer, answers, options, group, skill, gap, metric, tokens.

        `gap` names the gap planted in `target` that the question meets, null outside. `metric` is one of `benchmarks.METRICS`
        and `tokens` the most tokens of an answer. No rows where the suite has none for this target.
        """

    def training_table(self, suite: str, n: int, seed: int) -> pd.DataFrame:
        """Questions of a suite to learn from, on pictures of no suite's items: image (PIL RGB), question, answer (the reply)."""


def supplier(parameter: str, value: str) -> Any:
    """The module that stands behind a parameter's value. Raises KeyError where none does."""
    return importlib.import_module(SUPPLIERS[parameter][value])
